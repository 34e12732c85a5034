"""Several runs read as one: the cells and requests of all their folders, whoever computed them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from corruptions import InputError
from robustbench_msa.analysis.bootstrap import REPLICATES
from robustbench_msa.analysis.tables import Tables
from robustbench_msa.evaluation.records import Planned, recall
from robustbench_msa.evaluation.store import Store


class Stores:
    """Reads each cell from the first of several stores that has it."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self._home: dict[str, Store] = {}

    def done(self, keys: Iterable[str]) -> set[str]:
        wanted = set(keys)
        for store in reversed(self.stores):
            self._home |= dict.fromkeys(store.done(wanted), store)
        return wanted & set(self._home)

    def predictions(self, key: str, columns: list[str] | None = None) -> pa.Table:
        return self._home[key].predictions(key, columns)

    def set_aside(self, key: str, reason: str) -> None:
        self._home.pop(key).set_aside(key, reason)


def open_tables(
    folders: Sequence[str | Path],
    replicates: int = REPLICATES,
    baseline: str | None = None,
    one_baseline: bool = False,
) -> Tables:
    """The tables of several runs' folders together, as if one run had made them.

    Args:
        baseline, one_baseline: which line CE divides by (``references.References``).

    Raises:
        InputError: no folder, one that is none of ours, runs on different data, splits or profiles, or a baseline that
            is in none of them.
    """
    stores = [Store(Path(folder)) for folder in folders]
    return Tables(Stores(stores), together([recall(store) for store in stores]), replicates, baseline, one_baseline)


def together(plans: Sequence[Planned]) -> Planned:
    """One plan of several on the same data. Commands, requests, checkpoints and protocols are those of all of them.

    What else the manifest holds (versions, commit) is the first one's.
    """
    if not plans:
        raise InputError("merge: expected at least one run's folder")
    first = plans[0]
    for plan in plans[1:]:
        for what in ("data", "split", "name"):
            ours, theirs = (p.manifest["dataset"][what] for p in (first, plan))
            if ours != theirs:
                raise InputError(f"merge: expected runs on the same data, got {what} {ours[:24]} and {theirs[:24]}")
        if plan.profile != first.profile:
            raise InputError(f"merge: expected one metric profile, got {first.profile} and {plan.profile}")
    cells = {cell.key: cell for plan in plans for cell in plan.cells}
    requests = tuple(dict.fromkeys(request for plan in plans for request in plan.requests))
    manifest = {**first.manifest, "requests": [request.to_json() for request in requests]}
    manifest["commands"] = list(dict.fromkeys(line for plan in plans for line in plan.manifest.get("commands", [])))
    for what in ("checkpoints", "protocols"):
        # the first to know a checkpoint says how it was trained; what only a later one knows of it is added
        manifest[what] = _united([plan.manifest.get(what, {}) for plan in plans])
    return Planned(tuple(cells.values()), requests, first.profile, manifest)


def _united(known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for about in known:
        for name, value in about.items():
            both = isinstance(value, dict) and isinstance(found.get(name), dict)
            found[name] = {**value, **found[name]} if both else found.get(name, value)
    return found
