"""Stresses one after the other: what each part sees, what stays told, which draws are whose, and what cannot be."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corruptions import (
    MODALITIES,
    STRESSORS,
    Batch,
    Draws,
    GeneratorDraws,
    InputError,
    Point,
    Reference,
    Stress,
    corrupt,
)
from corruptions.corruption import Corruption
from corruptions.registry import find

VARIANTS = {
    "missing-random": ["missing-random:variant=keep_one"],
    "spectrum": ["spectrum:variant=mixture"],
    "frame-missing": ["frame-missing:legacy=lnln"],
    "worst-case": ["worst-case:attack=draws"],
}


def composable() -> list[str]:
    """Every ordered pair of stressors that may follow each other, by the rules of the protocol."""
    single = [name for name, s in STRESSORS.items() if len(s.axes) == 1 and not s.needs_adversary]
    pairs = itertools.permutations(single, 2)
    return [f"{a}+{b}" for a, b in pairs if not STRESSORS[a].purposes & STRESSORS[b].purposes]


PAIRS = composable()
pairs = st.sampled_from(PAIRS)


class Recording(Draws):
    """Keyed draws that remember what they were asked for."""

    def __init__(self, seed: int, batch: Batch, purposes: set[str] | None = None) -> None:
        super().__init__(seed, batch)
        self.purposes: set[str] = set() if purposes is None else purposes

    def uniform(self, purpose: str, modality: str = "") -> torch.Tensor:
        self.purposes.add(purpose)
        return super().uniform(purpose, modality)

    def steps(self, purpose: str, modality: str) -> torch.Tensor:
        self.purposes.add(purpose)
        return super().steps(purpose, modality)

    def normal(self, purpose: str, modality: str) -> torch.Tensor:
        self.purposes.add(purpose)
        return super().normal(purpose, modality)

    def gaussian(self, purpose: str, modality: str = "") -> torch.Tensor:
        self.purposes.add(purpose)
        return super().gaussian(purpose, modality)

    def pairs(self, purpose: str, hosts: Any, donor_ids: Any) -> NDArray[np.float64]:
        self.purposes.add(purpose)
        return super().pairs(purpose, hosts, donor_ids)

    def fitting(self, batch: Batch) -> Draws:
        fit = super().fitting(batch)
        return self if fit is self else Recording(self.seed, batch, self.purposes)


def purposes_used(make: ModuleType, text: str) -> set[str]:
    used: set[str] = set()
    stress = Stress.parse(text)
    severity = ["v", "0.5", "0.5x0.5"][len(stress.axes)]
    for batch in (make.feature_batch(20), make.token_batch(20)):
        draws = Recording(1111, batch)
        stress.apply(batch, stress.grid(severity).points[0], draws, Reference.fit(batch), batch, make.Linear())
        used |= draws.purposes
    return used


@pytest.mark.parametrize("name", STRESSORS)
def test_declared_purposes_are_the_draws_really_used(make: ModuleType, name: str) -> None:
    """Compositions are forbidden by them: one too few would let two stresses share random numbers."""
    used = set().union(*(purposes_used(make, text) for text in [name, *VARIANTS.get(name, [])]))
    assert used == STRESSORS[name].purposes


@pytest.mark.parametrize("name", PAIRS)
def test_a_composition_uses_the_draws_of_its_parts(make: ModuleType, name: str) -> None:
    first, second = (purposes_used(make, part) for part in name.split("+"))
    assert not first & second
    assert purposes_used(make, name) == first | second
    assert find(name).purposes >= first | second


def test_which_pairs_there_are() -> None:
    """Families by their random numbers: two of one family never follow each other."""
    families = [
        {"noise", "noise-lambda", "drift"},
        {"missing", "missing-random"},
        {"missing-random", "imbalanced"},
        {"conflict", "conflict-control"},
    ]
    single = [name for name, s in STRESSORS.items() if len(s.axes) == 1 and name != "worst-case"]
    assert len(single) == 13
    expected = {
        f"{a}+{b}" for a, b in itertools.permutations(single, 2) if not any({a, b} <= family for family in families)
    }
    assert set(PAIRS) == expected
    for name in PAIRS:
        assert len(Stress.parse(name).axes) == 2


def assert_equal(one: Corruption, two: Corruption) -> None:
    a, b = one.batch, two.batch
    for m in MODALITIES:
        np.testing.assert_array_equal(a.features(m), b.features(m))
        np.testing.assert_array_equal(a.lengths(m), b.lengths(m))
    np.testing.assert_array_equal(one.present, two.present)
    np.testing.assert_array_equal(a.present, one.present)
    for name, d in a.derived.items():
        np.testing.assert_array_equal(d.values, b.derived[name].values)


@settings(max_examples=60, deadline=None)
@given(name=pairs, seed=st.integers(0, 1000), tokens=st.booleans(), first=st.booleans())
def test_where_one_part_is_0_it_is_the_other_alone(
    make: ModuleType, name: str, seed: int, tokens: bool, first: bool
) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(10, seed, absent=0.2)
    alone = name.split("+")[0 if first else 1]
    composed = make.apply(batch, name, "0.4x0" if first else "0x0.4", seed)
    single = make.apply(batch, alone, "0.4", seed)
    assert_equal(composed, single)
    assert (composed.told, composed.fill, len(composed.stages)) == (single.told, single.fill, 1)
    np.testing.assert_array_equal(composed.sources.lost, single.sources.lost)
    np.testing.assert_array_equal(composed.sources.donor, single.sources.donor)


@settings(max_examples=60, deadline=None)
@given(name=pairs, seed=st.integers(0, 1000), tokens=st.booleans())
def test_the_second_acts_on_what_the_first_has_left(make: ModuleType, name: str, seed: int, tokens: bool) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(10, seed, absent=0.2)
    fit, (first, second) = Reference.fit(batch), name.split("+")
    composed = make.apply(batch, name, "0.4x0.3", seed, reference=fit)
    one = make.apply(batch, first, "0.4", seed, reference=fit, pool=batch)
    two = make.apply(one.batch, second, "0.3", seed, reference=fit, pool=batch)
    assert_equal(composed, two)
    assert [stage.told for stage in composed.stages] == [one.told, two.told]
    assert composed.stages[0].clean is batch


def test_what_the_first_told_stays_told(make: ModuleType) -> None:
    batch = make.feature_batch(60, absent=0.2)
    for name in ("missing+noise", "noise+missing", "missing+frame-missing", "missing+imbalanced", "missing+conflict"):
        composed = make.apply(batch, name, "0.4x0.6" if name == "noise+missing" else "0.6x0.4")
        told = next(stage for stage in composed.stages if stage.told)
        assert told.sources.lost.any()
        np.testing.assert_array_equal(composed.present, batch.present & ~told.sources.lost)
        assert composed.batch.present.equal(composed.present)


def test_order_matters_where_it_should(make: ModuleType) -> None:
    """Noise before a loss is lost with it; after an untold one it falls on the zeros, after a told one on nothing."""
    batch = make.feature_batch(60)
    before = make.apply(batch, "noise-lambda+missing-random", "0.5x0.5")
    after = make.apply(batch, "missing-random+noise-lambda", "0.5x0.5")
    told = make.apply(batch, "missing+noise-lambda", "0.5x0.5")
    for i, m in ((1, "audio"), (2, "vision")):
        for corruption, silent in ((before, True), (after, False), (told, True)):
            lost = torch.stack([stage.sources.lost for stage in corruption.stages]).any(0)
            gone = batch.valid(m) & lost[:, i, None]
            assert gone.any()
            assert bool((corruption.batch.features(m)[gone] == 0).all()) == silent
    swapped, then_noisy = (
        make.apply(batch, name, "0.9x0.9") for name in ("noise-lambda+conflict", "conflict+noise-lambda")
    )
    for corruption, clean in ((swapped, True), (then_noisy, False)):  # a donor comes from the untouched pool
        donor = torch.stack([stage.sources.donor for stage in corruption.stages]).amax(0)[:, 1]
        for row in (donor >= 0).nonzero().squeeze(1).tolist():
            length, j = int(corruption.batch.audio_lengths[row]), int(donor[row])
            assert torch.equal(corruption.batch.audio[row, :length], batch.audio[j, :length]) == clean


def test_what_was_told_lost_is_no_host_and_is_not_lost_again(make: ModuleType) -> None:
    batch = make.feature_batch(80)
    composed = make.apply(batch, "missing+conflict", "0.6x1")
    lost, donor = composed.stages[0].sources.lost, composed.sources.donor
    assert not ((donor >= 0) & lost).any()
    assert composed.sources.skipped > 0
    again = make.apply(batch, "missing+correlated", "0.6x0.6")
    assert not (again.stages[0].sources.lost & again.stages[1].sources.lost).any()


def test_losses_of_parts_are_independent(make: ModuleType) -> None:
    batch = make.wide(6000)
    one, two = (stage.sources.lost for stage in make.apply(batch, "correlated+missing-random", "0.5x0.4").stages)
    for i, j in itertools.product(range(3), range(3)):
        make.assert_rate(int((one[:, i] & two[:, j]).sum()), 6000, 0.2)


def test_a_stress_does_not_follow_itself() -> None:
    with pytest.raises(InputError, match=r"misalign\+misalign: a composition is of different stresses"):
        Stress.parse("misalign+misalign")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("noise+missing", "noise+missing"),
        (" noise + missing : fill = mean ", "noise+missing:missing.fill=mean,noise.fill=mean"),
        ("noise+missing:missing.fill=mean", "noise+missing:missing.fill=mean"),
        ("noise+missing:missing.fill=mean,fill=zeros", "noise+missing:missing.fill=mean,noise.fill=zeros"),
        ("noise+missing:sigma_ref=modality", "noise+missing:noise.sigma_ref=modality"),
        ("noise+missing:modalities=audio", "noise+missing:missing.modalities=a,noise.modalities=a"),
        ("noise+conflict:noise.modalities=text", "noise+conflict:noise.modalities=t"),
        ("misalign+conflict:modalities=a+v", "misalign+conflict"),
        (
            "drift+missing-random:variant=keep_one",
            "drift+missing-random:missing-random.told=true,missing-random.variant=keep_one",
        ),
        (
            "drift+missing-random:variant=keep_one,told=false",
            "drift+missing-random:missing-random.told=false,missing-random.variant=keep_one",
        ),
    ],
)
def test_names_and_parameters(text: str, label: str) -> None:
    stress = Stress.parse(text)
    assert stress.label == label
    assert Stress.parse(label) == stress


@settings(max_examples=40, deadline=None)
@given(name=pairs)
def test_a_composition_is_all_that_its_parts_are(name: str) -> None:
    composed, parts = find(name), [STRESSORS[part] for part in name.split("+")]
    assert composed.name == name
    assert Stress.parse(name).label == name
    assert str(Stress.parse(name).grid()) == "x".join(part.default_grid for part in parts)
    for fact in ("told", "needs_reference", "uses_pool", "random"):
        assert getattr(composed, fact) == any(getattr(part, fact) for part in parts), fact
    assert set(composed.acts_on) == set(parts[0].acts_on) | set(parts[1].acts_on)
    expected = {f"{part.name}.{key}" for part in parts for key in part.parameters}
    assert set(composed.parameters) == expected
    assert Stress.parse(name, fill="mean").uses_reference if "fill" in str(expected) else not composed.needs_reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise+noise-lambda", "noise and noise-lambda use the same random numbers, so the second would not be indep"),
        ("noise+drift", "noise and drift use the same random numbers"),
        ("noise+noise", r"noise\+noise: a composition is of different stresses"),
        ("missing-random+imbalanced", "missing-random and imbalanced use the same random numbers"),
        ("conflict+conflict-control", "use the same random numbers"),
        ("missing-fixed+noise", "missing-fixed cannot be composed, it has no severity to make a product grid of"),
        ("noise+worst-case", "worst-case cannot be composed, it depends on the model"),
        ("spectrum+conflict", "3 severities; a composition has at most 2"),
        ("noise+missing+conflict", "3 severities; a composition has at most 2"),
        ("noise+mising", r"unknown stress 'mising' \(did you mean 'missing'"),
        ("noise+conflict:modalities=text", "it acts on audio, vision; modalities=t leaves it nothing to do"),
        ("noise+missing:weights=1:1:1", "unknown parameter 'weights'"),
    ],
)
def test_what_cannot_be_composed_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        Stress.parse(text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("severity", ["0.3", "0.3x0.3x0.3", "t+a", "0.3x1", "0.6x0.2,0.1"])
def test_severities_that_do_not_fit(make: ModuleType, severity: str) -> None:
    with pytest.raises(InputError, match="grid"):
        corrupt(make.feature_batch(3), "noise+missing", severity)


def test_severities_as_pairs(make: ModuleType) -> None:
    batch = make.feature_batch(10)
    fit = Reference.fit(batch)
    one, two = (corrupt(batch, "noise+missing", s, reference=fit) for s in ((0.3, "0.40"), "0.3x0.4"))
    make.assert_same_samples(one, two)


def test_fills_are_those_of_each_part(make: ModuleType) -> None:
    batch, train = make.feature_batch(60), make.feature_batch(60, 7)
    fit = Reference.fit(train)
    composed = make.apply(batch, "frame-missing+missing:missing.fill=mean", "0.5x0.5", reference=fit)
    steps, lost = composed.stages[0].features.lost, composed.sources.lost
    for i, m in enumerate(MODALITIES):
        gone = batch.valid(m) & lost[:, i, None]
        np.testing.assert_array_equal(composed.batch.features(m)[gone], fit.mean[m].expand(int(gone.sum()), -1))
        assert not composed.batch.features(m)[steps[m] & ~gone].any()


def test_the_same_needs_are_asked_for_by_name(make: ModuleType) -> None:
    batch = make.feature_batch(4)
    with pytest.raises(InputError, match="noise scales its noise by the training split"):
        corrupt(batch, "missing+noise", "0.3x0.3")
    with pytest.raises(InputError, match="conflict picks donors by label"):
        corrupt(batch.replace(labels=None), "missing+conflict", "0.3x0.3")
    with pytest.raises(InputError, match="fill=mask needs text as token ids"):
        corrupt(batch, "missing+burst:burst.fill=mask", "0.3x0")


def test_longer_donors_do_not_change_what_others_draw(make: ModuleType) -> None:
    """A swap may pad all samples further; the second part's draws are those of the samples, not of the shape."""
    batch, pool = make.feature_batch(30), make.feature_batch(20, 5, steps=(6, 12, 9))
    pool = pool.replace(ids=tuple(f"pool{i}" for i in range(20)), groups=None)
    fit = Reference.fit(batch)
    composed = make.apply(batch, "conflict+noise", "0.5x0.4", reference=fit, pool=pool)
    alone = make.apply(batch, "noise", "0.4", reference=fit)
    kept = (composed.stages[0].sources.donor < 0).all(1)
    assert kept.any()
    assert composed.batch.audio.shape[1] == 12
    make.assert_same_samples(alone.batch, composed.batch.select(kept))


def test_a_generator_draws_anew_for_each_part(make: ModuleType) -> None:
    batch, stress = make.wide(3000), Stress.parse("missing-random+correlated")
    draws = GeneratorDraws(torch.Generator().manual_seed(0), batch)
    one, two = (stage.sources.lost for stage in stress.apply(batch, Point("0.5", "0.4"), draws).stages)
    for i in range(3):
        make.assert_rate(int((one[:, i] & two[:, i]).sum()), 3000, 0.2)


def test_frames_of_a_shifted_stream_are_lost_where_they_are_now(make: ModuleType) -> None:
    batch = make.feature_batch(10, steps=(6, 10, 10)).replace(
        audio_lengths=torch.full((10,), 10), vision_lengths=torch.full((10,), 10)
    )
    out = make.apply(batch, "misalign+frame-missing:modalities=audio", "0.3x0.5")
    assert out.batch.vision is batch.vision
    kept = ~out.features.lost["audio"]
    np.testing.assert_array_equal(out.batch.audio[kept], batch.audio.roll(3, 1)[kept])
