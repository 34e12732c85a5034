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
        self.printed = 0.0

    def __enter__(self) -> Ticker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, total: int, what: str) -> None:
        self.total, self.printed = total, time.monotonic()
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
            _errors.print(f"{what}: {self.done} of {self.total}")


class CellProgress(Ticker):
    """Progress over cells."""

    def __enter__(self) -> CellProgress:
        return self

    def start(self, total: int) -> None:
        self.begin(total, "cells")

    def cell(self, cell: Cell, succeeded: bool) -> None:
        self.tick(f"{cell.model} {cell.stress} {cell.point}" + ("" if succeeded else " FAILED"))


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
