"""imbalanced, correlated, keep_one and the mixture: rates of all eight patterns against formulas; masks nest."""

from __future__ import annotations

import itertools
from math import factorial
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from corruptions import MODALITIES, Batch, Draws, Reference
from corruptions.stressors.missing import drop_rate_of

PATTERNS = list(itertools.product((False, True), repeat=3))
N = 6_000
UNIT = Reference({m: torch.ones(1) for m in MODALITIES}, {})
severities = st.integers(1, 100).map(lambda i: f"{i / 100:.2f}")
seeds = st.integers(0, 10_000)
NESTED = [
    "imbalanced",
    "imbalanced:weights=0:1:5",
    "correlated",
    "correlated:corr=0",
    "correlated:corr=1",
    "missing-random:variant=keep_one",
    "spectrum:variant=mixture",
    "missing:modalities=ta",
    "missing-random:variant=keep_one,modalities=av",
]


def assert_patterns(make: ModuleType, lost: torch.Tensor, expected: dict[tuple[bool, ...], float]) -> None:
    rows = [tuple(row) for row in lost.tolist()]
    assert sum(expected.values()) == pytest.approx(1, abs=1e-4)  # SciPy integrates three dimensions to about 1e-5
    for pattern, rate in expected.items():
        make.assert_rate(rows.count(pattern), len(rows), min(max(rate, 0.0), 1.0))


def independent(rates: list[float]) -> dict[tuple[bool, ...], float]:
    return {p: float(np.prod([r if gone else 1 - r for r, gone in zip(rates, p, strict=True)])) for p in PATTERNS}


@pytest.mark.parametrize(
    ("weights", "s", "rates"),
    [
        ("0.5:1:1.5", "0.4", [0.2, 0.4, 0.6]),
        ("1:2:3", "0.6", [0.3, 0.6, 0.9]),
        ("1:1:4", "0.8", [0.4, 0.4, 1.0]),  # cut at 1
        ("0:0:1", "0.2", [0.0, 0.0, 0.6]),
    ],
)
def test_imbalanced_rates_are_s_times_the_weight(make: ModuleType, weights: str, s: str, rates: list[float]) -> None:
    lost = make.apply(make.wide(N), f"imbalanced:weights={weights}", s).sources.lost
    assert_patterns(make, lost, independent(rates))


def test_imbalanced_losses_are_the_draws_below_s_times_the_weight(make: ModuleType) -> None:
    batch = make.feature_batch(200, absent=0.2)
    lost = make.apply(batch, "imbalanced:weights=1:2:4", "0.5").sources.lost
    rates = [3 / 14, 3 / 7, 6 / 7]
    for i, m in enumerate(MODALITIES):
        below = Draws(1111, batch).uniform("drop", m) < rates[i]
        np.testing.assert_array_equal(lost[:, i], below & batch.present[:, i])


def test_equal_weights_are_missing_random(make: ModuleType) -> None:
    batch = make.feature_batch(60, absent=0.2)
    one, two = (make.apply(batch, s, "0.4") for s in ("imbalanced:weights=2:2:2", "missing-random"))
    np.testing.assert_array_equal(one.sources.lost, two.sources.lost)
    make.assert_same_samples(one.batch, two.batch)


def copula(s: float, corr: float) -> dict[tuple[bool, ...], float]:
    """Each pattern as an orthant of the trivariate normal: a modality that stays has its axis turned round."""
    found = {}
    for pattern in PATTERNS:
        sign = np.where(pattern, 1.0, -1.0)
        covariance = (corr + (1 - corr) * np.eye(3)) * np.outer(sign, sign)
        found[pattern] = float(multivariate_normal(np.zeros(3), covariance).cdf(sign * norm.ppf(s)))
    return found


@pytest.mark.parametrize("corr", ["0", "0.3", "0.8", "0.95"])
@pytest.mark.parametrize("s", ["0.1", "0.4", "0.7"])
def test_correlated_drops_are_those_of_a_gaussian_copula(make: ModuleType, s: str, corr: str) -> None:
    lost = make.apply(make.wide(N), f"correlated:corr={corr}", s).sources.lost
    assert_patterns(make, lost, copula(float(s), float(corr)))
    for i in range(3):
        make.assert_rate(int(lost[:, i].sum()), N, float(s))


def test_the_default_latent_correlation_is_0_8(make: ModuleType) -> None:
    batch = make.wide(500)
    one, two = (make.apply(batch, s, "0.4").sources.lost for s in ("correlated", "correlated:corr=0.8"))
    np.testing.assert_array_equal(one, two)


def test_full_correlation_is_all_or_none(make: ModuleType) -> None:
    lost = make.apply(make.wide(N), "correlated:corr=1", "0.3").sources.lost
    everything = dict.fromkeys(PATTERNS, 0.0) | {(True,) * 3: 0.3, (False,) * 3: 0.7}
    assert_patterns(make, lost, everything)
    assert bool(make.apply(make.wide(50), "correlated", "1").sources.lost.all())


@pytest.mark.parametrize("eta", ["0.1", "0.4", "0.6", "0.65"])
def test_keep_one_has_the_rate_it_names(make: ModuleType, eta: str) -> None:
    p = float(brentq(lambda p: (p - p**3) / (1 - p**3) - float(eta), 1e-9, 1 - 1e-9))
    assert drop_rate_of(float(eta)) == pytest.approx(p, abs=1e-9)
    corruption = make.apply(make.wide(N), "missing-random:variant=keep_one", eta)
    expected = {pattern: rate / (1 - p**3) for pattern, rate in independent([p] * 3).items()} | {(True,) * 3: 0.0}
    assert_patterns(make, corruption.sources.lost, expected)
    for i in range(3):
        make.assert_rate(int(corruption.sources.lost[:, i].sum()), N, float(eta))
    np.testing.assert_array_equal(corruption.present, ~corruption.sources.lost)  # models are told


@pytest.mark.parametrize("eta", ["0.67", "0.7", "1"])
def test_keep_one_cannot_lose_more_than_two_of_three(make: ModuleType, eta: str) -> None:
    lost = make.apply(make.wide(N), "missing-random:variant=keep_one", eta).sources.lost
    assert bool((lost.sum(1) == 2).all())
    for i in range(3):
        make.assert_rate(int((~lost[:, i]).sum()), N, 1 / 3)


def test_keep_one_is_missing_at_the_rate_that_leaves_one(make: ModuleType) -> None:
    batch = make.feature_batch(80, absent=0.3)
    keep_one = make.apply(batch, "missing-random:variant=keep_one", "0.5901639344")  # (.8 - .8^3) / (1 - .8^3)
    missing = make.apply(batch, "missing", "0.8")
    np.testing.assert_array_equal(keep_one.sources.lost, missing.sources.lost)
    np.testing.assert_array_equal(keep_one.present.any(1), batch.present.any(1))
    untold = make.apply(batch, "missing-random:variant=keep_one,told=false", "0.5901639344")
    np.testing.assert_array_equal(untold.sources.lost, missing.sources.lost)
    assert untold.batch.present is batch.present


@settings(max_examples=40, deadline=None)
@given(pair=st.tuples(severities, severities).map(sorted), seed=seeds, stress=st.sampled_from(NESTED))
def test_losses_nest_and_absence_is_no_loss(make: ModuleType, pair: list[str], seed: int, stress: str) -> None:
    batch = make.feature_batch(40, seed, absent=0.3)
    if stress.startswith("missing:") and "1.00" in pair:
        pair = ["0.99", "0.99"]  # its end is not included
    small, large = (make.apply(batch, stress, s, seed).sources.lost for s in pair)
    assert not (small & ~large).any()
    assert not (large & ~batch.present).any()


@pytest.mark.parametrize("stress", ["imbalanced", "correlated", "missing-random:variant=keep_one", "missing-random"])
def test_a_loss_looks_the_same_whatever_drew_it(make: ModuleType, stress: str) -> None:
    batch = make.feature_batch(60, absent=0.2)
    for told in (True, False):
        corruption = make.apply(batch, make.with_option(stress, f"told={str(told).lower()}"), "0.6")
        lost, out = corruption.sources.lost, corruption.batch
        assert bool(lost.any(0).all())
        np.testing.assert_array_equal(out.present, batch.present & ~lost if told else batch.present)
        for i, m in enumerate(MODALITIES):
            gone = batch.valid(m) & lost[:, i, None]
            np.testing.assert_array_equal(out.features(m), batch.features(m).masked_fill(gone[:, :, None], 0.0))
            assert out.lengths(m) is batch.lengths(m)
        for name, sources in (("clues", [1]), ("comment", [0, 1, 2])):
            follows, values = lost[:, sources].any(1), batch.derived[name].values
            expected = values.masked_fill(follows.view(-1, *[1] * (values.ndim - 1)), 0)
            np.testing.assert_array_equal(out.derived[name].values, expected)


@pytest.mark.parametrize("s", ["1", "0.6"])
def test_the_mixture_drops_at_a_rate_of_each_sample_s_own(make: ModuleType, s: str) -> None:
    """Given eta the three are independent; eta is uniform on (0, s)."""
    lost = make.apply(make.wide(N), "spectrum:variant=mixture", s, reference=UNIT).sources.lost
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact for these cubics
    etas = float(s) * (nodes + 1) / 2
    expected = {
        p: float(sum(w / 2 * eta ** sum(p) * (1 - eta) ** (3 - sum(p)) for eta, w in zip(etas, weights, strict=True)))
        for p in PATTERNS
    }
    if s == "1":  # the beta function
        assert expected == pytest.approx({p: factorial(sum(p)) * factorial(3 - sum(p)) / 24 for p in PATTERNS})
    assert_patterns(make, lost, expected)


def test_the_mixture_s_noise_has_a_level_of_each_sample_s_own(make: ModuleType) -> None:
    n, steps = 3000, 20
    batch = Batch(*torch.zeros(3, n, steps, 1))
    corruption = make.apply(batch, "spectrum:variant=mixture", "1", reference=UNIT)
    audio, vision = (corruption.features.batch.features(m).squeeze(2).double() for m in ("audio", "vision"))
    text = corruption.features.lost["text"].double().mean(1)  # (n,), the share of tokens lost
    power = (audio.square().mean(1) + vision.square().mean(1)) / 2  # (n,), lambda^2 but for its own spread
    assert abs(float(text.mean()) - 0.5) < 3 * np.sqrt((1 / 12 + (1 / 2 - 1 / 3) / steps) / n)
    assert abs(float(power.mean()) - 1 / 3) < 3 * float(power.std()) / np.sqrt(n)
    for a, b in ((text, audio.square().mean(1).sqrt()), (text, vision.square().mean(1).sqrt())):
        # one lambda for all three modalities of a sample
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.85
    lost = corruption.sources.lost.double().mean(1)  # eta is independent of lambda
    assert abs(float(torch.corrcoef(torch.stack([text, lost]))[0, 1])) < 3 / np.sqrt(n)


@settings(max_examples=15, deadline=None)
@given(pair=st.tuples(severities, severities).map(sorted), seed=seeds)
def test_the_mixture_s_text_masks_nest(make: ModuleType, pair: list[str], seed: int) -> None:
    batch = make.token_batch(10, seed)
    small, large = (make.apply(batch, "spectrum:variant=mixture", s, seed).features.lost["text"] for s in pair)
    assert not (small & ~large).any()


def test_keep_one_on_some_modalities_drops_at_the_rate_itself(make: ModuleType) -> None:
    """Where text stays anyway, at least one is always kept: nothing is drawn again, so the rate is eta."""
    lost = make.apply(make.wide(N), "missing-random:variant=keep_one,modalities=av", "0.4").sources.lost
    assert not lost[:, 0].any()
    for i in (1, 2):
        make.assert_rate(float(lost[:, i].sum()), N, 0.4)
