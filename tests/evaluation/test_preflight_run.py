"""Preflight before a run: what stops it, what is kept, and where flags end up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa import run
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation import preflight as preflight_module
from robustbench_msa.evaluation import subjects
from robustbench_msa.evaluation.cells import Subject, cell_at, clean_cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.preflight import CHECKS, flags_of, label_of, preflight_all, remarks, stamp
from robustbench_msa.evaluation.preflight_imported import preflight_imported
from robustbench_msa.evaluation.store import Result, Store
from robustbench_msa.evaluation.subjects import Candidate
from robustbench_msa.models.chance import Chance
from robustbench_msa.models.contract import Encoded, Output
from robustbench_msa.run import benchmark

SUBJECT = Subject("someones", 1, "s" * 64, "clean", 7)


class Noisy(Chance):
    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        return Output(0.1 * torch.randn(len(present)))


class WritesPresent(Chance):
    """Handed the tensor that says what is there, it writes into it."""

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        present[:, 0] = False
        return super().fuse(encoded, present)


def candidate(model: type[Chance] = Chance, subject: Subject = SUBJECT) -> Candidate:
    return Candidate(subject, lambda: model(0.0, 0.0), {"model": subject.model, "recipe": "clean", "train_seed": 7})


@pytest.fixture
def inputs(dataset: Dataset) -> Inputs:
    return Inputs(dataset, "test")


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whom preflight has looked at."""
    models: list[Any] = []
    usual = preflight_module.preflight

    def look(model: Any, *given: Any, **named: Any) -> Any:
        models.append(model)
        return usual(model, *given, **named)

    monkeypatch.setattr(preflight_module, "preflight", look)
    return models


def test_all_that_is_to_be_run(inputs: Inputs, looked: list[Any]) -> None:
    told: list[str] = []
    chance = subjects.chance(inputs.dataset)
    found = preflight_all([candidate(Noisy), chance, candidate(Noisy)], inputs, checked=told.append)
    assert list(found) == [SUBJECT.checkpoint, chance.subject.checkpoint]
    assert [check["check"] for check in found[SUBJECT.checkpoint]] == [check.__name__ for check in CHECKS]
    assert flags_of(found[SUBJECT.checkpoint]) == ["deterministic"]
    assert flags_of(found[chance.subject.checkpoint]) == []
    assert told == ["someones (clean, 7)", "chance"]
    assert len(looked) == 2, "the same checkpoint once"


def test_a_fail_stops(inputs: Inputs) -> None:
    message = r"^someones \(clean, 7\): preflight check inputs_untouched failed: changed in place: present .*--no-pref"
    with pytest.raises(InputError, match=message):
        preflight_all([candidate(WritesPresent)], inputs)
    found = preflight_all([candidate(WritesPresent)], inputs, stop=False)
    assert flags_of(found[SUBJECT.checkpoint]) == ["inputs_untouched"]


def test_what_is_known_is_not_looked_at_again(inputs: Inputs, looked: list[Any]) -> None:
    found = preflight_all([candidate(WritesPresent)], inputs, stop=False)
    known = json.loads(json.dumps({SUBJECT.checkpoint: {"preflight": found[SUBJECT.checkpoint]}}))
    about = known[SUBJECT.checkpoint]

    def times(**changes: Any) -> int:
        looked.clear()
        again = preflight_all([candidate(WritesPresent)], inputs, {SUBJECT.checkpoint: about | changes}, stop=False)
        assert again == found
        return len(looked)

    assert times(preflight_by=stamp(inputs)) == 0
    assert times() == 1, "not said by which version"
    assert times(preflight_by=stamp(inputs) | {"msabench": "0.0.1"}) == 1
    assert times(preflight_by=stamp(inputs) | {"device": "cuda"}) == 1
    assert times(preflight_by=stamp(inputs), preflight=[{"check": "finite", "status": "good"}]) == 1
    assert times(preflight_by=stamp(inputs), preflight=None) == 1
    with pytest.raises(InputError, match="inputs_untouched"):
        preflight_all(
            [candidate(WritesPresent)], inputs, known | {SUBJECT.checkpoint: about | {"preflight_by": stamp(inputs)}}
        )


def test_a_model_that_cannot_be_loaded_is_said_whatever_is_known(inputs: Inputs) -> None:
    def load() -> Chance:
        raise InputError("broken weights")

    found = preflight_all([candidate()], inputs)
    known = {SUBJECT.checkpoint: {"preflight": found[SUBJECT.checkpoint], "preflight_by": stamp(inputs)}}
    with pytest.raises(InputError, match="broken weights"):
        preflight_all([Candidate(SUBJECT, load, {})], inputs, known)


def test_remarks_are_in_words() -> None:
    checks = [{"check": "deterministic", "status": "flag", "note": "two passes differ"}]
    passed = [{"check": "deterministic", "status": "pass", "note": "two passes agree"}]
    known = {
        "a": {"model": "m", "recipe": "r", "train_seed": 1, "preflight": checks},
        "b": {"model": "n", "preflight": passed},
    }
    assert remarks({"checkpoints": known | {"c": {"model": "old"}}}) == [
        "m (r, 1): not deterministic: two passes differ"
    ]
    assert label_of(Subject("m", 1, "", "r")) == "m (r)"


@pytest.fixture
def run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., run.Benchmark]:
    """A run of this model in the place of chance, over two points of missing, on data that it may spoil."""
    dataset = make_synth(sizes=(60, 20, 40))

    def call(model: type[Chance], points: str = "0,0.4", **given: Any) -> run.Benchmark:
        monkeypatch.setattr(subjects, "chance", lambda dataset: candidate(model, Subject("chance", 1, model.__name__)))
        out = tmp_path / "run"
        return benchmark("chance", "missing", points, dataset=dataset, seeds=1, references=False, out=out, **given)

    return call


def test_flags_travel(run_with: Callable[..., run.Benchmark], looked: list[Any]) -> None:
    told: list[tuple[str, int]] = []
    result = run_with(Noisy, checked=lambda name, models: told.append((name, models)))
    assert result.cells["flags"].map(list).tolist() == [["deterministic"]] * 2
    about = (Store(result.out).manifest() or {})["checkpoints"]["Noisy"]
    assert flags_of(about["preflight"]) == ["deterministic"]
    assert about["preflight_by"]["device"] == "cpu"
    assert told == [("chance", 1)]
    assert len(looked) == 1

    longer = run_with(Noisy, "0,0.4,0.8")
    assert longer.tally.computed == 1
    assert longer.cells["flags"].map(list).tolist() == [["deterministic"]] * 3
    assert len(looked) == 1, "the folder knows"


def test_a_fail_stops_a_run_before_anything_is_written(run_with: Callable[..., run.Benchmark], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chance: preflight check inputs_untouched failed"):
        run_with(WritesPresent)
    assert not (tmp_path / "run").exists()
    result = run_with(WritesPresent, preflight=False)
    assert result.cells["flags"].map(list).tolist() == [["inputs_untouched"]] * 2
    with pytest.raises(InputError, match="inputs_untouched"):
        run_with(WritesPresent)


def test_a_clean_model_has_no_flags(run_with: Callable[..., run.Benchmark]) -> None:
    assert run_with(Chance).cells["flags"].map(list).tolist() == [[], []]


def test_predictions_from_a_file(
    inputs: Inputs, result_of: Callable[..., Result], request_of: Callable[..., Any]
) -> None:
    result = result_of()
    clean = clean_cell(SUBJECT, inputs.setting)
    request = request_of("noise", "0.5")
    noisy = cell_at(SUBJECT, inputs.setting, request.stress, request.grid.points[-1], 1111)
    checks = {check["check"]: check for check in preflight_imported([(clean, result), (noisy, result)])}
    assert list(checks) == [check.__name__ for check in CHECKS]
    assert {name for name, check in checks.items() if check["status"] == "pass"} == {"shape", "finite", "ids"}
    assert {check["status"] for check in checks.values()} == {"pass", "skip"}

    y_pred = result.y_pred.copy()
    y_pred[:2] = np.nan, np.inf
    broken = Result(**{**vars(result), "y_pred": y_pred})
    checks = {check["check"]: check for check in preflight_imported([(clean, result), (noisy, broken)])}
    assert checks["finite"] == {
        "check": "finite",
        "status": "flag",
        "note": "NaN or infinite predictions in 1 cell, at most 2 (under noise 0.5)",
    }
