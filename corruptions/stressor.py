"""The contract of a stressor: what it does to features, and what it does to whole modalities.

The two halves are apart on purpose. A stress that only drops or swaps whole modalities needs no new encoding of
anything, and one that does both (the spectrum) needs one per noise level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from corruptions.batch import Batch
from corruptions.corruption import FILLS, Corruption, Features, Sources, check_fill
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.reference import Reference

Value = str | bool | float


@dataclass(frozen=True)
class Option:
    """A named parameter of a stressor: its default, and the choices where there is a list of them."""

    default: Value
    help: str
    choices: tuple[str, ...] = ()

    def parse(self, where: str, text: str | Value) -> Value:
        """The value from what was typed. Raises InputError when it is not one of the choices or not of the type."""
        if isinstance(self.default, bool):
            value = str(text).lower()
            if value not in ("true", "false"):
                raise InputError(f"{where}: expected true or false, got {text!r}")
            return value == "true"
        if isinstance(self.default, float):
            try:
                return float(text)
            except ValueError:
                raise InputError(f"{where}: expected a number, got {text!r}") from None
        if self.choices and text not in self.choices:
            raise InputError(f"{where}: expected one of {', '.join(self.choices)}; got {text!r}")
        return str(text)


FILL = Option("auto", "what takes the place of lost steps; auto: zeros, or [MASK] for token ids", FILLS)
SIGMA_REF = Option("feature", "sigma_ref per feature, or one value per modality", ("feature", "modality"))


class Stressor:
    """One family of test-time degradation. Subclasses override ``features``, ``sources`` or both; they hold no state.

    name, version: its identity; raise the version whenever any output changes.
    axes: severity axes (none: the axis is the available set). default_grid: as in its paper.
    told: are models told what is lost? option_table: parameters by name.
    needs_reference, uses_pool: what it must be given. touches_features: does it change anything inside a modality?
    random: False when there is nothing to draw, so that one seed is as good as ten.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    axes: ClassVar[tuple[Axis, ...]]
    default_grid: ClassVar[str]
    told: ClassVar[bool] = False
    summary: ClassVar[str]
    source: ClassVar[str]
    option_table: ClassVar[Mapping[str, Option]] = {"fill": FILL}
    needs_reference: ClassVar[bool] = False
    uses_pool: ClassVar[bool] = False
    touches_features: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        options: Mapping[str, Value],
    ) -> Features:
        """Changes inside modalities: noise, masked tokens, lost frames."""
        return Features(batch)

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Mapping[str, Value]) -> Sources:
        """Changes of whole modalities: what is gone, what is swapped."""
        return Sources.untouched(batch)

    def feature_point(self, point: Point) -> Point:
        """The part of the severity that ``features`` depends on (the spectrum's noise level). Default: all of it."""
        return point if self.touches_features else Point("0")

    def apply(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        options: Mapping[str, Value],
        reference: Reference | None = None,
        pool: Batch | None = None,
    ) -> Corruption:
        """The corrupted input at a point, with what was done. At a clean point: the same tensors.

        Raises:
            InputError: the stressor (or its fill) needs a Reference and got none; a fill that does not fit the text.
        """
        told, fill = bool(options.get("told", self.told)), str(options.get("fill", "auto"))
        check_fill(batch, fill, reference)
        if point.is_clean:
            return Corruption(batch, Features(batch), Sources.untouched(batch), told=False, fill=fill)
        if self.needs_reference and reference is None:
            raise InputError(
                f"{self.name} scales its noise by the training split: pass reference=Reference.fit(train_batch)"
            )
        features = self.features(batch, point, draws, reference, options)
        sources = self.sources(batch, point, draws, batch if pool is None else pool, options)
        return Corruption(batch, features, sources, told, fill, pool, reference)
