"""What commands print with: a console, progress bars that become plain lines off a terminal, JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from robustbench_msa.evaluation.cells import Cell
    from robustbench_msa.training.suite import Result, Training


class _Console(Console):
    """A console whose reader may leave early (msabench list ... | head)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(highlight=False)
_errors = Console(stderr=True, highlight=False)
PLAIN_SECONDS = 5.0  # off a terminal, at most one line in this time


class Ticker:
    """Progress on standard error: a bar on a terminal, a plain line now and then elsewhere, nothing when told so."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Progress | None = None
        self.total = self.done = 0
        self.begun = self.printed = 0.0

    def __enter__(self) -> Ticker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, total: int, what: str) -> None:
        self.total, self.begun = total, time.monotonic()
        self.printed = self.begun
        if self.show and total and _errors.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=_errors, transient=True)
            self.bar.start()
            self.bar.add_task(what, total=total)

    def tick(self, what: str) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], advance=1, description=what)
        elif self.show and (time.monotonic() - self.printed > PLAIN_SECONDS or self.done == self.total):
            self.printed = time.monotonic()
            _errors.print(f"{what}: {self.done} of {self.total}{self.pace()}", soft_wrap=True)

    def pace(self) -> str:
        """How fast it goes, for plain lines."""
        return ""


class CellProgress(Ticker):
    """Progress over cells: how many are done, samples a second, and the time that is left at this pace."""

    def __init__(self, show: bool) -> None:
        super().__init__(show)
        self.samples = 0

    def __enter__(self) -> CellProgress:
        return self

    def start(self, total: int, samples: int = 0) -> None:
        """samples: how many a cell has; 0: unknown, and their rate is not shown."""
        self.samples = samples
        self.begin(total, "cells")

    def cell(self, cell: Cell, succeeded: bool) -> None:
        what = f"{cell.model} {cell.stress} {cell.point}" + ("" if succeeded else " FAILED")
        self.tick(what if self.bar is None else what + self.rate(1))

    def rate(self, ahead: int = 0) -> str:
        """ahead: cells that are done and not counted yet."""
        seconds = time.monotonic() - self.begun
        rate = (self.done + ahead) * self.samples / seconds if seconds > 0 else 0
        return f", {rate:,.0f} samples/s" if rate else ""

    def pace(self) -> str:
        left = (self.total - self.done) * (time.monotonic() - self.begun) / max(1, self.done)
        return self.rate() + (f", {in_words(left)} left" if self.done < self.total else "")


def in_words(seconds: float) -> str:
    """
    >>> in_words(8.2), in_words(200), in_words(7300)
    ('8 s', '3 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size_in_words(n: int) -> str:
    """A size in bytes as people say it.

    >>> size_in_words(812), size_in_words(56_647_362), size_in_words(13_000_000_000)
    ('812 bytes', '56.6 MB', '13.0 GB')
    """
    if n < 1e6:
        return f"{n:,} bytes"
    return f"{n / 1e6:.1f} MB" if n < 1e9 else f"{n / 1e9:.1f} GB"


class SuiteProgress(Ticker):
    """Progress over the trainings of a suite: a line for each that ends, and now and then how far another one is."""

    def __enter__(self) -> SuiteProgress:
        return self

    def start(self, total: int) -> None:
        self.begin(total, "trainings")

    def epoch(self, training: Training, epoch: int, epochs: int, value: float) -> None:
        what = f"{training} epoch {epoch}/{epochs}: validation {value:.3f}"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=what)
        elif self.show and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.note(f"{what}; {self.done} of {self.total} done")

    def note(self, line: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self.show:
            self.printed = time.monotonic()
            _errors.print(line, markup=False, soft_wrap=True)

    def ended(self, result: Result) -> None:
        self.done += 1
        self.note(f"{result}; {self.done} of {self.total} done")
        if self.bar is not None:
            self.bar.advance(self.bar.task_ids[0])


def say(line: str) -> None:
    """A line as it is: no markup, no wrapping, so that paths can be copied."""
    console.print(line, markup=False, soft_wrap=True)


@contextmanager
def working(what: str, show: bool) -> Iterator[None]:
    """Says what takes a moment, on a terminal."""
    if show and _errors.is_terminal:
        with _errors.status(what):
            yield
    else:
        yield


def print_json(record: Any) -> None:
    """One JSON document on standard output; tables become lists of rows, nulls stay null."""
    print(json.dumps(_plain(record), indent=1, allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return json.loads(value.to_json(orient="records", double_precision=15))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
