"""Scores over a grid of severities: one number for a curve.

Everything here is a property of one curve: nothing is scaled against other methods, and lower-is-better
metrics stay as they are. Grid axes come first; whatever follows (metrics, replicates, seeds) is carried
along. NaN is null and spreads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from corruptions import InputError
from robustbench_msa.analysis.metrics import NULL_SCORES, Array


def auc_raw(severities: ArrayLike, values: ArrayLike) -> Array:
    """The area under the curve by the trapezoid rule, not divided by the range (EMT-DLFR's tables).

    Args:
        severities: ``(S,)``, finite, strictly increasing.
        values: ``(S, ...)``.

    Returns:
        ``(...)``; NaN for a single severity, which has no range, and where a value is NaN.

    Raises:
        InputError: severities that are not finite or do not increase; values of another length.

    >>> float(auc_raw([0, 0.5, 1], [1.0, 0.5, 0.0]))
    0.5
    """
    return _integral([severities], values)


def nauc(severities: ArrayLike, values: ArrayLike) -> Array:
    """nAUC: the area under the curve divided by the range of severities (RIDER-MoE eq. 53-54).

    Arguments and errors are those of auc_raw. It stays in the unit of the metric, and a constant curve has
    its constant. It is not ``grid_mean``: the end points weigh half. Here the trapezoids are
    (1 + .8)/2 * .1 + (.8 + .2)/2 * .3 = .24, over a range of .4:

    >>> round(float(nauc([0, 0.1, 0.4], [1.0, 0.8, 0.2])), 6)
    0.6
    """
    return _integral([severities], values) / _range(severities)


def nauc_2d(a: ArrayLike, b: ArrayLike, values: ArrayLike) -> Array:
    """The volume over a grid of two severities by the trapezoid rule, divided by the area.

    Args:
        a, b: ``(A,)`` and ``(B,)``, finite, strictly increasing.
        values: ``(A, B, ...)``.

    Returns:
        ``(...)``; NaN when either axis has a single severity.

    Raises:
        InputError: as auc_raw.

    >>> float(nauc_2d([0, 1], [0, 1], [[1.0, 0.5], [0.5, 0.0]]))
    0.5
    """
    return _integral([a, b], values) / (_range(a) * _range(b))


def grid_mean(values: ArrayLike, grid_axes: int = 1) -> Array:
    """The plain mean over the cells of a grid, which are the first ``grid_axes`` axes of values.

    >>> round(float(grid_mean([1.0, 0.8, 0.3])), 6)
    0.7
    """
    return np.asarray(_cells(values, grid_axes).mean(axis=0))


def worst(values: ArrayLike, higher_is_better: bool, grid_axes: int = 1) -> Array:
    """The worst cell of a grid, which is the first ``grid_axes`` axes of values.

    >>> curve = [0.8, 0.5, 0.6]
    >>> float(worst(curve, higher_is_better=True)), float(worst(curve, higher_is_better=False))
    (0.5, 0.8)
    """
    cells = _cells(values, grid_axes)
    return np.asarray(cells.min(axis=0) if higher_is_better else cells.max(axis=0))


def retention(
    score: ArrayLike,
    clean: ArrayLike,
    floor: ArrayLike,
    higher_is_better: bool | None = None,
) -> Array:
    """The share of the clean model's gain over the floor that is left: (score - floor) / (clean - floor).

    Args:
        score: at a severity, or an nAUC.
        clean: the same model at severity 0.
        floor: the best constant of the evaluated labels (``constants.floor``).
        higher_is_better: where given, a clean model that does not beat the floor has nothing to retain: NaN.
            Without it, only a clean score equal to the floor gives NaN.

    Returns:
        1: nothing lost, 0: no better than a constant, negative: worse. Shapes broadcast.

    >>> float(retention(0.6, clean=0.7, floor=0.5, higher_is_better=True).round(6))
    0.5
    >>> float(retention(1.2, clean=0.9, floor=1.4, higher_is_better=False).round(6))
    0.4
    """
    gain = np.subtract(clean, floor, dtype=np.float64)
    nothing = np.isclose(clean, floor, rtol=1e-9, atol=1e-12)
    if higher_is_better is not None:
        nothing |= (gain < 0) == higher_is_better
    left = np.subtract(score, floor, dtype=np.float64)
    return np.asarray(np.where(nothing, np.nan, left / np.where(nothing, 1.0, gain)))


def null_as_floor(values: ArrayLike, metric: str) -> Array:
    """Values as they enter nAUC and retention: a null Corr is 0, what a constant is worth; other nulls stay.

    >>> null_as_floor([0.8, np.nan], "corr"), null_as_floor([0.8, np.nan], "mae")
    (array([0.8, 0. ]), array([0.8, nan]))
    """
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isnan(values), NULL_SCORES.get(metric, np.nan), values)


def _severities(severities: ArrayLike) -> Array:
    try:
        grid = np.asarray(severities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"severities: expected numbers ({error})") from error
    if grid.ndim != 1 or grid.size == 0 or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise InputError(f"severities: expected finite numbers that strictly increase, got {grid.tolist()}")
    return grid


def _range(severities: ArrayLike) -> float:
    grid = _severities(severities)
    return float(grid[-1] - grid[0]) if len(grid) > 1 else float("nan")


def _trapezoid(severities: ArrayLike) -> Array:
    """``(S,)`` what each value weighs: half the distance between its neighbours; NaN when it has none."""
    grid = _severities(severities)
    if len(grid) == 1:
        return np.full(1, np.nan)
    steps = np.diff(grid)
    return (np.append(steps, 0.0) + np.insert(steps, 0, 0.0)) / 2


def _integral(axes: Sequence[ArrayLike], values: ArrayLike) -> Array:
    weights = [_trapezoid(axis) for axis in axes]
    shape = tuple(len(w) for w in weights)
    result = np.asarray(values, dtype=np.float64)
    if result.shape[: len(shape)] != shape:
        raise InputError(f"values: expected the grid {shape} in the first axes, got shape {result.shape}")
    for w in weights:
        result = np.tensordot(w, result, axes=1)
    return np.asarray(result)


def _cells(values: ArrayLike, grid_axes: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < grid_axes or grid_axes < 1 or 0 in array.shape[:grid_axes]:
        raise InputError(f"values: expected {grid_axes} grid axes and at least one cell, got {array.shape}")
    return array.reshape(-1, *array.shape[grid_axes:])
