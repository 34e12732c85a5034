"""The one door to all engines: cells in, a tally out."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from corruptions import InputError
from robustbench_msa.atomic import sweep
from robustbench_msa.engines.job import Job, Rebuild, cores
from robustbench_msa.engines.local import Done, Pool
from robustbench_msa.engines.units import units_of
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.execute import Loaders, Progress, Tally, execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where cells are computed.

    Args:
        name: "local": in this process, or in workers of this machine; "ray": as tasks of a Ray cluster.
        workers: how many at once. Default: local, this process, or a worker for each GPU where there are several;
            ray, as many as fit.
        address: ``HOST:PORT`` of a running Ray cluster, or "auto" for the one of this machine. Default: one is started
            here, and ended with the run.

    Raises:
        InputError: what cannot be: another name, workers below 1, an address without Ray.
    """

    name: str = "local"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise InputError(f"--engine: expected {' or '.join(ENGINES)}, got {self.name[:80]!r}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers: expected 1 or more, got {self.workers}")
        if self.address is not None and self.name != "ray":
            raise InputError("--address is that of a Ray cluster: add --engine ray, or leave it out")
        if self.name == "ray":
            from robustbench_msa.engines.ray_cluster import check

            check(self.address)


def compute(
    engine: Engine,
    cells: Iterable[Cell],
    store: Store,
    models: Loaders,
    inputs: Inputs,
    *,
    rebuild: Rebuild,
    batch_size: int = 256,
    progress: Progress | None = None,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Tally:
    """Run the cells that the store does not have; arguments and results as of ``evaluation.execute``.

    Args:
        rebuild: what workers make models and inputs from, the same as these.

    Raises:
        InputError, OSError: in a worker as in this process.
        ChildProcessError: workers die before they can begin.
    """
    gpus = gpus_of(inputs.device)
    workers = engine.workers or (len(gpus) if len(gpus) > 1 else 0)
    if engine.name == "local" and not workers:
        return execute(cells, store, models, inputs, batch_size, progress, flags)
    cells = list(cells)
    there = store.done(cell.key for cell in cells)
    missing = [cell for cell in cells if cell.key not in there]
    if not missing:
        return Tally(len(cells), len(there), 0, 0)
    device = inputs.device.type
    job = Job(
        rebuild.on(device),
        store.root.absolute(),
        inputs.setting,
        frozenset(cell.checkpoint for cell in missing),
        batch_size,
        dict(flags or {}),
        threads_of(workers or len(gpus) or cores()),
        Path.cwd(),
    )
    failed = 0
    with closing(_events(engine, job, store, missing, workers, gpus)) as events:
        for cell, succeeded in events:
            failed += not succeeded
            if progress is not None:
                progress(cell, succeeded)
    sweep(store.root / ".tmp")  # of workers that died
    return Tally(len(cells), len(there), len(missing) - failed, failed)


def _events(
    engine: Engine, job: Job, store: Store, cells: Sequence[Cell], workers: int, gpus: Sequence[str]
) -> Generator[Done]:
    if engine.name == "local":
        return Pool(job, store, units_of(cells), workers, gpus).run()
    from robustbench_msa.engines.on_ray import run_on_ray

    return run_on_ray(job, store, units_of(cells), engine.workers, engine.address, on_gpus=bool(gpus))


def gpus_of(device: torch.device) -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls each GPU that this process sees; none where the models run on the CPU."""
    if device.type != "cuda":
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name.strip() for name in names.split(",")] if names else [str(i) for i in range(torch.cuda.device_count())]


def threads_of(workers: int) -> int:
    """Torch threads of each of so many workers: the cores shared out, no more than this process would take."""
    return max(1, min(torch.get_num_threads(), cores() // workers))


__all__ = ["ENGINES", "Engine", "compute", "gpus_of", "threads_of"]
