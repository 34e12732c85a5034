"""Any score as a column, sorted by any, with nulls last and a constant never above a model that beats it everywhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import InputError
from robustbench_msa.analysis.grid_report import NEVER_HALVED, SCORES, Curve, grid_report
from robustbench_msa.analysis.grid_scores import error_form
from robustbench_msa.analysis.metrics import get_profile
from robustbench_msa.reporting.leaderboard import leaderboard

GRID = "0:0.8:0.2"
SEVERITIES = [0, 0.2, 0.4, 0.6, 0.8]
SORTABLE = [name for name, score in SCORES.items() if score.better]
COUNTS = {"n_groups": 62, "n_seeds": 3, "n_train_seeds": 1}


def row(model: str, metric: str, values: list[float], floor: float, **more: object) -> dict:
    """A row of the nAUC table as the analysis makes it."""
    found = get_profile("mosi").metric(metric)
    baseline, oracle = (Curve(name, [level] * 5, level) for name, level in (("late_fusion", 0.5), ("oracle", 0.99)))
    report = grid_report(
        [SEVERITIES], values, values[0], floor, found.higher_is_better, baseline, oracle, error_form(found)
    )
    scores = {name: value for name, (value, _) in report.items()}
    reasons = [(name, why) for name, (_, why) in report.items() if why]
    where = {"stress": "missing", "params": "", "grid": GRID, "metric": metric, "note": None}
    who = {"model": model, "recipe": "clean", "train_seed": None, "checkpoint": "", "dataset": "mosi", "split": "test"}
    return {**who, **where, **COUNTS, **scores, "profile": "mosi", "clean": values[0], "reasons": reasons, **more}


def table(*rows: dict) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(("train_seed", "n_groups", "n_seeds", "n_train_seeds"), "Int64"))


def order(frame: pd.DataFrame, **options: object) -> list[str]:
    return [line.entry.model for line in leaderboard(frame, **options).rows]


curves = st.lists(st.floats(0.02, 0.98), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(score=st.sampled_from(SORTABLE), metric=st.sampled_from(["acc2_non0", "mae", "corr"]), data=st.data())
def test_a_constant_is_never_above_a_model_that_beats_it_everywhere(score, metric, data) -> None:
    """The constant comes first by name, and its level is that of the floor or worse."""
    better = get_profile("mosi").metric(metric).higher_is_better
    constant = 0.0 if metric == "corr" else data.draw(st.floats(0.1, 0.6))
    sign = 1 if better else -1
    floor = constant if metric == "corr" else constant + sign * data.draw(st.sampled_from([0, 0.05]))
    gain = np.array(data.draw(curves))
    model = constant + sign * 0.3 * gain if better else constant - gain * (constant - 0.01)
    rows = [row("a", metric, [constant] * 5, floor), row("b", metric, list(model), floor)]
    rows.append(row("c", metric, data.draw(curves), floor))
    found = order(table(*rows), metrics=[metric], sort=score)
    assert found.index("b") < found.index("a")


def test_without_a_margin_equal_nulls_are_sorted_by_their_level() -> None:
    """Both are below the floor: neither has a retention, but one of them is better at every severity."""
    frame = table(row("a", "mae", [1.5] * 5, 1.4), row("b", "mae", [1.45, 1.45, 1.46, 1.47, 1.48], 1.4))
    assert order(frame, sort="retention") == ["b", "a"]
    assert order(frame, sort="half_life") == ["b", "a"]


def test_several_scores_are_shown_with_their_own_direction_and_format() -> None:
    rows = [row("a", "acc2_non0", [0.8, 0.78, 0.7, 0.58, 0.5], 0.5), row("b", "acc2_non0", [0.7] * 5, 0.5)]
    board = leaderboard(table(*rows), scores=["nauc", "retention", "half_life", "ce", "cliff_at"], sort="half_life")
    assert [(c.score, c.head) for c in board.columns] == [
        ("nauc", "Acc-2 (non-zero) ↑"),
        ("retention", "Acc-2 (non-zero) ↑"),
        ("half_life", "Acc-2 (non-zero) ↑"),
        ("ce", "Acc-2 (non-zero) ↓"),
        ("cliff_at", "Acc-2 (non-zero)"),
    ]
    never, halved = board.rows
    assert (never.entry.model, halved.entry.model) == ("b", "a")
    printed = [column.format(score.value) for column, score in zip(board.columns, halved.scores, strict=True)]
    assert printed == ["67.8", "0.592", "0.483", "0.720", "0.4"]
    assert [score.place for score in halved.scores] == [2, 2, 2, 2, 0]
    assert (never.scores[2].value, never.scores[2].place, never.scores[2].note) == (None, 1, NEVER_HALVED)
    assert NEVER_HALVED in board.notes
    text = board.caption()
    assert "Retention, Half-life, Cliff at compare a model with its own clean score alone" in text
    assert "Half-life (a margin that is never halved comes first, other nulls last, equal rows by their level)" in text
    assert "Acc-2 (non-zero) in percent" in text


def test_every_null_is_a_dash_with_its_reason_in_every_format() -> None:
    rows = [row("a", "mae", [0.9, 1.0, 1.1, 1.2, 1.3], 1.4), row("z", "mae", [1.5] * 5, 1.4)]
    board = leaderboard(table(*rows), scores=["retention"])
    why = "the clean score is not better than the best constant: there is nothing to lose"
    assert [(line.entry.model, line.scores[0].note) for line in board.rows] == [("a", ""), ("z", why)]
    assert "— (1)" in board.to_markdown()
    assert f"(1) {why}" in board.to_markdown()
    assert r"---\textsuperscript{1}" in board.to_latex()
    frame = board.to_frame()
    assert len(frame) == 2
    assert frame["value"].isna().tolist() == [False, True]
    assert frame["note"].tolist() == ["", why]


def test_a_score_or_metric_that_is_only_sorted_by_is_shown_too() -> None:
    rows = [row("a", "mae", [0.9, 1.0, 1.1, 1.2, 1.3], 1.4), row("b", "mae", [1.0, 1.0, 1.0, 1.0, 1.1], 1.4)]
    rows += [row("a", "acc7", [0.4] * 5, 0.2), row("b", "acc7", [0.3] * 5, 0.2)]
    board = leaderboard(table(*rows), metrics=["mae"], sort="worst")
    assert [column.score for column in board.columns] == ["nauc", "worst"]
    assert [line.entry.model for line in board.rows] == ["b", "a"]
    board = leaderboard(table(*rows), metrics=["mae"], sort="acc7")
    assert [column.metric.name for column in board.columns] == ["mae", "acc7"]
    assert [line.entry.model for line in board.rows] == ["a", "b"]


def test_a_place_or_no_score_cannot_be_sorted_by_or_shown() -> None:
    frame = table(row("a", "mae", [0.9, 1.0, 1.1, 1.2, 1.3], 1.4))
    with pytest.raises(InputError, match="cannot sort by 'cliff_at'"):
        leaderboard(frame, sort="cliff_at")
    with pytest.raises(InputError, match=r"no score 'half-life'.*half_life.*clean"):
        leaderboard(frame, scores=["half-life"])


def test_the_untouched_input_is_one_column_whatever_the_stresses() -> None:
    rows = [row("a", "mae", [0.9, 1.0, 1.1, 1.2, 1.3], 1.4), row("b", "mae", [0.8, 1.0, 1.1, 1.2, 1.3], 1.4)]
    rows += [{**r, "stress": "noise", "grid": "0:0.5:0.1"} for r in rows]
    board = leaderboard(table(*rows), scores=["clean", "nauc"], sort="clean")
    assert [(column.title, column.score) for column in board.columns] == [
        ("Clean input", "clean"),
        ("Noise", "nauc"),
        ("Missing modalities", "nauc"),
    ]
    assert [(line.entry.model, line.scores[0].value) for line in board.rows] == [("b", 0.8), ("a", 0.9)]


def test_mean_corruption_errors_over_stresses() -> None:
    rows = [
        {**row(model, "mae", [0.9, *[level] * 4], 1.4, baseline="late_fusion, clean"), "stress": stress, "grid": grid}
        for model, levels in (("a", (1.0, 1.2)), ("b", (0.9, 1.5)))
        for (stress, grid), level in zip((("missing", GRID), ("noise", "0:0.5:0.1")), levels, strict=True)
    ]
    board = leaderboard(table(*rows), scores=["ce"], sort="mce")
    assert [(column.title, column.score_label) for column in board.columns][-1] == ("All stresses", "mCE")
    assert [(line.entry.model, line.scores[-1].value) for line in board.rows] == [
        ("a", pytest.approx((2.0 + 2.4) / 2)),
        ("b", pytest.approx((1.8 + 3.0) / 2)),
    ]
    assert "Baseline: late_fusion, clean." in board.caption()
    rows[0] |= {"ce": None, "reasons": [("ce", "no baseline was given")]}
    null = leaderboard(table(*rows), scores=["ce"], sort="mce").rows[-1]
    assert (null.entry.model, null.scores[-1].value) == ("a", None)
    assert null.scores[-1].note == "ce is null under missing: no baseline was given"


def test_a_protocol_says_what_sums_it_up() -> None:
    text = (
        'name = "p"\nversion = 1\nreference = "r"\ndescription = "d"\nscore = "grid_mean"\n'
        f'[[stress]]\nname = "missing"\ngrid = "{GRID}"\n'
    )
    rows = [row("a", "mae", [0.9, 1.0, 1.1, 1.2, 1.3], 1.4)]
    rows.append({**rows[0], "stress": "noise", "grid": "0:0.5:0.1"})
    manifest = {"protocols": {"p": text, "q": "no protocol"}, "checkpoints": {}}
    board = leaderboard(table(*rows), manifest=manifest)
    assert [(column.stress, column.score) for column in board.columns] == [("noise", "nauc"), ("missing", "grid_mean")]
    board = leaderboard(table(*rows), manifest=manifest, scores=["worst"])
    assert [column.score for column in board.columns] == ["worst", "worst"]


def test_an_interval_that_is_open_above() -> None:
    found = row("a", "mae", [0.9, 1.0, 1.1, 1.2, 1.3], 1.4, half_life_low=0.3, half_life_high=None)
    board = leaderboard(table(found, row("b", "mae", [0.9] * 5, 1.4)), scores=["half_life"])
    (cell,) = [line.scores[0] for line in board.rows if line.entry.model == "a"]
    assert board.columns[0].format_interval(cell.ci_low, cell.ci_high) == "[0.300, …)"
    assert board.columns[0].format_interval(None, None) == ""
