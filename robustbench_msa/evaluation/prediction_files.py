"""Predictions that other code made, from a file that is trusted in no way: csv, npz or parquet.

A file has three columns (or arrays) in any order, one row for each id of each cell: ``cell``, ``id``, ``prediction``.
Instead of a prediction there may be logits of C classes: columns ``prediction_0`` .. ``prediction_C-1``, or in an npz a
``prediction`` of shape ``(R, C)``. Other columns are not read.
"""

from __future__ import annotations

import csv
import math
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from corruptions import InputError

COLUMNS = ("cell", "id", "prediction")
MAX_LOGITS = 256
ROW_BYTES = 4096  # far more than a row needs; a file that is larger for its rows is not read
SPARE_ROWS = 1024  # rows too many that are still read, so that they can be named
_EXAMPLES = 3

Row = tuple[str, str, Sequence[object]]
_Values = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Predictions:
    """values: ``(C, N)`` float32 in the order of the cells and ids asked for; given: ``(C,)``, is the cell there?

    logits: ``(C, N, K)`` float32 where the file has them; values are then the class of the largest (NaN: some are not
    finite).
    """

    values: NDArray[np.float32]
    given: NDArray[np.bool_]
    logits: NDArray[np.float32] | None = None


def read_predictions(path: Path, cells: Sequence[str], ids: Sequence[str]) -> Predictions:
    """The predictions in a file, every id of every cell accounted for.

    A cell is given whole or not at all. NaN and infinite predictions are let through (an empty field or a null is NaN);
    what float32 cannot hold is infinite.

    Args:
        path: .csv (UTF-8, comma), .npz (no pickled objects) or .parquet.
        cells: the names of the cells that may come; ids: the samples of each.

    Raises:
        InputError: an unreadable file, missing columns, unknown cells, ids that are missing, foreign or come twice,
            predictions that are not numbers: how many of each, and the first few.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    most = 2 * len(cells) * len(ids) + SPARE_ROWS
    if not path.is_file():  # a pipe or device could be read for ever
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'there is no such file'}")
    if path.stat().st_size > ROW_BYTES * most:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes are too many for {len(cells)} cells of {len(ids)} ids")
    return _collected(path, _guarded(path, reader(path, most), most), cells, ids)


def _guarded(path: Path, rows: Iterator[Row], most: int) -> Iterator[Row]:
    """The rows; a hostile file may break its parser anywhere, in any way, and that is one line too."""
    try:
        for count, row in enumerate(rows):
            if count >= most:
                raise InputError(f"{path}: more than {most:,} rows, {most - SPARE_ROWS:,} would be twice what is asked")
            yield row
    except InputError:
        raise
    except Exception as error:
        line = shown((str(error).splitlines() or [""])[0], 160)
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({type(error).__name__}: {line})") from error


def _collected(path: Path, rows: Iterator[Row], cells: Sequence[str], ids: Sequence[str]) -> Predictions:
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (cells, ids))
    rows, width = _peeked(rows)
    values = np.full((len(cells), len(ids), width), np.nan)
    seen = np.zeros(values.shape[:2], bool)
    problems = _Problems()
    for cell, sample, given_values in rows:
        i, j, numbers = row_of.get(cell), column_of.get(sample), [_number(value) for value in given_values]
        if i is None:
            problems.add("rows of cells that the export does not have", cell)
        elif j is None:
            problems.add("ids that the export does not have", f"{cell}: {sample}")
        elif seen[i, j]:
            problems.add("ids that come more than once", f"{cell}: {sample}")
        elif None in numbers:
            problems.add("predictions that are not numbers", f"{cell}: {sample}: {given_values[numbers.index(None)]}")
        if i is not None and j is not None:
            seen[i, j] = True
            values[i, j] = [np.nan if number is None else number for number in numbers]
    given: NDArray[np.bool_] = np.any(seen, axis=1)
    for i, j in np.argwhere(given[:, None] & ~seen):
        problems.add("ids without a prediction", f"{cells[i]}: {ids[j]}")
    if problems.found:
        raise InputError(f"{path}: {problems}; expected one row for each of {len(ids)} ids of a cell")
    if not given.any():
        raise InputError(f"{path}: no rows; expected one for each of {len(ids)} ids of {len(cells)} cells")
    with np.errstate(over="ignore"):
        numbers32 = values.astype(np.float32)
    if width == 1:
        return Predictions(numbers32[..., 0], given)
    classes = np.where(np.isfinite(numbers32).all(axis=2), numbers32.argmax(axis=2), np.nan)
    return Predictions(classes.astype(np.float32), given, numbers32)


def _peeked(rows: Iterator[Row]) -> tuple[Iterator[Row], int]:
    """The rows, and how many values each has."""
    first = next(rows, None)
    return (iter(()), 1) if first is None else (chain([first], rows), len(first[2]))


@dataclass
class _Problems:
    """What is wrong with rows: how often, and the first few."""

    found: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, example: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        examples = self.found.setdefault(what, [])
        if len(examples) < _EXAMPLES and example not in examples:
            examples.append(example)

    def __str__(self) -> str:
        told = (f"{self.counts[what]} {what} ({', '.join(map(shown, some))})" for what, some in self.found.items())
        return "; ".join(told)


def _number(value: object) -> float | None:
    """As Python reads numbers, without its underscores; None for anything else."""
    if isinstance(value, str):
        if not value.strip():
            return np.nan
        try:
            return None if "_" in value else float(value)
        except ValueError:
            return None
    return value if isinstance(value, float) else None


def _csv(path: Path, most: int) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = [name.strip() for name in next(reader, [])]
        cell, sample, *predictions = _places(path, header)
        for row in reader:
            if row and len(row) != len(header):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(row)} fields, the first line has {len(header)}"
                )
            if row:
                yield row[cell], row[sample], [row[k] for k in predictions]


def _parquet(path: Path, most: int) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        names = [file.schema_arrow.names[place] for place in _places(path, file.schema_arrow.names)]
        _check_rows(path, file.metadata.num_rows, most)
        for batch in file.iter_batches(1 << 16, columns=names):
            cells, samples, *columns = (batch.column(name) for name in names)
            values = [_floats(path, name, column) for name, column in zip(names[2:], columns, strict=True)]
            yield from zip(_texts(cells), _texts(samples), zip(*values, strict=True), strict=True)


def _floats(path: Path, name: str, column: pa.Array) -> list[float]:
    if not pa.types.is_floating(column.type) and not pa.types.is_integer(column.type):
        raise InputError(f"{path}: expected numbers in {name}, got {shown(str(column.type))}")
    return [np.nan if value is None else value for value in column.cast(pa.float64()).to_pylist()]


def _texts(column: pa.Array) -> list[str]:
    if column.null_count:
        raise ValueError("a cell or id is null")
    texts: list[str] = column.cast(pa.string()).to_pylist()
    return texts


def _npz(path: Path, most: int) -> Iterator[Row]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        _places(path, names, columns=False)
        cells, samples, predictions = (_member(path, archive, name, most) for name in COLUMNS)
    if predictions.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers in prediction, got an array of {predictions.dtype}")
    if not len(cells) == len(samples) == len(predictions):
        counts = f"{len(cells)}, {len(samples)} and {len(predictions)}"
        raise InputError(f"{path}: expected arrays of one length, cell, id and prediction have {counts}")
    with np.errstate(over="ignore"):
        numbers = predictions.astype(np.float64).reshape(len(predictions), -1).tolist()
    yield from zip(_strings(path, "cell", cells), _strings(path, "id", samples), numbers, strict=True)


def _member(path: Path, archive: zipfile.ZipFile, name: str, most: int) -> _Values:
    """One array ``(R,)``, of predictions also ``(R, K)``.

    What its header claims is checked before any memory is taken; objects are not unpickled.
    """
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} is of npy format {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(file)
        if dtype.hasobject:
            raise InputError(f"{path}: {name} holds Python objects; save it as strings or numbers (.astype(str))")
        width = MAX_LOGITS if name == "prediction" else 1
        if len(shape) != 1 and not (len(shape) == 2 and 1 <= shape[1] <= width):
            raise InputError(f"{path}: expected one value a row in {name}, got shape {shape}")
        _check_rows(path, shape[0], most)
        claimed = math.prod(shape) * dtype.itemsize
        if dtype.itemsize > ROW_BYTES or claimed != info.file_size - file.tell():
            raise ValueError(f"{name} claims {math.prod(shape):,} x {dtype.itemsize:,} bytes")
        values = np.frombuffer(file.read(claimed), dtype)
        return values.reshape(shape, order="F" if by_column else "C") if width > 1 else values


def _strings(path: Path, name: str, values: _Values) -> list[str]:
    kind = values.dtype.kind
    if kind == "U":
        code_points = np.frombuffer(values.tobytes(), f"{values.dtype.byteorder}u4")
        if len(code_points) and code_points.max() > sys.maxunicode:
            raise ValueError(f"{name} holds code points that do not exist")
    elif kind == "S":
        return [text.decode() for text in values.tolist()]
    elif kind not in "iu":
        raise InputError(f"{path}: expected strings in {name}, got an array of {values.dtype}")
    return [str(value) for value in values.tolist()]


READERS: dict[str, Callable[[Path, int], Iterator[Row]]] = {".csv": _csv, ".npz": _npz, ".parquet": _parquet}


def _places(path: Path, names: Sequence[str], columns: bool = True) -> list[int]:
    """Where the three columns are; the last may be K columns of logits."""
    wanted = list(COLUMNS)
    if columns and "prediction" not in names and "prediction_0" in names:
        logits = sum(re.fullmatch(r"prediction_[0-9]+", name) is not None for name in names)
        wanted = [*COLUMNS[:2], *(f"prediction_{k}" for k in range(min(logits, MAX_LOGITS + 1)))]
    if any(names.count(name) != 1 for name in wanted) or len(wanted) > MAX_LOGITS + 2:
        have = ", ".join(shown(name, 40) for name in names[:8]) + (", ..." if len(names) > 8 else "")
        or_logits = " (or prediction_0, prediction_1, ... for logits)" if columns else ""
        raise InputError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, each once{or_logits}; it has {have or 'none'}"
        )
    return [names.index(name) for name in wanted]


def _check_rows(path: Path, rows: int, most: int) -> None:
    if not 0 <= rows <= most:
        raise InputError(f"{path}: {rows:,} rows; {most - SPARE_ROWS:,} would be twice what is asked")


def shown(text: str, width: int = 80) -> str:
    """Text from a file, fit for one line of a message."""
    line = repr(text[:width])[1:-1]
    return line if len(text) <= width else f"{line}..."
