"""Derived tables are made again when anything that they are made of has changed, and not otherwise.

For 100,000 cells that is minutes against a second, each time that a finished run is asked for once more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robustbench_msa.atomic import write_json
from robustbench_msa.evaluation.records import Planned
from robustbench_msa.evaluation.store import Store

TABLES = ("curves", "nauc", "cells")
NOTE = ".tables.json"


def derive_if_needed(
    store: Store, planned: Planned, derive: Callable[[Store, Planned], int], code: Iterable[Path]
) -> int:
    """Derive the tables, unless those that are there are of the same cells, requests, versions and code.

    Cells are compared by size and time of change of their files, so a damaged file that somebody touched is looked at;
    one that rotted in silence is found by whoever reads it.

    Args:
        derive: makes TABLES; returns the number of damaged files, as this does.
        code: the files and folders of the code that makes them.
    """
    of = _made_of(store, planned, code)
    if _noted(store) == {"of": of, "tables": _stamps(store)}:
        return 0
    if damaged := derive(store, planned):
        return damaged
    write_json(store.root / NOTE, {"of": of, "tables": _stamps(store)})
    return 0


def _made_of(store: Store, planned: Planned, code: Iterable[Path]) -> str:
    done = store.done(cell.key for cell in planned.cells)
    loose, home = store.loose(), store.parts.home
    cells = [
        (cell.key, loose.get(cell.key) or (home[cell.key].path.name if cell.key in home else None))
        for cell in planned.cells
        if cell.key in done
    ]
    asked = [planned.manifest.get(name) for name in ("requests", "checkpoints", "profile", "versions")]
    plan = [cell.key for cell in planned.cells]
    text = json.dumps([cells, plan, asked, [_stamp(path) for path in _sources(code)]])
    return hashlib.sha256(text.encode()).hexdigest()


def _sources(code: Iterable[Path]) -> list[Path]:
    return sorted(file for path in code for file in (path.rglob("*.py") if path.is_dir() else [path]))


def _stamps(store: Store) -> list[Any]:
    return [_stamp(store.root / name / f"{name}.parquet") for name in TABLES]


def _stamp(path: Path) -> list[Any] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [path.name, status.st_size, status.st_mtime_ns]


def _noted(store: Store) -> Any:
    try:
        return json.loads((store.root / NOTE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
