"""Rows of a fusion: a sample, and where each of its modalities comes from. Equal rows need to be fused only once.

A row is four numbers: the sample i of N, then for text, audio and vision one of
``i`` (its own), ``N + j`` (that of donor j) and ``2N + i`` (lost). Rows are kept on the CPU, wherever the model runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corruptions import MODALITIES
from corruptions.corruption import Sources
from robustbench_msa.models.contract import Encoded, Output, Part

OWN, DONOR, LOST = 0, 1, 2


def rows_of(sources: Sources) -> Tensor:
    """``(N, 4)`` int64. A modality that was swapped and then lost is lost."""
    lost, donor = sources.lost.cpu(), sources.donor.cpu()
    n = len(lost)
    own = torch.arange(n)[:, None]
    codes = torch.where(donor >= 0, n + donor, own)
    return torch.cat([own, torch.where(lost, 2 * n + own, codes)], 1)


def distinct(rows: Tensor) -> Tensor:
    """Each row once, in ascending order: by sample first."""
    found: Tensor = torch.unique(rows, dim=0)
    return found


def places(table: Tensor, rows: Tensor) -> Tensor:
    """Where each row stands in a table of distinct rows, ``(len(rows),)`` int64; -1 where it does not.

    >>> places(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[3, 4], [5, 6]])).tolist()
    [1, -1]
    """
    found, inverse = torch.unique(torch.cat([table, rows]), dim=0, return_inverse=True)
    place = torch.full((len(found),), -1)
    place[inverse[: len(table)]] = torch.arange(len(table))
    return place[inverse[len(table) :]]


@dataclass(frozen=True, eq=False)
class Fused:
    """Distinct rows ``(R, 4)`` and what the model says of them."""

    rows: Tensor
    output: Output


def joined(parts: Sequence[Part]) -> Part:
    """The rows of all parts, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def joined_outputs(outputs: Sequence[Output]) -> Output:
    return Output(torch.cat([o.prediction for o in outputs]), joined([o.extras for o in outputs]))


def split_output(output: Output, sizes: Sequence[int]) -> list[Output]:
    """The outputs of so many rows each, in their order."""
    ends = list(itertools.accumulate(sizes))
    return [
        Output(output.prediction[end - size : end], {name: x[end - size : end] for name, x in output.extras.items()})
        for end, size in zip(ends, sizes, strict=True)
    ]


def joined_encoded(parts: Sequence[Encoded]) -> Encoded:
    """The rows of all, one after the other; a single one is not copied."""
    if len(parts) == 1:
        return parts[0]
    derived = {name: joined([encoded.derived[name] for encoded in parts]) for name in parts[0].derived}
    return Encoded(**{m: joined([encoded.part(m) for encoded in parts]) for m in MODALITIES}, derived=derived)


@dataclass(frozen=True, eq=False)
class Picks:
    """The part of R rows, put together from encodings when it is asked for.

    own, donors, lost: the encodings that rows come from; empty where none does. which, row: ``(R,)`` int64 on the CPU.
    """

    own: Part
    donors: Part
    lost: Part
    which: Tensor
    row: Tensor

    def part(self, rows: slice) -> Part:
        """Rows in their order; where they are a run of one encoding, its own memory."""
        which, row = self.which[rows], self.row[rows]
        first, last = int(row[0]), int(row[-1])
        if not bool(which.any()) and row.equal(torch.arange(first, last + 1)):
            return {name: x[first : last + 1] for name, x in self.own.items()}
        picked = {name: x.index_select(0, row.to(x.device)) for name, x in self.own.items()}
        for kind, source in ((DONOR, self.donors), (LOST, self.lost)):
            hosts = (which == kind).nonzero().squeeze(1)
            for name, x in picked.items() if len(hosts) else ():
                x.index_copy_(0, hosts.to(x.device), source[name].index_select(0, row[hosts].to(x.device)))
        return picked


def kinds_of(rows: Tensor, n: int, modality: str) -> tuple[Tensor, Tensor]:
    """OWN, DONOR or LOST of a modality in each row, and the sample it comes from; both ``(R,)`` int64."""
    codes = rows[:, 1 + MODALITIES.index(modality)]
    return codes // n, codes % n


def kinds_of_derived(rows: Tensor, n: int, sources: Sequence[str], available: Tensor) -> tuple[Tensor, Tensor]:
    """The same of a derived input: lost with any of its sources, swapped with them.

    available: ``(N,)`` bool, whose samples have all sources. A host that lacks another source has no such input anyway.
    """
    kinds, samples = (torch.stack(x, 1) for x in zip(*(kinds_of(rows, n, m) for m in sources), strict=True))
    own = rows[:, 0]
    donor = samples.masked_fill(kinds != DONOR, -1).amax(1)
    kind = torch.where((donor >= 0) & available[own], DONOR, OWN)
    kind = torch.where((kinds == LOST).any(1), LOST, kind)
    return kind, torch.where(kind == DONOR, donor, own)
