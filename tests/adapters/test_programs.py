"""Programs that build models: found, run from a clean state, and every way they can fail in one line."""

from __future__ import annotations

import importlib.metadata
import random
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from corruptions import InputError
from robustbench_msa import plugins
from robustbench_msa.adapters import programs
from robustbench_msa.adapters.building import Outside, build, digest_of_state
from robustbench_msa.adapters.programs import call_program, find_program, is_program, undisturbed
from robustbench_msa.adapters.sources import classes_of, files_of
from robustbench_msa.models.contract import InputSpec

SPEC = InputSpec((3, 2, 4))
MODEL = """
from torch import nn

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 1)

    def forward(self, text, audio, vision):
        return self.head(text.mean((1, 2))[:, None])
"""
PROGRAM = """
from model import Mean

def build(checkpoint, spec):
    made = Mean()
    made.seen = (checkpoint, spec)
    return made

def bare():
    return Mean()
"""


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of one test are gone in the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(programs, "_loaded", {})
    monkeypatch.setattr(programs, "_hashes", {})
    monkeypatch.setattr(plugins, "_announced", set())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("model", "mine", "other", "pkg") or name.startswith("msabench_program"):
            del sys.modules[name]


def write(name: str, text: str) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, "utf-8")
    return Path(name)


def project(folder: str = ".", model: str = MODEL) -> str:
    write(f"{folder}/model.py", model)
    return f"{write(f'{folder}/mine.py', PROGRAM)}:build"


def identity(text: str) -> str:
    return build(Outside(text, None, SPEC)).identity


def test_the_function_gets_what_it_asks_for_by_name() -> None:
    text = project()
    made = call_program(find_program(text), Path("w.pth"), SPEC)
    assert made.seen == (Path("w.pth"), SPEC)
    assert isinstance(call_program(find_program("mine.py:bare"), None, SPEC), nn.Module)
    write(
        "other.py",
        "from model import Mean\nclass Model(Mean):\n    def __init__(self, spec, width=3): super().__init__()",
    )
    assert type(call_program(find_program("other.py:Model"), None, SPEC)).__name__ == "Model"


def test_it_is_said_once_that_a_program_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = project()
    for _ in range(3):
        find_program(text)
    said = capsys.readouterr().err
    assert said == "msabench: runs the model mine.py:build: a program from outside, with your rights\n"


def test_modules_and_packages() -> None:
    write("pkg/__init__.py", "")
    write("pkg/parts.py", MODEL)
    write("pkg/sub/__init__.py", "")
    write(
        "pkg/sub/deep.py", "from ..parts import Mean\nclass Box:\n    @staticmethod\n    def build(): return Mean()\n"
    )
    program = find_program("pkg.sub.deep:Box.build")
    assert program.label == "pkg.sub.deep.Box.build"
    assert isinstance(call_program(program, None, SPEC), nn.Module)
    root = Path.cwd()
    found = files_of(root / "pkg/sub/deep.py", root, "pkg", "pkg.sub.deep")
    assert set(found) == {"pkg.sub.deep", "pkg.parts", "pkg"}


def test_a_module_that_changed_after_it_was_imported_is_not_taken_for_the_new_one() -> None:
    write("other.py", MODEL)
    find_program("other:Mean")
    write("other.py", MODEL + "\n# changed\n")
    with pytest.raises(InputError, match="its files changed since other was imported; start Python again"):
        find_program("other:Mean")


def test_entry_points(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write("pkg/__init__.py", MODEL)
    entry = EntryPoint("their-model", "pkg:Mean", programs.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == programs.GROUP else [])
    assert is_program("their-model")
    assert not is_program("their")
    program = find_program("their-model")
    assert program.label == "their-model"
    assert isinstance(call_program(program, None, SPEC), nn.Module)
    assert "runs the model their-model = pkg:Mean" in capsys.readouterr().err


def test_two_packages_that_offer_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("m", value, programs.GROUP) for value in ("a:b", "a:b", "c:d")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries[:2])
    assert plugins.entry_points(programs.GROUP)["m"].value == "a:b"
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    with pytest.raises(InputError, match=r"'m' in msabench\.models is offered twice, as a:b and as c:d"):
        plugins.entry_points(programs.GROUP)


# --- what goes wrong

BAD = """
import torch
number = 3
def wants(checkpoint, config): pass
def raises(): return {}["state_dict"]
def exits(): raise SystemExit(2)
def nothing(): pass
def a_class(): return torch.nn.Linear
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.py:build", "there is no file nowhere.py"),
        ("bad.py", r"expected FILE.py:FUNCTION or MODULE:FUNCTION.*it has bad.py:wants, bad.py:raises"),
        ("bad.py:", "expected FILE.py:FUNCTION"),
        (":build", "expected FILE.py:FUNCTION"),
        ("bad.py:wnats", r"there is no wnats in it \(did you mean 'wants'\?\); it has wants, raises"),
        ("bad.py:number", "number is a int; expected a function or a class"),
        ("bad.py:wants", r"it wants config, which msabench does not have; expected build\(checkpoint, spec\)"),
        ("bad.py:raises", r"raised KeyError: 'state_dict' \(bad.py, line 5\)"),
        ("bad.py:exits", "raised SystemExit: 2"),
        ("bad.py:nothing", "it gives a NoneType; expected a torch.nn.Module"),
        ("bad.py:a_class", "it gives the class Linear; expected a torch.nn.Module"),
        ("syntax.py:f", "raised SyntaxError"),
        ("imports.py:f", "raised ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("argues.py:f", "raised SystemExit: 2"),
        ("nowhere_at_all:f", "there is no module nowhere_at_all"),
        ("json.nowhere:f", "there is no module json.nowhere"),
        ("sys:exit", "is no Python file"),
    ],
)
def test_every_failure_is_one_line(text: str, message: str) -> None:
    write("bad.py", BAD)
    write("syntax.py", "def f(:")
    write("imports.py", "import nowhere_at_all")
    write("argues.py", "import argparse; argparse.ArgumentParser().parse_args(['--x'])")
    with pytest.raises(InputError, match=message) as caught:
        build(Outside(text, None, SPEC))
    assert "\n" not in str(caught.value)


# --- nothing leaks


def test_global_states_are_put_back() -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    tf32, argv = torch.backends.cudnn.allow_tf32, sys.argv
    write(
        "bad.py",
        "import random, sys, numpy, torch\n"
        "torch.manual_seed(1); random.seed(1); numpy.random.seed(1)\n"
        "torch.set_default_dtype(torch.float64); torch.set_float32_matmul_precision('medium')\n"
        "torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32; assert len(sys.argv) == 1\n"
        "def build(): return torch.nn.Linear(1, 1)\n",
    )
    call_program(find_program("bad.py:build"), None, SPEC)
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert sys.argv is argv
    torch.testing.assert_close(torch.rand(2), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]  # noqa: NPY002


def test_random_weights_are_the_same_each_time() -> None:
    text = project()
    assert identity(text) == identity(text)
    with undisturbed():
        first = torch.rand(3)
    with undisturbed():
        torch.testing.assert_close(torch.rand(3), first)


def test_what_a_program_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "bad.py",
        "print('at import')\nimport torch\ndef build():\n    print('in build')\n    return torch.nn.Linear(1, 1)",
    )
    call_program(find_program("bad.py:build"), None, SPEC)
    said = capsys.readouterr()
    assert said.out == ""
    assert "at import" in said.err
    assert "in build" in said.err


# --- identity


def test_identity_is_that_of_weights_files_and_version() -> None:
    text = project()
    first = identity(text)
    assert len(first) == 64
    assert identity(f"{Path.cwd()}/mine.py:build") == first  # however it is typed
    assert identity("mine.py:bare") == first  # the same files, the same weights
    project("elsewhere")
    assert identity("elsewhere/mine.py:build") == first  # wherever it lies
    project(model=MODEL.replace("nn.Linear(1, 1)", "nn.Linear(1, 1, bias=False)"))
    other = identity(text)
    project(model=MODEL + "\n# a file that changed\n")
    assert len({first, other, identity(text)}) == 3
    project()
    assert identity(text) == first
    write(
        "versioned.py",
        PROGRAM + "\nfrom robustbench_msa.adapters import adapt\ndef two(): return adapt(Mean(), version=2)",
    )
    assert build(Outside("versioned.py:two", None, SPEC)).version == 2


def test_a_changed_file_is_run_as_it_is_now() -> None:
    """In one process: an older version of a module beside the program is not used again."""
    text = project()
    call_program(find_program(text), None, SPEC)
    project(model=MODEL.replace("class Mean", "MARK = 7\nclass Mean"))
    made = call_program(find_program(text), None, SPEC)
    assert sys.modules[type(made).__module__].MARK == 7  # type: ignore[attr-defined]


def test_two_projects_with_modules_of_the_same_name() -> None:
    one, two = project("a"), project("b", MODEL.replace("nn.Linear(1, 1)", "nn.Linear(1, 1, bias=False)"))
    for text, parameters in ((one, 2), (two, 1), (one, 2), (two, 1)):
        made = call_program(find_program(text), None, SPEC)
        assert sum(p.numel() for p in made.parameters()) == parameters


def test_files_are_followed_by_their_imports() -> None:
    write("model.py", "import json, torch\nfrom parts import layers\n")
    write("parts/__init__.py", "")
    write("parts/layers.py", "def f():\n    from . import deep\n    import corruptions\n")
    write("parts/deep.py", "")
    write("unused.py", "")
    write("json.py", "")  # the standard library comes first for what is loaded already
    root = Path.cwd()
    found = files_of(root / "model.py", root)
    assert set(found) == {"", "parts", "parts.layers", "parts.deep"}


def test_the_files_of_a_modules_classes() -> None:
    write("model.py", MODEL)
    write("mine.py", "from importlib import import_module\ndef build(): return import_module('model').Mean()\n")
    made = call_program(find_program("mine.py:build"), None, SPEC)
    assert [path.name for path in classes_of(nn.Sequential(made, nn.Linear(1, 1)))] == ["model.py"]
    first = identity("mine.py:build")
    write("model.py", MODEL + "\n# changed\n")
    sys.modules.pop("model")
    assert identity("mine.py:build") != first


def test_the_digest_of_a_state_is_of_names_types_shapes_and_values() -> None:
    def digest(**state: torch.Tensor) -> str:
        return digest_of_state(state)

    w = torch.arange(6.0)
    base = digest(a=w, b=w)
    assert digest(b=w, a=w) == base
    assert digest(a=w.reshape(2, 3).t().t().reshape(6), b=w.clone()) == base
    others = [
        digest(a=w),
        digest(a=w, c=w),
        digest(a=w.double(), b=w),
        digest(a=w.reshape(2, 3), b=w),
        digest(a=w, b=-w),
    ]
    others.append(digest(a=w, b=torch.zeros((), dtype=torch.bfloat16)))
    assert len({base, *others}) == 7
