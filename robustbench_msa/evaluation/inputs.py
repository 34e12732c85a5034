"""One split under stress: corrupted inputs and their facts, made once and shared by all models."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES, Batch, Draws, Point, Reference, Stress, input_digest, realised
from corruptions.composition import Composition
from corruptions.corruption import Corruption, Features, Sources
from corruptions.measure import probe_of
from corruptions.memory import room
from corruptions.stressor import Adversary
from robustbench_msa.data.dataset import Dataset, batch_fingerprint
from robustbench_msa.evaluation.cells import Cell, Setting
from robustbench_msa.models.classes import num_classes_of

DRAWS_BYTES = 2 << 30  # how much memory kept draws may take, at most a quarter of what there is room for


class Inputs:
    """The evaluated split, with what stressors need: reference, pool, draws.

    The split lives on the device where models run, or in the machine's memory where the device is too small for it; it
    is then corrupted there and goes to the device block by block (``to_device``), and what is made of it comes back
    (``to_home``).

    Args:
        dataset: where the split, the training statistics and the fingerprint come from.
        split: the evaluated split; it is also the pool that donors come from.
        device: where models run.
    """

    def __init__(self, dataset: Dataset, split: str, device: torch.device | str = "cpu") -> None:
        self.dataset = dataset
        self.split = split
        samples = dataset.splits[split]
        self.streams = not fits(samples, torch.device(device))
        self.batch: Batch = samples if self.streams else samples.to(device)
        self.device = torch.device(device) if self.streams else self.batch.device
        self.stacks = self.device.type == "cuda"  # a CPU is busy with one severity (``evaluation.stacks``)
        self._rows: dict[tuple[int, int], Batch] = {}
        self._draws: OrderedDict[int, Draws] = OrderedDict()
        self._probe_draws: dict[int, Draws] = {}
        self._facts: dict[tuple[Any, ...], dict[str, Any]] = {}

    @cached_property
    def reference(self) -> Reference:
        return Reference.fit(self.dataset.splits["train"]).to(self.batch.device)

    @cached_property
    def setting(self) -> Setting:
        pool = batch_fingerprint(self.dataset.splits[self.split])
        data = self.dataset.fingerprint
        return Setting(self.dataset.name, data, self.split, pool, self.reference.fingerprint)

    @cached_property
    def num_classes(self) -> int:
        """How many classes the labels are of; 0 for scores."""
        return num_classes_of(self.dataset)

    @cached_property
    def probe(self) -> Batch:
        return probe_of(self.batch)

    def rows(self, part: slice) -> Batch:
        """A run of samples. The same object every time, so that draws can remember what they found for its labels."""
        place = (part.start, part.stop)
        if place not in self._rows:
            self._rows[place] = self.batch.rows(part)
        return self._rows[place]

    def corruption(self, cell: Cell, adversary: Adversary | None = None) -> Corruption:
        """The corrupted input of a cell, in its parts. adversary: the model, for a stress that depends on it."""
        if cell.is_clean:
            batch = self.batch
            return Corruption(batch, Features(batch), Sources.untouched(batch), told=False)
        draws = self.draws(cell.seed)
        return cell.to_stress().apply(self.batch, cell.point, draws, self.reference, self.batch, adversary)

    def inside(self, cell: Cell, part: slice, adversary: Adversary | None = None) -> Corruption:
        """What a cell does inside modalities of a run of samples, as it is at any other last severity where that says
        nothing about it. To be gathered (``corruptions.outline``) and then ``completed``."""
        rows, draws, stress = self.rows(part), self.draws(cell.seed).rows(part), cell.to_stress()
        if not leads(cell):
            return stress.apply(rows, cell.point, draws, self.reference, self.batch, adversary)
        assert isinstance(stress.stressor, Composition)
        led = stress.stressor.leading(rows, cell.point, draws, dict(cell.options), self.reference, self.batch)
        assert led is not None
        _ = led.batch  # what the last stress acts on
        return led

    def before_last(self, cell: Cell, part: slice) -> Batch:
        """The input, a run of samples of it, that the last stress of a composition acts on."""
        inside = self.inside(cell, part)
        return inside.batch if leads(cell) else inside.clean

    def completed(self, cell: Cell, inside: Corruption) -> Corruption:
        """The whole corruption of a cell, from what it, or one that shares that, does inside modalities."""
        stressor, draws = cell.to_stress().stressor, self.draws(cell.seed)
        if isinstance(stressor, Composition):
            given = (self.batch, cell.point, draws, dict(cell.options), self.reference, self.batch)
            return stressor.following(inside, *given) if leads(cell) else inside
        return replace(inside, sources=self.sources(cell, cell.point)) if stressor.by_halves else inside

    def sources(self, cell: Cell, point: Point) -> Sources:
        """What the stress of a cell does to whole modalities at a point (not a clean one), with the cell's seed.

        Of a stressor made of two halves alone.
        """
        stress = cell.to_stress()
        return stress.stressor.sources(self.batch, point, self.draws(cell.seed), self.batch, dict(stress.options))

    def to_device(self, x: Tensor) -> Tensor:
        """A block of the split where models run; from the machine's memory to a GPU through pinned pages, so that
        nobody waits for it."""
        if not self.streams:
            return x
        return (x.pin_memory() if self.device.type == "cuda" else x).to(self.device, non_blocking=True)

    def to_home(self, x: Tensor) -> Tensor:
        """What was made of a block, where the split lives."""
        return x.to(self.batch.device) if self.streams else x

    @property
    def sample_bytes(self) -> int:
        """Of the features of one sample, as float32."""
        return bytes_of_one(self.batch)

    @cached_property
    def _seeds_kept(self) -> int:
        """Of how many seeds all draws may be kept; 0: they are made again wherever they are needed."""
        return min(DRAWS_BYTES, room_on(self.batch.device) // 4) // (self.sample_bytes * len(self.batch))

    def draws(self, seed: int | None) -> Draws:
        """The draws of a seed for all samples; those of the latest seeds are kept, as far as memory allows."""
        seed = seed or 0
        if seed not in self._draws:
            while self._draws and len(self._draws) >= self._seeds_kept:
                self._draws.popitem(last=False)
            self._draws[seed] = Draws(seed, self.batch, keep=self._seeds_kept > 0)
        self._draws.move_to_end(seed)
        return self._draws[seed]

    def probe_draws(self, seed: int | None) -> Draws:
        """The draws of a seed for the probe alone."""
        return self._probe_draws.setdefault(seed or 0, Draws(seed or 0, self.probe))

    def facts(self, cell: Cell, corruption: Corruption) -> dict[str, Any]:
        """Input digest and realised rates of a cell: computed once, whatever the number of models.

        An input that depends on the model has no digest that models could share.
        """
        point, stress = cell.point, None if cell.is_clean else cell.to_stress()
        if stress is not None and stress.stressor.needs_adversary:
            return {"input_digest": None, "realised": realised(corruption)}
        key = (stress, point, cell.seed)
        if key not in self._facts:
            digest = self._digest(stress, point, cell.seed, corruption)
            self._facts[key] = {"input_digest": digest, "realised": realised(corruption)}
        return self._facts[key]

    def knows(self, cell: Cell) -> bool:
        """Are the facts of this cell known, and no others to be taken from what it does inside modalities?"""
        return len(cell.point.values) == 1 and (cell.to_stress(), cell.point, cell.seed) in self._facts

    def _digest(self, stress: Stress | None, point: Point, seed: int | None, corruption: Corruption) -> str:
        data, pool = f"{self.setting.data}/{self.split}", self.setting.pool
        if stress is None:
            return pool  # the untouched split: its own fingerprint
        probe = (self.probe, self.probe_draws(seed))
        return input_digest(data, stress, point, seed, corruption, pool, self.reference, probe)


def fits(samples: Batch, device: torch.device) -> bool:
    """Does a device hold a split and as much again (the draws of a seed), with half its memory left for models?"""
    return device.type == "cpu" or 4 * len(samples) * bytes_of_one(samples) <= room_on(device)


def bytes_of_one(batch: Batch) -> int:
    """Of the features of one sample, as float32."""
    return 4 * sum(batch.features(m)[0].numel() for m in MODALITIES)


def room_on(device: torch.device) -> int:
    """Bytes that may still be taken on a device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else room()


def inside_key(cell: Cell) -> tuple[Any, ...]:
    """Equal for cells (not clean ones) of one input that do the same inside modalities."""
    return cell.stress, cell.options, cell.seed, cell.to_stress().stressor.feature_point(cell.point)


def leads(cell: Cell) -> bool:
    """Is it a composition whose last stress leaves the inside of modalities alone?

    What those before it leave is then made once for all its severities.
    """
    stressor = cell.to_stress().stressor
    return isinstance(stressor, Composition) and not stressor.parts[-1].touches_features
