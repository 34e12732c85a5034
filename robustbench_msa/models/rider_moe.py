"""RIDER-MoE: reliability-aware routing among uniqueness, redundancy and synergy experts. Equations 1 to 3 and 21 to 52.

"RIDER-MoE: Reliability-Aware Expert Routing for Robust Multimodal Sentiment Analysis" (anonymous ACL submission).
Symbols: N samples, d = d_model, K probe classes, P views (full, -T, -A, -V), E = 5 experts in the order of ``EXPERTS``.
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
    SequenceEncoder,
    discretise,
    encoders,
    fit_standardisers,
    head_width,
    require_choice,
    require_features,
    require_text_features,
    sample_losses,
    scores_or_logits,
    targets_of,
)

EXPERTS: tuple[str, ...] = ("U_T", "U_A", "U_V", "R", "S")
R, S = 3, 4
VIEWS: tuple[str, ...] = ("0", "-T", "-A", "-V")
_SIZES = ("d_model", "expert_layers", "expert_heads", "d_ff")
_WEIGHTS = ("lambda_p", "lambda_cls", "lambda_PID", "lambda_syn")


@dataclass(frozen=True)
class RIDERMoEConfig:
    """The paper's numbers for CMU-MOSI by default (C.5). Where it is silent or contradicts itself, an option:

    mask: MASK_m is "a fixed or randomly sampled vector" (B.2): "fixed" is zero (the mean of a normalised h_m),
        "random" is drawn once when the model is built and kept, "learned" is trained.
    r_bar: "as_written" (eq. 29) is 1/3 for every sample, because the r_m sum to one; "unnormalised" is the mean of
        1 - H_m / log K, which does what the text wants of it: large where all three modalities are reliable.
    detach_r: the paper does not say whether r_m and r_bar carry gradients when they weigh eq. 44, 46, 48 and 51; as
        written they do (False).
    probe_absent: whether the probe of a modality that is told absent (and so sees MASK_m) is trained too. The paper
        trains on complete data: its probes never see MASK_m in training (False).
    fused_token: the experts are Transformers and need a sequence. f_fuse gives four tokens: one a modality and one
        that the experts read out, a learned vector plus an MLP of [h_T; h_A; h_V] ("mlp") or that vector alone
        ("learned").
    conv_layers, normalise: the sequence encoder's (layers.SequenceEncoder); the paper does not describe g_m.

    Classes (the paper has none): each expert gives C logits, y_e in R^C, and eq. 1 mixes them; L_task is the
    cross-entropy. The probes see the classes themselves, so their K is C, whatever K says. A squared difference of
    expert outputs (eq. 43, 46, 48) becomes the mean of C squares, so that its weight means the same for any C; a silent
    S has logits of zero. Eq. 50-51 are (y - (sg(rest) + pi_S y_S))^2, the squared error of the whole with all but S
    held fixed: here the cross-entropy of the whole with all but S held fixed.

    Every row of the paper's studies, as ``msabench train --model rider_moe --set ...`` (``--set`` once for each name):

    | row | switch |
    | --- | --- |
    | table 3, RIDER-MoE (Full) | lambda_p=1.0 lambda_PID=0.05 lambda_syn=0.05 |
    | table 3, w/o prior injection | lambda_p=0 |
    | table 3, w/o consensus term in prior | no_consensus=true |
    | table 3, w/o DIR | lambda_PID=0 lambda_syn=0 |
    | table 3, w/o L_PID | no_L_PID=true |
    | table 3, w/o L_syn | no_L_syn=true |
    | table 3, w/o L_syn-off | no_L_syn_off=true |
    | table 3, w/o L_syn-res | no_L_syn_res=true |
    | table 3, w/o masked views | no_masked_views=true |
    | table 3, expert collapse: single expert | single_expert=true |
    | table 4, sweep of lambda_p | lambda_p=0.25, and 0, 0.5, 0.75, 1.0, 1.5, 2.0 |
    | table 5, sweep of both weights | lambda_PID=0.01 lambda_syn=0.01, and 0, 0.03, 0.05, 0.08, 0.10 |
    | table 5, sweep of their ratio | lambda_PID=0.02 lambda_syn=0.05, and 0.05 0.02, 0.02 0.08, 0.08 0.02 |

    The other rows of tables 4 and 5 are rows of table 3. no_masked_views: L_PID and L_syn_off have no views to compare;
    L_syn_res needs the full view alone and stays. single_expert: one head of about the five's parameters; no router
    and no DIR, the probes stay. Layers that a switch leaves unused stay in the weights and get no gradient: the prior
    at lambda_p=0; importance, prior and router of the single expert.

    Presets: C.5 has CMU-MOSI and CMU-MOSEI. The paper has no CH-SIMS; "sims" is the setting of CMU-MOSI, the set of
    its size. Labels in [-1, 1] are discretised to K equidistant levels all the same.
    """

    d_model: int = 128
    expert_layers: int = 4
    expert_heads: int = 4
    d_ff: int = 256
    dropout: float = 0.3
    K: int = 7
    alpha: float = 0.7
    gamma: float = 1.0
    lambda_p: float = 1.0
    lambda_cls: float = 0.05
    lambda_PID: float = 0.05
    lambda_syn: float = 0.05
    epsilon: float = 1e-8
    mask: str = "fixed"
    r_bar: str = "as_written"
    detach_r: bool = False
    probe_absent: bool = False
    fused_token: str = "mlp"
    conv_layers: int = 0
    normalise: bool = True
    no_consensus: bool = False
    no_L_PID: bool = False
    no_L_syn: bool = False
    no_L_syn_off: bool = False
    no_L_syn_res: bool = False
    no_masked_views: bool = False
    single_expert: bool = False

    def __post_init__(self) -> None:
        require_choice("rider_moe: mask", self.mask, ("fixed", "random", "learned"))
        require_choice("rider_moe: r_bar", self.r_bar, ("as_written", "unnormalised"))
        require_choice("rider_moe: fused_token", self.fused_token, ("mlp", "learned"))
        for names, least in ((_SIZES, 1), (("K",), 2), (("conv_layers", *_WEIGHTS), 0)):
            for name in names:
                if getattr(self, name) < least:
                    raise InputError(f"rider_moe: {name} must be at least {least}; got {getattr(self, name)}")
        for name in ("gamma", "epsilon"):
            if getattr(self, name) <= 0:
                raise InputError(f"rider_moe: {name} must be greater than 0; got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"rider_moe: dropout must be at least 0 and below 1; got {self.dropout}")
        if self.d_model % self.expert_heads:
            raise InputError(f"rider_moe: expert_heads={self.expert_heads} must divide d_model={self.d_model}")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"rider_moe: alpha must be between 0 and 1 (eq. 28); got {self.alpha}")


_MOSI = RIDERMoEConfig()
_MOSEI = replace(_MOSI, d_model=512, expert_layers=8, expert_heads=8, d_ff=1024, lambda_cls=0.1)
_SYNTH = replace(_MOSI, d_model=32, expert_layers=2, d_ff=64)
_C5 = Optimisation("adamw", 3e-4, 5e-4, batch_size=32, epochs=60)  # C.5 gives neither schedule nor clipping


class Probes(NamedTuple):
    """What the unimodal probes say: logits and p ``(N, 3, K)``, entropy H ``(N, 3)``."""

    logits: Tensor
    p: Tensor
    entropy: Tensor


class Routing(NamedTuple):
    """Routing quantities, from the full view only: pi ``(N, E)``, r ``(N, 3)``, r_bar and consensus ``(N,)``."""

    pi: Tensor
    r: Tensor
    r_bar: Tensor
    consensus: Tensor


class RIDERMoE(MSAModel):
    """Five scalar experts on four tokens, mixed by a router that a prior of reliability and consensus biases.

    A modality that is told absent has MASK_m in place of h_m, for the fusion and for its probe (C.2 replaces the
    encoder's output). The probe never saw MASK_m in training, so the entropy it gives there, and with it r_m, is
    arbitrary: one constant per checkpoint, not a measured unreliability.

    Extras: "routing" pi ``(N, 5)`` and "experts" y_e ``(N, 5)`` in the order of EXPERTS (one column each for
    single_expert; no "experts" where they give logits), "r" ``(N, 3)``, "consensus" ``(N,)``, "entropy" ``(N, 3)``. The
    experts' outputs in the masked views are no extra but a method, ``masked_views``.
    """

    name: ClassVar[str] = "rider_moe"
    paper: ClassVar[str] = "RIDER-MoE (anonymous)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[RIDERMoEConfig]] = RIDERMoEConfig
    presets: ClassVar[Mapping[str, RIDERMoEConfig]] = {
        "mosi": _MOSI,
        "mosei": _MOSEI,
        "sims": _MOSI,
        "synth": _SYNTH,
    }
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _C5,
        "mosei": replace(_C5, learning_rate=5e-4, weight_decay=1e-4),
        "sims": _C5,
        "synth": _C5,
    }

    mask: Tensor

    def __init__(self, spec: InputSpec, config: RIDERMoEConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, d = config, config.d_model
        self.encoder = encoders(spec, d, c.dropout, c.conv_layers, c.normalise)  # g_m
        mask = torch.randn(3, d) if c.mask == "random" else torch.zeros(3, d)
        if c.mask == "learned":
            self.mask = nn.Parameter(mask)
        else:
            self.register_buffer("mask", mask)
        self.K = spec.num_classes or c.K
        self.probe = nn.ModuleDict({m: nn.Linear(d, self.K) for m in MODALITIES})
        self.f_fuse = Fusion(d, c.dropout, c.fused_token)
        width = 5 * c.d_ff + 8 * d if c.single_expert else c.d_ff  # as many weights as the five: 5 (4 d^2 + 2 d d_ff)
        self.experts = TransformerExperts(
            1 if c.single_expert else 5, c.expert_layers, c.expert_heads, d, width, c.dropout, head_width(spec)
        )
        self.importance = nn.Linear(4 * d, 3)
        self.prior = nn.Linear(3 if c.no_consensus else 4, 5)
        self.router = nn.Sequential(nn.Linear(4 * d, d), nn.GELU(), nn.Dropout(c.dropout), nn.Linear(d, 5))

    def fit_statistics(self, train: Batch) -> None:
        fit_standardisers((e.standardise for e in self.encoder.values() if isinstance(e, SequenceEncoder)), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        return {"h": self.encoder[modality](x, lengths)}  # (N, d)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        h = self.replace_absent(encoded, present)  # (N, 3, d)
        probes = self.probe_modalities(h)
        z = self.f_fuse(h)  # (N, 4, d)  z^(0)
        y = self.expert_outputs(z)  # (N, E), or (N, E, C)
        routing = self.route(z, probes)
        prediction = mixed(routing.pi, y)  # (N,), or (N, C)
        experts = {} if self.spec.num_classes else {"experts": y}
        return Output(
            prediction,
            {
                "routing": routing.pi,
                **experts,
                "r": routing.r,
                "consensus": routing.consensus,
                "entropy": probes.entropy,
            },
        )

    def expert_outputs(self, z: Tensor) -> Tensor:
        """y_e from tokens z ``(N, 4, d)``: scalars ``(N, E)``, or logits ``(N, E, C)``."""
        return scores_or_logits(self.experts(z), self.spec)

    def replace_absent(self, encoded: Encoded, present: Tensor) -> Tensor:
        """h ``(N, 3, d)`` with MASK_m where modality m is told absent (C.2)."""
        h = torch.stack([encoded.part(m)["h"] for m in MODALITIES], dim=1)
        return torch.where(present[..., None], h, self.mask)

    def probe_modalities(self, h: Tensor) -> Probes:
        logits = torch.stack([self.probe[m](h[:, i]) for i, m in enumerate(MODALITIES)], dim=1)  # (N, 3, K)  eq. 21
        p = logits.softmax(dim=2)  # eq. 22
        return Probes(logits, p, entropy(p, self.config.epsilon))

    def route(self, z: Tensor, probes: Probes) -> Routing:
        """Eq. 25 to 39, from the full view's tokens z ``(N, 4, d)`` and the probes."""
        c = self.config
        z = z.flatten(1)  # (N, 4d): the vector z^(0) of the router and the importance layer
        importance = self.importance(z).softmax(dim=1)  # (N, 3)  eq. 26-27
        r = reliability(probes.entropy, importance, c.alpha)  # (N, 3)  eq. 25, 28-29
        r_bar = r.mean(dim=1)  # eq. 29
        if c.r_bar == "unnormalised":
            r_bar = (1 - probes.entropy / math.log(self.K)).mean(dim=1)
        cons_score = consensus(probes.p, c.gamma, c.epsilon)  # (N,)  eq. 30-33
        if c.single_expert:
            return Routing(torch.ones(len(z), 1, device=z.device), r, r_bar, cons_score)
        f = r if c.no_consensus else torch.cat([r, cons_score[:, None]], dim=1)  # (N, 4)  eq. 34
        prior = self.prior(f).softmax(dim=1)  # (N, 5)  eq. 35-36
        logits = self.router(z) + c.lambda_p * torch.log(prior + c.epsilon)  # (N, 5)  eq. 37-38
        return Routing(logits.softmax(dim=1), r, r_bar, cons_score)  # eq. 39

    def views(self, h: Tensor) -> Tensor:
        """The full view and, unless ablated, one with each modality at MASK_m: ``(P, N, 3, d)`` (B.2)."""
        if self.config.no_masked_views or self.config.single_expert:
            return h[None]
        return self.all_views(h)

    def all_views(self, h: Tensor) -> Tensor:
        """The views of VIEWS, ``(4, N, 3, d)``, of h ``(N, 3, d)``."""
        masked = [torch.where(_is(m, h), self.mask, h) for m in range(3)]
        return torch.stack([h, *masked])

    def masked_views(self, encoded: Encoded, present: Tensor) -> Tensor:
        """y_e^(p) ``(N, 4, E)``, VIEWS x EXPERTS: what the semantic checks of C.4 (eq. 55-58, figure 5) are made from.

        Of classes ``(N, 4, E, C)``. The first view is the extra "experts". A modality that is told absent is at MASK_m
        in every view. Defined for every ablation, also for those that train without masked views (one expert: E = 1).
        Inference uses the full view only (3.5.2), so this is no part of ``fuse``: it takes about four times as long.
        """
        views = self.all_views(self.replace_absent(encoded, present))  # (4, N, 3, d)
        y_e = self.expert_outputs(self.f_fuse(views.flatten(0, 1)))  # (4 N, E)  eq. 40-41
        return y_e.view(len(VIEWS), len(present), *y_e.shape[1:]).transpose(0, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 3 under "total", with every term it is made of. The experts see all views in one stacked pass."""
        c, y = self.config, targets_of(batch, self.spec)
        h = self.replace_absent(self.encode(batch), batch.present)  # (N, 3, d)
        views = self.views(h)  # (P, N, 3, d)
        z = self.f_fuse(views.flatten(0, 1))  # (P N, 4, d)  eq. 40
        y_e = self.expert_outputs(z)
        y_e = y_e.view(*views.shape[:2], *y_e.shape[1:])  # (P, N, E), or (P, N, E, C)  eq. 41
        probes = self.probe_modalities(h)
        routing = self.route(z[: len(h)], probes)  # the full view comes first
        told = torch.ones_like(batch.present) if c.probe_absent else batch.present
        terms = {
            "L_task": sample_losses(mixed(routing.pi, y_e[0]), y, "l1").mean(),  # eq. 2
            "L_cls": probe_loss(probes.logits, self.probe_classes(y), told),
        }
        terms |= {} if c.single_expert else dir_losses(y_e, routing, y, c)
        weights = {"L_task": 1.0, "L_cls": c.lambda_cls, "L_PID": c.lambda_PID, "L_syn": c.lambda_syn}
        total = torch.stack([weights[name] * terms[name] for name in weights if name in terms]).sum()  # eq. 3
        return {"total": total, **terms}

    def probe_classes(self, y: Tensor) -> Tensor:
        """What the probes are to say, ``(N,)`` of 0..K-1: the score in K levels, or the class."""
        return y if self.spec.num_classes else discretise(y, self.spec.label_range, self.K)


def mixed(pi: Tensor, y_e: Tensor) -> Tensor:
    """sum_e pi_e y_e of pi ``(N, E)`` and y_e ``(N, E)`` or ``(N, E, C)``: ``(N,)`` or ``(N, C)``.

    >>> mixed(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 3.0]])).tolist()
    [2.0]
    """
    weights = pi if y_e.ndim == 2 else pi[..., None]
    return (weights * y_e).sum(dim=1)  # eq. 1


def squares(x: Tensor, dim: int) -> Tensor:
    """x^2; of logits the mean over the classes, which are in the last of more than ``dim`` dimensions."""
    return x.square() if x.ndim == dim else x.square().mean(dim=-1)


def probe_loss(logits: Tensor, classes: Tensor, told: Tensor) -> Tensor:
    """Sum over modalities of the probes' mean cross-entropy, each over the samples that have the modality.

    logits ``(N, 3, K)``, classes ``(N,)``, told present ``(N, 3)``.
    """
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), classes.repeat_interleave(3), reduction="none").view(-1, 3)
    return ((cross_entropy * told).sum(dim=0) / told.sum(dim=0).clamp(min=1)).sum()  # eq. 23


def entropy(p: Tensor, epsilon: float) -> Tensor:
    """H_m ``(N, 3)`` of the probes' distributions ``(N, 3, K)``."""
    return -(p * torch.log(p + epsilon)).sum(dim=2)  # eq. 24


def reliability(entropies: Tensor, importance: Tensor, alpha: float) -> Tensor:
    """r_m ``(N, 3)``, summing to one: entropy-based reliability blended with importance."""
    relative = (-entropies).softmax(dim=1)  # Rel_m  eq. 25
    blend = alpha * relative + (1 - alpha) * importance  # eq. 28
    return blend / blend.sum(dim=1, keepdim=True)  # eq. 29


def consensus(p: Tensor, gamma: float, epsilon: float) -> Tensor:
    """cons_score ``(N,)`` in (0, 1]: one where the three probes ``(N, 3, K)`` say the same."""
    mean = p.mean(dim=1, keepdim=True)  # (N, 1, K)  eq. 30
    divergence = (p * torch.log((p + epsilon) / (mean + epsilon))).sum(dim=2)  # (N, 3)  eq. 31
    return torch.exp(-gamma * divergence.mean(dim=1))  # eq. 32-33


def dir_losses(y_e: Tensor, routing: Routing, y: Tensor, c: RIDERMoEConfig) -> dict[str, Tensor]:
    """Disentangled interaction regularisation (B.3), means over the batch.

    y_e ``(P, N, 5)`` or ``(P, N, 5, C)``: P = 4 views, or the full one alone when there are no masked views.
    """
    r, r_bar = (routing.r.detach(), routing.r_bar.detach()) if c.detach_r else (routing.r, routing.r_bar)
    off = routing.pi.new_zeros(())
    masked = len(y_e) == len(VIEWS)
    uni = uniqueness_loss(y_e, r) if masked and not c.no_L_PID else off
    red = redundancy_loss(y_e[:, :, R], r_bar) if masked and not c.no_L_PID else off
    syn_off = synergy_off_loss(y_e[1:, :, S], r_bar) if masked and not (c.no_L_syn or c.no_L_syn_off) else off
    syn_res = off if c.no_L_syn or c.no_L_syn_res else synergy_residual_loss(y_e[0], routing.pi, y, r_bar)
    return {
        "L_uni": uni,
        "L_red": red,
        "L_PID": uni + red,  # eq. 47
        "L_syn_off": syn_off,
        "L_syn_res": syn_res,
        "L_syn": syn_off + syn_res,  # eq. 52
    }


def uniqueness_loss(y_e: Tensor, r: Tensor) -> Tensor:
    """U_m answers alike in the views that keep m. y_e ``(4, N, 5)`` or ``(4, N, 5, C)``, r ``(N, 3)``."""
    # (3 views, N, 3 experts): [v, :, m] is (y_Um^(0) - y_Um^(-v))^2
    change = squares(y_e[0, :, :3] - y_e[1:, :, :3], dim=3)
    keeps_m = 1 - torch.eye(3, device=y_e.device)  # P_m without 0: the views -v, v other than m  eq. 42
    per_modality = torch.einsum("vnm,vm->nm", change, keeps_m) / 2  # (N, 3)  eq. 43
    return (r * per_modality).sum(dim=1).mean()  # eq. 44


def redundancy_loss(y_r: Tensor, r_bar: Tensor) -> Tensor:
    """R answers alike in all views. y_r ``(4, N)`` or ``(4, N, C)``, r_bar ``(N,)``."""
    deviation = y_r - y_r.mean(dim=0)  # (4, N)  eq. 45
    return (r_bar * squares(deviation, dim=2).mean(dim=0)).mean()  # eq. 46


def synergy_off_loss(y_s: Tensor, r_bar: Tensor) -> Tensor:
    """S is silent in the masked views. y_s ``(3, N)`` or ``(3, N, C)``, r_bar ``(N,)``."""
    return (r_bar**3 * squares(y_s, dim=2).mean(dim=0)).mean()  # eq. 48


def synergy_residual_loss(y_e: Tensor, pi: Tensor, y: Tensor, r_bar: Tensor) -> Tensor:
    """What S adds in the full view is what the others leave. y_e ``(N, 5)`` or ``(N, 5, C)``, pi ``(N, 5)``."""
    without_s = mixed(pi[:, :S], y_e[:, :S])  # eq. 49
    if y_e.ndim == 3:
        whole = without_s.detach() + pi[:, S, None] * y_e[:, S]  # (N, C)
        return (r_bar**3 * sample_losses(whole, y, "mse")).mean()  # eq. 50-51 of classes
    delta = y - without_s.detach()  # eq. 50
    return (r_bar**3 * (pi[:, S] * y_e[:, S] - delta).square()).mean()  # eq. 51


class Fusion(nn.Module):
    """f_fuse: h ``(N, 3, d)`` to four tokens z ``(N, 4, d)``: text, audio, vision, and the one the experts read out."""

    def __init__(self, d: int, dropout: float, fused_token: str) -> None:
        super().__init__()
        self.token = nn.ModuleList(nn.Linear(d, d) for _ in MODALITIES)
        self.readout = nn.Parameter(torch.randn(d) / math.sqrt(d))
        self.mix: nn.Module | None = None
        if fused_token == "mlp":
            self.mix = nn.Sequential(nn.Linear(3 * d, 2 * d), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * d, d))

    def forward(self, h: Tensor) -> Tensor:
        tokens = [token(h[:, m]) for m, token in enumerate(self.token)]
        fused = self.readout.expand(len(h), -1)
        if self.mix is not None:
            fused = fused + self.mix(h.flatten(1))
        return torch.stack([*tokens, fused], dim=1)


class TransformerExperts(nn.Module):
    """f_e: E pre-norm Transformers side by side, z ``(N, 4, d)`` to ``(N, E, outputs)`` read off the last token (C.5).

    All weights carry a leading expert axis, so that one batched product does what a loop over experts would.
    """

    def __init__(
        self, experts: int, layers: int, heads: int, d: int, d_ff: int, dropout: float, outputs: int = 1
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ExpertBlock(experts, heads, d, d_ff, dropout) for _ in range(layers))
        self.norm = ExpertNorm(experts, d)
        self.scalar = ExpertLinear(experts, d, outputs)
        self.experts = experts

    def forward(self, z: Tensor) -> Tensor:
        n, tokens, d = z.shape
        x = z.reshape(n * tokens, d).expand(self.experts, -1, -1)  # (E, N 4, d)
        for block in self.blocks:
            x = block(x, tokens)
        readout = self.norm(x).view(self.experts, n, tokens, d)[:, :, -1]  # (E, N, d)
        y: Tensor = self.scalar(readout).transpose(0, 1)  # (N, E, outputs)
        return y


class ExpertBlock(nn.Module):
    """One Transformer layer an expert, on ``(E, N tokens, d)``: attention within each sample, then feed-forward."""

    def __init__(self, experts: int, heads: int, d: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_ff = ExpertNorm(experts, d), ExpertNorm(experts, d)
        self.qkv, self.out = ExpertLinear(experts, d, 3 * d), ExpertLinear(experts, d, d)
        self.widen, self.narrow = ExpertLinear(experts, d, d_ff), ExpertLinear(experts, d_ff, d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, tokens: int) -> Tensor:
        x = x + self.dropout(self.out(self.attend(self.norm_attention(x), tokens)))
        wide = self.dropout(F.gelu(self.widen(self.norm_ff(x))))  # (E, N tokens, d_ff)
        y: Tensor = x + self.dropout(self.narrow(wide))
        return y

    def attend(self, x: Tensor, tokens: int) -> Tensor:
        e, rows, d = x.shape
        split = self.qkv(x).view(e, rows // tokens, tokens, 3, self.heads, d // self.heads)
        q, k, v = split.permute(3, 0, 1, 4, 2, 5)  # each (E, N, heads, tokens, d / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)
        return mixed.transpose(2, 3).reshape(e, rows, d)


class ExpertLinear(nn.Module):
    """A linear layer an expert: ``(E, rows, d_in)`` to ``(E, rows, d_out)``."""

    def __init__(self, experts: int, d_in: int, d_out: int) -> None:
        super().__init__()
        layers = [nn.Linear(d_in, d_out) for _ in range(experts)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))  # (E, d_in, d_out)
        self.bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))  # (E, 1, d_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class ExpertNorm(nn.Module):
    """A LayerNorm an expert, on ``(E, rows, d)``."""

    def __init__(self, experts: int, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(experts, 1, d))
        self.bias = nn.Parameter(torch.zeros(experts, 1, d))

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = F.layer_norm(x, x.shape[-1:])
        return normal * self.weight + self.bias


def _is(m: int, h: Tensor) -> Tensor:
    """``(3, 1)`` bool: True on modality m, to broadcast against h ``(N, 3, d)``."""
    return (torch.arange(3, device=h.device) == m)[:, None]
