"""Which printed numbers stand beside which columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from robustbench_msa.analysis.grid_scores import nauc_2d
from robustbench_msa.published import published
from robustbench_msa.reporting.leaderboard import leaderboard

SETS = "t,a,v,t+a,t+v,a+v,t+a+v"


def rows_of(frame: pd.DataFrame, papers: pd.DataFrame | None = None, **options: object) -> dict[str, list[object]]:
    """{row: [(printed, note) per column]}"""
    board = leaderboard(frame, published=published() if papers is None else papers, **options)
    return {r.name: [None if s is None else (s.printed, s.note) for s in r.scores] for r in board.published}


def test_rider_s_areas_stand_beside_the_same_stress_and_grid_alone(nauc) -> None:
    rows = [
        {"stress": stress, "grid": grid, "metric": metric, "nauc": 0.5, "params": params}
        for stress, grid, params in (
            ("noise", "0:0.5:0.1", ""),
            ("noise", "0:0.4:0.1", ""),
            ("noise", "0:0.5:0.1", "x=1"),
        )
        for metric in ("acc2_non0", "corr", "mae")
    ]
    found = rows_of(nauc(*rows))
    assert len(found) == 6
    assert [cell and cell[0] for cell in found["RIDER-MoE [RIDER-MoE 2]"]] == [
        *[None] * 3,  # over another grid
        *("81.1", None, "0.727"),  # the paper has no MAE there
        *[None] * 3,  # other parameters
    ]


def test_other_datasets_are_not_mixed_in(nauc) -> None:
    mosi = {"stress": "missing", "grid": "0:0.8:0.2", "metric": "corr", "nauc": 0.5}
    assert rows_of(nauc(mosi))["MMIM [RIDER-MoE 2]"][0][0] == "0.641"
    assert rows_of(nauc({**mosi, "dataset": "mosei"}))["MMIM [RIDER-MoE 2]"][0][0] == "0.620"
    board = leaderboard(nauc({**mosi, "dataset": "synth"}), published=published())
    assert board.published == ()
    assert board.about_published.startswith(
        "No published numbers on the synthetic dataset: the papers' are on CMU-MOSI,"
    )
    assert board.about_published in board.to_latex()
    nothing = leaderboard(nauc({**mosi, "stress": "burst"}), published=published())
    assert nothing.about_published == "No published numbers on CMU-MOSI for these columns"


def test_a_printed_curve_is_scored_over_the_columns_grid(nauc) -> None:
    grid = "0:0.7:0.1x0:0.7:0.1"
    board = leaderboard(
        nauc({"stress": "spectrum", "grid": grid, "metric": "acc7", "nauc": 0.4, "grid_mean": 0.4, "worst": 0.2}),
        ["acc7"],
        scores=["nauc", "grid_mean", "worst", "retention"],
        published=published("qa_moe"),
    )
    (row,) = board.published
    table = published("qa_moe", table="9")
    at = table["condition"].str.extract(r"lambda=([\d.]+);eta=([\d.]+)").astype(float)
    values = table.assign(a=at[0], b=at[1]).pivot(index="a", columns="b", values="number").to_numpy() / 100
    axis = np.arange(8) / 10
    expected = [float(nauc_2d(axis, axis, values)), values.mean(), values.min()]
    np.testing.assert_allclose([s.value for s in row.scores[:3] if s], expected)
    assert row.scores[3] is None, "a retention needs a floor"
    assert row.scores[0].note.startswith("made from the 64 printed values; one checkpoint, spectrum training")


def test_both_means_over_available_sets(nauc) -> None:
    """The paper's own average mixes six and seven sets; here each column says which."""
    rows = [
        {"stress": "missing-fixed", "grid": grid, "metric": "acc2_non0", "grid_mean": 0.7}
        for grid in (SETS, SETS.removesuffix(",t+a+v"))
    ]
    found = rows_of(nauc(*rows), published("qa_moe", dataset="mosi"))
    six, seven = found["QA-MoE [QA-MoE 2]"]
    assert (six[0], seven[0]) == ("76.0", "78.0")
    assert "the paper's average: 77.98" in six[1]
    assert "over six sets, as for most other rows, it is 75.98" in six[1]


def test_an_average_over_other_points_says_so(nauc) -> None:
    noise = {"stress": "noise-lambda", "metric": "mae", "nauc": 0.7, "grid_mean": 0.7, "worst": 0.9}
    found = rows_of(nauc({**noise, "grid": "0:0.7:0.1"}), scores=["nauc", "worst"])
    average, worst = found["QA-MoE [QA-MoE 4]"]
    assert average[0] == "0.642"
    assert average[1].startswith("the paper's average over 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, not over the grid")
    assert worst is None
    found = rows_of(nauc({**noise, "grid": "0.1:0.7:0.1"}), scores=["grid_mean", "worst"])
    mean, worst = found["QA-MoE [QA-MoE 4]"]
    assert mean[0] == "0.642"
    assert mean[1].startswith("made from the 7 printed values; the paper's average: 0.642")
    assert float(worst[0]) >= 0.642


def test_clean_numbers_name_their_alignment_and_keep_the_papers_order(nauc) -> None:
    frame = nauc({"metric": "acc7", "nauc": 0.4, "clean": 0.4}, {"metric": "mae", "nauc": 0.9, "clean": 0.9})
    found = rows_of(frame, published("emoe"), metrics=["acc7", "mae"], scores=["clean"])
    assert found["EMOE [EMOE 1, aligned]"][0][0] == "47.7"
    assert found["EMOE [EMOE 1, unaligned]"][0][0] == "47.8"
    names = list(found)
    assert names.index("EMOE [EMOE 1, aligned]") < names.index("EF-LSTM [EMOE 1, unaligned]")
    assert not any("w/o" in name for name in names), "ablations are no rows of a leaderboard"


def test_one_mixed_test_set_is_a_single_point(nauc) -> None:
    mixture = {"stress": "spectrum", "params": "variant=mixture", "grid": "1", "metric": "mae", "grid_mean": 0.9}
    found = rows_of(nauc(mixture), scores=["grid_mean"])
    assert found["QA-MoE, spectrum train [QA-MoE 5]"][0][0] == "0.515"
    assert "QA-MoE, clean train [QA-MoE 5]" in found


@pytest.mark.parametrize("split", ["test", "valid"])
def test_another_split_is_said(nauc, split: str) -> None:
    frame = nauc({"metric": "corr", "nauc": 0.5, "split": split})
    board = leaderboard(frame, published=published())
    assert ("theirs are on the test split" in board.about_published) == (split == "valid")
