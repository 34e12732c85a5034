"""worst-case: what an attack may do, what it must reach on a linear model, and the worst of several draws by hand."""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Batch, Draws, InputError, Reference, Stress, corrupt
from corruptions.corruption import Corruption
from corruptions.keyed_random import key_of

SEVERITIES = {"noise": "0.4", "noise-lambda": "0.4", "missing": "0.4", "missing-random": "0.4", "conflict": "0.7"}
tenths = st.integers(1, 10).map(lambda i: f"{i / 10:.1f}")


def bound(batch: Batch, reference: Reference, s: str, m: str, scope: str = "feature") -> torch.Tensor:
    """``(N, T, d)``: how far each feature may be from where it was."""
    sigma = reference.sigma[m] if scope == "feature" else reference.sigma[m].square().mean().sqrt()
    there = batch.valid(m) & batch.present[:, MODALITIES.index(m), None]
    return there[:, :, None] * (float(s) * sigma)


@settings(max_examples=20, deadline=None)
@given(s=tenths, seed=st.integers(0, 1000), steps=st.integers(1, 12), scope=st.sampled_from(["feature", "modality"]))
def test_an_attack_stays_within_its_bound_and_never_helps(
    make: ModuleType, s: str, seed: int, steps: int, scope: str
) -> None:
    batch, model = make.feature_batch(10, seed, absent=0.2), make.Linear()
    fit = Reference.fit(make.feature_batch(20, seed + 1))
    corruption = make.apply(batch, f"worst-case:steps={steps},sigma_ref={scope}", s, seed, reference=fit)
    out = corruption.batch
    assert bool((model.losses(out) >= model.losses(batch)).all())
    for m in MODALITIES:
        moved, most = (out.features(m) - batch.features(m)).abs(), bound(batch, fit, s, m, scope)
        assert bool((moved <= most + 1e-6).all())
        np.testing.assert_array_equal(moved[most.expand_as(moved) == 0], 0)  # padding and what is absent
        assert out.lengths(m) is batch.lengths(m)
    assert out.present is batch.present
    assert all(d.values is batch.derived[name].values for name, d in out.derived.items())
    assert corruption.features.lost == {}


def test_it_reaches_the_worst_corner_of_a_linear_model(make: ModuleType) -> None:
    """|e| + s sum_md |w_md| sigma_md, where no move can change the error's sign; random noise stays far below."""
    batch, model, s = make.feature_batch(60, 3), make.Linear(), "0.3"
    batch = batch.replace(labels=torch.where(torch.arange(60) % 2 == 0, 40.0, -40.0))
    fit = Reference.fit(batch)
    reach = sum(
        (bound(batch, fit, s, m).double() * model.weights(batch.features(m), m).abs()).sum((1, 2)) / batch.lengths(m)
        for m in MODALITIES
    )
    clean = model.losses(batch)
    assert bool((clean > reach).all())
    attacked = model.losses(make.apply(batch, "worst-case", s, reference=fit).batch)
    np.testing.assert_allclose(attacked, clean + reach, rtol=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(20):  # corners of the same bound
        signs = {m: torch.from_numpy(rng.choice([-1.0, 1.0], batch.features(m).shape)).float() for m in MODALITIES}
        tried = batch.replace(**{m: batch.features(m) + signs[m] * bound(batch, fit, s, m) for m in MODALITIES})
        assert bool((model.losses(tried) <= attacked + 1e-6).all())
        assert float(model.losses(tried).mean()) < float(attacked.mean()) - 0.5 * float(reach.mean())


def test_more_is_worse(make: ModuleType) -> None:
    batch, model = make.feature_batch(40), make.Linear()
    batch = batch.replace(labels=torch.where(torch.arange(40) % 2 == 0, 40.0, -40.0))  # one way to go is worse
    before = model.losses(batch)
    for s in ("0.1", "0.3", "0.6", "1"):
        losses = model.losses(make.apply(batch, "worst-case", s).batch)
        assert bool((losses > before + 1e-3).all())
        before = losses


class Counting:
    """A linear adversary that remembers what it was asked."""

    def __init__(self, model: Any) -> None:
        self.model, self.asked = model, {"losses": 0, "gradients": 0}

    def losses(self, batch: Batch) -> torch.Tensor:
        self.asked["losses"] += 1
        return self.model.losses(batch)

    def gradients(self, batch: Batch) -> Any:
        self.asked["gradients"] += 1
        return self.model.gradients(batch)


@pytest.mark.parametrize(
    ("stress", "losses", "gradients"),
    [("worst-case:steps=4", 1 + 5, 4), ("worst-case:attack=draws,draws=6", 6, 0)],
)
def test_the_model_is_asked_as_often_as_said(make: ModuleType, stress: str, losses: int, gradients: int) -> None:
    batch, model = make.feature_batch(5), Counting(make.Linear())
    corrupt(batch, stress, "0.4", reference=Reference.fit(batch), adversary=model)
    assert model.asked == {"losses": losses, "gradients": gradients}
    corrupt(batch, stress, "0", adversary=model)
    assert model.asked == {"losses": losses, "gradients": gradients}


def test_a_model_that_does_not_care_changes_nothing(make: ModuleType) -> None:
    class Constant:
        def losses(self, batch: Batch) -> torch.Tensor:
            return torch.ones(len(batch))

        def gradients(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {m: torch.zeros_like(batch.features(m)) for m in MODALITIES}

    batch = make.feature_batch(10)
    out = corrupt(batch, "worst-case", "0.5", reference=Reference.fit(batch), adversary=Constant())
    make.assert_same_samples(batch, out)


def test_token_ids_cannot_be_moved(make: ModuleType) -> None:
    batch = make.token_batch(20)
    out = make.apply(batch, "worst-case", "0.5").batch
    assert out.text is batch.text
    assert not torch.equal(out.audio, batch.audio)
    kept = make.apply(batch, "worst-case:modalities=t", "0.5").batch
    make.assert_same_samples(batch, kept)


def draws_by_hand(
    make: ModuleType, batch: Batch, of: str, s: str, count: int, seed: int
) -> tuple[torch.Tensor, list[Corruption]]:
    """The loss of each draw ``(K, N)``, and the draws."""
    fit, stress = Reference.fit(batch), Stress.parse(of)
    (point,) = stress.grid(s).points
    tried = [
        stress.apply(batch, point, Draws(key_of("worst of draws", seed, k), batch), fit, batch) for k in range(count)
    ]
    return torch.stack([make.Linear().losses(c.batch) for c in tried]), tried


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 5), tokens=st.booleans())
@pytest.mark.parametrize("of", SEVERITIES)
def test_the_worst_draw_is_taken_sample_by_sample(
    make: ModuleType, of: str, seed: int, count: int, tokens: bool
) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(12, seed, absent=0.2)
    stress = f"worst-case:attack=draws,of={of},draws={count}"
    found = make.apply(batch, stress, SEVERITIES[of], seed, pool=batch)
    losses, tried = draws_by_hand(make, batch, of, SEVERITIES[of], count, seed)
    np.testing.assert_array_equal(make.Linear().losses(found.batch), losses.amax(0))
    for i, k in enumerate(losses.argmax(0).tolist()):  # the first of equals
        one = tried[k]
        make.assert_same_samples(one.batch, found.batch.select([i]))
        np.testing.assert_array_equal(found.sources.lost[i], one.sources.lost[i])
        np.testing.assert_array_equal(found.sources.donor[i], one.sources.donor[i])
        for m, lost in found.features.lost.items():
            np.testing.assert_array_equal(lost[i], one.features.lost[m][i])


def test_more_draws_are_worse_and_differ(make: ModuleType) -> None:
    batch, model = make.feature_batch(40), make.Linear()
    before = torch.zeros(40)
    for count in (1, 2, 8, 32):
        losses = model.losses(make.apply(batch, f"worst-case:attack=draws,draws={count}", "0.4").batch)
        assert bool((losses >= before).all())
        assert count == 1 or float(losses.mean()) > float(before.mean())
        before = losses


def test_of_conflict_borrows_from_the_pool(make: ModuleType) -> None:
    batch, pool = make.feature_batch(20), make.feature_batch(15, 5).replace(ids=tuple("abcdefghijklmno"), groups=None)
    found = make.apply(batch, "worst-case:attack=draws,of=conflict", "1", pool=pool)
    assert int(found.sources.donor.max()) < 15
    for i, j in enumerate(found.sources.donor[:, 1].tolist()):
        source, row = (batch, i) if j < 0 else (pool, j)
        length = int(source.audio_lengths[row])
        np.testing.assert_array_equal(found.batch.audio[i, :length], source.audio[row, :length])


@pytest.mark.parametrize("attack", ["gradient", "draws"])
def test_what_it_needs(make: ModuleType, attack: str) -> None:
    batch, stress = make.feature_batch(4), f"worst-case:attack={attack}"
    with pytest.raises(InputError, match=r"depends on the model: pass an adversary with losses\(batch\) and gradients"):
        corrupt(batch, stress, "0.3", reference=Reference.fit(batch))
    with pytest.raises(InputError, match=r"pass reference=Reference\.fit\(train_batch\)"):
        corrupt(batch, stress, "0.3", adversary=make.Linear())


def test_a_restriction_is_one_of_the_stress_that_is_drawn() -> None:
    swapped = "worst-case:attack=draws,of=conflict"
    assert Stress.parse(f"{swapped},modalities=av") == Stress.parse(swapped)
    with pytest.raises(InputError, match="it acts on audio, vision; modalities=t leaves it nothing to do"):
        Stress.parse(f"{swapped},modalities=t")
    for other in ("worst-case:attack=draws,of=noise", "worst-case:of=conflict"):  # the second is a gradient attack
        assert dict(Stress.parse(f"{other},modalities=t").options)["modalities"] == "t"
        assert Stress.parse(f"{other},modalities=av") != Stress.parse(other)


class Dyadic:
    """A loss of whole eighths, so that every machine finds the same signs."""

    def error(self, batch: Batch) -> torch.Tensor:
        return torch.stack([(8 * batch.features(m).double()).round().sum((1, 2)) for m in MODALITIES]).sum(0)

    def losses(self, batch: Batch) -> torch.Tensor:
        return self.error(batch).abs()

    def gradients(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {m: self.error(batch).sign()[:, None, None].expand_as(batch.features(m)) for m in MODALITIES}


PINNED = {
    "worst-case": "a33dec0603ba1421e544cec7502487489d40e42b54c75d5852c01bab1f1925f6",
    "worst-case:attack=draws": "a6092edec453f11a6aaaebb2c4072b5f0d31e7c26ea2a7abb506e8d65efc664b",
}


@pytest.mark.parametrize("stress", PINNED)
def test_pinned_values(stress: str) -> None:
    """It has no digest to share; still, if this fails by intent, raise its ``version`` and write the values' hash."""
    i, t, d = np.ogrid[:10, :6, :2]
    arrays: dict[str, Any] = {m: ((i * 37 + t * 11 + d * 5 + k) % 17 - 8) / 4 for k, m in enumerate(MODALITIES)}
    batch = Batch(**arrays, ids=tuple(f"s{k}" for k in range(10)))
    exact = {m: torch.tensor([0.5, 2.0]) for m in MODALITIES}
    out = corrupt(batch, stress, "0.5", reference=Reference(exact, exact), adversary=Dyadic())
    found = hashlib.sha256(b"".join(out.features(m).numpy().tobytes() for m in MODALITIES)).hexdigest()
    assert (Stress.parse(stress).stressor.version, found) == (1, PINNED[stress])


def test_draws_of_a_stress_stay_in_its_range(make: ModuleType) -> None:
    with pytest.raises(InputError, match=r"worst-case: 1 is outside the range of missing, m in \[0, 1\)"):
        make.apply(make.feature_batch(5), "worst-case:attack=draws,of=missing", "1")
