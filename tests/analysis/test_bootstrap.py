"""The bootstrap against resampled data, closed forms and its own definition."""

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.analysis.bootstrap import group_weights, interval, replicate_metrics
from robustbench_msa.analysis.metrics import compute, score, sufficient


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
    low, high = interval(values["mae"])
    np.testing.assert_allclose((high - low) / 2, 1.96 * np.abs(p - y).std() / np.sqrt(n), rtol=0.06)


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
    assert np.isnan(interval(values["corr"])).all()


def test_replicates_without_the_only_group_that_varies_have_no_corr():
    y, p, groups = clustered(n_groups=4)
    p = np.where(groups == 0, p, 0.1)
    weights = group_weights(4, 300, seed=2)
    corr = replicate_metrics(sufficient(y, p, groups, 4), weights)["corr"]
    np.testing.assert_array_equal(np.isnan(corr), weights[:, 0] == 0)


def test_one_group_has_no_interval():
    y, p, _ = clustered()
    stats = sufficient(y, p, np.zeros(len(y), dtype=int), 1)
    values = replicate_metrics(stats, group_weights(1, 100, seed=1))
    for name, value in values.items():
        assert np.isnan(interval(value)).all(), name
        assert np.isfinite(compute(stats)[name]).all(), name


def test_interval_is_the_percentiles_of_what_is_defined():
    values = np.stack([np.arange(100.0), np.arange(100.0), np.arange(100.0)], axis=1)
    values[:5, 1] = np.nan  # 5 %: left out
    values[:6, 2] = np.nan  # more: null
    low, high = interval(values, level=0.8)
    np.testing.assert_allclose(low, [9.9, 5 + 9.4, np.nan])
    np.testing.assert_allclose(high, [89.1, 5 + 84.6, np.nan])


def test_interval_keeps_the_shape_and_narrows_with_the_level():
    values = np.random.default_rng(0).normal(size=(500, 3, 2))
    (low, high), (low_80, high_80) = interval(values), interval(values, level=0.8)
    assert low.shape == high.shape == (3, 2)
    assert ((low < low_80) & (low_80 < high_80) & (high_80 < high)).all()


def test_bad_input_says_so():
    with pytest.raises(InputError, match="at least 1 group"):
        group_weights(0, 10, seed=1)
    with pytest.raises(InputError, match="at least 1 group, 1 replicate; got 5, 0"):
        group_weights(5, 0, seed=1)
    with pytest.raises(InputError, match=r"0 < level < 1, got \(3,\), 95"):
        interval(np.zeros(3), level=95)
    with pytest.raises(InputError, match=r"got \(0,\)"):
        interval(np.zeros(0))
    with pytest.raises(InputError, match="same groups"):
        replicate_metrics(sufficient([1], [1], [0], 3), group_weights(4, 2, seed=1))
