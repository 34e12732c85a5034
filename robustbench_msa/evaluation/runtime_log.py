"""What cells ran on, and what their files looked like when they were written: one log a process, a JSON line a cell.

A sidecar: nothing depends on it. A line that a kill or a full disk cut short is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from robustbench_msa.atomic import place
from robustbench_msa.evaluation.schemas import RUNTIME

Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds of a file."""


@dataclass(frozen=True)
class Runtime:
    """What a cell ran on. No field of this class may enter a key."""

    device: str
    batch_size: int
    threads: int
    seconds: float
    finished: str
    host: str
    python: str
    torch: str
    msabench: str


_KINDS = {"key": str, **{f.name: {"int": int, "float": float}.get(str(f.type), str) for f in fields(Runtime)}}
"""What a line of a log has, and of which type."""


class RuntimeLog:
    """The logs of a run's folder, and the one that this process appends to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def own(self) -> Path:
        """The log of this process: no two that live at once share one, on whichever machines they are."""
        return self.folder / f"{os.getpid()}-{place()}.jsonl"

    def append(self, key: str, runtime: Runtime, stamp: Stamp) -> None:
        """A line more. On a full disk there is none: the cell itself is written, and the next one will say it."""
        entry = {"key": key, **asdict(runtime), "bytes": stamp[0], "mtime_ns": stamp[1]}
        line = json.dumps(entry).encode() + b"\n"
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.own.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if file.write(line) < len(line):  # no half line for the next one to run into
                    file.truncate(end)

    def stamps(self) -> dict[str, Stamp]:
        """Of each cell, its file as it was when it was written last."""
        found: dict[str, Stamp] = {}
        for entry in self._entries():
            if isinstance(size := entry.get("bytes"), int) and isinstance(time := entry.get("mtime_ns"), int):
                stamp = size, time
                found[entry["key"]] = max(stamp, found.get(entry["key"], (0, 0)), key=lambda s: s[1])
        return found

    def table(self, keys: Iterable[str]) -> pa.Table:
        """One row a cell, as far as it is known; of a cell that ran twice, the last."""
        keys = list(keys)
        wanted = set(keys)
        latest: dict[str, dict[str, Any]] = {}
        for row in [*self._single(keys), *self._entries()]:
            known = latest.get(row["key"])
            if row["key"] in wanted and (known is None or known["finished"] <= row["finished"]):
                latest[row["key"]] = row
        rows = [{name: latest[key].get(name) for name in RUNTIME.names} for key in keys if key in latest]
        return pa.Table.from_pylist(rows, schema=RUNTIME)

    def merge_single(self) -> int:
        """Gather the files of single cells, as they were written before there were logs, in one. How many it were."""
        rows = self._single([path.stem for path in self._single_files()])
        if not rows:
            return 0
        with self.own.open("ab") as file:
            for row in rows:
                file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        for row in rows:
            (self.folder / f"{row['key']}.parquet").unlink(missing_ok=True)
        return len(rows)

    def _single_files(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.parquet"))

    def _single(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        there = {path.stem: str(path) for path in self._single_files()}
        paths = [there[key] for key in keys if key in there]
        if not paths:
            return []
        try:
            rows = pads.dataset(paths, schema=RUNTIME, format="parquet").to_table().to_pylist()
        except (pa.ArrowException, OSError):  # one of them is damaged
            return []
        return [row for row in rows if _is_entry(row)]

    def _entries(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if _is_entry(entry):
                    yield entry


def _is_entry(entry: Any) -> bool:
    """Is a line what ``append`` writes, or a row of the older files?"""
    return isinstance(entry, dict) and all(
        isinstance(entry.get(name), kind) and (kind is not int or 0 <= entry[name] < 2**63)
        for name, kind in _KINDS.items()
    )
