"""Routing weights against severity: RIDER-MoE's figure 4, QA-MoE's figure 5, and EMOE's figure 6.

Per point the mean weight of every expert over samples (and corruption seeds), and how much it differs from sample to
sample: a router that gives everyone the same weights has a deviation of 0, whatever its means do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from corruptions import MODALITIES, InputError
from robustbench_msa.analysis.inside.cells import Inside, Line, each_point, frame_of
from robustbench_msa.analysis.inside.grouped import SHARE, deviations, means, of_samples, rank_correlations
from robustbench_msa.analysis.inside.samples import Samples
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.models.rider_moe import EXPERTS

EXTRAS = ("routing", "gates", "gate")
ALONE = ("unimodal", "unimodal_logits")
STORED_BY = "rider_moe, qa_moe, emoe, ca_moe and text_moe store them"


class Weights(NamedTuple):
    """One set of weights. part: the modality they route, or "" for all; names: of its E columns; values: ``(N, E)``."""

    extra: str
    part: str
    names: tuple[str, ...]
    values: Array


def weights_of(model: str, extras: dict[str, Array]) -> list[Weights]:
    """The sets of weights among a model's extras.

    "routing" ``(N, E)``: RIDER-MoE's pi (in the order of EXPERTS, with U = U_T + U_A + U_V, as figure 4 adds them),
    EMOE's w_m, one weight an expert elsewhere. "gates" ``(N, 3 E)``: what each modality gives each expert. "gate"
    ``(N, 3)``: one weight a modality.
    """
    found = []
    if "routing" in extras:
        found.append(_routing(model, extras["routing"]))
    if "gates" in extras:
        parts = np.split(extras["gates"], 3, axis=1)
        found += [Weights("gates", m, _numbered(p), p) for m, p in zip(MODALITIES, parts, strict=True)]
    if "gate" in extras:
        found.append(Weights("gate", "", MODALITIES, extras["gate"]))
    return found


def routing_table(folder: str | Path, models: Collection[str] = ()) -> pd.DataFrame:
    """One row per expert at a point: mean weight and deviation between samples, each with a 95 % interval.

    Columns: those of where and whose (``cells.WHO``, ``cells.WHERE``), extra, part, expert, mean, mean_low, mean_high,
    sd, sd_low, sd_high.

    Raises:
        InputError: no model of the run stores routing weights.
    """
    inside = Inside(folder, models)
    sweeps = inside.sweeps(*EXTRAS, what="routing weights", models=STORED_BY)
    names = ("mean", "mean_low", "mean_high", "sd", "sd_low", "sd_high")
    return frame_of(each_point(sweeps, _rows), "extra", "part", "expert", *names)


def importance_table(folder: str | Path, models: Collection[str] = ()) -> pd.DataFrame:
    """Do EMOE's weights follow what each modality can do alone (EMOE, figure 6)? One row per modality at a point.

    rank_correlation: Spearman of w_m with -|y - y_m| (of classes with the log-probability of y) over samples;
    agreement: the share of samples whose most weighed modality is the one with the smallest error alone (1/3 by
    chance), the same on all three rows.

    Raises:
        InputError: no model of the run stores weights and predictions of single modalities.
    """
    inside = Inside(folder, models)
    sweeps = inside.sweeps(*ALONE, what="predictions of single modalities", models="emoe stores them")
    rows = each_point(sweeps, _importance)
    correlation = ("rank_correlation", "rank_correlation_low", "rank_correlation_high")
    return frame_of(rows, "expert", *correlation, "agreement", "agreement_low", "agreement_high")


def _rows(line: Line, samples: Samples) -> Iterable[dict[str, Any]]:
    for extra, part, names, values in weights_of(line.base, dict(samples.extras)):
        mean, spread = means(values, samples.group), deviations(values, samples.group)
        for i, name in enumerate(names):
            columns = mean.columns(i, "mean", "mean_low", "mean_high") | spread.columns(i, "sd", "sd_low", "sd_high")
            yield {"extra": extra, "part": part, "expert": name, **columns}


def _importance(line: Line, samples: Samples) -> Iterable[dict[str, Any]]:
    w, error = samples.extras["routing"], _errors_alone(samples)
    if w.shape != error.shape:
        raise InputError(f"{line.model}: expected a weight for each modality, got {w.shape[1]} for {error.shape[1]}")
    same = (w.argmax(axis=1) == error.argmin(axis=1)).astype(np.float64)
    agreement = of_samples(lambda rows: same[rows].mean(keepdims=True), samples.group, SHARE)
    for i, modality in enumerate(MODALITIES):
        ranks = rank_correlations(w[:, [i]], -error[:, i], samples.group)
        columns = ranks.columns(0, "rank_correlation", "rank_correlation_low", "rank_correlation_high")
        columns |= agreement.columns(0, "agreement", "agreement_low", "agreement_high")
        yield {"expert": modality, **columns}


def _errors_alone(samples: Samples) -> Array:
    """The error of each modality's own prediction, ``(N, 3)``: absolute, or minus the log-probability of the class."""
    if "unimodal" in samples.extras:
        return np.asarray(np.abs(samples.y_true[:, None] - samples.extras["unimodal"]))
    logits = np.stack(np.split(samples.extras["unimodal_logits"], 3, axis=1), axis=1)  # (N, 3, C)
    true = samples.y_true.astype(np.int64)[:, None, None]
    return np.asarray(-np.take_along_axis(log_softmax(logits, axis=2), true, axis=2)[..., 0])


def _routing(model: str, weights: Array) -> Weights:
    if model == "rider_moe" and weights.shape[1] == len(EXPERTS):
        together = weights[:, :3].sum(axis=1, keepdims=True)
        return Weights("routing", "", (*EXPERTS, "U"), np.concatenate([weights, together], axis=1))
    if model == "emoe":
        return Weights("routing", "", MODALITIES, weights)
    return Weights("routing", "", _numbered(weights), weights)


def _numbered(weights: Array) -> tuple[str, ...]:
    return tuple(f"expert {i + 1}" for i in range(weights.shape[1]))
