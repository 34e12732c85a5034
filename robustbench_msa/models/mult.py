"""MulT: crossmodal attention between sequences that need no alignment. Equations 1 to 4, numbered on the lines.

Y.-H. H. Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences" (ACL 2019). Symbols: N
samples, T_m steps of modality m, d = d_model, D crossmodal blocks, beta -> alpha from source to target; L is text here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
class MulTConfig:
    """The paper's numbers for CMU-MOSI by default (table 5). Where it is silent or its release differs, a choice.

    Release: github.com/yaohungt/Multimodal-Transformer.

    residual: "as_written" (eq. 4) adds LN(Z) to what attention and feed-forward give; "pre_norm" adds Z itself, with
        one more LN after the last block (release).
    pooling: what is read of each target's sequence: its "last" valid step (paper) or the "mean" of its valid steps.
    self_layers: blocks of the self-attention transformers; the paper gives no number (release: max(D, 3)).
    kernel_t, kernel_a, kernel_v: odd, so that a sequence keeps its length ("same" padding with zeros). Text: table 5
        says "1 or 3".
    attn_dropout (sources text, and self-attention), attn_dropout_a, attn_dropout_v (other sources), relu_dropout,
        res_dropout: the release's names; table 5 has one "crossmodal attention block dropout", so all are equal.
        text_dropout acts on text's input features, output_dropout in the last block, embed_dropout on Z^[0] (release).
    Padding: the release has no key-padding mask: padded steps are attended to, "last" is the last padded one, and a
        step whose first channel is exactly zero loses its position. Here padding is masked. It also masks future
        steps, by padded lengths; the paper does not, nor is it done here.
    Positions: added once, to the convolved input (eq. 3); the release scales that by sqrt(d) and adds them in every
        transformer. Feed-forward layers are 4 d wide (release). Weights start as in layers.wide_linear.

    Classes: C logits and the cross-entropy in place of the absolute error. (The paper's IEMOCAP is four binary
        problems; here classes exclude each other.)

    Ablations (table 4). variant: "crossmodal" is MulT; "intermediate": sources are intermediate-level features, for
    which each pair's two streams attend to one another block by block; "late_fusion": one self-attention transformer
    a modality and no crossmodal one; "early_fusion": one over the three sequences laid end to end. targets: "all", or
    the branch of one modality alone, as in [V, A -> L]; with late_fusion that is the unimodal transformer.
    """

    d_model: int = 40
    heads: int = 10
    D: int = 4
    self_layers: int = 4
    kernel_t: int = 1
    kernel_a: int = 3
    kernel_v: int = 3
    text_dropout: float = 0.2
    attn_dropout: float = 0.2
    attn_dropout_a: float = 0.2
    attn_dropout_v: float = 0.2
    relu_dropout: float = 0.2
    res_dropout: float = 0.2
    embed_dropout: float = 0.0
    output_dropout: float = 0.1
    residual: str = "as_written"
    pooling: str = "last"
    variant: str = "crossmodal"
    targets: str = "all"

    def __post_init__(self) -> None:
        require_choice("mult: residual", self.residual, ("as_written", "pre_norm"))
        require_choice("mult: pooling", self.pooling, ("last", "mean"))
        require_choice("mult: variant", self.variant, ("crossmodal", "intermediate", "late_fusion", "early_fusion"))
        require_choice("mult: targets", self.targets, ("all", *MODALITIES))
        if self.d_model % self.heads:
            raise InputError(f"mult: heads={self.heads} must divide d_model={self.d_model}")
        for name, k in (("kernel_t", self.kernel_t), ("kernel_a", self.kernel_a), ("kernel_v", self.kernel_v)):
            if k < 1 or k % 2 == 0:
                raise InputError(f"mult: {name} must be odd, so that sequences keep their length; got {k}")
        if self.targets != "all" and self.variant in ("intermediate", "early_fusion"):
            raise InputError(f"mult: variant={self.variant} needs all modalities; got targets={self.targets}, use all")

    def with_block_dropout(self, p: float) -> MulTConfig:
        """One rate for all of "crossmodal attention block dropout" (table 5)."""
        return replace(self, attn_dropout=p, attn_dropout_a=p, attn_dropout_v=p, relu_dropout=p, res_dropout=p)

    def source_dropout(self, source: str) -> float:
        return {"audio": self.attn_dropout_a, "vision": self.attn_dropout_v}.get(source, self.attn_dropout)


_MOSI = MulTConfig()
_MOSEI = replace(_MOSI, heads=8, text_dropout=0.3).with_block_dropout(0.1)
# MMSA's config_regression.json (github.com/thuiar/MMSA), tuned there for SIMS; the paper has no SIMS
_SIMS = MulTConfig(
    d_model=50,
    heads=10,
    D=2,
    self_layers=3,
    kernel_t=5,
    kernel_a=1,
    kernel_v=1,
    text_dropout=0.3,
    attn_dropout=0.2,
    attn_dropout_a=0.1,
    attn_dropout_v=0.0,
    relu_dropout=0.0,
    res_dropout=0.2,
    embed_dropout=0.1,
    output_dropout=0.1,
)
# As the paper has it ("as_written", "last"), 30 epochs on synth found no synergy: validation MAE .88 against .79
_SYNTH = replace(
    _MOSI, d_model=12, heads=3, D=2, self_layers=1, embed_dropout=0.1, residual="pre_norm", pooling="mean"
).with_block_dropout(0.1)
_TABLE_5 = Optimisation("adam", 1e-3, batch_size=128, epochs=100, grad_clip=0.8)


class MulT(MSAModel):
    """Six crossmodal transformers, three self-attention transformers on what they give, one output block.

    The model is never told what is missing, so ``present`` is not read: what is told absent comes in as one step of
    zeros. A sample without any valid step of a modality is the same one step. The paper's schedule cuts the rate on a
    plateau; here it is constant. MMSA adds up the gradients of 8 batches of 16 on SIMS: 128, and leaves epochs to early
    stopping.
    """

    name: ClassVar[str] = "mult"
    paper: ClassVar[str] = "MulT (Tsai et al., ACL 2019)"
    config_class: ClassVar[type[MulTConfig]] = MulTConfig
    presets: ClassVar[Mapping[str, MulTConfig]] = {"mosi": _MOSI, "mosei": _MOSEI, "sims": _SIMS, "synth": _SYNTH}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _TABLE_5,
        "mosei": replace(_TABLE_5, batch_size=16, epochs=20, grad_clip=1.0),
        "sims": replace(_TABLE_5, learning_rate=2e-3, epochs=40, grad_clip=0.6),
        "synth": replace(_TABLE_5, batch_size=32, epochs=40, schedule="cosine"),
    }

    def __init__(self, spec: InputSpec, config: MulTConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, d = config, config.d_model
        kernels = (c.kernel_t, c.kernel_a, c.kernel_v)
        self.standardise = nn.ModuleDict({m: Standardise(k) for m, k in zip(MODALITIES, spec.dims, strict=True)})
        self.conv = nn.ModuleDict(
            {m: _convolution(d_in, d, k) for m, d_in, k in zip(MODALITIES, spec.dims, kernels, strict=True)}
        )
        self.text_dropout, self.embed_dropout = nn.Dropout(c.text_dropout), nn.Dropout(c.embed_dropout)
        self.targets = MODALITIES if c.targets == "all" else (c.targets,)
        crossmodal = c.variant in ("crossmodal", "intermediate")
        self.pairs = [(b, a) for a in self.targets for b in MODALITIES if b != a] if crossmodal else []
        self.crossmodal = nn.ModuleDict(
            {f"{b}_to_{a}": Transformer(c, d, c.D, c.source_dropout(b)) for b, a in self.pairs}
        )
        streams = ("joint",) if c.variant == "early_fusion" else self.targets
        width = 2 * d if crossmodal else d
        self.self_attention = nn.ModuleDict({m: Transformer(c, width, c.self_layers, c.attn_dropout) for m in streams})
        self.output = OutputBlock(len(streams) * width, head_width(spec), c.output_dropout)

    def fit_statistics(self, train: Batch) -> None:
        fit_standardisers((s for s in self.standardise.values() if isinstance(s, Standardise)), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        """Z^[0] ``(N, T, d)``, and how many of its steps count ``(N,)``: at least one, of zeros where there is none."""
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        x = self.standardise[modality](x, valid_steps(x, lengths))
        if modality == "text":
            x = self.text_dropout(x)
        convolved = self.conv[modality](x.transpose(1, 2)).transpose(1, 2)  # (N, T, d)  eq. 2
        z = convolved + positions(x.shape[1], self.config.d_model).to(x.device)  # eq. 3
        return {"z": self.embed_dropout(z), "lengths": lengths.clamp(min=1)}

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        z = {m: encoded.part(m)["z"] for m in MODALITIES}  # (N, T_m, d) each
        valid = {m: valid_steps(z[m], encoded.part(m)["lengths"]) for m in MODALITIES}  # (N, T_m)
        if self.config.variant == "early_fusion":
            z = {"joint": torch.cat([z[m] for m in MODALITIES], dim=1)}  # (N, T_t + T_a + T_v, d)
            valid = {"joint": torch.cat([valid[m] for m in MODALITIES], dim=1)}
        elif self.pairs:
            z = self.reinforce(z, valid)
        pooled = [self.pool(transformer(z[m], valid[m]), valid[m]) for m, transformer in self.self_attention.items()]
        return Output(scores_or_logits(self.output(torch.cat(pooled, dim=1)), self.spec))

    def reinforce(self, z: dict[str, Tensor], valid: dict[str, Tensor]) -> dict[str, Tensor]:
        """Z_alpha = [Z_{beta -> alpha}^[D]; Z_{gamma -> alpha}^[D]] ``(N, T_alpha, 2d)`` of each target alpha."""
        streams = {(b, a): z[a] for b, a in self.pairs}  # Z_{beta -> alpha}^[0] = Z_alpha^[0]  eq. 4
        for i in range(self.config.D):
            sources = {(b, a): z[b] if self.config.variant == "crossmodal" else streams[a, b] for b, a in self.pairs}
            streams = {
                (b, a): self.transformer(b, a).blocks[i](stream, sources[b, a], valid[b])
                for (b, a), stream in streams.items()
            }
        normal = {(b, a): self.transformer(b, a).norm(stream) for (b, a), stream in streams.items()}
        return {a: torch.cat([normal[pair] for pair in self.pairs if pair[1] == a], dim=2) for a in self.targets}

    def transformer(self, source: str, target: str) -> Transformer:
        found = self.crossmodal[f"{source}_to_{target}"]
        assert isinstance(found, Transformer)
        return found

    def pool(self, z: Tensor, valid: Tensor) -> Tensor:
        """One vector a sample, ``(N, width)``, from z ``(N, T, width)``."""
        if self.config.pooling == "mean":
            return masked_mean(z, valid)
        steps = torch.arange(z.shape[1], device=z.device)
        last = torch.where(valid, steps, 0).amax(dim=1)  # (N,)
        return z[torch.arange(len(z), device=z.device), last]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task = sample_losses(self(batch).prediction, targets_of(batch, self.spec), "l1").mean()
        return {"total": task, "L_task": task}


class Transformer(nn.Module):
    """Blocks of one stream. Called, it is a self-attention transformer; a crossmodal one's blocks get other sources."""

    def __init__(self, c: MulTConfig, d: int, blocks: int, attn_dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(c, d, attn_dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(d) if c.residual == "pre_norm" else nn.Identity()

    def forward(self, z: Tensor, valid: Tensor) -> Tensor:
        for block in self.blocks:
            z = block(z, z, valid)
        normal: Tensor = self.norm(z)
        return normal


class Block(nn.Module):
    """One crossmodal block, a target z ``(N, T_a, d)`` attending to a source ``(N, T_b, d)`` where it is valid.

    One LN normalises target and source alike (release).
    """

    def __init__(self, c: MulTConfig, d: int, attn_dropout: float) -> None:
        super().__init__()
        self.heads, self.attn_dropout, self.as_written = c.heads, attn_dropout, c.residual == "as_written"
        self.norm_attention, self.norm_ff = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.kv, self.out = (wide_linear(d, k * d, gain=1.0) for k in (1, 2, 1))
        self.widen, self.narrow = wide_linear(d, 4 * d), wide_linear(4 * d, d, gain=1.0)
        self.relu_dropout, self.res_dropout = nn.Dropout(c.relu_dropout), nn.Dropout(c.res_dropout)

    def forward(self, z: Tensor, source: Tensor, valid: Tensor) -> Tensor:
        normal = self.norm_attention(z)
        attended = self.attend(normal, self.norm_attention(source), valid)
        z = self.res_dropout(attended) + (normal if self.as_written else z)  # eq. 4
        normal = self.norm_ff(z)
        fed = self.narrow(self.relu_dropout(F.relu(self.widen(normal))))
        y: Tensor = self.res_dropout(fed) + (normal if self.as_written else z)  # eq. 4
        return y

    def attend(self, target: Tensor, source: Tensor, valid: Tensor) -> Tensor:
        q = self.q(target).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, T_a, d / heads)
        k, v = self.kv(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T_b, d / heads)
        dropout = self.attn_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None], dropout_p=dropout)  # eq. 1
        attended: Tensor = self.out(y.transpose(1, 2).flatten(2))  # (N, T_a, d)
        return attended


class OutputBlock(nn.Module):
    """A residual block and a linear layer on the pooled streams: ``(N, width)`` to ``(N, outputs)``."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.widen, self.narrow = wide_linear(width, width), wide_linear(width, width, gain=1.0)
        self.dropout = nn.Dropout(dropout)
        self.score = wide_linear(width, outputs, gain=1.0)

    def forward(self, h: Tensor) -> Tensor:
        y: Tensor = self.score(h + self.narrow(self.dropout(F.relu(self.widen(h)))))
        return y


def positions(steps: int, d: int) -> Tensor:
    """PE ``(steps, d)``: sin(i / 10000^(2j/d)) in column 2j and its cos in column 2j + 1, for steps i = 1, 2, ...

    >>> positions(2, 2).mul(100).round().tolist()
    [[84.0, 54.0], [91.0, -42.0]]
    """
    i, j = torch.arange(1, steps + 1)[:, None], torch.arange((d + 1) // 2)
    angle = i / 10000 ** (2 * j / d)  # (steps, d / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :d]


def _convolution(d_in: int, d: int, kernel: int) -> nn.Conv1d:
    """Without a bias (release): a step of zeros among zeros stays zero."""
    conv = nn.Conv1d(d_in, d, kernel, padding=kernel // 2, bias=False)
    nn.init.normal_(conv.weight, std=1 / math.sqrt(d_in * kernel))
    return conv
