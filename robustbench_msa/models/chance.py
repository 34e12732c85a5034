"""The best constant: what a model must beat before its robustness means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from corruptions import Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part


@dataclass(frozen=True)
class ChanceConfig:
    """mean and median of the training labels."""

    mean: float
    median: float


@dataclass(frozen=True)
class MajorityConfig:
    """majority: the most frequent class of the training labels; num_classes: how many there are."""

    majority: int
    num_classes: int


class Chance(MSAModel):
    """Predicts the training labels' mean for every sample, and their median where MAE is scored (extra "for_mae").

    Where the labels are classes it is a ``Majority``.

    Nothing is trained and no input is read; it stands wherever a model stands.

    >>> from corruptions import Batch
    >>> batch = Batch(text=torch.ones(2, 1, 1), audio=torch.ones(2, 1, 1), vision=torch.ones(2, 1, 1))
    >>> output = Chance.from_labels(torch.tensor([0.0, 0.0, 3.0]))(batch)
    >>> output.prediction.tolist(), output.extras["for_mae"].tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """

    name: ClassVar[str] = "chance"
    paper: ClassVar[str] = "the best constant of the training labels"
    config_class: ClassVar[type[Any]] = ChanceConfig
    presets: ClassVar[Mapping[str, ChanceConfig]] = {}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {}

    def __init__(self, mean: float, median: float) -> None:
        super().__init__(InputSpec(dims=(0, 0, 0)), ChanceConfig(mean, median))

    @classmethod
    def from_labels(cls, train_labels: Tensor) -> Chance:
        """From the labels ``(N,)`` of the training split, of whole numbers (classes) a ``Majority``.

        The median of an even number is the mean of the middle two; of equally frequent classes the first is taken.

        Raises:
            InputError: no labels at all.
        """
        if train_labels.numel() == 0:
            raise InputError("chance: expected the training labels, got none; give the labels of a non-empty split")
        if not train_labels.is_floating_point():
            counts = torch.bincount(train_labels)
            return Majority(int(counts.argmax()), max(2, len(counts)))
        labels = train_labels.double()
        return Chance(labels.mean().item(), labels.quantile(0.5).item())

    @classmethod
    def from_constants(cls, known: Mapping[str, Any]) -> Chance:
        """From the fields of a ChanceConfig or a MajorityConfig."""
        if "majority" in known:
            return Majority(int(known["majority"]), int(known["num_classes"]))
        return Chance(float(known["mean"]), float(known["median"]))

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        return {"h": torch.zeros(len(x), 1, device=x.device)}

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        constant = torch.ones(len(present), device=present.device)
        return Output(constant * self.config.mean, {"for_mae": constant * self.config.median})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise InputError("chance: there is nothing to train; build it with Chance.from_labels")


class Majority(Chance):
    """Predicts the most frequent class of the training labels for every sample: logits of 1 for it, 0 for the others.

    >>> from corruptions import Batch
    >>> batch = Batch(text=torch.ones(2, 1, 1), audio=torch.ones(2, 1, 1), vision=torch.ones(2, 1, 1))
    >>> Chance.from_labels(torch.tensor([2, 0, 1, 1]))(batch).prediction.tolist()
    [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """

    paper: ClassVar[str] = "the most frequent class of the training labels"
    config_class: ClassVar[type[Any]] = MajorityConfig

    def __init__(self, majority: int, num_classes: int) -> None:
        MSAModel.__init__(
            self, InputSpec(dims=(0, 0, 0), num_classes=num_classes), MajorityConfig(majority, num_classes)
        )

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        logits = torch.zeros(len(present), self.config.num_classes, device=present.device)
        logits[:, self.config.majority] = 1.0
        return Output(logits)
