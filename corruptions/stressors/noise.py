"""Noise: RIDER-MoE's (C.2), QA-MoE's Protocol II (A.1.2, eq. 12-13), and noise that grows along the utterance."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch
from corruptions.corruption import Features, fill_steps, maskable, zeroed
from corruptions.draws import Draws
from corruptions.grid import Axis, Point, rounded_share
from corruptions.reference import Reference
from corruptions.stressor import FILL, SIGMA_REF, Options, Stressor, allowed


class Noise(Stressor):
    """``noise`` at rho: exactly ``round(rho L)`` text tokens masked; audio and vision ``x + rho sigma_ref z``, then
    exactly ``round(rho L)`` of their steps zeroed (temporal dropout). Half rounds to even; L counts maskable steps.
    """

    name = "noise"
    axes = (Axis("rho", "0", "1"),)
    default_grid = "0:0.5:0.1"
    summary = "text tokens masked; audio and vision with Gaussian noise and dropped steps"
    formula = "round(rho L) steps of each modality lost; audio, vision: x + rho sigma_ref z, z ~ N(0,1)"
    source = "RIDER-MoE, appendix C.2 (the noise constant is not given there; here rho times sigma_ref)"
    option_table = {"fill": FILL, "sigma_ref": SIGMA_REF}
    purposes = frozenset({"noise", "mask"})
    needs_reference = True
    touches_features = True

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        assert reference is not None
        (rho,) = point.values
        noisy = add_noise(batch, float(rho), draws, reference, options)
        lost = {m: smallest(draws.steps("mask", m), maskable(batch, m), rho) for m in allowed(options)}
        return lose_steps(batch, noisy, lost, str(options["fill"]), reference)


class NoiseLambda(Stressor):
    """``noise-lambda`` at lambda: each text token lost with probability ``min(lambda, 1)`` (eq. 13); audio and vision
    ``x + lambda sigma_ref z`` (eq. 12). No temporal dropout.
    """

    name = "noise-lambda"
    axes = (Axis("lambda", "0", "2"),)
    default_grid = "0:0.7:0.1"
    summary = "each text token lost with probability lambda; audio and vision with Gaussian noise"
    formula = "text tokens lost where u_t < min(lambda, 1); audio, vision: x + lambda sigma_ref z, z ~ N(0,1)"
    source = "QA-MoE, Protocol II, appendix A.1.2, eq. 12-13"
    option_table = {"fill": FILL, "sigma_ref": SIGMA_REF}
    purposes = frozenset({"noise", "mask"})
    needs_reference = True
    touches_features = True

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        assert reference is not None
        return noise_and_masks(batch, float(point.values[0]), draws, reference, options)


class Drift(Stressor):
    """``drift`` at s: noise that grows linearly along the utterance, from none to ``2 s sigma_ref`` at the last step.

    Step t = 0 .. L-1 of audio and vision has standard deviation ``2 s sigma_ref t / (L - 1)`` (mean s sigma_ref; a
    single step has s sigma_ref). Text, as in ``noise-lambda``: token t is lost with probability
    ``min(2 s t / (L-1), 1)``.
    """

    name = "drift"
    axes = (Axis("s", "0", "1"),)
    default_grid = "0:0.7:0.1"
    summary = "noise growing along the utterance, from none to 2 s sigma_ref"
    formula = "level_t = 2 s t/(L-1); audio, vision: x_t + level_t sigma_ref z; text tokens lost where u_t < level_t"
    source = "beyond the papers: noise-lambda with a level that grows in time"
    option_table = {"fill": FILL, "sigma_ref": SIGMA_REF}
    purposes = frozenset({"noise", "mask"})
    needs_reference = True
    touches_features = True

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        assert reference is not None
        s = float(point.values[0])
        levels = {m: s * self.ramp(batch, m) for m in MODALITIES}
        return noise_and_masks(batch, levels, draws, reference, options)

    @staticmethod
    def ramp(batch: Batch, modality: str) -> Tensor:
        """``2 t / (L - 1)``, ``(N, T_m)`` float64: 0 at the first step, 2 at the last, 1 for a single step."""
        length = batch.lengths(modality)[:, None].to(torch.float64)
        t = torch.arange(batch.features(modality).shape[1], dtype=torch.float64, device=batch.device)
        return torch.where(length > 1, 2 * t / (length - 1).clamp(min=1), torch.ones_like(length))


def noise_and_masks(
    batch: Batch, level: float | Tensor | Mapping[str, Tensor], draws: Draws, reference: Reference, options: Options
) -> Features:
    """Eq. 12 and 13 at a level: one, one per sample ``(N,)``, or one per step ``(N, T_m)`` and modality."""
    noisy = add_noise(batch, level, draws, reference, options)
    lost = {}
    if "text" in allowed(options):
        rate = _by_step(_of("text", level))
        lost["text"] = maskable(batch, "text") & (draws.steps("mask", "text") < rate)  # eq. 13
    return lose_steps(batch, noisy, lost, str(options["fill"]), reference)


def add_noise(
    batch: Batch, level: float | Tensor | Mapping[str, Tensor], draws: Draws, reference: Reference, options: Options
) -> Batch:
    """``x + level sigma_ref z`` on the valid steps of available audio and vision."""
    if isinstance(level, float) and level == 0:
        return batch
    changes: dict[str, Tensor] = {}
    for i, modality in enumerate(MODALITIES):
        if modality == "text" or modality not in allowed(options):
            continue
        sigma = reference.noise_sigma(modality, str(options["sigma_ref"])).to(batch.device)
        steps = batch.valid(modality) & batch.present[:, i, None]
        scale = _by_step(_of(modality, level))
        scale = scale[:, :, None].to(torch.float32) if isinstance(scale, Tensor) else scale
        noise = zeroed(draws.normal("noise", modality) * (scale * sigma), ~steps)
        changes[modality] = batch.features(modality) + noise
    return batch.replace(**changes)


def smallest(draws: Tensor, steps: Tensor, share: Decimal) -> Tensor:
    """Exactly ``round(share * L)`` of the given steps: those with the smallest draws. All ``(N, T)``."""
    counts = rounded_share(share, steps.sum(1))
    ranks = draws.masked_fill(~steps, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < counts[:, None]


def lose_steps(
    clean: Batch, noisy: Batch, lost: Mapping[str, Tensor], fill: str, reference: Reference | None
) -> Features:
    """Fill the lost steps of the noisy batch; audio and vision steps are dropped, so ``fill`` speaks of text and
    ``mean`` of all."""
    changes = {}
    for modality, steps in lost.items():
        if bool(steps.any()):
            kind = fill if modality == "text" or fill == "mean" else "zeros"
            changes[modality] = fill_steps(noisy, modality, steps, kind, reference)
    filled = frozenset(m for m in lost if noisy.features(m) is clean.features(m))
    return Features(noisy.replace(**changes) if changes else noisy, lost, filled=filled)


def _of(modality: str, level: float | Tensor | Mapping[str, Tensor]) -> float | Tensor:
    return level[modality] if isinstance(level, Mapping) else level


def _by_step(level: float | Tensor) -> float | Tensor:
    """A level per sample as a column; one number and levels per step as they are."""
    return level[:, None] if isinstance(level, Tensor) and level.ndim == 1 else level
