"""``execute(cells, store)``: run what is missing, write each cell as it is done, never lose or stop for one."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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

Loaders = Mapping[str, Callable[[], MSAModel | WholeModel]]
"""How to load a model, by its checkpoint's identity."""


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


class Runners:
    """The runner of the checkpoint that was asked for last: a model is loaded once for all its cells in a row."""

    def __init__(self, models: Loaders, inputs: Inputs, batch_size: int) -> None:
        self._models, self._inputs, self._batch_size = models, inputs, batch_size
        self._latest: Runner | None = None
        self._checkpoint = ""

    def of(self, checkpoint: str) -> Runner:
        if self._latest is None or checkpoint != self._checkpoint:
            self._latest = None  # frees the last model before the next is loaded
            self._latest = Runner(self._models[checkpoint](), self._inputs, self._batch_size)
            self._checkpoint = checkpoint
        return self._latest


def execute(
    cells: Iterable[Cell],
    store: Store,
    models: Loaders,
    inputs: Inputs,
    batch_size: int = 256,
    progress: Progress | None = None,
    flags: Mapping[str, Sequence[str]] | None = None,
    *,
    done: Collection[str] | None = None,
    began: Callable[[Cell], None] | None = None,
    runners: Runners | None = None,
) -> Tally:
    """Run the cells that the store does not have.

    Args:
        cells: the plan, in the order of ``plan``: cells of one checkpoint together.
        store: where results go, in the order of cells, a few behind the one that is computed (``writing``).
        models: a model is loaded only if a cell needs it.
        inputs: the split under stress.
        batch_size: samples per forward pass; no part of a cell's identity. Halved where memory does not suffice.
        progress: called after each cell, once it is on the disk.
        flags: what preflight found, by checkpoint identity; kept among each cell's facts.
        done: keys of cells that are there; default: the store is asked.
        began: called before each cell that is computed.
        runners: of these models and inputs, kept by who calls this several times.

    A cell that raises is recorded with its traceback and left for the next run; the others go on.
    """
    cells = list(cells)
    there = store.done(cell.key for cell in cells) if done is None else done
    missing = [cell for cell in cells if cell.key not in there]
    runners = runners or Runners(models, inputs, batch_size)
    with Writer(progress) as writer:
        for cell in missing:
            start = time.perf_counter()
            if began is not None:
                began(cell)
            try:
                runner = runners.of(cell.checkpoint)
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
    return Tally(len(cells), len(cells) - len(missing), len(missing) - writer.failed, writer.failed)


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
        device=str(inputs.device),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        seconds=seconds,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        python=platform.python_version(),
        torch=torch.__version__,
        msabench=__version__,
    )


__all__ = ["Loaders", "Progress", "Runners", "Tally", "execute"]
