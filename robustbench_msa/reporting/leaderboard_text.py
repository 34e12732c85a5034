"""The leaderboard as Markdown, as LaTeX (booktabs) and as a tidy frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
import pandas as pd

from robustbench_msa.reporting import names
from robustbench_msa.reporting.board import Board, Column, Row, Score


def to_markdown(board: Board, interval: str = names.INTERVAL) -> str:
    """A GitHub table, padded so that it reads as plain text too; caption above, footnotes below."""
    has_recipe = _has_recipe(board)
    heads = [f"{c.title} {c.grid_label} {names.metric_label(c.metric)}" for c in board.columns]
    header = ["Model", *(["Recipe"] if has_recipe else []), *heads]
    n_left = len(header) - len(heads)
    body = [
        [
            row.entry.name,
            *([row.entry.recipe] if has_recipe else []),
            *(_markdown_score(board, *cell) for cell in zip(row.scores, board.columns, strict=True)),
        ]
        for row in board.rows
    ]
    lines = [[escape_markdown(cell) for cell in header]]
    lines += [[*map(escape_markdown, cells[:n_left]), *cells[n_left:]] for cells in body]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [f":{'-' * (w - 1)}" if i < n_left else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    table = [_markdown_line(cells, widths, n_left) for cells in (lines[0], rule, *lines[1:])]
    notes = [f"({i}) {escape_markdown(note)}" for i, note in enumerate(board.notes, 1)]
    paragraphs = [escape_markdown(board.caption(interval)), "\n".join(table), "  \n".join(notes)]
    return "\n\n".join(filter(None, paragraphs))


def to_latex(board: Board, label: str = "tab:robustness", interval: str = names.INTERVAL) -> str:
    """A booktabs table (``\\usepackage{booktabs}``): values, and below them their intervals in tiny type.

    Up to nine columns fit a page of two columns; take fewer metrics or stresses for more.
    """
    n_left = 2 if _has_recipe(board) else 1
    environment = "table" if len(board.columns) <= 3 else "table*"
    models = [row for row in board.rows if not row.entry.is_reference]
    references = [row for row in board.rows if row.entry.is_reference]
    blocks = [[_latex_row(board, row, n_left) for row in block] for block in (models, references) if block]
    notes = [f"\\par\\footnotesize \\textsuperscript{{{i}}}~{escape_latex(n)}" for i, n in enumerate(board.notes, 1)]
    lines = [
        f"\\begin{{{environment}}}[t]",
        "\\centering",
        "\\small",
        *(["\\setlength{\\tabcolsep}{3pt}"] if len(board.columns) > 6 else []),
        f"\\caption{{{escape_latex(board.caption(interval))}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{@{{}}{'l' * n_left}{'r' * len(board.columns)}@{{}}}}",
        "\\toprule",
        *_latex_header(board.columns, n_left),
        "\\midrule",
        "\n\\midrule\n".join("\n\\addlinespace\n".join(block) for block in blocks),
        "\\bottomrule",
        "\\end{tabular}",
        *notes,
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines)


def to_frame(board: Board) -> pd.DataFrame:
    """One row a cell, in the units of the store; ``score`` says whether the value is an nAUC or a mean."""
    return pd.DataFrame(
        [
            (
                *(entry.model, entry.recipe, entry.train_seed, entry.checkpoint, *column.over, column.metric.name),
                *("grid_mean" if column.by_condition else "nauc", *score),
            )
            for entry, scores in board.rows
            for column, score in zip(board.columns, scores, strict=True)
        ],
        columns=_FRAME_COLUMNS,
    ).astype(_FRAME_TYPES)


_FRAME_COLUMNS = [
    *("model", "recipe", "train_seed", "checkpoint", "stress", "params", "grid", "metric", "score", *Score._fields)
]
_FRAME_TYPES = dict.fromkeys(("train_seed", "n_groups", "n_seeds", "n_train_seeds"), "Int64")


_LATEX = {special: f"\\{special}" for special in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "ρ": r"$\rho$",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
    "—": "---",
    "–": "--",
    "\n": " ",
    "\t": " ",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is.

    >>> print(escape_latex("my_model 5 % & ↑ {a}"))
    my\\_model 5 \\% \\& $\\uparrow$ \\{a\\}
    """
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Text that a Markdown table prints as it is.

    >>> print(escape_markdown("a|b_c <d>"))
    a\\|b\\_c &lt;d&gt;
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain)


def _has_recipe(board: Board) -> bool:
    return any(row.entry.recipe for row in board.rows)


def _markdown_score(board: Board, score: Score, column: Column) -> str:
    value = names.format_value(column.metric, score.value)
    value = {1: f"**{value}**", 2: f"<ins>{value}</ins>"}.get(score.place, value)
    interval = names.format_interval(column.metric, score.ci_low, score.ci_high)
    mark = board.mark(score)
    return " ".join(filter(None, [value, f"<sub>{interval}</sub>" if interval else "", f"({mark})" if mark else ""]))


def _markdown_line(cells: Sequence[str], widths: Sequence[int], n_left: int) -> str:
    padded = [f"{c:<{w}}" if i < n_left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return f"| {' | '.join(padded)} |"


def _latex_header(columns: Sequence[Column], n_left: int) -> list[str]:
    """Stresses and their grids with a rule under each, then metrics; what stands in their brackets is a line below."""
    groups = [list(group) for _, group in groupby(columns, key=lambda column: column.over)]
    blank = [""] * n_left
    ends = np.cumsum([n_left, *map(len, groups)])
    labels = [names.metric_label(column.metric).split(" ") for column in columns]
    heads = [f"{label[0]} {label[-1]}" for label in labels]  # name and arrow
    details = [" ".join(label[1:-1]) for label in labels]
    return [
        _latex_line([*blank, *(_latex_span(group, group[0].title) for group in groups)]),
        _latex_line([*blank, *(_latex_span(group, group[0].grid_label) for group in groups)]),
        " ".join(f"\\cmidrule(lr){{{start + 1}-{end}}}" for start, end in pairwise(ends)),
        _latex_line(["Model", "Recipe"][:n_left] + [escape_latex(head) for head in heads]),
        *(
            [_latex_line(blank + [f"{{\\scriptsize {escape_latex(d)}}}" if d else "" for d in details])]
            if any(details)
            else []
        ),
    ]


def _latex_span(group: Sequence[Column], text: str) -> str:
    return f"\\multicolumn{{{len(group)}}}{{c}}{{{escape_latex(text)}}}"


def _latex_row(board: Board, row: Row, n_left: int) -> str:
    head = [escape_latex(text) for text in (row.entry.name, row.entry.recipe or names.NULL)[:n_left]]
    pairs = list(zip(row.scores, board.columns, strict=True))
    values = _latex_line([*head, *(_latex_score(board, score, column) for score, column in pairs)])
    intervals = [names.format_interval(column.metric, score.ci_low, score.ci_high) for score, column in pairs]
    tiny = [f"{{\\tiny {_latex_number(text)}}}" if text else "" for text in intervals]
    return f"{values}\n{_latex_line([''] * n_left + tiny)}" if any(tiny) else values


def _latex_score(board: Board, score: Score, column: Column) -> str:
    value = _latex_number(names.format_value(column.metric, score.value))
    value = {1: f"\\textbf{{{value}}}", 2: f"\\underline{{{value}}}"}.get(score.place, value)
    return value + (f"\\textsuperscript{{{board.mark(score)}}}" if score.note else "")


def _latex_number(text: str) -> str:
    """A minus sign in place of the hyphen."""
    return escape_latex(text.replace("-", "−"))


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
