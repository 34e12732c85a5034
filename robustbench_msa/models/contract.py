"""What a model is here: an encoder per modality and a fusion of what they give.

``encode`` is modality-separable (h_m depends on modality m alone) and ``fuse`` is the rest, so that whole-modality
stresses run the encoders once and only fuse per severity. With modality m told absent, nothing depends on x_m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from corruptions import MODALITIES, Batch

Part = dict[str, Tensor]
"""What one modality's encoder gives: named tensors, each with N rows."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoded modalities, one Part each."""

    text: Part
    audio: Part
    vision: Part
    derived: Mapping[str, Part] = field(default_factory=dict)
    """The derived inputs the model reads, by name: gone (all zero) or swapped with the modalities they came from."""

    def part(self, modality: str) -> Part:
        part: Part = getattr(self, modality)
        return part


@dataclass(frozen=True, eq=False)
class Output:
    """Predictions and what a paper plots beside them.

    prediction: ``(N,)`` sentiment scores (or ``(N, C)`` logits of a classification head).
    extras: per-sample tensors ``(N,)`` or ``(N, k)``: routing weights, quality scores, expert outputs, log-variance.
        An extra named ``for_<metric>`` is the prediction that this metric should use instead (the oracle's way).
    """

    prediction: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class InputSpec:
    """What a model must know of the data to be built: feature dimensions, the label range, the number of classes.

    derived: the feature dimension of each derived input the data has, ``(N, T, d)``, by name.
    """

    dims: tuple[int, int, int]
    label_range: tuple[float, float] = (-3.0, 3.0)
    num_classes: int = 0  # 0: regression
    derived: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``derived`` only where there is any, so that it changes no checkpoint without."""
        return {name: value for name, value in asdict(self).items() if name != "derived" or value}


@dataclass(frozen=True)
class Optimisation:
    """How a paper trains its model. lr is the peak rate, grad_clip the threshold on the total norm (0: off)."""

    optimizer: str = "adam"  # adam | adamw
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: int = 30
    grad_clip: float = 0.0
    schedule: str = "constant"  # constant | cosine (to zero over all epochs, one step a batch)


def told_input(batch: Batch, modality: str) -> tuple[Tensor, Tensor]:
    """Features and lengths as a model sees them: what is told absent is one step of zeros, whatever the batch holds."""
    x, lengths = batch.features(modality), batch.lengths(modality)
    told = batch.present[:, MODALITIES.index(modality)]
    if bool(told.all()):
        return x, lengths
    keep = told.view(-1, *[1] * (x.ndim - 1))
    return torch.where(keep, x, torch.zeros_like(x)), torch.where(told, lengths, torch.ones_like(lengths))


def told_derived(batch: Batch, name: str) -> Tensor:
    """A derived input as models see it: zeros where one of the modalities it was made from is told absent."""
    values, sources = batch.derived[name].values, batch.derived[name].sources
    told = batch.present[:, [MODALITIES.index(source) for source in sources]].all(dim=1)
    if bool(told.all()):
        return values
    return torch.where(told.view(-1, *[1] * (values.ndim - 1)), values, torch.zeros_like(values))


class MSAModel(nn.Module):
    """Base of the models trained here. A subclass sets the class attributes and writes three methods.

    ``config`` is the model's own frozen dataclass; ``presets`` names ready ones (the papers' per dataset, and a small
    ``synth``). ``version`` goes into every cell's key: raise it when outputs change for the same weights. ``reads``:
    the modalities it looks at; the parts of others are empty. ``pools``: what ``encode_modality`` gives has no axis of
    steps, so that the steps that are padding in all of a batch's samples can be cut off before it.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    config_class: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Any]]
    optimisation: ClassVar[Mapping[str, Optimisation]]
    reads: ClassVar[tuple[str, ...]] = MODALITIES
    pools: ClassVar[bool] = False

    def __init__(self, spec: InputSpec, config: Any) -> None:
        super().__init__()
        self.spec = spec
        self.config = config

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        """h_m of one modality. x: ``(N, T_m, d_m)`` raw features; lengths: ``(N,)``. Padding must not matter."""
        raise NotImplementedError

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        """The prediction from encoded modalities and what is told of their presence, ``(N, 3)`` bool."""
        raise NotImplementedError

    def derived_inputs(self) -> tuple[str, ...]:
        """Names of the derived inputs this model reads (explanations). Default: none."""
        return ()

    def encode_derived(self, name: str, values: Tensor) -> Part:
        """One derived input, ``(N, T, d)``, encoded from itself alone. Steps of zeros are padding or lost."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The training objective under "total" (a scalar to differentiate) and its terms by the paper's names."""
        raise NotImplementedError

    def fit_statistics(self, train: Batch) -> None:
        """Take what the model needs from the training split (standardisation). Called once, before training."""

    def encode(self, batch: Batch) -> Encoded:
        """All three modalities encoded, each from its own input alone."""
        derived = {name: self.encode_derived(name, told_derived(batch, name)) for name in self.derived_inputs()}
        return Encoded(**{m: self.encode_modality(m, *told_input(batch, m)) for m in MODALITIES}, derived=derived)

    def forward(self, batch: Batch) -> Output:
        return self.fuse(self.encode(batch), batch.present)

    def active_parameters(self) -> int:
        """Parameters that take part for one sample. Default: all. Sparse experts count as top_k of num_experts."""
        return sum(parameter.numel() for parameter in self.parameters())

    def arguments(self) -> dict[str, Any]:
        """What rebuilds this model: JSON values, part of the checkpoint's identity."""
        return {"spec": self.spec.to_json(), "config": asdict(self.config)}
