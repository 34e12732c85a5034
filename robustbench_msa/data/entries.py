"""The named arrays of .npz and HDF5 files from strangers. Nothing is unpacked, followed or unpickled.

What a file claims to hold is bounded before it is read: together at most 100 times the file and 64 MiB, so that
neither a zip bomb nor an HDF5 array of fill values takes more memory than its reader could expect.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from corruptions import InputError
from robustbench_msa.data.npy import Array, Header, checked, mapped_at, read_header

RATIO, SLACK = 100, 64 * 2**20
MAX_ENTRIES = 10_000
SECONDS_APART, BYTES_A_SECOND = 30, 20 * 2**20
"""How long another process may take to go through an HDF5 file."""
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?")
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, checksum, lzf: those that come with every HDF5 library of Python

Load = Callable[[], Array]


class _Budget:
    """Bytes that a file may still ask for."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size
        self.left = RATIO * self.size + SLACK

    def spend(self, n: int, where: str) -> None:
        self.left -= n
        if self.left < 0:
            claim = f"claims {n:,} bytes, more than {RATIO} times the file's {self.size:,}"
            raise InputError(f"{where}: {claim}; is the file truncated, or made to fill memory?")


def open_npz(path: Path, stack: ExitStack) -> dict[str, Load]:
    """The arrays of a .npz file.

    Raises:
        InputError: not a zip archive, or one with names that lead elsewhere, passwords, or anything but .npy inside.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: expected a .npz file, this one is broken or truncated ({error})") from None
    if any(m.filename.endswith("data.pkl") for m in members):
        raise InputError(f"{path}: expected a .npz file, this was written by torch.save; save NumPy arrays instead")
    budget, entries = _Budget(path), dict[str, Load]()
    if len(members) > MAX_ENTRIES:
        raise InputError(f"{path}: expected at most {MAX_ENTRIES:,} arrays, got {len(members):,}")
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name == member.filename or not _NAME.fullmatch(name) or name in entries:
            raise InputError(f"{path}: expected arrays named like train/audio.npy, each once; got {_shown(member)}")
        entries[name] = _member(path, archive, member, budget)
    return entries


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: _Budget) -> Load:
    where = f"{path}: {member.filename}"

    def load() -> Array:
        try:
            with archive.open(member) as stream:
                header = read_header(stream, where)  # type: ignore[arg-type]
                budget.spend(header.nbytes, where)
                raw = bytearray(header.nbytes)
                held = _fill(memoryview(raw), stream)
                extra = len(stream.read(1))
        except InputError:
            raise
        except MemoryError:
            raise InputError(f"{where}: claims more bytes than there is memory") from None
        except Exception as error:  # zlib, lzma, passwords, checksums: a broken archive breaks anywhere
            raise InputError(f"{where}: this entry is broken ({type(error).__name__}: {error})") from None
        if held != header.nbytes or extra:
            raise InputError(f"{where}: its header announces {header.nbytes:,} bytes of values, {held:,} follow")
        flat = np.frombuffer(raw, header.dtype) if raw else np.empty(0, header.dtype)
        return flat.reshape(header.shape, order="F" if header.fortran else "C")

    return load


def _fill(view: memoryview, stream: Any) -> int:
    held = 0
    while held < len(view) and (block := stream.read(min(1 << 20, len(view) - held))):
        view[held : held + len(block)] = block
        held += len(block)
    return held


def _shown(member: zipfile.ZipInfo) -> str:
    return ascii(member.filename[:60])


def open_hdf5(path: Path, stack: ExitStack) -> dict[str, Load]:
    """The arrays of an HDF5 file, at its root and in groups of its root.

    Raises:
        InputError: not an HDF5 file; links of any kind but hard ones, values that lie in other files or are composed
            from other arrays, filters that would load a plug-in.
    """
    try:
        h5py: Any = import_module("h5py")
    except ImportError:
        raise InputError(f'{path}: reading HDF5 needs h5py: pip install "robustbench-msa[hdf5]"') from None
    try_apart(path)
    try:
        file = stack.enter_context(h5py.File(path, "r"))
        budget, entries = _Budget(path), dict[str, Load]()
        for name, found in _datasets(path, h5py, file):
            if len(entries) >= MAX_ENTRIES:
                raise InputError(f"{path}: expected at most {MAX_ENTRIES:,} arrays")
            entries[name] = _dataset(path, h5py, name, found, budget)
    except InputError:
        raise
    except Exception as error:  # the library has many ways to say that a file is broken
        raise InputError(f"{path}: expected an HDF5 file, this one is broken or truncated ({_line(error)})") from None
    return entries


def try_apart(path: Path) -> None:
    """Go through an HDF5 file in another process first.

    The library is C. A broken file can end the process that reads it or keep it for ever, and nothing that Python has
    could be done about it here.

    Raises:
        InputError: the other process was ended, or did not come to an end.
    """
    seconds, most = SECONDS_APART + path.stat().st_size / BYTES_A_SECOND, RATIO * path.stat().st_size + SLACK
    command = [sys.executable, "-P", "-c", _APART, str(path.absolute()), str(most)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        what = f"does not come to an end in {seconds:.0f} seconds"
    except OSError as error:
        raise InputError(f"{path}: cannot start the process that tries HDF5 files ({error.strerror})") from None
    else:
        if done.returncode == 0:
            return
        what = f"breaks the library ({done.returncode})"
    raise InputError(f"{path}: expected an HDF5 file, reading this one {what}; it is damaged, or made to harm")


_APART = """
import math, sys

def look(name, found):
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external or not found.shape:
        return
    if found.dtype.kind == "O" and 64 * math.prod(found.shape) <= most:
        found[...]
    elif found.chunks and found.size and math.prod(found.chunks) * found.dtype.itemsize <= most:
        found.id.get_num_chunks()
        for at in (0, -1):
            found[tuple(range(n)[at] for n in found.shape)]

try:
    import h5py
    path, most = sys.argv[1], int(sys.argv[2])
    if sys.platform == "linux":
        import resource
        resource.setrlimit(resource.RLIMIT_DATA, (2 * most + (1 << 30), -1))
    with h5py.File(path, "r") as file:
        file.visititems(look)
except Exception:
    pass  # whoever reads the file says what is wrong with it
"""
"""Opens everything; reads strings, which lie all over the file, and the first and last chunk of the rest."""


def _datasets(path: Path, h5py: Any, file: Any) -> Iterator[tuple[str, Any]]:
    for name in file:
        found = _hard(path, h5py, file, name)
        if isinstance(found, h5py.Group):
            for inner in found:
                item = _hard(path, h5py, found, inner)
                if not isinstance(item, h5py.Dataset):
                    raise InputError(f"{path}: expected arrays in the group {name[:60]!r}, got another group")
                yield f"{name}/{inner}", item
        elif isinstance(found, h5py.Dataset):
            yield name, found
        else:
            raise InputError(f"{path}: expected arrays and groups, {name[:60]!r} is neither")


def _hard(path: Path, h5py: Any, group: Any, name: str) -> Any:
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        what = "a link to another file" if isinstance(link, h5py.ExternalLink) else "a soft link"
        raise InputError(f"{path}: {name[:60]!r} is {what}, which is not followed; store the array itself")
    return group[name]


def _dataset(path: Path, h5py: Any, name: str, found: Any, budget: _Budget) -> Load:
    where = f"{path}: {name[:80]}"
    if found.external or found.is_virtual:
        raise InputError(f"{where}: its values lie in other files, which are not followed; store the array itself")
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > RATIO * budget.size + SLACK:
        raise InputError(f"{where}: its chunks of {found.chunks} are larger than the file could fill")
    settings = found.id.get_create_plist()
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    if filters - _FILTERS:
        raise InputError(f"{where}: expected gzip or lzf compression or none, got filter {min(filters - _FILTERS)}")

    def load() -> Array:
        try:
            return _values(path, h5py, where, found, budget)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{where}: this array is broken ({_line(error)})") from None

    return load


def _values(path: Path, h5py: Any, where: str, found: Any, budget: _Budget) -> Array:
    text = h5py.check_string_dtype(found.dtype)
    if found.shape is None:
        raise InputError(f"{where}: expected an array, it is empty")
    if text is not None and text.length is None:  # strings of any length, as h5py writes lists of them
        budget.spend(64 * math.prod(found.shape), where)
        strings = found[...].ravel().tolist()
        # NumPy makes all as wide as the longest
        budget.spend(len(strings) * max(map(len, strings), default=0), where)
        return np.array(strings, dtype="S").reshape(found.shape)
    header = checked(Header(found.dtype, found.shape, False), where)
    offset = found.id.get_offset()  # None unless the values lie in one piece
    if offset is not None and offset + header.nbytes <= budget.size and offset % max(1, header.dtype.itemsize) == 0:
        return mapped_at(path, header, offset)
    budget.spend(header.nbytes, where)
    return np.asarray(found[...])


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
