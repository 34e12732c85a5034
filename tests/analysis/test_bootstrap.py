"""The bootstrap against resampled data, closed forms and its own definition."""

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.analysis.bootstrap import (
    critical_values,
    group_weights,
    p_values,
    replicate_metrics,
    replicate_values,
)
from robustbench_msa.analysis.jackknife import influence, leave_one_out
from robustbench_msa.analysis.metrics import PROFILES, compute, score, sufficient


def clustered(seed=0, n_groups=12, n=200):
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(n_groups, size=n))
    y = np.round(rng.uniform(-3, 3, n), 1)
    return y, 0.5 * y + rng.normal(size=n) + rng.normal(size=n_groups)[groups], groups


def test_weights_are_counts_of_draws_with_replacement():
    weights = group_weights(30, replicates=4000, seed=7)
    assert weights.shape == (4000, 30)
    np.testing.assert_array_equal(weights.sum(axis=1), 30)
    np.testing.assert_array_equal(weights, np.round(weights))
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.08)  # five standard errors
    np.testing.assert_allclose(weights.var(axis=0).mean(), 1 - 1 / 30, rtol=0.03)


def test_weights_depend_on_the_seed_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(group_weights(9, 50, seed=1), group_weights(9, 50, seed=1))
    assert (group_weights(9, 50, seed=1) != group_weights(9, 50, seed=2)).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("profile", ["mosi", "sims", "legacy_swapped_f1"])
def test_a_replicate_is_the_score_of_the_resampled_samples(profile):
    y, p, groups = clustered()
    weights = group_weights(12, replicates=20, seed=3)
    values = replicate_metrics(sufficient(y, p, groups, 12, profile), weights, profile)
    for b, row in enumerate(weights.astype(int)):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in range(12) for _ in range(row[g])])
        for name, expected in score(y[rows], p[rows], profile).items():
            np.testing.assert_allclose(values[name][b], expected, rtol=1e-9, err_msg=name)


def test_weights_of_one_give_the_score():
    y, p, groups = clustered()
    values = replicate_metrics(sufficient(y, p, groups, 12), np.ones((1, 12)))
    for name, expected in score(y, p).items():
        np.testing.assert_allclose(values[name], [expected], rtol=1e-12)


def test_many_cells_at_once_have_replicates_first():
    y, p, groups = clustered()
    # (3, 2, G, K)
    cells = np.stack([[sufficient(y, p * k + j, groups, 12) for k in (1, 2)] for j in (0, 1, 2)])
    weights = group_weights(12, replicates=5, seed=3)
    together = replicate_metrics(cells, weights)
    assert together["mae"].shape == (5, 3, 2)
    alone = replicate_metrics(cells[2, 1], weights)
    for name in alone:
        np.testing.assert_allclose(together[name][:, 2, 1], alone[name], rtol=1e-12)


def test_standard_error_of_independent_samples_has_its_closed_form():
    rng = np.random.default_rng(5)
    n = 400
    y = rng.choice([-1.0, 1.0, 2.0], n)
    p = y + rng.normal(scale=1.5, size=n)
    stats = sufficient(y, p, np.arange(n), n)
    values = replicate_metrics(stats, group_weights(n, 4000, seed=11))
    accuracy = score(y, p)["acc2_non0"]
    np.testing.assert_allclose(values["acc2_non0"].std(), np.sqrt(accuracy * (1 - accuracy) / n), rtol=0.05)
    np.testing.assert_allclose(values["mae"].std(), np.abs(p - y).std() / np.sqrt(n), rtol=0.05)


def test_copies_within_a_group_add_no_certainty():
    y, p, _ = clustered(n=60)
    weights = group_weights(60, 200, seed=2)
    single = replicate_metrics(sufficient(y, p, np.arange(60), 60), weights)
    y, p, groups = np.repeat([y, p, np.arange(60)], 4, axis=1)
    copies = replicate_metrics(sufficient(y, p, groups.astype(int), 60), weights)
    for name in single:
        np.testing.assert_allclose(copies[name], single[name], rtol=1e-9)


def test_constant_predictions_have_no_corr_in_any_replicate():
    y, _, groups = clustered()
    stats = sufficient(y, np.full(len(y), 0.1), groups, 12)
    values = replicate_metrics(stats, group_weights(12, 300, seed=2))
    assert np.isnan(values["corr"]).all()


def test_replicates_without_the_only_group_that_varies_have_no_corr():
    y, p, groups = clustered(n_groups=4)
    p = np.where(groups == 0, p, 0.1)
    weights = group_weights(4, 300, seed=2)
    corr = replicate_metrics(sufficient(y, p, groups, 4), weights)["corr"]
    np.testing.assert_array_equal(np.isnan(corr), weights[:, 0] == 0)


def test_one_group_has_no_replicates():
    y, p, _ = clustered()
    stats = sufficient(y, p, np.zeros(len(y), dtype=int), 1)
    values = replicate_metrics(stats, group_weights(1, 100, seed=1))
    for name, value in values.items():
        assert np.isnan(value).all(), name
        assert np.isfinite(compute(stats)[name]).all(), name


def test_first_order_replicates_follow_the_exact_ones():
    """The same resamples: the mean influence of the drawn groups against the score of the drawn samples."""
    y, p, groups = clustered(n_groups=60, n=900)
    stats, weights = sufficient(y, p, groups, 60), group_weights(60, 1000, seed=4)
    value, left_out = leave_one_out(stats)
    exact = np.stack(list(replicate_metrics(stats, weights).values()), axis=1)
    linear = replicate_values(value, influence(left_out), weights)
    for i, name in enumerate(PROFILES["mosi"].names):
        assert np.corrcoef(exact[:, i], linear[:, i])[0, 1] > 0.99, name
        np.testing.assert_allclose(linear[:, i].std(), exact[:, i].std(), rtol=0.05, err_msg=name)


def drawn_ratios(d, weights):
    """|t| of the drawn groups, one resample at a time."""
    ratios = []
    for counts in weights.astype(int):
        drawn = np.repeat(d, counts)
        ratios.append(abs(drawn.mean()) / (drawn.std() / np.sqrt(len(d) - 1)))
    return np.sort(ratios)


def test_critical_values_and_p_are_those_of_resampled_groups():
    rng = np.random.default_rng(3)
    d = rng.exponential(size=(9, 3))
    d -= d.mean(axis=0)
    weights = group_weights(9, 199, seed=8)
    critical = critical_values(d, weights, level=0.9)
    statistics = np.array([0.7, 1.9, 30.0])
    p = p_values(statistics, d, weights)
    for j in range(3):
        ratios = drawn_ratios(d[:, j], weights)
        np.testing.assert_allclose(critical[j], ratios[179], rtol=1e-9)  # the 180th of 199: 20 of 200 are beyond
        np.testing.assert_allclose(p[j], (1 + (ratios >= statistics[j]).sum()) / 200)
    assert p[2] == 1 / 200


def test_p_is_small_exactly_where_the_interval_leaves_zero_out():
    rng = np.random.default_rng(6)
    d = rng.normal(size=(12, 300))
    d -= d.mean(axis=0)
    weights = group_weights(12)
    critical = critical_values(d, weights)
    for factor in (0.999999, 1.000001):
        p = p_values(factor * critical, d, weights)
        np.testing.assert_array_equal(p <= 0.05, factor > 1)


def test_normal_groups_have_the_critical_value_of_t():
    """Student's: 2.262 with 9 degrees of freedom, 2.042 with 30, whatever the scale."""
    rng = np.random.default_rng(1)
    for n_groups, expected, rtol in ((10, 2.262, 0.12), (31, 2.042, 0.02)):
        d = rng.normal(size=(n_groups, 400))
        d -= d.mean(axis=0)
        critical = critical_values(d, group_weights(n_groups))
        np.testing.assert_allclose(critical.mean(), expected, rtol=rtol)
        np.testing.assert_allclose(critical_values(1e-5 * d, group_weights(n_groups)), critical, rtol=1e-9)


def test_skewed_groups_have_wider_intervals():
    rng = np.random.default_rng(1)
    normal, skewed = rng.normal(size=(20, 200)), rng.lognormal(sigma=1.2, size=(20, 200))
    wide = [critical_values(d - d.mean(axis=0), group_weights(20)).mean() for d in (normal, skewed)]
    assert wide[1] > 1.05 * wide[0]


def test_without_spread_nothing_is_known():
    weights = group_weights(3)
    none, undefined = np.zeros((3, 1)), np.full((3, 1), np.nan)
    two_sided = np.array([[1.0], [-1.0], [0.0]])  # one replicate in nine draws one group thrice
    np.testing.assert_array_equal(
        critical_values(np.hstack([none, undefined, two_sided]), weights), [np.inf, np.nan, np.inf]
    )
    assert np.isfinite(critical_values(two_sided, weights, level=0.5)).all()
    np.testing.assert_array_equal(p_values(np.array([np.nan]), two_sided, weights), [np.nan])


def test_columns_do_not_depend_on_their_company():
    rng = np.random.default_rng(2)
    d = rng.normal(size=(15, 700))
    weights = group_weights(15, 400)
    together = critical_values(d, weights)
    np.testing.assert_allclose(
        together[[0, 255, 256, 699]], critical_values(d[:, [0, 255, 256, 699]], weights), rtol=1e-9
    )


def test_bad_input_says_so():
    with pytest.raises(InputError, match="at least 1 group"):
        group_weights(0, 10, seed=1)
    with pytest.raises(InputError, match="at least 1 group, 1 replicate; got 5, 0"):
        group_weights(5, 0, seed=1)
    with pytest.raises(InputError, match=r"0 < level < 1; got \(3, 1\), \(5, 3\), 95"):
        critical_values(np.zeros((3, 1)), group_weights(3, 5, seed=1), level=95)
    with pytest.raises(InputError, match="same groups"):
        critical_values(np.zeros((3, 1)), group_weights(4, 5, seed=1))
    with pytest.raises(InputError, match="same groups"):
        replicate_metrics(sufficient([1], [1], [0], 3), group_weights(4, 2, seed=1))
