"""Progress over cells off a terminal: at most a line in five seconds and the last, with the pace and what is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from robustbench_msa.cli import display
from robustbench_msa.cli.display import CellProgress
from robustbench_msa.evaluation.cells import Cell

CELL = Cell(model="late_fusion", stress="noise", severity="0.3")


class Clock:
    """time, as far as progress asks for it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def lines(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, total: int, seconds: float, *start: int, show: bool = True
) -> str:
    """What is printed where each cell takes this long; the third one fails."""
    out = io.StringIO()
    monkeypatch.setattr(display, "_errors", Console(file=out, width=40))
    with CellProgress(show) as progress:
        progress.start(total, *start)
        for i in range(total):
            clock.now += seconds
            progress.cell(CELL, i != 2)
    return out.getvalue()


def test_pace_and_what_is_left(monkeypatch, clock) -> None:
    assert lines(monkeypatch, clock, 5, 3.0, 686).splitlines() == [
        "late_fusion noise 0.3: 2 of 5, 229 samples/s, 9 s left",
        "late_fusion noise 0.3: 4 of 5, 229 samples/s, 3 s left",
        "late_fusion noise 0.3: 5 of 5, 229 samples/s",
    ]


def test_at_most_a_line_in_five_seconds_and_the_last(monkeypatch, clock) -> None:
    found = lines(monkeypatch, clock, 100, 1.0, 10).splitlines()
    assert len(found) == 17  # every sixth second, and the last
    assert found[0] == "late_fusion noise 0.3: 6 of 100, 10 samples/s, 94 s left"
    assert found[-1] == "late_fusion noise 0.3: 100 of 100, 10 samples/s"


def test_without_the_number_of_samples_there_is_no_rate(monkeypatch, clock) -> None:
    first = lines(monkeypatch, clock, 3, 600.0).splitlines()
    assert first == [
        "late_fusion noise 0.3: 1 of 3, 20 min left",
        "late_fusion noise 0.3: 2 of 3, 10 min left",
        "late_fusion noise 0.3 FAILED: 3 of 3",
    ]


def test_nothing_when_told_so(monkeypatch, clock) -> None:
    assert lines(monkeypatch, clock, 3, 600.0, 686, show=False) == ""


def test_on_a_terminal_a_bar_with_the_rate(monkeypatch, clock) -> None:
    out = io.StringIO()
    monkeypatch.setattr(display, "_errors", Console(file=out, width=120, force_terminal=True))
    with CellProgress(True) as progress:
        progress.start(2, 686)
        clock.now += 2.0
        progress.cell(CELL, True)
        assert progress.bar is not None
        assert progress.bar.tasks[0].description == "late_fusion noise 0.3, 343 samples/s"
        assert progress.bar.tasks[0].completed == 1
