"""Numerics are a part of what a cell is: other keys, the same inputs, and never two kinds in one table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, InputError, Stress
from robustbench_msa.analysis.mixing import check_mixable
from robustbench_msa.evaluation import numerics
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.numerics import POLICIES, check_numerics
from robustbench_msa.evaluation.records import recall, remember
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.store import Result, Store
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part

SUBJECT = Subject("small", 1, "c" * 64)
CPU = torch.device("cpu")
ABOUT: dict[str, Any] = {
    "command": "msabench run",
    "checkpoints": {},
    "dataset": {},
    "profile": "mosi",
    "protocols": {},
    "commit": None,
    "versions": {},
}


class Small(MSAModel):
    """A linear map a modality and one over all; keeps the types that it was computed in."""

    name = "small"

    def __init__(self, dims: tuple[int, int, int]) -> None:
        torch.manual_seed(2)
        super().__init__(InputSpec(dims), None)
        self.project = torch.nn.ModuleDict({m: torch.nn.Linear(d, 8) for m, d in zip(MODALITIES, dims, strict=True)})
        self.head = torch.nn.Linear(24, 1)
        self.types: set[torch.dtype] = set()

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        return {"h": self.project[modality](x).mean(1), "steps": lengths}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        h = torch.cat([encoded.part(m)["h"] for m in MODALITIES], 1)
        y = self.head(h.relu()).squeeze(1)
        self.types |= {y.dtype}
        return Output(y, {"h": h, "steps": encoded.text["steps"]})


@pytest.fixture
def inputs(gappy: Any) -> Inputs:
    return Inputs(gappy, "test")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without a compiler: what it traces is run as it is."""
    monkeypatch.setattr(numerics, "BACKEND", "eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def cells_of(inputs: Inputs, policy: str, *stresses: str) -> list[Cell]:
    parsed = [Stress.parse(text) for text in stresses or ("noise", "missing", "conflict", "missing-random")]
    return plan([SUBJECT], inputs.setting, [Request(s, s.grid("0:0.5:0.25"), (1111,)) for s in parsed], policy)


def results(inputs: Inputs, policy: str, *stresses: str, size: int = 16) -> list[Result]:
    runner = Runner(Small(inputs.dataset.dims).eval(), inputs, size)
    return [runner.run(cell) for cell in cells_of(inputs, policy, *stresses)]


def test_the_policy_is_in_the_key_and_the_default_changes_none(inputs: Inputs) -> None:
    assert Cell().key == "880c0a3ad60a293682dc7594"
    exact = cells_of(inputs, "float32")
    assert [c.key for c in exact] == [c.key for c in plan([SUBJECT], inputs.setting, _requests(exact))]
    for policy in set(POLICIES) - {"float32"}:
        cells = cells_of(inputs, policy)
        assert not {c.key for c in cells} & {c.key for c in exact}
        for ours, theirs in zip(cells, exact, strict=True):
            differing = [f.name for f in fields(Cell) if getattr(ours, f.name) != getattr(theirs, f.name)]
            assert differing == ["numerics"]


def _requests(cells: list[Cell]) -> list[Request]:
    stresses = dict.fromkeys(cell.to_stress() for cell in cells if not cell.is_clean)
    return [Request(stress, stress.grid("0:0.5:0.25"), (1111,)) for stress in stresses]


def test_bf16_computes_in_bfloat16_on_the_same_inputs(inputs: Inputs) -> None:
    model = Small(inputs.dataset.dims).eval()
    Runner(model, inputs, 16).run(cells_of(inputs, "bf16")[1])
    assert model.types == {torch.bfloat16}
    for ours, exact in zip(results(inputs, "bf16"), results(inputs, "float32"), strict=True):
        assert ours.y_pred.dtype == np.float32
        assert all(x.dtype == np.float32 for x in ours.extras.values())
        assert 0 < np.abs(ours.y_pred - exact.y_pred).max() < 0.05
        assert ours.facts == exact.facts
        np.testing.assert_array_equal(ours.present, exact.present)
        np.testing.assert_array_equal(ours.extras["steps"], exact.extras["steps"])


def test_one_runner_keeps_policies_apart(inputs: Inputs) -> None:
    runner = Runner(Small(inputs.dataset.dims).eval(), inputs, 16)
    for policy in ("float32", "bf16", "float32"):
        for cell, expected in zip(cells_of(inputs, policy), results(inputs, policy), strict=True):
            np.testing.assert_array_equal(runner.run(cell).y_pred, expected.y_pred)


def test_a_worst_case_is_sought_in_float32(inputs: Inputs) -> None:
    """Its rates, noise among them, are those of the float32 cell: the attack did not see the policy."""
    ours, exact = (results(inputs, policy, "worst-case:steps=2")[-1] for policy in ("bf16", "float32"))
    assert ours.facts["realised"] == exact.facts["realised"]
    assert exact.facts["realised"]["noise_db_a"] is not None
    assert ours.y_pred.tolist() != exact.y_pred.tolist()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("policy", ["compile", "bf16+compile"])
def test_what_is_traced_is_the_model(inputs: Inputs, policy: str) -> None:
    """Chunks of other lengths, also of one sample, and cells in another order give the same bits."""
    plain = results(inputs, policy.removesuffix("compile").removesuffix("+") or "float32", size=13)  # 40 = 3 x 13 + 1
    cells = cells_of(inputs, policy)
    runner = Runner(Small(inputs.dataset.dims).eval(), inputs, 13)
    for cell, expected in reversed(list(zip(cells, plain, strict=True))):
        np.testing.assert_array_equal(runner.run(cell).y_pred, expected.y_pred)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_for_real(inputs: Inputs) -> None:
    check_numerics("compile", CPU)
    ours, exact = (results(inputs, policy, "missing", size=40)[-1] for policy in ("compile", "float32"))
    np.testing.assert_allclose(ours.y_pred, exact.y_pred, rtol=0, atol=1e-5)
    assert ours.facts == exact.facts


@pytest.mark.parametrize(
    ("policy", "compiler", "line"),
    [
        ("fp16", "g++", "numerics: expected one of float32, bf16, compile, bf16.compile; got 'fp16'"),
        ("compile", "no-such-g++", "numerics compile: torch.compile needs a C.. compiler, 'no-such-g..' is none"),
        ("bf16+compile", "", "numerics bf16.compile: torch.compile needs a C.. compiler, '' is none"),
    ],
)
def test_what_cannot_be_computed_is_said_in_one_line(monkeypatch, policy, compiler, line) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(InputError, match=line) as caught:
        check_numerics(policy, CPU)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails_is_said_in_one_line(monkeypatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Python.h: no such file\n  in line 1")

    monkeypatch.setattr(numerics.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"does not work on this machine \(RuntimeError: Python.h: no such file in l"):
        check_numerics("compile", CPU)


def test_one_folder_has_one_policy(inputs: Inputs, tmp_path: Path) -> None:
    exact, rough = cells_of(inputs, "float32"), cells_of(inputs, "bf16")
    requests = _requests(exact)
    for folder, cells in (("a", exact), ("b", rough)):
        remember(Store(tmp_path / folder), cells, requests, inputs.setting, ABOUT)
    assert recall(Store(tmp_path / "b")).manifest["numerics"] == "bf16"
    with pytest.raises(InputError, match="a holds results of numerics float32, this run is of bf16; choose another"):
        remember(Store(tmp_path / "a"), rough, requests, inputs.setting, ABOUT)
    with pytest.raises(InputError, match="numerics bf16 and float32 do not belong in one folder"):
        remember(Store(tmp_path / "c"), [*exact, *rough], requests, inputs.setting, ABOUT)
    assert not (tmp_path / "c").exists()


def test_a_folder_of_before_there_was_a_choice_is_float32(inputs: Inputs, tmp_path: Path) -> None:
    store, cells = Store(tmp_path), cells_of(inputs, "float32")
    remember(store, cells, _requests(cells), inputs.setting, ABOUT)
    manifest = dict(store.manifest() or {})
    del manifest["numerics"]
    store.write_manifest(manifest)
    remember(store, cells, _requests(cells), inputs.setting, ABOUT)
    with pytest.raises(InputError, match="numerics float32, this run is of compile"):
        remember(store, cells_of(inputs, "compile"), _requests(cells), inputs.setting, ABOUT)


def test_tables_do_not_mix_policies(inputs: Inputs, tmp_path: Path) -> None:
    plans = {}
    for policy in ("float32", "bf16"):
        cells = cells_of(inputs, policy)
        plans[policy] = remember(Store(tmp_path / policy), cells, _requests(cells), inputs.setting, ABOUT)
    with pytest.raises(InputError, match="they differ in numerics: float32 in float32, bf16 in bf16"):
        check_mixable(plans)
