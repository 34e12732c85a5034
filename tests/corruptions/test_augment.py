"""Corruption in training loops: fresh draws, the paper's severities, nothing moved off the device."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Augment, Batch, Reference, SpectrumAugment, corruption
from corruptions.augment import drawn_severity


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_batches_and_the_next_ones_differ(make: ModuleType) -> None:
    batch = make.feature_batch(20)
    augment, one, two = SpectrumAugment(reference=Reference.fit(batch)), generator(), generator()
    first, again, second = augment(batch, one), augment(batch, two), augment(batch, one)
    make.assert_same_samples(first, again)
    assert any(not torch.equal(first.features(m), second.features(m)) for m in MODALITIES)


def test_severities_are_uniform_with_three_decimals() -> None:
    g = generator(1)
    values = np.array([float(drawn_severity(g, 0.8)) for _ in range(4000)])
    np.testing.assert_array_equal(values, np.round(values, 3))
    assert values.min() >= 0
    assert values.max() <= 0.8
    assert abs(values.mean() - 0.4) < 3 * 0.8 / np.sqrt(12 * 4000)
    assert abs((values < 0.2).mean() - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 4000)


def test_the_spectrum_s_rates_over_many_batches(make: ModuleType) -> None:
    """Averaged over eta ~ U(0, 1), half of all modalities go; of a batch, all samples share one eta."""
    batch = make.wide(40)
    augment, g, gone = SpectrumAugment(reference=Reference.fit(batch)), generator(2), []
    for _ in range(300):
        out = augment(batch, g)
        gone.append(float((out.audio == 0).all(1).all(1).double().mean()))
    rates = np.array(gone)
    assert abs(rates.mean() - 0.5) < 3 * np.sqrt(1 / 12 + 0.25 / 40) / np.sqrt(300)
    assert rates.std() > 0.2  # one eta a batch: independent samples would give 0.08


def test_without_a_reference_the_batch_s_own_is_used(make: ModuleType) -> None:
    batch = make.feature_batch(20)
    a = SpectrumAugment()(batch, generator())
    b = SpectrumAugment(reference=Reference.fit(batch))(batch, generator())
    make.assert_same_samples(a, b)


def test_any_stress(make: ModuleType) -> None:
    batch = make.feature_batch(30)
    out = Augment("missing", high=0.8)(batch, generator(3))
    assert out.present.any(1).all()
    only = Augment("noise", high=0.9, reference=Reference.fit(batch))(batch, generator(5))
    assert not torch.equal(only.text, batch.text)
    restricted = Augment("noise:modalities=a", high=0.9, reference=Reference.fit(batch))(batch, generator(5))
    assert restricted.text is batch.text
    assert not torch.equal(restricted.audio, batch.audio)


def test_no_tensor_is_copied_to_the_cpu(make: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values must stay where they are. (Reading a count or a flag is a synchronisation, not a copy of data.)"""
    batch: Batch = make.feature_batch(16)
    augment, g = SpectrumAugment(reference=Reference.fit(batch)), generator()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a tensor left its device")

    monkeypatch.setattr(corruption, "_writable_by_numpy", lambda x: False)  # as on a GPU
    for name in ("cpu", "numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    out = augment(batch, g)
    monkeypatch.undo()
    assert not torch.equal(out.audio, batch.audio)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(make: ModuleType) -> None:
    batch = make.feature_batch(16).to("cuda")
    out = SpectrumAugment(reference=Reference.fit(batch))(batch, torch.Generator("cuda").manual_seed(0))
    assert out.device.type == "cuda"
