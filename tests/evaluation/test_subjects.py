"""Which stresses the oracle has an answer to, that it is told the noise really added; models from outside."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from corruptions import MODALITIES, STRESSORS, InputError, Stress
from robustbench_msa.adapters.hub import Place
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.oracle import decisions, posterior
from robustbench_msa.data.synth import SynthModel, make_synth
from robustbench_msa.evaluation import subjects
from robustbench_msa.evaluation.cells import Subject, cell_at, clean_cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.subjects import Oracle, from_adapter, from_outside, oracle, oracle_covers

NOISY = {"noise", "noise-lambda", "spectrum"}
SUBJECT = Subject("oracle", 1, "o" * 64)
LOSING = {"missing", "missing-fixed", "missing-random", "frame-missing", "burst", "imbalanced", "correlated"}
COVERED = [
    ("noise", "0.3"),
    ("noise:sigma_ref=modality", "0.5"),
    ("noise-lambda:modalities=a", "0.7"),
    ("noise-lambda:modalities=t", "0.7"),
    ("spectrum", "0.6x0.4"),
    ("spectrum:told=true", "0x0.4"),
    ("missing", "0.6"),
    ("missing-fixed", "a"),
    ("missing-random:variant=keep_one", "0.6"),
    ("frame-missing", "0.5"),
    ("frame-missing:legacy=lnln", "0.5"),
    ("burst", "0.6"),
    ("imbalanced", "0.6"),
    ("correlated", "0.6"),
    ("noise+missing", "0.3x0.6"),
    ("noise+missing", "0x0.6"),
    ("noise-lambda+burst:noise-lambda.modalities=v", "0.6x0.5"),
    ("missing+frame-missing", "0.4x0.5"),
    ("noise-lambda+missing-random:noise-lambda.sigma_ref=modality", "0.5x0.5"),
]


@pytest.mark.parametrize("name", STRESSORS)
def test_single_stresses(name: str) -> None:
    assert oracle_covers(Stress.parse(name)) == (name in NOISY | LOSING | {"conflict"})


@pytest.mark.parametrize(("text", "severity"), COVERED)
def test_what_it_covers(text: str, severity: str) -> None:
    assert oracle_covers(Stress.parse(text))
    Stress.parse(text).grid(severity)


@pytest.mark.parametrize(
    "text",
    [
        "spectrum:variant=mixture",  # a level that it would have to infer
        "missing:fill=mean",  # means look like something heard
        "noise:fill=mean",
        "burst:fill=mean",
        "missing-random:fill=mean,told=true",
        "conflict:modalities=a",  # another prior over what is swapped
        "missing+noise",  # zeros with noise on top look like something heard
        "missing-random+noise-lambda",
        "noise+missing:missing.fill=mean",
        "noise+missing:noise.fill=mean",
        "conflict+missing",
        "missing+conflict",
        "drift+missing",
        "asr+missing",
        "worst-case",
        "worst-case:attack=draws",
        "worst-case:attack=draws,of=missing",
    ],
)
def test_what_it_does_not_cover(text: str) -> None:
    assert not oracle_covers(Stress.parse(text))


def test_compositions_are_covered_when_all_after_the_first_only_lose() -> None:
    single = [name for name, s in STRESSORS.items() if len(s.axes) == 1 and not s.needs_adversary]
    for a, b in itertools.permutations(single, 2):
        if not STRESSORS[a].purposes & STRESSORS[b].purposes:
            assert oracle_covers(Stress.parse(f"{a}+{b}")) == (a in NOISY | LOSING and b in LOSING)


@pytest.fixture(scope="module")
def inputs(gappy: Dataset) -> Inputs:
    return Inputs(gappy, "test")


def added_noise(inputs: Inputs, text: str, severity: str) -> dict[str, Any]:
    """The noise's standard deviation per feature, from the words of the stress alone."""
    stress, options = Stress.parse(text), dict(Stress.parse(text).options)
    first = stress.name.partition("+")[0]
    level = float(severity.partition("x")[0]) if first in NOISY else 0.0
    own = {key.removeprefix(f"{first}."): value for key, value in options.items()}
    found = {}
    for m in ("audio", "vision"):
        if level and m[0] in str(own.get("modalities", "tav")):
            sigma = inputs.reference.sigma[m].double().numpy()
            whole = own.get("sigma_ref") == "modality"
            found[m] = level * (np.full_like(sigma, np.sqrt(np.mean(sigma**2))) if whole else sigma)
    return found


@pytest.mark.parametrize(("text", "severity"), COVERED)
def test_it_is_the_posterior_given_the_noise_that_was_added(inputs: Inputs, text: str, severity: str) -> None:
    stress = Stress.parse(text)
    (point,) = stress.grid(severity).points
    cell = cell_at(SUBJECT, inputs.setting, stress, point, 1111 if stress.stressor.random else None)
    corruption = inputs.corruption(cell)
    mixture = posterior(corruption.batch, SynthModel.default(), added_noise(inputs, text, severity))
    result = Runner(Oracle(), inputs, 256).run(cell)
    np.testing.assert_allclose(result.y_pred, decisions(mixture)["mean"], atol=1e-5)
    assert np.isfinite(result.y_pred).all()
    noise = corruption.features.batch
    for m in MODALITIES[1:]:  # and it really was added: its spread, seen from the data
        if added_noise(inputs, text, severity).get(m) is not None and corruption.before is None:
            there = inputs.batch.valid(m) & inputs.batch.present[:, MODALITIES.index(m), None]
            there &= ~corruption.features.lost.get(m, torch.zeros_like(there))
            z = (noise.features(m) - inputs.batch.features(m))[there].numpy() / added_noise(inputs, text, severity)[m]
            assert abs(np.square(z).mean() - 1) < 3 * np.sqrt(2 / z.size)


def test_less_is_seen_under_every_stress_it_covers() -> None:
    """The best there is cannot get better by losing things: beyond three standard errors, it would be no bound."""
    inputs = Inputs(make_synth(sizes=(200, 4, 300)), "test")
    runner = Runner(Oracle(), inputs, 256)
    clean = runner.run(clean_cell(SUBJECT, inputs.setting))
    best = np.abs(clean.extras["for_mae"] - clean.y_true)
    for text, severity in COVERED:
        stress = Stress.parse(text)
        (point,) = stress.grid(severity).points
        cell = cell_at(SUBJECT, inputs.setting, stress, point, 1111 if stress.stressor.random else None)
        worse = np.abs(runner.run(cell).extras["for_mae"] - clean.y_true) - best
        assert worse.mean() > -3 * worse.std() / np.sqrt(300), text


def test_only_synthetic_data_has_one(gappy: Dataset, dataset: Dataset) -> None:
    candidate = oracle(dataset)
    assert candidate.covers is oracle_covers
    assert not candidate.covers(Stress.parse("drift"))
    with pytest.raises(InputError, match="oracle: the best prediction is known on the synthetic dataset only, not on"):
        oracle(gappy)


# --- the parts of a composition


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("missing:fill=mean", [("missing", {"fill": "mean"})]),
        ("noise+missing:missing.fill=zeros", [("noise", {"fill": "auto"}), ("missing", {"fill": "zeros"})]),
        (
            "frame-missing+missing:modalities=a",
            [("frame-missing", {"modalities": "a"}), ("missing", {"modalities": "a"})],
        ),
    ],
)
def test_the_parts_of_a_stress_have_their_own_parameters(text: str, parts: list[tuple[str, dict[str, str]]]) -> None:
    found = subjects._parts(Stress.parse(text))
    assert [name for name, _ in found] == [name for name, _ in parts]
    for (_, options), (_, expected) in zip(found, parts, strict=True):
        assert expected.items() <= options.items()
        assert not any("." in key for key in options)


# --- models from outside

PROGRAM = """
import itertools
import torch
from torch import nn
from robustbench_msa.adapters import adapt

numbers = itertools.count()

class Mean(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([float(scale)]))

    def forward(self, text, audio, vision):
        return {"M": self.scale * text.mean((1, 2)), "gates": torch.ones(len(text), 3) / 3}

def build(spec):
    assert spec.dims == (48, 24, 16)
    return adapt(Mean(2), extras={"routing": "gates"})

def named():
    return adapt(Mean(2), name="their-mean", version=3)

def taken():
    return adapt(Mean(2), name="qa_moe")

def wide():
    return nn.Linear(7, 1)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(PROGRAM, "utf-8")
    return "mine.py:build"


def test_a_model_from_outside_is_a_candidate_like_any_other(program: str, dataset: Dataset) -> None:
    candidate = from_adapter(program, None, dataset, "cpu", recipe="spectrum", train_seed=5)
    subject = candidate.subject
    assert (subject.model, subject.model_version, subject.recipe, subject.train_seed) == (
        "mine.build",
        1,
        "spectrum",
        5,
    )
    assert candidate.covers(Stress.parse("worst-case"))
    assert candidate.about["selection"] == {"split": "unknown"}
    assert candidate.about["parameters"] == 1
    inputs = Inputs(dataset, "test")
    result = Runner(candidate.load(), inputs, 16).run(clean_cell(subject, inputs.setting))
    batch = dataset.splits["test"]
    shown = torch.where(batch.valid("text")[..., None], batch.text, 0.0)
    np.testing.assert_allclose(result.y_pred, 2 * shown.mean((1, 2)), rtol=1e-5)
    assert result.extras["routing"].shape == (40, 3)


def test_names_and_versions(program: str, dataset: Dataset) -> None:
    subject = from_adapter("mine.py:named", None, dataset, "cpu").subject
    assert (subject.model, subject.model_version) == ("their-mean", 3)
    assert from_adapter("mine.py:named", None, dataset, "cpu", name="other").subject.model == "other"
    with pytest.raises(InputError, match="--name qa_moe: this is a model of msabench; choose another name"):
        from_adapter("mine.py:taken", None, dataset, "cpu")
    for name in ("chance", "late_fusion-tokens", "a b", "", "x" * 65, "../x"):
        with pytest.raises(InputError, match="--name"):
            from_adapter(program, None, dataset, "cpu", name=name)


def test_it_is_tried_when_it_is_loaded(program: str, dataset: Dataset) -> None:
    Path("mine.py").write_text(PROGRAM.replace("text.mean((1, 2))", "text @ torch.ones(7)"), "utf-8")
    candidate = from_adapter(program, None, dataset, "cpu")
    with pytest.raises(
        InputError, match=r"a pass over 3 samples \(text \(3, 24, 48\), .* raised RuntimeError: size mism"
    ):
        candidate.load()


def test_a_program_that_builds_another_model_each_time(program: str, dataset: Dataset) -> None:
    Path("mine.py").write_text(PROGRAM.replace("float(scale)", "float(next(numbers))"), "utf-8")
    candidate = from_adapter(program, None, dataset, "cpu")
    with pytest.raises(InputError, match="it built another model the second time"):
        candidate.load()


def test_weights_beside_their_card(program: str, dataset: Dataset) -> None:
    for seed in (7, 8, 9):
        torch.save({"state_dict": {"module.scale": torch.tensor([float(seed)])}, "epoch": 3}, f"{seed}.pth")
    Path("8.card.json").write_text('{"recipe": "missing", "train_seed": 88, "selection": "test"}', "utf-8")
    paths = [Path(f"{seed}.pth") for seed in (7, 8, 9)]
    made, models, rest = from_outside([program, "qa_moe"], paths, dataset, "cpu", train_seed=3, name="mine")
    assert (models, rest) == (["qa_moe"], [])
    labels = [(c.subject.model, c.subject.recipe, c.subject.train_seed) for c in made]
    assert labels == [("mine", "clean", 3), ("mine", "missing", 88), ("mine", "clean", 5)]
    assert [c.about["selection"]["split"] for c in made] == ["unknown", "test", "unknown"]
    assert made[0].about["loaded"] == ["took 'state_dict', beside epoch", "took 'module.' off the names"]
    assert len({c.subject.checkpoint for c in made}) == 3
    assert [c.load().module.scale.item() for c in made] == [7, 8, 9]  # type: ignore[union-attr]


def test_a_name_is_for_one_model(program: str, dataset: Dataset) -> None:
    for models in (["qa_moe"], [program, "mine.py:named"]):
        with pytest.raises(InputError, match="--name mine: it names one model from outside"):
            from_outside(models, [], dataset, "cpu", name="mine")


def test_what_is_on_the_hub_is_in_the_manifest(program: str, dataset: Dataset) -> None:
    Path("repo").mkdir()
    safetensors.torch.save_file({"scale": torch.tensor([4.0])}, "repo/model.safetensors")
    about = from_adapter(program, Place(Path("repo"), "owner/name", "abc"), dataset, "cpu").about
    assert (about["hub"], about["revision"], about["path"]) == (
        "owner/name",
        "abc",
        str(Path("repo/model.safetensors")),
    )


def test_the_data_is_described_to_the_program(dataset: Dataset, gappy: Dataset) -> None:
    spec = subjects.spec_of(dataset)
    assert (spec.dims, spec.label_range, spec.num_classes, dict(spec.derived)) == ((48, 24, 16), (-3.0, 3.0), 0, {})
    classes = {split: b.replace(labels=(b.labels > 0).long()) for split, b in dataset.splits.items()}
    assert subjects.spec_of(Dataset("two", classes, profile="classification")).num_classes == 2
    assert subjects.spec_of(Dataset("sims", dataset.splits, profile="sims")).label_range == (-1.0, 1.0)
