"""Scores of a curve's shape: where it halves, where it breaks, how long it stays near clean.

They describe one curve against its own clean score, so a weak model can have a fine shape: read them beside the
level (nAUC), never instead of it. Conventions are those of grid_scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corruptions import InputError
from robustbench_msa.analysis.grid_scores import checked_grid, retention
from robustbench_msa.analysis.metrics import Array

_ROUNDING = 1e-9  # half a margin that is left but for this is half gone, drops that differ by this share are equal
_FLAT = 1e-12  # per unit of severity: less than this is no drop
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)


class Cliff(NamedTuple):
    """size: metric per unit of severity, 0 when the curve never gets worse; at: the severity where it starts."""

    size: Array
    at: Array


def from_clean(severities: ArrayLike, values: ArrayLike, clean: ArrayLike) -> tuple[Array, Array]:
    """A curve that starts at severity 0: as it is, or with (0, clean) put before a grid that starts above 0.

    >>> from_clean([0.2, 0.4], [0.7, 0.6], clean=0.8)
    (array([0. , 0.2, 0.4]), array([0.8, 0.7, 0.6]))
    """
    (grid,), curve = checked_grid([severities], values)
    if grid[0] <= 0:
        return grid, curve
    first = np.broadcast_to(np.asarray(clean, dtype=np.float64), curve.shape[1:])
    return np.insert(grid, 0, 0.0), np.concatenate([first[None], curve])


def half_life(
    severities: ArrayLike,
    values: ArrayLike,
    clean: ArrayLike,
    floor: ArrayLike,
    higher_is_better: bool,
    never: float = np.nan,
) -> Array:
    """The smallest severity at which half of the clean margin over the floor is gone: retention(s) = 1/2.

    Between grid points the curve is a straight line, so with retention r at neighbours a < b and r_b <= 1/2
    for the first time, s = a + (b - a) (r_a - 1/2) / (r_a - r_b). This project's own, after the half-lives of
    decay. A grid that starts above 0 is taken to start at (0, clean), since severity 0 is the untouched input.

    Args:
        severities: ``(S,)``, finite, strictly increasing.
        values: ``(S, ...)``.
        clean, floor: as in retention; shapes broadcast with ``(...)``.
        never: what stands where more than half is left to the end. For intervals, the largest severity: then
            an upper bound that is the end of the grid reads "there or beyond".

    Returns:
        ``(...)`` severities; NaN for a single severity, a null value, a clean score that does not beat the floor.

    Raises:
        InputError: severities that are not finite or do not increase; values of another length.

    The margin is .8 - .5; its half is at .65, between .7 and .6:

    >>> round(float(half_life([0, 0.4, 0.6], [0.8, 0.7, 0.6], clean=0.8, floor=0.5, higher_is_better=True)), 6)
    0.5
    """
    (grid,), curve = checked_grid([severities], values)
    if len(grid) == 1:
        return np.full(curve.shape[1:], np.nan)
    grid, curve = from_clean(grid, curve, clean)
    left = retention(curve, clean, floor, higher_is_better)
    halved = left <= 0.5 + _ROUNDING
    after = halved.argmax(axis=0)
    before = np.maximum(after - 1, 0)
    high, low = (np.take_along_axis(left, i[None], axis=0)[0] for i in (before, after))
    falls = high > low
    share = np.where(falls, (high - 0.5) / np.where(falls, high - low, 1.0), 0.0)
    where = grid[before] + np.clip(share, 0, 1) * (grid[after] - grid[before])
    known = np.where(halved.any(axis=0), where, never)
    return np.asarray(np.where(np.isnan(left).any(axis=0), np.nan, known))


def cliff(severities: ArrayLike, values: ArrayLike, higher_is_better: bool) -> Cliff:
    """The steepest drop between neighbours: max_i (m_i - m_{i+1}) / (s_{i+1} - s_i), and the s_i where it is.

    With the sign turned where lower is better. This project's own: an nAUC does not tell a slope from a step.
    A finer grid can only find steeper drops, so compare cliffs of the same grid.

    Args:
        severities, values: as in half_life.

    Returns:
        Cliff, ``(...)`` each; of equal drops the first. NaN for a single severity and where a value is null;
        ``at`` also where the curve never gets worse.

    Raises:
        InputError: as half_life.

    >>> steepest = cliff([0, 0.2, 0.6], [0.8, 0.7, 0.4], higher_is_better=True)
    >>> round(float(steepest.size), 6), float(steepest.at)
    (0.75, 0.2)
    """
    (grid,), curve = checked_grid([severities], values)
    if len(grid) == 1:
        return Cliff(np.full(curve.shape[1:], np.nan), np.full(curve.shape[1:], np.nan))
    steps = np.diff(grid).reshape(-1, *[1] * (curve.ndim - 1))
    drops = np.diff(-curve if higher_is_better else curve, axis=0) / steps
    steepest = drops.max(axis=0)
    size = np.where(steepest <= _FLAT, 0.0, steepest)
    first = (drops >= size * (1 - _ROUNDING)).argmax(axis=0)
    return Cliff(np.asarray(size), np.asarray(np.where(size > 0, grid[first], np.nan)))


def area_within(
    axes: Sequence[ArrayLike], values: ArrayLike, clean: ArrayLike, higher_is_better: bool, tolerance: float
) -> Array:
    """The share of the grid's range (two axes: area) where at most ``tolerance`` of the clean score is lost.

    |{s : (clean - m(s)) / clean <= tolerance}| / |range|, with m - clean where lower is better. This project's
    own, after operating regions. Between grid points the curve is straight and the surface bilinear, and of
    that the share is exact (of a bilinear cell: lines along the second axis, integrated along the first).

    Args:
        axes: one or two of ``(A,)`` severities, finite, strictly increasing.
        values: ``(A, ...)`` or ``(A, B, ...)``.
        clean: ``(...)``, broadcasts.
        tolerance: share of clean, at least 0; 0.05 is 5 %.

    Returns:
        ``(...)`` in [0, 1]; NaN where an axis has a single severity, a value is null or clean is not above 0.

    Raises:
        InputError: as half_life; other than one or two axes; a negative tolerance.

    5 % of .8 is .04, which is lost at .1 on the way from .8 to .72, half of the range:

    >>> round(float(area_within([[0, 0.2]], [0.8, 0.72], 0.8, higher_is_better=True, tolerance=0.05)), 6)
    0.5
    """
    if len(axes) not in (1, 2) or not tolerance >= 0:
        raise InputError(f"area_within: expected 1 or 2 axes and a tolerance >= 0, got {len(axes)}, {tolerance}")
    grid, surface = checked_grid(axes, values)
    if any(len(severities) == 1 for severities in grid):
        return np.full(surface.shape[len(grid) :], np.nan)
    base = np.where(np.greater(clean, 0), clean, np.nan)
    spare = (surface - base) * (1 if higher_is_better else -1) + tolerance * base  # what is left of the tolerance
    within = _share(*_above(spare[:-1], spare[1:])) if len(grid) == 1 else _within_cells(spare)
    for severities in grid:
        within = np.tensordot(np.diff(severities) / (severities[-1] - severities[0]), within, axes=1)
    return np.asarray(within)


def _share(above: Array, whole: Array) -> Array:
    """above / whole, which is the share of a segment where a line is not negative; all of it where it is zero."""
    flat = whole == 0
    return np.where(flat, 1.0, above / np.where(flat, 1.0, whole))


def _above(a: Array, b: Array) -> tuple[Array, Array]:
    """Of a line from a to b: above, whole, for _share. Both are linear in a and b while neither changes its sign."""
    above = np.maximum(a, 0) + np.maximum(b, 0)
    return above, above + np.maximum(-a, 0) + np.maximum(-b, 0)


def _within_cells(spare: Array) -> Array:
    """``(A - 1, B - 1, ...)`` the share of each cell where the bilinear surface is not negative."""
    start, stop = spare[:-1], spare[1:]  # (A - 1, B, ...) at both ends of the first axis
    crossing = np.where(start * stop < 0, start / np.where(start == stop, 1.0, start - stop), 0.0)
    cuts = np.sort(np.stack([crossing[:, :-1], crossing[:, 1:]]), axis=0)
    total: Array = np.zeros_like(cuts[0])
    for left, right in [(np.zeros_like(total), cuts[0]), (cuts[0], cuts[1]), (cuts[1], np.ones_like(total))]:
        edges = (start[:, :-1] + (stop - start)[:, :-1] * x for x in (left, right))
        others = (start[:, 1:] + (stop - start)[:, 1:] * x for x in (left, right))
        ends = [_above(edge, other) for edge, other in zip(edges, others, strict=True)]
        total += (right - left) * _mean_share(*ends[0], *ends[1])
    return total


def _mean_share(a0: Array, w0: Array, a1: Array, w1: Array) -> Array:
    """The integral of (a0 + (a1 - a0) x) / (w0 + (w1 - w0) x) over x in [0, 1].

    (a1 - a0) / d + (a0 w1 - a1 w0) / d^2 log(w1 / w0), d = w1 - w0; for small d, where digits cancel, by
    Gauss-Legendre, whose error is then below 1e-15. With w0 or w1 = 0 the second term is 0.
    """
    bends = np.abs(w1 - w0) > 0.1 * (w0 + w1)
    d = np.where(bends, w1 - w0, 1.0)
    logs = [np.log(np.where((w0 > 0) & (w1 > 0), w, 1.0)) for w in (w0, w1)]
    exact = (a1 - a0) / d + (a0 * w1 - a1 * w0) / d / d * (logs[1] - logs[0])
    nodes = [_share(a0 + (a1 - a0) * x, w0 + (w1 - w0) * x) for x in (_NODES + 1) / 2]
    return np.where(bends, exact, np.tensordot(_WEIGHTS / 2, nodes, axes=1))
