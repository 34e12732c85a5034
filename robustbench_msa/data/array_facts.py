"""What can be said of the arrays of one split without knowing what they should be: counts, lengths, sides, tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from corruptions import MODALITIES
from robustbench_msa.data.npy import Array

_BLOCK = 1 << 21  # values looked at at once
CLS, SEP = 101, 102


@dataclass(frozen=True)
class Lengths:
    """Valid steps over samples. beyond: samples with values after their length; too_long: more than there are."""

    source: str
    shortest: int
    median: float
    longest: int
    beyond: int
    too_long: int


@dataclass(frozen=True)
class FieldFacts:
    """One field of a split. empty: samples that are all zero; padding: front, end, both, none or - (one step)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nan: int = 0
    minus_inf: int = 0
    plus_inf: int = 0
    empty: int = 0
    present: float | None = None
    padding: str = "-"
    lengths: Lengths | None = None


@dataclass(frozen=True)
class LabelFacts:
    """Labels of a split. classes: counts by class where all are whole numbers that are few."""

    key: str
    low: float
    high: float
    mean: float
    deviation: float
    zeros: int
    positive: int
    nan: int
    whole: bool
    classes: Mapping[str, int]


@dataclass(frozen=True)
class TokenFacts:
    """Rows of ``text_bert``: samples whose mask is ones, then zeros; that begin with [CLS]; that end with [SEP]."""

    samples: int
    prefix: int
    begin: int
    end: int
    largest: int
    segments: int

    @property
    def sound(self) -> bool:
        return self.prefix == self.begin == self.end == self.samples


def numbers(value: Any) -> Array | None:
    """An array of numbers, or of a flat list of them; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(i, (int, float, np.number, np.bool_)) for i in value):
        value = np.array(value)
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else None


def field_facts(name: str, value: Any, lengths: tuple[str, Array] | None, present: Any = None) -> FieldFacts:
    """lengths: where they come from, and they ``(N,)``; present: ``(N,)`` or None."""
    x = numbers(value)
    if x is None:
        shape = value.shape if isinstance(value, np.ndarray) else (len(value),) if hasattr(value, "__len__") else ()
        dtype = str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
        return FieldFacts(name, tuple(shape), dtype)
    share = _share(numbers(present), len(x) if x.ndim else 0)
    if x.ndim < 2 or not x.size:
        return FieldFacts(name, x.shape, str(x.dtype), *_not_finite(x), present=share)
    filled = filled_steps(x)
    known = lengths if lengths is not None and lengths[1].shape == (len(x),) else None
    facts = FieldFacts(name, x.shape, str(x.dtype), *_not_finite(x), int((~filled.any(axis=1)).sum()), share)
    if filled.shape[1] == 1 and known is None:
        return facts
    side = padding_side(filled, known[1] if known else None)
    about = None if known is None else _lengths(*known, filled, side)
    return FieldFacts(**{**vars(facts), "padding": side, "lengths": about})


def blocks(x: Array) -> Iterator[Array]:
    rows = max(1, _BLOCK * len(x) // max(1, x.size)) if len(x) else 1
    return (x[start : start + rows] for start in range(0, len(x), rows))


def _not_finite(x: Array) -> tuple[int, int, int]:
    """NaN, -inf, +inf."""
    if x.dtype.kind != "f" or not x.ndim:
        return 0, 0, 0
    nan = minus = plus = 0
    for block in blocks(x):
        if not np.isfinite(block).all():
            nan += int(np.isnan(block).sum())
            minus += int(np.isneginf(block).sum())
            plus += int(np.isposinf(block).sum())
    return nan, minus, plus


def filled_steps(x: Array) -> Array:
    """``(N, T)`` bool: steps that are not all zero."""
    found = [(b != 0).reshape(*b.shape[:2], -1).any(axis=2) for b in blocks(x)]
    return np.concatenate(found) if found else np.zeros(x.shape[:2], bool)


def last_filled(filled: Array) -> Array:
    """The number of steps up to the last that is filled, ``(N,)``."""
    steps = filled.shape[1]
    return np.where(filled.any(axis=1), steps - np.argmax(filled[:, ::-1], axis=1), 0)


def padding_side(filled: Array, lengths: Array | None) -> str:
    """Where zeros stand beside the values, in most of the samples that have any: front, end, both or none."""
    steps = filled.shape[1]
    some = filled.any(axis=1)
    front, end = np.argmax(filled, axis=1) > 0, last_filled(filled) < steps
    if lengths is not None:
        short = (lengths > 0) & (lengths < steps)
        lead = np.argmax(filled, axis=1)
        front, end = short & (lead >= steps - lengths), short & (last_filled(filled) <= lengths)
    front, end = front & some & ~end, end & some & ~front
    if not (front.any() or end.any()):
        return "none"
    if min(front.sum(), end.sum()) > 0.25 * (front.sum() + end.sum()):
        return "both"
    return "front" if front.sum() > end.sum() else "end"


def _lengths(source: str, lengths: Array, filled: Array, side: str) -> Lengths:
    steps = filled.shape[1]
    beyond = 0 if side == "front" else int((last_filled(filled) > np.minimum(lengths, steps)).sum())
    middle = float(np.median(lengths))
    return Lengths(source, int(lengths.min()), middle, int(lengths.max()), beyond, int((lengths > steps).sum()))


def _share(present: Array | None, n: int) -> float | None:
    return None if present is None or present.shape != (n,) else float((present != 0).mean())


def stated_lengths(fields: Mapping[Any, Any], modality: str) -> tuple[str, Array] | None:
    """What a split says of a modality's lengths: its own key, else the attention mask where it has as many steps."""
    own = numbers(fields.get(f"{modality}_lengths"))
    if own is not None and own.size and (own.reshape(-1) == np.floor(own.reshape(-1))).all():
        return f"{modality}_lengths", own.reshape(-1).astype(np.int64)
    bert, x = numbers(fields.get("text_bert")), numbers(fields.get(modality))
    if bert is None or x is None or bert.ndim != 3 or x.ndim < 2 or bert.shape[2] != x.shape[1] or x.shape[1] == 1:
        return None
    return ("attention mask", (bert[:, 1] == 1).sum(axis=1)) if bert.shape[1] == 3 else None


def label_facts(key: str, value: Any) -> LabelFacts | None:
    x = numbers(value)
    if x is None or not x.size:
        return None
    flat = x.reshape(-1).astype(np.float64)
    finite = flat[np.isfinite(flat)]
    if not len(finite):
        return None
    whole = bool((finite == np.rint(finite)).all()) and x.dtype.kind in "iu"
    values, counts = np.unique(finite, return_counts=True) if whole else (np.empty(0), np.empty(0, int))
    classes = {str(int(v)): int(c) for v, c in zip(values, counts, strict=True)} if len(values) <= 64 else {}
    return LabelFacts(
        key,
        low=float(finite.min()),
        high=float(finite.max()),
        mean=float(finite.mean()),
        deviation=float(finite.std()),
        zeros=int((finite == 0).sum()),
        positive=int((finite > 0).sum()),
        nan=len(flat) - len(finite),
        whole=whole,
        classes=classes,
    )


def token_facts(value: Any) -> TokenFacts | None:
    """Of ``text_bert (N, 3, T)``: ids, attention mask, segments."""
    x = numbers(value)
    if x is None or x.ndim != 3 or x.shape[1] != 3 or not x.size:
        return None
    ids, mask, steps = x[:, 0], x[:, 1] == 1, np.arange(x.shape[2])
    count = mask.sum(axis=1)
    prefix = (mask == (steps < count[:, None])).all(axis=1) & np.isin(x[:, 1], (0, 1)).all(axis=1)
    last = np.take_along_axis(ids, np.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    largest = float(np.nanmax(np.where(mask, ids, 0)))
    begin, end = int((ids[:, 0] == CLS).sum()), int(((last == SEP) & (count > 0)).sum())
    segments = int((x[:, 2] != 0).any(axis=1).sum())
    return TokenFacts(len(x), int(prefix.sum()), begin, end, int(largest) if np.isfinite(largest) else -1, segments)


def swapped(fields: Mapping[Any, Any]) -> str | None:
    """Why the lengths of audio and vision look exchanged, or None.

    Either they do not fit their own arrays and do fit the other's, or the values end where the other's length says.
    """
    x = {m: numbers(fields.get(m)) for m in MODALITIES[1:]}
    given = {m: numbers(fields.get(f"{m}_lengths")) for m in MODALITIES[1:]}
    if any(v is None or v.ndim < 2 or not v.size for v in x.values()):
        return None
    audio, vision = x["audio"], x["vision"]
    if any(v is None or v.size != len(audio) for v in given.values()) or len(audio) != len(vision):  # type: ignore[arg-type]
        return None
    lengths = {m: np.asarray(given[m]).reshape(-1) for m in given}
    most, steps = {m: int(v.max()) for m, v in lengths.items()}, {"audio": audio.shape[1], "vision": vision.shape[1]}  # type: ignore[union-attr]
    exceed = any(most[m] > steps[m] for m in most)
    if exceed and most["audio"] <= steps["vision"] and most["vision"] <= steps["audio"]:
        return f"up to {most['audio']} and {most['vision']}, but there are {steps['audio']} and {steps['vision']} steps"
    ends = {m: last_filled(filled_steps(v)) for m, v in x.items() if v is not None}
    own = np.mean([ends[m] == np.minimum(lengths[m], steps[m]) for m in ends])
    other = np.mean([ends["audio"] == lengths["vision"], ends["vision"] == lengths["audio"]])
    if other > 0.9 and own < 0.5:
        where = f"in {other:.0%} of the samples, where their own says in {own:.0%}"
        return f"the values end where the other's length says {where}"
    return None
