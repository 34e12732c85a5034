"""Weights as training loops save them: read, unwrapped with a report, loaded strictly; programs only on request."""

from __future__ import annotations

import argparse
import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from corruptions import InputError
from robustbench_msa.adapters.building import Outside, build
from robustbench_msa.adapters.pickles import scan
from robustbench_msa.adapters.weights import load_weights, read_weights, sha256_of, trusting
from robustbench_msa.models.contract import InputSpec

SPEC = InputSpec((3, 2, 4))


class Net(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.model = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        return self.model(text.mean(1)).sum(1)


def net(seed: int = 1, width: int = 2) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(width)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert set(one.state_dict()) == set(theirs)
    for name, x in one.state_dict().items():
        np.testing.assert_array_equal(x, theirs[name], err_msg=name)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prefixed(prefix: str, state: Any) -> dict[str, Tensor]:
    return {f"{prefix}{name}": x for name, x in state.items()}


STATE = net().state_dict()
OPTIMIZER = torch.optim.Adam(net().parameters()).state_dict()
SAVED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "bare": (STATE, ()),
    "an ordered dict": (OrderedDict(STATE), ()),
    "a loop's": (
        {"epoch": 3, "state_dict": STATE, "optimizer": OPTIMIZER, "best": 0.71},
        ("took 'state_dict', beside epoch, optimizer, best",),
    ),
    "nested": ({"model": {"state_dict": STATE}}, ("took 'model'", "took 'state_dict'")),
    "of another name": ({"my_net": STATE, "epoch": 1}, ("took 'my_net', beside epoch",)),
    "of DataParallel": (prefixed("module.", STATE), ("took 'module.' off the names",)),
    "of MMSA": (prefixed("Model.", STATE), ("took 'Model.' off the names",)),
    "compiled and parallel": (
        {"net": prefixed("module._orig_mod.", STATE)},
        ("took 'net'", "took 'module.' off the names", "took '_orig_mod.' off the names"),
    ),
    "with plain values": ({**STATE, "num_classes": 3}, ("left out num_classes, which are no tensors",)),
    "of parameters": ({name: nn.Parameter(x) if x.is_floating_point() else x for name, x in STATE.items()}, ()),
    "in half precision": (
        {name: x.half() if x.is_floating_point() else x for name, x in prefixed("", STATE).items()},
        ("converted float16 to float32",),
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("what", SAVED)
def test_what_loops_save(what: str, legacy: bool) -> None:
    value, notes = SAVED[what]
    torch.save(value, "best.pth", _use_new_zipfile_serialization=not legacy)
    model = net(seed=2)
    assert load_weights(model, "best.pth") == notes
    if what != "in half precision":
        assert_same(model, net())


def test_safetensors_and_folders() -> None:
    Path("folder").mkdir()
    safetensors.torch.save_file(prefixed("module.", STATE), "folder/model.safetensors", metadata={"format": "pt"})
    model = net(seed=2)
    load_weights(model, "folder")
    assert_same(model, net())
    weights = read_weights("folder/model.safetensors")
    assert weights.sha256 == sha256_of(Path("folder/model.safetensors"))
    Path("empty").mkdir()
    with pytest.raises(InputError, match=r"no model.safetensors in this folder"):
        read_weights("empty")


def test_a_prefix_that_the_module_has_too_is_put_before_the_names() -> None:
    outer = nn.Sequential(OrderedDict(model=net(seed=2)))
    torch.save(STATE, "best.pth")
    assert load_weights(outer, "best.pth") == ("put 'model.' before the names",)
    assert_same(outer[0], net())


def test_a_module_whose_own_names_all_have_a_prefix_keeps_it() -> None:
    outer = nn.Sequential(OrderedDict(module=net(seed=2)))
    torch.save(prefixed("module.", STATE), "best.pth")
    assert load_weights(outer, "best.pth") == ()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model.weight": STATE["model.weight"]}, r"6 missing: model.bias, norm.weight, norm.bias, \.\.\.$"),
        ({**STATE, "extra": STATE["model.bias"]}, r"1 unexpected: 'extra'$"),
        (net(width=5).state_dict(), r"of another shape: model.weight is \(5, 3\) instead of \(2, 3\), model.bias is"),
        ({}, "no state dict in it, but a dict with"),
        ({"epoch": 3}, "no state dict in it, but a dict with epoch; save model.state_dict"),
        (3, "no state dict in it, but a int"),
    ],
)
def test_weights_that_do_not_fit(state: Any, message: str) -> None:
    torch.save(state, "best.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_weights(net(), "best.pth")
    assert "\n" not in str(caught.value)


def test_every_dtype_and_shared_storages_pass() -> None:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    state = {str(kind): torch.ones(3).to(kind) for kind in (*kinds, torch.uint8, torch.bool, torch.complex64)}
    whole = torch.arange(12.0)
    state |= {"a": whole[:4], "b": whole[4:].reshape(2, 4).t(), "c": whole, "none": torch.zeros(0, 3), "one": whole[3]}
    for legacy in (False, True):
        torch.save(state, "best.pth", _use_new_zipfile_serialization=not legacy)
        tensors = read_weights("best.pth").tensors
        for name, x in state.items():
            assert tensors[name].dtype == x.dtype
            torch.testing.assert_close(tensors[name], x)


def test_values_beside_weights_that_need_more_are_named() -> None:
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1.0), "best": np.float64(0.7)}, "best.pth")
    with pytest.raises(InputError, match=r"it asks for argparse.Namespace, .*multiarray.scalar.*--trust-checkpoint"):
        read_weights("best.pth")


# --- programs


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_trust_runs_what_the_file_asks_for_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": STATE, "payload": Payload()}, "best.pth")
    with pytest.raises(InputError, match=r"posix\.mkdir"):
        load_weights(net(), "best.pth")
    assert not Path("ran").exists()
    model = net(seed=2)
    load_weights(model, "best.pth", trust=True)
    assert Path("ran").is_dir()
    assert_same(model, net())
    assert "runs the checkpoint best.pth: a program from outside" in capsys.readouterr().err


def test_trust_reaches_a_program_that_reads_the_weights_itself() -> None:
    torch.save({"state_dict": STATE, "args": argparse.Namespace()}, "best.pth")
    with trusting(True):
        assert set(read_weights("best.pth").tensors) == set(STATE)
    with pytest.raises(InputError, match=r"argparse.Namespace"):
        read_weights("best.pth")


def scripted(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net().eval()), path)


def exported(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = tuple(torch.zeros(4, 5, d) for d in SPEC.dims)
        torch.export.save(torch.export.export(net().eval(), x), path)


@pytest.mark.parametrize(("save", "kind"), [(scripted, "TorchScript"), (exported, "torch.export")])
def test_programs_need_trust_and_no_more(save: Any, kind: str) -> None:
    save("whole.pt")
    with pytest.raises(InputError, match=rf"whole.pt: a program \({kind}\), not weights.*--trust-checkpoint"):
        build(Outside(None, Path("whole.pt"), SPEC))
    built = build(Outside(None, Path("whole.pt"), SPEC, trust=True))
    assert built.label == "whole"
    assert built.identity == build(Outside(None, Path("whole.pt"), SPEC, trust=True)).identity
    from corruptions import Batch

    batch = Batch(**{m: torch.rand(4, 5, d) for m, d in zip(("text", "audio", "vision"), SPEC.dims, strict=True)})
    with torch.inference_mode():
        expected = net().eval()(batch.text, batch.audio, batch.vision)
        torch.testing.assert_close(built.model(batch).prediction, expected)


def test_a_pickled_module_needs_trust() -> None:
    torch.save(nn.Sequential(nn.Linear(3, 1)), "whole.pth")
    with pytest.raises(InputError, match=r"torch.nn.modules.container.Sequential"):
        read_weights("whole.pth")
    assert set(read_weights("whole.pth", trust=True).tensors) == {"0.weight", "0.bias"}


def test_weights_alone_say_what_is_missing() -> None:
    torch.save(STATE, "best.pth")
    with pytest.raises(InputError, match=r"weights alone, .* say what builds it: --model FILE.py:FUNCTION"):
        build(Outside(None, Path("best.pth"), SPEC))


def test_a_file_that_cannot_be_loaded_though_it_is_trusted() -> None:
    Path("broken.pth").write_bytes(b"\x80\x02cos\nnothing_here\n.")
    with pytest.raises(InputError, match=r"torch cannot load it, though it was trusted"):
        read_weights("broken.pth", trust=True)


def test_no_file() -> None:
    with pytest.raises(InputError, match=r"nowhere.pth: does not exist"):
        read_weights("nowhere.pth")


# --- the scan


def test_what_torch_writes_adds_up() -> None:
    import zipfile

    torch.save({"state_dict": STATE, "optimizer": OPTIMIZER, "n": 3, "t": (1, 2.5, None, True)}, "best.pth")
    with zipfile.ZipFile("best.pth") as archive:
        found = scan(archive.read("best/data.pkl"))
        held = [member for member in archive.infolist() if "/data/" in member.filename]
    sizes = {member.filename.rpartition("/")[2]: member.file_size for member in held}
    assert found.ok, found
    assert found.storages == sizes


def test_the_scan_never_raises() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = b"\x80\x02" + rng.bytes(int(rng.integers(1, 200)))
        assert 3 <= scan(data).end <= len(data)
