"""Steps lost one by one (MMSA, TFR-Net, EMT-DLFR, LNLN) or in one stretch."""

from __future__ import annotations

import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch
from corruptions.corruption import Features, fill_steps, maskable
from corruptions.draws import Draws, GeneratorDraws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point, rounded_share
from corruptions.reference import Reference
from corruptions.stressor import FILL_UNK, Option, Options, Stressor, allowed


class FrameMissing(Stressor):
    """``frame-missing`` at r: each step of each modality lost with probability r, independently.

    Text as ids becomes [UNK], features become zeros; lengths stay, so the number of steps still shows.

    ``legacy=lnln`` is bit for bit what MMSA, TFR-Net, EMT-DLFR and LNLN do, so it is exempt from "the same in any order
    or subset": NumPy's generator seeded anew per modality with the one seed, a uniform matrix over the padded
    ``(N, T)`` row by row, a step kept where its U > r; of text the first and the last valid token are kept always.
    With equal T the same steps vanish in all three modalities.
    """

    name = "frame-missing"
    axes = (Axis("r", "0", "1"),)
    default_grid = "0:0.9:0.1"
    summary = "each step of each modality lost with probability r"
    formula = "step t of modality m is lost where u_mt < r; legacy: where U_mt <= r, U row-major from NumPy's seed"
    source = "TFR-Net (Yuan et al., 2021), EMT-DLFR (Sun et al., 2023), LNLN (Zhang et al., 2024); MMSA's data_loader"
    option_table = {
        "fill": FILL_UNK,
        "legacy": Option("none", "lnln: the masks of MMSA, TFR-Net, EMT-DLFR and LNLN, bit for bit", ("none", "lnln")),
    }
    purposes = frozenset({"frame"})
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
        r = float(point.values[0])
        if options["legacy"] == "lnln":
            lost = {m: legacy_lost(batch, m, r, draws) for m in allowed(options)}
        else:
            lost = {m: maskable(batch, m) & (draws.steps("frame", m) < r) for m in allowed(options)}
        return lose_frames(batch, lost, str(options["fill"]), reference)


class Burst(Stressor):
    """``burst`` at s: one contiguous stretch of exactly ``round(s L)`` steps lost, per modality, half to even.

    L counts maskable steps. The stretch starts at ``floor(u (L - round(s L) + 1))``, so every place is equally likely;
    a longer stretch holds the shorter ones of the same draw.
    """

    name = "burst"
    axes = (Axis("s", "0", "1"),)
    default_grid = "0:0.8:0.2"
    summary = "one contiguous stretch of steps lost, per modality"
    formula = "steps b .. b + n - 1 lost, n = round(s L), b = floor(u (L - n + 1))"
    source = "beyond the papers: a dropped connection, a covered camera"
    option_table = {"fill": FILL_UNK}
    purposes = frozenset({"burst"})
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
        lost = {}
        for m in allowed(options):
            steps = maskable(batch, m)  # (N, T_m)
            count = rounded_share(point.values[0], steps.sum(1))
            free = steps.sum(1) - count + 1
            begin = torch.minimum((draws.uniform("burst", m) * free).floor().to(torch.int64), free - 1)
            place = steps.cumsum(1) - 1  # the how-manieth maskable step
            lost[m] = steps & (place >= begin[:, None]) & (place < (begin + count)[:, None])
        return lose_frames(batch, lost, str(options["fill"]), reference)


def legacy_lost(batch: Batch, modality: str, r: float, draws: Draws) -> Tensor:
    """``(N, T_m)`` bool, as `generate_m` of MMSA's data loader masks them. Depends on the order and the padding."""
    if isinstance(draws, GeneratorDraws):
        raise InputError("frame-missing:legacy=lnln repeats one seeded mask; in training leave legacy out")
    if not 0 <= draws.seed < 2**32:
        raise InputError(f"frame-missing:legacy=lnln: NumPy's generator takes seeds below 2^32, got {draws.seed}")
    shape = batch.features(modality).shape[:2]
    u = draws.row_major(shape[1])  # as np.random.seed and np.random.uniform
    valid = batch.valid(modality)
    kept = torch.from_numpy(u > r).to(batch.device)
    if modality == "text":
        steps = torch.arange(shape[1], device=batch.device)
        kept = kept | (steps == 0) | (steps == batch.lengths(modality)[:, None] - 1)
    return valid & ~kept & batch.present[:, MODALITIES.index(modality), None]


def lose_frames(batch: Batch, lost: dict[str, Tensor], fill: str, reference: Reference | None) -> Features:
    """Fill lost steps; token ids become [UNK] unless told otherwise."""
    changes = {}
    for modality, steps in lost.items():
        if bool(steps.any()):
            kind = "unk" if fill == "auto" and not batch.features(modality).is_floating_point() else fill
            changes[modality] = fill_steps(batch, modality, steps, kind, reference)
    return Features(batch.replace(**changes) if changes else batch, lost, filled=frozenset(lost))
