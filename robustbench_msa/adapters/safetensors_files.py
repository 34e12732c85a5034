"""safetensors from strangers. The format holds tensors alone; its header is checked before anything believes it."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
from torch import Tensor

from corruptions import InputError
from robustbench_msa.models.checkpoint_config import one_line

MAX_HEADER = 32 * 2**20
BITS: dict[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


class _Wrong(Exception):
    """What is wrong with the header."""


def load_safetensors(path: Path, file: BinaryIO, size: int) -> dict[str, Tensor]:
    """All tensors of a file of ``size`` bytes, on the CPU.

    Raises:
        InputError: a header that is broken, that claims what the file does not hold, or gives bytes or a name twice.
    """
    try:
        _check(_header(file, size), size - _start(file))
        return safetensors.torch.load_file(path)
    except _Wrong as error:
        raise InputError(f"{path}: not a sound safetensors file: {error}; copy or save it again") from None
    except Exception as error:  # its Rust half and its Python half fail in types of their own
        what = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: not a sound safetensors file ({what}); copy or save it again") from None


def _start(file: BinaryIO) -> int:
    """Where the values begin."""
    file.seek(0)
    return 8 + int(struct.unpack("<Q", file.read(8))[0])


def _header(file: BinaryIO, size: int) -> dict[str, Any]:
    length = _start(file) - 8
    if length > min(size - 8, MAX_HEADER):
        raise _Wrong(f"its header claims {length:,} bytes in a file of {size:,}")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"its header is not JSON ({one_line(error)})") from None
    if not isinstance(header, dict):
        raise _Wrong(f"its header is a JSON {type(header).__name__}")
    header.pop("__metadata__", None)
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise _Wrong(f"{twice[:80]!r} is there twice")
    return found


def _check(header: dict[str, Any], held: int) -> None:
    """Do the tensors take up the ``held`` bytes after the header, each byte once?"""
    spans = []
    for name, entry in header.items():
        shown = repr(name[:80])
        if not isinstance(entry, dict) or entry.get("dtype") not in BITS:
            raise _Wrong(f"{shown} is of no known dtype")
        shape: Any = entry.get("shape")
        offsets: Any = entry.get("data_offsets")
        if not _whole(shape, 64) or not _whole(offsets, 2) or len(offsets) != 2:
            raise _Wrong(f"{shown} has no shape or no offsets")
        start, end = offsets
        needed = math.prod(shape) * BITS[entry["dtype"]] // 8
        if end > held or end - start != needed:
            raise _Wrong(f"{shown} claims {needed:,} bytes from {start:,} to {end:,}, and the file holds {held:,}")
        spans.append((start, end, shown))
    place = 0
    for start, end, shown in sorted(spans):
        if start != place:
            raise _Wrong(f"{shown} {'overlaps another tensor' if start < place else 'leaves a gap before it'}")
        place = end
    if place != held:
        raise _Wrong(f"{held - place:,} bytes at its end belong to no tensor")


def _whole(values: Any, most: int) -> bool:
    return isinstance(values, list) and len(values) <= most and all(type(v) is int and 0 <= v < 2**62 for v in values)
