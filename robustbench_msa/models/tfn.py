"""TFN: the outer product of three modality embeddings, each with a 1 appended, read by one dense network.

A. Zadeh, M. Chen, S. Poria, E. Cambria, L.-P. Morency, "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP
2017. Symbols: z^l, z^v, z^a the embeddings of text, vision, audio; z^m their tensor; U_l, U_v, U_a the embedding
subnetworks (sec. 4.1); U_s the sentiment inference subnetwork (sec. 4.3). Here the order is text, audio, vision.

Facts also come from what two codebases do: the authors' release (github.com/A2Zadeh/TensorFusionNetwork) and MMSA's
configuration (github.com/thuiar/MMSA, config_regression.json). Both take means over time of audio and vision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part
from robustbench_msa.models.layers import (
    Standardise,
    head_width,
    masked_mean,
    require_choice,
    require_features,
    require_text_features,
    sample_losses,
    targets_of,
    valid_steps,
    wide_linear,
)

SUBTENSORS: dict[str, tuple[str, ...]] = {
    "all": ("", "t", "a", "v", "ta", "tv", "av", "tav"),
    "language": ("t",),
    "acoustic": ("a",),
    "visual": ("v",),
    "bimodal": ("ta", "tv", "av"),
    "trimodal": ("tav",),
    "notrimodal": ("t", "a", "v", "ta", "tv", "av"),
    "early": ("t", "a", "v"),
}
"""Regions of z^m by the modalities that meet there ("": the constant 1), for each row of the paper's ablation."""


@dataclass(frozen=True)
class TFNConfig:
    """The paper's numbers by default. lstm: size of U_l's state; text_out, audio, vision: of z^l, z^a, z^v.

    Where the paper and the codebases differ, an option:

    text_relu: rectified layers after the LSTM: 2 (the paper's figure of U_l), or 0, one linear layer (release, MMSA).
    text_state: the paper feeds all states h_1..h_T, side by side, to these layers, which needs one T for all samples.
        "last" reads the last valid state (release, MMSA), "mean" the mean of the valid ones.
    dropout_at: "hidden", on the hidden layers of U_a, U_v, U_s (paper), or "input", on what these three read (MMSA).
        dropout is the rate in U_a and U_v, dropout_fusion in U_s; dropout_text, on the state read, is neither's (0).
    l2: coefficient of the squared weights of U_a, U_v, U_s (paper .01; the release's default and MMSA 0).
    loss: "mse" (paper) or "l1" (release, MMSA).
    output: "sigmoid", a sigmoid neuron stretched over the range of the labels (paper; the release stretches it to
        [-4, 4], MMSA to [-3, 3] for every dataset), or "linear".

    Classes: the paper's second network ends in a softmax trained with the cross-entropy; so does this one, over C
    logits, whatever ``loss`` and ``output`` say (its first, one sigmoid for two classes, is a softmax of two logits).

    Scale of the inputs: steps are standardised here, and the means over time once more. That is the release's batch
    normalisation of them, with the training split's statistics, so that no sample depends on its batch.

    Ablation (the paper's table of subtensors): subtensors, a key of SUBTENSORS, the regions of z^m that U_s reads;
    "early" is TFN_early, the embeddings side by side.
    """

    lstm: int = 128
    text_out: int = 128
    audio: int = 32
    vision: int = 32
    post_fusion: int = 128
    text_relu: int = 2
    text_state: str = "last"
    dropout: float = 0.15
    dropout_fusion: float = 0.15
    dropout_text: float = 0.0
    dropout_at: str = "hidden"
    l2: float = 0.01
    loss: str = "mse"
    output: str = "sigmoid"
    subtensors: str = "all"

    def __post_init__(self) -> None:
        require_choice("tfn: text_state", self.text_state, ("last", "mean"))
        require_choice("tfn: dropout_at", self.dropout_at, ("hidden", "input"))
        require_choice("tfn: loss", self.loss, ("mse", "l1"))
        require_choice("tfn: output", self.output, ("sigmoid", "linear"))
        require_choice("tfn: subtensors", self.subtensors, tuple(SUBTENSORS))
        if self.l2 < 0 or self.text_relu < 0:
            raise InputError(f"tfn: l2 and text_relu must be 0 or more; got {self.l2} and {self.text_relu}")


_PAPER = TFNConfig()
_MMSA = TFNConfig(
    vision=128, text_relu=0, dropout=0.4, dropout_fusion=0.4, dropout_at="input", l2=0.0, loss="l1"
)  # what its configurations have in common
_MOSEI = replace(_MMSA, text_out=128, audio=16, post_fusion=16)
_SIMS = replace(_MMSA, text_out=256, audio=32, post_fusion=32)
_SYNTH = replace(
    _MMSA,
    lstm=32,
    text_out=8,
    audio=16,
    vision=16,
    post_fusion=24,
    text_state="mean",
    dropout=0.2,
    dropout_fusion=0.5,
    dropout_text=0.2,
    l2=0.003,
)


class TFN(MSAModel):
    """U_l: an LSTM over the text; U_a, U_v: dense networks on means over time; z^m = [z^l; 1] x [z^a; 1] x [z^v; 1].

    The model is never told what is missing: ``present`` is not read, what is told absent comes in as zeros.

    Presets: "mosi" is the paper's own configuration (it has no other dataset) in batches of 32, MMSA's, for 50 epochs;
    "mosei" and "sims" are MMSA's, which stops after 8 epochs without a gain: 30 epochs here, of which the best is
    kept. "synth" is small and reads the mean of the LSTM's states.
    """

    name: ClassVar[str] = "tfn"
    paper: ClassVar[str] = "TFN (Zadeh et al., EMNLP 2017)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[TFNConfig]] = TFNConfig
    presets: ClassVar[Mapping[str, TFNConfig]] = {"mosi": _PAPER, "mosei": _MOSEI, "sims": _SIMS, "synth": _SYNTH}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": Optimisation("adam", 5e-4, batch_size=32, epochs=50),
        "mosei": Optimisation("adam", 5e-3, batch_size=128, epochs=30),
        "sims": Optimisation("adam", 5e-4, batch_size=32, epochs=30),
        "synth": Optimisation("adam", 1e-3, 1e-3, batch_size=32, epochs=30, grad_clip=1.0, schedule="cosine"),
    }

    kept: Tensor

    def __init__(self, spec: InputSpec, config: TFNConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, (text, audio, vision) = config, spec.dims
        at_input, at_hidden = (1.0, 0.0) if c.dropout_at == "input" else (0.0, 1.0)
        rates = (at_input * c.dropout, at_hidden * c.dropout)
        self.subnet = nn.ModuleDict(
            {
                "text": TextSubnetwork(text, c.lstm, c.text_out, c.text_relu, c.text_state, c.dropout_text),
                "audio": MeanSubnetwork(audio, c.audio, 3, *rates),
                "vision": MeanSubnetwork(vision, c.vision, 3, *rates),
            }
        )
        kept = region_mask((c.text_out, c.audio, c.vision), SUBTENSORS[c.subtensors]).flatten().nonzero().squeeze(1)
        self.register_buffer("kept", kept, persistent=False)  # (K,) entries of the flattened z^m that U_s reads
        self.inference = nn.Sequential(
            nn.Dropout(at_input * c.dropout_fusion),
            dense(len(kept), c.post_fusion, 2, at_hidden * c.dropout_fusion),
            wide_linear(c.post_fusion, head_width(spec), gain=1.0),
        )

    def fit_statistics(self, train: Batch) -> None:
        fit_subnetworks(self.subnet, train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        return {"z": self.subnet[modality](x, lengths)}  # (N, d_m)  sec. 4.1

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        z = tensor_fusion(*(encoded.part(m)["z"] for m in MODALITIES)).flatten(1)  # (N, K)  sec. 4.2
        if self.config.subtensors != "all":
            z = z.index_select(1, self.kept)
        u = self.inference(z)  # (N, 1), or (N, C) logits  sec. 4.3
        if self.spec.num_classes:
            return Output(u)
        u = u.squeeze(1)
        if self.config.output == "linear":
            return Output(u)
        low, high = self.spec.label_range
        return Output(low + (high - low) * torch.sigmoid(u))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task = sample_losses(self(batch).prediction, targets_of(batch, self.spec), self.config.loss).mean()
        penalty = self.config.l2 * sum((w.square().sum() for w in self.regularised()), task.new_zeros(()))
        return {"total": task + penalty, "L_task": task, "L_2": penalty}

    def regularised(self) -> list[Tensor]:
        """The weight matrices of U_a, U_v and U_s, the decision neuron's too."""
        parts = (self.subnet["audio"], self.subnet["vision"], self.inference)
        return [layer.weight for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]


class Subnetwork(nn.Module):
    """What U_l, U_a and U_v share: steps standardised, padding set to zero."""

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.standardise = Standardise(d_in)

    def fit(self, x: Tensor, lengths: Tensor, present: Tensor) -> None:
        """Take the statistics from ``x (N, T, d)`` of the samples that have this modality, present ``(N,)``."""
        self.standardise.fit(x, valid_steps(x, lengths) & present[:, None])

    def steps(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised steps ``(N, T, d)`` and which of them are valid ``(N, T)``."""
        valid = valid_steps(x, lengths)
        standardised: Tensor = self.standardise(x, valid)
        return standardised, valid


class TextSubnetwork(Subnetwork):
    """U_l: an LSTM over the valid steps, then dense layers on its last valid state: ``(N, T, d)`` to ``(N, d_out)``.

    The LSTM runs forward only, so the padding after the last valid step cannot reach what is read. A sample without
    any valid step is read as one step of zeros.
    """

    def __init__(self, d_in: int, lstm: int, d_out: int, relu_layers: int, state: str, dropout: float) -> None:
        super().__init__(d_in)
        self.lstm = nn.LSTM(d_in, lstm, batch_first=True)
        self.state = state
        self.dropout = nn.Dropout(dropout)
        self.dense = dense(lstm, d_out, relu_layers, 0.0) if relu_layers else nn.Linear(lstm, d_out)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, _ = self.steps(x, lengths)
        lengths = lengths.clamp(min=1)
        h, _ = self.lstm(x)  # (N, T, lstm)
        if self.state == "mean":
            h = masked_mean(h, valid_steps(h, lengths))  # (N, lstm)
        else:
            h = h[torch.arange(len(h), device=h.device), lengths - 1]
        z: Tensor = self.dense(self.dropout(h))
        return z


class MeanSubnetwork(Subnetwork):
    """U_a, U_v: rectified layers on the mean over the valid steps, ``(N, T, d)`` to ``(N, d_out)``.

    Steps that are lost but valid count in the mean, as zeros: nobody tells the network.
    """

    def __init__(self, d_in: int, d_out: int, layers: int, dropout_input: float, dropout_hidden: float) -> None:
        super().__init__(d_in)
        self.standardise_mean = Standardise(d_in)
        self.dropout = nn.Dropout(dropout_input)
        self.dense = dense(d_in, d_out, layers, dropout_hidden)

    def fit(self, x: Tensor, lengths: Tensor, present: Tensor) -> None:
        super().fit(x, lengths, present)
        self.standardise_mean.fit(masked_mean(*self.steps(x, lengths))[:, None], present[:, None])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        mean = masked_mean(*self.steps(x, lengths))  # (N, d)
        z: Tensor = self.dense(self.dropout(self.standardise_mean(mean)))
        return z


def fit_subnetworks(subnet: nn.ModuleDict, train: Batch) -> None:
    """Fit text's, audio's and vision's on the valid steps of the training samples that have the modality."""
    for i, modality in enumerate(MODALITIES):
        part = subnet[modality]
        assert isinstance(part, Subnetwork)
        part.fit(train.features(modality), train.lengths(modality), train.present[:, i])


def dense(d_in: int, d_out: int, layers: int, dropout: float) -> nn.Sequential:
    """Rectified layers of one width, each followed by dropout."""
    widths = [d_in] + [d_out] * layers
    steps = [(wide_linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for step in steps for part in step))


def append_one(z: Tensor) -> Tensor:
    """[z; 1], ``(N, d)`` to ``(N, d + 1)``."""
    return torch.cat([z, torch.ones_like(z[:, :1])], dim=1)


def tensor_fusion(z_t: Tensor, z_a: Tensor, z_v: Tensor) -> Tensor:
    """z^m = [z^l; 1] x [z^a; 1] x [z^v; 1], ``(N, d_t + 1, d_a + 1, d_v + 1)``.

    >>> two, three, five = (torch.tensor([[x]]) for x in (2.0, 3.0, 5.0))
    >>> tensor_fusion(two, three, five)[0].tolist()
    [[[30.0, 6.0], [10.0, 2.0]], [[15.0, 3.0], [5.0, 1.0]]]
    """
    return torch.einsum("ni,nj,nk->nijk", append_one(z_t), append_one(z_a), append_one(z_v))


def region_mask(dims: tuple[int, int, int], regions: tuple[str, ...]) -> Tensor:
    """``(d_t + 1, d_a + 1, d_v + 1)`` bool: True where an entry of z^m lies in one of the regions.

    >>> region_mask((1, 1, 1), ("t", "tav")).nonzero().tolist()
    [[0, 0, 0], [0, 1, 1]]
    """
    cpu = torch.device("cpu")  # its content decides shapes, so it must exist where a model is built without memory
    index = torch.cartesian_prod(*(torch.arange(d + 1, device=cpu) for d in dims))  # (K, 3)
    inside = index < torch.tensor(dims, device=cpu)  # (K, 3): not the appended 1
    wanted = [torch.tensor([letter in region for letter in "tav"], device=cpu) for region in regions]
    mask = torch.stack([(inside == region).all(dim=1) for region in wanted]).any(dim=0)
    return mask.view(*(d + 1 for d in dims))
