"""Random numbers that depend on a key alone: no state, no order, no library's private stream.

Philox-4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3") is a bijection of a 128-bit
counter under a 64-bit key. A key is the hash of what a draw is for (seed, sample id, modality, purpose) and the
counter is the place in the draw, so any part of any draw can be made alone, in any order, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

KEY_VERSION = "msabench-draws-1"
NORMAL_GRID = 2.0**-16
"""Normals are rounded to this step. It is far below any effect, and it hides the last-bit differences between
maths libraries, so that the bits agree between machines. All rounded values are exact in float32."""

_BLOCKS_AT_ONCE = 1 << 16  # keeps the work inside the processor's cache and the memory small
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)


def key_of(*parts: object) -> int:
    """The 64-bit key of a purpose: a hash of the parts' text.

    >>> key_of(1111, "clip7", "audio", "noise") == key_of(1111, "clip7", "audio", "noise")
    True
    >>> key_of("ab", "c") == key_of("a", "bc")
    False
    """
    text = "\x1f".join([KEY_VERSION, *map(str, parts)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def philox(keys: NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Four 32-bit words for each key and counter. keys: ``(N,)``; counters: ``(M,)``; result ``(4, N, M)`` uint64.

    The counter's low 64 bits are given, its high 64 bits are zero.
    """
    shape = (len(keys), len(counters))
    c0 = np.broadcast_to(counters & _LOW, shape)
    c1 = np.broadcast_to(counters >> _SHIFT, shape)
    c2 = c3 = np.zeros(shape, dtype=np.uint64)
    k0, k1 = (keys & _LOW)[:, None], (keys >> _SHIFT)[:, None]
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _SHIFT) ^ c1 ^ k0
        c1 = product1 & _LOW
        c2 = (product0 >> _SHIFT) ^ c3 ^ k1
        c3 = product0 & _LOW
        k0, k1 = (k0 + np.uint64(_WEYL[0])) & _LOW, (k1 + np.uint64(_WEYL[1])) & _LOW
    return np.stack([c0, c1, c2, c3])


def uniforms(keys: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """``(N, count)`` uniforms strictly inside (0, 1), multiples of 2^-33. A key's value j does not depend on count."""
    out = np.empty((len(keys), count))
    _fill(out, keys, lambda u: u)
    return out


def normals(keys: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """``(N, count)`` standard normals (Box-Muller) on NORMAL_GRID. A key's value j does not depend on count."""
    out = np.empty((len(keys), count), dtype=np.float32)
    _fill(out, keys, _box_muller)
    return out


def _box_muller(u: NDArray[np.float64]) -> NDArray[np.float64]:
    radius = np.sqrt(-2.0 * np.log(u[:, 0::2]))
    angle = (2.0 * np.pi) * u[:, 1::2]
    z = np.empty_like(u)
    np.multiply(radius, np.cos(angle), out=z[:, 0::2])
    np.multiply(radius, np.sin(angle), out=z[:, 1::2])
    z /= NORMAL_GRID
    np.rint(z, out=z)
    z *= NORMAL_GRID
    return z


def keyed_uniforms(key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniforms in (0, 1) of any shape under one named key."""
    return uniforms(_single(key), int(np.prod(shape))).reshape(shape)


def keyed_normals(key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normals of any shape under one named key, as float64 (multiples of NORMAL_GRID)."""
    return normals(_single(key), int(np.prod(shape))).reshape(shape).astype(np.float64)


def _single(key: str) -> NDArray[np.uint64]:
    return np.array([key_of(key)], dtype=np.uint64)


def _fill(out: NDArray[Any], keys: NDArray[np.uint64], made_of: Callable[[NDArray[np.float64]], Any]) -> None:
    """``out (N, count)`` from uniforms, in pieces of bounded size, as many at once as torch has threads."""
    count = out.shape[1]
    blocks = -(-count // 4)  # a block of Philox is four values
    width = max(1, min(blocks, _BLOCKS_AT_ONCE))
    height = max(1, _BLOCKS_AT_ONCE // width)
    pieces = [(top, left) for top in range(0, len(keys), height) for left in range(0, blocks, width)]

    def fill(piece: tuple[int, int]) -> None:
        top, left = piece
        counters = np.arange(left, min(left + width, blocks), dtype=np.uint64)
        words = philox(keys[top : top + height], counters)
        u = np.ascontiguousarray(words.transpose(1, 2, 0)).reshape(words.shape[1], -1).astype(np.float64)
        u += 0.5
        u *= 2.0**-32
        start, stop = left * 4, min((left + len(counters)) * 4, count)
        out[top : top + height, start:stop] = made_of(u)[:, : stop - start]

    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        for piece in pieces:
            fill(piece)
        return
    with ThreadPoolExecutor(threads) as pool:  # NumPy lets others work while it does
        for _ in pool.map(fill, pieces):
            pass
