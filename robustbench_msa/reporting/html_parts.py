"""Pieces that sections of the HTML report share: who is in it, values in print, colour scales."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import choice, html_figures, names
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.html_figures import Chart, Look, look_of_entry, value_text
from robustbench_msa.reporting.html_heat import Scale

CROWD = 10
"""More lines than this get a taller chart."""


class Roster:
    """Everyone on the page, in one order, with one look each: a model looks alike in every chart.

    Whoever is asked for and not known yet (a single checkpoint, where others have means) joins at the end.
    """

    def __init__(self, *groups: Sequence[Entry]) -> None:
        found: dict[tuple[object, ...], Entry] = {}
        for entry in (entry for group in groups for entry in group):
            found.setdefault(entry[:4], entry)
        ranked = [entry for entry in found.values() if not entry.is_reference]
        self.entries = [*ranked, *(entry for entry in found.values() if entry.is_reference)]
        self._place = {entry[:4]: i for i, entry in enumerate(self.entries)}
        first = choice.coloured(ranked)  # those in colours in the static figures look the same here
        self._looks = [entry[:4] for entry in (*first, *(entry for entry in ranked if entry not in first))]

    def index(self, entry: Entry) -> int:
        if entry[:4] not in self._place:
            self._place[entry[:4]] = len(self.entries)
            self.entries.append(entry)
        return self._place[entry[:4]]

    def look(self, entry: Entry) -> Look:
        if entry[:4] not in self._looks:
            self._looks.append(entry[:4])
        return look_of_entry(entry, self._looks.index(entry[:4]))


class Cell(NamedTuple):
    """A value in print; empty interval where there is none."""

    value: str
    interval: str = ""


class Values(NamedTuple):
    """The numbers of a chart as a table. rows: (place in the roster or None, name, cells)."""

    title: str
    when: dict[str, str]
    corner: str
    head: tuple[str, ...]
    rows: tuple[tuple[int | None, str, tuple[Cell, ...]], ...]

    @property
    def condition(self) -> str:
        return html_figures.condition(self.when)


class Bar(NamedTuple):
    """The colour scale of heat maps. colours: CSS, from low to high; chance: in words, empty where it is not known."""

    when: dict[str, str]
    label: str
    colours: tuple[str, ...]
    low: str
    high: str
    chance: str = ""

    @property
    def condition(self) -> str:
        return html_figures.condition(self.when)


class Section(NamedTuple):
    """Charts of one kind, their tables, and what they cannot say themselves."""

    charts: tuple[Chart, ...]
    values: tuple[Values, ...]
    caption: str
    bars: tuple[Bar, ...] = ()


def cell(metric: Metric, value: float | None, low: float | None, high: float | None) -> Cell:
    return Cell(names.format_value(metric, value), names.format_interval(metric, low, high))


def unit(metric: Metric) -> str:
    return ", in percent" if names.is_percent(metric) else ""


def short(metric: Metric, value: float | None) -> str:
    return names.format_value(metric, value, 1 if names.is_percent(metric) else 2)


def ends_of(values: Iterable[float | None]) -> tuple[float, float]:
    """The ends of a colour scale; a constant gets some room."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def bar_of(metric: Metric, low: float, high: float, chance: float | None = None) -> Bar:
    colours = tuple(Scale(low, high, metric.higher_is_better).colour(i / 8) for i in range(9))
    level = f"chance: {value_text(metric, chance)}" if chance is not None else ""
    ends = (value_text(metric, low), value_text(metric, high))
    return Bar({"metric": metric.name}, names.metric_label(metric), colours, *ends, level)
