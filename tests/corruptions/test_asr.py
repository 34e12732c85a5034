"""asr: substitutions, deletions and repetitions, against a loop over tokens written from the protocol."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Batch, Draws, InputError
from corruptions.corruption import maskable

shares = st.integers(1, 100).map(lambda i: f"{i / 100:.2f}") | st.integers(1, 10).map(lambda i: f"{i / 10:.1f}")
seeds = st.integers(0, 10_000)


def by_hand(make: ModuleType, batch: Batch, pool: Batch, s: str, seed: int) -> list[list[Any]]:
    """Every text, token by token. None stands for a deletion."""
    draws = Draws(seed, batch)
    error, kind, token = (draws.steps(name, "text").tolist() for name in ("error", "kind", "token"))
    text, tokens = batch.text.tolist(), []
    for _, row in sorted(zip(pool.ids, range(len(pool)), strict=True)):
        tokens += [pool.text[row].tolist()[t] for t in maskable(pool, "text")[row].nonzero().squeeze(1).tolist()]
    found = []
    for i, true in enumerate(text):
        may = maskable(batch, "text")[i].nonzero().squeeze(1).tolist()
        wrong = sorted(may, key=lambda t: error[i][t])[: make.half_even(s, len(may))]
        row = list(true)
        for t in wrong:
            before = [place for place in may if place < t]
            if kind[i][t] < 0.6:
                first = int(token[i][t] * len(tokens))
                row[t] = next(x for x in tokens[first:] + tokens[:first] if x != true[t])
            elif kind[i][t] >= 0.8 and before:
                row[t] = true[before[-1]]
            else:
                row[t] = None
        found.append(row)
    return found


@settings(max_examples=30, deadline=None)
@given(s=shares, seed=seeds, tokens=st.booleans(), apart=st.booleans())
def test_errors_are_those_of_the_protocol(make: ModuleType, s: str, seed: int, tokens: bool, apart: bool) -> None:
    maker = make.token_batch if tokens else make.feature_batch
    batch: Batch = maker(6, seed, absent=0.2)
    pool = maker(5, seed + 1).replace(ids=tuple("edcba"), groups=None) if apart else batch
    corruption = make.apply(batch, "asr", s, seed, pool=pool)
    unknown = 100 if tokens else [0.0] * 3
    expected = by_hand(make, batch, pool, s, seed)
    filled = [[unknown if x is None else x for x in row] for row in expected]
    np.testing.assert_array_equal(corruption.batch.text, torch.tensor(filled).to(batch.text.dtype))
    deleted = [[x is None for x in row] for row in expected]
    np.testing.assert_array_equal(corruption.features.lost["text"], deleted)
    wrong = corruption.features.lost["text"] | corruption.features.altered["text"]
    may = maskable(batch, "text")
    assert not (wrong & ~may).any()
    assert wrong.sum(1).tolist() == [make.half_even(s, n) for n in may.sum(1).tolist()]


def test_the_ratio_is_6_2_2(make: ModuleType) -> None:
    n, steps = 3000, 4
    tokens = torch.arange(n * steps).view(n, steps) + 1000  # all different, so that what happened shows
    batch = Batch(tokens, *torch.ones(2, n, 1, 1))
    out, before = make.apply(batch, "asr", "1").batch.text[:, 1:], tokens[:, :-1]
    deleted, repeated = out == 100, out == before
    substituted = ~deleted & ~repeated
    for kind, rate in ((substituted, 0.6), (deleted, 0.2), (repeated, 0.2)):
        make.assert_rate(int(kind.sum()), kind.numel(), rate)
    first = make.apply(batch, "asr", "1").batch.text[:, 0]  # nothing to repeat: deleted
    make.assert_rate(int((first == 100).sum()), n, 0.4)
    taken = (out[substituted] - 1000).double()  # uniform over the tokens of the pool
    assert abs(float(taken.mean()) / (n * steps) - 0.5) < 3 * np.sqrt(1 / 12 / len(taken))
    halves = (taken < n * steps / 2).double()
    make.assert_rate(float(halves.sum()), len(halves), 0.5)
    make.assert_rate(int((taken % steps == 0).sum()), len(taken), 1 / steps)


@settings(max_examples=25, deadline=None)
@given(pair=st.tuples(shares, shares).map(lambda pair: sorted(pair, key=float)), seed=seeds, tokens=st.booleans())
def test_errors_nest_and_stay_what_they_are(make: ModuleType, pair: list[str], seed: int, tokens: bool) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(10, seed, absent=0.2)
    small, large = (make.apply(batch, "asr", s, seed) for s in pair)
    for kind in ("lost", "altered"):
        a, b = getattr(small.features, kind)["text"], getattr(large.features, kind)["text"]
        assert not (a & ~b).any()
        np.testing.assert_array_equal(small.batch.text[a], large.batch.text[a])


def test_only_text_is_touched(make: ModuleType) -> None:
    for batch in (make.feature_batch(20), make.token_batch(20)):
        out = make.apply(batch, "asr", "1").batch
        for m in ("audio", "vision"):
            assert out.features(m) is batch.features(m)
        assert out.derived is batch.derived
        assert out.text_lengths is batch.text_lengths
        outside = ~maskable(batch, "text")
        np.testing.assert_array_equal(out.text[outside], batch.text[outside])


@pytest.mark.parametrize(
    ("maker", "fill", "value"),
    [("token_batch", "mask", 103), ("token_batch", "unk", 100), ("feature_batch", "zeros", 0.0)],
)
def test_what_is_deleted_is_filled(make: ModuleType, maker: str, fill: str, value: float) -> None:
    batch = getattr(make, maker)(30)
    corruption = make.apply(batch, f"asr:fill={fill}", "1")
    filled = corruption.batch.text[corruption.features.lost["text"]]
    assert len(filled)
    np.testing.assert_array_equal(filled, torch.full_like(filled, value))


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(9)), seed=seeds)
def test_the_order_and_the_padding_of_the_pool_do_not_matter(make: ModuleType, order: list[int], seed: int) -> None:
    batch, pool = make.token_batch(6, seed), make.token_batch(9, seed + 1)
    one = make.apply(batch, "asr", "0.8", seed, pool=pool).batch
    two = make.apply(batch, "asr", "0.8", seed, pool=make.padded(pool.select(order), 3)).batch
    np.testing.assert_array_equal(one.text, two.text)


def test_what_is_absent_lends_no_tokens_and_takes_none(make: ModuleType) -> None:
    batch = make.token_batch(40)
    present = torch.ones(40, 3, dtype=torch.bool)
    present[::2, 0] = False
    batch = batch.replace(present=present)
    absent = set(batch.text[::2].flatten().tolist()) - set(batch.text[1::2].flatten().tolist())
    out = make.apply(batch, "asr", "1").batch
    np.testing.assert_array_equal(out.text[::2], batch.text[::2])
    assert not absent & set(out.text[1::2].flatten().tolist())


@pytest.mark.parametrize("case", ["one token", "nobody", "no text"])
def test_pools_without_another_token(make: ModuleType, case: str) -> None:
    """Where there is none to substitute, the token is deleted."""
    batch = make.token_batch(10)
    same = torch.where(maskable(batch, "text"), 1500, batch.text)
    batch = batch.replace(text=same)
    pool = {
        "one token": batch,
        "nobody": batch.select([]),
        "no text": batch.replace(present=torch.zeros(10, 3, dtype=torch.bool)),
    }[case]
    done = make.apply(batch, "asr", "1", pool=pool)
    kind, may = Draws(1111, batch).steps("kind", "text"), maskable(batch, "text")
    first = may & (may.cumsum(1) == 1)
    np.testing.assert_array_equal(done.features.lost["text"], may & ((kind < 0.8) | first))
    np.testing.assert_array_equal(done.batch.text[may], torch.where(done.features.lost["text"], 100, same)[may])


def test_pools_of_another_kind_are_refused(make: ModuleType) -> None:
    features, tokens = make.feature_batch(8), make.token_batch(8)
    narrow = features.replace(text=features.text[:, :, :2])
    for batch, pool in ((tokens, features), (features, tokens), (features, narrow)):
        with pytest.raises(InputError, match="pool: its text is of another kind"):
            make.apply(batch, "asr", "1", pool=pool)


def test_the_length_stays(make: ModuleType) -> None:
    batch = make.token_batch(20)
    out = make.apply(batch, "asr", "1").batch
    for m in MODALITIES:
        assert out.lengths(m) is batch.lengths(m)
    np.testing.assert_array_equal((out.text == 101).sum(1), torch.ones(20))
    np.testing.assert_array_equal((out.text == 102).sum(1), torch.ones(20))
