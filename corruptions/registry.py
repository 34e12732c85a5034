"""Stressors by name, and a stress as people type it: ``missing-random:told=true``."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from corruptions.batch import LETTERS, Batch
from corruptions.composition import compose
from corruptions.corruption import Corruption
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Grid, Point
from corruptions.reference import Reference
from corruptions.stressor import EVERY, Adversary, Stressor, Value
from corruptions.stressors.asr import ASR
from corruptions.stressors.conflict import Conflict, ConflictControl
from corruptions.stressors.frames import Burst, FrameMissing
from corruptions.stressors.misalign import Misalign
from corruptions.stressors.missing import Correlated, Imbalanced, Missing, MissingFixed, MissingRandom
from corruptions.stressors.noise import Drift, Noise, NoiseLambda
from corruptions.stressors.spectrum import Spectrum
from corruptions.stressors.worst_case import WorstCase

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
        ConflictControl(),
        FrameMissing(),
        Burst(),
        Misalign(),
        Drift(),
        Imbalanced(),
        Correlated(),
        ASR(),
        WorstCase(),
    )
}

PLUGINS = "msabench.stressors"
"""The group of entry points by which other packages offer stressors: ``my-stress = "my_package.stress:MyStress"``."""


@dataclass(frozen=True)
class Stress:
    """A stressor with all its parameters settled: what a cell's key holds."""

    name: str
    options: tuple[tuple[str, Value], ...]

    @classmethod
    def parse(cls, text: str, /, **options: Value) -> Stress:
        """From ``name:key=value,key=value``, or ``name+name:name.key=value``; keyword options come on top.

        In a composition a parameter without a part's name goes to every part that has it and is not given its own.

        Raises:
            InputError: unknown stressor or parameter, or a value that does not fit.

        >>> Stress.parse("missing-random:told=true").label
        'missing-random:told=true'
        >>> Stress.parse("noise+missing:missing.fill=zeros,modalities=audio").label
        'noise+missing:missing.fill=zeros,missing.modalities=a,noise.modalities=a'
        """
        name, _, rest = text.partition(":")
        stressor = find(name)
        given = _named(stressor, _typed(text, rest) | options)
        given = {**stressor.implied(given), **given}
        settled: dict[str, Value] = {}
        for key, option in sorted(stressor.parameters.items()):
            value = option.parse(f"{stressor.name}:{key}", given.get(key, option.default))
            if key.rpartition(".")[2] == "modalities":
                value = _effective(stressor, key, str(value), given)
            if value != option.default or not option.added:
                settled[key] = value
        return cls(stressor.name, tuple(settled.items()))

    @property
    def stressor(self) -> Stressor:
        return find(self.name)

    @property
    def uses_reference(self) -> bool:
        """Does the outcome depend on the training statistics?"""
        fills = [value for key, value in self.options if key.rpartition(".")[2] == "fill"]
        return self.stressor.needs_reference or "mean" in fills

    @property
    def params(self) -> str:
        """The parameters that differ from their defaults, as typed after the colon (empty: all default)."""
        table, implied = self.stressor.parameters, self.stressor.implied(dict(self.options))
        named = [(k, v) for k, v in self.options if not v == table[k].default == implied.get(k, v)]
        return ",".join(f"{k}={_text(v)}" for k, v in named)

    @property
    def label(self) -> str:
        return f"{self.name}:{self.params}" if self.params else self.name

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The severity axes (none: the axis is the available set)."""
        return self.stressor.axes_of(dict(self.options))

    def grid(self, text: str | None = None) -> Grid:
        """The grid from its text (default: the paper's), checked against the stressor's axes."""
        return Grid.parse(self.stressor.grid_of(dict(self.options)) if text is None else text, self.axes)

    def apply(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None = None,
        pool: Batch | None = None,
        adversary: Adversary | None = None,
    ) -> Corruption:
        return self.stressor.apply(batch, point, draws, dict(self.options), reference, pool, adversary)

    def blocks(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None = None,
        pool: Batch | None = None,
        adversary: Adversary | None = None,
        size: int = 64,
    ) -> Iterator[Corruption]:
        """``apply`` on runs of ``size`` samples; draws that are given once serve all severities."""
        return self.stressor.blocks(batch, point, draws, dict(self.options), reference, pool, adversary, size)


@cache
def find(name: str) -> Stressor:
    """The stressor of this name, or the composition of ``name+name``.

    Raises:
        InputError: there is none (the nearest name is given), or the parts cannot be composed.
    """
    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in STRESSORS and not _plugged_in(part):
            known = [*STRESSORS, *sorted({entry.name for entry in entry_points(group=PLUGINS)} - set(STRESSORS))]
            raise InputError(f"unknown stress {part!r}{did_you_mean(part, known)}; known: {', '.join(known)}")
    return STRESSORS[parts[0]] if len(parts) == 1 else compose(tuple(STRESSORS[part] for part in parts))


def register(stressor: Stressor) -> Stressor:
    """Make a stressor of one's own known by its name; the same object again, or another of the same class, is welcome.

    Raises:
        InputError: no Stressor, a name that is none, or one that is taken.
    """
    if not isinstance(stressor, Stressor):
        raise InputError(f"a stressor must be an instance of corruptions.Stressor, got {type(stressor).__name__}")
    name = getattr(stressor, "name", "")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        raise InputError(f"stressor {name[:80]!r}: expected a name of small letters, digits and -")
    if type(STRESSORS.get(name, stressor)) is not type(stressor):
        raise InputError(f"stressor {name}: there is another one of this name; choose another")
    STRESSORS[name] = stressor
    return stressor


def _plugged_in(name: str) -> bool:
    """Register the stressor that an installed package offers under this name. It is a program, and it is said so."""
    found = [entry for entry in entry_points(group=PLUGINS) if entry.name == name]
    if not found:
        return False
    what = f"{name} = {found[0].value}"
    print(f"msabench: runs the stressor {what}: a program from outside, with your rights", file=sys.stderr)
    try:
        made = found[0].load()
        stressor = made() if isinstance(made, type) else made
        source = Path(inspect.getfile(type(stressor))).read_bytes()
        if (called := getattr(stressor, "name", None)) != name:
            raise InputError(f"the stressor calls itself {called}; the two names must be one")
        register(stressor)
    except InputError as error:
        raise InputError(f"plug-in {what}: {error}") from error
    except Exception as error:  # whatever a stranger's import raises
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(f"plug-in {what} cannot be used: {why}") from error
    # A changed file is another stressor: its hash goes into the version, which every cell's key holds.
    stressor.version = 1000 * int(hashlib.sha256(source).hexdigest()[:12], 16) + stressor.version
    return True


def _typed(text: str, rest: str) -> dict[str, Value]:
    given: dict[str, Value] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InputError(f"stress {text!r}: expected key=value after the colon, got {item!r}")
        if key.strip() in given:
            raise InputError(f"stress {text!r}: {key.strip()} is given twice")
        given[key.strip()] = value.strip()
    return given


def _named(stressor: Stressor, given: Mapping[str, Value]) -> dict[str, Value]:
    """The given parameters under their full names. Raises InputError for one that the stressor does not have."""
    table = stressor.parameters
    named: dict[str, Value] = {}
    for key, value in sorted(given.items(), key=lambda item: item[0] in table):  # a part's own name comes last and wins
        full = [key] if key in table else [name for name in table if name.partition(".")[2] == key]
        if not full:
            hint = did_you_mean(key, table)
            raise InputError(f"stress {stressor.name}: unknown parameter {key!r}{hint}; it has {', '.join(table)}")
        named |= dict.fromkeys(full, value)
    return named


def _effective(stressor: Stressor, key: str, letters: str, given: Mapping[str, Value]) -> str:
    """The letters of ``modalities`` that make a difference. Raises InputError when none does."""
    acts_on = STRESSORS[key.partition(".")[0]].acts_on if "." in key else stressor.reach(given)
    left = "".join(letter for letter in letters if letter in acts_on)
    if not left:
        names = ", ".join(LETTERS[letter] for letter in acts_on)
        raise InputError(f"stress {stressor.name}: it acts on {names}; modalities={letters} leaves it nothing to do")
    return EVERY if left == acts_on else left


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
    adversary: Adversary | None = None,
    **params: Value,
) -> Batch:
    """The batch under one stress at one severity: the same for every model, batch size and order.

    Args:
        stress: a stressor's name, with parameters after a colon or as keywords.
        severity: a decimal (text or number), a pair for two axes, or an available set such as "t+a".
        seed: one realisation of all random draws.
        reference: ``Reference.fit(train_batch)``, for stressors that scale noise by the training split.
        pool: where donors come from; default the batch itself.
        adversary: for worst-case, the model as losses and gradients.
        params: the stress's parameters; ``modalities="audio"`` restricts any stress.

    Raises:
        InputError: unknown stress or parameter, a severity outside its range, a missing reference.

    >>> import numpy as np
    >>> batch = Batch(text=np.ones((3, 4, 2)), audio=np.ones((3, 4, 2)), vision=np.ones((3, 4, 2)))
    >>> corrupt(batch, "missing-fixed", "t").present.tolist()[0]
    [True, False, False]
    >>> corrupt(batch, "missing", 0).text is batch.text
    True
    """
    parsed, point = _one_point(stress, severity, params)
    return parsed.apply(batch, point, Draws(seed, batch), reference, pool, adversary).batch


def stream(
    batch: Batch,
    stress: str = "missing",
    severity: str | float | tuple[str | float, ...] = "0.4",
    seed: int = 1111,
    reference: Reference | None = None,
    pool: Batch | None = None,
    adversary: Adversary | None = None,
    size: int = 64,
    draws: Draws | None = None,
    **params: Value,
) -> Iterator[Batch]:
    """``corrupt`` in runs of ``size`` samples, in their order: the same values, and the memory of one run at a time.

    Args as of ``corrupt``, and:
        size: samples per batch.
        draws: ``Draws(seed, batch)`` made before, to share them between severities.

    >>> import numpy as np
    >>> batch = Batch(text=np.ones((5, 4, 2)), audio=np.ones((5, 4, 2)), vision=np.ones((5, 4, 2)))
    >>> [len(part) for part in stream(batch, "missing", 0.4, size=2)]
    [2, 2, 1]
    """
    if size < 1:
        raise InputError(f"stream: expected size of 1 or more, got {size}")
    parsed, point = _one_point(stress, severity, params)
    made = Draws(seed, batch) if draws is None else draws
    for corruption in parsed.blocks(batch, point, made, reference, pool, adversary, size):
        yield corruption.batch


def _one_point(
    stress: str, severity: str | float | tuple[str | float, ...], params: Mapping[str, Value]
) -> tuple[Stress, Point]:
    parsed = Stress.parse(stress, **params)
    text = "x".join(map(str, severity)) if isinstance(severity, tuple) else str(severity)
    points = parsed.grid(text).points
    if len(points) != 1:
        raise InputError(f"expected one severity, {text!r} is {len(points)}; loop over a grid's points for more")
    return parsed, points[0]


def describe() -> list[Mapping[str, str]]:
    """Name, axis, default grid, summary and source of every stressor, for listings."""
    return [
        {
            "name": s.name,
            "axis": " x ".join(map(str, s.axes)) or "available modalities",
            "default_grid": s.default_grid,
            "told": "yes" if s.told else "no",
            "parameters": ", ".join(f"{k}={_text(o.default)}" for k, o in s.option_table.items()),
            "formula": s.formula,
            "acts_on": s.acts_on,
            "summary": s.summary,
            "source": s.source,
        }
        for s in STRESSORS.values()
    ]


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
