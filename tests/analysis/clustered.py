"""Clustered data whose true scores are known: videos of different length, with moods and biases of their own."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from robustbench_msa.analysis.metrics import compute, sufficient
from robustbench_msa.analysis.variance import Score

Array = np.ndarray[Any, Any]


def draw(rng: np.random.Generator, n_groups: int) -> tuple[Array, Array, Array, Array]:
    """Labels, predictions of two related models, and groups of 8 to 40 clips."""
    groups = np.repeat(np.arange(n_groups), rng.integers(8, 41, n_groups))
    mood, bias = 0.5 * rng.normal(size=n_groups), 0.3 * rng.normal(size=n_groups)
    y = np.clip(np.round((0.3 + mood[groups] + 1.4 * rng.normal(size=len(groups))) * 5) / 5, -3, 3)
    off = bias[groups] + 0.8 * rng.normal(size=len(groups))
    return y, 0.6 * y + off, 0.55 * y + 0.6 * off + 0.6 * rng.normal(size=len(groups)), groups


@cache
def truth() -> Array:
    """``(2, M)`` scores of both models on 2 million clips."""
    y, a, b, _ = draw(np.random.default_rng(99), 80_000)
    whole = [sufficient(y, p, np.zeros(len(y), dtype=int), 1)[0] for p in (a, b)]
    return np.stack(list(compute(np.stack(whole)).values()), axis=1)


def score(y: Array, p: Array, groups: Array) -> Score:
    return Score.of_statistics(sufficient(y, p, groups, groups.max() + 1))
