"""Half-life, cliff and area within a tolerance, against closed forms and against slow references."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from corruptions import InputError
from robustbench_msa.analysis.grid_scores import retention
from robustbench_msa.analysis.shape_scores import area_within, cliff, from_clean, half_life

UNEVEN = np.array([0, 0.1, 0.25, 0.6, 1.5])
curves = st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 1)), min_size=2, max_size=10)


def split(curve):
    return np.cumsum([step for step, _ in curve]) / 20, np.array([value for _, value in curve])


@pytest.mark.parametrize("grid", [UNEVEN, np.linspace(0, 1.5, 7)])
def test_a_straight_line_from_clean_to_the_floor_is_halved_in_the_middle(grid):
    accuracy, mae = 0.8 - 0.3 * grid / 1.5, 0.9 + 0.5 * grid / 1.5
    np.testing.assert_allclose(half_life(grid, accuracy, 0.8, 0.5, True), 0.75)
    np.testing.assert_allclose(half_life(grid, mae, 0.9, 1.4, False), 0.75)
    np.testing.assert_allclose(half_life(grid, accuracy, 0.8, 0.2, True, never=np.inf), 1.5)  # at the end, exactly


def test_a_step_is_halved_in_the_middle_of_its_riser():
    step = np.where(UNEVEN < 0.5, 0.8, 0.5)
    np.testing.assert_allclose(half_life(UNEVEN, step, 0.8, 0.5, True), (0.25 + 0.6) / 2)
    below = np.where(UNEVEN < 0.5, 0.8, 0.2)  # falls by twice the margin
    np.testing.assert_allclose(half_life(UNEVEN, below, 0.8, 0.5, True), 0.25 + 0.35 / 4)


def test_the_first_crossing_counts_even_if_the_curve_recovers():
    curve = [0.8, 0.6, 0.8, 0.5]
    np.testing.assert_allclose(half_life([0, 1, 2, 3], curve, 0.8, 0.5, True), 0.75)


def test_a_grid_that_starts_above_zero_starts_at_clean():
    late = half_life([0.2, 0.4], [0.5, 0.4], 0.8, 0.5, True)
    np.testing.assert_allclose(late, half_life([0, 0.2, 0.4], [0.8, 0.5, 0.4], 0.8, 0.5, True))
    grid, curve = from_clean([0.2, 0.4], np.ones((2, 3)), [0.7, 0.8, 0.9])
    np.testing.assert_array_equal(grid, [0, 0.2, 0.4])
    np.testing.assert_array_equal(curve[0], [0.7, 0.8, 0.9])
    assert from_clean(UNEVEN, np.ones(5), 0.3)[1].shape == (5,)


def test_half_life_is_null_when_never_reached_without_margin_and_with_nulls():
    flat = np.full(5, 0.8)
    assert np.isnan(half_life(UNEVEN, flat, 0.8, 0.5, True))
    assert half_life(UNEVEN, flat, 0.8, 0.5, True, never=1.5) == 1.5
    assert np.isnan(half_life(UNEVEN, flat, 0.8, 0.8, True, never=1.5))
    assert np.isnan(half_life(UNEVEN, flat, 0.8, 0.5, False, never=1.5))
    assert np.isnan(half_life([0, 1, 2], [0.8, 0.5, np.nan], 0.8, 0.5, True, never=1.5))
    assert np.isnan(half_life([0.5], [0.5], 0.8, 0.5, True, never=1.5))


@settings(max_examples=100, deadline=None)
@given(curves, st.floats(0.3, 1.5), st.floats(0.0, 1.0), st.booleans())
def test_half_of_the_margin_is_left_at_the_half_life_and_more_before_it(curve, clean, floor, higher):
    assume(abs(clean - floor) > 0.01 and (clean > floor) == higher)
    severities, values = split(curve)
    found = half_life(severities, values, clean, floor, higher, never=np.inf)
    grid, values = np.insert(severities, 0, 0.0), np.insert(values, 0, clean)
    left = retention(values, clean, floor, higher)
    if np.isinf(found):
        assert left.min() > 0.5
    else:
        np.testing.assert_allclose(np.interp(found, grid, left), 0.5, atol=1e-6)
        assert (left[grid < found - 1e-9] > 0.5).all()


def test_cliffs_of_a_line_and_of_a_step():
    line = cliff(UNEVEN, 0.8 - 0.2 * UNEVEN, higher_is_better=True)
    np.testing.assert_allclose(line, (0.2, 0.0), atol=1e-12)  # equally steep everywhere: the first
    step = cliff(UNEVEN, np.where(UNEVEN < 0.5, 0.8, 0.5), higher_is_better=True)
    np.testing.assert_allclose(step, (0.3 / 0.35, 0.25))
    mae = cliff(UNEVEN, np.where(UNEVEN < 0.5, 0.9, 1.4), higher_is_better=False)
    np.testing.assert_allclose(mae, (0.5 / 0.35, 0.25))


def test_a_curve_that_never_gets_worse_has_a_cliff_of_zero_nowhere():
    size, at = cliff([0, 1, 2], [[0.5, 0.7], [0.5, 0.6], [0.6, 0.6]], higher_is_better=True)
    np.testing.assert_allclose(size, [0, 0.1])
    np.testing.assert_array_equal(at, [np.nan, 0])
    assert cliff([0, 1, 2], [0.1 + 0.2, 0.3, 0.3], higher_is_better=True).size == 0  # a drop of one rounding
    null = cliff([0, 1, 2], [0.5, np.nan, 0.2], True), cliff([0.5], [0.5], True)
    assert np.isnan(null).all()


@settings(max_examples=60, deadline=None)
@given(curves, st.booleans(), st.sampled_from([0.5, 3.0]))
def test_cliff_is_the_steepest_of_all_neighbours(curve, higher, scale):
    severities, values = split(curve)
    sign = 1 if higher else -1
    slopes = [sign * (values[i] - values[i + 1]) / (severities[i + 1] - severities[i]) for i in range(len(values) - 1)]
    size, at = cliff(severities, values, higher)
    np.testing.assert_allclose(size, max(0, *slopes), atol=1e-11)
    if size > 0:
        np.testing.assert_allclose(slopes[int(np.flatnonzero(severities == at)[0])], size)
    np.testing.assert_allclose(cliff(scale * severities, values, higher), (size / scale, at * scale))


def test_area_within_of_a_line_and_of_a_step():
    falls = 0.8 * (1 - 0.2 * UNEVEN / 1.5)  # loses 20 % over the range
    for tolerance, share in [(0.05, 0.25), (0.1, 0.5), (0.3, 1.0)]:
        np.testing.assert_allclose(area_within([UNEVEN], falls, 0.8, True, tolerance), share)
    rises = 0.8 * (1 + 0.2 * UNEVEN / 1.5)
    np.testing.assert_allclose(area_within([UNEVEN], rises, 0.8, False, 0.05), 0.25)
    np.testing.assert_allclose(area_within([UNEVEN], rises, 0.8, True, 0.0), 1)
    step = np.where(UNEVEN < 0.5, 1.0, 0.5)  # 10 % is lost a fifth down the riser
    np.testing.assert_allclose(area_within([UNEVEN], step, 1.0, True, 0.1), (0.25 + 0.35 / 5) / 1.5)


@pytest.mark.parametrize("tolerance", [1e-4, 0.01, 0.1, 0.5, 0.99])
def test_area_within_of_a_bilinear_cell_is_that_under_the_hyperbola(tolerance):
    surface = [[1.0, 1.0], [1.0, 0.0]]  # 1 - xy: within where xy <= t
    expected = tolerance - tolerance * np.log(tolerance)
    np.testing.assert_allclose(area_within([[0, 1], [0, 2]], surface, 1.0, True, tolerance), expected, rtol=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_area_within_of_a_plane_is_that_of_the_triangle(share):
    a, b = np.array([0, 0.1, 0.4, 1.0]), np.array([0, 0.5, 1.0])
    plane = 1 - (a[:, None] + b) / 2  # within where a + b <= 2 t
    np.testing.assert_allclose(area_within([a, b], plane, 1.0, True, share), (2 * share) ** 2 / 2, rtol=1e-12)


def test_area_within_of_a_surface_along_one_axis_is_that_of_the_line():
    line = np.array([0.8, 0.79, 0.7, 0.6, 0.5])
    expected = area_within([UNEVEN], line, 0.8, True, 0.1)
    along = np.repeat(line[:, None], 3, axis=1)
    np.testing.assert_allclose(area_within([UNEVEN, [0, 1, 5]], along, 0.8, True, 0.1), expected)
    np.testing.assert_allclose(area_within([[0, 1, 5], UNEVEN], along.T, 0.8, True, 0.1), expected)


def test_area_within_agrees_with_sampling_the_surface_and_minds_neither_order_nor_scale():
    values = np.random.default_rng(0).uniform(0.5, 1.0, size=(5, 3, 4))
    a, b = UNEVEN, np.array([0, 0.2, 0.7])
    got = area_within([a, b], values, 1.0, True, 0.25)
    fine = (np.arange(600) + 0.5) / 600
    points = np.stack(np.meshgrid(fine * 1.5, fine * 0.7, indexing="ij"), axis=-1)
    np.testing.assert_allclose(got, (RegularGridInterpolator((a, b), values)(points) >= 0.75).mean((0, 1)), atol=1e-3)
    np.testing.assert_allclose(got, area_within([b, a], values.swapaxes(0, 1), 1.0, True, 0.25), rtol=1e-9)
    np.testing.assert_allclose(got, area_within([7 * a, 0.1 * b], values, 1.0, True, 0.25), rtol=1e-9)
    doubled = area_within([a, b], 2 * values, 2.0, True, 0.25)
    np.testing.assert_allclose(got, doubled, rtol=1e-9)


def test_area_within_is_null_without_a_range_a_value_or_a_positive_clean_score():
    assert np.isnan(area_within([[0.5]], [0.7], 0.8, True, 0.05))
    assert np.isnan(area_within([[0, 1], [0.5]], [[0.7], [0.7]], 0.8, True, 0.05))
    assert np.isnan(area_within([[0, 1], [0, 1]], [[0.7, 0.7], [np.nan, 0.7]], 0.8, True, 0.05))
    within = area_within([[0, 1]], [[0.7, 0.7], [0.7, np.nan]], [0.7, 0.7], True, 0.05)
    np.testing.assert_array_equal(within, [1, np.nan])
    np.testing.assert_array_equal(area_within([[0, 1]], np.zeros((2, 3)), [0, -0.1, np.nan], True, 0.05), [np.nan] * 3)


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)])
def test_replicates_are_carried_along(trailing):
    rng = np.random.default_rng(1)
    values, clean = rng.uniform(0.4, 0.9, size=(5, *trailing)), rng.uniform(0.7, 0.9, size=trailing)
    scores = [
        half_life(UNEVEN, values, clean, 0.5, True),
        *cliff(UNEVEN, values, True),
        area_within([UNEVEN], values, clean, True, 0.1),
    ]
    for index in np.ndindex(trailing):
        one, start = values[(slice(None), *index)], clean[index]
        expected = [
            half_life(UNEVEN, one, start, 0.5, True),
            *cliff(UNEVEN, one, True),
            area_within([UNEVEN], one, start, True, 0.1),
        ]
        np.testing.assert_allclose([score[index] for score in scores], expected)


def test_bad_input_is_refused():
    for score in (lambda s, v: half_life(s, v, 0.8, 0.5, True), lambda s, v: cliff(s, v, True)):
        with pytest.raises(InputError, match="strictly increase"):
            score([0, 0.2, 0.1], [0.3, 0.2, 0.1])
        with pytest.raises(InputError, match=r"expected the grid \(3,\)"):
            score([0, 0.2, 0.3], [0.3, 0.2])
    with pytest.raises(InputError, match="1 or 2 axes"):
        area_within([], [0.3], 0.8, True, 0.05)
    with pytest.raises(InputError, match="tolerance >= 0"):
        area_within([[0, 1]], [0.3, 0.2], 0.8, True, -0.05)
