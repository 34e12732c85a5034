"""conflict: who is swapped, with whom, and what comes along; donors against an oracle written from the protocol."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Batch, Draws, InputError, Reference, Stress

Eligible = Callable[[str, float, list[tuple[str, float]]], list[str]]
SETS = {(False, True, False), (False, False, True), (False, True, True)}
labels_of_pools = st.lists(st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=9)


def labelled(make: ModuleType, labels: list[float], seed: int = 0, absent: float = 0.0) -> Batch:
    batch: Batch = make.feature_batch(len(labels), seed, absent=absent)
    return batch.replace(labels=torch.tensor(labels))


def may_stand_in(host: str, label: float, pool: list[tuple[str, float]]) -> list[str]:
    """The samples of the same polarity (else all others) with the nearest label: the control's donors."""
    others = [(name, other) for name, other in pool if name != host]
    alike = [(name, other) for name, other in others if np.sign(other) == np.sign(label)]
    among = alike or others
    return [name for name, other in among if abs(other - label) == min(abs(o - label) for _, o in among)]


def may_donate(host: str, label: float, pool: list[tuple[str, float]]) -> list[str]:
    """The half (rounded up) farthest in label of the opposite polarity, else of all others; equal distance: by id."""
    others = [(name, other) for name, other in pool if name != host]
    opposite = [(name, other) for name, other in others if other * label < 0]
    among = sorted(opposite or others, key=lambda donor: (-abs(donor[1] - label), donor[0]))
    return [name for name, _ in among[: (len(among) + 1) // 2]]


@settings(max_examples=50, deadline=None)
@given(labels=labels_of_pools, seed=st.integers(0, 10_000), absent=st.sampled_from([0.0, 0.4]))
@pytest.mark.parametrize(("stress", "eligible"), [("conflict", may_donate), ("conflict-control", may_stand_in)])
def test_donors_are_those_of_the_protocol(
    make: ModuleType, stress: str, eligible: Eligible, labels: list[float], seed: int, absent: float
) -> None:
    batch = labelled(make, labels, seed, absent)
    sources, draws = make.apply(batch, stress, "1", seed).sources, Draws(seed, batch)
    skipped = 0
    which = (draws.uniform("which") * 3).long().tolist()
    for i, (host, label) in enumerate(zip(batch.ids, labels, strict=True)):
        columns = [[1], [2], [1, 2]][which[i]]
        able = [j for j in range(len(labels)) if all(batch.present[j, columns])]
        allowed = eligible(host, label, [(batch.ids[j], labels[j]) for j in able]) if i in able else []
        expected = [-1, -1, -1]
        if allowed:
            best = min(allowed, key=lambda donor: draws.pairs("donor", [i], [donor])[0, 0])
            for column in columns:
                expected[column] = batch.ids.index(best)
        skipped += not allowed
        assert sources.donor[i].tolist() == expected
        assert i not in expected
    assert sources.skipped == skipped


@pytest.mark.parametrize(
    ("stress", "host", "pool", "donors"),
    [
        ("conflict", 2, [0, 3, 1, 2, 2], [0, 3, 1]),  # any other class, however far its number
        ("conflict", 0, [0, 0, 1], [1]),
        ("conflict", 1, [1, 1], [1, 1]),  # no other class in the pool: all others
        ("conflict-control", 2, [0, 3, 1, 2, 2], [2, 2]),
        ("conflict-control", 5, [0, 3, 1], [0, 3, 1]),  # no other sample of its class: all others
    ],
)
def test_classes_have_sameness_alone(
    make: ModuleType, stress: str, host: int, pool: list[int], donors: list[int]
) -> None:
    n = 600
    batch = make.feature_batch(n, 0).replace(labels=torch.full((n,), host))
    lenders = make.feature_batch(len(pool), 1).replace(
        labels=torch.tensor(pool), ids=tuple("zyxwv"[: len(pool)]), groups=None
    )
    donor = make.apply(batch, stress, "1", pool=lenders).sources.donor.max(1).values
    assert sorted(pool[j] for j in donor.unique().tolist()) == sorted(donors)
    for j in donor.unique().tolist():  # uniform among the eligible
        make.assert_rate(int((donor == j).sum()), n, 1 / len(donors))


def test_whole_scores_are_no_classes(make: ModuleType) -> None:
    """The kind of number decides: scores of -1 and 1 keep their polarity, classes 0 and 1 have none."""
    labels = [3.0, 3.0, 1.0, -1.0, -3.0, -3.0]
    scores = make.apply(labelled(make, labels), "conflict", "1").sources.donor.max(1).values
    assert all(labels[j] == -3.0 for j in scores[:3].tolist())  # of the opposite polarity the farthest half
    classes = make.feature_batch(6, 0).replace(labels=torch.tensor([3, 3, 1, 0, 0, 2]))
    for seed in range(5):
        donor = make.apply(classes, "conflict", "1", seed).sources.donor.max(1).values
        assert classes.labels is not None
        assert bool((classes.labels[donor] != classes.labels).all())


@pytest.mark.parametrize(
    ("host", "pool", "donors"),
    [
        (2.0, [-3.0, -1.0, -2.0, -0.5, 3.0, 0.0], [-3.0, -2.0]),  # half of the four negatives
        (2.0, [-3.0, -1.0, -2.0, 3.0], [-3.0, -2.0]),  # half of three, rounded up
        (-1.0, [3.0, 0.0, -3.0], [3.0]),
        (-1.0, [0.0, -3.0, -2.0, -1.0], [-3.0, -2.0]),  # no opposite polarity: all others; |0 - -1| ties with -2's
        (0.0, [3.0, -2.0, 0.5, -1.0], [3.0, -2.0]),
        (0.0, [0.0, 3.0, 0.0, -2.0], [3.0, -2.0]),  # 0 is not its own opposite
        (0.0, [0.0], [0.0]),
    ],
)
def test_donors_by_hand(make: ModuleType, host: float, pool: list[float], donors: list[float]) -> None:
    n = 600
    batch = labelled(make, [host] * n)
    lenders = make.feature_batch(len(pool), 1).replace(
        labels=torch.tensor(pool), ids=tuple("zyxwvuts"[: len(pool)]), groups=None
    )
    donor = make.apply(batch, "conflict", "1", pool=lenders).sources.donor.max(1).values
    assert {pool[j] for j in donor.tolist()} == set(donors)
    for j in donor.unique().tolist():  # uniform among the eligible
        make.assert_rate(int((donor == j).sum()), n, 1 / len(donors))


@pytest.mark.parametrize(
    ("host", "pool", "donors"),
    [
        (2.0, [1.0, 3.0, -2.0, 0.0], [1.0, 3.0]),  # both as near
        (2.0, [2.5, 3.0, -2.0, 0.0], [2.5]),
        (-1.0, [3.0, 0.0, -3.0, 1.0], [-3.0]),  # of the same polarity, however far
        (-1.0, [0.0, 0.5, 3.0], [0.0]),  # no such polarity in the pool: the nearest of all others
        (0.0, [0.0, 0.5, -0.5], [0.0]),  # 0 is a polarity of its own
        (0.0, [0.5, -0.5, 3.0], [0.5, -0.5]),
    ],
)
def test_donors_of_the_control_by_hand(make: ModuleType, host: float, pool: list[float], donors: list[float]) -> None:
    n = 600
    lenders = make.feature_batch(len(pool), 1).replace(
        labels=torch.tensor(pool), ids=tuple("zyxw"[: len(pool)]), groups=None
    )
    donor = make.apply(labelled(make, [host] * n), "conflict-control", "1", pool=lenders).sources.donor.max(1).values
    assert {pool[j] for j in donor.tolist()} == set(donors)
    for j in donor.unique().tolist():
        make.assert_rate(int((donor == j).sum()), n, 1 / len(donors))


@settings(max_examples=25, deadline=None)
@given(c=st.integers(1, 20).map(lambda i: f"{i / 20:.2f}"), seed=st.integers(0, 1000))
def test_the_control_makes_the_same_swaps_with_donors_of_the_same_sentiment(
    make: ModuleType, c: str, seed: int
) -> None:
    batch = make.feature_batch(40, seed, absent=0.2)
    conflict, control = (make.apply(batch, name, c, seed).sources for name in ("conflict", "conflict-control"))
    np.testing.assert_array_equal(conflict.donor >= 0, control.donor >= 0)
    assert conflict.skipped == control.skipped
    assert conflict.unable == control.unable
    assert batch.labels is not None
    for i in (control.donor >= 0).any(1).nonzero().squeeze(1).tolist():
        label = float(batch.labels[i])
        same, opposite = (float(batch.labels[int(sources.donor[i].max())]) for sources in (control, conflict))
        assert abs(same - label) <= abs(opposite - label)


@pytest.mark.parametrize("stress", ["conflict", "conflict-control"])
def test_swaps_nest_and_reach_everyone(make: ModuleType, stress: str) -> None:
    batch = make.feature_batch(80)
    before = torch.full((80, 3), -1)
    for c in ("0.1", "0.25", "0.5", "0.75", "1"):
        donor = make.apply(batch, stress, c).sources.donor
        swapped = before >= 0
        np.testing.assert_array_equal(donor[swapped], before[swapped])  # the same donor at every c
        before = donor
    assert bool((before >= 0).any(1).all())
    assert bool((before[:, 0] == -1).all())
    assert not bool((before == torch.arange(80)[:, None]).any())


@pytest.mark.parametrize("c", ["0.25", "0.75", "1"])
def test_the_sets_are_uniform(make: ModuleType, c: str) -> None:
    n = 6000
    batch = make.wide(n).replace(labels=torch.ones(n))
    lenders = make.wide(2).replace(labels=-torch.ones(2), ids=("a", "b"), groups=None)
    swapped = make.apply(batch, "conflict", c, pool=lenders).sources.donor >= 0
    rows = [tuple(row) for row in swapped.tolist()]
    assert set(rows) <= SETS | {(False, False, False)}
    for pattern in SETS:
        make.assert_rate(rows.count(pattern), n, float(c) / 3)


def test_what_is_swapped_is_the_donor_and_nothing_else(make: ModuleType) -> None:
    batch, pool = make.feature_batch(30), make.feature_batch(20, 5, steps=(6, 9, 4))
    pool = pool.replace(ids=tuple(f"pool{i}" for i in range(20)), groups=None)
    corruption = make.apply(batch, "conflict", "0.6", pool=pool)
    out, donor = corruption.batch, corruption.sources.donor
    assert (donor >= 0).any()
    for name in ("text", "text_lengths", "labels", "present"):
        assert getattr(out, name) is getattr(batch, name)
    assert (out.ids, out.groups) == (batch.ids, batch.groups)
    for i in range(30):
        for column, m in enumerate(MODALITIES):
            j = int(donor[i, column])
            source, row = (batch, i) if j < 0 else (pool, j)
            length = int(source.lengths(m)[row])
            assert int(out.lengths(m)[i]) == length
            np.testing.assert_array_equal(out.features(m)[i, :length], source.features(m)[row, :length])
        for name, columns in (("clues", [1]), ("comment", [0, 1, 2])):  # derived inputs go with their source
            j = int(donor[i, columns].max())
            expected = batch.derived[name].values[i] if j < 0 else pool.derived[name].values[j]
            np.testing.assert_array_equal(out.derived[name].values[i], expected)


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(12)),
    size=st.integers(1, 12),
    seed=st.integers(0, 1000),
    stress=st.sampled_from(["conflict", "conflict-control"]),
)
def test_only_the_pool_matters(make: ModuleType, order: list[int], size: int, seed: int, stress: str) -> None:
    batch = make.feature_batch(12, seed, absent=0.2)
    full = make.apply(batch, stress, "0.8", seed).batch
    shuffled = make.padded(batch.select(order), 2)
    part = make.apply(batch.select(order[:size]), stress, "0.8", seed, pool=shuffled).batch
    make.assert_same_samples(full, part)


@pytest.mark.parametrize("stress", ["conflict", "conflict-control", "noise+conflict"])
def test_draws_that_are_shared_remember_no_other_pool_or_labels(make: ModuleType, stress: str) -> None:
    batch, other = (
        make.feature_batch(30),
        make.feature_batch(20, 5).replace(ids=tuple(map(str, range(20))), groups=None),
    )
    parsed, draws, fit = Stress.parse(stress), Draws(1111, batch), Reference.fit(batch)
    assert batch.labels is not None
    turned = batch.replace(labels=-batch.labels.roll(1))
    (point,) = parsed.grid("0.3x0.9" if "+" in stress else "0.9").points
    for host, pool in (
        (batch, batch),
        (batch, other),
        (turned, turned),
        (turned, other),
        (batch, batch.select([0, 3, 7])),
    ):
        shared, fresh = (parsed.apply(host, point, d, fit, pool) for d in (draws, Draws(1111, host)))
        np.testing.assert_array_equal(shared.sources.donor, fresh.sources.donor)


@pytest.mark.parametrize("stress", ["conflict", "conflict-control"])
@pytest.mark.parametrize(("labels", "skipped"), [([1.0], 1), ([0.0], 1), ([1.0, 1.0], 0), ([-1.0, 1.0], 0)])
def test_tiny_pools(make: ModuleType, stress: str, labels: list[float], skipped: int) -> None:
    batch = labelled(make, labels)
    corruption = make.apply(batch, stress, "1")
    assert corruption.sources.skipped == skipped
    if skipped:
        assert corruption.batch.audio is batch.audio


@pytest.mark.parametrize("stress", ["conflict", "conflict-control"])
def test_labels_are_needed(make: ModuleType, stress: str) -> None:
    with pytest.raises(InputError, match=f"{stress} picks donors by label: the batch and its pool need labels"):
        make.apply(make.feature_batch(3).replace(labels=None), stress, "0.5")


def test_a_pool_of_other_shapes_is_refused(make: ModuleType) -> None:
    batch = make.feature_batch(6)
    narrow = make.feature_batch(6, 2).replace(audio=torch.ones(6, 7, 5), ids=tuple("abcdef"))
    bare = make.feature_batch(6, 2).replace(derived={}, ids=tuple("abcdef"))
    for pool, what in ((narrow, "audio"), (bare, "clues")):
        with pytest.raises(InputError, match=what):
            _ = make.apply(batch, "conflict", "1", pool=pool).batch
