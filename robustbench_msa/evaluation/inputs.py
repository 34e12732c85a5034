"""One split under stress: corrupted inputs and their facts, made once and shared by all models."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import Any

import torch

from corruptions import MODALITIES, Batch, Draws, Point, Reference, Stress, input_digest, realised
from corruptions.corruption import Corruption, Features, Sources
from corruptions.measure import probe_of
from corruptions.stressor import Adversary
from robustbench_msa.data.dataset import Dataset, batch_fingerprint
from robustbench_msa.evaluation.cells import Cell, Setting
from robustbench_msa.models.classes import num_classes_of

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
        stress = cell.to_stress()
        return stress.apply(self.batch, cell.point, self.draws(cell.seed), self.reference, self.batch, adversary)

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
