"""Severities that are computed together: fewer passes, the same predictions, whatever cells a run has or lacks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Stress
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.encodings import Encodings
from robustbench_msa.evaluation.execute import Tally, execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.stacks import stack_of
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part

SUBJECT = Subject("any", 1, "c" * 64)


class Gossip(MSAModel):
    """Its predictions tell who was encoded and fused together. ``fits``: more samples at once do not."""

    name = "gossip"

    def __init__(self, fits: int = 10_000) -> None:
        super().__init__(InputSpec((1, 1, 1)), None)
        self.fits = fits
        self.encoded: list[int] = []
        self.fused: list[int] = []

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        return {"mean": self.told(x.mean((1, 2)), self.encoded)}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        own = torch.stack([encoded.part(m)["mean"] for m in MODALITIES], 1)
        return Output(self.told((own + present) @ torch.tensor([1.0, 2.0, 4.0]), self.fused), {"own": own})

    def told(self, own: torch.Tensor, calls: list[int]) -> torch.Tensor:
        if len(own) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        calls.append(len(own))
        return own + 1e-3 * (own * torch.arange(len(own))).sum() + 1e-4 * len(own)


@pytest.fixture
def inputs(gappy: Any) -> Inputs:
    """40 samples, on what passes for a GPU."""
    found = Inputs(gappy, "test")
    found.stacks = True
    return found


def cells_of(inputs: Inputs, *stresses: str, grid: str | None = None, seeds: int = 2) -> list[Cell]:
    drawn = tuple(range(1111, 1111 + seeds))
    parsed = [Stress.parse(text) for text in stresses]
    return plan([SUBJECT], inputs.setting, [Request(stress, stress.grid(grid), drawn) for stress in parsed])


@pytest.mark.parametrize(
    ("stress", "at", "size", "severities"),
    [
        ("noise", "0.3", 256, ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("noise", "0.1", 120, ["0.1", "0.2", "0.3"]),  # three times 40 go at once
        ("noise", "0.3", 159, ["0.1", "0.2", "0.3"]),
        ("noise", "0.4", 120, ["0.4", "0.5"]),
        ("noise", "0.3", 79, ["0.3"]),
        ("noise", "0.35", 256, ["0.35"]),  # of a grid of one's own
        ("noise:modalities=a", "0.5", 256, ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("missing", "0.4", 256, ["0.4"]),  # nothing inside modalities: its rows are fused together anyway
        ("spectrum", "0.2x0.5", 120, ["0.1", "0.2", "0.3"]),
        ("spectrum", "0x0.5", 256, ["0"]),
        ("noise+missing", "0.5x0.4", 120, ["0.4", "0.5"]),
        ("missing+noise", "0.4x0.4", 80, ["0.4", "0.4"]),  # the whole point says what is inside
        ("worst-case", "0.3", 256, ["0.3"]),
        ("missing-fixed", "t", 256, [None]),
    ],
)
def test_a_stack_is_laid_down_by_cell_and_batch_size(inputs: Inputs, stress, at, size, severities) -> None:
    cell = cells_of(inputs, stress, grid=at, seeds=1)[-1]
    stack = stack_of(cell, 40, size)
    assert [mate.severity for mate in stack] == severities
    assert cell in stack
    for mate in stack:
        assert (mate.stress, mate.options, mate.seed) == (cell.stress, cell.options, cell.seed)
        found = stack_of(mate, 40, size)
        assert [(m.severity, m.is_clean) for m in found] == [(m.severity, False) for m in stack]


def test_fewer_passes(inputs: Inputs) -> None:
    model = Gossip().eval()
    runner = Runner(model, inputs, 256)
    cells = cells_of(inputs, "noise")
    for cell in cells:
        runner.run(cell)
    assert len(cells) == 11
    assert model.fused == [40, 200, 200]  # the clean cell; five severities of each seed
    assert model.encoded == [40] * 3 + [200] * 6


def test_a_spectrum_is_stacked_and_shares_its_rows(inputs: Inputs) -> None:
    model = Gossip().eval()
    runner = Runner(model, inputs, 120)
    for cell in cells_of(inputs, "spectrum", seeds=1):
        runner.run(cell)
    inside = [n for n in model.encoded if n == 120 and n]
    assert len(inside) == 3 * 2, "0.1 to 0.3 and 0.4 to 0.6 at once, three modalities"
    assert max(model.fused) == 120


STRESSES = ("noise", "noise-lambda", "drift", "missing", "conflict", "spectrum", "noise+missing", "missing+noise")


@pytest.mark.parametrize("size", [256, 100])
def test_values_depend_on_the_cell_alone(inputs: Inputs, size: int) -> None:
    """Bit for bit, with a model that would give away any other company: in order, shuffled, and each cell alone."""
    cells = cells_of(inputs, "noise", "noise-lambda", "missing", "conflict")
    cells += cells_of(inputs, "noise", grid="0.1,0.25,0.4")[1:]
    cells += cells_of(inputs, "spectrum", "noise+missing", "missing+noise", grid="0,0.2,0.4x0:0.6:0.2", seeds=1)
    cells = list({cell.key: cell for cell in cells}.values())
    runner = Runner(Gossip().eval(), inputs, size)
    expected = {cell.key: runner.run(cell).y_pred for cell in cells}
    random.Random(1).shuffle(cells)
    runner = Runner(Gossip().eval(), inputs, size)
    for cell in cells:
        np.testing.assert_array_equal(
            runner.run(cell).y_pred, expected[cell.key], err_msg=f"{cell.stress} {cell.point}"
        )
    for cell in cells[::3]:
        np.testing.assert_array_equal(Runner(Gossip().eval(), inputs, size).run(cell).y_pred, expected[cell.key])


def test_the_rows_are_the_right_ones(inputs: Inputs) -> None:
    """What a model says of a sample by itself, against the whole model on the corrupted input."""
    runner = Runner(Plain().eval(), inputs, 128)
    for cell in cells_of(inputs, *STRESSES, seeds=1):
        batch = inputs.corruption(cell).batch
        with torch.inference_mode():
            expected = Plain()(batch).prediction.numpy()
        np.testing.assert_allclose(
            runner.run(cell).y_pred, expected, rtol=0, atol=1e-5, err_msg=f"{cell.stress} {cell.point}"
        )


class Plain(Gossip):
    """Speaks of each sample alone."""

    def told(self, own: torch.Tensor, calls: list[int]) -> torch.Tensor:
        super().told(own, calls)
        return own


@pytest.mark.parametrize("fits", [150, 50, 7])
def test_a_stack_that_does_not_fit_is_halved(inputs: Inputs, folder: Path, fits: int) -> None:
    cells, store, model = cells_of(inputs, *STRESSES, seeds=1), Store(folder), Plain(fits).eval()
    assert execute(cells, store, {"c" * 64: lambda: model}, inputs, 256) == Tally(len(cells), 0, len(cells), 0)
    assert max(model.encoded + model.fused) <= fits
    plain = Runner(Plain().eval(), inputs, 16)
    for cell in cells:
        found = store.predictions(cell.key)["y_pred"].to_numpy()
        np.testing.assert_allclose(found, plain.run(cell).y_pred, rtol=0, atol=1e-5, err_msg=f"{cell.stress}")


@pytest.mark.parametrize("where", ["encode", "fuse"])
def test_a_cell_that_fails_costs_no_other(
    inputs: Inputs, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    owner, name = (Inputs, "inside") if where == "encode" else (Encodings, "of")
    as_it_is = getattr(owner, name)

    def failing(self: Any, *given: Any) -> Any:
        if any(isinstance(x, Cell) and x.severity == "0.3" for x in given):
            raise ValueError("not this one")
        return as_it_is(self, *given)

    monkeypatch.setattr(owner, name, failing)
    cells, store = cells_of(inputs, "noise", seeds=1), Store(folder)
    assert execute(cells, store, {"c" * 64: lambda: Plain().eval()}, inputs, 256) == Tally(6, 0, 5, 1)
    assert list(store.failures().values()) == ["ValueError: not this one"]
    monkeypatch.undo()
    plain = Runner(Plain().eval(), Inputs(inputs.dataset, "test"), 256)
    for cell in cells:
        if cell.severity != "0.3":
            found = store.predictions(cell.key)["y_pred"].to_numpy()
            np.testing.assert_allclose(found, plain.run(cell).y_pred, rtol=0, atol=1e-5)
