"""How many classes a dataset has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from corruptions import Batch, InputError


class HasClasses(Protocol):
    """What is asked of a dataset."""

    @property
    def name(self) -> str: ...
    @property
    def profile(self) -> str: ...
    @property
    def splits(self) -> Mapping[str, Batch]: ...
    @property
    def classes(self) -> Sequence[str]: ...


def num_classes_of(dataset: HasClasses) -> int:
    """C: of the names where the dataset has them, else the largest label of any split plus one; 0 for scores.

    Raises:
        InputError: labels that are no classes 0..C-1, or a single class.
    """
    if dataset.profile != "classification":
        return 0
    largest = 0
    for split, batch in dataset.splits.items():
        labels = batch.labels
        if labels is None or labels.is_floating_point() or int(labels.min()) < 0:
            raise InputError(f"{dataset.name}/{split}: expected labels as whole numbers from 0, the classes")
        largest = max(largest, int(labels.max()))
    count = len(dataset.classes) or largest + 1
    if count < 2 or largest >= count:
        raise InputError(f"{dataset.name}: expected at least 2 classes, numbered from 0; got {count} and a {largest}")
    return count
