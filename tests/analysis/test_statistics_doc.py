"""What docs/statistics.md tells a reader to run is what works, and gives the tables' numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_runs import CHANCE, Run, request_of

from robustbench_msa.evaluation.cells import Subject

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text("utf-8")


def test_the_script_recomputes_a_value_and_a_nauc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "reports" / "synth-missing")
    other = [CHANCE, Subject("rider_moe", 1, "c" * 64, "clean", 1111)]
    model = Subject("qa_moe", 1, "a" * 64, "clean", 1111)
    run.add([model, *other], [request_of("missing", "0:0.8:0.2", 3), request_of("noise", "0,0.4", 1)])
    found = re.search(r"<!-- recompute -->\n```python\n(.*?)\n```", PAGE, re.S)
    assert found is not None
    script = found.group(1)
    body = [line for line in script.splitlines() if line and not line.startswith("import")]
    assert len(body) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(script, names)
    where = "model == 'qa_moe' and stress == 'missing' and metric == 'mae'"
    value = run.curves.query(f"{where} and severity == '0.4' and seed == 1111")["value"].item()
    nauc = run.nauc.query(f"{where} and grid == '0:0.8:0.2'")["nauc"].item()
    np.testing.assert_allclose([names["value"], names["nauc"]], [value, nauc], rtol=1e-6)


def test_the_page_names_what_there_is() -> None:
    """Every module it points to exists."""
    package = Path(__file__).parents[2] / "robustbench_msa"
    modules = set(re.findall(r"`(analysis/\w+\.py)`", PAGE))
    assert len(modules) >= 6
    for module in modules:
        assert (package / module).is_file(), module
