"""The HTML report's landscapes: a heat map per model over two severities, and its values as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from robustbench_msa.reporting import entries, names
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.html_figures import Axis, Chart, plain, value_text
from robustbench_msa.reporting.html_heat import Scale, heat_map
from robustbench_msa.reporting.html_parts import Roster, Section, Values, bar_of, cell, ends_of, short, unit
from robustbench_msa.reporting.landscape_figure import MAX_ANNOTATED, LandscapeInfo, landscape_caption, landscape_info

Intervals = dict[tuple[object, ...], tuple[float | None, float | None]]
UNKNOWN = "undefined or not run"


class Landscape(NamedTuple):
    title: str
    section: Section


def landscapes(curves: pd.DataFrame, metrics: Sequence[str], roster: Roster) -> Iterator[Landscape]:
    """Every stress with two axes: a heat map per model and metric, on one scale."""
    frame = entries.stressed(curves)
    two = frame[frame["severity_2"].notna()]
    found = sorted({(str(s), str(p)) for s, p in zip(two["stress"], two["params"].fillna(""), strict=True)})
    for number, (stress, params) in enumerate(found):
        charts, values, bars = [], [], []
        for metric in metrics:
            info = landscape_info(curves, metric, stress, params)
            ends = _landscape_ends(frame, info)
            low, high = ends_of(v for panel in info.panels for row in panel.values for v in row)
            for place, _ in enumerate(info.panels):
                id_ = f"landscape-{number}-{metric}-{place}"
                chart, table = _landscape_chart(id_, info, place, ends, (low, high), roster)
                charts.append(chart)
                values.append(table)
            bars.append(bar_of(info.metric, low, high, info.chance))
        title = names.stress_title(stress, params)
        yield Landscape(title, Section(tuple(charts), tuple(values), _landscape_caption(info), tuple(bars)))


def _landscape_chart(
    id_: str,
    info: LandscapeInfo,
    place: int,
    intervals: Intervals,
    ends: tuple[float, float],
    roster: Roster,
) -> tuple[Chart, Values]:
    entry, values = info.panels[place]
    annotated = max(len(info.x), len(info.y)) <= MAX_ANNOTATED
    cells, hover, rows = [], [], []
    for b, row in zip(info.y, values, strict=True):
        ends_ = [intervals.get((*entry[:4], a, b), (None, None)) for a in info.x]
        here = [(a, value, *interval) for a, value, interval in zip(info.x, row, ends_, strict=True)]
        cells.append([short(info.metric, value) if annotated else "" for value in row])
        hover.append([_landscape_hover(entry, info, a, b, *score) for a, *score in here])
        rows.append((None, b, tuple(cell(info.metric, *score) for _, *score in here)))
    ticks = [[(i, plain(s)) for i, s in enumerate(axis)] for axis in (info.x, info.y)]
    figure = heat_map(
        values,
        cells,
        hover,
        Scale(*ends, info.metric.higher_is_better),
        Axis(info.x_label, ticks[0]),
        Axis(info.y_label, ticks[1]),
        height=320,
    )
    when = {"metric": info.metric.name}
    label = f"{info.metric.label} of {entry.label} over {info.x_label} and {info.y_label}; values below"
    title = f"{entry.label}: {names.metric_label(info.metric)}{unit(info.metric)}"
    corner = f"{info.y_label} ↓, {info.x_label} →"
    index = roster.index(entry)
    table = Values(title, when, corner, info.x, tuple((index, name, cells_) for _, name, cells_ in reversed(rows)))
    return Chart(id_, entry.label, label, figure, when, index), table


def _landscape_hover(
    entry: Entry, info: LandscapeInfo, a: str, b: str, value: float | None, low: float | None, high: float | None
) -> str:
    score = value_text(info.metric, value, low, high) if value is not None else UNKNOWN
    where = f"{info.x_label} = {a}<br>{info.y_label} = {b}"
    return f"<b>{plain(entry.label)}</b><br>{where}<br>{plain(info.metric.label)} {score}"


def _landscape_ends(frame: pd.DataFrame, info: LandscapeInfo) -> Intervals:
    """Both ends of the interval of every cell, by entry and severities."""
    here = (frame["stress"] == info.stress) & (frame["params"].fillna("") == info.params)
    rows = frame[here & (frame["metric"] == info.metric.name)]
    found: Intervals = {}
    for panel in info.panels:
        own = entries.rows_of(rows, panel.entry)
        columns = (own[c] for c in ("severity", "severity_2", "ci_low", "ci_high"))
        for a, b, low, high in zip(*columns, strict=True):
            found[(*panel.entry[:4], a, b)] = (entries.number(low), entries.number(high))
    return found


def _landscape_caption(info: LandscapeInfo) -> str:
    """Of all metrics: without the one in its first words, and what only the static figure has."""
    text = landscape_caption(info).partition(" over ")[2]
    for drawn in (". Hatched: undefined or not run", ". The dashed line on the colour bar is chance"):
        text = text.replace(drawn, "")
    return text.replace("One colour scale for all panels", "One colour scale for all panels of a metric")
