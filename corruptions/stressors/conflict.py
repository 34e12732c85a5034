"""Cross-modal conflict: audio and vision from a sample of the opposite sentiment (RIDER-MoE, C.2), and its control.

Labels that are whole numbers (``torch.int64``) are classes: they have no polarity and no distance, only sameness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions.batch import Batch
from corruptions.corruption import Sources
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.stressor import EVERY, Options, Stressor

Positions = NDArray[np.int64]
Eligible = Callable[[float, NDArray[np.float64], NDArray[np.bool_], Positions], Positions]
"""(host's label, the donors' labels, which are not the host, rank of their ids) to positions of eligible donors."""


class Conflict(Stressor):
    """``conflict`` at c: with probability c a sample's {audio}, {vision} or {audio, vision}, uniformly, come from one
    donor of the pool; text and label stay.

    The donor is uniform over the half (rounded up) of the opposite-polarity samples that is farthest in label; for
    label 0, or with no opposite polarity in the pool, over the farthest half of all others. Never the host itself.
    A host that lacks a modality to be swapped, or finds no donor that has them, is skipped and counted.
    Where labels are classes (whole numbers), the donor is uniform over the samples of all other classes.
    """

    name = "conflict"
    axes = (Axis("c", "0", "1"),)
    default_grid = "0:1:0.25"
    summary = "audio and vision swapped with a sample of the opposite sentiment"
    formula = "where u < c: {a}, {v} or {a,v} from a donor of opposite polarity, of the half farthest in label"
    source = "RIDER-MoE, appendix C.2"
    option_table = {}
    purposes = frozenset({"swap", "which", "donor"})
    uses_pool = True
    acts_on = "av"

    def eligible(self, classes: bool) -> Eligible:
        """How donors are found among scores, or among classes."""
        return other_class if classes else farthest_half

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        if batch.labels is None or pool.labels is None:
            raise InputError(f"{self.name} picks donors by label: the batch and its pool need labels")
        swaps = swaps_of(str(options.get("modalities", EVERY)))
        chosen = (draws.uniform("swap").cpu().numpy() < float(point.values[0])).nonzero()[0]
        which = (draws.uniform("which").cpu().numpy() * len(swaps)).astype(int)
        wanted = swaps[np.minimum(which, len(swaps) - 1)]
        donor = np.full((len(batch), 3), -1, dtype=np.int64)
        skipped = 0
        ours, theirs = batch.present.cpu().numpy(), pool.present.cpu().numpy()
        for swap in swaps:
            hosts = chosen[np.all(wanted[chosen] == swap, axis=1)]
            able = hosts[np.all(ours[hosts][:, swap], axis=1)]
            found = self._donors(batch, able, pool, swap, draws)
            donor[np.ix_(able, swap)] = found[:, None]
            skipped += len(hosts) - int((found >= 0).sum())
        untouched = Sources.untouched(batch)
        unable = int((~theirs[:, swaps.any(axis=0)].all(axis=1)).sum())
        return Sources(untouched.lost, torch.from_numpy(donor).to(batch.device), skipped, unable)

    def _donors(self, batch: Batch, hosts: Positions, pool: Batch, swap: NDArray[np.bool_], draws: Draws) -> Positions:
        """The hosts' donors. They do not depend on the severity: each is chosen once and remembered."""
        name = (self.name, tuple(swap.tolist()), id(batch.labels), id(pool))
        # the labels and the pool are kept with it, so that no other object can take their identity
        known, _, _ = draws.remember(name, lambda: (np.full(len(batch), -2, dtype=np.int64), batch.labels, pool))
        new = hosts[known[hosts] == -2]
        if len(new):
            able = np.all(pool.present.cpu().numpy()[:, swap], axis=1)
            assert pool.labels is not None
            eligible = self.eligible(classes=not pool.labels.is_floating_point())
            known[new] = choose_donors(batch, new, pool, able, draws, eligible)
        chosen: Positions = known[hosts]
        return chosen


class ConflictControl(Conflict):
    """``conflict-control`` at c: the same hosts and modalities swapped as by ``conflict``, with a donor of the *same*
    polarity and the nearest label: what swapping costs by itself.

    Of donors equally near, the one with the smallest draw. For label 0 the polarity is 0; with no other sample of the
    host's polarity in the pool, the nearest of all others. Of classes: a donor of the same class, or of any where the
    pool has no other sample of it.
    """

    name = "conflict-control"
    summary = "the same swaps as conflict, with a donor of the same sentiment: what swapping costs by itself"
    formula = "where u < c: {a}, {v} or {a,v} from the donor of the same polarity nearest in label"
    source = "beyond the papers: the control of RIDER-MoE's conflict"

    def eligible(self, classes: bool) -> Eligible:
        return same_class if classes else nearest_alike


def swaps_of(letters: str) -> NDArray[np.bool_]:
    """The sets of modalities that are swapped, one a row: {audio}, {vision}, both, as far as they are allowed.

    >>> swaps_of("tav").astype(int).tolist(), swaps_of("v").astype(int).tolist()
    ([[0, 1, 0], [0, 0, 1], [0, 1, 1]], [[0, 0, 1]])
    """
    audio, vision = np.array([False, True, False]), np.array([False, False, True])
    rows = [*([audio] if "a" in letters else []), *([vision] if "v" in letters else [])]
    return np.array([*rows, audio | vision] if len(rows) == 2 else rows)


def choose_donors(
    batch: Batch, hosts: Positions, pool: Batch, able: NDArray[Any], draws: Draws, eligible: Eligible
) -> Positions:
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
            donors = eligible(host_labels[host], labels[places], others, rank)
            if len(donors):
                chosen[start + row] = places[donors[np.argmin(pairs[row, donors])]]
    return chosen


def farthest_half(label: float, labels: NDArray[np.float64], others: NDArray[np.bool_], rank: Positions) -> Positions:
    """Positions of the half of the opposite polarity (or, failing that, of all others) farthest in label."""
    opposite = others & (np.sign(labels) == -np.sign(label)) if label else np.zeros_like(others)
    among = (opposite if opposite.any() else others).nonzero()[0]
    farthest = np.lexsort((rank[among], -np.abs(labels[among] - label)))
    half: Positions = among[farthest[: -(-len(among) // 2)]]
    return half


def nearest_alike(label: float, labels: NDArray[np.float64], others: NDArray[np.bool_], rank: Positions) -> Positions:
    """Positions of the samples of the same polarity (or, failing that, of all others) nearest in label."""
    alike = others & (np.sign(labels) == np.sign(label))
    among = (alike if alike.any() else others).nonzero()[0]
    distance = np.abs(labels[among] - label)
    nearest: Positions = among[distance == distance.min()] if len(among) else among
    return nearest


def other_class(label: float, labels: NDArray[np.float64], others: NDArray[np.bool_], rank: Positions) -> Positions:
    """Positions of the samples of other classes (or, failing that, of all others)."""
    different = others & (labels != label)
    found: Positions = (different if different.any() else others).nonzero()[0]
    return found


def same_class(label: float, labels: NDArray[np.float64], others: NDArray[np.bool_], rank: Positions) -> Positions:
    """Positions of the other samples of the same class (or, failing that, of all others)."""
    alike = others & (labels == label)
    found: Positions = (alike if alike.any() else others).nonzero()[0]
    return found
