"""Running the command line in this process: what it printed, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from robustbench_msa.analysis.metrics import score
from robustbench_msa.cli.main import main
from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.training.train import train

DATASET = "synth:train=60,valid=20,test=40"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints with one in it."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="session")
def checkpoint(shelf: Path) -> Checkpoint:
    out = shelf / "synth" / "late_fusion" / "clean" / "1111"
    return train("late_fusion", make_synth(sizes=(60, 20, 40)), out=out, epochs=1, score=score)


@pytest.fixture
def msabench(
    checkpoint: Checkpoint,
    shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Ran]:
    """``msabench("run", "--model", ...)`` in an empty folder that knows the one checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSABENCH_CHECKPOINTS", str(shelf))
    monkeypatch.delenv("MSABENCH_DEBUG", raising=False)

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["msabench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Ran(stop.value.code, out, err)

    return call


@pytest.fixture
def run(msabench: Callable[..., Ran]) -> Callable[..., Ran]:
    """``msabench run`` of the one checkpoint on the tiny dataset."""
    return lambda *arguments: msabench("run", "--model", "late_fusion", "--dataset", DATASET, *arguments)


@pytest.fixture(scope="session")
def process(checkpoint: Checkpoint, shelf: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own."""

    def call(*arguments: object, cwd: Path | None = None, shell: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MSABENCH_CHECKPOINTS": str(shelf), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "robustbench_msa.cli.main", *map(str, arguments)]
        if shell:
            text = subprocess.list2cmdline(command) + " " + shell
            command = ["bash", "-o", "pipefail", "-c", text]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=120, check=False)

    return call
