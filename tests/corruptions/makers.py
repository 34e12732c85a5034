"""Small batches, and the comparisons that every test of the engine needs. Padding holds junk, never zeros."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, Derived, Draws, Reference, Stress
from corruptions.corruption import Corruption

JUNK = 9.0
CLS, SEP, PAD = 101, 102, 0
# One stressed point of every stressor, of their variants, and of some restricted and composed ones.
POINTS: dict[str, str] = {
    "noise": "0.3",
    "missing": "0.4",
    "conflict": "0.75",
    "missing-fixed": "t+v",
    "missing-random": "0.4",
    "noise-lambda": "0.6",
    "spectrum": "0.6x0.4",
    "conflict-control": "0.75",
    "frame-missing": "0.4",
    "burst": "0.4",
    "misalign": "0.4",
    "drift": "0.5",
    "imbalanced": "0.5",
    "correlated": "0.4",
    "asr": "0.4",
    "worst-case": "0.3",
    "worst-case:attack=draws,draws=3": "0.4",
    "missing-random:variant=keep_one": "0.5",
    "spectrum:variant=mixture": "1",
    "missing:modalities=av": "0.6",
    "burst:modalities=ta": "0.5",
    "noise+missing": "0.3x0.4",
    "conflict+missing-random": "0.75x0.4",
    "noise+conflict": "0.3x0.75",
    "missing+asr": "0.4x0.4",
}
CLEAN = {text: {0: "t+a+v", 1: "0", 2: "0x0"}[len(Stress.parse(text).axes)] for text in POINTS}
LEGACY = "frame-missing:legacy=lnln"  # repeats others bit for bit, so it knows order and padding: exempt by name
TOLD = {
    "missing",
    "missing-fixed",
    "missing-random:variant=keep_one",
    "missing:modalities=av",
    "noise+missing",
    "missing+asr",
}


def swaps(stress: str) -> bool:
    """Does it put other samples' sequences, and so other lengths, in place?"""
    return "conflict" in stress


def needs_adversary(stress: str) -> bool:
    return Stress.parse(stress).stressor.needs_adversary


def takes_fill(stress: str) -> bool:
    return any(name.rpartition(".")[2] == "fill" for name in Stress.parse(stress).stressor.parameters)


def with_option(stress: str, option: str) -> str:
    """The stress with one more parameter: ``with_option("noise", "fill=mean")``."""
    return f"{stress},{option}" if ":" in stress else f"{stress}:{option}"


class Linear:
    """A linear model as a worst-case adversary: per modality the mean over valid steps of a weighted sum of features.

    What is absent counts nothing. The loss is the absolute error, in float64. labels: default the batch's (or 0).
    """

    def weights(self, x: torch.Tensor, modality: str) -> torch.Tensor:
        """``(d_m,)``, of both signs and never 0."""
        return torch.arange(1, x.shape[2] + 1, dtype=torch.float64) * (-0.5) ** MODALITIES.index(modality)

    def error(self, batch: Batch) -> torch.Tensor:
        """Prediction minus label, ``(N,)``."""
        label = torch.zeros(len(batch)) if batch.labels is None else batch.labels
        error = -label.to(torch.float64)
        for i, m in enumerate(MODALITIES):
            x = batch.features(m)
            if x.is_floating_point():
                there = (batch.valid(m) & batch.present[:, i, None])[:, :, None]
                summed = torch.where(there, x.to(torch.float64) * self.weights(x, m), 0.0).sum((1, 2))
                error = error + summed / batch.lengths(m).clamp(min=1)
        return error

    def losses(self, batch: Batch) -> torch.Tensor:
        return self.error(batch).abs()

    def gradients(self, batch: Batch) -> dict[str, torch.Tensor]:
        sign = self.error(batch).sign()
        found = {}
        for i, m in enumerate(MODALITIES):
            x = batch.features(m)
            if x.is_floating_point():
                there = batch.valid(m) & batch.present[:, i, None]
                step = sign / batch.lengths(m).clamp(min=1)
                found[m] = there[:, :, None] * step[:, None, None] * self.weights(x, m)
        return found


def feature_batch(n: int = 12, seed: int = 0, steps: Sequence[int] = (6, 7, 5), absent: float = 0.0) -> Batch:
    """n ragged samples (lengths from 1) with labels of both signs and 0; ``absent``: share of modalities not there."""
    rng = np.random.default_rng(seed)
    lengths = {m: rng.integers(1, t + 1, n) for m, t in zip(MODALITIES, steps, strict=True)}
    values = {m: rng.normal(1.0, 2.0, (n, t, d)) for m, t, d in zip(MODALITIES, steps, (3, 2, 4), strict=True)}
    for m in MODALITIES:
        values[m][np.arange(values[m].shape[1]) >= lengths[m][:, None]] = JUNK
    arrays: dict[str, Any] = {**values, **{f"{m}_lengths": lengths[m] for m in MODALITIES}}
    return Batch(
        **arrays,
        ids=tuple(f"clip{i}" for i in range(n)),
        labels=torch.from_numpy(rng.integers(-3, 4, n).astype(np.float32)),
        present=torch.from_numpy(rng.random((n, 3)) >= absent),
        derived={
            "clues": Derived(torch.from_numpy(rng.normal(size=(n, 2, 3))), ("audio",)),
            "comment": Derived(torch.from_numpy(rng.normal(size=(n, 4))), MODALITIES),
        },
    )


def token_batch(n: int = 12, seed: int = 0, steps: int = 9, absent: float = 0.0) -> Batch:
    """As feature_batch, with text as ids: [CLS] words [SEP] and then padding (lengths from 3)."""
    rng = np.random.default_rng(seed + 1000)
    ids = rng.integers(1000, 2000, (n, steps))
    lengths = rng.integers(3, steps + 1, n)
    ids[np.arange(steps) >= lengths[:, None]] = PAD
    ids[:, 0], ids[np.arange(n), lengths - 1] = CLS, SEP
    return feature_batch(n, seed, (steps, 7, 5), absent).replace(
        text=torch.from_numpy(ids), text_lengths=torch.from_numpy(lengths)
    )


def wide(n: int, steps: int = 1, absent: float = 0.0) -> Batch:
    """Many samples of few ones, all valid: for rates."""
    present = np.random.default_rng(5).random((n, 3)) >= absent
    text, audio, vision = torch.ones(3, n, steps, 1)
    return Batch(text, audio, vision, present=torch.from_numpy(present))


def apply(
    batch: Batch,
    stress: str,
    severity: str,
    seed: int = 1111,
    reference: Reference | None = None,
    pool: Batch | None = None,
) -> Corruption:
    """One stress at one severity, in its parts. Without a reference: the batch's own. The model: a linear one."""
    parsed = Stress.parse(stress)
    (point,) = parsed.grid(severity).points
    return parsed.apply(batch, point, Draws(seed, batch), reference or Reference.fit(batch), pool, Linear())


def padded(batch: Batch, extra: int, junk: float = -5.0) -> Batch:
    """The same samples, every modality padded by ``extra`` more steps of other junk."""
    longer = {}
    for m in MODALITIES:
        x = batch.features(m)
        more = x.new_full((len(x), extra, *x.shape[2:]), PAD if m == "text" and batch.has_token_text else junk)
        longer[m] = torch.cat([x, more], 1)
    return batch.replace(**longer)


def assert_same_samples(full: Batch, part: Batch) -> None:
    """Every sample of ``part`` is bit for bit the one of this id in ``full``, padding apart."""
    rows = [full.ids.index(i) for i in part.ids]
    chosen = full.select(rows)
    for m in MODALITIES:
        np.testing.assert_array_equal(chosen.lengths(m), part.lengths(m), err_msg=m)
        np.testing.assert_array_equal(
            chosen.features(m)[chosen.valid(m)], part.features(m)[part.valid(m)], err_msg=f"{m} of {part.ids}"
        )
    np.testing.assert_array_equal(chosen.present, part.present)
    assert chosen.labels is not None
    assert part.labels is not None
    np.testing.assert_array_equal(chosen.labels, part.labels)
    for name, d in part.derived.items():
        np.testing.assert_array_equal(chosen.derived[name].values, d.values, err_msg=name)


def half_even(severity: str, length: int) -> int:
    """The oracle for counts: exact fractions, Python's own rounding of them (half to even)."""
    return round(Fraction(severity) * length)


def assert_rate(hits: float, n: int, rate: float) -> None:
    """``hits`` of n independent events are within three standard errors of the rate."""
    assert abs(hits / n - rate) <= 3 * np.sqrt(rate * (1 - rate) / n), f"{hits / n:.4f} of {n}, expected {rate:.4f}"
