"""Pickles in the MMSA layout: MOSI, MOSEI, CH-SIMS and CH-SIMS v2, aligned and unaligned, as they are passed around.

``{"train", "valid", "test"}`` -> dict of ``id``, ``text``, ``audio``, ``vision``, ``regression_labels`` and, where the
data has them, ``*_lengths``, ``*_present`` and ``text_bert``. The layout is that of MMSA (Yu et al., ACL 2020; Mao et
al., ACL 2022). What the files get wrong in practice is repaired the way the field does, and every repair is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.data.dataset import SPLITS, Dataset, group_of
from robustbench_msa.data.safe_pickle import load

SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "dev", "val"), "test": ("test",)}
LABEL_RANGE = {"mosi": 3.0, "sims": 1.0}
_WHAT_TUPLES_ARE = " (labels of IEMOCAP in GCNet's layout are read by --dataset iemocap4 or iemocap6)"
UNIMODAL = {"text": "regression_labels_T", "audio": "regression_labels_A", "vision": "regression_labels_V"}
"""CH-SIMS: labels by annotators who were given one modality alone."""

TEXT = ("features", "tokens")
"""What text may be read as."""

_Array = np.ndarray[Any, np.dtype[Any]]


def read_mmsa(path: Path, name: str = "mosi", text: str | None = None) -> Dataset:
    """The three splits of an MMSA pickle, read without running anything in it.

    Features are ``text (N, T_t, d_t)``, ``audio (N, T_a, d_a)`` and ``vision (N, T_v, d_v)``, made float32; NaN and
    infinite values become 0, as the field's loaders do. Lengths are ``*_lengths`` where the file has them; for text
    otherwise the attention mask of ``text_bert (N, 3, T_t)``; for audio and vision with as many steps as text (aligned
    files) the text's; else full. Padding at the front is moved to the end. ``*_present (N,)`` says which samples have
    a modality (default: all). Groups are the videos of ``video$_$clip`` ids.

    Text as tokens is ``text_bert (N, 3, T_t)``: ids, attention mask, segments. Ids under the mask come first, and there
    are as many as its ones; ``text_lengths`` counts the steps of the features and is not asked.

    Labels of single modalities (``regression_labels_T``, ``_A``, ``_V`` of CH-SIMS) go to ``unimodal_labels``.

    Args:
        path: the pickle; ``safe_pickle.load`` says what it may hold.
        name: what the dataset is called. A name that starts with ``sims`` or ``ch-sims`` is scored by the ``sims``
            profile (labels in [-1, 1]), any other by ``mosi`` (labels in [-3, 3]).
        text: "features", "tokens", or None: features where the file has them.

    Returns:
        a Dataset whose ``notes`` hold the counts and one line for each repair.

    Raises:
        InputError: an unreadable file, a missing split or key, shapes that disagree, ids that repeat, lengths of
            audio and vision that are swapped, labels that are not finite; the split and the key are named.
    """
    return dataset_of(Path(path), load(Path(path)), name, text)


def dataset_of(path: Path, data: object, name: str, text: str | None = None) -> Dataset:
    """What ``read_mmsa`` makes of the data in the pickle, for who has read it; ``path`` opens messages."""
    if not isinstance(data, dict):
        what = f"{type(data).__name__}{_WHAT_TUPLES_ARE if isinstance(data, tuple) else ''}"
        raise InputError(f"{path}: expected a dict of train, valid and test, got {what}")
    found = {split: split_key(data, split) for split in SPLITS}
    for split, key in found.items():
        if key is None or not isinstance(data[key], dict):
            has = _listed(data)
            raise InputError(f"{path}: expected a dict under {split!r}, the file has {has}; is this an MMSA file?")
    if text not in (None, *TEXT):
        raise InputError(f"text: expected {' or '.join(TEXT)}, got {text!r}")
    only_tokens = all("text" not in data[key] and "text_bert" in data[key] for key in found.values())
    tokens = text == "tokens" or (text is None and only_tokens)
    splits = {split: _Split(f"{path}: {split}", data[key], tokens) for split, key in found.items()}
    batches = {split: splits[split].batch() for split in SPLITS}
    unimodal = {split: labels for split in SPLITS if (labels := splits[split].unimodal(len(batches[split])))}
    profile = profile_of(name)
    notes = [note for split in SPLITS for note in _counts(split, batches[split])]
    notes += [f"{split}/{note}" for split in SPLITS for note in splits[split].notes]
    notes += _across_splits(batches) + _label_notes(batches, profile)
    if not tokens and any("text_bert" in splits[split].fields for split in SPLITS):
        notes.append("text_bert (token ids) is present but the features are used; --text tokens uses the ids")
    text_at = "tokens" if tokens else "embeddings"
    return Dataset(name, batches, profile, text_at, tuple(notes), unimodal_labels=unimodal)


def split_key(data: Mapping[Any, Any], split: str) -> str | None:
    """How a file calls the split."""
    return next((name for name in SPLIT_NAMES[split] if name in data), None)


def profile_of(name: str) -> str:
    """How a file of this name is scored.

    >>> profile_of("simsv2"), profile_of("mosei"), profile_of("my-data")
    ('sims', 'mosi', 'mosi')
    """
    return "sims" if name.lower().startswith(("sims", "ch-sims")) else "mosi"


@dataclass
class _Split:
    """One split on its way from the file's arrays to a Batch; ``where`` opens each message. tokens: text as ids."""

    where: str
    fields: Mapping[Any, Any]
    tokens: bool = False
    notes: list[str] = field(default_factory=list)

    def batch(self) -> Batch:
        ids = self.ids()
        n = len(ids)
        features = {m: self.token_ids(n) if self.tokens and m == "text" else self.features(m, n) for m in MODALITIES}
        lengths = self.lengths(features)
        text, audio, vision = (torch.from_numpy(self.padding_last(m, features[m], lengths[m])) for m in MODALITIES)
        return Batch(
            text=text,
            audio=audio,
            vision=vision,
            text_lengths=torch.from_numpy(lengths["text"]),
            audio_lengths=torch.from_numpy(lengths["audio"]),
            vision_lengths=torch.from_numpy(lengths["vision"]),
            ids=ids,
            groups=tuple(group_of(i) for i in ids),
            labels=torch.from_numpy(self.labels(n)),
            present=torch.from_numpy(np.stack([self.present(m, n) for m in MODALITIES], axis=1)),
        )

    def get(self, key: str) -> Any:
        if key not in self.fields:
            raise self.error(key, f"expected this key, the split has {_listed(self.fields)}")
        return self.fields[key]

    def error(self, key: str, problem: str) -> InputError:
        return InputError(f"{self.where}/{key}: {problem}")

    def ids(self) -> tuple[str, ...]:
        try:
            ids = self.strings("id")
            "".join(ids).encode()
        except InputError:
            raise
        except ValueError as error:  # bytes that are not UTF-8, surrogates
            raise self.error("id", f"expected readable strings ({type(error).__name__})") from None
        seen: set[str] = set()
        for i in ids:
            if i in seen:
                raise self.error("id", f"expected distinct ids, {i[:80]!r} comes more than once; drop the repeats")
            seen.add(i)
        return ids

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.get(key)
        items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, (list, tuple)) or not items:
            raise self.error(key, f"expected one string for each sample and at least one, got {_kind(value)}")
        odd = [i for i in items if not isinstance(i, (str, bytes))]
        if odd:
            raise self.error(key, f"expected strings, got {_kind(odd[0])}")
        return tuple(i.decode() if isinstance(i, bytes) else str(i) for i in items)

    def features(self, modality: str, n: int) -> _Array:
        """``(N, T, d)`` float32, finite, in native byte order, contiguous and writable."""
        value = self.numbers(modality)
        if value.ndim != 3 or len(value) != n or 0 in value.shape:
            raise self.error(modality, f"expected shape ({n}, T, d) as there are {n} ids, got {value.shape}")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, then 0
            x = np.ascontiguousarray(value, dtype=np.float32)
        finite = np.isfinite(x)
        if not finite.all():
            self.notes.append(f"{modality}: {x.size - finite.sum()} values were NaN or infinite and became 0")
            return np.where(finite, x, np.float32(0))
        return x if x.flags.writeable else x.copy()

    def token_ids(self, n: int) -> _Array:
        """Ids ``(N, T)`` int64 of ``text_bert``, those under the attention mask first and 0, [PAD], after them."""
        value = self.numbers("text_bert")
        if value.ndim != 3 or value.shape[:2] != (n, 3) or 0 in value.shape:
            raise self.error("text_bert", f"expected shape ({n}, 3, T) as there are {n} ids, got {value.shape}")
        mask = self.attention_mask(value)
        ids = np.where(mask, value[:, 0], 0)
        if not ((ids >= 0) & (ids < 2**31) & (ids == np.floor(ids))).all():
            raise self.error("text_bert", "expected token ids, whole numbers from 0, in row 0; got other values")
        if value[:, 2].any():
            self.notes.append("text_bert: its segments (row 2) are not all 0; they are not read")
        order = np.argsort(~mask, axis=1, kind="stable")
        moved = (order != np.arange(mask.shape[1])).any(axis=1)
        if moved.any():
            self.notes.append(f"text_bert: tokens did not stand first and were moved there in {moved.sum()} samples")
        tokens: _Array = np.take_along_axis(ids, order, axis=1).astype(np.int64)
        return tokens

    def attention_mask(self, text_bert: _Array) -> _Array:
        """Row 1 of ``text_bert (N, 3, T)`` as ``(N, T)`` bool."""
        if not np.isin(text_bert[:, 1], (0, 1)).all():
            raise self.error("text_bert", "expected an attention mask of 0 and 1 in row 1, got other values")
        mask: _Array = text_bert[:, 1] == 1
        return mask

    def numbers(self, key: str) -> _Array:
        value = self.get(key)
        array = value if isinstance(value, np.ndarray) and value.dtype != object else self.flat_numbers(value)
        if array is None or array.dtype.kind not in "fiub":
            raise self.error(key, f"expected an array of numbers, got {_kind(value)}")
        return array

    def flat_numbers(self, value: Any) -> _Array | None:
        """An array of a list of numbers. Nested lists are not followed: a small file can nest them without end."""
        items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(items, list) or not all(isinstance(i, (int, float, np.number, np.bool_)) for i in items):
            return None
        return np.array(items).reshape(value.shape if isinstance(value, np.ndarray) else len(items))

    def column(self, key: str, n: int) -> _Array:
        """One number per sample: ``(N,)`` from ``(N,)`` or ``(N, 1)``."""
        value = self.numbers(key)
        if value.size != n or value.shape[:1] != (n,):
            raise self.error(key, f"expected one number for each of {n} ids, got shape {value.shape}")
        return value.reshape(n)

    def labels(self, n: int, key: str = "regression_labels") -> _Array:
        with np.errstate(over="ignore"):
            labels: _Array = self.column(key, n).astype(np.float32)
        return labels

    def unimodal(self, n: int) -> dict[str, torch.Tensor]:
        """Labels given from one modality alone, ``(N,)`` each; those that are not finite are left out and noted."""
        found = {m: self.labels(n, key) for m, key in UNIMODAL.items() if key in self.fields}
        broken = [m for m, x in found.items() if not np.isfinite(x).all()]
        self.notes += [f"{UNIMODAL[m]}: NaN or infinite values among them, left out" for m in broken]
        return {m: torch.from_numpy(x) for m, x in found.items() if m not in broken}

    def present(self, modality: str, n: int) -> _Array:
        key = f"{modality}_present"
        if key not in self.fields:
            return np.ones(n, bool)
        value = self.column(key, n)
        if not np.isin(value, (0, 1)).all():
            raise self.error(key, "expected True or False (1 or 0) for each sample, got other values")
        return value.astype(bool)

    def lengths(self, features: Mapping[str, _Array]) -> dict[str, _Array]:
        """Valid steps, ``(N,)`` int64 in ``0..T_m``."""
        n, steps = len(features["text"]), {m: features[m].shape[1] for m in MODALITIES}
        given = {m: self.given_lengths(m, n) for m in MODALITIES}
        audio, vision = given["audio"], given["vision"]
        if audio is not None and vision is not None:
            self.check_not_swapped(int(audio.max()), int(vision.max()), steps["audio"], steps["vision"])
        known = None if self.tokens else given["text"]
        text = known if known is not None else self.mask_lengths(n, steps["text"])
        result = {"text": self.clipped("text", text, n, steps["text"])}
        for m in ("audio", "vision"):
            aligned = steps[m] == steps["text"] and steps[m] > 1
            own = given[m] if given[m] is not None else result["text"] if aligned else None
            result[m] = self.clipped(m, own, n, steps[m])
        return result

    def given_lengths(self, modality: str, n: int) -> _Array | None:
        key = f"{modality}_lengths"
        if key not in self.fields:
            return None
        value = self.column(key, n).astype(np.float64)
        if not ((value >= 0) & (value < 2**31) & (value == np.floor(value))).all():
            raise self.error(key, "expected whole numbers of steps, 0 or more; got other values")
        lengths: _Array = value.astype(np.int64)
        return lengths

    def check_not_swapped(self, audio: int, vision: int, audio_steps: int, vision_steps: int) -> None:
        exceed = audio > audio_steps or vision > vision_steps
        if exceed and audio <= vision_steps and vision <= audio_steps:
            raise self.error(
                "audio_lengths",
                f"audio_lengths and vision_lengths look swapped: up to {audio} and {vision} steps, but audio has "
                f"{audio_steps} and vision {vision_steps}; exchange the two keys",
            )

    def mask_lengths(self, n: int, steps: int) -> _Array | None:
        """Row sums of the attention mask, row 1 of ``text_bert (N, 3, T)``, when it counts the steps of text."""
        if "text_bert" not in self.fields:
            return None
        value = self.numbers("text_bert")
        if value.shape[:1] != (n,):
            raise self.error("text_bert", f"expected shape ({n}, 3, T) as there are {n} ids, got {value.shape}")
        if value.shape != (n, 3, steps):
            return None
        lengths: _Array = self.attention_mask(value).sum(axis=1)
        return lengths

    def clipped(self, modality: str, lengths: _Array | None, n: int, steps: int) -> _Array:
        if lengths is None:
            if steps > 1:
                self.notes.append(f"{modality}: no lengths in the file, all {steps} steps count as valid")
            return np.full(n, steps, np.int64)
        beyond = int((lengths > steps).sum())
        if beyond:
            self.notes.append(f"{modality}_lengths: {beyond} exceed the {steps} steps there are and became {steps}")
        return np.minimum(lengths, steps)

    def padding_last(self, modality: str, x: _Array, lengths: _Array) -> _Array:
        """Padding moved from the front to the end, when most of the padded samples have it at the front.

        A sample of length L in T steps is padded at the front when its first T - L steps are all zero and something
        follows step L.
        """
        n, steps = x.shape[:2]
        if x.ndim == 2 or (lengths == steps).all():  # token ids stand first already
            return x
        filled, step = (x != 0).any(axis=2), np.arange(steps)
        free_front = ~(filled & (step < (steps - lengths)[:, None])).any(axis=1)
        used_tail = (filled & (step >= lengths[:, None])).any(axis=1)
        padded = (lengths > 0) & (lengths < steps)
        front = padded & free_front & used_tail
        if 2 * front.sum() <= padded.sum():
            return x
        moved = padded & free_front
        self.notes.append(f"{modality}: padding stood at the front and was moved to the end in {moved.sum()} samples")
        shift = np.where(moved, steps - lengths, 0)
        rolled: _Array = x[np.arange(n)[:, None], (step + shift[:, None]) % steps]
        return rolled


def _counts(split: str, batch: Batch) -> list[str]:
    notes = [f"{split}: {len(batch)} samples in {len(set(batch.groups))} groups (videos)"]
    for modality, share in zip(MODALITIES, batch.present.float().mean(dim=0).tolist(), strict=True):
        if share < 1:
            notes.append(f"{split}: {modality} is present in {share:.1%} of the samples")
    return notes


def _across_splits(batches: Mapping[str, Batch]) -> list[str]:
    notes = []
    for split in ("valid", "test"):
        shared = len(set(batches["train"].groups) & set(batches[split].groups))
        if shared:
            notes.append(f"{split}: {shared} groups (videos) are also in train; the splits are not independent")
    return notes


def _label_notes(batches: Mapping[str, Batch], profile: str) -> list[str]:
    labels = torch.cat([batch.labels for batch in batches.values() if batch.labels is not None]).abs()
    limit = LABEL_RANGE[profile]
    outside = int((labels > limit).sum())
    if outside:
        return [f"{outside} labels are outside [-{limit:g}, {limit:g}], the range of the {profile} profile"]
    if profile == "mosi" and bool((labels <= 1).all()):
        return ["all labels are within [-1, 1]: if this is CH-SIMS, read it by a name that starts with sims"]
    return []


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return type(value).__name__


def _listed(keys: Mapping[Any, Any]) -> str:
    names = [repr(key)[:40] for key in keys]
    return ", ".join(names[:16]) + (", ..." if len(names) > 16 else "") if names else "nothing"
