"""How parts come and go, so that a kill at any moment loses nothing and shows no cell twice.

A new part takes the place of other files in steps that may be cut anywhere: it is written whole to ``RUN/.parts`` (it
exists from then on, for this package); what it replaces is removed; it moves to ``RUN/predictions``. Whoever comes
next finishes what was begun (``settle``). Strangers reading ``RUN/predictions`` never see a cell twice; for a moment
they may miss it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_msa.atomic import sync_folder, write_bytes
from robustbench_msa.evaluation.cell_files import FORMAT, METADATA
from robustbench_msa.evaluation.parts import Loose, Part, Place, part_files_in, why_broken
from robustbench_msa.evaluation.schemas import PREDICTIONS

GROUP_ROWS = 16_384
"""A row group is closed when it has so many rows: 24 cells of CMU-MOSI's test split."""


class Group(NamedTuple):
    """A row group to be. cells: key, number of rows and facts, in the order of the rows."""

    table: pa.Table
    cells: list[tuple[str, int, dict[str, Any]]]


def grouped(cells: Iterable[Loose]) -> Iterator[Group]:
    """Row groups of whole cells. A table of its own for every cell would take many times the memory of its values."""
    some: list[Loose] = []
    rows = 0
    for cell in cells:
        some.append(cell)
        rows += cell[1].num_rows
        if rows >= GROUP_ROWS:
            yield _group_of(some)
            some, rows = [], 0
    if some:
        yield _group_of(some)


def stage(root: Path, groups: Sequence[Group], replaces: Sequence[str] = ()) -> Path:
    """Write a part; it exists from then on. ``replaces``: the parts that it makes needless.

    Raises:
        OSError: the disk is full or failing; everything is as before.
    """
    metadata = {METADATA: json.dumps({"format": FORMAT, "index": _index(groups, replaces)}).encode()}
    schema, buffer = PREDICTIONS.with_metadata(metadata), io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in groups:
            writer.write_table(group.table.cast(schema), row_group_size=max(group.table.num_rows, 1))
    data = buffer.getvalue()
    path = root / ".parts" / f"part-{hashlib.sha256(data).hexdigest()[:24]}.parquet"
    write_bytes(path, data, staging=root / ".tmp")
    return path


def settle(root: Path) -> None:
    """Finish what was begun: remove what staged parts replace, and let them be seen. Any process may, at any time."""
    folder = root / "predictions"
    staged = part_files_in(root / ".parts")
    for path in staged:
        with suppress(FileNotFoundError):  # another process finished it
            try:
                part = Part(path)
            except (OSError, pa.ArrowException, ValueError) as error:
                set_aside(root, path, why_broken(error))
                continue
            remove_loose(root, part.places)
            for name in part.replaces:
                (folder / name).unlink(missing_ok=True)
            folder.mkdir(exist_ok=True)
            os.replace(path, folder / path.name)
    if staged:
        sync_folder(folder)


def remove_loose(root: Path, keys: Iterable[str]) -> None:
    """Remove the files of single cells."""
    folder = root / "predictions"
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    for key in keys:
        if (name := f"{key}.parquet") in there:
            (folder / name).unlink(missing_ok=True)


def rewrite(root: Path, part: Part, without: Iterable[str], damaged: int | None = None) -> None:
    """Put a part in the place of this one that has all its cells but some, and none of a row group that is damaged.

    The part must be settled, and nobody else be rewriting parts.
    """
    left_out = set(without)

    def kept() -> Iterator[Loose]:
        for group in range(part.footer.num_row_groups):
            if group != damaged:
                try:
                    yield from [cell for cell in part.loose(group) if cell[0] not in left_out]
                except (OSError, pa.ArrowException) as error:
                    why_broken(error)  # a second damaged row group goes too, but nothing that only cannot be reached

    if groups := list(grouped(kept())):
        stage(root, groups, [part.path.name])
        settle(root)
    else:
        part.path.unlink(missing_ok=True)


def set_aside(root: Path, path: Path, reason: str, keep: bool = False) -> None:
    """Move a file to quarantine, or (keep) copy it there, and say why."""
    quarantine = root / "quarantine"
    quarantine.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):  # another run was faster
        if keep:
            shutil.copyfile(path, quarantine / path.name)
        else:
            os.replace(path, quarantine / path.name)
        (quarantine / f"{path.stem}.txt").write_text(reason + "\n", "utf-8")


def _group_of(cells: Sequence[Loose]) -> Group:
    table = pa.concat_tables([rows.replace_schema_metadata(None) for _, rows, _ in cells]).combine_chunks()
    return Group(table, [(key, rows.num_rows, facts) for key, rows, facts in cells])


def _index(groups: Sequence[Group], replaces: Sequence[str]) -> str:
    """Compressed JSON of columns; facts that cells share (inputs are shared by all models) stand there once."""
    keys: list[str] = []
    places: list[tuple[int, int, int]] = []
    texts: dict[str, int] = {}
    fact: list[int] = []
    for number, group in enumerate(groups):
        first = 0
        for key, rows, facts in group.cells:
            keys.append(key)
            places.append((number, first, rows))
            fact.append(texts.setdefault(json.dumps(facts), len(texts)))
            first += rows
    columns = dict(zip(Place._fields[:3], map(list, zip(*places, strict=True)), strict=True))
    facts_list = [json.loads(text) for text in texts]
    index: dict[str, Any] = {"keys": keys, **columns, "fact": fact, "facts": facts_list, "replaces": list(replaces)}
    index["bytes"] = sum(group.table.nbytes for group in groups)
    return base64.b64encode(zlib.compress(json.dumps(index).encode())).decode()
