"""One curve over one grid with whatever its scores need: the arguments of ``grid_report``, checked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from corruptions import InputError
from robustbench_msa.analysis import grid_scores, shape_scores
from robustbench_msa.analysis.metrics import Array


@dataclass(frozen=True, eq=False)
class Curve:
    """Another line's curve over the same grid: a baseline, or the oracle. values, clean: as in GridCurve."""

    name: str
    values: ArrayLike
    clean: ArrayLike

    def replicate(self, i: int) -> Curve:
        return Curve(self.name, np.asarray(self.values)[..., i], np.asarray(self.clean)[..., i])


@dataclass(frozen=True, eq=False)
class GridCurve:
    """One metric of one line over one grid. The methods are its scores, ``(...)`` each, NaN where null.

    axes: one or two of ``(A,)`` severities, finite, strictly increasing; none for a grid of conditions.
    values: ``(A, ...)``, ``(A, B, ...)`` or, of conditions, ``(C, ...)``, with nulls as null_as_floor leaves them.
        Replicates come last. What is not finite is no value, and where a cell has none all scores are null: part of a
        grid is not the grid.
    clean: ``(...)``, the metric on the untouched input. floor: at its best constant (``constants.floor``).
    baseline: whose errors CE and relative CE divide by. oracle: whose nAUC the regret is to. Both in the shape of
        values, with replicates of the same draws, so that ratios and differences are paired.
    as_error: makes errors of values (``grid_scores.error_form``). None: the metric has no error form.
    untouched: the cells that CE leaves out, bool, in the shape of the grid. Default: severity 0 on every axis; of
        conditions none.

    Raises:
        InputError: severities that do not increase; values, baseline, oracle or untouched that are not on the grid.
    """

    axes: Sequence[ArrayLike]
    values: ArrayLike
    clean: ArrayLike
    floor: ArrayLike
    higher_is_better: bool
    baseline: Curve | None = None
    oracle: Curve | None = None
    as_error: Callable[[Array], Array] | None = None
    untouched: ArrayLike | None = None

    def __post_init__(self) -> None:
        if len(self.axes) > 2:
            raise InputError(f"axes: expected one or two, or none for conditions; got {len(self.axes)}")
        if np.shape(self.values)[:1] in ((), (0,)):
            raise InputError(f"values: expected one for each cell of the grid, got shape {np.shape(self.values)}")
        grid_scores.checked_grid(self.axes, self.values)
        for other in (self.baseline, self.oracle):
            if other is not None and np.shape(other.values) != np.shape(self.values):
                raise InputError(f"{other.name}: expected {np.shape(self.values)}, got {np.shape(other.values)}")
        if self.untouched is not None and np.shape(self.untouched) != self.shape:
            raise InputError(f"untouched: expected the shape of the grid, {self.shape}, got {np.shape(self.untouched)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return np.shape(self.values)[: max(len(self.axes), 1)]

    def replicate(self, i: int) -> GridCurve:
        """One of several, with the floor that they share or its own."""
        floor, others = np.asarray(self.floor), (self.baseline, self.oracle)
        return replace(
            self,
            values=np.asarray(self.values)[..., i],
            clean=np.asarray(self.clean)[..., i],
            floor=floor[..., i] if floor.ndim else floor,
            baseline=others[0] and others[0].replicate(i),
            oracle=others[1] and others[1].replicate(i),
        )

    @property
    def stressed(self) -> NDArray[np.bool_]:
        """The cells that CE sums over, in the shape of the grid."""
        if self.untouched is not None:
            return ~np.asarray(self.untouched, dtype=bool)
        if not len(self.axes):
            return np.ones(self.shape, dtype=bool)
        severities = np.meshgrid(*(np.asarray(axis, dtype=np.float64) for axis in self.axes), indexing="ij")
        return np.asarray(np.any(severities, axis=0))

    @cached_property
    def has_margin(self) -> Array:
        """1 where the clean score beats the floor, else NaN."""
        return self._retention(finite(self.clean))

    def nauc(self) -> Array:
        """One axis or two; null for conditions."""
        return self._nauc(self.values)

    def auc_raw(self) -> Array:
        return grid_scores.auc_raw(self.axes[0], finite(self.values)) if self._is_line else self._null

    def grid_mean(self) -> Array:
        return grid_scores.grid_mean(finite(self.values), len(self.shape))

    def worst(self) -> Array:
        return grid_scores.worst(finite(self.values), self.higher_is_better, len(self.shape))

    def retention(self) -> Array:
        """Of the nAUC."""
        return self._retention(self.nauc())

    def half_life(self) -> Array:
        """Infinite where more than half of the margin is left to the end."""
        if not self._is_line:
            return self._null
        values, clean, floor = finite(self.values), finite(self.clean), finite(self.floor)
        return shape_scores.half_life(self.axes[0], values, clean, floor, self.higher_is_better, never=np.inf)

    def cliff(self) -> shape_scores.Cliff:
        """From the clean score on. Null without a margin: what has nothing to lose has no cliff."""
        if not self._is_line:
            return shape_scores.Cliff(self._null, self._null)
        curve = shape_scores.from_clean(self.axes[0], finite(self.values), finite(self.clean))
        steepest = shape_scores.cliff(*curve, self.higher_is_better)
        return shape_scores.Cliff(steepest.size * self.has_margin, steepest.at * self.has_margin)

    def area_within(self, tolerance: float) -> Array:
        """Null without a margin, as cliff."""
        if not len(self.axes):
            return self._null
        values, clean = finite(self.values), finite(self.clean)
        area = shape_scores.area_within(self.axes, values, clean, self.higher_is_better, tolerance)
        return np.asarray(area * self.has_margin)

    def ce(self) -> Array:
        if self.baseline is None or self.as_error is None:
            return self._null
        own, other = (self.as_error(finite(values)[self.stressed]) for values in (self.values, self.baseline.values))
        return grid_scores.corruption_error(own, other) if len(own) else self._null

    def relative_ce(self) -> Array:
        """Null without a margin: a constant adds no error at all."""
        if self.baseline is None or self.as_error is None:
            return self._null
        own, other = (self.as_error(finite(values)[self.stressed]) for values in (self.values, self.baseline.values))
        clean, other_clean = (self.as_error(finite(values)) for values in (self.clean, self.baseline.clean))
        relative = grid_scores.relative_corruption_error(own, clean, other, other_clean) if len(own) else self._null
        return np.asarray(relative * self.has_margin)

    def regret(self) -> Array:
        if self.oracle is None:
            return self._null
        return grid_scores.regret(self.nauc(), self._nauc(self.oracle.values), self.higher_is_better) + 0.0  # not -0

    @property
    def _null(self) -> Array:
        return np.full(np.shape(self.values)[len(self.shape) :], np.nan)

    @property
    def _is_line(self) -> bool:
        return len(self.axes) == 1 and self.shape[0] > 1

    def _nauc(self, values: ArrayLike) -> Array:
        if not len(self.axes):
            return self._null
        if len(self.axes) == 1:
            return grid_scores.nauc(self.axes[0], finite(values))
        return grid_scores.nauc_2d(self.axes[0], self.axes[1], finite(values))

    def _retention(self, score: Array) -> Array:
        return grid_scores.retention(score, finite(self.clean), finite(self.floor), self.higher_is_better)


def finite(values: ArrayLike | None) -> Array:
    """As float64, with NaN (null) for None and for whatever is not finite.

    >>> finite([0.5, None, float("inf")])
    array([0.5, nan, nan])
    """
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)
