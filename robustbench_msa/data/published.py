"""What is known of the published datasets: their split sizes and dimensions, and which one a file looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Sizes = tuple[int, int, int]

NEARLY = 5  # clips a split may differ by and still be taken for the published one (CH-SIMS v2 goes round with 2721)


@dataclass(frozen=True)
class Published:
    """A dataset as MMSA or its authors distribute it: clips in train, valid, test; dimensions of audio and vision."""

    name: str
    title: str
    sizes: Sizes
    dims: tuple[int, int]
    label_limit: float | None  # labels in [-limit, limit]; None: classes


PUBLISHED = (
    Published("mosi", "CMU-MOSI", (1284, 229, 686), (5, 20), 3.0),
    Published("mosei", "CMU-MOSEI", (16326, 1871, 4659), (74, 35), 3.0),
    Published("sims", "CH-SIMS", (1368, 456, 457), (33, 709), 1.0),
    Published("simsv2", "CH-SIMS v2", (2722, 647, 1034), (25, 177), 1.0),
    Published("mintrec", "MIntRec", (1334, 445, 445), (768, 256), None),
)


@dataclass(frozen=True)
class Likeness:
    """Which published dataset a file is, or is like. match: "exact", "nearly" or "no" (by the sizes of its splits)."""

    name: str
    title: str
    sizes: Sizes
    match: str
    because: str


def likeness(sizes: Sizes, dims: tuple[int, int], label_limit: float | None, unimodal: bool) -> Likeness | None:
    """The published dataset that sizes, then dimensions, then labels point to.

    Args:
        sizes: samples in train, valid, test. dims: of audio and vision.
        label_limit: the largest absolute label, None for classes. unimodal: are there labels of single modalities?

    >>> likeness((1284, 229, 686), (73, 100), 3.0, False).match
    'exact'
    >>> likeness((511, 113, 128), (5, 20), 3.0, False).because
    'its audio and vision have 5 and 20 dimensions'
    """
    for known in PUBLISHED:
        differ = max(abs(a - b) for a, b in zip(sizes, known.sizes, strict=True))
        if differ <= NEARLY and (known.label_limit is None) == (label_limit is None):
            match = "exact" if differ == 0 else "nearly"
            return _like(known, match, "by the sizes of its splits")
    for known in PUBLISHED:
        if dims == known.dims:
            return _like(known, "no", f"its audio and vision have {dims[0]} and {dims[1]} dimensions")
    if unimodal:
        return _like(PUBLISHED[2], "no", "it has labels of single modalities")
    return None


def _like(known: Published, match: str, because: str) -> Likeness:
    return Likeness(known.name, known.title, known.sizes, match, because)


def exchanged(dims: tuple[int, int]) -> str | None:
    """The published dataset whose dimensions these are with audio and vision exchanged.

    >>> exchanged((20, 5)), exchanged((5, 20))
    ('CMU-MOSI', None)
    """
    found: Mapping[tuple[int, int], str] = {known.dims[::-1]: known.title for known in PUBLISHED}
    return found.get(dims)
