"""Two runs into one folder at once, killed and started again: together they leave what one after the other leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from corruptions import InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation import records
from robustbench_msa.evaluation.cells import Subject, plan
from robustbench_msa.evaluation.locks import locked
from robustbench_msa.evaluation.records import recall, remember, remembered
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.training.train import train

ROOT = Path(__file__).resolve().parents[2]
OWN = 1 + 8 * 3  # clean; eight points of three seeds
CELLS = 4 * OWN  # two checkpoints, and both runs want chance and the oracle
ORDER = ["model", "train_seed", "stress", "params", "severity", "seed", "grid", "metric", "key", "sample_id"]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def other(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return train("late_fusion", dataset, seed=1112, out=tmp_path_factory.mktemp("checkpoints") / "b", epochs=1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``msabench run`` of checkpoints into a folder."""
    started: list[subprocess.Popen[str]] = []

    def call(out: Path, *checkpoints: Checkpoint) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "robustbench_msa.cli.main", "run"]
        command += [part for checkpoint in checkpoints for part in ("--checkpoint", str(checkpoint.path))]
        command += ["--dataset", "synth:train=60,valid=20,test=40", "--stress", "missing", "--grid", "0:0.8:0.1"]
        command += ["--no-plots", "--json", "--out", str(out)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=env))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0, stderr
    record: dict[str, Any] = json.loads(stdout)
    return record


def count(out: Path) -> int:
    folder = out / "predictions"
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """Every table in an order of its own: which run came first says nothing."""
    found = {}
    for name in ("curves", "nauc", "cells", "predictions"):
        frame = pd.read_parquet(out / name)
        by = [column for column in ORDER if column in frame]
        found[name] = frame.sort_values(by, ignore_index=True)
    return found


def test_two_runs_at_once_both_killed_and_run_again(
    start: Start, checkpoint: Checkpoint, other: Checkpoint, tmp_path: Path
) -> None:
    undisturbed, shared = tmp_path / "undisturbed", tmp_path / "shared"
    one_run = start(undisturbed, checkpoint, other)
    both = [start(shared, checkpoint), start(shared, other)]
    deadline = time.monotonic() + 120
    while count(shared) < CELLS // 4:
        assert time.monotonic() < deadline, "the runs got stuck"
        time.sleep(0.001)
    for process in both:
        process.send_signal(signal.SIGKILL)
    for process in both:
        process.communicate()
    there = count(shared)
    assert there >= CELLS // 4

    again = [start(shared, checkpoint), start(shared, other)]
    ended = [end(process) for process in again]
    assert all(record["complete"] for record in ended)
    assert count(shared) >= there
    assert not (shared / "quarantine").exists()
    assert not (shared / "failures").exists() or not list((shared / "failures").iterdir())
    assert not [path for path in shared.rglob("*") if ".tmp-" in path.name]

    assert end(one_run)["complete"]
    ours, theirs = (json.loads((out / "manifest.json").read_text("utf-8")) for out in (shared, undisturbed))
    assert len(ours["commands"]) == 2
    assert ours["requests"] == theirs["requests"]
    assert ours["checkpoints"].keys() == theirs["checkpoints"].keys()
    assert {c.key for c in recall(Store(shared)).cells} == {c.key for c in recall(Store(undisturbed)).cells}
    expected = tables(undisturbed)
    assert len(expected["cells"]) == CELLS
    for name, table in tables(shared).items():
        pd.testing.assert_frame_equal(table, expected[name], check_exact=True, obj=name)


ABOUT = {"dataset": {"notes": []}, "profile": "mosi", "protocols": {}, "commit": None, "versions": {}}
PLAN = """
import sys
from pathlib import Path
from corruptions import Stress
from robustbench_msa.evaluation.cells import Request, Setting, Subject, plan
from robustbench_msa.evaluation.records import remember
from robustbench_msa.evaluation.store import Store
stress = Stress.parse("missing")
setting = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
about = {"dataset": {"notes": []}, "profile": "mosi", "protocols": {}, "commit": None, "versions": {}}
print("ready", flush=True)
sys.stdin.readline()
for i in range(12):
    who = f"{sys.argv[2]}{i}"
    request = Request(stress, stress.grid(f"0,0.{i + 11}"), (1111,))
    cells = plan([Subject(who, 1, who)], setting, [request])
    remember(Store(Path(sys.argv[1])), cells, [request], setting, about | {"command": who, "checkpoints": {who: {}}})
"""


def test_nothing_is_lost_when_many_plan_at_once(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PLAN, str(folder)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([*command, name], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env) for name in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    planned = recall(Store(folder))
    names = {f"{name}{i}" for name in "ab" for i in range(12)}
    assert {cell.model for cell in planned.cells} == names
    assert len(planned.cells) == 2 * len(names)
    assert set(planned.manifest["commands"]) == set(planned.manifest["checkpoints"]) == names
    assert len(planned.requests) == 12


def test_what_a_file_system_without_locks_loses_is_added_again(folder, setting, request_of, monkeypatch) -> None:
    """One run reads, the other writes, the first writes: the other finds its own part missing before it derives."""
    requests = {"a": [request_of("missing", "0,0.2")], "b": [request_of("noise", "0,0.5")]}
    cells = {name: plan([Subject(name, 1, name * 64)], setting, requests[name]) for name in "ab"}

    def add(name: str, how: Any = remember) -> records.Planned:
        about = {**ABOUT, "command": name, "checkpoints": {name * 64: {"model": name}}}
        planned: records.Planned = how(Store(folder), cells[name], requests[name], setting, about)
        return planned

    add("a")
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    add("b")
    for path, content in kept.items():  # what a run writes that read the folder before b wrote
        path.write_bytes(content)
    assert {cell.model for cell in recall(Store(folder)).cells} == {"a"}
    planned = add("b", remembered)
    assert {cell.model for cell in planned.cells} == {"a", "b"}
    assert planned.manifest["commands"] == ["a", "b"]
    monkeypatch.setattr(records, "remember", None)
    assert add("b", remembered) == planned, "where nothing is lost nothing is written"


def test_what_is_refused_leaves_nothing_behind(folder, setting, request_of) -> None:
    requests = [request_of("missing", "0,0.2"), request_of("worst-case", "0,0.2")]
    with pytest.raises(InputError, match="another --out"):
        remember(Store(folder), [], requests, setting, {**ABOUT, "command": "x", "checkpoints": {}})
    assert not folder.exists()


def test_a_run_on_other_data_that_comes_at_the_same_time_is_refused(folder, setting, request_of, monkeypatch) -> None:
    """Both see an empty folder; the one that gets the lock second sees whose it has become."""
    request = request_of("missing", "0,0.2")
    theirs = replace(setting, data="e" * 64)
    real = records.locked

    def late(path: Path) -> Any:
        monkeypatch.setattr(records, "locked", real)
        remember(Store(folder), [], [request], theirs, {**ABOUT, "command": "theirs", "checkpoints": {}})
        return real(path)

    monkeypatch.setattr(records, "locked", late)
    with pytest.raises(InputError, match="choose another --out"):
        remember(Store(folder), [], [request], setting, {**ABOUT, "command": "ours", "checkpoints": {}})
    assert recall(Store(folder)).manifest["commands"] == ["theirs"]


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
def test_a_lock_is_held_by_one_and_given_back_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "made" / ".lock"
    with locked(path) as held:
        assert held
        with pytest.raises(InputError, match=r"\.lock: another msabench holds this folder"), locked(path, patience=0):
            pass
    script = "import sys; from pathlib import Path; from robustbench_msa.evaluation.locks import locked\n"
    script += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command, pipe = [sys.executable, "-c", script, str(path)], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another msabench"), locked(path, patience=0):
        pass
    process.kill()
    process.communicate()
    with locked(path, patience=0) as held:
        assert held
