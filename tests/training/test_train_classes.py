"""Training on classes: what selects, what suites show, and how many classes there are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import Batch, InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.data.synth_classes import make_synth_classes
from robustbench_msa.models.checkpoint import load_model
from robustbench_msa.models.classes import num_classes_of
from robustbench_msa.training.loop import ACCURACY, MAE, predict
from robustbench_msa.training.suite import Result, Settings, Training, _check, plan_suite, table
from robustbench_msa.training.train import spec_of, train

DATA = make_synth_classes(sizes=(48, 20, 20))


def of(labels: list[float], names: tuple[str, ...] = (), dtype: torch.dtype = torch.int64) -> Dataset:
    x = {m: torch.ones(len(labels), 2, 2) for m in ("text", "audio", "vision")}
    batch = Batch(**x, labels=torch.tensor(labels, dtype=dtype))
    return Dataset("mine", dict.fromkeys(("train", "valid", "test"), batch), "classification", classes=names)


def test_a_recipe_with_views_is_selected_by_their_mean_accuracy(tmp_path: Path) -> None:
    checkpoint = train("late_fusion", DATA, "spectrum", out=tmp_path, epochs=2)
    selection = checkpoint.config["selection"]
    assert selection["by"].startswith("mean accuracy over 9 fixed views: 0x0")
    assert 0 <= selection["value"] <= 1
    again = train("late_fusion", DATA, "spectrum", out=tmp_path, epochs=2)  # nothing to do
    assert again.weights_sha256 == checkpoint.weights_sha256


def test_predictions_are_classes(tmp_path: Path) -> None:
    model = load_model(train("qa_moe", DATA, out=tmp_path, epochs=1))
    valid = DATA.splits["valid"]
    with torch.no_grad():
        expected = model(valid).prediction.argmax(dim=1)
    np.testing.assert_array_equal(predict(model, valid), expected)


def test_criteria() -> None:
    y, p = torch.tensor([0.0, 2.0, 1.0, 1.0]).double(), torch.tensor([0.0, 1.0, 1.0, 1.0]).double()
    assert (ACCURACY.value(y, p).item(), MAE.value(y, p).item()) == (0.75, 0.25)
    p[0] = torch.nan
    assert torch.isnan(ACCURACY.value(y, p))  # training has failed; it is not just wrong
    assert (ACCURACY.higher_is_better, MAE.higher_is_better) == (True, False)


def test_a_suite_takes_classes_and_shows_accuracy(tmp_path: Path) -> None:
    _check(plan_suite("papers", 1), Settings(), DATA)
    result = Result(Training("late_fusion", "clean", 1), "trained", train("late_fusion", DATA, out=tmp_path, epochs=1))
    assert re.fullmatch(r"late_fusion clean 1 trained, validation accuracy 0\.\d{3}", str(result))
    assert [str(column.header) for column in table([result]).columns] == [
        *("model", "recipe", "seed", "acc", "epoch", "seconds", "")
    ]


def test_the_number_of_classes() -> None:
    assert num_classes_of(of([0, 4, 1])) == 5  # the largest label of any split
    assert num_classes_of(of([0, 1, 1], ("a", "b", "c"))) == 3  # one that no split has
    assert num_classes_of(make_synth(sizes=(4, 4, 4))) == 0
    assert spec_of(of([0, 4, 1])).num_classes == 5
    for wrong in (of([0, 0, 0]), of([0, 1, -1]), of([0, 1, 2], dtype=torch.float32)):
        with pytest.raises(InputError, match="mine"):
            num_classes_of(wrong)


def test_regression_is_what_it_was(tmp_path: Path) -> None:
    scores = replace(make_synth(sizes=(48, 20, 20)))
    checkpoint = train("late_fusion", scores, out=tmp_path, epochs=2)
    assert checkpoint.config["selection"]["by"] == "MAE on the clean split"
    assert checkpoint.config["selection"]["value"] == checkpoint.config["validation"]["mae"]
    assert checkpoint.config["arguments"]["spec"]["num_classes"] == 0
