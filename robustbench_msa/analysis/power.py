"""How large a difference a test set can show: the minimum detectable difference of a paired comparison."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from corruptions import InputError
from robustbench_msa.analysis.jackknife import standard_error
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.analysis.variance import Score


def mdd(a: Score, b: Score | None = None, power: float = 0.8, alpha: float = 0.05, correlation: float = 0.0) -> Array:
    """``(t[1 - alpha/2] + t[power]) SE``, each t with G - 1 degrees of freedom, ``(M,)``.

    A true difference of this size is found significant (two-sided, level alpha, paired over G groups) with probability
    ``power`` (Bloom 1995). SE is the jackknife standard error of the difference over groups; training seeds are taken
    as given.

    Args:
        a, b: two lines over the same groups. ``Score.of_statistics`` makes one of sums per group.
        correlation: without b, that of the two lines' errors over groups: the other line is then taken to vary as a
            does, and ``SE = SE(a) sqrt(2 (1 - correlation))``. 0 is the cautious choice: models that fail on the
            same videos differ by less.

    Raises:
        InputError: a power or alpha outside (0, 1), a correlation outside [-1, 1).

    Three groups with influences 1, 0, -1 have SE .577; t with 2 degrees of freedom is 4.303 and 1.061:

    >>> line = Score(np.zeros((1, 1, 1)), np.array([[[1.0], [0.0], [-1.0]]]))
    >>> other = Score(np.zeros((1, 1, 1)), np.zeros((1, 3, 1)))
    >>> mdd(line, other).round(3)
    array([3.097])
    """
    if not (0 < power < 1 and 0 < alpha < 1 and -1 <= correlation < 1):
        raise InputError(
            f"mdd: expected power and alpha in (0, 1) and a correlation in [-1, 1), got {power}, {alpha}, {correlation}"
        )
    error = standard_error(a.pooled - b.pooled) if b is not None else a.sd_sampling * np.sqrt(2 * (1 - correlation))
    return detectable(error, np.asarray(len(a.pooled) - 1.0), power, alpha)


def detectable(error: Array, degrees_of_freedom: Array, power: float = 0.8, alpha: float = 0.05) -> Array:
    """The same from a standard error and its degrees of freedom, such as a ``paired.Difference`` has."""
    t = stdtrit(degrees_of_freedom, 1 - alpha / 2) + stdtrit(degrees_of_freedom, power)
    return np.asarray(t * error)
