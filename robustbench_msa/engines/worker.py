"""A worker process of the engine ``local``: job and units come in on stdin, what became of cells goes out on stdout.

Messages are pickles, in both directions between a driver and the processes that it started itself. A worker ends when
its stdin does: when the driver is gone, however it went.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO

from robustbench_msa.allocator import keep_freed_memory
from robustbench_msa.engines.job import sendable

GRACE = 10.0
"""Seconds in which a worker that is told to stop may finish what it writes."""

Message = tuple[Any, ...]


def main() -> None:
    """Serve until there is no more to do. What models print goes to stderr."""
    outbox, inbox_file = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _stop)
    keep_freed_memory()
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(inbox_file, inbox), daemon=True).start()
    try:
        serve(inbox.get, lambda *message: _send(outbox, message))
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        _send(outbox, ("error", sendable(error)))
    os._exit(0)  # the listening thread may still wait, and nothing is left to be cleaned up


def serve(receive: Callable[[], Any], send: Callable[..., None]) -> None:
    """The job first, then units until there is a None.

    Sends ``("began", key)`` before a cell, ``("cell", key, succeeded)`` after it, ``("done",)`` after a unit.
    """
    opened = pickle.loads(receive()).open()
    while (unit := receive()) is not None:
        opened.compute(
            unit, lambda cell, succeeded: send("cell", cell.key, succeeded), lambda cell: send("began", cell.key)
        )
        send("done")


def _listen(file: BinaryIO, inbox: SimpleQueue[Any]) -> None:
    """Puts what comes in into the inbox; when the driver is gone, interrupts the work, and ends it if need be."""
    try:
        while (message := pickle.load(file)) is not None:
            inbox.put(message)
        inbox.put(None)
    except (EOFError, OSError, pickle.UnpicklingError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)


def _stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise KeyboardInterrupt


def _send(file: BinaryIO, message: Message) -> None:
    with suppress(BrokenPipeError):  # the driver is gone; stdin will say so
        file.write(pickle.dumps(message))
        file.flush()


if __name__ == "__main__":
    sys.exit("a worker is started by msabench run --workers N")
