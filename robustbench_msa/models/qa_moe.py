"""QA-MoE: a quality-aware mixture of experts. Equations 3 to 10 of the paper, numbered on the lines.

Y. Zhu et al., "QA-MoE: Towards a Continuous Reliability Spectrum with Quality-Aware Mixture of Experts for Robust
Multimodal Sentiment Analysis". Symbols: N samples, d = d_model, N_e experts, m in {text, audio, vision}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part
from robustbench_msa.models.layers import (
    SequenceEncoder,
    encoders,
    fit_standardisers,
    head_width,
    require_choice,
    require_features,
    require_text_features,
    scores_or_logits,
    targets_of,
    wide_linear,
)


@dataclass(frozen=True)
class QAMoEConfig:
    """The paper's numbers by default (4.1.2, A.3). Where it is silent or contradicts itself, an option:

    quality_predictor: "mlp", two layers (A.3, the statement about the implementation), or "affine" (eq. 5).
    renormalise: eq. 7 sums over all N_e experts, 4.1.2 activates top_k of them; the gates left are scaled to sum to one
        (True) or left as the softmax gave them (False).
    fusion: the "standard fusion layer": "mlp" on the concatenated y_m, or "mean" of the y_m and the same MLP.
    conv_layers, normalise: the sequence encoder's (layers.SequenceEncoder); the paper gives its d_model alone.

    Every row of the paper's studies on CMU-MOSI, as ``msabench train --model qa_moe --recipe spectrum --set ...``:

    | row | switch |
    | --- | --- |
    | table 7, QA-MoE (Full) | top_k=3 |
    | table 7, w/o Quality Gating | no_quality_gating=true |
    | table 7, w/o Variance | no_variance=true |
    | table 7, w/o Universal Fallback | no_prior=true |
    | figure 4, k of num_experts=8 active | top_k=1, top_k=2, top_k=3, top_k=4, top_k=8 |

    no_quality_gating: r_m = 1, so experts are never suppressed, and the fallback, at 1 - r_m, is never used.
    no_variance: no sigma^2; the quality is read off the mean vector, r_m = sigmoid(w mu_m + b) (the paper: "relying
    solely on the mean vector"). no_prior: no universal fallback, y_m = r_m sum_i g_i E_i(mu_m). What a switch takes out
    of the equations stays in the weights and gets no gradient: the quality predictors and y_prior, or y_prior alone.

    Classes (MIntRec and IEMOCAP, tables 1 and 2; the paper does not say by which loss): y-hat of eq. 8 is a vector f of
    C logits, s_final stays one number. Eq. 10 is the negative log-likelihood of a density proportional to
    exp(-E / sigma^2), with the energy E = (y - y-hat)^2 / 2 and sigma^2 = exp(s). With the energy -f_y it is that of
    softmax(f exp(-s)), the classification of Kendall, Gal and Cipolla (2018), eq. 8. So the prediction is f exp(-s) and
    L_nll its cross-entropy: where errors are large it raises s as eq. 10 does, and unlike exp(-s) times a cross-entropy
    it has a lower bound. The most probable class does not depend on s.

    Presets: the paper gives one setting for all its datasets. It has no CH-SIMS; "sims" is that setting too.
    """

    d_model: int = 128
    num_experts: int = 8
    top_k: int = 3
    dropout: float = 0.1
    quality_predictor: str = "mlp"
    renormalise: bool = True
    fusion: str = "mlp"
    conv_layers: int = 0
    normalise: bool = True
    no_quality_gating: bool = False
    no_variance: bool = False
    no_prior: bool = False

    def __post_init__(self) -> None:
        require_choice("qa_moe: quality_predictor", self.quality_predictor, ("mlp", "affine"))
        require_choice("qa_moe: fusion", self.fusion, ("mlp", "mean"))
        for name, least in (("d_model", 1), ("num_experts", 1), ("conv_layers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"qa_moe: {name} must be at least {least}; got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"qa_moe: dropout must be at least 0 and below 1; got {self.dropout}")
        if not 1 <= self.top_k <= self.num_experts:
            raise InputError(f"qa_moe: top_k must be between 1 and num_experts={self.num_experts}; got {self.top_k}")


_PAPER = QAMoEConfig()
_SYNTH = replace(_PAPER, d_model=32)
# A.3; the rate is chosen from {1e-3, 5e-4, 1e-4}
_A3 = Optimisation("adam", 5e-4, 1e-5, batch_size=16, epochs=30, grad_clip=1.0, schedule="cosine")


class QAMoE(MSAModel):
    """u_m -> N(mu_m, sigma_m^2) -> quality r_m -> experts weighed against a learned prior -> value and log-variance.

    The experts, their router and y_prior are shared by the modalities (they carry no index m in the paper); the
    projections of eq. 4-5 are one a modality. Eq. 7 routes mu_m, so nothing is sampled: the model is deterministic.
    The paper's model is never told what is missing, so ``present`` is not read: what is told absent comes in as zeros.

    Extras, all the paper plots or tabulates of its inside: "r" ``(N, 3)`` (table 6), "gates" ``(N, 3 N_e)`` (figure 5;
    text's experts, audio's, vision's; as used in eq. 7), "log_variance" ``(N,)`` (eq. 9). The mean of sigma_m^2 over
    its dimensions is 1 / r_m - 1. Expert outputs are vectors, one an expert and modality; nothing shows them.
    """

    name: ClassVar[str] = "qa_moe"
    paper: ClassVar[str] = "QA-MoE (Zhu et al.)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[QAMoEConfig]] = QAMoEConfig
    presets: ClassVar[Mapping[str, QAMoEConfig]] = {
        "mosi": _PAPER,
        "mosei": _PAPER,
        "sims": _PAPER,
        "mintrec": _PAPER,
        "iemocap6": _PAPER,
        "synth": _SYNTH,
    }
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": _A3,
        "mosei": _A3,
        "sims": _A3,
        "mintrec": _A3,
        "iemocap6": _A3,
        "synth": _A3,
    }

    def __init__(self, spec: InputSpec, config: QAMoEConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        d = config.d_model
        self.encoder = encoders(spec, d, config.dropout, config.conv_layers, config.normalise)
        self.mu = nn.ModuleDict({m: nn.Linear(d, d) for m in MODALITIES})
        self.quality = nn.ModuleDict({m: _quality_predictor(config) for m in MODALITIES})
        self.w_g = nn.Linear(d, config.num_experts, bias=False)
        self.experts = GLUExperts(config.num_experts, d)
        self.y_prior = nn.Parameter(torch.zeros(d))
        width = (3 if config.fusion == "mlp" else 1) * d
        self.fusion = nn.Sequential(
            nn.LayerNorm(width), wide_linear(width, d, gain=2.0), nn.GELU(), nn.Dropout(config.dropout)
        )
        self.value = nn.Linear(d, head_width(spec))
        self.log_variance = nn.Linear(d, 1)

    def fit_statistics(self, train: Batch) -> None:
        fit_standardisers((e.standardise for e in self.encoder.values() if isinstance(e, SequenceEncoder)), train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        return {"u": self.encoder[modality](x, lengths)}  # (N, d)

    def active_parameters(self) -> int:
        """One routed vector passes top_k of the N_e experts (4.1.2)."""
        idle: int = self.config.num_experts - self.config.top_k
        return super().active_parameters() - idle * sum(p[0].numel() for p in self.experts.parameters())

    def modality_quality(self, modality: str, u: Tensor, mu: Tensor) -> Tensor:
        """r_m in (0, 1], ``(N,)``, from u_m and mu_m ``(N, d)``."""
        if self.config.no_quality_gating:
            return torch.ones(len(u), device=u.device)
        if self.config.no_variance:
            return torch.sigmoid(self.quality[modality](mu)).squeeze(1)
        variance = F.softplus(self.quality[modality](u))  # (N, d)  eq. 5
        return 1 / (1 + variance.mean(dim=1))  # eq. 6

    def gates(self, mu: Tensor) -> Tensor:
        """g(mu_m) ``(N, N_e)`` with all but the top k at zero (4.1.2)."""
        g: Tensor = self.w_g(mu).softmax(dim=1)  # sec. 3.4.2
        kept = torch.zeros_like(g).scatter(1, g.topk(self.config.top_k, dim=1).indices, 1.0)
        g = g * kept
        return g / g.sum(dim=1, keepdim=True) if self.config.renormalise else g

    def refine(self, mu: Tensor, r: Tensor, gates: Tensor) -> Tensor:
        """y_m ``(N, d)``: the experts' answer where the modality is good, the prior where it is not."""
        mixture = torch.einsum("ne,end->nd", gates, self.experts(mu))
        r = r[:, None]
        if self.config.no_prior:
            return r * mixture
        return r * mixture + (1 - r) * self.y_prior  # eq. 7

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        r, gates, y = {}, {}, {}
        for m in MODALITIES:
            u = encoded.part(m)["u"]
            mu = self.mu[m](u)  # (N, d)  eq. 4; eq. 3 is N(mu, diag(sigma^2))
            r[m], gates[m] = self.modality_quality(m, u, mu), self.gates(mu)
            y[m] = self.refine(mu, r[m], gates[m])
        stacked = torch.stack([y[m] for m in MODALITIES], dim=1)  # (N, 3, d)
        h_final = self.fusion(stacked.flatten(1) if self.config.fusion == "mlp" else stacked.mean(dim=1))  # (N, d)
        value = scores_or_logits(self.value(h_final), self.spec)  # (N,) or (N, C)  eq. 8
        log_variance = self.log_variance(h_final).squeeze(1)  # (N,)  eq. 9
        if self.spec.num_classes:
            value = value * torch.exp(-log_variance)[:, None]
        extras = {
            "r": torch.stack([r[m] for m in MODALITIES], dim=1),
            "gates": torch.cat([gates[m] for m in MODALITIES], dim=1),
            "log_variance": log_variance,
        }
        return Output(value, extras)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        output, y = self(batch), targets_of(batch, self.spec)
        if self.spec.num_classes:
            nll = F.cross_entropy(output.prediction, y)
        else:
            nll = gaussian_nll(output.prediction, output.extras["log_variance"], y)
        return {"total": nll, "L_nll": nll}


class GLUExperts(nn.Module):
    """N_e gated linear units side by side: E_i(x) = (A_i x + a_i) * sigmoid(B_i x + b_i), ``(N, d) -> (N_e, N, d)``."""

    def __init__(self, num_experts: int, d: int) -> None:
        super().__init__()
        units = [nn.Linear(d, 2 * d) for _ in range(num_experts)]
        self.weight = nn.Parameter(torch.stack([u.weight.detach().T for u in units]))  # (N_e, d, 2d)
        self.bias = nn.Parameter(torch.stack([u.bias.detach()[None] for u in units]))  # (N_e, 1, 2d)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.glu(torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight), dim=-1)
        return y


def gaussian_nll(value: Tensor, log_variance: Tensor, y: Tensor) -> Tensor:
    """Eq. 10, the mean over samples of (y - value)^2 exp(-s) / 2 + s / 2 (the constant log(2 pi) / 2 left out).

    >>> gaussian_nll(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([3.0])).item()
    2.0
    """
    return (0.5 * torch.exp(-log_variance) * (y - value).square() + 0.5 * log_variance).mean()  # eq. 10


def _quality_predictor(config: QAMoEConfig) -> nn.Module:
    d, out = config.d_model, 1 if config.no_variance else config.d_model
    if config.quality_predictor == "affine":
        return nn.Linear(d, out)
    return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, out))
