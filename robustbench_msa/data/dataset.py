"""A dataset: three splits of batches, how it is scored, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corruptions import MODALITIES, Batch, InputError

SPLITS = ("train", "valid", "test")
PROFILES = ("mosi", "sims", "classification")
_BLOCK = 1 << 21  # values looked at at once


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, valid and test batches of one dataset, checked once and trusted afterwards.

    Args:
        name: what people type after ``--dataset``.
        splits: ``{"train", "valid", "test"}`` to batches with labels.
        profile: which metrics apply (PROFILES).
        text_at: "tokens" when text can be corrupted before its encoder (token ids, or features with one vector per
            token and no context), "embeddings" when it is contextual states: neighbours still carry a masked token.
        notes: one line for each thing the reader found and repaired or wants the user to know.
        parameters: what made the data, for generated datasets (JSON values).
        classes: the names of the classes, in the order of their numbers, for the profile "classification".
        unimodal_labels: split to modality to labels ``(N,)`` float32 that annotators gave who saw that modality alone
            (CH-SIMS). No model is scored on them, and they are not part of the fingerprint.

    Raises:
        InputError: a split that is missing or empty, labels that are missing or not finite, features that are not
            finite, dimensions that differ between splits, classes that are not whole numbers from 0 to len(classes)-1.
    """

    name: str
    splits: Mapping[str, Batch]
    profile: str = "mosi"
    text_at: str = "embeddings"
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    unimodal_labels: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InputError(f"{self.name}: profile must be one of {', '.join(PROFILES)}; got {self.profile!r}")
        for split in SPLITS:
            if split not in self.splits or len(self.splits[split]) == 0:
                expected = f"expected samples in {', '.join(SPLITS)}"
                raise InputError(f"{self.name}: split {split!r} is missing or empty; {expected}")
            _check_split(f"{self.name}/{split}", self.splits[split])
            if self.classes:
                _check_classes(f"{self.name}/{split}", self.splits[split], self.classes)
            for modality, labels in self.unimodal_labels.get(split, {}).items():
                _check_unimodal(f"{self.name}/{split}", modality, labels, len(self.splits[split]))
        dims = {split: dims_of(self.splits[split]) for split in SPLITS}
        if len(set(dims.values())) > 1:
            raise InputError(f"{self.name}: feature dimensions (text, audio, vision) differ between splits: {dims}")

    @property
    def dims(self) -> tuple[int, int, int]:
        """Feature dimensions of text, audio, vision; 0 for text given as token ids."""
        return dims_of(self.splits["train"])

    @property
    def derived_dims(self) -> dict[str, int]:
        """Feature dimension of each derived input that is a sequence ``(N, T, d)``, by name."""
        derived = self.splits["train"].derived
        return {name: d.values.shape[2] for name, d in sorted(derived.items()) if d.values.ndim == 3}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the content of all splits: values, lengths, presence, labels, ids and groups."""
        digest = hashlib.sha256(f"msabench dataset 1 {self.profile}".encode())
        for split in SPLITS:
            digest.update(split.encode())
            digest.update(batch_fingerprint(self.splits[split]).encode())
        return digest.hexdigest()


def dims_of(batch: Batch) -> tuple[int, int, int]:
    text = 0 if batch.has_token_text else batch.text.shape[2]
    return (text, batch.audio.shape[2], batch.vision.shape[2])


def batch_fingerprint(batch: Batch) -> str:
    """sha256 (hex) over everything in a batch; independent of device."""
    digest = hashlib.sha256()
    tensors = [getattr(batch, m) for m in MODALITIES] + [batch.lengths(m) for m in MODALITIES] + [batch.present]
    tensors += [batch.labels] if batch.labels is not None else []
    for name in sorted(batch.derived):
        digest.update(f"{name}{batch.derived[name].sources}".encode())
        tensors.append(batch.derived[name].values)
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.cpu().numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    digest.update("\0".join([*batch.ids, *batch.groups]).encode())
    return digest.hexdigest()


def group_of(sample_id: str) -> str:
    """The video of a ``video$_$clip`` id (the id itself when it has no such separator).

    >>> group_of("03bSnISJMiM$_$11"), group_of("clip7")
    ('03bSnISJMiM', 'clip7')
    """
    return sample_id.split("$_$")[0]


def _check_split(where: str, batch: Batch) -> None:
    if batch.labels is None:
        raise InputError(f"{where}: labels are missing; a benchmark needs the true score of every sample")
    if batch.labels.is_floating_point() and not torch.isfinite(batch.labels).all():
        bad = (~torch.isfinite(batch.labels)).nonzero().squeeze(1).tolist()
        first = batch.ids[bad[0]]
        raise InputError(f"{where}: {len(bad)} labels are NaN or infinite (first: {first}); fix or drop these samples")
    for modality in MODALITIES:
        if not is_finite(batch.features(modality)):
            wrong = "hold NaN or infinite values; replace them (the field uses 0)"
            raise InputError(f"{where}: {modality} features {wrong}")


def is_finite(x: Tensor) -> bool:
    """Whether all values are, in blocks: ``x`` may be mapped from a file that memory does not hold."""
    if not x.is_floating_point() or not x.numel():
        return True
    rows = max(1, _BLOCK * len(x) // x.numel())
    return all(bool(torch.isfinite(x[start : start + rows]).all()) for start in range(0, len(x), rows))


def _check_classes(where: str, batch: Batch, classes: tuple[str, ...]) -> None:
    labels = batch.labels
    assert labels is not None
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"{where}: expected labels as whole numbers, the classes, got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        expected = f"0 to {len(classes) - 1} ({', '.join(classes[:4])}, ...)"
        raise InputError(f"{where}: expected classes {expected}, got labels from {low} to {high}")


def _check_unimodal(where: str, modality: str, labels: Tensor, n: int) -> None:
    if modality not in MODALITIES or tuple(labels.shape) != (n,) or not is_finite(labels):
        raise InputError(f"{where}: expected {n} finite labels for one of {', '.join(MODALITIES)}, got {modality!r}")
