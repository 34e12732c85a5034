"""Arrays by name in a .npz or HDF5 file: the layout for data that comes from nowhere in particular.

``<split>/<field>`` for the splits train, valid, test and the fields of FIELDS (docs/data.md has the table). Names that
are not known are refused, so that a misspelt ``prsent`` is not silently left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, InputError
from corruptions.registry import did_you_mean
from robustbench_msa.data.dataset import SPLITS, Dataset, group_of
from robustbench_msa.data.entries import Load, open_hdf5, open_npz
from robustbench_msa.data.mmsa import profile_of
from robustbench_msa.data.npy import STRINGS, Array, tensor_of

FIELDS: dict[str, str] = {
    "text": "(N, T, d) text features, or none where there are tokens",
    "tokens": "(N, T) token ids, the valid ones first",
    "audio": "(N, T, d) audio features",
    "vision": "(N, T, d) vision features",
    "lengths": "(N, 3) valid steps of text, audio, vision; default all",
    "present": "(N, 3) is the modality there? default yes",
    "labels": "(N,) scores, or classes as whole numbers from 0",
    "ids": "(N,) strings; default <split>0, <split>1, ...",
    "groups": "(N,) strings, the video of each sample; default what stands before $_$ in its id",
    **{f"labels_{m}": f"(N,) labels given from {m} alone" for m in MODALITIES},
}
"""Field to shape and meaning. Beside the splits, ``classes`` (C,): the names of the classes."""


def read_arrays(path: Path, name: str, text: str | None = None) -> Dataset:
    """The dataset in a .npz or HDF5 file (by its content, not its name).

    Features become float32. In an HDF5 file, an array of little-endian float32 without chunks and filters stays in the
    file and is mapped into memory; everything else is read.

    Args:
        path: the file; trusted in no way.
        name: what the dataset is called; with ``classes`` the profile is classification, otherwise sims for names that
            begin with ``sims`` or ``ch-sims``, else mosi.
        text: "features", "tokens" or None: features where the file has them.

    Raises:
        InputError: an unreadable file, unknown or missing names, shapes that disagree, values that are not finite.
    """
    with ExitStack() as stack:
        entries = open_entries(path, stack)
        classes = _strings(f"{path}: classes", entries.pop("classes")()) if "classes" in entries else ()
        splits = by_split(path, entries)
        batches, unimodal = {}, {}
        for split in SPLITS:
            batches[split], unimodal[split] = _batch(f"{path}: {split}", split, splits[split], text, bool(classes))
    tokens = batches["train"].has_token_text
    notes = tuple(f"{s}: {len(b)} samples in {len(set(b.groups))} groups (videos)" for s, b in batches.items())
    return Dataset(
        name,
        batches,
        profile="classification" if classes else profile_of(name),
        text_at="tokens" if tokens else "embeddings",
        notes=notes,
        classes=classes,
        unimodal_labels={split: labels for split, labels in unimodal.items() if labels},
    )


def open_entries(path: Path, stack: ExitStack) -> dict[str, Load]:
    """Name to a function that reads the array, while the file is open."""
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return open_npz(path, stack) if zipped else open_hdf5(path, stack)


def by_split(path: Path, entries: Mapping[str, Load]) -> dict[str, dict[str, Load]]:
    found: dict[str, dict[str, Load]] = {split: {} for split in SPLITS}
    for entry, load in entries.items():
        split, _, field = entry.partition("/")
        if split not in found or field not in FIELDS:
            known = [f"{s}/{f}" for s in SPLITS for f in FIELDS] + ["classes"]
            hint = did_you_mean(entry, known)
            expected = f"train/, valid/ or test/ and one of {', '.join(FIELDS)}; or classes"
            raise InputError(f"{path}: unknown array {entry[:80]!r}{hint}; expected {expected}")
        found[split][field] = load
    return found


def _batch(
    where: str, split: str, fields: Mapping[str, Load], text: str | None, classified: bool
) -> tuple[Batch, dict[str, torch.Tensor]]:
    if text not in (None, "features", "tokens"):
        raise InputError(f"text: expected features or tokens, got {text!r}")
    tokens = text == "tokens" or (text is None and "text" not in fields)
    words = "tokens" if tokens else "text"
    for field in (words, "audio", "vision", "labels"):
        if field not in fields:
            has = ", ".join(sorted(fields)) or "nothing"
            raise InputError(f"{where}/{field}: expected this array, the split has {has}")
    x = {
        m: _features(f"{where}/{f}", fields[f](), f) for m, f in zip(MODALITIES, (words, *MODALITIES[1:]), strict=True)
    }
    n = len(x["text"])
    ids = _strings(f"{where}/ids", fields["ids"](), n) if "ids" in fields else tuple(f"{split}{i}" for i in range(n))
    groups = _strings(f"{where}/groups", fields["groups"](), n) if "groups" in fields else tuple(map(group_of, ids))
    lengths = _threes(f"{where}/lengths", fields["lengths"](), n) if "lengths" in fields else None
    present = _threes(f"{where}/present", fields["present"](), n) if "present" in fields else None
    if present is not None and not np.isin(present, (0, 1)).all():
        raise InputError(f"{where}/present: expected True or False (1 or 0), got other values")
    given: dict[str, Any] = {m: tensor_of(x[m]) for m in MODALITIES}
    if lengths is not None:
        given |= {f"{m}_lengths": lengths[:, i].copy() for i, m in enumerate(MODALITIES)}
    if present is not None:
        given["present"] = torch.from_numpy(present == 1)
    labels = _labels(f"{where}/labels", fields["labels"](), n, classified)
    try:
        batch = Batch(**given, ids=ids, groups=groups, labels=labels)
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('batch: ')}") from None
    own = {m: fields[f"labels_{m}"] for m in MODALITIES if f"labels_{m}" in fields}
    return batch, {m: _labels(f"{where}/labels_{m}", load(), n, False) for m, load in own.items()}


def _features(where: str, x: Array, field: str) -> Array:
    if field == "tokens":
        if x.ndim != 2 or x.dtype.kind not in "iu" or 0 in x.shape:
            raise InputError(f"{where}: expected token ids (N, T), whole numbers; got {x.shape} {x.dtype}")
        return x.astype(np.int64)
    if x.ndim != 3 or x.dtype.kind in STRINGS or 0 in x.shape:
        raise InputError(f"{where}: expected features (N, T, d), at least one of each; got {x.shape} {x.dtype}")
    with np.errstate(over="ignore"):  # beyond float32: infinite, which the dataset refuses
        return x if x.dtype == np.float32 else x.astype(np.float32)


def _labels(where: str, x: Array, n: int, classified: bool) -> torch.Tensor:
    if x.size != n or x.shape[:1] != (n,) or x.dtype.kind not in ("iu" if classified else "iuf"):
        kind = "classes, whole numbers" if classified else "numbers"
        raise InputError(f"{where}: expected {n} {kind}, got {x.shape} {x.dtype}")
    with np.errstate(over="ignore"):
        return torch.from_numpy(x.reshape(n).astype(np.int64 if classified else np.float32))


def _threes(where: str, x: Array, n: int) -> Array:
    if x.shape != (n, 3) or x.dtype.kind in STRINGS:
        raise InputError(f"{where}: expected ({n}, 3) for text, audio, vision; got {x.shape} {x.dtype}")
    return x.astype(x.dtype.newbyteorder("="))


def _strings(where: str, x: Array, n: int | None = None) -> tuple[str, ...]:
    if x.ndim != 1 or x.dtype.kind not in STRINGS or (n is not None and len(x) != n):
        expected = "strings" if n is None else f"{n} strings"
        raise InputError(f"{where}: expected {expected}, got {x.shape} {x.dtype}")
    try:
        strings = tuple(i.decode() if isinstance(i, bytes) else str(i) for i in x.tolist())
        "".join(strings).encode()
    except ValueError as error:  # bytes that are not UTF-8, code points that do not exist
        raise InputError(f"{where}: expected readable strings ({type(error).__name__})") from None
    return strings
