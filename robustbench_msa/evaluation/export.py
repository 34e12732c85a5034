"""Corrupted inputs as files, for code that cannot be called from here: one file a cell, and a manifest.

The same export continues where it stopped: a file is kept when it has the hash that the manifest knows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corruptions import InputError
from robustbench_msa.atomic import replacing
from robustbench_msa.data.dataset import batch_fingerprint
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.export_manifest import (
    FILE,
    FORMAT,
    KIND,
    Export,
    describe_cells,
    difference,
    encode_present,
)
from robustbench_msa.evaluation.export_reading import read_export
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.layouts import LAYOUTS, size_of
from robustbench_msa.models.chance import Chance

NOBODY = Subject("", 0, "")
"""Whose cells an export has: inputs are the same for every model."""

MAX_FILES = 100_000


@dataclass(frozen=True)
class Room:
    """Before anything is written: files in all, the bytes they take, those still to be written, and the disk's."""

    files: int
    size: int
    needed: int
    free: int


@dataclass(frozen=True)
class Written:
    """What became of an export's files."""

    written: int
    kept: int


Started = Callable[[Room], None]
"""Called once, before the first file."""
Told = Callable[[str], None]
"""Called after each file with its cell's name."""


def start_export(
    folder: Path, layout: str, inputs: Inputs, requests: Sequence[Request], about: dict[str, Any]
) -> Export:
    """The export that a folder holds, or a new one. Nothing is written yet.

    Args:
        folder: empty, new, or holding this same export, finished or not.
        layout: npz or mmsa.
        about: what else the manifest holds: run, protocols, command, commit, versions.

    Raises:
        InputError: an unknown layout, a stress whose inputs depend on the model, a folder that holds anything else.
    """
    if layout not in LAYOUTS:
        raise InputError(f"--format: expected {' or '.join(LAYOUTS)}, got {layout!r}")
    for request in requests:
        if request.stress.stressor.needs_adversary:
            raise InputError(
                f"{request.stress.name}: its inputs depend on the model, so there are none to export; "
                "msabench run computes them for models that can be called"
            )
    files = 1 + sum(len(r.drawn) * sum(not point.is_clean for point in r.grid.points) for r in requests)
    if files > MAX_FILES:
        raise InputError(f"an export of {files:,} files; at most {MAX_FILES:,}: choose fewer severities or seeds")
    ours = json.loads(json.dumps(_manifest(layout, inputs, requests, about)))  # as it will be read
    if (folder / FILE).is_file():
        known = read_export(folder)
        if other := difference(known.manifest, ours):
            raise InputError(f"{folder} holds another export, {other}; choose another --out")
        return Export(folder, ours | {"cells": known.cells})
    if folder.is_dir() and (there := sorted(path.name for path in folder.iterdir() if path.name[0] != ".")):
        raise InputError(f"{folder}: expected a new or empty folder, it holds {there[0]}; choose another --out")
    return Export(folder, ours)


def _manifest(layout: str, inputs: Inputs, requests: Sequence[Request], about: dict[str, Any]) -> dict[str, Any]:
    dataset, batch, setting = inputs.dataset, inputs.batch, inputs.setting
    train_labels = dataset.splits["train"].labels
    assert batch.labels is not None
    assert train_labels is not None
    return {
        "kind": KIND,
        "format": FORMAT,
        "layout": layout,
        "dataset": {
            "name": setting.dataset,
            "data": setting.data,
            "split": setting.split,
            "notes": list(dataset.notes),
            "parameters": dict(dataset.parameters),
            "text_at": dataset.text_at,
        },
        "profile": dataset.profile,
        **({"num_classes": inputs.num_classes} if inputs.num_classes else {}),
        "pool": setting.pool,
        "reference": setting.reference,
        "requests": [request.to_json() for request in requests],
        **about,
        "chance": asdict(Chance.from_labels(train_labels).config),
        "derived": {name: list(derived.sources) for name, derived in sorted(batch.derived.items())},
        "cells": describe_cells(plan([NOBODY], setting, requests), layout),
        "samples": {"ids": batch.ids, "groups": batch.groups, "labels": batch.labels.tolist()},
    }


def write_export(
    export: Export, inputs: Inputs, started: Started | None = None, progress: Told | None = None
) -> Written:
    """Write the files that are not there yet; the manifest knows each as soon as it is whole.

    Raises:
        InputError: they do not fit on the disk. Nothing is written then.
    """
    room = _room(export, inputs)
    if room.needed > room.free:
        need = f"{room.files} files of {size_text(room.size // room.files)} need {size_text(room.needed)}"
        raise InputError(
            f"{export.folder}: {need} more, the disk has {size_text(room.free)} free; "
            "choose a disk with more room, or fewer severities or seeds"
        )
    if started is not None:
        started(room)
    export.write()
    kept = 0
    for cell, entry in zip(export.plan(NOBODY), export.cells, strict=True):
        if _is_there(export.folder / entry["file"], entry["sha256"]):
            kept += 1
        else:
            _write_cell(export, cell, entry, inputs)
            export.write()
        if progress is not None:
            progress(entry["name"])
    return Written(len(export.cells) - kept, kept)


def _write_cell(export: Export, cell: Cell, entry: dict[str, Any], inputs: Inputs) -> None:
    path = export.folder / entry["file"]
    corruption = inputs.corruption(cell)
    with replacing(path) as file:
        LAYOUTS[export.manifest["layout"]][1](file, corruption.batch, inputs.split)
    for leftover in path.parent.glob(f".{path.name}.tmp-*"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    entry |= {
        "sha256": _sha256(path),
        "content": batch_fingerprint(corruption.batch),
        "present": encode_present(corruption.present.numpy()),
        **inputs.facts(cell, corruption),
    }


def _room(export: Export, inputs: Inputs) -> Room:
    size = size_of(inputs.batch)
    known = [entry["sha256"] is not None and (export.folder / entry["file"]).is_file() for entry in export.cells]
    disk = next(path for path in (export.folder, *export.folder.absolute().parents) if path.exists())
    return Room(len(known), size * len(known), size * known.count(False), shutil.disk_usage(disk).free)


def _is_there(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and path.is_file() and _sha256(path) == sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(n: int) -> str:
    """
    >>> size_text(999), size_text(7_200_000), size_text(3 * 10**12)
    ('999 bytes', '7.2 MB', '3.0 TB')
    """
    for exponent, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if n >= 10**exponent:
            return f"{n / 10**exponent:.1f} {unit}"
    return f"{n} bytes"
