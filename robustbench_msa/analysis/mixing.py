"""What may stand in one table: runs on the same data, by the same metrics, over the same grids and protocols."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from corruptions import InputError
from robustbench_msa.evaluation.records import Planned, numerics_of


def check_mixable(plans: Mapping[str, Planned]) -> None:
    """Refuse to mix runs whose numbers do not belong in one table. Models and stresses may differ.

    Of a stress that two runs share, and of their protocols, what one asked for must hold what the other did: a run that
    goes on with another stress is fine, one that asks the same stress over another grid is not.

    Args:
        plans: by the name of the run's folder.

    Raises:
        InputError: in one line, what differs, how, and between which folders.
    """
    for (ours, a), (theirs, b) in combinations(plans.items(), 2):
        if found := list(_differences(a, b, ours, theirs)):
            raise InputError(
                f"{ours} and {theirs} do not belong in one table; they differ in {'; in '.join(found)} "
                "(give the folders of one kind at a time)"
            )


def _differences(a: Planned, b: Planned, ours: str, theirs: str) -> Iterator[str]:
    for what, values in (
        ("dataset", (_dataset(a, "name"), _dataset(b, "name"))),
        ("text level", (_dataset(a, "text_at"), _dataset(b, "text_at"))),
        ("split", (_dataset(a, "split"), _dataset(b, "split"))),
        ("metric profile", (a.profile, b.profile)),
        ("numerics", (numerics_of(a.manifest), numerics_of(b.manifest))),
    ):
        if values[0] != values[1]:
            yield f"{what}: {values[0]} in {ours}, {values[1]} in {theirs}"
    data = _dataset(a, "data"), _dataset(b, "data")
    if data[0] != data[1] and _dataset(a, "name") == _dataset(b, "name"):
        yield f"the data of {_dataset(a, 'name')}: fingerprint {data[0][:8]} in {ours}, {data[1][:8]} in {theirs}"
    grids = _grids(a), _grids(b)
    for stress in sorted(set(grids[0]) & set(grids[1])):
        if apart := _apart(grids[0][stress], grids[1][stress]):
            yield f"the grid of {stress}: {apart[0]} in {ours}, {apart[1]} in {theirs}"
    protocols: tuple[dict[str, str], ...] = (a.manifest.get("protocols", {}), b.manifest.get("protocols", {}))
    if protocols[0] and protocols[1] and (apart := _apart(set(protocols[0]), set(protocols[1]))):
        yield f"protocol: {apart[0]} in {ours}, {apart[1]} in {theirs}"
    for name in sorted(set(protocols[0]) & set(protocols[1])):
        texts = protocols[0][name], protocols[1][name]
        if texts[0] != texts[1]:
            yield f"the text of protocol {name}: {_short(texts[0])} in {ours}, {_short(texts[1])} in {theirs}"


def _dataset(plan: Planned, what: str) -> str:
    about: dict[str, Any] = plan.manifest["dataset"]
    return str(about.get(what))


def _grids(plan: Planned) -> dict[str, set[str]]:
    """Grids by stress with its parameters."""
    grids: dict[str, set[str]] = {}
    for request in plan.requests:
        grids.setdefault(request.stress.label, set()).add(str(request.grid))
    return grids


def _apart(a: set[str], b: set[str]) -> tuple[str, str] | None:
    """Both in words, where neither holds the other."""
    return None if a <= b or b <= a else (" and ".join(sorted(a)), " and ".join(sorted(b)))


def _short(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]}"
