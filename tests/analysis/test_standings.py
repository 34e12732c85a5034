"""Ranks and ties of a leaderboard's rows, against the functions they are made of and by simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from stored_runs import CHANCE, MODEL, NOISE, Run, degraded, request_of

from robustbench_msa.analysis.bootstrap import group_weights
from robustbench_msa.analysis.evaluated import Line
from robustbench_msa.analysis.paired import difference, holm
from robustbench_msa.analysis.ranks import rank_intervals, replicates
from robustbench_msa.analysis.standings import ALPHA, Race, Standings, standings
from robustbench_msa.analysis.tables import Tables
from robustbench_msa.analysis.variance import Score
from robustbench_msa.evaluation.cells import Cell, Subject

MISSING, SETS = request_of("missing", "0:0.6:0.2", 2), request_of("missing-fixed")
ROWS = [replace(MODEL, checkpoint=c * 64, train_seed=1111 + i) for i, c in enumerate("ad")]
OTHERS = [Subject(name, 1, c * 64, "clean", 1111) for name, c in (("qa_moe", "7"), ("tfn", "8"), ("lmf", "9"))]
WORSE = {"qa_moe": 0.05, "tfn": 1.2, "lmf": 2.0}
METHOD = ("late_fusion", "clean", None, "")
WHO = [METHOD, *((s.model, "clean", 1111, s.checkpoint) for s in OTHERS), ("chance", "", None, "b" * 64)]


def predict(cell: Cell) -> Any:
    return degraded(cell) + WORSE.get(cell.model, 0.0) * NOISE[1120]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    run = Run(tmp_path_factory.mktemp("standings"))
    run.add([*ROWS, *OTHERS, CHANCE], [MISSING, SETS], predict)
    return Tables(run.store, run.planned)


def test_methods_and_checkpoints_are_in_one_race_and_references_are_not(tables: Tables) -> None:
    found = Standings(tables, WHO).over_grid("missing", "", "0:0.6:0.2", "nauc")["mae"]
    assert set(found) == set(WHO[:-1])
    values = tables.nauc().to_pandas().query("metric == 'mae' and grid == '0:0.6:0.2' and model != 'chance'")
    values = values[values["train_seed"].isna() | (values["model"] != "late_fusion")]
    order = values.sort_values("nauc")["model"].tolist()
    assert sorted(WHO[:-1], key=lambda who: found[who].rank) == [who for m in order for who in WHO if who[0] == m]
    assert {standing.n_lines for standing in found.values()} == {4}
    assert all(s.low <= s.rank <= s.high for s in found.values())
    assert not found[WHO[3]].tied, "two standard deviations of noise show"
    assert found[min(found, key=lambda who: found[who].rank)].tied


def test_a_row_is_tied_unless_holm_says_otherwise(tables: Tables) -> None:
    """From the scores by hand: difference from the best, and Holm over these comparisons alone."""
    lines = {(x.model, x.recipe, x.train_seed, x.checkpoint): x for x, r in tables.asked() if r == MISSING}
    weights = np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6])
    scores = {
        who: Score.combined([tables.score(lines[who], MISSING, p) for p in MISSING.grid.points], weights)
        for who in WHO[:-1]
    }
    found = Standings(tables, WHO).over_grid("missing", "", "0:0.6:0.2", "nauc")
    for m, metric in enumerate(tables.metrics):
        sign = 1 if metric == "mae" else -1
        best, *rest = sorted(scores, key=lambda who: sign * scores[who].value[m])
        p = holm([difference(scores[best], scores[who], tables.weights).p[m] for who in rest])
        assert {who: s.tied for who, s in found[metric].items()} == {
            best: True,
            **{who: bool(not value < ALPHA) for who, value in zip(rest, p, strict=True)},
        }
        values = np.array([scores[who].value[m] for who in WHO[:-1]])
        drawn = np.stack([replicates(scores[who], tables.weights, str(lines[who].key))[:, m] for who in WHO[:-1]])
        rank, low, high = rank_intervals(values, drawn.T, metric != "mae")
        own = [found[metric][who][:3] for who in WHO[:-1]]
        np.testing.assert_array_equal(own, np.stack([rank, low, high], axis=1))


@pytest.mark.parametrize("score", ["nauc", "auc_raw", "regret"])
def test_scores_of_the_area_have_one_order(tables: Tables, score: str) -> None:
    made = Standings(tables, WHO)
    assert made.over_grid("missing", "", "0:0.6:0.2", score) == made.over_grid("missing", "", "0:0.6:0.2", "nauc")


def test_sets_have_a_mean_and_no_area_and_shapes_are_not_tested(tables: Tables) -> None:
    made, sets = Standings(tables, WHO), str(SETS.grid)
    assert made.over_grid("missing-fixed", "", sets, "nauc") == {}
    assert len(made.over_grid("missing-fixed", "", sets, "grid_mean")["mae"]) == 4
    assert len(made.over_grid("missing-fixed", "", sets.removesuffix(",t+a+v"), "grid_mean")["mae"]) == 4
    assert made.over_grid("missing", "", "0:0.6:0.2", "retention") == {}
    assert made.over_grid("missing", "", "0:0.8:0.2", "nauc") == {}, "nobody was asked for it"
    assert made.over_grid("missing", "fill=mean", "0:0.6:0.2", "nauc") == {}


def test_the_order_by_corruption_error_leaves_the_untouched_input_out(tables: Tables) -> None:
    nauc = tables.nauc().to_pandas().query("metric == 'mae' and grid == '0:0.6:0.2'").set_index("checkpoint")
    found = Standings(tables, WHO).over_grid("missing", "", "0:0.6:0.2", "ce")["mae"]
    error = {who: 4 * nauc.loc[who[3], "grid_mean"] - nauc.loc[who[3], "clean"] for who in WHO[:-1]}
    assert sorted(found, key=lambda who: found[who].rank) == sorted(error, key=lambda who: error[who])


def test_the_untouched_input(tables: Tables) -> None:
    made = Standings(tables, WHO)
    assert set(made.clean()["mae"]) == set(WHO[:-1])
    curves = tables.curves().to_pandas().query("stress == 'clean' and metric == 'mae' and model == 'tfn'")
    ends = made.clean_intervals()["mae"]
    np.testing.assert_allclose(ends["tfn", "clean", 1111, "8" * 64], curves[["ci_low", "ci_high"]].iloc[0])
    assert set(ends) == set(WHO), "references have intervals too"
    assert WHO[-1] not in made.clean_intervals()["corr"], "the Corr of a constant does not vary"


def test_what_is_not_finished_or_null_has_no_standing(run: Run) -> None:
    def predictions(cell: Cell) -> Any:
        y = predict(cell)
        if cell.model == "tfn" and cell.severity == "0.6":
            y[3] = np.nan
        return y

    run.add([*OTHERS, CHANCE], [MISSING], predictions, leave_out=lambda c: (c.model, c.severity) == ("lmf", "0.6"))
    made = Standings(Tables(run.store, run.planned), WHO)
    found = made.over_grid("missing", "", "0:0.6:0.2", "nauc")
    assert {who[0] for who in found["acc7"]} == {"qa_moe", "tfn"}
    assert "mae" not in found, "one row alone is no race"


def test_the_race_of_most_rows_wins_over_more_seeds(run: Run) -> None:
    run.add(OTHERS, [MISSING], predict)
    run.add(OTHERS[:2], [request_of("missing", "0:0.6:0.2", 4)], predict)
    found = Standings(Tables(run.store, run.planned), WHO).over_grid("missing", "", "0:0.6:0.2", "nauc")
    assert len(found["mae"]) == 3


def test_the_truly_best_row_is_rarely_left_out() -> None:
    """Eight equal rows of thirty groups: in 95 of 100 samples or more, any one of them is the best or tied with it."""
    generator, weights = np.random.default_rng(1), group_weights(30, 500)
    lines = tuple(Line(f"m{i}", "", 1, f"{i}", (f"{i}",)) for i in range(8))
    left_out = 0
    for _ in range(60):
        values = generator.normal(size=(8, 30, 9)) + 2 * generator.normal(size=(1, 30, 9))  # groups are shared
        scores = tuple(Score(v.mean(axis=0)[None, None], (v - v.mean(axis=0))[None]) for v in values)
        for rows in standings(Race(lines, scores), weights, "mosi").values():
            left_out += not rows["m3", "", 1, "3"].tied
    assert left_out / (60 * 9) < 0.05
