"""The leaderboard: who stands where under every stress, by any score over a grid.

Made here from the tidy table; board.py says what it holds, leaderboard_text, leaderboard_latex and
leaderboard_terminal write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group

from corruptions import InputError
from robustbench_msa.analysis.corruption_error import mean_ce
from robustbench_msa.analysis.evaluated import Evaluated
from robustbench_msa.analysis.standings import Standings
from robustbench_msa.reporting import entries, leaderboard_latex, leaderboard_terminal, leaderboard_text, names
from robustbench_msa.reporting.board import Board, Row, Score
from robustbench_msa.reporting.board_columns import (
    choose_metrics,
    choose_scores,
    make_columns,
    means_over,
    protocol_scores,
    sorting_column,
)
from robustbench_msa.reporting.columns import CLEAN, MEANS, Column, read_score
from robustbench_msa.reporting.entries import Entry, Facts
from robustbench_msa.reporting.leaderboard_terminal import curve_tables
from robustbench_msa.reporting.published_rows import published_rows
from robustbench_msa.reporting.ranked import who, with_places, with_standings
from robustbench_msa.reporting.trained import Checkpoints, find_trained

__all__ = ["Leaderboard", "curve_tables", "leaderboard"]


class Leaderboard(Board):
    """A board that can write itself."""

    __slots__ = ()

    def to_rich(self, width: int = leaderboard_terminal.WIDTH) -> Group:
        return leaderboard_terminal.to_rich(self, width)

    def to_markdown(self) -> str:
        return leaderboard_text.to_markdown(self)

    def to_latex(self, label: str = "tab:robustness") -> str:
        return leaderboard_latex.to_latex(self, label)

    def to_frame(self) -> pd.DataFrame:
        """One row a cell, in the units of the store, published ones last; columns are those of docs/leaderboard.md."""
        return leaderboard_text.to_frame(self)

    def to_csv(self) -> str:
        return self.to_frame().to_csv(index=False, lineterminator="\n").rstrip("\n")

    def to_json(self) -> str:
        """The rows of ``to_frame`` as a list of objects; nulls stay null."""
        text: str = self.to_frame().to_json(orient="records", double_precision=15, indent=1, force_ascii=False)
        return text


def leaderboard(
    nauc: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    sort: str | None = None,
    *,
    scores: Sequence[str] | None = None,
    manifest: Mapping[str, Any] | None = None,
    tables: Evaluated | None = None,
    published: pd.DataFrame | None = None,
) -> Leaderboard:
    """The board of one dataset, split and profile.

    Args:
        nauc: the tidy table of scores over grids. Means over training seeds are shown where there are any.
        metrics: which, in this order; default the profile's usual ones.
        sort: the words of a column ("missing mae", "missing 0:0.8:0.2 mae worst"): the first column of which all these
            words are true; default the first. A metric or score that is not shown yet is shown too. Best first; null
            last; equal rows by their level (nAUC, or the mean over sets).
        scores: of ``grid_report.SCORES``, or clean. Default: what the protocol of a stress is summed up by, else nauc;
            of available sets, which have no area, nauc means grid_mean.
        manifest: of the run (checkpoints, protocols). tables: its predictions, for ranks and ties.
        published: rows of ``published()`` to show below in grey.

    Raises:
        InputError: no rows, several datasets, an unknown metric or score, or a sort that is true of no column.
    """
    frame = entries.shown(nauc)
    frame = frame.assign(params=frame["params"].fillna(""), grid=frame["grid"].str.replace(" ", ""))
    words, manifest = set((sort or "").split()), manifest or {}
    chosen = choose_metrics(frame, metrics, words)
    frame = frame[frame["metric"].isin([metric.name for metric in chosen])]
    columns = make_columns(frame, chosen, choose_scores(scores, words), protocol_scores(manifest))
    by = sorting_column(columns, words)
    facts = _facts(frame)
    rows = _rows(frame, columns, by, manifest.get("checkpoints", {}), facts.dataset)
    ranked = with_places(rows, columns)
    if tables is not None:
        ranked = with_standings(ranked, columns, Standings(tables, [who(row.entry) for row in ranked]))
    board = Leaderboard(columns, tuple(ranked), columns[by], facts, baseline=_baseline(frame, columns))
    return board if published is None else board._replace(**published_rows(board, published))


def _rows(frame: pd.DataFrame, columns: Sequence[Column], by: int, checkpoints: Checkpoints, dataset: str) -> list[Row]:
    """Best first, references last; equal rows by their level."""
    means = {c.metric.name: mean_ce(frame, c.metric.name) for c in columns if not c.stress}
    rows, levels = [], []
    for entry in entries.find_entries(frame, {column.stress for column in columns} - {CLEAN, ""}):
        own = entries.rows_of(frame, entry)
        scores = [
            _score(own, entry, column) if column.stress else _mean(means[column.metric.name], entry, column)
            for column in columns
        ]
        rows.append(Row(entry, tuple(scores), find_trained(entry, checkpoints, dataset)))
        levels.append(_level(own, entry, columns, by))
    order = sorted(range(len(rows)), key=lambda i: _sort_key(rows[i], by, columns[by], levels[i]))
    return [rows[i] for i in order]


def _mean(means: pd.DataFrame, entry: Entry, column: Column) -> Score:
    """mCE or relative mCE; null, with the reason, where a stress has none."""
    (row,) = entries.rows_of(means, entry).to_dict("records")
    value, note = entries.number(row[column.score]), str(row["note"] or "")
    (score,) = (score for score, mean in MEANS.items() if mean == column.score)
    own = [part for part in note.split("; ") if part.startswith(f"{score} ")]  # the note is on both means
    return Score(value, None, None, note="" if value is not None else "; ".join(own) or note)


def _facts(frame: pd.DataFrame) -> Facts:
    """Seeds are those of grids with a severity axis, where there are any: available sets have one realisation."""
    drawn = frame[~frame["grid"].str[:1].str.isalpha()]
    return entries.find_facts(frame if drawn.empty else drawn)


def _baseline(frame: pd.DataFrame, columns: Sequence[Column]) -> str:
    """The lines that corruption errors divide by, where some are shown."""
    if "baseline" not in frame or not {column.score for column in columns} & {*MEANS}:
        return ""
    return " or ".join(sorted(map(str, frame["baseline"].dropna().unique())))


def _rows_at(rows: pd.DataFrame, entry: Entry, column: Column) -> pd.DataFrame:
    """The row of a column; of the untouched input any, for it is the same under all stresses."""
    rows = rows[rows["metric"] == column.metric.name]
    if column.score == CLEAN:
        return rows[rows["clean"].notna()].iloc[:1]
    here = (rows["stress"] == column.stress) & (rows["params"] == column.params) & (rows["grid"] == column.grid)
    if here.sum() > 1:
        raise InputError(f"leaderboard: {entry.label} has {here.sum()} scores of {column.key}; select one run")
    return rows[here]


def _score(rows: pd.DataFrame, entry: Entry, column: Column) -> Score:
    rows = _rows_at(rows, entry, column)
    if rows.empty:
        return Score(None, None, None, note="not run")
    row = rows.iloc[0].to_dict()
    read = read_score(row, column)
    groups, seeds, train_seeds = (entries.count(row[c]) for c in ("n_groups", "n_seeds", "n_train_seeds"))
    return Score(read.value, read.low, read.high, 0, read.reason, groups, seeds, train_seeds)


def _level(rows: pd.DataFrame, entry: Entry, columns: Sequence[Column], by: int) -> float:
    """How good it is over the grid, whatever the score: what sorts rows that the score does not tell apart.

    With it a constant, which has no retention, stays below a model that is better everywhere and has none either.
    """
    column = columns[by]
    if not column.stress:
        return sum(_level(rows, entry, columns, j) for j in means_over(columns, column))
    level = column if column.score == CLEAN else column._replace(score="grid_mean" if column.by_condition else "nauc")
    at = _rows_at(rows, entry, column)
    value = None if at.empty else read_score(at.iloc[0].to_dict(), level).value
    return level.standing(value, "")


def _sort_key(row: Row, by: int, column: Column, level: float) -> tuple[int, float, float, int]:
    score = row.scores[by]
    reference = names.REFERENCES.index(row.entry.model) + 1 if row.entry.is_reference else 0
    return reference, -column.standing(score.value, score.note), -level, row.entry.order
