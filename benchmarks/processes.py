"""Other Python processes: what they took, and their memory."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Spent(NamedTuple):
    """Seconds of a process from its start to its end, those of its children included in processor."""

    elapsed: float
    processor: float
    out: str
    errors: str


def python(arguments: Sequence[str], environment: dict[str, str] | None = None) -> Spent:
    """Run Python to its end, with this checkout on its path.

    Raises:
        RuntimeError: it did not end with 0.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    where = {**os.environ, "PYTHONPATH": path, **(environment or {})}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=where, capture_output=True, text=True, check=False)
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(elapsed, processor, done.stdout, done.stderr)


def status(entry: str) -> float:
    """MiB of this process as Linux tells them: VmRSS, VmHWM, RssAnon. NaN elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return float("nan")
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{entry}:")), float("nan"))


def forget_peak() -> None:
    """Give back what is free but resident, and let the peak (VmHWM) begin here. Linux alone."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except (OSError, AttributeError):
        return


def extra_memory(work: Callable[[], Any]) -> float:
    """MiB that ``work`` takes at its peak beyond what is resident before."""
    forget_peak()
    before = status("VmRSS")
    work()
    return status("VmHWM") - before
