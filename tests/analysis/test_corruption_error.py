"""mCE: a mean over all stresses or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_runs import MODEL, degraded, request_of

from corruptions import InputError
from robustbench_msa.analysis.corruption_error import COLUMNS, mean_ce
from robustbench_msa.evaluation.cells import Subject

OTHER = Subject("qa_moe", 1, "c" * 64, "clean", 1111)
REQUESTS = [request_of("missing", "0,0.4"), request_of("noise", "0,0.2,0.4"), request_of("missing-fixed", "t,a,t+a+v")]


def row(model: str = "qa_moe", stress: str = "noise", ce: float | None = 0.8, **others: Any) -> dict[str, Any]:
    made = {"model": model, "recipe": "clean", "train_seed": 1111, "checkpoint": model, "dataset": "synth"}
    made |= {"split": "test", "profile": "mosi", "stress": stress, "params": "", "grid": "0,1", "metric": "mae"}
    return made | {"ce": ce, "relative_ce": ce, "baseline": "late_fusion", "reasons": []} | others


def only(frame: pd.DataFrame, metric: str = "mae") -> pd.Series:
    (found,) = [found for _, found in mean_ce(frame, metric).iterrows()]
    return found


def test_of_a_stored_run_it_is_the_mean_of_its_rows(run) -> None:
    run.add([MODEL, OTHER], REQUESTS)
    nauc = run.nauc
    found = mean_ce(nauc, "acc7").set_index("model")
    rows = nauc[(nauc["metric"] == "acc7") & (nauc["grid"] != "t,a")]
    assert list(found.reset_index().columns) == COLUMNS
    for model in ("late_fusion", "qa_moe"):
        own = rows[rows["model"] == model]
        assert len(own) == 3
        np.testing.assert_allclose(found.loc[model]["mce"], own["ce"].mean())
        np.testing.assert_allclose(found.loc[model]["relative_mce"], own["relative_ce"].mean())
    assert set(found["n_stresses"]) == {3}
    assert set(found["baseline"]) == {"late_fusion, clean, seed 1111"}
    assert found["note"].isna().all()
    np.testing.assert_allclose(found.loc["late_fusion"][["mce", "relative_mce"]].astype(float), 1)


def test_an_unfinished_stress_makes_it_null(run) -> None:
    run.add([MODEL, OTHER], REQUESTS, degraded, leave_out=lambda c: (c.model, c.severity) == ("qa_moe", "0.2"))
    found = mean_ce(run.nauc, "mae").set_index("model")
    assert found.loc["qa_moe"][["mce", "relative_mce"]].isna().all()
    assert found.loc["qa_moe"]["note"].startswith("ce is null under noise: 1 of 3 cells have no value")
    assert found.loc["late_fusion"]["mce"] == 1


def test_a_line_that_lacks_a_stress_is_not_averaged_over_the_others() -> None:
    frame = pd.DataFrame([row(), row(stress="missing", ce=0.6), row("tfn")])
    found = mean_ce(frame, "mae").set_index("model")
    np.testing.assert_allclose(found.loc["qa_moe"]["mce"], 0.7)
    assert pd.isna(found.loc["tfn"]["mce"])
    assert (found.loc["tfn"]["note"], found.loc["tfn"]["n_stresses"]) == ("no row under missing", 1)
    alone = mean_ce(frame[frame["stress"] == "noise"], "mae")
    np.testing.assert_allclose(alone["mce"], 0.8)


def test_only_the_relative_one_may_be_null() -> None:
    without = row("chance", relative_ce=None, reasons=[("relative_ce", "nothing to lose")])
    found = only(pd.DataFrame([without, without | {"stress": "missing"}]))
    assert found["mce"] == 0.8
    assert pd.isna(found["relative_mce"])
    assert found["note"] == "relative_ce is null under noise: nothing to lose"


def test_several_grids_of_a_stress_are_not_mixed() -> None:
    found = only(pd.DataFrame([row(), row(grid="0,0.5")]))
    assert pd.isna(found["mce"])
    assert found["note"] == "noise has 2 grids: 0,0.5, 0,1"
    found = only(pd.DataFrame([row(), row(params="modalities=audio", ce=0.4)]))
    assert found["n_stresses"] == 2, "other parameters are another stress"
    np.testing.assert_allclose(found["mce"], 0.6)


def test_different_baselines_are_not_mixed() -> None:
    found = only(pd.DataFrame([row(), row(stress="missing", baseline="tfn")]))
    assert pd.isna(found["mce"])
    assert found["baseline"] is None
    assert found["note"] == "baselines differ: late_fusion; tfn"


def test_training_seeds_and_their_mean_are_lines() -> None:
    rows = [row(train_seed=seed, checkpoint=str(seed), stress=s) for seed in (1, 2, None) for s in ("noise", "missing")]
    frame = pd.DataFrame(rows).astype({"train_seed": "Int64"})
    found = mean_ce(frame, "mae")
    assert found["train_seed"].tolist() == [1, 2, pd.NA]
    assert found["mce"].notna().all()


def test_a_metric_without_errors_has_none() -> None:
    found = only(pd.DataFrame([row(metric="corr", ce=None, baseline=None, reasons={"ce": "no error form"})]), "corr")
    assert pd.isna(found["mce"])
    assert "ce is null under noise: no error form" in found["note"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame([row()]).drop(columns="ce"), "no column 'ce'"),
        (pd.DataFrame([row()]).iloc[:0], "no rows"),
        (pd.DataFrame([row(), row(split="valid")]), "expected one split, got test, valid"),
        (pd.DataFrame([row(metric="mea")]), r"no rows of metric 'mae' \(did you mean 'mea'\?\)"),
    ],
)
def test_what_is_no_table_of_one_dataset_is_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mean_ce(frame, "mae")
