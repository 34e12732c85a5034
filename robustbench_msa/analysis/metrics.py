"""Metric profiles: from labels and predictions to scores, by way of sums that can be resampled.

A metric is two small functions. ``update`` turns N samples into N rows of numbers; ``compute`` turns sums of
such rows into the value. Sums per group (video) are all that a bootstrap needs: ``compute`` of
``weights (B, G) @ stats (G, K)`` gives B replicates at once, and ``score`` is the case of a single group.

Labels and predictions are compared in float32. A null score is NaN in arrays and None in ``score``. A NaN or
infinite prediction is of no class: wrong in every accuracy, neither a true nor a false positive in F1; it
makes MAE and Corr null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from corruptions import InputError
from corruptions.registry import did_you_mean

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

NULL_SCORES: Mapping[str, float] = MappingProxyType({"corr": 0.0})
"""What a null counts as in floors, nAUC and retention. A metric that is not named here stays null."""

# A standard deviation below 1e-6 of the values' size is a constant: that is a few roundings of float32.
_CONSTANT = 1e-12


class Binning(NamedTuple):
    """Values to classes 0..C-1. centres: a value of each class; empty: values are classes already."""

    code: Callable[[NDArray[Any]], NDArray[Any]]
    centres: tuple[float, ...] = ()
    drop_zeros: bool = False  # labels of 0 are left out

    def codes(self, y: NDArray[Any], p: NDArray[Any]) -> tuple[Codes, Codes]:
        """``(N,)`` classes of labels and predictions; -1: a label left out, a prediction of no class."""
        codes_y = self.code(y).astype(np.int64)
        if self.drop_zeros:
            codes_y[y == 0] = -1
        codes_p = np.full(p.shape, -1, dtype=np.int64)
        codes_p[~np.isnan(p)] = self.code(p[~np.isnan(p)])
        return codes_y, codes_p

    def constants(self, y: NDArray[Any]) -> Array:
        return np.asarray(self.centres or np.arange(y.max() + 1), dtype=np.float64)


def _rounded(limit: int) -> Binning:
    centres = tuple(float(c) for c in range(-limit, limit + 1))
    return Binning(lambda v: np.round(np.clip(v, -limit, limit)) + limit, centres)  # round: half to even


def _right_closed(cuts: tuple[float, ...], centres: tuple[float, ...], drop_zeros: bool = False) -> Binning:
    edges = np.asarray(cuts, dtype=np.float32)  # against a float64 edge, float32 .1 and -.7 would be above it
    return Binning(lambda v: np.searchsorted(edges, v, side="left"), centres, drop_zeros)


_HAS0 = Binning(lambda v: v >= 0, (-1.0, 1.0))
_NON0 = _right_closed((0.0,), (-1.0, 1.0), drop_zeros=True)
_POSITIVE = _right_closed((0.0,), (-1.0, 1.0))
_SIMS3 = _right_closed((-0.1, 0.1), (-1.0, 0.0, 1.0))
_SIMS5 = _right_closed((-0.7, -0.1, 0.1, 0.7), (-1.0, -0.4, 0.0, 0.4, 1.0))
_CLASSES = Binning(lambda v: v)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a metric declares of itself, and its two halves.

    label: for tables and axes. unit: "fraction" (0..1), "label" (that of the labels) or "" (Corr).
    decimals: how many are printed.
    """

    name: str
    label: str
    higher_is_better: bool = True
    unit: str = "fraction"
    decimals: int = 3

    def width(self, n_classes: int) -> int:
        """Columns of ``update``."""
        raise NotImplementedError

    def update(self, y: NDArray[Any], p: NDArray[Any], n_classes: int) -> Array:
        """``(N, width)`` rows to be summed. y, p: ``(N,)``, p is NaN where there is no finite prediction."""
        raise NotImplementedError

    def compute(self, stats: Array) -> Array:
        """``(...)`` values from sums of rows ``(..., width)``; NaN where undefined."""
        raise NotImplementedError

    def constants(self, y: NDArray[Any]) -> Array:
        """Constant predictions among which is the best one for labels y."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Accuracy(Metric):
    """Share of samples whose prediction falls in the label's class."""

    binning: Binning

    def width(self, n_classes: int) -> int:
        return 2

    def update(self, y: NDArray[Any], p: NDArray[Any], n_classes: int) -> Array:
        codes_y, codes_p = self.binning.codes(y, p)
        counted = codes_y >= 0
        return np.stack([counted & (codes_y == codes_p), counted], axis=1).astype(np.float64)

    def compute(self, stats: Array) -> Array:
        return _ratio(stats[..., 0], stats[..., 1], undefined=np.nan)

    def constants(self, y: NDArray[Any]) -> Array:
        return self.binning.constants(y)


@dataclass(frozen=True, kw_only=True)
class ClassScore(Metric):
    """F1 = 2 TP / (true + predicted), precision = TP / predicted or recall = TP / true, over all classes.

    A quotient 0/0 is 0. average: "true" weighs by the support of the true classes; "predicted" by that of the
    predicted ones (a prediction of no class weighs in with F1 0); "macro" weighs alike all classes that occur
    among labels or predictions, as scikit-learn does.
    """

    binning: Binning
    quantity: str = "f1"
    average: str = "true"

    def width(self, n_classes: int) -> int:
        return 3 * (len(self.binning.centres) or n_classes)

    def update(self, y: NDArray[Any], p: NDArray[Any], n_classes: int) -> Array:
        codes_y, codes_p = self.binning.codes(y, p)
        classes = np.arange(len(self.binning.centres) or n_classes)
        true = codes_y[:, None] == classes  # (N, C)
        predicted = (codes_p[:, None] == classes) & (codes_y >= 0)[:, None]
        return np.concatenate([true & predicted, true, predicted], axis=1).astype(np.float64)

    def compute(self, stats: Array) -> Array:
        tp, true, predicted = np.moveaxis(stats.reshape(*stats.shape[:-1], 3, -1), -2, 0)  # (..., C) each
        parts = {"f1": (2 * tp, true + predicted), "precision": (tp, predicted), "recall": (tp, true)}
        per_class = _ratio(*parts[self.quantity], undefined=0.0)
        occurs = (true + predicted > 0).astype(np.float64)
        weights, total = {
            "true": (true, true.sum(-1)),
            "predicted": (predicted, true.sum(-1)),  # N, so that predictions of no class weigh in
            "macro": (occurs, occurs.sum(-1)),
        }[self.average]
        return _ratio((weights * per_class).sum(-1), total, undefined=np.nan)

    def constants(self, y: NDArray[Any]) -> Array:
        return self.binning.constants(y)


@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError(Metric):
    """mean |p - y|; null with any prediction that is not finite. The median is its best constant."""

    def width(self, n_classes: int) -> int:
        return 3

    def update(self, y: NDArray[Any], p: NDArray[Any], n_classes: int) -> Array:
        error = np.abs(p.astype(np.float64) - y)
        return np.stack([np.nan_to_num(error), np.ones(len(y)), np.isnan(p)], axis=1)

    def compute(self, stats: Array) -> Array:
        return np.where(stats[..., 2] > 0, np.nan, _ratio(stats[..., 0], stats[..., 1], undefined=np.nan))

    def constants(self, y: NDArray[Any]) -> Array:
        return np.asarray([np.median(y.astype(np.float64))])


@dataclass(frozen=True, kw_only=True)
class Correlation(Metric):
    """Pearson's r; null when labels or predictions are constant, and with any prediction that is not finite.

    Moments are taken about the overall means, rounded to float32: r does not mind the shift, the differences
    of sums keep their digits, and a constant prediction leaves exact zeros. Constant means a standard
    deviation below 1e-6 of the root mean square: less than float32 resolves.
    """

    def width(self, n_classes: int) -> int:
        return 9

    def update(self, y: NDArray[Any], p: NDArray[Any], n_classes: int) -> Array:
        known = ~np.isnan(p)
        y, p = y.astype(np.float64), np.where(known, p, 0).astype(np.float64)
        dy, dp = y - np.float32(y.mean()), p - np.float32(p.mean())
        return np.stack([np.ones(len(y)), dy, dp, dy * dy, dp * dp, dy * dp, y * y, p * p, ~known], axis=1)

    def compute(self, stats: Array) -> Array:
        n, sy, sp, syy, spp, syp, yy, pp, unknown = np.moveaxis(stats, -1, 0)
        per_n = _ratio(np.ones_like(n), n, undefined=np.nan)
        vy, vp, cov = syy - sy * sy * per_n, spp - sp * sp * per_n, syp - sy * sp * per_n
        # What cancels in the differences above is measured by syy, spp; the size of the values by yy, pp.
        defined = (vy > _CONSTANT * (syy + yy)) & (vp > _CONSTANT * (spp + pp)) & (unknown == 0)
        r = cov / np.sqrt(np.where(defined, vy, 1)) / np.sqrt(np.where(defined, vp, 1))
        return np.where(defined, np.clip(r, -1, 1), np.nan)

    def constants(self, y: NDArray[Any]) -> Array:
        return np.zeros(1)


@dataclass(frozen=True)
class Profile:
    """The metrics of a family of datasets. clip: labels and predictions, before anything else."""

    name: str
    metrics: tuple[Metric, ...]
    clip: tuple[float, float] | None = None
    classification: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(metric.name for metric in self.metrics)

    def metric(self, name: str) -> Metric:
        """The metric of this name; InputError, with the nearest names, when there is none."""
        if name not in self.names:
            near, known = did_you_mean(name, self.names), ", ".join(self.names)
            raise InputError(f"profile {self.name} has no metric {name!r}{near}; it has {known}")
        return self.metrics[self.names.index(name)]

    def labels(self, y_true: ArrayLike) -> NDArray[Any]:
        """Labels checked, ``(N,)``: float32 (clipped), or classes."""
        y = _numbers("labels", y_true, np.float64 if self.classification else np.float32)
        if y.ndim != 1 or y.size == 0:
            raise InputError(f"labels: expected one score per sample, (N,) with N > 0; got shape {y.shape}")
        if not np.isfinite(y).all():
            bad = int((~np.isfinite(y)).sum())
            raise InputError(f"labels: {bad} of {y.size} are NaN or infinite; fix or drop these samples")
        if self.classification:
            return _whole("labels", y)
        return y if self.clip is None else np.clip(y, *self.clip)

    def predictions(self, y_pred: ArrayLike, n: int) -> NDArray[Any]:
        """Predictions checked, ``(n,)``, as labels are, with NaN for whatever is not finite."""
        p = _numbers("predictions", y_pred, np.float64 if self.classification else np.float32)
        if self.classification and p.ndim == 2 and p.shape[1] > 0:  # (N, C) logits
            p = np.where(np.isfinite(p).all(1), p.argmax(1), np.nan)
        if p.shape != (n,):
            raise InputError(f"predictions: expected shape ({n},) to go with {n} labels, got {p.shape}")
        p = np.where(np.isfinite(p), p, p.dtype.type(np.nan))
        if self.classification:
            return _whole("predictions", p)
        return p if self.clip is None else np.clip(p, *self.clip)

    def n_classes(self, width: int) -> int:
        """C from the width K of sufficient statistics (0 when the profile does not need it)."""
        fixed = sum(metric.width(0) for metric in self.metrics)
        per_class = sum(metric.width(1) for metric in self.metrics) - fixed
        n_classes, rest = divmod(width - fixed, per_class) if per_class else (0, width - fixed)
        if rest or n_classes < (per_class > 0):
            raise InputError(f"{self.name}: {width} columns are not sufficient statistics of this profile")
        return n_classes


def _mosi(average: str, suffix: str) -> tuple[Metric, ...]:
    return (
        Accuracy(name="acc2_has0", label="Acc-2 (with zero)", binning=_HAS0),
        ClassScore(name="f1_has0", label=f"F1 (with zero{suffix})", binning=_HAS0, average=average),
        Accuracy(name="acc2_non0", label="Acc-2 (non-zero)", binning=_NON0),
        ClassScore(name="f1_non0", label=f"F1 (non-zero{suffix})", binning=_NON0, average=average),
        Accuracy(name="acc3", label="Acc-3", binning=_rounded(1)),
        Accuracy(name="acc5", label="Acc-5", binning=_rounded(2)),
        Accuracy(name="acc7", label="Acc-7", binning=_rounded(3)),
        _MAE,
        _CORR,
    )


_MAE = MeanAbsoluteError(name="mae", label="MAE", higher_is_better=False, unit="label")
_CORR = Correlation(name="corr", label="Corr", unit="")
_SIMS = (
    Accuracy(name="acc2", label="Acc-2", binning=_POSITIVE),
    ClassScore(name="f1", label="F1", binning=_POSITIVE),
    Accuracy(name="acc3", label="Acc-3", binning=_SIMS3),
    Accuracy(name="acc5", label="Acc-5", binning=_SIMS5),
    _MAE,
    _CORR,
)
_F1_MACRO = ClassScore(name="f1_macro", label="F1 (macro)", binning=_CLASSES, average="macro")
_CLASSIFICATION = (
    Accuracy(name="acc", label="Acc", binning=_CLASSES),
    _F1_MACRO,
    replace(_F1_MACRO, name="precision_macro", label="Precision (macro)", quantity="precision"),
    replace(_F1_MACRO, name="recall_macro", label="Recall (macro)", quantity="recall"),
    ClassScore(name="f1_weighted", label="F1 (weighted)", binning=_CLASSES),
)
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("mosi", _mosi("true", "")),
            Profile("sims", _SIMS, clip=(-1.0, 1.0)),
            Profile("classification", _CLASSIFICATION, classification=True),
            Profile("legacy_swapped_f1", _mosi("predicted", ", by predicted support")),
        )
    }
)


def get_profile(name: str) -> Profile:
    """The profile of this name; InputError, with the nearest name, when there is none."""
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}{did_you_mean(name, PROFILES)}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    profile: str = "mosi",
    predictions_for: Mapping[str, ArrayLike] | None = None,
) -> dict[str, float | None]:
    """Every metric of a profile over a set of samples.

    Args:
        y_true: ``(N,)`` labels, N > 0 and all finite (classification: whole numbers from 0).
        y_pred: ``(N,)`` predictions in the labels' unit (classification: classes, or ``(N, C)`` logits).
        profile: one of PROFILES. "legacy_swapped_f1" is only for comparison with tables made that way.
        predictions_for: per metric, other ``(N,)`` predictions which that metric uses instead of y_pred.

    Returns:
        Accuracies and F1 as fractions, MAE in the unit of the labels, Corr in [-1, 1]; None where undefined:
        Corr of a constant, MAE and Corr with a prediction that is not finite, the non-zero metrics when every
        label is 0.

    Raises:
        InputError: no samples, shapes that do not agree, labels that are not finite, an unknown profile or
            metric.

    Of the non-zero labels -1, 2, 2.5 two signs are right, 0 is not negative, and rounding half to even takes
    -0.5 to 0 and 2.5 to 2:

    >>> values = score([-1, 0, 2, 2.5], [-1, -0.5, -1, 2])
    >>> round(values["acc2_non0"], 3), values["acc2_has0"], values["acc7"], values["mae"]
    (0.667, 0.5, 0.75, 1.0)
    >>> score([-1, 2], [0.5, 0.5])["corr"] is None
    True
    """
    n = len(get_profile(profile).labels(y_true))
    stats = sufficient(y_true, y_pred, np.zeros(n, dtype=np.int64), 1, profile, predictions_for)
    values = {name: float(value) for name, value in compute(stats[0], profile).items()}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def sufficient(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    group_index: ArrayLike,
    n_groups: int,
    profile: str = "mosi",
    predictions_for: Mapping[str, ArrayLike] | None = None,
    n_classes: int | None = None,
) -> Array:
    """Sums per group, from which ``compute`` gets every metric of any multiset of groups.

    Args:
        y_true, y_pred, predictions_for: as in ``score``.
        group_index: ``(N,)`` whole numbers in 0..n_groups-1, the group (video) of each sample.
        n_groups: G; a group may be empty.
        n_classes: C of a classification. Default: the columns of logits, or the largest class plus one.
            Give it where the statistics of several predictions are to be stacked.

    Returns:
        ``(G, K)`` float64; K depends on the profile and on C.

    Raises:
        InputError: as ``score``; a group index out of range; a class that is not below n_classes.
    """
    chosen = get_profile(profile)
    y = chosen.labels(y_true)
    index = np.asarray(group_index)
    if index.shape != y.shape or index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= n_groups:
        raise InputError(f"group_index: expected {len(y)} whole numbers in 0..{n_groups - 1}, one per label")
    p = chosen.predictions(y_pred, len(y))
    others = {chosen.metric(name).name: value for name, value in (predictions_for or {}).items()}
    used = {name: chosen.predictions(others[name], len(y)) if name in others else p for name in chosen.names}
    if chosen.classification:
        if n_classes is None and np.ndim(y_pred) == 2:
            n_classes = np.shape(y_pred)[1]
        n_classes = _check_classes(n_classes, y, *used.values())
    rows = [metric.update(y, used[metric.name], n_classes or 0) for metric in chosen.metrics]
    columns = np.concatenate(rows, axis=1).T
    return np.stack([np.bincount(index, weights=column, minlength=n_groups) for column in columns], axis=1)


def compute(stats: Array, profile: str = "mosi") -> dict[str, Array]:
    """Every metric of a profile, ``(...)`` each, from summed statistics ``(..., K)``; NaN stands for null.

    Raises:
        InputError: an unknown profile, or a K that is not its.

    >>> stats = sufficient([-1, 2, 1], [-1, 1, 2], [0, 0, 1], n_groups=2)
    >>> round(float(compute(stats.sum(axis=0))["mae"]), 3), compute(stats)["mae"]  # all samples; each group
    (0.667, array([0.5, 1. ]))
    """
    chosen = get_profile(profile)
    n_classes = chosen.n_classes(stats.shape[-1])
    ends = np.cumsum([metric.width(n_classes) for metric in chosen.metrics])
    parts = np.split(stats, ends[:-1], axis=-1)
    return {metric.name: metric.compute(part) for metric, part in zip(chosen.metrics, parts, strict=True)}


def _ratio(numerator: Array, denominator: Array, undefined: float) -> Array:
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), undefined)


def _numbers(what: str, values: ArrayLike, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected an array of numbers ({error})") from error


def _whole(what: str, classes: NDArray[Any]) -> NDArray[Any]:
    known = classes[~np.isnan(classes)]
    wrong = known[(known < 0) | (known != np.floor(known))]
    if wrong.size:
        raise InputError(f"{what}: classes must be whole numbers from 0, got {wrong[0]:g}")
    return classes


def _check_classes(n_classes: int | None, *columns: NDArray[Any]) -> int:
    largest = max(int(np.max(column, initial=0, where=~np.isnan(column))) for column in columns)
    if n_classes is not None and largest >= n_classes:
        raise InputError(f"classes: expected below {n_classes} (the columns of logits), got {largest}")
    return largest + 1 if n_classes is None else n_classes
