"""Which linear combinations of cells each score with an interval is made of. See ``forms`` for the intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from robustbench_msa.analysis.forms import Form, Halving, Plain, Ratio
from robustbench_msa.analysis.grid_scores import error_form
from robustbench_msa.analysis.line_over import LineOver
from robustbench_msa.analysis.metrics import Array, Metric
from robustbench_msa.analysis.variance import METHOD, Score

WITH_INTERVAL = ("retention", "half_life", "ce", "relative_ce", "regret")
"""Scores with intervals of their own, beside nAUC and the grid mean. auc_raw has that of nAUC, times the range."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The error forms of M metrics, which are linear: offset + slope * value, ``(M,)`` each; NaN: there is none."""

    offset: Array
    slope: Array

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> Errors:
        """
        >>> from robustbench_msa.analysis.metrics import get_profile
        >>> Errors.of([get_profile("mosi").metric(name) for name in ("acc7", "mae", "corr")])
        Errors(offset=array([ 1.,  0., nan]), slope=array([-1.,  1., nan]))
        """
        forms = [error_form(metric) or (lambda values: np.full_like(values, np.nan)) for metric in metrics]
        at_zero, at_one = (np.array([float(form(np.asarray(x))) for form in forms]) for x in (0.0, 1.0))
        return cls(at_zero, at_one - at_zero)

    def total(self, line: LineOver) -> Score:
        """sum_s E_s over the stressed points."""
        return _scaled(line.stressed, self.slope, line.n_stressed * self.offset)

    def added(self, line: LineOver) -> Score:
        """sum_s (E_s - E_clean)."""
        return _scaled(Score.combined([line.stressed, line.clean], np.array([1.0, -line.n_stressed])), self.slope)


@dataclass(frozen=True, eq=False)
class Compared:
    """One line over one grid that it finished, with what its scores compare it with.

    floor: the Score of the best constants, which varies with the sample as a model's does. sign: ``(M,)``, 1 where
    higher is better, else -1.
    """

    own: LineOver
    floor: Score
    sign: Array

    def retention(self) -> Ratio:
        """(nAUC - floor) / (clean - floor)."""
        area, clean = (Form.of(score, _scaled(self.floor, -1.0)) for score in (self.own.area, self.own.clean))
        return Ratio(area, clean)

    def half_life(self, severities: Array, value: Array) -> Halving:
        """severities: ``(P,)``. value: ``(M,)``, infinite where never reached. Before a grid that starts above 0 stands
        (0, clean)."""
        at = [score for score in self.own.at if score is not None]
        if severities[0] > 0:
            severities, at = np.insert(severities, 0, 0.0), [self.own.clean, *at]
        half = -0.5 * self.sign
        floor = _scaled(self.floor, half)
        own = (_scaled(Score.combined([s, self.own.clean], np.array([1.0, -0.5])), self.sign) for s in at)
        return Halving(severities, [Form.of(score, floor) for score in own], value)

    def ce(self, baseline: LineOver, errors: Errors) -> Ratio:
        """sum E / sum E of the baseline."""
        return self._quotient(errors.total(self.own), errors.total(baseline))

    def relative_ce(self, baseline: LineOver, errors: Errors) -> Ratio:
        """sum (E - E_clean) / the same of the baseline."""
        return self._quotient(errors.added(self.own), errors.added(baseline))

    def regret(self, oracle: LineOver) -> Plain:
        """nAUC of the oracle less the own one, with the sign turned where lower is better."""
        return Plain(Form.of(_scaled(self.own.area, -self.sign), self._other(_scaled(oracle.area, self.sign))))

    def _quotient(self, own: Score, other: Score) -> Ratio:
        other = self._other(other)
        return Ratio(Form.of(own, _scaled(other, 0.0)), Form.of(_scaled(own, 0.0), other))

    def _other(self, score: Score) -> Score:
        """Training seeds of another line are drawn anew where the own line's are, and taken as given elsewhere."""
        if self.own.clean.claim == METHOD:
            return score
        return Score(score.by_seed.mean(axis=(0, 1), keepdims=True), score.influence.mean(axis=0, keepdims=True))


def _scaled(score: Score, weight: ArrayLike, offset: ArrayLike = 0.0) -> Score:
    """offset + weight * score."""
    w = np.asarray(weight)
    return Score(score.by_seed * w + np.asarray(offset), score.influence * w)
