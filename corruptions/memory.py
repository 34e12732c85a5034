"""How much memory there is for what may just as well be made in pieces, or again."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_LIMITS = (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData"))
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def room() -> int:
    """Bytes that this process may still take: the machine's, a container's, the process's own, whichever are fewest.

    Where the system does not say (it is not Linux): as if there were no end.

    >>> room() > 0
    True
    """
    return max(0, min(sys.maxsize, *_machine(), *_container(), *_process()))


def _machine() -> list[int]:
    found = _fields(_PROC / "meminfo")
    return [found["MemAvailable"]] if "MemAvailable" in found else []


def _container() -> list[int]:
    with suppress(OSError, ValueError):  # "max", or no such file: no limit
        most = int((_CGROUP / "memory.max").read_text())
        return [most - int((_CGROUP / "memory.current").read_text())]
    return []


def _process() -> list[int]:
    with suppress(ImportError):
        import resource

        taken, found = _fields(_PROC / "self/status"), []
        for limit, field in _LIMITS:
            soft, _ = resource.getrlimit(getattr(resource, limit))
            if soft != resource.RLIM_INFINITY and field in taken:
                found.append(soft - taken[field])
        return found
    return []


def _fields(path: Path) -> dict[str, int]:
    """The sizes in a file of lines ``name: 123 kB``, in bytes; none where there is no such file."""
    with suppress(OSError):
        lines = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
        return {line[0]: int(line[1]) * 1024 for line in lines if line[2:] == ["kB"]}
    return {}
