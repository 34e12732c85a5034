"""noise and noise-lambda: exact counts, nested masks, the right variance on valid steps, nothing on padding."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Draws, InputError, Reference, Stress
from corruptions.corruption import maskable

tenths = st.integers(0, 10).map(lambda i: f"{i / 10:.1f}")
seeds = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(severity=tenths.filter(lambda s: s != "0.0"), tokens=st.booleans(), seed=seeds)
def test_noise_loses_exactly_the_rounded_share(make: ModuleType, severity: str, tokens: bool, seed: int) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(10, seed, steps=20 if tokens else (20, 17, 15))
    corruption = make.apply(batch, "noise", severity, seed)
    for m in MODALITIES:
        may, lost = maskable(batch, m), corruption.features.lost[m]
        assert not (lost & ~may).any()
        counts = [make.half_even(severity, length) for length in may.sum(1).tolist()]
        assert lost.sum(1).tolist() == counts
        filled = corruption.batch.features(m)[lost]
        np.testing.assert_array_equal(filled, torch.full_like(filled, 103 if tokens and m == "text" else 0))


@settings(max_examples=30, deadline=None)
@given(steps=st.tuples(tenths, tenths).map(sorted), seed=seeds, stress=st.sampled_from(["noise", "noise-lambda"]))
def test_masks_nest(make: ModuleType, steps: list[str], seed: int, stress: str) -> None:
    batch = make.feature_batch(10, seed, steps=(20, 17, 15))
    small, large = (make.apply(batch, stress, s, seed).features.lost for s in steps)
    for m, lost in small.items():
        assert not (lost & ~large[m]).any(), m
    assert set(make.apply(batch, "noise-lambda", "0.5", seed).features.lost) == {"text"}  # no temporal dropout


def test_the_lost_steps_are_those_with_the_smallest_draws(make: ModuleType) -> None:
    batch = make.feature_batch(8, steps=(20, 17, 15))
    lost, draws = make.apply(batch, "noise", "0.4").features.lost, Draws(1111, batch)
    for m in MODALITIES:
        for i, length in enumerate(batch.lengths(m).tolist()):
            order = np.argsort(draws.steps("mask", m)[i, :length].numpy())
            expected = sorted(order[: make.half_even("0.4", length)].tolist())
            assert lost[m][i].nonzero().squeeze(1).tolist() == expected


@pytest.mark.parametrize(("stress", "level"), [("noise", 0.3), ("noise-lambda", 0.3), ("noise-lambda", 1.7)])
def test_the_variance_is_that_of_s_sigma_ref(make: ModuleType, stress: str, level: float) -> None:
    batch = make.feature_batch(400, 3, steps=(2, 40, 40))
    reference = Reference({"audio": torch.tensor([0.5, 3.0]), "vision": torch.tensor([1.0, 0.0, 2.0, 0.1])}, {})
    corruption = make.apply(batch, stress, str(level), reference=reference)
    for m in ("audio", "vision"):
        kept = batch.valid(m) & ~corruption.features.lost.get(m, torch.zeros_like(batch.valid(m)))
        noise = (corruption.batch.features(m) - batch.features(m))[kept].double()
        n, variance = len(noise), (level * reference.sigma[m].double()) ** 2
        assert bool((noise.square().mean(0) - variance).abs().le(3 * variance * np.sqrt(2 / n) + 1e-9).all()), m
        assert bool(noise.mean(0).abs().le(3 * (variance / n).sqrt() + 1e-9).all()), m
        outside = ~batch.valid(m)
        np.testing.assert_array_equal(corruption.batch.features(m)[outside], batch.features(m)[outside])


def test_noise_grows_in_proportion(make: ModuleType) -> None:
    batch = make.feature_batch(6)
    silent = batch.replace(audio=torch.zeros_like(batch.audio), vision=torch.zeros_like(batch.vision))
    fit = Reference.fit(batch)
    small, large = (make.apply(silent, "noise-lambda", s, reference=fit).batch for s in ("0.4", "0.8"))
    np.testing.assert_array_equal(small.audio * 2, large.audio)
    np.testing.assert_array_equal(small.vision * 2, large.vision)


def test_one_sigma_per_modality_is_the_root_mean_square(make: ModuleType) -> None:
    batch = make.feature_batch(6)
    fit = Reference({"audio": torch.tensor([3.0, 4.0]), "vision": torch.ones(4)}, {})
    flat = Reference({"audio": torch.full((2,), 12.5**0.5), "vision": torch.ones(4)}, {})
    a = make.apply(batch, "noise-lambda:sigma_ref=modality", "0.5", reference=fit).batch
    b = make.apply(batch, "noise-lambda", "0.5", reference=flat).batch
    np.testing.assert_allclose(a.audio, b.audio, rtol=1e-6)


@pytest.mark.parametrize("level", ["0.2", "0.7", "1.3"])
def test_each_token_is_lost_with_probability_lambda(make: ModuleType, level: str) -> None:
    batch = make.wide(2000, steps=10)
    lost = make.apply(batch, "noise-lambda", level).features.lost["text"]
    rate = min(float(level), 1.0)
    make.assert_rate(int(lost.sum()), lost.numel(), rate)
    both = lost[:, 1:] & lost[:, :-1]  # independent from step to step
    assert abs(float(both.double().mean()) - rate**2) < 3 * np.sqrt(3 * rate**2 * (1 - rate) / both.numel()) + 1e-12


@pytest.mark.parametrize("stress", ["noise", "noise-lambda"])
@pytest.mark.parametrize(("fill", "token"), [("auto", 103), ("mask", 103), ("unk", 100)])
def test_token_ids(make: ModuleType, stress: str, fill: str, token: int) -> None:
    batch = make.token_batch(20)
    out = make.apply(batch, f"{stress}:fill={fill}", "1").batch
    special = (batch.text == 101) | (batch.text == 102) | (batch.text == 0)
    np.testing.assert_array_equal(out.text[special], batch.text[special])
    np.testing.assert_array_equal(out.text[~special], torch.full_like(out.text[~special], token))


def test_what_is_absent_gets_no_noise(make: ModuleType) -> None:
    batch = make.feature_batch(30, absent=0.4)
    out = make.apply(batch, "noise-lambda", "0.6").batch
    np.testing.assert_array_equal(out.present, batch.present)
    for i, m in ((1, "audio"), (2, "vision")):
        gone = ~batch.present[:, i]
        np.testing.assert_array_equal(out.features(m)[gone], batch.features(m)[gone])
        assert bool((out.features(m) != batch.features(m))[~gone].any())


@pytest.mark.parametrize(
    ("stress", "tokens"), [("noise", True), ("noise-lambda", True), ("noise", False), ("noise:fill=mean", False)]
)
def test_what_is_absent_loses_nothing(make: ModuleType, stress: str, tokens: bool) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(30, absent=0.4)
    out = make.apply(batch, stress, "0.6").batch
    for i, m in enumerate(MODALITIES):
        gone = ~batch.present[:, i]
        np.testing.assert_array_equal(out.features(m)[gone], batch.features(m)[gone], err_msg=m)


def test_fill_mean_is_the_training_mean_on_lost_steps(make: ModuleType) -> None:
    batch, train = make.feature_batch(10), make.feature_batch(30, 7)
    fit = Reference.fit(train)
    corruption = make.apply(batch, "noise:fill=mean", "0.5", reference=fit)
    for m in MODALITIES:
        lost = corruption.features.lost[m]
        expected = train.features(m)[train.valid(m)].double().mean(0).float()
        np.testing.assert_array_equal(corruption.batch.features(m)[lost], expected.expand(int(lost.sum()), -1))


def test_a_missing_reference_is_named(make: ModuleType) -> None:
    batch = make.feature_batch(3)
    stress = Stress.parse("noise")
    with pytest.raises(InputError, match=r"noise scales its noise .*reference=Reference\.fit"):
        stress.apply(batch, stress.grid("0.3").points[0], Draws(1, batch))
