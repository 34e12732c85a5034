"""A corrupted batch as a file that other code can open: npz without pickled objects, or a pickle in the MMSA layout.

Both are written byte by byte the same for the same batch, and open in old environments: the npz is format 1.0, the
pickle is protocol 4 under the names that NumPy 1 and NumPy 2 both know.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

from corruptions import MODALITIES, Batch

Arrays = dict[str, np.ndarray[Any, Any]]
DERIVED = "derived__"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can hold
_OVERHEAD = 4096  # headers, and the names and ids of a pickle, on top of the arrays


def arrays_of(batch: Batch) -> Arrays:
    """Everything in a batch, by name.

    text, audio, vision ``(N, T_m, d_m)`` float32 (token ids: text ``(N, T_t)`` integers), ``*_lengths (N,)``, present
    ``(N, 3)`` bool, ids and groups ``(N,)`` strings, labels ``(N,)``, and ``derived__NAME (N, ...)``.

    >>> batch = Batch(text=np.ones((2, 3), int), audio=np.ones((2, 4, 1)), vision=np.ones((2, 5, 1)), ids=["x", "y"])
    >>> arrays = arrays_of(batch)
    >>> list(arrays)
    ['text', 'audio', 'vision', 'text_lengths', 'audio_lengths', 'vision_lengths', 'present', 'ids', 'groups']
    >>> arrays["ids"].tolist(), arrays["audio_lengths"].tolist(), arrays["text"].shape
    (['x', 'y'], [4, 4], (2, 3))
    """
    tensors = {modality: batch.features(modality) for modality in MODALITIES}
    tensors |= {f"{modality}_lengths": batch.lengths(modality) for modality in MODALITIES}
    arrays = {name: x.cpu().numpy() for name, x in (tensors | {"present": batch.present}).items()}
    arrays |= {"ids": np.array(batch.ids), "groups": np.array(batch.groups)}
    if batch.labels is not None:
        arrays["labels"] = batch.labels.cpu().numpy()
    return arrays | {f"{DERIVED}{name}": d.values.cpu().numpy() for name, d in batch.derived.items()}


def size_of(batch: Batch) -> int:
    """About how many bytes a file of this batch takes, never much less."""
    return sum(array.nbytes for array in arrays_of(batch).values()) + _OVERHEAD


def write_npz(file: BinaryIO, batch: Batch, split: str) -> None:
    """The arrays of ``arrays_of``, not compressed; ``np.load(path, allow_pickle=False)`` reads them."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays_of(batch).items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def write_mmsa(file: BinaryIO, batch: Batch, split: str) -> None:
    """``{split: {...}}`` as ``mmsa_of`` says, pickled."""
    file.write(b"\x80\x04")  # protocol 4
    _pickle(file.write, {split: mmsa_of(batch)})
    file.write(b".")


def mmsa_of(batch: Batch) -> dict[str, Any]:
    """One split under the names of the MMSA layout (Yu et al., ACL 2020; Mao et al., ACL 2022).

    id, groups and raw_text are lists of strings; raw_text is empty, as what was said is in the features. text is
    features, or text_bert ``(N, 3, T)`` (ids, attention mask, segments) where text is token ids. ``*_present (N,)`` is
    False where the model is told that a modality is absent.
    """
    arrays = arrays_of(batch)
    fields: dict[str, Any] = {"id": arrays.pop("ids").tolist(), "groups": arrays.pop("groups").tolist()}
    fields["raw_text"] = [""] * len(batch)
    present = arrays.pop("present")
    if batch.has_token_text:
        ids = arrays.pop("text")
        valid = batch.valid("text").to(torch.int64).cpu().numpy()
        fields["text_bert"] = np.stack([ids, valid, np.zeros_like(ids)], axis=1)
    if "labels" in arrays:
        labels = arrays.pop("labels")
        fields["regression_labels" if labels.dtype.kind == "f" else "classification_labels"] = labels
    return fields | arrays | {f"{m}_present": np.ascontiguousarray(present[:, i]) for i, m in enumerate(MODALITIES)}


Writer = Callable[[BinaryIO, Batch, str], None]
LAYOUTS: dict[str, tuple[str, Writer]] = {"npz": (".npz", write_npz), "mmsa": (".pkl", write_mmsa)}
"""Name of a layout to the ending of its files and the function that writes one."""


def _pickle(write: Callable[[Any], Any], value: Any) -> None:
    """dicts, lists, strings and arrays in the pickle language.

    ``pickle.dump`` of NumPy 2 names a module that NumPy 1 does not have.
    """
    if isinstance(value, dict):
        write(b"}(")
        for key, item in value.items():
            _pickle(write, key)
            _pickle(write, item)
        write(b"u")
    elif isinstance(value, list):
        write(b"](")
        for item in value:
            _pickle(write, item)
        write(b"e")
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        write(b"X" + struct.pack("<I", len(data)) + data)
    else:
        _pickle_array(write, value)


def _pickle_array(write: Callable[[Any], Any], array: np.ndarray[Any, Any]) -> None:
    """``_reconstruct(ndarray, (0,), b"b")`` and its state, ``(1, shape, dtype, False, bytes)``."""
    array = np.ascontiguousarray(array)
    order, code = array.dtype.str[:1], array.dtype.str[1:]
    write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(")
    for n in array.shape:
        write(b"\x8a\x08" + struct.pack("<q", n))
    write(b"tcnumpy\ndtype\n")  # dtype(code, False, True) and its state, (3, order, None, None, None, -1, -1, 0)
    _pickle(write, code)
    write(b"\x89\x88\x87R(K\x03")
    _pickle(write, order)
    write(b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb\x89\x8e" + struct.pack("<Q", array.nbytes))
    write(array.data if array.size else b"")
    write(b"tb")
