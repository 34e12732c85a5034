"""Paired tests against Student's, against enumeration, and against their own error rates."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from clustered import draw, score, truth
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from corruptions import InputError
from robustbench_msa.analysis import metrics
from robustbench_msa.analysis.bootstrap import group_weights
from robustbench_msa.analysis.metrics import PROFILES, sufficient
from robustbench_msa.analysis.paired import (
    difference,
    exchange_p,
    holm,
    permutation_p,
    swapped_differences,
    swaps,
)
from robustbench_msa.analysis.variance import Score

NAMES = PROFILES["mosi"].names
MAE = NAMES.index("mae")


def equal_groups(n_groups: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """10 clips a video: MAE is then a plain mean of videos."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=10 * n_groups)
    groups = np.repeat(np.arange(n_groups), 10)
    shared = rng.normal(size=n_groups)[groups]
    return y, y + shared + rng.normal(size=len(y)), y + 0.9 * shared + 1.1 * rng.normal(size=len(y)), groups


def seeds_of(values: np.ndarray) -> Score:
    """Scores ``(T, G)`` that are plain means over groups."""
    by_seed = values.mean(axis=1)
    return Score(by_seed[:, None, None], (values - by_seed[:, None])[..., None])


def test_a_mean_over_equal_groups_is_the_paired_t_test():
    """Standard error exactly Student's; p and interval within what the bootstrap of 40 groups knows of t."""
    y, a, b, groups = equal_groups(40, seed=0)
    found = difference(score(y, a, groups), score(y, b, groups), group_weights(40, 20_000))
    error = np.abs(np.float32(y) - np.stack([a, b]).astype(np.float32)).reshape(2, 40, 10).mean(axis=2)
    expected = distributions.ttest_rel(*error)
    np.testing.assert_allclose(found.value[MAE] / found.standard_error[MAE], expected.statistic, rtol=1e-4)
    np.testing.assert_allclose(found.p[MAE], expected.pvalue, atol=0.03)
    interval = expected.confidence_interval()
    np.testing.assert_allclose([found.low[MAE], found.high[MAE]], interval, atol=0.08 * (interval.high - interval.low))
    assert found.claim == "checkpoint"


def test_the_other_way_round_it_is_the_negative():
    y, a, b, groups = draw(np.random.default_rng(3), 25)
    weights, first, second = group_weights(25), score(y, a, groups), score(y, b, groups)
    one, other = difference(first, second, weights), difference(second, first, weights)
    np.testing.assert_allclose(one.value, -other.value)
    np.testing.assert_allclose([one.low, one.high], [-other.high, -other.low])
    np.testing.assert_array_equal(one.p, other.p)


def test_equal_predictions_do_not_differ():
    y, a, _, groups = draw(np.random.default_rng(3), 25)
    line = score(y, a, groups)
    found = difference(line, line, group_weights(25))
    assert (found.value == 0).all()
    assert np.isnan([found.low, found.high, found.p, found.standard_error]).all()


def test_groups_must_be_the_same():
    y, a, _, groups = draw(np.random.default_rng(3), 25)
    other = draw(np.random.default_rng(3), 24)
    with pytest.raises(InputError, match=r"same groups and metrics, got \(25, 9\) and \(24, 9\)"):
        difference(score(y, a, groups), score(other[0], other[1], other[3]), group_weights(25))


def test_intervals_of_differences_hold_the_truth_in_95_percent():
    """And so, as p is small exactly where they leave zero out, p errs in 5 %."""
    trials, n_groups, rng = 1500, 31, np.random.default_rng(31)
    weights, true = group_weights(n_groups, 1000), truth()[0] - truth()[1]
    hits = np.zeros(9)
    for _ in range(trials):
        y, a, b, groups = draw(rng, n_groups)
        found = difference(score(y, a, groups), score(y, b, groups), weights)
        hits += (found.low <= true) & (true <= found.high)
    noise = np.sqrt(0.95 * 0.05 / trials)
    assert (hits / trials > 0.93 - noise).all(), dict(zip(NAMES, hits / trials, strict=True))
    assert (hits / trials < 0.97 + noise).all(), dict(zip(NAMES, hits / trials, strict=True))


def test_between_methods_p_and_interval_come_from_t_with_both_variances():
    rng = np.random.default_rng(9)
    groups = rng.normal(size=(1, 30))
    a, b = groups + rng.normal(size=(3, 30)) + rng.normal(size=(3, 1)), groups + rng.normal(size=(5, 30))
    found = difference(seeds_of(a), seeds_of(b), group_weights(30))
    assert found.claim == "method"
    t = distributions.t.ppf(0.975, found.degrees_of_freedom)
    np.testing.assert_allclose(found.high - found.value, t * found.standard_error)
    expected = 2 * distributions.t.sf(np.abs(found.value) / found.standard_error, found.degrees_of_freedom)
    np.testing.assert_allclose(found.p, expected)
    these = Score(a.mean()[None, None, None], (a.mean(axis=0) - a.mean())[None, :, None])
    others = Score(b.mean()[None, None, None], (b.mean(axis=0) - b.mean())[None, :, None])
    of_checkpoints = difference(these, others, group_weights(30))
    assert of_checkpoints.claim == "checkpoint"
    assert found.high - found.low > of_checkpoints.high - of_checkpoints.low
    assert difference(seeds_of(a), others, group_weights(30)).claim == "checkpoint"


def test_two_methods_that_are_alike_are_told_apart_in_one_of_twenty():
    """Training seeds and groups drawn anew, no true difference; without training variance it would be one in three."""
    rng, trials, n_groups = np.random.default_rng(12), 1000, 31
    weights, rejected, naive = group_weights(n_groups, 300), 0, 0
    for _ in range(trials):
        groups = rng.normal(size=(1, n_groups))
        a, b = (groups + rng.normal(size=(4, n_groups)) + 0.3 * rng.normal(size=(4, 1)) for _ in range(2))
        rejected += difference(seeds_of(a), seeds_of(b), weights).p[0] < 0.05
        d = (a - b).mean(axis=0)
        naive += abs(d.mean()) > 2.042 * d.std(ddof=1) / np.sqrt(n_groups)
    noise = np.sqrt(0.05 * 0.95 / trials)
    assert rejected / trials < 0.05 + 3 * noise
    assert rejected / trials > 0.02
    assert naive / trials > 0.15


def test_swapping_is_scoring_the_swapped_predictions():
    """Every one of the 2^4 swaps, all metrics, against predictions exchanged sample by sample."""
    y, a, b, groups = draw(np.random.default_rng(2), 4)
    # both about one origin, as Evaluated.statistics makes them
    both = sufficient(np.tile(y, 2), np.concatenate([a, b]), np.concatenate([groups, groups + 4]), 8).reshape(2, 4, -1)
    flips = swaps(4)
    np.testing.assert_array_equal(flips, list(product([0, 1], repeat=4)))
    found = swapped_differences(both[0], both[1], flips, "mosi")
    for row, flip in zip(found, flips, strict=True):
        swapped = flip[groups] == 1
        ours, theirs = np.where(swapped, b, a), np.where(swapped, a, b)
        expected = [metrics.score(y, ours)[name] - metrics.score(y, theirs)[name] for name in NAMES]
        np.testing.assert_allclose(row, expected, atol=1e-9)


def test_with_few_groups_the_permutation_p_is_exact():
    """By hand: videos differ by 1, 2 and 4, so all signs give sums of which two of eight reach 7."""
    y = np.array([1.0, 1.0, 1.0])
    a, b = y + np.array([2.0, 3.0, 5.0]), y + 1.0
    both = sufficient(np.tile(y, 2), np.concatenate([a, b]), np.arange(6), 6).reshape(2, 3, -1)
    p = permutation_p(swapped_differences(both[0], both[1], swaps(3), "mosi"))
    assert p[MAE] == 2 / 8
    b[0] = 5.0  # now a is better there: differences -2, 2, 4; |sum| of 4 or more in six of eight
    both = sufficient(np.tile(y, 2), np.concatenate([a, b]), np.arange(6), 6).reshape(2, 3, -1)
    p = permutation_p(swapped_differences(both[0], both[1], swaps(3), "mosi"))
    assert p[MAE] == 6 / 8


def test_random_swaps_come_near_the_exact_p():
    y, a, b, groups = equal_groups(10, seed=4)
    both = sufficient(np.tile(y, 2), np.concatenate([a, b]), np.concatenate([groups, groups + 10]), 20)
    both = both.reshape(2, 10, -1)
    exact = permutation_p(swapped_differences(*both, swaps(10), "mosi"))
    drawn = permutation_p(swapped_differences(*both, swaps(10, permutations=1000), "mosi"))
    assert swaps(10).shape == (1024, 10)
    assert swaps(10, permutations=1000).shape == (1001, 10)
    np.testing.assert_allclose(drawn, exact, atol=5 * np.sqrt(0.25 / 1000))


def test_of_models_that_could_be_exchanged_one_in_twenty_is_told_apart():
    rng, trials, flips = np.random.default_rng(7), 600, swaps(9)
    p = np.empty((trials, 9))
    for i in range(trials):
        y, a, _, groups = draw(rng, 9)
        b = a + rng.normal(size=len(y))
        a = a + rng.normal(size=len(y))
        both = sufficient(np.tile(y, 2), np.concatenate([a, b]), np.concatenate([groups, groups + 9]), 18)
        p[i] = permutation_p(swapped_differences(*both.reshape(2, 9, -1), flips, "mosi"))
    for level in (0.05, 0.2, 0.5):
        noise = np.sqrt(level * (1 - level) / trials)
        assert ((p <= level).mean(axis=0) < level + 4 * noise).all()
        assert (p[:, MAE] <= level).mean() > level - 4 * noise - 2**-8  # no ties there; p is a multiple of 2^-8


def test_a_null_counts_as_told():
    y, a, _, groups = draw(np.random.default_rng(2), 4)
    constant = np.zeros_like(a)
    both = sufficient(np.tile(y, 2), np.concatenate([a, constant]), np.concatenate([groups, groups + 4]), 8)
    both = both.reshape(2, 4, -1)
    corr = NAMES.index("corr")
    assert np.isnan(swapped_differences(*both, swaps(4), "mosi")[0, corr])
    nulls = np.where(np.array(NAMES) == "corr", 0.0, np.nan)
    observed = swapped_differences(*both, swaps(4), "mosi", nulls)[0]
    np.testing.assert_allclose(observed[corr], metrics.score(y, a)["corr"], rtol=1e-6)
    undefined = np.array([[1.0, np.nan], [2.0, 1.0]])
    np.testing.assert_array_equal(permutation_p(undefined), [1.0, np.nan])


def test_exchanging_training_seeds_is_exact():
    """Against all 20 ways for three seeds each; complete separation has p = 2 / 20."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 1)), rng.normal(size=(3, 1))
    pool = np.concatenate([a, b])[:, 0]
    observed = abs(a.mean() - b.mean())
    sums = [pool[list(way)].sum() for way in combinations(range(6), 3)]
    expected = np.mean([abs(2 * s - pool.sum()) / 3 >= observed - 1e-12 for s in sums])
    assert exchange_p(seeds_of(a), seeds_of(b))[0] == expected
    assert exchange_p(seeds_of(np.array([[1.0], [2.0], [3.0]])), seeds_of(np.array([[4.0], [5.0], [6.0]])))[0] == 0.1


def test_exchanging_many_training_seeds_draws_them():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(10, 1)) + 1.0, rng.normal(size=(8, 1))
    found = exchange_p(seeds_of(a), seeds_of(b), permutations=4000)[0]
    expected = distributions.permutation_test(
        (a[:, 0], b[:, 0]), lambda x, y: x.mean() - y.mean(), n_resamples=np.inf, vectorized=False
    ).pvalue
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.isnan(exchange_p(seeds_of(a[:1]), seeds_of(b))).all()


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, then .06 rather than .04."""
    np.testing.assert_allclose(holm([0.03, 0.005, 0.04, 0.01]), [0.06, 0.02, 0.06, 0.03])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1, 1])
    np.testing.assert_array_equal(holm([np.nan, 0.04]), [np.nan, 0.04])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_above_the_p_below_bonferroni_and_keeps_their_order(p):
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(len(p) * np.array(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@pytest.mark.parametrize(("n_groups", "permutations"), [(0, 10), (3, 0)])
def test_bad_input_says_so(n_groups, permutations):
    with pytest.raises(InputError, match="at least 1 group and 1 permutation"):
        swaps(n_groups, permutations)
