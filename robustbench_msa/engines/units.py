"""Units of work, and shares of them: what is computed together stays together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell


@dataclass(frozen=True)
class Unit:
    """Cells of one checkpoint, stress, options and seed, which fuse rows together (``evaluation.groups``).

    deaths: how many workers died at it.
    """

    checkpoint: str
    cells: tuple[Cell, ...]
    deaths: int = 0


def units_of(cells: Iterable[Cell]) -> list[Unit]:
    """The cells in units, in their order. A clean cell goes with the first unit of its checkpoint."""
    cells = list(cells)
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if not cell.is_clean:
            groups.setdefault((cell.checkpoint, cell.stress, cell.options, cell.seed), []).append(cell)
    for cell in cells:
        if cell.is_clean:
            first = next((group for of, group in groups.items() if of[0] == cell.checkpoint), None)
            if first is None:
                groups[(cell.checkpoint,)] = [cell]
            else:
                first.insert(0, cell)
    return [Unit(group[0].checkpoint, tuple(group)) for group in groups.values()]


@dataclass(frozen=True)
class Shard:
    """Share ``index`` of ``count``, from 1. Which cells it has depends on the cells of the command alone.

    >>> Shard.parse("2/4")
    Shard(index=2, count=4)
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Raises InputError for anything but ``1/N`` to ``N/N``."""
        found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
        if found is None or int(found[1]) > int(found[2]):
            raise InputError(
                f"--shard {text[:80]!r}: expected I/N with I from 1 to N, as in 1/4 "
                "(SLURM: sbatch --array=1-4 and --shard $SLURM_ARRAY_TASK_ID/4)"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, cells: Iterable[Cell]) -> list[Cell]:
        """Its share: whole units, a run of them in the order of the plan, so that it loads few checkpoints.

        The shares of all shards are the cells, each once; they differ in size by about a unit.
        """
        cells = list(cells)
        mine: set[str] = set()
        before = 0
        for unit in units_of(cells):
            middle = 2 * before + len(unit.cells)  # of the unit, in half cells
            if middle * self.count // (2 * len(cells)) == self.index - 1:
                mine |= {cell.key for cell in unit.cells}
            before += len(unit.cells)
        return [cell for cell in cells if cell.key in mine]
