"""Errors of the samples a model is most sure of: risk-coverage and sparsification curves.

Risk-coverage (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017): keep the most confident share of the samples, the
coverage, and see the mean absolute error of those kept, the risk (of classes their error rate). Sparsification (Ilg et
al. 2018) is the same curve read the other way: the share dropped is one minus the coverage. The oracle's order is that
of the true errors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from corruptions import InputError
from robustbench_msa.analysis.inside.cells import Inside, each_point, frame_of
from robustbench_msa.analysis.inside.grouped import of_samples
from robustbench_msa.analysis.inside.samples import Samples, probability
from robustbench_msa.analysis.metrics import Array

SHARES: Array = np.linspace(0.05, 1.0, 20)
"""Coverages of a curve."""


def _entropy(extras: Mapping[str, Array]) -> Array:
    p = extras["routing"]
    return np.asarray(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=1))


CONFIDENCES: Mapping[str, tuple[str, Callable[[Mapping[str, Array]], Array]]] = {
    "variance": ("log_variance", lambda extras: -extras["log_variance"].mean(axis=1)),
    "entropy": ("entropy", lambda extras: -extras["entropy"].mean(axis=1)),
    "r": ("r", lambda extras: extras["r"].mean(axis=1)),
    "consensus": ("consensus", lambda extras: extras["consensus"].mean(axis=1)),
    "routing": ("routing", lambda extras: -_entropy(extras)),
    "probability": ("logits", lambda extras: probability(extras["logits"])),
}
"""By name: the extra it needs, and the confidence ``(N,)`` from a cell's extras, larger for surer. Variance: minus the
predicted log-variance; entropy: minus the mean entropy of the probes or experts; r: the mean over modalities; routing:
minus the entropy of the routing weights; probability: that of the predicted class. A constant one (RIDER-MoE's mean r)
orders nothing: its risk is the MAE."""


class Areas(NamedTuple):
    """Areas under risk against coverage, in the unit of labels: in the order of confidence, of the true errors, and in
    a random order, which is the MAE."""

    area: float
    oracle: float
    random: float


def kept_error(error: Array, confidence: Array) -> Array:
    """Mean error of the k most confident samples, k = 1..N, ``(N,)``. Ties: the mean over all their orders.

    >>> kept_error(np.array([1.0, 3.0, 2.0]), np.array([0.9, 0.1, 0.5])).tolist()
    [1.0, 1.5, 2.0]
    >>> kept_error(np.array([1.0, 3.0]), np.array([0.5, 0.5])).tolist()  # no order at all
    [2.0, 2.0]
    """
    _, tie = np.unique(-confidence, return_inverse=True)
    expected = (np.bincount(tie, weights=error) / np.bincount(tie))[tie]
    return np.asarray(np.cumsum(expected[np.argsort(tie, kind="stable")]) / np.arange(1, len(error) + 1))


def risk_at(error: Array, confidence: Array, coverages: Array = SHARES) -> Array:
    """The risk at coverages in (0, 1]: of the ceil(coverage N) most confident samples."""
    kept = np.ceil(np.round(coverages * len(error), 9)).astype(np.int64)
    return np.asarray(kept_error(error, confidence)[np.maximum(kept, 1) - 1])


def areas(error: Array, confidence: Array) -> Areas:
    """The mean of the risk over the coverages 1/N, 2/N .. 1 (AURC), for the three orders.

    >>> areas(np.array([1.0, 3.0, 2.0]), np.array([0.9, 0.1, 0.5]))
    Areas(area=1.5, oracle=1.5, random=2.0)
    """
    return Areas(
        float(kept_error(error, confidence).mean()), float(kept_error(error, -error).mean()), float(error.mean())
    )


class RiskInfo(NamedTuple):
    """Two tidy tables (columns WHO, WHERE and confidence).

    curves: one row per coverage: risk and its interval, oracle. areas: area, oracle, random; excess = area - oracle
    with its interval (the area between the two: 0 is the best order); gain = (random - area) / (random - oracle): 1 for
    the true order, 0 for a random one, negative for a misleading one.
    """

    curves: pd.DataFrame
    areas: pd.DataFrame


def risk_info(
    folder: str | Path, confidences: Iterable[str] = tuple(CONFIDENCES), models: Collection[str] = ()
) -> RiskInfo:
    """Risk-coverage at every point by every confidence that a model offers.

    Raises:
        InputError: an unknown confidence; no model of the run offers any.
    """
    wanted = tuple(confidences)
    if unknown := [name for name in wanted if name not in CONFIDENCES]:
        raise InputError(f"risk: unknown confidence {unknown[0]!r}; known: {', '.join(CONFIDENCES)}")
    sweeps = Inside(folder, models).sweeps(
        *(CONFIDENCES[name][0] for name in wanted),
        what="confidence",
        models="log_variance: qa_moe; entropy: rider_moe, ca_moe; r: qa_moe, rider_moe; logits: all, of classes",
    )
    curve = frame_of(
        each_point(sweeps, lambda line, s: _curve(s, wanted)),
        *("confidence", "coverage", "risk", "risk_low", "risk_high", "oracle"),
    )
    area = frame_of(
        each_point(sweeps, lambda line, s: _areas(s, wanted)),
        *("confidence", "area", "oracle", "random", "excess", "excess_low", "excess_high", "gain"),
    )
    return RiskInfo(curve, area)


def offered(samples: Samples, wanted: Iterable[str]) -> Iterator[tuple[str, Array]]:
    """The confidences ``(N,)`` that the extras of a point give."""
    for name in wanted:
        extra, confidence = CONFIDENCES[name]
        if extra in samples.extras:
            values = confidence(samples.extras)
            # float32 sums that differ by rounding are one confidence (RIDER-MoE's mean r is 1/3)
            yield name, np.asarray(np.round(values / (np.abs(values).max(initial=0.0) or 1.0), 6), dtype=np.float64)


def _curve(samples: Samples, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    error = samples.error
    oracle = risk_at(error, -error)
    for name, sure in offered(samples, wanted):
        found = of_samples(lambda rows, sure=sure: risk_at(error[rows], sure[rows]), samples.group)  # type: ignore[misc]
        for i, coverage in enumerate(SHARES):
            row = {"confidence": name, "coverage": coverage, "oracle": oracle[i]}
            yield {**row, **found.columns(i, "risk", "risk_low", "risk_high")}


def _areas(samples: Samples, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    error = samples.error
    for name, sure in offered(samples, wanted):

        def excess(rows: Any, sure: Array = sure) -> Array:
            found = areas(error[rows], sure[rows])
            return np.array([found.area - found.oracle])

        found = areas(error, sure)
        room = found.random - found.oracle
        gain = (found.random - found.area) / room if room > 0 else np.nan
        spread = of_samples(excess, samples.group).columns(0, "excess", "excess_low", "excess_high")
        yield {"confidence": name, **found._asdict(), **spread, "gain": gain}
