"""Reading the manifest of an export as if a stranger had written it: each field is checked before it is believed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corruptions import InputError
from robustbench_msa.data.dataset import PROFILES, SPLITS
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.evaluation.export_manifest import FILE, FORMAT, KIND, MADE, Export, describe_cells, described
from robustbench_msa.evaluation.layouts import LAYOUTS

MAX_BYTES = 512 * 2**20
MAX_CLASSES = 10_000

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_RUN = re.compile(r"[\w+-][\w.+-]{0,254}")
_EXPECTED = "expected the folder of an msabench export"


def read_export(folder: Path) -> Export:
    """The export in a folder.

    Raises:
        InputError: there is none, it is broken, or it was made by another version of a stress.
    """
    path = folder / FILE
    manifest = _read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InputError(f"{path}: not the manifest of an export; {_EXPECTED}")
    if "num_classes" in manifest and not _is_count(manifest["num_classes"]):
        raise InputError(f"{path}: num_classes is not as written; export again into another folder")
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path}: format {_shown(manifest.get('format'))}, this msabench reads format {FORMAT}")
    for name, check in _FIELDS.items():
        if name not in manifest or not check(manifest[name]):
            raise InputError(f"{path}: {name} is missing or not as written; export again into another folder")
    export = Export(folder, manifest)
    _check_labels(path, export)
    _check_cells(path, export)
    return export


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # what is asked for is reserved, whatever there is
            data = file.read(min(size, MAX_BYTES) + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES:,} bytes; {_EXPECTED}")
    try:
        return json.loads(data, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({type(error).__name__}); {_EXPECTED}") from None


def _not_json(text: str) -> Any:
    raise ValueError(text)


def _check_labels(path: Path, export: Export) -> None:
    """Classes are counted and whole, scores are not counted; chance is the constant that goes with them."""
    count, chance, labels = export.num_classes, export.manifest["chance"], export.labels
    scores = export.manifest["profile"] != "classification"
    fits = scores or (labels.min() >= 0 and labels.max() < count and bool((labels == labels.round()).all()))
    if scores != (count == 0) or scores != ("mean" in chance) or not fits:
        raise InputError(f"{path}: its labels, num_classes and chance do not go together; export again")


def _check_cells(path: Path, export: Export) -> None:
    """The cells must be those that the requests ask for, as this version would make them."""
    n, entries = len(export.ids), export.cells
    try:
        requests = export.requests
    except (KeyError, TypeError, ValueError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path}: its requests cannot be used ({line[:200]}); export again") from None
    asked = [len(r.drawn) * sum(not point.is_clean for point in r.grid.points) for r in requests]
    if max(asked) >= len(entries) or sum(asked) > 100 * len(entries):  # a small file can ask for a large plan
        raise InputError(f"{path}: its cells are not those of its requests; export again into another folder")
    ours = describe_cells(export.plan(Subject("", 0, "")), export.manifest["layout"])
    theirs = {entry["name"]: entry for entry in entries}
    for entry in ours:
        version = theirs.get(entry["name"], entry)["stress_version"]
        if version != entry["stress_version"]:
            raise InputError(
                f"{path}: made with version {_shown(version)} of {entry['stress']}, this msabench has version "
                f"{entry['stress_version']}; export again into another folder"
            )
    if [described(entry) for entry in entries] != [described(entry) for entry in ours]:
        raise InputError(f"{path}: its cells are not those of its requests; export again into another folder")
    for entry in entries:
        if not _is_blank(entry) and not _is_made(entry, n):
            raise InputError(f"{path}: cell {entry['name']} is not as written; export again into another folder")


def _is_blank(entry: dict[str, Any]) -> bool:
    return all(entry[name] is None for name in MADE)


def _is_made(entry: dict[str, Any], n: int) -> bool:
    hashes, present, rates = [entry[name] for name in MADE[:3]], entry["present"], entry["realised"]
    return (
        all(map(_is_hash, hashes))
        and isinstance(present, str)
        and re.fullmatch(rf"[0-7]{{{n}}}", present) is not None
        and isinstance(rates, dict)
        and all(rate is None or _is_number(rate) for rate in rates.values())
    )


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and _LINE.fullmatch(value) is not None


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _is_dataset(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(_is_line(value.get(name)) for name in ("name", "text_at"))
        and _is_hash(value.get("data"))
        and value.get("split") in SPLITS
        and isinstance(value.get("notes"), list)
        and isinstance(value.get("parameters"), dict)
    )


def _is_samples(value: Any) -> bool:
    names = ("ids", "groups", "labels")
    if not isinstance(value, dict) or not all(isinstance(value.get(name), list) for name in names):
        return False
    ids, groups, labels = (value[name] for name in names)
    texts = all(isinstance(text, str) for text in (*ids, *groups))
    return (
        texts
        and 0 < len(ids) == len(set(ids)) == len(groups) == len(labels)
        and all(_is_number(label) and abs(label) < 1e30 for label in labels)
    )


def _is_chance(value: Any) -> bool:
    """The constants for scores, or for classes."""
    if not isinstance(value, dict):
        return False
    if set(value) == {"majority", "num_classes"}:
        majority, count = value["majority"], value["num_classes"]
        return _is_count(count) and type(majority) is int and 0 <= majority < count
    return all(_is_number(value.get(name)) for name in ("mean", "median"))


def _is_count(value: Any) -> bool:
    return type(value) is int and 2 <= value <= MAX_CLASSES


def _is_requests(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_request, value))


def _is_request(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("seeds"), list) or not value["seeds"]:
        return False
    texts = all(isinstance(value.get(name), str) and len(value[name]) < 10_000 for name in ("stress", "grid"))
    return texts and all(type(seed) is int and 0 <= seed < 2**63 for seed in value["seeds"])


def _is_cells(value: Any) -> bool:
    known = {*describe_cells([Cell()], "npz")[0]}
    if not isinstance(value, list) or not all(isinstance(entry, dict) and set(entry) == known for entry in value):
        return False
    return all(isinstance(entry["name"], str) for entry in value)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "layout": lambda value: isinstance(value, str) and value in LAYOUTS,
    "dataset": _is_dataset,
    "profile": lambda value: value in PROFILES,
    "pool": _is_hash,
    "reference": _is_hash,
    "requests": _is_requests,
    "protocols": lambda value: isinstance(value, dict),
    "run": lambda value: isinstance(value, str) and _RUN.fullmatch(value) is not None,
    "chance": _is_chance,
    "samples": _is_samples,
    "command": lambda value: isinstance(value, str),
    "cells": _is_cells,
}


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
