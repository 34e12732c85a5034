"""Components of variance against closed forms, and the intervals made of them."""

from __future__ import annotations

import numpy as np
import pytest
from clustered import draw, score
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from corruptions import InputError
from robustbench_msa.analysis.bootstrap import critical_values, group_weights
from robustbench_msa.analysis.jackknife import standard_error
from robustbench_msa.analysis.variance import Score, mean_squares, seed_deviations, uncertainty


def of_values(values: np.ndarray) -> Score:
    """A score that is a plain mean: values ``(T, G)`` by training seed and group of equal size."""
    by_seed = values.mean(axis=1)
    return Score(by_seed[:, None, None], (values - by_seed[:, None])[..., None])


def test_mean_squares_are_those_of_the_analysis_of_variance():
    """Against sums of squares of the classical table; they add up to the total."""
    table = np.random.default_rng(0).normal(size=(4, 6, 2))
    rows, columns, rest = mean_squares(table)
    total = ((table - table.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
    np.testing.assert_allclose(3 * rows + 5 * columns + 15 * rest, total)
    np.testing.assert_allclose(rows, 6 * table.mean(axis=1).var(axis=0, ddof=1))
    np.testing.assert_allclose(columns, 4 * table.mean(axis=0).var(axis=0, ddof=1))
    single = mean_squares(table[:1])
    assert np.isnan(single.rows).all()
    assert np.isnan(single.rest).all()
    np.testing.assert_allclose(single.columns, table[0].var(axis=0, ddof=1))
    with pytest.raises(InputError, match="expected a table"):
        mean_squares(np.zeros(3))


def test_components_are_found_again():
    """Many tables of known components: the estimates' means are those, within four standard errors."""
    rng = np.random.default_rng(1)
    s_train, s_corruption, s_rest, n, shape = 1.5, 0.7, 0.4, 4000, (5, 4)
    table = (
        s_train * rng.normal(size=(5, 1, n))
        + s_corruption * rng.normal(size=(1, 4, n))
        + s_rest * rng.normal(size=(*shape, n))
    )
    rows, columns, rest = mean_squares(table)
    for estimate, expected in (
        ((rows - rest) / 4, s_train**2),
        ((columns - rest) / 5, s_corruption**2),
        (rest, s_rest**2),
        (seed_deviations(table)[1] ** 2, s_corruption**2 + s_rest**2),
    ):
        assert abs(estimate.mean() - expected) < 4 * estimate.std() / np.sqrt(n)


def test_the_corruption_deviation_is_pooled_within_training_seeds():
    """The nested design's estimator: the mean of the variances of each training seed."""
    table = np.random.default_rng(2).normal(size=(3, 5))
    np.testing.assert_allclose(seed_deviations(table)[1], np.sqrt(table.var(axis=1, ddof=1).mean()))


def test_single_seeds_say_nothing_of_their_kind():
    table = np.random.default_rng(2).normal(size=(3, 5, 2))
    train, corruption = seed_deviations(table[:1])
    assert np.isnan(train).all()
    np.testing.assert_allclose(corruption, table[0].std(axis=0, ddof=1))
    train, corruption = seed_deviations(table[:, :1])
    np.testing.assert_allclose(train, table[:, 0].std(axis=0, ddof=1))
    assert np.isnan(corruption).all()
    assert np.isnan(seed_deviations(table[:1, :1])).all()


def test_a_negative_component_is_zero():
    """Training seeds closer together than corruption noise alone would have them."""
    table = np.array([[0.0, 1.0], [1.0, 0.0]])
    train, corruption = seed_deviations(table)
    assert train == 0
    np.testing.assert_allclose(corruption, np.sqrt(0.5))


def test_the_variance_of_a_mean_over_groups_is_the_sample_variance_over_g():
    values = np.random.default_rng(3).normal(size=(1, 14))
    line = of_values(values)
    np.testing.assert_allclose(line.sd_sampling, values.std(ddof=1) / np.sqrt(14))
    assert line.claim == "checkpoint"


def test_about_a_method_the_variance_is_the_crossed_one():
    """(MS_rows + MS_columns - MS_rest) / (T G), with the bootstrap's widening of the groups' part taken out."""
    values = np.random.default_rng(4).normal(size=(3, 25)) + np.array([[0.0], [1.0], [2.0]])
    line = of_values(values)
    t = np.array([distributions.t.ppf(0.975, 24)])  # as if the bootstrap had found t itself
    found = uncertainty([line], line.pooled, t)
    rows, columns, rest = (float(x) for x in mean_squares(values))
    variance = (rows + columns - rest) / 75
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-9)
    freedom = (variance * 75) ** 2 / (rows**2 / 2 + columns**2 / 24 + rest**2 / 48)
    np.testing.assert_allclose(found.degrees_of_freedom, freedom, rtol=1e-9)
    np.testing.assert_allclose(found.half_width, distributions.t.ppf(0.975, freedom) * np.sqrt(variance), rtol=1e-9)
    assert line.claim == "method"


@given(st.integers(2, 6), st.integers(5, 40), st.integers(0, 2**31))
def test_an_interval_about_a_method_is_never_narrower_than_about_its_checkpoints_together(n_train, n_groups, seed):
    line = of_values(np.random.default_rng(seed).normal(size=(n_train, n_groups)))
    critical = critical_values(line.pooled, group_weights(n_groups, 200))
    about_method = uncertainty([line], line.pooled, critical)
    fixed = Score(line.by_seed.mean(axis=0, keepdims=True), line.pooled[None])
    about_these = uncertainty([fixed], line.pooled, critical)
    assert about_these.degrees_of_freedom is None
    np.testing.assert_allclose(about_these.half_width, critical * standard_error(line.pooled))
    assert about_method.half_width >= about_these.half_width * (1 - 1e-9)


@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_too_few_groups_have_no_width(n_groups):
    line = of_values(np.random.default_rng(0).normal(size=(3, n_groups)))
    found = uncertainty([line], line.pooled, critical_values(line.pooled, group_weights(n_groups)))
    assert np.isnan(found.half_width).all()


def test_without_spread_there_is_no_width():
    line = Score(np.full((2, 1, 1), 0.5), np.zeros((2, 6, 1)))
    found = uncertainty([line], line.pooled, np.array([np.inf]))
    assert not (found.half_width > 0).any()


@pytest.mark.parametrize(
    ("n_train", "s_train", "s_both"), [(3, 0.0, 1.0), (3, 1.0, 0.5), (5, 1.0, 0.5), (5, 2.0, 0.5), (10, 1.0, 1.5)]
)
def test_intervals_about_a_method_hold_its_mean(n_train, s_train, s_both):
    """Seeds and 31 groups drawn anew each time. Groups alone would cover far less where training seeds differ."""
    rng, trials, n_groups = np.random.default_rng(n_train), 2000, 31
    values = s_train * rng.normal(size=(trials, n_train, 1)) + np.sqrt(n_groups) * rng.normal(
        size=(trials, 1, n_groups)
    )
    values = values + s_both * np.sqrt(n_groups) * rng.normal(size=(trials, n_train, n_groups))
    lines = [of_values(v) for v in values]
    critical = critical_values(np.concatenate([line.pooled for line in lines], axis=1), group_weights(n_groups, 500))
    half = [uncertainty([line], line.pooled, c[None]).half_width[0] for line, c in zip(lines, critical, strict=True)]
    hit = np.abs(values.mean(axis=(1, 2))) <= half
    noise = np.sqrt(0.95 * 0.05 / trials)
    assert 0.93 - 2 * noise < hit.mean() < 0.97 + 2 * noise
    if s_train >= 1:
        groups_only = np.abs(values.mean(axis=(1, 2))) <= critical * [float(line.sd_sampling[0]) for line in lines]
        assert groups_only.mean() < hit.mean() - 0.005


def test_scores_add_up_with_their_seeds():
    """A clean point has one corruption seed; it counts for each of the others."""
    rng = np.random.default_rng(5)
    clean, noisy = (
        Score(rng.normal(size=(2, 1, 3)), rng.normal(size=(2, 7, 3))),
        Score(rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 7, 3))),
    )
    both = Score.combined([clean, noisy], np.array([0.25, 0.75]))
    np.testing.assert_allclose(both.value, 0.25 * clean.value + 0.75 * noisy.value)
    np.testing.assert_allclose(both.by_seed[1, 2], 0.25 * clean.by_seed[1, 0] + 0.75 * noisy.by_seed[1, 2])
    np.testing.assert_allclose(both.pooled, 0.25 * clean.pooled + 0.75 * noisy.pooled)


def test_a_score_of_statistics_is_that_of_one_checkpoint():
    y, p, _, groups = draw(np.random.default_rng(0), 10)
    line = score(y, p, groups)
    assert (line.by_seed.shape, line.influence.shape) == ((1, 1, 9), (1, 10, 9))
    assert line.n_train_seeds == 1
