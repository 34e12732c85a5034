"""Work on N rows in chunks, each as large as memory allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from corruptions import InputError

T = TypeVar("T")

_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|Cannot allocate|_ALLOC_FAILED", re.I)


AUTO = "auto"
_AT_LEAST, _AT_MOST = 256, 8192  # of auto; on a CPU more than 256 bring nothing
_COPIES = 64  # how often a sample's features fit into what a model makes of it on the way: a guess, halved if too bold


def batch_size_of(asked: int | str, sample_bytes: int, device: torch.device, free: int | None = None) -> int:
    """Samples per forward pass to begin with.

    Args:
        asked: a number, or "auto": 256 on a CPU, and as many more on a GPU as its memory lets one expect.
        sample_bytes: of the features of one sample. free: bytes of the GPU; default: what it says itself.

    Raises:
        InputError: neither "auto" nor a whole number from 1.

    >>> batch_size_of("auto", 1000, torch.device("cpu")), batch_size_of("32", 1000, torch.device("cpu"))
    (256, 32)
    """
    if str(asked) != AUTO:
        if not re.fullmatch(r"[1-9][0-9]{0,8}", str(asked)):
            raise InputError(f"batch size: expected auto or 1 or more, got {asked}")
        return int(asked)
    if device.type != "cuda":
        return _AT_LEAST
    room = torch.cuda.mem_get_info(device)[0] if free is None else free
    fit = max(1, room // (_COPIES * max(1, sample_bytes)))
    return int(min(_AT_MOST, max(_AT_LEAST, 1 << (fit.bit_length() - 1))))


class Chunks:
    """How many rows go through a model at once. Where memory does not suffice, half as many from then on.

    Args:
        size: rows to begin with, 1 or more.

    >>> Chunks(4).over(10, lambda rows: (rows.start, rows.stop))
    [(0, 4), (4, 8), (8, 10)]
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def over(self, n: int, work: Callable[[slice], T]) -> list[T]:
        """What ``work`` gives for each run of rows, in their order; n is 1 or more.

        After an out-of-memory error all n are done anew with half the rows at once, so that a result is always of
        chunks of one size; also where the error was met and mended by work in chunks of its own. A single row that does
        not fit raises.
        """
        while True:
            size = min(self.size, n)
            try:
                found = [work(slice(start, min(start + size, n))) for start in range(0, n, size)]
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if size == 1 or not is_out_of_memory(error):
                    raise
                self.size = min(self.size, size // 2)
            else:
                if self.size >= size:
                    return found
            found = []
            if torch.cuda.is_available():  # the error is gone by now, and with it what the failed pass had taken
                torch.cuda.empty_cache()


def pieces_of(part: slice, sizes: Sequence[int]) -> list[tuple[int, slice]]:
    """A run of rows of several tables, one below the other, as runs of rows of each: ``(table, rows)``.

    >>> pieces_of(slice(3, 9), [4, 4, 4])
    [(0, slice(3, 4, None)), (1, slice(0, 4, None)), (2, slice(0, 1, None))]
    """
    found, top = [], 0
    for table, size in enumerate(sizes):
        start, stop = max(part.start, top), min(part.stop, top + size)
        if start < stop:
            found.append((table, slice(start - top, stop - top)))
        top += size
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Is it memory, of the device or the machine, that was lacking?"""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))
