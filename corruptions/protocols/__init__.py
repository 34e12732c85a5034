"""Named protocols: a list of stresses with their grids, as small TOML files beside this module."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from corruptions.errors import InputError
from corruptions.grid import Grid
from corruptions.registry import Stress, did_you_mean

KEYS = {"name", "version", "reference", "description", "stress"}


@dataclass(frozen=True)
class Protocol:
    """A named list of stresses with grids. ``text`` is the file as read, kept in every run's manifest."""

    name: str
    version: int
    reference: str
    description: str
    stresses: tuple[tuple[Stress, Grid], ...]
    text: str

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
        unknown, missing = set(table) - KEYS, KEYS - set(table)
        if unknown or missing:
            wrong = f"unknown key {min(unknown)!r}" if unknown else f"key {min(missing)!r} is missing"
            raise InputError(f"protocol {where}: {wrong}; expected {', '.join(sorted(KEYS))}")
        if type(table["version"]) is not int or not isinstance(table["stress"], list) or not table["stress"]:
            raise InputError(f"protocol {where}: version must be a whole number and stress a list of [[stress]] tables")
        stresses = tuple(_stress(where, entry) for entry in table["stress"])
        words = (
            str(table["name"]),
            table["version"],
            str(table["reference"]),
            " ".join(str(table["description"]).split()),
        )
        return cls(*words, stresses, text)


def shipped() -> list[str]:
    """Names of the protocols that come with the package."""
    return sorted(entry.name[:-5] for entry in files(__name__).iterdir() if entry.name.endswith(".toml"))


def _stress(where: str, entry: Any) -> tuple[Stress, Grid]:
    if not isinstance(entry, dict) or "name" not in entry or "grid" not in entry:
        raise InputError(f"protocol {where}: each [[stress]] needs a name and a grid, got {entry!r}")
    options = {key: value for key, value in entry.items() if key not in ("name", "grid")}
    try:
        stress = Stress.parse(str(entry["name"]), **options)
        return stress, stress.grid(str(entry["grid"]))
    except InputError as error:
        raise InputError(f"protocol {where}: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"protocol {path}: cannot be read ({error})") from None
