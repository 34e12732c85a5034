"""TEXT: explanations aligned with each modality, audio aligned with vision in time, text-routed experts, gate fusion.

D. Rao et al., "A Text-Routed Sparse Mixture-of-Experts Model with Explanation and Temporal Alignment for Multi-Modal
Sentiment Analysis" (the paper's "TEXT"). Equations 1 to 5, numbered on the lines. Symbols: N samples, d = d_model,
K = tokens, K + 1 positions (the learnable token first), E = num_experts, m in {text, audio, vision}.

The paper writes ca(.) for three things: cross-attention (eq. 1), SiLU (inside eq. 2-3) and concatenation (eq. 4).
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
from corruptions.batch import LETTERS
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part, told_derived
from robustbench_msa.models.layers import (
    Standardise,
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

EXPLANATION_OF: Mapping[str, str] = {"text": "comment", "audio": "explanation_audio", "vision": "explanation_vision"}
"""The derived input that each modality is aligned with (3.4)."""
SUBSETS = ("tav", "av", "ta", "tv", "t", "a", "v")


@dataclass(frozen=True)
class TEXTConfig:
    """Sizes: the paper gives K = 50 tokens and one learnable token (3.4) and 3 layers for CH-SIMS (4.8), nothing else;
    the rest is what its released code uses. Where the paper is silent or contradicts itself, an option:

    tokens_from: how a sequence of any length becomes K tokens. "whole": token k is the mean over its share of the valid
        steps; "first": the first K steps, zeros after the last (the release, which first skips leading zero frames).
    EA: the explanation alignment. "CA": eq. 1 as written, one head, not scaled, no residual; "block": the release's,
        several heads, scaled, the explanation added to the result, and a feed-forward layer.
    comment: text is aligned with the comment (3.4). False: it is not, as in the release.
    TA_projection: LN of eq. 2-3 is one layer for both of its uses ("shared", as the symbols say) or has an output for
        the convolution and one for the gate ("split", as in Mamba and in the release).
    expand, kernel: Conv1d's channels are expand d, each convolved on its own over the last ``kernel`` positions, as in
        Mamba.
    route_by: "text is the key": the router of each layer sees E_t, by the mean of its tokens ("mean", the release) or
        by its learnable token ("token").
    router_noise: the noisy top-k gating of the cited Shazeer et al. (2017), in training. No term balances the load.
    gate: eq. 5 does not say what its gate is. "softmax": one weight a modality from all three tokens (the release);
        "sigmoid": each feature of a token by its own token, then the sum (the gated attention of the cited Qiu et al.).
    as_released: the release's inference: router noise stays on, and an expert takes the first max(1, top_k N // E)
        samples of a batch that choose it (in training too). Neither deterministic nor independent of the batch.

    Also silent, decided here: N(.) is LayerNorm; SMoE(.) is a pre-norm Transformer over all 3 (K + 1) positions with
    experts in place of its feed-forward layer; the router sees E_t itself, before other modalities mix in; each
    modality's encoder is a linear layer and ``encoder_layers`` Transformer layers, and the explanations share theirs,
    as one BERT encodes them.

    Classes: the classifier of eq. 5 ends in C logits, trained with the cross-entropy in place of the squared error; the
    paper has no dataset of classes, and nothing else in the model knows of the score.

    Ablations (table 2). w/o explanations: explanations=False, E_m is the encoded modality (so it is where the data
    lacks m's explanation). A & V, T & A, .., V: modalities = "av", "ta", .., "v"; without text E_av routes, without
    audio or vision nothing is aligned in time. EA <- Linear: EA="Linear", of feature and explanation at each position.
    TA <- concatenation, Mamba, TCA: TA = "concatenation", "Mamba" (one block over the concatenation), "TCA" (audio
    attends to vision, vision to audio). SMoE <- Trans: SMoE="Trans". TEXT w/o Gating: no_gating, the mean of the three
    tokens.
    """

    tokens: int = 50
    d_model: int = 128
    heads: int = 8
    d_head: int = 64
    d_ff: int = 256
    encoder_layers: int = 1
    layers: int = 3
    num_experts: int = 5
    top_k: int = 3
    d_expert: int = 128
    dropout: float = 0.1
    expand: int = 2
    kernel: int = 4
    tokens_from: str = "whole"
    EA: str = "CA"
    comment: bool = True
    TA: str = "TA"
    TA_projection: str = "shared"
    SMoE: str = "text-routed"
    route_by: str = "mean"
    router_noise: bool = True
    gate: str = "softmax"
    as_released: bool = False
    explanations: bool = True
    modalities: str = "tav"
    no_gating: bool = False

    def __post_init__(self) -> None:
        for name, choices in {
            "tokens_from": ("whole", "first"),
            "EA": ("CA", "block", "Linear"),
            "TA": ("TA", "concatenation", "Mamba", "TCA"),
            "TA_projection": ("shared", "split"),
            "SMoE": ("text-routed", "Trans"),
            "route_by": ("mean", "token"),
            "gate": ("softmax", "sigmoid"),
            "modalities": SUBSETS,
        }.items():
            require_choice(f"text_moe: {name}", getattr(self, name), choices)
        for name in ("tokens", "layers", "kernel", "expand"):
            if getattr(self, name) < 1:
                raise InputError(f"text_moe: {name} must be at least 1; got {getattr(self, name)}")
        if not 2 <= self.top_k <= self.num_experts:  # the softmax over a single gate is 1: its router never learns
            raise InputError(f"text_moe: top_k must be between 2 and num_experts={self.num_experts}; got {self.top_k}")


_MOSI = TEXTConfig()
_SYNTH = replace(
    _MOSI, tokens=4, d_model=32, heads=2, d_head=16, d_ff=64, encoder_layers=0, layers=2, d_expert=32, dropout=0.3
)
# As released, but for its warm-up over the first tenth of the steps; the paper gives none of it
_RELEASED = Optimisation("adamw", 1e-4, 1e-4, batch_size=64, epochs=200, schedule="cosine")


class TEXT(MSAModel):
    """F_m and explanations as K + 1 tokens -> E_m -> E_av -> experts chosen by E_t -> three gated tokens -> score.

    The model is never told what is missing, so ``present`` is not read: what is told absent comes in as zeros, and so
    does an explanation that is lost with its source. All Transformers see K + 1 positions a modality, so nothing
    depends on padding.

    Extras: "gate" ``(N, 3)``, the fusion weights (sigmoid gates: their means) of text, audio, vision; "routing"
    ``(N, E)``, the weights of the last layer's experts, and "routing_layers" ``(N, layers E)`` of all layers' (neither
    with SMoE="Trans").
    """

    name: ClassVar[str] = "text_moe"
    paper: ClassVar[str] = "TEXT (Rao et al.)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[TEXTConfig]] = TEXTConfig
    presets: ClassVar[Mapping[str, TEXTConfig]] = {
        "mosi": _MOSI,
        "mosei": replace(_MOSI, layers=2),
        "sims": _MOSI,
        "simsv2": replace(_MOSI, layers=1),
        "synth": _SYNTH,
    }
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _RELEASED,
        "mosei": replace(_RELEASED, epochs=101),
        "sims": _RELEASED,
        "simsv2": _RELEASED,
        "synth": Optimisation("adamw", 1e-3, 1e-2, batch_size=32, epochs=60, grad_clip=1.0, schedule="cosine"),
    }

    def __init__(self, spec: InputSpec, config: TEXTConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, used = config, [LETTERS[letter] for letter in config.modalities]
        self.used = used
        dims = {m: d for m, d in zip(MODALITIES, spec.dims, strict=True) if m in used}
        self.tokens = nn.ModuleDict({m: Tokens(d, c) for m, d in dims.items()})
        self.encoder = nn.ModuleDict({m: transformer(c.encoder_layers, c) for m in used})
        explained = {m: EXPLANATION_OF[m] for m in used if EXPLANATION_OF[m] in self.derived_inputs()}
        self.explanation_tokens = nn.ModuleDict({name: Tokens(spec.derived[name], c) for name in explained.values()})
        if explained:
            self.explanation_encoder = transformer(c.encoder_layers, c)
        alignments = {"CA": CrossAttention, "block": CrossAttentionBlock, "Linear": LinearAlignment}
        self.EA = nn.ModuleDict({m: alignments[c.EA](c) for m in explained})
        if {"audio", "vision"} <= set(used):
            blocks = {"TA": TemporalAlignment, "concatenation": Concatenation, "Mamba": Mamba, "TCA": TCA}
            self.TA = blocks[c.TA](c)
        self.SMoE = SMoE(c)
        self.GF = GateFusion(len(used), c)
        self.classifier = nn.Sequential(
            wide_linear(c.d_model, c.d_model // 2),
            nn.ReLU(),
            nn.Dropout(c.dropout),
            nn.Linear(c.d_model // 2, head_width(spec)),
        )

    def derived_inputs(self) -> tuple[str, ...]:
        """The explanations of the modalities in use that the data has."""
        c = self.config
        names = [EXPLANATION_OF[LETTERS[letter]] for letter in c.modalities] if c.explanations else []
        return tuple(n for n in names if n in self.spec.derived and (c.comment or n != "comment"))

    def fit_statistics(self, train: Batch) -> None:
        for i, m in enumerate(MODALITIES):
            if m in self.used:
                standardise_of(self.tokens[m]).fit(train.features(m), train.valid(m) & train.present[:, i, None])
        for name in self.derived_inputs():
            values = told_derived(train, name)
            standardise_of(self.explanation_tokens[name]).fit(values, (values != 0).any(dim=2))

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        if modality not in self.used:
            return {}
        return {"F": self.encoder[modality](self.tokens[modality](x, lengths))}  # (N, K + 1, d)

    def encode_derived(self, name: str, values: Tensor) -> Part:
        require_features(name, values, self.spec.derived[name])
        steps = torch.arange(1, values.shape[1] + 1, device=values.device)
        lengths = ((values != 0).any(dim=2) * steps).amax(dim=1)  # up to the last step that is not zero
        return {"E": self.explanation_encoder(self.explanation_tokens[name](values, lengths))}  # (N, K + 1, d)

    def align(self, encoded: Encoded, m: str) -> Tensor:
        """E_m ``(N, K + 1, d)``: the modality aligned with its explanation, or as it is without one."""
        f = encoded.part(m)["F"]
        e: Tensor = self.EA[m](f, encoded.derived[EXPLANATION_OF[m]]["E"]) if m in self.EA else f  # eq. 1
        return e

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        e = {m: self.align(encoded, m) for m in self.used}
        if "audio" in e and "vision" in e:
            e["audio"], e["vision"] = self.TA(e["audio"], e["vision"])  # left, right
        aligned = torch.stack([e[m] for m in self.used], dim=1)  # (N, M, K + 1, d): E_t and E_av  eq. 4
        key = e["text"] if "text" in e else aligned.flatten(1, 2)
        x, gates = self.SMoE(aligned, key)  # (N, M, K + 1, d)
        z, weights = self.GF(x[:, :, 0])  # the tokens for aggregation alone
        prediction = scores_or_logits(self.classifier(z), self.spec)  # (N,) or (N, C)  eq. 5
        extras = {"gate": self._of_three(weights)}
        if gates:
            extras |= {"routing": gates[-1], "routing_layers": torch.cat(gates, dim=1)}
        return Output(prediction, extras)

    def _of_three(self, weights: Tensor) -> Tensor:
        """``(N, M)`` of the modalities in use as ``(N, 3)``, zero for the others."""
        columns = [MODALITIES.index(m) for m in self.used]
        return weights.new_zeros(len(weights), 3).index_copy(1, torch.tensor(columns, device=weights.device), weights)

    def active_parameters(self) -> int:
        """A sample passes top_k of the experts of each layer."""
        idle: int = self.config.num_experts - self.config.top_k
        experts = [layer.expert[0] for layer in self.SMoE.modules() if isinstance(layer, Experts)]
        return super().active_parameters() - idle * sum(p.numel() for e in experts for p in e.parameters())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task = sample_losses(self(batch).prediction, targets_of(batch, self.spec), "mse").mean()  # 2.1
        return {"total": task, "L_ce" if self.spec.num_classes else "L_mse": task}


def shares(lengths: Tensor, steps: int, tokens: int) -> Tensor:
    """Weights ``(N, tokens, steps)`` that average each token's share of the valid steps.

    Token k covers the time from k L / tokens to (k + 1) L / tokens; step t counts by how much of [t, t + 1) is in it.
    With L = tokens each token is its step; a sample with L = 0 has zeros.

    >>> shares(torch.tensor([3]), 4, 2)
    tensor([[[0.6667, 0.3333, 0.0000, 0.0000],
             [0.0000, 0.3333, 0.6667, 0.0000]]])
    """
    edges = lengths[:, None] * torch.arange(tokens + 1, device=lengths.device) / tokens  # (N, tokens + 1)
    t = torch.arange(steps, device=lengths.device)
    overlap = torch.minimum(edges[:, 1:, None], t + 1) - torch.maximum(edges[:, :-1, None], t)
    width = (edges[:, 1:] - edges[:, :-1])[..., None]
    return overlap.clamp(min=0) / width.clamp(min=torch.finfo(width.dtype).tiny)


def standardise_of(tokens: nn.Module) -> Standardise:
    assert isinstance(tokens, Tokens)
    return tokens.standardise


class Tokens(nn.Module):
    """``(N, T, d_in)`` raw features to ``(N, K + 1, d)``: the learnable token and K of the sequence (3.4)."""

    def __init__(self, d_in: int, c: TEXTConfig) -> None:
        super().__init__()
        self.tokens, self.tokens_from = c.tokens, c.tokens_from
        self.standardise = Standardise(d_in)
        self.project = nn.Linear(d_in, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        self.learnable = nn.Parameter(torch.randn(c.d_model) / math.sqrt(c.d_model))
        self.place = nn.Parameter(torch.randn(c.tokens, c.d_model) / math.sqrt(c.d_model))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.standardise(x, valid_steps(x, lengths))
        if self.tokens_from == "whole":
            x = shares(lengths, x.shape[1], self.tokens) @ x  # (N, K, d_in)
        else:
            x = F.pad(x[:, : self.tokens], (0, 0, 0, max(0, self.tokens - x.shape[1])))
        tokens = self.project(self.dropout(x)) + self.place  # (N, K, d)
        return torch.cat([self.learnable.expand(len(x), 1, -1), tokens], dim=1)


class Attention(nn.Module):
    """Scaled dot-product attention with several heads, queries ``(N, T, d)`` on ``(N, S, d)``: ``(N, T, d)``."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        inner = c.heads * c.d_head
        self.heads, self.dropout = c.heads, c.dropout
        self.q = nn.Linear(c.d_model, inner, bias=False)
        self.kv = nn.Linear(c.d_model, 2 * inner, bias=False)
        self.out = nn.Linear(inner, c.d_model)

    def forward(self, queries: Tensor, y: Tensor) -> Tensor:
        q = self.q(queries).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, d_head)
        k, v = self.kv(y).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, S, d_head)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        z: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return z


class TransformerLayer(nn.Module):
    """A pre-norm Transformer layer; what its feed-forward part needs besides x is passed on to it."""

    def __init__(self, c: TEXTConfig, ff: nn.Module) -> None:
        super().__init__()
        self.norm_attention, self.norm_ff = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)
        self.attention, self.ff, self.dropout = Attention(c), ff, nn.Dropout(c.dropout)

    def forward(self, x: Tensor, *routing: Tensor) -> Tensor:
        normal = self.norm_attention(x)
        x = x + self.dropout(self.attention(normal, normal))
        y: Tensor = x + self.dropout(self.ff(self.norm_ff(x), *routing))
        return y


def mlp(d: int, d_hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, d_hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(d_hidden, d))


def transformer(layers: int, c: TEXTConfig) -> nn.Sequential:
    return nn.Sequential(*(TransformerLayer(c, mlp(c.d_model, c.d_ff, c.dropout)) for _ in range(layers)))


class CrossAttention(nn.Module):
    """ca(F, E): each of the explanation's positions reads the feature's, ``(N, K + 1, d)``."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Linear(c.d_model, c.d_model, bias=False) for _ in range(3))

    def forward(self, f: Tensor, e: Tensor) -> Tensor:
        weights = (self.W_Q(e) @ self.W_K(f).transpose(1, 2)).softmax(dim=2)  # (N, K + 1, K + 1)
        z: Tensor = weights @ self.W_V(f)  # eq. 1
        return z


class CrossAttentionBlock(nn.Module):
    """Cross-attention as released: a Transformer layer whose queries, and residual, are the explanation."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.norm_e, self.norm_f, self.norm_ff = (nn.LayerNorm(c.d_model) for _ in range(3))
        self.attention, self.ff = Attention(c), mlp(c.d_model, c.d_ff, c.dropout)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, f: Tensor, e: Tensor) -> Tensor:
        z = e + self.dropout(self.attention(self.norm_e(e), self.norm_f(f)))
        y: Tensor = z + self.dropout(self.ff(self.norm_ff(z)))
        return y


class LinearAlignment(nn.Module):
    """EA <- Linear (table 2): a linear layer of feature and explanation at each position."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * c.d_model, c.d_model)

    def forward(self, f: Tensor, e: Tensor) -> Tensor:
        y: Tensor = self.linear(torch.cat([f, e], dim=2))
        return y


class TemporalAlignment(nn.Module):
    """E_a, E_v ``(N, K + 1, d)`` to left, right: each convolved in time and gated by the other."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.audio, self.vision = TemporalSide(c), TemporalSide(c)

    def forward(self, e_a: Tensor, e_v: Tensor) -> tuple[Tensor, Tensor]:
        (a, gate_a), (v, gate_v) = self.audio.project(e_a), self.vision.project(e_v)
        left = e_a + self.audio.L(self.audio.conv(a) * F.silu(gate_v))  # eq. 2
        right = e_v + self.vision.L(self.vision.conv(v) * F.silu(gate_a))  # eq. 3
        return left, right


class TemporalSide(nn.Module):
    """One side's layers: LN, Conv1d, L."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        width = c.expand * c.d_model
        self.split = c.TA_projection == "split"
        self.norm = nn.LayerNorm(c.d_model)
        self.linear = nn.Linear(c.d_model, 2 * width if self.split else width)
        self.conv = CausalConv(width, c.kernel)
        self.L = nn.Linear(width, c.d_model)

    def project(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """LN(E_m) for the convolution and for the other side's gate, each ``(N, K + 1, width)``."""
        y = self.linear(self.norm(e))
        if not self.split:
            return y, y
        to_conv, to_gate = y.chunk(2, dim=2)
        return to_conv, to_gate


class CausalConv(nn.Module):
    """Conv1d over positions, ``(N, T, width)``: each channel on its own, from the last ``kernel`` positions."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel - 1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        return y


class Concatenation(nn.Module):
    """TA <- concatenation (table 2): E_a and E_v as they are."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()

    def forward(self, e_a: Tensor, e_v: Tensor) -> tuple[Tensor, Tensor]:
        return e_a, e_v


class TCA(nn.Module):
    """TA <- TCA (table 2): temporal cross-attention, audio attends to vision and vision to audio."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.norm_a, self.norm_v = nn.LayerNorm(c.d_model), nn.LayerNorm(c.d_model)
        self.audio, self.vision = Attention(c), Attention(c)

    def forward(self, e_a: Tensor, e_v: Tensor) -> tuple[Tensor, Tensor]:
        a, v = self.norm_a(e_a), self.norm_v(e_v)
        return e_a + self.audio(a, v), e_v + self.vision(v, a)


class Mamba(nn.Module):
    """TA <- Mamba (table 2): one selective state-space block (Gu and Dao 2023) over [E_a; E_v].

    Per channel and state h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t.
    """

    STATES = 16

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        width, self.rank = c.expand * c.d_model, math.ceil(c.d_model / 16)
        self.norm, self.linear_in = nn.LayerNorm(c.d_model), nn.Linear(c.d_model, 2 * width)
        self.conv = CausalConv(width, c.kernel)
        self.select = nn.Linear(width, self.rank + 2 * self.STATES, bias=False)
        self.delta = nn.Linear(self.rank, width)
        self.log_A = nn.Parameter(torch.arange(1.0, self.STATES + 1).log().repeat(width, 1))  # A = -1 .. -16
        self.D = nn.Parameter(torch.ones(width))
        self.linear_out = nn.Linear(width, c.d_model)
        step = torch.exp(torch.empty(width).uniform_(math.log(1e-3), math.log(1e-1)))
        with torch.no_grad():
            self.delta.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step

    def forward(self, e_a: Tensor, e_v: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([e_a, e_v], dim=1)  # (N, 2 K + 2, d)
        u, gate = self.linear_in(self.norm(x)).chunk(2, dim=2)
        u = F.silu(self.conv(u))  # (N, 2 K + 2, width)
        x = x + self.linear_out(self.scan(u) * F.silu(gate))
        left, right = x.chunk(2, dim=1)
        return left, right

    def scan(self, u: Tensor) -> Tensor:
        """y ``(N, T, width)`` of the recurrence, one position after the other."""
        rank, b, c = self.select(u).split([self.rank, self.STATES, self.STATES], dim=2)
        delta = F.softplus(self.delta(rank))[..., None]  # (N, T, width, 1)
        h, y = u.new_zeros(len(u), u.shape[2], self.STATES), []
        for t in range(u.shape[1]):
            decay = torch.exp(-delta[:, t] * self.log_A.exp())  # (N, width, STATES)
            h = decay * h + delta[:, t] * u[:, t, :, None] * b[:, t, None]
            y.append((h * c[:, t, None]).sum(dim=2) + self.D * u[:, t])
        return torch.stack(y, dim=1)


class SMoE(nn.Module):
    """SMoE(E_t, E_av): Transformer layers whose feed-forward part is experts, chosen for the sample by its text."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        dense = c.SMoE == "Trans"
        self.by_token = c.route_by == "token"
        self.layers = nn.ModuleList(
            TransformerLayer(c, mlp(c.d_model, c.d_ff, c.dropout) if dense else Experts(c)) for _ in range(c.layers)
        )
        self.routers = nn.ModuleList(() if dense else (Router(c) for _ in range(c.layers)))
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, aligned: Tensor, key: Tensor) -> tuple[Tensor, list[Tensor]]:
        """aligned ``(N, M, K + 1, d)``, key ``(N, positions, d)``: the same shape as aligned, and gates a layer."""
        routed_by = key[:, 0] if self.by_token else key.mean(dim=1)  # (N, d)
        gates = [router(routed_by) for router in self.routers]  # each (N, E)
        x = aligned.flatten(1, 2)  # (N, M (K + 1), d)
        for i, layer in enumerate(self.layers):
            x = layer(x, *gates[i : i + 1])
        return self.norm(x).view_as(aligned), gates


class Router(nn.Module):
    """Noisy top-k gating: softmax over the k largest of x W_g + noise softplus(x W_noise), ``(N, d)`` to ``(N, E)``."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.top_k, self.as_released = c.top_k, c.as_released
        self.W_g = nn.Linear(c.d_model, c.num_experts, bias=False)
        self.W_noise = nn.Linear(c.d_model, c.num_experts, bias=False) if c.router_noise else None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.W_g(x)
        if self.W_noise is not None and (self.training or self.as_released):
            logits = logits + torch.randn_like(logits) * F.softplus(self.W_noise(x))
        top = logits.topk(self.top_k, dim=1)
        gates = torch.zeros_like(logits).scatter(1, top.indices, top.values.softmax(dim=1))
        if not self.as_released:
            return gates
        return within_capacity(gates, max(1, self.top_k * len(x) // logits.shape[1]))


def within_capacity(gates: Tensor, capacity: int) -> Tensor:
    """Gates ``(N, E)`` with zeros where ``capacity`` earlier samples of the batch chose the expert.

    >>> within_capacity(torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]]), 2)[:, 0].tolist()
    [0.5, 1.0, 0.0]
    """
    return gates * ((gates > 0).cumsum(dim=0) <= capacity)


class Experts(nn.Module):
    """sum_e g_e E_e(x): a sample's tokens go through the experts that its gates ``(N, E)`` chose, and no other."""

    def __init__(self, c: TEXTConfig) -> None:
        super().__init__()
        self.expert = nn.ModuleList(mlp(c.d_model, c.d_expert, c.dropout) for _ in range(c.num_experts))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.expert):
            rows = gates[:, e].nonzero().squeeze(1)
            y = y.index_add(0, rows, (gates[rows, e, None, None] * expert(x[rows])).to(y.dtype))
        return y


class GateFusion(nn.Module):
    """The tokens for aggregation ``(N, M, d)``, gated and summed to ``(N, d)``, and the gates ``(N, M)``."""

    def __init__(self, modalities: int, c: TEXTConfig) -> None:
        super().__init__()
        self.modalities = modalities
        self.kind = (
            "none" if c.no_gating or modalities == 1 else c.gate
        )  # a single token has nothing to be weighed with
        if self.kind == "softmax":
            self.gate = nn.Linear(modalities * c.d_model, modalities)
        elif self.kind == "sigmoid":
            self.gate = nn.Linear(c.d_model, c.d_model)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "none":
            return h.mean(dim=1), torch.full_like(h[..., 0], 1 / self.modalities)
        if self.kind == "softmax":
            g = self.gate(h.flatten(1)).softmax(dim=1)[..., None]  # (N, M, 1)
        else:
            g = torch.sigmoid(self.gate(h))  # (N, M, d)
        return (g * h).sum(dim=1), g.mean(dim=2)  # the gate of eq. 5
