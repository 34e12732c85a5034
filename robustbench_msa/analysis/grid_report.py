"""All scores of one curve over one grid, and for each that is null the reason.

``grid_report`` is for a table's row, ``grid_reports`` for many, ``grid_replicates`` for a curve that was drawn again
and again, ``standing`` for a table's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.analysis.grid_curve import Curve, GridCurve, finite
from robustbench_msa.analysis.metrics import Array

NO_AXIS = "available sets have no severity axis"
NO_RANGE = "a single severity has no range"
TWO_AXES = "defined on one severity axis; this grid has two"
NO_CLEAN = "there is no clean score"
NO_FLOOR = "there is no floor"
NO_MARGIN = "the clean score is not better than the best constant: there is nothing to lose"
NEVER_HALVED = "more than half of the margin over the floor is left at the largest severity"
NO_DROP = "the curve never gets worse"
NOT_POSITIVE = "a share of a clean score of 0 or less has no meaning"
NO_ERROR_FORM = "the metric has no error form (1 - accuracy, or MAE)"
NO_BASELINE = "no baseline was given"
NOTHING_STRESSED = "the grid has only the untouched input"
NO_ORACLE = "no oracle was given"

Why = Callable[[GridCurve], str | None]
Reported = tuple[float | None, str | None]
"""(value, None), or (None, why there is no value)."""


def _any_grid(curve: GridCurve) -> str | None:
    return None


def _no_range(curve: GridCurve) -> str | None:
    return (NO_RANGE if 1 in curve.shape else None) if len(curve.axes) else NO_AXIS


def _no_line(curve: GridCurve) -> str | None:
    return TWO_AXES if len(curve.axes) == 2 else _no_range(curve)


def _no_errors(curve: GridCurve) -> str | None:
    if curve.as_error is None:
        return NO_ERROR_FORM
    if curve.baseline is None:
        return NO_BASELINE
    return None if curve.stressed.any() else NOTHING_STRESSED


def _no_oracle(curve: GridCurve) -> str | None:
    return NO_ORACLE if curve.oracle is None else _no_range(curve)


def _no_margin(curve: GridCurve) -> str | None:
    if np.isnan(finite(curve.clean)):
        return NO_CLEAN
    if np.isnan(finite(curve.floor)):
        return NO_FLOOR
    return NO_MARGIN if np.isnan(curve.has_margin) else None


def _no_values(values: ArrayLike, whose: str = "") -> str | None:
    null = np.isnan(finite(values))
    return f"{whose}{null.sum()} of {null.size} cells have no value" if null.any() else None


def _why_not_compared(other: Curve | None, otherwise: str) -> str | None:
    """Why a comparison is null although this curve has all that it needs."""
    if other is None:
        return None
    return _no_values(other.values, f"{other.name}: ") or f"{other.name} {otherwise}"


def _no_relative_ce(curve: GridCurve) -> str | None:
    if curve.baseline is not None and np.isnan(finite(curve.baseline.clean)):
        return f"{curve.baseline.name}: {NO_CLEAN}"
    return _why_not_compared(curve.baseline, "does not get worse over this grid")


@dataclass(frozen=True)
class Score:
    """What a score is to a table, and how to have it.

    better: "metric" (as the metric is), "higher", "lower", or "" for a place, which is no quality.
    ranks: True where a curve that is better than another in every cell never scores worse. Only these are fit to rank
        models by; the others compare a curve with its own clean score, and a weak model has little to lose.
    unsupported: why this grid has no such score, whatever the values. of_margin: null without a margin over the floor.
    otherwise: why it is null all the same.
    """

    label: str
    better: str
    ranks: bool
    value: Callable[[GridCurve], Array]
    unsupported: Why
    of_margin: bool = False
    otherwise: Why = _any_grid

    def reported(self, curve: GridCurve, value: float) -> Reported:
        """The value that this score has on a curve without replicates, or why there is none."""
        reason = self.unsupported(curve) or _no_values(curve.values)
        reason = reason or (_no_margin(curve) if self.of_margin else None)
        reason = reason or (None if np.isfinite(value) else self.otherwise(curve))
        return (value, None) if reason is None else (None, reason)


SCORES: Mapping[str, Score] = MappingProxyType(
    {
        "nauc": Score("nAUC", "metric", True, GridCurve.nauc, _no_range),
        "auc_raw": Score("AUC (raw)", "metric", True, GridCurve.auc_raw, _no_line),
        "grid_mean": Score("Grid mean", "metric", True, GridCurve.grid_mean, _any_grid),
        "worst": Score("Worst", "metric", True, GridCurve.worst, _any_grid),
        "retention": Score("Retention", "higher", False, GridCurve.retention, _no_range, of_margin=True),
        "half_life": Score(
            "Half-life",
            "higher",
            False,
            GridCurve.half_life,
            _no_line,
            of_margin=True,
            otherwise=lambda c: NEVER_HALVED,
        ),
        "cliff": Score("Cliff", "lower", False, lambda c: c.cliff().size, _no_line, of_margin=True),
        "cliff_at": Score(
            "Cliff at", "", False, lambda c: c.cliff().at, _no_line, of_margin=True, otherwise=lambda c: NO_DROP
        ),
        "area_within_5": Score(
            "Within 5 %", "higher", False, lambda c: c.area_within(0.05), _no_range, True, lambda c: NOT_POSITIVE
        ),
        "area_within_10": Score(
            "Within 10 %", "higher", False, lambda c: c.area_within(0.10), _no_range, True, lambda c: NOT_POSITIVE
        ),
        "ce": Score(
            "CE",
            "lower",
            True,
            GridCurve.ce,
            _no_errors,
            otherwise=lambda c: _why_not_compared(c.baseline, "makes no error on this grid"),
        ),
        "relative_ce": Score(
            "Relative CE", "lower", False, GridCurve.relative_ce, _no_errors, of_margin=True, otherwise=_no_relative_ce
        ),
        "regret": Score(
            "Regret",
            "lower",
            True,
            GridCurve.regret,
            _no_oracle,
            otherwise=lambda c: _why_not_compared(c.oracle, "has no nAUC"),
        ),
    }
)
"""Every score of a report, in the order of its columns."""


def grid_report(
    axes: Sequence[ArrayLike],
    values: ArrayLike,
    clean: float | None,
    floor: float | None,
    higher_is_better: bool,
    baseline: Curve | None = None,
    oracle: Curve | None = None,
    as_error: Callable[[Array], Array] | None = None,
    untouched: ArrayLike | None = None,
) -> dict[str, Reported]:
    """Every score of SCORES as (value, None), or (None, why it is null).

    Arguments and errors are those of GridCurve, without replicates: values has the shape of the grid.

    >>> report = grid_report([[0, 0.5, 1]], [0.9, 0.8, 0.6], clean=0.9, floor=0.5, higher_is_better=True)
    >>> round(report["half_life"][0], 6), report["regret"]
    (0.75, (None, 'no oracle was given'))
    """
    ends = float(finite(clean)), float(finite(floor))  # None: NaN
    curve = GridCurve(axes, values, *ends, higher_is_better, baseline, oracle, as_error, untouched)
    if np.shape(values) != curve.shape:
        raise InputError(f"grid_report: expected values of shape {curve.shape}, got {np.shape(values)}")
    return {name: score.reported(curve, float(score.value(curve))) for name, score in SCORES.items()}


def grid_reports(curve: GridCurve) -> list[dict[str, Reported]]:
    """``grid_report`` of each of M curves at once: values ``(A, ..., M)``, clean ``(M,)``, floor ``(M,)`` or ``()``.

    >>> both = grid_reports(GridCurve([[0, 1]], [[0.9, 0.4], [0.5, 0.4]], [0.9, 0.4], 0.5, higher_is_better=True))
    >>> [report["half_life"] for report in both] == [(0.5, None), (None, NO_MARGIN)]
    True
    """
    found = {name: score.value(curve) for name, score in SCORES.items()}
    lacking = {name: score.unsupported(curve) for name, score in SCORES.items()}
    values = np.asarray(curve.values, dtype=np.float64)
    whole = np.asarray(np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=0))

    def reported(name: str, i: int) -> Reported:
        value = float(found[name][i])
        if lacking[name] is not None:
            return None, lacking[name]
        return (value, None) if whole[i] and np.isfinite(value) else SCORES[name].reported(curve.replicate(i), value)

    return [{name: reported(name, i) for name in SCORES} for i in range(values.shape[-1])]


def grid_replicates(curve: GridCurve) -> dict[str, Array]:
    """Every score of SCORES over replicates, ``(...)`` each, NaN where null, for intervals.

    A half-life that is never reached is the largest severity here: an upper bound there reads "or beyond".

    >>> draws = grid_replicates(GridCurve([[0, 1]], [[0.9, 0.9], [0.5, 0.8]], [0.9, 0.9], 0.5, higher_is_better=True))
    >>> draws["nauc"], draws["half_life"]
    (array([0.7 , 0.85]), array([0.5, 1. ]))
    """
    scores = {name: score.value(curve) for name, score in SCORES.items()}
    end = float(np.max(curve.axes[0])) if len(curve.axes) else np.nan
    return {**scores, "half_life": np.where(np.isinf(scores["half_life"]), end, scores["half_life"])}


def standing(name: str, value: float | None, reason: str | None, higher_is_better: bool) -> float:
    """What to sort by in descending order, best first: null is last, a margin that is never halved first.

    Args:
        name: of SCORES. value, reason: as reported. higher_is_better: of the metric.

    Raises:
        InputError: not a score, or a place (cliff_at), which is neither good nor bad.

    >>> standing("nauc", 1.2, None, higher_is_better=False), standing("half_life", None, NEVER_HALVED, True)
    (-1.2, inf)
    """
    if name not in SCORES or not SCORES[name].better:
        known = [name for name, score in SCORES.items() if score.better]
        raise InputError(f"cannot sort by {name!r}{did_you_mean(name, known)}; expected one of {', '.join(known)}")
    if value is None:
        return np.inf if reason == NEVER_HALVED else -np.inf
    upwards = higher_is_better if SCORES[name].better == "metric" else SCORES[name].better == "higher"
    return value if upwards else -value
