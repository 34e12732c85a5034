"""The derived tables of a run: curves (a metric in a cell) and nauc (a metric over a grid), with intervals.

Everything is computed from stored predictions. Intervals are 95 % studentised bootstrap intervals over groups (videos);
all cells and models share the same resamples, because they share the same inputs. Those of means over training seeds
are about the method and hold the variance between training seeds too (``variance``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from corruptions import Point
from robustbench_msa.analysis import grid_scores
from robustbench_msa.analysis.evaluated import Evaluated, Line
from robustbench_msa.analysis.intervals import intervals
from robustbench_msa.analysis.jackknife import few_groups_note
from robustbench_msa.analysis.metrics import PROFILES, Array
from robustbench_msa.analysis.over import Over, overs
from robustbench_msa.analysis.variance import Score, seed_deviations
from robustbench_msa.evaluation.cells import Cell, Request
from robustbench_msa.evaluation.records import Planned
from robustbench_msa.evaluation.schemas import CELLS, CURVES, NAUC
from robustbench_msa.evaluation.store import Store

Row = dict[str, Any]
_IDENTITY = (
    *("checkpoint", "model", "recipe", "stress", "params", "severity", "severity_2", "condition", "seed", "grid"),
)
_AT_ONCE = 64  # rows whose intervals are made together
T = TypeVar("T")


class GridRow(NamedTuple):
    """A row of nauc for each metric. columns, nulls: ``(M,)``."""

    facts: Row
    columns: dict[str, Array]
    nulls: Array
    note: str | None
    area: Score
    mean: Score


class Tables(Evaluated):
    """Curves and nauc of one run's folder."""

    def curves(self) -> pa.Table:
        """One row per metric in a cell, and per metric at a point averaged over seeds (null seed)."""
        rows: list[Row] = []
        for some in _batches(self._points()):
            low, high = self._intervals([score for _, score in some])
            for (facts, score), lows, highs in zip(some, low, high, strict=True):
                columns = {"value": score.value, "ci_low": lows, "ci_high": highs}
                rows += self._rows(facts, columns)
        return pa.Table.from_pylist(rows, schema=CURVES)

    def nauc(self) -> pa.Table:
        """One row per metric, line and requested grid."""
        rows: list[Row] = []
        for some in _batches(self._grids()):
            low, high = self._intervals([score for row in some for score in (row.area, row.mean)])
            for i, row in enumerate(some):
                columns = {"nauc": row.area.value, "ci_low": low[2 * i], "ci_high": high[2 * i], **row.columns}
                columns |= {"grid_mean": row.mean.value}
                columns |= {"grid_mean_low": low[2 * i + 1], "grid_mean_high": high[2 * i + 1]}
                made = self._rows(row.facts, columns)
                for j, entry in enumerate(made):
                    entry["nulls"] = int(row.nulls[j])
                    entry["note"] = self._note(row, entry)
                rows += made
        return pa.Table.from_pylist(rows, schema=NAUC)

    def _intervals(self, scores: Sequence[Score]) -> tuple[Array, Array]:
        units = [metric.unit for metric in PROFILES[self.planned.profile].metrics]
        return intervals(scores, self.weights, units)

    def _rows(self, facts: Row, columns: dict[str, Array]) -> list[Row]:
        """One row per metric. columns: ``(M,)`` each."""
        return [
            {**facts, "metric": metric, **{name: _number(column[i]) for name, column in columns.items()}}
            for i, metric in enumerate(self.metrics)
        ]

    def _note(self, row: GridRow, entry: Row) -> str | None:
        """Why a score is null, and what to know of its interval."""
        null = f"{entry['metric']} is undefined in at least one cell of the grid" if entry["nauc"] is None else None
        return "; ".join(filter(None, [row.note or null, few_groups_note(self.n_groups)])) or None

    def _points(self) -> Iterator[tuple[Row, Score]]:
        """Every cell, then every point averaged over seeds. What overlapping requests ask for twice comes once."""
        lines, seen = {line.checkpoint: line for line in self.lines()}, set()
        for cell in self.cells:
            facts = self._at(lines[cell.checkpoint], cell.stress, cell.params, cell.point, cell.seed, 1)
            seen.add(_identity(facts))
            yield facts, self.scores[cell.key].score()
        for line, request in self.asked():
            for point in request.grid.points:
                n_seeds = len(request.seeds_of(point))
                facts = self._at(line, request.stress.name, request.stress.params, point, None, n_seeds)
                score = None if _identity(facts) in seen else self.score(line, request, point)
                if score is not None:
                    seen.add(_identity(facts))
                    yield facts, self._with_nulls(score, line, request, point)

    def _with_nulls(self, score: Score, line: Line, request: Request, point: Point) -> Score:
        """Null where the metric is null in every cell."""
        values = [self.scores[cell.key].value for cell in self.cells_at(line, request, point) or ()]
        return Score(np.where(np.isnan(values).all(axis=0), np.nan, score.by_seed), score.influence)

    def _at(self, line: Line, stress: str, params: str, point: Point, seed: int | None, n_seeds: int) -> Row:
        return {
            **self._who(line),
            "stress": stress,
            "params": params,
            "severity": "0" if stress == "clean" else point.severity,
            "severity_2": point.severity_2,
            "condition": point.condition,
            "seed": seed,
            "n_seeds": n_seeds,
        }

    def _who(self, line: Line) -> Row:
        """The columns that every row has."""
        cell = self.cells[0]
        return {
            "model": line.model,
            "recipe": line.recipe,
            "train_seed": line.train_seed,
            "checkpoint": line.checkpoint,
            "dataset": cell.dataset,
            "split": cell.split,
            "profile": self.planned.profile,
            "n": self.n,
            "n_groups": self.n_groups,
            "n_train_seeds": len(line.members),
        }

    def _grids(self) -> Iterator[GridRow]:
        """Every requested grid, once."""
        seen = set()
        for line, request in self.asked():
            for row in self._grid_rows(line, request):
                if _identity(row.facts) not in seen:
                    seen.add(_identity(row.facts))
                    yield row

    def _grid_rows(self, line: Line, request: Request) -> Iterator[GridRow]:
        scores = {point: self.score(line, request, point) for point in request.grid.points}
        known = {point: score for point, score in scores.items() if score is not None}
        clean = self.clean_cells(line)
        if not known or clean is None:
            return
        cells = [cell for point in known for cell in self.cells_at(line, request, point) or ()]
        nulls = np.sum([np.isnan(self.scores[cell.key].value) for cell in cells], axis=0)
        base = np.mean([self.scores[cell.key].counted(self.nulls)[0] for cell in clean], axis=0)
        whole, *parts = overs(request.grid)
        if missing := len(scores) - len(known):  # a mean over part of a grid is not the grid's
            undefined = np.full(len(known), np.nan)
            note = f"{missing} of {len(scores)} grid points are missing"
            yield self._grid_row(line, request, whole._replace(area=undefined, note=note), known, base, nulls)
            return
        for over in (whole, *parts):
            yield self._grid_row(line, request, over, known, base, nulls)

    def _grid_row(
        self, line: Line, request: Request, over: Over, known: dict[Point, Score], clean: Array, nulls: Array
    ) -> GridRow:
        here = [known[point] for point in over.points if point in known]
        area = Score.combined(here, over.area)
        mean = Score.combined(here, over.mean if len(here) == len(over.points) else over.area)
        facts = {**self._who(line), "stress": request.stress.name, "params": request.stress.params, "grid": over.grid}
        facts |= {"n_seeds": len(request.drawn), "claim": mean.claim}
        higher = [metric.higher_is_better for metric in PROFILES[self.planned.profile].metrics]
        values = np.stack([score.value for score in here]) + 0 * mean.value  # null where the mean is
        split = area if over.has_area else mean
        sd_train, sd_corruption = seed_deviations(split.by_seed)
        columns = {
            "worst": np.array([float(grid_scores.worst(values[:, i], up)) for i, up in enumerate(higher)]),
            "retention": np.array(list(map(grid_scores.retention, area.value, clean, self.floor, higher))),
            "clean": clean,
            "floor": self.floor,
            "sd_train": sd_train,
            "sd_corruption": sd_corruption,
            "sd_sampling": split.sd_sampling,
        }
        return GridRow(facts, columns, nulls, over.note, area, mean)


def cells_table(store: Store, cells: Iterable[Cell]) -> pa.Table:
    """The facts of finished cells."""
    rows = []
    for cell in cells:
        facts = store.facts(cell.key)
        names = ("model", "recipe", "train_seed", "checkpoint", "dataset", "split", "stress", "params")
        rows.append(
            {
                "key": cell.key,
                **{name: getattr(cell, name) for name in names},
                "severity": "0" if cell.is_clean else cell.severity,
                "severity_2": cell.severity_2,
                "condition": cell.condition,
                "seed": cell.seed,
                "input_digest": facts["input_digest"],
                "realised": list(facts["realised"].items()),
                "nonfinite": facts["nonfinite"],
                "flags": facts.get("flags", []),
            }
        )
    return pa.Table.from_pylist(rows, schema=CELLS)


def derive(store: Store, planned: Planned) -> int:
    """Rebuild every derived table from the predictions in the store.

    Returns the number of damaged files that were found and set aside; their cells are to be computed again.
    """
    tables = Tables(store, planned)
    store.write_table("curves", tables.curves())
    store.write_table("nauc", tables.nauc())
    store.write_table("cells", cells_table(store, tables.cells))
    return tables.damaged


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _IDENTITY)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
