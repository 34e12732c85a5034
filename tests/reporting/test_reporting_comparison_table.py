"""Everyone against the best: the right one is the best, signs are turned with the sides, ties are called ties."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from corruptions import InputError
from robustbench_msa.analysis.metrics import get_profile
from robustbench_msa.reporting.comparison_table import against_best, comparison_frame, comparison_tables


def pair(
    a: str, b: str, value_a: float, value_b: float, low: float, high: float, p: float, metric: str = "mae"
) -> dict:
    sides = {"recipe": "clean", "train_seed": None, "checkpoint": "", "n_train_seeds": 3}
    both = {f"{name}_{side}": value for side in "ab" for name, value in sides.items()}
    return {
        **both,
        "model_a": a,
        "model_b": b,
        "value_a": value_a,
        "value_b": value_b,
        "difference": value_a - value_b,
        "ci_low": low,
        "ci_high": high,
        "p_bootstrap": p,
        "p_holm": min(1.0, 3 * p),
        "n_tests": 3,
        "profile": "mosi",
        "stress": "missing",
        "params": "",
        "grid": "0:0.8:0.2",
        "score": "nauc",
        "metric": "mae",
        "claim": "method",
        "n": 686,
        "n_groups": 31,
        "n_seeds": 3,
        "note": None,
    }


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        pair("late_fusion", "qa_moe", 0.94, 0.96, -0.05, 0.01, 0.2),
        pair("late_fusion", "rider_moe", 0.94, 0.91, 0.001, 0.059, 0.01),
        pair("qa_moe", "rider_moe", 0.96, 0.91, 0.02, 0.08, 0.0001),
    ]
    return pd.DataFrame(rows)


def test_the_best_is_first_and_signs_are_those_of_other_minus_best(frame: pd.DataFrame) -> None:
    rows = against_best(frame, get_profile("mosi").metric("mae"))
    assert [row["line"][0] for row in rows] == ["rider_moe", "late_fusion", "qa_moe"]  # lower is better
    assert rows[1]["difference"] == pytest.approx(0.03)
    assert (rows[1]["low"], rows[1]["high"]) == (0.001, 0.059)
    higher = against_best(frame.assign(metric="corr"), get_profile("mosi").metric("corr"))
    assert [row["line"][0] for row in higher] == ["qa_moe", "late_fusion", "rider_moe"]
    assert higher[1]["difference"] == pytest.approx(-0.02)
    assert (higher[1]["low"], higher[1]["high"]) == (-0.05, 0.01)
    assert higher[2]["difference"] == pytest.approx(-0.05)  # the sides are turned
    assert (higher[2]["low"], higher[2]["high"]) == (-0.08, -0.02)


def test_the_table_says_who_is_tied(frame: pd.DataFrame) -> None:
    out = Console(width=100, file=io.StringIO())
    for table in comparison_tables(comparison_frame(frame, "nauc", ["mae"])):
        out.print(table)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    lines = {line.split()[0]: line for line in text.splitlines() if line.split()}
    assert "best" in lines["RIDER-MoE"]
    assert lines["Late"].rstrip().endswith("worse")  # p after Holm .03
    assert "<.001" in lines["QA-MoE"]
    assert "claims about methods" in text
    tied = frame.assign(p_holm=0.06)
    out = Console(width=100, file=io.StringIO())
    out.print(*comparison_tables(comparison_frame(tied, "nauc", ["mae"])))
    assert out.file.getvalue().count("tied") == 2  # type: ignore[attr-defined]


def test_nothing_to_compare(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no two models here share a grid_mean"):
        comparison_frame(frame, "grid_mean")
    with pytest.raises(InputError, match="acc7"):
        comparison_frame(frame, "nauc", ["acc7"])
