"""Scores over a grid of severities: one number for a curve. docs/scores.md has a table of them all.

Lower-is-better metrics stay as they are. Nothing is scaled against whatever other methods happen to be in a
table: ``regret`` and the corruption errors compare with one other curve, which is named. Grid axes come first;
whatever follows (metrics, replicates, seeds) is carried along. NaN is null and spreads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from corruptions import InputError
from robustbench_msa.analysis.metrics import NULL_SCORES, Accuracy, Array, MeanAbsoluteError, Metric


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


def regret(score: ArrayLike, oracle: ArrayLike, higher_is_better: bool) -> Array:
    """How far a score stays behind the oracle's: oracle - score, or score - oracle where lower is better.

    Args:
        score, oracle: nAUCs (or any score in the metric's unit) over the same grid; shapes broadcast.

    Returns:
        In the metric's unit; 0 is the best that the information left in the input allows, negative is luck.

    >>> float(regret(0.6, oracle=0.75, higher_is_better=True).round(6))
    0.15
    >>> float(regret(1.1, oracle=0.9, higher_is_better=False).round(6))
    0.2
    """
    gap = np.subtract(oracle, score, dtype=np.float64)
    return np.asarray(gap if higher_is_better else -gap)


def corruption_error(errors: ArrayLike, baseline: ArrayLike) -> Array:
    """CE of one stress: sum_s E_s / sum_s E_s^baseline (Hendrycks & Dietterich 2019, section 4).

    Theirs is ImageNet-C's: five severities, top-1 error, AlexNet. Here: any grid, an error as ``error_form``
    gives it, a named baseline. As there, the untouched input is not among the severities, and the ratio is of
    sums, so that a severity at which the baseline is nearly perfect does not blow up.

    Args:
        errors, baseline: ``(P, ...)`` over the same P cells, without the untouched one; not negative.

    Returns:
        ``(...)``; below 1: fewer errors than the baseline. NaN when the baseline makes none.

    >>> float(corruption_error([0.2, 0.4], baseline=[0.3, 0.5]).round(6))
    0.75
    """
    return _quotient(_cells(errors, 1).sum(axis=0), _cells(baseline, 1).sum(axis=0))


def relative_corruption_error(
    errors: ArrayLike, clean: ArrayLike, baseline: ArrayLike, baseline_clean: ArrayLike
) -> Array:
    """Relative CE: sum_s (E_s - E_clean) / sum_s (E_s^baseline - E_clean^baseline) (ibid.).

    What is *added* to the clean error, as a share of what is added to the baseline's. A model that is bad from
    the start has little to add, so nothing should be ranked by it alone.

    Args:
        errors, baseline: as corruption_error. clean, baseline_clean: ``(...)`` errors on the untouched input.

    Returns:
        ``(...)``; below 1: loses less than the baseline. NaN when the baseline does not get worse.

    >>> float(relative_corruption_error([0.2, 0.4], 0.2, baseline=[0.3, 0.5], baseline_clean=0.2).round(6))
    0.5
    """
    gained = (_cells(errors, 1) - np.asarray(clean)).sum(axis=0)
    return _quotient(gained, (_cells(baseline, 1) - np.asarray(baseline_clean)).sum(axis=0))


def mce(ce: ArrayLike) -> Array:
    """mCE, or relative mCE: the mean over stresses of their (relative) CE (ibid.).

    Args:
        ce: ``(C, ...)``, one for each of C stresses, all against the same baseline.

    >>> float(mce([0.75, 0.5]))
    0.625
    """
    return grid_mean(ce)


def error_form(metric: Metric) -> Callable[[Array], Array] | None:
    """What makes an error of a metric: 1 - accuracy, MAE as it is; None for F1, Corr and others, which have none.

    >>> from robustbench_msa.analysis.metrics import get_profile
    >>> as_error = error_form(get_profile("mosi").metric("acc7"))
    >>> float(as_error(np.array(0.25))), error_form(get_profile("mosi").metric("corr"))
    (0.75, None)
    """
    if isinstance(metric, Accuracy):
        return lambda values: 1 - values
    return (lambda values: values) if isinstance(metric, MeanAbsoluteError) else None


def null_as_floor(values: ArrayLike, metric: str) -> Array:
    """Values as they enter nAUC and retention: a null Corr is 0, what a constant is worth; other nulls stay.

    >>> null_as_floor([0.8, np.nan], "corr"), null_as_floor([0.8, np.nan], "mae")
    (array([0.8, 0. ]), array([0.8, nan]))
    """
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isnan(values), NULL_SCORES.get(metric, np.nan), values)


def checked_grid(axes: Sequence[ArrayLike], values: ArrayLike) -> tuple[list[Array], Array]:
    """Severities of each axis, and values with the grid in their first axes; InputError where they are not that."""
    grid = [_severities(axis) for axis in axes]
    shape = tuple(len(severities) for severities in grid)
    array = np.asarray(values, dtype=np.float64)
    if array.shape[: len(shape)] != shape:
        raise InputError(f"values: expected the grid {shape} in the first axes, got shape {array.shape}")
    return grid, array


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


def _trapezoid(grid: Array) -> Array:
    """``(S,)`` what each value weighs: half the distance between its neighbours; NaN when it has none."""
    if len(grid) == 1:
        return np.full(1, np.nan)
    steps = np.diff(grid)
    return (np.append(steps, 0.0) + np.insert(steps, 0, 0.0)) / 2


def _integral(axes: Sequence[ArrayLike], values: ArrayLike) -> Array:
    grid, result = checked_grid(axes, values)
    for severities in grid:
        result = np.tensordot(_trapezoid(severities), result, axes=1)
    return np.asarray(result)


def _quotient(errors: Array, baseline: Array) -> Array:
    """errors / baseline; NaN where the baseline is not above 0 but for rounding."""
    positive = baseline > 1e-9
    return np.asarray(np.where(positive, errors / np.where(positive, baseline, 1.0), np.nan))


def _cells(values: ArrayLike, grid_axes: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < grid_axes or grid_axes < 1 or 0 in array.shape[:grid_axes]:
        raise InputError(f"values: expected {grid_axes} grid axes and at least one cell, got {array.shape}")
    return array.reshape(-1, *array.shape[grid_axes:])
