"""What a leaderboard's table cannot say itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from robustbench_msa.analysis.standings import ALPHA, WEIGHTS
from robustbench_msa.reporting import names
from robustbench_msa.reporting.columns import CLEAN, MEANINGS, Column, score_label

if TYPE_CHECKING:
    from robustbench_msa.reporting.board import Board

TIED = "†"
"""Marks everything that is not significantly worse than the best of its column."""
ITSELF = "a model with its own clean score alone, and a weak model has little to lose"


def caption(board: Board, interval: str = names.INTERVAL) -> str:
    """One paragraph. interval: what the intervals are."""
    return ". ".join(filter(None, _sentences(board, interval))) + "."


def _sentences(board: Board, interval: str) -> Iterator[str]:
    seeds = board.facts.seeds()
    yield f"Robustness on {board.facts.data()}" + (f"; means over {seeds}" if seeds else "")
    yield from _scores(board)
    yield board.facts.training()
    percent = dict.fromkeys(column.metric.label for column in board.columns if column.is_percent)
    yield f"{', '.join(percent)} in percent" if percent else ""
    yield "↑ higher is better, ↓ lower is better"
    yield f"In brackets: {board.facts.intervals(interval)}"
    yield from _itself(board)
    yield _sorted(board.sorted_by)
    yield "Bold: best, underlined: second, of each column as printed"
    yield from _ties(board)
    yield _not_ranked(board)


def _scores(board: Board) -> Iterator[str]:
    """What each score is, and over which grids; grids that were just listed are not listed again."""
    listed: list[str] = []
    for score in dict.fromkeys(column.score for column in board.columns):
        own = [column for column in board.columns if column.score == score]
        sets = list(dict.fromkeys(column.where for column in own if column.by_condition and score == "grid_mean"))
        grids = [where for where in dict.fromkeys(column.where for column in own if column.grid) if where not in sets]
        if grids or not any(column.grid for column in own):
            told = "" if not grids or grids == listed else f": {'; '.join(grids)}"
            yield f"{score_label(score)}, {MEANINGS[score]}{told}"
            listed = grids or listed
        if sets:
            yield f"Mean over available sets: {'; '.join(sets)}"
    if board.baseline:
        yield f"Baseline: {board.baseline}"


def _itself(board: Board) -> Iterator[str]:
    """What is no measure of level."""
    scores = dict.fromkeys(column.score for column in board.columns if not column.ranks)
    if scores:
        verb = "compares" if len(scores) == 1 else "compare"
        yield f"{', '.join(map(score_label, scores))} {verb} {ITSELF}"


def _sorted(by: Column) -> str:
    plain = by.score == "nauc" or (by.score == "grid_mean" and by.by_condition) or by.score == CLEAN
    words = f"Sorted by {by.where}, {by.metric.label}" + ("" if plain else f", {by.score_label}")
    if by.ranks:
        return words
    nulls = "a margin that is never halved comes first, other nulls last" if by.score == "half_life" else "nulls last"
    return f"{words} ({nulls}, equal rows by their level)"


def _ties(board: Board) -> Iterator[str]:
    if not board.tested:
        yield "Differences were not tested"
        return
    yield (
        f"{TIED}: not significantly worse than the best of its column (paired bootstrap, α = {ALPHA:g} after Holm "
        "over the comparisons with the best)"
    )
    if board.has_ranks:
        yield "Rank: the 95 % interval of the rank in the sorting column"
    scores = dict.fromkeys(c.score for c in board.columns if c.score not in (*WEIGHTS, CLEAN))
    if scores:
        yield f"No such test for {', '.join(map(score_label, scores))}: nothing is marked there"


def _not_ranked(board: Board) -> str:
    role = names.oracle_role([column.stress for column in board.columns if column.stress not in (CLEAN, "")])
    references = {"oracle": f"the oracle ({role})", "chance": "chance (the best constant of the training labels)"}
    unranked = [references[row.entry.model] for row in board.rows if row.entry.is_reference]
    return f"Not ranked: {' and '.join(unranked)}" if unranked else ""


def trained_sentences(board: Board) -> list[str]:
    """One sentence for all that were selected by one criterion and share their training seeds."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in board.models:
        if row.trained is not None:
            name = row.entry.label if board.has_recipe else row.entry.name
            told = name if row.trained.parameters is None else f"{name} ({row.trained.parameters_label})"
            found.setdefault((row.trained.seeds_label, row.trained.selection_label), []).append(told)
    return [
        f"Training seed{'' if seeds.isdecimal() else 's'} {seeds}, selected on {by} (parameters): {', '.join(who)}."
        for (seeds, by), who in found.items()
    ]
