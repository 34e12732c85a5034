"""What became of one modality of one sample: its values as a model gets them, and a word for every step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corruptions import MODALITIES, Batch, Reference
from corruptions.corruption import Corruption, maskable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Words = NDArray[np.str_]

TOLD, UNTOLD, SWAPPED, ABSENT = "lost, told", "lost, not told", "swapped", "not in the data"
"""What became of a whole modality ("": it is there)."""
LOST, SUBSTITUTED, REPEATED, MOVED, NOISY, PADDING = "lost", "substituted", "repeated", "moved", "noise", "padding"
"""What became of a step ("": it is as it was)."""


class Strip(NamedTuple):
    """One modality of the sample at one severity.

    values: ``(T, d)`` as the model gets them, standardised by the training statistics: a step of zeros is 0, as in the
    models; NaN on padding; token ids are ``(T, 1)`` of 0. length: valid steps. fate: what became of the modality.
    donor, donor_label: the sample it was swapped with. lost: ``(T,)``. altered: ``(T,)`` of "", SUBSTITUTED, REPEATED
    and MOVED. noise: ``(T,)``, what was added to a step, root mean square over features in training standard
    deviations. shift: steps by which the valid part was rolled, the nearest to 0; above 0 is later.
    """

    modality: str
    values: Array
    length: int
    fate: str
    donor: str
    donor_label: float | None
    lost: Mask
    altered: Words
    noise: Array
    shift: int

    @property
    def marks(self) -> tuple[str, ...]:
        """One word a step, the first that fits: PADDING, TOLD, UNTOLD, ABSENT, LOST, altered, SWAPPED, NOISY, ""."""
        whole = self.fate if self.fate in (TOLD, UNTOLD, ABSENT) else ""
        steps = zip(self.lost.tolist(), self.altered.tolist(), self.noise.tolist(), strict=True)
        marks = [whole or (LOST if gone else kind) or self.fate or (NOISY if n else "") for gone, kind, n in steps]
        return tuple(mark if t < self.length else PADDING for t, mark in enumerate(marks))


class Trace(NamedTuple):
    """What has happened to one modality of a sample so far: see Strip."""

    lost: Mask
    altered: Words
    noise: Array
    fate: str = ""
    donor: int = -1
    shift: int = 0

    @classmethod
    def untouched(cls, steps: int, fate: str = "", donor: int = -1) -> Trace:
        return cls(np.zeros(steps, np.bool_), np.full(steps, "", "<U16"), np.zeros(steps), fate, donor)


def strip_of(corruption: Corruption, row: int, modality: str, reference: Reference) -> Strip:
    """One modality of one sample, followed through the stages of a corruption. row: its place in the batch."""
    batch, first, i = corruption.batch, corruption.stages[0].clean, MODALITIES.index(modality)
    x, length = batch.features(modality)[row].numpy(), int(batch.lengths(modality)[row])
    trace = Trace.untouched(len(x), "" if bool(first.present[row, i]) else ABSENT)
    for stage in corruption.stages:
        trace = _followed(trace, stage, row, modality, reference)
    pool = first if corruption.pool is None else corruption.pool
    donor = "" if trace.donor < 0 else pool.ids[trace.donor]
    label = float(pool.labels[trace.donor]) if donor and pool.labels is not None else None
    values = standardised(x, length, modality, reference)
    return Strip(
        modality, values, length, trace.fate, donor, label, trace.lost, trace.altered, trace.noise, trace.shift
    )


def _followed(trace: Trace, stage: Corruption, row: int, modality: str, reference: Reference) -> Trace:
    """The trace after one stage: a swap hides all before it; a loss comes after what was done inside the modality."""
    i, steps = MODALITIES.index(modality), len(trace.lost)
    if (donor := int(stage.sources.donor[row, i])) >= 0:
        return Trace.untouched(steps, SWAPPED, donor)
    trace = _inside(trace, stage, row, modality, reference)
    if not bool(stage.sources.lost[row, i]):
        return trace
    lost = trace.lost | _wide(maskable(stage.clean.select([row]), modality)[0].numpy(), steps)
    told = not bool(stage.present[row, i])
    return trace._replace(fate=TOLD if told else UNTOLD, lost=lost, noise=np.where(lost, 0.0, trace.noise))


def _inside(trace: Trace, stage: Corruption, row: int, modality: str, reference: Reference) -> Trace:
    """What a stage did to the steps: lost, moved, replaced by others, or something added to them."""
    steps, length = len(trace.lost), int(stage.clean.lengths(modality)[row])
    before, after = (batch.features(modality)[row].numpy() for batch in (stage.clean, stage.features.batch))
    gone, altered = (_mask(masks, modality, row, steps) for masks in (stage.features.lost, stage.features.altered))
    shift = rolled_by(before[:length], after[:length]) if altered.any() else 0
    if shift:
        order = np.concatenate([np.roll(np.arange(length), shift), np.arange(length, steps)])  # where steps came from
        lost, kinds, noise = trace.lost[order], trace.altered[order], trace.noise[order]
        return trace._replace(
            lost=lost, altered=np.where(altered, MOVED, kinds), noise=noise, shift=trace.shift + shift
        )
    kinds = _errors(stage.clean, after, row, modality, altered)
    added = _wide(_added(before, after, modality, reference), steps)
    noise = np.hypot(trace.noise, np.where(altered, 0.0, added))
    return trace._replace(
        lost=(trace.lost & (kinds != SUBSTITUTED)) | gone,
        altered=np.where(kinds != "", kinds, trace.altered),
        noise=np.where(gone, 0.0, noise),
    )


def rolled_by(before: NDArray[Any], after: NDArray[Any]) -> int:
    """The n nearest to 0 with ``after == np.roll(before, n, axis=0)``; 0 where there is none.

    >>> steps = np.array([[5.0], [6.0], [7.0], [8.0]])
    >>> rolled_by(steps, np.roll(steps, 1, 0)), rolled_by(steps, np.roll(steps, -1, 0)), rolled_by(steps, steps[::-1])
    (1, -1, 0)
    """
    turns = itertools.chain.from_iterable((n, -n) for n in range(1, len(before) // 2 + 1))
    fits = (
        n for n in turns if np.array_equal(after[0], before[-n]) and np.array_equal(after, np.roll(before, n, axis=0))
    )
    return next(fits, 0)


def standardised(x: NDArray[Any], length: int, modality: str, reference: Reference) -> Array:
    """``(x - mean) / sd``; 0 where a step is all zero or a feature constant, NaN on padding: ``(T, d)``."""
    if x.ndim == 1:
        z = np.zeros((len(x), 1))
    else:
        mean, sigma = (s[modality].numpy().astype(np.float64) for s in (reference.mean, reference.sigma))
        z = np.where(sigma > 0, (x - mean) / np.where(sigma > 0, sigma, 1.0), 0.0)
        z[~x.any(axis=1)] = 0.0
    z[length:] = np.nan
    return z


def _errors(clean: Batch, after: NDArray[Any], row: int, modality: str, altered: Mask) -> Words:
    """Which altered steps repeat the step before them and which hold something else: ``(T,)``."""
    kinds = np.full(len(altered), "", "<U16")
    if altered.any():
        x = clean.features(modality)[row].numpy()
        places = maskable(clean.select([row]), modality)[0].nonzero().squeeze(1).tolist()
        step_before = {t: s for s, t in itertools.pairwise(places)}
        for t in altered.nonzero()[0].tolist():
            again = t in step_before and np.array_equal(after[t], x[step_before[t]])
            kinds[t] = REPEATED if again else SUBSTITUTED
    return kinds


def _added(before: NDArray[Any], after: NDArray[Any], modality: str, reference: Reference) -> Array:
    """Root mean square over features of what was added to each step, in training standard deviations: ``(T,)``."""
    if before is after or before.ndim == 1:
        return np.zeros(len(before))
    sigma = reference.sigma[modality].numpy().astype(np.float64)
    difference = (after.astype(np.float64) - before)[:, sigma > 0] / sigma[sigma > 0]
    rms: Array = np.sqrt(np.square(difference).sum(1) / max(1, difference.shape[1]))
    return rms


def _mask(masks: Mapping[str, Tensor], modality: str, row: int, steps: int) -> Mask:
    """A stage's mask of one sample, ``(steps,)``."""
    return _wide(masks[modality][row].numpy(), steps) if modality in masks else np.zeros(steps, np.bool_)


def _wide(values: NDArray[Any], steps: int) -> NDArray[Any]:
    """Padded to more steps: a swap may have made the batch longer than it was when a stage saw it."""
    return np.pad(values, (0, steps - len(values)))
