"""The engine ``ray``: units as tasks of a Ray cluster, with GPU requirements and retries."""

from __future__ import annotations

import pickle
import sys
import uuid
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from corruptions import InputError
from robustbench_msa.engines.job import Job, Opened, cores, sendable
from robustbench_msa.engines.ray_cluster import cluster, quiet_ray
from robustbench_msa.engines.units import Unit
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.store import Store

RETRIES = 2
"""How often Ray tries a task again whose worker or machine died."""

TURN = 0.5  # seconds between two looks at what tasks have told


@dataclass(frozen=True)
class Ended:
    """What became of a unit: keys of cells that failed, and what ended the work before its time."""

    failed: frozenset[str]
    error: Exception | None = None


class Told:
    """An actor that tasks tell of their cells and the driver asks now and then."""

    def __init__(self) -> None:
        self._cells: list[tuple[str, bool]] = []

    def tell(self, key: str, succeeded: bool) -> None:
        self._cells.append((key, succeeded))

    def take(self) -> list[tuple[str, bool]]:
        cells, self._cells = self._cells, []
        return cells


_opened: tuple[str, Opened] | None = None  # in a Ray worker: the job it was at last


def compute_unit(token: str, sent: list[Any], unit: Unit, told: Any) -> Ended:
    """What a task does. ``sent`` holds a reference to the job, looked up only by a worker that has not opened it."""
    global _opened
    failed = set()

    def progress(cell: Cell, succeeded: bool) -> None:
        if not succeeded:
            failed.add(cell.key)
        told.tell.remote(cell.key, succeeded)

    try:
        if _opened is None or _opened[0] != token:
            _opened = None  # frees the last one first
            ray: Any = import_module("ray")
            _opened = token, pickle.loads(ray.get(sent[0])).open()
        _opened[1].compute(unit, progress)
    except Exception as error:  # the driver ends the run with it
        return Ended(frozenset(failed), sendable(error))
    return Ended(frozenset(failed))


def run_on_ray(
    job: Job, store: Store, units: Sequence[Unit], workers: int | None, address: str | None, on_gpus: bool
) -> Generator[tuple[Cell, bool]]:
    """Each cell with whether it succeeded, once it is on the disk. A cluster that was begun here ends with this.

    Args:
        workers: how many tasks at once; None: as many as fit. on_gpus: each takes a GPU.

    Raises:
        InputError: Ray gives no cluster, or a machine of it lacks something.
    """
    packed, ray = job.packed(), quiet_ray()
    with cluster(ray, address, cpus=max(cores(), (workers or 1) * job.threads)):
        resources = ray.cluster_resources()
        places = workers or int(resources.get("GPU", 0) if on_gpus else resources.get("CPU", 1) // job.threads)
        if lack := lacking(ray.nodes(), job.threads, on_gpus):
            print(f"msabench: {lack}", file=sys.stderr, flush=True)
        needs = {"num_cpus": job.threads, "num_gpus": int(on_gpus), "max_retries": RETRIES}
        task = ray.remote(**needs)(compute_unit)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        told = ray.remote(num_cpus=0, scheduling_strategy=here)(Told).remote()
        common = uuid.uuid4().hex, [ray.put(packed)]
        waiting = deque(gathered(units, max(1, places)))
        running: dict[Any, Unit] = {}
        left = {cell.key: cell for unit in units for cell in unit.cells}
        while waiting or running:
            while waiting and (workers is None or len(running) < workers):
                unit = waiting.popleft()
                tried = task.options(max_retries=0) if unit.deaths else task
                running[tried.remote(*common, unit, told)] = unit
            ended, _ = ray.wait(list(running), num_returns=1, timeout=TURN)
            for key, succeeded in _get(ray, told.take.remote()):
                if key in left:
                    yield left.pop(key), succeeded
            for reference in ended:
                unit, again = running.pop(reference), list[Unit]()
                result = _result(ray, reference)
                if isinstance(result, str):
                    again, result = _died(result, unit, store)
                    waiting += again
                later = {cell.key for one in again for cell in one.cells}
                for cell in unit.cells:  # of which nobody told: what a worker that dies says last is lost
                    if cell.key not in later and left.pop(cell.key, None) is not None:
                        yield cell, cell.key not in result.failed


def lacking(nodes: Sequence[Mapping[str, Any]], cpus: int, gpu: bool) -> str | None:
    """What to tell who waits for a machine that the cluster does not have (yet: some clusters grow).

    Args:
        nodes: as Ray lists them. cpus, gpu: what one task takes.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    if any(have.get("CPU", 0) >= cpus and have.get("GPU", 0) >= gpu for have in resources):
        return None
    needed = f"{cpus} CPU{'s' if cpus > 1 else ''}{' and a GPU' if gpu else ''}"
    there = "; ".join(f"CPU {have.get('CPU', 0):g}, GPU {have.get('GPU', 0):g}" for have in resources[:4])
    remedy = "--device cpu needs no GPU" if gpu else "OMP_NUM_THREADS=1 before the command asks for one CPU"
    return (
        f"no machine of the Ray cluster has {needed}, which a task takes (there are: {there}); waiting until one "
        f"joins. Ctrl+C stops; {remedy}"
    )


def gathered(units: Sequence[Unit], places: int) -> list[Unit]:
    """Units of one checkpoint put together, so that it is loaded seldom, into about four tasks for each place."""
    wanted = sum(len(unit.cells) for unit in units) / (4 * places)
    found: list[Unit] = []
    for unit in units:
        if found and found[-1].checkpoint == unit.checkpoint and len(found[-1].cells) + len(unit.cells) <= wanted:
            found[-1] = replace(unit, cells=found[-1].cells + unit.cells)
        else:
            found.append(unit)
    return found


def _result(ray: Any, reference: Any) -> Ended | str:
    """What a task gave, or how its workers died."""
    try:
        ended: Ended = _get(ray, reference)
    except ray.exceptions.RayError as error:
        return type(error).__name__
    if ended.error is not None:
        raise ended.error
    return ended


def _get(ray: Any, reference: Any) -> Any:
    """What a task gives. Raises InputError where a machine cannot even begin it."""
    try:
        return ray.get(reference)
    except (ray.exceptions.RayTaskError, ray.exceptions.ActorDiedError) as error:
        last = " ".join(str(error).strip().splitlines()[-1].split())[:200]
        raise InputError(
            f"a machine of the Ray cluster cannot do the work ({last}); install the same msabench on all of them"
        ) from None


def _died(how: str, unit: Unit, store: Store) -> tuple[list[Unit], Ended]:
    """What is to be tried again of a unit whose workers died, and what is not: a cell at which they did, alone."""
    there = store.done(cell.key for cell in unit.cells)
    missing = [cell for cell in unit.cells if cell.key not in there]
    if len(missing) > 1:  # nobody knows at which of them: each by itself, once
        return [replace(unit, cells=(cell,), deaths=1) for cell in missing], Ended(frozenset())
    for cell in missing:
        message = f"its workers died one after the other ({how})"
        store.write_failure(cell, f"WorkerDied: {message}", f"{message}, at this cell")
    return [], Ended(frozenset(cell.key for cell in missing))
