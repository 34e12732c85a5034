"""Where the seconds of the README's main job go.

    python benchmarks/main_job.py              # 3 rounds
    python benchmarks/main_job.py --rounds 1

Three kinds of process, in turns: the command as a user types it; the same with a clock at the doors of its stages; and,
once, the same under ``-X importtime``. A stage's time is its own: that of the stages inside it is theirs. Processor
time is that of all threads of the process while the main thread was in the stage.
"""

from __future__ import annotations

import argparse
import builtins
import functools
import importlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.budget import Budget
from benchmarks.processes import python
from benchmarks.report import Table, spread

COMMAND = ("run", "--model", "qa_moe", "--stress", "missing", "--grid", "0:0.8:0.2")
IMPORTS, REST = "imports (all of them, wherever they happen)", "the rest of the command"
STARTING, ENDING = "Python's start", "Python's end, after the last line"
# A stage and where it is called from: module:attribute. Only what the main thread does is seen.
STAGES: tuple[tuple[str, str], ...] = (
    ("dataset: made or read", "robustbench_msa.run:open_dataset"),
    ("dataset: fingerprints", "robustbench_msa.evaluation.inputs:Inputs.setting"),
    ("dataset: training statistics", "robustbench_msa.evaluation.inputs:Inputs.reference"),
    ("checkpoints: found, hashed", "robustbench_msa.run:_candidates"),
    ("checkpoints: weights read, model built", "robustbench_msa.evaluation.subjects:load_model"),
    ("stresses tried on the probe", "robustbench_msa.run:try_out"),
    ("preflight", "robustbench_msa.run:preflight_all"),
    ("plan", "robustbench_msa.run:plan"),
    ("manifest and plan written", "robustbench_msa.run:remember"),
    ("cells: the loop", "robustbench_msa.run:compute"),
    ("cells: corruption", "robustbench_msa.evaluation.inputs:Inputs.corruption"),
    ("cells: corruption", "robustbench_msa.evaluation.inputs:Inputs.inside"),
    ("cells: corruption", "robustbench_msa.evaluation.inputs:Inputs.completed"),
    ("cells: digests, realised rates", "robustbench_msa.evaluation.inputs:Inputs.facts"),
    ("cells: encode, fuse", "robustbench_msa.evaluation.runner:Runner.run"),
    ("cells: waiting for the writing thread", "robustbench_msa.evaluation.writing:Writer._settle"),
    ("cells: waiting for the writing thread", "robustbench_msa.evaluation.writing:Writer.__exit__"),
    ("tables: derived", "robustbench_msa.run:derive_if_needed"),
    ("tables: predictions read, metrics", "robustbench_msa.analysis.tables:Tables.__init__"),
    ("tables: curves with intervals", "robustbench_msa.analysis.tables:Tables.curves"),
    ("tables: nAUC with intervals", "robustbench_msa.analysis.tables:Tables.nauc"),
    ("tables: cells", "robustbench_msa.analysis.tables:cells_table"),
    ("tables: written", "robustbench_msa.evaluation.store:Store.write_table"),
    ("figures: data", "robustbench_msa.reporting.figures:curves_info"),
    ("figures: drawn", "robustbench_msa.reporting.figures:curves_figure"),
    ("figures: PNG, PDF, CSV", "robustbench_msa.reporting.figures:save_figure"),
    ("tables printed", "robustbench_msa.cli.run:print_tables"),
)


class Clock:
    """Elapsed and processor seconds of each stage, without those of the stages inside it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._stack = [REST]
        self._marked = time.perf_counter(), time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.mark()
        self._stack.append(name)
        try:
            yield
        finally:
            self.mark()
            self._stack.pop()

    def mark(self) -> None:
        """Everything since the last mark belongs to the stage that is on."""
        now = time.perf_counter(), time.process_time()
        for i in range(2):
            self.seconds[self._stack[-1]][i] += now[i] - self._marked[i]
        self._marked = now

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed where the main thread calls it and not from the same stage."""
        main = threading.main_thread()

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not main or self._stack[-1] == name:
                return function(*args, **kwargs)
            with self.stage(name):
                return function(*args, **kwargs)

        return timed


class Doors:
    """Puts the clock at the stages as soon as their modules are there, and at every import."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.open = dict.fromkeys(target for _, target in STAGES)
        self._import = clock.wrapped(IMPORTS, builtins.__import__)
        builtins.__import__ = self._watched
        importlib.import_module = clock.wrapped(IMPORTS, importlib.import_module)

    def _watched(self, *args: Any, **kwargs: Any) -> Any:
        module = self._import(*args, **kwargs)
        if self.clock._stack[-1] != IMPORTS:
            self.find()
        return module

    def find(self) -> None:
        for name, target in STAGES:
            if target in self.open and (module := sys.modules.get(target.split(":")[0])) is not None:
                del self.open[target]
                self._put(name, module, target.split(":")[1])

    def _put(self, name: str, owner: Any, path: str) -> None:
        *outer, last = path.split(".")
        for part in outer:
            owner = getattr(owner, part, None)
        there = vars(owner).get(last) if owner is not None else None
        if isinstance(there, functools.cached_property):
            there.func = self.clock.wrapped(name, there.func)
        elif there is not None:
            setattr(owner, last, self.clock.wrapped(name, there))
        else:
            self.open[f"{path} (no such name)"] = None


def child(out: str, arguments: Sequence[str]) -> None:
    """Run the command in this process under a clock; what it found goes to ``out`` as JSON."""
    began, worked = time.time(), time.process_time()
    clock = Clock()
    doors = Doors(clock)
    sys.argv = ["msabench", *arguments]
    try:
        from robustbench_msa.cli.main import main as command

        command()
    finally:
        clock.mark()
        found = {"stages": clock.seconds, "unseen": list(doors.open), "began": (began, worked), "ended": time.time()}
        Path(out).write_text(json.dumps(found), "utf-8")


def stages_table(rounds: int, folder: Path) -> Table:
    bare, clocked, found = [], [], []
    for i in range(rounds + 1):  # the first fills the caches and does not count
        plain = python(["-m", "robustbench_msa.cli.main", *COMMAND, "-o", str(folder / f"bare{i}")])
        out = folder / f"stages{i}.json"
        start = time.time()
        timed = python([__file__, "--child", str(out), *COMMAND, "-o", str(folder / f"timed{i}")])
        if i:
            bare.append(plain)
            clocked.append(timed)
            found.append(json.loads(out.read_text("utf-8")) | {"start": start})
    names = list(dict.fromkeys([STARTING, IMPORTS, *(name for name, _ in STAGES), REST, ENDING]))
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for total, one in zip(clocked, found, strict=True):
        (began, worked), busy = one["began"], sum(processor for _, processor in one["stages"].values())
        one["stages"][STARTING] = [began - one["start"], worked]
        one["stages"][ENDING] = [one["start"] + total.elapsed - one["ended"], total.processor - worked - busy]
        for name in names:
            seen[name].append(tuple(one["stages"].get(name, (0.0, 0.0))))
    whole = statistics.median(spent.elapsed for spent in clocked)

    def row(name: str, times: Sequence[Sequence[float]]) -> list[str]:
        elapsed, processor = zip(*times, strict=True)
        share = f"{100 * statistics.median(elapsed) / whole:.0f} %"
        return [name, spread(elapsed, " s"), share, spread(processor, " s")]

    ordered = sorted(seen.items(), key=lambda item: -statistics.median(elapsed for elapsed, _ in item[1]))
    rows = [row(name, times) for name, times in ordered if statistics.median(elapsed for elapsed, _ in times) >= 0.0005]
    for name, spents in (("the whole, with the clock", clocked), ("**the whole, as typed**", bare)):
        rows.append(row(name, [(spent.elapsed, spent.processor) for spent in spents]))
    rounds_said = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    threads = os.environ.get("OMP_NUM_THREADS", "as many as there are cores")
    command = f"`msabench {' '.join(COMMAND)}`"
    notes = [f"{command}, new folder, files in the system's cache; torch threads: {threads}; {rounds_said}."]
    if unseen := found[-1]["unseen"]:
        notes.append(f"Not seen (renamed, or not called): {', '.join(unseen)}.")
    return Table("The main job: where its seconds go", ["stage", "elapsed", "share", "processor"], rows, notes)


def imports_table(folder: Path, most: int = 14) -> Table:
    """Self times of ``-X importtime`` by package: slower than without it, so the shares are what counts."""
    arguments = ["-X", "importtime", "-m", "robustbench_msa.cli.main", *COMMAND, "-o", str(folder / "imports")]
    packages: defaultdict[str, list[float]] = defaultdict(list)
    for line in python(arguments).errors.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and len(parts) == 3 and parts[0].strip().isdigit():
            package = parts[2].strip().split(".")[0]
            packages["standard library" if package in sys.stdlib_module_names else package].append(float(parts[0]))
    whole = sum(map(sum, packages.values()))
    ordered = sorted(packages.items(), key=lambda item: -sum(item[1]))
    rest = [value for _, values in ordered[most:] for value in values]
    rows = [
        [name, f"{sum(values) / 1e3:.0f} ms", f"{100 * sum(values) / whole:.0f} %", f"{len(values):,}"]
        for name, values in [*ordered[:most], ("others", rest), ("**all**", [v for _, vs in ordered for v in vs])]
    ]
    note = "`-X importtime`, one process; a package's own modules, without what they import from others."
    return Table("The main job: imports by package", ["package", "own time", "share", "modules"], rows, [note])


def main_job(budget: Budget, rounds: int | None = None) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        return [stages_table(rounds or budget.of(1, 3), Path(folder)), imports_table(Path(folder))]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds whose medians are taken (default 3)")
    for table in main_job(Budget(), parser.parse_args().rounds):
        print(table.markdown())


if __name__ == "__main__":
    main()
