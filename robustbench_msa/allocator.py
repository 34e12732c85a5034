"""What the C library does with memory that was freed: in processes of ours it is kept for what is asked for next."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_BLOCK, _KEPT = 64 << 20, 512 << 20


def keep_freed_memory() -> bool:
    """Blocks of up to 64 MiB are taken from what was freed before; up to 512 MiB at the end are kept.

    By default glibc gives every block of over 32 MiB back to the system when it is freed, and a batch of features is
    one: the next must be mapped and cleared anew, page by page. That took half of a run's time (docs/performance.md).
    Were larger blocks among them, those that stay (draws, a whole split) would leave gaps that nothing fits.

    Returns:
        Whether it was done: not where the C library is another, nor where the environment tunes it already.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, _BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
    return False
