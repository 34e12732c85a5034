"""Severities as exact decimals, and the grids people type.

``0:0.8:0.2`` is 0, 0.2, 0.4, 0.6, 0.8 (the stop is included); ``0,0.25,1`` lists them; ``AxB`` is the product of two
axes; ``t,a,t+a`` lists available sets. Severities are kept as canonical strings ("0.3") and computed with as decimals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import torch
from torch import Tensor

from corruptions.errors import InputError

MAX_POINTS = 10_000


@dataclass(frozen=True)
class Axis:
    """One severity axis of a stressor: its symbol in the paper and its range. ``open_end``: the end is not included."""

    symbol: str
    start: str
    stop: str
    open_end: bool = False

    def __str__(self) -> str:
        return f"{self.symbol} in [{self.start}, {self.stop}{')' if self.open_end else ']'}"

    def holds(self, value: Decimal) -> bool:
        return Decimal(self.start) <= value and (
            value < Decimal(self.stop) or (value == Decimal(self.stop) and not self.open_end)
        )


@dataclass(frozen=True)
class Point:
    """Where a cell stands: one severity, two (spectrum), or a condition (the available set, such as "t+a")."""

    severity: str | None = None
    severity_2: str | None = None
    condition: str | None = None

    @property
    def values(self) -> tuple[Decimal, ...]:
        return tuple(Decimal(s) for s in (self.severity, self.severity_2) if s is not None)

    @property
    def is_clean(self) -> bool:
        """True where the input is untouched: severity 0 on every axis, or everything available."""
        return not any(self.values) if self.condition is None else self.condition == ALL_AVAILABLE

    def __str__(self) -> str:
        return self.condition or ", ".join(s for s in (self.severity, self.severity_2) if s is not None)


ALL_AVAILABLE = "t+a+v"
SUBSETS = ("t", "a", "v", "t+a", "t+v", "a+v", ALL_AVAILABLE)


@dataclass(frozen=True)
class Grid:
    """The severities of one run: one tuple of canonical strings per axis, or the conditions."""

    axes: tuple[tuple[str, ...], ...] = ()
    conditions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, axes: Sequence[Axis]) -> Grid:
        """A grid from its text, checked against a stressor's axes (no axes: conditions).

        Raises:
            InputError: not a grid, severities that do not increase or leave the range, the wrong number of axes.

        >>> Grid.parse("0:0.8:0.2", [Axis("m", "0", "1", open_end=True)]).axes
        (('0', '0.2', '0.4', '0.6', '0.8'),)
        """
        if not axes:
            return cls(conditions=_conditions(text))
        parts = text.lower().replace("×", "x").split("x")
        if len(parts) != len(axes):
            expected = "a grid like 0:0.8:0.2" if len(axes) == 1 else "a product of two axes like 0:0.7:0.1x0:0.7:0.1"
            raise InputError(f"grid {text!r}: expected {expected}, got {len(parts)} axes")
        grid = cls(axes=tuple(_axis(text, part, axis) for part, axis in zip(parts, axes, strict=True)))
        if (count := math.prod(len(axis) for axis in grid.axes)) > MAX_POINTS:
            raise InputError(f"grid {text!r}: {count} points; at most {MAX_POINTS} are allowed, use a larger step")
        return grid

    @property
    def points(self) -> tuple[Point, ...]:
        if self.conditions:
            return tuple(Point(condition=condition) for condition in self.conditions)
        return tuple(Point(*values) for values in itertools.product(*self.axes))

    def __str__(self) -> str:
        return ",".join(self.conditions) if self.conditions else "x".join(_short(axis) for axis in self.axes)


def canonical(value: Decimal) -> str:
    """The one spelling of a decimal: no exponent, no trailing zeros.

    >>> canonical(Decimal("0.30")), canonical(Decimal("1E+0")), canonical(Decimal("-0"))
    ('0.3', '1', '0')
    """
    return format(value.normalize() + 0, "f")


def rounded_share(severity: Decimal, lengths: Tensor) -> Tensor:
    """``round(severity * L)`` per sample, half to even, computed in decimals. lengths: ``(N,)`` int64.

    >>> rounded_share(Decimal("0.3"), torch.tensor([15, 5, 10])).tolist()
    [4, 2, 3]
    """
    counts = {n: int((severity * n).to_integral_value(ROUND_HALF_EVEN)) for n in set(lengths.tolist())}
    return torch.tensor([counts[n] for n in lengths.tolist()], dtype=torch.int64, device=lengths.device)


def _axis(grid: str, text: str, axis: Axis) -> tuple[str, ...]:
    values = _range(grid, text) if ":" in text else [_decimal(grid, part) for part in text.split(",")]
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise InputError(f"grid {grid!r}: severities must increase, got {text.strip()}")
    outside = [canonical(v) for v in values if not axis.holds(v)]
    if outside:
        raise InputError(f"grid {grid!r}: {', '.join(outside)} is outside the stressor's range, {axis}")
    return tuple(canonical(v) for v in values)


def _range(grid: str, text: str) -> list[Decimal]:
    parts = [_decimal(grid, part) for part in text.split(":")]
    if len(parts) != 3:
        raise InputError(
            f"grid {grid!r}: expected start:stop:step (0:0.8:0.2) or a list (0,0.25,1), got {text.strip()!r}"
        )
    start, stop, step = parts
    if step <= 0 or stop <= start:
        raise InputError(f"grid {grid!r}: expected start < stop and a positive step, got {text.strip()!r}")
    if (stop - start) % step:
        raise InputError(
            f"grid {grid!r}: the step {step} does not divide the range from {start} to {stop}; the stop is included"
        )
    count = int((stop - start) / step)
    if count > MAX_POINTS:
        raise InputError(f"grid {grid!r}: more than {MAX_POINTS} points; use a larger step")
    return [start + i * step for i in range(count + 1)]


def _decimal(grid: str, text: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value.adjusted()) > 9 or len(value.as_tuple().digits) > 12:
        raise InputError(
            f"grid {grid!r}: {text.strip()!r} is not a severity; expected decimals like 0:0.8:0.2 or 0,0.25,1"
        )
    return value


def _conditions(text: str) -> tuple[str, ...]:
    """Available sets in canonical order of letters; each must be one of SUBSETS."""
    found = []
    for part in text.split(","):
        letters = [letter.strip().lower() for letter in part.split("+")]
        condition = "+".join(letter for letter in "tav" if letter in letters)
        if condition not in SUBSETS or len(letters) != len(condition.split("+")):
            raise InputError(
                f"grid {text!r}: {part.strip()!r} is not an available set; expected some of {', '.join(SUBSETS)}"
            )
        found.append(condition)
    if len(set(found)) != len(found):
        raise InputError(f"grid {text!r}: an available set is listed twice")
    return tuple(found)


def _short(axis: tuple[str, ...]) -> str:
    values = [Decimal(v) for v in axis]
    steps = {b - a for a, b in itertools.pairwise(values)}
    if len(values) < 3 or len(steps) > 1:
        return ",".join(axis)
    return f"{axis[0]}:{axis[-1]}:{canonical(steps.pop())}"
