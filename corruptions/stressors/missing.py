"""Whole modalities missing: RIDER-MoE's (C.2) and QA-MoE's Protocol I, fixed and random (4.3.1, A.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corruptions.batch import LETTERS, MODALITIES, Batch
from corruptions.corruption import Sources
from corruptions.draws import Draws
from corruptions.grid import SUBSETS, Axis, Point
from corruptions.stressor import FILL, Option, Stressor, Value


class Missing(Stressor):
    """``missing`` at m: each available modality dropped with probability m, drawn again if all are gone.

    Drawn as a random order of the modalities and one uniform per sample: the first k are dropped, k by inverse CDF of
    ``P(k) ~ C(n, k) m^k (1-m)^(n-k)``, k < n, for n available modalities. The same distribution, and nested in m.
    The real rate per modality of three is ``(m - m^3) / (1 - m^3)``: 0.59 at m = 0.8.
    """

    name = "missing"
    axes = (Axis("m", "0", "1", open_end=True),)
    default_grid = "0:0.8:0.2"
    told = True
    summary = "modalities dropped independently, at least one stays"
    source = "RIDER-MoE, appendix C.2"

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Mapping[str, Value]) -> Sources:
        m = float(point.values[0])
        order = torch.stack([draws.uniform("order", modality) for modality in MODALITIES], 1)
        rank = order.masked_fill(~batch.present, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)  # (N, 3)
        dropped = drop_count(draws.uniform("count"), batch.present.sum(1), m)
        return lose(batch, (rank < dropped[:, None]) & batch.present)


class MissingFixed(Stressor):
    """``missing-fixed``: only the modalities of the condition are left, the same for every sample. No nAUC."""

    name = "missing-fixed"
    axes = ()
    random = False
    default_grid = ",".join(SUBSETS)
    told = True
    summary = "only a fixed set of modalities is available"
    source = "QA-MoE, Protocol I, fixed missing (section 4.3.1, table 2)"

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Mapping[str, Value]) -> Sources:
        assert point.condition is not None
        kept = {LETTERS[letter] for letter in point.condition.split("+")}
        gone = torch.tensor([modality not in kept for modality in MODALITIES], device=batch.device)
        return lose(batch, gone[None, :] & batch.present)


class MissingRandom(Stressor):
    """``missing-random`` at eta: each modality's whole sequence zeroed with probability eta; all three may go.

    Models are not told: QA-MoE's quality score must find out by itself (``told=true`` says otherwise).
    """

    name = "missing-random"
    axes = (Axis("eta", "0", "1"),)
    default_grid = "0:0.7:0.1"
    summary = "each modality lost with probability eta, all three may be"
    source = "QA-MoE, Protocol I, random missing (section 4.3.1, appendix A.1)"
    option_table = {"fill": FILL, "told": Option(False, "tell models what is missing")}

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Mapping[str, Value]) -> Sources:
        return lose(batch, drop_independently(batch, draws, float(point.values[-1])))


def drop_independently(batch: Batch, draws: Draws, rate: float) -> Tensor:
    """``(N, 3)`` bool: available modalities whose draw is below the rate."""
    draw = torch.stack([draws.uniform("drop", modality) for modality in MODALITIES], 1)
    return (draw < rate) & batch.present


def drop_count(u: Tensor, available: Tensor, m: float) -> Tensor:
    """k by inverse CDF of ``P(k) ~ C(n, k) m^k (1-m)^(n-k)``, k = 0 .. n-1. u: ``(N,)``; available n: ``(N,)``."""
    k = torch.zeros_like(available)
    q = 1.0 - m
    for n, weights in ((2, (q * q, 2 * m * q)), (3, (q * q * q, 3 * m * q * q, 3 * m * m * q))):
        total, below = sum(weights), 0.0
        for weight in weights[:-1]:
            below += weight
            k += ((available == n) & (u * total >= below)).to(k.dtype)
    return k


def lose(batch: Batch, lost: Tensor) -> Sources:
    return Sources(lost, Sources.untouched(batch).donor)
