"""What the README tells a stranger to type is what works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)\n```", README, re.S)
    assert found is not None, f"README.md: no block after <!-- {marker} -->"
    return found.group(1)


def test_two_set_up_commands_come_first() -> None:
    blocks = re.findall(r"```sh\n(.*?)\n```", README, re.S)
    assert blocks[:2] == [block("main-job"), block("tests")]
    assert all(text.count("\n") == 0 and "-c constraints.txt" in text for text in blocks[:2])


def test_the_main_job(tmp_path: Path) -> None:
    arguments = block("main-job").split("msabench ")[1].split()
    command = [sys.executable, "-m", "robustbench_msa.cli.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "QA-MoE" in done.stdout
    nauc = pd.read_parquet(tmp_path / "reports" / "synth-missing" / "nauc")
    rows = nauc[nauc["metric"] == "corr"].set_index("model")["nauc"]
    assert rows["oracle"] > rows["qa_moe"] > 0.4 > rows["chance"] == 0
    assert (tmp_path / "reports" / "synth-missing" / "figures" / "curves.png").stat().st_size > 10_000


def test_the_python_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(from robustbench_msa import.*?)\n```", README, re.S)
    assert snippet is not None
    names: dict[str, object] = {"y_true": [-1.0, 2.0], "y_pred": [-0.5, 1.0]}
    exec(snippet.group(1), names)
    assert names["result"].nauc.notna()["nauc"].any()  # type: ignore[attr-defined]


def test_every_link_leads_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
