"""The minimum detectable difference: its formula, and that it is detected as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from clustered import draw, score
from scipy import stats as distributions

from corruptions import InputError
from robustbench_msa.analysis.jackknife import standard_error
from robustbench_msa.analysis.power import detectable, mdd
from robustbench_msa.analysis.variance import Score


def line_of(values: np.ndarray) -> Score:
    return Score(values.mean()[None, None, None], (values - values.mean())[None, :, None])


def test_it_is_found_as_often_as_the_power_says():
    """Paired t tests of a true difference of exactly this size, the spread known: Student's test, no bootstrap."""
    rng, n_groups, trials = np.random.default_rng(2), 31, 20_000
    for power in (0.5, 0.8, 0.95):
        size = detectable(np.array([1 / np.sqrt(n_groups)]), np.array([n_groups - 1.0]), power)[0]
        differences = size + rng.normal(size=(trials, n_groups))
        found = (distributions.ttest_1samp(differences, 0, axis=1).pvalue < 0.05).mean()
        np.testing.assert_allclose(found, power, atol=0.01)


def test_of_two_lines_it_comes_from_their_difference():
    y, a, b, groups = draw(np.random.default_rng(1), 31)
    first, second = score(y, a, groups), score(y, b, groups)
    t = distributions.t.ppf(0.975, 30) + distributions.t.ppf(0.8, 30)
    np.testing.assert_allclose(mdd(first, second), t * standard_error(first.pooled - second.pooled))
    np.testing.assert_allclose(mdd(first, second), mdd(second, first))
    assert (mdd(first, first) == 0).all()


def test_of_one_line_it_takes_the_other_to_vary_alike():
    values = np.random.default_rng(0).normal(size=40)
    alone = mdd(line_of(values))
    np.testing.assert_allclose(alone, (2.0227 + 0.8505) * np.sqrt(2) * values.std(ddof=1) / np.sqrt(40), rtol=1e-3)
    np.testing.assert_allclose(mdd(line_of(values), correlation=0.75), alone / 2)
    rng = np.random.default_rng(5)
    own = rng.normal(size=(3, 4000))
    shared = np.sqrt(0.75) * own[0] + np.sqrt(0.25) * own[1:]
    np.testing.assert_allclose(
        mdd(line_of(shared[0]), correlation=0.75), mdd(line_of(shared[0]), line_of(shared[1])), rtol=0.05
    )


def test_more_groups_power_and_level_move_it_the_right_way():
    values = np.random.default_rng(0).normal(size=100)
    base = mdd(line_of(values[:25]))
    assert mdd(line_of(np.tile(values[:25], 4))) < 0.51 * base
    assert mdd(line_of(values[:25]), power=0.9) > base > mdd(line_of(values[:25]), alpha=0.1)


@pytest.mark.parametrize(
    "wrong", [{"power": 1.0}, {"power": 0.0}, {"alpha": 0.0}, {"correlation": 1.0}, {"correlation": -1.1}]
)
def test_bad_input_says_so(wrong):
    with pytest.raises(InputError, match=r"mdd: expected power and alpha in \(0, 1\)"):
        mdd(line_of(np.arange(5.0)), **wrong)
