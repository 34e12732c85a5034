"""A bootstrap over groups: clips of one video resemble each other, so whole videos are drawn.

The weights depend only on the number of groups and the seed. Using the same weights for all cells and all
models makes every difference between them a paired one.
"""

from __future__ import annotations

import numpy as np

from corruptions import InputError
from robustbench_msa.analysis.metrics import Array, compute

MAX_UNDEFINED = 0.05
"""An interval is null when more than this share of its replicates is undefined."""


def group_weights(n_groups: int, replicates: int, seed: int) -> Array:
    """How often each group is drawn: G draws with replacement from G groups, B times.

    Args:
        n_groups: G, at least 1.
        replicates: B, at least 1. 1,000 for a 95 % interval.
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
    """Every metric in every replicate.

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


def interval(values: Array, level: float = 0.95) -> tuple[Array, Array]:
    """The percentile interval: the (1 - level)/2 and (1 + level)/2 quantiles over replicates.

    With few groups percentile intervals are too narrow: at a nominal 95 %, the mean of equal normal groups
    was covered in 84 % of 4,000 trials with 5 groups, 90 % with 10, 92 % with 20, 94 % with 31 and with 62.

    Args:
        values: ``(B, ...)``; NaN replicates are left out.
        level: in (0, 1).

    Returns:
        low and high, ``(...)`` each; NaN where more than MAX_UNDEFINED of the replicates are NaN.

    Raises:
        InputError: no replicates, or a level outside (0, 1).

    >>> low, high = interval(np.arange(101.0), level=0.9)
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 95.0)
    """
    if not 0 < level < 1 or values.ndim == 0 or len(values) == 0:
        raise InputError(f"interval: expected values (B, ...) and 0 < level < 1, got {values.shape}, {level}")
    null = np.isnan(values).mean(axis=0) > MAX_UNDEFINED
    quantiles = np.nanquantile(np.where(null, 0.0, values), [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = np.where(null, np.nan, quantiles)
    return np.asarray(low), np.asarray(high)
