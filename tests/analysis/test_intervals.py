"""Intervals: the scales against closed forms, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from clustered import draw, score, truth

from robustbench_msa.analysis.bootstrap import critical_values, group_weights, replicate_metrics
from robustbench_msa.analysis.intervals import PLAIN, SCALES, intervals, on_scale
from robustbench_msa.analysis.metrics import PROFILES, sufficient

METRICS = PROFILES["mosi"].metrics
UNITS = [metric.unit for metric in METRICS]


@pytest.mark.parametrize(
    ("unit", "value", "bounds"), [("fraction", 0.9, (0, 1)), ("label", 0.4, (0, np.inf)), ("", -0.8, (-1, 1))]
)
def test_scales_are_inverse_and_intervals_stay_in_range(unit, value, bounds):
    scale = SCALES[unit]
    at = np.array([value])
    np.testing.assert_allclose(scale.back(scale.to(at)), at, rtol=1e-12)
    step = 1e-6
    np.testing.assert_allclose(scale.slope(at), (scale.to(at + step) - scale.to(at - step)) / (2 * step), rtol=1e-6)
    for half in (1e-6, 0.3, 5.0, 1e4):
        low, high = on_scale(at, np.array([half]), scale)
        assert bounds[0] <= low[0] < value < high[0] <= bounds[1]
    low, high = on_scale(at, np.array([1e-6]), scale)  # small: as on the plain scale
    np.testing.assert_allclose([low[0], high[0]], [value - 1e-6, value + 1e-6], atol=1e-11)


def test_intervals_on_the_scales_are_those_of_the_textbook():
    """Fisher's z of r = .5 with a standard error of .1 in z; a log of 2; a logit of .8."""
    half = 1.96 * 0.1
    low, high = on_scale(np.array([0.5]), np.array([half * (1 - 0.25)]), SCALES[""])
    np.testing.assert_allclose([low[0], high[0]], np.tanh(np.arctanh(0.5) + np.array([-half, half])))
    low, high = on_scale(np.array([2.0]), np.array([half * 2]), SCALES["label"])
    np.testing.assert_allclose([low[0], high[0]], 2 * np.exp([-half, half]))
    low, high = on_scale(np.array([0.8]), np.array([half * 0.16]), SCALES["fraction"])
    odds = 4 * np.exp([-half, half])
    np.testing.assert_allclose([low[0], high[0]], odds / (1 + odds))


@pytest.mark.parametrize("half", [0.0, 1e-14, np.nan, np.inf])
def test_no_spread_is_no_interval(half):
    for scale in (*SCALES.values(), PLAIN):
        assert np.isnan(on_scale(np.array([0.5]), np.array([half]), scale)).all()


def test_null_scores_and_constants_have_no_interval():
    y, _, _, groups = draw(np.random.default_rng(0), 12)
    perfect, constant = score(y, y, groups), score(y, np.full(len(y), 0.1), groups)
    low, high = intervals([perfect, constant], group_weights(12), UNITS)
    assert np.isnan(low[0]).all()
    assert np.isnan(high[0]).all()
    names = PROFILES["mosi"].names
    assert np.isnan(low[1, names.index("corr")])
    assert low[1, names.index("mae")] < constant.value[names.index("mae")] < high[1, names.index("mae")]


@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_too_few_groups_have_no_interval(n_groups):
    y, p, _, groups = draw(np.random.default_rng(0), n_groups)
    assert np.isnan(intervals([score(y, p, groups)], group_weights(n_groups), UNITS)).all()


def test_of_nothing_there_is_nothing():
    low, high = intervals([], group_weights(5), UNITS)
    assert low.shape == high.shape == (0, 9)


def test_intervals_do_not_depend_on_their_company():
    rng = np.random.default_rng(4)
    scores = [score(*(x[i] for i in (0, 1, 3))) for x in (draw(rng, 9) for _ in range(40))]
    together = intervals(scores, group_weights(9), UNITS)
    alone = intervals(scores[17:18], group_weights(9), UNITS)
    np.testing.assert_allclose([together[0][17], together[1][17]], [alone[0][0], alone[1][0]], rtol=1e-9)


def covered(n_groups: int, trials: int, seed: int) -> np.ndarray:
    """``(trials, M)`` whether the interval holds the truth."""
    rng, scores = np.random.default_rng(seed), []
    for _ in range(trials):
        y, p, _, groups = draw(rng, n_groups)
        scores.append(score(y, p, groups))
    low, high = intervals(scores, group_weights(n_groups, 1000), UNITS)
    return (low <= truth()[0]) & (truth()[0] <= high)


def covered_by_percentiles(n_groups: int, trials: int, seed: int) -> np.ndarray:
    """The same for the quantiles of plainly resampled scores."""
    rng, weights, hits = np.random.default_rng(seed), group_weights(n_groups, 1000), []
    for _ in range(trials):
        y, p, _, groups = draw(rng, n_groups)
        drawn = replicate_metrics(sufficient(y, p, groups, n_groups), weights)
        low, high = np.quantile(np.stack(list(drawn.values()), axis=1), [0.025, 0.975], axis=0)
        hits.append((low <= truth()[0]) & (truth()[0] <= high))
    return np.stack(hits)


@pytest.mark.parametrize("n_groups", [31, 62])
def test_95_percent_intervals_hold_the_truth_in_95_percent(n_groups):
    trials = 1500
    ours = covered(n_groups, trials, seed=n_groups)
    noise = 3 * np.sqrt(0.95 * 0.05 / trials)
    share = ours.mean(axis=0)
    assert (share > 0.93 - noise / 3).all(), dict(zip(PROFILES["mosi"].names, share, strict=True))
    assert (share < 0.97 + noise / 3).all(), dict(zip(PROFILES["mosi"].names, share, strict=True))
    assert abs(share.mean() - 0.95) < noise


def test_with_ten_groups_they_cover_better_than_percentiles():
    ours, simple = covered(10, 400, seed=5), covered_by_percentiles(10, 400, seed=5)
    assert 0.93 < ours.mean() < 0.98
    assert simple.mean() < 0.915
    assert (ours.mean(axis=0) > simple.mean(axis=0)).all()


def test_a_linear_score_of_normal_groups_has_the_interval_of_student():
    """Equal groups: the mean -/+ t s / sqrt(G), within what 20,000 replicates know of t."""
    rng = np.random.default_rng(8)
    groups = rng.normal(size=(30, 200))
    d = groups - groups.mean(axis=0)
    ratio = critical_values(d, group_weights(30, 20_000, seed=3)) / 2.0452
    np.testing.assert_allclose(ratio.mean(), 1, atol=0.02)
    assert (np.abs(ratio - 1) < 0.2).all()
