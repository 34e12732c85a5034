"""``modalities=X``: nothing outside X is touched, and inside X the stress is what it is without the restriction."""

from __future__ import annotations

import itertools
import re
from types import ModuleType

import numpy as np
import pytest
import torch

from corruptions import LETTERS, MODALITIES, STRESSORS, Batch, InputError, Stress
from corruptions.stressor import modality_letters

SUBSETS = ["t", "a", "v", "ta", "tv", "av", "tav"]
N = 6_000
# What one modality gets does not depend on the others: restricting changes nothing inside X.
SEPARATE = [
    "noise",
    "noise-lambda",
    "spectrum",
    "spectrum:variant=mixture",
    "missing-fixed",
    "missing-random",
    "imbalanced",
    "correlated",
    "frame-missing",
    "frame-missing:legacy=lnln",
    "burst",
    "misalign",
    "drift",
    "asr",
]
SEVERITIES = {"missing-fixed": "v", "spectrum": "0.5x0.5", "spectrum:variant=mixture": "1", "misalign": "0.4"}


def left(stress: str, letters: str) -> str:
    """The letters of X that the stress can touch."""
    return "".join(letter for letter in letters if letter in Stress.parse(stress).stressor.acts_on)


def assert_only(batch: Batch, out: Batch, letters: str) -> None:
    """Modalities outside the letters are the identical objects; what is told of them is the same."""
    for i, (letter, m) in enumerate(LETTERS.items()):
        if letter not in letters:
            assert out.features(m) is batch.features(m)
            assert out.lengths(m) is batch.lengths(m)
            np.testing.assert_array_equal(out.present[:, i], batch.present[:, i])
    for name, d in batch.derived.items():
        if not {source[0] for source in d.sources} & set(letters):
            np.testing.assert_array_equal(out.derived[name].values, d.values)
    assert out.labels is batch.labels


@pytest.mark.parametrize("letters", SUBSETS)
def test_outside_nothing_changes(make: ModuleType, stressed: tuple[str, str], letters: str) -> None:
    stress, severity = stressed
    if "modalities" in stress:
        stress = stress.partition(":")[0]
    text = make.with_option(stress, f"modalities={letters}")
    if not all(left(part, letters) for part in stress.partition(":")[0].split("+")):
        with pytest.raises(InputError, match=f"modalities={letters} leaves it nothing to do"):
            Stress.parse(text)
        return
    for batch in (make.feature_batch(40, absent=0.2), make.token_batch(40, absent=0.2)):
        out = make.apply(batch, text, "t" if stress == "missing-fixed" and letters != "t" else severity).batch
        assert_only(batch, out, letters)
        if stress != "missing-fixed" and not (batch.has_token_text and letters == "t" and "worst" in stress):
            assert any(out.features(LETTERS[x]) is not batch.features(LETTERS[x]) for x in letters)


@pytest.mark.parametrize("stress", SEPARATE)
@pytest.mark.parametrize("letters", SUBSETS)
def test_inside_it_is_what_it_is_without_the_restriction(make: ModuleType, stress: str, letters: str) -> None:
    if not left(stress, letters):
        return
    for batch in (make.feature_batch(30, absent=0.2), make.token_batch(30, absent=0.2)):
        severity = SEVERITIES.get(stress, "0.5")
        whole = make.apply(batch, stress, severity)
        part = make.apply(batch, make.with_option(stress, f"modalities={letters}"), severity)
        for i, (letter, m) in enumerate(LETTERS.items()):
            if letter in letters:
                np.testing.assert_array_equal(part.batch.features(m), whole.batch.features(m))
                np.testing.assert_array_equal(part.sources.lost[:, i], whole.sources.lost[:, i])
            else:
                assert part.batch.features(m) is batch.features(m)


@pytest.mark.parametrize("letters", ["t", "a", "v", "ta", "tv", "av"])
@pytest.mark.parametrize("m", ["0.3", "0.8"])
def test_missing_among_some_has_the_rate_m_there(make: ModuleType, letters: str, m: str) -> None:
    """The others stay, so all of X may go: independent drops, none drawn again."""
    lost, p = make.apply(make.wide(N), f"missing:modalities={letters}", m).sources.lost, float(m)
    inside = torch.tensor([letter in letters for letter in "tav"])
    assert not lost[:, ~inside].any()
    rows = [tuple(row) for row in lost[:, inside].tolist()]
    for pattern in itertools.product((False, True), repeat=len(letters)):
        k = sum(pattern)
        make.assert_rate(rows.count(pattern), N, p**k * (1 - p) ** (len(letters) - k))


def test_missing_among_some_still_leaves_one(make: ModuleType) -> None:
    batch = make.feature_batch(400, absent=0.5)
    corruption = make.apply(batch, "missing:modalities=ta", "0.99")
    np.testing.assert_array_equal(corruption.present.any(1), batch.present.any(1))
    everything = batch.present[:, 2] & ~corruption.present[:, :2].any(1) & batch.present[:, :2].all(1)
    assert everything.any()  # where vision is there, text and audio may both go
    alone = batch.present[:, 0] & ~batch.present[:, 1] & ~batch.present[:, 2]
    assert alone.any()
    assert not corruption.sources.lost[alone].any()


@pytest.mark.parametrize("stress", ["conflict", "conflict-control"])
@pytest.mark.parametrize("letter", ["a", "v"])
def test_a_restricted_conflict_swaps_that_modality_alone(make: ModuleType, stress: str, letter: str) -> None:
    batch = make.wide(N).replace(labels=torch.where(torch.arange(N) % 2 == 0, 1.0, -1.0))
    lenders = make.wide(6).replace(labels=torch.tensor([1.0, -1.0] * 3), ids=tuple("abcdef"), groups=None)
    restricted = make.apply(batch, f"{stress}:modalities={letter}", "0.6", pool=lenders).sources.donor >= 0
    column = "tav".index(letter)
    make.assert_rate(int(restricted[:, column].sum()), N, 0.6)
    assert int(restricted.sum()) == int(restricted[:, column].sum())
    whole = make.apply(batch, stress, "0.6", pool=lenders).sources.donor >= 0
    np.testing.assert_array_equal(restricted.any(1), whole.any(1))  # the same hosts


def test_parts_of_a_composition_are_restricted_one_by_one(make: ModuleType) -> None:
    batch = make.feature_batch(40)
    out = make.apply(batch, "noise+missing:noise.modalities=a,missing.modalities=t", "0.5x0.5")
    noise = make.apply(batch, "noise:modalities=a", "0.5").batch
    missing = make.apply(batch, "missing:modalities=t", "0.5").batch
    np.testing.assert_array_equal(out.batch.audio, noise.audio)
    np.testing.assert_array_equal(out.batch.text, missing.text)
    assert out.batch.vision is batch.vision
    np.testing.assert_array_equal(out.present, missing.present)


@pytest.mark.parametrize("spelling", ["av", "va", "a+v", "vision,audio", "a/v", " Audio , Vision ", "AV", "audio+v"])
def test_spellings_of_one_set(spelling: str) -> None:
    assert modality_letters(spelling) == "av"
    assert Stress.parse("burst", modalities=spelling) == Stress.parse("burst:modalities=av")


@pytest.mark.parametrize("wrong", ["", "x", "tt", "text,t", "text audio", "a,,b", "none", "texta"])
@pytest.mark.parametrize("stress", ["burst", "noise+missing"])
def test_what_is_no_set_of_modalities(stress: str, wrong: str) -> None:
    with pytest.raises(InputError, match=r"modalities: expected some of text, audio, vision \(or their letters, as in"):
        Stress.parse(stress, modalities=wrong)


@pytest.mark.parametrize(
    ("stress", "wrong"),
    [
        ("asr", "av"),
        ("asr", "v"),
        ("conflict", "t"),
        ("conflict-control", "t"),
        ("misalign", "t"),
        ("burst+asr", "a"),
    ],
)
def test_a_restriction_that_leaves_nothing(stress: str, wrong: str) -> None:
    with pytest.raises(InputError, match=f"stress {re.escape(stress)}: it acts on .*leaves it nothing to do"):
        Stress.parse(f"{stress}:modalities={wrong}")


@pytest.mark.parametrize("name", STRESSORS)
def test_all_it_can_touch_is_no_restriction(name: str) -> None:
    plain = Stress.parse(name)
    for letters in ("tav", STRESSORS[name].acts_on):
        assert Stress.parse(f"{name}:modalities={letters}") == plain
    assert "modalities" in STRESSORS[name].parameters
    assert set(STRESSORS[name].acts_on) <= set(LETTERS)
    assert all(LETTERS[letter] == m for letter, m in zip("tav", MODALITIES, strict=True))


def test_letters_that_make_no_difference_are_dropped() -> None:
    assert Stress.parse("conflict:modalities=ta") == Stress.parse("conflict:modalities=a")
    assert Stress.parse("misalign:modalities=tv").label == "misalign:modalities=v"
