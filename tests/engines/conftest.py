"""Fixtures of the engines' tests: a small job, what it leaves when nothing disturbs it, a program that kills."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.run import Benchmark, benchmark
from robustbench_msa.training.train import train

sys.path.insert(0, str(Path(__file__).parent))  # the helper beside these tests

from engine_runs import CELLS, NAME, STRESSES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Workers take no more threads than this process: the same ones, so that values are equal bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_synth(sizes=(60, 20, 40))


@pytest.fixture(scope="session")
def checkpoints(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    made: list[Checkpoint] = [
        train("late_fusion", dataset, seed=seed, out=folder / str(seed), epochs=1) for seed in (1111, 1112)
    ]
    return [checkpoint.path for checkpoint in made]


@pytest.fixture(scope="session")
def job(checkpoints: list[Path]) -> Callable[..., Benchmark]:
    """The job, into a folder, with any engine: ``job(out, workers=2)``."""

    def run(out: Path, **options: Any) -> Benchmark:
        return benchmark((), STRESSES, **{"checkpoint": checkpoints, "dataset": NAME, "out": out, **options})

    return run


@pytest.fixture(scope="session")
def reference(job: Callable[..., Benchmark], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the job leaves when it runs in this process, undisturbed."""
    made = job(tmp_path_factory.mktemp("reference") / "run")
    assert (made.tally.computed, made.tally.complete) == (CELLS, True)
    return made.out


@pytest.fixture
def start(checkpoints: list[Path], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``msabench run`` of the job into a folder, with more options."""
    started: list[subprocess.Popen[str]] = []

    def call(out: Path, *options: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "robustbench_msa.cli.main", "run", "--dataset", NAME, "--no-plots", "--json"]
        command += [part for path in checkpoints for part in ("--checkpoint", str(path))]
        command += [part for stress in STRESSES for part in ("--stress", stress)]
        pipe = subprocess.PIPE
        # A job started in the background of a script inherits an ignored SIGINT; this one is to hear it.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        given: dict[str, Any] = {"stdout": pipe, "stderr": pipe, "text": True, "cwd": tmp_path, "env": env}
        started.append(subprocess.Popen([*command, "--out", str(out), *options], preexec_fn=heed, **given))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


KILLER = """
import os, signal
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, text, audio, vision):
        if {condition}:
            os.kill(os.getpid(), signal.SIGKILL)
        return text.mean((1, 2)) * self.weight

def build():
    return Model()
"""


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program, named as from its own folder, that kills a worker, and not this process, where audio is noisy."""
    (tmp_path / "killer.py").write_text(
        KILLER.format(condition=f"os.getpid() != {os.getpid()} and float(audio.std()) > 3"), "utf-8"
    )
    monkeypatch.chdir(tmp_path)
    return "killer.py:build"
