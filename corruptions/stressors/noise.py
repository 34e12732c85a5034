"""Noise: RIDER-MoE's (C.2) and QA-MoE's Protocol II (A.1.2, eq. 12-13)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch
from corruptions.corruption import Features, fill_steps, maskable
from corruptions.draws import Draws
from corruptions.grid import Axis, Point, rounded_share
from corruptions.reference import Reference
from corruptions.stressor import FILL, SIGMA_REF, Stressor, Value


class Noise(Stressor):
    """``noise`` at rho: exactly ``round(rho L)`` text tokens masked; audio and vision ``x + rho sigma_ref z``, then
    exactly ``round(rho L)`` of their steps zeroed (temporal dropout). Half rounds to even; L counts maskable steps.
    """

    name = "noise"
    axes = (Axis("rho", "0", "1"),)
    default_grid = "0:0.5:0.1"
    summary = "text tokens masked; audio and vision with Gaussian noise and dropped steps"
    source = "RIDER-MoE, appendix C.2 (the noise constant is not given there; here rho times sigma_ref)"
    option_table = {"fill": FILL, "sigma_ref": SIGMA_REF}
    needs_reference = True
    touches_features = True

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        options: Mapping[str, Value],
    ) -> Features:
        assert reference is not None
        (rho,) = point.values
        noisy = add_noise(batch, float(rho), draws, reference, str(options["sigma_ref"]))
        lost = {m: smallest(draws.steps("mask", m), maskable(batch, m), rho) for m in MODALITIES}
        return lose_steps(noisy, lost, str(options["fill"]), reference)


class NoiseLambda(Stressor):
    """``noise-lambda`` at lambda: each text token lost with probability ``min(lambda, 1)`` (eq. 13); audio and vision
    ``x + lambda sigma_ref z`` (eq. 12). No temporal dropout.
    """

    name = "noise-lambda"
    axes = (Axis("lambda", "0", "2"),)
    default_grid = "0:0.7:0.1"
    summary = "each text token lost with probability lambda; audio and vision with Gaussian noise"
    source = "QA-MoE, Protocol II, appendix A.1.2, eq. 12-13"
    option_table = {"fill": FILL, "sigma_ref": SIGMA_REF}
    needs_reference = True
    touches_features = True

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        options: Mapping[str, Value],
    ) -> Features:
        assert reference is not None
        level = float(point.values[0])
        noisy = add_noise(batch, level, draws, reference, str(options["sigma_ref"]))
        lost = {"text": maskable(batch, "text") & (draws.steps("mask", "text") < level)}  # eq. 13
        return lose_steps(noisy, lost, str(options["fill"]), reference)


def add_noise(batch: Batch, level: float, draws: Draws, reference: Reference, scope: str) -> Batch:
    """``x + level sigma_ref z`` on the valid steps of available audio and vision."""
    if level == 0:
        return batch
    changes: dict[str, Tensor] = {}
    for i, modality in enumerate(MODALITIES):
        if modality == "text":
            continue
        sigma = reference.noise_sigma(modality, scope).to(batch.device)
        steps = batch.valid(modality) & batch.present[:, i, None]
        noise = draws.normal("noise", modality) * (level * sigma)
        changes[modality] = batch.features(modality) + noise.masked_fill_(~steps[:, :, None], 0.0)
    return batch.replace(**changes)


def smallest(draws: Tensor, steps: Tensor, share: Decimal) -> Tensor:
    """Exactly ``round(share * L)`` of the given steps: those with the smallest draws. All ``(N, T)``."""
    counts = rounded_share(share, steps.sum(1))
    ranks = draws.masked_fill(~steps, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < counts[:, None]


def lose_steps(batch: Batch, lost: Mapping[str, Tensor], fill: str, reference: Reference | None) -> Features:
    """Fill the lost steps; audio and vision steps are dropped, so ``fill`` speaks of text and ``mean`` of all."""
    changes = {}
    for modality, steps in lost.items():
        if bool(steps.any()):
            kind = fill if modality == "text" or fill == "mean" else "zeros"
            changes[modality] = fill_steps(batch, modality, steps, kind, reference)
    return Features(batch.replace(**changes) if changes else batch, lost)
