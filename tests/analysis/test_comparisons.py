"""Who is compared with whom, and that merged runs give the same answers as one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_runs import CHANCE, GROUPS, LABELS, METRICS, MODEL, NOISE, SETTING, N, Run, degraded, request_of

from corruptions import InputError
from robustbench_msa.analysis.comparisons import compare, races
from robustbench_msa.analysis.evaluated import Line
from robustbench_msa.analysis.merged import open_tables, together
from robustbench_msa.analysis.metrics import score
from robustbench_msa.analysis.paired import difference, holm, swapped_differences, swaps
from robustbench_msa.analysis.tables import Tables
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.evaluation.schemas import COMPARISONS, CURVES, NAUC, RANKS

MISSING = request_of("missing", "0:0.6:0.2", 2)
OTHER = [Subject("qa_moe", 1, c * 64, "clean", 1111 + i) for i, c in enumerate("789")]
SEEDS = [replace(MODEL, checkpoint=c * 64, train_seed=1111 + i) for i, c in enumerate("ade")]


def predict(cell: Cell) -> Any:
    """qa_moe is the same with more noise."""
    worse = 0.8 * NOISE[1120] if cell.model == "qa_moe" else 0.0
    return degraded(cell) + worse


@pytest.fixture
def tables(run: Run) -> Tables:
    run.add([*SEEDS, *OTHER, CHANCE], [MISSING, request_of("missing-fixed")], predict)
    return Tables(run.store, run.planned)


def frames(tables: Tables, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = compare(tables, **{"permutations": 200, **options})
    assert found.comparisons.schema.equals(COMPARISONS)
    assert found.ranks.schema.equals(RANKS)
    return found.comparisons.to_pandas(), found.ranks.to_pandas()


def test_like_is_compared_with_like_and_references_are_not_in_the_race(tables: Tables) -> None:
    pairs, ranked = frames(tables)
    over = pairs.groupby(["stress", "grid", "score", "metric", "claim"]).size().unstack()
    assert set(over.index.droplevel("metric")) == {
        ("missing", "0:0.6:0.2", "nauc"),
        ("missing-fixed", "t,a,v,t+a,t+v,a+v,t+a+v", "grid_mean"),
        ("missing-fixed", "t,a,v,t+a,t+v,a+v", "grid_mean"),
    }
    assert (over["checkpoint"] == 15).all()  # 6 checkpoints
    assert (over["method"] == 1).all()
    assert "chance" not in {*pairs["model_a"], *pairs["model_b"], *ranked["model"]}
    assert (ranked.groupby(["stress", "grid", "metric", "claim"])["n_lines"].unique().str[0].unstack() == [6, 2]).all(
        axis=None
    )
    assert not pairs.duplicated([c for c in pairs if c.endswith(("_a", "_b"))] + ["stress", "grid", "metric"]).any()
    assert set(pairs["note"]) == {"only 15 groups: intervals and tests are rough below 20"}


def test_differences_are_those_of_the_nauc_table(tables: Tables) -> None:
    pairs, ranked = frames(tables)
    nauc = tables.nauc().to_pandas()
    nauc["value"] = nauc["nauc"].fillna(nauc["grid_mean"])
    key = ["model", "checkpoint", "stress", "grid", "metric"]
    values = nauc.set_index(key)["value"]
    for side in "ab":
        at = pd.MultiIndex.from_frame(pairs[[f"model_{side}", f"checkpoint_{side}", *key[2:]]], names=key)
        np.testing.assert_allclose(pairs[f"value_{side}"], values[at], rtol=1e-9)
    np.testing.assert_allclose(pairs["difference"], pairs["value_a"] - pairs["value_b"])
    np.testing.assert_allclose(ranked["value"], values[pd.MultiIndex.from_frame(ranked[key])], rtol=1e-9)
    assert (pairs["ci_low"] < pairs["difference"]).all()
    assert ((pairs["p_bootstrap"] <= 0.05) == (pairs["ci_low"] * pairs["ci_high"] > 0)).all()


def test_the_better_model_is_told_apart_and_leads(tables: Tables) -> None:
    pairs, ranked = frames(tables)
    mae = pairs[(pairs["metric"] == "mae") & (pairs["stress"] == "missing") & (pairs["claim"] == "method")].iloc[0]
    assert (mae["model_a"], mae["model_b"]) == ("late_fusion", "qa_moe")
    assert mae["ci_high"] < 0
    assert mae["p_holm"] < 0.01
    assert mae["p_permutation"] == 0.1  # three seeds on each side
    assert (mae["n_train_seeds_a"], mae["n_train_seeds_b"], mae["n_seeds"], mae["n_groups"]) == (3, 3, 2, 15)
    own = ranked[(ranked["metric"] == "mae") & (ranked["stress"] == "missing") & (ranked["claim"] == "method")]
    assert list(own.sort_values("rank")["model"]) == ["late_fusion", "qa_moe"]
    assert list(own.sort_values("rank")["tied_with_best"]) == [True, False]
    assert list(own.sort_values("rank")["tie_group"]) == [1, 2]


def test_holm_is_over_the_pairs_of_one_score(tables: Tables) -> None:
    pairs, _ = frames(tables)
    assert set(pairs[pairs["claim"] == "checkpoint"]["n_tests"]) == {15}
    for _, family in pairs.groupby(["stress", "grid", "metric", "claim"]):
        np.testing.assert_allclose(family["p_holm"], holm(family["p_bootstrap"]))
        np.testing.assert_allclose(family["p_permutation_holm"], holm(family["p_permutation"]))


def test_intervals_are_of_paired_differences(tables: Tables) -> None:
    """The same as from two scores by hand; far narrower than two intervals side by side."""
    pairs, _ = frames(tables)
    lines = {line.checkpoint: line for line in tables.lines()}
    point = MISSING.grid.points[2]
    a, b = (tables.score(lines[c * 64], MISSING, point) for c in "ad")
    found = difference(a, b, tables.weights)
    at_points, _ = frames(tables, points=True, permutations=0)
    rows = at_points[
        (at_points["score"] == "value") & (at_points["severity"] == "0.4") & (at_points["stress"] == "missing")
    ]
    rows = (
        rows[(rows["checkpoint_a"] == "a" * 64) & (rows["checkpoint_b"] == "d" * 64)]
        .set_index("metric")
        .loc[list(tables.metrics)]
    )
    np.testing.assert_allclose(rows["ci_low"], found.low)
    np.testing.assert_allclose(rows["p_bootstrap"], found.p)
    assert rows["grid"].isna().all()
    assert rows["p_permutation"].isna().all()
    assert len(at_points) > len(pairs)


def test_groups_are_swapped_in_every_cell_of_the_grid(tables: Tables) -> None:
    """The nAUC after a swap, from exchanged predictions, against what the test sums up."""
    lines = [line for line in tables.lines() if line.checkpoint[0] in "a7"]
    flips = swaps(tables.n_groups, 5)
    total = np.zeros((6, 9))
    expected = np.zeros((6, 9))
    in_order = np.unique(GROUPS, return_inverse=True)[1]
    for weight, point in zip((1 / 6, 1 / 3, 1 / 3, 1 / 6), MISSING.grid.points, strict=True):
        cells = [tables.cells_at(line, MISSING, point) for line in lines]
        for first, second in zip(*cells, strict=True):
            stats = tables.statistics([first, second])
            total += weight / len(cells[0]) * swapped_differences(stats[0], stats[1], flips, "mosi", tables.nulls)
            a, b = (tables.predictions(cell).y_pred for cell in (first, second))
            for row, flip in zip(expected, flips, strict=True):
                swapped = flip[in_order] == 1
                one, other = score(LABELS, np.where(swapped, b, a)), score(LABELS, np.where(swapped, a, b))
                row += weight / len(cells[0]) * np.array([one[m] - other[m] for m in tables.metrics])
    np.testing.assert_allclose(total, expected, atol=1e-8)
    pairs, _ = frames(tables, permutations=5)
    of_pair = pairs[
        (pairs["checkpoint_a"] == "a" * 64) & (pairs["checkpoint_b"] == "7" * 64) & (pairs["stress"] == "missing")
    ]
    size = np.abs(total)
    p = (size >= size[0] * (1 - 1e-9)).mean(axis=0)
    np.testing.assert_allclose(of_pair.set_index("metric").loc[list(tables.metrics)]["p_permutation"], p)


def test_merged_runs_give_the_same_tables_as_one(tables: Tables, tmp_path) -> None:
    first, second, third = (Run(tmp_path / name) for name in ("first", "second", "third"))
    second.add([OTHER[2], SEEDS[1]], [MISSING], predict)
    first.add([SEEDS[0], SEEDS[2], CHANCE], [request_of("missing-fixed"), MISSING], predict)
    third.add([*OTHER[:2], SEEDS[1]], [MISSING], predict)
    third.add([*OTHER, SEEDS[1]], [request_of("missing-fixed")], predict)
    folders = [run.store.root for run in (first, second, third)]
    ours = frames(tables)
    for order in (folders, folders[::-1]):
        merged = open_tables(order)
        for mine, theirs in zip(ours, frames(merged), strict=True):
            pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
        for schema, name in ((NAUC, "nauc"), (CURVES, "curves")):
            rows = [sorted(map(repr, getattr(t, name)().to_pylist())) for t in (tables, merged)]
            assert rows[0] == rows[1], schema


def test_overlapping_runs_count_once_and_damage_is_set_aside(tables: Tables, run: Run, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.store.root, copy)
    assert len(open_tables([run.store.root, copy]).cells) == len(tables.cells)
    broken = next(cell for cell in tables.cells if cell.severity == "0.4")
    path = run.store.path(broken.key)
    path.write_bytes(path.read_bytes()[:-50])
    merged = open_tables([run.store.root, copy])
    assert broken.key in merged.scores, "the copy has it"
    assert (run.store.root / "quarantine" / f"{broken.key}.parquet").is_file()


def test_a_request_with_more_lines_wins_over_one_with_more_seeds(run: Run) -> None:
    """Two of three have four corruption seeds; all three have two: all are compared, on two."""
    run.add([*SEEDS[:1], *OTHER[:2]], [MISSING], predict)
    run.add([*SEEDS[:1], OTHER[0]], [request_of("missing", "0:0.6:0.2", 4)], predict)
    found = [race for race in races(Tables(run.store, run.planned)) if len(race.lines[0].members) == 1]
    assert [(len(race.lines), len(race.request.seeds)) for race in found] == [(3, 2)]
    assert found[0].lines[0] == Line("late_fusion", "clean", 1111, "a" * 64, ("a" * 64,))


def test_what_is_not_complete_is_not_compared(run: Run) -> None:
    run.add(
        [*SEEDS[:1], *OTHER[:1]], [MISSING], predict, leave_out=lambda c: (c.model, c.severity) == ("qa_moe", "0.6")
    )
    pairs, ranked = frames(Tables(run.store, run.planned))
    assert pairs.empty
    assert ranked.empty


def test_nulls_are_compared_with_nobody(run: Run) -> None:
    def sometimes_undefined(cell: Cell) -> Any:
        y = predict(cell)
        if cell.model == "qa_moe" and cell.severity == "0.6":
            y[3] = np.nan
        return y

    run.add([*SEEDS[:1], *OTHER[:2]], [MISSING], sometimes_undefined)
    pairs, ranked = frames(Tables(run.store, run.planned))
    mae = pairs[(pairs["metric"] == "mae") & (pairs["claim"] == "checkpoint")]
    assert mae[["difference", "ci_low", "p_bootstrap", "p_holm", "p_permutation", "mdd"]].isna().all(axis=None)
    assert set(mae["n_tests"]) == {0}
    own = ranked[(ranked["metric"] == "mae") & (ranked["claim"] == "checkpoint")].set_index("model")
    assert own.loc["qa_moe"][["rank", "rank_low", "tie_group", "tied_with_best"]].isna().all(axis=None)
    assert own.loc["late_fusion"]["rank"] == 1
    assert pairs[pairs["metric"] == "acc7"]["p_bootstrap"].notna().all()


def test_runs_on_other_data_are_not_merged(run: Run) -> None:
    with pytest.raises(InputError, match="at least one run"):
        together([])
    run.add([MODEL], [MISSING])
    plan = run.planned
    other = replace(plan, manifest={**plan.manifest, "dataset": {**plan.manifest["dataset"], "data": "e" * 64}})
    with pytest.raises(InputError, match=f"the same data, got data {SETTING.data[:24]} and eeee"):
        together([plan, other])
    with pytest.raises(InputError, match="one metric profile, got mosi and sims"):
        together([plan, replace(plan, profile="sims")])


def test_every_metric_has_its_row(tables: Tables) -> None:
    pairs, ranked = frames(tables)
    assert set(pairs["metric"]) == set(ranked["metric"]) == set(METRICS)
    assert set(pairs["n"]) == {N}
