"""Writing beside computing: one thread that writes cells in their order, a few behind the one that computes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from robustbench_msa.evaluation.cells import Cell

Progress = Callable[[Cell, bool], None]
"""Called after each cell, with whether it succeeded."""

AHEAD = 4  # results that may wait; what a killed run loses, and the memory they take


class Writer:
    """Jobs that write a cell and say whether it succeeded, one after the other. To be used in a ``with``.

    What a job raises (a full disk) is raised by a later ``put`` or on leaving. On leaving, also by an error or an
    interrupt, what was put is written first.

    Args:
        progress: called in the thread that puts, once a cell is on the disk, in the order of cells.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.failed = 0
        self._progress = progress
        self._waiting: deque[tuple[Cell, Future[bool]]] = deque()
        self._thread = ThreadPoolExecutor(1, "writer")

    def put(self, cell: Cell, job: Callable[[], bool]) -> None:
        """Hand over a job; waits while too many are before it."""
        self._waiting.append((cell, self._thread.submit(job)))
        while self._waiting and (len(self._waiting) > AHEAD or self._waiting[0][1].done()):
            self._settle()

    def _settle(self) -> None:
        """The end of the oldest job. An interrupt while waiting leaves it where it is."""
        cell, future = self._waiting[0]
        try:
            succeeded = future.result()
        except Exception:
            self._waiting.clear()  # those after it are dropped
            raise
        self._waiting.popleft()
        self.failed += not succeeded
        if self._progress is not None:
            self._progress(cell, succeeded)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            while self._waiting:
                self._settle()
        finally:
            self._thread.shutdown(cancel_futures=True)
