"""Reliability scores: correlations against SciPy on pooled samples, bins against a loop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from corruptions import InputError
from robustbench_msa.analysis.inside.reliability import PAPER_EDGES, binned_error, equal_edges, reliability_info

N = 60
RNG = np.random.default_rng(5)
NOISE = RNG.normal(size=(N, 4))


def holds(cell):
    s = float(cell.severity or 0)
    r = np.clip(0.9 - s + 0.1 * NOISE[:, :3], 0, 1)
    present = np.ones((N, 3), dtype=bool)
    present[:, 0] = NOISE[:, 3] > s - 0.5 if s else True
    return {"y_pred": (1 + s) * NOISE[:, 3], "r": r, "present": present}


def pooled(made, levels=(0.0, 0.2, 0.4)):
    r = np.concatenate([np.clip(0.9 - s + 0.1 * NOISE[:, :3], 0, 1).astype(np.float32) for s in levels])
    error = np.concatenate([np.abs(made.labels - ((1 + s) * NOISE[:, 3]).astype(np.float32)) for s in levels])
    lost = np.concatenate([NOISE[:, 3] <= s - 0.5 if s else np.zeros(N, dtype=bool) for s in levels])
    return r.astype(np.float64), error.astype(np.float64), np.repeat(levels, N), lost


def test_rank_correlations_are_those_of_the_pooled_samples(made) -> None:
    made.add(holds, ("noise", "0:0.4:0.2"))
    table = reliability_info(made.root).correlations.set_index(["score", "target"])
    r, error, severity, lost = pooled(made)
    for i, score in enumerate(("text", "audio", "vision")):
        assert table.loc[(score, "severity"), "rank_correlation"] == pytest.approx(
            stats.spearmanr(r[:, i], severity)[0]
        )
        assert table.loc[(score, "error"), "rank_correlation"] == pytest.approx(
            stats.spearmanr(r[:, i], error)[0], abs=1e-6
        )
    assert table.loc[("text", "lost"), "rank_correlation"] == pytest.approx(stats.spearmanr(r[:, 0], lost)[0])
    mean = stats.spearmanr(r.mean(axis=1), severity)[0]
    assert table.loc[("mean", "severity"), "rank_correlation"] == pytest.approx(mean)
    assert ("audio", "lost") not in table.index  # nothing of it is lost, nothing to correlate with
    rows = table.loc[(slice(None), "severity"), :]
    assert (rows["rank_correlation_low"] < rows["rank_correlation"]).all()
    assert (rows["rank_correlation_high"] < 0).all()


def test_two_axes_have_two_severities(made) -> None:
    def two(cell):
        a, b = float(cell.severity or 0), float(cell.severity_2 or 0)
        return {"y_pred": NOISE[:, 0], "r": np.full((N, 3), 1 - a - 0.001 * b)}

    made.add(two, ("spectrum", "0,0.3x0,0.3"))
    table = reliability_info(made.root).correlations.set_index(["score", "target"])["rank_correlation"]
    assert table["text", "severity"] < -0.8  # ties keep it from -1
    assert -0.5 < table["text", "severity_2"] < 0


def test_bins_by_a_loop(made) -> None:
    made.add(holds, ("noise", "0:0.4:0.2"))
    bins = reliability_info(made.root).bins
    r, error, _, _ = pooled(made)
    mine = bins[(bins["score"] == "audio") & (bins["bins"] == "paper")].set_index("bin")
    for i, (low, high) in enumerate(pairwise(PAPER_EDGES), 1):
        inside = (r[:, 1] >= low) & ((r[:, 1] < high) | ((high == 1) & (r[:, 1] == 1)))
        assert mine.loc[i, "n"] == inside.sum()
        if inside.any():
            assert mine.loc[i, "mae"] == pytest.approx(error[inside].mean(), abs=1e-6)
            assert mine.loc[i, "mean_r"] == pytest.approx(r[inside, 1].mean())
        else:
            assert np.isnan(mine.loc[i, "mae"])
    equal = bins[(bins["score"] == "audio") & (bins["bins"] == "equal")]
    assert equal["n"].sum() == 3 * N
    assert equal["n"].between(30, 42).all()


def test_a_score_outside_the_edges_is_in_no_bin() -> None:
    terms = binned_error(np.array([-0.1, 0.5, 1.2]), np.ones(3), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(terms[:, 2:].sum(axis=0), [0, 1])


def test_equal_edges_of_few_values() -> None:
    np.testing.assert_allclose(equal_edges(np.array([0.0, 0.0, 0.0, 0.0, 1.0])), [0.0, 0.2, 1.0])
    assert len(equal_edges(np.full(9, 0.3))) == 0


def test_scores_that_sum_to_one_have_no_mean_to_correlate(made) -> None:
    def rider(cell):
        p = np.random.default_rng(8).dirichlet([3, 2, 1], N).astype(np.float32)
        return {"y_pred": NOISE[:, 0], "r": p}

    made.add(rider, ("noise", "0,0.2"), models=("rider_moe",))
    info = reliability_info(made.root)
    assert info.correlations[info.correlations["score"] == "mean"]["rank_correlation"].isna().all()
    assert not ((info.bins["score"] == "mean") & (info.bins["bins"] == "equal")).any()
    np.testing.assert_allclose(info.levels[info.levels["score"] == "mean"]["r"], 1 / 3, rtol=1e-6)


def test_levels_are_means(made) -> None:
    made.add(holds, ("noise", "0:0.4:0.2"))
    levels = reliability_info(made.root).levels
    r, error, _, _ = pooled(made)
    mine = levels[levels["score"] == "vision"]
    np.testing.assert_allclose(mine["r"], r[:, 2].reshape(3, N).mean(axis=1))
    np.testing.assert_allclose(mine["mae"], error.reshape(3, N).mean(axis=1), rtol=1e-6)


def test_a_run_without_scores(made) -> None:
    made.add(lambda cell: {"y_pred": np.zeros(N)}, ("noise", "0,0.1"), models=("emoe",))
    with pytest.raises(InputError, match=r"emoe stores no reliability scores .*qa_moe and rider_moe store one"):
        reliability_info(made.root)
