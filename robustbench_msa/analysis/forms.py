"""Linear combinations of cells, and the intervals of what is made of them: differences, ratios, half-lives.

Every score with an interval is a linear combination of cells (nAUC, regret), a ratio of two (retention, CE), or the
place where one that moves along the grid reaches zero (half-life). Ratios and places are found by inverting a test, as
Fieller (1954) did: the interval holds every value that the studentised interval of a linear combination does not rule
out. No derivative is taken, and where the data rule out nothing on one side there is no end on that side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from robustbench_msa.analysis.bootstrap import critical_values
from robustbench_msa.analysis.intervals import PLAIN, on_scale
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.analysis.shape_scores import half_life
from robustbench_msa.analysis.variance import Score, uncertainty

_ROUNDING = 1e-12  # a half width below this is that of a constant


@dataclass(frozen=True, eq=False)
class Form:
    """A sum of linear combinations of cells, one of each line in it. Training seeds of different lines are drawn apart.

    parts: a Score a line; forms that are added have the same lines in the same order.
    """

    parts: tuple[Score, ...]

    @classmethod
    def of(cls, *scores: Score) -> Form:
        """Corruption seeds are averaged over: intervals take them as they are."""
        return cls(tuple(Score(s.by_seed.mean(axis=1, keepdims=True), s.influence) for s in scores))

    @property
    def value(self) -> Array:
        """``(M,)``"""
        return np.asarray(np.sum([part.value for part in self.parts], axis=0))

    @cached_property
    def pooled(self) -> Array:
        """``(G, M)`` influences of the value."""
        return np.asarray(np.sum([part.pooled for part in self.parts], axis=0))

    def scaled(self, weight: ArrayLike) -> Form:
        """weight: ``()`` or ``(M,)``."""
        w = np.asarray(weight)
        return Form(tuple(Score(part.by_seed * w, part.influence * w) for part in self.parts))

    def plus(self, other: Form, weight: ArrayLike = 1.0) -> Form:
        """self + weight * other."""
        pairs = zip(self.parts, other.scaled(weight).parts, strict=True)
        return Form(tuple(Score(a.by_seed + b.by_seed, a.influence + b.influence) for a, b in pairs))

    def half_width(self, critical: Array) -> Array:
        """``(M,)``; critical: ``(M,)`` of ``critical_values``. Lines of several training seeds speak of methods."""
        return uncertainty(self.parts, self.pooled, critical).half_width

    @staticmethod
    def stacked(forms: Sequence[Form]) -> Form:
        """K forms of M values as one of K M."""
        by_line = zip(*(form.parts for form in forms), strict=True)
        return Form(
            tuple(
                Score(*(np.concatenate([getattr(p, name) for p in parts], axis=2) for name in ("by_seed", "influence")))
                for parts in by_line
            )
        )


class Interval(Protocol):
    """A score whose interval is wanted. centre: the form whose replicates say how many standard errors it takes."""

    @property
    def centre(self) -> Form: ...

    def ends(self, critical: Array) -> tuple[Array, Array]:
        """low and high, ``(M,)``, NaN where there is none; critical: ``(M,)``, of the centre."""


@dataclass(frozen=True, eq=False)
class Plain:
    """A linear combination as it is, such as a difference: value -/+ half width."""

    centre: Form

    def ends(self, critical: Array) -> tuple[Array, Array]:
        return on_scale(self.centre.value, self.centre.half_width(critical), PLAIN)


@dataclass(frozen=True, eq=False)
class Ratio:
    """numerator / denominator, by Fieller's theorem: all q that the interval of numerator - q denominator allows.

    With H(.) the half width of a form, a ratio of r and a denominator of D,
    ``(D d)^2 <= H(numerator - (r + d) denominator)^2``, a quadratic in d, since H^2 is a quadratic form:
    its product of two forms is ``(H(a + b)^2 - H(a - b)^2) / 4``. Where the denominator's own interval holds zero, no
    ratio is ruled out however large, and there is no interval.
    """

    numerator: Form
    denominator: Form

    @cached_property
    def value(self) -> Array:
        denominator = self.denominator.value
        known = denominator != 0
        return np.where(known, self.numerator.value / np.where(known, denominator, 1.0), np.nan)

    @cached_property
    def centre(self) -> Form:
        """What is left of the numerator when its share of the denominator is taken out, in the ratio's unit."""
        return self.numerator.plus(self.denominator, -self.value).scaled(self._per_unit)

    @property
    def _per_unit(self) -> Array:
        denominator = self.denominator.value
        return 1 / np.where(denominator != 0, denominator, np.nan)

    def ends(self, critical: Array) -> tuple[Array, Array]:
        rest, unit = self.centre, self.denominator.scaled(self._per_unit)
        forms = Form.stacked([rest, unit, rest.plus(unit), rest.plus(unit, -1.0)])
        squares = forms.half_width(np.tile(critical, 4)).reshape(4, -1) ** 2
        own, of_unit, product = squares[0], squares[1], (squares[2] - squares[3]) / 4
        usable = (own > _ROUNDING**2) & (of_unit < 1)  # NaN: neither
        slope = np.where(usable, 1 - of_unit, 1.0)
        root = np.sqrt(product**2 + slope * own, where=usable, out=np.full_like(own, np.nan))
        return self.value + (-product - root) / slope, self.value + (-product + root) / slope


@dataclass(frozen=True, eq=False)
class Halving:
    """Where half of the margin is gone: the severities at which the studentised interval of what is left holds zero.

    severities: ``(K,)``, from 0 on. left: K forms, what is left beyond half of the margin at each. at: ``(M,)`` the
    half-life, infinite where it is never reached.

    Between severities both bands are straight, which is on the safe side: standard errors are convex there. low is
    where the lower band reaches zero, or the largest severity if it never does; high where the upper one does, NaN
    if it never does: then the half-life may lie beyond the grid, and there is no upper end.
    """

    severities: Array
    left: Sequence[Form]
    at: Array

    @cached_property
    def centre(self) -> Form:
        """What is left at the half-life."""
        hats = _between(self.severities, self.at)
        first, *rest = (form.scaled(hat) for form, hat in zip(self.left, hats, strict=True))
        for form in rest:
            first = first.plus(form)
        return first

    def ends(self, critical: Array) -> tuple[Array, Array]:
        forms, n = Form.stacked(self.left), len(self.left)
        half_widths = forms.half_width(np.tile(critical, n)).reshape(n, -1)
        left = forms.value.reshape(n, -1)
        low, high = (_zero_of(self.severities, left + sign * half_widths) for sign in (-1, 1))
        known = np.isfinite(half_widths).all(axis=0) & (half_widths > _ROUNDING).any(axis=0)
        low = np.where(np.isnan(low), self.severities[-1], low)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)


def ends(scores: Sequence[Interval | None], weights: Array) -> list[tuple[Array, Array] | None]:
    """The intervals of many scores with the same resamples. weights: ``(B, G)`` of ``group_weights``."""
    wanted = [score for score in scores if score is not None]
    if not wanted:
        return [None] * len(scores)
    pooled = np.concatenate([score.centre.pooled for score in wanted], axis=1)
    varies = np.isfinite(pooled).all(axis=0) & (np.abs(pooled) > _ROUNDING).any(axis=0)
    critical = np.full(pooled.shape[1], np.nan)
    critical[varies] = critical_values(pooled[:, varies], weights)
    found = iter(np.split(critical, np.cumsum([score.centre.pooled.shape[1] for score in wanted])[:-1]))
    return [None if score is None else score.ends(next(found)) for score in scores]


def _between(grid: Array, at: Array) -> Array:
    """``(K, M)`` what each of K severities weighs in a straight line at each place; beyond the last one, all of it."""
    place = np.clip(at, grid[0], grid[-1])
    return np.stack([np.interp(place, grid, unit) for unit in np.eye(len(grid))])


def _zero_of(grid: Array, curve: Array) -> Array:
    """Where a curve first is no longer above zero: its half-life between 1 and -1. NaN: nowhere."""
    return half_life(grid, curve, clean=1.0, floor=-1.0, higher_is_better=True)
