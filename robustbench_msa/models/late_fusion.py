"""LF-DNN, the plain late-fusion network: three unimodal sub-networks on time-averaged features, and one after them.

The field's simplest trained baseline (in MMSA's zoo under this name): no attention, no reliability, no routing. What a
robust model gains must be gained over this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from corruptions import MODALITIES, Batch
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part
from robustbench_msa.models.layers import (
    Standardise,
    fit_standardisers,
    head_width,
    masked_mean,
    require_choice,
    require_features,
    require_text_features,
    sample_losses,
    scores_or_logits,
    targets_of,
    valid_steps,
    wide_linear,
)


@dataclass(frozen=True)
class LateFusionConfig:
    """hidden: width of each unimodal sub-network; fusion: width of the network after them; loss: "l1" or "mse".

    Of classes: C logits and the cross-entropy, whatever ``loss`` says.
    """

    hidden: int = 64
    fusion: int = 64
    dropout: float = 0.3
    loss: str = "l1"

    def __post_init__(self) -> None:
        require_choice("late_fusion: loss", self.loss, ("l1", "mse"))


class LateFusion(MSAModel):
    """h_m = DNN_m(mean over valid steps of x_m), prediction = DNN([h_T; h_A; h_V]).

    Steps that are lost but valid count in the mean (as zeros): nobody tells the network. A modality told absent is
    encoded from zeros.
    """

    name: ClassVar[str] = "late_fusion"
    paper: ClassVar[str] = "LF-DNN (late fusion of deep neural networks)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[LateFusionConfig]] = LateFusionConfig
    presets: ClassVar[Mapping[str, LateFusionConfig]] = {
        "mosi": LateFusionConfig(hidden=128, fusion=128),
        "mosei": LateFusionConfig(hidden=128, fusion=128),
        "synth": LateFusionConfig(dropout=0.2),
    }
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": Optimisation("adamw", 1e-3, 0.5, batch_size=32, epochs=30, grad_clip=1.0, schedule="cosine"),
        "mosei": Optimisation("adamw", 1e-3, 0.5, batch_size=32, epochs=30, grad_clip=1.0, schedule="cosine"),
        "synth": Optimisation("adam", 1e-3, 1e-4, batch_size=32, epochs=30, grad_clip=1.0, schedule="cosine"),
    }

    def __init__(self, spec: InputSpec, config: LateFusionConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        self.standardise = nn.ModuleDict({m: Standardise(d) for m, d in zip(MODALITIES, spec.dims, strict=True)})
        self.subnet = nn.ModuleDict(
            {m: _dnn(d, config.hidden, config.dropout) for m, d in zip(MODALITIES, spec.dims, strict=True)}
        )
        self.post_fusion = _dnn(3 * config.hidden, config.fusion, config.dropout)
        self.head = wide_linear(config.fusion, head_width(spec))

    def fit_statistics(self, train: Batch) -> None:
        fit_standardisers((s for s in self.standardise.values() if isinstance(s, Standardise)), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        valid = valid_steps(x, lengths)  # (N, T)
        x = self.standardise[modality](x, valid)
        return {"h": self.subnet[modality](masked_mean(x, valid))}  # (N, hidden)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        h = torch.cat([encoded.part(m)["h"] for m in MODALITIES], dim=1)  # (N, 3 hidden)
        return Output(scores_or_logits(self.head(self.post_fusion(h)), self.spec))  # (N,) or (N, C)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task = sample_losses(self(batch).prediction, targets_of(batch, self.spec), self.config.loss).mean()
        return {"total": task, "L_task": task}


def _dnn(d_in: int, d_hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        wide_linear(d_in, d_hidden),
        nn.ReLU(),
        wide_linear(d_hidden, d_hidden),
        nn.ReLU(),
    )
