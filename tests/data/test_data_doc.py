"""docs/data.md says what is so: its example runs, and it names every format, field and dataset there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from robustbench_msa.data.arrays import FIELDS
from robustbench_msa.data.inspection import inspect_path
from robustbench_msa.data.mintrec import FILES, STEPS, VOCABULARY
from robustbench_msa.data.mmsa import UNIMODAL
from robustbench_msa.data.registry import DATASETS, GENERATED, load_dataset

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text("utf-8")


def test_the_example_is_read(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    dataset = load_dataset("mine", tmp_path / "mine.npz")
    assert dataset.dims == (48, 24, 16)
    assert [len(b) for b in dataset.splits.values()] == [200, 50, 80]
    assert len(set(dataset.splits["test"].groups)) == 16
    assert inspect_path(tmp_path / "mine.npz").refusal is None


def test_everything_is_named() -> None:
    names = {*DATASETS} - {*GENERATED}
    for word in (*FIELDS, *names, *FILES.values(), VOCABULARY, UNIMODAL["text"], "msabench.datasets", "classes"):
        assert word in PAGE, word
    for steps in STEPS.values():
        assert str(steps) in PAGE
