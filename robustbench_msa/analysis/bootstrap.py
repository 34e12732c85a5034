"""A bootstrap over groups: clips of one video resemble each other, so whole videos are drawn.

The weights depend only on the number of groups and the seed. Using the same weights for all cells and all
models makes every difference between them a paired one.

Intervals and tests use the studentised bootstrap: in every replicate the mean influence of the drawn groups is
divided by its own standard error, and the distribution of that ratio takes the place of the normal one (Efron and
Tibshirani 1993, section 12.5; symmetric, Hall 1988). It works on the influences of ``jackknife``, so a replicate
costs two products whatever the score is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from corruptions import InputError
from robustbench_msa.analysis.metrics import Array, compute

REPLICATES = 2000
SEED = 20260401
LEVEL = 0.95
_AT_ONCE = 256  # scores; 2,000 replicates of them are 4 MB
_NO_SPREAD = 1e-12  # of the mean square: rounding


def group_weights(n_groups: int, replicates: int = REPLICATES, seed: int = SEED) -> Array:
    """How often each group is drawn: G draws with replacement from G groups, B times.

    Args:
        n_groups: G, at least 1.
        replicates: B, at least 1.
        seed: of a generator of its own; nothing global is read or changed.

    Returns:
        ``(B, G)`` counts as float64 (ready for the matrix product); every row sums to G.

    Raises:
        InputError: fewer than one group or replicate.

    >>> group_weights(4, replicates=3, seed=1111).sum(axis=1)
    array([4., 4., 4.])
    """
    if n_groups < 1 or replicates < 1:
        raise InputError(f"bootstrap: expected at least 1 group, 1 replicate; got {n_groups}, {replicates}")
    drawn = np.random.default_rng(seed).integers(n_groups, size=(replicates, n_groups))
    flat = drawn + n_groups * np.arange(replicates)[:, None]
    counts = np.bincount(flat.ravel(), minlength=replicates * n_groups)
    return counts.reshape(replicates, n_groups).astype(np.float64)


def replicate_metrics(stats: Array, weights: Array, profile: str = "mosi") -> dict[str, Array]:
    """Every metric in every replicate: the plain bootstrap, for whatever is not a mean of influences.

    Args:
        stats: ``(..., G, K)``, one or many cells of ``metrics.sufficient``, their groups in the same order.
        weights: ``(B, G)`` of ``group_weights``.
        profile: what the statistics were made for.

    Returns:
        ``(B, ...)`` per metric. NaN: undefined in that replicate; all of them with fewer than two groups,
        since drawing a single group again and again says nothing about others.

    Raises:
        InputError: weights for another number of groups.

    >>> from robustbench_msa.analysis.metrics import sufficient
    >>> stats = sufficient([-1, 2, 1], [1, 1, 2], [0, 0, 1], n_groups=2)
    >>> replicate_metrics(stats, np.array([[1.0, 1.0], [0.0, 2.0]]))["acc2_non0"].round(3)
    array([0.667, 1.   ])
    """
    if stats.ndim < 2 or weights.ndim != 2 or weights.shape[1] != stats.shape[-2]:
        raise InputError(
            "bootstrap: expected stats (..., G, K) and weights (B, G) of the same groups, "
            f"got {stats.shape} and {weights.shape}"
        )
    values = compute(np.moveaxis(weights @ stats, -2, 0), profile)  # (..., B, K) -> (B, ..., K)
    if stats.shape[-2] < 2:
        return {name: np.full_like(value, np.nan) for name, value in values.items()}
    return values


def replicate_values(value: Array, influences: Array, weights: Array) -> Array:
    """First-order replicates of any score, ``(B, S)``: its value plus the mean influence of the drawn groups.

    Args:
        value: ``(S,)``; influences: ``(G, S)``; weights: ``(B, G)``.

    >>> replicate_values(np.array([2.0]), np.array([[1.0], [-1.0]]), np.array([[1.0, 1.0], [0.0, 2.0]])).ravel()
    array([2., 1.])
    """
    return np.asarray(value + weights @ influences / weights.shape[1])


def critical_values(influences: Array, weights: Array, level: float = LEVEL) -> Array:
    """How many standard errors on either side hold the true value in ``level`` of the replicates, ``(S,)``.

    The smallest c with which ``p_values(c)`` is at most ``1 - level``. inf: more of the replicates have no spread.

    Args:
        influences: ``(G, S)`` of S scores, NaN where undefined.
        weights: ``(B, G)`` of ``group_weights``.
        level: in (0, 1).

    Raises:
        InputError: influences and weights of different groups, or a level outside (0, 1).
    """
    if not 0 < level < 1 or influences.ndim != 2 or weights.ndim != 2 or weights.shape[1] != len(influences):
        raise InputError(
            "bootstrap: expected influences (G, S), weights (B, G) of the same groups and 0 < level < 1; "
            f"got {influences.shape}, {weights.shape}, {level}"
        )
    replicates = len(weights)
    rank = math.ceil((replicates + 1) * level - 1e-9)
    critical = np.full(influences.shape[1], np.inf)
    if rank <= replicates:
        for some, squares in _studentised(influences, weights):
            critical[some] = np.sqrt(np.partition(squares, rank - 1)[:, rank - 1])
    return np.where(np.isnan(influences).any(axis=0), np.nan, critical)


def p_values(statistics: Array, influences: Array, weights: Array) -> Array:
    """Two-sided p of scores whose value is ``statistics`` standard errors from zero, ``(S,)``.

    ``(1 + the number of replicates at least as far from their centre) / (B + 1)`` (Davison and Hinkley 1997,
    section 4.4). Below .05 exactly where the 95 % interval leaves zero out. NaN where the statistic is NaN.
    """
    farther = np.zeros(len(statistics))
    for some, squares in _studentised(influences, weights):
        farther[some] = (squares >= statistics[some, None] ** 2).sum(axis=1)
    return np.where(np.isnan(statistics), np.nan, (1 + farther) / (len(weights) + 1))


def _studentised(influences: Array, weights: Array) -> Iterator[tuple[slice, Array]]:
    """Squares of mean / standard error of the drawn influences, ``(S', B)`` for S' of the scores at a time.

    inf: no spread in that replicate.
    """
    n_groups = len(influences)
    for start in range(0, influences.shape[1], _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        d = influences[:, some].T
        mean, square = np.split(np.concatenate([d, d**2]) @ weights.T / n_groups, 2)  # one product: threads cost
        variance = square - mean**2
        ratio = np.full_like(square, np.inf)
        np.divide((n_groups - 1) * mean**2, variance, out=ratio, where=variance > _NO_SPREAD * square)
        yield some, ratio
