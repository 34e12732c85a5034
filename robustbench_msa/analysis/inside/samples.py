"""The samples of a point as arrays, with the extras that their model stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import softmax

from robustbench_msa.analysis.metrics import Array

COLUMNS = ["sample_id", "group", "y_true", "y_pred", "present_t", "present_a", "present_v", "extras"]


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a point, those of several corruption seeds one after another.

    ids, y_true, y_pred: ``(N,)``; group: ``(N,)`` in 0..G-1, the same for all points of a run; seed: ``(N,)``, which of
    the n_seeds corruption seeds; present: ``(N, 3)`` as told; extras: ``(N, k)`` by name; classes: labels and
    predictions are classes, not scores.
    """

    ids: NDArray[np.str_]
    group: NDArray[np.int64]
    seed: NDArray[np.int64]
    y_true: Array
    y_pred: Array
    present: NDArray[np.bool_]
    extras: Mapping[str, Array]
    classes: bool = False

    @property
    def n_seeds(self) -> int:
        return int(self.seed.max()) + 1

    @property
    def n(self) -> int:
        """How many samples one corruption seed has."""
        return int((self.seed == 0).sum())

    @property
    def error(self) -> Array:
        """Absolute error, ``(N,)``; of classes 1 where wrong and 0 where right, so that its mean is the error rate."""
        if self.classes:
            return np.asarray(self.y_true != self.y_pred, dtype=np.float64)
        return np.abs(self.y_true - self.y_pred)

    @property
    def certainty(self) -> Array:
        """How far a prediction is from flipping, ``(N,)``: the size of a score, the probability of a class.

        Of classes without logits: 0.
        """
        if not self.classes:
            return np.abs(self.y_pred)
        return probability(self.extras["logits"]) if "logits" in self.extras else np.zeros(len(self.y_pred))

    @classmethod
    def joined(cls, parts: Iterable[Samples]) -> Samples:
        """Several seeds, or points, one after another; each part keeps its own seeds apart from the others'."""
        parts, seeds, offset = list(parts), [], 0
        for part in parts:
            seeds.append(part.seed + offset)
            offset += part.n_seeds
        names = set.intersection(*(set(part.extras) for part in parts))
        whole = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("ids", "group", "y_true", "y_pred", "present")
        }
        extras = {name: np.concatenate([part.extras[name] for part in parts]) for name in sorted(names)}
        return cls(seed=np.concatenate(seeds), extras=extras, classes=parts[0].classes, **whole)


def probability(logits: Array) -> Array:
    """The largest softmax probability, ``(N,)``, of logits ``(N, C)``; 0 where they are not all finite.

    >>> probability(np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))).tolist()
    [0.75, 0.5]
    """
    known = np.isfinite(logits).all(axis=1, keepdims=True)
    highest = softmax(np.where(known, logits, 0.0), axis=1).max(axis=1, keepdims=True)
    return np.asarray(np.where(known, highest, 0.0)[:, 0])


def samples_of(table: pa.Table, classes: bool = False) -> Samples:
    """A cell's table of predictions (columns of ``schemas.PREDICTIONS``) as arrays."""
    numbers = {name: table[name].to_numpy().astype(np.float64) for name in ("y_true", "y_pred")}
    return Samples(
        ids=np.asarray(table["sample_id"].to_pylist()),
        group=np.unique(table["group"].to_pylist(), return_inverse=True)[1].astype(np.int64),
        seed=np.zeros(len(table), dtype=np.int64),
        present=np.stack([np.asarray(table[f"present_{letter}"].to_pylist()) for letter in "tav"], axis=1),
        extras=_extras(table["extras"].combine_chunks()),
        classes=classes,
        **numbers,
    )


def _extras(column: pa.MapArray) -> dict[str, Array]:
    """``(N, k)`` by name. Every sample of a cell has the same names, in the same order."""
    n, keys = len(column), column.keys
    if not n or not len(keys):
        return {}
    per_sample = len(keys) // n
    take = [column.items.take(pa.array(np.arange(i, len(keys), per_sample))) for i in range(per_sample)]
    values = [part.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(n, -1) for part in take]
    return dict(zip(keys[:per_sample].to_pylist(), values, strict=True))
