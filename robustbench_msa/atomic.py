"""The one way files are written: a reader sees the old file or the new one, whole, even after a power cut.

The data goes to ``.NAME.tmp-PID-PLACE`` beside its target, or in another folder of the same file system, is forced to
the disk, and takes the target's name in one step. A killed process leaves that temporary file and no more; ``sweep``
removes it. Where strangers read a whole folder (pyarrow, pandas, DuckDB and globs ignore such a name, but polars counts
every file of a folder), temporary files belong into another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

FORGOTTEN = 24 * 3600.0
"""Seconds after which a temporary file is nobody's, where its process cannot be asked after."""


@contextmanager
def replacing(path: str | Path, staging: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file to write to; on leaving without an exception it takes the place of ``path``.

    Folders on the way are made. After an exception nothing is left and ``path`` is as it was. Two threads of one
    process must not write the same path at once.

    Args:
        staging: the folder of the temporary file, on the same file system; default that of ``path``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "runs", "a.bin")) as file:
    ...         _ = file.write(b"one")
    ...     Path(folder, "runs", "a.bin").read_bytes()
    b'one'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path, staging)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt too
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise
    sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes, staging: Path | None = None) -> None:
    """Write a file whole or not at all."""
    with replacing(path, staging) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; line ends stay as they are."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, indented, keys in their order, whole or not at all.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
        TypeError: a value that is not JSON.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def temporary_of(path: Path, staging: Path | None = None) -> Path:
    """Where this process writes before the file takes its name.

    >>> temporary_of(Path("a/b.json")).name == f".b.json.tmp-{os.getpid()}-{place()}"
    True
    """
    return (staging or path.parent) / f".{path.name}.tmp-{os.getpid()}-{place()}"


def sweep(folder: Path) -> int:
    """Remove the temporary files of processes that are dead; those of others stay. Returns how many it were.

    A process of this place can be asked after. One of another machine or container, or of before the last start,
    cannot: its files go when nobody wrote to them for a day.
    """
    removed = 0
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with suppress(OSError):  # another run sweeps too, or has just finished the file
                if entry.is_file(follow_symlinks=False) and _is_left_behind(entry):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _is_left_behind(entry: os.DirEntry[str]) -> bool:
    name, found, process = entry.name.rpartition(".tmp-")
    if not (name.startswith(".") and found):
        return False
    pid, _, theirs = process.partition("-")
    if theirs == place() and pid.isdecimal() and os.name == "posix":
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # alive, and somebody else's
    return time.time() - entry.stat().st_mtime > FORGOTTEN


@cache
def place() -> str:
    """Where process numbers mean the same: this machine since its last start, and this container on it."""
    told = [platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            told.append(os.readlink(source) if source.endswith("pid") else Path(source).read_text("ascii"))
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:8]


def sync_folder(folder: Path) -> None:
    """Make new names durable. Windows has no way to and some file systems refuse; the files are whole all the same."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
