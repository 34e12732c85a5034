"""Stressors by name, and a stress as people type it: ``missing-random:told=true``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from corruptions.batch import Batch
from corruptions.corruption import Corruption
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Grid, Point
from corruptions.reference import Reference
from corruptions.stressor import Stressor, Value
from corruptions.stressors.conflict import Conflict
from corruptions.stressors.missing import Missing, MissingFixed, MissingRandom
from corruptions.stressors.noise import Noise, NoiseLambda
from corruptions.stressors.spectrum import Spectrum

STRESSORS: dict[str, Stressor] = {
    stressor.name: stressor
    for stressor in (
        Noise(),
        Missing(),
        Conflict(),
        MissingFixed(),
        MissingRandom(),
        NoiseLambda(),
        Spectrum(),
    )
}


@dataclass(frozen=True)
class Stress:
    """A stressor with all its parameters settled: what a cell's key holds."""

    name: str
    options: tuple[tuple[str, Value], ...]

    @classmethod
    def parse(cls, text: str, /, **options: Value) -> Stress:
        """From ``name:key=value,key=value``; keyword options come on top.

        Raises:
            InputError: unknown stressor or parameter, or a value that does not fit.

        >>> Stress.parse("missing-random:told=true").label
        'missing-random:told=true'
        """
        name, _, rest = text.partition(":")
        stressor = find(name.strip())
        given: dict[str, Value] = {}
        for item in filter(None, (part.strip() for part in rest.split(","))):
            key, equals, value = item.partition("=")
            if not equals:
                raise InputError(f"stress {text!r}: expected key=value after the colon, got {item!r}")
            given[key.strip()] = value.strip()
        given |= options
        table = stressor.option_table
        for key in given:
            if key not in table:
                raise InputError(
                    f"stress {name}: unknown parameter {key!r}{did_you_mean(key, table)}; it has {', '.join(table)}"
                )
        settled = {k: option.parse(f"{name}:{k}", given.get(k, option.default)) for k, option in sorted(table.items())}
        return cls(stressor.name, tuple(settled.items()))

    @property
    def stressor(self) -> Stressor:
        return STRESSORS[self.name]

    @property
    def uses_reference(self) -> bool:
        """Does the outcome depend on the training statistics?"""
        return self.stressor.needs_reference or ("fill", "mean") in self.options

    @property
    def params(self) -> str:
        """The parameters that differ from their defaults, as typed after the colon (empty: all default)."""
        table = self.stressor.option_table
        return ",".join(f"{k}={_text(v)}" for k, v in self.options if v != table[k].default)

    @property
    def label(self) -> str:
        return f"{self.name}:{self.params}" if self.params else self.name

    def grid(self, text: str | None = None) -> Grid:
        """The grid from its text (default: the paper's), checked against the stressor's axes."""
        return Grid.parse(self.stressor.default_grid if text is None else text, self.stressor.axes)

    def apply(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None = None,
        pool: Batch | None = None,
    ) -> Corruption:
        return self.stressor.apply(batch, point, draws, dict(self.options), reference, pool)


def find(name: str) -> Stressor:
    """The stressor of this name. Raises InputError, with the nearest name, when there is none."""
    if name not in STRESSORS:
        raise InputError(f"unknown stress {name!r}{did_you_mean(name, STRESSORS)}; known: {', '.join(STRESSORS)}")
    return STRESSORS[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'noise'?)`` or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def corrupt(
    batch: Batch,
    stress: str = "missing",
    severity: str | float | tuple[str | float, ...] = "0.4",
    seed: int = 1111,
    reference: Reference | None = None,
    pool: Batch | None = None,
    **params: Value,
) -> Batch:
    """The batch under one stress at one severity: the same for every model, batch size and order.

    Args:
        stress: a stressor's name, with parameters after a colon or as keywords.
        severity: a decimal (text or number), a pair for two axes, or an available set such as "t+a".
        seed: one realisation of all random draws.
        reference: ``Reference.fit(train_batch)``, for stressors that scale noise by the training split.
        pool: where donors come from; default the batch itself.

    Raises:
        InputError: unknown stress or parameter, a severity outside its range, a missing reference.

    >>> import numpy as np
    >>> batch = Batch(text=np.ones((3, 4, 2)), audio=np.ones((3, 4, 2)), vision=np.ones((3, 4, 2)))
    >>> corrupt(batch, "missing-fixed", "t").present.tolist()[0]
    [True, False, False]
    >>> corrupt(batch, "missing", 0).text is batch.text
    True
    """
    parsed = Stress.parse(stress, **params)
    text = "x".join(map(str, severity)) if isinstance(severity, tuple) else str(severity)
    points = parsed.grid(text).points
    if len(points) != 1:
        raise InputError(f"corrupt takes one severity, {text!r} is {len(points)}; loop over a grid's points for more")
    return parsed.apply(batch, points[0], Draws(seed, batch), reference, pool).batch


def describe() -> list[Mapping[str, str]]:
    """Name, axis, default grid, summary and source of every stressor, for listings."""
    return [
        {
            "name": s.name,
            "axis": " x ".join(map(str, s.axes)) or "available modalities",
            "default_grid": s.default_grid,
            "told": "yes" if s.told else "no",
            "parameters": ", ".join(f"{k}={_text(o.default)}" for k, o in s.option_table.items()),
            "summary": s.summary,
            "source": s.source,
        }
        for s in STRESSORS.values()
    ]


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
