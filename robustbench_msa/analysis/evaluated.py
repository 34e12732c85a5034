"""What the stored predictions of a run say: every metric of every cell, and what each group does to it.

A line is whose curve it is: one checkpoint, or all training seeds of a model and recipe together. Of a cell only
``(M,)`` values and ``(G, M)`` leave-one-out values are kept: 5 KB with 62 groups and 9 metrics, 50 KB with 676.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from corruptions import Point
from robustbench_msa.analysis.bootstrap import REPLICATES, group_weights
from robustbench_msa.analysis.constants import best_constant, floor
from robustbench_msa.analysis.jackknife import influence, leave_one_out
from robustbench_msa.analysis.metrics import NULL_SCORES, PROFILES, Array, sufficient
from robustbench_msa.analysis.variance import Score
from robustbench_msa.evaluation.cells import CLEAN, Cell, Request
from robustbench_msa.evaluation.records import Planned

Place = tuple[Any, ...]
CLEAN_PLACE: Place = (CLEAN, (), Point(), None)


class Reader(Protocol):
    """Where predictions are read from: a ``Store``, or several as one (``merged.Stores``)."""

    def done(self, keys: Iterable[str]) -> set[str]: ...

    def predictions(self, key: str, columns: list[str] | None = None) -> pa.Table: ...

    def set_aside(self, key: str, reason: str) -> None: ...


class Predictions(NamedTuple):
    """One cell. y_true, y_pred, group (0..G-1): ``(N,)``; own: predictions for one metric alone, by metric."""

    y_true: NDArray[np.float32]
    y_pred: NDArray[np.float32]
    group: NDArray[np.int64]
    n_groups: int
    own: dict[str, Array]


@dataclass(frozen=True, eq=False)
class CellScores:
    """value: ``(M,)``; left_out: ``(G, M)``, without each group."""

    value: Array
    left_out: Array

    def score(self) -> Score:
        return Score(self.value[None, None], influence(self.left_out)[None])

    def counted(self, nulls: Array) -> tuple[Array, Array]:
        """Value and influences as they enter means and nAUC. nulls: ``(M,)`` what a null of each metric counts as."""
        value = np.where(np.isnan(self.value), nulls, self.value)
        return value, influence(np.where(np.isnan(self.left_out), nulls, self.left_out))


@dataclass(frozen=True)
class Line:
    """Whose curve: one checkpoint, or all training seeds of a model and recipe together (checkpoint "")."""

    model: str
    recipe: str
    train_seed: int | None
    checkpoint: str
    members: tuple[str, ...]  # checkpoints, by training seed

    @property
    def label(self) -> str:
        """For a column that names a line of the run."""
        seeds = f"mean over {len(self.members)} training seeds" if len(self.members) > 1 else ""
        seeds = seeds or (f"seed {self.train_seed}" if self.train_seed is not None else "")
        return ", ".join(filter(None, [self.model, self.recipe, seeds]))

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Their order, whichever run came first."""
        return self.model, self.recipe, -1 if self.train_seed is None else self.train_seed, self.checkpoint


class Evaluated:
    """The finished cells of a plan. Damaged files are set aside and counted in ``damaged``.

    metrics: M names; floor: ``(M,)``, and floor_scores without each group; nulls: ``(M,)`` what a null counts as in
    means and nAUC (Corr 0, others stay null); weights: ``(B, G)``, the resamples that all cells and lines share.
    """

    def __init__(self, store: Reader, planned: Planned, replicates: int = REPLICATES) -> None:
        self.store, self.planned = store, planned
        self.metrics = PROFILES[planned.profile].names
        self.nulls = np.array([NULL_SCORES.get(metric, np.nan) for metric in self.metrics])
        self.damaged = self.n = self.n_groups = 0
        self.floor: Array = np.full(len(self.metrics), np.nan)
        self.floor_scores = CellScores(self.floor, self.floor[None])
        self.scores: dict[str, CellScores] = {}
        done = store.done(cell.key for cell in planned.cells)
        for cell in planned.cells:
            if cell.key in done and (read := self._read(cell)) is not None:
                if not self.scores:
                    self.n, self.n_groups = len(read.y_true), read.n_groups
                    self.floor = np.array(list(floor(read.y_true, planned.profile).values()))
                    self.floor_scores = _floor_scores(read, planned.profile)
                stats = sufficient(*read[:4], planned.profile, read.own)
                self.scores[cell.key] = CellScores(*leave_one_out(stats, planned.profile))
        self.weights = group_weights(max(self.n_groups, 1), replicates)
        self.cells = [cell for cell in planned.cells if cell.key in self.scores]
        self.by_place = {_place(cell): cell for cell in self.cells}
        self._planned = {_place(cell) for cell in planned.cells}

    def _read(self, cell: Cell) -> Predictions | None:
        try:
            return self.predictions(cell)
        except (pa.ArrowException, OSError) as error:
            self.store.set_aside(cell.key, str(error))
            self.damaged += 1
            return None

    def predictions(self, cell: Cell) -> Predictions:
        """Of one finished cell, from its file.

        Raises:
            OSError, pa.ArrowException: the file is damaged.
        """
        table = self.store.predictions(cell.key, ["y_true", "y_pred", "group", "extras"])
        codes = table["group"].combine_chunks().dictionary_encode()
        ranks = np.asarray(pc.rank(codes.dictionary, sort_keys="ascending")).astype(np.int64) - 1
        own = _own_decisions(table["extras"].combine_chunks(), self.metrics)
        y_true, y_pred = table["y_true"].to_numpy(), table["y_pred"].to_numpy()
        return Predictions(y_true, y_pred, ranks[codes.indices.to_numpy()], len(ranks), own)

    def statistics(self, cells: Sequence[Cell]) -> Array:
        """Sums per group of cells on the same samples, ``(L, G, K)``, read again from their files.

        They share one origin for Corr's moments, so that groups of different cells may be added up.
        """
        read = [self.predictions(cell) for cell in cells]
        names = {name for p in read for name in p.own}
        y_true, y_pred = (np.concatenate([p[i] for p in read]) for i in (0, 1))
        own = {name: np.concatenate([p.own.get(name, p.y_pred) for p in read]) for name in names}
        group = np.concatenate([p.group + i * self.n_groups for i, p in enumerate(read)])
        stats = sufficient(y_true, y_pred, group, len(cells) * self.n_groups, self.planned.profile, own)
        return stats.reshape(len(cells), self.n_groups, -1)

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
                    together = tuple(line.checkpoint for line in sorted(members, key=lambda line: line.key))
                    found.append((Line(model, recipe, None, "", together), request))
        return sorted(found, key=lambda pair: (not self.complete(*pair), -len(pair[1].seeds)))

    def complete(self, line: Line, request: Request) -> bool:
        return all(place in self.by_place for place in self._places(line, request))

    def _places(self, line: Line, request: Request) -> set[Place]:
        """Where the cells of a request stand."""
        return {p for point in request.grid.points for m in line.members for p in places_at(m, request, point)}

    def cells_at(self, line: Line, request: Request, point: Point) -> list[Cell] | None:
        """The cells of a point over training and corruption seeds; None when any is missing."""
        places = [place for member in line.members for place in places_at(member, request, point)]
        return [self.by_place[p] for p in places] if all(p in self.by_place for p in places) else None

    def clean_cells(self, line: Line) -> list[Cell] | None:
        places = [(member, *CLEAN_PLACE) for member in line.members]
        return [self.by_place[p] for p in places] if all(p in self.by_place for p in places) else None

    def score(self, line: Line, request: Request, point: Point) -> Score | None:
        """At one point of a request, by training and corruption seed; None when any cell is missing.

        Nulls are counted as in nAUC.
        """
        cells = self.cells_at(line, request, point)
        if cells is None:
            return None
        shape = len(line.members), len(request.seeds_of(point))
        counted = [self.scores[cell.key].counted(self.nulls) for cell in cells]
        by_seed, influences = (np.stack(parts).reshape(*shape, *parts[0].shape) for parts in zip(*counted, strict=True))
        return Score(by_seed, influences.mean(axis=1))


def _floor_scores(read: Predictions, profile: str) -> CellScores:
    """The best constants as a model. Near its best a constant matters little, so without a group it is the same one."""
    best = {name: best_constant(read.y_true, name, profile) for name in PROFILES[profile].names}
    constants = {name: np.full(len(read.y_true), constant) for name, constant in best.items()}
    stats = sufficient(read.y_true, constants[next(iter(best))], read.group, read.n_groups, profile, constants)
    return CellScores(*leave_one_out(stats, profile))


def places_at(member: str, request: Request, point: Point) -> list[Place]:
    """Where the cells of a checkpoint at a point stand, by corruption seed; at a clean point that of the clean cell."""
    if point.is_clean:
        return [(member, *CLEAN_PLACE)]
    stress = request.stress
    return [(member, stress.name, stress.options, point, seed) for seed in request.seeds_of(point)]


def _place(cell: Cell) -> Place:
    return (cell.checkpoint, cell.stress, cell.options, cell.point, cell.seed)


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
