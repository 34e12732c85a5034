"""``execute(cells, store)``: run what is missing, write each cell as it is done, never lose or stop for one."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner, WholeModel
from robustbench_msa.evaluation.store import Runtime, Store
from robustbench_msa.models.contract import MSAModel
from robustbench_msa.version import __version__

Progress = Callable[[Cell, bool], None]
"""Called after each cell, with whether it succeeded."""


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
        store: where results go, each as soon as it is there.
        models: how to load a model, by its checkpoint's identity. A model is loaded only if a cell needs it.
        inputs: the split under stress.
        batch_size: samples per forward pass; no part of a cell's identity.
        progress: called after each cell.
        flags: what preflight found, by checkpoint identity; kept among each cell's facts.

    A cell that raises is recorded with its traceback and left for the next run; the others go on.
    """
    cells = list(cells)
    done = store.done(cell.key for cell in cells)
    missing = [cell for cell in cells if cell.key not in done]
    runner: Runner | None = None
    checkpoint, failed = "", 0
    for cell in missing:
        start = time.perf_counter()
        try:
            if runner is None or cell.checkpoint != checkpoint:
                runner = None  # frees the last model before the next is loaded
                runner, checkpoint = Runner(models[cell.checkpoint](), inputs, batch_size), cell.checkpoint
            result = runner.run(cell)
            if found := (flags or {}).get(cell.checkpoint):
                result = replace(result, facts={**result.facts, "flags": list(found)})
            store.write(cell, result, _runtime(inputs, batch_size, time.perf_counter() - start))
            succeeded = True
        except InputError:
            raise
        except Exception as error:  # one bad cell must not cost the others
            message = (str(error).splitlines() or [""])[0]
            store.write_failure(cell, f"{type(error).__name__}: {message}", traceback.format_exc())
            succeeded = False
            failed += 1
        if progress is not None:
            progress(cell, succeeded)
    return Tally(len(cells), len(done), len(missing) - failed, failed)


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
