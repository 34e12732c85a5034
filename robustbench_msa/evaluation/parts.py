"""Compacted cells: a few large Parquet files instead of one a cell, the same columns and rows.

A part is a file of whole cells, in row groups of whole cells. Its footer has the index: of each cell the row group,
the first row in it, the number of rows, and the facts. So one cell is read from one row group, and nothing but the part
itself is needed to use it. How parts come and go: ``staging``.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robustbench_msa.evaluation.cell_files import FORMAT, METADATA, one_line
from robustbench_msa.evaluation.schemas import PREDICTIONS

LARGEST_INDEX = 2**26
"""Bytes that an index may unpack to whatever its size is."""

KEPT_GROUPS = 4
"""Row groups that a reader keeps decoded: cells of a part are mostly read in their order."""

Loose = tuple[str, pa.Table, dict[str, Any]]
"""A cell on its way into a part: key, rows, facts."""


class Place(NamedTuple):
    """Where a cell stands in its part."""

    group: int
    first: int
    rows: int
    facts: int


class Part:
    """The index of one part.

    Raises:
        OSError, pa.ArrowException, ValueError: no file, or none that can be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with pq.ParquetFile(path) as file:
            self.footer, schema = file.metadata, file.schema_arrow
        if not schema.equals(PREDICTIONS):
            raise ValueError(f"{path}: not the columns of predictions")
        try:
            known = json.loads((self.footer.metadata or {})[METADATA])
            if known["format"] != FORMAT:
                raise ValueError(f"{path}: expected format {FORMAT}, got {known['format']!r}")
            index = json.loads(_unpacked(base64.b64decode(known["index"])))
            self.facts: list[dict[str, Any]] = index["facts"]
            columns = zip(*(index[name] for name in Place._fields[:3]), index["fact"], strict=True)
            self.places = dict(zip(index["keys"], map(Place._make, columns), strict=True))
            self.replaces: list[str] = index["replaces"]
            self.bytes: int = index["bytes"]
            self._check()
        except (KeyError, TypeError, IndexError, RecursionError, zlib.error) as error:
            raise ValueError(f"{path}: its index cannot be read ({error!r})") from None

    def _check(self) -> None:
        """Raises IndexError or TypeError where the index leads out of the file."""
        numbers = np.array([tuple(place) for place in self.places.values()]).reshape(-1, len(Place._fields))
        ends = np.array(
            [self.footer.num_row_groups, self.footer.num_rows + 1, self.footer.num_rows + 1, len(self.facts)]
        )
        if numbers.size and (numbers.dtype != np.int64 or (numbers < 0).any() or (numbers >= ends).any()):
            raise IndexError("it leads out of the file")
        if not isinstance(self.bytes, int) or not all(isinstance(name, str) for name in (*self.replaces, *self.places)):
            raise TypeError("names and sizes are none")

    def facts_of(self, key: str) -> dict[str, Any]:
        facts: dict[str, Any] = self.facts[self.places[key].facts]
        return facts

    def read_group(self, group: int, columns: list[str] | None) -> pa.Table:
        file = pq.ParquetFile(self.path, metadata=self.footer, page_checksum_verification=True)
        return file.read_row_group(group, columns).replace_schema_metadata(None)

    def loose(self, group: int) -> list[Loose]:
        """The cells of a row group, all columns."""
        table = self.read_group(group, None)
        here = [(key, place) for key, place in self.places.items() if place.group == group]
        return [(key, table.slice(p.first, p.rows), self.facts[p.facts]) for key, p in here]


class Parts:
    """All parts of a run's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts: dict[str, Part] = {}
        self.broken: dict[Path, str] = {}
        self.home: dict[str, Part] = {}
        self._groups: OrderedDict[tuple[Path, int, tuple[str, ...]], pa.Table] = OrderedDict()
        self._seen: int | None = None

    def refresh(self) -> None:
        """Look which parts there are. One that moves while we look is looked for again."""
        self._seen = _changed(self.root / ".parts")
        self.broken = {}
        for _ in range(5):
            found = {path.name: path for path in part_files(self.root)}
            there = {name: part for name, part in self.parts.items() if found.get(name) == part.path}
            opened = {name: part for name, path in found.items() if name not in there and (part := self._open(path))}
            changed, self.parts = bool(opened) or len(there) < len(self.parts), there | opened
            if changed:
                self.home = {key: part for part in self.parts.values() for key in part.places}
                self._groups.clear()
            if len(self.parts) + len(self.broken) == len(found):
                return

    def _open(self, path: Path) -> Part | None:
        try:
            return Part(path)
        except FileNotFoundError:
            return None  # it moved, or another part took its place
        except (OSError, pa.ArrowException, ValueError) as error:
            self.broken[path] = why_broken(error)
            return None

    def refresh_if_changed(self) -> None:
        """Cheap: every new part passes through one small folder."""
        if self._seen is None or _changed(self.root / ".parts") != self._seen:
            self.refresh()

    def read(self, key: str, columns: list[str] | None) -> pa.Table:
        """A cell's rows.

        Raises:
            KeyError: it is in no part.
            OSError, pa.ArrowException: the part is damaged.
        """
        part = self.home[key]
        place = part.places[key]
        wanted = ("key", *(name for name in columns if name != "key")) if columns is not None else ()
        group = self._group(part, place.group, wanted)
        if place.first + place.rows > group.num_rows:
            raise pa.ArrowInvalid(f"{part.path}: row group {place.group} is shorter than its index says")
        # take, not slice: children of a sliced map would still be those of the whole row group
        table = group.take(pa.array(range(place.first, place.first + place.rows)))
        if place.rows and not pc.all(pc.equal(table["key"], key)).as_py():
            raise pa.ArrowInvalid(f"{part.path}: row group {place.group} holds other cells than its index says")
        return table if columns is None else table.select(columns)

    def is_sound(self, key: str) -> bool:
        """Can all of a cell's rows be read, from the disk as it is now?"""
        self._groups.clear()
        try:
            self.read(key, None)
        except (OSError, pa.ArrowException) as error:
            return not why_broken(error)
        return True

    def _group(self, part: Part, group: int, columns: tuple[str, ...]) -> pa.Table:
        known = (part.path, group, columns)
        if known not in self._groups:
            while len(self._groups) >= KEPT_GROUPS:
                self._groups.popitem(last=False)
            self._groups[known] = part.read_group(group, list(columns) or None).combine_chunks()
        self._groups.move_to_end(known)
        return self._groups[known]


def part_files(root: Path) -> list[Path]:
    """Staged parts first: one that moves between the two looks is then seen twice rather than not at all."""
    return [*part_files_in(root / ".parts"), *part_files_in(root / "predictions")]


def part_files_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name.startswith("part-") and e.name.endswith(".parquet")]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names)]


def why_broken(error: Exception) -> str:
    """What is wrong with a part. That the system does not let us read it (permissions, network) is no fault of the
    file, and so many cells are not set aside for it: that is raised.
    """
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return one_line(error)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _unpacked(data: bytes) -> bytes:
    """Raises ValueError where little data stands for more than any index is."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, max(LARGEST_INDEX, 100 * len(data)))
    if unpacker.unconsumed_tail:
        raise ValueError("its index unpacks to more than 100 times its size")
    return text
