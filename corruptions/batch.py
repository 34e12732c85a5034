"""The one batch type: text, audio and vision sequences with their valid lengths, ids and presence.

A batch is immutable. Everything that changes inputs returns a new one that shares the tensors it did not touch,
so "is it the same tensor?" is a cheap and exact test for "was this modality changed?".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corruptions.errors import InputError

MODALITIES: tuple[str, str, str] = ("text", "audio", "vision")
LETTERS: dict[str, str] = {"t": "text", "a": "audio", "v": "vision"}


@dataclass(frozen=True, eq=False)
class Derived:
    """An input computed from modalities (an explanation made from the audio): lost or swapped when its sources are.

    values: ``(N, ...)``; sources: the modalities it was made from.
    """

    values: Tensor
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _tensor(self.values))
        object.__setattr__(self, "sources", tuple(self.sources))


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples with three modalities each.

    Args:
        text: ``(N, T_t, d_t)`` float features, or ``(N, T_t)`` integer token ids.
        audio: ``(N, T_a, d_a)`` float features.
        vision: ``(N, T_v, d_v)`` float features.
        text_lengths, audio_lengths, vision_lengths: ``(N,)`` valid steps; padding follows them. Default: full.
        ids: N distinct strings. All randomness is keyed by them. Default: ``"0" .. "N-1"``.
        labels: ``(N,)`` sentiment scores (float) or classes (int); may be left out.
        groups: N strings, the video of each sample. Default: each sample its own group.
        present: ``(N, 3)`` bool in the order text, audio, vision: is the modality there? Default: all True.
        derived: further inputs by name, each with the modalities it was made from.

    Arrays and lists are accepted and converted. Floating features become float32 (float16 too).

    Raises:
        InputError: shapes that do not agree, lengths outside ``0..T``, ids that repeat.

    >>> batch = Batch(text=np.zeros((2, 4, 3)), audio=np.ones((2, 5, 2)), vision=np.ones((2, 6, 1)))
    >>> len(batch), batch.audio_lengths.tolist(), batch.present.all().item()
    (2, [5, 5], True)
    """

    text: Tensor
    audio: Tensor
    vision: Tensor
    text_lengths: Tensor = None  # type: ignore[assignment]  # filled in by __post_init__
    audio_lengths: Tensor = None  # type: ignore[assignment]
    vision_lengths: Tensor = None  # type: ignore[assignment]
    ids: tuple[str, ...] = None  # type: ignore[assignment]
    labels: Tensor | None = None
    groups: tuple[str, ...] = None  # type: ignore[assignment]
    present: Tensor = None  # type: ignore[assignment]
    derived: Mapping[str, Derived] = field(default_factory=dict)
    _energies: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check(frozenset(_FIELDS))

    def _check(self, given: frozenset[str]) -> None:
        """Convert and check these fields, and what depends on them."""
        for modality in MODALITIES:
            if modality in given:
                self._set(modality, _features(modality, getattr(self, modality)))
        n = len(self.text)
        for modality in MODALITIES:
            x, name = getattr(self, modality), f"{modality}_lengths"
            if len(x) != n:
                raise InputError(f"batch: {modality} has {len(x)} samples, text has {n}; they must be the same samples")
            if name in given:
                self._set(name, _lengths(modality, getattr(self, name), x))
        if "ids" in given:
            ids = tuple(map(str, range(n))) if self.ids is None else tuple(map(str, self.ids))
            if len(ids) != n or len(set(ids)) != n:
                raise InputError(f"batch: expected {n} distinct ids, got {len(ids)} with {len(set(ids))} distinct")
            self._set("ids", ids)
        if "groups" in given:
            groups = self.ids if self.groups is None else tuple(map(str, self.groups))
            if len(groups) != n:
                raise InputError(f"batch: expected {n} groups, got {len(groups)}")
            self._set("groups", groups)
        if "present" in given:
            self._set("present", _present(self.present, n, self.device))
        if "derived" in given:
            _check_derived(self.derived, n)
        if "labels" in given and self.labels is not None:
            self._set("labels", _labels(self.labels, n, self.device))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.text.device

    @property
    def has_token_text(self) -> bool:
        """True when text is token ids ``(N, T)``, False when it is features ``(N, T, d)``."""
        return not self.text.is_floating_point()

    def features(self, modality: str) -> Tensor:
        """The tensor of one modality, ``(N, T_m, d_m)`` (token ids: ``(N, T_t)``)."""
        x: Tensor = getattr(self, modality)
        return x

    def lengths(self, modality: str) -> Tensor:
        """Valid steps per sample, ``(N,)`` int64."""
        lengths: Tensor = getattr(self, f"{modality}_lengths")
        return lengths

    def valid(self, modality: str) -> Tensor:
        """``(N, T_m)`` bool: True on valid steps, False on padding."""
        steps = torch.arange(self.features(modality).shape[1], device=self.device)
        return steps[None, :] < self.lengths(modality)[:, None]

    def energy(self, modality: str) -> Tensor:
        """Sum of squares of each step's features, ``(N, T_m)`` float64; computed once."""
        if modality not in self._energies:
            self._energies[modality] = energy(self.features(modality))
        return self._energies[modality]

    def replace(self, **changes: Any) -> Batch:
        """A batch with some fields replaced; all others are shared, not copied, and not checked again."""
        if unknown := changes.keys() - set(_FIELDS):
            raise TypeError(f"a batch has no field {min(unknown)!r}")
        found = object.__new__(Batch)
        found.__dict__.update(self.__dict__, **changes, _energies={})
        longer = {m for m in MODALITIES if m in changes and np.shape(changes[m])[:2] != self.features(m).shape[:2]}
        found._check(frozenset(changes) | {f"{m}_lengths" for m in longer})
        return found

    def select(self, index: Sequence[int] | Tensor | np.ndarray[Any, Any]) -> Batch:
        """The samples at these positions (int) or under this mask (bool), in the order given, each once."""
        rows = torch.as_tensor(np.asarray(index) if not isinstance(index, Tensor) else index)
        rows = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows.to(torch.int64)
        order = rows.tolist()  # before it goes to a GPU, for which this would have to wait
        rows = rows.to(self.device)
        ids = tuple(self.ids[i] for i in order)
        if len(set(ids)) != len(ids):
            raise InputError(f"batch: expected each sample once, got {len(ids)} with {len(set(ids))} distinct")
        groups = tuple(self.groups[i] for i in order)
        return self._of_samples(lambda x: x.index_select(0, rows), ids, groups)

    def rows(self, part: slice) -> Batch:
        """A run of samples, sharing memory with this batch."""
        whole = range(len(self))[part]
        if whole.start == 0 and len(whole) == len(self):
            return self
        return self._of_samples(lambda x: x[part], self.ids[part], self.groups[part])

    def _of_samples(self, take: Callable[[Tensor], Tensor], ids: tuple[str, ...], groups: tuple[str, ...]) -> Batch:
        """Some samples; they were checked when this batch was made."""
        values: dict[str, Any] = {name: take(getattr(self, name)) for name in _TENSOR_FIELDS}
        values |= {"ids": ids, "groups": groups, "labels": None if self.labels is None else take(self.labels)}
        values["derived"] = {k: Derived(take(d.values), d.sources) for k, d in self.derived.items()}
        found = object.__new__(Batch)
        found.__dict__.update(values, _energies={})
        return found

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self.replace(
            **{name: getattr(self, name).to(device) for name in _TENSOR_FIELDS},
            labels=None if self.labels is None else self.labels.to(device),
            derived={k: Derived(d.values.to(device), d.sources) for k, d in self.derived.items()},
        )


_TENSOR_FIELDS = (*MODALITIES, *(f"{m}_lengths" for m in MODALITIES), "present")
_FIELDS = (*_TENSOR_FIELDS, "ids", "labels", "groups", "derived")


def _present(given: Any, n: int, device: torch.device) -> Tensor:
    if given is None:
        return torch.ones(n, 3, dtype=torch.bool, device=device)
    present = torch.as_tensor(given, device=device).to(torch.bool)
    if present.shape != (n, 3):
        raise InputError(
            f"batch: present must be ({n}, 3) in the order text, audio, vision; got {tuple(present.shape)}"
        )
    return present


def _labels(given: Any, n: int, device: torch.device) -> Tensor:
    labels = torch.as_tensor(given, device=device)
    labels = labels.to(torch.float32) if labels.is_floating_point() else labels
    if labels.shape != (n,):
        raise InputError(f"batch: labels must be ({n},), got {tuple(labels.shape)}")
    return labels


def _check_derived(inputs: Mapping[str, Derived], n: int) -> None:
    for name, derived in inputs.items():
        if derived.values.ndim < 1 or len(derived.values) != n:
            rows = tuple(derived.values.shape)
            raise InputError(f"batch: derived input {name!r} must have {n} rows, one per sample; got shape {rows}")
        if not derived.sources or not set(derived.sources) <= set(MODALITIES):
            known = ", ".join(MODALITIES)
            raise InputError(f"batch: derived input {name!r} must come from some of {known}; got {derived.sources}")


def energy(x: Tensor) -> Tensor:
    """Sum of squares over the last dimension, float64, whatever the number of threads. Makes nothing of x's size."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
    return norm.square_()


def _tensor(values: Any) -> Tensor:
    """A tensor of whatever was given; arrays that may not be written to are copied."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    tensor: Tensor = torch.as_tensor(values)
    return tensor


def _features(modality: str, values: Any) -> Tensor:
    x = _tensor(values)
    if x.is_floating_point() or modality != "text":
        x = x.to(torch.float32)
    expected = 3 if x.is_floating_point() else 2
    if x.ndim != expected:
        what = "(N, T, d) features" + (" or (N, T) token ids" if modality == "text" else "")
        raise InputError(f"batch: {modality} must be {what}, got shape {tuple(x.shape)}")
    return x


def _lengths(modality: str, given: Any, x: Tensor) -> Tensor:
    n, steps = x.shape[:2]
    if given is None:
        return torch.full((n,), steps, dtype=torch.int64, device=x.device)
    raw = _tensor(given).to(x.device)
    lengths = raw.to(torch.int64)
    whole = raw.dtype != torch.bool and raw.shape == (n,) and bool((lengths == raw).all())
    if not whole or (n and (int(lengths.min()) < 0 or int(lengths.max()) > steps)):
        raise InputError(f"batch: {modality}_lengths must be {n} whole numbers between 0 and {steps}")
    return lengths
