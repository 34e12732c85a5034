"""What is inside modalities is corrupted once for all cells that share it; the values are those of each cell alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, STRESSORS, Stress, corrupt
from corruptions.measure import realised
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part

SUBJECT = Subject("any", 1, "c" * 64)


@pytest.fixture
def inputs(gappy: Any) -> Inputs:
    return Inputs(gappy, "test")


def cells_of(inputs: Inputs, text: str, grid: str, seeds: int = 2) -> list[Cell]:
    stress = Stress.parse(text)
    request = Request(stress, stress.grid(grid), tuple(range(1111, 1111 + seeds)))
    return plan([SUBJECT], inputs.setting, [request])[1:]


class Sum(MSAModel):
    """Encodes a modality as its sum."""

    name = "sum"

    def __init__(self) -> None:
        super().__init__(InputSpec((1, 1, 1)), None)

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        return {"sum": x.sum((1, 2))}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        return Output(torch.stack([encoded.part(m)["sum"] for m in MODALITIES]).sum(0))


@pytest.fixture
def made(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many samples of the split (not the probe of a digest) each stressor changed inside."""
    calls: Counter[str] = Counter()
    ids = inputs.batch.ids

    def counting(cls: type) -> None:
        features = cls.features

        def count(self: Any, batch: Any, *rest: Any) -> Any:
            first = ids.index(batch.ids[0])
            if batch.ids == ids[first : first + len(batch)]:
                calls[self.name] += len(batch)
            return features(self, batch, *rest)

        monkeypatch.setattr(cls, "features", count)

    for name in ("noise", "noise-lambda", "spectrum", "frame-missing"):
        counting(type(STRESSORS[name]))
    return calls


@pytest.mark.parametrize("size", [7, 64])
@pytest.mark.parametrize(
    ("text", "grid", "counted", "times"),
    [
        ("spectrum", "0,0.2,0.4x0:0.6:0.2", "noise-lambda", 2 * 2),  # seeds x noise levels, whatever eta
        ("noise+missing", "0.2,0.4x0:0.6:0.2", "noise", 2 * 2),
        ("frame-missing+conflict", "0.5x0:1:0.25", "frame-missing", 2),
        ("missing+noise", "0.2,0.4x0:0.6:0.2", "noise", 2 * 2 * 3),  # each cell has its own noise
        ("noise", "0.2,0.4", "noise", 2 * 2),
    ],
)
def test_what_cells_share_is_made_once(inputs, made, text, grid, counted, times, size) -> None:
    runner = Runner(Sum().eval(), inputs, size)
    for cell in cells_of(inputs, text, grid):
        runner.run(cell)
    assert made[counted] == times * len(inputs.batch)


@pytest.mark.parametrize(
    "text", ["spectrum", "spectrum:told=true", "noise+missing", "conflict+missing", "missing+noise"]
)
def test_the_values_are_those_of_each_cell_alone(inputs, gappy, text) -> None:
    for cell in cells_of(inputs, text, "0,0.3x0,0.4,0.6"):
        ours, alone = inputs.corruption(cell), Inputs(gappy, "test").corruption(cell)
        again = corrupt(inputs.batch, text, (cell.severity, cell.severity_2), cell.seed, inputs.reference)
        for m in MODALITIES:
            np.testing.assert_array_equal(ours.batch.features(m), again.features(m))
            np.testing.assert_array_equal(ours.batch.lengths(m), again.lengths(m))
        np.testing.assert_array_equal(ours.present, again.present)
        assert inputs.facts(cell, ours) == Inputs(gappy, "test").facts(cell, alone)


def test_noise_is_measured_against_a_plain_sum(inputs) -> None:
    for cell in cells_of(inputs, "spectrum", "0.3x0.2,0.6", seeds=1):
        corruption = inputs.corruption(cell)
        facts = realised(corruption)
        assert set(corruption.features.powers) == {"text", "audio", "vision"}
        x, noisy = inputs.batch.audio.numpy(), corruption.features.batch.audio.numpy()
        kept = inputs.batch.valid("audio") & inputs.batch.present[:, 1, None] & ~corruption.sources.lost[:, 1, None]
        there = kept.numpy()
        noise, signal = ((v[there].astype(np.float64) ** 2).sum() for v in (noisy - x, x))
        assert facts["noise_db_a"] == pytest.approx(10 * np.log10(noise / signal), abs=2e-6)
        assert isinstance(corruption.features.powers["audio"][0], torch.Tensor)
