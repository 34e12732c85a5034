"""The result store: a cell exists when its rows do, whole and under its own key.

RUN/predictions/KEY.parquet   per-sample predictions and extras of one cell; its facts are in the file's metadata
RUN/predictions/part-*.parquet  the same of many cells, after ``msabench compact`` (``parts``)
RUN/runtime/*.jsonl           what cells ran on, a line a cell (``runtime_log``)
RUN/failures/KEY.json         why a cell failed, until it succeeds
RUN/quarantine/               unreadable files, set aside; their cells are computed again
RUN/{plan,cells,curves,nauc}/ derived tables, rebuilt at will
RUN/manifest.json             what was asked for, on what
RUN/.tmp, RUN/.parts, RUN/.lock  files on their way; parts on their way; who changes plan and manifest
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corruptions import InputError
from robustbench_msa.atomic import sweep, write_bytes, write_json
from robustbench_msa.evaluation.cell_files import (
    FORMAT,
    METADATA,
    Result,
    cell_bytes,
    facts_in,
    one_line,
    parquet_bytes,
    read_cell,
    why_unusable,
)
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.locks import locked
from robustbench_msa.evaluation.parts import Part, Parts
from robustbench_msa.evaluation.runtime_log import Runtime, RuntimeLog, Stamp
from robustbench_msa.evaluation.schemas import shown
from robustbench_msa.evaluation.staging import remove_loose, rewrite, set_aside, settle

MANIFEST = {"dataset": dict, "requests": list, "commands": list, "checkpoints": dict, "protocols": dict, "profile": str}
QUIET = 2_000_000_000
"""Nanoseconds for which a file must not have changed before its time of change says that it is the one we know."""


class Store:
    """The folder of one run."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.parts = Parts(self.root)
        self.log = RuntimeLog(self.root / "runtime")
        self._rewriting = False
        self._known: dict[str, Stamp] | None = None  # files that were whole when they looked so

    def path(self, key: str) -> Path:
        """Where a cell is written. After compaction it is in a part, and no such file is there."""
        return self.root / "predictions" / f"{key}.parquet"

    def done(self, keys: Iterable[str]) -> set[str]:
        """The keys whose cells are there and whole. Files that cannot be read are moved to quarantine."""
        wanted, loose, now = set(keys), self.loose(), time.time_ns()
        whole = {key for key in wanted & loose.keys() if self._whole(key, loose[key], now)}
        self.parts.refresh()  # after the loose ones: what another process compacts meanwhile is in a part now
        for path, reason in self.parts.broken.items():
            set_aside(self.root, path, reason)
        return whole | (wanted & self.parts.home.keys())

    def loose(self) -> dict[str, Stamp]:
        """The cells that have files of their own, and what these look like from outside."""
        found = {}
        for name, entry in _entries(self.root / "predictions", ".parquet"):
            if not name.startswith("part-"):
                with suppress(FileNotFoundError):  # compacted while we look
                    status = entry.stat()
                    found[name] = (status.st_size, status.st_mtime_ns)
        return found

    def write(self, cell: Cell, result: Result, runtime: Runtime) -> None:
        """The cell's file, atomically. Of a cell that another run wrote and compacted meanwhile, nothing is written."""
        key = cell.key
        if not self._compacted(cell):
            write_bytes(self.path(key), cell_bytes(cell, result), self.root / ".tmp")
            with suppress(FileNotFoundError):  # compacted already
                status = self.path(key).stat()
                self.log.append(key, runtime, (status.st_size, status.st_mtime_ns))
            if self._compacted(cell):
                self.path(key).unlink(missing_ok=True)
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)

    def write_failure(self, cell: Cell, message: str, details: str) -> None:
        """Why a cell failed. It counts as missing and is tried again by the next run."""
        texts = {"message": message, "details": details}
        safe = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}
        entry = {"key": cell.key, "cell": asdict(cell), **safe}
        write_json(self.root / "failures" / f"{cell.key}.json", entry)

    def write_table(self, name: str, table: pa.Table) -> None:
        """A derived table, one file in a folder of its own."""
        write_bytes(self.root / name / f"{name}.parquet", parquet_bytes(table), self.root / ".tmp")

    def read_table(self, name: str, schema: pa.Schema | None) -> pa.Table:
        """A derived table, with the columns of a schema or its own; its texts are fit to be shown, whoever wrote it.

        Raises:
            InputError: the run has none yet, or it cannot be read.
        """
        path = self.root / name / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"{self.root}: no {name} table there; expected the folder of a finished msabench run")
        try:
            table = pq.read_table(path, schema=schema)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}); run the same msabench run again") from None
        return shown(table) if schema is not None else table

    def facts(self, key: str) -> dict[str, Any]:
        """Input digest and realised rates of a cell, as they stand in its file."""
        try:
            return facts_in(pq.read_schema(self.path(key)))
        except FileNotFoundError:
            return self._part_of(key).facts_of(key)

    def predictions(self, key: str, columns: list[str] | None = None) -> pa.Table:
        """Columns of a cell's rows, checked against the checksums they were written with.

        Raises:
            OSError, pa.ArrowException: the file is damaged.
        """
        try:
            return read_cell(self.path(key), columns)
        except FileNotFoundError:
            self._part_of(key)
        try:
            return self.parts.read(key, columns)
        except FileNotFoundError:  # it moved since
            self.parts.refresh()
            self._part_of(key)
            return self.parts.read(key, columns)

    def runtime(self, keys: Iterable[str]) -> pa.Table:
        """What cells ran on, one row a cell, as far as that is known."""
        return self.log.table(keys)

    def failures(self) -> dict[str, str]:
        """Message by key."""
        folder = self.root / "failures"
        found = {}
        for key, _ in _entries(folder, ".json"):
            try:
                found[key] = str(json.loads((folder / f"{key}.json").read_text("utf-8"))["message"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                found[key] = "unknown (the failure's own file cannot be read)"
        return found

    def manifest(self) -> dict[str, Any] | None:
        """The run's manifest; None where there is none. Raises InputError when it is not a manifest."""
        path = self.root / "manifest.json"
        if not path.is_file():
            return None
        try:
            manifest = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a manifest ({one_line(error)}); choose another --out") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(f"{path}: expected an msabench manifest of format {FORMAT}; choose another --out")
        wrong = [name for name, kind in MANIFEST.items() if not isinstance(manifest.get(name), kind)]
        if not wrong and not {"name", "data", "split"} <= set(manifest["dataset"]):
            wrong = ["dataset"]
        if not wrong and not manifest["commands"]:
            wrong = ["commands"]
        if wrong:
            raise InputError(f"{path}: not a manifest of a run ({', '.join(wrong)} missing or not as written)")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.root / "manifest.json", {"format": FORMAT, **manifest})

    def set_aside(self, key: str, reason: str) -> None:
        """Move a file that cannot be used to quarantine; what it held counts as missing from then on.

        Of a part, the cells that can still be read stay: a sound part takes its place.
        """
        if self.path(key).exists():
            set_aside(self.root, self.path(key), reason)
        elif key in self.parts.home:
            with self.rewriting():
                part = self.parts.home.get(key)
                if part is not None and not self.parts.is_sound(key):
                    set_aside(self.root, part.path, reason, keep=True)
                    rewrite(self.root, part, without=[key], damaged=part.places[key].group)
                    self.parts.refresh()

    def forget(self, keys: Iterable[str]) -> None:
        """Remove cells, wherever they are."""
        keys = set(keys)
        remove_loose(self.root, keys)
        self.parts.refresh()
        if keys.isdisjoint(self.parts.home):
            return
        with self.rewriting():
            for part in list(self.parts.parts.values()):
                if not keys.isdisjoint(part.places):
                    rewrite(self.root, part, without=keys)
            self.parts.refresh()

    @contextmanager
    def rewriting(self, patience: float = math.inf) -> Iterator[None]:
        """Hold this to put parts in the place of others: one process at a time. All parts are settled then."""
        if self._rewriting:
            yield
            return
        with locked(self.root / ".compaction.lock", patience):
            self._rewriting = True
            try:
                settle(self.root)
                self.parts.refresh()
                yield
            finally:
                self._rewriting = False

    def tidy(self) -> None:
        """Clear up after processes that were killed: their temporary files, and compactions they did not finish."""
        folders = ("predictions", "runtime", "failures", "plan", "curves", "nauc", "cells", ".tmp", ".parts", "")
        for name in folders:
            sweep(self.root / name)
        settle(self.root)
        self.parts.refresh()
        if self.parts.home:
            remove_loose(self.root, self.parts.home)  # written while another run compacted the same cell

    def _compacted(self, cell: Cell) -> bool:
        """Is the cell in a part? One that stands there under another recipe or training seed is taken out of it."""
        self.parts.refresh_if_changed()
        if cell.key not in self.parts.home:
            return False
        try:
            (row,) = self.predictions(cell.key, ["recipe", "train_seed"]).slice(0, 1).to_pylist()
        except (OSError, pa.ArrowException) as error:
            self.set_aside(cell.key, one_line(error))
            return False
        if row == {"recipe": cell.recipe, "train_seed": cell.train_seed}:
            return True
        self.forget([cell.key])
        return False

    def _part_of(self, key: str) -> Part:
        if key not in self.parts.home:
            self.parts.refresh()
        if key not in self.parts.home:
            raise FileNotFoundError(f"{self.path(key)}: no such cell")
        return self.parts.home[key]

    def _whole(self, key: str, stamp: Stamp, now: int) -> bool:
        """Does the file say that it is this cell? One that has not changed since we knew it is not opened again."""
        if self._known is None:
            self._known = self.log.stamps()
        if self._known.get(key) == stamp and now - stamp[1] > QUIET:
            return True
        reason = why_unusable(self.path(key), key)
        if reason is None:
            self._known[key] = stamp
            return True
        if self.path(key).exists():  # not compacted just now
            set_aside(self.root, self.path(key), reason)
        return False


def _entries(folder: Path, suffix: str) -> Iterable[tuple[str, os.DirEntry[str]]]:
    """Files by their names without suffix; temporary and foreign files are not among them."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(suffix) and not entry.name.startswith("."):
                    yield entry.name.removesuffix(suffix), entry


__all__ = ["FORMAT", "METADATA", "Result", "Runtime", "Store"]
