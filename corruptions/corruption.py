"""What a stressor did to a batch: changed features, and where each modality of each sample now comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch, Derived
from corruptions.errors import InputError
from corruptions.reference import Reference

CLS, SEP, MASK, UNK = 101, 102, 103, 100  # ids of the BERT vocabularies
FILLS = ("auto", "zeros", "mask", "unk", "mean")


@dataclass(frozen=True, eq=False)
class Features:
    """A batch after feature-level changes.

    lost: the steps that were lost, ``(N, T_m)`` bool per modality touched; altered: those that hold another step's or
    another sample's value, likewise. filled: modalities in which nothing has changed but the lost steps. powers: what
    ``realised`` has measured of them.
    """

    batch: Batch
    lost: Mapping[str, Tensor] = field(default_factory=dict)
    altered: Mapping[str, Tensor] = field(default_factory=dict)
    filled: frozenset[str] = frozenset()
    powers: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False)


@dataclass(frozen=True, eq=False)
class Sources:
    """Where each modality of each sample comes from, in the order text, audio, vision.

    lost: ``(N, 3)`` bool, the modality is gone. donor: ``(N, 3)`` int64, the pool's sample it was swapped with (-1:
    none). skipped: hosts that were to be swapped but lack the modality or find no donor; unable: samples of the pool
    that were passed over as donors because they lack audio or vision.
    """

    lost: Tensor
    donor: Tensor
    skipped: int = 0
    unable: int = 0

    def rows(self, part: slice) -> Sources:
        """Those of a run of samples; the counts stay those of all."""
        return replace(self, lost=self.lost[part], donor=self.donor[part])

    @classmethod
    def untouched(cls, batch: Batch) -> Sources:
        shape = (len(batch), 3)
        return cls(
            torch.zeros(shape, dtype=torch.bool, device=batch.device),
            torch.full(shape, -1, dtype=torch.int64, device=batch.device),
        )


@dataclass(frozen=True, eq=False)
class Corruption:
    """A corrupted input in its parts. ``batch`` puts them together; encode-once runners need not.

    clean: the batch as it came; features: after feature-level changes; sources: whole-modality changes;
    told: whether ``present`` becomes False where a modality is lost; pool: where donors come from; before: in a
    composition, what the stress before this one did (its ``batch`` is this one's ``clean``).
    """

    clean: Batch
    features: Features
    sources: Sources
    told: bool
    fill: str = "auto"
    pool: Batch | None = None
    reference: Reference | None = None
    before: Corruption | None = None

    @property
    def stages(self) -> tuple[Corruption, ...]:
        """What was done, stress by stress; the last is this one."""
        return (self,) if self.before is None else (*self.before.stages, self)

    @cached_property
    def present(self) -> Tensor:
        """What the model is told: ``(N, 3)`` bool."""
        return self.clean.present & ~self.sources.lost if self.told else self.clean.present

    @cached_property
    def batch(self) -> Batch:
        batch, sources = self.features.batch, self.sources
        if self._swaps:
            batch = _swap(batch, self.donors, sources.donor)
        if self._loses:
            batch = _lose(batch, sources.lost, self.fill, self.reference)
        if self.derived is not batch.derived:
            batch = batch.replace(derived=self.derived)
        return batch if self.present is batch.present else batch.replace(present=self.present)

    @property
    def donors(self) -> Batch:
        """The batch that donors come from."""
        return self.clean if self.pool is None else self.pool

    @cached_property
    def derived(self) -> Mapping[str, Derived]:
        """The derived inputs of ``batch``: they go with their sources."""
        derived = self.features.batch.derived
        if self._swaps:
            derived = _swap_derived(derived, self.donors, self.sources.donor)
        return _lose_derived(derived, self.sources.lost) if self._loses else derived

    @property
    def _swaps(self) -> bool:
        return bool((self.sources.donor >= 0).any())

    @property
    def _loses(self) -> bool:
        return bool(self.sources.lost.any())


def maskable(batch: Batch, modality: str) -> Tensor:
    """Steps that may be masked: valid ones of available modalities, without [CLS] and [SEP] where text is token ids.

    ``(N, T_m)`` bool.
    """
    steps = batch.valid(modality) & batch.present[:, MODALITIES.index(modality), None]
    if modality == "text" and batch.has_token_text:
        steps = steps & (batch.text != CLS) & (batch.text != SEP)
    return steps


def check_fill(batch: Batch, fill: str, reference: Reference | None, touched: tuple[str, ...] = MODALITIES) -> None:
    """Raises InputError when a fill cannot be used on these modalities, whatever happens to be lost in them."""
    if "text" in touched and batch.has_token_text and fill in ("zeros", "mean"):
        raise InputError(f"fill={fill} needs features; this text is token ids (use mask or unk)")
    if not batch.has_token_text and fill in ("mask", "unk"):
        raise InputError(f"fill={fill} needs text as token ids; this text is features (use zeros or mean)")
    known = reference.mean if reference is not None else {}
    unknown = [m for m in touched if m not in known]
    if fill == "mean" and unknown:
        raise InputError(
            f"fill=mean needs training means of {', '.join(unknown)}: pass reference=Reference.fit(train_batch)"
        )


def fill_steps(batch: Batch, modality: str, lost: Tensor, fill: str, reference: Reference | None) -> Tensor:
    """The modality's tensor with the lost steps, ``(N, T_m)`` bool, filled. Zeros are zeros of the raw features."""
    x = batch.features(modality)
    if not x.is_floating_point():
        return torch.where(lost, torch.full_like(x, UNK if fill == "unk" else MASK), x)
    if fill == "mean":
        assert reference is not None
        return torch.where(lost[:, :, None], reference.mean[modality].to(x.device), x)
    return zeroed(x, lost)


def zeroed(x: Tensor, steps: Tensor) -> Tensor:
    """A copy of ``x (N, T, d)`` that is zero on these steps, ``(N, T)`` bool."""
    if not _writable_by_numpy(x):
        return x.masked_fill(steps[:, :, None], 0.0)
    out = x.clone()
    out.numpy()[steps.numpy()] = 0.0  # whole rows at once: three times as fast as a broadcast mask
    return out


def _writable_by_numpy(x: Tensor) -> bool:
    return x.device.type == "cpu" and not x.requires_grad


def _lose(batch: Batch, lost: Tensor, fill: str, reference: Reference | None) -> Batch:
    changes = {}
    for i, modality in enumerate(MODALITIES):
        if bool(lost[:, i].any()):
            steps = maskable(batch, modality) & lost[:, i, None]
            changes[modality] = fill_steps(batch, modality, steps, fill, reference)
    return batch.replace(**changes)


def _lose_derived(derived: Mapping[str, Derived], lost: Tensor) -> Mapping[str, Derived]:
    left = {}
    for name, d in derived.items():
        gone = lost[:, [MODALITIES.index(source) for source in d.sources]].any(1)
        left[name] = Derived(d.values.masked_fill(gone.view(-1, *[1] * (d.values.ndim - 1)), 0), d.sources)
    return left


def _swap(batch: Batch, pool: Batch, donor: Tensor) -> Batch:
    """Rows of the pool put in place of the hosts' modalities; the donor's length comes along."""
    changes: dict[str, Tensor] = {}
    for i, modality in enumerate(MODALITIES):
        hosts = (donor[:, i] >= 0).nonzero().squeeze(1)
        if not len(hosts):
            continue
        x, theirs = batch.features(modality), pool.features(modality)
        if x.shape[2:] != theirs.shape[2:] or x.dtype != theirs.dtype:
            raise InputError(
                f"pool: its {modality} has {tuple(theirs.shape[2:])} features, the batch {tuple(x.shape[2:])}; "
                "donors must come from the same kind of data"
            )
        x, theirs = _same_steps(x, theirs)
        changes[modality] = x.index_copy(0, hosts, theirs[donor[hosts, i]])
        lengths = batch.lengths(modality).index_copy(0, hosts, pool.lengths(modality)[donor[hosts, i]])
        changes[f"{modality}_lengths"] = lengths
    return batch.replace(**changes)


def _swap_derived(derived: Mapping[str, Derived], pool: Batch, donor: Tensor) -> Mapping[str, Derived]:
    swapped = {}
    for name, d in derived.items():
        columns = donor[:, [MODALITIES.index(source) for source in d.sources]].max(1).values
        hosts = (columns >= 0).nonzero().squeeze(1)
        if name not in pool.derived:
            raise InputError(f"pool: it lacks the derived input {name!r} of the batch; donors need the same inputs")
        theirs = pool.derived[name].values[columns[hosts]]
        swapped[name] = Derived(d.values.index_copy(0, hosts, theirs), d.sources)
    return swapped


def _same_steps(x: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both padded at the end to the longer of the two."""
    steps = max(x.shape[1], theirs.shape[1])
    return _padded(x, steps), _padded(theirs, steps)


def _padded(x: Tensor, steps: int) -> Tensor:
    if x.shape[1] == steps:
        return x
    return torch.cat([x, x.new_zeros(len(x), steps - x.shape[1], *x.shape[2:])], 1)
