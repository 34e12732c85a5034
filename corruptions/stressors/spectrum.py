"""QA-MoE's continuous reliability spectrum: noise and missing modalities at once (eq. 2, Protocol III, table 9)."""

from __future__ import annotations

from collections.abc import Mapping

from corruptions.batch import Batch
from corruptions.corruption import Features, Sources
from corruptions.draws import Draws
from corruptions.grid import Axis, Point
from corruptions.reference import Reference
from corruptions.stressor import FILL, SIGMA_REF, Option, Stressor, Value
from corruptions.stressors.missing import drop_independently, lose
from corruptions.stressors.noise import NoiseLambda


class Spectrum(Stressor):
    """``spectrum`` at (lambda, eta): noise-lambda, then missing-random (eq. 2). Models are not told what is missing.

    It shares the draws of its two parts: at eta 0 it is noise-lambda, at lambda 0 it is missing-random.
    """

    name = "spectrum"
    axes = (Axis("lambda", "0", "2"), Axis("eta", "0", "1"))
    default_grid = "0:0.7:0.1x0:0.7:0.1"
    summary = "noise-lambda, then missing-random: a grid of noise times missing"
    source = "QA-MoE, section 3.3 eq. 2, Protocol III, section 4.4.3 and table 9"
    option_table = {
        "fill": FILL,
        "sigma_ref": SIGMA_REF,
        "told": Option(False, "tell models what is missing"),
    }
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
        if not point.values[0]:
            return Features(batch)
        return NoiseLambda().features(batch, Point(point.severity), draws, reference, options)

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Mapping[str, Value]) -> Sources:
        return lose(batch, drop_independently(batch, draws, float(point.values[1])))

    def feature_point(self, point: Point) -> Point:
        return Point(point.severity, "0")
