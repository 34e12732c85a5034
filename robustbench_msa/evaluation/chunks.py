"""Work on N rows in chunks, each as large as memory allows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|Cannot allocate|_ALLOC_FAILED", re.I)


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
        chunks of one size. A single row that does not fit raises.
        """
        while True:
            try:
                return [work(slice(start, min(start + self.size, n))) for start in range(0, n, self.size)]
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                rows = min(self.size, n)
                if rows == 1 or not is_out_of_memory(error):
                    raise
                self.size = rows // 2
            if torch.cuda.is_available():  # the error is gone by now, and with it what the failed pass had taken
                torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Is it memory, of the device or the machine, that was lacking?"""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))
