"""What a path is, by its content: the first bytes of a file, the names in a folder. Nothing is read beyond that."""

from __future__ import annotations

import os
from pathlib import Path

from corruptions import InputError
from robustbench_msa.data import iemocap, mintrec, stored

KINDS: dict[str, str] = {
    "pickle": "a pickle (MMSA layout, or IEMOCAP labels in GCNet's)",
    "npz": "a .npz file",
    "hdf5": "an HDF5 file",
    "mintrec": "a MIntRec folder",
    "iemocap": "an IEMOCAP folder in GCNet's layout",
    "stored": "a converted dataset (.msa)",
}
"""Kind to a phrase for messages."""

_FILES = {b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"\x89HDF\r\n\x1a\n": "hdf5"}
_OTHERS = {
    b"<": "a web page or XML, not the data; download the file again",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x93NUMPY": "a single .npy array; put the arrays of all splits into one .npz (docs/data.md)",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself",
}


def kind_of(path: Path) -> str:
    """One of KINDS. What is none of the others is taken for a pickle, whose reader says what is wrong.

    Raises:
        InputError: nothing there, an empty file, something known that is no dataset, an unknown folder.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():  # a pipe or device could be read for ever
            raise InputError(
                f"{path}: {'this is not a regular file' if os.path.lexists(path) else 'no such file or folder'}"
            )
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not head:
        raise InputError(f"{path}: expected a dataset, the file is empty; download or write it again")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            raise InputError(f"{path}: expected a dataset, this is {what}")
    known = next((kind for magic, kind in _FILES.items() if head.startswith(magic)), None)
    if known is None and path.suffix.lower() in (".npz", ".h5", ".hdf5"):
        raise InputError(
            f"{path}: its name says {path.suffix}, its content does not; is it truncated or something else?"
        )
    return known or "pickle"


def _folder(path: Path) -> str:
    if os.path.lexists(path / stored.HEADER):
        return "stored"
    if any((path / table).is_file() for table in mintrec.TABLES.values()):
        return "mintrec"
    if any((path / labels).is_file() for labels in iemocap.FILES.values()):
        return "iemocap"
    known = f"{stored.HEADER} (converted), train.tsv (MIntRec) or {iemocap.FILES['iemocap4']} (IEMOCAP)"
    raise InputError(f"{path}: expected a folder with {known}, found none of them")
