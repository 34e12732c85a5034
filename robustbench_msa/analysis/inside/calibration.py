"""Is the predicted variance right, and does it stay right under corruption? (QA-MoE's log-variance, eq. 9-10.)

With sigma^2 = exp(s), s the stored log-variance, and e = y - prediction:

- mean negative log likelihood: the mean of (e^2 exp(-s) + s + log(2 pi)) / 2, in nats; eq. 10 leaves out the last .919;
- coverage at level q: the share of samples with |e| <= z sigma, Phi(z) = (1 + q)/2; calibrated means coverage q;
- the root of the mean variance beside the root of the mean squared error: calibrated in the mean means equal;
- sparsification: the error left when the most uncertain samples are dropped, against dropping the largest errors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from corruptions import InputError
from robustbench_msa.analysis.inside.cells import Inside, Line, each_point, frame_of
from robustbench_msa.analysis.inside.grouped import ERROR, SHARE, Estimate, Rows, means, of_samples, of_sums, ratio
from robustbench_msa.analysis.inside.risk import SHARES, areas, risk_at
from robustbench_msa.analysis.inside.samples import Samples
from robustbench_msa.analysis.metrics import Array

EXTRA = "log_variance"
STORED_BY = "qa_moe stores one"
LEVELS = (0.5, 0.8, 0.9, 0.95)


class CalibrationInfo(NamedTuple):
    """Three tidy tables (columns WHO, WHERE), intervals at 95 %.

    points: nll, rmse and rms_sigma with intervals; ause, the area between the sparsification curve and the oracle's,
    and the areas themselves. coverage: one row per level. sparsification: one row per share dropped: error, oracle,
    and random, what no order at all leaves.
    """

    points: pd.DataFrame
    coverage: pd.DataFrame
    sparsification: pd.DataFrame


def calibration_info(folder: str | Path, models: Collection[str] = ()) -> CalibrationInfo:
    """
    Raises:
        InputError: no model of the run stores a log-variance; the run is on classes.
    """
    inside = Inside(folder, models)
    if inside.classes:
        raise InputError(
            f"{folder}: calibration is of a predicted variance of scores, this run is on classes; "
            "msabench plot risk shows whether their probabilities order the errors"
        )
    sweeps = inside.sweeps(EXTRA, what="predicted variance", models=STORED_BY)
    measured = [f"{name}{end}" for name in ("nll", "rmse", "rms_sigma", "ause") for end in ("", "_low", "_high")]
    return CalibrationInfo(
        frame_of(each_point(sweeps, _point), *measured, "area", "area_oracle", "area_random"),
        frame_of(each_point(sweeps, _coverage), "level", "coverage", "coverage_low", "coverage_high"),
        frame_of(
            each_point(sweeps, _sparsification), "dropped", "error", "error_low", "error_high", "oracle", "random"
        ),
    )


def negative_log_likelihood(error: Array, log_variance: Array) -> Array:
    """Of each sample under its Gaussian, ``(N,)``, in nats.

    >>> negative_log_likelihood(np.array([2.0]), np.array([0.0])).round(4)  # 4/2 + log(2 pi)/2
    array([2.9189])
    """
    return np.asarray((error**2 * np.exp(-log_variance) + log_variance + np.log(2 * np.pi)) / 2)


def covered(error: Array, log_variance: Array, level: float) -> Array:
    """Whether each sample's label is within its central interval of a level, ``(N,)`` of 0 and 1."""
    return np.asarray(np.abs(error) <= norm.ppf((1 + level) / 2) * np.exp(log_variance / 2), dtype=np.float64)


def _parts(samples: Samples) -> tuple[Array, Array]:
    """Absolute error and log-variance, ``(N,)`` each."""
    return samples.error, samples.extras[EXTRA][:, 0]


def _point(line: Line, samples: Samples) -> Iterator[dict[str, Any]]:
    error, s = _parts(samples)
    nll = means(negative_log_likelihood(error, s)[:, None], samples.group)
    found = areas(error, -s)
    row = nll.columns(0, "nll", "nll_low", "nll_high")
    row |= _root_mean(error**2, samples).columns(0, "rmse", "rmse_low", "rmse_high")
    row |= _root_mean(np.exp(s), samples).columns(0, "rms_sigma", "rms_sigma_low", "rms_sigma_high")
    row |= of_samples(partial(_ause, error, s), samples.group).columns(0, "ause", "ause_low", "ause_high")
    yield {**row, "area": found.area, "area_oracle": found.oracle, "area_random": found.random}


def _coverage(line: Line, samples: Samples) -> Iterator[dict[str, Any]]:
    inside = np.stack([covered(*_parts(samples), level) for level in LEVELS], axis=1)
    found = means(inside, samples.group, SHARE)
    for i, level in enumerate(LEVELS):
        yield {"level": level, **found.columns(i, "coverage", "coverage_low", "coverage_high")}


def _sparsification(line: Line, samples: Samples) -> Iterator[dict[str, Any]]:
    error, s = _parts(samples)
    found, oracle = of_samples(partial(_left, error, s), samples.group), risk_at(error, -error)
    for i in reversed(range(len(SHARES))):
        row = {"dropped": round(1 - SHARES[i], 10), "oracle": oracle[i], "random": error.mean()}
        yield {**row, **found.columns(i, "error", "error_low", "error_high")}


def _left(error: Array, log_variance: Array, rows: Rows) -> Array:
    return risk_at(error[rows], -log_variance[rows])


def _ause(error: Array, log_variance: Array, rows: Rows) -> Array:
    found = areas(error[rows], -log_variance[rows])
    return np.array([found.area - found.oracle])


def _root_mean(squares: Array, samples: Samples) -> Estimate:
    terms = np.stack([squares, np.ones(len(squares))], axis=1)
    return of_sums(terms, samples.group, lambda sums: np.sqrt(ratio(sums[..., :1], sums[..., 1:])), ERROR)
