"""The derived tables against a few lines of pandas over the stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score
from stored_runs import CHANCE, GROUPS, LABELS, METRICS, MODEL, NOISE, N, Run, degraded, request_of, write

from robustbench_msa.analysis.bootstrap import group_weights
from robustbench_msa.analysis.tables import Tables, cells_table, derive
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.evaluation.schemas import CELLS, CURVES


def metrics_of(frame: pd.DataFrame) -> pd.Series:
    """The definitions of PROTOCOLS, written again."""
    y, p = frame["y_true"].to_numpy(), frame["y_pred"].to_numpy()
    some = y != 0
    values = {"mae": np.abs(y.astype(float) - p).mean(), "corr": np.corrcoef(y, p)[0, 1] if np.ptp(p) else np.nan}
    values |= {"acc2_has0": ((y >= 0) == (p >= 0)).mean(), "acc2_non0": ((y > 0) == (p > 0))[some].mean()}
    values["f1_has0"] = f1_score(y >= 0, p >= 0, average="weighted")
    values["f1_non0"] = f1_score(y[some] > 0, p[some] > 0, average="weighted")
    values |= {f"acc{2 * k + 1}": (np.round(y.clip(-k, k)) == np.round(p.clip(-k, k))).mean() for k in (1, 2, 3)}
    return pd.Series(values)


def by_cell(run: Run) -> pd.DataFrame:
    keys = ["checkpoint", "stress", "params", "severity", "severity_2", "condition", "seed"]
    return run.predictions.groupby(keys, dropna=False)[["y_true", "y_pred"]].apply(metrics_of).reset_index()


def area(x: Sequence[float], y: Any) -> float:
    """The trapezoid over the range, by NumPy."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def one(frame: pd.DataFrame, **where: Any) -> pd.Series:
    """The only row with these values; None asks for a null."""
    for name, value in where.items():
        frame = frame[frame[name].isna() if value is None else frame[name] == value]
    assert len(frame) == 1, f"{len(frame)} rows where {where}"
    return frame.iloc[0]


MISSING = request_of("missing", "0:0.6:0.2", 3)
SEEDS = [replace(MODEL, checkpoint=c * 64, train_seed=s) for c, s in (("a", 1111), ("d", 1112), ("e", 1113))]
FEW = "only 15 groups: intervals and tests are rough below 20"


def test_curves_are_the_metrics_of_each_cell(run) -> None:
    cells = run.add([MODEL], [MISSING, request_of("spectrum", "0,0.3x0,0.4", 2), request_of("missing-fixed")])
    expected = by_cell(run)
    assert len(expected) == len(cells)
    curves = run.curves
    for _, cell in expected.iterrows():
        names = ("stress", "severity", "severity_2", "condition", "seed")
        where = {name: None if pd.isna(cell[name]) else cell[name] for name in names}
        for metric in METRICS:
            row = one(curves[curves["checkpoint"] == cell["checkpoint"]], metric=metric, **where)
            np.testing.assert_allclose(row["value"], cell[metric], rtol=1e-6, err_msg=f"{where} {metric}")
            assert (row["n"], row["n_groups"]) == (N, len(set(GROUPS)))


def test_a_null_seed_is_the_mean_over_seeds(run) -> None:
    run.add([MODEL], [MISSING])
    cells, curves = by_cell(run), run.curves
    for severity in ("0.2", "0.4", "0.6"):
        expected = cells[cells["severity"] == severity][list(METRICS)].mean()
        for metric in METRICS:
            row = one(curves, stress="missing", severity=severity, seed=None, metric=metric)
            np.testing.assert_allclose(row["value"], expected[metric], rtol=1e-6)
            assert row["n_seeds"] == 3
    clean = one(curves, stress="missing", severity="0", seed=None, metric="mae")
    assert clean["value"] == one(curves, stress="clean", metric="mae")["value"]
    assert clean["n_seeds"] == 1, "the clean point has no seeds, whatever was asked for"


def test_nauc_is_the_trapezoid_of_the_mean_curve(run) -> None:
    uneven = request_of("noise", "0,0.1,0.5,1", 2)
    run.add([MODEL], [MISSING, uneven])
    cells, nauc = by_cell(run), run.nauc
    for request, severities in ((MISSING, ("0", "0.2", "0.4", "0.6")), (uneven, ("0", "0.1", "0.5", "1"))):
        ours = cells[cells["stress"].isin(["clean", request.stress.name])]
        curve = ours.groupby("severity")[list(METRICS)].mean().loc[list(severities)]
        for metric in METRICS:
            row = one(nauc, stress=request.stress.name, metric=metric)
            values = curve[metric].to_numpy()
            np.testing.assert_allclose(row["nauc"], area([float(s) for s in severities], values), rtol=1e-6)
            np.testing.assert_allclose(row["grid_mean"], values.mean(), rtol=1e-6)
            worst = values.max() if metric == "mae" else values.min()
            np.testing.assert_allclose([row["worst"], row["clean"]], [worst, values[0]], rtol=1e-6)
            assert row["grid"] == str(request.grid)
            assert row["n_seeds"] == len(request.seeds)
            assert row["nulls"] == 0
            assert row["note"] == FEW


def test_the_floor_is_the_best_constant_of_the_evaluated_labels(run) -> None:
    run.add([MODEL], [MISSING])
    some = LABELS[LABELS != 0]
    expected = {
        "mae": np.abs(LABELS.astype(float) - np.median(LABELS)).mean(),
        "corr": 0.0,
        "acc2_has0": max((LABELS >= 0).mean(), (LABELS < 0).mean()),
        "acc2_non0": max((some > 0).mean(), (some < 0).mean()),
        "acc7": pd.Series(np.round(LABELS.clip(-3, 3))).value_counts(normalize=True).max(),
    }
    for metric, floor in expected.items():
        row = one(run.nauc, metric=metric)
        np.testing.assert_allclose(row["floor"], floor, rtol=1e-6)
        np.testing.assert_allclose(row["retention"], (row["nauc"] - floor) / (row["clean"] - floor), rtol=1e-6)


def test_a_constant_has_no_corr_in_a_cell_and_zero_over_a_grid(run) -> None:
    run.add([MODEL, CHANCE], [MISSING])
    curves, nauc = run.curves, run.nauc
    chance = curves[(curves["model"] == "chance") & (curves["metric"] == "corr")]
    assert len(chance) == 1 + 3 * 3 + 4
    assert chance["value"].isna().all()
    assert chance["ci_low"].isna().all()
    row = one(nauc, model="chance", metric="corr")
    assert (row["nauc"], row["grid_mean"], row["worst"], row["clean"]) == (0, 0, 0, 0)
    assert row["nulls"] == 1 + 3 * 3
    assert np.isnan(row["retention"])
    assert one(nauc, model="late_fusion", metric="corr")["nulls"] == 0


def test_one_null_corr_counts_as_zero_in_the_mean(run) -> None:
    """Corr 0 in one cell of three; the other cells as they are."""

    def predict(cell: Cell) -> Any:
        return np.ones(N) if (cell.severity, cell.seed) == ("0.4", 1112) else degraded(cell)

    run.add([MODEL], [MISSING], predict)
    cells, curves = by_cell(run), run.curves
    at = cells[cells["severity"] == "0.4"]["corr"]
    assert at.isna().sum() == 1
    row = one(curves, stress="missing", severity="0.4", seed=None, metric="corr")
    np.testing.assert_allclose(row["value"], at.fillna(0).mean(), rtol=1e-6)
    mean = [cells[cells["severity"] == s]["corr"].fillna(0).mean() for s in ("0", "0.2", "0.4", "0.6")]
    nauc = one(run.nauc, metric="corr")
    np.testing.assert_allclose(nauc["nauc"], area([0, 0.2, 0.4, 0.6], mean), rtol=1e-6)
    assert nauc["nulls"] == 1


def test_a_prediction_that_is_not_finite_makes_mae_null_and_counts_as_wrong(run) -> None:
    def predict(cell: Cell) -> Any:
        y = degraded(cell)
        if cell.severity == "0.6":
            y[5] = np.nan
        return y

    run.add([MODEL], [MISSING], predict)
    mae = one(run.nauc, metric="mae")
    assert np.isnan([mae["nauc"], mae["ci_low"], mae["grid_mean"], mae["worst"], mae["retention"]]).all()
    assert mae["nulls"] == 3
    assert "undefined" in mae["note"]
    point = run.curves[(run.curves["severity"] == "0.6") & (run.curves["metric"] == "mae")]
    assert point["value"].isna().all()
    acc = one(run.curves, stress="missing", severity="0.6", seed=1111, metric="acc2_has0")["value"]
    p = predict(Cell(checkpoint="a" * 64, stress="missing", severity="0.6", seed=1111))
    right = ((LABELS >= 0) == (p >= 0)) & np.isfinite(p)
    np.testing.assert_allclose(acc, right.mean(), rtol=1e-6)


def test_missing_cells_make_the_nauc_null_and_the_note_says_so(run) -> None:
    run.add([MODEL], [MISSING], leave_out=lambda c: (c.severity, c.seed) == ("0.4", 1113))
    nauc, curves = run.nauc, run.curves
    assert len(nauc) == len(METRICS)
    empty = ["nauc", "ci_low", "ci_high", "grid_mean", "grid_mean_low", "worst", "retention", "sd_sampling"]
    assert nauc[empty].isna().all(axis=None)
    assert set(nauc["note"]) == {f"1 of 4 grid points are missing; {FEW}"}
    at = curves[(curves["stress"] == "missing") & (curves["severity"] == "0.4") & (curves["metric"] == "mae")]
    assert sorted(at["seed"]) == [1111, 1112], "what is there is shown, but no mean over fewer seeds than asked for"


def test_a_mean_over_a_part_of_the_grid_is_not_called_the_grids(run) -> None:
    """Without its worst point a curve has a better mean and a better worst: neither is the grid's."""
    run.add([MODEL], [MISSING], leave_out=lambda c: c.severity == "0.6")
    assert run.nauc[["grid_mean", "worst"]].isna().all(axis=None)


def test_without_the_clean_cell_there_is_no_curve(run) -> None:
    run.add([MODEL], [MISSING], leave_out=lambda c: c.is_clean)
    assert run.nauc.empty
    assert not run.curves.empty


def test_a_finished_grid_is_not_hidden_by_more_seeds_that_are_on_their_way(run) -> None:
    run.add([MODEL], [request_of("missing", "0:0.6:0.2", 2)])
    finished = one(run.nauc, metric="mae")["nauc"]
    run.add([MODEL], [request_of("missing", "0:0.6:0.2", 4)], leave_out=lambda c: c.seed == 1114)
    row = one(run.nauc, metric="mae")
    assert row["nauc"] == finished
    assert row["n_seeds"] == 2


def test_with_more_seeds_the_larger_number_counts(run) -> None:
    run.add([MODEL], [request_of("missing", "0:0.6:0.2", 2)])
    run.add([MODEL], [request_of("missing", "0:0.6:0.2", 4)])
    row = one(run.nauc, metric="mae")
    assert row["n_seeds"] == 4
    mean = one(run.curves, stress="missing", severity="0.6", seed=None, metric="mae")
    assert mean["n_seeds"] == 4


def test_several_grids_of_one_stress_have_a_row_each(run) -> None:
    run.add([MODEL], [MISSING])
    run.add([MODEL], [request_of("missing", "0,0.6", 3)])
    mae = run.nauc[run.nauc["metric"] == "mae"]
    assert sorted(mae["grid"]) == ["0,0.6", "0:0.6:0.2"]
    assert not run.curves.duplicated([c for c in run.curves if c not in ("value", "ci_low", "ci_high")]).any()


def test_a_single_severity_has_no_range(run) -> None:
    run.add([MODEL], [request_of("missing", "0.4", 2)])
    row = one(run.nauc, metric="mae")
    assert np.isnan(row["nauc"])
    assert "no range" in row["note"]
    expected = by_cell(run).query("severity == '0.4'")["mae"].mean()
    np.testing.assert_allclose(row["grid_mean"], expected, rtol=1e-6)


def test_two_axes(run) -> None:
    run.add([MODEL], [request_of("spectrum", "0,0.1,0.4x0,0.5", 2)])
    cells = by_cell(run)
    a, b = [0, 0.1, 0.4], [0, 0.5]
    for metric in METRICS:
        grid = np.empty((3, 2))
        for i, lam in enumerate(("0", "0.1", "0.4")):
            for j, eta in enumerate(("0", "0.5")):
                clean = cells["stress"] == "clean"
                at = clean if (i, j) == (0, 0) else (cells["severity"] == lam) & (cells["severity_2"] == eta) & ~clean
                grid[i, j] = cells[at][metric].mean()
        row = one(run.nauc, metric=metric)
        volume = area(a, [area(b, grid[i]) for i in range(3)])
        np.testing.assert_allclose(row["nauc"], volume, rtol=1e-6)
        np.testing.assert_allclose(row["grid_mean"], grid.mean(), rtol=1e-6)


def test_available_sets_give_a_mean_with_and_without_the_full_one(run) -> None:
    run.add([MODEL], [request_of("missing-fixed")])
    cells, nauc = by_cell(run), run.nauc
    for metric in METRICS:
        full = one(nauc, metric=metric, grid="t,a,v,t+a,t+v,a+v,t+a+v")
        part = one(nauc, metric=metric, grid="t,a,v,t+a,t+v,a+v")
        np.testing.assert_allclose(full["grid_mean"], cells[metric].mean(), rtol=1e-6)
        six = cells[cells["condition"].notna()][metric]
        assert len(six) == 6
        np.testing.assert_allclose(part["grid_mean"], six.mean(), rtol=1e-6)
        assert np.isnan([full["nauc"], part["nauc"]]).all()
        assert "no severity axis" in full["note"]
        assert (full["n_seeds"], part["n_seeds"]) == (1, 1)


def test_intervals_contain_their_value_and_agree_for_equal_predictions(run) -> None:
    twin = replace(MODEL, checkpoint="A" * 64, train_seed=1112)  # another checkpoint that predicts the same
    run.add([MODEL, twin], [MISSING])
    for table, value in ((run.curves, "value"), (run.nauc, "nauc")):
        assert (table["ci_low"] < table[value]).all()
        assert (table[value] < table["ci_high"]).all()
        where = [c for c in ("stress", "severity", "seed", "metric") if c in table]
        pairs = table[table["train_seed"].notna()].set_index(["train_seed", *where]).sort_index()
        columns = [value, "ci_low", "ci_high"]
        pd.testing.assert_frame_equal(pairs.loc[1111, columns], pairs.loc[1112, columns])


def mae_without_each_video(samples: pd.DataFrame) -> np.ndarray[Any, Any]:
    error = (samples["y_true"] - samples["y_pred"]).abs()
    return np.array([error[samples["group"] != video].mean() for video in sorted(set(samples["group"]))])


def symmetric_t(left_out: Any, replicates: int = 2000) -> tuple[float, float]:
    """Standard error and critical value over videos, written again: one resample at a time."""
    d = (len(left_out) - 1) * (left_out.mean() - left_out)
    ratios = []
    for counts in group_weights(len(d), replicates).astype(int):
        drawn = np.repeat(d, counts)
        ratios.append(abs(drawn.mean()) / (drawn.std(ddof=1) * np.sqrt((len(d) - 1) / len(d)) / np.sqrt(len(d) - 1)))
    return d.std(ddof=1) / np.sqrt(len(d)), sorted(ratios)[int(np.ceil((replicates + 1) * 0.95)) - 1]


def test_an_interval_comes_from_videos(run) -> None:
    """Against its definition written again over samples, on the logarithmic scale of MAE."""
    run.add([MODEL], [MISSING])
    samples = run.predictions.query("stress == 'clean'")
    error, critical = symmetric_t(mae_without_each_video(samples))
    row = one(run.curves, stress="clean", metric="mae")
    reach = np.exp(critical * error / row["value"])
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], [row["value"] / reach, row["value"] * reach], rtol=1e-5)


def test_the_interval_of_a_nauc_comes_from_the_area_without_each_video(run) -> None:
    run.add([MODEL], [MISSING])
    cells = run.predictions.assign(severity=lambda f: f["severity"].fillna("0"), seed=lambda f: f["seed"].fillna(0))
    by_point = {key: mae_without_each_video(rows) for key, rows in cells.groupby(["severity", "seed"])}
    points = [np.mean([v for (s, _), v in by_point.items() if s == at], axis=0) for at in ("0", "0.2", "0.4", "0.6")]
    row = one(run.nauc, metric="mae")
    areas = [area([0, 0.2, 0.4, 0.6], curve) for curve in np.transpose(points)]
    means = np.mean(points, axis=0)
    for name, low, high, left_out in (
        ("nauc", "ci_low", "ci_high", np.array(areas)),
        ("grid_mean", "grid_mean_low", "grid_mean_high", means),
    ):
        error, critical = symmetric_t(left_out)
        reach = np.exp(critical * error / row[name])
        np.testing.assert_allclose([row[low], row[high]], [row[name] / reach, row[name] * reach], rtol=1e-5)
    np.testing.assert_allclose(row["sd_sampling"], symmetric_t(np.array(areas))[0], rtol=1e-5)


def test_variance_is_split_by_training_and_corruption_seeds(run) -> None:
    """The mean squares of the table of nAUCs by seeds, written again."""
    run.add([*SEEDS, CHANCE], [MISSING])
    cells = by_cell(run)
    table = np.empty((3, 3))
    for t, subject in enumerate(SEEDS):
        own = cells[cells["checkpoint"] == subject.checkpoint].set_index(["severity", "seed"])["acc2_has0"]
        for c, seed in enumerate((1111, 1112, 1113)):
            clean = own[own.index.get_level_values("seed").isna()].iloc[0]
            table[t, c] = area([0, 0.2, 0.4, 0.6], [clean, *(own[s, seed] for s in ("0.2", "0.4", "0.6"))])
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    between = table.mean(1).var(ddof=1) - (rest**2).sum() / 4 / 3
    nauc = run.nauc[run.nauc["metric"] == "acc2_has0"]
    mean = one(nauc, model="late_fusion", train_seed=None)
    assert mean["claim"] == "method"
    np.testing.assert_allclose(mean["sd_train"], np.sqrt(max(between, 0)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(mean["sd_corruption"], np.sqrt(table.var(axis=1, ddof=1).mean()), rtol=1e-5)
    for t, subject in enumerate(SEEDS):
        row = one(nauc, checkpoint=subject.checkpoint)
        assert row["claim"] == "checkpoint"
        assert np.isnan(row["sd_train"])
        np.testing.assert_allclose(row["sd_corruption"], table[t].std(ddof=1), rtol=1e-5)


def test_the_interval_of_a_method_holds_the_variance_between_training_seeds(run) -> None:
    """Three checkpoints far apart: the interval about the method is wider than any about a checkpoint."""

    def predict(cell: Cell) -> Any:
        return degraded(cell) + {1111: 0.0, 1112: 1.0, 1113: 2.0}[cell.train_seed] * NOISE[1115]

    run.add(SEEDS, [MISSING], predict)
    rows = run.nauc[run.nauc["metric"] == "mae"].assign(width=lambda f: f["ci_high"] - f["ci_low"])
    method, checkpoints = rows[rows["claim"] == "method"], rows[rows["claim"] == "checkpoint"]
    assert (len(method), len(checkpoints)) == (1, 3)
    assert method["width"].item() > 1.5 * checkpoints["width"].max()
    at = run.curves.query("metric == 'mae' and stress == 'missing' and severity == '0.4' and seed.isna()")
    widths = (at["ci_high"] - at["ci_low"])[at["train_seed"].isna()].item(), (at["ci_high"] - at["ci_low"]).min()
    assert widths[0] > widths[1]


def test_training_seeds_that_agree_add_nothing(run) -> None:
    """Copies of one checkpoint: the interval about the method is the checkpoint's."""

    def predict(cell: Cell) -> Any:
        return degraded(replace(cell, checkpoint="a" * 64))

    run.add(SEEDS, [MISSING], predict)
    for metric in METRICS:
        rows = run.nauc[run.nauc["metric"] == metric]
        np.testing.assert_allclose(rows["ci_low"], rows["ci_low"].iloc[0], rtol=1e-9)
        np.testing.assert_allclose(rows["ci_high"], rows["ci_high"].iloc[0], rtol=1e-9)


def test_what_does_not_vary_has_no_interval(run) -> None:
    """Every prediction right, in every video: there is no spread to speak of."""
    run.add([MODEL, CHANCE], [MISSING], lambda cell: LABELS)
    for metric in ("mae", "acc7", "f1_has0"):
        for row in (
            one(run.nauc, model="late_fusion", metric=metric),
            one(run.curves, checkpoint=MODEL.checkpoint, stress="clean", metric=metric),
        ):
            assert np.isnan([row["ci_low"], row["ci_high"]]).all()


def test_the_mean_over_available_sets_has_an_interval(run) -> None:
    run.add([MODEL], [request_of("missing-fixed")])
    for grid in ("t,a,v,t+a,t+v,a+v,t+a+v", "t,a,v,t+a,t+v,a+v"):
        row = one(run.nauc, metric="acc7", grid=grid)
        assert row["grid_mean_low"] < row["grid_mean"] < row["grid_mean_high"]
        assert np.isnan(row["ci_low"])
        assert row["sd_sampling"] > 0


def test_several_training_seeds_have_a_mean_of_their_own(run) -> None:
    others = [replace(MODEL, checkpoint=c * 64, train_seed=s) for c, s in (("d", 1112), ("e", 1113))]
    run.add([MODEL, *others, CHANCE], [MISSING])
    curves, nauc = run.curves, run.nauc
    mean = curves[(curves["model"] == "late_fusion") & curves["train_seed"].isna()]
    assert set(mean["n_train_seeds"]) == {3}
    assert set(mean["checkpoint"]) == {""}
    assert mean["seed"].isna().all()
    cells = by_cell(run)
    cells = cells[cells["checkpoint"] != CHANCE.checkpoint]
    for metric in METRICS:
        at = cells[cells["severity"] == "0.4"][metric]
        assert len(at) == 9
        row = one(mean, severity="0.4", stress="missing", metric=metric)
        np.testing.assert_allclose(row["value"], at.mean(), rtol=1e-6)
        singles = nauc[(nauc["model"] == "late_fusion") & nauc["train_seed"].notna() & (nauc["metric"] == metric)]
        assert sorted(singles["train_seed"]) == [1111, 1112, 1113]
        together = one(nauc, model="late_fusion", train_seed=None, metric=metric)
        np.testing.assert_allclose(together["nauc"], singles["nauc"].mean(), rtol=1e-6)
        assert together["n_train_seeds"] == 3
    assert len(nauc[nauc["model"] == "chance"]) == len(METRICS), "a model without training seeds has no mean over them"


def test_a_checkpoint_trained_again_is_not_another_training_seed(run) -> None:
    """The same train seed twice (trained again, other weights) is no mean over training seeds."""
    run.add([MODEL], [MISSING])
    again = replace(MODEL, checkpoint="f" * 64)
    run.add([again], [MISSING])
    for table in (run.curves, run.nauc):
        assert set(table["train_seed"]) == {1111}
        assert set(table["n_train_seeds"]) == {1}


def test_what_was_never_asked_of_a_model_has_no_row(run) -> None:
    """Two runs into one folder: one model under noise, another under missing."""
    other = Subject("qa_moe", 1, "d" * 64, "clean", 1111)
    run.add([MODEL], [MISSING])
    run.add([other], [request_of("noise", "0,0.5", 1)])
    rows = run.nauc[["model", "stress"]].drop_duplicates()
    assert sorted(map(tuple, rows.to_numpy())) == [("late_fusion", "missing"), ("qa_moe", "noise")]


def test_a_training_seed_on_another_stress_does_not_empty_the_mean(run) -> None:
    """Seeds 1111 and 1112 under missing; 1113 only under noise: the mean over the two stays."""
    second, third = (replace(MODEL, checkpoint=c * 64, train_seed=s) for c, s in (("d", 1112), ("e", 1113)))
    run.add([MODEL, second], [MISSING])
    run.add([third], [request_of("noise", "0,0.5", 1)])
    nauc = run.nauc[(run.nauc["stress"] == "missing") & (run.nauc["metric"] == "mae")]
    mean = one(nauc, train_seed=None)
    assert mean["n_train_seeds"] == 2
    np.testing.assert_allclose(mean["nauc"], nauc[nauc["train_seed"].notna()]["nauc"].mean(), rtol=1e-6)


def test_a_metrics_own_decisions_are_used_for_it_alone(run) -> None:
    """Extras named for_<metric> (chance, oracle): the median where MAE is scored."""
    cells = run.add([MODEL], [MISSING])
    better = (LABELS + 0.1).astype(np.float32)
    for cell in cells:
        extras = {"for_mae": better, "gates": np.ones((N, 4), np.float32), "a": np.zeros(N, np.float32)}
        write(run.store, cell, degraded(cell), extras)
    before = run.curves
    derive(run.store, run.planned)
    after = run.curves
    np.testing.assert_allclose(after[after["metric"] == "mae"]["value"], 0.1, atol=1e-6)
    others = before["metric"] != "mae"
    pd.testing.assert_frame_equal(after[others], before[others])


def test_facts_of_every_finished_cell(run) -> None:
    cells = run.add([MODEL], [MISSING], leave_out=lambda c: c.severity == "0.6")
    table = cells_table(run.store, Tables(run.store, run.planned).cells)
    assert table.schema.equals(CELLS)
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == [c.key for c in cells if c.severity != "0.6"]
    assert rows[0]["severity"] == "0"
    assert rows[0]["realised"] == [("lost_t", 0.5), ("noise_db_t", None)]


def test_tables_do_not_depend_on_when_they_are_derived(run) -> None:
    run.add([MODEL, CHANCE], [MISSING])
    before = run.curves, run.nauc
    derive(run.store, run.planned)
    pd.testing.assert_frame_equal(run.curves, before[0])
    pd.testing.assert_frame_equal(run.nauc, before[1])
    assert Tables(run.store, run.planned).curves().schema.equals(CURVES)
