"""The best constant: what a model must beat before its robustness means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from corruptions import Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part


@dataclass(frozen=True)
class ChanceConfig:
    """mean and median of the training labels."""

    mean: float
    median: float


class Chance(MSAModel):
    """Predicts the training labels' mean for every sample, and their median where MAE is scored (extra "for_mae").

    Nothing is trained and no input is read; it stands wherever a model stands.

    >>> from corruptions import Batch
    >>> batch = Batch(text=torch.ones(2, 1, 1), audio=torch.ones(2, 1, 1), vision=torch.ones(2, 1, 1))
    >>> output = Chance.from_labels(torch.tensor([0.0, 0.0, 3.0]))(batch)
    >>> output.prediction.tolist(), output.extras["for_mae"].tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """

    name: ClassVar[str] = "chance"
    paper: ClassVar[str] = "the best constant of the training labels"
    config_class: ClassVar[type[ChanceConfig]] = ChanceConfig
    presets: ClassVar[Mapping[str, ChanceConfig]] = {}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {}

    def __init__(self, mean: float, median: float) -> None:
        super().__init__(InputSpec(dims=(0, 0, 0)), ChanceConfig(mean, median))

    @classmethod
    def from_labels(cls, train_labels: Tensor) -> Chance:
        """From the labels ``(N,)`` of the training split. The median of an even number is the mean of the middle two.

        Raises:
            InputError: no labels at all.
        """
        labels = train_labels.double()
        if labels.numel() == 0:
            raise InputError("chance: expected the training labels, got none; give the labels of a non-empty split")
        return cls(labels.mean().item(), labels.quantile(0.5).item())

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        return {"h": torch.zeros(len(x), 1, device=x.device)}

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        constant = torch.ones(len(present), device=present.device)
        return Output(constant * self.config.mean, {"for_mae": constant * self.config.median})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise InputError("chance: there is nothing to train; build it with Chance.from_labels")
