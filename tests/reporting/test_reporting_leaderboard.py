from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from corruptions import InputError
from robustbench_msa.reporting.board import Column, Score
from robustbench_msa.reporting.leaderboard import leaderboard


def scores(frame, **options):
    """{row name: [(value, place) per column]}, in the board's order."""
    board = leaderboard(frame, **options)
    return {row.entry.label: [(score.value, score.place) for score in row.scores] for row in board.rows}


@pytest.fixture
def three(nauc):
    """Three models with MAE and Acc-2 under missing, and the references."""
    rows = []
    values = {"qa_moe": (0.9, 0.7), "rider_moe": (0.8, 0.6), "late_fusion": (1.0, 0.8), "chance": (1.4, 0.5)}
    for model, (mae, acc) in {**values, "oracle": (0.5, 0.95)}.items():
        who = {"model": model, "recipe": "" if model in ("chance", "oracle") else "clean"}
        rows.append({**who, "metric": "mae", "nauc": mae, "ci_low": mae - 0.1, "ci_high": mae + 0.1})
        rows.append({**who, "metric": "acc2_non0", "nauc": acc, "ci_low": acc - 0.05, "ci_high": acc + 0.05})
    return nauc(*rows)


def test_rows_are_sorted_best_first_with_references_last_and_unranked(three):
    assert scores(three, metrics=["mae", "acc2_non0"]) == {
        "RIDER-MoE": [(0.8, 1), (0.6, 0)],
        "QA-MoE": [(0.9, 2), (0.7, 2)],
        "Late fusion": [(1.0, 0), (0.8, 1)],
        "oracle (bound)": [(0.5, 0), (0.95, 0)],
        "chance": [(1.4, 0), (0.5, 0)],
    }


def test_default_columns_start_with_the_usual_accuracy_and_sort_downwards_by_it(three):
    board = leaderboard(three)
    assert [column.key for column in board.columns] == [
        "missing 0:0.8:0.2 acc2_non0 nauc",
        "missing 0:0.8:0.2 mae nauc",
    ]
    assert [row.entry.model for row in board.rows] == ["late_fusion", "qa_moe", "rider_moe", "oracle", "chance"]


@pytest.mark.parametrize("sort", ["mae", "missing mae", "mae 0:0.8:0.2"])
def test_sort_takes_the_words_of_a_column(three, sort):
    board = leaderboard(three, sort=sort)
    assert board.sorted_by.metric.name == "mae"
    assert board.rows[0].entry.model == "rider_moe"


def test_a_sort_that_names_nothing_is_said(three):
    there = r"of: missing, 0:0.8:0.2, acc2_non0, nauc, mae \(another score: nauc, auc_raw, .*, clean\)"
    with pytest.raises(InputError, match=rf"no column to sort by 'noise'; .* {there}"):
        leaderboard(three, sort="noise")


def test_a_stress_with_parameters_is_found_by_its_name_or_as_typed(nauc):
    frame = nauc({"nauc": 1.0}, {"stress": "missing-random", "params": "told=true", "grid": "0:0.7:0.1", "nauc": 2.0})
    for sort in ("missing-random", "missing-random:told=true", "0:0.7:0.1"):
        assert leaderboard(frame, sort=sort).sorted_by.stress == "missing-random"


def test_a_column_that_nobody_has_is_not_there(nauc):
    frame = nauc({"nauc": 1.0}, {"metric": "corr", "nauc": 0.5}, {"stress": "noise", "grid": "0:0.5:0.1", "nauc": 1.0})
    keys = [column.key for column in leaderboard(frame).columns]
    assert keys == [
        f"{over} nauc" for over in ("noise 0:0.5:0.1 mae", "missing 0:0.8:0.2 mae", "missing 0:0.8:0.2 corr")
    ]


def test_another_grid_or_parameter_is_another_column_and_what_was_not_run_is_said(nauc):
    frame = nauc(
        {"nauc": 0.9},
        {"nauc": 0.8, "grid": "0:0.6:0.2"},
        {"model": "rider_moe", "nauc": 0.7, "grid": "0:0.6:0.2"},
        {"model": "rider_moe", "nauc": 0.6, "params": "fill=mean"},
    )
    board = leaderboard(frame)
    assert [column.over for column in board.columns] == [
        ("missing", "", "0:0.6:0.2", "nauc"),
        ("missing", "", "0:0.8:0.2", "nauc"),
        ("missing", "fill=mean", "0:0.8:0.2", "nauc"),
    ]
    rider, qa = (row.scores for row in board.rows)
    assert [s.value for s in rider] == [0.7, None, 0.6]
    assert [s.value for s in qa] == [0.8, 0.9, None]
    assert [s.place for s in rider + qa] == [1, 0, 0, 2, 0, 0]  # a column with one model ranks nobody
    assert board.notes == ("not run",)


def test_null_comes_last_and_says_why(nauc):
    why = "mae is undefined in at least one cell of the grid"
    frame = nauc(
        {"model": "a", "note": why},
        {"model": "b"},
        {"model": "c", "nauc": 2.0, "ci_low": 1.0, "ci_high": 3.0, "note": "on retention"},
        {"model": "d", "nauc": 1.0, "note": "2 groups are needed for an interval"},
    )
    board = leaderboard(frame)
    assert [row.entry.model for row in board.rows] == ["d", "c", "a", "b"]
    cells = [row.scores[0] for row in board.rows]
    assert [score.note for score in cells] == ["2 groups are needed for an interval", "", why, "undefined"]
    assert [board.mark(score) for score in cells] == ["1", "", "2", "3"]
    assert board.notes == ("2 groups are needed for an interval", why, "undefined")


def test_equal_print_is_equal_place(nauc):
    values = {"a": 0.80049, "b": 0.80051, "c": 0.80048, "d": 0.9}
    found = scores(nauc(*({"model": m, "nauc": v} for m, v in values.items())))
    assert {m: cells[0][1] for m, cells in found.items()} == {"a": 1, "c": 1, "b": 2, "d": 0}


def test_available_sets_are_scored_by_their_mean(nauc):
    sets = {"stress": "missing-fixed", "grid": "t,a,v,t+a,t+v,a+v,t+a+v", "note": "available sets have no axis"}
    frame = nauc({**sets, "grid_mean": 0.9}, {**sets, "model": "b", "grid_mean": 0.8}, {**sets, "model": "c"})
    board = leaderboard(frame)
    assert (board.columns[0].by_condition, board.columns[0].grid_label) == (True, "all 7 sets")
    assert [row.scores[0][:2] for row in board.rows] == [(0.8, None), (0.9, None), (None, None)]
    assert [row.scores[0].note for row in board.rows] == ["", "", "available sets have no axis"]
    assert board.to_frame()["score"].tolist() == ["grid_mean"] * 3
    assert Column("missing-fixed", "", "t,t+a", board.columns[0].metric).grid_label == "T,TA"


def test_means_over_training_seeds_are_one_row_and_counts_are_kept(nauc):
    frame = nauc(
        {"train_seed": 1111, "nauc": 1.0},
        {"train_seed": 1112, "nauc": 3.0},
        {"nauc": 2.0, "ci_low": 1.5, "ci_high": 2.5, "n_train_seeds": 2},
    )
    (row,) = leaderboard(frame).rows
    assert row.scores == (Score(2.0, 1.5, 2.5, 0, "", 62, 3, 2),)


def test_two_scores_for_one_cell_are_an_error(nauc):
    with pytest.raises(InputError, match=r"QA-MoE has 2 scores of missing 0:0.8:0.2 mae"):
        leaderboard(nauc({"nauc": 1.0}, {"nauc": 2.0}))


def test_the_frame_is_tidy_in_the_units_of_the_store_and_csv_is_it(three):
    board = leaderboard(three)
    frame = board.to_frame()
    assert len(frame) == 10
    first = frame.iloc[0].to_dict()
    assert {k: first[k] for k in ("model", "stress", "grid", "metric", "score", "value", "place", "n_groups")} == {
        "model": "late_fusion",
        "stress": "missing",
        "grid": "0:0.8:0.2",
        "metric": "acc2_non0",
        "score": "nauc",
        "value": 0.8,
        "place": 1,
        "n_groups": 62,
    }
    assert frame["kind"].tolist() == ["model"] * 6 + ["reference"] * 4
    read = pd.read_csv(io.StringIO(board.to_csv()))
    assert read["value"].tolist() == frame["value"].tolist()
    assert read.columns.tolist() == frame.columns.tolist()
    rows = json.loads(board.to_json())
    assert [row["value"] for row in rows] == frame["value"].tolist()
    assert list(rows[0]) == frame.columns.tolist()
    assert rows[0]["rank"] is None


def test_caption_names_data_grids_directions_intervals_and_what_is_not_ranked(three):
    assert leaderboard(three).caption() == (
        "Robustness on CMU-MOSI, test split (62 groups); means over 3 corruption seeds and 1 training seed. "
        "nAUC, the area under a curve divided by the range of its grid: Missing modalities 0:0.8:0.2. "
        "Training recipe: clean. "
        "Acc-2 (non-zero) in percent. ↑ higher is better, ↓ lower is better. "
        "In brackets: 95 % bootstrap intervals over groups (videos); "
        "one training seed: claims about checkpoints, not methods. "
        "Sorted by Missing modalities 0:0.8:0.2, Acc-2 (non-zero). "
        "Bold: best, underlined: second, of each column as printed. "
        "Differences were not tested. "
        "Not ranked: the oracle (bound) and chance (the best constant of the training labels)."
    )
    assert "(686 samples, 62 groups)" in leaderboard(three.assign(n=686)).caption()


def test_a_mean_over_available_sets_brings_its_own_interval(nauc):
    sets = {"stress": "missing-fixed", "grid": "t,t+a", "grid_mean": 0.9}
    frame = nauc(sets, {**sets, "model": "rider_moe", "grid_mean": 1.0})
    bare = leaderboard(frame).rows[0].scores[0]
    assert (bare.value, bare.ci_low, bare.ci_high) == (0.9, None, None)
    score = leaderboard(frame.assign(grid_mean_low=[0.8, 0.85], grid_mean_high=[1.0, 1.2])).rows[0].scores[0]
    assert (score.value, score.ci_low, score.ci_high, score.note) == (0.9, 0.8, 1.0, "")
