"""Gathering finished cells in few files. Nothing is computed; every table derived from them stays the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robustbench_msa.evaluation.cell_files import facts_in, one_line, read_cell
from robustbench_msa.evaluation.parts import Loose, Part
from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.staging import GROUP_ROWS, Group, grouped, settle, stage
from robustbench_msa.evaluation.store import Store

PART_BYTES = 256 << 20
"""Of a part in memory; on disk it is a small fraction of that, since most columns repeat themselves."""

Progress = Callable[[int, int], None]
"""Called after each file that was read, with the number of cells gathered so far, and of those to be gathered."""


@dataclass(frozen=True)
class Compacted:
    """What became of a folder's predictions.

    cells: how many there are; gathered: how many of them moved; damaged: how many could not be read and were set aside;
    files, bytes: of the predictions, before and after.
    """

    cells: int
    gathered: int
    damaged: int
    files: tuple[int, int]
    bytes: tuple[int, int]


@dataclass(frozen=True)
class _Source:
    """A file to gather: that of one cell, or a part that is small, or that shares cells with another one."""

    keys: tuple[str, ...]
    part: Part | None = None


class _Batch:
    """What the next part is made of."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.sources = 0
        self.replaces: list[str] = []

    @property
    def cells(self) -> int:
        return sum(len(group.cells) for group in self.groups)


def compact(root: Path, part_bytes: int = PART_BYTES, progress: Progress | None = None) -> Compacted:
    """Gather the cells of a run's folder in few files. Runs may write into it meanwhile, and anyone may read it.

    Args:
        part_bytes: how much of a part is held in memory.

    Raises:
        InputError: the folder is none of a run, or is being compacted by another process.
        OSError: the disk is full; nothing is lost, and what was gathered so far stays so.
    """
    store = Store(root)
    order = {cell.key: i for i, cell in enumerate(recall(store).cells)}
    with store.rewriting(patience=1.0):
        return _Compaction(store, order, part_bytes, progress or (lambda done, total: None)).run()


class _Compaction:
    def __init__(self, store: Store, order: dict[str, int], part_bytes: int, progress: Progress) -> None:
        self.store, self.order, self.part_bytes, self.progress = store, order, part_bytes, progress
        self.total = self.read = self.gathered = self.damaged = 0

    def run(self) -> Compacted:
        store = self.store
        store.tidy()
        before, there = _files(store.root), store.loose().keys()
        whole = store.done(there) & there
        self.damaged = len(there) - len(whole)
        for batch in self._batches(self._sources(sorted(whole))):
            stage(store.root, batch.groups, batch.replaces)
            settle(store.root)
            self.gathered += batch.cells
        store.log.merge_single()
        store.parts.refresh()
        cells, after = len(store.loose().keys() | store.parts.home.keys()), _files(store.root)
        sizes = (len(before), len(after)), (sum(before), sum(after))
        return Compacted(cells, self.gathered, self.damaged, *sizes)

    def _sources(self, loose: Sequence[str]) -> list[_Source]:
        """In the order of the plan, so that cells which are read one after the other stand together."""
        home = self.store.parts.home
        found = [_Source((key,)) for key in loose]
        for part in self.store.parts.parts.values():
            own = tuple(key for key in part.places if home[key] is part)
            if part.bytes < self.part_bytes / 2 or len(own) < len(part.places):
                found.append(_Source(own, part))
        return sorted(found, key=lambda source: min(map(self._position, source.keys), default=(0, "")))

    def _position(self, key: str) -> tuple[int, str]:
        return self.order.get(key, len(self.order)), key

    def _batches(self, sources: Sequence[_Source]) -> Iterator[_Batch]:
        """The cells of several files at a time; a part is never divided, since it is removed as a whole."""
        rest = deque(sources)
        self.total = sum(len(source.keys) for source in sources)
        while rest:
            batch, size = _Batch(), 0
            while rest and size < self.part_bytes:
                batch.groups += grouped(self._some(batch, rest))
                size = sum(group.table.nbytes for group in batch.groups)
            if batch.sources > 1:  # one file alone stays as it is
                yield batch

    def _some(self, batch: _Batch, rest: deque[_Source]) -> Iterator[Loose]:
        """The cells of the next files, for a row group or more."""
        rows = 0
        while rest and rows < GROUP_ROWS:
            source = rest.popleft()
            found = self._cell(source.keys[0]) if source.part is None else self._part(source.part, set(source.keys))
            if found is not None:
                batch.sources += 1
                batch.replaces += [source.part.path.name] if source.part is not None else []
                rows += sum(table.num_rows for _, table, _ in found)
                yield from found
            self.read += len(source.keys)
            self.progress(self.read, self.total)

    def _cell(self, key: str) -> list[Loose] | None:
        try:
            table = read_cell(self.store.path(key))
            return [(key, table, facts_in(table.schema))]
        except FileNotFoundError:
            return None  # another process took it away
        except (OSError, pa.ArrowException) as error:
            self.store.set_aside(key, one_line(error))
            self.damaged += 1
            return None

    def _part(self, part: Part, keys: set[str]) -> list[Loose] | None:
        found: list[Loose] = []
        for group in range(part.footer.num_row_groups):
            try:
                found += [cell for cell in part.loose(group) if cell[0] in keys]
            except (OSError, pa.ArrowException) as error:
                first = next(key for key, place in part.places.items() if place.group == group)
                self.store.set_aside(first, one_line(error))  # the sound rest is gathered next time
                self.damaged += len(part.places) - len(self.store.parts.home.keys() & part.places.keys())
                return None
        return found


def _files(root: Path) -> list[int]:
    """Sizes of the files that hold predictions."""
    folder = root / "predictions"
    return [path.stat().st_size for path in folder.glob("[!.]*.parquet")] if folder.is_dir() else []
