"""The leaderboard: who stands where under every stress, one score per grid.

Made here from the tidy table; board.py says what it holds, leaderboard_text and leaderboard_terminal write it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.console import Group

from corruptions import InputError
from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import entries, leaderboard_terminal, leaderboard_text, names
from robustbench_msa.reporting.board import Board, Column, Row, Score
from robustbench_msa.reporting.entries import Entry, Facts
from robustbench_msa.reporting.leaderboard_terminal import curve_tables

__all__ = ["Leaderboard", "curve_tables", "leaderboard"]


class Leaderboard(Board):
    """A board that can write itself."""

    __slots__ = ()

    def to_rich(self, width: int = leaderboard_terminal.WIDTH) -> Group:
        return leaderboard_terminal.to_rich(self, width)

    def to_markdown(self) -> str:
        return leaderboard_text.to_markdown(self)

    def to_latex(self, label: str = "tab:robustness") -> str:
        return leaderboard_text.to_latex(self, label)

    def to_frame(self) -> pd.DataFrame:
        """One row a cell, in the units of the store; ``score`` says whether the value is an nAUC or a mean."""
        return leaderboard_text.to_frame(self)

    def to_csv(self) -> str:
        return self.to_frame().to_csv(index=False, lineterminator="\n").rstrip("\n")


def leaderboard(nauc: pd.DataFrame, metrics: Sequence[str] | None = None, sort: str | None = None) -> Leaderboard:
    """The board of one dataset, split and profile.

    Args:
        nauc: the tidy table of scores over grids. Means over training seeds are shown where there are any.
        metrics: which, in this order; default the profile's usual ones.
        sort: a stress, a metric, or both and a grid ("missing mae", "missing 0:0.8:0.2 mae"): the first column of
            which all these words are true; default the first. Best first, by the metric's direction; null last.

    Raises:
        InputError: no rows, several datasets, an unknown metric, or a sort that is true of no column.
    """
    frame = entries.shown(nauc)
    frame = frame.assign(params=frame["params"].fillna(""), grid=frame["grid"].str.replace(" ", ""))
    chosen = entries.choose_metrics(frame, metrics)
    frame = frame[frame["metric"].isin([metric.name for metric in chosen])]
    columns = _columns(frame, chosen)
    rows = []
    for entry in entries.find_entries(frame, {column.stress for column in columns}):
        own = entries.rows_of(frame, entry)
        rows.append(Row(entry, tuple(_score(own, entry, column) for column in columns)))
    by = _sorting_column(columns, sort)
    ranked = _with_places(sorted(rows, key=lambda row: _sort_key(row, by, columns[by].metric)), columns)
    return Leaderboard(columns, tuple(ranked), columns[by], _facts(frame))


def _facts(frame: pd.DataFrame) -> Facts:
    """Seeds are those of grids with a severity axis, where there are any: available sets have one realisation."""
    drawn = frame[~frame["grid"].str[:1].str.isalpha()]
    return entries.find_facts(frame if drawn.empty else drawn)


def _columns(frame: pd.DataFrame, metrics: Sequence[Metric]) -> tuple[Column, ...]:
    """Every combination that somebody has, by stress, parameters, grid and then metric."""
    found = set(zip(frame["stress"], frame["params"], frame["grid"], frame["metric"], strict=True))
    order = [*names.STRESSES, *sorted({stress for stress, *_ in found} - set(names.STRESSES))]
    over = sorted({key[:3] for key in found}, key=lambda key: (order.index(key[0]), key))
    return tuple(Column(*key, metric) for key in over for metric in metrics if (*key, metric.name) in found)


def _score(rows: pd.DataFrame, entry: Entry, column: Column) -> Score:
    here = (rows["stress"] == column.stress) & (rows["params"] == column.params) & (rows["grid"] == column.grid)
    rows = rows[here & (rows["metric"] == column.metric.name)]
    if len(rows) > 1:
        raise InputError(f"leaderboard: {entry.label} has {len(rows)} scores of {column.key}; select one run")
    if rows.empty:
        return Score(None, None, None, note="not run")
    row = rows.iloc[0]
    value, low, high = (entries.number(row[c]) for c in ("nauc", "ci_low", "ci_high"))
    if value is None and column.by_condition:
        value, low, high = (entries.number(row.get(c)) for c in ("grid_mean", "grid_mean_low", "grid_mean_high"))
    note = row["note"].strip() if isinstance(row["note"], str) else ""
    if value is None:
        note = note or "undefined"
    elif low is not None or column.by_condition:  # the note is on something that is not shown here, such as retention
        note = ""
    counts = (entries.count(row[c]) for c in ("n_groups", "n_seeds", "n_train_seeds"))
    return Score(value, low, high, 0, note, *counts)


def _sorting_column(columns: Sequence[Column], sort: str | None) -> int:
    words = set((sort or "").split())
    for i, column in enumerate(columns):
        if words <= {column.stress, *column.key.split()}:
            return i
    keys = "; ".join(column.key for column in columns)
    raise InputError(f"leaderboard: no column to sort by {sort!r}; expected a stress, a metric or both, of: {keys}")


def _sort_key(row: Row, by: int, metric: Metric) -> tuple[int, int, float, int]:
    value = row.scores[by].value
    goodness = 0.0 if value is None else -value if metric.higher_is_better else value
    reference = names.REFERENCES.index(row.entry.model) + 1 if row.entry.is_reference else 0
    return reference, int(value is None), goodness, row.entry.order


def _with_places(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Best and second of every column. Places are of printed values, so that equal print is equal place."""
    places = np.zeros((len(rows), len(columns)), dtype=int)
    ranked = [i for i, row in enumerate(rows) if not row.entry.is_reference]
    for j, column in enumerate(columns):
        printed = {i: _printed(rows[i].scores[j], column.metric) for i in ranked if rows[i].scores[j].value is not None}
        levels = sorted(set(printed.values()), reverse=column.metric.higher_is_better)
        for i, value in printed.items():
            places[i, j] = levels.index(value) + 1 if len(printed) > 1 and value in levels[:2] else 0
    return [
        Row(entry, tuple(score._replace(place=int(p)) for score, p in zip(scores, places[i], strict=True)))
        for i, (entry, scores) in enumerate(rows)
    ]


def _printed(score: Score, metric: Metric) -> float:
    return float(names.format_value(metric, score.value))
