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
from corruptions.outline import Block, outline
from corruptions.outline import joined as gathered
from robustbench_msa.evaluation.adversary import ModelAdversary
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.chunks import Chunks
from robustbench_msa.evaluation.inputs import Inputs, inside_key, leads
from robustbench_msa.evaluation.numerics import Computed
from robustbench_msa.evaluation.rows import DONOR, LOST, Picks, joined, kinds_of, kinds_of_derived
from robustbench_msa.models.contract import Encoded, MSAModel, Part, told_derived, told_input


class Encodings:
    """One model's encodings of one split."""

    def __init__(self, model: MSAModel, computed: Computed, inputs: Inputs, chunks: Chunks) -> None:
        self.model = model
        self.computed = computed
        self.inputs = inputs
        self.chunks = chunks
        self._kept: dict[tuple[Any, ...], Part] = {}
        self._changed: tuple[tuple[Any, ...], Corruption | None] = ((), None)

    def corruption(self, cell: Cell) -> Corruption:
        """The corrupted input of a cell. Values that it changes inside modalities are encoded as they are made, block
        by block, and not kept: what is handed out is an outline of them (``corruptions.outline``)."""
        stressor = None if cell.is_clean else cell.to_stress().stressor
        if stressor is None or not stressor.touches_features or stressor.feature_point(cell.point).is_clean:
            return self.inputs.corruption(cell)
        at = inside_key(cell)
        if at != self._changed[0]:  # only the latest change is kept: cells come in its order
            self._changed = ((), None)
            for key in [key for key in self._kept if key[0] == "changed"]:
                del self._kept[key]
            self._changed = (at, self._encode_changed(cell))
        inside = self._changed[1]
        assert inside is not None
        return self.inputs.completed(cell, inside)

    def _encode_changed(self, cell: Cell) -> Corruption:
        stressor = cell.to_stress().stressor
        adversary = ModelAdversary(self.model, self.chunks) if stressor.needs_adversary else None
        measured = "" if self.inputs.knows(cell) else stressor.acts_on
        touched: set[str] = set()

        def chunk(rows: slice) -> tuple[Block, dict[str, Part]]:
            inside = self.inputs.inside(cell, rows, adversary)
            clean, changed = self.inputs.rows(rows), inside.batch if leads(cell) else inside.features.batch
            touched.update(m for m in MODALITIES if changed.features(m) is not clean.features(m))
            return outline(inside, measured), {m: self._part(changed, m) for m in touched}

        blocks: list[tuple[Block, dict[str, Part]]] = []
        while not blocks or any(parts.keys() != touched for _, parts in blocks):  # again: a block has touched another
            blocks = self.chunks.over(len(self.inputs.batch), chunk)
        for m in touched:
            self._kept["changed", m] = joined([parts[m] for _, parts in blocks])
        return gathered([block for block, _ in blocks], self.inputs.batch)

    def of(self, rows: Tensor, cell: Cell, corruption: Corruption) -> Callable[[slice], Encoded]:
        """The encoded inputs of rows ``(R, 4)``, in chunks: no more of them is put together at once."""
        parts = {m: self._picks(rows, cell, corruption, m) for m in MODALITIES}
        derived = {name: self._derived_picks(rows, corruption, name) for name in self.computed.derived_inputs()}

        def chunk(part: slice) -> Encoded:
            return Encoded(
                **{m: picks.part(part) for m, picks in parts.items()},
                derived={name: picks.part(part) for name, picks in derived.items()},
            )

        return chunk

    def _picks(self, rows: Tensor, cell: Cell, corruption: Corruption, modality: str) -> Picks:
        kind, row = kinds_of(rows, len(self.inputs.batch), modality)
        own = self._own_part(corruption, modality)
        donors = self._clean_part(modality) if bool((kind == DONOR).any()) else {}
        lost = self._lost_part(cell, corruption, modality) if bool((kind == LOST).any()) else {}
        return Picks(own, donors, lost, kind, row)

    def _derived_picks(self, rows: Tensor, corruption: Corruption, name: str) -> Picks:
        """A derived input goes with its sources: lost with any of them, swapped with them."""
        clean, changed = self.inputs.batch, corruption.clean
        if changed.derived is not clean.derived:  # an earlier stress of a composition, or an attack, has taken some
            left = changed.replace(derived=corruption.derived, present=corruption.present)
            part = self._encode_derived(name, told_derived(left, name))
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

    def _own_part(self, corruption: Corruption, modality: str) -> Part:
        """The encoding after feature-level changes: the clean one where this modality was not touched."""
        changed = corruption.features.batch.features(modality)
        untouched = changed is self.inputs.batch.features(modality)
        return self._clean_part(modality) if untouched else self._kept["changed", modality]

    def _clean_part(self, modality: str) -> Part:
        return self._keep(("clean", modality), lambda: self._encode(modality, self.inputs.rows))

    def _lost_part(self, cell: Cell, corruption: Corruption, modality: str) -> Part:
        """The encoding of a lost modality: what is told absent, or filled steps that look like any others."""
        ours, fill = self.inputs, filled_by(corruption, modality)
        if corruption.told:
            key = ("absent", modality)
            return self._keep(key, lambda: self._encode(modality, lambda rows: absent(ours.rows(rows))))
        swapped_before = corruption.clean.lengths(modality) is not ours.batch.lengths(modality)
        if swapped_before:  # the donors' lengths
            return self._encode(modality, lambda rows: fill(ours.before_last(cell, rows)))
        filled = ("lost", modality, corruption.fill)
        return self._keep(filled, lambda: self._encode(modality, lambda rows: fill(ours.rows(rows))))

    def _keep(self, key: tuple[Any, ...], make: Callable[[], Part]) -> Part:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _encode(self, modality: str, block: Callable[[slice], Batch]) -> Part:
        """Block by block, so that of mapped features no more is read, filled or zeroed at once."""
        n = len(self.inputs.batch)
        return joined(self.chunks.over(n, lambda rows: self._part(block(rows), modality)))

    def _part(self, batch: Batch, modality: str) -> Part:
        return self.computed.encode_modality(modality, *told_input(batch, modality))

    def _encode_derived(self, name: str, values: Tensor) -> Part:
        return joined(self.chunks.over(len(values), lambda rows: self.computed.encode_derived(name, values[rows])))


def absent(batch: Batch) -> Batch:
    """Told that nothing is there."""
    return batch.replace(present=torch.zeros_like(batch.present))


def filled_by(corruption: Corruption, modality: str) -> Callable[[Batch], Batch]:
    """Fills all of a modality that may be masked."""

    def fill(batch: Batch) -> Batch:
        steps = maskable(batch, modality)
        return batch.replace(**{modality: fill_steps(batch, modality, steps, corruption.fill, corruption.reference)})

    return fill
