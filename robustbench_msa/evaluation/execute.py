"""``execute(cells, store)``: run what is missing, write each cell as it is done, never lose or stop for one."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import torch

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner, WholeModel
from robustbench_msa.evaluation.store import Result, Runtime, Store
from robustbench_msa.evaluation.writing import Progress, Writer
from robustbench_msa.models.contract import MSAModel
from robustbench_msa.version import __version__


@dataclass(frozen=True)
class Tally:
    """What became of the planned cells."""

    planned: int
    reused: int
    computed: int
    failed: int

    @property
    def complete(self) -> bool:
        return self.reused + self.computed == self.planned


def execute(
    cells: Iterable[Cell],
    store: Store,
    models: Mapping[str, Callable[[], MSAModel | WholeModel]],
    inputs: Inputs,
    batch_size: int = 256,
    progress: Progress | None = None,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Tally:
    """Run the cells that the store does not have.

    Args:
        cells: the plan, in the order of ``plan``: cells of one checkpoint together.
        store: where results go, in the order of cells, a few behind the one that is computed (``writing``).
        models: how to load a model, by its checkpoint's identity. A model is loaded only if a cell needs it.
        inputs: the split under stress.
        batch_size: samples per forward pass; no part of a cell's identity. Halved where memory does not suffice.
        progress: called after each cell, once it is on the disk.
        flags: what preflight found, by checkpoint identity; kept among each cell's facts.

    A cell that raises is recorded with its traceback and left for the next run; the others go on.
    """
    cells = list(cells)
    done = store.done(cell.key for cell in cells)
    missing = [cell for cell in cells if cell.key not in done]
    runner: Runner | None = None
    checkpoint = ""
    with Writer(progress) as writer:
        for cell in missing:
            start = time.perf_counter()
            try:
                if runner is None or cell.checkpoint != checkpoint:
                    runner = None  # frees the last model before the next is loaded
                    runner, checkpoint = Runner(models[cell.checkpoint](), inputs, batch_size), cell.checkpoint
                result = runner.run(cell)
                if found := (flags or {}).get(cell.checkpoint):
                    result = replace(result, facts={**result.facts, "flags": list(found)})
                runtime = _runtime(inputs, runner.chunks.size, time.perf_counter() - start)
                job = partial(_write, store, cell, result, runtime)
            except InputError:
                raise
            except Exception as error:  # one bad cell must not cost the others
                job = partial(_write_failure, store, cell, _one_line(error), traceback.format_exc())
            writer.put(cell, job)
    return Tally(len(cells), len(done), len(missing) - writer.failed, writer.failed)


def _write(store: Store, cell: Cell, result: Result, runtime: Runtime) -> bool:
    try:
        store.write(cell, result, runtime)
    except InputError:
        raise
    except Exception as error:
        return _write_failure(store, cell, _one_line(error), traceback.format_exc())
    return True


def _write_failure(store: Store, cell: Cell, message: str, details: str) -> bool:
    store.write_failure(cell, message, details)
    return False


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _runtime(inputs: Inputs, batch_size: int, seconds: float) -> Runtime:
    return Runtime(
        device=str(inputs.batch.device),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        seconds=seconds,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        python=platform.python_version(),
        torch=torch.__version__,
        msabench=__version__,
    )


__all__ = ["Progress", "Tally", "execute"]
