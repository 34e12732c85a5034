"""Cross-modal conflict: audio and vision from a sample of the opposite sentiment (RIDER-MoE, C.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions.batch import Batch
from corruptions.corruption import Sources
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.stressor import Stressor, Value

SWAPS = np.array([[False, True, False], [False, False, True], [False, True, True]])  # {audio}, {vision}, both


class Conflict(Stressor):
    """``conflict`` at c: with probability c a sample's {audio}, {vision} or {audio, vision}, uniformly, come from one
    donor of the pool; text and label stay.

    The donor is uniform over the half (rounded up) of the opposite-polarity samples that is farthest in label; for
    label 0, or with no opposite polarity in the pool, over the farthest half of all others. Never the host itself.
    A host that lacks a modality to be swapped, or finds no donor that has them, is skipped and counted.
    """

    name = "conflict"
    axes = (Axis("c", "0", "1"),)
    default_grid = "0:1:0.25"
    summary = "audio and vision swapped with a sample of the opposite sentiment"
    source = "RIDER-MoE, appendix C.2"
    option_table = {}
    uses_pool = True

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Mapping[str, Value]) -> Sources:
        if batch.labels is None or pool.labels is None:
            raise InputError("conflict picks donors by label: the batch and its pool need labels")
        chosen = (draws.uniform("swap").cpu().numpy() < float(point.values[0])).nonzero()[0]
        wanted = SWAPS[np.minimum((draws.uniform("which").cpu().numpy() * 3).astype(int), 2)]
        donor = np.full((len(batch), 3), -1, dtype=np.int64)
        skipped = 0
        ours, theirs = batch.present.cpu().numpy(), pool.present.cpu().numpy()
        for swap in SWAPS:
            hosts = chosen[np.all(wanted[chosen] == swap, axis=1)]
            able = hosts[np.all(ours[hosts][:, swap], axis=1)]
            found = choose_donors(batch, able, pool, np.all(theirs[:, swap], axis=1), draws)
            donor[np.ix_(able, swap)] = found[:, None]
            skipped += len(hosts) - int((found >= 0).sum())
        untouched = Sources.untouched(batch)
        unable = int((~theirs[:, 1:].all(axis=1)).sum())
        return Sources(untouched.lost, torch.from_numpy(donor).to(batch.device), skipped, unable)


def choose_donors(
    batch: Batch, hosts: NDArray[np.int64], pool: Batch, able: NDArray[Any], draws: Draws
) -> NDArray[np.int64]:
    """The pool's position of each host's donor (-1: none), among the able samples of the pool.

    The chosen one is the eligible sample with the smallest draw keyed by (seed, host id, donor id).
    """
    assert batch.labels is not None
    assert pool.labels is not None
    labels = pool.labels.to(torch.float64).cpu().numpy()
    host_labels = batch.labels.to(torch.float64).cpu().numpy()
    places = able.nonzero()[0]
    ids = [pool.ids[place] for place in places]
    rank = np.empty(len(ids), dtype=np.int64)  # ties in label distance are broken by id, never by position
    rank[np.argsort(np.array(ids))] = np.arange(len(ids))
    position = {donor: i for i, donor in enumerate(ids)}
    chosen = np.full(len(hosts), -1, dtype=np.int64)
    for start in range(0, len(hosts), 256):  # bounds memory: 256 hosts against the pool at a time
        some = hosts[start : start + 256]
        pairs = draws.pairs("donor", some.tolist(), ids)
        for row, host in enumerate(some):
            others = np.ones(len(ids), dtype=bool)
            if batch.ids[host] in position:
                others[position[batch.ids[host]]] = False
            eligible = farthest_half(host_labels[host], labels[places], others, rank)
            if len(eligible):
                chosen[start + row] = places[eligible[np.argmin(pairs[row, eligible])]]
    return chosen


def farthest_half(
    label: float, labels: NDArray[np.float64], others: NDArray[np.bool_], rank: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Positions of the half of the opposite polarity (or, failing that, of all others) farthest in label."""
    opposite = others & (np.sign(labels) == -np.sign(label)) if label else np.zeros_like(others)
    among = (opposite if opposite.any() else others).nonzero()[0]
    farthest = np.lexsort((rank[among], -np.abs(labels[among] - label)))
    half: NDArray[np.int64] = among[farthest[: -(-len(among) // 2)]]
    return half
