"""Leave-one-group-out against scores of the samples that are left, and standard errors against closed forms."""

import numpy as np
import pytest

from robustbench_msa.analysis.jackknife import few_groups_note, influence, leave_one_out, standard_error
from robustbench_msa.analysis.metrics import PROFILES, score, sufficient


def clustered(n_groups=8, n=150, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=n - n_groups)])
    y = np.round(rng.uniform(-3, 3, n), 1)
    return y, 0.5 * y + rng.normal(size=n), groups


@pytest.mark.parametrize("profile", ["mosi", "sims", "legacy_swapped_f1", "classification"])
def test_without_a_group_is_the_score_of_the_other_samples(profile):
    y, p, groups = clustered()
    if profile == "classification":
        y, p = np.clip(np.round(y) + 3, 0, 4), np.clip(np.round(p) + 3, 0, 4)
    value, left_out = leave_one_out(
        sufficient(y, p, groups, 8, profile, n_classes=5 if profile == "classification" else None), profile
    )
    for i, name in enumerate(PROFILES[profile].names):
        np.testing.assert_allclose(value[i], score(y, p, profile)[name], rtol=1e-9)
        expected = [score(y[groups != g], p[groups != g], profile)[name] for g in range(8)]
        np.testing.assert_allclose(left_out[:, i], expected, rtol=1e-9, err_msg=name)


def test_many_cells_at_once():
    y, p, groups = clustered()
    cells = np.stack([sufficient(y, k * p, groups, 8) for k in (1, 2, 3)])
    value, left_out = leave_one_out(cells)
    assert (value.shape, left_out.shape) == ((3, 9), (3, 8, 9))
    np.testing.assert_allclose(left_out[1], leave_one_out(cells[1])[1])


def test_of_groups_alike_in_size_it_is_the_standard_error_of_a_mean():
    y, p, _ = clustered(n=160)
    groups = np.repeat(np.arange(8), 20)
    _, left_out = leave_one_out(sufficient(y, p, groups, 8))
    means = np.abs(y.astype(np.float32) - p.astype(np.float32)).reshape(8, 20).mean(axis=1)
    d = influence(left_out)[:, PROFILES["mosi"].names.index("mae")]
    np.testing.assert_allclose(d, means - means.mean(), atol=1e-6)
    np.testing.assert_allclose(standard_error(d), means.std(ddof=1) / np.sqrt(8), rtol=1e-5)


def test_of_a_ratio_it_is_the_linearised_standard_error():
    """Sums over sizes, many groups: root of sum (e_g - r n_g)^2 / (mean size)^2 / (G (G - 1))."""
    y, p, groups = clustered(n_groups=120, n=3000)
    _, left_out = leave_one_out(sufficient(y, p, groups, 120))
    error, size = np.bincount(groups, np.abs(y - p)), np.bincount(groups)
    residual = error - error.sum() / size.sum() * size
    expected = np.sqrt((residual**2).sum() / size.mean() ** 2 / (120 * 119))
    found = standard_error(influence(left_out))[PROFILES["mosi"].names.index("mae")]
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_influences_sum_to_zero_and_add_up():
    y, p, groups = clustered()
    _, first = leave_one_out(sufficient(y, p, groups, 8))
    _, second = leave_one_out(sufficient(y, -p, groups, 8))
    np.testing.assert_allclose(influence(first).sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(influence(0.3 * first - second), 0.3 * influence(first) - influence(second), atol=1e-12)


def test_a_single_group_has_no_standard_error():
    y, p, _ = clustered()
    _, left_out = leave_one_out(sufficient(y, p, np.zeros(150, dtype=int), 1))
    assert np.isnan(standard_error(influence(left_out))).all()


def test_corr_without_the_only_group_that_varies_is_null():
    y, p, groups = clustered()
    value, left_out = leave_one_out(sufficient(y, np.where(groups == 3, p, 0.5), groups, 8))
    corr = PROFILES["mosi"].names.index("corr")
    assert np.isfinite(value[corr])
    np.testing.assert_array_equal(np.isnan(left_out[:, corr]), np.arange(8) == 3)


@pytest.mark.parametrize(("n_groups", "expected"), [(1, "only 1 group:"), (19, "only 19 groups:"), (20, ""), (62, "")])
def test_few_groups_are_said(n_groups, expected):
    note = few_groups_note(n_groups)
    assert note.startswith(expected)
    assert bool(note) == bool(expected)
