"""What one model's encoders gave for one split, kept for as long as a later cell may need it.

A modality's encoder runs once on the clean input and once on lost input, whatever the grid. What changes inside a
modality is encoded again, that modality alone, and cells that share the change (a row of the spectrum) share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES, Batch
from corruptions.corruption import Corruption, fill_steps, maskable
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.chunks import Chunks
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.rows import DONOR, LOST, Picks, joined, kinds_of, kinds_of_derived
from robustbench_msa.models.contract import Encoded, MSAModel, Part, told_derived, told_input


class Encodings:
    """One model's encodings of one split."""

    def __init__(self, model: MSAModel, inputs: Inputs, chunks: Chunks) -> None:
        self.model = model
        self.inputs = inputs
        self.chunks = chunks
        self._kept: dict[tuple[Any, ...], Part] = {}
        self._changed_at: tuple[Any, ...] = ()

    def of(self, rows: Tensor, cell: Cell, corruption: Corruption) -> Callable[[slice], Encoded]:
        """The encoded inputs of rows ``(R, 4)``, in chunks: no more of them is put together at once."""
        parts = {m: self._picks(rows, cell, corruption, m) for m in MODALITIES}
        derived = {name: self._derived_picks(rows, corruption, name) for name in self.model.derived_inputs()}

        def chunk(part: slice) -> Encoded:
            return Encoded(
                **{m: picks.part(part) for m, picks in parts.items()},
                derived={name: picks.part(part) for name, picks in derived.items()},
            )

        return chunk

    def _picks(self, rows: Tensor, cell: Cell, corruption: Corruption, modality: str) -> Picks:
        kind, row = kinds_of(rows, len(self.inputs.batch), modality)
        own = self._own_part(cell, corruption, modality)
        donors = self._clean_part(modality) if bool((kind == DONOR).any()) else {}
        lost = self._lost_part(corruption, modality) if bool((kind == LOST).any()) else {}
        return Picks(own, donors, lost, kind, row)

    def _derived_picks(self, rows: Tensor, corruption: Corruption, name: str) -> Picks:
        """A derived input goes with its sources: lost with any of them, swapped with them."""
        clean, changed = self.inputs.batch, corruption.clean
        if changed.derived is not clean.derived:  # an earlier stress of a composition, or an attack, has taken some
            part = self._encode_derived(name, told_derived(corruption.batch, name))
            return Picks(part, {}, {}, torch.zeros(len(rows), dtype=torch.int64), rows[:, 0])
        values, sources = clean.derived[name].values, clean.derived[name].sources
        available = clean.present[:, [MODALITIES.index(source) for source in sources]].all(1).cpu()
        kind, row = kinds_of_derived(rows, len(clean), sources, available)
        told = told_derived(clean, name)
        own = self._keep(("clean", name), lambda: self._encode_derived(name, told))
        donors: Part = {}
        lost: Part = {}
        if bool((kind == DONOR).any()):
            untold = ("untold", name)
            donors = own if told is values else self._keep(untold, lambda: self._encode_derived(name, values))
        if bool((kind == LOST).any()):
            lost = self._keep(("lost", name), lambda: self._encode_derived(name, torch.zeros_like(values)))
        return Picks(own, donors, lost, kind, row)

    def _own_part(self, cell: Cell, corruption: Corruption, modality: str) -> Part:
        """The encoding after feature-level changes: the clean one where this modality was not touched."""
        changed = corruption.features.batch
        if changed.features(modality) is self.inputs.batch.features(modality):
            return self._clean_part(modality)
        at = ("changed", cell.stress, cell.options, cell.seed, cell.to_stress().stressor.feature_point(cell.point))
        if at != self._changed_at:  # only the latest change is kept: cells come in its order
            for key in [key for key in self._kept if key[0] == "changed"]:
                del self._kept[key]
            self._changed_at = at
        return self._keep(("changed", modality), lambda: self._encode(modality, changed))

    def _clean_part(self, modality: str) -> Part:
        return self._keep(("clean", modality), lambda: self._encode(modality, self.inputs.batch))

    def _lost_part(self, corruption: Corruption, modality: str) -> Part:
        """The encoding of a lost modality: what is told absent, or filled steps that look like any others."""
        ours, clean = self.inputs.batch, corruption.clean
        if corruption.told:
            absent = ours.replace(present=torch.zeros_like(ours.present))
            return self._keep(("absent", modality), lambda: self._encode(modality, absent))
        if clean.lengths(modality) is not ours.lengths(modality):  # swapped before it was lost: the donors' lengths
            return self._encode(modality, clean, filled_by(corruption, modality))
        key = ("lost", modality, corruption.fill)
        return self._keep(key, lambda: self._encode(modality, ours, filled_by(corruption, modality)))

    def _keep(self, key: tuple[Any, ...], make: Callable[[], Part]) -> Part:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _encode(self, modality: str, batch: Batch, change: Callable[[Batch], Batch] = lambda batch: batch) -> Part:
        """Chunk by chunk, so that of mapped features no more is read, filled or zeroed at once."""

        def chunk(rows: slice) -> Part:
            return self.model.encode_modality(modality, *told_input(change(batch.rows(rows)), modality))

        return joined(self.chunks.over(len(batch), chunk))

    def _encode_derived(self, name: str, values: Tensor) -> Part:
        return joined(self.chunks.over(len(values), lambda rows: self.model.encode_derived(name, values[rows])))


def filled_by(corruption: Corruption, modality: str) -> Callable[[Batch], Batch]:
    """Fills all of a modality that may be masked."""

    def fill(batch: Batch) -> Batch:
        steps = maskable(batch, modality)
        return batch.replace(**{modality: fill_steps(batch, modality, steps, corruption.fill, corruption.reference)})

    return fill
