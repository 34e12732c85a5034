"""Confidence intervals of scores: symmetric and studentised, on a scale on which a metric has no bounds.

``back(to(value) -/+ critical * standard_error * slope(value))`` with the delta method's slope: logits for fractions,
logarithms for errors, Fisher's z for correlations, so that no interval leaves the metric's range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from robustbench_msa.analysis.bootstrap import LEVEL, critical_values
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.analysis.variance import Score, uncertainty

_ROUNDING = 1e-12  # a standard error below this is that of a constant


class Scale(NamedTuple):
    """to: from the metric's range to all numbers; slope: its derivative; back: its inverse."""

    to: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    back: Callable[[Array], Array]


SCALES = {
    "fraction": Scale(lambda v: np.log(v / (1 - v)), lambda v: 1 / (v * (1 - v)), lambda x: 1 / (1 + np.exp(-x))),
    "label": Scale(np.log, lambda v: 1 / v, np.exp),
    "": Scale(np.arctanh, lambda v: 1 / (1 - v**2), np.tanh),
}
"""By ``Metric.unit``."""
PLAIN = Scale(np.asarray, np.ones_like, np.asarray)
"""For differences."""


def on_scale(value: Array, half_width: Array, scale: Scale) -> tuple[Array, Array]:
    """Low and high; NaN where the value or the half width is undefined, infinite or no more than rounding.

    >>> low, high = on_scale(np.array([0.8, 1.0]), np.array([0.16, 0.0]), SCALES["fraction"])
    >>> low.round(3), high.round(3)  # logit .8 = 1.386, -/+ .16 / .16
    (array([0.595,   nan]), array([0.916,   nan]))
    """
    usable = np.isfinite(half_width) & (half_width > _ROUNDING) & np.isfinite(value)
    centre, reach = np.where(usable, value, 0.5), np.where(usable, half_width, 1.0)
    at, step = scale.to(centre), reach * scale.slope(centre)
    with np.errstate(over="ignore"):  # exp beyond the range: 0 or 1
        low, high = scale.back(at - step), scale.back(at + step)
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def intervals(
    scores: Sequence[Score], weights: Array, units: Sequence[str], level: float = LEVEL
) -> tuple[Array, Array]:
    """The intervals of many scores with the same resamples.

    Args:
        scores: R of them, over the same M metrics and G groups; with several training seeds, about a method.
        weights: ``(B, G)`` of ``group_weights``.
        units: of the M metrics.

    Returns:
        low and high, ``(R, M)``; NaN where a score is undefined, does not vary, or has too few groups (with fewer than
        4, a replicate of a single group is too common).
    """
    if not scores:
        return np.zeros((0, len(units))), np.zeros((0, len(units)))
    pooled = [score.pooled for score in scores]
    critical = critical_values(np.concatenate(pooled, axis=1), weights, level).reshape(len(scores), -1)
    halves = [
        uncertainty([score], d, c, level).half_width for score, d, c in zip(scores, pooled, critical, strict=True)
    ]
    values, half_widths = np.stack([score.value for score in scores]), np.stack(halves)
    columns = [on_scale(values[:, i], half_widths[:, i], SCALES[unit]) for i, unit in enumerate(units)]
    return np.stack([low for low, _ in columns], axis=1), np.stack([high for _, high in columns], axis=1)
