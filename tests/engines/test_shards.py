"""Shares of one run, computed by commands that know nothing of each other, as the tasks of a SLURM array are."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_runs import CELLS, assert_same, workers_of

from robustbench_msa.evaluation.progress import progress_of
from robustbench_msa.run import Benchmark

Run = Callable[..., Benchmark]


@pytest.mark.slow
def test_four_shards_at_once_one_killed_and_run_again(
    start: Callable[..., subprocess.Popen[str]], job: Run, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shards = [start(out, "--shard", f"{i}/4") for i in range(1, 5)]
    end = time.monotonic() + 120
    while shards[2].pid not in workers_of(out):
        assert shards[2].poll() is None, shards[2].communicate()
        assert time.monotonic() < end, "it got stuck"
        time.sleep(0.0005)
    shards[2].send_signal(signal.SIGKILL)
    ended = [shard.communicate(timeout=180) for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0, -signal.SIGKILL, 0], ended

    records = [json.loads(stdout) for i, (stdout, _) in enumerate(ended) if i != 2]
    assert all(record["complete"] for record in records), "a share is complete when its own cells are done"
    planned = [record["cells"]["planned"] for record in records]
    lost = CELLS - sum(planned)
    report = progress_of(out)
    assert (report.planned.total(), report.complete) == (CELLS, False)
    assert sum(planned) < report.done.total() < CELLS, "what the killed one had done is there"
    assert "--shard" not in report.command, "the plain command ends the run, whatever is missing"

    there = report.done.total() - sum(planned)
    again = job(out, shard="3/4").tally
    assert (again.planned, again.reused, again.computed) == (lost, there, lost - there)
    assert progress_of(out).complete
    assert_same(out, reference)
    assert job(out).tally.reused == CELLS


def test_the_first_shard_of_an_empty_folder_has_tables_of_its_own_cells(job: Run, tmp_path: Path) -> None:
    """Also one whose share is empty: there are more shards than units."""
    out = tmp_path / "run"
    nothing = next(shard for i in range(1, 41) if (shard := job(out, shard=f"{i}/40")).tally.planned == 0)
    assert nothing.tally.complete
    made = job(out, shard="2/2")
    assert 0 < len(made.cells) < CELLS
    assert set(made.curves["model"]) <= {"late_fusion", "chance", "oracle"}
    whole = job(out, workers=None)
    assert whole.tally.complete
    assert len(whole.cells) == CELLS
