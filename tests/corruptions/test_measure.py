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


def test_rates_of_the_stressors(make: ModuleType) -> None:
    batch = make.feature_batch(50, absent=0.2)
    for name, severity in make.POINTS.items():
        corruption = make.apply(batch, name, severity)
        facts, out = realised(corruption), corruption.batch
        for i, (m, letter) in enumerate(zip(MODALITIES, "tav", strict=True)):
            rows = [j for j in range(50) if batch.present[j, i]]
            swapped = sum(int(corruption.sources.donor[j, i]) >= 0 for j in rows)
            assert facts[f"swapped_{letter}"] == pytest.approx(swapped / len(rows))
            if name != "conflict":
                valid = [(j, t) for j in rows for t in range(int(batch.lengths(m)[j]))]
                zeros = sum(not out.features(m)[j, t].any() for j, t in valid)
                assert facts[f"steps_{letter}"] == pytest.approx(zeros / len(valid)), (name, m)
    assert set(realised(make.apply(batch, "noise", "0"))) == set(facts)


def test_junk_in_padding_does_not_reach_the_rates(make: ModuleType) -> None:
    batch = make.feature_batch(20)
    junk = make.padded(batch, 2, junk=float("nan"))
    a, b = (realised(make.apply(x, "noise", "0.3", reference=Reference.fit(batch))) for x in (batch, junk))
    assert a == pytest.approx(b, nan_ok=False)
