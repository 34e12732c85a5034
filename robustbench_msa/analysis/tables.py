"""The derived tables of a run: curves (a metric in a cell) and nauc (a metric over a grid), with intervals.

Everything is computed from stored predictions. Intervals are 95 % percentile intervals of a bootstrap over groups
(videos); all cells and models share the same resamples, because they share the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from corruptions import Grid, Point
from robustbench_msa.analysis import grid_scores
from robustbench_msa.analysis.bootstrap import group_weights, interval, replicate_metrics
from robustbench_msa.analysis.constants import floor
from robustbench_msa.analysis.metrics import PROFILES, compute, sufficient
from robustbench_msa.evaluation.cells import CLEAN, Cell, Request
from robustbench_msa.evaluation.records import Planned
from robustbench_msa.evaluation.schemas import CELLS, CURVES, NAUC
from robustbench_msa.evaluation.store import Store

REPLICATES = 1000
BOOTSTRAP_SEED = 20260401
Array = NDArray[np.float64]
Place = tuple[Any, ...]
CLEAN_PLACE: Place = (CLEAN, (), Point(), None)
_ROW_IDENTITY = (
    *("checkpoint", "model", "recipe", "stress", "params", "severity", "severity_2", "condition", "seed"),
    *("grid", "metric"),
)


@dataclass(frozen=True, eq=False)
class Scores:
    """Metric values of one thing (a cell, or a mean over cells). value: ``(M,)``; replicates: ``(B, M)``."""

    value: Array
    replicates: Array

    @classmethod
    def mean(cls, scores: Sequence[Scores]) -> Scores:
        return cls(np.mean([s.value for s in scores], axis=0), np.mean([s.replicates for s in scores], axis=0))

    def counted(self, metrics: Sequence[str]) -> Scores:
        """With nulls as they enter nAUC: Corr counts as 0, any other null stays null."""
        columns = [
            (grid_scores.null_as_floor(self.value[i], m), grid_scores.null_as_floor(self.replicates[:, i], m))
            for i, m in enumerate(metrics)
        ]
        return Scores(np.array([v for v, _ in columns]), np.stack([r for _, r in columns], axis=1))


@dataclass(frozen=True)
class Line:
    """Whose curve: one checkpoint, or all training seeds of a model and recipe together (checkpoint "")."""

    model: str
    recipe: str
    train_seed: int | None
    checkpoint: str
    members: tuple[str, ...]  # checkpoints

    def columns(self, cell: Cell) -> dict[str, Any]:
        return {
            "model": self.model,
            "recipe": self.recipe,
            "train_seed": self.train_seed,
            "checkpoint": self.checkpoint,
            "dataset": cell.dataset,
            "split": cell.split,
            "n_train_seeds": len(self.members),
        }


class Tables:
    """Curves and nauc of one run's folder."""

    def __init__(self, store: Store, planned: Planned, replicates: int = REPLICATES) -> None:
        self.planned = planned
        self.metrics = [m.name for m in PROFILES[planned.profile].metrics]
        self.damaged = 0
        self._planned = {_place(cell) for cell in planned.cells}
        self.scores: dict[str, Scores] = {}
        self.n = self.n_groups = 0
        self.floor: Array = np.full(len(self.metrics), np.nan)
        done = store.done(cell.key for cell in planned.cells)
        for cell, labels, groups, stats in self._read(store, [cell for cell in planned.cells if cell.key in done]):
            if not self.scores:
                self.n, self.n_groups = len(labels), len(groups)
                weights = group_weights(self.n_groups, replicates, BOOTSTRAP_SEED)
                floors = floor(labels, planned.profile)
                self.floor = np.array([floors[m] for m in self.metrics])
            values, drawn = compute(stats.sum(0), planned.profile), replicate_metrics(stats, weights, planned.profile)
            self.scores[cell.key] = Scores(
                np.array([float(values[m]) for m in self.metrics]), np.stack([drawn[m] for m in self.metrics], axis=1)
            )
        self.cells = [cell for cell in planned.cells if cell.key in self.scores]
        self.by_place = {_place(cell): cell for cell in self.cells}

    def _read(self, store: Store, cells: list[Cell]) -> Iterator[tuple[Cell, Array, Array, Array]]:
        """Per cell: labels, all groups, and sufficient statistics ``(G, K)``. Damaged files are set aside."""
        for cell in cells:
            try:
                table = store.predictions(cell.key, ["y_true", "y_pred", "group", "extras"])
            except (pa.ArrowException, OSError) as error:
                store.set_aside(cell.key, str(error))
                self.damaged += 1
                continue
            groups, index = np.unique(table["group"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
            y, p = table["y_true"].to_numpy(), table["y_pred"].to_numpy()
            own = _own_decisions(table["extras"].combine_chunks(), self.metrics)
            yield cell, y, groups, sufficient(y, p, index, len(groups), self.planned.profile, own)

    def lines(self) -> list[Line]:
        """Every checkpoint."""
        found = {c.checkpoint: Line(c.model, c.recipe, c.train_seed, c.checkpoint, (c.checkpoint,)) for c in self.cells}
        return list(found.values())

    def asked(self) -> list[tuple[Line, Request]]:
        """Each request with the checkpoints it was made for, and with their mean over training seeds.

        Complete ones come first, then those with most seeds: of two that share a point or grid, the first counts.
        """
        families: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines():
            families.setdefault((line.model, line.recipe), []).append(line)
        found = []
        for request in self.planned.requests:
            for (model, recipe), family in families.items():
                members = [line for line in family if self._places(line, request) <= self._planned]
                found += [(line, request) for line in members]
                if len(members) > 1 and len({line.train_seed for line in members}) == len(members):
                    together = tuple(line.checkpoint for line in members)
                    found.append((Line(model, recipe, None, "", together), request))
        return sorted(found, key=lambda pair: (not self._places(*pair) <= set(self.by_place), -len(pair[1].seeds)))

    def _places(self, line: Line, request: Request) -> set[Place]:
        """Where the cells of a request stand."""
        return {place for point in request.grid.points for place in _places_at(line, request, point)}

    def curves(self) -> pa.Table:
        """One row per metric in a cell, and per metric at a point averaged over seeds (null seed)."""
        rows: list[dict[str, Any]] = []
        lines = {line.checkpoint: line for line in self.lines()}
        for cell in self.cells:
            who = lines[cell.checkpoint].columns(cell)
            rows += self._rows(who, cell.stress, cell.params, cell.point, cell.seed, 1, self.scores[cell.key])
        for line, request in self.asked():
            for point in request.grid.points:
                cells = self._cells(line, request, point)
                if cells is not None:
                    counted = Scores.mean([self.scores[c.key].counted(self.metrics) for c in cells])
                    null = np.all([np.isnan(self.scores[c.key].value) for c in cells], axis=0)
                    mean = Scores(np.where(null, np.nan, counted.value), counted.replicates)
                    stress, n_seeds = request.stress, len(request.seeds_of(point))
                    rows += self._rows(line.columns(cells[0]), stress.name, stress.params, point, None, n_seeds, mean)
        return pa.Table.from_pylist(_distinct_rows(rows), schema=CURVES)

    def _rows(
        self,
        who: dict[str, Any],
        stress: str,
        params: str,
        point: Point,
        seed: int | None,
        n_seeds: int,
        scores: Scores,
    ) -> Iterator[dict[str, Any]]:
        low, high = interval(scores.replicates)
        where = {"stress": stress, "params": params, "severity": point.severity, "severity_2": point.severity_2}
        if stress == "clean":
            where = {**where, "severity": "0"}
        for i, metric in enumerate(self.metrics):
            null = np.isnan(scores.value[i])
            yield {
                **who,
                **where,
                "condition": point.condition,
                "seed": seed,
                "profile": self.planned.profile,
                "metric": metric,
                "value": _number(scores.value[i]),
                "ci_low": None if null else _number(low[i]),
                "ci_high": None if null else _number(high[i]),
                "n": self.n,
                "n_groups": self.n_groups,
                "n_seeds": n_seeds,
            }

    def nauc(self) -> pa.Table:
        """One row per metric, line and requested grid."""
        rows = [row for line, request in self.asked() for row in self._grid_rows(line, request)]
        return pa.Table.from_pylist(_distinct_rows(rows), schema=NAUC)

    def _grid_rows(self, line: Line, request: Request) -> Iterator[dict[str, Any]]:
        points = request.grid.points
        groups = [self._cells(line, request, point) for point in points]
        clean = self._clean(line)
        known = [group for group in groups if group is not None]
        if not known or not clean:
            return
        nulls = np.sum([np.isnan(self.scores[c.key].value) for group in known for c in group], axis=0)
        missing = len(groups) - len(known)
        base = Scores.mean([self.scores[c.key].counted(self.metrics) for c in clean])
        curve = [Scores.mean([self.scores[c.key].counted(self.metrics) for c in group]) for group in known]
        for name, summary in _summaries(request.grid, curve, self.metrics, missing):
            low, high = interval(summary.replicates)
            for i, metric in enumerate(self.metrics):
                kept = grid_scores.retention(
                    summary.nauc[i],
                    base.value[i],
                    self.floor[i],
                    PROFILES[self.planned.profile].metric(metric).higher_is_better,
                )
                note = summary.note or _why_null(metric, summary.nauc[i])
                yield {
                    **line.columns(known[0][0]),
                    "profile": self.planned.profile,
                    "stress": request.stress.name,
                    "params": request.stress.params,
                    "grid": name,
                    "metric": metric,
                    "nauc": _number(summary.nauc[i]),
                    "ci_low": None if np.isnan(summary.nauc[i]) else _number(low[i]),
                    "ci_high": None if np.isnan(summary.nauc[i]) else _number(high[i]),
                    "grid_mean": _number(summary.grid_mean[i]),
                    "worst": _number(summary.worst[i]),
                    "retention": _number(float(kept)),
                    "clean": _number(base.value[i]),
                    "floor": _number(self.floor[i]),
                    "n": self.n,
                    "n_seeds": len(request.drawn),
                    "n_groups": self.n_groups,
                    "nulls": int(nulls[i]),
                    "note": note,
                }

    def _cells(self, line: Line, request: Request, point: Point) -> list[Cell] | None:
        """The cells of a point over training and corruption seeds; None when any is missing."""
        places = _places_at(line, request, point)
        return [self.by_place[p] for p in places] if all(p in self.by_place for p in places) else None

    def _clean(self, line: Line) -> list[Cell]:
        places = [(member, *CLEAN_PLACE) for member in line.members]
        return [self.by_place[p] for p in places] if all(p in self.by_place for p in places) else []


@dataclass(frozen=True, eq=False)
class Summary:
    """Scores over a grid: ``(M,)`` each, and the replicates of the nAUC, ``(B, M)``."""

    nauc: Array
    replicates: Array
    grid_mean: Array
    worst: Array
    note: str | None


def _summaries(grid: Grid, curve: list[Scores], metrics: Sequence[str], missing: int) -> Iterator[tuple[str, Summary]]:
    """The grid's scores; for available sets also those without the full one (the papers mix the two means)."""
    values = np.stack([s.value for s in curve])  # (P, M)
    drawn = np.stack([s.replicates for s in curve])  # (P, B, M)
    undefined = np.full_like(values[0], np.nan), np.full_like(drawn[0], np.nan)
    if missing:  # a mean over part of a grid is not the grid's
        note = f"{missing} of {len(grid.points)} grid points are missing"
        yield str(grid), Summary(undefined[0], undefined[1], undefined[0], undefined[0], note)
    elif grid.conditions:
        note = "available sets have no severity axis; grid_mean is the mean over them"
        yield str(grid), _summary(values, undefined, metrics, note)
        partial = [i for i, point in enumerate(grid.points) if not point.is_clean]
        if 0 < len(partial) < len(values):
            kept = ",".join(grid.conditions[i] for i in partial)
            yield kept, _summary(values[partial], undefined, metrics, note)
    else:
        axes = [np.array([float(s) for s in axis]) for axis in grid.axes]
        no_range = None if all(len(axis) > 1 for axis in axes) else "a single severity has no range"
        yield str(grid), _summary(values, (_nauc(axes, values), _nauc(axes, drawn)), metrics, no_range)


def _summary(values: Array, nauc: tuple[Array, Array], metrics: Sequence[str], note: str | None) -> Summary:
    higher = {m.name: m.higher_is_better for profile in PROFILES.values() for m in profile.metrics}
    worst = [float(grid_scores.worst(values[:, i], higher[m])) for i, m in enumerate(metrics)]
    return Summary(nauc[0], nauc[1], grid_scores.grid_mean(values), np.array(worst), note)


def _nauc(axes: list[Array], values: Array) -> Array:
    """values: ``(P, ...)`` in the order of the grid's points."""
    if len(axes) == 1:
        return grid_scores.nauc(axes[0], values)
    return grid_scores.nauc_2d(axes[0], axes[1], values.reshape(len(axes[0]), len(axes[1]), *values.shape[1:]))


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


def _place(cell: Cell) -> Place:
    return (cell.checkpoint, cell.stress, cell.options, cell.point, cell.seed)


def _places_at(line: Line, request: Request, point: Point) -> list[Place]:
    """The places of a point over training and corruption seeds; at a clean point those of the clean cells."""
    if point.is_clean:
        return [(member, *CLEAN_PLACE) for member in line.members]
    stress = request.stress
    return [(m, stress.name, stress.options, point, seed) for m in line.members for seed in request.seeds_of(point)]


def _own_decisions(extras: pa.MapArray, metrics: Sequence[str]) -> dict[str, Array]:
    """Predictions that a model makes for one metric alone: extras named ``for_<metric>``."""
    keys = extras.keys
    if not len(extras) or not len(keys):
        return {}
    per_sample = len(keys) // len(extras)
    names = keys[:per_sample].to_pylist()
    own = {name[4:]: i for i, name in enumerate(names) if name.startswith("for_") and name[4:] in metrics}
    found = {}
    for metric, i in own.items():
        values = extras.items.take(pa.array(np.arange(i, len(keys), per_sample)))
        found[metric] = values.flatten().to_numpy()
    return found


def _why_null(metric: str, value: float) -> str | None:
    return f"{metric} is undefined in at least one cell of the grid" if np.isnan(value) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _distinct_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Overlapping requests ask for the same point or grid twice; it is one row, the first."""
    unique: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        unique.setdefault(tuple(row.get(name) for name in _ROW_IDENTITY), row)
    return list(unique.values())
