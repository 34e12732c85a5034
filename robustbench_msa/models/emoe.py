"""EMOE: each modality is an expert, a router weighs them sample by sample. Equations 1 to 12.

Y. Fang, W. Huang, G. Wan, K. Su, M. Ye, "EMOE: Modality-Specific Enhanced Dynamic Emotion Experts". Symbols: N samples,
d = d_model, m in {text, audio, vision} (the paper's l, a, v), t the temperature. X_m and f_m are sequences
``(N, T_m, d)``, f'_m ``(N, d)`` vectors, W = (w_m) ``(N, 3)``; p is the width of f_c, d or 3 d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

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
class EMOEConfig:
    """The paper's numbers by default (sec. 4): alpha, lambda_1, lambda_2, temperature.

    Ablations. Table 4: no_MoME (w_m = 1/3, no router, so no L_balance) and no_UD (no L_ud), both for its first row;
    L_uni belongs to the task (eq. 12) and stays. Table 5: no_RE (no L_entropy), no_WIS (no L_sim). Table 6: fusion,
    "sum" or "concat". Figure 4: alpha, lambda_1, lambda_2, temperature.

    The paper against its released code, ``as_released=True``:

    ============================  =======================================  ========================================
    what                          paper (default)                          as_released
    ============================  =======================================  ========================================
    router's input (eq. 1)        f_m, averaged over the valid steps       x_m itself, router_steps steps, flattened
    router's layers (eq. 1)       Linear, batch norm, ReLU, Linear         Linear, L2 norm per sample, ReLU, Linear
    alpha_i (eq. 1)               one learned factor a modality            none
    E_m                           a 1 x 1 convolution for each modality    one that the three share
    transformers, f'_m            each step sees all; mean of valid steps  causal; the last valid step
    importance I (eq. 5)          softmax(1 / (c_m + epsilon))             1 / (c_m + 0.1), scaled to sum to one
    L_sim (eq. 6)                 sum over m of S                          mean over m of the squared difference
    f_c, fusion "concat" (eq. 3)  [w_m f'_m]                               3 [w_m f'_m]
    D (eq. 11)                    KL divergence of softmaxes               mean squared difference of softmaxes
    ============================  =======================================  ========================================

    Not taken from the release in either column: unpadded convolutions and raw inputs (here zeros pad, so that one step
    is enough, and inputs are standardised), steps of gradients added up over ten batches, a rate halved on plateaus, a
    BERT trained along, learned maps over time where sequences are longer than router_steps (here later steps are cut
    for the router alone). The flattened width is router_steps times the three feature dimensions, whatever T is.

    Options where the paper is silent or contradicts itself (as_released has its own of the first four):

    similarity: S of eq. 6, smaller for the more alike since it is minimised; "squared" (w_m - I_m)^2, or "kl"
        I_m log(I_m / w_m), which sums to the divergence of W from I.
    distilled: z of eq. 10-11 are called logits, but a score has one (nothing for a softmax), and eq. 10 concatenates
        them: "features" are the heads' vectors before the score (sec. 1: "multimodal predictive features"); "logits"
        are the predicted scores with a squared difference as D, for fusion "sum" alone (classes: see below).
    divergence: D of eq. 11 between softmaxes of features; "kl" (of the paper's reference for distillation) or "mse".
    teacher: sec. 3.3 announces distillation "from the multimodal to the unimodal" and eq. 11 points that way, but the
        aim, stated in 1 and around eq. 11, is that the multimodal takes up what single modalities know: "unimodal", the
        weighted mix of eq. 10 is the teacher (its gradient stopped, W's too); "multimodal", the other way round.
    router_hidden: width of the router's first layer, 0 for an eighth of its input as released.

    Classes (MIntRec, table 3; the release has no code for it): each head gives C logits, eq. 4 and 9 are
    cross-entropies, and y of eq. 5 is in R^C (sec. 3.1): c_m is the squared distance of the softmax of y-hat_m from the
    one-hot y, in [0, 2]. Classes do have logits, so distilled="logits" is eq. 10-11 to the letter there, with D as
    ``divergence`` says between softmaxes; the preset "mintrec" has it.

    Decided without an option: I carries no gradient (W is "to best fit" it). The router's last layer starts at t times
    PyTorch's default, so that a low t does not start from the "catastrophic disproportion" of sec. 4.2 (as_released:
    PyTorch's). Transformers end in a LayerNorm, taken after the steps are averaged: taken before, it scales each step
    by its own noise. Heads are z = h + MLP(h) and a linear score, as released; the MLP starts from weights of std
    2 / sqrt(d), for the reason in ``layers.wide_linear``. The losses do not ask what is present. A training batch of
    one uses batch norm's running statistics. Widths, depths, kernels and dropouts (dropout_text acts on text's
    features) are the release's for MOSI and MOSEI: the paper gives none.
    """

    d_model: int = 256
    layers: int = 4
    heads: int = 8
    kernel_text: int = 5
    kernel_audio: int = 5
    kernel_vision: int = 5
    dropout_text: float = 0.5
    attention_dropout_text: float = 0.3
    attention_dropout_audio: float = 0.2
    attention_dropout_vision: float = 0.0
    embed_dropout: float = 0.2
    output_dropout: float = 0.5
    router_hidden: int = 0
    router_steps: int = 50
    temperature: float = 0.1
    alpha: float = 0.1
    lambda_1: float = 0.1
    lambda_2: float = 0.1
    epsilon: float = 1e-8
    fusion: str = "sum"
    similarity: str = "squared"
    distilled: str = "features"
    divergence: str = "kl"
    teacher: str = "unimodal"
    as_released: bool = False
    no_MoME: bool = False
    no_UD: bool = False
    no_RE: bool = False
    no_WIS: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            require_choice(f"emoe: {name}", getattr(self, name), choices)
            if self.as_released and name != "fusion" and getattr(self, name) != choices[0]:
                raise InputError(f"emoe: as_released has its own {name}; leave it at its default, {choices[0]!r}")
        if self.distilled == "logits" and self.fusion == "concat":
            raise InputError("emoe: distilled='logits' needs fusion='sum': a score cannot be compared with three")
        if self.d_model % 2 or self.d_model % self.heads:
            raise InputError(f"emoe: d_model must be even and a multiple of heads={self.heads}; got {self.d_model}")
        for m in MODALITIES:
            if (kernel := getattr(self, f"kernel_{m}")) < 1 or kernel % 2 == 0:
                raise InputError(f"emoe: kernel_{m} must be odd, so that it has a middle; got {kernel}")
        for name in _DROPOUTS:
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"emoe: {name} must be at least 0 and below 1; got {getattr(self, name)}")
        if not (self.temperature > 0 and self.epsilon > 0):
            raise InputError(f"emoe: temperature and epsilon must be above 0; got {self.temperature}, {self.epsilon}")
        if self.layers < 1 or self.router_steps < 1 or self.router_hidden < 0:
            got = f"{self.layers}, {self.router_steps}, {self.router_hidden}"
            raise InputError(f"emoe: layers and router_steps must be at least 1, router_hidden at least 0; got {got}")


_CHOICES: dict[str, tuple[str, ...]] = {
    "fusion": ("sum", "concat"),
    "similarity": ("squared", "kl"),
    "distilled": ("features", "logits"),
    "divergence": ("kl", "mse"),
    "teacher": ("unimodal", "multimodal"),
}
_DROPOUTS = ("dropout_text", *(f"attention_dropout_{m}" for m in MODALITIES), "embed_dropout", "output_dropout")
_MOSI = EMOEConfig()
_MOSEI = replace(
    _MOSI,
    kernel_audio=1,
    kernel_vision=3,
    dropout_text=0.3,
    attention_dropout_text=0.4,
    attention_dropout_audio=0.0,
    embed_dropout=0.0,
)
_MINTREC = replace(_MOSI, distilled="logits")
_SYNTH = replace(
    _MOSI,
    d_model=32,
    layers=1,
    heads=4,
    kernel_text=3,
    kernel_audio=3,
    kernel_vision=3,
    dropout_text=0.2,
    attention_dropout_text=0.1,
    attention_dropout_audio=0.1,
    attention_dropout_vision=0.1,
    output_dropout=0.1,
    router_hidden=32,
)
_SEC4 = Optimisation("adam", 1e-4, batch_size=16, epochs=50)  # the optimiser and its rate are the release's


class Heads(NamedTuple):
    """What the heads give: w and y_m ``(N, 3)``, z_m ``(N, 3, d)``, z ``(N, p)``, y ``(N,)``.

    Of classes y_m ``(N, 3, C)`` and y ``(N, C)`` are logits.
    """

    w: Tensor
    z_m: Tensor
    y_m: Tensor
    z: Tensor
    y: Tensor


class EMOE(MSAModel):
    """x_m -> convolution -> f_m -> transformer -> f'_m; a router on all f_m weighs the f'_m; four heads.

    The paper's model is never told what is missing, so ``present`` is not read: what is told absent comes in as one
    step of zeros, and its weight w_m is whatever the router makes of that.

    A Part holds "f_high" f'_m and "route", what the modality adds to the router's first layer: a Linear of a
    concatenation is the sum of a Linear for each member.

    Extras: "routing" W ``(N, 3)`` and "unimodal", the single-modality predictions ``(N, 3)``; of classes their logits,
    "unimodal_logits" ``(N, 3 C)`` (text's classes, audio's, vision's).
    """

    name: ClassVar[str] = "emoe"
    paper: ClassVar[str] = "EMOE (Fang et al., CVPR 2025)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[EMOEConfig]] = EMOEConfig
    presets: ClassVar[Mapping[str, EMOEConfig]] = {"mosi": _MOSI, "mosei": _MOSEI, "mintrec": _MINTREC, "synth": _SYNTH}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _SEC4,
        "mosei": _SEC4,
        "mintrec": _SEC4,
        "synth": Optimisation("adamw", 2e-3, 0.5, batch_size=16, epochs=30, grad_clip=1.0, schedule="cosine"),
    }

    def __init__(self, spec: InputSpec, config: EMOEConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, d, dims = config, config.d_model, dict(zip(MODALITIES, spec.dims, strict=True))
        self.standardise = nn.ModuleDict({m: Standardise(dims[m]) for m in MODALITIES})
        self.conv = nn.ModuleDict({m: _convolution(dims[m], d, getattr(c, f"kernel_{m}")) for m in MODALITIES})
        self.encoder = nn.ModuleDict({name: nn.Linear(d, d, bias=False) for name in self._encoder_names()})  # E_m
        self.transformer = nn.ModuleDict({m: Transformer(c, getattr(c, f"attention_dropout_{m}")) for m in MODALITIES})
        self.router: Router | None = None
        if not c.no_MoME:
            self.router = Router({m: c.router_steps * dims[m] if c.as_released else d for m in MODALITIES}, c)
        outputs = head_width(spec)
        self.head = nn.ModuleDict({m: Head(d, outputs, c.output_dropout) for m in MODALITIES})
        self.fused_head = Head(3 * d if c.fusion == "concat" else d, outputs, c.output_dropout)
        self.dropout_text = nn.Dropout(c.dropout_text)

    def _encoder_names(self) -> tuple[str, ...]:
        return ("shared",) if self.config.as_released else MODALITIES

    def fit_statistics(self, train: Batch) -> None:
        fit_standardisers((s for s in self.standardise.values() if isinstance(s, Standardise)), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        c = self.config
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        x = self.standardise[modality](x, valid_steps(x, lengths))
        lengths = lengths.clamp(min=1)  # a sample without any step is one step of zeros
        valid = valid_steps(x, lengths)  # (N, T)
        f = self.low_level(modality, x).masked_fill(~valid[..., None], 0.0)  # (N, T, d)
        part = {"f_high": self.transformer[modality](f, valid, lengths)}  # (N, d)
        if self.router is not None:
            seen = flatten_steps(x, c.router_steps) if c.as_released else masked_mean(f, valid)
            part["route"] = self.router.first[modality](seen)  # (N, hidden)
        return part

    def low_level(self, modality: str, x: Tensor) -> Tensor:
        """f_m = E_m(X_m), ``(N, T, d)``; X_m is the temporal convolution of x ``(N, T, d_m)``."""
        x = self.dropout_text(x) if modality == "text" else x
        convolved = self.conv[modality](x.transpose(1, 2)).transpose(1, 2)
        f: Tensor = self.encoder["shared" if self.config.as_released else modality](convolved)
        return f

    def predict(self, encoded: Encoded) -> Heads:
        c, parts = self.config, [encoded.part(m) for m in MODALITIES]
        f_high = torch.stack([part["f_high"] for part in parts], dim=1)  # (N, 3, d)
        w = torch.full_like(f_high[..., 0], 1 / 3)
        if self.router is not None:
            w = self.router(torch.stack([part["route"] for part in parts]).sum(dim=0))  # (N, 3)  eq. 1
        f_c = combine(f_high, w, c.fusion)  # (N, p)  eq. 2-3
        if c.as_released and c.fusion == "concat":
            f_c = 3 * f_c
        z, y = self.fused_head(f_c)
        z_m, y_m = zip(*(self.head[m](f_high[:, i]) for i, m in enumerate(MODALITIES)), strict=True)
        scores, score = (scores_or_logits(x, self.spec) for x in (torch.stack(y_m, dim=1), y))
        return Heads(w, torch.stack(z_m, dim=1), scores, z, score)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        heads = self.predict(encoded)
        if self.spec.num_classes:
            return Output(heads.y, {"routing": heads.w, "unimodal_logits": heads.y_m.flatten(1)})
        return Output(heads.y, {"routing": heads.w, "unimodal": heads.y_m})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 12 under "total", with every term it is made of; what is ablated is 0."""
        c, y = self.config, targets_of(batch, self.spec)
        heads = self.predict(self.encode(batch))
        off = heads.w.new_zeros(())
        l_multi = sample_losses(heads.y, y, "l1").mean()  # eq. 4
        l_uni = self.unimodal_losses(heads.y_m, y).mean()  # eq. 9: over samples, then over the three
        l_entropy = off if c.no_MoME or c.no_RE else entropy_loss(heads.w, c.epsilon)
        l_sim = off if c.no_MoME or c.no_WIS else similarity_loss(heads.w, self.importance(heads.y_m, y), c)
        l_balance = l_entropy + c.alpha * l_sim  # eq. 8
        l_ud = off if c.no_UD else distillation_loss(heads, c)
        return {
            "total": l_multi + l_uni + c.lambda_1 * l_balance + c.lambda_2 * l_ud,  # eq. 12
            "L_multi": l_multi,
            "L_uni": l_uni,
            "L_entropy": l_entropy,
            "L_sim": l_sim,
            "L_balance": l_balance,
            "L_ud": l_ud,
        }

    def unimodal_losses(self, y_m: Tensor, y: Tensor) -> Tensor:
        """The task loss of each single-modality prediction ``(N, 3)`` or ``(N, 3, C)``: ``(N, 3)``."""
        if self.spec.num_classes:
            return F.cross_entropy(y_m.flatten(0, 1), y.repeat_interleave(3), reduction="none").view(-1, 3)
        return (y[:, None] - y_m).abs()

    def importance(self, y_m: Tensor, y: Tensor) -> Tensor:
        """I ``(N, 3)``, without gradient, from the unimodal predictions (or logits) and the labels ``(N,)``."""
        if self.spec.num_classes:
            one_hot = F.one_hot(y, self.spec.num_classes)[:, None]  # (N, 1, C)
            c_m = (one_hot - y_m.detach().softmax(dim=2)).square().sum(dim=2)  # eq. 5
        else:
            c_m = (y[:, None] - y_m.detach()).square()  # eq. 5
        return released_importance(c_m) if self.config.as_released else importance(c_m, self.config.epsilon)


def importance(c_m: Tensor, epsilon: float) -> Tensor:
    """I ``(N, 3)`` from squared errors: one-hot as soon as one modality errs by little, since 1 / c_m is unbounded.

    >>> [round(x, 4) for x in importance(torch.tensor([[1.0, 0.5, 1.0]]), 0.0)[0].log().diff().tolist()]
    [1.0, -1.0]
    """
    return (1 / (c_m + epsilon)).softmax(dim=1)  # eq. 5


def released_importance(c_m: Tensor) -> Tensor:
    """The release's I ``(N, 3)``, proportional to 1 / (c_m + 0.1).

    >>> [round(x, 4) for x in released_importance(torch.tensor([[0.1, 0.3, 0.3]]))[0].tolist()]
    [0.5, 0.25, 0.25]
    """
    inverse = 1 / (c_m + 0.1)
    return inverse / inverse.sum(dim=1, keepdim=True)


def similarity_loss(w: Tensor, importance: Tensor, c: EMOEConfig) -> Tensor:
    """How far W ``(N, 3)`` is from the importance ``(N, 3)``, the mean over samples."""
    if c.as_released:
        return (w - importance).square().mean(dim=1).mean()
    if c.similarity == "kl":
        s = importance * torch.log((importance + c.epsilon) / (w + c.epsilon))
    else:
        s = (w - importance).square()
    return s.sum(dim=1).mean()  # eq. 6


def entropy_loss(w: Tensor, epsilon: float) -> Tensor:
    """Three times the negative entropy of W ``(N, 3)``, the mean over samples: least where all weigh the same.

    >>> round(entropy_loss(torch.tensor([[0.5, 0.5, 0.0]]), 1e-8).item(), 4) == round(-3 * math.log(2), 4)
    True
    """
    return (w.shape[1] * (w * torch.log(w + epsilon)).sum(dim=1)).mean()  # eq. 7


def combine(h: Tensor, w: Tensor, fusion: str) -> Tensor:
    """h ``(N, 3, d)`` weighed by w ``(N, 3)`` and summed, ``(N, d)``, or side by side, ``(N, 3 d)``.

    >>> h, w = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[0.5, 0.25, 0.25]])
    >>> combine(h, w, "sum").tolist(), combine(h, w, "concat").tolist()
    ([[2.0]], [[0.5, 0.5, 1.0]])
    """
    weighed = w[..., None] * h
    return weighed.sum(dim=1) if fusion == "sum" else weighed.flatten(1)  # eq. 2, eq. 3, eq. 10


def distillation_loss(heads: Heads, c: EMOEConfig) -> Tensor:
    """One-way distillation between the fused head and the weighted single-modality heads: the teacher is fixed."""
    scores = heads.y.ndim == 1
    z_m, z = (heads.z_m, heads.z) if c.distilled == "features" else (heads.y_m, heads.y)
    if c.distilled == "logits" and scores:
        z_m, z = z_m[..., None], z[:, None]
    z_uni = combine(z_m, heads.w, c.fusion)  # (N, p)  eq. 10
    student, teacher = (z, z_uni.detach()) if c.teacher == "unimodal" else (z_uni, z.detach())
    if c.distilled == "logits" and scores:
        return (student - teacher).square().mean()  # eq. 11
    if c.as_released or c.divergence == "mse":
        return (student.softmax(dim=1) - teacher.softmax(dim=1)).square().mean()  # eq. 11
    log_p, log_q = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)  # eq. 11: KL(p || q)


def flatten_steps(x: Tensor, steps: int) -> Tensor:
    """The first ``steps`` steps of x ``(N, T, d)`` in a row, ``(N, steps d)``; zeros where T is less.

    >>> flatten_steps(torch.tensor([[[1.0], [2.0]]]), 3).tolist()
    [[1.0, 2.0, 0.0]]
    """
    return F.pad(x[:, :steps], (0, 0, 0, max(0, steps - x.shape[1]))).flatten(1)


class Router(nn.Module):
    """G of eq. 1. ``first`` holds each modality's share of the first layer; ``forward`` does the rest on their sum."""

    def __init__(self, widths: dict[str, int], c: EMOEConfig) -> None:
        super().__init__()
        hidden = c.router_hidden or max(1, sum(widths.values()) // 8)
        self.temperature = c.temperature
        self.first = nn.ModuleDict({m: _share(width, sum(widths.values()), hidden) for m, width in widths.items()})
        self.norm: nn.Module = UnitNorm(hidden) if c.as_released else RunningBatchNorm(hidden)
        self.last = nn.Linear(hidden, len(widths))  # h_i
        self.alpha = None if c.as_released else nn.Parameter(torch.ones(len(widths)))
        if not c.as_released:
            with torch.no_grad():
                self.last.weight.mul_(c.temperature)
                self.last.bias.mul_(c.temperature)

    def forward(self, shares: Tensor) -> Tensor:
        """W ``(N, 3)`` from the sum of the modalities' shares ``(N, hidden)``."""
        h = self.last(F.relu(self.norm(shares)))  # (N, 3)
        h = h if self.alpha is None else self.alpha * h
        w: Tensor = (h / self.temperature).softmax(dim=1)  # eq. 1
        return w


class RunningBatchNorm(nn.BatchNorm1d):
    """Batch norm that trains on a batch of one with the running statistics: one sample has no variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class UnitNorm(nn.Module):
    """x + bias, each row scaled to length one: the release's first layer has a bias and no batch norm."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x + self.bias, dim=1)


class Head(nn.Module):
    """A prediction head: h ``(N, d)`` to its last features z = h + MLP(h) ``(N, d)`` and ``(N, outputs)``."""

    def __init__(self, d: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(wide_linear(d, d, 2.0), nn.ReLU(), nn.Dropout(dropout), wide_linear(d, d, 2.0))
        self.score = nn.Linear(d, outputs)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        z = h + self.mlp(h)
        return z, self.score(z)


class Transformer(nn.Module):
    """f_m ``(N, T, d)`` with its valid steps to f'_m ``(N, d)``: pre-norm layers on sinusoidal positions."""

    def __init__(self, c: EMOEConfig, attention_dropout: float) -> None:
        super().__init__()
        self.causal = c.as_released
        self.blocks = nn.ModuleList(Block(c.d_model, c.heads, attention_dropout) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.d_model)
        self.dropout = nn.Dropout(c.embed_dropout)

    def forward(self, f: Tensor, valid: Tensor, lengths: Tensor) -> Tensor:
        steps, d = f.shape[1:]
        h = self.dropout(math.sqrt(d) * f + sinusoidal_positions(steps, d, f.device))
        sees = valid[:, None, None, :]  # (N, 1, 1, T): keys that a query may attend to
        if self.causal:
            sees = sees & torch.ones(steps, steps, dtype=torch.bool, device=f.device).tril()  # (N, 1, T, T)
        for block in self.blocks:
            h = block(h, sees)
        last = h[torch.arange(len(h), device=h.device), lengths - 1]
        f_high: Tensor = self.norm(last if self.causal else masked_mean(h, valid))  # (N, d)
        return f_high


class Block(nn.Module):
    """One pre-norm layer on ``(N, T, d)``: attention to the steps that may be seen, then 4 d rectified units."""

    def __init__(self, d: int, heads: int, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.norm_attention, self.norm_ff = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor, sees: Tensor) -> Tensor:
        x = x + self.out(self.attend(self.norm_attention(x), sees))
        y: Tensor = x + self.narrow(F.relu(self.widen(self.norm_ff(x))))
        return y

    def attend(self, x: Tensor, sees: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, T, d / heads)
        p = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=sees, dropout_p=p)
        return mixed.transpose(1, 2).flatten(2)  # (N, T, d)


def sinusoidal_positions(steps: int, d: int, device: torch.device) -> Tensor:
    """``(steps, d)``, d even: sines, then cosines, of t / 10000^(2 i / d) for i = 0 .. d/2 - 1 (Vaswani et al. 2017).

    >>> sinusoidal_positions(1, 4, torch.device("cpu")).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    frequency = torch.exp(torch.arange(0, d, 2, device=device) * (-math.log(10000.0) / d))  # (d / 2,)
    angle = torch.arange(steps, device=device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _convolution(d_in: int, d: int, kernel: int) -> nn.Conv1d:
    return nn.Conv1d(d_in, d, kernel, padding=kernel // 2, bias=False)


def _share(width: int, total: int, hidden: int) -> nn.Linear:
    """One member's part of a Linear(total, hidden), with the weights PyTorch would start the whole with."""
    layer = nn.Linear(width, hidden, bias=False)
    nn.init.uniform_(layer.weight, -1 / math.sqrt(total), 1 / math.sqrt(total))
    return layer
