"""Statistics and their intervals, against NumPy and SciPy, and against the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from robustbench_msa.analysis.bootstrap import critical_values, group_weights
from robustbench_msa.analysis.inside.grouped import (
    correlations,
    deviations,
    means,
    of_samples,
    pearson,
    rank_correlations,
    ratio,
    spearman,
)

RNG = np.random.default_rng(0)
GROUP = np.sort(RNG.integers(0, 9, 80))
X, Y = RNG.normal(size=(80, 3)), RNG.normal(size=80)


def test_values() -> None:
    np.testing.assert_allclose(means(X, GROUP).value, X.mean(axis=0))
    np.testing.assert_allclose(deviations(X + 1e4, GROUP).value, X.std(axis=0), rtol=1e-9)
    tied = np.round(X)
    for i in range(3):
        assert correlations(X, Y, GROUP).value[i] == pytest.approx(stats.pearsonr(X[:, i], Y)[0])
        assert rank_correlations(tied, Y, GROUP).value[i] == pytest.approx(stats.spearmanr(tied[:, i], Y)[0])


def test_the_interval_is_the_studentised_one_over_groups() -> None:
    found = means(X, GROUP)
    left_out = np.stack([X[g != GROUP].mean(axis=0) for g in range(9)])
    d = 8 * (left_out.mean(axis=0) - left_out)
    half = critical_values(d, group_weights(9)) * np.sqrt((d**2).sum(axis=0) / (9 * 8))
    np.testing.assert_allclose(found.low, X.mean(axis=0) - half)
    np.testing.assert_allclose(found.high, X.mean(axis=0) + half)


def test_both_ways_agree() -> None:
    other = of_samples(lambda rows: X[rows].std(axis=0), GROUP)
    for a, b in zip(deviations(X, GROUP), other, strict=True):
        np.testing.assert_allclose(a, b)


def test_many_groups_are_merged_into_blocks() -> None:
    rng = np.random.default_rng(4)
    x, group = rng.normal(size=(2000, 1)), np.repeat(np.arange(500), 4)
    calls = []

    def mean(rows):
        calls.append(len(rows))
        return x[rows].mean(axis=0)

    found, exact = of_samples(mean, group), means(x, group)
    assert sorted(calls) == [1980] * 100 + [2000]
    np.testing.assert_allclose(found.value, exact.value)
    np.testing.assert_allclose(found.high - found.low, exact.high - exact.low, rtol=0.3)


def test_correlations_stay_in_range() -> None:
    y = X[:, 0] + 0.01 * Y
    found = correlations(X[:, :1], y, GROUP)
    assert 0.99 < found.low[0] < found.value[0] < found.high[0] < 1


def test_constants_have_no_correlation_and_no_interval() -> None:
    nearly = np.full((80, 1), 1 / 3) + 1e-8 * X[:, :1]  # as float32 leaves a constant
    assert np.isnan([*spearman(nearly, Y), *pearson(nearly, Y), *rank_correlations(nearly, Y, GROUP).low]).all()
    assert np.isnan(spearman(X[:, :1], np.ones(80))).all()
    found = means(np.full((80, 1), 0.5), GROUP)
    assert found.value[0] == 0.5
    assert np.isnan([found.low[0], found.high[0]]).all()


def test_few_samples_or_groups() -> None:
    assert np.isnan(pearson(np.ones((1, 2)), np.ones(1))).all()
    found = means(X[:5], np.zeros(5, dtype=np.int64))
    np.testing.assert_allclose(found.value, X[:5].mean(axis=0))
    assert np.isnan(found.low).all()


def test_a_ratio_of_nothing_is_null() -> None:
    np.testing.assert_array_equal(ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])), [0.5, np.nan])


def test_groups_need_not_be_numbered_from_zero() -> None:
    for a, b in zip(means(X, GROUP), means(X, 5 + 3 * GROUP), strict=True):
        np.testing.assert_allclose(a, b)
