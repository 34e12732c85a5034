"""Where each row of a leaderboard stands: its rank with an interval, and whether it is tied with the best.

A leaderboard shows methods (means over training seeds) beside models of a single checkpoint, so all its rows are in
one race here; ``comparisons`` keeps the two kinds apart and tests every pair. The question of a leaderboard is another
one, "could this row be the best?", and its family is the comparisons with the best alone: L - 1 tests among L rows.
A row is *tied* unless its difference from the best is significant after Holm (1979). docs/leaderboard.md has a
simulation of how often the truly best row is then left out.

Only scores whose order is that of a weighted sum over the grid's points can be tested so (WEIGHTS). A corruption error
is one where all rows divide by the same baseline, as on a leaderboard (``one_baseline``); a retention or a half-life is
none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from corruptions import Point
from robustbench_msa.analysis.bootstrap import LEVEL
from robustbench_msa.analysis.evaluated import CLEAN_PLACE, Evaluated, Line
from robustbench_msa.analysis.intervals import intervals
from robustbench_msa.analysis.metrics import PROFILES, Array
from robustbench_msa.analysis.over import Over, overs
from robustbench_msa.analysis.paired import difference, holm
from robustbench_msa.analysis.ranks import rank_intervals, replicates
from robustbench_msa.analysis.variance import Score
from robustbench_msa.evaluation.cells import Request
from robustbench_msa.models.registry import REFERENCES

ALPHA = round(1 - LEVEL, 6)
CLEAN: Point = CLEAN_PLACE[2]

Who = tuple[str, str, int | None, str]
"""model, recipe, training seed (None: the mean over several), checkpoint ("" of such a mean)."""


class Standing(NamedTuple):
    """rank among ``n_lines``, its 95 % interval low to high, and whether the row is tied with the best (and is it)."""

    rank: int
    low: int
    high: int
    n_lines: int
    tied: bool


class Race(NamedTuple):
    """Lines with their scores over the same points and corruption seeds."""

    lines: tuple[Line, ...]
    scores: tuple[Score, ...]


def _stressed(over: Over) -> Array:
    """Without the untouched points, of which a corruption error knows nothing."""
    touched = np.array([not point.is_clean for point in over.points], dtype=np.float64)
    return touched / touched.sum() if touched.any() else np.full(len(touched), np.nan)


WEIGHTS: Mapping[str, Callable[[Over], Array]] = {
    "nauc": lambda over: over.area,
    "auc_raw": lambda over: over.area,
    "regret": lambda over: over.area,
    "grid_mean": lambda over: over.mean,
    "ce": _stressed,
}
"""What each point weighs in the order by a score."""


class Standings:
    """Standings of some lines of a run, on any score of WEIGHTS over any grid that was asked for.

    References among them have intervals on the untouched input, but run in no race.
    """

    def __init__(self, tables: Evaluated, rows: Sequence[Who]) -> None:
        self.tables = tables
        wanted = set(rows)
        self._asked = [(line, request) for line, request in tables.asked() if _who(line) in wanted]

    def over_grid(self, stress: str, params: str, grid: str, score: str) -> dict[str, dict[Who, Standing]]:
        """By metric and row, in the race of most rows, then of most corruption seeds.

        Rows that have not finished the grid, or whose score is null, have none. Nobody has where the score is not of
        WEIGHTS, the grid has no such score, or there are fewer than two rows.
        """
        races = []
        for request in {request: None for _, request in self._asked}:
            found = [o for o in overs(request.grid) if (request.stress.name, request.stress.params) == (stress, params)]
            for over in (over for over in found if over.grid == grid and score in WEIGHTS):
                races.append((request, self._race(request, over.points, WEIGHTS[score](over))))
        if not races:
            return {}
        _, race = max(races, key=lambda pair: (len(pair[1].lines), len(pair[0].seeds), pair[0].seeds))
        return standings(race, self.tables.weights, self.tables.planned.profile)

    def clean(self) -> dict[str, dict[Who, Standing]]:
        """Standings on the untouched input."""
        race = [(line, score) for line, score in self._clean() if line.model not in REFERENCES]
        made = Race(tuple(line for line, _ in race), tuple(score for _, score in race))
        return standings(made, self.tables.weights, self.tables.planned.profile)

    def clean_intervals(self) -> dict[str, dict[Who, tuple[float, float]]]:
        """95 % intervals on the untouched input, where there are any."""
        metrics, known = PROFILES[self.tables.planned.profile].metrics, self._clean()
        low, high = intervals([score for _, score in known], self.tables.weights, [metric.unit for metric in metrics])
        found: dict[str, dict[Who, tuple[float, float]]] = {metric.name: {} for metric in metrics}
        for i, (line, _) in enumerate(known):
            for m, metric in enumerate(metrics):
                if not np.isnan(low[i, m]):
                    found[metric.name][_who(line)] = float(low[i, m]), float(high[i, m])
        return found

    def _clean(self) -> list[tuple[Line, Score]]:
        pairs = {line.key: (line, self._score(line, request, [CLEAN], np.ones(1))) for line, request in self._asked}
        return [(line, score) for _, (line, score) in sorted(pairs.items()) if score is not None]

    def _race(self, request: Request, points: Sequence[Point], weights: Array) -> Race:
        lines = {line.key: line for line, asked in self._asked if asked == request and line.model not in REFERENCES}
        pairs = [(line, self._score(line, request, points, weights)) for _, line in sorted(lines.items())]
        finished = [(line, score) for line, score in pairs if score is not None]
        return Race(tuple(line for line, _ in finished), tuple(score for _, score in finished))

    def _score(self, line: Line, request: Request, points: Sequence[Point], weights: Array) -> Score | None:
        at = [self.tables.score(line, request, point) for point in points]
        known = [score for score in at if score is not None]
        return Score.combined(known, weights) if len(known) == len(at) else None


def standings(race: Race, resamples: Array, profile: str) -> dict[str, dict[Who, Standing]]:
    """By metric and row. resamples: ``(B, G)`` that all lines share."""
    if len(race.lines) < 2:
        return {}
    values = np.stack([score.value for score in race.scores])  # (L, M)
    drawn = np.stack(
        [replicates(score, resamples, str(line.key)) for line, score in zip(race.lines, race.scores, strict=True)]
    )  # (L, B, M)
    p_against: dict[int, Array] = {}
    found: dict[str, dict[Who, Standing]] = {}
    for m, metric in enumerate(PROFILES[profile].metrics):
        known = np.flatnonzero(~np.isnan(values[:, m]))
        if len(known) < 2:
            continue
        column = values[known, m]
        best = int(known[np.argmax(column if metric.higher_is_better else -column)])
        if best not in p_against:
            p_against[best] = _p_against(race, best, resamples)
        adjusted = holm(np.where(np.isnan(values[:, m]), np.nan, p_against[best][:, m]))
        ranked = rank_intervals(column, drawn[known, :, m].T, metric.higher_is_better)
        found[metric.name] = {
            _who(race.lines[i]): Standing(int(rank), int(low), int(high), len(known), not adjusted[i] < ALPHA)
            for i, rank, low, high in zip(known, *ranked, strict=True)
        }
    return found


def _p_against(race: Race, best: int, resamples: Array) -> Array:
    """``(L, M)`` two-sided p of the difference from the best; NaN for the best itself."""
    tests = [
        difference(race.scores[best], score, resamples).p if i != best else np.full(score.value.shape, np.nan)
        for i, score in enumerate(race.scores)
    ]
    return np.stack(tests)


def _who(line: Line) -> Who:
    return line.model, line.recipe, line.train_seed, line.checkpoint
