"""What breaks a model, and which samples first: the loss of one modality, and predicted signs that flip.

A sign is that of Acc-2 with zeros: a prediction of at least 0 is not negative. Where predictions are classes, the class
itself takes the sign's place, and an error is 1 where it is wrong and 0 where it is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from corruptions import MODALITIES, InputError, Point
from robustbench_msa.analysis.inside.cells import WHO, Inside, Sweep, frame_of
from robustbench_msa.analysis.inside.grouped import SHARE, means
from robustbench_msa.analysis.inside.samples import Samples
from robustbench_msa.analysis.metrics import Array

WITHOUT = {"a+v": "text", "t+v": "audio", "t+a": "vision"}
"""The condition of missing-fixed that lacks one modality alone."""
LETTER = {modality[0]: modality for modality in MODALITIES}


class BreakingInfo(NamedTuple):
    """Three tidy tables, intervals at 95 %.

    modalities: one row per modality that is hit alone, at a point (WHO, WHERE, modality): mae_added, the mean over
    samples of |error| minus the clean |error|; flipped, the share of samples whose predicted sign is not the clean one.
    shares: flipped at every point of every stress with one severity axis.
    flips: one row per sample that flips (WHO, stress, params): severity, the smallest at which its sign is not the
    clean one in at least half of the corruption seeds; the first to flip first, of equals the largest clean prediction
    (of classes the most probable one).
    """

    modalities: pd.DataFrame
    shares: pd.DataFrame
    flips: pd.DataFrame


def breaking_info(folder: str | Path) -> BreakingInfo:
    """What hurts the models of a run.

    A modality is hit alone by missing-fixed with the two others available, and by any stress restricted to it
    (``msabench run --modalities text``), whatever that stress does to it.

    Raises:
        InputError: no stress, or no clean cell to compare with.
    """
    sweeps = Inside(folder).sweeps()
    compared = [(sweep, *_clean_first(sweep)) for sweep in sweeps]
    if not any(clean is not None for _, clean, _ in compared):
        raise InputError(f"{folder}: no clean cell there to compare with; run the same msabench run again")
    modalities, shares, flips = [], [], []
    for sweep, clean, rest in compared:
        if clean is not None:
            modalities += list(_alone(sweep, clean, rest))
            if sweep.n_axes == 1:
                shares += list(_shares(sweep, clean, rest))
                flips += list(_flips(sweep, clean, rest))
    hurt = ("modality", "mae_added", "mae_added_low", "mae_added_high", "flipped", "flipped_low", "flipped_high")
    listed = ("id", "label", "clean_prediction", "severity", "prediction", "flipped_seeds", "n_seeds")
    return BreakingInfo(
        frame_of(modalities, *hurt),
        frame_of(shares, "flipped", "flipped_low", "flipped_high"),
        pd.DataFrame(flips, columns=[*WHO, "stress", "params", *listed]).astype({"train_seed": "Int64"}),
    )


Rest = list[tuple[Point, Samples]]


def _clean_first(sweep: Sweep) -> tuple[Samples | None, Rest]:
    clean = next((samples for point, samples in sweep.points if point.is_clean), None)
    return clean, [(point, samples) for point, samples in sweep.points if not point.is_clean]


def _alone(sweep: Sweep, clean: Samples, rest: Rest) -> Iterator[dict[str, Any]]:
    for point, samples in rest:
        modality = WITHOUT.get(point.condition) if point.condition else LETTER.get(sweep.modalities)
        if modality is not None:
            before = matched(clean, samples)
            added = means((samples.error - clean.error[before])[:, None], samples.group)
            row = added.columns(0, "mae_added", "mae_added_low", "mae_added_high")
            yield {**sweep.facts(point, samples), "modality": modality, **row, **_flipped(clean, samples)}


def _shares(sweep: Sweep, clean: Samples, rest: Rest) -> Iterator[dict[str, Any]]:
    for point, samples in [(sweep.points[0][0], clean), *rest]:  # the clean point is 0 by definition
        yield {**sweep.facts(point, samples), **_flipped(clean, samples)}


def _flips(sweep: Sweep, clean: Samples, rest: Rest) -> list[dict[str, Any]]:
    known: set[str] = set()
    found, certainty = [], clean.certainty
    for point, samples in rest:  # by severity
        counts, mean = per_sample(clean, samples)
        new = [i for i, name in enumerate(clean.ids) if 2 * counts[i] >= samples.n_seeds and name not in known]
        known |= {clean.ids[i] for i in new}
        for i in sorted(new, key=lambda i: (-certainty[i], clean.ids[i])):
            where = {**sweep.line._asdict(), "stress": sweep.stress, "params": sweep.params}
            what = {"id": str(clean.ids[i]), "label": clean.y_true[i], "clean_prediction": clean.y_pred[i]}
            what |= {"severity": point.severity, "prediction": mean[i]}
            found.append({**where, **what, "flipped_seeds": int(counts[i]), "n_seeds": samples.n_seeds})
    return found


def per_sample(clean: Samples, samples: Samples) -> tuple[Array, Array]:
    """For each sample of the clean cell: in how many corruption seeds its sign (or class) differs, and its prediction.

    That is the mean of its scores, or the most frequent of its classes (of equals one that is not the clean one; NaN:
    none).
    """
    before = matched(clean, samples)
    flips = np.bincount(before, weights=_differs(clean, samples, before), minlength=len(clean.ids))
    if samples.classes:
        return np.asarray(flips, dtype=np.float64), _most_frequent(samples.y_pred, before, clean.y_pred)
    total = np.bincount(before, weights=samples.y_pred, minlength=len(clean.ids))
    counts = np.maximum(np.bincount(before, minlength=len(clean.ids)), 1)
    return np.asarray(flips, dtype=np.float64), total / counts


def _most_frequent(classes: Array, of: Any, clean: Array) -> Array:
    """Of each of n samples ``(n,)``, from classes ``(N,)`` and whose they are ``(N,)``; clean: ``(n,)``, loses ties."""
    known, n = ~np.isnan(classes), len(clean)
    count = int(max(classes[known].max(initial=0), np.nan_to_num(clean).max(initial=0))) + 1
    votes = np.bincount(of[known] * count + classes[known].astype(np.int64), minlength=n * count).reshape(n, count)
    ranked = votes - 0.5 * (np.arange(count) == clean[:, None])
    return np.where(votes.any(axis=1), ranked.argmax(axis=1), np.nan)


def matched(clean: Samples, samples: Samples) -> Any:
    """For every row of samples, the row of the same id in the clean cell, ``(N,)``."""
    order = np.argsort(clean.ids)
    at = order[np.searchsorted(clean.ids, samples.ids, sorter=order).clip(max=len(order) - 1)]
    if not (clean.ids[at] == samples.ids).all():
        raise InputError("breaking: a cell holds samples that the clean cell lacks; run the same msabench run again")
    return at


def _flipped(clean: Samples, samples: Samples) -> dict[str, float]:
    differs = _differs(clean, samples, matched(clean, samples))
    return means(differs[:, None], samples.group, SHARE).columns(0, "flipped", "flipped_low", "flipped_high")


def _differs(clean: Samples, samples: Samples, before: Any) -> Array:
    now, then = samples.y_pred, clean.y_pred[before]
    if samples.classes:
        return np.asarray(np.nan_to_num(now, nan=-1) != np.nan_to_num(then, nan=-1), dtype=np.float64)
    return np.asarray((now >= 0) != (then >= 0), dtype=np.float64)
