"""What each group (video) does to a score: the score without it, and from that a standard error.

The influence of group g is ``d_g = (G - 1) (mean of the leave-one-out scores - the score without g)``. It sums to zero,
``score + d_g`` are the pseudo-values of the jackknife (Efron 1982, section 2), and influences of linear combinations of
scores (a mean over seeds, an nAUC, a difference) are the same combinations of influences. Everything a bootstrap over
groups needs of a score, whatever its formula, is therefore its value and G numbers.
"""

from __future__ import annotations

import numpy as np

from robustbench_msa.analysis.metrics import Array, compute

FEW_GROUPS = 20
"""Below this many groups a table carries ``few_groups_note``."""


def leave_one_out(stats: Array, profile: str = "mosi") -> tuple[Array, Array]:
    """Every metric on all groups, and without each of them.

    Args:
        stats: ``(..., G, K)`` of ``metrics.sufficient``.

    Returns:
        ``(..., M)`` and ``(..., G, M)``, metrics in the order of the profile; NaN: undefined.

    >>> from robustbench_msa.analysis.metrics import PROFILES, sufficient
    >>> stats = sufficient([-1, 2, 1, 3], [1, 1, 2, 3], [0, 0, 1, 2], n_groups=3)
    >>> value, left_out = leave_one_out(stats)
    >>> mae = PROFILES["mosi"].names.index("mae")
    >>> float(value[mae]), left_out[:, mae].round(3)
    (1.0, array([0.5  , 1.   , 1.333]))
    """
    total = stats.sum(axis=-2)
    values, without = compute(total, profile), compute(total[..., None, :] - stats, profile)
    return np.stack(list(values.values()), axis=-1), np.stack(list(without.values()), axis=-1)


def influence(left_out: Array, axis: int = 0) -> Array:
    """``(G - 1) (mean - left_out)`` along an axis of G groups: what each group adds. It sums to zero.

    >>> influence(np.array([0.5, 1.0, 1.5]))
    array([ 1.,  0., -1.])
    """
    n_groups = left_out.shape[axis]
    return np.asarray((n_groups - 1) * (left_out.mean(axis=axis, keepdims=True) - left_out))


def standard_error(influences: Array, axis: int = 0) -> Array:
    """The jackknife's: the root of ``sum d_g^2 / (G (G - 1))``; NaN for a single group.

    Of a plain mean of G numbers it is their standard deviation (G - 1) over the root of G:

    >>> float(standard_error(np.array([1.0, 0.0, -1.0])).round(4))
    0.5774
    """
    n_groups = influences.shape[axis]
    if n_groups < 2:
        return np.full(np.delete(influences.shape, axis), np.nan)
    return np.asarray(np.sqrt((influences**2).sum(axis=axis) / (n_groups * (n_groups - 1))))


def few_groups_note(n_groups: int) -> str:
    """The warning for tables and captions; empty with FEW_GROUPS or more.

    >>> few_groups_note(7), few_groups_note(31)
    ('only 7 groups: intervals and tests are rough below 20', '')
    """
    if n_groups >= FEW_GROUPS:
        return ""
    return f"only {n_groups} group{'' if n_groups == 1 else 's'}: intervals and tests are rough below {FEW_GROUPS}"
