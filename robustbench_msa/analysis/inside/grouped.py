"""Intervals of any statistic of samples: the group bootstrap of ``bootstrap`` on leave-one-group-out values.

What a group (video) does to a statistic is its jackknife influence; the studentised bootstrap over groups gives the
interval, as for all scores of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from robustbench_msa.analysis.bootstrap import critical_values, group_weights
from robustbench_msa.analysis.intervals import PLAIN, SCALES, Scale, on_scale
from robustbench_msa.analysis.jackknife import influence, standard_error
from robustbench_msa.analysis.metrics import Array

Rows = NDArray[np.intp]
SHARE, ERROR, CORRELATION = SCALES["fraction"], SCALES["label"], SCALES[""]
MAX_BLOCKS = 100
_CONSTANT = 1e-6  # of the values' size: float32 rounding


class Estimate(NamedTuple):
    """value and the ends of its 95 % interval, ``(S,)`` each; NaN: undefined, or no spread between groups."""

    value: Array
    low: Array
    high: Array

    def columns(self, i: int, *names: str) -> dict[str, float]:
        """The i-th statistic under three names of columns."""
        return {name: float(part[i]) for name, part in zip(names, self, strict=True)}


def estimate(value: Array, left_out: Array, scale: Scale = PLAIN) -> Estimate:
    """value: ``(S,)``; left_out: ``(G, S)``, without each group; scale: on which the interval is symmetric."""
    influences = influence(left_out)
    with np.errstate(invalid="ignore"):  # inf times 0: no spread at all
        half_width = critical_values(influences, _weights(len(left_out))) * standard_error(influences)
    return Estimate(value, *on_scale(value, half_width, scale))


def of_samples(statistic: Callable[[Rows], Array], group: NDArray[np.int64], scale: Scale = PLAIN) -> Estimate:
    """Of any statistic: a function of the rows to use, giving ``(S,)``. group: ``(N,)``.

    More than MAX_BLOCKS groups are merged into that many blocks of whole groups: each one left out costs a statistic.
    """
    block = np.unique(group, return_inverse=True)[1] % MAX_BLOCKS
    left_out = np.stack([statistic(np.flatnonzero(block != b)) for b in range(block.max() + 1)])
    return estimate(statistic(np.arange(len(group))), left_out, scale)


def of_sums(
    terms: Array, group: NDArray[np.int64], compute: Callable[[Array], Array], scale: Scale = PLAIN
) -> Estimate:
    """Of a statistic that sums over samples decide. terms: ``(N, K)``; compute: ``(..., K)`` sums to ``(..., S)``."""
    index = np.unique(group, return_inverse=True)[1]
    sums = np.stack([np.bincount(index, weights=column) for column in terms.T], axis=1)  # (G, K)
    total = sums.sum(axis=0)
    return estimate(compute(total), compute(total - sums), scale)


def means(values: Array, group: NDArray[np.int64], scale: Scale = PLAIN) -> Estimate:
    """The means of ``(N, S)``.

    >>> found = means(np.array([[1.0], [2.0], [6.0]]), np.array([0, 1, 2]))
    >>> float(found.value[0])
    3.0
    """
    terms = np.column_stack([values, np.ones(len(values))])
    return of_sums(terms, group, lambda sums: ratio(sums[..., :-1], sums[..., -1:]), scale)


def deviations(values: Array, group: NDArray[np.int64]) -> Estimate:
    """The standard deviations between samples (1/N) of ``(N, S)``."""
    k, centre = values.shape[1], values.mean(axis=0)  # an origin, so that squares lose no digits
    shifted = values - centre
    terms = np.column_stack([shifted, shifted**2, np.ones(len(values))])

    def compute(sums: Array) -> Array:
        mean, square = ratio(sums[..., :k], sums[..., -1:]), ratio(sums[..., k:-1], sums[..., -1:])
        return np.sqrt(np.maximum(square - mean**2, 0.0))

    return of_sums(terms, group, compute)


def correlations(x: Array, y: Array, group: NDArray[np.int64]) -> Estimate:
    """Pearson's correlation of each column of ``(N, S)`` with y ``(N,)``; NaN where one is constant."""
    return of_samples(lambda rows: pearson(x[rows], y[rows]), group, CORRELATION)


def rank_correlations(x: Array, y: Array, group: NDArray[np.int64]) -> Estimate:
    """Spearman's correlation of each column of ``(N, S)`` with y ``(N,)``, ties by their mean rank; NaN if constant."""
    return of_samples(lambda rows: spearman(x[rows], y[rows]), group, CORRELATION)


def spearman(x: Array, y: Array) -> Array:
    """
    >>> spearman(np.array([[1.0], [2.0], [30.0]]), np.array([3.0, 2.0, -4.0]))
    array([-1.])
    """
    known = np.where(_varies(x), 1.0, np.nan)
    return known * pearson(rankdata(x, axis=0), rankdata(y))


def pearson(x: Array, y: Array) -> Array:
    """Of each column of ``(N, S)`` with ``(N,)``.

    >>> pearson(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), np.array([2.0, 4.0, 6.0]))
    array([ 1., nan])
    """
    if len(y) < 2:
        return np.full(x.shape[1], np.nan)
    known = _varies(x) & _varies(y[:, None])
    a, b = x - x.mean(axis=0), y - y.mean()
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum())
    return np.where(known, np.clip((b @ a) / np.where(known, norm, 1.0), -1.0, 1.0), np.nan)


def ratio(numerator: Array, denominator: Array) -> Array:
    """NaN where nothing was counted."""
    positive = denominator > 0
    return np.asarray(np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan))


def _varies(x: Array) -> NDArray[np.bool_]:
    """Which columns are no constant but for rounding."""
    size = np.abs(x).max(axis=0, initial=0.0)
    return np.asarray(np.ptp(x, axis=0) > _CONSTANT * size)


@cache
def _weights(n_groups: int) -> Array:
    return group_weights(n_groups)
