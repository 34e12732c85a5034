"""One modality alone: a small encoder and a head. What text, audio and vision are worth without each other.

A fused model that loses to ``text_only`` where audio or vision are corrupted has learned to trust them too much; one
that only equals it on clean data has learned nothing from them. No paper: the encoder is the one all models here share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from corruptions import MODALITIES, Batch
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part
from robustbench_msa.models.layers import (
    SequenceEncoder,
    head_width,
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
class UnimodalConfig:
    """d_model: size of h; hidden: width of the head; conv_layers, normalise: the encoder's (layers.SequenceEncoder).

    loss: "l1" or "mse"; of classes the cross-entropy of C logits, whatever it says.
    """

    d_model: int = 64
    hidden: int = 64
    dropout: float = 0.1
    conv_layers: int = 1
    normalise: bool = True
    loss: str = "l1"

    def __post_init__(self) -> None:
        require_choice("unimodal: loss", self.loss, ("l1", "mse"))


_DEFAULT = UnimodalConfig()
_SYNTH = UnimodalConfig(d_model=32, hidden=32)
_RECIPE = Optimisation("adamw", 1e-3, 0.01, batch_size=32, epochs=30, grad_clip=1.0, schedule="cosine")


class Unimodal(MSAModel):
    """y = MLP(h_m) of one modality m; the other two are checked for their shape and not read.

    Their parts are empty. With m told absent, the prediction is the constant that the network gives for one step of
    zeros.
    """

    pools: ClassVar[bool] = True
    config_class: ClassVar[type[UnimodalConfig]] = UnimodalConfig
    presets: ClassVar[Mapping[str, UnimodalConfig]] = {
        "mosi": _DEFAULT,
        "mosei": _DEFAULT,
        "sims": _DEFAULT,
        "synth": _SYNTH,
    }
    optimisation: ClassVar[Mapping[str, Optimisation]] = dict.fromkeys(presets, _RECIPE)

    def __init__(self, spec: InputSpec, config: UnimodalConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, d_in = config, spec.dims[MODALITIES.index(self.modality)]
        self.encoder = SequenceEncoder(d_in, c.d_model, c.dropout, c.conv_layers, c.normalise)
        self.head = nn.Sequential(
            wide_linear(c.d_model, c.hidden), nn.GELU(), nn.Dropout(c.dropout), nn.Linear(c.hidden, head_width(spec))
        )

    @property
    def modality(self) -> str:
        return self.reads[0]

    def fit_statistics(self, train: Batch) -> None:
        x, lengths = train.features(self.modality), train.lengths(self.modality)
        present = train.present[:, MODALITIES.index(self.modality)]
        self.encoder.standardise.fit(x, valid_steps(x, lengths) & present[:, None])

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        return {"h": self.encoder(x, lengths)} if modality == self.modality else {}  # (N, d_model)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return Output(scores_or_logits(self.head(encoded.part(self.modality)["h"]), self.spec))  # (N,) or (N, C)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task = sample_losses(self(batch).prediction, targets_of(batch, self.spec), self.config.loss).mean()
        return {"total": task, "L_task": task}


class TextOnly(Unimodal):
    """Reads the text, whatever there is to hear or to see."""

    name: ClassVar[str] = "text_only"
    reads: ClassVar[tuple[str, ...]] = ("text",)


class AudioOnly(Unimodal):
    """Reads the audio alone."""

    name: ClassVar[str] = "audio_only"
    reads: ClassVar[tuple[str, ...]] = ("audio",)


class VisionOnly(Unimodal):
    """Reads the vision alone."""

    name: ClassVar[str] = "vision_only"
    reads: ClassVar[tuple[str, ...]] = ("vision",)
