"""Audio and vision out of step with the text."""

from __future__ import annotations

import torch

from corruptions.batch import MODALITIES, Batch
from corruptions.corruption import Features
from corruptions.draws import Draws
from corruptions.grid import Axis, Point, rounded_share
from corruptions.reference import Reference
from corruptions.stressor import Option, Options, Stressor, allowed


class Misalign(Stressor):
    """``misalign`` at s: audio and vision shifted in time against the text by ``round(s L)`` steps, half to even.

    The valid part is rolled: what leaves at one end comes in at the other, so nothing is lost and no value changes.
    Half a turn is the farthest apart they can get, so s ends at 0.5. Nothing is drawn.
    """

    name = "misalign"
    axes = (Axis("s", "0", "0.5"),)
    default_grid = "0:0.5:0.1"
    summary = "audio and vision shifted in time against the text"
    formula = "x_t <- x_((t - n) mod L), n = round(s L) (late) or its opposite (early)"
    source = "beyond the papers: streams that lost their common clock"
    option_table = {"direction": Option("late", "which way audio and vision move", ("late", "early"))}
    touches_features = True
    acts_on = "av"
    random = False

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        changes, moved = {}, {}
        for i, modality in enumerate(MODALITIES):
            if modality == "text" or modality not in allowed(options):
                continue
            x, length = batch.features(modality), batch.lengths(modality)[:, None]  # (N, T, d), (N, 1)
            shift = rounded_share(point.values[0], batch.lengths(modality))[:, None]
            shift = shift if options["direction"] == "late" else -shift
            steps = batch.valid(modality) & batch.present[:, i, None]
            t = torch.arange(x.shape[1], device=x.device)[None, :]
            source = torch.where(steps, (t - shift) % length.clamp(min=1), t)  # (N, T)
            moved[modality] = steps & (source != t)
            if bool(moved[modality].any()):
                changes[modality] = x.gather(1, source[:, :, None].expand_as(x))
        return Features(batch.replace(**changes) if changes else batch, altered=moved)
