"""Ranks, their bootstrap intervals and the groups of ties."""

from __future__ import annotations

import numpy as np
from clustered import draw, score

from robustbench_msa.analysis.bootstrap import group_weights, replicate_values
from robustbench_msa.analysis.ranks import rank_intervals, ranks, replicates, tie_groups
from robustbench_msa.analysis.variance import Score


def test_ranks_count_those_who_are_better():
    values = np.array([[0.5, 0.9, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(ranks(values, higher_is_better=True), [[2, 1, 2, 4], [4, 3, 2, 1]])
    np.testing.assert_array_equal(ranks(values, higher_is_better=False), [[2, 4, 2, 1], [1, 2, 3, 4]])


def test_rank_intervals_are_quantiles_of_drawn_ranks():
    rng = np.random.default_rng(0)
    values = np.array([0.8, 0.79, 0.5, np.nan])
    drawn = values + 0.02 * rng.normal(size=(4000, 4))
    rank, low, high = rank_intervals(values, drawn, higher_is_better=True)
    np.testing.assert_array_equal(rank, [1, 2, 3, np.nan])
    np.testing.assert_array_equal(low, [1, 1, 3, np.nan])
    np.testing.assert_array_equal(high, [2, 2, 3, np.nan])


def test_lines_far_apart_are_sure_of_their_rank_and_twins_are_not():
    y, a, _, groups = draw(np.random.default_rng(0), 30)
    noise = np.random.default_rng(1).normal(size=(4, len(y)))
    lines = [score(y, a + k * e, groups) for k, e in zip((0.0, 2.0, 2.0, 8.0), noise, strict=True)]
    weights, mae = group_weights(30), 7
    drawn = np.stack([replicates(line, weights) for line in lines], axis=1)[..., mae]
    rank, low, high = rank_intervals(np.array([line.value[mae] for line in lines]), drawn, higher_is_better=False)
    assert (rank[0], low[0], high[0]) == (1, 1, 1)
    assert (rank[3], low[3], high[3]) == (4, 4, 4)
    assert (low[1:3] == 2).all()
    assert (high[1:3] == 3).all()


def test_replicates_of_a_method_draw_training_seeds_too():
    """Variance: that of groups plus (T - 1) / T of the seeds' mean's, as resampling T seeds has it."""
    rng = np.random.default_rng(3)
    by_seed = 0.3 * rng.normal(size=(5, 1, 1))
    d = rng.normal(size=(20, 1))
    d -= d.mean()
    line, weights = Score(by_seed, np.tile(d, (5, 1, 1))), group_weights(20, 20_000)
    found = replicates(line, weights, "a").var()
    of_groups = replicate_values(line.value, line.pooled, weights).var()
    np.testing.assert_allclose(found, of_groups + by_seed.var() / 5, rtol=0.03)
    np.testing.assert_array_equal(replicates(line, weights, "a"), replicates(line, weights, "a"))
    seeds_drawn = replicates(Score(by_seed, np.zeros((5, 20, 1))), weights, "a")
    others = replicates(Score(by_seed, np.zeros((5, 20, 1))), weights, "b")
    assert abs(np.corrcoef(seeds_drawn[:, 0], others[:, 0])[0, 1]) < 0.05, "two methods' seeds are drawn apart"


def test_tie_groups_follow_their_leader():
    """b is tied with a; c is worse than a, d than a and c: d does not join b, whom nobody told apart from d."""
    values = [0.9, 0.85, 0.7, 0.6]
    p = {(0, 1): 0.5, (0, 2): 0.01, (0, 3): 0.001, (1, 2): 0.2, (1, 3): 0.9, (2, 3): 0.04}
    assert tie_groups(values, p, higher_is_better=True) == [1, 1, 2, 3]
    assert tie_groups([-v for v in values], p, higher_is_better=False) == [1, 1, 2, 3]


def test_nulls_stand_in_no_group_and_untested_pairs_are_tied():
    assert tie_groups([np.nan, 0.5, 0.4], {(0, 1): np.nan, (1, 2): np.nan}, higher_is_better=True) == [None, 1, 1]
    assert tie_groups([np.nan, np.nan], {}, higher_is_better=True) == [None, None]
