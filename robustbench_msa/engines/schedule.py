"""Which worker gets which unit next. Safe to use from several threads."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from threading import Condition

from robustbench_msa.engines.units import Unit


class Schedule:
    """Units that nobody has begun, handed out so that a worker loads few checkpoints."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._waiting: dict[str, deque[Unit]] = {}
        self._held: dict[int, str] = {}  # the checkpoint that a worker has in memory
        self._running = 0
        self._closed = False
        self._changed = Condition()
        for unit in units:
            self._waiting.setdefault(unit.checkpoint, deque()).append(unit)

    def take(self, worker: int) -> Unit | None:
        """A unit for a worker. None: there is no more to do. Waits while units of others may still come back."""
        with self._changed:
            while not self._closed:
                if self._waiting:
                    return self._next(worker)
                if not self._running:
                    return None
                self._changed.wait()
            return None

    def _next(self, worker: int) -> Unit:
        """Of the checkpoint it holds; else of the one with the most cells for each worker that would be at it."""
        checkpoint = self._held.pop(worker, "")
        if checkpoint not in self._waiting:
            holders = Counter(self._held.values())
            cells = {name: sum(len(unit.cells) for unit in units) for name, units in self._waiting.items()}
            checkpoint = max(cells, key=lambda name: cells[name] / (1 + holders[name]))
        units = self._waiting[checkpoint]
        unit = units.popleft()
        if not units:
            del self._waiting[checkpoint]
        self._held[worker] = checkpoint
        self._running += 1
        return unit

    def finish(self) -> None:
        """A unit that was taken is done."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def give_back(self, worker: int, unit: Unit) -> None:
        """What is left of a unit whose worker died; whoever is free takes it."""
        with self._changed:
            self._held.pop(worker, None)
            self._running -= 1
            if unit.cells:
                self._waiting.setdefault(unit.checkpoint, deque()).append(unit)
            self._changed.notify_all()

    def close(self) -> None:
        """No more units are given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
