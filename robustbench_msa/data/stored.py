"""Our own format: a folder ``NAME.msa`` of plain .npy arrays and a JSON header, read by mapping it into memory.

A pickle has to be read whole, by an interpreter; this is opened in no time, shares its memory between processes, and
may be larger than the memory there is. It holds what a Dataset holds after all repairs, so that its fingerprint, and
with it the keys of stored cells, are those of the source. Nothing in it can run.

``dataset.json``; and for each split a folder with ``text audio vision`` (values as a Batch has them), ``lengths
(N, 3)``, ``present (N, 3)``, ``labels (N,)``, derived inputs, unimodal labels, and ``samples.json`` (ids and groups).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, InputError
from corruptions.batch import Derived
from robustbench_msa.atomic import write_json
from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.npy import Array, mapped, tensor_of

HEADER = "dataset.json"
FORMAT, VERSION = "msabench dataset", 1
_SAMPLES = "samples.json"
_MAX_HEADER, _BYTES_A_SAMPLE = 4 * 2**20, 1024


def write_stored(dataset: Dataset, folder: Path) -> None:
    """Write a dataset as ``folder``, whole or not at all: to a temporary folder beside it, read back, then renamed.

    Raises:
        InputError: something is in the way, or the disk has too little room.
        OSError: the disk failed, or what was read back is not what was written.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder}: is already there; remove it, or choose another --out")
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    arrays = {split: _arrays(dataset, split) for split in SPLITS}
    needed, free = sum(x.nbytes for split in arrays.values() for x in split.values()), shutil.disk_usage(parent).free
    if needed > free:
        raise InputError(f"{folder}: needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB left")
    _remove_left_behind(parent, folder.name)
    temporary = parent / f".{folder.name}.tmp-{os.getpid()}"
    temporary.mkdir()
    try:
        for split in SPLITS:
            _write_split(temporary / split, dataset.splits[split], arrays[split])
        write_json(temporary / HEADER, _header(dataset, arrays))  # last: a folder without it is no dataset
        if read_stored(temporary).fingerprint != dataset.fingerprint:
            raise OSError(errno.EIO, "what was read back is not what was written; is the disk failing?", str(folder))
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _arrays(dataset: Dataset, split: str) -> dict[str, Array]:
    batch = dataset.splits[split]
    assert batch.labels is not None
    tensors = {m: batch.features(m) for m in MODALITIES}
    tensors["lengths"] = torch.stack([batch.lengths(m) for m in MODALITIES], dim=1)
    tensors |= {"present": batch.present, "labels": batch.labels}
    tensors |= {f"derived-{i}": batch.derived[name].values for i, name in enumerate(sorted(batch.derived))}
    tensors |= {f"labels_{m}": x for m, x in dataset.unimodal_labels.get(split, {}).items()}
    return {name: x.cpu().contiguous().numpy() for name, x in tensors.items()}


def _write_split(folder: Path, batch: Batch, arrays: Mapping[str, Array]) -> None:
    folder.mkdir()
    for name, x in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, x, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    write_json(folder / _SAMPLES, {"ids": batch.ids, "groups": batch.groups})


def _header(dataset: Dataset, arrays: Mapping[str, Mapping[str, Array]]) -> dict[str, Any]:
    about = {name: getattr(dataset, name) for name in ("name", "profile", "text_at", "classes", "notes")}
    splits = {}
    for split in SPLITS:
        batch = dataset.splits[split]
        described = {name: {"dtype": x.dtype.str, "shape": list(x.shape)} for name, x in arrays[split].items()}
        derived = [{"name": name, "sources": batch.derived[name].sources} for name in sorted(batch.derived)]
        splits[split] = {"samples": len(batch), "arrays": described, "derived": derived}
    made = {"parameters": dict(dataset.parameters), "fingerprint": dataset.fingerprint, "splits": splits}
    return {"format": FORMAT, "version": VERSION, **about, **made}


def _remove_left_behind(parent: Path, name: str) -> None:
    """Temporary folders of processes that were killed while they wrote this dataset."""
    for path in parent.glob(f".{name}.tmp-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and path.is_dir() and not path.is_symlink() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # there a signal of 0 would end it
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def read_header(folder: Path) -> dict[str, Any]:
    """The header of a stored dataset, its structure checked.

    Raises:
        InputError: no header, one that is broken or of a newer version.
    """
    header = _json(folder / HEADER, _MAX_HEADER)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{folder / HEADER}: expected the header of a converted dataset (format {FORMAT!r})")
    if header.get("version") != VERSION:
        version = str(header.get("version"))[:20]
        raise InputError(f"{folder}: expected version {VERSION} of the format, got {version}; convert the source again")
    texts = all(isinstance(header.get(name), str) for name in ("name", "profile", "text_at", "fingerprint"))
    lists = all(_strings(header.get(name)) for name in ("classes", "notes"))
    splits = header.get("splits")
    if not (texts and lists and isinstance(header.get("parameters"), dict) and isinstance(splits, dict)):
        raise InputError(f"{folder / HEADER}: fields are missing or of the wrong kind; convert the source again")
    for split in SPLITS:
        if not _describes(splits.get(split)):
            raise InputError(
                f"{folder / HEADER}: split {split!r} is missing or not described; convert the source again"
            )
    return header


def read_stored(folder: Path, name: str | None = None, text: str | None = None) -> Dataset:
    """The dataset in a folder that ``write_stored`` made; its values stay in the files until they are looked at.

    Args:
        folder: trusted in no way; symbolic links in it are refused.
        name: what it is called here (default: as when it was converted).
        text: "features", "tokens" or None: must be what was converted.

    Raises:
        InputError: a header, arrays or ids that do not fit together.
    """
    header = read_header(folder)
    holds = "tokens" if header["text_at"] == "tokens" and not _has_features(header) else "features"
    if text not in (None, "features", "tokens"):
        raise InputError(f"text: expected features or tokens, got {text!r}")
    if text not in (None, holds):
        raise InputError(
            f"{folder}: its text is {holds}, got text {text!r}; convert the source again with --text {text}"
        )
    batches, unimodal = {}, {}
    for split in SPLITS:
        batches[split], unimodal[split] = _read_split(folder, split, header["splits"][split])
    return Dataset(
        name or header["name"],
        batches,
        profile=header["profile"],
        text_at=header["text_at"],
        notes=tuple(header["notes"]),
        parameters=header["parameters"],
        classes=tuple(header["classes"]),
        unimodal_labels={split: labels for split, labels in unimodal.items() if labels},
    )


def _has_features(header: Mapping[str, Any]) -> bool:
    return len(header["splits"]["train"]["arrays"].get("text", {}).get("shape", ())) == 3


def _read_split(folder: Path, split: str, about: Mapping[str, Any]) -> tuple[Batch, dict[str, torch.Tensor]]:
    where, n = folder / split, about["samples"]
    if where.is_symlink() or not where.is_dir():
        raise InputError(f"{where}: expected a folder, symbolic links are not followed")
    tensors = {}
    for name, described in about["arrays"].items():
        path = where / f"{name}.npy"
        x = mapped(path)
        if [x.dtype.str, list(x.shape)] != [described["dtype"], described["shape"]] or x.shape[:1] != (n,):
            expected = f"{described['dtype']} {tuple(described['shape'])} for {n} samples"
            raise InputError(f"{path}: the header says {expected}, the file holds {x.dtype.str} {x.shape}")
        tensors[name] = tensor_of(x)
    missing = {*MODALITIES, "lengths", "present", "labels"} - set(tensors)
    if missing or any(tensors[name].shape != (n, 3) for name in ("lengths", "present")):
        wrong = f"{min(missing)} is missing" if missing else "lengths and present must be (N, 3)"
        raise InputError(f"{where}: {wrong}; convert the source again")
    samples = _json(where / _SAMPLES, _BYTES_A_SAMPLE * (n + 4))
    if not isinstance(samples, dict) or not all(_strings(samples.get(key)) for key in ("ids", "groups")):
        raise InputError(f"{where / _SAMPLES}: expected ids and groups, a list of strings each")
    derived = {
        item["name"]: Derived(tensors[f"derived-{i}"], tuple(item["sources"]))
        for i, item in enumerate(about["derived"])
        if f"derived-{i}" in tensors
    }
    try:
        batch = Batch(
            **{m: tensors[m] for m in MODALITIES},
            **{f"{m}_lengths": tensors["lengths"][:, i].clone() for i, m in enumerate(MODALITIES)},
            ids=tuple(samples["ids"]),
            groups=tuple(samples["groups"]),
            labels=tensors["labels"],
            present=tensors["present"],
            derived=derived,
        )
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('batch: ')}") from None
    return batch, {m: tensors[f"labels_{m}"] for m in MODALITIES if f"labels_{m}" in tensors}


def _describes(split: Any) -> bool:
    """Whether this is what the header says of one split."""
    if not isinstance(split, dict) or type(split.get("samples")) is not int or split["samples"] < 1:
        return False
    arrays, derived = split.get("arrays"), split.get("derived")
    if not isinstance(arrays, dict) or not isinstance(derived, list):
        return False
    named = {*MODALITIES, "lengths", "present", "labels"} | {f"labels_{m}" for m in MODALITIES}
    named |= {f"derived-{i}" for i in range(len(derived))}
    good = all(isinstance(x, dict) and isinstance(x.get("dtype"), str) for x in arrays.values())
    good = good and all(_sizes(x.get("shape")) for x in arrays.values()) and set(arrays) <= named
    return good and all(
        isinstance(d, dict) and isinstance(d.get("name"), str) and _strings(d.get("sources")) for d in derived
    )


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(type(n) is int and n >= 0 for n in value)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _json(path: Path, most: int) -> Any:
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path}: expected a file, symbolic links are not followed")
    try:
        if path.stat().st_size <= most:
            return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, this is broken ({type(error).__name__})") from None
    raise InputError(f"{path}: expected at most {most:,} bytes, got more")
