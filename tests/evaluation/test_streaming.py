"""A split that does not fit a device stays at home and goes there block by block: the same predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corruptions import MODALITIES, Derived, Stress
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation import inputs as inputs_module
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.inputs import Inputs, fits
from robustbench_msa.evaluation.preflight import preflight
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part
from robustbench_msa.models.registry import model_class

SUBJECT = Subject("any", 1, "c" * 64)
STRESSES = (
    "noise",
    "missing",
    "missing:fill=mean",
    "conflict",
    "spectrum",
    "noise+missing",
    "conflict+burst",
    "frame-missing",
)


class There(Tensor):
    """A tensor on another device, as far as these tests can tell: what is computed from one is one."""


class Away(Inputs):
    """Models run elsewhere; no tensor may go to the wrong place or come from it."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, "test")
        self.streams = True
        self.rows_moved: list[int] = []

    def to_device(self, x: Tensor) -> Tensor:
        assert type(x) is Tensor
        self.rows_moved.append(len(x))
        return x.as_subclass(There)

    def to_home(self, x: Tensor) -> Tensor:
        assert type(x) is There
        return x.as_subclass(Tensor)


class Local(MSAModel):
    """Takes nothing but what is where it is."""

    name = "local"
    at: type[Tensor] = There

    def __init__(self, dims: tuple[int, int, int]) -> None:
        super().__init__(InputSpec(dims), None)
        self.d = dict(zip(MODALITIES, dims, strict=True))

    def derived_inputs(self) -> tuple[str, ...]:
        return ("echo",)

    def here(self, tensors: Mapping[str, Tensor]) -> None:
        assert all(type(x) is self.at for x in tensors.values())

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        self.here({"x": x, "lengths": lengths})
        assert x.shape[2] == self.d[modality]
        return {"h": x.abs().mean((1, 2)) * lengths}

    def encode_derived(self, name: str, values: Tensor) -> Part:
        self.here({"values": values})
        return {"h": values.mean((1, 2))}

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        for m in MODALITIES:
            self.here(encoded.part(m))
        self.here(encoded.derived["echo"])
        self.here({"present": present})
        h = torch.stack([encoded.part(m)["h"] for m in MODALITIES], 1)
        return Output((h * present).sum(1) + encoded.derived["echo"]["h"], {"h": h})


class LocalHere(Local):
    at = Tensor


@pytest.fixture(scope="module")
def echoing(gappy: Dataset) -> Dataset:
    """With an input that was made from audio."""
    splits = {name: b.replace(derived={"echo": Derived(2 * b.audio, ("audio",))}) for name, b in gappy.splits.items()}
    return Dataset("synth", splits, text_at="tokens")


def cells_of(inputs: Inputs) -> list[Cell]:
    parsed = [Stress.parse(text) for text in STRESSES]
    grids = [stress.grid("0.2x0.5" if len(stress.grid().axes) == 2 else None) for stress in parsed]
    requests = [Request(stress, grid, (1111,)) for stress, grid in zip(parsed, grids, strict=True)]
    return plan([SUBJECT], inputs.setting, requests)


@pytest.mark.parametrize("stacks", [False, True])
def test_everything_is_where_it_is_computed(echoing: Dataset, stacks: bool) -> None:
    away, at_home = Away(echoing), Inputs(echoing, "test")
    away.stacks = at_home.stacks = stacks
    streaming = Runner(Local(echoing.dims).eval(), away, 100)
    plain = Runner(LocalHere(echoing.dims).eval(), at_home, 100)
    for cell in cells_of(at_home):
        found, expected = streaming.run(cell), plain.run(cell)
        np.testing.assert_array_equal(found.y_pred, expected.y_pred, err_msg=f"{cell.stress} {cell.point}")
        assert found.facts == expected.facts
        np.testing.assert_array_equal(found.extras["h"], expected.extras["h"])
    assert max(away.rows_moved) <= 100


def test_encodings_stay_at_home(echoing: Dataset) -> None:
    runner = Runner(Local(echoing.dims).eval(), Away(echoing), 16)
    for cell in cells_of(runner.inputs):
        runner.run(cell)
        assert runner._fuser is not None
        for part in runner._fuser.encodings._kept.values():
            assert all(type(x) is Tensor for x in part.values())


def test_what_fits_a_device(gappy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = gappy.splits["test"]
    size = sum(batch.features(m).numel() for m in MODALITIES) * 4
    monkeypatch.setattr(inputs_module, "room_on", lambda device: 4 * size)
    assert fits(batch, torch.device("cuda"))
    monkeypatch.setattr(inputs_module, "room_on", lambda device: 4 * size - 1)
    assert not fits(batch, torch.device("cuda"))
    assert fits(batch, torch.device("cpu")), "there is nowhere else to put it"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["late_fusion", "qa_moe"])
def test_a_small_gpu(name: str, gappy: Dataset, monkeypatch: pytest.MonkeyPatch) -> Any:
    here = Inputs(gappy, "test")
    monkeypatch.setattr(inputs_module, "room_on", lambda device: 0 if device.type == "cuda" else 1 << 30)
    there = Inputs(gappy, "test", "cuda")
    assert there.streams
    assert there.batch.device.type == "cpu"
    cls = model_class(name)
    torch.manual_seed(0)
    model = cls(InputSpec(gappy.dims), cls.presets["synth"]).eval()
    runner = Runner(model, here, 16)
    cells = [
        *cells_of(here),
        *plan([SUBJECT], here.setting, [Request(w := Stress.parse("worst-case"), w.grid(), (1,))]),
    ]
    expected = [runner.run(cell) for cell in cells]
    assert not [check for check in preflight(model.to("cuda"), there) if check.status == "fail"]
    runner = Runner(model.to("cuda"), there, 16)
    for cell, before in zip(cells, expected, strict=True):
        after = runner.run(cell)
        np.testing.assert_allclose(after.y_pred, before.y_pred, rtol=0, atol=1e-4, err_msg=f"{cell.stress}")
        assert after.facts["input_digest"] == before.facts["input_digest"]
