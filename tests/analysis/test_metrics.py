"""Metrics against scikit-learn, NumPy and references written from the protocol."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from corruptions import InputError
from robustbench_msa.analysis.constants import best_constant, floor
from robustbench_msa.analysis.metrics import (
    PROFILES,
    compute,
    score,
    sufficient,
)

REGRESSION = ("mosi", "sims", "legacy_swapped_f1")


def samples(profile, n=300, seed=0):
    """Labels in steps as annotators give them, zeros and edges among them, and correlated predictions."""
    rng = np.random.default_rng(seed)
    limit = 1 if profile == "sims" else 3
    y = np.round(rng.uniform(-limit, limit, n) * 5) / 5
    y[: n // 10] = 0
    return y.astype(np.float32), (0.6 * y + rng.normal(scale=limit / 2, size=n)).astype(np.float32)


def mosi_reference(y, p):
    non0 = y != 0

    def rounded(k):
        classes_y, classes_p = (np.round(np.clip(v, -k, k)).astype(int) for v in (y, p))
        return accuracy_score(classes_y, classes_p)

    return {
        "acc2_has0": accuracy_score(y >= 0, p >= 0),
        "f1_has0": f1_score(y >= 0, p >= 0, average="weighted"),
        "acc2_non0": accuracy_score(y[non0] > 0, p[non0] > 0),
        "f1_non0": f1_score(y[non0] > 0, p[non0] > 0, average="weighted"),
        "acc3": rounded(1),
        "acc5": rounded(2),
        "acc7": rounded(3),
        "mae": np.abs(p.astype(np.float64) - y).mean(),
        "corr": np.corrcoef(y, p)[0, 1],
    }


def sims_reference(y, p):
    y, p = np.clip(y, -1, 1), np.clip(p, -1, 1)
    cuts3, cuts5 = np.float32([-0.1, 0.1]), np.float32([-0.7, -0.1, 0.1, 0.7])

    def binned(v, cuts):
        return sum((v > cut).astype(int) for cut in cuts)

    return {
        "acc2": accuracy_score(y > 0, p > 0),
        "f1": f1_score(y > 0, p > 0, average="weighted"),
        "acc3": accuracy_score(binned(y, cuts3), binned(p, cuts3)),
        "acc5": accuracy_score(binned(y, cuts5), binned(p, cuts5)),
        "mae": np.abs(p.astype(np.float64) - y).mean(),
        "corr": np.corrcoef(y.astype(np.float64), p.astype(np.float64))[0, 1],
    }


def assert_scores(actual, expected, **tolerance):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, err_msg=name, **{"rtol": 1e-9} | tolerance)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("profile", "reference"), [("mosi", mosi_reference), ("sims", sims_reference)])
def test_regression_profiles_equal_the_reference(profile, reference, seed):
    y, p = samples(profile, seed=seed)
    assert_scores(score(y, p, profile), reference(y, p), rtol=1e-6)


def test_legacy_profile_differs_from_mosi_in_f1_alone_and_swaps_the_arguments():
    y, p = samples("mosi")
    right, legacy = score(y, p, "mosi"), score(y, p, "legacy_swapped_f1")
    non0 = y != 0
    swapped = {
        "f1_has0": f1_score(p >= 0, y >= 0, average="weighted"),
        "f1_non0": f1_score(p[non0] > 0, y[non0] > 0, average="weighted"),
    }
    assert_scores(legacy, right | swapped)


@pytest.mark.parametrize("n_true", [5, 3])  # 3: classes 3 and 4 are predicted but never true
def test_classification_equals_scikit_learn(n_true):
    rng = np.random.default_rng(4)
    y, p = rng.integers(n_true, size=200), rng.integers(5, size=200)
    p[p == 1] = 0  # a class that is true but never predicted
    expected = {
        "acc": accuracy_score(y, p),
        "f1_macro": f1_score(y, p, average="macro", zero_division=0),
        "precision_macro": precision_score(y, p, average="macro", zero_division=0),
        "recall_macro": recall_score(y, p, average="macro", zero_division=0),
        "f1_weighted": f1_score(y, p, average="weighted", zero_division=0),
    }
    assert_scores(score(y, p, "classification"), expected)
    assert_scores(score(y, np.eye(7)[p] * 2 - 1, "classification"), expected)  # logits, two classes unused


@pytest.mark.parametrize("q", [0.55, 0.6935, 0.71])
def test_f1_of_a_constant_predictor_has_its_closed_form(q):
    n = 2000
    y = np.where(np.arange(n) < round(q * n), -1.0, 1.0)
    q = round(q * n) / n
    p = np.full(n, -0.2)
    np.testing.assert_allclose(score(y, p, "mosi")["f1_has0"], 2 * q**2 / (1 + q), rtol=1e-12)
    np.testing.assert_allclose(score(y, p, "sims")["f1"], 2 * q**2 / (1 + q), rtol=1e-12)
    np.testing.assert_allclose(score(y, p, "legacy_swapped_f1")["f1_non0"], 2 * q / (1 + q), rtol=1e-12)


@pytest.mark.parametrize(
    ("label", "prediction", "profile", "metric", "right"),
    [
        (0.5, 0.0, "mosi", "acc7", True),  # .5 rounds to 0
        (0.5, 1.0, "mosi", "acc7", False),
        (1.5, 2.0, "mosi", "acc7", True),  # 1.5 and 2.5 both round to 2
        (2.5, 2.0, "mosi", "acc7", True),
        (2.5, 3.0, "mosi", "acc7", False),
        (-2.5, -2.0, "mosi", "acc7", True),
        (-0.5, 0.5, "mosi", "acc7", True),
        (3.0, 9.0, "mosi", "acc7", True),  # clipped
        (1.5, 2.9, "mosi", "acc5", True),
        (1.5, 0.6, "mosi", "acc3", True),
        (1.0, 0.5, "mosi", "acc3", False),
        (0.0, -0.0, "mosi", "acc2_has0", True),  # -0.0 >= 0
        (-0.0, 1.0, "mosi", "acc2_has0", True),
        (1.0, 0.0, "mosi", "acc2_non0", False),  # 0 is not positive
        (-1.0, 0.0, "mosi", "acc2_non0", True),
        (0.0, -1.0, "sims", "acc2", True),  # 0 is negative
        (-0.0, 1.0, "sims", "acc2", False),
        (0.1, 0.0, "sims", "acc3", True),  # right-closed in float32
        (np.nextafter(np.float32(0.1), np.float32(1)), 0.0, "sims", "acc3", False),
        (-0.1, -0.5, "sims", "acc3", True),
        (0.7, 0.2, "sims", "acc5", True),
        (np.nextafter(np.float32(0.7), np.float32(1)), 1.0, "sims", "acc5", True),
        (-0.7, -1.0, "sims", "acc5", True),
        (-0.7, -0.6, "sims", "acc5", False),
        (1.0, 7.0, "sims", "acc5", True),
    ],
)
def test_edges_of_classes(label, prediction, profile, metric, right):
    assert score([label], [prediction], profile)[metric] == float(right)


def test_sims_clips_for_mae_and_corr_too():
    values = score([-1.0, 0.0, 1.0], [-5.0, 0.0, 5.0], "sims")
    assert values["mae"] == 0
    np.testing.assert_allclose(values["corr"], 1)
    assert score([-1.0, 0.0, 1.0], [-5.0, 0.0, 5.0], "mosi")["mae"] == pytest.approx(8 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("profile", REGRESSION)
def test_a_prediction_that_is_not_finite_is_wrong_everywhere(profile, bad):
    y, p = samples(profile)
    p = p.astype(np.float64)
    p[::30] = bad
    after = score(y, p, profile)
    assert after["mae"] is None
    assert after["corr"] is None
    one = score([-1, 0.5, 1], [-1, bad, 1], profile)
    assert one["mae"] is None
    assert one["corr"] is None
    kept = np.arange(len(y)) % 30 > 0
    alone = score(y[kept], p[kept], profile)
    for name in (name for name in after if name.startswith("acc")):
        n, n_kept = ((y != 0).sum(), (y[kept] != 0).sum()) if "non0" in name else (len(y), kept.sum())
        np.testing.assert_allclose(after[name] * n, alone[name] * n_kept, err_msg=name)


@pytest.mark.parametrize("profile", ["mosi", "legacy_swapped_f1"])
def test_nan_in_f1_is_a_prediction_of_no_class(profile):
    y, p = samples("mosi")
    p[::7] = np.nan
    true, predicted = (y >= 0).astype(int), np.where(np.isnan(p), -1, p >= 0)
    first, second = (predicted, true) if profile == "legacy_swapped_f1" else (true, predicted)
    expected = f1_score(first, second, average="weighted", zero_division=0)
    np.testing.assert_allclose(score(y, p, profile)["f1_has0"], expected)


def test_nan_class_lowers_recall_and_is_no_class_of_the_macro_average():
    y, p = np.array([0, 0, 1, 1]), np.array([0, np.nan, 1, 1])
    values = score(y, p, "classification")
    assert values["acc"] == 0.75
    assert values["recall_macro"] == 0.75
    assert values["precision_macro"] == 1
    np.testing.assert_allclose(values["f1_macro"], (2 / 3 + 1) / 2)
    logits = np.array([[1.0, 0], [np.nan, 5], [0, 1], [0, 1]])
    assert score(y, logits, "classification") == values


@pytest.mark.parametrize("constant", [0.0, 0.1, -1.7, 1e-30, 12345.678])
def test_corr_of_a_constant_is_null(constant):
    y, _ = samples("mosi")
    assert score(y, np.full(len(y), constant))["corr"] is None
    assert score(np.full(len(y), constant), y)["corr"] is None
    rounding = np.float32(constant) * (1 + np.float32(1e-7) * (np.arange(len(y)) % 2))
    assert score(y, rounding)["corr"] is None  # the last bit of float32 is not a prediction
    assert score(rounding, y)["corr"] is None


def test_corr_is_null_in_groups_that_are_constant_and_only_there():
    y = np.array([-1, 0, 1, -1, 0, 1, -1, 0, 1], dtype=np.float32)
    p = np.array([0.1, 0.1, 0.1, 1e6, 2e6, 3e6, 1e-3, 1e-3, 1e-3])  # far from the overall mean of p
    stats = sufficient(y, p, np.repeat([0, 1, 2], 3), 3)
    np.testing.assert_allclose(compute(stats)["corr"], [np.nan, 1, np.nan])
    swapped = sufficient(p, y, np.repeat([0, 1, 2], 3), 3)
    np.testing.assert_allclose(compute(swapped)["corr"], [np.nan, 1, np.nan])
    np.testing.assert_array_equal(compute(stats * 7)["corr"], compute(stats)["corr"])


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e-20, 0), (1e15, 0), (-0.5, 3), (1, 1000)])
def test_corr_keeps_its_digits_under_scale_and_shift(scale, shift):
    y, p = samples("mosi")
    moved = (p.astype(np.float64) * scale + shift).astype(np.float32)
    expected = np.corrcoef(y.astype(np.float64), moved.astype(np.float64))[0, 1]
    np.testing.assert_allclose(score(y, moved)["corr"], expected, rtol=1e-10)


def test_without_a_non_zero_label_the_non_zero_metrics_are_null():
    values = score(np.zeros(4), [0.1, -0.2, 0.3, 1])
    assert values["acc2_non0"] is None
    assert values["f1_non0"] is None
    assert values["acc2_has0"] == 0.75
    assert np.isnan(floor(np.zeros(4))["acc2_non0"])
    assert floor(np.zeros(4))["corr"] == 0


def test_a_metric_can_have_predictions_of_its_own():
    y, p = samples("mosi")
    values = score(y, p, predictions_for={"mae": np.zeros_like(y), "acc2_non0": y})
    assert_scores(values, score(y, p) | {"mae": np.abs(y).mean(dtype=np.float64), "acc2_non0": 1.0})
    with pytest.raises(InputError, match="did you mean 'mae'"):
        score(y, p, predictions_for={"mea": y})


@pytest.mark.parametrize("profile", PROFILES)
def test_sums_over_groups_do_not_depend_on_the_grouping_or_the_order(profile):
    if profile == "classification":
        y, p = np.random.default_rng(0).integers(6, size=(2, 120))
    else:
        y, p = samples(profile, n=120)
    rng = np.random.default_rng(1)
    groups, order = rng.integers(9, size=120), rng.permutation(120)
    stats = sufficient(y, p, groups, 10, profile)  # group 9 is empty
    assert stats.shape[0] == 10
    np.testing.assert_array_equal(stats[9], 0)
    shuffled = sufficient(y[order], p[order], groups[order], 10, profile)
    np.testing.assert_allclose(shuffled, stats, rtol=1e-9, atol=1e-9)
    assert_scores(compute(stats.sum(0), profile), score(y, p, profile))
    each = compute(stats, profile)
    assert all(np.isnan(values[9]) for values in each.values())
    for g in range(9):
        alone = score(y[groups == g], p[groups == g], profile)
        expected = {k: np.nan if v is None else v for k, v in alone.items()}
        assert_scores({k: v[g] for k, v in each.items()}, expected)


annotations = st.integers(-15, 15).map(lambda k: k / 5)
labels_and_predictions = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(annotations, min_size=n, max_size=n),
        st.lists(st.floats(-4, 4, width=32) | st.just(float("nan")), min_size=n, max_size=n),
    )
)


@settings(max_examples=60, deadline=None)
@given(labels_and_predictions, st.sampled_from(REGRESSION))
def test_bounds(pair, profile):
    values = score(*pair, profile)
    for name, value in values.items():
        low, high = {"mae": (0, 7), "corr": (-1, 1)}.get(name, (0, 1))
        assert value is None or low <= value <= high
    perfect = score(pair[0], pair[0], profile)
    assert all(perfect[name] in (1.0, None) for name in values if name.startswith(("acc", "f1")))
    assert perfect["mae"] == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(annotations, min_size=1, max_size=25), st.sampled_from(REGRESSION))
def test_no_constant_beats_the_floor_and_the_best_one_attains_it(labels, profile):
    values = floor(labels, profile)
    grid = np.linspace(-3.3, 3.3, 133)
    constants = [score(labels, np.full(len(labels), c), profile) for c in grid]
    for metric in PROFILES[profile].metrics:
        if metric.name == "corr":
            assert values["corr"] == best_constant(labels, "corr", profile) == 0
            continue
        attained = score(labels, np.full(len(labels), best_constant(labels, metric.name, profile)), profile)[
            metric.name
        ]
        if attained is None:
            assert np.isnan(values[metric.name])
            continue
        assert attained == pytest.approx(values[metric.name], abs=1e-6)
        others = np.array([scores[metric.name] for scores in constants])
        best = others.max() if metric.higher_is_better else -others.min()
        assert best <= (attained if metric.higher_is_better else -attained) + 1e-6


def test_floor_of_classes_is_the_best_class():
    y = [0, 0, 0, 1, 2, 2]
    assert best_constant(y, "acc", "classification") == 0
    values = floor(y, "classification")
    for name, value in values.items():
        assert value == pytest.approx(max(score(y, np.full(6, c), "classification")[name] for c in range(3)))


def test_metrics_declare_themselves():
    for profile in PROFILES.values():
        assert len(set(profile.names)) == len(profile.names)
        for metric in profile.metrics:
            assert metric.higher_is_better == (metric.name != "mae")
            assert metric.label
    assert PROFILES["mosi"].metric("acc2_non0").label == "Acc-2 (non-zero)"
    assert PROFILES["mosi"].names == PROFILES["legacy_swapped_f1"].names


@pytest.mark.parametrize(
    ("y", "p", "profile", "message"),
    [
        ([], [], "mosi", "N > 0"),
        ([[1.0]], [1.0], "mosi", r"got shape \(1, 1\)"),
        ([1.0, 2.0], [1.0], "mosi", r"expected shape \(2,\)"),
        ([1.0, 2.0], [[1.0], [2.0]], "mosi", r"got \(2, 1\)"),
        ([1.0, np.nan], [1.0, 1.0], "mosi", "1 of 2 are NaN"),
        ([1.0, 1e300], [1.0, 1.0], "mosi", "1 of 2 are NaN or infinite"),
        (["good"], [1.0], "mosi", "labels: expected an array of numbers"),
        ([1.0], [1.0], "mosy", "did you mean 'mosi'"),
        ([1.5], [1.0], "classification", "whole numbers from 0, got 1.5"),
        ([1], [-1], "classification", "whole numbers from 0, got -1"),
        ([3], [[0.1, 0.2]], "classification", "expected below 2 .* got 3"),
    ],
)
def test_bad_input_says_so(y, p, profile, message):
    with pytest.raises(InputError, match=message):
        score(y, p, profile)


@pytest.mark.parametrize("index", [[0], [0, 2], [-1, 0], [0.0, 1.0]])
def test_a_bad_group_index_says_so(index):
    with pytest.raises(InputError, match=r"group_index: expected 2 whole numbers in 0\.\.1"):
        sufficient([1, 2], [1, 2], index, 2)


def test_statistics_of_another_profile_are_refused():
    stats = sufficient([1, 2], [1, 2], [0, 0], 1, "sims")
    with pytest.raises(InputError, match="not sufficient statistics"):
        compute(stats, "mosi")
    with pytest.raises(InputError, match="not sufficient statistics"):
        compute(stats[:, :3], "classification")


def test_statistics_of_classes_stack_when_the_number_of_classes_is_given():
    few, many = ([0, 1], [1, 1]), ([0, 1], [4, 1])
    stats = np.stack([sufficient(*pair, [0, 0], 1, "classification", n_classes=5) for pair in (few, many)])
    np.testing.assert_allclose(compute(stats, "classification")["acc"][:, 0], [0.5, 0.5])
    np.testing.assert_allclose(compute(stats, "classification")["recall_macro"][:, 0], [1 / 2, 1 / 3])
