"""What a run's folder remembers of its plan: the requests in the manifest, the cells in a table beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell, Request, Setting
from robustbench_msa.evaluation.store import Store

PLAN = pa.schema([("key", pa.string()), ("cell", pa.string())])
"""One row a planned cell; ``cell`` holds all its fields as JSON."""


@dataclass(frozen=True)
class Planned:
    """Everything a folder was asked for so far, over all runs into it."""

    cells: tuple[Cell, ...]
    requests: tuple[Request, ...]
    profile: str
    manifest: dict[str, Any]


def remember(
    store: Store, cells: Iterable[Cell], requests: Iterable[Request], setting: Setting, about: dict[str, Any]
) -> Planned:
    """Add a run to a folder's plan and manifest.

    Args:
        about: what else the manifest holds: profile, command, versions, commit, checkpoints, protocols, dataset.

    Raises:
        InputError: the folder holds results on other data or another split, or would hold inputs that depend on the
            model beside inputs that all models share.
    """
    known, requests = manifest_for(store, setting), list(requests)
    there = _requests(store, known) if known is not None else ()
    stresses = [request.stress for request in (*requests, *there)]
    shared = [stress.label for stress in stresses if not stress.stressor.needs_adversary]
    apart = [stress.label for stress in stresses if stress.stressor.needs_adversary]
    if shared and apart:
        raise InputError(
            f"{apart[0]} depends on the model, so its inputs are shared by nobody and it stands in a table of its own; "
            f"run it apart from {shared[0]}, into another --out"
        )
    known = known or {"requests": [], "commands": [], "checkpoints": {}, "protocols": {}}
    manifest = {
        "dataset": {"name": setting.dataset, "data": setting.data, "split": setting.split, **about["dataset"]},
        "requests": _appended(known["requests"], [r.to_json() for r in requests]),
        "commands": _appended(known["commands"], [about["command"]]),
        "checkpoints": known["checkpoints"] | about["checkpoints"],
        "protocols": known["protocols"] | about["protocols"],
        **{name: about[name] for name in ("profile", "commit", "versions")},
    }
    # The manifest first: it says which data the folder is for, and a plan that a crash left behind is made again.
    store.write_manifest(manifest)
    earlier = [cell for cell in _readable_cells(store) if (cell.data, cell.split) == (setting.data, setting.split)]
    all_cells = {cell.key: cell for cell in [*earlier, *cells]}
    rows = [{"key": key, "cell": json.dumps(asdict(cell))} for key, cell in all_cells.items()]
    store.write_table("plan", pa.Table.from_pylist(rows, schema=PLAN))
    return recall(store)


def manifest_for(store: Store, setting: Setting) -> dict[str, Any] | None:
    """A folder's manifest so far. Raises InputError where it holds results on other data or another split."""
    known = store.manifest()
    if known is not None:
        for what, ours in (("data", setting.data), ("split", setting.split)):
            if known["dataset"][what] != ours:
                theirs = f"{known['dataset']['name']} ({what} {known['dataset'][what][:12]})"
                raise InputError(
                    f"{store.root} holds results on {theirs}, this run is on {setting.dataset} ({what} {ours[:12]}); "
                    "choose another --out"
                )
    return known


def recall(store: Store) -> Planned:
    """A folder's plan. Raises InputError when the folder is none of ours or its plan cannot be read."""
    manifest = store.manifest()
    if manifest is None:
        raise InputError(f"{store.root}: no manifest.json there; expected the folder of an msabench run")
    try:
        return Planned(tuple(_cells(store)), _requests(store, manifest), str(manifest["profile"]), manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(store, error) from None


def _requests(store: Store, manifest: dict[str, Any]) -> tuple[Request, ...]:
    try:
        return tuple(Request.from_json(entry) for entry in manifest["requests"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(store, error) from None


def _unusable(store: Store, error: Exception) -> InputError:
    return InputError(f"{store.root}: its manifest or plan cannot be used ({error}); run again with another --out")


def _cells(store: Store) -> list[Cell]:
    if not (store.root / "plan" / "plan.parquet").is_file():
        return []
    known = {f.name for f in fields(Cell)}
    found = []
    for row in store.read_table("plan", PLAN).to_pylist():
        entry = {name: value for name, value in json.loads(row["cell"]).items() if name in known}
        entry["options"] = tuple((name, value) for name, value in entry["options"])
        found.append(Cell(**entry))
    return found


def _readable_cells(store: Store) -> list[Cell]:
    """The planned cells so far; none where the plan is missing or broken, since a run can plan again."""
    try:
        return _cells(store)
    except (InputError, KeyError, TypeError, ValueError):
        return []


def _appended(entries: list[Any], new: list[Any]) -> list[Any]:
    """The entries with the new ones at the end, each once."""
    return [entry for entry in entries if entry not in new] + new
