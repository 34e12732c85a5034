"""Risk and coverage: ties against all their orders, areas in closed form."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.analysis.inside.risk import CONFIDENCES, areas, kept_error, risk_at, risk_info

N = 60


def test_ties_are_the_mean_over_all_orders() -> None:
    error, sure = np.array([1.0, 4.0, 2.0, 7.0, 3.0]), np.array([1.0, 0.0, 1.0, 0.0, 0.5])
    orders = [p for p in permutations(range(5)) if (np.diff(sure[list(p)]) <= 0).all()]
    assert len(orders) == 4
    expected = np.mean([np.cumsum(error[list(p)]) / np.arange(1, 6) for p in orders], axis=0)
    np.testing.assert_allclose(kept_error(error, sure), expected)


def test_areas_in_closed_form() -> None:
    error = np.arange(1.0, 101)
    found = areas(error, -error)
    assert found.area == found.oracle == pytest.approx(25.75)  # the mean of (k + 1) / 2, k = 1..100
    assert found.random == 50.5
    assert areas(error, np.zeros(100)).area == 50.5
    assert areas(error, error).area == pytest.approx(101 - 25.75)


def test_risk_at_coverages() -> None:
    error = np.arange(10.0)
    np.testing.assert_allclose(risk_at(error, -error, np.array([0.05, 0.1, 0.3, 0.31, 1.0])), [0, 0, 1, 1.5, 4.5])


def holds(made):
    spread = np.random.default_rng(1).uniform(0.1, 2, N)

    def predict(cell):
        wrong = 2 if cell.severity == "0.2" else 0
        return {
            "y_pred": made.labels + spread,
            "log_variance": (1 if wrong == 0 else -1) * 2 * np.log(spread),
            "r": np.full((N, 3), 0.5),
            "routing": np.tile([1.0, 0.0], (N, 1)),
        }

    return predict


def test_gain_is_one_for_the_true_order_and_negative_for_the_reverse(made) -> None:
    made.add(holds(made), ("noise", "0:0.2:0.1"))
    table = risk_info(made.root).areas.set_index(["severity", "confidence"])
    assert table.loc[("0", "variance"), "gain"] == pytest.approx(1, abs=1e-4)
    assert table.loc[("0", "variance"), "excess"] == pytest.approx(0, abs=1e-4)
    assert table.loc[("0.2", "variance"), "gain"] < -0.5
    assert table.loc[("0.2", "variance"), "excess_low"] > 0
    for name in ("r", "routing"):  # constants order nothing
        assert table.loc[("0", name), "gain"] == pytest.approx(0, abs=1e-9)
        assert table.loc[("0", name), "area"] == pytest.approx(table.loc[("0", name), "random"])


def test_the_curve_ends_at_the_mae_of_all(made) -> None:
    made.add(holds(made), ("noise", "0,0.1"))
    info = risk_info(made.root, ["variance"])
    last = info.curves[info.curves["coverage"] == 1]
    np.testing.assert_allclose(last["risk"], info.areas["random"])
    np.testing.assert_allclose(last["oracle"], info.areas["random"])
    assert set(info.curves["confidence"]) == {"variance"}
    assert (info.curves["oracle"] <= info.curves["risk"] + 1e-4).all()


def test_the_entropy_of_routing() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(CONFIDENCES["routing"][1]({"routing": p}), [0, -np.log(2)], atol=1e-12)


def test_bad_input(made) -> None:
    made.add(holds(made), ("noise", "0,0.1"))
    with pytest.raises(InputError, match="unknown confidence 'luck'; known: variance, entropy"):
        risk_info(made.root, ["luck"])
    with pytest.raises(InputError, match=r"qa_moe stores no confidence \(extra entropy\); log_variance: qa_moe"):
        risk_info(made.root, ["entropy"])
