"""Scores over a grid against SciPy's trapezoid and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from corruptions import InputError
from robustbench_msa.analysis.grid_scores import (
    auc_raw,
    corruption_error,
    error_form,
    grid_mean,
    mce,
    nauc,
    nauc_2d,
    null_as_floor,
    regret,
    relative_corruption_error,
    retention,
    worst,
)
from robustbench_msa.analysis.metrics import PROFILES

UNEVEN = np.array([0, 0.1, 0.25, 0.6, 1.5])


@pytest.mark.parametrize("trailing", [(), (3,), (2, 4)])
def test_nauc_is_the_trapezoid_over_the_range(trailing):
    values = np.random.default_rng(0).uniform(size=(5, *trailing))
    area = trapezoid(values, UNEVEN, axis=0)
    assert nauc(UNEVEN, values).shape == trailing
    np.testing.assert_allclose(auc_raw(UNEVEN, values), area)
    np.testing.assert_allclose(nauc(UNEVEN, values), area / 1.5)


def test_nauc_2d_is_the_volume_over_the_area():
    b = np.array([0, 0.2, 0.7])
    values = np.random.default_rng(0).uniform(size=(5, 3, 2))
    expected = trapezoid(trapezoid(values, UNEVEN, axis=0), b, axis=0) / (1.5 * 0.7)
    np.testing.assert_allclose(nauc_2d(UNEVEN, b, values), expected)


curves = st.lists(st.tuples(st.integers(1, 50), st.floats(-3, 3)), min_size=2, max_size=12)


@settings(max_examples=60, deadline=None)
@given(curves, st.floats(-5, 5), st.floats(-5, 5))
def test_nauc_is_linear_and_within_the_curve(curve, scale, shift):
    severities = np.cumsum([step for step, _ in curve]) / 20
    values = np.array([value for _, value in curve])
    score = nauc(severities, values)
    assert values.min() - 1e-9 <= score <= values.max() + 1e-9
    np.testing.assert_allclose(nauc(severities, scale * values + shift), scale * score + shift, atol=1e-9)
    np.testing.assert_allclose(nauc(severities * 3, values), score, atol=1e-9)  # in any unit of severity
    straight_line = nauc(severities, severities)
    np.testing.assert_allclose(straight_line, (severities[0] + severities[-1]) / 2)


def test_nauc_is_not_the_mean_over_the_grid():
    curve = [0.8, 0.6, 0.5, 0.4, 0.2]
    np.testing.assert_allclose(nauc([0, 0.2, 0.4, 0.6, 0.8], curve), (0.4 + 0.6 + 0.5 + 0.4 + 0.1) / 4)
    np.testing.assert_allclose(grid_mean([0.9, 0.6, 0.5, 0.4, 0.2]), 0.52)
    np.testing.assert_allclose(nauc([0, 0.2, 0.4, 0.6, 0.8], [0.9, 0.6, 0.5, 0.4, 0.2]), 0.5125)


def test_a_single_severity_has_no_range():
    assert np.isnan(nauc([0.3], [0.7]))
    assert np.isnan(auc_raw([0.3], [0.7]))
    assert np.isnan(nauc_2d([0, 1], [0.5], [[0.7], [0.6]]))
    np.testing.assert_array_equal(np.isnan(nauc([0.3], [[0.7, 0.6]])), [True, True])


def test_null_spreads_except_for_corr_which_enters_as_zero():
    curve = [0.8, np.nan, np.nan]
    assert np.isnan(nauc([0, 0.5, 1], curve))
    assert np.isnan(nauc([0, 0.5, 1], null_as_floor(curve, "mae")))
    np.testing.assert_allclose(nauc([0, 0.5, 1], null_as_floor(curve, "corr")), 0.2)
    assert np.isnan(grid_mean(curve))
    assert np.isnan(worst(curve, higher_is_better=True))
    np.testing.assert_array_equal(null_as_floor([-0.2, 0.4], "corr"), [-0.2, 0.4])


def test_mean_and_worst_over_one_axis_or_two():
    values = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(grid_mean(values), values.mean(axis=0))
    np.testing.assert_array_equal(grid_mean(values, grid_axes=2), values.mean(axis=(0, 1)))
    np.testing.assert_array_equal(worst(values, True, grid_axes=2), [0, 1, 2, 3])
    np.testing.assert_array_equal(worst(values, False, grid_axes=2), [20, 21, 22, 23])


def test_retention():
    np.testing.assert_allclose(retention([0.8, 0.65, 0.5, 0.35], 0.8, 0.5), [1, 0.5, 0, -0.5], atol=1e-12)
    mae = retention([0.8, 1.1, 1.4], 0.8, 1.4, higher_is_better=False)
    np.testing.assert_allclose(mae, [1, 0.5, 0], atol=1e-12)
    assert np.isnan(retention(0.5, 0.5, 0.5))
    assert np.isnan(retention(0.5, 0.1 + 0.2, 0.3))  # equal but for rounding
    assert np.isnan(retention(np.nan, 0.8, 0.5))


def test_a_model_below_the_floor_has_nothing_to_retain():
    floor, clean = [0.5, 0.5], [0.45, 0.9]
    np.testing.assert_allclose(retention([0.3, 0.7], clean, floor, higher_is_better=True), [np.nan, 0.5])
    np.testing.assert_allclose(retention(1.5, [1.4, 1.0], 1.3, higher_is_better=False), [np.nan, -2 / 3])


@pytest.mark.parametrize(
    "severities",
    [[0, 0.2, 0.2], [0, 0.4, 0.2], [0, 0.2, np.nan], [0, 0.2, np.inf], [], [[0, 0.2, 0.4]], ["a", "b", "c"]],
)
def test_severities_must_be_finite_and_increase(severities):
    for score in (nauc, auc_raw):
        with pytest.raises(InputError, match="severities: expected"):
            score(severities, [0.3, 0.2, 0.1])
    with pytest.raises(InputError, match="severities: expected"):
        nauc_2d([0, 1], severities, np.ones((2, 3)))


def test_values_must_be_on_the_grid():
    with pytest.raises(InputError, match=r"expected the grid \(3,\) .* got shape \(2,\)"):
        nauc([0, 1, 2], [0.1, 0.2])
    with pytest.raises(InputError, match=r"expected the grid \(2, 3\)"):
        nauc_2d([0, 1], [0, 1, 2], np.ones((3, 2)))
    with pytest.raises(InputError, match="2 grid axes"):
        grid_mean([0.1, 0.2], grid_axes=2)
    with pytest.raises(InputError, match="at least one cell"):
        worst([], higher_is_better=True)


def test_regret_is_zero_for_the_oracle_and_positive_for_whatever_it_beats():
    np.testing.assert_array_equal(regret([0.5, 0.75, 1.0], 0.75, higher_is_better=True), [0.25, 0, -0.25])
    np.testing.assert_array_equal(regret([0.5, 0.75, 1.0], 0.75, higher_is_better=False), [-0.25, 0, 0.25])
    assert np.isnan(regret(0.5, np.nan, higher_is_better=True))


def test_corruption_error_is_a_ratio_of_sums_not_a_mean_of_ratios():
    errors, baseline = np.array([[0.1, 0.2], [0.5, 0.4]]), np.array([[0.01, 0.2], [0.59, 0.8]])
    np.testing.assert_allclose(corruption_error(errors, baseline), [1.0, 0.6])
    np.testing.assert_allclose(corruption_error(baseline, baseline), 1)
    np.testing.assert_allclose(corruption_error(3 * errors, 3 * baseline), [1.0, 0.6])  # labels in another unit


def test_corruption_errors_are_null_against_a_baseline_that_makes_or_adds_none():
    np.testing.assert_array_equal(corruption_error([[0.2, 0.2]], [[0.0, 0.1]]), [np.nan, 2])
    flat = relative_corruption_error([0.3, 0.1 + 0.2], 0.1, [0.3, 0.1 + 0.2], 0.3)  # it adds a rounding error
    better = relative_corruption_error([0.3, 0.4], 0.1, [0.3, 0.2], 0.5)
    assert np.isnan(flat)
    assert np.isnan(better)
    assert np.isnan(corruption_error([0.2, np.nan], [0.2, 0.2]))
    with pytest.raises(InputError, match="at least one cell"):
        corruption_error([], [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 3)), min_size=1, max_size=8), st.floats(0, 1))
def test_relative_corruption_error_is_that_of_the_added_errors(pairs, clean):
    added, baseline_added = np.array(pairs).T
    relative = relative_corruption_error(clean + added, clean, 0.5 + baseline_added, 0.5)
    np.testing.assert_allclose(relative, corruption_error(added, baseline_added), rtol=1e-9, atol=1e-9)


def test_mce_is_the_mean_over_stresses_and_null_where_one_is():
    np.testing.assert_allclose(mce([[0.5, 0.5], [1.0, np.nan]]), [0.75, np.nan])


def test_only_accuracies_and_mae_have_an_error_form():
    values = np.array([0.25, 1.0])
    forms = {
        name: error_form(metric) for p in PROFILES.values() for name, metric in zip(p.names, p.metrics, strict=True)
    }
    with_form = {name for name, form in forms.items() if form is not None}
    assert with_form == {name for name in forms if name.startswith("acc")} | {"mae"}
    np.testing.assert_array_equal(forms["acc2_non0"](values), [0.75, 0])
    np.testing.assert_array_equal(forms["mae"](values), values)
