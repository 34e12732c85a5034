"""The leaderboard as Markdown and as a tidy frame."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from robustbench_msa.reporting import names
from robustbench_msa.reporting.board import Board, Column, PublishedScore, Row, Score
from robustbench_msa.reporting.caption import trained_sentences
from robustbench_msa.reporting.trained import Trained


def to_markdown(board: Board, interval: str = names.INTERVAL) -> str:
    """A GitHub table, padded so that it reads as plain text too; caption above, footnotes and training below."""
    left = [*(["Rank"] if board.has_ranks else []), "Model", *(["Recipe"] if board.has_recipe else [])]
    header = [*map(escape_markdown, left), *(escape_markdown(_head(column)) for column in board.columns)]
    rows = [_markdown_row(board, row, len(left)) for row in board.rows] + _markdown_published(board, len(left))
    notes = [f"({i}) {escape_markdown(note)}" for i, note in enumerate(board.notes, 1)]
    paragraphs = [
        escape_markdown(board.caption(interval)),
        _markdown_table(header, rows, len(left)),
        escape_markdown(f"{board.about_published}.") if board.about_published else "",
        "  \n".join([*notes, *map(escape_markdown, trained_sentences(board))]),
    ]
    return "\n\n".join(filter(None, paragraphs))


def to_frame(board: Board) -> pd.DataFrame:
    """One row a cell, in the units of the store: models, references and then published numbers."""
    rows = [*_own_cells(board), *_published_cells(board)]
    return pd.DataFrame(rows, columns=_FRAME_COLUMNS).astype(_FRAME_TYPES)


_WHO = ("kind", "model", "recipe", "train_seed", "checkpoint")
_WHERE = ("stress", "params", "grid", "metric", "score")
_TRAINED = ("train_seeds", "selected_on", "selected_by", "parameters", "flags")
_FRAME_COLUMNS = [*_WHO, *_WHERE, *Score._fields, *_TRAINED, "source", "printed"]
_WHOLE = ("train_seed", "place", "n_groups", "n_seeds", "n_train_seeds", "rank", "rank_low", "rank_high", "n_ranked")
_FRAME_TYPES = {**dict.fromkeys(_WHOLE, "Int64"), "tied_with_best": "boolean"}
_FRAME_TYPES |= dict.fromkeys(("value", "ci_low", "ci_high"), "float64")


def _own_cells(board: Board) -> Iterator[dict[str, Any]]:
    for row in board.rows:
        kind = "reference" if row.entry.is_reference else "model"
        who = dict(zip(_WHO, (kind, *row.entry[:4]), strict=True)) | _trained_cells(row.trained)
        for column, score in zip(board.columns, row.scores, strict=True):
            yield {**who, **_where(column), **score._asdict(), "source": "", "printed": ""}


def _published_cells(board: Board) -> Iterator[dict[str, Any]]:
    for row in board.published:
        for column, score in zip(board.columns, row.scores, strict=True):
            if score is not None:
                known = {"value": score.value, "note": score.note, "source": row.source, "printed": score.printed}
                yield {"kind": "published", "model": row.model, **_where(column), **known}


def _where(column: Column) -> dict[str, str]:
    return dict(zip(_WHERE, (*column.over[:3], column.metric.name, column.score), strict=True))


def _trained_cells(trained: Trained | None) -> dict[str, str]:
    if trained is None:
        return dict.fromkeys(_TRAINED, "")
    counts = "" if trained.parameters is None else trained.parameters_label.replace(",", "")
    cells = (" ".join(map(str, trained.seeds)), " ".join(trained.selected_on), "; ".join(trained.selected_by), counts)
    return dict(zip(_TRAINED, (*cells, trained.warning), strict=True))


def escape_markdown(text: str) -> str:
    """Text that a Markdown table prints as it is.

    >>> print(escape_markdown("a|b_c <d>"))
    a\\|b\\_c &lt;d&gt;
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)


def _head(column: Column) -> str:
    score = "" if column.score == "nauc" or not column.grid else column.score_label
    return " ".join(filter(None, (column.where, score, column.head)))


def _markdown_row(board: Board, row: Row, n_left: int) -> list[str]:
    name = escape_markdown(row.entry.name) + (f" ({board.mark(row)})" if row.note else "")
    left = [name, *([escape_markdown(row.entry.recipe)] if board.has_recipe else [])]
    if board.has_ranks:
        left.insert(0, row.scores[board.by].rank_interval)
    return left + [_markdown_score(board, *cell) for cell in zip(row.scores, board.columns, strict=True)]


def _markdown_score(board: Board, score: Score, column: Column) -> str:
    value = column.format(score.value)
    value = {1: f"**{value}**", 2: f"<ins>{value}</ins>"}.get(score.place, value) + score.tie_mark
    interval = column.format_interval(score.ci_low, score.ci_high)
    mark = board.mark(score)
    return " ".join(filter(None, [value, f"<sub>{interval}</sub>" if interval else "", f"({mark})" if mark else ""]))


def _markdown_published(board: Board, n_left: int) -> list[list[str]]:
    """In italics: Markdown has no grey."""
    name_at = 1 if board.has_ranks else 0
    rows = []
    for row in board.published:
        left = [""] * n_left
        left[name_at] = f"*{escape_markdown(row.name)}*"
        rows.append(left + [_markdown_printed(board, score) for score in row.scores])
    return rows


def _markdown_printed(board: Board, score: PublishedScore | None) -> str:
    if score is None:
        return ""
    return f"*{escape_markdown(score.printed)}*" + (f" ({board.mark(score)})" if score.note else "")


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], n_left: int) -> str:
    lines = [header, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [f":{'-' * (w - 1)}" if i < n_left else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    return "\n".join(_markdown_line(cells, widths, n_left) for cells in (header, rule, *rows))


def _markdown_line(cells: Sequence[str], widths: Sequence[int], n_left: int) -> str:
    padded = [f"{c:<{w}}" if i < n_left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return f"| {' | '.join(padded)} |"
