"""A run's cells with their extras: per checkpoint and stress, the samples of every point.

A line is one checkpoint here, never a mean over training seeds: expert 3 of one training is not expert 3 of another.
Its intervals are therefore claims about that checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from corruptions import InputError, Point
from corruptions.grid import ALL_AVAILABLE, SUBSETS
from robustbench_msa.analysis.inside.samples import COLUMNS, Samples, samples_of
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.store import Store

REFERENCES = ("chance", "oracle")
WHO = ("model", "recipe", "train_seed", "checkpoint")
WHERE = ("stress", "params", "severity", "severity_2", "condition", "n_seeds", "n", "n_groups")
_EMPTY = {"train_seed": "Int64", "severity": "object", "severity_2": "object", "condition": "object"}


class Line(NamedTuple):
    """One checkpoint."""

    model: str
    recipe: str
    train_seed: int | None
    checkpoint: str

    @property
    def base(self) -> str:
        """The model's name without what it reads text as."""
        return self.model.removesuffix("-tokens")


@dataclass(frozen=True, eq=False)
class Sweep:
    """One line under one stress: its points, the clean one first where it is there, then by severity or condition."""

    line: Line
    stress: str
    params: str
    modalities: str  # letters of the modalities that the stress may touch
    points: tuple[tuple[Point, Samples], ...]

    @property
    def n_axes(self) -> int:
        """0: the points are conditions (available sets)."""
        return max(len(point.values) for point, _ in self.points)

    def facts(self, point: Point, samples: Samples) -> dict[str, Any]:
        """The columns WHO and WHERE of a row."""
        where: dict[str, Any] = {"stress": self.stress, "params": self.params, "severity": point.severity}
        where |= {"severity_2": point.severity_2, "condition": point.condition, "n_seeds": samples.n_seeds}
        return {**self.line._asdict(), **where, "n": samples.n, "n_groups": len(np.unique(samples.group))}


class Inside:
    """The finished cells of a run's folder, without chance and oracle.

    Args:
        models: read the cells of these models alone, where there are any of them; default all.

    Raises:
        InputError: the folder is none of a run, or nothing in it is finished.
    """

    def __init__(self, folder: str | Path, models: Collection[str] = ()) -> None:
        self.store = Store(Path(folder))
        self.planned = recall(self.store)
        cells = [cell for cell in self.planned.cells if cell.model not in REFERENCES]
        cells = [cell for cell in cells if cell.model in models] or cells
        done = self.store.done(cell.key for cell in cells)
        self.cells = [cell for cell in cells if cell.key in done]
        if not self.cells:
            raise InputError(f"{folder}: no finished cell of a model there; run msabench run first")
        self._read: dict[str, Samples] = {}

    @property
    def classes(self) -> bool:
        """Are labels and predictions classes?"""
        return self.planned.profile == "classification"

    def lines(self) -> list[Line]:
        return sorted({_line(cell) for cell in self.cells}, key=lambda line: (*line[:2], line[2] or -1, line[3]))

    def clean(self, line: Line) -> Samples | None:
        """The line on the untouched input."""
        found = [cell for cell in self.cells if _line(cell) == line and cell.is_clean]
        return self._samples(found) if found else None

    def sweeps(self, *needed: str, what: str = "this", models: str = "none of this package") -> list[Sweep]:
        """Every line under every stress that it was run under, of the models that store one of the needed extras.

        Args:
            needed: names of extras; none: every model.
            what, models: for the message: what the extras hold, and which models store them.

        Raises:
            InputError: no model of the run stores any of them, or it has no stress.
        """
        lines = [line for line in self.lines() if not needed or set(needed) & set(self._any_extras(line))]
        if not lines:
            names, have = " or ".join(needed), ", ".join(dict.fromkeys(line.model for line in self.lines()))
            raise InputError(
                f"{self.store.root}: {have} store{'s' if ',' not in have else ''} no {what} (extra {names}); {models}"
            )
        found = [sweep for line in lines for sweep in self._sweeps(line)]
        if not found:
            raise InputError(f"{self.store.root}: nothing but clean cells there; run msabench run with a --stress")
        return found

    def _sweeps(self, line: Line) -> Iterator[Sweep]:
        mine = [cell for cell in self.cells if _line(cell) == line and not cell.is_clean]
        clean = self.clean(line)
        for stress, options in sorted({(cell.stress, cell.options) for cell in mine}, key=str):
            here = [cell for cell in mine if (cell.stress, cell.options) == (stress, options)]
            at = {point: [cell for cell in here if cell.point == point] for point in {cell.point for cell in here}}
            points = {point: self._samples(cells) for point, cells in at.items()}
            if clean is not None:
                points[_clean_point(next(iter(at)))] = clean
            ordered = tuple(sorted(points.items(), key=lambda item: _place(item[0])))
            yield Sweep(line, stress, here[0].params, str(dict(options).get("modalities", "tav")), ordered)

    def _samples(self, cells: list[Cell]) -> Samples:
        return Samples.joined(self._cell(cell) for cell in sorted(cells, key=lambda cell: cell.seed or 0))

    def _any_extras(self, line: Line) -> Mapping[str, Array]:
        return self._cell(next(cell for cell in self.cells if _line(cell) == line)).extras

    def _cell(self, cell: Cell) -> Samples:
        if cell.key not in self._read:
            try:
                table = self.store.predictions(cell.key, COLUMNS)
            except (pa.ArrowException, OSError) as error:
                where, why = self.store.path(cell.key), str(error).splitlines()[0]
                raise InputError(f"{where}: damaged ({why}); run the same msabench run again") from None
            self._read[cell.key] = samples_of(table, self.classes)
        return self._read[cell.key]


def frame_of(rows: list[dict[str, Any]], *columns: str) -> pd.DataFrame:
    """Rows as a tidy table with WHO, WHERE and these columns; None is null."""
    frame = pd.DataFrame(rows, columns=[*WHO, *WHERE, *columns])
    return frame.astype({name: kind for name, kind in _EMPTY.items() if name in frame})


def each_point(
    sweeps: Iterable[Sweep], rows: Callable[[Line, Samples], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows of every point, with the columns of where they are."""
    points = ((sweep, point, samples) for sweep in sweeps for point, samples in sweep.points)
    return [{**s.facts(point, samples), **row} for s, point, samples in points for row in rows(s.line, samples)]


def _line(cell: Cell) -> Line:
    return Line(cell.model, cell.recipe, cell.train_seed, cell.checkpoint)


def _clean_point(like: Point) -> Point:
    if like.condition is not None:
        return Point(condition=ALL_AVAILABLE)
    return Point("0", None if like.severity_2 is None else "0")


def _place(point: Point) -> tuple[int | Decimal, ...]:
    if point.condition is None:
        return point.values
    return (-1,) if point.is_clean else (SUBSETS.index(point.condition),)
