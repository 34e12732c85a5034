"""The engine stands alone: it imports torch, numpy and the standard library, and touches no global state."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import corruptions

ROOT = Path(corruptions.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
USE = """
import sys
import numpy, torch
before = {name.partition(".")[0] for name in sys.modules}
import numpy as np
from corruptions import Batch, Reference, STRESSORS, corrupt
x = np.ones((3, 4, 2))
batch = Batch(x, x, x, labels=[-1.0, 1.0, 2.0])
class Indifferent:
    def losses(self, batch):
        return torch.zeros(len(batch))
    def gradients(self, batch):
        return {m: torch.zeros_like(batch.features(m)) for m in ("text", "audio", "vision")}
for name, stressor in STRESSORS.items():
    severity = {0: "t", 1: "0.5", 2: "0.5x0.5"}[len(stressor.axes)]
    corrupt(batch, name, severity, reference=Reference.fit(batch), adversary=Indifferent())
corrupt(batch, "noise+missing", "0.5x0.5", reference=Reference.fit(batch))
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names))))
print(" ".join(sorted(m for m in ("pandas", "scipy", "pyarrow", "robustbench_msa") if m in sys.modules)))
"""


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_more_than_torch_numpy_and_python(path: Path) -> None:
    assert imported(path) <= {"corruptions", "numpy", "torch"} | set(sys.stdlib_module_names)


def test_in_a_fresh_process_nothing_else_is_loaded(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["corruptions", ""]


def test_global_generators_are_neither_read_nor_moved(make: ModuleType, stressed: tuple[str, str]) -> None:
    batch = make.feature_batch(10)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # the global one, on purpose
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
    first = make.apply(batch, *stressed).batch
    np.testing.assert_array_equal(torch.get_rng_state(), torch_before)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    make.assert_same_samples(first, make.apply(batch, *stressed).batch)


def test_the_default_dtype_does_not_matter(make: ModuleType, stressed: tuple[str, str]) -> None:
    batch = make.feature_batch(10)
    first = make.apply(batch, *stressed).batch
    torch.set_default_dtype(torch.float64)
    try:
        make.assert_same_samples(first, make.apply(batch, *stressed).batch)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_exported_is_there() -> None:
    assert sorted(corruptions.__all__, key=str) == sorted(set(corruptions.__all__), key=str)
    for name in corruptions.__all__:
        assert getattr(corruptions, name) is not None
