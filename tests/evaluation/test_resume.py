"""A run that is killed, again and again, ends with exactly what an undisturbed run has."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.checkpoint import Checkpoint, load_model, read_checkpoint, write_checkpoint
from robustbench_msa.run import benchmark

ROOT = Path(__file__).resolve().parents[2]
CELLS = 3 * (1 + 8 * 3)  # model, chance and oracle; clean, and eight points of three seeds
JOB = ["--stress", "spectrum", "--grid", "0:0.4:0.2x0:0.4:0.2", "--seeds", "3", "--no-plots"]


@pytest.fixture
def job(checkpoint: Checkpoint, tmp_path: Path) -> Callable[[Path], subprocess.Popen[str]]:
    """Starts ``msabench run`` of the job into a folder; always the same command, but for the folder."""
    started: list[subprocess.Popen[str]] = []

    def start(out: Path) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "robustbench_msa.cli.main", "run", "--checkpoint", str(checkpoint.path)]
        command += ["--dataset", "synth:train=60,valid=20,test=40", *JOB, "--json", "--out", str(out)]
        pipe = subprocess.PIPE
        # A job started in the background of a script inherits an ignored SIGINT; this one is to hear it.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=env, preexec_fn=heed)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the run has come so far. A run that ended before is an error: it was not interrupted."""
    end = time.monotonic() + 90
    while not reached():
        assert process.poll() is None, f"the run ended by itself: {process.communicate()}"
        assert time.monotonic() < end, "the run got stuck"
        time.sleep(0.0005)


def finished(out: Path) -> list[str]:
    folder = out / "predictions"
    return [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.is_dir() else []


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    record: dict[str, Any] = json.loads(stdout)
    return record


def tables(out: Path) -> dict[str, pd.DataFrame]:
    found = {name: pd.read_parquet(out / name) for name in ("curves", "nauc", "cells", "predictions")}
    found["predictions"] = found["predictions"].sort_values(["key", "sample_id"], ignore_index=True)
    return found


def assert_same(one: dict[str, pd.DataFrame], two: dict[str, pd.DataFrame]) -> None:
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, two[name], check_exact=True, obj=name)


def test_kill_9_costs_nothing(job, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert end(job(undisturbed))["cells"] == {"planned": CELLS, "reused": 0, "computed": CELLS, "failed": 0}

    chance = random.Random(20260401)
    moments: list[Callable[[], bool]] = [
        lambda: (killed / "plan" / "plan.parquet").exists(),  # before the manifest, or just after it
        *(lambda n=n: len(finished(killed)) >= n for n in sorted(chance.sample(range(2, CELLS - 5), 2))),
        lambda: len(finished(killed)) == CELLS,  # everything is there but for the tables
    ]
    before = 0
    for moment in moments:
        process = job(killed)
        wait_for(moment, process)
        time.sleep(chance.uniform(0, 0.004))  # anywhere in the middle of a cell
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(finished(killed)) >= before, "nothing that was finished is lost"
        before = len(finished(killed))
    assert not (killed / "nauc").exists(), "it was killed before the tables"
    shutil.rmtree(killed / "runtime")  # a sidecar: without it nothing is wrong

    record = end(job(killed))
    assert record["cells"] == {"planned": CELLS, "reused": CELLS, "computed": 0, "failed": 0}
    assert record["complete"]
    assert_same(tables(undisturbed), tables(killed))
    for path in sorted((undisturbed / "predictions").iterdir()):
        assert path.read_bytes() == (killed / "predictions" / path.name).read_bytes()
    assert not (killed / "quarantine").exists(), "a kill leaves no half-written cell"
    manifests = [json.loads((out / "manifest.json").read_text("utf-8")) for out in (undisturbed, killed)]
    assert manifests[0]["requests"] == manifests[1]["requests"]


def test_an_interrupt_says_how_to_go_on(job, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    process = job(out)
    wait_for(lambda: len(finished(out)) >= 5, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3
    assert stdout == ""
    assert stderr == "msabench: stopped; what was finished is kept, the same command continues\n"
    assert 5 <= len(finished(out)) < CELLS
    assert not [p for p in out.rglob("*") if ".tmp-" in p.name], "an interrupt cleans up after itself"


@pytest.fixture
def run(checkpoint: Checkpoint, dataset, tmp_path: Path) -> Callable[..., Any]:
    def call(stress: str = "missing", grid: str = "0:0.4:0.2", **options: Any) -> Any:
        given = {"checkpoint": checkpoint.path, "dataset": dataset, "seeds": 2, "out": tmp_path / "run", **options}
        return benchmark((), stress, grid, references=False, **given)

    return call


def test_a_larger_grid_computes_only_the_difference(run, tmp_path: Path) -> None:
    first = run()
    assert (first.tally.reused, first.tally.computed) == (0, 1 + 2 * 2)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "predictions").iterdir()}
    larger = run(grid="0:0.8:0.2")
    assert (larger.tally.reused, larger.tally.computed) == (5, 2 * 2)
    seeds = run(grid="0:0.8:0.2", seeds=3)
    assert (seeds.tally.reused, seeds.tally.computed) == (9, 4)
    other = run("conflict", "0,0.5,1", seeds=1)
    assert (other.tally.reused, other.tally.computed) == (1, 2), "the clean cell is shared"
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps, "what is there is not written again"
    fresh = run(grid="0:0.8:0.2", seeds=3, out=tmp_path / "fresh")
    grown = seeds.nauc[seeds.nauc["grid"] == "0:0.8:0.2"].reset_index(drop=True)
    pd.testing.assert_frame_equal(grown, fresh.nauc, check_exact=True)


def test_the_batch_size_is_no_reason_to_compute_again(run) -> None:
    run()
    assert run(batch_size=7).tally.computed == 0


def test_changed_weights_never_reuse_a_cell(run, checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    shutil.copytree(checkpoint.path, folder)
    before = run(checkpoint=folder)
    old = {p.name: p.read_bytes() for p in (tmp_path / "run" / "predictions").iterdir()}
    model = load_model(read_checkpoint(folder))
    with torch.no_grad():
        next(model.parameters()).flatten()[0].add_(1e-3)  # one weight of all
    write_checkpoint(folder, model, checkpoint.config)
    after = run(checkpoint=folder)
    assert (after.tally.reused, after.tally.computed) == (0, before.tally.planned)
    now = {p.name: p.read_bytes() for p in (tmp_path / "run" / "predictions").iterdir()}
    assert {name: now[name] for name in old} == old
    assert len(now) == 2 * len(old)


def test_the_same_weights_in_another_folder_are_the_same_model(run, checkpoint: Checkpoint, tmp_path: Path) -> None:
    run()
    copied = shutil.copytree(checkpoint.path, tmp_path / "elsewhere")
    assert run(checkpoint=copied).tally.computed == 0


def test_a_new_version_of_the_stressor_or_the_model_never_reuses_a_cell(run, monkeypatch) -> None:
    from corruptions import STRESSORS
    from robustbench_msa.models.late_fusion import LateFusion

    first = run()
    monkeypatch.setattr(type(STRESSORS["missing"]), "version", 99)
    stressed = run()
    assert (stressed.tally.reused, stressed.tally.computed) == (1, first.tally.planned - 1), "clean is not stressed"
    monkeypatch.setattr(LateFusion, "version", 99)
    assert run().tally.reused == 0


def test_another_dataset_is_refused_and_nothing_is_harmed(run, tmp_path: Path) -> None:
    from corruptions import InputError

    run()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    for change in ({"dataset": make_synth(seed=2, sizes=(60, 20, 40))}, {"split": "valid"}):
        with pytest.raises(InputError, match="choose another --out"):
            run(**change)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_another_dataset_is_exit_code_2(checkpoint: Checkpoint, run, tmp_path: Path, monkeypatch, capsys) -> None:
    from robustbench_msa.cli.main import main

    run()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    other = ["--dataset", "synth:seed=2,train=60,valid=20,test=40", "--stress", "missing"]
    argv = ["msabench", "run", "--checkpoint", str(checkpoint.path), *other, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "choose another --out" in err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_full_disk_keeps_what_is_done(run, monkeypatch, tmp_path: Path) -> None:
    real, written = os.replace, []

    def full(source: Any, target: Any) -> None:
        if "predictions" in str(target):
            written.append(target)
        if len(written) > 2 and "manifest" not in str(target):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    monkeypatch.undo()
    assert len(finished(tmp_path / "run")) == 2
    tally = run().tally
    assert (tally.reused, tally.computed, tally.failed) == (2, 3, 0)
