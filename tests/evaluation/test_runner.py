"""Encode once, then fuse: the same predictions as corrupting the input and running the whole model, cell by cell."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, STRESSORS, Derived, Grid, InputError, Point, Reference, Stress, corrupt
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.adversary import ModelAdversary
from robustbench_msa.evaluation.cells import Cell, Request, Subject, cell_at, clean_cell, plan
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.store import Result
from robustbench_msa.evaluation.subjects import Oracle
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output
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


# Of the stresses beyond the first seven, on the real models; every one of them is on the listener below.
MORE: list[tuple[str, Point]] = [
    ("frame-missing:legacy=lnln", Point("0.5")),
    ("misalign", Point("0.4")),
    ("drift:modalities=tv", Point("0.7")),
    ("correlated:told=true", Point("0.5")),
    ("missing-random:variant=keep_one", Point("0.6")),
    ("spectrum:variant=mixture", Point("1")),
    ("missing:modalities=a", Point("0.6")),
    ("noise+missing", Point("0.3", "0.4")),
    ("noise+missing", Point("0.3", "0.6")),
    ("noise+missing", Point("0", "0.6")),
    ("conflict+missing-random", Point("0.5", "0.5")),
    ("missing-random+noise-lambda", Point("0.5", "0.5")),
    ("noise+conflict", Point("0.3", "0.75")),
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
    for text, point in CASES + MORE:
        stress = Stress.parse(text)
        seeds = (1111, 1112) if (text, point) in CASES else (1113,)
        for seed in seeds if stress.stressor.random else (None,):
            cell = cell_at(SUBJECT, inputs.setting, stress, point, seed)
            found[cell.key] = cell
    shuffled = list(found.values())
    random.Random(3).shuffle(shuffled)
    return shuffled


@pytest.fixture(scope="module")
def results(models: dict[str, MSAModel], inputs: Inputs, cells: list[Cell]) -> dict[tuple[str, str], list[Result]]:
    """One runner over all cells, so that anything stale in what it keeps would show. By model and way."""
    found = {}
    for name, model in models.items():
        for way, (size, ours) in ways_of(inputs).items():
            runner = Runner(model, ours, size)
            found[name, way] = [runner.run(cell) for cell in cells]
    return found


def ways_of(inputs: Inputs) -> dict[str, tuple[int, Inputs]]:
    """Batch sizes and inputs that all mean the same, by name."""
    stacking, streaming = (Inputs(inputs.dataset, "test") for _ in range(2))
    stacking.stacks = streaming.streams = True
    return {"7": (7, inputs), "256": (256, inputs), "stacked": (100, stacking), "streamed": (16, streaming)}


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
    for cell, result in zip(cells, results[name, "256"], strict=True):
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
    clean = next(r.y_pred for c, r in zip(cells, results[name, "256"], strict=True) if c.is_clean)
    for cell, result in zip(cells, results[name, "256"], strict=True):
        if not cell.is_clean and not (cell.stress == "misalign" and name == "late_fusion"):  # it reads means over time
            assert np.abs(result.y_pred - clean).max() > 1e-3, f"{name} {cell.stress} {cell.point}"


@pytest.mark.parametrize("way", ["7", "stacked", "streamed"])
@pytest.mark.parametrize("name", NAMES)
def test_the_way_does_not_matter(name, way, results) -> None:
    for small, large in zip(results[name, way], results[name, "256"], strict=True):
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


class Listener(MSAModel):
    """Reads all that a batch can hold: every step by its place, lengths, presence, and derived inputs."""

    name = "listener"

    def __init__(self, dims: tuple[int, int, int]) -> None:
        super().__init__(InputSpec(dims), None)
        generator = torch.Generator().manual_seed(8)
        self.weights = {m: torch.randn(d, 4, generator=generator) for m, d in zip(MODALITIES, dims, strict=True)}

    def derived_inputs(self) -> tuple[str, ...]:
        return tuple(SOURCES)

    def encode_modality(self, modality: str, x: Any, lengths: Any) -> Any:
        t = torch.arange(x.shape[1])
        valid = t < lengths[:, None]
        states = torch.tanh(x.nan_to_num(7.0) @ self.weights[modality]) + 0.1  # what is zero still counts by its length
        return {"states": torch.where(valid[:, :, None], states * torch.cos(t)[:, None], 0.0), "lengths": lengths}

    def encode_derived(self, name: str, values: Any) -> Any:
        return {"sum": torch.tanh(values + 0.5).flatten(1).sum(1)}

    def fuse(self, encoded: Encoded, present: Any) -> Output:
        parts = [
            (encoded.part(m)["states"].sum(1) / encoded.part(m)["lengths"].clamp(min=1)[:, None]).sum(1)
            for m in MODALITIES
        ]
        heard = torch.stack(parts, 1) * present * torch.tensor([1.0, 2.0, 3.0])
        read = torch.stack([encoded.derived[name]["sum"] for name in SOURCES], 1)
        return Output(heard.sum(1) + read.sum(1) * (1 + present.sum(1)), {"heard": heard, "read": read})


SOURCES = {"clues": ("audio",), "caption": ("audio", "vision"), "comment": ("text", "audio", "vision")}
EVERY_STRESS: dict[str, tuple[str, ...]] = {
    **{name: ("0.3", "0.5") for name, s in STRESSORS.items() if len(s.axes) == 1 and not s.needs_adversary},
    "missing-fixed": ("t", "a+v", "v"),
    "spectrum": ("0.3x0.5", "0.3x0.2", "0.6x0", "0x0.4"),
    "spectrum:variant=mixture": ("1", "0.5"),
    "missing-random:variant=keep_one": ("0.5", "1"),
    "missing-random:variant=keep_one,told=false": ("0.5",),
    "frame-missing:legacy=lnln": ("0.5",),
    "misalign:direction=early": ("0.5",),
    "conflict:modalities=v": ("1",),
    "conflict-control:modalities=a": ("1",),
    "missing:modalities=ta": ("0.7",),
    "burst:modalities=v,fill=mean": ("0.5",),
    "imbalanced:fill=mean,told=true": ("0.6",),
}
COMPOSED = [
    f"{a}+{b}"
    for a, b in itertools.permutations([n for n, s in STRESSORS.items() if len(s.axes) == 1 and n != "worst-case"], 2)
    if not STRESSORS[a].purposes & STRESSORS[b].purposes
]
# On every composition one point, on these whole grids: rows of one noise level, columns of one loss, and both ends.
GRIDS = (
    "noise+missing",
    "noise-lambda+missing-random:fill=mean",
    "missing-random+noise-lambda",
    "missing+noise",
    "conflict+missing-random",
    "conflict+missing",
    "missing-random+conflict",
    "missing+conflict",
    "noise+conflict",
    "conflict+burst",
    "imbalanced+missing",
    "missing+imbalanced",
    "asr+correlated:told=true",
    "noise+missing:noise.modalities=a,missing.modalities=av",
)


@pytest.fixture(scope="module")
def told_inputs(gappy: Dataset) -> Inputs:
    """Samples with natural absence, derived inputs, ragged lengths with 0 and 1 among them, and junk in the padding."""
    splits = {}
    for split, batch in gappy.splits.items():
        generator = torch.Generator().manual_seed(len(batch))
        changes: dict[str, Any] = {}
        for k, m in enumerate(MODALITIES):
            x, steps = batch.features(m)[:, :10], torch.arange(10)
            lengths = torch.randint(2, 11, (len(batch),), generator=generator)
            lengths[k], lengths[5 + k] = 0, 1
            changes |= {m: torch.where(steps[:, None] < lengths[:, None, None], x, 9.0), f"{m}_lengths": lengths}
        derived = {n: Derived(torch.randn(len(batch), 3, 2, generator=generator), s) for n, s in SOURCES.items()}
        splits[split] = batch.replace(**changes, derived=derived)
    return Inputs(Dataset("told", splits, text_at="tokens"), "test")


@pytest.fixture(scope="module")
def told_cells(told_inputs: Inputs) -> list[Cell]:
    """Every stress, composition and grid above; neighbours differ in one severity, option or seed alone."""
    wanted = [(text, severity) for text, severities in EVERY_STRESS.items() for severity in severities]
    wanted += [(text, "0.5x0.4") for text in COMPOSED]
    wanted += [(text, "0,0.4,0.7x0,0.3,0.6") for text in GRIDS]
    found = {}
    for text, severity in sorted(wanted, key=lambda pair: (pair[0].partition(":")[0], pair[1])):
        stress = Stress.parse(text)
        for point in stress.grid(severity).points:
            for seed in seeds_of(stress, text):
                cell = cell_at(SUBJECT, told_inputs.setting, stress, point, seed)
                found[cell.key] = cell
    return list(found.values())


def seeds_of(stress: Stress, text: str) -> tuple[int | None, ...]:
    if not stress.stressor.random:
        return (None,)
    return (1111, 1112) if text in EVERY_STRESS or text == "noise+missing" else (1111,)


@pytest.mark.parametrize(("size", "shuffle"), [(7, True), (256, False)])
def test_every_stress_and_composition_is_the_plain_way(told_inputs, told_cells, size, shuffle) -> None:
    """In the order above whatever is kept too long would show; shuffled, whatever is dropped too soon."""
    model, cells = Listener(told_inputs.dataset.dims).eval(), list(told_cells)
    if shuffle:
        random.Random(4).shuffle(cells)
    runner = Runner(model, told_inputs, size)
    clean = runner.run(clean_cell(SUBJECT, told_inputs.setting)).y_pred
    for cell in cells:
        what = f"{cell.stress}:{cell.params} at {cell.point}"
        with torch.inference_mode():
            batch = told_inputs.corruption(cell).batch
            output = model(batch)
        result = runner.run(cell)
        np.testing.assert_allclose(result.y_pred, output.prediction.numpy(), rtol=0, atol=1e-4, err_msg=what)
        for extra, values in output.extras.items():
            np.testing.assert_allclose(result.extras[extra], values.numpy(), rtol=0, atol=1e-4, err_msg=what)
        np.testing.assert_array_equal(result.present, batch.present.numpy(), err_msg=what)
        if not cell.is_clean:
            assert np.abs(result.y_pred - clean).max() > 1e-3, what
            assert np.isfinite(result.y_pred).all(), what


def test_cells_of_the_public_function_are_those_of_the_runner(told_inputs, told_cells) -> None:
    """The corruption a cell is run with is what ``corrupt`` gives for its label, severity and seed."""
    batch = told_inputs.batch
    for cell in told_cells[::6]:
        severity = cell.condition or tuple(s for s in (cell.severity, cell.severity_2) if s is not None)
        severity = severity[0] if isinstance(severity, tuple) and len(severity) == 1 else severity
        again = corrupt(batch, cell.to_stress().label, severity, cell.seed or 0, told_inputs.reference)
        ours = told_inputs.corruption(cell).batch
        for m in MODALITIES:
            np.testing.assert_array_equal(ours.features(m), again.features(m))
            np.testing.assert_array_equal(ours.lengths(m), again.lengths(m))
        for name, d in again.derived.items():
            np.testing.assert_array_equal(ours.derived[name].values, d.values)


@pytest.mark.parametrize(
    ("stress", "grid", "passes"),
    [
        ("noise+missing", "0,0.3x0:0.8:0.2", 1 + 1 + 1),  # clean; absent; one noise level, whatever m
        ("conflict+missing", "0,0.5x0:0.8:0.2", 1 + 1 + 1),  # clean; absent; what conflict has swapped, once
        ("missing-random+noise-lambda", "0,0.5x0,0.3", 1 + 1 + 1 + 1),  # clean; lost; noise alone; noise on the zeros
        ("misalign", None, 1 + 5),
        ("conflict-control", None, 1),
        ("imbalanced", None, 2),
        ("correlated:told=true", None, 2),
    ],
)
def test_encoders_of_compositions_run_as_often_as_promised(stress, grid, passes, told_inputs, monkeypatch) -> None:
    model = Listener(told_inputs.dataset.dims).eval()
    calls = counted(model, monkeypatch)
    parsed = Stress.parse(stress)
    runner = Runner(model, told_inputs, 256)
    for cell in plan([SUBJECT], told_inputs.setting, [Request(parsed, parsed.grid(grid), (1111,))]):
        runner.run(cell)
    assert calls["audio"] == passes


@pytest.mark.parametrize(
    "options",
    ["", "steps=3", "modalities=a", "attack=draws,draws=3", "attack=draws,of=missing", "attack=draws,of=conflict"],
)
def test_a_worst_case_is_run_on_what_the_model_itself_found(models, inputs, gappy, options) -> None:
    stress = Stress.parse(f"worst-case:{options}")
    cell = cell_at(SUBJECT, inputs.setting, stress, Point("0.4"), 1111)
    for name, model in models.items():
        runner = Runner(model, inputs, 256)
        clean, result = runner.run(clean_cell(SUBJECT, inputs.setting)), runner.run(cell)
        batch = gappy.splits["test"]
        adversary = ModelAdversary(model, 256)
        found = corrupt(batch, stress.label, "0.4", 1111, inputs.reference, adversary=adversary)
        with torch.inference_mode():
            expected = model(found).prediction
        np.testing.assert_allclose(result.y_pred, expected.numpy(), rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(result.present, found.present.numpy())
        assert result.facts["input_digest"] is None  # nothing that models could share
        y = result.y_true
        if "draws" not in options:
            assert bool((np.abs(result.y_pred - y) >= np.abs(clean.y_pred - y) - 1e-5).all())
            assert np.abs(result.y_pred - y).mean() > np.abs(clean.y_pred - y).mean() + 1e-3


def test_a_worst_case_after_other_cells(models, inputs) -> None:
    """What was made in inference mode before must not stop the gradients."""
    fresh, used = Runner(models["qa_moe"], inputs, 256), Runner(models["qa_moe"], inputs, 256)
    cell = cell_at(SUBJECT, inputs.setting, Stress.parse("worst-case:steps=2"), Point("0.3"), 1111)
    expected = fresh.run(cell).y_pred
    for text in ("noise", "missing", "conflict"):
        used.run(cell_at(SUBJECT, inputs.setting, Stress.parse(text), Point("0.3"), 1111))
    np.testing.assert_array_equal(used.run(cell).y_pred, expected)


def test_who_has_no_gradients_has_no_worst_case(dataset) -> None:
    inputs = Inputs(dataset, "test")
    cell = cell_at(SUBJECT, inputs.setting, Stress.parse("worst-case"), Point("0.3"), 1111)
    with pytest.raises(InputError, match="worst-case depends on the model: pass an adversary"):
        Runner(Oracle(), inputs, 256).run(cell)
