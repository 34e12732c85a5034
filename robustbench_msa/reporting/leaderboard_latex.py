"""The leaderboard as a LaTeX table (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from robustbench_msa.reporting import names
from robustbench_msa.reporting.board import Board, Column, PublishedRow, PublishedScore, Row, Score, groups
from robustbench_msa.reporting.caption import trained_sentences

MANY = 6
"""Columns above which type and the space between them are made smaller."""


def to_latex(board: Board, label: str = "tab:robustness", interval: str = names.INTERVAL) -> str:
    """A booktabs table: values, and below them their intervals in tiny type; footnotes and training below.

    Up to nine columns fit a page of two columns; take fewer metrics, scores or stresses for more. What the preamble
    needs is said in the first line.
    """
    left = [*(["Rank"] if board.has_ranks else []), "Model", *(["Recipe"] if board.has_recipe else [])]
    narrow = len(board.columns) <= 3 and len(left) <= 2 and not board.published
    environment, many = "table" if narrow else "table*", len(board.columns) > MANY
    references = [row for row in board.rows if row.entry.is_reference]
    blocks = [[_row(board, row) for row in block] for block in (board.models, references) if block]
    if board.published:
        blocks.append([_published(board, row, left) for row in board.published])
    packages = "booktabs" + (", xcolor" if board.published else "")
    lines = [
        f"% needs \\usepackage{{{packages}}}",
        f"\\begin{{{environment}}}[t]",
        "\\centering",
        "\\footnotesize" if many else "\\small",
        *(["\\setlength{\\tabcolsep}{3pt}"] if many else []),
        f"\\caption{{{escape_latex(board.caption(interval))}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{@{{}}{'l' * len(left)}{'r' * len(board.columns)}@{{}}}}",
        "\\toprule",
        *_header(board.columns, left),
        "\\midrule",
        "\n\\midrule\n".join("\n\\addlinespace\n".join(block) for block in blocks),
        "\\bottomrule",
        "\\end{tabular}",
        *_below(board),
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines)


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
    "†": r"\textdagger{}",
    "α": r"$\alpha$",
    "…": r"\ldots{}",
    "\n": " ",
    "\t": " ",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is.

    >>> print(escape_latex("my_model 5 % & ↑ {a}"))
    my\\_model 5 \\% \\& $\\uparrow$ \\{a\\}
    """
    return "".join(_LATEX.get(character, character) for character in text)


def _header(columns: Sequence[Column], left: Sequence[str]) -> list[str]:
    """Stresses and their grids with a rule under each, scores where there are several, then metrics; what stands in
    their brackets is a line below.
    """
    spans = [[columns[j] for j in places] for places in groups(columns, 3)]
    several = len({column.score for column in columns}) > 1
    blank, ends = [""] * len(left), np.cumsum([len(left), *map(len, spans)])
    heads = [column.head.split(" ") for column in columns]
    arrows = [head.pop() if head[-1] in "↑↓" else "" for head in heads]
    firsts = [" ".join(filter(None, (head[0], arrow))) for head, arrow in zip(heads, arrows, strict=True)]
    details = [" ".join(head[1:]) for head in heads]
    grids = [_span(len(span), span[0].grid_label) for span in spans]
    scores = [_span(len(same), columns[same[0]].score_label) for same in groups(columns)]
    return [
        _line([*blank, *(_span(len(span), span[0].title) for span in spans)]),
        *([_line([*blank, *grids])] if any(span[0].grid_label for span in spans) else []),
        " ".join(f"\\cmidrule(lr){{{start + 1}-{end}}}" for start, end in pairwise(ends)),
        *([_line([*blank, *scores])] if several else []),
        _line([*left, *map(escape_latex, firsts)]),
        *([_line(blank + [_scriptsize(detail) for detail in details])] if any(details) else []),
    ]


def _scriptsize(text: str) -> str:
    return f"{{\\scriptsize {escape_latex(text)}}}" if text else ""


def _span(width: int, text: str) -> str:
    return f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(text)}}}"


def _row(board: Board, row: Row) -> str:
    name = escape_latex(row.entry.name) + _superscript(board.mark(row))
    left = [name, *([escape_latex(row.entry.recipe or names.NULL)] if board.has_recipe else [])]
    if board.has_ranks:
        left.insert(0, escape_latex(row.scores[board.by].rank_interval))
    pairs = list(zip(row.scores, board.columns, strict=True))
    values = _line([*left, *(_score(board, score, column) for score, column in pairs)])
    intervals = [column.format_interval(score.ci_low, score.ci_high) for score, column in pairs]
    tiny = [f"{{\\tiny {_number(text)}}}" if text else "" for text in intervals]
    return f"{values}\n{_line([''] * len(left) + tiny)}" if any(tiny) else values


def _score(board: Board, score: Score, column: Column) -> str:
    value = _number(column.format(score.value))
    value = {1: f"\\textbf{{{value}}}", 2: f"\\underline{{{value}}}"}.get(score.place, value)
    return value + (r"\textsuperscript{\textdagger}" if score.tie_mark else "") + _superscript(board.mark(score))


def _published(board: Board, row: PublishedRow, left: Sequence[str]) -> str:
    cells = ["" if head != "Model" else _grey(escape_latex(row.name)) for head in left]
    return _line([*cells, *("" if score is None else _printed(board, score) for score in row.scores)])


def _printed(board: Board, score: PublishedScore) -> str:
    return _grey(_number(score.printed) + _superscript(board.mark(score)))


def _grey(text: str) -> str:
    return f"\\textcolor{{gray}}{{{text}}}"


def _below(board: Board) -> list[str]:
    """Footnotes, and how the checkpoints were trained."""
    about = [f"{escape_latex(board.about_published)}."] if board.about_published else []
    notes = [f"{_superscript(str(i))}~{escape_latex(note)}" for i, note in enumerate(board.notes, 1)]
    lines = [*about, *notes, *map(escape_latex, trained_sentences(board))]
    if not lines:
        return []
    start = "\\par\\smallskip\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright"
    return [start, " \\\\\n".join(lines), "\\end{minipage}"]


def _superscript(mark: str) -> str:
    return f"\\textsuperscript{{{mark}}}" if mark else ""


def _number(text: str) -> str:
    """A minus sign in place of the hyphen."""
    return escape_latex(text.replace("-", "−"))


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
