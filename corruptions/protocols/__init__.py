"""Named protocols: a list of stresses with their grids, as small TOML files beside this module."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from corruptions.errors import InputError
from corruptions.grid import Grid
from corruptions.registry import Stress, did_you_mean

REQUIRED: dict[str, tuple[type, str]] = {
    "name": (str, "a name of letters, digits, - and _"),
    "version": (int, "a whole number from 1"),
    "reference": (str, "where the protocol comes from, in a line"),
    "description": (str, "a paragraph that says what it does"),
    "stress": (list, "a list of [[stress]] tables, at least one"),
}
SCORES = ("nauc", "grid_mean")
"""What sums up a curve: the normalised area under it, or the plain mean over its grid."""


@dataclass(frozen=True)
class Protocol:
    """A named list of stresses with grids. ``text`` is the file as read, kept in every run's manifest.

    score: what its source sums a curve up by (SCORES).
    """

    name: str
    version: int
    reference: str
    description: str
    stresses: tuple[tuple[Stress, Grid], ...]
    text: str
    score: str = "nauc"

    @classmethod
    def load(cls, name: str) -> Protocol:
        """A shipped protocol by name, or any ``.toml`` file by path.

        Raises:
            InputError: no such protocol, or a file that is not one (the message says which key is wrong).
        """
        if name.endswith(".toml"):
            return cls.parse(_read(Path(name)), name)
        if name not in shipped():
            known = f"known: {', '.join(shipped())}, or a path ending in .toml"
            raise InputError(f"unknown protocol {name!r}{did_you_mean(name, shipped())}; {known}")
        return cls.parse((files(__name__) / f"{name}.toml").read_text("utf-8"), name)

    @classmethod
    def parse(cls, text: str, where: str) -> Protocol:
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"protocol {where}: not valid TOML: {error}") from None
        _check(where, table)
        stresses = tuple(_stress(where, entry) for entry in table["stress"])
        asked = [f"{stress.label} {grid}" for stress, grid in stresses]
        if twice := {text for text in asked if asked.count(text) > 1}:
            raise InputError(f"protocol {where}: {min(twice)} is listed twice")
        description = " ".join(table["description"].split())
        score = table.get("score", "nauc")
        return cls(table["name"], table["version"], table["reference"], description, stresses, text, score)


def shipped() -> list[str]:
    """Names of the protocols that come with the package."""
    return sorted(entry.name[:-5] for entry in files(__name__).iterdir() if entry.name.endswith(".toml"))


def _check(where: str, table: dict[str, Any]) -> None:
    known = [*REQUIRED, "score"]
    for key in table:
        if key not in known:
            raise InputError(
                f"protocol {where}: unknown key {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}"
            )
    for key, (kind, what) in REQUIRED.items():
        if key not in table:
            raise InputError(f"protocol {where}: key {key!r} is missing; expected {what}")
        if type(table[key]) is not kind or not table[key] or (kind is int and table[key] < 1):
            raise InputError(f"protocol {where}: {key} must be {what}, got {_shown(table[key])}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", table["name"]):
        raise InputError(f"protocol {where}: name must be {REQUIRED['name'][1]}, got {_shown(table['name'])}")
    if table.get("score", "nauc") not in SCORES:
        raise InputError(f"protocol {where}: score must be one of {', '.join(SCORES)}, got {_shown(table['score'])}")


def _stress(where: str, entry: Any) -> tuple[Stress, Grid]:
    if not isinstance(entry, dict) or "name" not in entry or "grid" not in entry:
        raise InputError(
            f'protocol {where}: each [[stress]] needs a name and a grid, as in name = "noise" and grid = "0:0.5:0.1"; '
            f"got {_shown(entry)}"
        )
    options = {key: value for key, value in entry.items() if key not in ("name", "grid")}
    try:
        stress = Stress.parse(str(entry["name"]), **options)
        return stress, stress.grid(str(entry["grid"]))
    except InputError as error:
        raise InputError(f"protocol {where}: {error}") from None


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"protocol {path}: cannot be read ({error})") from None
