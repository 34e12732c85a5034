"""A cell: the unit that is planned, run, stored and resumed. Its key is the hash of what it *is*.

What a cell merely ran on (batch size, device, time) is no part of it: see ``store.Runtime``. A test fails when a field
of either class is declared neither identity nor label nor runtime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from corruptions import Grid, Point, Stress

KEY_VERSION = 1
CLEAN = "clean"
FIRST_SEED = 1111
NUMERICS = "float32"  # exact float32, TF32 off
_NAMES: dict[type, tuple[str, ...]] = {}
_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False)


def identity(default: Any = None) -> Any:
    """A field that enters the key."""
    return field(metadata={"kind": "identity"}, default=default)


def _identity_names(cell: Cell) -> tuple[str, ...]:
    """Looked up once a class: asking 100,000 cells for their fields takes longer than hashing them."""
    kind = type(cell)
    if kind not in _NAMES:
        _NAMES[kind] = tuple(f.name for f in fields(cell) if f.metadata["kind"] == "identity")
    return _NAMES[kind]


def label(default: Any = None) -> Any:
    """A field that names what an identity field already holds, for people."""
    return field(metadata={"kind": "label"}, default=default)


@dataclass(frozen=True)
class Cell:
    """(model checkpoint, dataset split, stress with its parameters, severity, seed), in full."""

    model: str = identity("")
    model_version: int = identity(1)
    checkpoint: str = identity("")  # sha256 over weights, model version and arguments
    data: str = identity("")  # the dataset's fingerprint
    split: str = identity("test")
    stress: str = identity(CLEAN)
    stress_version: int = identity(0)
    options: tuple[tuple[str, Any], ...] = identity(())  # every parameter of the stressor, defaults included
    pool: str | None = identity()  # fingerprint of the samples donors come from
    reference: str | None = identity()  # fingerprint of the training statistics
    severity: str | None = identity()
    severity_2: str | None = identity()
    condition: str | None = identity()
    seed: int | None = identity()
    numerics: str = identity(NUMERICS)  # how the model is computed, ``numerics.POLICIES``
    passes: int = identity(1)
    recipe: str = label("")
    train_seed: int | None = label()
    dataset: str = label("")
    params: str = label("")  # the options that differ from their defaults, as typed

    @property
    def key(self) -> str:
        """24 hex digits of a sha256 over the identity fields; computed once, a plan asks for it many times."""
        version, key = self.__dict__.get("_known_key", (None, ""))
        if version != KEY_VERSION:
            named = {name: getattr(self, name) for name in _identity_names(self)}
            text = _ENCODER.encode({"version": KEY_VERSION, **named})
            key = hashlib.sha256(text.encode()).hexdigest()[:24]
            self.__dict__["_known_key"] = (KEY_VERSION, key)
        return str(key)

    @property
    def point(self) -> Point:
        return Point(self.severity, self.severity_2, self.condition)

    @property
    def is_clean(self) -> bool:
        return self.stress == CLEAN

    def to_stress(self) -> Stress:
        """The stress of this cell (not of the clean one)."""
        return Stress(self.stress, self.options)


@dataclass(frozen=True)
class Request:
    """One stress over one grid with its corruption seeds: what a run asked for, kept in the manifest."""

    stress: Stress
    grid: Grid
    seeds: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"stress": self.stress.label, "grid": str(self.grid), "seeds": list(self.seeds)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Request:
        stress = Stress.parse(entry["stress"])
        return cls(stress, stress.grid(entry["grid"]), tuple(entry["seeds"]))

    @property
    def drawn(self) -> tuple[int | None, ...]:
        """The seeds that its cells have: none where nothing is drawn."""
        return self.seeds if self.stress.stressor.random else (None,)

    def seeds_of(self, point: Point) -> tuple[int | None, ...]:
        """The seeds that a point needs: none where nothing is drawn."""
        return (None,) if point.is_clean else self.drawn


@dataclass(frozen=True)
class Subject:
    """A model as the plan knows it: its checkpoint's identity and the labels people read."""

    model: str
    model_version: int
    checkpoint: str
    recipe: str = ""
    train_seed: int | None = None


@dataclass(frozen=True)
class Setting:
    """The data a run is on: fingerprints of the dataset, the pool (the evaluated split) and the training statistics."""

    dataset: str
    data: str
    split: str
    pool: str
    reference: str


def plan(
    subjects: Iterable[Subject], setting: Setting, requests: Iterable[Request], numerics: str = NUMERICS
) -> list[Cell]:
    """Every cell the requests need, each once: per model the clean one first, then by stress, seed and severity.

    numerics: how models are computed, one of ``numerics.POLICIES``.
    """
    requests = list(requests)
    cells: dict[str, Cell] = {}
    for subject in subjects:
        for cell in _cells(subject, setting, requests):
            computed = cell if numerics == cell.numerics else replace(cell, numerics=numerics)
            cells.setdefault(computed.key, computed)
    return list(cells.values())


def clean_cell(subject: Subject, setting: Setting) -> Cell:
    """The cell of the untouched input."""
    return Cell(
        model=subject.model,
        model_version=subject.model_version,
        checkpoint=subject.checkpoint,
        data=setting.data,
        split=setting.split,
        recipe=subject.recipe,
        train_seed=subject.train_seed,
        dataset=setting.dataset,
    )


def cell_at(subject: Subject, setting: Setting, stress: Stress, point: Point, seed: int | None) -> Cell:
    """The cell of one point; at a clean point it is the clean cell, shared by all stresses."""
    clean = clean_cell(subject, setting)
    if point.is_clean:
        return clean
    stressor = stress.stressor
    return replace(
        clean,
        stress=stress.name,
        stress_version=stressor.version,
        options=stress.options,
        params=stress.params,
        pool=setting.pool if stressor.uses_pool else None,
        reference=setting.reference if stress.uses_reference else None,
        severity=point.severity,
        severity_2=point.severity_2,
        condition=point.condition,
        seed=seed,
    )


def _cells(subject: Subject, setting: Setting, requests: list[Request]) -> Iterator[Cell]:
    yield clean_cell(subject, setting)
    for request in requests:
        for seed in request.drawn:
            for point in request.grid.points:
                if not point.is_clean:
                    yield cell_at(subject, setting, request.stress, point, seed)
