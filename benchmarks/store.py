"""How large a run's folder may become: planning, status, resuming and compaction of many cells, with their memory.

    python benchmarks/all.py --only store
    python benchmarks/all.py --only store --cells 100000      # tens of minutes: writing and gathering them takes most

The cells are small (8 samples), since what is measured is what each file costs. They are written as a run writes them,
but without waiting for the disk, in one process before anything is timed. Each step then runs in a process of its own,
which has read nothing yet; its peak memory holds the interpreter and torch, which the first line gives alone. Files are
in the cache of the system. A step is named after what a user does:

- *import*: loading the package, and nothing else;
- *plan*: the cells of all models, stresses, severities and seeds, with their keys;
- *remember*: adding them to the folder's plan, as every run does at its start;
- *status*: what ``msabench status`` counts;
- *resume*: planning, remembering and finding that nothing is left to compute, as the same command does again;
- *read*: the predictions of every cell, in the order of the plan;
- *compact*: ``msabench compact``; the lines after it are of the compacted folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.budget import Budget
from benchmarks.processes import python, status
from benchmarks.report import Table
from benchmarks.timing import timed
from corruptions import Stress
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.compaction import compact
from robustbench_msa.evaluation.progress import progress_of
from robustbench_msa.evaluation.records import recall, remember
from robustbench_msa.evaluation.store import Result, Runtime, Store

SAMPLES = 8
SETTING = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
GRID, STRESSES, SEEDS = "0:0.9:0.1", ("missing", "noise", "conflict"), 10
PER_MODEL = 1 + len(STRESSES) * 9 * SEEDS


def requests() -> list[Request]:
    stresses = [Stress.parse(name) for name in STRESSES]
    return [Request(stress, stress.grid(GRID), tuple(range(1111, 1111 + SEEDS))) for stress in stresses]


def planned(count: int) -> list[Cell]:
    models = -(-count // PER_MODEL)
    subjects = [Subject(f"model{i % 20}", 1, f"{i:064x}", "clean", 1111 + i // 20) for i in range(models)]
    return plan(subjects, SETTING, requests())[:count]


def remembered(root: Path, cells: list[Cell]) -> None:
    about: dict[str, Any] = {
        "command": "benchmarks/store.py",
        "checkpoints": {cell.checkpoint: {"model": cell.model} for cell in cells},
    }
    about |= {"dataset": {}, "protocols": {}, "profile": "mosi", "commit": None, "versions": {}}
    remember(Store(root), cells, requests(), SETTING, about)


def write_all(root: Path, cells: list[Cell]) -> None:
    """Every cell, with predictions of its own."""
    store, rng = Store(root), np.random.default_rng(0)
    groups, ids = [f"v{i // 2}" for i in range(SAMPLES)], [f"v{i // 2}$_${i}" for i in range(SAMPLES)]
    y_true = rng.normal(size=SAMPLES).astype(np.float32)
    runtime = Runtime("cpu", 256, 1, 0.5, "2026-01-01T00:00:00+00:00", "host", "3", "2", "0")
    present = np.ones((SAMPLES, 3), dtype=bool)
    for i, cell in enumerate(cells):
        values = rng.normal(size=(SAMPLES, 6)).astype(np.float32)
        facts = {"input_digest": f"{i % PER_MODEL:064x}", "realised": {"lost_t": 0.25}, "nonfinite": 0}
        extras = {"routing": values[:, 1:5], "r": values[:, 5]}
        store.write(cell, Result(ids, groups, y_true, values[:, 0], present, extras, facts), runtime)


def resume(root: Path, count: int) -> None:
    cells = planned(count)
    remembered(root, cells)
    assert len(Store(root).done(cell.key for cell in cells)) == count


def read_all(root: Path) -> None:
    store = Store(root)
    for cell in recall(store).cells:
        assert store.predictions(cell.key, ["y_true", "y_pred", "group", "extras"]).num_rows == SAMPLES


def step(name: str, root: Path, count: int) -> None:
    """Run one step in this process and print its seconds and its peak memory in MiB."""
    steps: dict[str, Callable[[], object]] = {
        "import": lambda: None,
        "plan": lambda: planned(count),
        "remember": lambda: remembered(root, planned(count)),
        "status": lambda: progress_of(root).to_rich(),
        "resume": lambda: resume(root, count),
        "read": lambda: read_all(root),
        "compact": lambda: compact(root),
    }
    took = timed(steps[name])
    print(took.elapsed, took.processor, status("VmHWM"))


def measured(name: str, root: Path, count: int, label: str | None = None) -> list[str]:
    out = python(["-m", "benchmarks.store", name, str(root), str(count)]).out
    seconds, busy, memory = map(float, out.split())
    return [label or name, f"{seconds:.2f} s", f"{busy:.2f} s", f"{memory:.0f} MiB"]


def files(root: Path) -> str:
    sizes = [path.stat().st_size for path in (root / "predictions").iterdir()]
    return f"{len(sizes):,} file{'' if len(sizes) == 1 else 's'}, {sum(sizes) / 2**20:.0f} MiB"


def store(budget: Budget, count: int | None = None) -> list[Table]:
    count = count or budget.of(1_000, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        root, cells = Path(folder) / "run", planned(count)
        remembered(root, cells)
        with mock.patch.object(os, "fsync"):  # the disk is not what is measured
            writing = timed(lambda: write_all(root, cells)).elapsed
        loose = files(root)
        time.sleep(2.5)  # until no file is so new that it is looked into again
        steps = ("import", "plan", "remember", "status", "resume", "read", "compact")
        rows = [measured(name, root, count) for name in steps]
        compacted = files(root)
        rows += [measured(name, root, count, f"{name}, compacted") for name in ("remember", "status", "resume", "read")]
    note = (
        f"{count:,} cells of {SAMPLES} samples, written in {writing:.0f} s ({loose}; compacted {compacted}). Each step "
        "in a process of its own, once; memory is the whole process's, *import* is what Python and torch take alone."
    )
    return [Table("The folder of a run", ("step", "elapsed", "processor", "peak memory"), rows, [note])]


if __name__ == "__main__":
    step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
