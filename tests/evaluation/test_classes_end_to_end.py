"""Datasets of classes: trained, run under stress, scored, compared, drawn; exported; imported as classes and logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from corruptions import Batch, InputError
from robustbench_msa.analysis.comparisons import compare
from robustbench_msa.analysis.inside.breaking import breaking_info
from robustbench_msa.analysis.inside.calibration import calibration_info
from robustbench_msa.analysis.inside.experts import dir_checks, factor_table
from robustbench_msa.analysis.inside.risk import risk_info
from robustbench_msa.analysis.inside.routing import importance_table
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.metrics import score
from robustbench_msa.bridge import export, score_predictions
from robustbench_msa.cli.main import app
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth_classes import make_synth_classes
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.export_reading import read_export
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.checkpoint import Checkpoint, load_model
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part
from robustbench_msa.run import benchmark
from robustbench_msa.training.suite import SYSTEMS
from robustbench_msa.training.train import train

STRESSES = ("missing", "noise", "conflict")


@pytest.fixture(scope="module")
def classes() -> Dataset:
    return make_synth_classes(sizes=(60, 20, 40))


@pytest.fixture(scope="module")
def checkpoints(classes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """The five systems and the plain baseline, hardly trained."""
    root = tmp_path_factory.mktemp("checkpoints")
    names = ("late_fusion", *SYSTEMS)
    return {name: train(name, classes, out=root / name, epochs=2, score=score) for name in names}


@pytest.fixture(scope="module")
def run(classes: Dataset, checkpoints: dict[str, Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    folders = [c.path for c in checkpoints.values()]
    for stress, grid in zip(STRESSES, ("0,0.4,0.8", "0,0.5", "0,0.5,1"), strict=True):
        benchmark(checkpoint=folders, dataset=classes, stress=stress, grid=grid, seeds=2, out=out)
    benchmark(checkpoint=folders, dataset=classes, stress="missing-fixed", out=out)
    return out


def test_config_says_what_was_trained_and_how_it_was_selected(checkpoints: dict[str, Checkpoint]) -> None:
    for checkpoint in checkpoints.values():
        config = checkpoint.config
        assert config["arguments"]["spec"]["num_classes"] == 3
        assert config["selection"]["by"] == "accuracy on the clean split"
        assert config["selection"]["value"] == config["validation"]["acc"]
        assert set(config["validation"]) == {"acc", "f1_macro", "precision_macro", "recall_macro", "f1_weighted"}


def test_accuracy_selects_and_of_equal_epochs_the_first(classes: Dataset, tmp_path: Path) -> None:
    told: list[float] = []

    def progress(epoch: int, epochs: int, loss: float, value: float, best: int) -> None:
        told.append(value)

    checkpoint = train("late_fusion", classes, out=tmp_path / "a", epochs=8, progress=progress)
    assert checkpoint.config["selection"]["value"] == max(told)
    assert checkpoint.config["training"]["best_epoch"] == 1 + told.index(max(told))
    assert checkpoint.config["validation"] == {"acc": max(told)}


def test_every_model_has_curves_and_nauc_on_accuracy_and_f1(run: Path, checkpoints: dict[str, Checkpoint]) -> None:
    curves = pd.read_parquet(run / "curves")
    nauc = pd.read_parquet(run / "nauc")
    for model in (*checkpoints, "chance"):
        for metric in ("acc", "f1_macro", "f1_weighted"):
            mine = nauc[(nauc["model"] == model) & (nauc["metric"] == metric) & nauc["stress"].isin(STRESSES)]
            assert set(mine["stress"]) == set(STRESSES)
            assert mine["nauc"].between(0, 1).all()
    acc = curves[(curves["model"] == "emoe") & (curves["metric"] == "acc") & (curves["stress"] == "noise")]
    means = acc[acc["seed"].isna()].set_index("severity")["value"]
    area = nauc.set_index(["model", "stress", "metric"])["nauc"]["emoe", "noise", "acc"]
    np.testing.assert_allclose(area, (means["0"] + means["0.5"]) / 2)  # a trapezoid over one step


def test_curves_are_the_metrics_of_the_stored_classes(run: Path, classes: Dataset) -> None:
    stored = pd.read_parquet(run / "predictions")
    curves = pd.read_parquet(run / "curves")
    for (model, key), cell in list(stored[stored["stress"] == "missing"].groupby(["model", "key"]))[:12]:
        expected = score(cell["y_true"], cell["y_pred"], "classification")
        where = (curves["model"] == model) & (curves["severity"] == cell["severity"].iloc[0])
        mine = curves[where & (curves["stress"] == "missing") & (curves["seed"] == cell["seed"].iloc[0])]
        assert dict(zip(mine["metric"], mine["value"], strict=True)) == pytest.approx(expected), key
    labels = classes.splits["train"].labels
    assert labels is not None
    chance = stored[stored["model"] == "chance"]
    assert set(chance["y_pred"]) == {float(torch.bincount(labels).argmax())}


def test_the_class_stored_is_that_of_the_largest_logit(
    classes: Dataset, checkpoints: dict[str, Checkpoint], run: Path
) -> None:
    test = classes.splits["test"]
    for name, checkpoint in checkpoints.items():
        with torch.no_grad():
            logits = load_model(checkpoint)(test).prediction
        stored = pd.read_parquet(run / "predictions", filters=[("model", "==", name), ("stress", "==", "clean")])
        np.testing.assert_array_equal(stored["y_pred"], logits.argmax(dim=1))
        kept = np.stack([dict(extras)["logits"] for extras in stored["extras"]])
        np.testing.assert_allclose(kept, logits, atol=1e-5)


class Fixed(MSAModel):
    """Gives the same output whatever it sees."""

    name = "fixed"

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__(InputSpec((48, 24, 16)), None)
        self.output = output

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        return {}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        return Output(self.output)


def test_logits_that_are_not_finite_are_of_no_class(classes: Dataset) -> None:
    logits = torch.zeros(40, 3)
    logits[:, 1] = 2.0
    logits[5, 0], logits[7] = torch.inf, torch.nan
    result = Runner(Fixed(logits), Inputs(classes, "test"), 64).run(Cell())
    assert np.flatnonzero(np.isnan(result.y_pred)).tolist() == [5, 7]
    assert set(result.y_pred[~np.isnan(result.y_pred)]) == {1.0}
    assert result.facts["nonfinite"] == 2


def test_scores_for_classes_and_classes_for_scores_are_refused(classes: Dataset, dataset: Dataset) -> None:
    for data, output, match in (
        (classes, torch.zeros(40), "expected logits of 3 classes, the model gives scores"),
        (classes, torch.zeros(40, 20), "expected logits of 3 classes, the model gives logits of 20 classes"),
        (dataset, torch.zeros(40, 3), "expected scores, the model gives logits of 3 classes"),
    ):
        with pytest.raises(InputError, match=match):
            Runner(Fixed(output), Inputs(data, "test"), 64).run(Cell())


def test_boards_comparisons_and_figures_render(run: Path) -> None:
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, str(run)])
        assert result.exit_code == 0, result.output
        return result.output

    board = call("leaderboard", "--format", "markdown")
    assert "Acc" in board
    assert "F1 (macro)" in board
    for what in ("curves", "breaking"):
        call("plot", what)
    assert (run / "figures" / "curves.png").is_file()
    pairs = compare(open_tables([run]), permutations=0).comparisons.to_pandas()
    assert {"acc", "f1_macro"} <= set(pairs["metric"])
    assert pairs["difference"].notna().any()


def test_inside_flips_are_changed_classes_and_errors_are_wrong_ones(run: Path) -> None:
    stored = pd.read_parquet(run / "predictions", filters=[("model", "==", "emoe")])
    clean = stored[stored["stress"] == "clean"].set_index("sample_id")["y_pred"]
    cells = stored[(stored["stress"] == "noise") & (stored["severity"] == "0.5")]
    info = breaking_info(run)
    shares = info.shares[(info.shares["model"] == "emoe") & (info.shares["stress"] == "noise")]
    flipped = shares.set_index("severity")["flipped"]
    np.testing.assert_allclose(flipped["0.5"], (cells["y_pred"].to_numpy() != clean[cells["sample_id"]]).mean())
    assert flipped["0"] == 0
    flips = info.flips[(info.flips["model"] == "emoe") & (info.flips["stress"] == "noise")]
    assert len(flips) > 0
    assert (flips["prediction"] != flips["clean_prediction"]).all()
    areas = risk_info(run, ["probability"]).areas
    mine = areas[(areas["model"] == "emoe") & (areas["stress"] == "noise") & (areas["severity"] == "0.5")]
    np.testing.assert_allclose(mine["random"], (cells["y_pred"] != cells["y_true"]).mean())


def test_inside_what_asks_for_scores_says_so(run: Path, checkpoints: dict[str, Checkpoint], classes: Dataset) -> None:
    for ask, match in ((calibration_info, "variance of scores"), (factor_table, "scores of experts")):
        with pytest.raises(InputError, match=match):
            ask(run)
    model: Any = load_model(checkpoints["rider_moe"])
    with pytest.raises(InputError, match="logits of classes"):
        dir_checks(model, classes.splits["test"])


def test_emoes_weights_are_compared_with_the_probability_of_the_true_class(run: Path) -> None:
    table = importance_table(run)
    stored = pd.read_parquet(run / "predictions", filters=[("model", "==", "emoe"), ("stress", "==", "clean")])
    extras = [dict(row) for row in stored["extras"]]
    logits = np.stack([x["unimodal_logits"] for x in extras]).reshape(-1, 3, 3)  # (N, modality, class)
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    true = p[np.arange(len(p)), :, stored["y_true"].astype(int)]  # (N, 3)
    weighed = np.stack([x["routing"] for x in extras]).argmax(axis=1)
    clean = table[(table["stress"] == "noise") & (table["severity"] == "0")]
    np.testing.assert_allclose(clean["agreement"], (weighed == true.argmax(axis=1)).mean())


@pytest.fixture(scope="module")
def inputs(classes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("export") / "inputs", "missing", "0,0.4", dataset=classes, seeds=1).out


@pytest.fixture(scope="module")
def logits(inputs: Path, checkpoints: dict[str, Checkpoint]) -> pd.DataFrame:
    """What a checkpoint says to the exported files, called as other code would."""
    model, rows = load_model(checkpoints["late_fusion"]), []
    names = ("text", "audio", "vision", "text_lengths", "audio_lengths", "vision_lengths", "present")
    for path in sorted(inputs.glob("*.npz")):
        with np.load(path, allow_pickle=False) as x, torch.no_grad():
            said = model(Batch(**{name: x[name] for name in names})).prediction.numpy()
            rows += [(path.stem, sample, *row) for sample, row in zip(x["ids"], said.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["cell", "id", "prediction_0", "prediction_1", "prediction_2"])


def as_classes(logits: pd.DataFrame) -> pd.DataFrame:
    found = logits[["cell", "id"]].copy()
    found["prediction"] = logits[[f"prediction_{k}" for k in range(3)]].to_numpy().argmax(axis=1)
    return found


def values_of(result: Any, model: str) -> dict[tuple[str, str], float]:
    curves = result.curves
    mine = curves[(curves["model"] == model) & curves["metric"].isin(["acc", "f1_macro"])]
    return {(r["severity"], r["metric"]): r["value"] for _, r in mine.iterrows()}


@pytest.mark.parametrize("form", ["classes.csv", "logits.csv", "logits.parquet", "logits.npz"])
def test_imported_classes_and_logits_score_as_a_run_does(
    form: str, inputs: Path, logits: pd.DataFrame, classes: Dataset, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    table, path = as_classes(logits) if form.startswith("classes") else logits, tmp_path / form
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        by_column = np.asfortranarray(table[[f"prediction_{k}" for k in range(3)]].to_numpy())
        np.savez(path, cell=np.array(table["cell"].tolist()), id=np.array(table["id"].tolist()), prediction=by_column)
    folder = checkpoints["late_fusion"].path
    ran = benchmark(checkpoint=folder, dataset=classes, stress="missing", grid="0,0.4", seeds=1, out=tmp_path / "run")
    scored = score_predictions(inputs, path, "theirs", out=tmp_path / "run")
    assert values_of(scored.result, "theirs") == pytest.approx(values_of(ran, "late_fusion"))
    stored = pd.read_parquet(tmp_path / "run" / "predictions", filters=[("model", "==", "theirs")])
    assert all(("logits" in dict(extras)) == form.startswith("logits") for extras in stored["extras"])
    keys = scored.result.cells[scored.result.cells["model"] == "chance"]["key"]
    assert keys.is_unique  # the chance of the export is that of the run


def test_an_export_of_classes_says_so_and_is_checked(inputs: Path, tmp_path: Path) -> None:
    manifest = json.loads((inputs / "manifest.json").read_text("utf-8"))
    assert (manifest["profile"], manifest["num_classes"]) == ("classification", 3)
    assert set(manifest["chance"]) == {"majority", "num_classes"}
    assert set(manifest["samples"]["labels"]) <= {0, 1, 2}
    wrong = (
        ({"num_classes": 2}, "do not go together"),
        ({"num_classes": 10**9}, "num_classes is not as written"),
        ({"chance": {"mean": 1.0, "median": 1.0}}, "do not go together"),
        ({"chance": {"majority": 3, "num_classes": 3}}, "chance is missing or not as written"),
        ({"profile": "mosi"}, "do not go together"),
    )
    for change, match in wrong:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | change), "utf-8")
        with pytest.raises(InputError, match=match):
            read_export(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: as_classes(t).assign(prediction=3), "expected classes, 0 to 2, got a prediction of 3"),
        (lambda t: as_classes(t).assign(prediction=0.5), "expected classes, 0 to 2, got a prediction of 0.5"),
        (lambda t: t.assign(prediction_3=0.0), "expected logits of 3 classes, got 4 logits"),
        (lambda t: t.drop(columns="prediction_1"), "prediction_0, prediction_1, ... for logits"),
        (lambda t: t.assign(prediction_2="high"), "predictions that are not numbers"),
    ],
    ids=["too large", "half", "four", "a hole", "a word"],
)
def test_predictions_of_other_classes_are_refused(
    change: Any, match: str, inputs: Path, logits: pd.DataFrame, tmp_path: Path
) -> None:
    change(logits).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(InputError, match=match):
        score_predictions(inputs, tmp_path / "p.csv", "theirs", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_logits_for_scores_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    folder = export(tmp_path / "inputs", "missing", "0,0.4", dataset=dataset, seeds=1).out
    cells = [path.stem for path in folder.glob("*.npz")]
    ids = dataset.splits["test"].ids
    rows = pd.DataFrame([(cell, i, 0.1, 0.2) for cell in cells for i in ids])
    rows.columns = pd.Index(["cell", "id", "prediction_0", "prediction_1"])
    rows.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(InputError, match="its labels are scores, got 2 logits"):
        score_predictions(folder, tmp_path / "p.csv", "theirs", out=tmp_path / "run")


def test_missing_logits_are_of_no_class(inputs: Path, logits: pd.DataFrame, tmp_path: Path) -> None:
    logits.assign(prediction_1=logits["prediction_1"].where(logits.index != 4)).to_csv(tmp_path / "p.csv", index=False)
    scored = score_predictions(inputs, tmp_path / "p.csv", "theirs", out=tmp_path / "run")
    assert scored.nonfinite == 1
