"""What a worker is sent, and what it makes of it: a run's models and inputs, made again from the run's arguments."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corruptions import InputError
from robustbench_msa.adapters.hub import is_hub
from robustbench_msa.engines.units import Unit
from robustbench_msa.evaluation.cells import Cell, Setting
from robustbench_msa.evaluation.execute import Progress, Runners, execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store
from robustbench_msa.evaluation.subjects import Candidate


@dataclass(frozen=True)
class Rebuild:
    """A function that gives a run's candidates and inputs, with its arguments, made fit to be called elsewhere.

    Files are named by their absolute paths: a worker may stand in another folder.
    """

    function: Callable[..., tuple[Sequence[Candidate], Inputs]]
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, function: Callable[..., tuple[Sequence[Candidate], Inputs]], **arguments: Any) -> Rebuild:
        given = dict(arguments)
        given["model"] = [_absolute_program(name) for name in _listed(given["model"])]
        given["checkpoint"] = [_absolute(path) for path in _listed(given["checkpoint"])]
        given["data"] = None if given["data"] is None else _absolute(given["data"])
        return cls(function, given)

    def on(self, device: str) -> Rebuild:
        """The same on a device of this name."""
        return Rebuild(self.function, {**self.arguments, "device": device})

    def __call__(self) -> tuple[Sequence[Candidate], Inputs]:
        return self.function(**self.arguments)


@dataclass(frozen=True)
class Job:
    """Everything a worker needs besides its units.

    root: the run's folder. setting, checkpoints: what the plan is of. flags: as of ``execute``. threads: of torch.
    folder: where the driver stands.
    """

    rebuild: Rebuild
    root: Path
    setting: Setting
    checkpoints: frozenset[str]
    batch_size: int
    flags: Mapping[str, Sequence[str]]
    threads: int
    folder: Path

    def packed(self) -> bytes:
        """Raises InputError where an object that was given cannot be sent."""
        try:
            return pickle.dumps(self)
        except Exception as error:  # whatever the objects' own code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(
                f"what was given cannot be sent to other processes ({reason}); "
                "name the data by its path, or use the engine local without workers"
            ) from error

    def open(self) -> Opened:
        """The models and inputs. Raises InputError where they are not what the plan is of."""
        torch.set_num_threads(self.threads)
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(self.folder)
        with contextlib.redirect_stderr(io.StringIO()):  # the driver has said all that before
            candidates, inputs = self.rebuild()
        models = {candidate.subject.checkpoint: candidate.load for candidate in candidates}
        if inputs.setting != self.setting or not self.checkpoints <= models.keys():
            what = "data" if inputs.setting != self.setting else "checkpoints"
            raise InputError(
                f"a worker on {platform.node()} found other {what} than the run was planned with; "
                "leave the files alone while it runs, and let every machine see the same ones"
            )
        if not (self.root / "manifest.json").is_file():
            raise InputError(
                f"a worker on {platform.node()} does not see {self.root}; "
                "give --out a folder on a file system that all machines share"
            )
        return Opened(self, Store(self.root), inputs, Runners(models, inputs, self.batch_size))


@dataclass(frozen=True, eq=False)
class Opened:
    """A job in a worker, with its models and inputs."""

    job: Job
    store: Store
    inputs: Inputs
    runners: Runners

    def compute(self, unit: Unit, progress: Progress, began: Callable[[Cell], None] | None = None) -> None:
        """The cells of a unit that are not there yet (a worker before this one may have died at it)."""
        cells = [cell for cell in unit.cells if not self.store.path(cell.key).is_file()]
        execute(
            cells,
            self.store,
            {},
            self.inputs,
            self.job.batch_size,
            progress,
            self.job.flags,
            done=(),
            began=began,
            runners=self.runners,
        )


def sendable(error: BaseException) -> Exception:
    """The error, or what it says where its class may not be known elsewhere."""
    if isinstance(error, Exception) and (type(error) is InputError or type(error).__module__ == "builtins"):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def cores() -> int:
    """How many this process may use, which is what a batch system gave it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, str | Path) else list(given)


def _absolute(path: str | Path) -> str | Path:
    return path if is_hub(path) else Path(path).expanduser().absolute()


def _absolute_program(name: str) -> str:
    """``my_model.py:build`` with the file's absolute path; any other name as it is."""
    place, _, function = name.rpartition(":")
    return f"{Path(place).expanduser().absolute()}:{function}" if place.endswith(".py") else name
