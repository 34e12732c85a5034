"""What one model's encoders gave for one split, kept for as long as a later cell may need it.

A modality's encoder runs once on the clean input and once on lost input, whatever the grid. What changes inside a
modality is encoded again, that modality alone, and cells that share the change (a row of the spectrum) share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES, Batch
from corruptions.corruption import Corruption, fill_steps, maskable
from corruptions.outline import Block, outline
from corruptions.outline import joined as gathered
from robustbench_msa.evaluation.adversary import ModelAdversary
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.chunks import Chunks, pieces_of
from robustbench_msa.evaluation.inputs import Inputs, inside_key, leads
from robustbench_msa.evaluation.numerics import Computed
from robustbench_msa.evaluation.rows import DONOR, LOST, Picks, joined, kinds_of, kinds_of_derived
from robustbench_msa.evaluation.stacks import stack_of
from robustbench_msa.evaluation.trimming import by_length
from robustbench_msa.models.contract import Encoded, MSAModel, Part, told_derived, told_input


class Encodings:
    """One model's encodings of one split."""

    def __init__(self, model: MSAModel, computed: Computed, inputs: Inputs, chunks: Chunks) -> None:
        self.model = model
        self.computed = computed
        self.inputs = inputs
        self.chunks = chunks
        # compiled code is made for any number of samples, but for one of steps; on a GPU it was not measured
        self._trims = model.pools and not computed.compiles and inputs.device.type == "cpu"
        self._kept: dict[tuple[Any, ...], Part] = {}
        self._changed: dict[tuple[Any, ...], Corruption] = {}
        self.stack: list[Cell] = []
        """The cells whose inside was encoded together at last."""

    def corruption(self, cell: Cell) -> Corruption:
        """The corrupted input of a cell. Values that it changes inside modalities are encoded as they are made, block
        by block, and not kept: what is handed out is an outline of them (``corruptions.outline``)."""
        stressor = None if cell.is_clean else cell.to_stress().stressor
        if stressor is None or not stressor.touches_features or stressor.feature_point(cell.point).is_clean:
            return self.inputs.corruption(cell)
        at = inside_key(cell)
        if at not in self._changed:  # only the latest changes are kept: cells come in their order
            self._changed = {}
            for key in [key for key in self._kept if key[0] == "changed"]:
                del self._kept[key]
            self.stack = stack_of(cell, len(self.inputs.batch), self.chunks.size) if self.inputs.stacks else [cell]
            try:
                self._changed = self._encode_changed(self.stack)
            except Exception:
                if len(self.stack) == 1:
                    raise
                self.stack = [cell]  # one that fails must not cost the others
                self._changed = self._encode_changed(self.stack)
        return self.inputs.completed(cell, self._changed[at])

    def _encode_changed(self, cells: Sequence[Cell]) -> dict[tuple[Any, ...], Corruption]:
        """What cells of one stress do inside modalities, all their samples one below the other, by ``inside_key``."""
        stressor, n = cells[0].to_stress().stressor, len(self.inputs.batch)
        adversary = ModelAdversary(self.model, self.chunks, self.inputs.device) if stressor.needs_adversary else None
        measured = ["" if self.inputs.knows(cell) else stressor.acts_on for cell in cells]
        touched: set[str] = set()

        def chunk(part: slice) -> tuple[list[tuple[int, Block]], dict[str, Part]]:
            blocks, batches = [], []
            for i, rows in pieces_of(part, [n] * len(cells)):
                inside = self.inputs.inside(cells[i], rows, adversary)
                clean, changed = self.inputs.rows(rows), inside.batch if leads(cells[i]) else inside.features.batch
                touched.update(m for m in MODALITIES if changed.features(m) is not clean.features(m))
                blocks.append((i, outline(inside, measured[i])))
                batches.append(changed)
            return blocks, {m: self._part(m, *batches) for m in touched}

        found: list[tuple[list[tuple[int, Block]], dict[str, Part]]] = []
        while not found or any(parts.keys() != touched for _, parts in found):  # again: a block has touched another
            found = self.chunks.over(len(cells) * n, chunk)
        keys = [inside_key(cell) for cell in cells]
        for m in touched:
            part = joined([parts[m] for _, parts in found])
            for i, key in enumerate(keys):
                self._kept["changed", key, m] = {name: x[i * n : (i + 1) * n] for name, x in part.items()}
        return {
            key: gathered([block for blocks, _ in found for j, block in blocks if j == i], self.inputs.batch)
            for i, key in enumerate(keys)
        }

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
        own = self._own_part(cell, corruption, modality)
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

    def _own_part(self, cell: Cell, corruption: Corruption, modality: str) -> Part:
        """The encoding after feature-level changes: the clean one where this modality was not touched."""
        changed = corruption.features.batch.features(modality)
        untouched = changed is self.inputs.batch.features(modality)
        return self._clean_part(modality) if untouched else self._kept["changed", inside_key(cell), modality]

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
        return joined(self.chunks.over(n, lambda rows: self._part(modality, block(rows))))

    def _part(self, modality: str, *batches: Batch) -> Part:
        """One modality of batches, one below the other."""
        told = zip(*(told_input(batch, modality) for batch in batches), strict=True)
        x, lengths = (self.inputs.to_device(stacked(given)) for given in told)
        encode = partial(self.computed.encode_modality, modality)
        return self._home(by_length(encode, x, lengths) if self._trims else encode(x, lengths))

    def _encode_derived(self, name: str, values: Tensor) -> Part:
        return joined(self.chunks.over(len(values), lambda rows: self._derived_part(name, values[rows])))

    def _derived_part(self, name: str, values: Tensor) -> Part:
        return self._home(self.computed.encode_derived(name, self.inputs.to_device(values)))

    def _home(self, part: Part) -> Part:
        return {name: self.inputs.to_home(x) for name, x in part.items()}


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """One below the other; a single one is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def absent(batch: Batch) -> Batch:
    """Told that nothing is there."""
    return batch.replace(present=torch.zeros_like(batch.present))


def filled_by(corruption: Corruption, modality: str) -> Callable[[Batch], Batch]:
    """Fills all of a modality that may be masked."""

    def fill(batch: Batch) -> Batch:
        steps = maskable(batch, modality)
        return batch.replace(**{modality: fill_steps(batch, modality, steps, corruption.fill, corruption.reference)})

    return fill
