"""burst, misalign and drift: stretches, shifts and levels along the utterance, each against a loop over samples."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Batch, Draws, Reference
from corruptions.corruption import maskable

tenths = st.integers(1, 10).map(lambda i: f"{i / 10:.1f}")
shares = st.integers(1, 100).map(lambda i: f"{i / 100:.2f}")
seeds = st.integers(0, 10_000)
SIGMA = Reference({"audio": torch.tensor([0.5, 3.0]), "vision": torch.tensor([1.0, 0.0, 2.0, 0.1])}, {})


# Shares whose halves go to the even number; the last four come out otherwise in float64 or float32.
HALVES = [
    ("0.3", 15, 4),
    ("0.1", 15, 2),
    ("0.5", 15, 8),
    ("0.14", 75, 10),
    ("0.42", 75, 32),
    ("0.7", 45, 32),
    ("0.59", 50, 30),
]


def of_length(make: ModuleType, steps: int, n: int = 6) -> Batch:
    """Samples without padding."""
    batch: Batch = make.feature_batch(n, steps=(steps, steps, steps))
    return batch.replace(**{f"{m}_lengths": torch.full((n,), steps) for m in MODALITIES})


@settings(max_examples=30, deadline=None)
@given(s=tenths | shares, seed=seeds, tokens=st.booleans())
def test_a_burst_is_one_stretch_of_exactly_the_rounded_share(make: ModuleType, s: str, seed: int, tokens: bool) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(10, seed, steps=20 if tokens else (20, 17, 15))
    lost, draws = make.apply(batch, "burst", s, seed).features.lost, Draws(seed, batch)
    for m in MODALITIES:
        for i, may in enumerate(maskable(batch, m)):
            places = may.nonzero().squeeze(1).tolist()
            count = make.half_even(s, len(places))
            free = len(places) - count + 1
            begin = min(int(float(draws.uniform("burst", m)[i]) * free), free - 1)
            assert lost[m][i].nonzero().squeeze(1).tolist() == places[begin : begin + count]


@pytest.mark.parametrize(("s", "steps", "count"), [*HALVES, ("0.01", 15, 0), ("1", 15, 15)])
@pytest.mark.parametrize("stress", ["burst", "noise", "asr"])
def test_counts_are_those_of_decimals(make: ModuleType, stress: str, s: str, steps: int, count: int) -> None:
    done = make.apply(of_length(make, steps), stress, s).features
    for m, lost in done.lost.items():
        wrong = lost | done.altered.get(m, torch.zeros_like(lost))
        assert wrong.sum(1).tolist() == [count] * 6, m


@settings(max_examples=30, deadline=None)
@given(pair=st.tuples(shares, shares).map(sorted), seed=seeds)
def test_bursts_nest(make: ModuleType, pair: list[str], seed: int) -> None:
    batch = make.feature_batch(10, seed, steps=(20, 17, 15), absent=0.2)
    small, large = (make.apply(batch, "burst", s, seed).features.lost for s in pair)
    for m in MODALITIES:
        assert not (small[m] & ~large[m]).any()


def test_every_place_of_a_burst_is_equally_likely_in_each_modality(make: ModuleType) -> None:
    n, free = 8000, 4  # two of five steps: it can begin at 0, 1, 2 or 3
    lost = make.apply(make.wide(n, steps=5), "burst", "0.4").features.lost
    begin = {m: lost[m].to(torch.uint8).argmax(1) for m in MODALITIES}
    for m in MODALITIES:
        for place in range(free):
            make.assert_rate(int((begin[m] == place).sum()), n, 1 / free)
    for a, b in (("text", "audio"), ("text", "vision"), ("audio", "vision")):
        make.assert_rate(int((begin[a] == begin[b]).sum()), n, 1 / free)


@settings(max_examples=30, deadline=None)
@given(s=st.integers(1, 50).map(lambda i: f"{i / 100:.2f}"), seed=seeds, early=st.booleans(), absent=st.booleans())
def test_a_shift_is_a_roll_of_the_valid_part(make: ModuleType, s: str, seed: int, early: bool, absent: bool) -> None:
    batch = make.feature_batch(10, seed, steps=(20, 17, 15), absent=0.3 * absent)
    corruption = make.apply(batch, f"misalign:direction={'early' if early else 'late'}", s)
    out = corruption.batch
    assert out.text is batch.text
    for i, m in ((1, "audio"), (2, "vision")):
        for row in range(10):
            length, expected = int(batch.lengths(m)[row]), batch.features(m)[row].clone()
            shift = make.half_even(s, length) if batch.present[row, i] else 0
            expected[:length] = torch.roll(expected[:length], -shift if early else shift, 0)
            np.testing.assert_array_equal(out.features(m)[row], expected)
            moved = torch.arange(len(expected)) < (length if shift % max(length, 1) else 0)
            np.testing.assert_array_equal(corruption.features.altered[m][row], moved)
    assert corruption.features.lost == {}


@pytest.mark.parametrize(("s", "steps", "count"), [*HALVES[:5], ("0.03", 15, 0)])
def test_shifts_are_those_of_decimals(make: ModuleType, s: str, steps: int, count: int) -> None:
    batch = of_length(make, steps)
    out = make.apply(batch, "misalign", s).batch
    np.testing.assert_array_equal(out.audio, batch.audio.roll(count, 1))
    assert (out.audio is batch.audio) == (count == 0)


def test_a_shift_draws_nothing_and_early_undoes_late(make: ModuleType) -> None:
    batch = make.feature_batch(20, steps=(9, 8, 7))
    one, two = (make.apply(batch, "misalign", "0.4", seed=seed).batch for seed in (1111, 7))
    make.assert_same_samples(one, two)
    back = make.apply(one, "misalign:direction=early", "0.4").batch
    make.assert_same_samples(batch, back)


@settings(max_examples=20, deadline=None)
@given(s=tenths, seed=seeds, tokens=st.booleans())
def test_drift_is_noise_with_a_level_of_its_own_at_each_step(make: ModuleType, s: str, seed: int, tokens: bool) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(8, seed, absent=0.2)
    corruption, draws = make.apply(batch, "drift", s, seed, reference=SIGMA), Draws(seed, batch)
    for i, m in enumerate(MODALITIES):
        for row in range(8):
            length = int(batch.lengths(m)[row])
            level = np.array([2 * float(s) * t / (length - 1) if length > 1 else float(s) for t in range(length)])
            level = level * bool(batch.present[row, i])
            if m == "text":
                lost = maskable(batch, m)[row, :length].numpy() & (draws.steps("mask", m)[row, :length].numpy() < level)
                np.testing.assert_array_equal(corruption.features.lost[m][row, :length], lost)
                continue
            noise = level[:, None] * SIGMA.sigma[m].numpy() * draws.normal("noise", m)[row, :length].numpy()
            x, out = batch.features(m)[row].numpy(), corruption.batch.features(m)[row].numpy()
            np.testing.assert_allclose(out[:length], x[:length] + noise, rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(out[length:], x[length:])


@pytest.mark.parametrize("s", [0.3, 1.0])
def test_the_variance_of_drift_at_each_step(make: ModuleType, s: float) -> None:
    n, steps = 4000, 5
    text, audio, vision = torch.ones(n, steps, 1), torch.ones(n, steps, 2), torch.ones(n, steps, 4)
    batch = Batch(text, audio, vision)
    corruption = make.apply(batch, "drift", str(s), reference=SIGMA)
    for t in range(steps):
        level = 2 * s * t / (steps - 1)
        make.assert_rate(int(corruption.features.lost["text"][:, t].sum()), n, min(level, 1.0))
        for m in ("audio", "vision"):
            noise = (corruption.batch.features(m) - batch.features(m))[:, t].double()
            variance = (level * SIGMA.sigma[m].double()) ** 2
            assert bool((noise.square().mean(0) - variance).abs().le(3 * variance * np.sqrt(2 / n) + 1e-9).all()), t


def test_a_single_step_drifts_by_s_and_levels_are_proportional(make: ModuleType) -> None:
    one = Batch(*torch.zeros(3, 3000, 1, 1))
    unit = Reference({m: torch.ones(1) for m in MODALITIES}, {})
    noise = make.apply(one, "drift", "0.4", reference=unit).batch.audio.double()
    assert abs(float(noise.square().mean()) - 0.16) < 3 * 0.16 * np.sqrt(2 / 3000)
    batch = Batch(*torch.zeros(3, 20, 7, 2))
    unit = Reference({m: torch.tensor([0.5, 2.0]) for m in MODALITIES}, {})
    small, large = (make.apply(batch, "drift", s, reference=unit).batch for s in ("0.25", "0.5"))
    np.testing.assert_array_equal(small.audio * 2, large.audio)
    assert not small.audio[:, 0].any()  # it begins at none


@settings(max_examples=20, deadline=None)
@given(pair=st.tuples(shares, shares).map(sorted), seed=seeds)
def test_the_text_masks_of_drift_nest(make: ModuleType, pair: list[str], seed: int) -> None:
    batch = make.token_batch(10, seed, absent=0.2)
    small, large = (make.apply(batch, "drift", s, seed).features.lost for s in pair)
    assert set(small) == {"text"}  # no step of audio or vision is dropped
    assert not (small["text"] & ~large["text"]).any()
