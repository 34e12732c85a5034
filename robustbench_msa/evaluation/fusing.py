"""From rows to predictions: what is known is looked up, the rest is fused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corruptions import MODALITIES
from corruptions.corruption import Corruption
from robustbench_msa.evaluation.cells import NUMERICS, Cell
from robustbench_msa.evaluation.chunks import Chunks, pieces_of
from robustbench_msa.evaluation.encodings import Encodings
from robustbench_msa.evaluation.groups import points_like, shared_rows
from robustbench_msa.evaluation.inputs import Inputs, inside_key
from robustbench_msa.evaluation.numerics import Computed
from robustbench_msa.evaluation.rows import (
    LOST,
    Fused,
    joined_encoded,
    joined_outputs,
    kinds_of,
    places,
    rows_of,
    split_output,
)
from robustbench_msa.models.contract import Encoded, MSAModel, Output, Part


class Mate(NamedTuple):
    """A cell and what was done to its input."""

    cell: Cell
    corruption: Corruption


class Rows(NamedTuple):
    """Distinct rows ``(R, 4)`` of a cell."""

    rows: Tensor
    of: Mate


class Fuser:
    """One model's predictions for cells, each distinct row fused once: of the clean input, and of the latest groups.

    Whatever is fused together is laid down by the cell alone (``groups``), so that its predictions are the same bit for
    bit whichever cells were run before. Of a group an ``Output`` is kept, no encodings.
    """

    def __init__(self, model: MSAModel, inputs: Inputs, chunks: Chunks, numerics: str = NUMERICS) -> None:
        self.computed = Computed(model, numerics, inputs.device)
        self.inputs = inputs
        self.chunks = chunks
        self.numerics = numerics
        self.encodings = Encodings(model, self.computed, inputs, chunks)
        self._clean: Fused | None = None
        self._groups: dict[tuple[Any, ...], Fused | None] = {}

    def output(self, cell: Cell) -> tuple[Corruption, Output]:
        """What was done to a cell's input (without values), and what the model says of all samples in their order."""
        corruption = self.encodings.corruption(cell)
        return corruption, self._output(cell, corruption)

    def _output(self, cell: Cell, corruption: Corruption) -> Output:
        rows, known = rows_of(corruption.sources), self._known(cell, corruption)
        at = places(_rows_in(known), rows)
        new = at < 0
        if bool(new.any()):
            at[new] = sum(len(fused.rows) for fused in known) + torch.arange(int(new.sum()))
            known += self._fuse([Rows(rows[new], Mate(cell, corruption))])
        if len(known) == 1 and at.equal(torch.arange(len(known[0].rows))):
            return known[0].output
        return _at(joined_outputs([fused.output for fused in known]), at)

    def _known(self, cell: Cell, corruption: Corruption) -> list[Fused]:
        """What is fused beforehand: rows of the clean input where nothing inside modalities changed, and the group."""
        if not (cell.is_clean or cell.to_stress().stressor.by_halves):
            return []
        known = [self._clean_rows()] if self._untouched(corruption) else []
        group = None if cell.is_clean else self._group_rows(cell, corruption, known)
        return known if group is None else [*known, group]

    def _untouched(self, corruption: Corruption) -> bool:
        ours, theirs = self.inputs.batch, corruption.features.batch
        return corruption.clean is ours and all(
            theirs.features(m) is ours.features(m) and theirs.lengths(m) is ours.lengths(m) for m in MODALITIES
        )

    def _clean_rows(self) -> Fused:
        if self._clean is None:
            corruption = self.inputs.corruption(CLEAN_CELL)
            (self._clean,) = self._fuse([Rows(rows_of(corruption.sources), Mate(CLEAN_CELL, corruption))])
        return self._clean

    def _group_rows(self, cell: Cell, corruption: Corruption, known: list[Fused]) -> Fused | None:
        group_of = inside_key(cell)
        if group_of not in self._groups:  # only the latest are kept: cells come in their order
            self._groups = {}
            mates = [Mate(cell, corruption)] if self._untouched(corruption) else self._mates(cell, corruption)
            try:
                self._groups = self._fuse_groups(mates, known)
            except Exception:
                if len(mates) == 1:
                    raise
                self._groups = self._fuse_groups([Mate(cell, corruption)], known)  # one that fails costs no other
        return self._groups[group_of]

    def _fuse_groups(self, mates: Sequence[Mate], known: list[Fused]) -> dict[tuple[Any, ...], Fused | None]:
        """What each of these cells shares with others, or has for itself in a stack, by ``inside_key``."""
        groups = {inside_key(mate.cell): self._group(mate, known, alone=len(mates) == 1) for mate in mates}
        fused = iter(self._fuse([group for group in groups.values() if group is not None]))
        return {key: None if group is None else next(fused) for key, group in groups.items()}

    def _mates(self, cell: Cell, corruption: Corruption) -> list[Mate]:
        """The cells that were encoded with this one. Those that are left untouched have the rows of the clean input."""
        stack = self.encodings.stack
        if len(stack) == 1:
            return [Mate(cell, corruption)]
        mates = [Mate(mate, self.encodings.corruption(mate)) for mate in stack]
        return [mate for mate in mates if not self._untouched(mate.corruption)]

    def _group(self, mate: Mate, known: list[Fused], alone: bool) -> Rows | None:
        """The rows that a cell shares with others; in a stack, also those that are its own alone."""
        rows = shared_rows(mate.cell, self.inputs, _rows_in(known))
        if rows is None and not alone and len(points_like(mate.cell)) == 1:
            rows = rows_of(mate.corruption.sources)
        return None if rows is None else Rows(rows, mate)

    def _fuse(self, wanted: Sequence[Rows]) -> list[Fused]:
        """Rows of several cells, one below the other."""
        if not wanted:
            return []
        encoded = [self.encodings.of(some.rows, *some.of) for some in wanted]
        present = torch.cat([self._present(some) for some in wanted])
        sizes = [len(some.rows) for some in wanted]
        move = self.inputs.to_device

        def chunk(part: slice) -> Output:
            parts = [encoded[i](rows) for i, rows in pieces_of(part, sizes)]
            return self.computed.fuse(moved(joined_encoded(parts), move), move(present[part]))

        output = joined_outputs(self.chunks.over(sum(sizes), chunk))
        return [Fused(some.rows, part) for some, part in zip(wanted, split_output(output, sizes), strict=True)]

    def _present(self, wanted: Rows) -> Tensor:
        """What the model is told of each row, ``(R, 3)`` bool."""
        rows, corruption = wanted.rows, wanted.of.corruption
        there = corruption.clean.present[rows[:, 0].to(corruption.clean.device)]
        if not corruption.told:
            return there
        kinds = torch.stack([kinds_of(rows, len(self.inputs.batch), m)[0] for m in MODALITIES], 1)
        return there & (kinds != LOST).to(there.device)


CLEAN_CELL = Cell()


def _rows_in(known: list[Fused]) -> Tensor:
    return torch.cat([torch.empty(0, 4, dtype=torch.int64), *(fused.rows for fused in known)])


def moved(encoded: Encoded, move: Callable[[Tensor], Tensor]) -> Encoded:
    """The same with each tensor where ``move`` puts it."""

    def part(tensors: Part) -> Part:
        return {name: move(x) for name, x in tensors.items()}

    derived = {name: part(tensors) for name, tensors in encoded.derived.items()}
    return Encoded(**{m: part(encoded.part(m)) for m in MODALITIES}, derived=derived)


def _at(output: Output, at: Tensor) -> Output:
    at = at.to(output.prediction.device)
    return Output(output.prediction[at], {name: x[at] for name, x in output.extras.items()})
