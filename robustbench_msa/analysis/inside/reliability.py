"""Does a reliability score r_m say how good a modality is? QA-MoE's validation (4.4.2, table 6).

The paper gives Spearman's correlation of r_m with "the ground-truth degradation levels" and the MAE of samples in bins
of r_m, for one r_m. Here r_m is taken modality by modality, and as their mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from corruptions import MODALITIES
from robustbench_msa.analysis.inside.cells import WHO, Inside, Line, Sweep, each_point, frame_of
from robustbench_msa.analysis.inside.grouped import ERROR, means, of_sums, rank_correlations, ratio
from robustbench_msa.analysis.inside.samples import Samples
from robustbench_msa.analysis.metrics import Array

EXTRAS = ("r", "reliability")
STORED_BY = "qa_moe and rider_moe store one"
SCORES = (*MODALITIES, "mean")
PAPER_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Table 6's bins: closed below, the last one above too."""
BINS = 5


class ReliabilityInfo(NamedTuple):
    """Three tidy tables, intervals at 95 %.

    levels: one row per score at a point (columns WHO, WHERE): its mean and that of the absolute error.
    correlations: one row per line, stress, score and target: rank_correlation over all samples of all points.
    bins: one row per line, stress, score and bin: edges low and high, mean_r, n samples, mae.
    """

    levels: pd.DataFrame
    correlations: pd.DataFrame
    bins: pd.DataFrame


def reliability_info(folder: str | Path, models: Collection[str] = ()) -> ReliabilityInfo:
    """How r_m moves with severity, and with the error.

    Score: text, audio, vision, or "mean", the mean of the three. Targets of the rank correlation, over the samples of
    all points of a stress together:

    - "severity" and "severity_2": the severity of the point (QA-MoE's lambda and eta); a working r_m is near -1;
    - "lost": whether this sample lost this modality (of "mean": how many), where the model was told; near -1;
    - "error": the sample's absolute error; near -1 too.

    Ties keep a correlation with severity away from -1 even where every r falls: with few severities samples share one.

    Bins: of kind "paper", table 6's five of equal width, and of kind "equal", fifths of the samples by r (as few as r
    has different values). Their edges are held fixed when groups are resampled. A score that is constant but for
    rounding (RIDER-MoE's mean: its r_m sum to one) has no correlation and no "equal" bins.

    Raises:
        InputError: no model of the run stores r.
    """
    sweeps = Inside(folder, models).sweeps(*EXTRAS, what="reliability scores", models=STORED_BY)
    together = [(sweep, Samples.joined(samples for _, samples in sweep.points)) for sweep in sweeps]
    identity = [*WHO, "stress", "params"]
    correlation = ["rank_correlation", "rank_correlation_low", "rank_correlation_high"]
    bins = ["bins", "bin", "low", "high", "mean_r", "n", "mae", "mae_low", "mae_high"]
    levels = ("r", "r_low", "r_high", "mae", "mae_low", "mae_high")
    return ReliabilityInfo(
        frame_of(each_point(sweeps, _levels), "score", *levels),
        _table(
            (row for s, all_ in together for row in _correlations(s, all_)), identity, "score", "target", *correlation
        ),
        _table((row for s, all_ in together for row in _bins(s, all_)), identity, "score", *bins),
    )


def score_of(samples: Samples, score: str) -> Array:
    """r_m ``(N,)`` of one modality, or the mean of the three."""
    r = samples.extras[next(name for name in EXTRAS if name in samples.extras)]
    return np.asarray(r.mean(axis=1) if score == "mean" else r[:, SCORES.index(score)])


def binned_error(r: Array, error: Array, edges: Array) -> Array:
    """What ``of_sums`` needs for the mean error in bins [e_0, e_1) .. [e_(B-1), e_B]: ``(N, 2 B)``, errors and counts.

    >>> sums = binned_error(np.array([0.1, 0.2, 1.0]), np.array([3.0, 1.0, 2.0]), np.array([0.0, 0.2, 1.0])).sum(axis=0)
    >>> (sums[:2] / sums[2:]).tolist()
    [3.0, 1.5]
    """
    index = np.searchsorted(edges[1:-1], r, side="right")
    inside = (r >= edges[0]) & (r <= edges[-1])
    member = (index[:, None] == np.arange(len(edges) - 1)) & inside[:, None]
    return np.concatenate([member * error[:, None], member], axis=1)


def equal_edges(r: Array, bins: int = BINS) -> Array:
    """Edges of bins with equal numbers of samples, ``(B' + 1,)``; fewer where quantiles coincide."""
    if np.ptp(r) <= 1e-6 * np.abs(r).max(initial=0.0):
        return np.zeros(0)
    return np.unique(np.quantile(r, np.linspace(0, 1, bins + 1)))


def _levels(line: Line, samples: Samples) -> Iterable[dict[str, Any]]:
    found = means(np.stack([score_of(samples, s) for s in SCORES], axis=1), samples.group)
    error = means(samples.error[:, None], samples.group, ERROR).columns(0, "mae", "mae_low", "mae_high")
    for i, score in enumerate(SCORES):
        yield {"score": score, **found.columns(i, "r", "r_low", "r_high"), **error}


def _correlations(sweep: Sweep, samples: Samples) -> Iterator[dict[str, Any]]:
    severities = [(point.values, len(part.group)) for point, part in sweep.points]
    targets = {
        name: np.concatenate([np.full(n, float(values[axis])) for values, n in severities])
        for axis, name in enumerate(("severity", "severity_2")[: sweep.n_axes])
    }
    lost = (~samples.present).astype(np.float64)
    for i, score in enumerate(SCORES):
        here = {**targets, "lost": lost.mean(axis=1) if score == "mean" else lost[:, i], "error": samples.error}
        for target, values in here.items():
            if target != "lost" or values.any():
                found = rank_correlations(score_of(samples, score)[:, None], values, samples.group)
                names = ("rank_correlation", "rank_correlation_low", "rank_correlation_high")
                yield {**_identity(sweep), "score": score, "target": target, **found.columns(0, *names)}


def _bins(sweep: Sweep, samples: Samples) -> Iterator[dict[str, Any]]:
    for score in SCORES:
        r = score_of(samples, score)
        for kind, edges in (("paper", np.array(PAPER_EDGES)), ("equal", equal_edges(r))):
            if len(edges) < 2:
                continue
            b = len(edges) - 1
            terms = binned_error(r, samples.error, edges)
            mae = of_sums(terms, samples.group, lambda sums, b=b: ratio(sums[..., :b], sums[..., b:]), ERROR)  # type: ignore[misc]
            mean_r = ratio((terms[:, b:] * r[:, None]).sum(axis=0), terms[:, b:].sum(axis=0))
            for i in range(b):
                row = {"bins": kind, "bin": i + 1, "low": edges[i], "high": edges[i + 1], "mean_r": mean_r[i]}
                row |= {"n": int(terms[:, b + i].sum()), **mae.columns(i, "mae", "mae_low", "mae_high")}
                yield {**_identity(sweep), "score": score, **row}


def _identity(sweep: Sweep) -> dict[str, Any]:
    return {**sweep.line._asdict(), "stress": sweep.stress, "params": sweep.params}


def _table(rows: Iterable[dict[str, Any]], identity: list[str], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=[*identity, *columns]).astype({"train_seed": "Int64"})
