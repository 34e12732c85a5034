"""The engine ``local`` with several processes: a thread for each worker feeds it, the main thread hears of cells."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import robustbench_msa
from robustbench_msa.engines.job import Job
from robustbench_msa.engines.schedule import Schedule
from robustbench_msa.engines.units import Unit
from robustbench_msa.engines.worker import GRACE
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.store import Store

RESTARTS = 2
"""How often what killed a worker is tried again."""

Done = tuple[Cell, bool]
_HOME = str(Path(robustbench_msa.__file__).parents[1])
# Not from the current folder (-P): a file random.py in it must not take the place of Python's own.
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C is for the driver, which tells us
    f"sys.path.append({_HOME!r}); from robustbench_msa.engines.worker import main; main()"
)


class Died(Exception):
    """A worker ended though it was not told to. begun: the key of the cell it was at, "" for none yet."""

    def __init__(self, how: str, begun: str) -> None:
        super().__init__(how)
        self.how, self.begun = how, begun


class Process:
    """One worker process, as the driver sees it."""

    def __init__(self, job: bytes, env: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-P", "-c", _START], stdin=pipe, stdout=pipe, env=env)
        self._unsent: list[Any] = [job]
        self._begun = ""

    def compute(self, unit: Unit) -> Iterator[tuple[str, bool]]:
        """Key and success of each cell, as they are done. Raises Died, and whatever ended the work in the worker."""
        self._begun = ""
        with suppress(OSError):  # it died already: reading will say so
            self._send(*self._unsent, unit)
        self._unsent = []
        while (message := self._receive())[0] != "done":
            if message[0] == "error":
                raise message[1]
            if message[0] == "began":
                self._begun = message[1]
            else:
                yield message[1], message[2]

    def dismiss(self) -> None:
        """There is no more to do."""
        with suppress(OSError):
            self._send(None)
        self.wait()

    def stop(self) -> None:
        """Ask it to end now; what it has computed is written first."""
        with suppress(OSError):
            self._process.terminate()

    def _send(self, *messages: Any) -> None:
        assert self._process.stdin is not None
        for message in messages:
            pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()

    def _receive(self) -> tuple[Any, ...]:
        assert self._process.stdout is not None
        try:
            message: tuple[Any, ...] = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise Died(_ending(self.wait()), self._begun) from None
        return message

    def wait(self) -> int:
        """Its exit code. One that does not end is killed."""
        try:
            return self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            for file in (self._process.stdin, self._process.stdout):
                with suppress(OSError, ValueError):
                    if file is not None and self._process.poll() is not None:
                        file.close()


class Pool:
    """Workers over units.

    Args:
        gpus: the name of each GPU for ``CUDA_VISIBLE_DEVICES``; workers take turns. Empty: they run on the CPU.
    """

    def __init__(self, job: Job, store: Store, units: Sequence[Unit], workers: int, gpus: Sequence[str] = ()) -> None:
        self._job, self._packed, self._store, self._gpus = job, job.packed(), store, gpus
        self._workers = min(workers, len(units))
        self._schedule = Schedule(units)
        self._events: SimpleQueue[Done | BaseException | None] = SimpleQueue()
        self._processes: dict[int, Process] = {}
        self._stopping = False
        self._lock = threading.Lock()

    def run(self) -> Generator[Done]:
        """Each cell with whether it succeeded, once it is on the disk. On an error or an interrupt all workers end."""
        threads = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            ended = 0
            while ended < len(threads):
                event = self._events.get()
                if isinstance(event, BaseException):
                    raise event
                if event is None:
                    ended += 1
                else:
                    yield event
        finally:
            self._stop()
            for thread in threads:
                thread.join()

    def _serve(self, worker: int) -> None:
        """A worker's thread: its process, and a new one when that died, until there is no more to do."""
        try:
            while (unit := self._schedule.take(worker)) is not None:
                self._compute(worker, unit)
        except BaseException as error:
            if not self._stopping:
                self._events.put(error)
        finally:
            process = self._processes.pop(worker, None)
            if process is not None and not self._stopping:
                process.dismiss()
            self._events.put(None)

    def _compute(self, worker: int, unit: Unit) -> None:
        left = {cell.key: cell for cell in unit.cells}
        try:
            for key, succeeded in self._process(worker).compute(unit):
                self._events.put((left.pop(key), succeeded))
        except Died as death:
            if self._stopping:
                raise
            self._processes.pop(worker, None)
            self._schedule.give_back(worker, self._after(death, unit, left))
            return
        for cell in left.values():  # a worker that died had written them, and could not say so any more
            self._events.put((cell, True))
        self._schedule.finish()

    def _process(self, worker: int) -> Process:
        with self._lock:
            if self._stopping:
                raise Died("stopped", "")
            if worker not in self._processes:
                self._processes[worker] = Process(self._packed, self._env(worker))
            return self._processes[worker]

    def _env(self, worker: int) -> dict[str, str]:
        env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._job.threads))}
        return env | ({"CUDA_VISIBLE_DEVICES": self._gpus[worker % len(self._gpus)]} if self._gpus else {})

    def _after(self, death: Died, unit: Unit, left: dict[str, Cell]) -> Unit:
        """What is left of a unit at which a worker died. A cell at which too many did is recorded as failed.

        Raises:
            ChildProcessError: workers die before they begin a cell; another one would do no better.
        """
        deaths = unit.deaths + 1 if len(left) == len(unit.cells) else 1  # in a row, without a cell between them
        unit = replace(unit, cells=tuple(left.values()), deaths=deaths)
        if deaths <= RESTARTS:
            return unit
        how = f"{deaths} worker processes died one after the other, the last one {death.how}"
        if death.begun not in left:
            raise ChildProcessError(errno.ECHILD, f"{how}, before it began a cell", str(self._store.root))
        failed = left.pop(death.begun)
        self._store.write_failure(failed, f"WorkerDied: {how}", f"{how}, at this cell")
        self._events.put((failed, False))
        return replace(unit, cells=tuple(left.values()))

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            processes = list(self._processes.values())
        self._schedule.close()
        for process in processes:
            process.stop()
        for process in processes:
            process.wait()


def _ending(code: int) -> str:
    """How a process ended, in words.

    >>> _ending(-9), _ending(1)
    ('killed by SIGKILL', 'with exit code 1')
    """
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
