"""Best and second of every column as printed, and ranks and ties as tested."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_msa.analysis.standings import Standing, Standings, Who
from robustbench_msa.reporting.board import Row, Score
from robustbench_msa.reporting.columns import CLEAN, Column
from robustbench_msa.reporting.entries import Entry


def with_places(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Best and second of every column, among models. Places are of printed values: equal print is equal place."""
    ranked = [i for i, row in enumerate(rows) if not row.entry.is_reference]
    found = [list(row.scores) for row in rows]
    for j, column in enumerate(columns):
        scores = [rows[i].scores[j] for i in ranked]
        places = column.places([score.value for score in scores], [score.note for score in scores])
        for i, place in zip(ranked, places, strict=True):
            found[i][j] = found[i][j]._replace(place=place)
    return [row._replace(scores=tuple(scores)) for row, scores in zip(rows, found, strict=True)]


def with_standings(rows: Sequence[Row], columns: Sequence[Column], standings: Standings) -> list[Row]:
    """Ranks with their intervals, and what is tied with the best, where a score can be tested."""
    found = [list(row.scores) for row in rows]
    has_clean = any(column.score == CLEAN for column in columns)
    clean_intervals = standings.clean_intervals() if has_clean else {}
    known: dict[tuple[str, ...], dict[str, dict[Who, Standing]]] = {}
    for j, column in enumerate(columns):
        if column.over not in known:
            known[column.over] = standings.clean() if column.score == CLEAN else standings.over_grid(*column.over)
        at = known[column.over].get(column.metric.name, {})
        for i, row in enumerate(rows):
            if column.score == CLEAN:
                ends = clean_intervals.get(column.metric.name, {}).get(who(row.entry), (None, None))
                found[i][j] = found[i][j]._replace(ci_low=ends[0], ci_high=ends[1])
            if standing := at.get(who(row.entry)):
                found[i][j] = _stands(found[i][j], standing)
    return [row._replace(scores=tuple(scores)) for row, scores in zip(rows, found, strict=True)]


def who(entry: Entry) -> Who:
    """The line behind an entry."""
    return entry.model, entry.recipe, entry.train_seed, entry.checkpoint or ""


def _stands(score: Score, standing: Standing) -> Score:
    return score._replace(
        rank=standing.rank,
        rank_low=standing.low,
        rank_high=standing.high,
        n_ranked=standing.n_lines,
        tied_with_best=standing.tied,
    )
