"""LMF: tensor fusion with a weight tensor of low rank, one set of factors a modality. Equations 1 to 8 of the paper.

Z. Liu, Y. Shen, V. B. Lakshminarasimhan, P. P. Liang, A. Zadeh, L.-P. Morency, "Efficient Low-rank Multimodal Fusion
with Modality-Specific Factors", ACL 2018. Symbols: z_m the unimodal representation of modality m with a 1 appended, d_m
its size; Z their outer product; W the weights on it, of rank r; w_m^(i) the i-th factor of modality m, i = 1..r.

Facts also come from the authors' release (github.com/Justin1904/Low-rank-Multimodal-Fusion) and from MMSA's
configuration (github.com/thuiar/MMSA, config_regression.json).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output, Part
from robustbench_msa.models.layers import (
    require_choice,
    require_features,
    require_text_features,
    sample_losses,
    targets_of,
)
from robustbench_msa.models.tfn import MeanSubnetwork, TextSubnetwork, append_one, fit_subnetworks


@dataclass(frozen=True)
class LMFConfig:
    """The sizes of sec. 5.3 by default. lstm: size of the text's LSTM; text_out, audio, vision: d_m without the 1.

    Where the paper is silent, contradicts itself or differs from its release, an option:

    fusion: "sum_of_products" is eq. 8, "in practice", and what eq. 4-5 say; "product_of_sums" is eq. 6 as printed,
        which is not equal to eq. 5: there the r factors add up to one, so the weight tensor has rank 1; "weighted" is
        the release's, eq. 8 with a learned weight for each i (MMSA leaves these at their random start).
    bias: eq. 2 has b, eq. 5-8 leave it out.
    layers: of the networks for audio and vision: 2 (sec. 4.3), 3 in the release and MMSA.
    text_state: what of the LSTM is read: "last" valid state (release), or the "mean" of the valid ones.
    dropout: on what the networks for audio and vision read; dropout_text: on the LSTM's state (release; MMSA 0). The
        paper gives no rate; the release searches from 0 to .5 and does not say what it chose for MOSI.
    loss: "l1" (release, MMSA; the paper does not say) or "mse".

    The paper's d_h is 1 here: h is the prediction (sec. 5.3, d_y = 1; release). It has no ablation but the rank r.

    Classes: d_h = C, so each class has factors of its own (eq. 2: h in R^d_h), and h are the logits of a softmax
    trained with the cross-entropy, whatever ``loss`` says. The weights of "weighted" are shared, as they carry no d_h.
    """

    lstm: int = 128
    text_out: int = 64
    audio: int = 32
    vision: int = 32
    r: int = 4
    layers: int = 2
    text_state: str = "last"
    fusion: str = "sum_of_products"
    bias: bool = True
    dropout: float = 0.2
    dropout_text: float = 0.2
    loss: str = "l1"

    def __post_init__(self) -> None:
        require_choice("lmf: text_state", self.text_state, ("last", "mean"))
        require_choice("lmf: fusion", self.fusion, ("sum_of_products", "product_of_sums", "weighted"))
        require_choice("lmf: loss", self.loss, ("l1", "mse"))
        if self.r < 1 or self.layers < 1:
            raise InputError(f"lmf: r and layers must be 1 or more; got {self.r} and {self.layers}")


_MOSI = LMFConfig(lstm=128, text_out=64, audio=16, vision=128, r=3, layers=3, dropout=0.3, dropout_text=0.0)
_MOSEI = LMFConfig(lstm=128, text_out=64, audio=16, vision=128, r=4, layers=3, dropout=0.2, dropout_text=0.0)
_SIMS = LMFConfig(lstm=64, text_out=32, audio=16, vision=64, r=4, layers=3, dropout=0.2, dropout_text=0.0)
_SYNTH = LMFConfig(lstm=32, text_out=32, r=16, text_state="mean")


class LMF(MSAModel):
    """An LSTM over the text, dense networks on means over time of audio and vision, and h = sum_i prod_m w_m^(i) . z_m.

    The model is never told what is missing: ``present`` is not read, what is told absent comes in as zeros.

    Presets: "mosi", "mosei" and "sims" are MMSA's sizes, rates and batches: for MOSI the paper publishes none, and it
    has neither of the others. MMSA stops early, after 8 epochs without a gain: 30 epochs here, of which the best is
    kept. It gives the factors a learning rate of their own, equal to the other for MOSI and MOSEI; for SIMS they train
    at .002 here, not .0005. "synth" is small and reads the mean of the LSTM's states.
    """

    name: ClassVar[str] = "lmf"
    paper: ClassVar[str] = "LMF (Liu et al., ACL 2018)"
    pools: ClassVar[bool] = True
    config_class: ClassVar[type[LMFConfig]] = LMFConfig
    presets: ClassVar[Mapping[str, LMFConfig]] = {"mosi": _MOSI, "mosei": _MOSEI, "sims": _SIMS, "synth": _SYNTH}
    optimisation: ClassVar[Mapping[str, Optimisation]] = {
        "mosi": Optimisation("adam", 1e-3, 5e-3, batch_size=64, epochs=30),
        "mosei": Optimisation("adam", 1e-3, 1e-3, batch_size=32, epochs=30),
        "sims": Optimisation("adam", 2e-3, 5e-3, batch_size=64, epochs=30),
        "synth": Optimisation("adam", 2e-3, 3e-3, batch_size=32, epochs=40, grad_clip=1.0, schedule="cosine"),
    }

    def __init__(self, spec: InputSpec, config: LMFConfig) -> None:
        super().__init__(spec, config)
        require_text_features(self.name, spec)
        c, (text, audio, vision) = config, spec.dims
        self.subnet = nn.ModuleDict(
            {
                "text": TextSubnetwork(text, c.lstm, c.text_out, 0, c.text_state, c.dropout_text),
                "audio": MeanSubnetwork(audio, c.audio, c.layers, c.dropout, 0.0),
                "vision": MeanSubnetwork(vision, c.vision, c.layers, c.dropout, 0.0),
            }
        )
        sizes = zip(MODALITIES, (c.text_out, c.audio, c.vision), strict=True)
        d_h = (spec.num_classes,) if spec.num_classes else ()
        self.factors = nn.ParameterDict({m: nn.Parameter(_xavier(*d_h, c.r, d + 1)) for m, d in sizes})
        self.weights = nn.Parameter(_xavier(1, c.r)[0]) if c.fusion == "weighted" else None
        self.bias = nn.Parameter(torch.zeros(d_h)) if c.bias else None

    def fit_statistics(self, train: Batch) -> None:
        fit_subnetworks(self.subnet, train)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        require_features(modality, x, self.spec.dims[MODALITIES.index(modality)])
        return {"z": self.subnet[modality](x, lengths)}  # (N, d_m - 1)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        projected = torch.stack([self.project(m, encoded.part(m)["z"]) for m in MODALITIES])
        h = self.combine(projected)  # (N,), or (N, C)
        return Output(h if self.bias is None else h + self.bias)  # eq. 2

    def project(self, modality: str, z: Tensor) -> Tensor:
        """w_m^(i) . z_m for each factor i (and class), ``(N, r)`` or ``(N, C, r)``, from ``(N, d_m - 1)``."""
        factors = self.factors[modality]
        projected: Tensor = append_one(z) @ factors.flatten(0, -2).T  # (N, r), or (N, C r)
        return projected.view(len(z), *factors.shape[:-1])

    def combine(self, projected: Tensor) -> Tensor:
        """h ``(N, ...)`` from the projections ``(M, N, ..., r)`` of each modality on its r factors."""
        if self.config.fusion == "product_of_sums":
            return projected.sum(dim=-1).prod(dim=0)  # eq. 6
        products = projected.prod(dim=0)  # (N, ..., r)
        return products.sum(dim=-1) if self.weights is None else products @ self.weights  # eq. 8

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task = sample_losses(self(batch).prediction, targets_of(batch, self.spec), self.config.loss).mean()
        return {"total": task, "L_task": task}


def _xavier(*shape: int) -> Tensor:
    """``(..., rows, columns)`` from a normal distribution (Glorot and Bengio 2010)."""
    return torch.randn(*shape) * math.sqrt(2 / (shape[-2] + shape[-1]))
