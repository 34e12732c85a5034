"""The job that every engine is tried on, and what must be equal afterwards."""

from __future__ import annotations

from pathlib import Path

NAME = "synth:train=60,valid=20,test=40"
STRESSES = ("missing", "noise")
SEEDS = 3
CELLS = 4 * (1 + (4 + 5) * SEEDS)  # two checkpoints, chance and the oracle; clean, four points and five, of each seed


def workers_of(out: Path) -> list[int]:
    """The processes that have computed cells, as their logs are called."""
    return sorted(int(path.name.partition("-")[0]) for path in (out / "runtime").glob("*.jsonl"))


def assert_same(out: Path, reference: Path) -> None:
    """Every table and every cell, byte for byte; nothing was set aside, failed, or left on its way."""
    for name in ("curves", "nauc", "cells"):
        path = Path(name, f"{name}.parquet")
        assert (out / path).read_bytes() == (reference / path).read_bytes(), f"{name} differs"
    ours, theirs = ({p.name: p.read_bytes() for p in (f / "predictions").iterdir()} for f in (out, reference))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert not (out / "quarantine").exists()
    assert not (out / "failures").exists() or not list((out / "failures").iterdir())
    assert not [path for path in out.rglob("*") if ".tmp-" in path.name]
