"""Layers the models share: standardisation, masked pooling and the encoder that turns a sequence into one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec


class Standardise(nn.Module):
    """(x - mean) / std per feature, with the training split's statistics; until ``fit``, the identity.

    A step that is all zero (padding, or lost to a stressor that fills with zeros) maps to zero, never to -mean/std:
    for a model, lost is lost and not an extreme value. Standardised values are clipped to ``limit`` standard
    deviations: single clips of raw COVAREP features lie 150 of them out.

    >>> standardise = Standardise(2)
    >>> standardise.fit(torch.tensor([[[1.0, 5.0], [3.0, 5.0], [9.0, 9.0]]]), torch.tensor([[True, True, False]]))
    >>> standardise(torch.tensor([[[4.0, 6.0], [0.0, 0.0]]])).tolist()
    [[[2.0, 1.0], [0.0, 0.0]]]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, d: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))

    @torch.no_grad()
    def fit(self, x: Tensor, valid: Tensor) -> None:
        """Take mean and std of ``x (N, T, d)`` over the steps where ``valid (N, T)`` and not all zero.

        The std of a constant feature is 1. With no such step (a modality that training never saw) nothing changes.
        """
        steps = x[valid & (x != 0).any(dim=-1)].double()  # (steps, d)
        if len(steps) == 0:
            return
        constant = steps.amax(dim=0) == steps.amin(dim=0)
        self.mean.copy_(steps.mean(dim=0))
        self.std.copy_(torch.where(constant, 1.0, steps.std(dim=0, correction=0)))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x: ``(N, T, d)``; valid: ``(N, T)`` bool, all other steps become zero whatever they hold."""
        there = (x != 0).any(dim=-1)
        if valid is not None:
            there &= valid
        standardised = (x - self.mean).div_(self.std).clamp_(-self.limit, self.limit)  # in place: x is large
        return standardised.masked_fill_(~there[..., None], 0.0)


def valid_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """``(N, T)`` bool for ``x (N, T, d)``: True on the first ``lengths`` steps.

    >>> valid_steps(torch.zeros(2, 3, 1), torch.tensor([0, 2])).tolist()
    [[False, False, False], [True, True, False]]
    """
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``x (N, T, d)`` over the valid steps ``(N, T)``: ``(N, d)``; zero where no step is valid.

    >>> masked_mean(torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[True, True, False]])).tolist()
    [[3.0]]
    """
    total = x.masked_fill(~valid[..., None], 0.0).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)


def relative_position(lengths: Tensor, steps: int, frequencies: int) -> Tensor:
    """Fourier features of the place in the utterance: cos and sin of pi k tau, tau = (t + 1/2) / L, k = 1..frequencies.

    Returns ``(N, steps, 2 frequencies)``. tau does not depend on the padding.
    """
    t = torch.arange(steps, device=lengths.device) + 0.5
    tau = t / lengths.clamp(min=1)[:, None]  # (N, T)
    k = torch.arange(1, frequencies + 1, device=lengths.device)
    angle = math.pi * tau[..., None] * k  # (N, T, frequencies)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class SequenceEncoder(nn.Module):
    """A light unimodal encoder: ``(N, T, d_in)`` raw features to h ``(N, d_model)``.

    Standardise, project, mix neighbours with ``conv_layers`` residual convolutions of width 3, then pool with learned
    attention whose score sees the step and its relative position, and normalise (LayerNorm; ``normalise=False``: not).
    The papers size their encoders (d_model) and do not describe them; this is the one all models here share.

    Padding never matters, neither its amount nor its content; every sample is encoded on its own. A sample with no
    valid step gives a finite constant.
    """

    FREQUENCIES = 4

    def __init__(
        self, d_in: int, d_model: int, dropout: float = 0.1, conv_layers: int = 1, normalise: bool = True
    ) -> None:
        super().__init__()
        self.standardise = Standardise(d_in)
        self.project = nn.Linear(d_in, d_model)
        self.convs = nn.ModuleList(nn.Conv1d(d_model, d_model, 3, padding=1) for _ in range(conv_layers))
        self.score = nn.Linear(d_model + 2 * self.FREQUENCIES, 1, bias=False)  # softmax ignores a shift
        self.norm = nn.LayerNorm(d_model) if normalise else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.score.weight)  # pooling starts as the plain mean

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        valid = valid_steps(x, lengths)  # (N, T)
        padding = ~valid[..., None]
        x = self.standardise(x, valid)
        h = self.project(self.dropout(x)).masked_fill(padding, 0.0)  # (N, T, d_model)
        for conv in self.convs:
            mixed = F.gelu(conv(h.transpose(1, 2))).transpose(1, 2)  # (N, T, d_model)
            h = h + self.dropout(mixed).masked_fill(padding, 0.0)
        weights = self._attention(h, lengths, valid)  # (N, T)
        pooled: Tensor = self.norm((weights[..., None] * h).sum(dim=1))  # (N, d_model)
        return pooled

    def _attention(self, h: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        place = relative_position(lengths, h.shape[1], self.FREQUENCIES)
        score = self.score(torch.cat([h, place], dim=-1)).squeeze(-1)  # (N, T)
        # a large finite number: a sample without any valid step must not become NaN
        weights: Tensor = score.masked_fill(~valid, -1e9).softmax(dim=1)
        return weights


def wide_linear(d_in: int, d_out: int, gain: float = math.sqrt(2.0)) -> nn.Linear:
    """A linear layer that starts with weights of std gain / sqrt(d_in) (gain sqrt 2: He et al. 2015) and no bias.

    PyTorch's default starts at a sixth of that variance: the rectifiers after it are nearly linear, and from 1,284
    samples no late-fusion network learned the product of three modalities.
    """
    layer = nn.Linear(d_in, d_out)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(d_in))
    nn.init.zeros_(layer.bias)
    return layer


def encoders(spec: InputSpec, d_model: int, dropout: float, conv_layers: int, normalise: bool) -> nn.ModuleDict:
    """One SequenceEncoder a modality, under "text", "audio", "vision"."""
    return nn.ModuleDict(
        {
            m: SequenceEncoder(d, d_model, dropout, conv_layers, normalise)
            for m, d in zip(MODALITIES, spec.dims, strict=True)
        }
    )


def fit_standardisers(standardisers: Iterable[Standardise], train: Batch) -> None:
    """Fit text's, audio's and vision's on the valid steps of the training samples that have the modality."""
    for i, (modality, standardise) in enumerate(zip(MODALITIES, standardisers, strict=True)):
        standardise.fit(train.features(modality), train.valid(modality) & train.present[:, i, None])


def require_text_features(model: str, spec: InputSpec) -> None:
    """The border of every model here.

    Raises:
        InputError: text given as token ids, or a number of classes that is none.
    """
    if spec.dims[0] == 0:
        raise InputError(
            f"{model}: text is token ids, expected features (N, T, d); train with a text backbone "
            "(--text-backbone NAME), or read the features (--text features)"
        )
    if spec.num_classes == 1 or spec.num_classes < 0:
        raise InputError(f"{model}: expected 0 (a score) or at least 2 classes, got num_classes={spec.num_classes}")


def require_features(modality: str, x: Tensor, d: int) -> None:
    """Raises InputError unless x is ``(N, T, d)`` features."""
    if not x.is_floating_point() or x.ndim != 3 or x.shape[2] != d:
        got = f"{'features' if x.is_floating_point() else 'token ids'} of shape {tuple(x.shape)}"
        raise InputError(
            f"{modality}: expected features (N, T, {d}), got {got}; use the features the model was built for"
        )


def labels_of(batch: Batch) -> Tensor:
    """The labels as ``(N,)`` floats. Raises InputError where a batch has none: there is nothing to train on."""
    if batch.labels is None:
        raise InputError("loss: the batch has no labels; a training batch needs one score a sample")
    return batch.labels.float()


def targets_of(batch: Batch, spec: InputSpec) -> Tensor:
    """What to predict, ``(N,)``: scores as floats, or classes 0..C-1 as int64.

    Raises:
        InputError: no labels; labels that are not whole numbers below C.
    """
    y = labels_of(batch)
    if not spec.num_classes:
        return y
    classes = y.long()
    wrong = (classes != y) | (classes < 0) | (classes >= spec.num_classes)
    if bool(wrong.any()):
        raise InputError(f"loss: expected classes 0 to {spec.num_classes - 1}, got a label of {y[wrong][0].item():g}")
    return classes


def head_width(spec: InputSpec) -> int:
    """Outputs of a prediction head: one score, or a logit a class."""
    return max(1, spec.num_classes)


def scores_or_logits(y: Tensor, spec: InputSpec) -> Tensor:
    """What a head of ``head_width`` gives, ``(..., width)``: scores ``(...)``, or logits as they are."""
    return y if spec.num_classes else y.squeeze(-1)


def sample_losses(prediction: Tensor, y: Tensor, kind: str) -> Tensor:
    """The task loss of each sample, ``(N,)``.

    Of scores ``(N,)`` the absolute ("l1") or squared ("mse") error; of logits ``(N, C)`` the cross-entropy with the
    classes y, of either kind.

    >>> sample_losses(torch.tensor([3.0]), torch.tensor([1.0]), "mse").tolist()
    [4.0]
    >>> round(sample_losses(torch.tensor([[2.0, 2.0]]), torch.tensor([1]), "mse").item(), 4)  # log 2
    0.6931
    """
    if prediction.ndim == 2:
        return F.cross_entropy(prediction, y, reduction="none")
    error = prediction - y
    return error.abs() if kind == "l1" else error.square()


def discretise(y: Tensor, label_range: tuple[float, float], K: int) -> Tensor:
    """The class 0..K-1 of a score: clipped to the range, rounded to the nearest of K equidistant levels, int64.

    Halves are rounded to even counted from the middle level: for K = 7 on [-3, 3] this is round(clip(y)) + 3, the
    classes of Acc-7.

    >>> discretise(torch.tensor([-9.0, -0.4, 0.5, 2.6]), (-3.0, 3.0), 7).tolist()
    [0, 3, 3, 6]
    """
    low, high = label_range
    step, middle = (high - low) / (K - 1), (K - 1) // 2
    level = ((y.clamp(low, high) - (low + middle * step)) / step).round().long() + middle
    return level.clamp(0, K - 1)


def require_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises InputError unless value is one of the choices of a configuration's field."""
    if value not in choices:
        raise InputError(f"{field} must be one of {', '.join(choices)}; got {value!r}")
