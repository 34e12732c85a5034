"""The Ray cluster of a run: checked, joined or begun, and ended. Ray is imported only when it is asked for."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from corruptions import InputError

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_OBJECTS = 256 << 20  # bytes for what tasks are given, on a cluster of our own


def check(address: str | None) -> None:
    """Raises InputError where Ray is not installed, or the address is none or nobody answers there."""
    if find_spec("ray") is None:
        raise InputError('--engine ray needs the library Ray: pip install "robustbench-msa[ray]"')
    if address in (None, "auto"):
        return
    found = re.fullmatch(r"\[?([\w.:-]{1,255}?)\]?:([0-9]{1,5})", str(address))
    if found is None or not 0 < int(found[2]) < 65536:
        raise InputError(f"--address {str(address)[:80]!r}: expected HOST:PORT, as ray start --head says it, or auto")
    try:
        socket.create_connection((found[1], int(found[2])), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"--address {address}: nobody answers there ({error.strerror or error}); "
            "begin a cluster with ray start --head --port 6379"
        ) from None


def quiet_ray() -> Any:
    """Ray, without noise and without reports to anybody."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray: Any = import_module("ray")
    import_module("ray.util.scheduling_strategies")
    return ray


@contextmanager
def cluster(ray: Any, address: str | None, cpus: int) -> Iterator[None]:
    """The cluster of this address, or one of our own; one that this process is in already stays."""
    if ray.is_initialized():
        yield
        return
    given: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        given |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECTS}
    try:
        ray.init(**given)
    except Exception as error:  # whatever Ray makes of versions, sockets and files
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--engine ray: Ray gives no cluster ({type(error).__name__}: {reason})") from None
    with _silent():
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _silent() -> Iterator[None]:
    """Ray prints the deaths of workers to stdout, whatever it is told, and stdout is for results."""
    module: Any = import_module("ray._private.worker")
    before = getattr(module, "_worker_logs_enabled", True)
    module._worker_logs_enabled = False
    try:
        yield
    finally:
        module._worker_logs_enabled = before
