"""What ignoring the input can reach: the best constant prediction for each metric, and its score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustbench_msa.analysis.metrics import NULL_SCORES, Metric, get_profile


def best_constant(labels: ArrayLike, metric: str, profile: str = "mosi") -> float:
    """The constant prediction that scores best on these labels.

    The median for MAE, a value of the majority class for accuracies, the better of the classes for F1; 0 for
    Corr, which no constant can help. Ties: the lowest value.

    >>> best_constant([-2, 0.5, 1, 3], "mae"), best_constant([-2, 0.5, 1, 3], "acc2_non0")
    (0.75, 1.0)
    """
    chosen = get_profile(profile)
    return _best_constant(chosen.metric(metric), chosen.labels(labels))[0]


def floor(labels: ArrayLike, profile: str = "mosi") -> dict[str, float]:
    """Each metric at its own best constant of the evaluated labels: the score of ignoring the input. Corr: 0.

    NaN where a metric is undefined on these labels (the non-zero metrics when every label is 0).

    >>> floor([-1, 1, 2, 3])["acc2_non0"], floor([-1, 1, 2, 3])["mae"], floor([-1, 1, 2, 3])["corr"]
    (0.75, 1.25, 0.0)
    """
    chosen = get_profile(profile)
    y = chosen.labels(labels)
    values = {metric.name: _best_constant(metric, y)[1] for metric in chosen.metrics}
    return {name: NULL_SCORES.get(name, v) if np.isnan(v) else v for name, v in values.items()}


def _best_constant(metric: Metric, y: NDArray[Any]) -> tuple[float, float]:
    """The constant and its score; the first candidate when none has a score."""
    candidates = metric.constants(y)
    n_classes = int(y.max()) + 1  # only read where classes are given
    rows = [metric.update(y, np.full_like(y, c), n_classes).sum(axis=0) for c in candidates]
    values = metric.compute(np.stack(rows))
    gain = np.nan_to_num(values if metric.higher_is_better else -values, nan=-np.inf)
    best = int(np.argmax(gain))
    return float(candidates[best]), float(values[best])
