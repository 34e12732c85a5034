"""Paired differences as tables: everyone against the best of each score, with what a reviewer asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from corruptions import InputError
from robustbench_msa.analysis.metrics import Metric, get_profile
from robustbench_msa.reporting import names
from robustbench_msa.reporting.entries import choose_metrics

SIDES = ("model", "recipe", "train_seed", "checkpoint")
LEVEL = 0.05


def comparison_frame(comparisons: pd.DataFrame, score: str, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """The pairs of one score over grids, in the metrics asked for (default: the profile's usual ones).

    Raises:
        InputError: no two lines that share a grid, or a metric that nobody has.
    """
    frame = comparisons[(comparisons["score"] == score) & comparisons["grid"].notna()]
    if frame.empty:
        raise InputError(f"compare: no two models here share a {score}; run several models on the same grid")
    chosen = [metric.name for metric in choose_metrics(frame, metrics)]
    kept = frame[frame["metric"].isin(chosen)]
    order = kept.assign(_metric=kept["metric"].map(chosen.index))
    by = ["stress", "params", "grid", "_metric", "claim"]
    return order.sort_values(by, kind="stable").drop(columns="_metric").reset_index(drop=True)


def comparison_tables(frame: pd.DataFrame) -> Iterator[Table]:
    """One table per stress, grid, metric and claim: the best line, and everyone else against it."""
    for (stress, params, grid, metric, claim), pairs in frame.groupby(
        ["stress", "params", "grid", "metric", "claim"], sort=False, dropna=False
    ):
        chosen = get_profile(str(pairs["profile"].iloc[0])).metric(str(metric))
        title = f"{names.stress_title(str(stress), str(params or ''))} {grid}: {names.metric_label(chosen)}"
        yield _table(f"{title}, claims about {'methods' if claim == 'method' else 'checkpoints'}", chosen, pairs)


def against_best(pairs: pd.DataFrame, metric: Metric) -> list[dict[str, Any]]:
    """The best line first, then the others against it (other minus best), by their value. Values as stored."""
    lines: dict[tuple[Any, ...], float] = {}
    for side in "ab":
        for row in pairs[[*(f"{name}_{side}" for name in SIDES), f"value_{side}"]].itertuples(index=False):
            lines.setdefault(tuple(_key(value) for value in row[:-1]), float(row[-1]))
    sign = -1 if metric.higher_is_better else 1
    order = sorted(lines, key=lambda line: sign * lines[line])
    rows: list[dict[str, Any]] = [{"line": order[0], "value": lines[order[0]]}]
    for line in order[1:]:
        rows.append({"line": line, "value": lines[line], **_difference(pairs, line, order[0])})
    return rows


def _difference(pairs: pd.DataFrame, line: tuple[Any, ...], best: tuple[Any, ...]) -> dict[str, Any]:
    for row in pairs.to_dict("records"):
        a, b = (tuple(_key(row[f"{name}_{side}"]) for name in SIDES) for side in "ab")
        if (a, b) == (line, best):
            low, high, difference = row["ci_low"], row["ci_high"], row["difference"]
        elif (b, a) == (line, best):
            low, high, difference = -row["ci_high"], -row["ci_low"], -row["difference"]
        else:
            continue
        return {"difference": difference, "low": low, "high": high, "p": row["p_bootstrap"], "p_holm": row["p_holm"]}
    return {}


def _table(title: str, metric: Metric, pairs: pd.DataFrame) -> Table:
    first = pairs.iloc[0]
    groups = f"{int(first['n'])} samples, {int(first['n_groups'])} groups, {int(first['n_seeds'])} corruption seeds"
    note = f"; {first['note']}" if isinstance(first["note"], str) and first["note"] else ""
    table = Table(
        title=title,
        title_justify="left",
        caption=f"Other minus best, 95 % intervals, p after Holm over {int(first['n_tests'])} pairs ({groups}){note}",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    table.add_column("model")
    for heading in ("value", "difference", "interval", "p", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    rows = against_best(pairs, metric)
    recipes = {row["line"][1] for row in rows}
    seeds = [row["line"][:2] for row in rows]
    for row in rows:
        model, recipe, seed, _ = row["line"]
        told = [recipe] if len(recipes) > 1 and recipe else []
        told += [f"seed {seed}"] if seed is not None and seeds.count((model, recipe)) > 1 else []
        label = " ".join([names.MODELS.get(model, model), *told])
        value = names.format_value(metric, row["value"])
        if "difference" not in row or pd.isna(row["difference"]):
            table.add_row(label, value, "", "", "", "", "best" if "difference" not in row else "undefined")
            continue
        interval = f"[{_signed(metric, row['low'])}, {_signed(metric, row['high'])}]"
        verdict = "worse" if row["p_holm"] < LEVEL else "tied"
        difference = _signed(metric, row["difference"])
        table.add_row(label, value, difference, interval, _p(row["p"]), _p(row["p_holm"]), verdict)
    return table


def _p(value: float) -> str:
    """
    >>> _p(0.0004), _p(0.0305)
    ('<.001', '.030')
    """
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def _signed(metric: Metric, value: float) -> str:
    text = names.format_value(metric, None if pd.isna(value) else value)
    return text if text.startswith("-") or text == names.NULL else f"+{text}"


def _key(value: Any) -> Any:
    """Missing values compare equal."""
    return None if value is None or pd.isna(value) else value
