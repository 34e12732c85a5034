"""Philox and what is drawn from it, against a scalar implementation that is itself held to the published answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions.keyed_random import key_of, keyed_normals, keyed_uniforms, normals, philox, uniforms

WORD = 0xFFFFFFFF
LARGEST_NORMAL = math.sqrt(2 * math.log(2.0**33)) + 2.0**-16


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox-4x32-10 on Python integers: ten rounds of multiply, split and mix; the key grows by the Weyl constants."""
    c0, c1, c2, c3 = counter
    for i in range(10):
        k0, k1 = (key[0] + i * 0x9E3779B9) & WORD, (key[1] + i * 0xBB67AE85) & WORD
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return [c0, c1, c2, c3]


def words(key: int, counter: int) -> list[int]:
    return scalar_philox([counter & WORD, counter >> 32, 0, 0], [key & WORD, key >> 32])


def as_keys(*keys: int) -> np.ndarray:
    return np.array(keys, dtype=np.uint64)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([WORD] * 4, [WORD] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],  # the digits of pi
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_oracle_gives_the_published_answers(counter: list[int], key: list[int], answer: list[int]) -> None:
    assert scalar_philox(counter, key) == answer


def test_philox_gives_the_published_answer_for_key_0_counter_0() -> None:
    np.testing.assert_array_equal(
        philox(as_keys(0), as_keys(0))[:, 0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    )


numbers = st.integers(0, 2**64 - 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=3), st.lists(numbers, min_size=1, max_size=3))
def test_philox_is_the_oracle_for_any_keys_and_counters(keys: list[int], counters: list[int]) -> None:
    got = philox(as_keys(*keys), as_keys(*counters))
    want = np.array([[words(k, c) for c in counters] for k in keys], dtype=np.uint64)
    np.testing.assert_array_equal(got, want.transpose(2, 0, 1))


@settings(max_examples=30, deadline=None)
@given(numbers, st.integers(1, 11))
def test_values_are_the_words_of_consecutive_counters(key: int, count: int) -> None:
    flat = [word for c in range(3) for word in words(key, c)]
    u = [(word + 0.5) / 2**32 for word in flat]
    np.testing.assert_array_equal(uniforms(as_keys(key), count)[0], u[:count])
    z = []
    for u1, u2 in zip(u[0::2], u[1::2], strict=True):  # Box-Muller
        radius, angle = math.sqrt(-2 * math.log(u1)), 2 * math.pi * u2
        z += [radius * math.cos(angle), radius * math.sin(angle)]
    np.testing.assert_allclose(normals(as_keys(key), count)[0], z[:count], atol=2.0**-17 + 1e-12, rtol=0)


@pytest.mark.parametrize("draw", [uniforms, normals])
def test_a_value_depends_neither_on_count_nor_on_the_other_keys(draw) -> None:  # type: ignore[no-untyped-def]
    long = draw(as_keys(7, 8), 300_001)  # more than one piece of work
    for count in (0, 1, 2, 3, 4, 5, 1000, 262_145):
        np.testing.assert_array_equal(draw(as_keys(8), count)[0], long[1, :count])
    many = draw(np.arange(70_000, dtype=np.uint64), 3)
    for key in (0, 7, 65_535, 65_536, 69_999):
        np.testing.assert_array_equal(draw(as_keys(key), 3)[0], many[key])


def test_the_far_counters_are_right_too() -> None:
    far = uniforms(as_keys(5), 300_001)[0, 4 * 70_000 : 4 * 70_000 + 4]
    np.testing.assert_array_equal(far, [(word + 0.5) / 2**32 for word in words(5, 70_000)])


def test_uniforms_are_uniform_and_independent() -> None:
    u = uniforms(np.arange(400, dtype=np.uint64), 500)  # neighbouring keys on purpose
    n = u.size
    assert u.min() > 0
    assert u.max() < 1
    np.testing.assert_array_equal(u * 2**33 % 2, np.ones_like(u))  # odd multiples of 2^-33
    for power in (1, 2, 3, 4):
        mean, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
        assert abs((u**power).mean() - mean) < 3 * math.sqrt(variance / n)
    for a, b in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1]), (u[:, 4:], u[:, :-4])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 3 / math.sqrt(a.size)


def test_normals_have_normal_moments_and_stand_on_their_grid() -> None:
    z = normals(np.arange(400, dtype=np.uint64), 500).astype(np.float64)
    np.testing.assert_array_equal(z * 2**16, np.rint(z * 2**16))
    assert np.abs(z).max() <= LARGEST_NORMAL
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 3 * math.sqrt(spread / z.size)
    for a, b in ((z[:, 1:], z[:, :-1]), (z[1:], z[:-1]), (z[:, 1:] ** 2, z[:, :-1] ** 2)):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 3 / math.sqrt(a.size)


def test_keys_are_told_apart() -> None:
    purposes = [
        (1111, "a", "", "b"),
        (1111, "a", "b", ""),
        (1111, "", "a", "b"),
        (111, "1a", "", "b"),
        (1111, "ab", ""),
    ]
    assert len({key_of(*parts) for parts in purposes}) == len(purposes)


def test_keys_and_draws_are_pinned() -> None:
    """A change here changes every result ever stored: raise KEY_VERSION and every stressor's version."""
    assert key_of(1111, "clip7", "audio", "noise") == PINNED_KEY
    np.testing.assert_array_equal(keyed_uniforms("pinned", (2, 2)), PINNED_UNIFORMS)
    np.testing.assert_array_equal(keyed_normals("pinned", (2, 2)), PINNED_NORMALS)


PINNED_KEY = 3159227247143990244
PINNED_UNIFORMS = [
    [0.48476509226020426, 0.044654831173829734],
    [0.6007158240536228, 0.4096734399208799],
]
PINNED_NORMALS = [[1.156341552734375, 0.3332366943359375], [-0.851318359375, 0.5427093505859375]]


@pytest.mark.parametrize("threads", [2, 5])
def test_values_do_not_depend_on_threads(threads: int) -> None:
    keys = np.arange(700, dtype=np.uint64)  # several pieces
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = normals(keys, 1001), uniforms(keys, 1001)
        torch.set_num_threads(threads)
        together = normals(keys, 1001), uniforms(keys, 1001)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
