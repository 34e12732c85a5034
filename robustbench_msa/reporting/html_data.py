"""What the HTML report shows, read from the folders of runs: scores, what is missing, and what happens inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from corruptions import InputError
from robustbench_msa.analysis.inside.breaking import BreakingInfo, breaking_info
from robustbench_msa.analysis.inside.cells import WHO
from robustbench_msa.analysis.inside.reliability import ReliabilityInfo, reliability_info
from robustbench_msa.analysis.inside.routing import routing_table
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.metrics import get_profile
from robustbench_msa.analysis.tables import Tables, cells_table
from robustbench_msa.evaluation.progress import Report, progress_of
from robustbench_msa.evaluation.records import Planned, recall
from robustbench_msa.evaluation.schemas import RUNTIME, frame_of
from robustbench_msa.evaluation.store import Store
from robustbench_msa.reporting.board import Board
from robustbench_msa.reporting.leaderboard import leaderboard

Step = Callable[[str], None]
STEPS = ("reading predictions", "curves", "leaderboard", "routing", "reliability", "breaking")
T = TypeVar("T")


class Run(NamedTuple):
    """One folder: how far it has come, its plan, the facts of its finished cells, and what they ran on."""

    folder: Path
    state: Report
    planned: Planned
    cells: pd.DataFrame
    runtime: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Inside:
    """What happens inside the models, of all folders together; None where nothing is known, and why."""

    routing: pd.DataFrame | None
    reliability: ReliabilityInfo | None
    breaking: BreakingInfo | None
    why: dict[str, str] = field(default_factory=dict)


class Gathered(NamedTuple):
    """Everything the report is made from. metrics: as asked for, None for the profile's usual ones."""

    runs: tuple[Run, ...]
    curves: pd.DataFrame
    board: Board | None
    no_board: str
    inside: Inside
    metrics: tuple[str, ...] | None


def gather(folders: Sequence[str | Path], metrics: Sequence[str] | None, step: Step) -> Gathered:
    """Read runs on the same data. step: told the name of each of STEPS as it begins.

    Raises:
        InputError: no folder, one that is none of ours or has no finished cell at all, runs on different data, or an
            unknown metric.
    """
    step(STEPS[0])
    paths = list({Path(folder).resolve(): Path(folder) for folder in folders}.values())
    tables = open_tables(paths)
    if not tables.cells:
        raise InputError(f"{paths[0]}: no cell is finished there; run msabench run first")
    profile = get_profile(tables.planned.profile)
    chosen = tuple(profile.metric(name).name for name in metrics) if metrics else None
    step(STEPS[1])
    curves = frame_of(tables.curves())
    step(STEPS[2])
    nauc = frame_of(tables.nauc())
    board, no_board = attempt(lambda: _board(nauc, chosen, tables))
    inside = _inside(paths, step)
    return Gathered(tuple(map(_run, paths)), curves, board, no_board, inside, chosen)


def attempt(make: Callable[[], T]) -> tuple[T | None, str]:
    """What a function gives, or None and why it has nothing to give."""
    try:
        return make(), ""
    except InputError as error:
        return None, str(error)


def _board(nauc: pd.DataFrame, metrics: Sequence[str] | None, tables: Tables) -> Board:
    manifest = tables.planned.manifest
    try:
        return leaderboard(nauc, metrics, manifest=manifest, tables=tables)
    except InputError:  # a protocol's text that this version does not read does not say what to sum up by
        return leaderboard(nauc, metrics, manifest={**manifest, "protocols": {}}, tables=tables)


def _run(folder: Path) -> Run:
    state, planned, store = progress_of(folder), recall(Store(folder)), Store(folder)
    done = store.done(cell.key for cell in planned.cells)
    cells = cells_table(store, [cell for cell in planned.cells if cell.key in done])
    runtime = frame_of(store.runtime(done)) if done else frame_of(RUNTIME.empty_table())
    return Run(folder, state, planned, frame_of(cells), runtime)


def _inside(folders: Sequence[Path], step: Step) -> Inside:
    why: dict[str, str] = {}

    def of_all(name: str, make: Callable[[Path], T]) -> list[T]:
        step(name)
        found = [attempt(lambda folder=folder: make(folder)) for folder in folders]  # type: ignore[misc]
        why[name] = "; ".join(dict.fromkeys(reason for made, reason in found if made is None))
        return [made for made, _ in found if made is not None]

    routing = of_all("routing", routing_table)
    reliability = of_all("reliability", reliability_info)
    breaking = of_all("breaking", breaking_info)
    return Inside(
        _joined(routing) if routing else None,
        ReliabilityInfo(*map(_joined, zip(*reliability, strict=True))) if reliability else None,
        BreakingInfo(*map(_joined, zip(*breaking, strict=True))) if breaking else None,
        why,
    )


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several; of a checkpoint under a stress that several folders hold, the first folder's rows."""
    identity: list[str] = [*WHO, "stress", "params"]
    kept: list[pd.DataFrame] = []
    seen: set[tuple[Any, ...]] = set()
    for table in tables:
        keys = list(map(tuple, table[identity].astype(object).where(table[identity].notna(), None).to_numpy()))
        kept.append(table[[key not in seen for key in keys]])
        seen |= set(keys)
    filled = [table for table in kept if not table.empty]
    return pd.concat(filled, ignore_index=True) if filled else kept[0]
