"""Which stresses the oracle has an answer to, and that it is told the noise that was really added."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, STRESSORS, InputError, Stress
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.oracle import decisions, posterior
from robustbench_msa.data.synth import SynthModel, make_synth
from robustbench_msa.evaluation.cells import Subject, cell_at, clean_cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.subjects import Oracle, oracle, oracle_covers

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
