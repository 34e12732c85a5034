"""Where a score's variance comes from: training seeds, corruption seeds, and the sample of groups (videos).

Training seeds meet every group and every corruption seed, so the designs are crossed, and their mean squares are those
of a two-way table of random effects without repetition (Cornfield and Tukey 1956; Searle, Casella and McCulloch 1992):
x[t, c] = mu + a_t + b_c + e_tc has

    E MS_rows = s_e^2 + C s_a^2,   E MS_columns = s_e^2 + T s_b^2,   E MS_rest = s_e^2.

Two such tables are used. Scores by training seed and corruption seed give ``sd_train`` and ``sd_corruption``, on the
samples at hand. Pseudo-values by training seed and group (``jackknife``) give the variance of a mean over training
seeds when both are drawn anew, (MS_rows + MS_columns - MS_rest) / (T G): the claim about a *method*. About a
*checkpoint* only groups are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from corruptions import InputError
from robustbench_msa.analysis.bootstrap import LEVEL
from robustbench_msa.analysis.jackknife import influence, leave_one_out, standard_error
from robustbench_msa.analysis.metrics import Array

CHECKPOINT, METHOD = "checkpoint", "method"


@dataclass(frozen=True, eq=False)
class Score:
    """What one line (a checkpoint, or the training seeds of a method) reached, over M metrics.

    by_seed: ``(T, C, M)`` per training and corruption seed; influence: ``(T, G, M)`` per training seed, of the mean
    over corruption seeds. NaN: undefined.
    """

    by_seed: Array
    influence: Array

    @classmethod
    def of_statistics(cls, stats: Array, profile: str = "mosi") -> Score:
        """Of one cell's sums per group, ``(G, K)`` of ``metrics.sufficient``."""
        value, left_out = leave_one_out(stats, profile)
        return cls(value[None, None], influence(left_out)[None])

    @classmethod
    def combined(cls, scores: Sequence[Score], weights: Array) -> Score:
        """The sum of weights times scores of one line; what has one corruption seed (a clean point) counts for each."""
        pairs = list(zip(weights, scores, strict=True))
        drawn = max(score.by_seed.shape[1] for score in scores)
        by_seed = np.zeros((scores[0].n_train_seeds, drawn, scores[0].by_seed.shape[2]))
        for weight, score in pairs:
            by_seed += weight * score.by_seed
        return cls(by_seed, np.sum([weight * score.influence for weight, score in pairs], axis=0))

    @property
    def value(self) -> Array:
        """``(M,)``"""
        return np.asarray(self.by_seed.mean(axis=(0, 1)))

    @property
    def pooled(self) -> Array:
        """``(G, M)`` influences of the value."""
        return np.asarray(self.influence.mean(axis=0))

    @property
    def sd_sampling(self) -> Array:
        """``(M,)`` standard error of the value over groups drawn anew. It holds the draws of the corruption as well:
        every sample has its own."""
        return standard_error(self.pooled)

    @property
    def n_train_seeds(self) -> int:
        return len(self.by_seed)

    @property
    def claim(self) -> str:
        """What an interval of the value speaks of. A single training seed says nothing about a method."""
        return METHOD if self.n_train_seeds > 1 else CHECKPOINT


class MeanSquares(NamedTuple):
    """Of a two-way table ``(R, C, ...)`` without repetition; each ``(...)``, NaN without a degree of freedom."""

    rows: Array
    columns: Array
    rest: Array


def mean_squares(table: Array) -> MeanSquares:
    """
    >>> mean_squares(np.array([[1.0, 2.0], [3.0, 6.0]]))
    MeanSquares(rows=array(9.), columns=array(4.), rest=array(1.))
    """
    if table.ndim < 2 or 0 in table.shape[:2]:
        raise InputError(f"mean squares: expected a table (R, C, ...), got shape {table.shape}")
    n_rows, n_columns = table.shape[:2]
    mean = table.mean(axis=(0, 1))
    rows, columns = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    rest = table - mean - rows[:, None] - columns[None]
    return MeanSquares(
        _ratio(n_columns * (rows**2).sum(axis=0), n_rows - 1),
        _ratio(n_rows * (columns**2).sum(axis=0), n_columns - 1),
        _ratio((rest**2).sum(axis=(0, 1)), (n_rows - 1) * (n_columns - 1)),
    )


def seed_deviations(by_seed: Array) -> tuple[Array, Array]:
    """sd_train and sd_corruption of scores by training and corruption seed, on the samples at hand.

    sd_corruption is that of one checkpoint over corruption seeds, pooled over training seeds:
    ``s_b^2 + s_e^2 = (MS_columns + (T - 1) MS_rest) / T``. sd_train is that between training seeds beyond it,
    ``s_a^2 = (MS_rows - MS_rest) / C`` (0 where negative); with one corruption seed the plain deviation.

    Args:
        by_seed: ``(T, C, ...)``.

    Returns:
        ``(...)`` each; NaN with a single seed of the kind.

    >>> train, corruption = seed_deviations(np.array([[1.0, 2.0], [3.0, 6.0]]))
    >>> float(train), float(corruption)  # the roots of (9 - 1) / 2 and (4 + 1) / 2
    (2.0, 1.5811388300841898)
    """
    n_train, n_corruption = by_seed.shape[:2]
    rows, columns, rest = mean_squares(by_seed)
    noise = rest if n_corruption > 1 else np.zeros_like(rest)
    train = np.sqrt(np.maximum(rows - noise, 0) / n_corruption) if n_train > 1 else rows
    within = columns if n_train == 1 else (columns + (n_train - 1) * rest) / n_train
    return np.asarray(train), np.sqrt(within)


class Uncertainty(NamedTuple):
    """Standard error and half the width of an interval, ``(M,)``. degrees_of_freedom: None: only groups are drawn."""

    standard_error: Array
    half_width: Array
    degrees_of_freedom: Array | None


def uncertainty(scores: Sequence[Score], pooled: Array, critical: Array, level: float = LEVEL) -> Uncertainty:
    """Of a value made of scores, such as their difference.

    Args:
        scores: those whose training seeds count; with a single training seed it is taken as given.
        pooled: ``(G, M)`` influences of the value; critical: ``(M,)`` of ``bootstrap.critical_values``.

    With several training seeds the variance is that of groups, widened as the bootstrap found it, plus
    ``max(0, MS_rows - MS_rest) / (T G)`` per score, and the interval that of t with Satterthwaite's (1946) degrees of
    freedom, at most G - 1: never narrower than about these checkpoints alone.
    """
    groups, n_groups = standard_error(pooled), len(pooled)
    critical = np.where(np.isfinite(critical), critical, np.nan)  # inf: too few groups to say anything
    methods = [score for score in scores if score.n_train_seeds > 1]
    if not methods or n_groups < 2:
        return Uncertainty(groups, critical * groups, None)
    widened = (groups * critical / stdtrit(n_groups - 1, (1 + level) / 2)) ** 2
    variance, square = widened, widened**2 / (n_groups - 1)
    for score in methods:
        n = score.n_train_seeds
        rows, _, rest = mean_squares(score.by_seed.mean(axis=1)[:, None] + score.influence)
        variance = variance + np.maximum(rows - rest, 0) / (n * n_groups)
        square = square + ((rows / (n * n_groups)) ** 2 + (rest / (n * n_groups)) ** 2 / (n_groups - 1)) / (n - 1)
    known = square > 0
    freedom = np.clip(np.where(known, variance**2 / np.where(known, square, 1), 1), 1, n_groups - 1)
    error = np.sqrt(variance)
    return Uncertainty(error, stdtrit(freedom, (1 + level) / 2) * error, freedom)


def _ratio(numerator: Array, denominator: int) -> Array:
    return np.asarray(numerator / denominator if denominator else np.full_like(numerator, np.nan))
