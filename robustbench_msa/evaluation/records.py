"""What a run's folder remembers of its plan: the requests in the manifest, the cells in a table beside it.

Several runs may write into one folder at once. Each adds to plan and manifest under a lock (``locks``); where the file
system has none, what one run loses by the other is added again by ``remembered``, which every run calls before it
derives the tables, and by the same command at any time. The cells themselves need no lock: each is a
file of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from corruptions import InputError
from robustbench_msa.evaluation.cells import NUMERICS, Cell, Request, Setting
from robustbench_msa.evaluation.locks import locked
from robustbench_msa.evaluation.store import Store

PLAN = pa.schema([("key", pa.string()), ("cell", pa.string())])
"""The plan as it was written first, and can still be read: ``cell`` holds all fields of a cell as JSON."""

_KINDS = {"str": pa.string(), "int": pa.int64()}
_OPTIONS = "options"  # the one field that is no plain value: JSON


def plan_schema() -> pa.Schema:
    """One row a planned cell: its key, and a column for each of its fields."""
    kinds = {f.name: _KINDS.get(str(f.type).partition(" ")[0], pa.string()) for f in fields(Cell)}
    return pa.schema([("key", pa.string()), *kinds.items()])


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
    """Add a run to a folder's plan and manifest, and clear up after runs that were killed.

    Args:
        about: what else the manifest holds: profile, command, versions, commit, checkpoints, protocols, dataset.

    Raises:
        InputError: the folder holds results on other data or another split, or would hold inputs that depend on the
            model beside inputs that all models share.
    """
    cells, requests = list(cells), list(requests)
    numerics = _numerics(cells)
    _known(store, requests, setting, numerics)  # what is refused leaves nothing behind, not even the lock's file
    with locked(store.root / ".lock"):
        known = _known(store, requests, setting, numerics)  # another run may have come first
        store.tidy()
        known = known or {"requests": [], "commands": [], "checkpoints": {}, "protocols": {}}
        manifest = {
            "dataset": {"name": setting.dataset, "data": setting.data, "split": setting.split, **about["dataset"]},
            "numerics": numerics,
            "requests": _appended(known["requests"], [r.to_json() for r in requests]),
            "commands": _appended(known["commands"], [about["command"]]),
            "checkpoints": known["checkpoints"] | about["checkpoints"],
            "protocols": known["protocols"] | about["protocols"],
            **{name: about[name] for name in ("profile", "commit", "versions")},
        }
        # The manifest first: it says which data the folder is for, and a plan that a crash left behind is made again.
        store.write_manifest(manifest)
        earlier = [cell for cell in _readable_cells(store) if (cell.data, cell.split) == (setting.data, setting.split)]
        return _write_plan(store, [*earlier, *cells])


def remembered(
    store: Store, cells: Iterable[Cell], requests: Iterable[Request], setting: Setting, about: dict[str, Any]
) -> Planned:
    """The folder's plan as it is now, over all runs into it; ours is added again if another run's writing lost it."""
    cells, requests = list(cells), list(requests)
    now = recall(store)
    there = {cell.key for cell in now.cells}
    manifest = now.manifest
    ours = set(requests) <= set(now.requests) and about["command"] in manifest["commands"]
    ours = ours and about["checkpoints"].keys() <= manifest["checkpoints"].keys()
    if ours and all(cell.key in there for cell in cells):
        return now
    return remember(store, cells, requests, setting, about)


def forget(store: Store, checkpoints: Iterable[str]) -> Planned:
    """Take checkpoints out of a folder, with all their cells."""
    gone = set(checkpoints)
    with locked(store.root / ".lock"):
        planned = recall(store)
        known = {name: about for name, about in planned.manifest["checkpoints"].items() if name not in gone}
        store.write_manifest({**planned.manifest, "checkpoints": known})
        left = _write_plan(store, [cell for cell in planned.cells if cell.checkpoint not in gone])
        store.forget(cell.key for cell in planned.cells if cell.checkpoint in gone)
    return left


def deriving(store: Store) -> AbstractContextManager[bool]:
    """Hold this while tables are derived, and look only then at what is there.

    Two runs that end at once derive one after the other: whoever writes last has seen all cells of both. Waits as long
    as the other one takes.
    """
    return locked(store.root / ".tables.lock", math.inf)


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
    return _planned(store, lambda: _cells(store))


def _planned(store: Store, cells: Callable[[], list[Cell]]) -> Planned:
    manifest = store.manifest()
    if manifest is None:
        raise InputError(f"{store.root}: no manifest.json there; expected the folder of an msabench run")
    try:
        return Planned(tuple(cells()), _requests(store, manifest), str(manifest["profile"]), manifest)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _unusable(store, error) from None


def numerics_of(manifest: dict[str, Any]) -> str:
    """How the models of a folder were computed; a manifest from before there was a choice says nothing."""
    return str(manifest.get("numerics", NUMERICS))


def _numerics(cells: Iterable[Cell]) -> str:
    """The one policy of all cells."""
    found = sorted({cell.numerics for cell in cells} or {NUMERICS})
    if len(found) > 1:
        raise InputError(f"numerics {' and '.join(found)} do not belong in one folder; choose one")
    return found[0]


def _known(store: Store, requests: list[Request], setting: Setting, numerics: str) -> dict[str, Any] | None:
    """The manifest so far. Raises InputError where a run does not belong beside what it holds."""
    known = manifest_for(store, setting)
    if known is not None and numerics_of(known) != numerics:
        raise InputError(
            f"{store.root} holds results of numerics {numerics_of(known)}, this run is of {numerics}; "
            "choose another --out"
        )
    there = _requests(store, known) if known is not None else ()
    stresses = [request.stress for request in (*requests, *there)]
    shared = [stress.label for stress in stresses if not stress.stressor.needs_adversary]
    apart = [stress.label for stress in stresses if stress.stressor.needs_adversary]
    if shared and apart:
        raise InputError(
            f"{apart[0]} depends on the model, so its inputs are shared by nobody and it stands in a table of its own; "
            f"run it apart from {shared[0]}, into another --out"
        )
    return known


def _requests(store: Store, manifest: dict[str, Any]) -> tuple[Request, ...]:
    try:
        return tuple(Request.from_json(entry) for entry in manifest["requests"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _unusable(store, error) from None


def _unusable(store: Store, error: Exception) -> InputError:
    return InputError(f"{store.root}: its manifest or plan cannot be used ({error}); run again with another --out")


def _write_plan(store: Store, cells: list[Cell]) -> Planned:
    by_key = {cell.key: cell for cell in cells}
    schema, unique = plan_schema(), list(by_key.values())
    columns = {name: [getattr(cell, name) for cell in unique] for name in schema.names[1:]}
    texts = {options: json.dumps(options) for options in set(columns[_OPTIONS])}
    columns[_OPTIONS] = [texts[options] for options in columns[_OPTIONS]]
    store.write_table("plan", pa.table({"key": list(by_key), **columns}, schema=schema))
    return _planned(store, lambda: unique)


def _cells(store: Store) -> list[Cell]:
    if not (store.root / "plan" / "plan.parquet").is_file():
        return []
    table = store.read_table("plan", None)
    if "cell" in table.column_names:
        return [_cell(json.loads(text)) for text in table["cell"].to_pylist()]
    names = [f.name for f in fields(Cell) if f.name in table.column_names]
    columns = [_values(table[name], _options if name == _OPTIONS else None) for name in names]
    return [Cell(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _cell(entry: dict[str, Any]) -> Cell:
    known = {f.name: entry[f.name] for f in fields(Cell) if f.name in entry}
    return Cell(**known | {_OPTIONS: tuple((name, value) for name, value in entry[_OPTIONS])})


def _values(column: pa.ChunkedArray, parse: Callable[[str], Any] | None) -> list[Any]:
    """A column as Python objects; equal ones are the same object, since most values are shared by many cells."""
    encoded = column.combine_chunks().dictionary_encode()
    values = [value if parse is None else parse(value) for value in encoded.dictionary.to_pylist()]
    return [None if i is None else values[i] for i in encoded.indices.to_pylist()]


def _options(text: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in json.loads(text))


def _readable_cells(store: Store) -> list[Cell]:
    """The planned cells so far; none where the plan is missing or broken, since a run can plan again."""
    try:
        return _cells(store)
    except (InputError, KeyError, TypeError, ValueError, RecursionError):
        return []


def _appended(entries: list[Any], new: list[Any]) -> list[Any]:
    """The entries with the new ones at the end, each once."""
    ours = {json.dumps(entry, sort_keys=True): entry for entry in new}
    return [entry for entry in entries if json.dumps(entry, sort_keys=True) not in ours] + list(ours.values())
