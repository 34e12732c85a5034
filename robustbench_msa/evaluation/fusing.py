"""From rows to predictions: what is known is looked up, the rest is fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES
from corruptions.corruption import Corruption
from robustbench_msa.evaluation.cells import NUMERICS, Cell
from robustbench_msa.evaluation.chunks import Chunks
from robustbench_msa.evaluation.encodings import Encodings
from robustbench_msa.evaluation.groups import shared_rows
from robustbench_msa.evaluation.inputs import Inputs, inside_key
from robustbench_msa.evaluation.numerics import Computed
from robustbench_msa.evaluation.rows import LOST, Fused, joined_outputs, kinds_of, places, rows_of
from robustbench_msa.models.contract import MSAModel, Output


class Fuser:
    """One model's predictions for cells, each distinct row fused once: of the clean input, and of the latest group.

    Whatever is fused together is laid down by the cell alone (``groups``), so that its predictions are the same bit for
    bit whichever cells were run before. Of a group an ``Output`` is kept, no encodings.
    """

    def __init__(self, model: MSAModel, inputs: Inputs, chunks: Chunks, numerics: str = NUMERICS) -> None:
        self.computed = Computed(model, numerics, inputs.batch.device)
        self.inputs = inputs
        self.chunks = chunks
        self.numerics = numerics
        self.encodings = Encodings(model, self.computed, inputs, chunks)
        self._clean: Fused | None = None
        self._group: Fused | None = None
        self._group_of: tuple[Any, ...] = ()

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
            known.append(self._fuse(rows[new], cell, corruption))
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
            self._clean = self._fuse(rows_of(corruption.sources), CLEAN_CELL, corruption)
        return self._clean

    def _group_rows(self, cell: Cell, corruption: Corruption, known: list[Fused]) -> Fused | None:
        group_of = inside_key(cell)
        if group_of != self._group_of:  # only the latest is kept: cells come in its order
            self._group, self._group_of = None, ()
            rows = shared_rows(cell, self.inputs, _rows_in(known))
            self._group = None if rows is None else self._fuse(rows, cell, corruption)
            self._group_of = group_of
        return self._group

    def _fuse(self, rows: Tensor, cell: Cell, corruption: Corruption) -> Fused:
        encoded = self.encodings.of(rows, cell, corruption)
        present = self._present(rows, corruption)
        outputs = self.chunks.over(len(rows), lambda part: self.computed.fuse(encoded(part), present[part]))
        return Fused(rows, joined_outputs(outputs))

    def _present(self, rows: Tensor, corruption: Corruption) -> Tensor:
        """What the model is told of each row, ``(R, 3)`` bool."""
        there = corruption.clean.present[rows[:, 0].to(corruption.clean.device)]
        if not corruption.told:
            return there
        kinds = torch.stack([kinds_of(rows, len(self.inputs.batch), m)[0] for m in MODALITIES], 1)
        return there & (kinds != LOST).to(there.device)


CLEAN_CELL = Cell()


def _rows_in(known: list[Fused]) -> Tensor:
    return torch.cat([torch.empty(0, 4, dtype=torch.int64), *(fused.rows for fused in known)])


def _at(output: Output, at: Tensor) -> Output:
    at = at.to(output.prediction.device)
    return Output(output.prediction[at], {name: x[at] for name, x in output.extras.items()})
