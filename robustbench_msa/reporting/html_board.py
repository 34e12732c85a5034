"""The leaderboard as the HTML report's table: columns under stresses, values that can be sorted, notes for nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robustbench_msa.reporting.board import Board, Column, Row, Score, groups
from robustbench_msa.reporting.html_parts import Roster


class Head(NamedTuple):
    """One column. place: over all columns; over: place of its heading; first: which order a first click gives."""

    place: int
    over: int
    metric: str
    label: str
    name: str
    first: str
    sorted: str


class Over(NamedTuple):
    """The columns under one heading."""

    place: int
    title: str
    grid: str
    heads: tuple[Head, ...]


class Field(NamedTuple):
    """One cell. sort: the value in full, empty for null; why: what hovering says; mark: the number of its footnote."""

    head: Head
    value: str
    interval: str
    sort: str
    place: int
    tie: str
    why: str
    mark: str


class Line(NamedTuple):
    """rank: the interval of its rank in the column that the board is sorted by."""

    entry: int
    label: str
    reference: bool
    why: str
    mark: str
    rank: str
    fields: tuple[Field, ...]


class Table(NamedTuple):
    """metrics: (name, label) of those that occur. ranked: the column that ranks are of, empty without ranks."""

    overs: tuple[Over, ...]
    lines: tuple[Line, ...]
    metrics: tuple[tuple[str, str], ...]
    ranked: str
    notes: tuple[str, ...]
    caption: str


def board_table(board: Board, roster: Roster) -> Table:
    places = groups(board.columns)
    over_of = {place: over for over, group in enumerate(places) for place in group}
    heads = [_head(column, i, over_of[i], i == board.by) for i, column in enumerate(board.columns)]
    by = board.sorted_by
    return Table(
        overs=tuple(_over(i, [heads[p] for p in group], board.columns[group[0]]) for i, group in enumerate(places)),
        lines=tuple(_line(board, row, [heads[p] for group in places for p in group], roster) for row in board.rows),
        metrics=tuple(dict.fromkeys((c.metric.name, c.metric.label) for c in board.columns)),
        ranked=f"{by.where}, {by.metric.label}" if board.has_ranks else "",
        notes=board.notes,
        caption=board.caption(),
    )


def _over(place: int, heads: Sequence[Head], column: Column) -> Over:
    grid = f"{column.score_label} {column.grid_label}".strip().replace(",", ", ")
    return Over(place, column.title, grid, tuple(heads))


def _head(column: Column, place: int, over: int, sorts: bool) -> Head:
    first = "ascending" if column.higher_is_better is False else "descending"
    name = f"{column.where}, {column.metric.label}, {column.score_label}"
    return Head(place, over, column.metric.name, column.head, name, first, first if sorts else "none")


def _line(board: Board, row: Row, heads: Sequence[Head], roster: Roster) -> Line:
    fields = tuple(_field(board, row.scores[head.place], board.columns[head.place], head) for head in heads)
    rank = row.scores[board.by].rank_interval
    entry = row.entry
    return Line(roster.index(entry), entry.label, entry.is_reference, row.note, board.mark(row), rank, fields)


def _field(board: Board, score: Score, column: Column, head: Head) -> Field:
    return Field(
        head=head,
        value=column.format(score.value),
        interval=column.format_interval(score.ci_low, score.ci_high),
        sort="" if score.value is None else repr(score.value),
        place=score.place,
        tie=score.tie_mark,
        why=score.note or _rank(score),
        mark=board.mark(score),
    )


def _rank(score: Score) -> str:
    if score.rank is None:
        return ""
    return f"rank {score.rank} of {score.n_ranked}, 95 % interval {score.rank_interval}"
