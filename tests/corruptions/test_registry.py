"""Stresses as people type them, and what every stressor promises: identity at 0, and the same input for everyone."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, STRESSORS, Batch, InputError, Reference, Stress, corrupt
from corruptions.registry import describe


def test_defaults_and_telling_are_those_of_the_table() -> None:
    grids = {name: stressor.default_grid for name, stressor in STRESSORS.items()}
    assert grids == {
        "noise": "0:0.5:0.1",
        "missing": "0:0.8:0.2",
        "conflict": "0:1:0.25",
        "missing-fixed": "t,a,v,t+a,t+v,a+v,t+a+v",
        "missing-random": "0:0.7:0.1",
        "noise-lambda": "0:0.7:0.1",
        "spectrum": "0:0.7:0.1x0:0.7:0.1",
    }
    assert {name for name, stressor in STRESSORS.items() if stressor.told} == {"missing", "missing-fixed"}
    assert {name: " x ".join(map(str, stressor.axes)) for name, stressor in STRESSORS.items()} == {
        "noise": "rho in [0, 1]",
        "missing": "m in [0, 1)",
        "conflict": "c in [0, 1]",
        "missing-fixed": "",
        "missing-random": "eta in [0, 1]",
        "noise-lambda": "lambda in [0, 2]",
        "spectrum": "lambda in [0, 2] x eta in [0, 1]",
    }
    assert [row["name"] for row in describe()] == list(STRESSORS)


@pytest.mark.parametrize("text", ["missing", "missing:fill=mean", "missing-random:told=true,fill=unk", "spectrum"])
def test_a_stress_is_parsed_from_its_label(text: str) -> None:
    stress = Stress.parse(text)
    assert Stress.parse(stress.label) == stress
    assert dict(stress.options).keys() == stress.stressor.option_table.keys()


def test_spelling_does_not_matter_and_keywords_come_on_top() -> None:
    a = Stress.parse(" missing-random : told = TRUE , fill=zeros ")
    assert a == Stress.parse("missing-random:fill=mean", told=True, fill="zeros")
    assert a.params == "fill=zeros,told=true"
    assert Stress.parse("missing-random:told=false") == Stress.parse("missing-random")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nose", r"unknown stress 'nose' \(did you mean 'noise'\?\); known: noise, missing"),
        ("", "unknown stress ''"),
        ("missing:fil=mean", r"unknown parameter 'fil' \(did you mean 'fill'\?\); it has fill"),
        ("missing:told=true", "unknown parameter 'told'"),
        ("missing:fill", "expected key=value after the colon, got 'fill'"),
        ("missing:fill=ones", "missing:fill: expected one of auto, zeros, mask, unk, mean; got 'ones'"),
        ("missing-random:told=perhaps", "missing-random:told: expected true or false, got 'perhaps'"),
        ("noise:sigma_ref=both", "noise:sigma_ref: expected one of feature, modality"),
    ],
)
def test_stresses_that_are_not(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stress.parse(text)


def test_severities_of_corrupt(make: ModuleType) -> None:
    batch = make.feature_batch(30)
    fit = Reference.fit(batch)
    make.assert_same_samples(corrupt(batch, "missing", "0.40"), corrupt(batch, severity=0.4))
    a, b = (corrupt(batch, "spectrum", s, reference=fit) for s in ((0.5, "0.20"), "0.5x0.2"))
    make.assert_same_samples(a, b)
    for severity, message in (("0,0.2", "one severity"), ("1", "outside"), (-0.1, "outside"), ("a lot", "severity")):
        with pytest.raises(InputError, match=message):
            corrupt(batch, "missing", severity)


def test_a_parameter_named_as_an_argument_is_unknown_too(make: ModuleType) -> None:
    with pytest.raises(InputError, match="unknown parameter 'text'"):
        corrupt(make.feature_batch(3), "missing", "0.4", text="mask")


@pytest.mark.parametrize("zero", ["0", "0.0", "-0", "0e0"])
def test_severity_0_is_the_very_same_batch(make: ModuleType, stressed: tuple[str, str], zero: str) -> None:
    name = stressed[0]
    severity = make.CLEAN[name].replace("0", zero)
    for batch in (make.feature_batch(8, absent=0.3), make.token_batch(8, absent=0.3)):
        out = make.apply(batch, name, severity).batch
        assert out is batch
        assert corrupt(batch, name, severity) is batch  # without a reference too


def test_nothing_but_the_inputs_changes(make: ModuleType, stressed: tuple[str, str]) -> None:
    for batch in (make.feature_batch(30, absent=0.2), make.token_batch(30, absent=0.2)):
        before = {m: batch.features(m).clone() for m in MODALITIES}
        out = make.apply(batch, *stressed).batch
        assert (out.ids, out.groups, len(out)) == (batch.ids, batch.groups, len(batch))
        assert out.labels is batch.labels
        if stressed[0] not in ("missing", "missing-fixed"):
            assert out.present is batch.present  # told nothing
        changed = 0
        for m in MODALITIES:
            np.testing.assert_array_equal(batch.features(m), before[m])  # the clean batch is left alone
            assert out.features(m).dtype == batch.features(m).dtype
            changed += not torch.equal(out.features(m), batch.features(m))
            if stressed[0] != "conflict":
                assert out.lengths(m) is batch.lengths(m)
                outside = ~batch.valid(m)
                np.testing.assert_array_equal(out.features(m)[outside], batch.features(m)[outside])
        assert changed


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(9)), cut=st.integers(0, 9), extra=st.integers(0, 3), tokens=st.booleans())
def test_the_same_input_in_any_order_batch_and_padding(
    make: ModuleType, stressed: tuple[str, str], order: list[int], cut: int, extra: int, tokens: bool
) -> None:
    batch: Batch = (make.token_batch if tokens else make.feature_batch)(9, absent=0.2)
    fit = Reference.fit(batch)
    full = make.apply(batch, *stressed, reference=fit).batch
    for rows in (order[:cut], order[cut:]):
        part = make.padded(batch.select(rows), extra)
        make.assert_same_samples(full, make.apply(part, *stressed, reference=fit, pool=batch).batch)


def test_seeds_differ(make: ModuleType, stressed: tuple[str, str]) -> None:
    batch = make.feature_batch(40)
    one, again, two = (make.apply(batch, *stressed, seed=seed).batch for seed in (1111, 1111, 1112))
    make.assert_same_samples(one, again)
    same = all(torch.equal(one.features(m), two.features(m)) for m in MODALITIES)
    assert same == (not Stress.parse(stressed[0]).stressor.random)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_input(make: ModuleType, stressed: tuple[str, str]) -> None:
    batch = make.feature_batch(60, absent=0.2)
    fit = Reference.fit(batch)
    here = make.apply(batch, *stressed, reference=fit)
    there = make.apply(batch.to("cuda"), *stressed, reference=fit.to("cuda"))
    np.testing.assert_array_equal(here.sources.lost, there.sources.lost.cpu())
    np.testing.assert_array_equal(here.sources.donor, there.sources.donor.cpu())
    for m, lost in here.features.lost.items():
        np.testing.assert_array_equal(lost, there.features.lost[m].cpu())
    make.assert_same_samples(here.batch, there.batch.to("cpu"))
