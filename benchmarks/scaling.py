"""What a cell costs as cells, samples and models become more, and what a second worker brings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.budget import Budget
from benchmarks.processes import Spent, python
from benchmarks.report import Table, judged, spread
from benchmarks.setting import ALIGNED, random_dataset, random_model
from benchmarks.timing import alternate
from corruptions import Stress
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.execute import execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.contract import MSAModel

TWICE = "1, twice at once"
CLI = ("-m", "robustbench_msa.cli.main")
WORKERS_JOB = (
    "run",
    "-m",
    "rider_moe",
    "-m",
    "emoe",
    "--protocol",
    "rider",
    "--no-plots",
    "--no-references",
    "--quiet",
)


class Job:
    """Some models over missing and noise on one dataset."""

    def __init__(self, dataset: Dataset, models: Mapping[str, MSAModel], seeds: int, device: str) -> None:
        self.dataset, self.models, self.device = dataset, models, device
        requests = [
            Request(stress, stress.grid(grid), tuple(range(1111, 1111 + seeds)))
            for stress, grid in ((Stress.parse("missing"), "0:0.8:0.2"), (Stress.parse("noise"), "0:0.4:0.2"))
        ]
        subjects = [Subject(name, 1, name) for name in models]
        self.cells: list[Cell] = plan(subjects, Inputs(dataset, "test", device).setting, requests)

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            load = {name: (lambda model=model: model) for name, model in self.models.items()}
            tally = execute(self.cells, Store(Path(folder)), load, Inputs(self.dataset, "test", self.device))
            assert tally.complete


def scaling(budget: Budget) -> list[Table]:
    n = budget.of(32, 128)
    dataset, device = random_dataset(n, ALIGNED), budget.device
    models = {f"qa_moe-{seed}": random_model("qa_moe", "mosi", dataset, seed).to(device) for seed in range(4)}
    one = dict(list(models.items())[:1])
    rows = _rows("corruption seeds", {s: Job(dataset, one, s, device) for s in (1, 3, 9)}, budget)
    sets = {k * n: random_dataset(k * n, ALIGNED) for k in (1, 2, 4)}
    rows += _rows("samples", {k: Job(some, one, 3, device) for k, some in sets.items()}, budget)
    some_models = {k: Job(dataset, dict(list(models.items())[:k]), 3, device) for k in (1, 2, 4)}
    rows += _rows("models", some_models, budget)
    note = (
        f"`qa_moe` (mosi), missing at 5 and noise at 3 severities, {n} samples, 3 seeds and one model but for what is "
        "varied; encoding, draws and planning are in every figure, so a longer run's cells should cost less, not more."
    )
    columns = ("what", "how many", "cells", "elapsed", "a cell", "a cell and sample", "a cell, against the first")
    return [Table("Scaling", columns, rows, [note])]


def _rows(what: str, jobs: Mapping[int, Job], budget: Budget) -> list[list[str]]:
    next(iter(jobs.values())).run()
    found = alternate({str(k): job.run for k, job in jobs.items()}, budget.of(1, 3))
    first, rows = next(iter(jobs)), []
    for k, job in jobs.items():
        each = [turn.elapsed / len(job.cells) for turn in found.turns[str(k)]]
        base = [turn.elapsed / len(jobs[first].cells) for turn in found.turns[str(first)]]
        against = [a / b for a, b in zip(each, base, strict=True)]
        samples = len(job.dataset.splits["test"])
        costs = [spread([1e3 * x for x in each], " ms", 1), spread([1e6 * x / samples for x in each], " us", 0)]
        rows.append([what, str(k), str(len(job.cells)), found.seconds(str(k)), *costs, spread(against)])
    return rows


def workers(budget: Budget) -> list[Table]:
    """``msabench run`` with one and with two workers, as a user types it."""
    title = "Workers"
    columns = ("workers", "seeds", "elapsed", "processor", "gain on what comes with more seeds", "goal")
    if "--workers" not in python([*CLI, "run", "--help"], {"COLUMNS": "200"}).out:
        return [Table(title, columns, [], ["Not measured: `msabench run` has no option --workers."])]
    seeds, rounds = budget.of(3, 25), budget.of(1, 2)
    sides = {"1": _one, "2": _two, TWICE: _twice}
    spent: dict[tuple[str, int], list[Spent]] = {(side, n): [] for n in (1, seeds) for side in sides}
    for _ in range(rounds):
        for (side, n), values in spent.items():
            values.append(sides[side](n))
    times = {at: [one.elapsed for one in values] for at, values in spent.items()}
    rows = [
        [side, str(n), spread(times[side, n], " s", 1), spread([one.processor for one in values], " s", 1), "", ""]
        for (side, n), values in spent.items()
    ]
    for name, side, jobs in (("2 over 1", "2", 1), (f"{TWICE}, over 1", TWICE, 2)):
        gains = [jobs * a / b for a, b in zip(times["1", seeds], times[side, seeds], strict=True)]
        runs = zip(times["1", seeds], times["1", 1], times[side, seeds], times[side, 1], strict=True)
        further = [jobs * (long_1 - short_1) / (long_2 - short_2) for long_1, short_1, long_2, short_2 in runs]
        goal = judged(further, least=1.8) if side == "2" else ""
        rows.append([f"**{name}**", str(seeds), spread(gains, "x"), "", spread(further, "x"), goal])
    note = (
        f"`msabench {' '.join(WORKERS_JOB)} --seeds N --workers W`: whole commands, start, imports, preflight and "
        "tables included, one thread of torch a process (OMP_NUM_THREADS=1). The gain on what comes with more seeds "
        "leaves out what the same command takes with one seed, which is mostly done once, whatever there is to "
        f"compute. {TWICE.capitalize()}: two such commands that know nothing of each other, side by side, for twice "
        "the cells: what this machine gives to two processes, and no way of sharing out the work can give more."
    )
    return [Table(title, columns, rows, [note])]


def _one(seeds: int) -> Spent:
    return _run_with(1, seeds)


def _two(seeds: int) -> Spent:
    return _run_with(2, seeds)


def _twice(seeds: int) -> Spent:
    """Two commands with a worker each, at the same time."""
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(_one, [seeds, seeds]))
    elapsed = time.perf_counter() - start
    return both[0]._replace(elapsed=elapsed, processor=max(one.processor for one in both))


def _run_with(count: int, seeds: int) -> Spent:
    with tempfile.TemporaryDirectory() as folder:
        options: Sequence[str] = ("--seeds", str(seeds), "--workers", str(count), "-o", f"{folder}/run")
        return python([*CLI, *WORKERS_JOB, *options], {"OMP_NUM_THREADS": "1"})
