"""The predicted variance: likelihood and coverage against SciPy, sparsification by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from corruptions import InputError
from robustbench_msa.analysis.inside.calibration import LEVELS, calibration_info, covered, negative_log_likelihood

N = 60
RNG = np.random.default_rng(11)
SIGMA = RNG.uniform(0.3, 1.5, N)
Z = RNG.normal(size=N)


def holds(made):
    def predict(cell):
        worse = 1 + 5 * float(cell.severity or 0)
        return {"y_pred": made.labels + worse * SIGMA * Z, "log_variance": 2 * np.log(SIGMA)}

    return predict


def test_likelihood_is_scipys() -> None:
    expected = -stats.norm.logpdf(Z * SIGMA, scale=SIGMA)
    np.testing.assert_allclose(negative_log_likelihood(Z * SIGMA, 2 * np.log(SIGMA)), expected)


def test_coverage_counts_labels_within_the_interval() -> None:
    for level in LEVELS:
        low, high = stats.norm.interval(level, scale=SIGMA)
        signed = Z * SIGMA
        expected = ((signed >= low) & (signed <= high)).astype(float)
        np.testing.assert_array_equal(covered(np.abs(Z * SIGMA), 2 * np.log(SIGMA), level), expected)


def test_points(made) -> None:
    made.add(holds(made), ("noise", "0:0.2:0.1"))
    info = calibration_info(made.root)
    error = np.abs(Z * SIGMA)
    for i, worse in enumerate((1.0, 1.5, 2.0)):
        row = info.points.iloc[i]
        assert row["nll"] == pytest.approx(-stats.norm.logpdf(worse * error, scale=SIGMA).mean(), rel=1e-5)
        assert row["rmse"] == pytest.approx(np.sqrt(((worse * error) ** 2).mean()), rel=1e-5)
        assert row["rms_sigma"] == pytest.approx(np.sqrt((SIGMA**2).mean()), rel=1e-5)
        assert row["area_random"] == pytest.approx(worse * error.mean(), rel=1e-5)
        assert row["ause"] == pytest.approx(row["area"] - row["area_oracle"])
        assert row["ause_low"] < row["ause"] < row["ause_high"]
        assert row["nll_low"] < row["nll"] < row["nll_high"]
    assert info.points["nll"].is_monotonic_increasing
    by_level = info.coverage[info.coverage["level"] == 0.9]
    expected = [(worse * np.abs(Z) <= stats.norm.ppf(0.95)).mean() for worse in (1.0, 1.5, 2.0)]
    np.testing.assert_allclose(by_level["coverage"], expected)


def test_sparsification(made) -> None:
    made.add(holds(made), ("noise", "0,0.1"))
    info = calibration_info(made.root)
    rows = info.sparsification[info.sparsification["severity"] == "0"].set_index("dropped")
    error = np.abs(Z * SIGMA)
    assert rows.loc[0.5, "error"] == pytest.approx(error[np.argsort(SIGMA)][:30].mean(), rel=1e-5)
    assert rows.loc[0.5, "oracle"] == pytest.approx(np.sort(error)[:30].mean(), rel=1e-5)
    assert rows.loc[0.0, "error"] == pytest.approx(rows.loc[0.0, "random"])
    assert rows.index.min() == 0
    assert rows.index.max() == pytest.approx(0.95)


def test_a_variance_in_the_order_of_the_errors_has_no_area_to_the_oracle(made) -> None:
    spread = np.linspace(0.1, 2, N)
    made.add(lambda cell: {"y_pred": made.labels + spread, "log_variance": 2 * np.log(spread)}, ("noise", "0,0.1"))
    np.testing.assert_allclose(calibration_info(made.root).points["ause"], 0, atol=1e-6)


def test_a_run_without_variance(made) -> None:
    made.add(lambda cell: {"y_pred": np.zeros(N)}, ("noise", "0,0.1"), models=("rider_moe",))
    with pytest.raises(InputError, match=r"rider_moe stores no predicted variance .*; qa_moe stores one"):
        calibration_info(made.root)
