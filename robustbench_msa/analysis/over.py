"""What a grid's scores are taken over: the points, and what each weighs in the nAUC."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corruptions import Grid, Point
from robustbench_msa.analysis import grid_scores
from robustbench_msa.analysis.metrics import Array


class Over(NamedTuple):
    """grid: its name in tables. area: ``(P,)`` what each point weighs in the nAUC; NaN: it has none, see note."""

    grid: str
    points: tuple[Point, ...]
    area: Array
    note: str | None = None

    @property
    def has_area(self) -> bool:
        return not np.isnan(self.area).any()

    @property
    def mean(self) -> Array:
        """``(P,)`` what each point weighs in the grid mean."""
        return np.full(len(self.points), 1 / len(self.points))


def overs(grid: Grid) -> list[Over]:
    """The whole grid; of available sets also those without the full one (the papers mix the two means).

    >>> from corruptions import Stress
    >>> overs(Stress.parse("noise").grid("0,0.1,0.4"))[0].area.round(3)  # (.1, .1 + .3, .3) / 2 / .4
    array([0.125, 0.5  , 0.375])
    >>> [over.grid for over in overs(Stress.parse("missing-fixed").grid("t,t+a+v"))]
    ['t,t+a+v', 't']
    """
    points, none = grid.points, np.full(len(grid.points), np.nan)
    if not grid.conditions:
        axes = [np.array([float(s) for s in axis]) for axis in grid.axes]
        if min(map(len, axes)) == 1:
            return [Over(str(grid), points, none, "a single severity has no range")]
        return [Over(str(grid), points, _area(axes))]
    note = "available sets have no severity axis; grid_mean is the mean over them"
    partial = [i for i, point in enumerate(points) if not point.is_clean]
    whole = Over(str(grid), points, none, note)
    if not 0 < len(partial) < len(points):
        return [whole]
    kept = ",".join(grid.conditions[i] for i in partial)
    return [whole, Over(kept, tuple(points[i] for i in partial), none[partial], note)]


def _area(axes: list[Array]) -> Array:
    """nAUC is linear in the values, in the order of the grid's points: its weights are those of unit curves."""
    n_points = int(np.prod([len(axis) for axis in axes]))
    unit = np.eye(n_points).reshape(*(len(axis) for axis in axes), n_points)
    return grid_scores.nauc(axes[0], unit) if len(axes) == 1 else grid_scores.nauc_2d(axes[0], axes[1], unit)
