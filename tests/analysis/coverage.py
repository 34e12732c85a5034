"""How often the intervals of ratios and half-lives hold the true value, on simulated runs whose truth is known.

    PYTHONPATH=. python tests/analysis/coverage.py --trials 800      # the table of docs/statistics.md

Four models see one test set under five severities; part of what befalls a clip is the same for all, as in a run.
"strong" beats the best constant by far and "weak" hardly; "base" is the baseline, "best" stands for the oracle.
"""

from __future__ import annotations

import argparse
import warnings
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from corruptions import Stress
from robustbench_msa.analysis.bootstrap import group_weights, replicate_values
from robustbench_msa.analysis.constants import best_constant
from robustbench_msa.analysis.evaluated import Line
from robustbench_msa.analysis.forms import Interval, Plain, ends
from robustbench_msa.analysis.grid_curve import Curve, GridCurve
from robustbench_msa.analysis.grid_report import grid_replicates
from robustbench_msa.analysis.grid_scores import error_form
from robustbench_msa.analysis.line_over import LineOver
from robustbench_msa.analysis.metrics import PROFILES, sufficient
from robustbench_msa.analysis.over import overs
from robustbench_msa.analysis.score_intervals import WITH_INTERVAL, Compared, Errors
from robustbench_msa.analysis.variance import Score

Array = np.ndarray[Any, Any]
METRICS = PROFILES["mosi"].metrics
NAMES = PROFILES["mosi"].names
SIGN = np.array([1.0 if metric.higher_is_better else -1.0 for metric in METRICS])
ERRORS = Errors.of(METRICS)
OVER = overs(Stress.parse("noise").grid("0:0.8:0.2"))[0]
SEVERITIES = np.array([0, 0.2, 0.4, 0.6, 0.8])
MODELS = {"strong": (0.62, 0.8), "weak": (0.2, 0.55), "base": (0.55, 0.85), "best": (0.7, 0.6)}
"""How much of the label, and how much noise, is in a prediction."""
SPREAD = 0.04
"""Standard deviation of the first between training seeds."""
JUDGED = ("strong", "weak")


class Sample(NamedTuple):
    """y, groups: ``(N,)``; predictions: per model and training seed one ``(N,)`` for each severity."""

    y: Array
    groups: Array
    predictions: dict[str, list[list[Array]]]


def draw(rng: np.random.Generator, n_groups: int, uneven: bool = False, seeds: int = 0) -> Sample:
    """Videos of 8 to 40 clips; uneven: log-normal lengths, stronger moods and biases of a video, noise of its own.

    seeds: training seeds that differ; 0: one, and it is the model.
    """
    lengths = rng.integers(8, 41, n_groups)
    mood, bias, loud = (width * rng.normal(size=n_groups) for width in ((0.9, 0.5, 0.4) if uneven else (0.5, 0.3, 0)))
    if uneven:
        lengths = np.rint(rng.lognormal(3, 0.7, n_groups)).clip(2, 150).astype(int)
    groups = np.repeat(np.arange(n_groups), lengths)
    y = np.clip(np.round((0.3 + mood[groups] + 1.4 * rng.normal(size=len(groups))) * 5) / 5, -3, 3)
    shared, stress = rng.normal(size=(2, len(groups))) * np.exp(loud)[groups]
    found = {}
    for model, (mean, noise) in MODELS.items():
        found[model] = []
        for slope in mean + SPREAD * rng.normal(size=seeds) if seeds else [mean]:
            off = noise * (bias[groups] + 0.7 * shared + 0.7 * rng.normal(size=len(groups)))
            found[model].append([slope * (1 - 0.9 * s) * y + off + 0.6 * s * stress for s in SEVERITIES])
    return Sample(y, groups, found)


def scores(sample: Sample) -> dict[str, list[Score]]:
    """Per model a Score at each severity; "floor": the best constants, at one."""
    n_groups = int(sample.groups.max()) + 1
    best = {name: np.full(len(sample.y), best_constant(sample.y, name)) for name in NAMES}
    constant = Score.of_statistics(sufficient(sample.y, best["mae"], sample.groups, n_groups, predictions_for=best))
    found = {"floor": [Score(np.nan_to_num(constant.by_seed), np.nan_to_num(constant.influence))]}  # Corr: 0
    for model, seeds in sample.predictions.items():
        each = [[Score.of_statistics(sufficient(sample.y, p, sample.groups, n_groups)) for p in at] for at in seeds]
        found[model] = [
            Score(np.concatenate([s.by_seed for s in at]), np.concatenate([s.influence for s in at]))
            for at in zip(*each, strict=True)
        ]
    return found


def reported(values: dict[str, list[Array]], model: str) -> dict[str, Array]:
    """Scores of a model whose metrics are ``(M, ...)`` at each severity. Never halved: the largest severity."""
    each = []
    for i, metric in enumerate(METRICS):
        own, base, best, limit = (np.stack([at[i] for at in values[n]]) for n in (model, "base", "best", "floor"))
        others = Curve("base", base, base[0]), Curve("best", best, best[0])
        curve = GridCurve([SEVERITIES], own, own[0], limit[0], metric.higher_is_better, *others, error_form(metric))
        each.append(grid_replicates(curve))
    return {name: np.stack([one[name] for one in each]) for name in WITH_INTERVAL}


def values_of(found: dict[str, list[Score]]) -> dict[str, list[Array]]:
    return {model: [score.value for score in at] for model, at in found.items()}


@cache
def truth(uneven: bool = False, seeds: bool = False) -> dict[str, dict[str, Array]]:
    """Scores of the judged models on 200,000 clips; seeds: of their mean over 40 training seeds."""
    rng = np.random.default_rng(99)
    values = values_of(scores(draw(rng, 9000 if not seeds else 3000, uneven, 40 if seeds else 0)))
    return {model: reported(values, model) for model in JUDGED}


def intervals_of(found: dict[str, list[Score]], model: str) -> dict[str, Interval]:
    own, base, best = (
        LineOver.of(Line(name, "", None, name, (name,)), OVER, found[name], found[name][0])
        for name in (model, "base", "best")
    )
    compared = Compared(own, found["floor"][0], SIGN)
    half_life = reported(values_of(found), model)["half_life"]
    return {
        "retention": compared.retention(),
        "half_life": compared.half_life(SEVERITIES, half_life),
        "ce": compared.ce(base, ERRORS),
        "relative_ce": compared.relative_ce(base, ERRORS),
        "regret": compared.regret(best),
    }


def by_percentiles(found: dict[str, list[Score]], model: str, weights: Array) -> dict[str, tuple[Array, Array]]:
    """Quantiles of the scores of replicated curves, whose cells are drawn to first order."""
    drawn = {n: [replicate_values(s.value, s.pooled, weights).T for s in at] for n, at in found.items()}
    found_again = reported(drawn, model)
    with warnings.catch_warnings(action="ignore"):  # scores that are null in every replicate
        return {n: tuple(np.nanquantile(r, [0.025, 0.975], axis=1)) for n, r in found_again.items()}


def by_slopes(made: dict[str, Interval], values: dict[str, Array], weights: Array) -> dict[str, tuple[Array, Array]]:
    """Ratios by the delta method: value -/+ half width of the linearised ratio."""
    names = [name for name in made if name not in ("half_life", "regret")]
    around = ends([Plain(made[name].centre) for name in names], weights)
    return {n: (values[n] + low, values[n] + high) for n, (low, high) in zip(names, filter(None, around), strict=True)}


def holds(interval: tuple[Array, Array], true: Array) -> Array:
    """Whether the truth is inside. An end that is not there rules nothing out."""
    low, high = interval
    return ~((low > true + 1e-12) | (high < true - 1e-12))


class Tally(NamedTuple):
    """``(trials, M)``. given, closed: there is a lower end, there are both; NaN where the score is null. held: of those
    that are given."""

    held: Array
    given: Array
    closed: Array


def simulate(
    n_groups: int, trials: int, uneven: bool = False, seeds: int = 0, rivals: bool = False, seed: int = 1
) -> dict[tuple[str, str, str], Tally]:
    """By model, score and kind of interval: ours, and with rivals also percentile and delta."""
    rng, weights = np.random.default_rng([seed, n_groups, uneven]), group_weights(n_groups, 1000)
    true, rows = truth(uneven, seeds > 0), {}
    for _ in range(trials):
        found = scores(draw(rng, n_groups, uneven, seeds))
        for model in JUDGED:
            made, values = intervals_of(found, model), reported(values_of(found), model)
            kinds = {"ours": dict(zip(made, ends(list(made.values()), weights), strict=True))}
            if rivals:
                kinds |= {
                    "percentile": by_percentiles(found, model, weights),
                    "delta": by_slopes(made, values, weights),
                }
            for kind, intervals in kinds.items():
                for name, interval in intervals.items():
                    known = np.isfinite(values[name]) & np.isfinite(true[model][name])
                    held, given, closed = holds(interval, true[model][name]), *np.isfinite([interval[0], sum(interval)])
                    row = [
                        np.where(where, x, np.nan)
                        for x, where in ((held, known & given), (given, known), (closed, known))
                    ]
                    rows.setdefault((model, name, kind), []).append(row)
    return {key: Tally(*np.moveaxis(np.array(found), 1, 0)) for key, found in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    for n_groups, uneven, seeds in ((10, False, 0), (31, False, 0), (62, False, 0), (31, True, 0), (31, False, 3)):
        print(f"{n_groups} groups, {'uneven' if uneven else 'even'}, {seeds or 'no'} training seeds", flush=True)
        with np.errstate(all="ignore"):
            found = simulate(n_groups, trials, uneven, seeds, rivals=not seeds)
        for (model, name, kind), tally in found.items():
            known = (~np.isnan(tally.held)).sum(axis=0) > trials / 2  # metrics that mostly have an interval
            share = 100 * np.nanmean(tally.held[:, known], axis=0)
            given, closed = (100 * np.nanmean(x[:, ~np.isnan(tally.closed).all(axis=0)]) for x in tally[1:])
            cells = f"{share.mean():.1f} ({share.min():.1f})"
            print(f"{model:8}{name:13}{kind:12}{cells:15}{given:.0f} % given, {closed:.0f} % closed", flush=True)


if __name__ == "__main__":
    main()
