"""How large a run's folder may become: planning, status, resuming and compaction of many cells, with their memory.

    python benchmarks/store.py                  # 100,000 cells, tens of minutes: writing and gathering them takes most
    python benchmarks/store.py --cells 10000

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

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

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
    about = {
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
    start, processor = time.perf_counter(), time.process_time()
    steps[name]()
    seconds, busy = time.perf_counter() - start, time.process_time() - processor
    print(seconds, busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(name: str, root: Path, count: int, label: str | None = None) -> None:
    command = [sys.executable, __file__, "--cells", str(count), "--step", name, "--folder", str(root)]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    seconds, busy, memory = map(float, done.stdout.split())
    print(f"{label or name:<24} {seconds:8.1f} s {busy:8.1f} s {memory:8.0f} MiB", flush=True)


def files(root: Path) -> str:
    sizes = [path.stat().st_size for path in (root / "predictions").iterdir()]
    return f"{len(sizes):,} file{'' if len(sizes) == 1 else 's'}, {sum(sizes) / 2**20:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="how many cells the folder has")
    parser.add_argument("--folder", type=Path, help="where it is made (default: a temporary folder)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step(arguments.step, arguments.folder, arguments.cells)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root, count = Path(folder) / "run", arguments.cells
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        print(f"{machine}, Python {platform.python_version()}, pyarrow {pa.__version__}")
        cells = planned(count)
        remembered(root, cells)
        start, fsync = time.perf_counter(), os.fsync
        os.fsync = lambda descriptor: None  # the disk is not what is measured
        write_all(root, cells)
        os.fsync = fsync
        print(f"{count:,} cells of {SAMPLES} samples written in {time.perf_counter() - start:.0f} s: {files(root)}")
        print(f"{'':<24} {'elapsed':>10} {'processor':>10} {'peak':>12}")
        time.sleep(2.5)  # until no file is so new that it is looked into again
        for name in ("import", "plan", "remember", "status", "resume", "read", "compact"):
            measured(name, root, count)
        print(f"compacted: {files(root)}")
        for name in ("remember", "status", "resume", "read"):
            measured(name, root, count, f"{name}, compacted")


if __name__ == "__main__":
    main()
