"""One line over one grid: its curve, and the linear combinations of its cells that scores are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corruptions import Point
from robustbench_msa.analysis.evaluated import CLEAN_PLACE, Evaluated, Line
from robustbench_msa.analysis.grid_curve import Curve
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.analysis.over import Over
from robustbench_msa.analysis.variance import Score
from robustbench_msa.evaluation.cells import Request

CLEAN_POINT: Point = CLEAN_PLACE[2]


@dataclass(frozen=True, eq=False)
class LineOver:
    """values: ``(P, M)``, means over seeds. at: the Score at each point. NaN and None where a point is missing.

    Scores: clean; area, the nAUC; mean, the grid mean; stressed, the sum over all points but the untouched input. The
    last three are NaN where the grid is not finished: part of a grid is not the grid.
    """

    line: Line
    over: Over
    at: tuple[Score | None, ...]
    values: Array
    clean: Score
    area: Score
    mean: Score
    stressed: Score

    @classmethod
    def of(cls, line: Line, over: Over, at: Sequence[Score | None], clean: Score) -> LineOver:
        """at: at each point of over; at least one is there."""
        known = [score for score in at if score is not None]
        weights = [over.area, over.mean, stressed(over).astype(np.float64)]
        if len(known) < len(at):
            weights = [np.full(len(known), np.nan)] * 3
        area, mean, total = (Score.combined(known, w) for w in weights)
        values = np.stack([np.full_like(clean.value, np.nan) if score is None else score.value for score in at])
        return cls(line, over, tuple(at), values, clean, area, mean, total)

    @property
    def n_stressed(self) -> int:
        return int(stressed(self.over).sum())

    def curve(self, shape: tuple[int, ...], columns: Sequence[int]) -> Curve:
        """Some of the metrics, on a grid of this shape."""
        return Curve(self.line.label, self.values[:, columns].reshape(*shape, -1), self.clean.value[columns])


def line_over(tables: Evaluated, line: Line, request: Request, over: Over) -> LineOver | None:
    """None where the untouched input, or everything else, is missing."""
    at = [tables.score(line, request, point) for point in over.points]
    clean = tables.score(line, request, CLEAN_POINT)
    if clean is None or all(score is None for score in at):
        return None
    return LineOver.of(line, over, at, clean)


def stressed(over: Over) -> NDArray[np.bool_]:
    """``(P,)`` the points that are not the untouched input."""
    return np.array([not point.is_clean for point in over.points])


def axes(request: Request) -> list[Array]:
    """Severities of each axis; none of conditions."""
    return [np.array([float(severity) for severity in axis]) for axis in request.grid.axes]
