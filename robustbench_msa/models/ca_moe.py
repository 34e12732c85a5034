"""CA-MoE: experts for sample-customised combinations of modalities, weighed by their reliability. Equations 1 to 14.

"Customized-Allocation MoE: Reliable Dynamic Combination via the Attraction-Repulsion for Multimodal Sentiment Analysis"
(anonymous ACL submission). ACMA (3.4) allocates modalities to experts, RAES (3.5) weighs what the experts make of them.
Symbols: N samples, d = d_s, |E| experts e, C classes c, m and n in {text, audio, vision}; pairs in the order of PAIRS.
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
    Standardise,
    discretise,
    fit_standardisers,
    head_width,
    masked_mean,
    relative_position,
    require_choice,
    require_features,
    require_text_features,
    sample_losses,
    scores_or_logits,
    targets_of,
    valid_steps,
    wide_linear,
)

PAIRS: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2))
"""(m, n) by index: text and audio, text and vision, audio and vision. A, KL + KL and JS are symmetric in m and n."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "hypersphere": ("l2", "layer_norm"),
    "expert_network": ("mlp", "none"),
    "prototype_norm": ("l2", "layer_norm"),
    "margin": ("every_class", "true_class"),
    "soft_label": ("softmax", "normalised"),
    "soft_label_at": ("class", "score"),
    "inference_confidence": ("omit", "first_pass"),
    "training_label": ("margin_and_confidence", "confidence", "loss_only"),
    "con_target": ("label", "prediction"),
    "task_loss": ("mse", "l1"),
    "pairs": ("ordered", "unordered"),
    "balance_over": ("all", "each_modality"),
}


@dataclass(frozen=True)
class CAMoEConfig:
    """The paper's numbers for CMU-MOSI by default (table 6, whose second "lambda_3" is lambda_4).

    Where it contradicts itself:

    hypersphere: F_m to h_m by the L2 norm, "l2" (eq. 2, the default), or "layer_norm" (algorithm 1). Eq. 3 takes the
        cosine of both, so that A_Ge stays in [0, 1]; algorithm 2 leaves out eq. 3's (1 + .) / 2.
    expert_network: eq. 9 has none, "none"; algorithm 1 has MLP_e, "mlp" (the default: an expert needs parameters).
    prototype_norm: cos theta of mu_c with the L2-normalised expert output, "l2" (eq. 10, the default), or with its
        "layer_norm" (algorithm 2). Adding nu to theta needs a cosine, so both are scaled to unit norm.
    margin: what nu is added to in training; at inference to nothing. "every_class" (algorithm 2, the default) or
        "true_class" (eq. 10). The second writes the label into K_e, which gamma_2 multiplies by 30: a network learns to
        read it there and misses it at inference (on ``synth`` validation MAE rose to 1.8; a constant has 1.3).
    con_target: L_con = KL(p_e || target); the target is the soft "label" (algorithm 2, the default, as the text's y-hat
        is a scalar) or the soft label of the model's own "prediction" (3.6), which is then held constant.
    task_loss: "mse" (algorithm 2, and 3.6's citation for regression; the default) or "l1".

    Where it is silent or odd:

    inference_confidence: RAES needs y (eq. 11), and at inference there is none. "omit": the term is left out, alpha = 1
        (algorithm 2 has no y-tilde without y). "first_pass": the prediction so made stands for y in a second pass.
        Never the label: ``fuse`` has no access to it.
    training_label: how y reaches RAES's weights in training. As written by the margin in p_e and by the soft label,
        "margin_and_confidence". "confidence": by the soft label alone, K_e and eq. 11 take p_e without margin.
        "loss_only": the weights are those of inference; the margin, and y, are left to L_con.
    C, sigma: classes, equidistant over the label range, and the soft label's width, in classes.
    soft_label: the text's softmax of a Gaussian, "softmax", is two exponentials and very flat (for C = 7 and sigma = 1
        between .09 and .28); "normalised" is the Gaussian divided by its sum.
    soft_label_at: the Gaussian's centre, "class" (3.5's "discrete integer labels") or the unrounded "score".
    renormalise: eq. 6 keeps the top k of a softmax as they are (False); True scales them to sum to one.
    pairs: the sums over m != n of eq. 7-8, "ordered" (six terms, each pair twice) or "unordered" (three;
        for L_att what algorithm 2's one-way KL gives over six).
    detach_geometric: A_Gr is always held constant. Nothing is said of A_Ge: as written (False) it carries gradients,
        and since both losses grow with A they push the h_m apart. True: A only guides the routers.
    balance_over: L_bal is only cited: |E| sum_e f_e P_e of Switch Transformers, f_e the share of the k choices and P_e
        the mean probability, over the inputs of "all" modalities together or, averaged, of "each_modality".
    d_s, expert_width (the hidden layer of MLP_e), dropout, encoder_layers, encoder_heads, conv_layers: not given. Audio
        and vision have encoder_layers Transformer layers (eq. 1; 0: the encoder that text has); text, already a
        language model's states, has layers.SequenceEncoder with conv_layers.

    Classes (the paper has none but those it cuts the score into): the C classes of mu_c are the data's, whatever C
    says, y-hat are C logits, and the task loss, that of eq. 4 too, is the cross-entropy. The Gaussian of the soft label
    needs distances, and classes have no order: (c - y)^2 becomes 0 for the true class and 1 for any other, the rest
    stays. Where the model's own prediction stands for the label (con_target "prediction", inference_confidence
    "first_pass") it is the softmax of its logits, 3.6's y-hat to the letter.

    L_con is the mean over experts (for their sum, lambda_3 times |E|). Experts that no modality chose keep their share:
    eq. 12 sums over all |E|. Its outer softmax is over values in [0, 1], so no weight is over e times another.

    Ablations. Table 3: no_L_att, no_L_rep, no_L_con; no_RAES (the plain mean over experts; without prototypes there is
    no L_con either). Table 4: num_experts, top_k. Figure 6: alpha (1: ability only), beta (1: geometric affinity only).
    """

    d_s: int = 128
    num_experts: int = 6
    top_k: int = 3
    beta: float = 0.6
    s: float = 30.0
    nu: float = 0.3
    alpha: float = 0.7
    gamma_1: float = 0.8
    gamma_2: float = 30.0
    lambda_1: float = 1.0
    lambda_2: float = 1.0
    lambda_3: float = 0.1
    lambda_4: float = 0.01
    C: int = 7
    sigma: float = 1.0
    expert_width: int = 128
    dropout: float = 0.1
    encoder_layers: int = 2
    encoder_heads: int = 4
    conv_layers: int = 0
    hypersphere: str = "l2"
    expert_network: str = "mlp"
    prototype_norm: str = "l2"
    margin: str = "every_class"
    soft_label: str = "softmax"
    soft_label_at: str = "class"
    inference_confidence: str = "omit"
    training_label: str = "margin_and_confidence"
    con_target: str = "label"
    task_loss: str = "mse"
    pairs: str = "ordered"
    balance_over: str = "all"
    renormalise: bool = False
    detach_geometric: bool = False
    no_L_att: bool = False
    no_L_rep: bool = False
    no_L_con: bool = False
    no_RAES: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            require_choice(f"ca_moe: {name}", getattr(self, name), choices)
        if not 1 <= self.top_k <= self.num_experts:
            raise InputError(f"ca_moe: top_k must be between 1 and num_experts={self.num_experts}; got {self.top_k}")
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"ca_moe: {name} must be between 0 and 1; got {getattr(self, name)}")
        if self.C < 2 or not self.sigma > 0:
            raise InputError(f"ca_moe: expected C of at least 2 and sigma above 0; got C={self.C}, sigma={self.sigma}")
        if self.encoder_heads < 1 or self.d_s % self.encoder_heads:
            raise InputError(f"ca_moe: encoder_heads={self.encoder_heads} must divide d_s={self.d_s}")


_MOSI = CAMoEConfig()  # C = 7: the classes of Acc-7
_MOSEI = replace(_MOSI, num_experts=8)
_SIMS = replace(_MOSI, C=5)  # half a point apart on [-1, 1]
_SYNTH = replace(_MOSI, d_s=32, expert_width=64, dropout=0.2, encoder_layers=0, renormalise=True)
_TABLE_6 = Optimisation("adam", 1e-4, batch_size=64, epochs=100)  # neither schedule, weight decay nor clipping is given


class Allocation(NamedTuple):
    """ACMA's output: log q ``(N, 3, |E|)``, R ``(N, 3, |E|)`` with zeros outside the top k, h_e ``(N, |E|, d)``."""

    log_q: Tensor
    R: Tensor
    h_e: Tensor


class CAMoE(MSAModel):
    """h_m on a hypersphere -> top-k experts of each modality -> experts' h_e -> weights by reliability -> MLP.

    Affinity needs the task loss, so it exists in training alone, where it guides the routers. ``loss`` gives RAES the
    label, ``fuse`` never does. The paper's model is never told what is missing, so ``present`` is not read: what is
    told absent comes in as zeros.

    Extras: "routing" softmax(pi) of eq. 12 ``(N, |E|)``, "gates" R of eq. 6 ``(N, 3 |E|)`` (text's experts, audio's,
    vision's), and with RAES "pi", "entropy" K_e and "magnitude" H_e, all ``(N, |E|)``.
    """

    name: ClassVar[str] = "ca_moe"
    paper: ClassVar[str] = "CA-MoE (anonymous)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[CAMoEConfig]] = CAMoEConfig
    presets: ClassVar[Mapping[str, CAMoEConfig]] = {"mosi": _MOSI, "mosei": _MOSEI, "sims": _SIMS, "synth": _SYNTH}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _TABLE_6,
        "mosei": replace(_TABLE_6, batch_size=16),
        "sims": replace(_TABLE_6, batch_size=32),
        "synth": replace(_TABLE_6, learning_rate=5e-3, batch_size=32, epochs=60, grad_clip=1.0, schedule="cosine"),
    }

    config: CAMoEConfig

    def __init__(self, spec: InputSpec, config: CAMoEConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, d = config, config.d_s
        self.encoder = nn.ModuleDict({m: _encoder(m, n, c) for m, n in zip(MODALITIES, spec.dims, strict=True)})
        if c.hypersphere == "layer_norm":
            self.norm = nn.ModuleDict({m: nn.LayerNorm(d) for m in MODALITIES})
        self.router = nn.ModuleDict({m: nn.Linear(d, c.num_experts, bias=False) for m in MODALITIES})  # w_{e,m}
        if c.expert_network == "mlp":
            self.experts = Experts(c.num_experts, d, c.expert_width, c.dropout)
        self.C = spec.num_classes or c.C
        if not c.no_RAES:
            self.prototypes = nn.Parameter(torch.randn(self.C, d) / math.sqrt(d))  # mu_c
            if c.prototype_norm == "layer_norm":
                self.prototype_norm = nn.LayerNorm(d)
        self.output = nn.Sequential(
            wide_linear(d, d), nn.ReLU(), nn.Dropout(c.dropout), wide_linear(d, head_width(spec), gain=1.0)
        )

    def fit_statistics(self, train: Batch) -> None:
        encoders = (e for e in self.encoder.values() if isinstance(e, SequenceEncoder | TransformerEncoder))
        fit_standardisers((e.standardise for e in encoders), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        f = self.encoder[modality](x, lengths)  # (N, d)  F_m  eq. 1
        if self.config.hypersphere == "layer_norm":
            return {"h": self.norm[modality](f)}  # algorithm 1, line 4
        return {"h": f / (l2_norm(f)[:, None] + 1e-8)}  # (N, d)  eq. 2

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        a = self.allocate(_stack(encoded))
        log_p = self.proximity(a.h_e)
        pi = self.unlabelled_reliability(a.h_e, log_p)  # (N, |E|)
        extras = {"routing": pi.softmax(dim=1), "gates": a.R.flatten(1)}
        if not self.config.no_RAES:
            extras |= {"pi": pi, "entropy": entropy(log_p), "magnitude": l2_norm(a.h_e)}
        return Output(self.predict(a.h_e, pi), extras)

    def allocate(self, h: Tensor) -> Allocation:
        """ACMA's routing (eq. 6, 9; algorithm 1) of h ``(N, 3, d)``."""
        c = self.config
        logits = torch.stack([self.router[m](h[:, i]) for i, m in enumerate(MODALITIES)], dim=1)
        log_q = logits.log_softmax(dim=2)  # (N, 3, |E|)  eq. 6
        q = log_q.exp()
        R = q * torch.zeros_like(q).scatter(2, q.topk(c.top_k, dim=2).indices, 1.0)  # (N, 3, |E|)  eq. 6
        if c.renormalise:
            R = R / R.sum(dim=2, keepdim=True)
        h_e = torch.einsum("nme,nmd->ned", R, h)  # (N, |E|, d)  eq. 9
        return Allocation(log_q, R, self.experts(h_e) if c.expert_network == "mlp" else h_e)

    def proximity(self, h_e: Tensor, true_class: Tensor | None = None) -> Tensor:
        """log p_e(c) ``(N, |E|, C)`` (eq. 10). With true_class ``(N,)``, in training, angles get their margin.

        Without RAES there are no prototypes: an empty ``(N, |E|, 0)``.
        """
        c = self.config
        if c.no_RAES:
            return h_e[:, :, :0]
        direction = unit(self.prototype_norm(h_e) if c.prototype_norm == "layer_norm" else h_e)
        cos = direction @ unit(self.prototypes).T  # (N, |E|, C)
        if true_class is not None:
            shifted = add_angle(cos, c.nu)
            of_class = F.one_hot(true_class, self.C).bool()[:, None]  # (N, 1, C)
            cos = shifted if c.margin == "every_class" else torch.where(of_class, shifted, cos)
        return (c.s * cos).log_softmax(dim=2)

    def reliability(self, h_e: Tensor, log_p: Tensor, log_soft: Tensor | None = None) -> Tensor:
        """pi_e ``(N, |E|)``; without a soft label ``(N, C)`` its confidence is left out, alpha = 1."""
        c = self.config
        if c.no_RAES:
            return torch.zeros_like(h_e[:, :, 0])
        magnitude = l2_norm(h_e)  # (N, |E|)  H_e
        ability = (c.gamma_1 * magnitude - c.gamma_2 * entropy(log_p)).softmax(dim=1)
        if log_soft is None:
            return ability
        confidence = (log_p + log_soft[:, None]).exp().sum(dim=2)  # (N, |E|)  eq. 11
        return c.alpha * ability + (1 - c.alpha) * confidence  # eq. 12

    def unlabelled_reliability(self, h_e: Tensor, log_p: Tensor) -> Tensor:
        """pi_e ``(N, |E|)`` where there is no label, as inference_confidence says."""
        pi = self.reliability(h_e, log_p)
        if self.config.inference_confidence == "first_pass":
            pi = self.reliability(h_e, log_p, self.log_soft_prediction(self.predict(h_e, pi)))
        return pi

    def predict(self, h_e: Tensor, pi: Tensor) -> Tensor:
        """y-hat ``(N,)``, or logits ``(N, C)``."""
        h_hat = torch.einsum("ne,ned->nd", pi.softmax(dim=1), h_e)  # (N, d)  eq. 12
        return scores_or_logits(self.output(h_hat), self.spec)  # eq. 13

    def true_class(self, y: Tensor) -> Tensor:
        """The class 0..C-1 of labels ``(N,)``: the score's, or the label itself."""
        return y if self.spec.num_classes else discretise(y, self.spec.label_range, self.C)

    def log_soft_label(self, y: Tensor) -> Tensor:
        """log y-tilde ``(N, C)`` of labels ``(N,)`` (3.5, above eq. 11)."""
        c = self.config
        classes = torch.arange(self.C, device=y.device)
        if self.spec.num_classes:
            squared = (classes != y[:, None]).float()  # (N, C)
        else:
            at_class = c.soft_label_at == "class"
            centre = self.true_class(y).to(y.dtype) if at_class else class_position(y, self.spec.label_range, self.C)
            squared = (classes - centre[:, None]).square()
        exponent = -squared / (2 * c.sigma**2)  # (N, C)
        return (exponent.exp() if c.soft_label == "softmax" else exponent).log_softmax(dim=1)

    def log_soft_prediction(self, prediction: Tensor) -> Tensor:
        """What stands for log y-tilde ``(N, C)`` where the model's own prediction is to."""
        return prediction.log_softmax(dim=1) if self.spec.num_classes else self.log_soft_label(prediction)

    @torch.enable_grad()
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 14 under "total", with its terms; what is ablated is zero. The label is used here and nowhere else."""
        c, y = self.config, targets_of(batch, self.spec)
        h = _stack(self.encode(batch)).requires_grad_()  # (N, 3, d)  also where the encoders are frozen
        a = self.allocate(h)
        log_p, log_soft = self.proximity(a.h_e, self.true_class(y)), self.log_soft_label(y)
        prediction = self.predict(a.h_e, self.training_reliability(a.h_e, log_p, log_soft))
        task = sample_losses(prediction, y, c.task_loss)  # (N,)
        if c.con_target == "prediction":
            log_soft = self.log_soft_prediction(prediction.detach())
        off = task.new_zeros(())
        affinity = off if c.no_L_att and c.no_L_rep else self.affinity(h, task)
        times = 2 if c.pairs == "ordered" else 1
        terms = {
            "L_task": task.mean(),
            "L_att": off if c.no_L_att else times * attraction_loss(affinity, a.log_q),
            "L_rep": off if c.no_L_rep else times * repulsion_loss(affinity, a.log_q),
            "L_con": off if c.no_L_con or c.no_RAES else confidence_loss(log_p, log_soft),
            "L_bal": balance_loss(a.log_q, a.R, c.top_k, c.balance_over),
        }
        weights = (1.0, c.lambda_1, c.lambda_2, c.lambda_3, c.lambda_4)
        total = torch.stack([w * term for w, term in zip(weights, terms.values(), strict=True)]).sum()  # eq. 14
        return {"total": total, **terms}

    def training_reliability(self, h_e: Tensor, log_p: Tensor, log_soft: Tensor) -> Tensor:
        """pi_e ``(N, |E|)`` in training, as training_label says. log p ``(N, |E|, C)`` has the margin."""
        if self.config.training_label == "margin_and_confidence":
            return self.reliability(h_e, log_p, log_soft)
        if self.config.training_label == "confidence":
            return self.reliability(h_e, self.proximity(h_e), log_soft)
        return self.unlabelled_reliability(h_e, self.proximity(h_e))

    def affinity(self, h: Tensor, task: Tensor) -> Tensor:
        """A_{m,n} ``(N, 3)`` in the order of PAIRS, from h ``(N, 3, d)`` and the task loss of each sample ``(N,)``.

        The gradient is read off the graph of this very step and is a constant for what follows.
        """
        c = self.config
        geometric = (1 + pair_cosines(h)) / 2  # eq. 3
        if c.detach_geometric:
            geometric = geometric.detach()
        (gradient,) = torch.autograd.grad(task.sum(), h, retain_graph=True)  # (N, 3, d); samples do not mix
        aligned = (1 + pair_cosines(gradient)) / 2  # eq. 4
        return c.beta * geometric + (1 - c.beta) * aligned  # eq. 5


def pair_cosines(x: Tensor) -> Tensor:
    """cos(x_m, x_n) ``(N, 3)`` of ``(N, 3, d)`` in the order of PAIRS; 0 where one of them is zero.

    >>> pair_cosines(torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]])).tolist()
    [[0.0, -1.0, 0.0]]
    """
    direction = unit(x)
    return torch.stack([(direction[:, m] * direction[:, n]).sum(dim=1) for m, n in PAIRS], dim=1)


def attraction_loss(affinity: Tensor, log_q: Tensor) -> Tensor:
    """Eq. 7 over the three pairs, mean over samples. affinity ``(N, 3)``, log q ``(N, 3, |E|)``."""
    total = affinity.new_zeros(())
    for i, (m, n) in enumerate(PAIRS):
        symmetric = kl(log_q[:, m], log_q[:, n]) + kl(log_q[:, n], log_q[:, m])
        total = total + (affinity[:, i] * symmetric).mean()  # eq. 7
    return total


def repulsion_loss(affinity: Tensor, log_q: Tensor) -> Tensor:
    """Eq. 8 over the three pairs, mean over samples. affinity ``(N, 3)``, log q ``(N, 3, |E|)``."""
    total = affinity.new_zeros(())
    for i, (m, n) in enumerate(PAIRS):
        middle = torch.logaddexp(log_q[:, m], log_q[:, n]) - math.log(2)
        js = (kl(log_q[:, m], middle) + kl(log_q[:, n], middle)) / 2
        total = total - ((1 - affinity[:, i]) * js).mean()  # eq. 8
    return total


def confidence_loss(log_p: Tensor, log_soft: Tensor) -> Tensor:
    """L_con, mean over samples and experts of KL(p_e || soft label). log p ``(N, |E|, C)``, log soft ``(N, C)``."""
    return kl(log_p, log_soft[:, None]).mean()  # sec. 3.6


def balance_loss(log_q: Tensor, R: Tensor, top_k: int, over: str) -> Tensor:
    """L_bal (Fedus et al. 2022, eq. 4 to 6) of log q and R, ``(N, 3, |E|)``: 1 when all experts are used alike."""
    share = (R > 0).to(R.dtype).mean(dim=0) / top_k  # (3, |E|)  f
    probability = log_q.exp().mean(dim=0)  # (3, |E|)  P
    if over == "all":
        share, probability = share.mean(dim=0, keepdim=True), probability.mean(dim=0, keepdim=True)
    return R.shape[2] * (share * probability).sum(dim=1).mean()


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """D_KL(p || q) over the last dimension, from logarithms."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def entropy(log_p: Tensor) -> Tensor:
    """K_e ``(N, |E|)`` of log p_e ``(N, |E|, C)`` (below eq. 11)."""
    return -(log_p.exp() * log_p).sum(dim=-1)


def l2_norm(x: Tensor) -> Tensor:
    """||x||_2 over the last dimension."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm


def unit(x: Tensor) -> Tensor:
    """x / ||x|| over the last dimension; zero, with a finite gradient, where x is zero."""
    norm = l2_norm(x)[..., None]
    return x / torch.where(norm > 0, norm, 1.0)


def add_angle(cos: Tensor, nu: float) -> Tensor:
    """cos(theta + nu) from cos(theta), theta in [0, pi].

    >>> [round(v, 4) for v in add_angle(torch.tensor([1.0, 0.0, -1.0]), math.pi / 6).tolist()]
    [0.866, -0.5, -0.866]
    """
    sin = (1 - cos.square()).clamp(min=1e-12).sqrt()  # the floor keeps the gradient finite at theta = 0
    return cos * math.cos(nu) - sin * math.sin(nu)


def class_position(y: Tensor, label_range: tuple[float, float], C: int) -> Tensor:
    """Where scores lie on the axis of the classes, in [0, C - 1]: clipped to the range, C equidistant levels.

    >>> class_position(torch.tensor([-9.0, 0.0, 0.5]), (-3.0, 3.0), 7).tolist()
    [0.0, 3.0, 3.5]
    """
    low, high = label_range
    return (y.clamp(low, high) - low) * ((C - 1) / (high - low))


class Experts(nn.Module):
    """MLP_e of algorithm 1, |E| side by side: two layers and a rectifier, ``(N, |E|, d)`` to ``(N, |E|, d)``."""

    def __init__(self, num_experts: int, d: int, width: int, dropout: float) -> None:
        super().__init__()
        self.weight_1 = nn.Parameter(torch.randn(num_experts, d, width) * math.sqrt(2 / d))  # He et al. 2015
        self.weight_2 = nn.Parameter(torch.randn(num_experts, width, d) * math.sqrt(2 / width))
        self.bias_1 = nn.Parameter(torch.zeros(num_experts, 1, width))
        # not zero: an expert without any input has a direction too, for eq. 10
        self.bias_2 = nn.Parameter((2 * torch.rand(num_experts, 1, d) - 1) / math.sqrt(d))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.relu(torch.baddbmm(self.bias_1, x.transpose(0, 1), self.weight_1)))  # (|E|, N, width)
        return torch.baddbmm(self.bias_2, hidden, self.weight_2).transpose(0, 1)


class TransformerEncoder(nn.Module):
    """Phi_Trans of eq. 1: ``(N, T, d_in)`` raw features to F ``(N, d)``, the mean of its valid steps.

    Padding never matters, neither its amount nor its content; a sample with no valid step gives zero.
    """

    FREQUENCIES = 4

    def __init__(self, d_in: int, d: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.standardise = Standardise(d_in)
        self.project = nn.Linear(d_in + 2 * self.FREQUENCIES, d)
        self.layers = nn.ModuleList(TransformerLayer(d, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        valid = valid_steps(x, lengths)  # (N, T)
        x = self.dropout(self.standardise(x, valid))
        place = relative_position(lengths, x.shape[1], self.FREQUENCIES)
        h = self.project(torch.cat([x, place], dim=-1))  # (N, T, d)
        for layer in self.layers:
            h = layer(h, valid)
        return masked_mean(self.norm(h), valid)  # (N, d)


class TransformerLayer(nn.Module):
    """One pre-norm layer, feed-forward width 2 d, on ``(N, T, d)``."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_ff = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ff = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * d, d))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x + self.dropout(self.out(self.attend(self.norm_attention(x), valid)))
        y: Tensor = x + self.dropout(self.ff(self.norm_ff(x)))
        return y

    def attend(self, x: Tensor, valid: Tensor) -> Tensor:
        n, steps, d = x.shape
        q, k, v = self.qkv(x).view(n, steps, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        # a large finite number: a sample without any valid step must not become NaN
        mask = torch.zeros_like(x[:, :, 0]).masked_fill(~valid, -1e9)[:, None, None]  # (N, 1, 1, T)
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)  # (N, heads, T, d / heads)
        return mixed.transpose(1, 2).reshape(n, steps, d)


def _encoder(modality: str, d_in: int, c: CAMoEConfig) -> nn.Module:
    if modality == "text" or c.encoder_layers == 0:
        return SequenceEncoder(d_in, c.d_s, c.dropout, c.conv_layers, normalise=False)  # eq. 2 normalises
    return TransformerEncoder(d_in, c.d_s, c.encoder_layers, c.encoder_heads, c.dropout)


def _stack(encoded: Encoded) -> Tensor:
    """h ``(N, 3, d)``."""
    return torch.stack([encoded.part(m)["h"] for m in MODALITIES], dim=1)
