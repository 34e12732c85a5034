"""Arrays in files from strangers: a header is compared with what is there before any memory is reserved."""

from __future__ import annotations

import io
import math
import stat
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from corruptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

MAX_HEADER = 10_000  # characters; NumPy's own limit, beyond which its parser may be slow
NUMBERS, STRINGS = "biuf", "SU"


class Header(NamedTuple):
    """What an array claims to be."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: BinaryIO, where: str) -> Header:
    """The header of a .npy stream, which is left where the values begin.

    Raises:
        InputError: not a .npy, a header longer than MAX_HEADER, values that are objects or records.
    """
    start = stream.read(8)
    size_field = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}.get(start)
    if size_field is None:
        what = "this is a web page or XML" if start.lstrip()[:1] == b"<" else f"it begins with {start[:8]!r}"
        raise InputError(f"{where}: expected a .npy array (version 1 or 2), {what if start else 'it is empty'}")
    raw = stream.read(struct.calcsize(size_field))
    length = struct.unpack(size_field, raw)[0] if len(raw) == struct.calcsize(size_field) else MAX_HEADER + 1
    if length > MAX_HEADER:
        raise InputError(f"{where}: expected a header of at most {MAX_HEADER:,} characters, got {length:,}")
    text = io.BytesIO(raw + stream.read(length))
    read = np.lib.format.read_array_header_1_0 if size_field == "<H" else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is odd enough for a warning is not read
            shape, fortran, dtype = read(text, max_header_size=MAX_HEADER)
    except Exception as error:  # the parser meets anything here
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(f"{where}: expected a .npy header, this one is broken or truncated ({reason})") from None
    return checked(Header(dtype, tuple(shape), fortran), where)


def checked(header: Header, where: str) -> Header:
    """The header, if it is one of plain numbers or strings.

    Raises:
        InputError: objects (they are pickles), records, dates, complex numbers; sizes below 0 or beyond what there is.
    """
    if header.dtype.kind not in NUMBERS + STRINGS or header.dtype.subdtype is not None:
        held = "Python objects, which are pickles," if header.dtype.hasobject else f"dtype {header.dtype}"
        raise InputError(f"{where}: expected numbers or strings, got {held}; save plain arrays".replace(",;", ";"))
    if not header.dtype.itemsize or (header.dtype.kind == "f" and header.dtype.itemsize > 8):
        raise InputError(f"{where}: expected numbers of at most 8 bytes or strings of at least 1, got {header.dtype}")
    whole = len(header.shape) <= 8 and all(type(n) is int and n >= 0 for n in header.shape)
    # NumPy multiplies all sizes but those of 0, also where the array is empty
    if not whole or math.prod(n for n in header.shape if n) * header.dtype.itemsize >= 2**63:
        raise InputError(f"{where}: expected a shape of at most 8 sizes from 0, got {header.shape}"[:300])
    return header


def mapped(path: Path, where: str = "") -> Array:
    """A .npy file as a read-only array whose values stay in the file until they are looked at.

    Raises:
        InputError: anything but a regular file with exactly the bytes that its header announces.
    """
    where = where or str(path)
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            link = "a symbolic link, which is not followed" if stat.S_ISLNK(found.st_mode) else "not a regular file"
            raise InputError(f"{where}: expected a .npy file, this is {link}")
        with path.open("rb") as file:
            header, offset = read_header(file, where), file.tell()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None
    if offset + header.nbytes != found.st_size:
        raise InputError(
            f"{where}: its header announces {header.nbytes:,} bytes of values, the file has {found.st_size - offset:,}"
        )
    return mapped_at(path, header, offset)


def mapped_at(path: Path, header: Header, offset: int) -> Array:
    """Values that begin at a byte of a file, read-only; the caller has compared them with its size."""
    if not header.nbytes:
        return np.empty(header.shape, header.dtype)
    order: Any = "F" if header.fortran else "C"
    return np.memmap(path, header.dtype, "r", offset, header.shape, order).view(np.ndarray)


def tensor_of(array: Array) -> Tensor:
    """A tensor of the same memory, without a copy also where it may not be written to (a mapped file).

    Writing into it in place then ends the process: nothing can change the file. Other byte orders and Fortran order
    are copied.
    """
    plain = np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of memory that may not be written to
        return torch.from_numpy(plain.view(np.ndarray))
