"""Is the difference between two lines more than chance? Paired, because both were given the same inputs.

Three answers: an interval of the difference and its p, from the studentised bootstrap over groups; a permutation test
that swaps the two lines' statistics group by group; and, for two methods, one that exchanges their training seeds.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from corruptions import InputError
from robustbench_msa.analysis.bootstrap import LEVEL, SEED, critical_values, p_values
from robustbench_msa.analysis.intervals import PLAIN, on_scale
from robustbench_msa.analysis.metrics import Array, compute
from robustbench_msa.analysis.variance import CHECKPOINT, METHOD, Score, uncertainty

PERMUTATIONS = 2000
_TIES = 1e-9  # relative: what rounding makes of two equal statistics


class Difference(NamedTuple):
    """a - b, ``(M,)`` each; NaN: undefined, or the two do not differ in any group."""

    value: Array
    low: Array
    high: Array
    p: Array
    standard_error: Array
    degrees_of_freedom: Array
    claim: str


def difference(a: Score, b: Score, weights: Array, level: float = LEVEL) -> Difference:
    """The difference of two lines with its interval and two-sided p.

    Between checkpoints, p is counted in the replicates; where either line has several training seeds it is that of t
    with Satterthwaite's degrees of freedom. Either is below ``1 - level`` where the interval leaves zero out.

    Args:
        a, b: over the same metrics and groups.
        weights: ``(B, G)`` of ``group_weights``.
    """
    if a.pooled.shape != b.pooled.shape:
        shapes = f"{a.pooled.shape} and {b.pooled.shape}"
        raise InputError(f"difference: expected two scores over the same groups and metrics, got {shapes}")
    value, pooled = a.value - b.value, a.pooled - b.pooled
    found = uncertainty([a, b], pooled, critical_values(pooled, weights, level), level)
    low, high = on_scale(value, found.half_width, PLAIN)
    differs = ~np.isnan(low)
    error = np.where(differs, found.standard_error, np.nan)
    if found.degrees_of_freedom is None:
        freedom = np.full_like(value, len(pooled) - 1)
        p = p_values(value / error, pooled, weights)
    else:
        freedom = found.degrees_of_freedom
        p = 2 * stdtr(freedom, -np.abs(value) / error)
    return Difference(value, low, high, p, error, np.where(differs, freedom, np.nan), claim_of(a, b))


def claim_of(*scores: Score) -> str:
    """About methods only when every line has several training seeds."""
    return METHOD if all(score.claim == METHOD for score in scores) else CHECKPOINT


def swaps(n_groups: int, permutations: int = PERMUTATIONS, seed: int = SEED) -> Array:
    """Which groups change sides, ``(P, G)`` of 0 and 1; all 2^G where those are no more. The first row changes none.

    >>> swaps(2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if n_groups < 1 or permutations < 1:
        raise InputError(f"swaps: expected at least 1 group and 1 permutation, got {n_groups}, {permutations}")
    if n_groups < 60 and 2**n_groups <= permutations:
        return np.array(list(product((0.0, 1.0), repeat=n_groups)))
    drawn = np.random.default_rng(seed).integers(2, size=(permutations, n_groups)).astype(np.float64)
    return np.concatenate([np.zeros((1, n_groups)), drawn])


def swapped_differences(a: Array, b: Array, flips: Array, profile: str, nulls: Array | float = np.nan) -> Array:
    """a - b of every metric after each swap, ``(P, M)``.

    Args:
        a, b: ``(G, K)`` statistics with a shared origin (``Evaluated.statistics``).
        flips: ``(P, G)`` of ``swaps``.
        nulls: ``(M,)`` what a null counts as.
    """
    total, moved = a.sum(axis=0) + b.sum(axis=0), flips @ (b - a)
    ours = a.sum(axis=0) + moved
    sides = [np.stack(list(compute(side, profile).values()), axis=-1) for side in (ours, total - ours)]
    first, second = (np.where(np.isnan(side), nulls, side) for side in sides)
    return np.asarray(first - second)


def permutation_p(differences: Array) -> Array:
    """Two-sided p, ``(M,)``: the share of ``(P, M)`` differences at least as large as the first, the observed one.

    Exact where all permutations are among them; with random ones that is ``(1 + count) / (1 + drawn)``.

    >>> permutation_p(np.array([[2.0], [-2.0], [1.0], [-1.0]]))
    array([0.5])
    """
    size = np.abs(differences)
    p = (size >= size[0] * (1 - _TIES)).mean(axis=0)
    return np.where(np.isnan(differences).any(axis=0), np.nan, p)


def exchange_p(a: Score, b: Score, permutations: int = PERMUTATIONS, seed: int = SEED) -> Array:
    """Two-sided p that both methods' training seeds are draws from one method, on these samples, ``(M,)``.

    Every way of calling T_a of the T_a + T_b seeds the first method's, or ``permutations`` random ones. With three
    seeds each there are 20 ways: no p below .1. NaN with a single training seed on either side.
    """
    n, rest = a.n_train_seeds, b.n_train_seeds
    if min(n, rest) < 2:
        return np.full_like(a.value, np.nan)
    values = np.concatenate([a.by_seed.mean(axis=1), b.by_seed.mean(axis=1)])  # (T_a + T_b, M)
    if comb(n + rest, n) <= permutations:
        ways = [list(way) for way in combinations(range(n + rest), n)]  # the observed one comes first
    else:
        generator = np.random.default_rng(seed)
        ways = [list(range(n)), *(generator.permutation(n + rest)[:n].tolist() for _ in range(permutations))]
    member = np.zeros((len(ways), n + rest))
    for row, way in zip(member, ways, strict=True):
        row[way] = 1
    return permutation_p(member @ values / n - (1 - member) @ values / rest)


def holm(p: ArrayLike) -> Array:
    """Holm's (1979) adjusted p of a family: the k-th smallest of m times m - k + 1, rising, at most 1.

    NaN are no tests: they stay NaN and do not count.

    >>> holm([0.01, 0.04, 0.03, np.nan])
    array([0.03, 0.06, 0.06,  nan])
    """
    values = np.asarray(p, dtype=np.float64)
    tests = np.flatnonzero(~np.isnan(values))
    order = tests[np.argsort(values[tests], kind="stable")]
    adjusted = np.full_like(values, np.nan)
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
