"""One split under stress: corrupted inputs and their facts, made once and shared by all models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch

from corruptions import MODALITIES, Batch, Draws, Point, Reference, Stress, input_digest, realised
from corruptions.composition import Composition
from corruptions.corruption import Corruption, Features, Sources
from corruptions.measure import probe_of
from corruptions.stressor import Adversary
from robustbench_msa.data.dataset import Dataset, batch_fingerprint
from robustbench_msa.evaluation.cells import Cell, Setting
from robustbench_msa.models.classes import num_classes_of

T = TypeVar("T")

DRAWS_BYTES = 2 << 30  # how much memory kept draws may take; beyond it they are made again


class Inputs:
    """The evaluated split on its device, with what stressors need: reference, pool, draws.

    Args:
        dataset: where the split, the training statistics and the fingerprint come from.
        split: the evaluated split; it is also the pool that donors come from.
        device: where models run.
    """

    def __init__(self, dataset: Dataset, split: str, device: torch.device | str = "cpu") -> None:
        self.dataset = dataset
        self.split = split
        self.batch: Batch = dataset.splits[split].to(device)
        self._kept: tuple[tuple[Any, ...], Any] = ((), None)
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

    def corruption(self, cell: Cell, adversary: Adversary | None = None) -> Corruption:
        """The corrupted input of a cell, in its parts. adversary: the model, for a stress that depends on it."""
        if cell.is_clean:
            batch = self.batch
            return Corruption(batch, Features(batch), Sources.untouched(batch), told=False)
        stress, draws = cell.to_stress(), self.draws(cell.seed)
        if isinstance(stress.stressor, Composition):
            return self._composed(stress.stressor, cell, draws)
        several = cell.severity_2 is not None or stress.stressor.feature_point(cell.point) != cell.point
        if several and stress.stressor.by_halves:
            return self._with_features_of_before(cell)
        return stress.apply(self.batch, cell.point, draws, self.reference, self.batch, adversary)

    def _composed(self, stressor: Composition, cell: Cell, draws: Draws) -> Corruption:
        """What the parts before the last did is kept for the next cell: only its last severity may differ."""
        given = (self.batch, cell.point, draws, dict(cell.options), self.reference, self.batch)
        key = ("led", cell.stress, cell.options, cell.seed, cell.severity)
        led = self._latest(key, lambda: stressor.leading(*given))
        return stressor.following(led, *given)

    def _with_features_of_before(self, cell: Cell) -> Corruption:
        """The inside of modalities is that of the cell before, where only what is lost or swapped differs."""
        stress = cell.to_stress()
        key = ("features", cell.stress, cell.options, cell.seed, stress.stressor.feature_point(cell.point))
        draws = self.draws(cell.seed)
        kept = self._latest(key, lambda: stress.apply(self.batch, cell.point, draws, self.reference, self.batch))
        return replace(kept, sources=self.sources(cell, cell.point))

    def _latest(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Made once for all cells of a key; only the latest is kept, and nothing while the next is made."""
        if key != self._kept[0]:
            self._kept = ((), None)
            self._kept = (key, make())
        found: T = self._kept[1]
        return found

    def sources(self, cell: Cell, point: Point) -> Sources:
        """What the stress of a cell does to whole modalities at a point (not a clean one), with the cell's seed.

        Of a stressor made of two halves alone.
        """
        stress = cell.to_stress()
        return stress.stressor.sources(self.batch, point, self.draws(cell.seed), self.batch, dict(stress.options))

    def draws(self, seed: int | None) -> Draws:
        """The draws of a seed for all samples; those of the latest seeds are kept, as far as memory allows."""
        seed = seed or 0
        if seed not in self._draws:
            sizes = [self.batch.features(m).numel() * 4 for m in MODALITIES]
            while self._draws and (len(self._draws) + 1) * sum(sizes) > DRAWS_BYTES:
                self._draws.popitem(last=False)
            self._draws[seed] = Draws(seed, self.batch)
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

    def _digest(self, stress: Stress | None, point: Point, seed: int | None, corruption: Corruption) -> str:
        data, pool = f"{self.setting.data}/{self.split}", self.setting.pool
        if stress is None:
            return pool  # the untouched split: its own fingerprint
        probe = (self.probe, self.probe_draws(seed))
        return input_digest(data, stress, point, seed, corruption, pool, self.reference, probe)
