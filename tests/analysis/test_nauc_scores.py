"""Every score of a grid as a column of the derived table: against pandas over stored predictions, and its promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from stored_runs import CHANCE, LABELS, MODEL, NOISE, N, Run, degraded, request_of

from corruptions import InputError
from robustbench_msa.analysis import grid_report as reporting
from robustbench_msa.analysis.bootstrap import group_weights
from robustbench_msa.analysis.corruption_error import mean_ce
from robustbench_msa.analysis.grid_report import SCORES, standing
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.score_intervals import WITH_INTERVAL
from robustbench_msa.analysis.tables import Tables
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.evaluation.schemas import NAUC

OTHER = Subject("qa_moe", 1, "c" * 64, "clean", 1111)
ORACLE = Subject("oracle", 1, "9" * 64)
MISSING = request_of("missing", "0:0.6:0.2", 3)
GRID = np.array([0, 0.2, 0.4, 0.6])
HIGHER = {"mae": False, "acc2_has0": True, "acc7": True}
FLOORS = {
    "mae": np.abs(LABELS.astype(float) - np.median(LABELS)).mean(),
    "acc2_has0": max((LABELS >= 0).mean(), (LABELS < 0).mean()),
    "acc7": pd.Series(np.round(LABELS)).value_counts(normalize=True).max(),
}
COMPARED = ("ce", "relative_ce", "regret")


def predict(cell: Cell) -> Any:
    """degraded, and an oracle that is closest to the labels."""
    if cell.model != "oracle":
        return degraded(cell)
    level = float(cell.severity or 0) + float(cell.severity_2 or 0)
    return (1 - 0.5 * level) * LABELS + (0.3 + level) * NOISE[cell.seed or "clean"]


def curves_by_hand(run: Run, model: str, stress: str = "missing") -> dict[str, np.ndarray[Any, Any]]:
    """By pandas, from the stored predictions of a model with one checkpoint: mean over seeds at each severity."""
    rows = run.predictions[run.predictions["stress"].isin(["clean", stress]) & (run.predictions["model"] == model)]
    y, p = rows["y_true"].astype(float), rows["y_pred"].astype(float)
    values = {"mae": (y - p).abs(), "acc2_has0": (y >= 0) == (p >= 0)}
    values["acc7"] = y.clip(-3, 3).round() == p.clip(-3, 3).round()
    made = {}
    for metric, column in values.items():
        cells = column.groupby([rows["severity"].astype(float), rows["seed"]], dropna=False).mean()
        made[metric] = cells.groupby(level=0).mean().to_numpy()
    return made


def area(y: Any) -> float:
    return float(((y[1:] + y[:-1]) / 2 * np.diff(GRID)).sum())


def by_hand(metric: str, own: Any, base: Any, oracle: Any) -> dict[str, float]:
    """Scores of docs/scores.md on a fine grid between the severities, written again."""
    fine = np.linspace(0, 0.6, 60_001)
    line, floor, sign = np.interp(fine, GRID, own), FLOORS[metric], 1 if HIGHER[metric] else -1
    left = (line - floor) / (own[0] - floor)
    drops = sign * -np.diff(own) / 0.2
    lost = sign * (own[0] - line) / own[0]
    errors, base_errors = (1 - own, 1 - base) if HIGHER[metric] else (own, base)
    return {
        "auc_raw": area(own),
        "retention": (area(own) / 0.6 - floor) / (own[0] - floor),
        "half_life": fine[np.argmax(left <= 0.5)],
        "cliff": drops.max(),
        "cliff_at": GRID[drops.argmax()],
        "area_within_5": (lost <= 0.05).mean(),
        "area_within_10": (lost <= 0.10).mean(),
        "ce": errors[1:].sum() / base_errors[1:].sum(),
        "relative_ce": (errors[1:] - errors[0]).sum() / (base_errors[1:] - base_errors[0]).sum(),
        "regret": sign * (area(oracle) - area(own)) / 0.6,
    }


def one(frame: pd.DataFrame, **where: Any) -> pd.Series:
    for name, value in where.items():
        frame = frame[frame[name].isna() if value is None else frame[name] == value]
    assert len(frame) == 1, f"{len(frame)} rows where {where}"
    return frame.iloc[0]


def test_every_score_is_what_pandas_makes_of_the_predictions(run) -> None:
    run.add([MODEL, OTHER, ORACLE], [MISSING], predict)
    curves = {model: curves_by_hand(run, model) for model in ("late_fusion", "qa_moe", "oracle")}
    for metric in HIGHER:
        row = one(run.nauc, model="qa_moe", metric=metric)
        expected = by_hand(metric, *(curves[model][metric] for model in ("qa_moe", "late_fusion", "oracle")))
        for name, value in expected.items():
            np.testing.assert_allclose(row[name], value, rtol=1e-5, atol=3e-5, err_msg=f"{name} by {metric}")
        assert row["baseline"] == "late_fusion, clean, seed 1111"
        assert row["oracle"] == "oracle"


def test_intervals_hold_their_value(run) -> None:
    run.add([MODEL, OTHER, ORACLE], [MISSING], predict)
    rows = run.nauc[run.nauc["model"] == "qa_moe"]
    for name in ("auc_raw", *WITH_INTERVAL):
        known = rows[rows[name].notna() & rows[f"{name}_low"].notna()]
        assert len(known) >= 4, name
        assert (known[f"{name}_low"] < known[name]).all()
        assert (known[name] < known[f"{name}_high"].fillna(np.inf)).all()
    np.testing.assert_allclose(rows["auc_raw_low"], rows["ci_low"] * 0.6)
    np.testing.assert_allclose(rows["auc_raw_high"], rows["ci_high"] * 0.6)


def without_each_video(run: Run, model: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """MAE at each severity, ``(4,)``, and without each video, ``(G, 4)``."""
    rows = run.predictions[run.predictions["model"] == model]
    rows = rows.assign(error=(rows["y_true"].astype(float) - rows["y_pred"]).abs())
    kept = [rows, *(rows[rows["group"] != video] for video in sorted(set(rows["group"])))]
    means = [some.groupby(some["severity"].astype(float))["error"].mean().to_numpy() for some in kept]
    return means[0], np.stack(means[1:])


def test_the_interval_of_a_ratio_is_fiellers(run) -> None:
    """Of the CE by MAE: the two q at which the studentised interval of sum E - q sum E_base just holds zero."""
    run.add([MODEL, OTHER], [MISSING], predict)
    (own, own_left), (base, base_left) = (without_each_video(run, model) for model in ("qa_moe", "late_fusion"))
    row = one(run.nauc, model="qa_moe", metric="mae")
    n_groups = len(own_left)

    def influences(q: float) -> np.ndarray[Any, Any]:
        left_out = (own_left[:, 1:] - q * base_left[:, 1:]).sum(axis=1)
        return (n_groups - 1) * (left_out.mean() - left_out)

    d = influences(row["ce"])
    ratios = []
    for counts in group_weights(n_groups).astype(int):
        drawn = np.repeat(d, counts)
        ratios.append(abs(drawn.mean()) / drawn.std() * np.sqrt(n_groups - 1))
    critical = np.sort(ratios)[int(np.ceil(2001 * 0.95)) - 1]
    for end in (row["ce_low"], row["ce_high"]):
        rest = own[1:].sum() - end * base[1:].sum()
        np.testing.assert_allclose(abs(rest), critical * influences(end).std(ddof=1) / np.sqrt(n_groups), rtol=1e-5)


def test_a_constant_never_ranks_above_a_model_that_beats_it_at_every_severity(run) -> None:
    """By no score that is fit to rank by, whatever the metric; twelve models that are good or bad here and there."""
    rng = np.random.default_rng(5)
    names = [f"m{i}" for i in range(12)]
    bold, noise = rng.uniform(0.3, 1.2, 12), rng.uniform(0.2, 2.2, (12, 4))

    def mixed(cell: Cell) -> Any:
        if cell.model not in names:
            return predict(cell)
        i, at = names.index(cell.model), int(float(cell.severity or 0) / 0.2 + 0.5)
        return bold[i] * LABELS + noise[i, at] * NOISE[cell.seed or "clean"]

    models = [Subject(name, 1, f"{i:x}" * 64, "clean", 1111) for i, name in enumerate(names)]
    subjects = [*models, replace(MODEL, checkpoint="f" * 64), CHANCE, ORACLE]
    run.add(
        [replace(s, checkpoint=f"{i:02d}" * 32) for i, s in enumerate(subjects)],
        [request_of("missing", "0:0.6:0.2")],
        mixed,
    )
    curves, nauc = run.curves, run.nauc
    at = curves[curves["seed"].isna() & (curves["stress"] == "missing")]
    beaten = 0
    for metric in sorted(set(nauc["metric"])):
        higher = metric != "mae"
        values = at[at["metric"] == metric].pivot(index="severity", columns="model", values="value").fillna(0)
        rows = nauc[nauc["metric"] == metric].set_index("model")
        assert rows["baseline"].nunique() <= 1
        for model in names:
            gain = values[model] - values["chance"]
            if ((gain if higher else -gain) > 0).all():
                beaten += 1
                for name in (name for name in SCORES if SCORES[name].ranks):
                    ours, constant = (
                        standing(name, None if pd.isna(r[name]) else r[name], dict(r["reasons"]).get(name), higher)
                        for r in (rows.loc[model], rows.loc["chance"])
                    )
                    assert ours >= constant, (name, metric, model)
    assert beaten >= 40


def test_null_scores_have_a_reason_and_others_none(run) -> None:
    """On a line, a plane, conditions, a single severity and part of a grid: no cell is empty without a reason."""
    requests = [
        MISSING,
        request_of("spectrum", "0,0.3x0,0.4", 2),
        request_of("missing-fixed"),
        request_of("noise", "0.4", 2),
        request_of("noise", "0,0.2", 2),
    ]
    run.add([MODEL, CHANCE, OTHER], requests, predict, leave_out=lambda c: (c.model, c.severity) == ("qa_moe", "0.2"))
    nauc = run.nauc
    assert len(nauc) == 9 * 3 * 6
    for _, row in nauc.iterrows():
        reasons = dict(row["reasons"])
        assert set(reasons) == {name for name in SCORES if pd.isna(row[name])}
        assert all(reasons.values())
        for name in WITH_INTERVAL:
            if name in reasons and name != "half_life":
                assert pd.isna(row[f"{name}_low"])
                assert pd.isna(row[f"{name}_high"])

    def why(name: str, **where: Any) -> str:
        return dict(one(nauc, metric="mae", **where)["reasons"])[name]

    assert why("regret", model="qa_moe", stress="spectrum") == "oracle is not in this run"
    assert why("half_life", model="late_fusion", stress="spectrum") == reporting.TWO_AXES
    assert why("nauc", model="late_fusion", grid="0.4") == reporting.NO_RANGE
    assert why("ce", model="qa_moe", stress="missing") == "1 of 4 cells have no value"
    assert why("retention", model="chance", stress="missing") == reporting.NO_MARGIN
    assert why("half_life", model="late_fusion", grid="0,0.2") == reporting.NEVER_HALVED
    six = one(nauc, model="qa_moe", metric="acc7", grid="t,a,v,t+a,t+v,a+v")
    seven = one(nauc, model="qa_moe", metric="acc7", grid="t,a,v,t+a,t+v,a+v,t+a+v")
    assert six["ce"] == seven["ce"], "the untouched input is not in it either way"
    assert six["ce_low"] < six["ce"] < six["ce_high"]


def test_an_unfinished_baseline_or_oracle_is_said_to_be(run) -> None:
    run.add([MODEL, OTHER, ORACLE], [MISSING], predict, leave_out=lambda c: c.severity == "0.4" and c.model != "qa_moe")
    row = one(run.nauc, model="qa_moe", metric="mae")
    reasons = dict(row["reasons"])
    assert reasons["ce"] == "late_fusion, clean, seed 1111 has not finished this grid with these corruption seeds"
    assert reasons["regret"] == "oracle has not finished this grid with these corruption seeds"
    assert row[["ce", "relative_ce", "regret", "ce_low", "regret_high", "baseline", "oracle"]].isna().all()
    assert row["nauc"] > 0


def test_another_grid_or_other_seeds_are_no_baseline(run) -> None:
    run.add([MODEL], [request_of("missing", "0:0.6:0.2", 2), request_of("missing", "0,0.6", 3)], predict)
    run.add([OTHER], [MISSING], predict)
    row = one(run.nauc, model="qa_moe", metric="mae", grid="0:0.6:0.2")
    assert dict(row["reasons"])["ce"] == "late_fusion was not run over this grid with these corruption seeds"
    assert pd.isna(row["baseline"])


def test_a_larger_run_of_the_baseline_covers_a_part_of_it(run) -> None:
    """All cells are there, whoever asked for them."""
    run.add([MODEL], [request_of("missing", "0:0.8:0.2", 5)], predict)
    run.add([OTHER], [MISSING], predict)
    row = one(run.nauc, model="qa_moe", metric="mae")
    curves = [curves_by_hand(run, model)["mae"][:4] for model in ("qa_moe", "late_fusion")]
    base = run.predictions.query("model == 'late_fusion' and severity in ['0.2', '0.4', '0.6'] and seed <= 1113")
    errors = (base["y_true"].astype(float) - base["y_pred"]).abs().groupby(base["severity"]).mean()
    np.testing.assert_allclose(row["ce"], curves[0][1:].sum() / errors.sum(), rtol=1e-6)


def test_two_axes_have_retention_and_regret_with_intervals(run) -> None:
    run.add([MODEL, OTHER, ORACLE], [request_of("spectrum", "0,0.1,0.4x0,0.5", 2)], predict)
    row = one(run.nauc, model="qa_moe", metric="mae")
    assert row[["auc_raw", "half_life", "cliff", "half_life_low", "auc_raw_low"]].isna().all()
    for name in ("retention", "ce", "relative_ce", "regret"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert 0 <= row["area_within_5"] <= row["area_within_10"] <= 1


def test_a_half_life_that_is_never_reached_has_a_lower_end_and_no_upper_one(run) -> None:
    """Half the margin is surely left at .6; it is not known what comes then."""

    def robust(cell: Cell) -> Any:
        return LABELS + (0.1 + 0.05 * float(cell.severity or 0)) * NOISE[cell.seed or "clean"]

    run.add([MODEL], [MISSING], robust)
    row = one(run.nauc, metric="mae")
    assert dict(row["reasons"])["half_life"] == reporting.NEVER_HALVED
    assert (row["half_life_low"], pd.isna(row["half_life"]), pd.isna(row["half_life_high"])) == (0.6, True, True)
    run.add([OTHER], [MISSING], lambda c: predict(c) if c.severity is None else NOISE[c.seed])
    fast = one(run.nauc, metric="mae", model="qa_moe")
    assert 0 < fast["half_life_low"] < fast["half_life"] < fast["half_life_high"] < 0.2


def test_a_line_beside_itself_is_one_without_an_interval(run) -> None:
    seeds = [MODEL, replace(MODEL, checkpoint="d" * 64, train_seed=1112)]
    run.add([*seeds, ORACLE], [MISSING], predict)
    own = run.nauc[(run.nauc["model"] == "late_fusion") & run.nauc["metric"].isin([*HIGHER])]
    assert len(own) == 9
    np.testing.assert_allclose(own[["ce", "relative_ce"]], 1)
    assert own[["ce_low", "ce_high", "relative_ce_low"]].isna().all(axis=None)
    itself = run.nauc[run.nauc["model"] == "oracle"]
    assert set(map(repr, itself["regret"])) == {"0.0"}
    assert itself["regret_low"].isna().all()


def with_recipes() -> list[Subject]:
    """Two baselines' recipes with two training seeds each, and a model with both and a third seed."""
    made = []
    for i, (model, recipe, seed) in enumerate(
        [
            *(("late_fusion", recipe, seed) for recipe in ("clean", "spectrum") for seed in (1111, 1112)),
            *(("qa_moe", recipe, seed) for recipe in ("clean", "spectrum", "noise") for seed in (1111, 1113)),
        ]
    ):
        made.append(Subject(model, 1, f"{i:x}" * 64, recipe, seed))
    return made


def test_which_line_is_the_baseline(run) -> None:
    run.add([*with_recipes(), CHANCE], [request_of("missing", "0,0.4", 1)], predict)
    found = run.nauc[run.nauc["metric"] == "mae"].set_index(["model", "recipe", "train_seed"])["baseline"].to_dict()
    found = {(m, r, None if pd.isna(s) else int(s)): label for (m, r, s), label in found.items()}
    mean = "mean over 2 training seeds"
    assert found["qa_moe", "clean", 1111] == "late_fusion, clean, seed 1111"
    assert found["qa_moe", "clean", 1113] == f"late_fusion, clean, {mean}", "no such seed: the mean"
    assert found["qa_moe", "clean", None] == f"late_fusion, clean, {mean}"
    assert found["qa_moe", "spectrum", 1111] == "late_fusion, spectrum, seed 1111"
    assert found["qa_moe", "spectrum", None] == f"late_fusion, spectrum, {mean}"
    assert found["qa_moe", "noise", 1111] == "late_fusion, clean, seed 1111", "no such recipe: clean"
    assert found["chance", "", None] == f"late_fusion, clean, {mean}"
    assert found["late_fusion", "spectrum", 1112] == "late_fusion, spectrum, seed 1112", "itself"


def test_another_baseline_can_be_named(run) -> None:
    run.add([*with_recipes(), CHANCE], [request_of("missing", "0,0.4", 1)], predict)
    of_chance = Tables(run.store, run.planned, baseline="chance").nauc().to_pandas()
    assert set(of_chance["baseline"].dropna()) == {"chance"}
    folder = [run.store.root]
    one = open_tables(folder, one_baseline=True).nauc().to_pandas()
    assert set(one["baseline"].dropna()) == {"late_fusion, clean, mean over 2 training seeds"}
    itself = one[(one["model"] == "late_fusion") & (one["recipe"] == "clean") & one["train_seed"].isna()]
    np.testing.assert_allclose(itself[itself["metric"] == "mae"]["ce"], 1, rtol=1e-12)
    pinned = open_tables(folder, baseline="late_fusion, spectrum, seed 1112").nauc().to_pandas()
    assert set(pinned["baseline"].dropna()) == {"late_fusion, spectrum, seed 1112"}
    mae = pinned[pinned["metric"] == "mae"].set_index("checkpoint")
    base = mae.loc["3" * 64]
    np.testing.assert_allclose(
        mae["ce"], (2 * mae["grid_mean"] - mae["clean"]) / (2 * base["grid_mean"] - base["clean"])
    )
    with pytest.raises(
        InputError, match=r"no 'qa_mo' in this run \(did you mean 'qa_moe'\?\).*chance, late_fusion, qa_moe"
    ):
        open_tables(folder, baseline="qa_mo")


def test_which_checkpoint_is_meant_must_be_clear(run) -> None:
    """A baseline trained twice with one seed: nobody says which of the two."""
    run.add([MODEL, replace(MODEL, checkpoint="e" * 64), OTHER], [MISSING], predict)
    assert dict(one(run.nauc, model="qa_moe", metric="mae")["reasons"])["ce"] == (
        "several checkpoints of late_fusion could be meant"
    )


def test_runs_read_together_are_one_run(run, tmp_path) -> None:
    """The baseline in one folder, the oracle in another: all columns as if one run had made them."""
    requests = [request_of("missing", "0,0.2,0.6", 1), request_of("missing-fixed", "t,a,t+a+v")]
    run.add([*with_recipes()[:6], CHANCE, ORACLE], requests, predict)
    parts = [Run(tmp_path / name) for name in "abc"]
    parts[0].add([*with_recipes()[4:6], CHANCE], requests[::-1], predict)
    parts[1].add([*with_recipes()[2:4], ORACLE], requests, predict)
    parts[2].add([*with_recipes()[:2], ORACLE], requests, predict)
    whole = sorted(map(repr, Tables(run.store, run.planned).nauc().to_pylist()))
    assert any("'regret': 0." in row for row in whole)
    for order in (parts, parts[::-1]):
        merged = open_tables([part.store.root for part in order]).nauc()
        assert merged.schema.equals(NAUC)
        assert sorted(map(repr, merged.to_pylist())) == whole


def test_a_method_is_compared_with_a_method(run) -> None:
    """Means over training seeds: the ratio of means, with an interval that training seeds widen."""

    def apart(cell: Cell) -> Any:
        far = {1111: 0.0, 1112: 0.6, 1113: 1.2}.get(cell.train_seed, 0.0) if cell.model == "qa_moe" else 0.0
        return predict(cell) + far * NOISE[1119]

    pairs = [*zip("012", [MODEL] * 3, strict=True), *zip("345", [OTHER] * 3, strict=True)]
    models = [replace(s, checkpoint=c * 64, train_seed=1111 + i % 3) for i, (c, s) in enumerate(pairs)]
    run.add([*models, ORACLE], [MISSING], apart)
    rows = run.nauc[(run.nauc["metric"] == "mae") & (run.nauc["model"] == "qa_moe")]
    mean, single = rows[rows["train_seed"].isna()].iloc[0], rows[rows["train_seed"].notna()]
    totals = run.nauc[(run.nauc["metric"] == "mae")].assign(total=lambda f: 4 * f["grid_mean"] - f["clean"])
    by_model = totals[totals["train_seed"].notna()].groupby("model")["total"].mean()
    np.testing.assert_allclose(mean["ce"], by_model["qa_moe"] / by_model["late_fusion"], rtol=1e-9)
    assert mean["claim"] == "method"
    for name in ("ce", "regret"):
        widths = single[f"{name}_high"] - single[f"{name}_low"]
        assert mean[f"{name}_high"] - mean[f"{name}_low"] > 1.5 * widths.max(), name


def test_a_table_of_before_is_read_with_nulls(run) -> None:
    run.add([MODEL], [MISSING], predict)
    path = run.store.root / "nauc" / "nauc.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select(NAUC.names[: NAUC.names.index("auc_raw")]), path)
    read = run.store.read_table("nauc", NAUC)
    assert read.schema.equals(NAUC)
    assert read["ce"].null_count == read["reasons"].null_count == len(table)
    assert read["nauc"].equals(table["nauc"])
    row = mean_ce(read.to_pandas(), "mae").iloc[0]
    assert row["note"] == "ce is null under missing; relative_ce is null under missing"


def test_few_groups_have_scores_and_no_intervals(run, monkeypatch) -> None:
    import stored_runs

    monkeypatch.setattr(stored_runs, "GROUPS", ["a"] * (N // 2) + ["b"] * (N - N // 2))
    run.add([MODEL, OTHER, ORACLE], [MISSING], predict)
    row = one(run.nauc, model="qa_moe", metric="mae")
    ends: Sequence[str] = [f"{name}_{side}" for name in ("auc_raw", *WITH_INTERVAL) for side in ("low", "high")]
    assert row[[*ends]].isna().all()
    assert row[["auc_raw", *COMPARED]].notna().all()
