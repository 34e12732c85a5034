"""The engine local with workers: what one process leaves, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from engine_runs import CELLS, assert_same, workers_of

from corruptions import InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.engines import engine, local
from robustbench_msa.engines.job import Job, Rebuild
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.store import Store
from robustbench_msa.run import Benchmark, benchmark, resolve

Run = Callable[..., Benchmark]


def test_two_workers_leave_what_one_process_leaves(job: Run, dataset: Dataset, reference: Path, tmp_path: Path) -> None:
    """A Dataset object goes to the workers as well; progress hears of each cell once."""
    out, told, started = tmp_path / "run", [], []
    options = {"dataset": dataset, "workers": 2, "started": lambda *told: started.append(told)}
    tally = job(out, progress=lambda cell, ok: told.append((cell.key, ok)), **options).tally
    assert (tally.planned, tally.reused, tally.computed, tally.failed) == (CELLS, 0, CELLS, 0)
    assert started == [(CELLS, len(dataset.splits["test"]))]
    assert len(told) == len(dict(told)) == CELLS
    assert all(succeeded for _, succeeded in told)
    assert len(workers_of(out)) == 2
    assert os.getpid() not in workers_of(out)
    assert_same(out, reference)
    log = Store(out).runtime(key for key, _ in told)
    assert set(log["threads"].to_pylist()) == {1}
    assert job(out, workers=2).tally.reused == CELLS
    assert len(workers_of(out)) == 2, "for nothing no worker is begun"


def test_a_worker_that_is_killed_costs_the_cell_in_its_hands(job: Run, reference: Path, tmp_path: Path) -> None:
    out, killed = tmp_path / "run", []

    def kill(cell: Cell, succeeded: bool) -> None:
        if not killed and len(workers_of(out)) == 2:
            killed.append(workers_of(out)[0])
            os.kill(killed[0], signal.SIGKILL)

    tally = job(out, workers=2, progress=kill).tally
    assert len(killed) == 1
    assert (tally.computed, tally.failed) == (CELLS, 0)
    assert_same(out, reference)


def test_a_cell_that_kills_every_worker_is_recorded_and_the_others_go_on(
    killer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {"dataset": "synth:train=60,valid=20,test=40", "out": tmp_path / "run", "workers": 1, "seeds": 1}
    done = benchmark(killer, "noise-lambda", "0.1,2", **asked)
    assert (done.tally.planned, done.tally.computed, done.tally.failed) == (9, 8, 1)
    (message,) = Store(done.out).failures().values()
    assert message == "WorkerDied: 3 worker processes died one after the other, the last one killed by SIGKILL"
    assert len(done.cells) == 8
    assert capfd.readouterr().err.count("a program from outside") == 1, "the driver says it for all workers"
    here = benchmark(killer, "noise-lambda", "0.1,2", **{**asked, "workers": None})
    assert (here.tally.reused, here.tally.computed) == (8, 1)
    assert Store(done.out).failures() == {}


def test_workers_that_cannot_even_begin_end_the_run(job: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_START", "import sys; sys.exit(7)")
    with pytest.raises(ChildProcessError) as stopped:
        job(tmp_path / "run", workers=2)
    said = "3 worker processes died one after the other, the last one with exit code 7, before it began a cell"
    assert (stopped.value.strerror, stopped.value.filename) == (said, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"setting": None}, "found other data than the run was planned with"),
        ({"checkpoints": frozenset("x")}, "found other checkpoints than the run was planned with"),
        ({"root": Path("elsewhere")}, "does not see elsewhere; give --out a folder on a file system that all"),
    ],
)
def test_a_worker_that_finds_something_else_than_was_planned_says_so(
    change: dict[str, Any], said: str, dataset: Dataset, checkpoints: list[Path], reference: Path
) -> None:
    rebuild = Rebuild.of(resolve, model=(), checkpoint=checkpoints, dataset=dataset, data=None)
    candidates, inputs = rebuild()
    identities = frozenset(c.subject.checkpoint for c in candidates)
    sent = Job(rebuild, reference, inputs.setting, identities, 256, {}, 1, Path.cwd())
    assert sent.open().inputs.setting == inputs.setting
    with pytest.raises(InputError, match=f"a worker on .* {said}"):
        replace(sent, **change).open()


def test_files_are_named_so_that_a_worker_elsewhere_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"model": ["m.py:f", "a.b:c", "qa_moe"], "checkpoint": ["hub://a/b", "x/y.pt"], "data": "d.pkl"}
    given = Rebuild.of(resolve, **asked).arguments
    assert given["model"] == [f"{tmp_path}/m.py:f", "a.b:c", "qa_moe"]
    assert given["checkpoint"] == ["hub://a/b", tmp_path / "x" / "y.pt"]
    assert given["data"] == tmp_path / "d.pkl"


def test_what_cannot_be_sent_is_said_before_a_worker_is_begun(job: Run, dataset: Dataset, tmp_path: Path) -> None:
    odd = replace(dataset, unimodal_labels=MappingProxyType({}))
    with pytest.raises(InputError, match=r"cannot be sent to other processes .*name the data by its path"):
        job(tmp_path / "run", dataset=odd, workers=2)


@pytest.mark.parametrize(
    ("cores", "torch_threads", "workers", "expected"), [(8, 8, 2, 4), (8, 3, 2, 3), (8, 8, 3, 2), (2, 2, 5, 1)]
)
def test_workers_share_the_cores(cores, torch_threads, workers, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "cores", lambda: cores)
    monkeypatch.setattr(engine.torch, "get_num_threads", lambda: torch_threads)
    assert engine.threads_of(workers) == expected


def test_each_worker_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names alone: there need be none."""
    device: Any = engine.torch.device("cuda")
    monkeypatch.setattr(engine.torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert engine.gpus_of(device) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5a")
    assert engine.gpus_of(device) == ["2", "GPU-5a"]
    assert engine.gpus_of(engine.torch.device("cpu")) == []
