"""The leaderboard and a run's curves for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import entries, names
from robustbench_msa.reporting.board import Board, Score
from robustbench_msa.reporting.curves_figure import Panel, curves_info
from robustbench_msa.reporting.landscape_figure import LandscapeInfo, landscape_info

WIDTH = 100


def to_rich(board: Board, width: int = WIDTH, interval: str = names.INTERVAL) -> Group:
    """One table per stress and grid, more where its metrics do not fit into ``width`` characters; caption, notes."""
    tables: list[Table | Text] = []
    for _, group in groupby(range(len(board.columns)), key=lambda j: board.columns[j].over):
        tables += _fitting(board, list(group), width)
    caption = Text(board.caption(interval), style="dim")
    return Group(*tables, caption, *(Text(f"({i}) {note}", style="dim") for i, note in enumerate(board.notes, 1)))


def curve_tables(
    curves: pd.DataFrame, metrics: Sequence[str] | None = None, stress: str | None = None
) -> list[Table | Text]:
    """What a run found: per stress and model one row per severity, values with their intervals, and chance below.

    A stress with two axes is a table per metric, the second severity downwards, as its landscape is.

    Args:
        curves: the tidy table of curves of one dataset, split and profile; means over corruption seeds are shown.
        metrics: default the profile's usual ones. stress: default all.

    Raises:
        InputError: nothing to show, several datasets, an unknown metric or a stress that was not run.
    """
    frame = entries.stressed(curves)
    landscapes = frame[frame["severity_2"].notna() & (frame["stress"].eq(stress) if stress else True)]
    over_two = sorted(set(zip(landscapes["stress"], landscapes["params"].fillna(""), strict=True)))
    tables: list[Table | Text] = []
    if frame["severity_2"].isna().any() and stress not in {name for name, _ in over_two}:
        info = curves_info(frame, metrics, [stress] if stress else None)
        by_stress = list(zip(*info.panels, strict=True))  # one tuple of panels, a panel per metric
        tables += [_curve_table(panels, label) for panels in by_stress for label in _labels(panels)]
    for name, params in over_two:
        for metric in entries.choose_metrics(landscapes, metrics):
            tables += _landscape_tables(landscape_info(landscapes, metric.name, name, params))
    facts = entries.find_facts(frame)
    return [*tables, Text(f"On {facts.data()}. In brackets: {facts.intervals()}.", style="dim")]


def _fitting(board: Board, columns: list[int], width: int) -> Iterator[Table]:
    """Tables of as many of the columns as fit, in order."""
    console = Console(width=10 * width)
    while columns:
        take = len(columns)
        while take > 1 and console.measure(_board_table(board, columns[:take])).maximum > width:
            take -= 1
        yield _board_table(board, columns[:take])
        columns = columns[take:]


def _board_table(board: Board, columns: Sequence[int]) -> Table:
    first = board.columns[columns[0]]
    score = "mean" if first.by_condition else "nAUC"
    table = _new_table(f"{first.title}, {first.grid_label}: {score}")
    has_recipe = len({row.entry.recipe for row in board.rows if not row.entry.is_reference}) > 1
    table.add_column("Model", overflow="fold")
    if has_recipe:
        table.add_column("Recipe", overflow="fold")
    cells = []
    for j in columns:
        metric = board.columns[j].metric
        table.add_column(names.metric_label(metric), justify="right", no_wrap=True)
        cells.append(_aligned([row.scores[j] for row in board.rows], metric, board.mark))
    for i, row in enumerate(board.rows):
        if row.entry.is_reference and i and not board.rows[i - 1].entry.is_reference:
            table.add_section()
        table.add_row(Text(row.entry.name), *([Text(row.entry.recipe)] if has_recipe else []), *(c[i] for c in cells))
    return table


def _curve_table(panels: Sequence[Panel], label: str) -> Table:
    found = [next(series for series in panel.series if series.entry.label == label) for panel in panels]
    is_oracle = found[0].entry.model == "oracle"
    who = f"oracle ({names.oracle_role([panels[0].stress])})" if is_oracle else label
    table = _new_table(f"{who}, {panels[0].title}")
    table.add_column(panels[0].x_label)
    chance = [_chance(panel) for panel in panels]
    cells = []
    for panel, series, level in zip(panels, found, chance, strict=True):
        table.add_column(names.metric_label(panel.metric), justify="right", no_wrap=True)
        cells.append(
            _aligned([*(Score(*point[1:]) for point in series.points()), Score(level, None, None)], panel.metric)
        )
    for i, at in enumerate(found[0].at):
        table.add_row(Text(names.condition_label(at) if panels[0].conditions else at), *(column[i] for column in cells))
    if any(level is not None for level in chance):
        table.add_section()
        table.add_row("chance", *(column[-1] for column in cells))
    return table


def _chance(panel: Panel) -> float | None:
    """The level of chance, the same at all severities."""
    values = [value for series in panel.series if series.entry.model == "chance" for value in series.values]
    return next((value for value in values if value is not None), None)


def _landscape_tables(info: LandscapeInfo) -> Iterator[Table]:
    for panel in info.panels:
        table = _new_table(
            f"{panel.entry.label}, {names.stress_title(info.stress, info.params)}: {names.metric_label(info.metric)}"
        )
        table.add_column(f"{info.y_label} \\ {info.x_label}")
        for x in info.x:
            table.add_column(x, justify="right", no_wrap=True)
        for y, row in reversed(list(zip(info.y, panel.values, strict=True))):
            table.add_row(y, *(names.format_value(info.metric, value) for value in row))
        yield table


def _labels(panels: Sequence[Panel]) -> list[str]:
    """Who is in all of a stress's panels; chance has a row in everyone's table."""
    everywhere = set.intersection(*({series.entry for series in panel.series} for panel in panels))
    return [s.entry.label for s in panels[0].series if s.entry in everywhere and s.entry.model != "chance"]


def _new_table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _aligned(scores: Sequence[Score], metric: Metric, mark: Callable[[Score], str] = lambda score: "") -> list[Text]:
    """The cells of a column below its right-aligned head: values below values, intervals (or notes) below intervals.

    Rich drops trailing spaces and would push short cells to the right, so all padding is done here.
    """
    values = [names.format_value(metric, score.value) for score in scores]
    intervals = [names.format_interval(metric, score.ci_low, score.ci_high) for score in scores]
    notes = [f"({mark(score)})" if mark(score) else "" for score in scores]
    wide = max(map(len, intervals), default=0)
    tails = [
        f" {interval:>{wide}}" if interval else f" {note}" if note else ""
        for interval, note in zip(intervals, notes, strict=True)
    ]
    after = max(map(len, tails), default=0)
    before = max(*map(len, values), len(names.metric_label(metric)) - after)
    texts = []
    for score, value, tail in zip(scores, values, tails, strict=True):
        text = Text(" " * (before - len(value)), justify="left")
        text.append(value, style={1: "bold", 2: "underline"}.get(score.place, ""))
        texts.append(text.append(tail, style="dim"))
    return texts
