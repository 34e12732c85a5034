"""The samples that a model is checked on, and what is changed about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES, Batch, Derived
from robustbench_msa.evaluation.inputs import Inputs

PROBE = 64


def probe(inputs: Inputs) -> Batch:
    """Up to 64 samples of the split, in its order: per modality a shortest, a longest and an absent one, and others."""
    batch, rows = inputs.batch, []
    for i, modality in enumerate(MODALITIES):
        there, lengths = batch.present[:, i], batch.lengths(modality)
        known = there.nonzero().squeeze(1)
        if len(known):
            rows += [int(known[lengths[known].argmin()]), int(known[lengths[known].argmax()])]
        rows += (~there).nonzero().squeeze(1).tolist()[:1]
    place = {sample: row for row, sample in enumerate(batch.ids)}
    rows += [place[sample] for sample in inputs.probe.ids]
    return batch.select(sorted(list(dict.fromkeys(rows))[:PROBE])).to(inputs.device)


def copied(batch: Batch) -> Batch:
    """The same samples in memory of their own."""
    return batch.select(range(len(batch)))


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of a batch, by name."""
    found = {m: batch.features(m) for m in MODALITIES}
    found |= {f"{m}_lengths": batch.lengths(m) for m in MODALITIES}
    found |= {"present": batch.present} | {name: d.values for name, d in batch.derived.items()}
    return found if batch.labels is None else found | {"labels": batch.labels}


def swapped(batch: Batch, modality: str) -> Batch:
    """Each sample with the next one's modality, and what was made from it: features of the other sign and larger."""
    rows = torch.arange(1, len(batch) + 1, device=batch.device) % len(batch)
    derived = {
        name: Derived(_moved(d.values[rows]), d.sources) if modality in d.sources else d
        for name, d in batch.derived.items()
    }
    changes: dict[str, Any] = {modality: _moved(batch.features(modality)[rows])}
    return batch.replace(**changes, **{f"{modality}_lengths": batch.lengths(modality)[rows]}, derived=derived)


def _moved(x: Tensor) -> Tensor:
    """Token ids stay what they are."""
    return -1.5 * x if x.is_floating_point() else x


def told_absent(batch: Batch, modality: str) -> Batch:
    """The modality told absent in every sample, whatever the batch holds in its place."""
    present = batch.present.clone()
    present[:, MODALITIES.index(modality)] = False
    return batch.replace(present=present)


def with_steps(batch: Batch, more: int) -> Batch:
    """Padded at the end by so many more steps of zeros."""
    changes = {}
    for m in MODALITIES:
        x = batch.features(m)
        changes[m] = torch.cat([x, x.new_zeros(len(x), more, *x.shape[2:])], dim=1)
    return batch.replace(**changes)


def with_filled_padding(batch: Batch) -> Batch:
    """With the largest value of each feature on all padding (token ids: the largest id)."""
    changes = {}
    for m in MODALITIES:
        x, valid = batch.features(m), batch.valid(m)
        if bool(valid.any()):
            changes[m] = torch.where(valid.view(*valid.shape, *[1] * (x.ndim - 2)), x, x[valid].amax(dim=0))
    return batch.replace(**changes)


def with_lengths(batch: Batch, length: int) -> Batch:
    """All sequences of this length."""
    return batch.replace(**{f"{m}_lengths": torch.full_like(batch.lengths(m), length) for m in MODALITIES})


def with_wrong_labels(batch: Batch) -> Batch:
    """With the labels of other samples; scores are moved, too."""
    if batch.labels is None:
        return batch
    labels = batch.labels.roll(1)
    return batch.replace(labels=0.5 - labels if labels.is_floating_point() else labels)
