"""Intervals of linear combinations, ratios and half-lives: against textbooks, and by trying every value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from robustbench_msa.analysis.bootstrap import critical_values, group_weights
from robustbench_msa.analysis.forms import Form, Halving, Plain, Ratio, ends
from robustbench_msa.analysis.paired import difference
from robustbench_msa.analysis.shape_scores import half_life
from robustbench_msa.analysis.variance import Score

RNG = np.random.default_rng(17)
G = 24


def score(values, n_seeds: int = 1, spread: float = 0.0, rng=RNG) -> Score:
    """Of M scores; training seeds differ by ``spread``; influences of a hundredth or so."""
    values = np.asarray(values, dtype=float)
    by_seed = values + spread * rng.normal(size=(n_seeds, 1, len(values)))
    d = rng.normal(size=(1, G, len(values))) + 0.3 * rng.normal(size=(n_seeds, G, len(values)))
    return Score(by_seed, 0.2 * (d - d.mean(axis=1, keepdims=True)))


def critical(interval) -> np.ndarray:
    return critical_values(interval.centre.pooled, group_weights(G))


def test_sums_of_forms_are_sums_of_values_and_influences():
    a, b, c = score([1, 2]), score([3, 5]), score([0.5, 0.1])
    form = Form.of(a, b).plus(Form.of(c, b), np.array([2.0, -1.0])).scaled(10)
    np.testing.assert_allclose(form.value, 10 * (a.value + b.value + np.array([2, -1]) * (c.value + b.value)))
    np.testing.assert_allclose(form.pooled, 10 * (a.pooled + b.pooled + np.array([2, -1]) * (c.pooled + b.pooled)))
    stacked = Form.stacked([form, Form.of(a, b)])
    np.testing.assert_allclose(stacked.value, [*form.value, *(a.value + b.value)])


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_plain_form_of_two_lines_is_their_difference(seeds):
    a, b = (score([0.5, 0.7], seeds, 0.05) for _ in range(2))
    plain = Plain(Form.of(a, Score(-b.by_seed, -b.influence)))
    ((low, high),) = ends([plain], group_weights(G))
    expected = difference(a, b, group_weights(G))
    np.testing.assert_allclose([low, high], [expected.low, expected.high])


def test_a_ratio_of_means_has_the_interval_of_fiellers_theorem():
    """Paired normal samples: the roots in q of (x - q y)^2 = t^2 (s_xx - 2 q s_xy + q^2 s_yy) / n."""
    x, y = RNG.multivariate_normal([2.0, 1.5], [[1.0, 0.4], [0.4, 0.6]], G).T
    n, t = G, stats.t.ppf(0.975, G - 1)
    xx, xy, yy = np.cov(x, y)[[0, 0, 1], [0, 1, 1]] / n
    a, b, c = y.mean() ** 2 - t**2 * yy, -2 * (x.mean() * y.mean() - t**2 * xy), x.mean() ** 2 - t**2 * xx
    roots = sorted(np.roots([a, b, c]))
    numerator, denominator = (
        Form.of(Score(np.full((1, 1, 1), v.mean()), (v - v.mean())[None, :, None])) for v in (x, y)
    )
    low, high = Ratio(numerator, denominator).ends(np.array([t]))
    np.testing.assert_allclose([low[0], high[0]], roots, rtol=1e-10)


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_ends_of_a_ratio_are_where_the_interval_of_the_rest_just_holds_zero(seeds):
    """With training seeds the variance between them is in it. The two lines' seeds are drawn apart."""
    own, base = score([0.4, 0.9, 0.0], seeds, 0.06), score([0.5, 0.6, 0.7], seeds, 0.04)
    nothing = Score(0 * own.by_seed, 0 * own.influence)
    ratio = Ratio(Form.of(own, nothing), Form.of(nothing, base))
    c = critical(ratio)
    for end in ratio.ends(c):
        assert np.isfinite(end).all()
        rest = ratio.numerator.plus(ratio.denominator, -end)
        np.testing.assert_allclose(np.abs(rest.value), rest.half_width(c), rtol=0.02 if seeds > 1 else 1e-9)


def test_a_ratio_does_not_depend_on_units_and_inverts():
    own, base = score([0.4, 0.9]), score([0.5, 0.6])
    nothing = Score(0 * own.by_seed, 0 * own.influence)
    up, down = Form.of(own, nothing), Form.of(nothing, base)
    low, high = Ratio(up, down).ends(critical(Ratio(up, down)))
    scaled = Ratio(up.scaled(100), down.scaled(-5))
    np.testing.assert_allclose(scaled.ends(critical(scaled)), [-20 * high, -20 * low])
    c = critical(Ratio(up, down))
    np.testing.assert_allclose(Ratio(down, up).ends(c), [1 / high, 1 / low], rtol=1e-9)


def test_without_a_sure_denominator_there_is_no_interval_of_a_ratio():
    own, base = score([0.4, 0.4, 0.4]), score([0.001, -0.02, 0.0])
    nothing = Score(0 * own.by_seed, 0 * own.influence)
    (found,) = ends([Ratio(Form.of(own, nothing), Form.of(nothing, base))], group_weights(G))
    assert np.isnan(found).all()


SEVERITIES = np.array([0.0, 0.2, 0.5, 1.0])


def halving(left: np.ndarray) -> Halving:
    """left: ``(K, M)``."""
    at = half_life(SEVERITIES, left, 1.0, -1.0, True, never=np.inf)
    return Halving(SEVERITIES, [Form.of(score(row)) for row in left], at)


def test_a_half_life_lies_between_the_crossings_of_both_bands():
    made = halving(np.array([[0.5, 0.4], [0.2, 0.35], [-0.2, 0.3], [-0.5, -0.4]]))
    c = critical(made)
    low, high = made.ends(c)
    widths = np.stack([form.half_width(c) for form in made.left])
    values = np.stack([form.value for form in made.left])
    fine = np.linspace(0, 1, 100_001)
    for m in range(2):
        for end, sign in ((low[m], -1), (high[m], 1)):
            band = np.interp(fine, SEVERITIES, values[:, m] + sign * widths[:, m])
            np.testing.assert_allclose(end, fine[np.argmax(band <= 0)], atol=2e-5)
    assert (low < made.at).all()
    assert (made.at < high).all()


def test_a_band_that_stays_above_zero_has_no_upper_end():
    """Columns: halved for sure; perhaps halved; surely not halved; nothing to halve."""
    left = np.array([[0.5, 0.5, 0.5, 0.01], [-0.3, 0.4, 0.5, 0.0], [-0.4, 0.3, 0.5, 0.0], [-0.5, 0.01, 0.5, 0.0]])
    ((low, high),) = ends([halving(left)], group_weights(G))
    assert 0 < low[0] < high[0] < 0.5
    assert 0.5 < low[1] < 1
    assert low[2] == 1
    assert np.isnan(high[1:3]).all()
    assert low[3] == 0, "the margin itself may be nothing"


def test_what_does_not_vary_or_is_null_has_no_interval():
    still = Score(np.array([[[0.4, np.nan]]]), np.zeros((1, G, 2)))
    for interval in (Plain(Form.of(still)), Ratio(Form.of(still), Form.of(still))):
        assert np.isnan(ends([interval], group_weights(G))).all()
    flat = [Form.of(Score(np.array([[[level]]]), np.zeros((1, G, 1)))) for level in (0.5, 0.2, -0.2, -0.5)]
    assert np.isnan(ends([Halving(SEVERITIES, flat, np.array([0.35]))], group_weights(G))).all()


def test_intervals_do_not_depend_on_their_company():
    many = [Plain(Form.of(score([0.3, 0.6]))) for _ in range(5)]
    together = ends([many[0], None, *many[1:]], group_weights(G))
    assert together[1] is None
    assert ends([None], group_weights(G)) == [None]
    for plain, found in zip(many, [together[0], *together[2:]], strict=True):
        np.testing.assert_allclose(found, ends([plain], group_weights(G))[0], rtol=1e-9)
