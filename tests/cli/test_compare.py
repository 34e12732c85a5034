"""``msabench compare``: two runs together, as a table, as CSV and as JSON, and what it says to wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

RUN = ("--stress", "missing", "--grid", "0,0.4", "--seeds", "1", "--no-plots", "-q")


def test_runs_made_apart_are_compared(msabench, tmp_path: Path) -> None:
    for model in ("qa_moe", "late_fusion"):
        assert msabench("run", "--model", model, *RUN, "--out", str(tmp_path / model)).code == 0
    folders = [str(tmp_path / "qa_moe"), str(tmp_path / "late_fusion")]
    shown = msabench("compare", *folders)
    assert shown.code == 0
    assert "claims about checkpoints" in shown.out
    assert "QA-MoE" in shown.out
    assert "Late fusion" in shown.out
    rows = json.loads(msabench("compare", *folders, "--metric", "mae", "--json").out)
    assert [(row["metric"], row["grid"]) for row in rows] == [("mae", "0,0.4")]
    naucs = {
        name: pd.read_parquet(tmp_path / name / "nauc").query("metric == 'mae' and model == @name")["nauc"].item()
        for name in ("qa_moe", "late_fusion")
    }
    (row,) = rows
    assert abs(row["value_a"] - naucs[row["model_a"]]) < 1e-9
    assert abs(row["difference"] - (naucs[row["model_a"]] - naucs[row["model_b"]])) < 1e-9
    assert msabench("compare", *folders, "--out", str(tmp_path / "x.csv")).code == 0
    assert len(pd.read_csv(tmp_path / "x.csv")) == 3


def test_wrong_input(msabench, tmp_path: Path) -> None:
    none = msabench("compare", str(tmp_path))
    assert none.code == 2
    assert "no manifest.json" in none.err
    score = msabench("compare", str(tmp_path), "--score", "best")
    assert score.code == 2
    assert "expected nauc or grid_mean" in score.err
