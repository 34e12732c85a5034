"""The derived tables of a run: curves (a metric in a cell) and nauc (a metric over a grid), with intervals.

Everything is computed from stored predictions. Intervals are 95 % studentised bootstrap intervals over groups (videos);
all cells and models share the same resamples, because they share the same inputs. Those of means over training seeds
are about the method and hold the variance between training seeds too (``variance``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from corruptions import Point
from robustbench_msa.analysis.bootstrap import REPLICATES
from robustbench_msa.analysis.evaluated import Evaluated, Line, Reader
from robustbench_msa.analysis.forms import ends
from robustbench_msa.analysis.grid_rows import GridRow, GridRows
from robustbench_msa.analysis.intervals import intervals
from robustbench_msa.analysis.jackknife import few_groups_note
from robustbench_msa.analysis.metrics import PROFILES, Array
from robustbench_msa.analysis.references import References
from robustbench_msa.analysis.score_intervals import WITH_INTERVAL
from robustbench_msa.analysis.variance import Score
from robustbench_msa.evaluation.cells import Cell, Request
from robustbench_msa.evaluation.records import Planned
from robustbench_msa.evaluation.schemas import CELLS, CURVES, NAUC
from robustbench_msa.evaluation.store import Store

Row = dict[str, Any]
_IDENTITY = (
    *("checkpoint", "model", "recipe", "stress", "params", "severity", "severity_2", "condition", "seed", "grid"),
)
_SIDES = "low", "high"
_AT_ONCE = 64  # rows whose intervals are made together
T = TypeVar("T")


class Tables(Evaluated):
    """Curves and nauc of one run's folder.

    baseline, one_baseline: which line CE divides by (``references.References``).

    Raises:
        InputError: a baseline that is not in the run.
    """

    def __init__(
        self,
        store: Reader,
        planned: Planned,
        replicates: int = REPLICATES,
        baseline: str | None = None,
        one_baseline: bool = False,
    ) -> None:
        super().__init__(store, planned, replicates)
        self.references = References(self, baseline, one_baseline)

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
            low, high = self._intervals([score for row in some for score in (row.own.area, row.own.mean)])
            wanted = [row.intervals.get(name) for row in some for name in WITH_INTERVAL]
            found = iter(ends(wanted, self.weights))
            for i, row in enumerate(some):
                columns = {**row.columns, "ci_low": low[2 * i], "ci_high": high[2 * i]}
                columns |= {"grid_mean_low": low[2 * i + 1], "grid_mean_high": high[2 * i + 1]}
                columns |= _ends_of(row, low[2 * i], high[2 * i], [next(found) for _ in WITH_INTERVAL])
                rows += self._grid_rows(row, columns)
        return pa.Table.from_pylist(rows, schema=NAUC)

    def _grid_rows(self, row: GridRow, columns: dict[str, Array]) -> Iterator[Row]:
        for i, entry in enumerate(self._rows(row.facts, columns)):
            texts = {name: column[i] for name, column in row.texts.items()}
            reasons = list(row.reasons[i].items())
            yield {**entry, **texts, "nulls": int(row.nulls[i]), "note": self._note(row, entry), "reasons": reasons}

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
        rows, seen = GridRows(self, self.references), set()
        for line, request in self.asked():
            who = self._who(line)
            asked_for = {"stress": request.stress.name, "params": request.stress.params, "grid": str(request.grid)}
            for row in rows.of(line, request) if _identity(who | asked_for) not in seen else ():
                named = row._replace(facts=who | row.facts)
                if _identity(named.facts) not in seen:
                    seen.add(_identity(named.facts))
                    yield named


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


def _ends_of(row: GridRow, low: Array, high: Array, found: list[tuple[Array, Array] | None]) -> dict[str, Array]:
    """The intervals of auc_raw, which is nAUC times the range, and of WITH_INTERVAL. Null where the score is, except
    that a half-life which is never reached has a lower end."""
    null = np.full_like(low, np.nan)
    pairs = {name: pair or (null, null) for name, pair in zip(WITH_INTERVAL, found, strict=True)}
    pairs |= {"auc_raw": (low * row.span, high * row.span)}
    columns: dict[str, Array] = {}
    for name, pair in pairs.items():
        known = (name == "half_life") | np.isfinite(row.columns[name])
        columns |= {f"{name}_{side}": np.where(known, end, np.nan) for side, end in zip(_SIDES, pair, strict=True)}
    return columns


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _IDENTITY)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
