"""Stresses one after the other: ``noise+missing``, with a product grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from corruptions.batch import Batch
from corruptions.corruption import Corruption, Features, Sources
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.reference import Reference
from corruptions.stressor import Adversary, Option, Options, Stressor, Value

MAX_AXES = 2


class Composition(Stressor):
    """The second stressor acts on what the first one left, and so on, in the order of the name.

    Parameters are named ``part.parameter``. What a part tells models stays told. A part sees what was told lost before
    it as absent, and whatever else as it is handed: noise after an untold loss falls on the zeros.
    """

    by_halves = False

    def __init__(self, parts: tuple[Stressor, ...]) -> None:
        self.parts = parts
        self.name = "+".join(part.name for part in parts)
        self.version = 0
        for part in parts:
            self.version = 1000 * self.version + part.version
        self.axes = tuple(axis for part in parts for axis in part.axes)
        self.default_grid = "x".join(part.default_grid for part in parts)
        self.told = any(part.told for part in parts)
        self.summary = "; then ".join(part.summary for part in parts)
        self.formula = "; then ".join(part.formula for part in parts)
        self.source = "; ".join(part.source for part in parts)
        self.needs_reference = any(part.needs_reference for part in parts)
        self.uses_pool = any(part.uses_pool for part in parts)
        self.touches_features = True
        self.acts_on = "".join(letter for letter in "tav" if any(letter in part.acts_on for part in parts))
        self.random = any(part.random for part in parts)
        self.purposes = frozenset().union(*(part.purposes for part in parts))
        self.option_table = self._table(part.option_table for part in parts)

    def _table(self, tables: Iterable[Mapping[str, Option]]) -> dict[str, Option]:
        return {
            f"{part.name}.{name}": option
            for part, table in zip(self.parts, tables, strict=True)
            for name, option in table.items()
        }

    @property
    def parameters(self) -> Mapping[str, Option]:
        return self._table(part.parameters for part in self.parts)

    def implied(self, given: Options) -> Options:
        return {
            f"{part.name}.{name}": value
            for part in self.parts
            for name, value in part.implied(self.options_of(part, given)).items()
        }

    def options_of(self, part: Stressor, options: Options) -> dict[str, Value]:
        """The parameters of one part, under their own names."""
        prefix = f"{part.name}."
        return {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}

    def axes_of(self, options: Options) -> tuple[Axis, ...]:
        return tuple(axis for part in self.parts for axis in part.axes_of(self.options_of(part, options)))

    def grid_of(self, options: Options) -> str:
        return "x".join(part.grid_of(self.options_of(part, options)) for part in self.parts)

    def feature_point(self, point: Point) -> Point:
        """All but the last severity, when the last part leaves the inside of modalities alone."""
        return point if self.parts[-1].touches_features or len(point.values) < 2 else Point(point.severity, "0")

    def apply(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        options: Options,
        reference: Reference | None = None,
        pool: Batch | None = None,
        adversary: Adversary | None = None,
    ) -> Corruption:
        led = self.leading(batch, point, draws, options, reference, pool)
        return self.following(led, batch, point, draws, options, reference, pool)

    def leading(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        options: Options,
        reference: Reference | None,
        pool: Batch | None,
    ) -> Corruption | None:
        """What all parts but the last do; None: nothing. It does not depend on the last severity."""
        donors = batch if pool is None else pool
        stage: Corruption | None = None
        for part, own in list(self._points(point, options))[:-1]:
            stage = self._stage(stage, part, own, batch, draws, options, reference, donors)
        return stage

    def following(
        self,
        led: Corruption | None,
        batch: Batch,
        point: Point,
        draws: Draws,
        options: Options,
        reference: Reference | None,
        pool: Batch | None,
    ) -> Corruption:
        """What the last part does to what the ones before it left."""
        part, own = list(self._points(point, options))[-1]
        done = self._stage(led, part, own, batch, draws, options, reference, batch if pool is None else pool)
        return done or Corruption(batch, Features(batch), Sources.untouched(batch), told=False)

    def _points(self, point: Point, options: Options) -> Iterator[tuple[Stressor, Point]]:
        """Each part with its own severity."""
        severities = iter(s for s in (point.severity, point.severity_2) if s is not None)
        for part in self.parts:
            yield part, Point(*itertools.islice(severities, len(part.axes_of(self.options_of(part, options)))))

    def _stage(
        self,
        before: Corruption | None,
        part: Stressor,
        point: Point,
        batch: Batch,
        draws: Draws,
        options: Options,
        reference: Reference | None,
        donors: Batch,
    ) -> Corruption | None:
        """One part after another; its parameters are checked where it does nothing, too."""
        current = batch if before is None else before.batch
        done = part.apply(current, point, draws.fitting(current), self.options_of(part, options), reference, donors)
        return before if point.is_clean else replace(done, before=before)


def compose(parts: tuple[Stressor, ...]) -> Composition:
    """Raises InputError for parts that cannot follow each other."""
    name = "+".join(part.name for part in parts)
    if len(set(parts)) < len(parts):
        raise InputError(f"stress {name}: a composition is of different stresses; one of them stands there twice")
    for part in parts:
        if part.needs_adversary or not part.axes:
            why = "depends on the model" if part.needs_adversary else "has no severity to make a product grid of"
            raise InputError(f"stress {name}: {part.name} cannot be composed, it {why}")
    axes = sum(len(part.axes) for part in parts)
    if axes > MAX_AXES:
        raise InputError(f"stress {name}: {axes} severities; a composition has at most {MAX_AXES}")
    for one, other in itertools.combinations(parts, 2):
        if one.purposes & other.purposes:
            raise InputError(
                f"stress {name}: {one.name} and {other.name} use the same random numbers, so the second would not be "
                "independent of the first; compose stresses of different kinds"
            )
    return Composition(parts)
