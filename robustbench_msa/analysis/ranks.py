"""Ranks that say how sure they are: their bootstrap intervals, and groups of lines that no test separates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from robustbench_msa.analysis.bootstrap import LEVEL, SEED, replicate_values
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.analysis.variance import Score


def replicates(score: Score, weights: Array, name: str = "") -> Array:
    """``(B, M)`` first-order replicates of a line's score. With several training seeds these are drawn too.

    name: of the line. The draws of training seeds depend on it alone, so that those of two methods are independent.
    """
    n, n_metrics = score.n_train_seeds, score.value.shape[-1]
    if n == 1:
        return replicate_values(score.value, score.pooled, weights)
    generator = np.random.default_rng([SEED, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=len(weights)) / n  # (B, T)
    found = np.zeros((len(weights), n_metrics))
    for t, values in enumerate(score.by_seed.mean(axis=1)):
        found += drawn[:, t, None] * replicate_values(values, score.influence[t], weights)
    return found


def ranks(values: Array, higher_is_better: bool) -> Array:
    """1 plus the number of lines that are better, along the last axis; NaN has no rank and counts for nobody.

    >>> ranks(np.array([0.7, 0.9, 0.7, np.nan]), higher_is_better=True)
    array([ 2.,  1.,  2., nan])
    """
    signed = values if higher_is_better else -values
    better = (signed[..., None, :] > signed[..., :, None]).sum(axis=-1)
    return np.where(np.isnan(values), np.nan, 1.0 + better)


def rank_intervals(values: Array, drawn: Array, higher_is_better: bool, level: float = LEVEL) -> tuple[Array, ...]:
    """Rank, and the quantiles of its bootstrap distribution on either side, ``(L,)`` each.

    Args:
        values: ``(L,)`` of L lines; drawn: ``(B, L)`` their replicates on the same resamples.
    """
    own = ranks(values, higher_is_better)
    spread = ranks(np.where(np.isnan(values), np.nan, drawn), higher_is_better)
    usable = np.where(np.isnan(own), 1.0, spread)
    tails = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    low, high = np.where(np.isnan(own), np.nan, tails)
    return own, low, high


def tie_groups(values: Sequence[float], p: Mapping[tuple[int, int], float], higher_is_better: bool) -> list[int | None]:
    """1 for the best line and all not significantly worse, 2 for the best of the rest and so on; None for null.

    Args:
        p: adjusted, of pairs (i, j) with i < j; NaN or absent: not significant.

    >>> tie_groups([0.9, 0.8, 0.6], {(0, 1): 0.3, (0, 2): 0.01, (1, 2): 0.2}, higher_is_better=True)
    [1, 1, 2]
    """
    known = [i for i, value in enumerate(values) if not np.isnan(value)]
    groups: list[int | None] = [None] * len(values)
    leader = group = 0
    for place, i in enumerate(sorted(known, key=lambda i: (-values[i] if higher_is_better else values[i], i))):
        if place == 0 or p.get((min(leader, i), max(leader, i)), 1.0) < 1 - LEVEL:
            leader, group = i, group + 1
        groups[i] = group
    return groups
