"""The digest of a cell's input: what it must see, what it must not, and one pinned value for every stressor."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Draws, Reference, Stress, input_digest


def digest(make: ModuleType, batch: Batch, stress: str, severity: str, seed: Any = 1111, **given: Any) -> str:
    parsed = Stress.parse(stress)
    (point,) = parsed.grid(severity).points
    reference, pool = given.get("reference") or Reference.fit(make.feature_batch(12)), given.get("pool")
    corruption = parsed.apply(batch, point, Draws(int(seed), batch), reference, pool)
    return input_digest(given.get("data", "data"), parsed, point, seed, corruption, "pool", reference)


def test_the_digest_does_not_see_order_or_padding(make: ModuleType, stressed: tuple[str, str]) -> None:
    batch = make.feature_batch(100)  # more than the probe
    order = np.random.default_rng(0).permutation(100)
    expected = digest(make, batch, *stressed)
    assert digest(make, batch.select(order), *stressed) == expected
    assert digest(make, make.padded(batch, 3), *stressed) == expected


def test_a_seed_from_a_table_gives_the_same_digest(make: ModuleType) -> None:
    batch = make.feature_batch(10)
    a, b = (digest(make, batch, "missing", "0.4", seed) for seed in (1111, np.int64(1111)))
    assert a == b


def test_the_digest_sees_all_that_makes_the_input(make: ModuleType, stressed: tuple[str, str]) -> None:
    name, severity = stressed
    batch = make.feature_batch(100)
    brighter = batch.replace(**{m: batch.features(m) * 2 for m in MODALITIES})
    fit, filled = Reference.fit(brighter), f"{name}:fill=mean"
    digests = [
        digest(make, batch, name, severity),
        digest(make, batch, name, {"missing-fixed": "a", "spectrum": "0.6x0.5"}.get(name, "0.5")),
        digest(make, batch, name, severity, seed=1112),
        digest(make, batch, name, severity, data="other data"),
        digest(make, brighter, name, severity),
    ]
    if name != "conflict":  # it fills nothing, and has no such parameter
        digests.append(digest(make, batch, filled, severity))
        digests.append(digest(make, batch, filled, severity, reference=fit))
    if name != "missing-fixed":  # it draws nothing
        digests.append(digest(make, batch.replace(ids=tuple(f"x{i}" for i in range(100))), name, severity))
    if Stress.parse(name).stressor.needs_reference:
        digests.append(digest(make, batch, name, severity, reference=fit))
    assert len(set(digests)) == len(digests)


def test_the_digest_sees_the_version_of_the_stressor(
    make: ModuleType, stressed: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(make, make.feature_batch(10), *stressed)
    monkeypatch.setattr(type(Stress.parse(stressed[0]).stressor), "version", 1000)
    assert digest(make, make.feature_batch(10), *stressed) != before


@pytest.mark.parametrize("stress", ["noise", "noise-lambda", "spectrum"])
def test_the_digest_sees_the_fingerprint_of_the_reference(make: ModuleType, stress: str) -> None:
    batch, fit = make.feature_batch(10), Reference.fit(make.feature_batch(12))
    renamed = Reference(fit.sigma, {m: mean + 1 for m, mean in fit.mean.items()})
    a, b = (digest(make, batch, stress, make.POINTS[stress], reference=one) for one in (fit, renamed))
    assert a != b


def test_the_digest_sees_a_reference_whose_means_fill_samples_outside_the_probe(make: ModuleType) -> None:
    batch, stress = make.wide(300), "missing-random:fill=mean"
    one, two = (Reference({}, {m: torch.tensor([value]) for m in MODALITIES}) for value in (3.0, 4.0))
    for seed in range(1111, 1171):  # few are lost: for some seed all of them lie outside the probe of 64
        a, b = (make.apply(batch, stress, "0.005", seed, reference=fit).batch for fit in (one, two))
        if not torch.equal(a.audio, b.audio):
            da, db = (digest(make, batch, stress, "0.005", seed, reference=fit) for fit in (one, two))
            assert da != db, f"seed {seed}: the inputs differ, their digests do not"


def test_the_digest_takes_an_empty_pool(make: ModuleType) -> None:
    batch = make.feature_batch(10)
    unswapped = make.apply(batch, "conflict", "1", pool=batch.select([])).batch
    assert unswapped.audio is batch.audio
    assert digest(make, batch, "conflict", "1", pool=batch.select([])) != digest(make, batch, "conflict", "1")


def exact_batch() -> Batch:
    """Values that every machine holds exactly, made without any random numbers."""
    i, t, d = np.ogrid[:10, :6, :2]
    arrays: dict[str, Any] = {m: ((i * 37 + t * 11 + d * 5 + k) % 17 - 8) / 4 for k, m in enumerate(MODALITIES)}
    arrays |= {f"{m}_lengths": torch.arange(10) % 6 + 1 for m in MODALITIES}
    return Batch(**arrays, labels=torch.arange(10) % 7 - 3.0, ids=tuple(f"s{k}" for k in range(10)))


# A stressor whose output changes must raise its version: then both columns change here, together.
PINNED = {
    "noise": (
        1,
        "5b776eda2bd81d8ce5f063ca29502863d0c32647a7bf5e8b0544e4da302a8ae5",
    ),
    "missing": (
        1,
        "c3b212b82962f1f12b3f744f0da3a17cec97204ec9b864716633a3966ba44d83",
    ),
    "conflict": (
        1,
        "8770730ff71e19ac054df840b5322bc942d79a0b3e042471c7b9cdb16e24ad9b",
    ),
    "missing-fixed": (
        1,
        "4e9b2976629ef2c77f952ad0704dfbf87c0c10904b6812ba9279fc72342279a9",
    ),
    "missing-random": (
        1,
        "7f515a087cf6a13eae8f9bac2a9e4b450799ff81a99e66aa4893e3cfd5aebfbc",
    ),
    "noise-lambda": (
        1,
        "d75dbae42b5943bd6757c9c4a0600c62bf6bd8a7660de9da9255e5b68610492d",
    ),
    "spectrum": (
        1,
        "c9861a8fcf4f2623ee15331fc4bede598edd9355980cf20318839b35ddf9c98e",
    ),
}


def test_pinned_digests(make: ModuleType, stressed: tuple[str, str]) -> None:
    """If this fails by intent: raise the stressor's ``version``, then write the new version and digest into PINNED."""
    exact = {m: torch.tensor([0.5, 2.0]) for m in MODALITIES}
    name, severity = stressed
    found = (
        Stress.parse(name).stressor.version,
        digest(make, exact_batch(), name, severity, reference=Reference(exact, exact)),
    )
    assert found == PINNED[name]
