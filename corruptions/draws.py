"""The random numbers that one seed gives the samples of a batch.

A draw is keyed by (seed, sample id, modality, purpose), never by position, and never by severity: a token masked at
0.2 is still masked at 0.4, and noise at 0.4 is the noise at 0.2 doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions.batch import MODALITIES, Batch
from corruptions.keyed_random import key_of, normals, philox, uniforms

T = TypeVar("T")


class Draws:
    """Uniforms and normals for the samples of one batch, made on the CPU once and kept on the batch's device.

    Args:
        seed: the corruption seed (PROTOCOLS: seeds are 1111, 1112, ...).
        batch: whose samples; only ids, shapes and device are kept.
        keep: keep draws of the features' own size, too; else they are made again, for the rows that are asked for.

    >>> batch = Batch(text=np.zeros((2, 3, 1)), audio=np.zeros((2, 3, 1)), vision=np.zeros((2, 3, 1)), ids=("a", "b"))
    >>> both, only_b = Draws(1111, batch), Draws(1111, batch.select([1]))
    >>> bool(both.steps("mask", "text")[1].equal(only_b.steps("mask", "text")[0]))
    True
    """

    def __init__(self, seed: int, batch: Batch, keep: bool = True) -> None:
        self.seed = seed
        self.keep = keep
        self.ids = batch.ids
        self.device = batch.device
        self._shapes = {m: tuple(batch.features(m).shape[1:]) for m in MODALITIES}
        self._made: dict[tuple[str, ...], Tensor] = {}
        self._derived: dict[tuple[Hashable, ...], Any] = {}

    def uniform(self, purpose: str, modality: str = "") -> Tensor:
        """One uniform in (0, 1) per sample (and modality, when named): ``(N,)`` float64."""
        return self._once(("uniform", purpose, modality), lambda: self._uniform(purpose, modality, 1).squeeze(1))

    def steps(self, purpose: str, modality: str) -> Tensor:
        """One uniform per step: ``(N, T_m)`` float64. Step t's value does not depend on the padding."""
        count = self._shapes[modality][0]
        return self._once(("steps", purpose, modality), lambda: self._uniform(purpose, modality, count), self.keep)

    def normal(self, purpose: str, modality: str) -> Tensor:
        """One standard normal per step and feature: ``(N, T_m, d_m)`` float32."""
        return self._once(("normal", purpose, modality), lambda: self._normal(purpose, modality), self.keep)

    def gaussian(self, purpose: str, modality: str = "") -> Tensor:
        """One standard normal per sample (and modality, when named): ``(N,)`` float64."""
        return self._once(("gaussian", purpose, modality), lambda: self._gaussian(purpose, modality))

    def row_major(self, steps: int) -> NDArray[np.float64]:
        """``(N, steps)`` uniforms of NumPy's global generator under this seed, row by row: they depend on the order."""
        seed = self.seed
        return self.remember(
            ("row-major", steps), lambda: np.random.RandomState(seed).uniform(size=(len(self.ids), steps))
        )

    def rows(self, part: slice) -> Draws:
        """The draws of a run of samples: views of these, as far as these are kept."""
        return self.remember(("rows", part.start, part.stop), lambda: DrawsOfRows(self, part))

    def fitting(self, batch: Batch) -> Draws:
        """The same draws for the same samples in another shape (padded further by a swap)."""
        if all(tuple(batch.features(m).shape[1:]) == shape for m, shape in self._shapes.items()):
            return self
        return Draws(self.seed, batch)

    def remember(self, name: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """What a stressor derives from the draws alone and needs again at the next severity; made once."""
        if name not in self._derived:
            self._derived[name] = make()
        found: T = self._derived[name]
        return found

    def pairs(self, purpose: str, hosts: Sequence[int], donor_ids: Sequence[str]) -> NDArray[np.float64]:
        """One uniform per (host, donor) pair, keyed by both ids: ``(len(hosts), len(donor_ids))`` on the CPU."""
        donors = np.array([_donor_key(donor) for donor in donor_ids], dtype=np.uint64)
        words = philox(self._keys(purpose, "", [self.ids[i] for i in hosts]), donors)
        pairs: NDArray[np.float64] = (words[0] * 2.0**21 + (words[1] >> np.uint64(11)) + 0.5) * 2.0**-53
        return pairs

    def _once(self, name: tuple[str, ...], make: Callable[[], Tensor], keep: bool = True) -> Tensor:
        if not keep:
            return make().to(self.device)
        if name not in self._made:
            self._made[name] = make().to(self.device)
        return self._made[name]

    def _keys(self, purpose: str, modality: str, ids: Sequence[str]) -> NDArray[np.uint64]:
        return np.array([key_of(self.seed, i, modality, purpose) for i in ids], dtype=np.uint64)

    def _uniform(self, purpose: str, modality: str, count: int) -> Tensor:
        return torch.from_numpy(uniforms(self._keys(purpose, modality, self.ids), count))

    def _gaussian(self, purpose: str, modality: str) -> Tensor:
        return torch.from_numpy(normals(self._keys(purpose, modality, self.ids), 1).astype(np.float64)).squeeze(1)

    def _normal(self, purpose: str, modality: str) -> Tensor:
        shape = self._shapes[modality]
        values = normals(self._keys(purpose, modality, self.ids), int(np.prod(shape)))
        return torch.from_numpy(values).view(len(self.ids), *shape)


@lru_cache(maxsize=1 << 16)
def _donor_key(donor: str) -> int:
    """The same for every seed and every host."""
    return key_of("donor", donor)


class GeneratorDraws(Draws):
    """Fresh draws from a ``torch.Generator``, on its own device: for training, where no two batches should agree."""

    def __init__(self, generator: torch.Generator, batch: Batch) -> None:
        super().__init__(0, batch)
        self._generator = generator

    def _uniform(self, purpose: str, modality: str, count: int) -> Tensor:
        generator = self._generator
        return torch.rand(len(self.ids), count, generator=generator, device=generator.device, dtype=torch.float64)

    def fitting(self, batch: Batch) -> Draws:
        same = all(tuple(batch.features(m).shape[1:]) == shape for m, shape in self._shapes.items())
        return self if same else GeneratorDraws(self._generator, batch)

    def _gaussian(self, purpose: str, modality: str) -> Tensor:
        generator = self._generator
        return torch.randn(len(self.ids), generator=generator, device=generator.device, dtype=torch.float64)

    def _normal(self, purpose: str, modality: str) -> Tensor:
        shape = (len(self.ids), *self._shapes[modality])
        return torch.randn(shape, generator=self._generator, device=self._generator.device)

    def pairs(self, purpose: str, hosts: Sequence[int], donor_ids: Sequence[str]) -> NDArray[np.float64]:
        values = torch.rand(len(hosts), len(donor_ids), generator=self._generator, device=self._generator.device)
        return values.cpu().numpy().astype(np.float64)


class DrawsOfRows(Draws):
    """A run of another's samples; what is kept is drawn there, for all of them."""

    def __init__(self, whole: Draws, part: slice) -> None:
        self.whole, self.part = whole, part
        self.seed, self.device, self.keep = whole.seed, whole.device, whole.keep
        self.ids = whole.ids[part]
        self._shapes = whole._shapes
        self._made, self._derived = {}, {}

    def uniform(self, purpose: str, modality: str = "") -> Tensor:
        return self.whole.uniform(purpose, modality)[self.part]

    def steps(self, purpose: str, modality: str) -> Tensor:
        return self.whole.steps(purpose, modality)[self.part] if self.keep else super().steps(purpose, modality)

    def normal(self, purpose: str, modality: str) -> Tensor:
        return self.whole.normal(purpose, modality)[self.part] if self.keep else super().normal(purpose, modality)

    def gaussian(self, purpose: str, modality: str = "") -> Tensor:
        return self.whole.gaussian(purpose, modality)[self.part]

    def row_major(self, steps: int) -> NDArray[np.float64]:
        return self.whole.row_major(steps)[self.part]

    def fitting(self, batch: Batch) -> Draws:
        return Draws.fitting(self, batch)
