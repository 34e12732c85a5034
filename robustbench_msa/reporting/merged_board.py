"""The leaderboard of one or several runs' folders, as if one run had made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from corruptions import InputError
from robustbench_msa.analysis.merged import open_tables, together
from robustbench_msa.analysis.mixing import check_mixable
from robustbench_msa.evaluation.records import Planned, recall
from robustbench_msa.evaluation.schemas import NAUC, frame_of
from robustbench_msa.evaluation.store import Store
from robustbench_msa.published import published
from robustbench_msa.reporting.leaderboard import Leaderboard, leaderboard


def merged_board(
    folders: Sequence[str | Path],
    metrics: Sequence[str] | None = None,
    sort: str | None = None,
    *,
    scores: Sequence[str] | None = None,
    baseline: str | None = None,
    ties: bool = True,
    papers: Sequence[str] | None = None,
) -> Leaderboard:
    """The board of runs on the same data; nothing is run again.

    Args:
        metrics, sort, scores: as ``leaderboard``.
        baseline: the model whose errors corruption errors divide by; default late_fusion. All rows are compared with
            one line of it, that of recipe clean where there is one.
        ties: ranks with intervals and what is tied with the best, from the stored predictions. Without, one folder's
            finished table is read as it stands, in a moment.
        papers: show their published numbers in grey; an empty list: of all five.

    Raises:
        InputError: a folder that is none of a run's, folders that do not belong in one table (``check_mixable``), or as
            ``leaderboard``.
    """
    plans = _plans(folders)
    check_mixable(plans)
    as_stored = len(plans) == 1 and not ties and baseline is None and not {"ce", "relative_ce"} & set(scores or ())
    stored = _stored(next(iter(plans))) if as_stored else None
    tables = open_tables(list(plans), baseline=baseline, one_baseline=True) if stored is None else None
    nauc = tables.nauc() if tables is not None else stored
    assert nauc is not None
    if not nauc.num_rows:
        raise InputError(
            f"leaderboard: no grid is finished yet in {', '.join(plans)}; continue with the same msabench run"
        )
    return leaderboard(
        frame_of(nauc),
        metrics,
        sort,
        scores=scores,
        manifest=together(list(plans.values())).manifest,
        tables=tables if ties else None,
        published=None if papers is None else _published(papers),
    )


def _plans(folders: Sequence[str | Path]) -> dict[str, Planned]:
    """By name as typed; a folder that is given twice counts once."""
    names = {Path(folder).resolve(): str(folder) for folder in reversed(folders)}
    kept = [str(folder) for folder in dict.fromkeys(map(str, folders)) if str(folder) in names.values()]
    return {name: recall(Store(Path(name))) for name in kept}


def _stored(folder: str) -> pa.Table | None:
    """The finished table; None where it was made before it had all scores."""
    table = Store(Path(folder)).read_table("nauc", NAUC)
    return None if table["reasons"].null_count == table.num_rows else table


def _published(papers: Sequence[str]) -> pd.DataFrame:
    return pd.concat([published(paper) for paper in papers], ignore_index=True) if papers else published()
