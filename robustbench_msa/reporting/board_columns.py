"""Which columns a leaderboard has, in what order, and which one sorts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from corruptions import InputError, Protocol
from robustbench_msa.analysis.grid_report import SCORES
from robustbench_msa.analysis.metrics import Metric, get_profile
from robustbench_msa.reporting import entries, names
from robustbench_msa.reporting.columns import CLEAN, MEANS, Column, check_scores

Over = tuple[str, str, str]
"""stress, params, grid"""
BY_PROTOCOL = ""
"""Stands for the score that the protocols of a stress sum it up by, or nauc."""


def choose_metrics(frame: pd.DataFrame, wanted: Sequence[str] | None, words: set[str]) -> tuple[Metric, ...]:
    """Those asked for, and one that is only sorted by."""
    chosen = entries.choose_metrics(frame, wanted)
    profile = get_profile(str(frame["profile"].iloc[0]))
    there = set(frame["metric"]) & words - {metric.name for metric in chosen}
    return (*chosen, *(metric for metric in profile.metrics if metric.name in there))


def choose_scores(wanted: Sequence[str] | None, words: set[str]) -> tuple[str, ...]:
    """Those asked for, and one that is only sorted by; BY_PROTOCOL where none was asked for."""
    chosen = check_scores(tuple(wanted)) if wanted else (BY_PROTOCOL,)
    asked = words | {score for score, mean in MEANS.items() if mean in words}
    return (*chosen, *(name for name in (*SCORES, CLEAN) if name in asked and name not in chosen))


def protocol_scores(manifest: Mapping[str, Any]) -> dict[Over, str]:
    """What each stress and grid is summed up by, where its protocols agree. A text that is no protocol says nothing."""
    found: dict[Over, set[str]] = {}
    for name, text in manifest.get("protocols", {}).items():
        try:
            protocol = Protocol.parse(str(text), str(name))
        except InputError:
            continue
        for stress, grid in protocol.stresses:
            found.setdefault((stress.name, stress.params, str(grid)), set()).add(protocol.score)
    return {over: scores.pop() for over, scores in found.items() if len(scores) == 1}


def make_columns(
    frame: pd.DataFrame, metrics: Sequence[Metric], scores: Sequence[str], defaults: Mapping[Over, str]
) -> tuple[Column, ...]:
    """Every combination that somebody has: clean input, then by stress, parameters, grid, score and metric, then means
    over stresses.

    Args:
        defaults: what BY_PROTOCOL means, by stress and grid; nauc where it is silent.
    """
    found = set(zip(frame["stress"], frame["params"], frame["grid"], frame["metric"], strict=True))
    order = [*names.STRESSES, *sorted({stress for stress, *_ in found} - set(names.STRESSES))]
    overs = sorted({key[:3] for key in found}, key=lambda key: (order.index(key[0]), key))
    columns: dict[Column, None] = {}
    if CLEAN in scores:
        columns |= dict.fromkeys(Column(CLEAN, "", "", metric, CLEAN) for metric in metrics)
    for over in overs:
        known = [metric for metric in metrics if (*over, metric.name) in found]
        for score in scores:
            if score != CLEAN:
                chosen = score or defaults.get(over, "nauc")
                columns |= dict.fromkeys(_column(over, metric, chosen) for metric in known)
    return (*columns, *_means(list(columns)))


def means_over(columns: Sequence[Column], mean: Column) -> list[int]:
    """Places of the columns that a mean over stresses is made of."""
    return [j for j, c in enumerate(columns) if MEANS.get(c.score) == mean.score and c.metric == mean.metric]


def sorting_column(columns: Sequence[Column], words: set[str]) -> int:
    """The first column of which all words are true.

    Raises:
        InputError: there is none, or it is a place, which is neither good nor bad.
    """
    for i, column in enumerate(columns):
        if words <= column.words:
            column.standing(0.0, "")
            return i
    there = dict.fromkeys(word for column in columns for word in column.key.split())
    raise InputError(
        f"leaderboard: no column to sort by {' '.join(sorted(words))!r}; expected a stress, a grid, a metric, a score "
        f"or several of them, of: {', '.join(there)} (another score: {', '.join((*SCORES, CLEAN))})"
    )


def _column(over: Over, metric: Metric, score: str) -> Column:
    column = Column(*over, metric, score)
    return column._replace(score="grid_mean") if score == "nauc" and column.by_condition else column


def _means(columns: Sequence[Column]) -> list[Column]:
    """mCE and relative mCE of each metric, where there are several stresses."""
    found = dict.fromkeys((column.metric, MEANS[column.score]) for column in columns if column.score in MEANS)
    made = [Column("", "", "", metric, score) for metric, score in found]
    return [mean for mean in made if len({columns[j].over[:2] for j in means_over(columns, mean)}) > 1]
