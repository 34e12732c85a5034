"""Every line against every other, on every grid they were both run on: differences, tests, ranks.

Made from stored predictions; nothing is run again. Only like is compared with like: checkpoints with checkpoints, and
methods (means over training seeds) with methods, on the same corruption seeds; chance and the oracle are not in the
race. Lines, requests and resamples come in an order of their own, so that runs merged later give the same table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from corruptions import Point
from robustbench_msa.analysis.evaluated import Evaluated, Line
from robustbench_msa.analysis.jackknife import few_groups_note
from robustbench_msa.analysis.metrics import PROFILES, Array
from robustbench_msa.analysis.over import overs
from robustbench_msa.analysis.paired import (
    PERMUTATIONS,
    Difference,
    difference,
    exchange_p,
    holm,
    permutation_p,
    swapped_differences,
    swaps,
)
from robustbench_msa.analysis.power import detectable
from robustbench_msa.analysis.ranks import rank_intervals, replicates, tie_groups
from robustbench_msa.analysis.variance import Score
from robustbench_msa.evaluation.cells import Request
from robustbench_msa.evaluation.schemas import COMPARISONS, RANKS
from robustbench_msa.models.registry import REFERENCES

Row = dict[str, Any]


class Compared(NamedTuple):
    """Tables with the schemas COMPARISONS and RANKS."""

    comparisons: pa.Table
    ranks: pa.Table


class Target(NamedTuple):
    """What is compared. score: nauc, grid_mean or (at one point) value; weights: of the points."""

    score: str
    grid: str | None
    weights: dict[Point, float]

    @property
    def columns(self) -> Row:
        point = next(iter(self.weights)) if self.grid is None else Point()
        where = {"severity": point.severity, "severity_2": point.severity_2, "condition": point.condition}
        return {"score": self.score, "grid": self.grid, **where}


class Race(NamedTuple):
    """Lines of one kind that finished the same request."""

    request: Request
    lines: tuple[Line, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(len(self.lines)), 2))


def compare(tables: Evaluated, points: bool = False, permutations: int = PERMUTATIONS) -> Compared:
    """All pairs of lines of a run, and their ranks.

    Args:
        tables: the run (``Tables``), or several merged (``merged.open_tables``).
        points: also at every point of the grids.
        permutations: of the swap test; 0 leaves it out, which is most of the time this takes.

    The family of Holm's adjustment is all pairs of a race on one score by one metric (``n_tests``).
    """
    pairs: list[Row] = []
    ranked: list[Row] = []
    for race in races(tables):
        targets = list(_targets(race.request, points))
        scores = [_scores(tables, line, race.request, targets) for line in race.lines]
        p_swap = _permuted(tables, race, targets, scores, permutations)
        for k, target in enumerate(targets):
            own = [score[k] for score in scores]
            found = {(i, j): difference(own[i], own[j], tables.weights) for i, j in race.pairs}
            p = np.stack([d.p for d in found.values()])
            adjusted = np.stack([holm(column) for column in p.T], axis=1)
            adjusted_swap = np.stack([holm(column) for column in p_swap[k].T], axis=1)
            tests = {"p_permutation": p_swap[k], "p_holm": adjusted, "p_permutation_holm": adjusted_swap}
            pairs += _pair_rows(tables, race, target, own, found, tests)
            ranked += _rank_rows(tables, race, target, own, dict(zip(race.pairs, adjusted, strict=True)))
    return Compared(pa.Table.from_pylist(pairs, schema=COMPARISONS), pa.Table.from_pylist(ranked, schema=RANKS))


def races(tables: Evaluated) -> list[Race]:
    """Who is compared with whom: per stress and grid the request that most lines finished, then with most seeds."""
    entered: dict[Request, list[Line]] = defaultdict(list)
    for line, request in tables.asked():
        if line.model not in REFERENCES and tables.complete(line, request):
            entered[request].append(line)
    chosen: dict[tuple[str, str, str], Request] = {}
    for request in sorted(entered, key=lambda r: (len(entered[r]), len(r.seeds), r.seeds)):
        chosen[request.stress.name, request.stress.params, str(request.grid)] = request
    found = []
    for _, request in sorted(chosen.items()):
        lines = sorted(entered[request], key=lambda line: line.key)
        for several in (False, True):
            kind = tuple(line for line in lines if (len(line.members) > 1) is several)
            found += [Race(request, kind)] if len(kind) > 1 else []
    return found


def _targets(request: Request, points: bool) -> Iterator[Target]:
    for over in overs(request.grid):
        name, weights = ("nauc", over.area) if over.has_area else ("grid_mean", over.mean)
        yield Target(name, over.grid, dict(zip(over.points, map(float, weights), strict=True)))
    if points:
        yield from (Target("value", None, {point: 1.0}) for point in request.grid.points)


def _scores(tables: Evaluated, line: Line, request: Request, targets: Sequence[Target]) -> list[Score]:
    at = {point: score for point in request.grid.points if (score := tables.score(line, request, point)) is not None}
    return [Score.combined([at[p] for p in t.weights], np.array(list(t.weights.values()))) for t in targets]


def _permuted(
    tables: Evaluated, race: Race, targets: Sequence[Target], scores: Sequence[Sequence[Score]], permutations: int
) -> list[Array]:
    """p of the permutation test, per target ``(pairs, M)``.

    Groups are swapped between checkpoints, training seeds exchanged between methods.
    """
    if permutations < 1:
        return [np.full((len(race.pairs), len(tables.metrics)), np.nan) for _ in targets]
    if len(race.lines[0].members) > 1:
        return [
            np.stack([exchange_p(scores[i][k], scores[j][k], permutations) for i, j in race.pairs])
            for k in range(len(targets))
        ]
    flips = swaps(tables.n_groups, permutations)
    size = len(race.pairs), len(flips), len(tables.metrics)
    sums = {k: np.zeros(size) for k, target in enumerate(targets) if target.grid is not None}
    found = {}
    for point in race.request.grid.points:
        at_point = _swapped(tables, race, point, flips)
        for k, target in enumerate(targets):
            if point not in target.weights:
                continue
            if k in sums:
                sums[k] += target.weights[point] * at_point
            else:  # a point on its own: its differences need not be kept
                found[k] = np.stack([permutation_p(pair) for pair in at_point])
    found |= {k: np.stack([permutation_p(pair) for pair in total]) for k, total in sums.items()}
    return [found[k] for k in range(len(targets))]


def _swapped(tables: Evaluated, race: Race, point: Point, flips: Array) -> Array:
    """``(pairs, P, M)`` differences after each swap, mean over corruption seeds."""
    cells = [tables.cells_at(line, race.request, point) or [] for line in race.lines]
    found = np.zeros((len(race.pairs), len(flips), len(tables.metrics)))
    for same_input in zip(*cells, strict=True):
        stats = tables.statistics(same_input)
        for row, (i, j) in zip(found, race.pairs, strict=True):
            row += swapped_differences(stats[i], stats[j], flips, tables.planned.profile, tables.nulls)
    return found / len(cells[0])


def _pair_rows(
    tables: Evaluated,
    race: Race,
    target: Target,
    scores: Sequence[Score],
    found: dict[tuple[int, int], Difference],
    tests: dict[str, Array],
) -> Iterator[Row]:
    for row, ((i, j), d) in enumerate(found.items()):
        a, b = race.lines[i], race.lines[j]
        detect = detectable(d.standard_error, d.degrees_of_freedom)
        for m, metric in enumerate(tables.metrics):
            columns = {
                "value_a": scores[i].value[m],
                "value_b": scores[j].value[m],
                "difference": d.value[m],
                "ci_low": d.low[m],
                "ci_high": d.high[m],
                "p_bootstrap": d.p[m],
                **{name: p[row, m] for name, p in tests.items()},
                "mdd": detect[m],
            }
            yield {
                **_line_columns(a, "_a"),
                **_line_columns(b, "_b"),
                **_shared(tables, race, target),
                "metric": metric,
                **{name: _number(value) for name, value in columns.items()},
                "n_tests": int((~np.isnan([other.p[m] for other in found.values()])).sum()),
                "claim": d.claim,
                "note": few_groups_note(tables.n_groups) or None,
            }


def _rank_rows(
    tables: Evaluated, race: Race, target: Target, scores: Sequence[Score], p: dict[tuple[int, int], Array]
) -> Iterator[Row]:
    drawn = np.stack([replicates(s, tables.weights, str(line.key)) for s, line in zip(scores, race.lines, strict=True)])
    for m, metric in enumerate(PROFILES[tables.planned.profile].metrics):
        values = np.array([score.value[m] for score in scores])
        rank, low, high = rank_intervals(values, drawn[:, :, m].T, metric.higher_is_better)
        tests = {pair: float(column[m]) for pair, column in p.items()}
        groups = tie_groups(list(values), tests, metric.higher_is_better)
        for i, line in enumerate(race.lines):
            columns = {"value": values[i], "rank": rank[i], "rank_low": low[i], "rank_high": high[i]}
            yield {
                **_line_columns(line),
                **_shared(tables, race, target),
                "metric": metric.name,
                **{name: _number(value) for name, value in columns.items()},
                "n_lines": len(race.lines),
                "tie_group": groups[i],
                "tied_with_best": None if groups[i] is None else groups[i] == 1,
                "claim": scores[i].claim,
                "note": few_groups_note(tables.n_groups) or None,
            }


def _line_columns(line: Line, suffix: str = "") -> Row:
    columns = {"model": line.model, "recipe": line.recipe, "train_seed": line.train_seed, "checkpoint": line.checkpoint}
    return {f"{name}{suffix}": value for name, value in {**columns, "n_train_seeds": len(line.members)}.items()}


def _shared(tables: Evaluated, race: Race, target: Target) -> Row:
    return {
        "dataset": tables.cells[0].dataset,
        "split": tables.cells[0].split,
        "profile": tables.planned.profile,
        "stress": race.request.stress.name,
        "params": race.request.stress.params,
        **target.columns,
        "n": tables.n,
        "n_groups": tables.n_groups,
        "n_seeds": len(race.request.drawn),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
