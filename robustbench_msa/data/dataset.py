"""A dataset: three splits of batches, how it is scored, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, InputError

SPLITS = ("train", "valid", "test")
PROFILES = ("mosi", "sims", "classification")


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

    Raises:
        InputError: a split that is missing or empty, labels that are missing or not finite, features that are not
            finite, dimensions that differ between splits.
    """

    name: str
    splits: Mapping[str, Batch]
    profile: str = "mosi"
    text_at: str = "embeddings"
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InputError(f"{self.name}: profile must be one of {', '.join(PROFILES)}; got {self.profile!r}")
        for split in SPLITS:
            if split not in self.splits or len(self.splits[split]) == 0:
                expected = f"expected samples in {', '.join(SPLITS)}"
                raise InputError(f"{self.name}: split {split!r} is missing or empty; {expected}")
            _check_split(f"{self.name}/{split}", self.splits[split])
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
        x = batch.features(modality)
        if x.is_floating_point() and not torch.isfinite(x).all():
            wrong = "hold NaN or infinite values; replace them (the field uses 0)"
            raise InputError(f"{where}: {modality} features {wrong}")
