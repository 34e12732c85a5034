"""mCE and relative mCE: the mean over the stresses of a table of their (relative) corruption errors.

Hendrycks & Dietterich 2019, section 4. Theirs is the mean over fifteen corruptions that every model saw; here the
stresses are those of the table, and a mean over fewer of them, or against different baselines, is null with a note.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from corruptions import InputError
from corruptions.grid import ALL_AVAILABLE
from corruptions.registry import did_you_mean
from robustbench_msa.analysis.grid_scores import mce

_LINE = ["model", "recipe", "train_seed", "checkpoint"]
_OVER = ["dataset", "split", "profile", "stress", "params", "grid", "metric"]
_NEEDED = [*_LINE, *_OVER, "ce", "relative_ce", "baseline", "reasons"]
_ALL = f",{ALL_AVAILABLE}"
COLUMNS = [*_LINE, "mce", "relative_mce", "n_stresses", "baseline", "note"]


def mean_ce(nauc: pd.DataFrame, metric: str) -> pd.DataFrame:
    """mCE and relative mCE of every line by one metric, over all stresses of the table.

    Args:
        nauc: rows of the derived table, of one dataset and split; select rows first to average over fewer stresses.
        metric: one that has an error form (an accuracy or MAE); of others all means are null.

    Returns:
        One row a line with the columns COLUMNS, in the order of the table. ``n_stresses``: how many the line has a row
        for. A mean is null, and ``note`` says why, where the line has no row or no (relative) CE under one of the
        stresses, where a stress was run over several grids, and where baselines differ between stresses.

    Raises:
        InputError: not such a table, no rows, several datasets or splits, a metric that is not in it.

    >>> row = {"model": "a", "recipe": "clean", "train_seed": 1, "checkpoint": "c", "dataset": "d", "split": "test"}
    >>> row |= {"profile": "mosi", "params": "", "grid": "0,1", "metric": "mae", "baseline": "b", "reasons": None}
    >>> noise = row | {"stress": "noise", "ce": 0.9, "relative_ce": 1.2}
    >>> missing = row | {"stress": "missing", "ce": 0.7, "relative_ce": 0.8}
    >>> mean_ce(pd.DataFrame([noise, missing]), "mae")[["mce", "relative_mce", "n_stresses"]].to_dict("list")
    {'mce': [0.8], 'relative_mce': [1.0], 'n_stresses': [2]}
    """
    rows = _rows(nauc, metric)
    grids = {str(title): sorted(set(some["grid"])) for title, some in rows.groupby("under", sort=False)}
    several = [f"{stress} has {len(found)} grids: {', '.join(found)}" for stress, found in grids.items() if found[1:]]
    means = []
    for line, own in rows.groupby(_LINE, sort=False, dropna=False):
        by_stress = {str(row["under"]): row for row in own.to_dict("records")}
        missing = [f"no row under {stress}" for stress in grids if stress not in by_stress]
        baselines = list(own["baseline"].dropna().unique())
        differ = [f"baselines differ: {'; '.join(baselines)}"] if len(baselines) > 1 else []
        why = several or missing or differ
        (ce, note), (relative, other_note) = (_mean(by_stress, score, why) for score in ("ce", "relative_ce"))
        notes = "; ".join(dict.fromkeys(filter(None, [note, other_note])))
        baseline = baselines[0] if len(baselines) == 1 else None
        means.append((*line, ce, relative, len(by_stress), baseline, notes or None))
    kinds = {name: rows[name].dtype for name in _LINE} | {"mce": "float64", "relative_mce": "float64"}
    return pd.DataFrame(means, columns=COLUMNS).astype(kinds)


def _mean(
    by_stress: Mapping[str, Mapping[Hashable, Any]], score: str, why: list[str]
) -> tuple[float | None, str | None]:
    """Of one line: the mean and None, or None and why there is none."""
    why = why or [
        f"{score} is null under {stress}{_because(row['reasons'], score)}"
        for stress, row in by_stress.items()
        if pd.isna(row[score])
    ]
    return (None, why[0]) if why else (float(mce([row[score] for row in by_stress.values()])), None)


def _because(reasons: Any, score: str) -> str:
    """reasons: pairs as pyarrow gives them, or a mapping; none in a table that was read from an old folder."""
    known = dict(reasons) if isinstance(reasons, list | tuple | Mapping) else {}
    return f": {known[score]}" if score in known else ""


def _rows(nauc: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of this metric, with the stress in words (``under``). Available sets with and without the full one have
    the same CE, and count once."""
    if missing := [name for name in _NEEDED if name not in nauc]:
        raise InputError(f"mean CE: expected the table nauc, but it has no column {missing[0]!r} (derive it again)")
    if nauc.empty:
        raise InputError("mean CE: the table has no rows; run some cells first")
    for column in ("dataset", "split", "profile"):
        if len(found := sorted(map(str, nauc[column].unique()))) > 1:
            raise InputError(f"mean CE: expected one {column}, got {', '.join(found)}; select one of them first")
    known = list(map(str, nauc["metric"].unique()))
    if metric not in known:
        raise InputError(
            f"mean CE: no rows of metric {metric!r}{did_you_mean(metric, known)}; there is {', '.join(known)}"
        )
    rows = nauc[nauc["metric"] == metric].assign(
        under=lambda frame: frame["stress"].where(frame["params"] == "", frame["stress"] + ":" + frame["params"])
    )
    full = rows[rows["grid"].str.endswith(_ALL)]
    partial = set(zip(full["under"], full["grid"].str.removesuffix(_ALL), strict=True))
    return rows[[key not in partial for key in zip(rows["under"], rows["grid"], strict=True)]]
