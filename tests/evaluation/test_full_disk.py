"""A disk that is full in the middle of a run: one line, nothing is lost, and with space the same command ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from robustbench_msa.models.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
CELLS = 3 * (1 + 4 * 3)  # model, chance and oracle; clean, and four points of three seeds


def mount(*arguments: str) -> str:
    """What ``mount`` or ``umount`` answers; empty where it did it."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for about a dozen cells."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if refused := mount("mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)):
        pytest.skip(f"no small file system can be mounted here: {refused}")
    yield folder
    mount("umount", "-l", str(folder))


def run(checkpoint: Checkpoint, out: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    env.pop("MSABENCH_DEBUG", None)
    command = [sys.executable, "-m", "robustbench_msa.cli.main", "run", "--checkpoint", str(checkpoint.path)]
    command += ["--dataset", "synth:train=60,valid=20,test=40", "--stress", "missing", "--grid", "0:0.8:0.2"]
    command += ["--no-plots", "--json", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=180, check=False)


def cells(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "predictions").iterdir()}


def test_a_full_disk_stops_the_run_and_costs_nothing(checkpoint: Checkpoint, disk: Path, tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed", disk / "run"
    assert run(checkpoint, undisturbed, tmp_path).returncode == 0

    stopped = run(checkpoint, out, tmp_path)
    assert stopped.returncode == 3
    assert stopped.stdout == ""
    assert stopped.stderr.startswith("msabench: No space left on device: ")
    assert stopped.stderr.endswith("; what was finished is kept\n")
    assert stopped.stderr.count("\n") == 1
    assert str(out) in stopped.stderr, "it says which disk"
    kept, whole = cells(out), cells(undisturbed)
    assert 0 < len(kept) < CELLS
    assert kept.items() <= whole.items(), "whole files, each with what an undisturbed run has"
    assert not [path for path in out.rglob("*") if ".tmp-" in path.name]

    assert mount("mount", "-o", "remount,size=20m", str(disk)) == ""
    ended = run(checkpoint, out, tmp_path)
    assert ended.returncode == 0, ended.stderr
    counts = {"planned": CELLS, "reused": len(kept), "computed": CELLS - len(kept), "failed": 0}
    assert json.loads(ended.stdout)["cells"] == counts
    assert cells(out) == whole
    for name in ("curves", "nauc", "cells"):
        ours, theirs = (pd.read_parquet(folder / name) for folder in (out, undisturbed))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True, obj=name)
    failures = out / "failures"
    assert not failures.is_dir() or not list(failures.iterdir()), "no failure is left that a full disk made"
