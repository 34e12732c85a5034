"""MISA: modality-invariant and modality-specific representations. Equations 1 to 12, numbered on the lines.

D. Hazarika, R. Zimmermann, S. Poria, "MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment
Analysis" (ACM MM 2020). Symbols: N samples, d_h = d_model, c the common (invariant) space, p a private (specific) one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from corruptions import MODALITIES, Batch, InputError
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
class MISAConfig:
    """The numbers of the authors' release for CMU-MOSI by default (github.com/declare-lab/MISA, src/config.py).

    alpha, beta, gamma weigh L_sim, L_diff and L_recon (eq. 5); K is the highest moment of CMD (eq. 6). Choices:

    text: "mean" over the token states (the paper's way with BERT, here with the features given) or "sLSTM", the
        stacked bidirectional LSTM of audio and vision (its way with word vectors).
    lstm_hidden: width of each direction of an LSTM; 0 is the modality's own input dimension (release).
    diff: L_diff of a pair is a squared Frobenius norm (eq. 8): "frobenius" sums the squares as written, "mean"
        averages them (release), d_h^2 times less. The published beta goes with the mean, so that is the default: as
        written, L_diff starts two orders of magnitude above L_task. Gradients pass through the rows' norms, which the
        release holds fixed.
    heads, d_ff, fusion_dropout: of the Transformer layer that fuses; release: PyTorch's defaults but for the heads.
    input_dropout: on the standardised features; the paper has none.
    The encoders E_c, E_p are one linear layer and a sigmoid, the decoders D one linear layer, G two (release); weights
    start as in layers.wide_linear, the LSTMs' recurrent ones orthogonal (release), their forget gates open (bias 2).

    Classes: the paper's own way, C logits and the cross-entropy (eq. 11) in place of eq. 12.

    Ablations: no_L_sim, no_L_diff, no_L_recon take a term out of eq. 5, and with L_recon the decoders. variant: "misa";
    "base" fuses the u_m, without subspaces and so without the three terms; "inv" has the invariant space alone (L_sim
    stays; a decoder of h^c + h^p has nothing to decode); "sFusion" and "iFusion" learn both but fuse the specific
    vectors or the invariant ones only. (The rows without one modality are trainings with that modality told absent.)
    """

    d_model: int = 128
    lstm_hidden: int = 0
    text: str = "mean"
    input_dropout: float = 0.0
    dropout: float = 0.5
    heads: int = 2
    d_ff: int = 2048
    fusion_dropout: float = 0.1
    K: int = 5
    alpha: float = 1.0
    beta: float = 0.3
    gamma: float = 1.0
    diff: str = "mean"
    variant: str = "misa"
    no_L_sim: bool = False
    no_L_diff: bool = False
    no_L_recon: bool = False

    def __post_init__(self) -> None:
        require_choice("misa: text", self.text, ("mean", "sLSTM"))
        require_choice("misa: diff", self.diff, ("mean", "frobenius"))
        require_choice("misa: variant", self.variant, ("misa", "base", "inv", "sFusion", "iFusion"))
        if self.d_model % self.heads:
            raise InputError(f"misa: heads={self.heads} must divide d_model={self.d_model}")
        if self.K < 1:
            raise InputError(f"misa: K must be at least 1, the mean (eq. 6); got {self.K}")

    @property
    def spaces(self) -> tuple[str, ...]:
        """The subspaces that are learned."""
        return {"base": (), "inv": ("c",)}.get(self.variant, ("c", "p"))

    @property
    def fused(self) -> tuple[str, ...]:
        """What the fusion reads of each modality."""
        return {"base": ("u",), "inv": ("c",), "sFusion": ("p",), "iFusion": ("c",)}.get(self.variant, ("c", "p"))

    @property
    def terms(self) -> dict[str, float]:
        """The terms of eq. 5 beside L_task, with their weights."""
        both = len(self.spaces) == 2
        there = {
            "L_sim": (self.alpha, bool(self.spaces) and not self.no_L_sim),
            "L_diff": (self.beta, both and not self.no_L_diff),
            "L_recon": (self.gamma, both and not self.no_L_recon),
        }
        return {name: weight for name, (weight, used) in there.items() if used}


_MOSI = MISAConfig()
# MMSA's config_regression.json (github.com/thuiar/MMSA), tuned there for SIMS; the paper has no SIMS
_SIMS = replace(_MOSI, dropout=0.0, gamma=0.8)
# alpha and dropout as MMSA has them for MOSI; a mean of d_h^2 squares grows as d_h falls, so beta is 0.3 (32 / 128)^2
_SYNTH = replace(_MOSI, d_model=32, lstm_hidden=8, d_ff=64, input_dropout=0.3, dropout=0.2, alpha=0.3, beta=0.02)
_RELEASE = Optimisation("adam", 1e-4, batch_size=64, epochs=60, grad_clip=1.0)


class MISA(MSAModel):
    """u_m -> h_m^c in one space for all, h_m^p in its own -> six vectors fused by a Transformer layer -> prediction.

    L_diff and CMD compare batches: they are computed in ``loss`` alone. The model is never told what is missing, so
    ``present`` is not read: what is told absent comes in as one step of zeros, and so does a sample without any step;
    in training such a sample counts in every term. The release halves the rate on a plateau (here it is constant),
    clips each gradient value (here their norm) and leaves epochs to early stopping; MMSA adds up the gradients of two
    batches of 64 on SIMS.
    """

    name: ClassVar[str] = "misa"
    paper: ClassVar[str] = "MISA (Hazarika et al., ACM MM 2020)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[MISAConfig]] = MISAConfig
    presets: ClassVar[Mapping[str, MISAConfig]] = {"mosi": _MOSI, "mosei": _MOSI, "sims": _SIMS, "synth": _SYNTH}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _RELEASE,
        "mosei": replace(_RELEASE, batch_size=16),
        "sims": replace(_RELEASE, batch_size=128),
        "synth": replace(_RELEASE, learning_rate=1e-3, batch_size=32, epochs=40, schedule="cosine"),
    }

    def __init__(self, spec: InputSpec, config: MISAConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, d = config, config.d_model
        dims = dict(zip(MODALITIES, spec.dims, strict=True))
        self.standardise = nn.ModuleDict({m: Standardise(dims[m]) for m in MODALITIES})
        self.input_dropout = nn.Dropout(c.input_dropout)
        recurrent = MODALITIES if c.text == "sLSTM" else MODALITIES[1:]
        hidden = {m: c.lstm_hidden or dims[m] for m in recurrent}
        self.lstm = nn.ModuleDict({m: StackedLSTM(dims[m], hidden[m]) for m in recurrent})
        self.project = nn.ModuleDict({m: _projection(4 * hidden[m] if m in hidden else dims[m], d) for m in MODALITIES})
        self.E_c = _encoder(d) if "c" in c.spaces else None
        self.E_p = nn.ModuleDict({m: _encoder(d) for m in MODALITIES if "p" in c.spaces})
        self.D = nn.ModuleDict({m: wide_linear(d, d, gain=1.0) for m in MODALITIES if "L_recon" in c.terms})
        self.fusion = FusionLayer(d, c.heads, c.d_ff, c.fusion_dropout)
        width = 3 * len(c.fused) * d
        self.G = nn.Sequential(
            wide_linear(width, width // 2),
            nn.Dropout(c.dropout),
            nn.ReLU(),
            wide_linear(width // 2, head_width(spec), gain=1.0),
        )

    def fit_statistics(self, train: Batch) -> None:
        fit_standardisers((s for s in self.standardise.values() if isinstance(s, Standardise)), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        """u_m and, where learned, h_m^c and h_m^p under "u", "c" and "p", each ``(N, d_h)``."""
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        valid = valid_steps(x, lengths)  # (N, T)
        x = self.input_dropout(self.standardise[modality](x, valid))
        utterance = self.lstm[modality](x, lengths) if modality in self.lstm else masked_mean(x, valid)
        u = self.project[modality](utterance)  # (N, d_h)  eq. 1
        part = {"u": u}
        if self.E_c is not None:
            part["c"] = self.E_c(u)  # eq. 2
        if modality in self.E_p:
            part["p"] = self.E_p[modality](u)  # eq. 2
        return part

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        vectors = [encoded.part(m)[kind] for kind in self.config.fused for m in MODALITIES]
        h = self.fusion(torch.stack(vectors, dim=1))  # (N, 6, d_h)
        return Output(scores_or_logits(self.G(h.flatten(1)), self.spec))  # (N,) or (N, C)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        encoded, y, weights = self.encode(batch), targets_of(batch, self.spec), self.config.terms
        losses = {"L_sim": self.similarity_loss, "L_diff": self.difference_loss, "L_recon": self.reconstruction_loss}
        task = sample_losses(self.fuse(encoded, batch.present).prediction, y, "mse").mean()  # eq. 11 or 12
        terms = {name: losses[name](encoded) for name in weights}
        total = task + sum(weight * terms[name] for name, weight in weights.items())  # eq. 5
        return {"total": total, "L_task": task, **terms}

    def similarity_loss(self, encoded: Encoded) -> Tensor:
        """The mean CMD of two modalities' invariant vectors."""
        pairs = combinations([encoded.part(m)["c"] for m in MODALITIES], 2)
        return torch.stack([central_moment_discrepancy(x, y, self.config.K) for x, y in pairs]).mean()  # eq. 7

    def difference_loss(self, encoded: Encoded) -> Tensor:
        """How far from orthogonal: each modality's two vectors, and the specific vectors of any two modalities."""
        common, private = ([encoded.part(m)[kind] for m in MODALITIES] for kind in ("c", "p"))
        pairs = [*zip(common, private, strict=True), *combinations(private, 2)]
        return torch.stack([overlap(x, y, self.config.diff) for x, y in pairs]).sum()  # eq. 9

    def reconstruction_loss(self, encoded: Encoded) -> Tensor:
        """Mean squared error of u_m decoded from h_m^c + h_m^p."""
        errors = []
        for m in MODALITIES:
            part = encoded.part(m)
            decoded = self.D[m](part["c"] + part["p"])
            errors.append((part["u"] - decoded).square().mean())  # over samples and d_h
        return torch.stack(errors).mean()  # eq. 10


def central_moment_discrepancy(x: Tensor, y: Tensor, K: int) -> Tensor:
    """CMD_K of two batches in (0, 1)^d, ``(N, d)`` and ``(M, d)``: mean and central moments up to the K-th, compared.

    |b - a|, by whose powers eq. 6 divides, is one: a sigmoid gave the values.

    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.5]])
    >>> central_moment_discrepancy(x, y, 2).item()
    0.25
    """
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    distance: Tensor = torch.linalg.vector_norm(mean_x - mean_y)
    for k in range(2, K + 1):
        moments = ((x - mean_x) ** k).mean(dim=0) - ((y - mean_y) ** k).mean(dim=0)  # (d,)
        distance = distance + torch.linalg.vector_norm(moments)
    return distance  # eq. 6


def overlap(x: Tensor, y: Tensor, scale: str) -> Tensor:
    """Squared Frobenius norm of X' Y, for x and y ``(N, d)``; scale "mean": divided by d^2.

    Both are first centred over the batch, then each row scaled to length one.

    >>> x, y = torch.tensor([[[1.0], [-1.0], [1.0], [-1.0]], [[1.0], [1.0], [-1.0], [-1.0]]])
    >>> overlap(x, x, "mean").item(), overlap(x, y, "mean").item()
    (16.0, 0.0)
    """
    x, y = (F.normalize(h - h.mean(dim=0), dim=1) for h in (x, y))
    squares = (x.T @ y).square()  # (d, d)  eq. 8
    return squares.sum() if scale == "frobenius" else squares.mean()


class StackedLSTM(nn.Module):
    """Two bidirectional LSTMs, a LayerNorm between: ``(N, T, d_in)`` to their four final states ``(N, 4 hidden)``."""

    def __init__(self, d_in: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.LSTM(d_in, hidden, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.second = nn.LSTM(2 * hidden, hidden, batch_first=True, bidirectional=True)
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(parameter)
            elif "bias" in name and "norm" not in name:
                nn.init.ones_(parameter[hidden : 2 * hidden])  # the forget gate; an LSTM has two biases

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        # a sample without any valid step is one step of zeros
        steps = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        between, (h1, _) = self.first(steps)
        normal = PackedSequence(
            self.norm(between.data), between.batch_sizes, between.sorted_indices, between.unsorted_indices
        )
        _, (h2, _) = self.second(normal)
        return torch.cat([*h1, *h2], dim=1)  # each (N, hidden)


class FusionLayer(nn.Module):
    """A Transformer layer (LN after each residual) over the vectors of M ``(N, 6, d_h)``, one row a vector."""

    def __init__(self, d: int, heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = wide_linear(d, 3 * d, gain=1.0), wide_linear(d, d, gain=1.0)
        self.widen, self.narrow = wide_linear(d, d_ff), wide_linear(d_ff, d, gain=1.0)
        self.norm_attention, self.norm_ff = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, 6, d_h / heads)
        dropout = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # eq. 3
        h = self.norm_attention(h + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))  # eq. 4
        fed = self.narrow(self.dropout(F.relu(self.widen(h))))
        y: Tensor = self.norm_ff(h + self.dropout(fed))
        return y


def _projection(d_in: int, d: int) -> nn.Sequential:
    return nn.Sequential(wide_linear(d_in, d), nn.ReLU(), nn.LayerNorm(d))


def _encoder(d: int) -> nn.Sequential:
    return nn.Sequential(wide_linear(d, d), nn.Sigmoid())
