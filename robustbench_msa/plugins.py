"""Plug-ins: models, datasets and stressors that other packages or files bring. They are programs, and it is said so.

An installed package announces what it offers in its ``pyproject.toml``::

    [project.entry-points."msabench.models"]
    my_model = "my_package.model:build"

The groups are ``msabench.models``, ``msabench.datasets`` and ``msabench.stressors``.
"""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from typing import Any

from corruptions.errors import InputError

_announced: set[tuple[str, str]] = set()


def entry_points(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer in a group, by name. Nothing of it is run.

    Raises:
        InputError: two packages offer different things under one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(importlib.metadata.entry_points(group=group), key=lambda e: (e.name, e.value)):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:  # the same package seen twice on the path is no conflict
            raise InputError(
                f"{entry.name!r} in {group} is offered twice, as {other.value} and as {entry.value}; "
                "uninstall one of the two packages"
            )
    return found


def load(entry: EntryPoint) -> Any:
    """What an entry point names, imported: from here on its program runs.

    Raises:
        InputError: it cannot be imported; with the class and the message of the error.
    """
    announce(entry.group.rpartition(".")[2].removesuffix("s"), f"{entry.name} = {entry.value}")
    try:
        return entry.load()
    except Exception as error:  # whatever a stranger's import raises
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(f"plug-in {entry.name} ({entry.value}) cannot be imported: {what}") from error


def announce(kind: str, name: str) -> None:
    """Say on stderr, once a process for each, that a program from outside msabench is run.

    Args:
        kind: what it is, as in "model" or "dataset". name: what was typed, or ``name = package.module:function``.
    """
    if (kind, name) not in _announced:
        _announced.add((kind, name))
        print(f"msabench: runs the {kind} {name}: a program from outside, with your rights", file=sys.stderr)
