"""missing, missing-fixed, missing-random: who loses what, how often, what is told, what takes its place."""

from __future__ import annotations

import itertools
from math import comb
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Batch, InputError, Reference, corrupt
from corruptions.stressors.missing import drop_count

PATTERNS = list(itertools.product((False, True), repeat=3))
N = 20_000
severities = st.integers(0, 99).map(lambda i: f"{i / 100:.2f}")


def pattern_counts(lost: torch.Tensor) -> dict[tuple[bool, ...], int]:
    rows = [tuple(row) for row in lost.tolist()]
    return {pattern: rows.count(pattern) for pattern in PATTERNS}


@pytest.mark.parametrize("m", ["0.2", "0.4", "0.6", "0.8", "0.99"])
def test_missing_is_drawing_again_until_one_is_left(make: ModuleType, m: str) -> None:
    lost = make.apply(make.wide(N), "missing", m).sources.lost
    p = float(m)
    for pattern, count in pattern_counts(lost).items():
        k = sum(pattern)
        make.assert_rate(count, N, 0.0 if k == 3 else p**k * (1 - p) ** (3 - k) / (1 - p**3))
    for i in range(3):
        make.assert_rate(int(lost[:, i].sum()), N, (p - p**3) / (1 - p**3))


@pytest.mark.parametrize("eta", ["0.1", "0.5", "0.7", "1"])
def test_missing_random_drops_independently(make: ModuleType, eta: str) -> None:
    lost = make.apply(make.wide(N), "missing-random", eta).sources.lost
    p = float(eta)
    for pattern, count in pattern_counts(lost).items():
        make.assert_rate(count, N, p ** sum(pattern) * (1 - p) ** (3 - sum(pattern)))


def test_drop_count_is_the_inverse_cdf() -> None:
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    for n, m in itertools.product((0, 1, 2, 3), (0.0, 0.2, 0.5, 0.8, 0.999)):
        k = drop_count(u, torch.full((10_000,), n), m)
        weights = np.array([comb(n, j) * m**j * (1 - m) ** (n - j) for j in range(max(n, 1))])
        share = np.bincount(k.numpy(), minlength=len(weights)) / len(u)
        np.testing.assert_allclose(share, weights / weights.sum(), atol=1e-4, err_msg=f"n={n}, m={m}")
        assert bool((k[1:] >= k[:-1]).all())


@settings(max_examples=40, deadline=None)
@given(
    pair=st.tuples(severities, severities).map(sorted),
    seed=st.integers(0, 10_000),
    stress=st.sampled_from(["missing", "missing-random"]),
)
def test_losses_nest(make: ModuleType, pair: list[str], seed: int, stress: str) -> None:
    batch = make.feature_batch(60, seed, absent=0.3)
    small, large = (make.apply(batch, stress, s, seed).sources.lost for s in pair)
    assert not (small & ~large).any()


@settings(max_examples=40, deadline=None)
@given(severity=severities, seed=st.integers(0, 10_000), stress=st.sampled_from(["missing", "missing-random"]))
def test_absent_stays_absent_and_is_not_lost(make: ModuleType, severity: str, seed: int, stress: str) -> None:
    batch = make.feature_batch(40, seed, absent=0.5)
    corruption = make.apply(batch, f"{stress}:told=true" if stress == "missing-random" else stress, severity, seed)
    assert not (corruption.sources.lost & ~batch.present).any()
    assert not (corruption.present & ~batch.present).any()
    if stress == "missing":  # of those that were there, one stays
        np.testing.assert_array_equal(corruption.present.any(1), batch.present.any(1))


@pytest.mark.parametrize("m", ["0.3", "0.8"])
def test_missing_draws_among_what_is_available(make: ModuleType, m: str) -> None:
    batch, p = make.wide(N, absent=0.3), float(m)
    lost = make.apply(batch, "missing", m).sources.lost
    two = batch.present.sum(1) == 2
    for i, j in itertools.combinations(range(3), 2):
        rows = lost[two & batch.present[:, i] & batch.present[:, j]]
        for a, b in ((i, j), (j, i)):
            make.assert_rate(int((rows[:, a] & ~rows[:, b]).sum()), len(rows), p * (1 - p) / (1 - p**2))
        assert not (rows[:, i] & rows[:, j]).any()
    assert not lost[batch.present.sum(1) <= 1].any()


@pytest.mark.parametrize("condition", ["t", "a", "v", "t+a", "t+v", "a+v"])
def test_missing_fixed_leaves_the_condition(make: ModuleType, condition: str) -> None:
    batch = make.feature_batch(10, absent=0.2)
    corruption = make.apply(batch, "missing-fixed", condition)
    kept = torch.tensor([m[0] in condition for m in MODALITIES])
    np.testing.assert_array_equal(corruption.batch.present, batch.present & kept)
    for m, stays in zip(MODALITIES, kept.tolist(), strict=True):
        assert (corruption.batch.features(m) is batch.features(m)) == stays


@pytest.mark.parametrize("stress", ["missing", "missing-fixed", "missing-random", "missing-random:told=true"])
def test_told_and_filled(make: ModuleType, stress: str) -> None:
    batch = make.feature_batch(60, absent=0.2)
    corruption = make.apply(batch, stress, "v" if stress == "missing-fixed" else "0.6")
    lost, out = corruption.sources.lost, corruption.batch
    told = stress != "missing-random"
    assert bool(lost[:, :2].any(0).all())
    np.testing.assert_array_equal(out.present, batch.present & ~lost if told else batch.present)
    for i, m in enumerate(MODALITIES):
        gone = batch.valid(m) & lost[:, i, None]
        assert not out.features(m)[gone].any()
        np.testing.assert_array_equal(out.features(m)[~gone], batch.features(m)[~gone])
        assert out.lengths(m) is batch.lengths(m)
    for name, sources in (("clues", [1]), ("comment", [0, 1, 2])):  # derived inputs go with their source
        follows, values = lost[:, sources].any(1), out.derived[name].values
        assert not values[follows].any()
        np.testing.assert_array_equal(values[~follows], batch.derived[name].values[~follows])


@pytest.mark.parametrize(("fill", "token"), [("auto", 103), ("mask", 103), ("unk", 100)])
def test_lost_token_ids_are_filled(make: ModuleType, fill: str, token: int) -> None:
    batch = make.token_batch(20)
    out = make.apply(batch, f"missing-fixed:fill={fill}", "a").batch
    special = (batch.text == 101) | (batch.text == 102) | (batch.text == 0)
    np.testing.assert_array_equal(out.text, torch.where(special, batch.text, token))
    assert not out.vision[batch.valid("vision")].any()


def test_fill_mean(make: ModuleType) -> None:
    batch, fit = make.feature_batch(10), Reference.fit(make.feature_batch(30, 7))
    out = make.apply(batch, "missing-fixed:fill=mean", "a", reference=fit).batch
    for m in ("text", "vision"):
        valid = batch.valid(m)
        np.testing.assert_array_equal(out.features(m)[valid], fit.mean[m].expand(int(valid.sum()), -1))
        np.testing.assert_array_equal(out.features(m)[~valid], batch.features(m)[~valid])


@pytest.mark.parametrize(
    ("maker", "fill", "message"),
    [
        ("feature_batch", "mask", r"fill=mask needs text as token ids.*use zeros or mean"),
        ("feature_batch", "unk", "fill=unk needs text as token ids"),
        ("token_batch", "zeros", r"fill=zeros needs features.*use mask or unk"),
        ("token_batch", "mean", "fill=mean needs features"),
    ],
)
def test_fills_that_cannot_be(make: ModuleType, maker: str, fill: str, message: str) -> None:
    batch: Batch = getattr(make, maker)(5)
    with pytest.raises(InputError, match=message):
        _ = make.apply(batch, f"missing-fixed:fill={fill}", "a").batch


def test_fill_mean_without_a_reference(make: ModuleType) -> None:
    with pytest.raises(InputError, match=r"fill=mean needs training means of text, audio, vision.*Reference\.fit"):
        corrupt(make.feature_batch(5), "missing-fixed", "a", fill="mean")


def test_fill_mean_with_a_reference_that_lacks_the_modality(make: ModuleType) -> None:
    fitted_on_ids = Reference.fit(make.token_batch(5))
    with pytest.raises(InputError, match="text"):
        corrupt(make.feature_batch(5), "missing-fixed", "a", fill="mean", reference=fitted_on_ids)
