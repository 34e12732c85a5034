"""The leaderboard and a run's curves for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import entries, names
from robustbench_msa.reporting.board import Board, Column, PublishedRow, PublishedScore, Row, Score, groups
from robustbench_msa.reporting.curves_figure import Panel, curves_info
from robustbench_msa.reporting.landscape_figure import LandscapeInfo, landscape_info

WIDTH = 100
GREY = "bright_black"
"""Of numbers that were obtained elsewhere."""


def to_rich(board: Board, width: int = WIDTH, interval: str = names.INTERVAL) -> Group:
    """One table per stress and grid, more where its scores do not fit into ``width`` characters; then what they cannot
    say: caption, footnotes, and how the checkpoints were trained and selected.
    """
    tables: list[Table | Text] = []
    for group in groups(board.columns, 3):
        tables += _fitting(board, group, width)
    below = [board.caption(interval), f"{board.about_published}." if board.about_published else ""]
    below += [f"({i}) {note}" for i, note in enumerate(board.notes, 1)]
    return Group(*tables, *(Text(text, style="dim") for text in below if text), *_trained_table(board))


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


def _board_table(board: Board, places: Sequence[int]) -> Table:
    columns = [board.columns[j] for j in places]
    several = len({column.score for column in board.columns if column.over[:3] == columns[0].over[:3]}) > 1
    table = _new_table(_title(columns[0], several))
    has_recipe = len({row.entry.recipe for row in board.models}) > 1
    if board.has_ranks:
        table.add_column("Rank", no_wrap=True)
    table.add_column("Model", overflow="fold")
    if has_recipe:
        table.add_column("Recipe", overflow="fold")
    published = [row for row in board.published if any(row.scores[j] is not None for j in places)]
    cells = []
    for j, column in zip(places, columns, strict=True):
        head = f"{column.score_label} {column.head}" if several else column.head
        table.add_column(head, justify="right", no_wrap=True)
        own = [_cell(board, row.scores[j], column) for row in board.rows]
        cells.append(aligned([*own, *(_printed(board, row.scores[j]) for row in published)], head))
    rows = [_left(board, row, has_recipe) for row in board.rows]
    rows += [_left_published(board, row, has_recipe) for row in published]
    starts = {len(board.models), len(board.rows)}
    for i, left in enumerate(rows):
        if i in starts and i:
            table.add_section()
        table.add_row(*left, *(column[i] for column in cells))
    return table


def _title(column: Column, several: bool) -> str:
    """The stress and its grid; the score too, where it is the only one."""
    where = ", ".join(filter(None, (column.title, column.grid_label)))
    return where if several or not column.grid else f"{where}: {column.score_label}"


def _left(board: Board, row: Row, has_recipe: bool) -> list[Text]:
    left = [Text(row.entry.name + (f" ({board.mark(row)})" if row.note else ""))]
    left += [Text(row.entry.recipe)] if has_recipe else []
    return [*([Text(row.scores[board.by].rank_interval)] if board.has_ranks else []), *left]


def _left_published(board: Board, row: PublishedRow, has_recipe: bool) -> list[Text]:
    blank = [Text("")]
    return [*(blank if board.has_ranks else []), Text(row.name, style=GREY), *(blank if has_recipe else [])]


def _cell(board: Board, score: Score, column: Column) -> Cell:
    style = {1: "bold", 2: "underline"}.get(score.place, "")
    interval = column.format_interval(score.ci_low, score.ci_high)
    return Cell(column.format(score.value), interval, board.mark(score), score.tie_mark, style)


def _printed(board: Board, score: PublishedScore | None) -> Cell:
    return Cell("") if score is None else Cell(score.printed, "", board.mark(score), style=GREY)


def _trained_table(board: Board) -> Iterator[Table]:
    """How the rows came about, where that is known."""
    known = [(row, row.trained) for row in board.models if row.trained is not None]
    if not known:
        return
    table = _new_table("Training and selection")
    has_recipe = any(row.entry.recipe for row, _ in known)
    for head in ("Model", *(["Recipe"] if has_recipe else []), "Training seeds", "Selected on"):
        table.add_column(head, overflow="fold")
    table.add_column("Parameters", justify="right", no_wrap=True)
    for row, trained in known:
        who = [row.entry.name, *([row.entry.recipe] if has_recipe else [])]
        told = [*who, trained.seeds_label, trained.selection_label, trained.parameters_label]
        table.add_row(*map(Text, told))
    yield table


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
        points = [*(point[1:] for point in series.points()), (level, None, None)]
        cells.append(aligned([_point(panel.metric, *point) for point in points], names.metric_label(panel.metric)))
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


def _point(metric: Metric, value: float | None, low: float | None, high: float | None) -> Cell:
    return Cell(names.format_value(metric, value), names.format_interval(metric, low, high))


class Cell(NamedTuple):
    """What is printed in a cell. mark: the number of its footnote; tie: beside the value; style: of the value."""

    value: str
    interval: str = ""
    mark: str = ""
    tie: str = ""
    style: str = ""


def aligned(cells: Sequence[Cell], head: str) -> list[Text]:
    """The cells of a column below its right-aligned head: values below values, intervals (or notes) below intervals.

    Rich drops trailing spaces and would push short cells to the right, so all padding is done here.
    """
    tie = max((len(cell.tie) for cell in cells), default=0)
    wide = max((len(cell.interval) for cell in cells), default=0)
    tails = [_tail(cell, tie, wide) for cell in cells]
    after = max(map(len, tails), default=0)
    before = max(*(len(cell.value) for cell in cells), len(head) - after)
    texts = []
    for cell, tail in zip(cells, tails, strict=True):
        text = Text(" " * (before - len(cell.value)), justify="left")
        text.append(cell.value, style=cell.style)
        texts.append(text.append(tail, style="dim"))
    return texts


def _tail(cell: Cell, tie: int, wide: int) -> str:
    mark = f"({cell.mark})" if cell.mark else ""
    rest = f"{cell.interval:>{wide}} {mark}".rstrip() if cell.interval else mark
    return f"{cell.tie:<{tie}}" + (f" {rest}" if rest else "")
