"""Encode once, then fuse: the same predictions as corrupting the input and running the whole model, cell by cell."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import Grid, Point, Reference, Stress, corrupt
from robustbench_msa.evaluation.cells import Cell, Request, Subject, cell_at, clean_cell, plan
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.store import Result
from robustbench_msa.evaluation.subjects import Oracle
from robustbench_msa.models.contract import InputSpec, MSAModel
from robustbench_msa.models.registry import model_class

NAMES = ("late_fusion", "qa_moe", "rider_moe")
SUBJECT = Subject("any", 1, "c" * 64)
CASES: list[tuple[str, Point]] = [
    ("missing", Point("0.4")),
    ("missing", Point("0.8")),
    ("missing:fill=mean", Point("0.6")),
    ("missing-fixed", Point(condition="t")),
    ("missing-fixed", Point(condition="a+v")),
    ("missing-fixed:fill=mean", Point(condition="v")),
    ("missing-random", Point("0.5")),
    ("missing-random", Point("1")),
    ("missing-random:told=true", Point("0.5")),
    ("missing-random:fill=mean", Point("0.5")),
    ("missing-random:fill=mean,told=true", Point("0.5")),
    ("conflict", Point("0.5")),
    ("conflict", Point("1")),
    ("noise", Point("0.3")),
    ("noise:fill=mean", Point("0.3")),
    ("noise:sigma_ref=modality", Point("1")),
    ("noise-lambda", Point("0.5")),
    ("noise-lambda", Point("2")),
    ("noise-lambda:fill=mean", Point("0.3")),
    ("spectrum", Point("0.3", "0.5")),
    ("spectrum", Point("0.3", "0.2")),
    ("spectrum", Point("0", "0.5")),
    ("spectrum", Point("0.3", "0")),
    ("spectrum:told=true", Point("0.3", "0.5")),
    ("spectrum:fill=mean", Point("0.3", "0.5")),
]


def random_model(name: str, dims: tuple[int, int, int], train: Any) -> MSAModel:
    """Random weights everywhere, also where training starts from zeros: an all-zero part would hide a difference."""
    cls = model_class(name)
    config = cls.presets["synth"]
    if name == "rider_moe":
        config = replace(config, mask="random")
    torch.manual_seed(5)
    model = cls(InputSpec(dims), config)
    model.fit_statistics(train)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def inputs(gappy) -> Inputs:
    return Inputs(gappy, "test")


@pytest.fixture(scope="module")
def models(gappy) -> dict[str, MSAModel]:
    return {name: random_model(name, gappy.dims, gappy.splits["train"]) for name in NAMES}


@pytest.fixture(scope="module")
def cells(inputs: Inputs) -> list[Cell]:
    """Every case for two seeds (one where nothing is drawn), and the clean cell, in a shuffled order."""
    found = {clean_cell(SUBJECT, inputs.setting).key: clean_cell(SUBJECT, inputs.setting)}
    for text, point in CASES:
        stress = Stress.parse(text)
        for seed in (1111, 1112) if stress.stressor.random else (None,):
            cell = cell_at(SUBJECT, inputs.setting, stress, point, seed)
            found[cell.key] = cell
    shuffled = list(found.values())
    random.Random(3).shuffle(shuffled)
    return shuffled


@pytest.fixture(scope="module")
def results(models: dict[str, MSAModel], inputs: Inputs, cells: list[Cell]) -> dict[tuple[str, int], list[Result]]:
    """One runner over all cells, so that anything stale in what it keeps would show. By model and batch size."""
    found = {}
    for name, model in models.items():
        for size in (7, 256):
            runner = Runner(model, inputs, size)
            found[name, size] = [runner.run(cell) for cell in cells]
    return found


def plainly(model: MSAModel, gappy: Any, cell: Cell) -> tuple[Any, Any]:
    """The corrupted batch from the public function, and the whole model on it."""
    batch = gappy.splits["test"]
    if not cell.is_clean:
        severity = cell.condition or tuple(s for s in (cell.severity, cell.severity_2) if s is not None)
        severity = severity[0] if isinstance(severity, tuple) and len(severity) == 1 else severity
        reference = Reference.fit(gappy.splits["train"])
        batch = corrupt(batch, cell.to_stress().label, severity, cell.seed or 0, reference, batch)
    with torch.inference_mode():
        return batch, model(batch)


@pytest.mark.parametrize("name", NAMES)
def test_encode_once_is_the_plain_way(name, models, gappy, cells, results) -> None:
    for cell, result in zip(cells, results[name, 256], strict=True):
        batch, output = plainly(models[name], gappy, cell)
        what = f"{name} {cell.stress}:{cell.params} at {cell.point}, seed {cell.seed}"
        np.testing.assert_allclose(result.y_pred, output.prediction.numpy(), rtol=0, atol=1e-5, err_msg=what)
        np.testing.assert_array_equal(result.present, batch.present.numpy(), err_msg=what)
        assert set(result.extras) == set(output.extras), what
        for extra, values in output.extras.items():
            np.testing.assert_allclose(
                result.extras[extra], values.numpy(), rtol=0, atol=1e-5, err_msg=f"{what}: {extra}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_the_corruptions_really_bite(name, cells, results) -> None:
    """Otherwise the comparison above says nothing."""
    clean = next(r.y_pred for c, r in zip(cells, results[name, 256], strict=True) if c.is_clean)
    for cell, result in zip(cells, results[name, 256], strict=True):
        if not cell.is_clean:
            assert np.abs(result.y_pred - clean).max() > 1e-3, f"{name} {cell.stress} {cell.point}"


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_does_not_matter(name, results) -> None:
    for small, large in zip(results[name, 7], results[name, 256], strict=True):
        np.testing.assert_allclose(small.y_pred, large.y_pred, rtol=0, atol=1e-5)
        for extra, values in large.extras.items():
            assert small.extras[extra].shape == values.shape
            np.testing.assert_allclose(small.extras[extra], values, rtol=0, atol=1e-5)


def test_digests_are_equal_across_models_and_batch_sizes(models, gappy, cells, results) -> None:
    fresh = Runner(models["late_fusion"], Inputs(gappy, "test"), 13)  # nothing shared with the others
    expected = [fresh.run(cell).facts for cell in cells]
    assert len({facts["input_digest"] for facts in expected}) == len(cells), "each cell's input has its own digest"
    for found in results.values():
        for facts, result in zip(expected, found, strict=True):
            assert result.facts["input_digest"] == facts["input_digest"]
            assert result.facts["realised"] == facts["realised"]


def test_everything_of_a_result_is_in_the_order_of_the_split(gappy, results) -> None:
    batch = gappy.splits["test"]
    for found in results.values():
        for result in found:
            assert tuple(result.ids) == batch.ids
            assert tuple(result.groups) == batch.groups
            np.testing.assert_array_equal(result.y_true, batch.labels.numpy())
            assert result.y_pred.dtype == np.float32


def counted(model: MSAModel, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    calls: Counter[str] = Counter()
    encode = type(model).encode_modality

    def count(self: MSAModel, modality: str, x: Any, lengths: Any) -> Any:
        calls[modality] += 1
        return encode(self, modality, x, lengths)

    monkeypatch.setattr(type(model), "encode_modality", count)
    return calls


@pytest.mark.parametrize(
    ("stress", "grid", "passes"),
    [
        ("missing", "0:0.8:0.2", {"text": 2, "audio": 2, "vision": 2}),  # clean, absent
        ("missing", "0:0.9:0.1", {"text": 2, "audio": 2, "vision": 2}),  # whatever the grid
        ("missing-fixed", None, {"text": 2, "audio": 2, "vision": 2}),
        ("missing-random", None, {"text": 2, "audio": 2, "vision": 2}),  # clean, lost
        ("missing-random:told=true", None, {"text": 2, "audio": 2, "vision": 2}),
        ("conflict", None, {"text": 1, "audio": 1, "vision": 1}),  # donors come from the clean encoding
        ("noise", "0:0.5:0.1", dict.fromkeys(("text", "audio", "vision"), 1 + 5 * 3)),  # clean; rho x seeds
        ("noise-lambda", "0:0.4:0.2", dict.fromkeys(("text", "audio", "vision"), 1 + 2 * 3)),
        # clean; lost; lambda x seeds, whatever eta
        ("spectrum", "0:0.4:0.2x0:0.6:0.2", dict.fromkeys(("text", "audio", "vision"), 1 + 1 + 2 * 3)),
    ],
)
@pytest.mark.parametrize("size", [256, 16])
def test_encoders_run_as_often_as_promised(stress, grid, passes, size, gappy, inputs, monkeypatch) -> None:
    model = random_model("late_fusion", gappy.dims, gappy.splits["train"])
    calls = counted(model, monkeypatch)
    parsed = Stress.parse(stress)
    request = Request(parsed, parsed.grid(grid), (1111, 1112, 1113))
    runner = Runner(model, inputs, size)
    for cell in plan([SUBJECT], inputs.setting, [request]):
        runner.run(cell)
    chunks = -(-len(gappy.splits["test"]) // size)
    assert calls == {modality: n * chunks for modality, n in passes.items()}


def test_one_encoding_serves_all_stresses_of_whole_modalities(gappy, inputs, monkeypatch) -> None:
    model = random_model("late_fusion", gappy.dims, gappy.splits["train"])
    calls = counted(model, monkeypatch)
    requests = []
    for text in ("missing", "missing-fixed", "conflict", "missing-random", "missing-random:told=true"):
        stress = Stress.parse(text)
        requests.append(Request(stress, stress.grid(None), (1111, 1112)))
    runner = Runner(model, inputs, 256)
    for cell in plan([SUBJECT], inputs.setting, requests):
        runner.run(cell)
    assert calls == {"text": 3, "audio": 3, "vision": 3}  # clean, told absent, lost untold


def test_the_model_is_left_as_it_was(models, inputs, cells) -> None:
    """No gradients, no state, no global random numbers."""
    model = models["rider_moe"]
    before = {name: x.clone() for name, x in model.state_dict().items()}
    torch.manual_seed(9)
    state = torch.get_rng_state()
    Runner(model, inputs, 256).run(cells[0])
    assert torch.equal(torch.get_rng_state(), state)
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name])


def test_an_oracle_sees_the_corrupted_input_and_the_cell(dataset) -> None:
    inputs = Inputs(dataset, "test")
    runner = Runner(Oracle(), inputs, 256)
    stress = Stress.parse("missing-random")
    clean = runner.run(clean_cell(SUBJECT, inputs.setting))
    gone = runner.run(cell_at(SUBJECT, inputs.setting, stress, Point("1"), 1111))
    assert np.ptp(clean.y_pred) > 0.5
    np.testing.assert_allclose(gone.y_pred, gone.y_pred[0], atol=1e-3)  # with nothing to see it is a constant
    y = clean.y_true
    assert np.abs(clean.extras["for_mae"] - y).mean() < np.abs(gone.extras["for_mae"] - y).mean()


def test_draws_of_many_seeds_do_not_pile_up(dataset, monkeypatch) -> None:
    monkeypatch.setattr("robustbench_msa.evaluation.inputs.DRAWS_BYTES", 1)
    inputs = Inputs(dataset, "test")
    first = inputs.draws(1111).uniform("order", "text").clone()
    for seed in range(1112, 1120):
        inputs.draws(seed)
    assert len(inputs._draws) == 1
    assert torch.equal(inputs.draws(1111).uniform("order", "text"), first)


def test_a_grid_of_nothing_but_clean_needs_no_draws(dataset) -> None:
    stress = Stress.parse("missing")
    request = Request(stress, Grid.parse("0", stress.stressor.axes), (1111,))
    inputs = Inputs(dataset, "test")
    (cell,) = plan([SUBJECT], inputs.setting, [request])
    assert cell.is_clean
    model = random_model("late_fusion", dataset.dims, dataset.splits["train"])
    result = Runner(model, inputs, 256).run(cell)
    with torch.inference_mode():
        np.testing.assert_allclose(result.y_pred, model(dataset.splits["test"]).prediction.numpy(), atol=1e-6)
