"""Realised rates against counts by hand."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Reference, realised
from corruptions.corruption import Corruption, Features, Sources


def test_rates_by_hand() -> None:
    ones = np.ones((3, 4, 1), np.float32)
    batch = Batch(
        text=torch.tensor([[101, 7, 8, 102], [101, 7, 102, 0], [101, 9, 9, 102]]),
        audio=torch.from_numpy(2 * ones),
        vision=torch.from_numpy(ones),
        text_lengths=torch.tensor([4, 3, 4]),
        audio_lengths=torch.tensor([4, 3, 1]),
        present=torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1]]),
    )
    steps = torch.zeros(3, 4, dtype=torch.bool)
    lost_text, lost_audio = steps.clone(), steps.clone()
    lost_text[0, 1] = lost_text[2, 2] = True  # the second is of an absent modality
    lost_audio[0, :2] = True
    noisy = (batch.audio + 0.2 * batch.valid("audio")[:, :, None]).masked_fill(lost_audio[:, :, None], 0.0)
    lost = {"text": lost_text, "audio": lost_audio}
    sources = Sources(
        lost=torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]]).bool(),
        donor=torch.tensor([[-1, -1, 2], [-1, -1, -1], [-1, -1, -1]]),
        skipped=2,
    )
    facts = realised(Corruption(batch, Features(batch.replace(audio=noisy), lost), sources, told=True))
    expected = {
        "absent_t": 1 / 3,
        "absent_a": 0.0,
        "absent_v": 1 / 3,
        "lost_t": 0.0,
        "lost_a": 1 / 3,
        "lost_v": 0.0,
        "swapped_t": 0.0,
        "swapped_a": 0.0,
        "swapped_v": 1 / 2,
        "steps_t": 1 / 3,  # one of the three maskable tokens of texts that are there
        "steps_a": 5 / 8,  # two steps, and the three of the lost audio
        "steps_v": 0.0,
        "noise_db_a": -20.0,  # (0.2 / 2)^2
        "skipped": 2.0,
    }
    assert {k: facts[k] for k in expected} == pytest.approx(expected, abs=1e-5)
    assert facts["noise_db_t"] is None
    assert facts["noise_db_v"] is None


def test_rates_of_the_stressors(make: ModuleType, stressed: tuple[str, str]) -> None:
    """Against what the corrupted values themselves show, sample by sample."""
    batch = make.feature_batch(50, absent=0.2)
    corruption = make.apply(batch, *stressed)
    facts, out = realised(corruption), corruption.batch
    donor = torch.stack([stage.sources.donor for stage in corruption.stages]).amax(0)
    lost = torch.stack([stage.sources.lost for stage in corruption.stages]).any(0)
    for i, (m, letter) in enumerate(zip(MODALITIES, "tav", strict=True)):
        there, rows = batch.valid(m) & batch.present[:, i, None], int(batch.present[:, i].sum())
        assert facts[f"absent_{letter}"] == pytest.approx(1 - rows / 50)
        assert facts[f"swapped_{letter}"] == pytest.approx(int((donor[:, i] >= 0).sum()) / rows)
        assert facts[f"lost_{letter}"] == pytest.approx(int(lost[:, i].sum()) / rows)
        if make.swaps(stressed[0]):
            continue
        gone = there & ~out.features(m).any(2)
        assert facts[f"steps_{letter}"] == pytest.approx(int(gone.sum()) / int(there.sum())), m
        kept = there & ~gone
        if f"altered_{letter}" in facts:
            other = kept & (out.features(m) != batch.features(m)).any(2)
            assert facts[f"altered_{letter}"] == pytest.approx(int(other.sum()) / int(there.sum())), m
            assert int(other.sum()) > 0
            kept &= ~other
        x, noisy = batch.features(m)[kept].double(), out.features(m)[kept].double()
        power = float((noisy - x).square().sum() / x.square().sum().clamp(min=1e-9))
        expected = pytest.approx(10 * np.log10(power), abs=1e-3) if power else None
        assert facts[f"noise_db_{letter}"] == expected, m
    assert facts["hosts"] == pytest.approx(int((donor >= 0).any(1).sum()) / 50)


def test_the_facts_of_all_severities_have_the_same_names(make: ModuleType) -> None:
    batch = make.feature_batch(20)
    assert set(realised(make.apply(batch, "noise", "0"))) == set(realised(make.apply(batch, "missing", "0.4")))
    moved = set(realised(make.apply(batch, "misalign", "0.4"))) - set(realised(make.apply(batch, "noise", "0")))
    assert moved == {"altered_a", "altered_v"}


def test_natural_absence_is_counted_apart(make: ModuleType) -> None:
    batch = make.wide(4000, absent=0.3)
    for stress in ("missing-random", "imbalanced:weights=1:1:1", "correlated"):
        facts = realised(make.apply(batch, stress, "0.5"))
        for i, letter in enumerate("tav"):
            n = int(batch.present[:, i].sum())
            assert facts[f"absent_{letter}"] == pytest.approx(1 - n / 4000)
            make.assert_rate(facts[f"lost_{letter}"] * n, n, 0.5)  # of those that were there
            assert facts[f"steps_{letter}"] == facts[f"lost_{letter}"]


@pytest.mark.parametrize(
    "stress", ["noise", "conflict+noise", "noise+conflict", "drift", "misalign+noise", "noise+missing"]
)
def test_junk_in_padding_does_not_reach_the_rates(make: ModuleType, stress: str) -> None:
    batch = make.feature_batch(20)
    fit, severity = Reference.fit(batch), "0.3x0.5" if "+" in stress else "0.3"
    zero, junk = (make.padded(silenced(batch, value), 2, junk=value) for value in (0.0, float("nan")))
    a, b = (realised(make.apply(x, stress, severity, reference=fit)) for x in (zero, junk))
    assert a == pytest.approx(b, nan_ok=False)
    assert a["noise_db_a"] is not None


def silenced(batch: Batch, value: float) -> Batch:
    """The padding of every modality at one value."""
    return batch.replace(**{m: batch.features(m).masked_fill(~batch.valid(m)[:, :, None], value) for m in MODALITIES})


@pytest.mark.parametrize("stress", ["misalign+frame-missing", "frame-missing+misalign", "asr+missing"])
def test_what_is_lost_is_not_counted_as_altered(make: ModuleType, stress: str) -> None:
    batch = make.feature_batch(50)
    corruption = make.apply(batch, stress, "0.4x0.5")
    facts, out = realised(corruption), corruption.batch
    for m, letter in zip(MODALITIES, "tav", strict=True):
        if f"altered_{letter}" in facts and stress != "frame-missing+misalign":
            there, gone = batch.valid(m), ~out.features(m).any(2)
            other = (out.features(m) != batch.features(m)).any(2) & there & ~gone
            assert facts[f"altered_{letter}"] == pytest.approx(int(other.sum()) / int(there.sum()))
        altered = facts.get(f"altered_{letter}") or 0.0
        assert altered + (facts[f"steps_{letter}"] or 0.0) <= 1 + 1e-9


def test_what_several_stresses_did_is_added_up(make: ModuleType) -> None:
    batch = make.wide(3000, steps=5)
    both = realised(make.apply(batch, "frame-missing+missing-random", "0.4x0.3"))
    for letter in "tav":
        make.assert_rate(both[f"lost_{letter}"] * 3000, 3000, 0.3)
        rate = 1 - 0.6 * 0.7  # of five steps a sample, that are lost together or apart
        variance = 0.3 * 0.7 * 0.6**2 + 0.7 * 0.4 * 0.6 / 5
        assert abs(both[f"steps_{letter}"] - rate) < 3 * np.sqrt(variance / 3000)
