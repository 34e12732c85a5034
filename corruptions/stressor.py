"""The contract of a stressor: what it does to features, and what it does to whole modalities.

The two halves are apart on purpose. A stress that only drops or swaps whole modalities needs no new encoding of
anything, and one that does both (the spectrum) needs one per noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from corruptions.batch import LETTERS, MODALITIES, Batch
from corruptions.corruption import FILLS, Corruption, Features, Sources, check_fill
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.reference import Reference

Value = str | bool | float
Options = Mapping[str, Value]


class Adversary(Protocol):
    """What a worst-case stress is handed, so that the engine stays free of models."""

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each sample, ``(N,)``."""
        ...

    def gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        """The derivative of each sample's loss by its features, ``(N, T_m, d_m)`` per modality of features."""
        ...


@dataclass(frozen=True)
class Option:
    """A named parameter of a stressor.

    choices: where there is a list of them. low, high: bounds of a number. read: the canonical spelling of a text, or
    ValueError saying what is expected. added: it came after version 1 of the stressor, and at its default it is no
    part of any identity, so that adding it changed no cell.
    """

    default: Value
    help: str
    choices: tuple[str, ...] = ()
    low: float = -1e9
    high: float = 1e9
    read: Callable[[str], str] | None = None
    added: bool = False

    def parse(self, where: str, text: str | Value) -> Value:
        """The value from what was typed. Raises InputError when it is not one of the choices or not of the type."""
        if isinstance(self.default, bool):
            value = str(text).lower()
            if value not in ("true", "false"):
                raise InputError(f"{where}: expected true or false, got {text!r}")
            return value == "true"
        if isinstance(self.default, int | float):
            return self._number(where, text)
        if self.choices and text not in self.choices:
            raise InputError(f"{where}: expected one of {', '.join(self.choices)}; got {text!r}")
        try:
            return str(text) if self.read is None else self.read(str(text))
        except ValueError as error:
            raise InputError(f"{where}: expected {error}; got {text!r}") from None

    def _number(self, where: str, text: str | Value) -> Value:
        kind = type(self.default)
        try:
            number = float(text)
        except (TypeError, ValueError):
            number = torch.nan
        if not self.low <= number <= self.high or number != kind(number if number == number else 0):
            what = "a whole number" if kind is int else "a number"
            raise InputError(f"{where}: expected {what} from {self.low:g} to {self.high:g}, got {text!r}")
        return kind(number)


def modality_letters(text: str) -> str:
    """``ta`` from "text,audio", "t+a", "at" or "text": letters in the order text, audio, vision.

    >>> modality_letters("vision, text"), modality_letters("a+t"), modality_letters("tav")
    ('tv', 'ta', 'tav')
    """
    words = [word for part in text.lower().replace("+", ",").replace("/", ",").split(",") if (word := part.strip())]
    names = {modality: letter for letter, modality in LETTERS.items()}
    letters = [names.get(word, word) for word in words]
    found = {letter for word in letters for letter in word}
    if not found or not found <= set(LETTERS) or sum(map(len, letters)) != len(found):
        raise ValueError("some of text, audio, vision (or their letters, as in ta)")
    return "".join(letter for letter in LETTERS if letter in found)


FILL = Option("auto", "what takes the place of lost steps; auto: zeros, or [MASK] for token ids", FILLS)
FILL_UNK = Option("auto", "what takes the place of lost steps; auto: zeros, or [UNK] for token ids", FILLS)
SIGMA_REF = Option("feature", "sigma_ref per feature, or one value per modality", ("feature", "modality"))
TOLD = Option(False, "tell models what is missing")
EVERY = "tav"
ONLY = Option(EVERY, "the modalities it may touch, as letters", read=modality_letters, added=True)


class Stressor:
    """One family of test-time degradation. Subclasses override ``features``, ``sources`` or both; they hold no state.

    name, version: its identity; raise the version whenever any output changes.
    axes: severity axes (none: the axis is the available set). default_grid: as in its paper.
    told: are models told what is lost? option_table: parameters by name; every stressor also has ``modalities``.
    formula: what it does, in one line of mathematics. purposes: the draws it uses.
    needs_reference, uses_pool, needs_adversary: what it must be given.
    acts_on: letters of the modalities it can change. touches_features: does it change anything inside a modality?
    random: False when there is nothing to draw, so that one seed is as good as ten.
    by_halves: False when it overrides ``apply`` as a whole (a chain of stressors, a search).
    """

    name: str
    version: int = 1
    axes: tuple[Axis, ...]
    default_grid: str
    told: bool = False
    summary: str
    formula: str
    source: str
    option_table: Mapping[str, Option] = {"fill": FILL}
    purposes: frozenset[str] = frozenset()
    needs_reference: bool = False
    uses_pool: bool = False
    needs_adversary: bool = False
    touches_features: bool = False
    acts_on: str = EVERY
    random: bool = True
    by_halves: bool = True

    @property
    def parameters(self) -> Mapping[str, Option]:
        """Every parameter people may set, by name."""
        return {**self.option_table, "modalities": ONLY}

    def implied(self, given: Options) -> Options:
        """Defaults that follow from other parameters (a variant whose models are told)."""
        return {}

    def axes_of(self, options: Options) -> tuple[Axis, ...]:
        """The severity axes under these parameters."""
        return self.axes

    def reach(self, given: Options) -> str:
        """Letters of the modalities that it can change under these parameters."""
        return self.acts_on

    def grid_of(self, options: Options) -> str:
        """The default grid under these parameters."""
        return self.default_grid

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        """Changes inside modalities: noise, masked tokens, lost frames."""
        return Features(batch)

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
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
        options: Options,
        reference: Reference | None = None,
        pool: Batch | None = None,
        adversary: Adversary | None = None,
    ) -> Corruption:
        """The corrupted input at a point, with what was done. At a clean point: the same tensors.

        Raises:
            InputError: the stressor (or its fill) needs a Reference or an adversary and got none; a fill that does
                not fit the text.
        """
        blocks = self.blocks(batch, point, draws, options, reference, pool, adversary, max(1, len(batch)))
        return next(blocks)

    def blocks(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        options: Options,
        reference: Reference | None = None,
        pool: Batch | None = None,
        adversary: Adversary | None = None,
        size: int = 64,
    ) -> Iterator[Corruption]:
        """``apply`` on runs of ``size`` samples, one after the other: what is not used any more takes no memory."""
        parts = [slice(start, start + size) for start in range(0, max(1, len(batch)), size)]
        donors = batch if pool is None else pool
        if not self.by_halves:
            for part in parts:
                yield self.apply(batch.rows(part), point, draws.rows(part), options, reference, donors, adversary)
            return
        told, fill = bool(options.get("told", self.told)), str(options.get("fill", "auto"))
        check_fill(batch, fill, reference, allowed(options))
        if point.is_clean:
            for part in parts:
                b = batch.rows(part)
                yield Corruption(b, Features(b), Sources.untouched(b), told=False, fill=fill)
            return
        if self.needs_reference and reference is None:
            raise InputError(
                f"{self.name} scales its noise by the training split: pass reference=Reference.fit(train_batch)"
            )
        sources = self.sources(batch, point, draws, donors, options)
        for part in parts:
            b = batch.rows(part)
            own = draws if b is batch else draws.rows(part)
            features = self.features(b, point, own, reference, donors, options)
            of_rows = sources if b is batch else sources.rows(part)
            yield Corruption(b, features, of_rows, told, fill, pool if b is batch else donors, reference)


def allowed(options: Options) -> tuple[str, ...]:
    """The modalities that a stress may touch, in their order."""
    letters = str(options.get("modalities", EVERY))
    return tuple(modality for letter, modality in LETTERS.items() if letter in letters)


def allowed_columns(batch: Batch, options: Options) -> Tensor:
    """``(3,)`` bool: the modalities that a stress may touch."""
    touched = allowed(options)
    return torch.tensor([modality in touched for modality in MODALITIES], device=batch.device)
