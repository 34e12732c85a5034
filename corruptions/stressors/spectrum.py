"""QA-MoE's continuous reliability spectrum: noise and missing modalities at once (eq. 2, Protocol III, table 9)."""

from __future__ import annotations

import torch

from corruptions.batch import Batch
from corruptions.corruption import Features, Sources
from corruptions.draws import Draws
from corruptions.grid import Axis, Point
from corruptions.reference import Reference
from corruptions.stressor import FILL, SIGMA_REF, TOLD, Option, Options, Stressor
from corruptions.stressors.missing import drop_independently, lose
from corruptions.stressors.noise import NoiseLambda, noise_and_masks


class Spectrum(Stressor):
    """``spectrum`` at (lambda, eta): noise-lambda, then missing-random (eq. 2). Models are not told what is missing.

    It shares the draws of its two parts: at eta 0 it is noise-lambda, at lambda 0 it is missing-random.

    ``variant=mixture``: one heterogeneous test set (table 5). Each sample has its own lambda and eta, independent and
    uniform on (0, s); the grid's one axis is s, and the paper's set is s = 1.
    """

    name = "spectrum"
    axes = (Axis("lambda", "0", "2"), Axis("eta", "0", "1"))
    default_grid = "0:0.7:0.1x0:0.7:0.1"
    summary = "noise-lambda, then missing-random: a grid of noise times missing"
    formula = "noise-lambda at lambda, then missing-random at eta; mixture: lambda, eta ~ U(0, s) per sample"
    source = "QA-MoE, section 3.3 eq. 2, Protocol III, section 4.4.3 and table 9; mixture: table 5"
    option_table = {
        "fill": FILL,
        "sigma_ref": SIGMA_REF,
        "told": TOLD,
        "variant": Option("grid", "mixture: lambda and eta drawn per sample", ("grid", "mixture"), added=True),
    }
    purposes = frozenset({"noise", "mask", "drop", "lambda", "eta"})
    needs_reference = True
    touches_features = True

    def axes_of(self, options: Options) -> tuple[Axis, ...]:
        return (Axis("s", "0", "1"),) if options.get("variant") == "mixture" else self.axes

    def grid_of(self, options: Options) -> str:
        return "1" if options.get("variant") == "mixture" else self.default_grid

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        if options.get("variant") == "mixture":
            assert reference is not None
            level = float(point.values[0]) * draws.uniform("lambda")  # (N,)
            return noise_and_masks(batch, level, draws, reference, options)
        if not point.values[0]:
            return Features(batch)
        return NoiseLambda().features(batch, Point(point.severity), draws, reference, pool, options)

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        if options.get("variant") == "mixture":
            eta = float(point.values[0]) * draws.uniform("eta")  # (N,)
            return lose(batch, drop_independently(batch, draws, torch.stack([eta] * 3, 1), options))
        return lose(batch, drop_independently(batch, draws, [float(point.values[-1])] * 3, options))

    def feature_point(self, point: Point) -> Point:
        return Point(point.severity, "0")
