"""Exact Bayes decisions on the synthetic dataset: the best that any model can do when inputs degrade.

For modality m let s = sum_t w_t x_t and n = sum_t w_t^2 over its surviving steps, and D the variance of its noise per
feature, equal on all steps. With f = (r, u_m, b_m) the log likelihood of the sequence is, up to terms without f,

    f' G' D^-1 s - n/2 f' G' D^-1 G f

so z = G' D^-1 s and n are sufficient. Given the three signs, (r, u_T, u_A, u_V) has a Gaussian posterior and the signs
a Gaussian evidence, so y* is a mixture of eight Gaussians. A modality without surviving steps has z = 0 and n = 0 and
drops out.

It sees one sample at a time: a bound for models that do too (clips of a video share a part of r). The rounding of
labels is ignored by the densities (below 0.001 in Corr) and respected where it moves a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.data.synth import LABEL_LIMIT, LABELS_PER_UNIT, SynthModality, SynthModel

Array = NDArray[np.float64]

SIGNS: Array = np.array(list(product((-1.0, 1.0), repeat=3)))  # (8, 3): the values of (b_T, b_A, b_V)
_SAMPLES_AT_ONCE = 512  # bounds the float64 copies of features
_SQRT_2PI = np.sqrt(2 * np.pi)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The posterior of the scaled score c y* (before it is clipped and rounded to a label): K Gaussians per sample.

    weights, means, variances: ``(N, K)``; weights sum to one over K.
    """

    weights: Array
    means: Array
    variances: Array

    def below(self, threshold: Array | float) -> Array:
        """P(c y* < threshold), ``(N,)``; threshold: a number or one per sample."""
        z = (np.asarray(threshold)[..., None] - self.means) / np.sqrt(self.variances)
        return np.asarray((self.weights * ndtr(z)).sum(1))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What the surviving steps of one modality say: z ``(N, 3)``, n ``(N,)``, and G' D^-1 G ``(3, 3)``."""

    z: Array
    n: Array
    unit: Array


def posterior(
    batch: Batch, model: SynthModel, noise_std: Mapping[str, Any] | None = None, conflict: float = 0.0
) -> Mixture:
    """The posterior of c y* for each sample, given what is left of it.

    A step survives when it is within the length, not all zero, and its modality is told present.

    Args:
        batch: samples of `model`, corrupted or not: steps set to zero, modalities absent, noise added.
        noise_std: standard deviation of the noise added to "audio" and "vision", per feature ``(d_m,)`` or one number
            (severity times sigma_ref); equal on all steps. Text never gets noise.
        conflict: c in [0, 1], the probability that audio, vision or both were swapped for a donor's. Each hypothesis
            (none 1 - c; audio, vision, or both from one donor sharing its r: c/3 each) is weighed by its own evidence,
            and K is 32 instead of 8. Donors are taken as random samples while the stress picks them by label, so
            under conflict this is a strong reference and not a bound.

    Raises:
        InputError: token ids, feature dimensions other than the model's, noise for text or of a wrong shape or
            negative, c outside [0, 1].
    """
    if not 0 <= conflict <= 1:
        raise InputError(f"oracle: conflict must be a probability in [0, 1]; got {conflict}")
    noise = _noise_per_feature(batch, model, dict(noise_std or {}))
    evidence = [_observe(batch, i, model.part(m), noise[m]) for i, m in enumerate(MODALITIES)]
    if conflict == 0:
        log_weights, means, variance = _score(evidence, {0, 1, 2}, model)
        return _mixture([log_weights], [means], [variance])
    hypotheses: tuple[tuple[float, set[int]], ...] = (
        (1 - conflict, set()),
        (conflict / 3, {1}),
        (conflict / 3, {2}),
        (conflict / 3, {1, 2}),
    )
    log_all, means_all, variance_all = [], [], []
    for prior, swapped in hypotheses:
        host, means, variance = _score(evidence, {0, 1, 2} - swapped, model)
        donor = logsumexp(_score(evidence, swapped, model)[0], axis=1, keepdims=True)  # its signs summed out
        with np.errstate(divide="ignore"):  # conflict = 1 rules out "none": log 0 is meant
            log_all.append(np.log(prior) + host + donor)
        means_all.append(means)
        variance_all.append(variance)
    return _mixture(log_all, means_all, variance_all)


def _mixture(log_weights: list[Array], means: list[Array], variances: list[Array]) -> Mixture:
    log = np.concatenate(log_weights, axis=1)
    weights = np.exp(log - logsumexp(log, axis=1, keepdims=True))
    spread = [np.broadcast_to(v[:, None], m.shape) for v, m in zip(variances, means, strict=True)]
    return Mixture(weights, np.concatenate(means, axis=1), np.concatenate(spread, axis=1))


def _noise_per_feature(batch: Batch, model: SynthModel, noise_std: dict[str, Any]) -> dict[str, Array]:
    if batch.has_token_text:
        raise InputError("oracle: text is token ids; the oracle knows the synthetic dataset's features only")
    if extra := sorted(set(noise_std) - {"audio", "vision"}):
        raise InputError(f"oracle: noise_std is for audio and vision (text only loses steps); got {', '.join(extra)}")
    noise = {}
    for modality in MODALITIES:
        d, got = len(model.part(modality).loadings), batch.features(modality).shape[2]
        if d != got:
            raise InputError(f"oracle: the synthetic model has {d} {modality} features, the batch has {got}")
        std = np.asarray(noise_std.get(modality, 0.0), dtype=np.float64)
        if std.shape not in ((), (d,)) or not (np.isfinite(std).all() and (std >= 0).all()):
            raise InputError(f"oracle: noise_std[{modality!r}] must be one number or {d}, each finite and at least 0")
        noise[modality] = np.broadcast_to(std, (d,))
    return noise


def _observe(batch: Batch, index: int, part: SynthModality, noise_std: Array) -> _Evidence:
    x = batch.features(MODALITIES[index]).cpu().numpy()  # (N, T, d)
    weights = part.weights(batch.lengths(MODALITIES[index]).cpu().numpy(), x.shape[1])
    weights *= batch.present[:, index].cpu().numpy()[:, None]
    weights *= (x != 0).any(axis=2)
    scaled = part.loadings / (part.noise**2 + noise_std**2)[:, None]  # D^-1 G, (d, 3)
    z = np.empty((len(x), 3))
    for start in range(0, len(x), _SAMPLES_AT_ONCE):
        rows = slice(start, start + _SAMPLES_AT_ONCE)
        z[rows] = (weights[rows, None, :] @ x[rows].astype(np.float64))[:, 0] @ scaled
    return _Evidence(z, (weights**2).sum(axis=1), part.loadings.T @ scaled)


def _score(evidence: list[_Evidence], use: set[int], model: SynthModel) -> tuple[Array, Array, Array]:
    """For each of the eight signs, log P(signs, x of the modalities in use) ``(N, 8)`` and the mean ``(N, 8)`` and
    variance ``(N,)`` of c y*.

    Terms of the evidence that depend on x and n alone are left out: they are equal for all signs and all hypotheses.
    """
    count = len(evidence[0].n)
    precision = np.tile(np.eye(4), (count, 1, 1))  # of (r, u_T, u_A, u_V)
    linear, log = np.zeros((count, 8, 4)), np.full((count, 8), -np.log(8))
    for i in sorted(use):
        z, n, unit, sign = evidence[i].z, evidence[i].n, evidence[i].unit, SIGNS[:, i]
        rows = np.array([0, 1 + i])  # this modality sees r and its own u
        precision[:, rows[:, None], rows] += n[:, None, None] * unit[:2, :2]
        linear[:, :, rows] += z[:, None, :2] - n[:, None, None] * sign[:, None] * unit[:2, 2]
        log += z[:, 2, None] * sign
    covariance = np.linalg.inv(precision)
    factors = linear @ covariance  # posterior means, (N, 8, 4)
    log += 0.5 * (linear * factors).sum(axis=2) - 0.5 * np.linalg.slogdet(precision)[1][:, None]
    a = np.array([model.a_redundant, *model.a_unique])
    means = model.scale * (factors @ a + model.a_synergy * SIGNS.prod(axis=1))
    return log, means, model.scale**2 * (a @ covariance @ a + model.noise**2)


def decisions(mixture: Mixture) -> dict[str, Array]:
    """The best prediction for each metric, as a value that the metric takes, ``(N,)`` each.

    - "mean": E[clip(c y*, -3, 3)], best for squared error and, as "corr", for Corr; "median" of the clipped score, for
      absolute error, also as "mae"; "p_positive": P(y* > 0).
    - "acc2_has0", "acc2_non0": +1 or -1. Labels are fifths: >= 0 when c y* > -0.1, > 0 when c y* > 0.1, < 0 when
      c y* < -0.1. "f1_has0" and "f1_non0" are the same decisions (F1 has no best decision for one sample alone).
    - "acc7", "acc5", "acc3": the most probable class of the label, from -3, -2 or -1 up.

    >>> one = Mixture(np.ones((1, 1)), np.full((1, 1), 0.8), np.full((1, 1), 1e-6))
    >>> made = decisions(one)
    >>> [round(float(made[k][0]), 3) for k in ("mean", "median", "acc2_non0", "acc7")]
    [0.8, 0.8, 1.0, 1.0]
    """
    half_step = 0.5 / LABELS_PER_UNIT
    mean, median = clipped_mean(mixture), clipped_median(mixture)
    negative, positive = mixture.below(-half_step), 1 - mixture.below(half_step)
    has0 = np.where(negative <= 0.5, 1.0, -1.0)
    non0 = np.where(positive >= negative, 1.0, -1.0)
    classes = {f"acc{2 * limit + 1}": _most_probable(mixture, limit) for limit in (1, 2, 3)}
    binary = {"acc2_has0": has0, "f1_has0": has0, "acc2_non0": non0, "f1_non0": non0}
    points = {"mean": mean, "median": median, "p_positive": 1 - mixture.below(0.0)}
    return {**points, **binary, **classes, "mae": median, "corr": mean}


def clipped_mean(mixture: Mixture, limit: float = LABEL_LIMIT) -> Array:
    """E[clip(Z, -limit, limit)] of each sample's mixture Z, ``(N,)``.

    For Z ~ N(m, s^2), alpha = (-limit - m)/s and beta = (limit - m)/s it is
    limit (1 - Phi(beta) - Phi(alpha)) + m (Phi(beta) - Phi(alpha)) - s (phi(beta) - phi(alpha)).
    """
    m, s = mixture.means, np.sqrt(mixture.variances)
    alpha, beta = (-limit - m) / s, (limit - m) / s
    low, high = ndtr(alpha), ndtr(beta)
    density = (np.exp(-(beta**2) / 2) - np.exp(-(alpha**2) / 2)) / _SQRT_2PI
    inner = limit * (1 - high - low) + m * (high - low) - s * density
    return np.asarray((mixture.weights * inner).sum(axis=1))


def clipped_median(mixture: Mixture, limit: float = LABEL_LIMIT) -> Array:
    """The median of clip(Z, -limit, limit), ``(N,)``, by bisection to 1e-9 (its ends are the clip's own)."""
    low, high = np.full(len(mixture.means), -limit), np.full(len(mixture.means), limit)
    for _ in range(33):  # 6 / 2^33 < 1e-9
        middle = (low + high) / 2
        left = mixture.below(middle) < 0.5
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return np.asarray((low + high) / 2)


def _most_probable(mixture: Mixture, limit: int) -> Array:
    """The most probable of the classes -limit .. limit. Labels are fifths, so class edges at halves meet no label."""
    edges = np.arange(-limit, limit) + 0.5
    below = np.stack([mixture.below(edge) for edge in edges.tolist()], axis=1)
    return np.asarray(np.diff(below, axis=1, prepend=0.0, append=1.0).argmax(axis=1) - float(limit))
