"""Suites: many trainings as one plan, each in a process of its own.

What is there is skipped and what was stopped continues, so the same call after a kill at any moment does the rest. A
training that fails, or whose process dies, is reported and the others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch
from rich import box
from rich.table import Table

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.allocator import keep_freed_memory
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.models.checkpoint import CONFIG, Checkpoint, folder_of, read_checkpoint
from robustbench_msa.models.registry import MODELS, model_class
from robustbench_msa.training.recipes import parse_recipe
from robustbench_msa.training.settings import choose_preset, override
from robustbench_msa.training.train import Score, spec_of, train

FIRST_SEED = 1111
MAX_SEEDS = 1000
SHOWN = ("acc2_non0", "acc2", "mae", "corr", "acc", "f1_macro")
"""The validation scores of the table, where the dataset's profile has them."""


@dataclass(frozen=True)
class Suite:
    """Models by name. Systems are trained by every recipe with every seed, classics by ``clean`` with the first one."""

    systems: tuple[str, ...]
    classics: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ("clean", "spectrum")


SYSTEMS = ("qa_moe", "rider_moe", "ca_moe", "emoe", "text_moe")
CLASSICS = ("late_fusion", "tfn", "lmf", "mult", "misa", "text_only", "audio_only", "vision_only")
SUITES: dict[str, Suite] = {
    "papers": Suite(SYSTEMS, CLASSICS),
    "clean": Suite((*SYSTEMS, *CLASSICS), recipes=("clean",)),  # all alike: for tables of methods
}


@dataclass(frozen=True)
class Training:
    """One of a suite's trainings."""

    model: str
    recipe: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model} {self.recipe} {self.seed}"


@dataclass(frozen=True)
class Settings:
    """What all trainings of a suite have in common, by the names of ``train``. out: the folder of all checkpoints."""

    dataset: str = "synth"
    data: Path | None = None
    out: Path = Path("checkpoints")
    preset: str | None = None
    epochs: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    overwrite: bool = False
    score: Score | None = None  # a function that can be imported by its name
    command: str = ""


@dataclass(frozen=True, eq=False)
class Result:
    """What became of a training. state: trained, there (before), or failed, with the reason in a line."""

    training: Training
    state: str
    checkpoint: Checkpoint | None = None
    error: str = ""

    def __str__(self) -> str:
        if self.checkpoint is None:
            return f"{self.training} failed: {self.error}"
        scores = self.checkpoint.config["validation"]
        name, label = ("acc", "accuracy") if "acc" in scores else ("mae", "MAE")
        return f"{self.training} {self.state}, validation {label} {_number(scores.get(name), '.3f')}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; null what a failed training does not have."""
        config = self.checkpoint.config if self.checkpoint is not None else {}
        return {
            "model": self.training.model,
            "recipe": self.training.recipe,
            "train_seed": self.training.seed,
            "state": self.state,
            "folder": str(self.checkpoint.path) if self.checkpoint is not None else None,
            "validation": config.get("validation"),
            "best_epoch": config.get("training", {}).get("best_epoch"),
            "seconds": config.get("training", {}).get("seconds"),
            "error": self.error or None,
        }


def plan_suite(name: str, seeds: int = 3) -> tuple[Training, ...]:
    """The trainings of a suite with training seeds 1111 to 1110 + seeds, all of a seed before the next one's.

    Raises:
        InputError: an unknown suite, a model of it that is not registered, a number of seeds out of range.
    """
    if name not in SUITES:
        raise InputError(f"unknown suite {name[:80]!r}{did_you_mean(name, SUITES)}; known: {', '.join(SUITES)}")
    if not 1 <= seeds <= MAX_SEEDS:
        raise InputError(f"seeds: expected 1 to {MAX_SEEDS} training seeds, got {seeds}")
    suite = SUITES[name]
    if strangers := [model for model in (*suite.systems, *suite.classics) if model not in MODELS]:
        raise InputError(
            f"suite {name}: {', '.join(strangers)} not registered; expected models among {', '.join(MODELS)}; train "
            "these one by one with --model"
        )
    all_seeds = range(FIRST_SEED, FIRST_SEED + seeds)
    systems = [Training(m, r, s) for s in all_seeds for m in suite.systems for r in suite.recipes]
    classics = [Training(m, "clean", FIRST_SEED) for m in suite.classics]
    return tuple(sorted([*systems, *classics], key=lambda training: training.seed))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_suite(
    plan: Sequence[Training],
    settings: Settings,
    jobs: int | None = None,
    started: Callable[[int], None] | None = None,
    progress: Callable[[Training, int, int, float], None] | None = None,
    notice: Callable[[Training, str], None] | None = None,
    finished: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Train what is not there yet, ``jobs`` at a time, each with one thread. The results come in the plan's order.

    The processes are spawned: a script that calls this needs ``if __name__ == "__main__":``. They end when this
    process does, whatever ends it; what they had done, the same call continues.

    Args:
        jobs: default, the number of cores. Each process holds the dataset.
        started: told how many trainings are to be done. progress: told of (training, epoch, epochs, validation MAE or
            accuracy) after each epoch. notice: told in a line when a training continues. finished: told of each that
            ends.

    Raises:
        InputError: settings that do not fit a model of the plan, or the data. Nothing is written then.
    """
    jobs = cores() if jobs is None else jobs
    if jobs < 1:
        raise InputError(f"jobs: expected 1 or more processes, got {jobs}")
    dataset = load_dataset(settings.dataset, settings.data)
    _check(plan, settings, dataset)
    folders = {t: settings.out / folder_of(dataset.name, t.model, t.recipe, t.seed) for t in plan}
    results = {} if settings.overwrite else _found(folders, settings, dataset)
    del dataset  # the processes read it themselves
    left = {training: folder for training, folder in folders.items() if training not in results}
    if started is not None:
        started(len(left))
    told: dict[str, Callable[..., None] | None] = {"progress": progress, "notice": notice}
    with closing(_conversation(left, settings, jobs)) as conversation:
        for training, what, values in conversation:
            if what == "end":
                (results[training],) = values
                if finished is not None:
                    finished(results[training])
            elif (tell := told.get(what)) is not None:
                tell(training, *values)
    return [results[training] for training in plan]


def table(results: Sequence[Result]) -> Table:
    """Validation scores, a row a training."""
    scores = [result.to_json()["validation"] or {} for result in results]
    shown = [name for name in SHOWN if any(name in score for score in scores)]
    rows = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, title="Validation scores", title_justify="left")
    for name in ("model", "recipe"):
        rows.add_column(name, no_wrap=True)
    for name in ("seed", *shown, "epoch", "seconds"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("", no_wrap=True)
    for result, score in zip(results, scores, strict=True):
        record = result.to_json()
        values = [_number(score.get(name), ".3f") for name in shown]
        values += [_number(record["best_epoch"], "d"), _number(record["seconds"], ".0f")]
        rows.add_row(result.training.model, result.training.recipe, str(result.training.seed), *values, result.state)
    return rows


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def _check(plan: Sequence[Training], settings: Settings, dataset: Dataset) -> None:
    """Raise InputError for what would make every training of a model fail."""
    for training in plan:
        cls, _ = model_class(training.model), parse_recipe(training.recipe)
        override(cls, choose_preset(cls, settings.preset, dataset.name), dict(settings.overrides), settings.epochs)
    spec_of(dataset)


def _found(folders: Mapping[Training, Path], settings: Settings, dataset: Dataset) -> dict[Training, Result]:
    """The trainings that need no process: done before, or another training's checkpoint is in the way."""
    found = {}
    for training, folder in folders.items():
        if (folder / CONFIG).exists():  # then nothing is trained here: it is of this very training, or an error
            try:
                found[training] = Result(training, "there", _train(training, folder, settings, dataset))
            except InputError as error:
                found[training] = Result(training, "failed", error=str(error))
    return found


def _train(
    training: Training, folder: Path, settings: Settings, dataset: Dataset, **told: Callable[..., None]
) -> Checkpoint:
    return train(
        training.model,
        dataset,
        training.recipe,
        training.seed,
        folder,
        preset=settings.preset,
        device=settings.device,
        epochs=settings.epochs,
        overrides=settings.overrides,
        score=settings.score,
        command=settings.command,
        overwrite=settings.overwrite,
        progress=told.get("progress"),
        notice=told.get("notice"),
    )


def _conversation(
    left: Mapping[Training, Path], settings: Settings, jobs: int
) -> Generator[tuple[Training, str, tuple[Any, ...]]]:
    """What the trainings say, as it comes; the last of each is ("end", (its result,)). Closing it stops them all."""
    waiting, running = deque(left.items()), dict[Connection, _Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                one = _Running(*waiting.popleft(), settings)
                running[one.receiver] = one
            for receiver in cast(list[Connection], wait(list(running))):
                one = running[receiver]
                what, values = one.hear()
                if what == "end":
                    del running[receiver]
                    values = (one.result(),)
                yield one.training, what, values
    finally:
        for one in running.values():
            one.stop()


class _Running:
    """A training in a process of its own."""

    def __init__(self, training: Training, folder: Path, settings: Settings) -> None:
        self.training, self.folder = training, folder
        self.error = ""
        context = multiprocessing.get_context("spawn")
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(training, folder, settings, sender), daemon=True)
        with _one_thread():
            self.process.start()
        sender.close()  # the process has the only other end: when it dies, what is heard ends

    def hear(self) -> tuple[str, tuple[Any, ...]]:
        """The next (what, values); "end" when the process has ended, in whatever way."""
        try:
            what, values = self.receiver.recv()
        except (EOFError, OSError):  # OSError: killed in the middle of a message
            return "end", ()
        if what == "failed":
            (self.error,) = values
        return what, values

    def result(self) -> Result:
        self.process.join()
        code = self.process.exitcode or 0
        self._close()
        if not (self.error or code):
            return Result(self.training, "trained", read_checkpoint(self.folder))
        return Result(self.training, "failed", error=self.error or _cause_of_death(code))

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self._close()

    def _close(self) -> None:
        self.process.close()
        self.receiver.close()


def _cause_of_death(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} and without a word"
    memory = "; is there enough memory? --jobs 1 takes the least" if code == -9 else ""
    return f"its process was killed by signal {-code} ({signal.strsignal(-code)}){memory}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started here compute with one thread each: they share the cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _work(training: Training, folder: Path, settings: Settings, sender: Connection) -> None:
    """The whole life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops this process
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        _train(
            training,
            folder,
            settings,
            load_dataset(settings.dataset, settings.data),
            progress=lambda epoch, epochs, loss, value, best: sender.send(("progress", (epoch, epochs, value))),
            notice=lambda line: sender.send(("notice", (line,))),
        )
    except InputError as error:
        sender.send(("failed", (str(error),)))
    except Exception as error:
        sender.send(("failed", (" ".join(f"{type(error).__name__}: {error}".split()),)))
        if os.environ.get("MSABENCH_DEBUG"):
            raise


def _die_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
