"""Corruptions made block by block: all but the values is that of the whole, and a value cannot be mistaken for one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, STRESSORS, Draws, Reference, Stress, input_digest, memory, realised, reference
from corruptions.outline import joined, outline

STRESSES = [
    *(f"{name}@0.5" for name, s in STRESSORS.items() if len(s.axes) == 1 and not s.needs_adversary),
    "missing-fixed@t+v",
    "spectrum@0.3x0.5",
    "frame-missing:legacy=lnln@0.5",
    "burst:modalities=a@0.4",
    "noise+missing@0.3x0.4",
    "conflict+noise@0.5x0.3",
    "missing-random+noise-lambda@0.5x0.3",
    "conflict+missing@0.5x0.5",
]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [1, 7, 30])
@pytest.mark.parametrize("text", STRESSES)
def test_facts_are_those_of_the_whole(make: ModuleType, text: str, size: int, keep: bool) -> None:
    name, _, severity = text.partition("@")
    batch, stress = make.feature_batch(30, absent=0.2), Stress.parse(name)
    (point,) = stress.grid(severity).points
    fit = Reference.fit(batch)
    whole = stress.apply(batch, point, Draws(1111, batch), fit, batch)
    draws = Draws(1111, batch, keep=keep)
    blocks = []
    for start in range(0, 30, size):
        part = slice(start, min(start + size, 30))
        blocks.append(outline(stress.apply(batch.rows(part), point, draws.rows(part), fit, batch)))
    ours = joined(blocks, batch)
    assert realised(ours) == realised(whole)
    digests = [input_digest("data", stress, point, 1111, c, "pool", fit) for c in (ours, whole)]
    assert digests[0] == digests[1]
    assert torch.equal(ours.present, whole.present)
    for a, b in zip(ours.stages, whole.stages, strict=True):
        assert torch.equal(a.sources.lost, b.sources.lost)
        assert torch.equal(a.sources.donor, b.sources.donor)
        for m in MODALITIES:
            assert torch.equal(a.clean.lengths(m), b.clean.lengths(m))
            untouched = b.features.batch.features(m) is batch.features(m)
            assert (a.features.batch.features(m) is batch.features(m)) == untouched
            if not untouched:
                values = a.features.batch.features(m)
                assert values.shape == b.features.batch.features(m).shape
                assert values.isnan().all()
                assert values.untyped_storage().nbytes() == values.element_size()


def test_token_ids_stay(make: ModuleType) -> None:
    batch, stress = make.token_batch(12), Stress.parse("asr")
    (point,) = stress.grid("0.5").points
    whole = stress.apply(batch, point, Draws(1111, batch), None, batch)
    draws = Draws(1111, batch)
    parts = [slice(0, 5), slice(5, 12)]
    ours = joined([outline(stress.apply(batch.rows(p), point, draws.rows(p), None, batch)) for p in parts], batch)
    np.testing.assert_array_equal(ours.features.batch.text, whole.features.batch.text)
    assert realised(ours) == realised(whole)


def test_draws_that_are_not_kept_are_the_same(make: ModuleType) -> None:
    batch = make.feature_batch(9)
    kept, made = Draws(1111, batch), Draws(1111, batch, keep=False)
    for part in (slice(0, 9), slice(2, 5)):
        for m in MODALITIES:
            assert torch.equal(kept.rows(part).normal("noise", m), made.rows(part).normal("noise", m))
            assert torch.equal(kept.rows(part).steps("mask", m), made.rows(part).steps("mask", m))
        assert torch.equal(kept.rows(part).uniform("drop"), made.rows(part).uniform("drop"))
        np.testing.assert_array_equal(kept.rows(part).row_major(4), made.rows(part).row_major(4))
    assert {name[0] for name in made._made} == {"uniform"}


@pytest.mark.parametrize("width", [1, 1 << 30])
def test_statistics_of_a_few_features_at_a_time_are_the_same_bits(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Also of features that are constant, whose deviation is nothing but rounding."""
    generator = torch.Generator().manual_seed(0)
    x = {m: 3 * torch.randn(70, 9, d, generator=generator) for m, d in zip(MODALITIES, (150, 64, 3), strict=True)}
    x["text"][..., 60:70] = 0.7
    x["vision"][..., 1] = 0.1
    from corruptions import Batch

    batch = Batch(**x, text_lengths=torch.arange(70) % 10, present=torch.rand(70, 3, generator=generator) < 0.9)
    monkeypatch.setattr(reference, "COLUMNS_BYTES", width)
    fit = Reference.fit(batch)
    for i, m in enumerate(MODALITIES):
        steps = batch.features(m)[batch.valid(m) & batch.present[:, i, None]].to(torch.float64)
        assert fit.mean[m].equal(steps.mean(0).to(torch.float32))
        assert fit.sigma[m].equal(steps.std(0, correction=0).to(torch.float32))


def test_room_is_the_fewest_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tx\nVmSize:\t 10 kB\nVmData:\t 4 kB\n")
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    700 kB\n")
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    assert memory.room() <= 700 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.room() == 4000
    (tmp_path / "memory.current").write_text("6000\n")
    assert memory.room() == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.room() <= 700 * 1024
