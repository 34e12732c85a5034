"""Stresses as people type them, and what every stressor promises: identity at 0, and the same input for everyone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, STRESSORS, Batch, InputError, Reference, Stress, corrupt
from corruptions.registry import describe
from corruptions.stressor import Option


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
        "conflict-control": "0:1:0.25",
        "frame-missing": "0:0.9:0.1",
        "burst": "0:0.8:0.2",
        "misalign": "0:0.5:0.1",
        "drift": "0:0.7:0.1",
        "imbalanced": "0:0.6:0.1",
        "correlated": "0:0.7:0.1",
        "asr": "0:0.5:0.1",
        "worst-case": "0:0.3:0.1",
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
        "conflict-control": "c in [0, 1]",
        "frame-missing": "r in [0, 1]",
        "burst": "s in [0, 1]",
        "misalign": "s in [0, 0.5]",
        "drift": "s in [0, 1]",
        "imbalanced": "s in [0, 1]",
        "correlated": "s in [0, 1]",
        "asr": "s in [0, 1]",
        "worst-case": "s in [0, 1]",
    }
    assert [row["name"] for row in describe()] == list(STRESSORS)


def test_what_each_stressor_declares() -> None:
    def those(what: str) -> set[str]:
        return {name for name, stressor in STRESSORS.items() if getattr(stressor, what)}

    assert those("needs_reference") == {"noise", "noise-lambda", "spectrum", "drift", "worst-case"}
    assert those("uses_pool") == {"conflict", "conflict-control", "asr", "worst-case"}
    assert those("needs_adversary") == {"worst-case"}
    assert set(STRESSORS) - those("random") == {"missing-fixed", "misalign"}
    inside = {"noise", "noise-lambda", "spectrum", "frame-missing", "burst", "misalign", "drift", "asr", "worst-case"}
    assert those("touches_features") == inside
    assert {name: s.acts_on for name, s in STRESSORS.items() if s.acts_on != "tav"} == {
        "conflict": "av",
        "conflict-control": "av",
        "misalign": "av",
        "asr": "t",
    }
    assert all(row["formula"] and row["source"] and row["summary"] for row in describe())


@pytest.mark.parametrize(
    ("stress", "axes", "grid"),
    [
        ("spectrum:variant=mixture", ["s in [0, 1]"], "1"),
        ("noise+missing", ["rho in [0, 1]", "m in [0, 1)"], "0:0.5:0.1x0:0.8:0.2"),
        ("misalign+frame-missing", ["s in [0, 0.5]", "r in [0, 1]"], "0:0.5:0.1x0:0.9:0.1"),
    ],
)
def test_axes_and_grids_of_variants_and_compositions(stress: str, axes: list[str], grid: str) -> None:
    parsed = Stress.parse(stress)
    assert list(map(str, parsed.axes)) == axes
    assert str(parsed.grid()) == grid


def test_a_stress_is_parsed_from_its_label(stressed: tuple[str, str]) -> None:
    stress = Stress.parse(stressed[0])
    assert Stress.parse(stress.label) == stress


@st.composite
def typed_options(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Any stress, single or composed of two, with any of its parameters at any value they take."""
    single = st.sampled_from(sorted(STRESSORS))
    name = draw(single | st.sampled_from(["noise+missing", "missing-random+drift", "misalign+conflict", "asr+burst"]))
    given_options: dict[str, Any] = {}
    for key, option in Stress.parse(name).stressor.parameters.items():
        if draw(st.booleans()):
            given_options[key] = draw(values_of(key, option))
    return name, given_options


def values_of(key: str, option: Option) -> st.SearchStrategy[Any]:
    if isinstance(option.default, bool):
        return st.booleans()
    if isinstance(option.default, int):
        return st.integers(int(option.low), int(option.high))
    if isinstance(option.default, float):
        return st.floats(option.low, option.high)
    if key.endswith("weights"):
        share = st.integers(0, 1000).map(str) | st.floats(1e-5, 1e5).map(str)
        return st.tuples(share, share, share).map(":".join).filter(lambda text: set(text) - set("0:."))
    letters = st.sampled_from(["ta", "a+t", "text,audio", "t/a/v"])  # every stressor can touch one of text and audio
    return letters if key.endswith("modalities") else st.sampled_from(option.choices)


@settings(max_examples=150, deadline=None)
@given(typed=typed_options())
def test_any_stress_is_parsed_from_its_label_and_from_its_options(typed: tuple[str, dict[str, Any]]) -> None:
    name, options = typed
    stress = Stress.parse(name, **options)
    assert Stress.parse(stress.label) == stress
    assert Stress.parse(name, **dict(stress.options)) == stress
    assert Stress.parse(stress.label).label == stress.label


def test_parameters_at_a_default_that_came_later_are_no_part_of_the_identity() -> None:
    assert dict(Stress.parse("missing-random:variant=independent").options) == {"fill": "auto", "told": False}
    assert dict(Stress.parse("spectrum").options).keys() == {"fill", "sigma_ref", "told"}
    assert dict(Stress.parse("noise:modalities=vision+audio+text").options).keys() == {"fill", "sigma_ref"}
    assert dict(Stress.parse("conflict:modalities=av").options) == {}


def test_implied_and_contradicted_defaults() -> None:
    told = "missing-random:variant=keep_one"
    assert dict(Stress.parse(told).options)["told"] is True
    untold = Stress.parse(f"{told},told=false")
    assert dict(untold.options)["told"] is False
    assert Stress.parse(untold.label) == untold
    assert Stress.parse("spectrum:variant=mixture") == Stress.parse("spectrum:variant=mixture,told=false")


@pytest.mark.parametrize(
    ("typed", "scaled"),
    [("1:2:3", "0.5:1:1.5"), ("1:1:1", "1:1:1"), ("0:0:5", "0:0:3"), ("1:2:4", "0.428571:0.857143:1.71429")],
)
def test_weights_are_scaled_to_mean_1_once(typed: str, scaled: str) -> None:
    stress = Stress.parse(f"imbalanced:weights={typed}")
    assert dict(stress.options)["weights"] == scaled
    assert Stress.parse(f"imbalanced:weights={scaled}") == stress


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
        ("conflict:=a", "expected key=value after the colon, got '=a'"),
        ("noise:fill=mean,fill=zeros", "fill is given twice"),
        ("correlated:corr=1.5", "correlated:corr: expected a number from 0 to 1, got '1.5'"),
        ("correlated:corr=nan", "expected a number from 0 to 1"),
        ("correlated:corr=high", "expected a number from 0 to 1"),
        ("worst-case:draws=0", "worst-case:draws: expected a whole number from 1 to 1000, got '0'"),
        ("worst-case:steps=2.5", "expected a whole number from 1 to 1000"),
        ("worst-case:of=asr", "worst-case:of: expected one of noise, noise-lambda, missing"),
        ("imbalanced:weights=1:2", "imbalanced:weights: expected three weights .*, as in 1:2:3; got '1:2'"),
        ("imbalanced:weights=1:-1:1", "none negative"),
        ("imbalanced:weights=0:0:0", "three weights"),
        ("imbalanced:weights=nan:1:1", "three weights"),
        ("imbalanced:weights=inf:1:1", "three weights"),
        ("frame-missing:legacy=tfr", "frame-missing:legacy: expected one of none, lnln"),
        ("noise+", "unknown stress ''"),
        ("noise+misssing", r"unknown stress 'misssing' \(did you mean 'missing'\?\)"),
        ("noise+missing:told=true", "stress noise\\+missing: unknown parameter 'told'"),
        ("noise+missing:drift.fill=zeros", "unknown parameter 'drift.fill' .*; it has noise.fill"),
    ],
)
def test_stresses_that_are_not(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stress.parse(text)


@pytest.mark.parametrize(
    ("stress", "option"), [("correlated", "corr"), ("imbalanced", "weights"), ("burst", "modalities")]
)
def test_a_list_where_a_value_is_expected(stress: str, option: str) -> None:
    with pytest.raises(InputError, match=f"{stress}:{option}: expected"):
        Stress.parse(stress, **{option: [1]})  # type: ignore[arg-type]  # as from a protocol file


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
        assert corrupt(batch, name, severity) is batch  # without a reference or an adversary too


def test_nothing_but_the_inputs_changes(make: ModuleType, stressed: tuple[str, str]) -> None:
    for batch in (make.feature_batch(30, absent=0.2), make.token_batch(30, absent=0.2)):
        before = {m: batch.features(m).clone() for m in MODALITIES}
        out = make.apply(batch, *stressed).batch
        assert (out.ids, out.groups, len(out)) == (batch.ids, batch.groups, len(batch))
        assert out.labels is batch.labels
        assert (out.present is batch.present) == (stressed[0] not in make.TOLD)
        changed = 0
        for m in MODALITIES:
            np.testing.assert_array_equal(batch.features(m), before[m])  # the clean batch is left alone
            assert out.features(m).dtype == batch.features(m).dtype
            changed += not torch.equal(out.features(m), batch.features(m))
            if not make.swaps(stressed[0]) or m == "text":
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
@pytest.mark.parametrize("maker", ["feature_batch", "token_batch"])
def test_a_gpu_gives_the_same_input(make: ModuleType, shared: tuple[str, str], maker: str) -> None:
    batch = getattr(make, maker)(60, absent=0.2)
    fit = Reference.fit(batch)
    here = make.apply(batch, *shared, reference=fit)
    there = make.apply(batch.to("cuda"), *shared, reference=fit.to("cuda"))
    for ours, theirs in zip(here.stages, there.stages, strict=True):
        np.testing.assert_array_equal(ours.sources.lost, theirs.sources.lost.cpu())
        np.testing.assert_array_equal(ours.sources.donor, theirs.sources.donor.cpu())
        for a, b in ((ours.features.lost, theirs.features.lost), (ours.features.altered, theirs.features.altered)):
            assert a.keys() == b.keys()
            for m, mask in a.items():
                np.testing.assert_array_equal(mask, b[m].cpu())
    make.assert_same_samples(here.batch, there.batch.to("cpu"))
