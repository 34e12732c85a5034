"""The one way files are written: a reader sees the old file or the new one, whole, even after a power cut.

The data goes to ``.NAME.tmp-PID`` beside its target (pyarrow, pandas, polars and DuckDB all ignore that name), is
forced to the disk, and takes the target's name in one step. A killed process leaves that temporary file and no more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to; on leaving without an exception it takes the place of ``path``.

    Folders on the way are made. After an exception nothing is left and ``path`` is as it was. Two threads of one
    process must not write the same path at once.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "runs", "a.bin")) as file:
    ...         _ = file.write(b"one")
    ...     Path(folder, "runs", "a.bin").read_bytes()
    b'one'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # an interrupt too
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
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


def temporary_of(path: Path) -> Path:
    """Where this process writes before the file takes its name.

    >>> temporary_of(Path("a/b.json")).name == f".b.json.tmp-{os.getpid()}"
    True
    """
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _sync_folder(folder: Path) -> None:
    """Make the new name durable. Windows has no way to and some file systems refuse; the file is whole all the same."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
