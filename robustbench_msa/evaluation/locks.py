"""One process at a time, for the moment in which a file is read, changed and written back.

The lock belongs to an open file, so the system gives it back when its process ends, however that ends: it cannot be
left behind. Its file stays, empty: removing it would let two processes hold two different files of one name.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corruptions import InputError

if sys.platform != "win32":
    import fcntl

PATIENCE = 60.0
_BUSY = (errno.EAGAIN, errno.EACCES)
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(path: Path, patience: float = PATIENCE) -> Iterator[bool]:
    """Hold the lock of a file, waiting for it ``patience`` seconds. Gives whether there is such a thing here.

    Windows, and network file systems mounted without locks, have none: what is done under the lock must then be such
    that doing it again mends what a second process undid.

    Raises:
        InputError: another process holds it for too long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _acquire(descriptor, path, time.monotonic() + patience)
    finally:
        os.close(descriptor)  # and the lock with it


def _acquire(descriptor: int, path: Path, end: float) -> bool:
    if sys.platform == "win32":
        return False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _UNKNOWN:
                return False
            if error.errno not in _BUSY:
                raise
        if time.monotonic() >= end:
            raise InputError(f"{path}: another msabench holds this folder; try again when it is done")
        time.sleep(0.02)
