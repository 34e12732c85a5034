"""One cell as one Parquet file: its rows, and its facts in the file's metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.schemas import PREDICTIONS

FORMAT = 1
METADATA = b"msabench"


@dataclass(frozen=True, eq=False)
class Result:
    """What a cell gave. y_pred: ``(N,)``; present: ``(N, 3)`` as told; extras: ``(N,)`` or ``(N, k)`` by name."""

    ids: Sequence[str]
    groups: Sequence[str]
    y_true: NDArray[np.float32]
    y_pred: NDArray[np.float32]
    present: NDArray[np.bool_]
    extras: dict[str, NDArray[np.float32]]
    facts: dict[str, Any]


def cell_bytes(cell: Cell, result: Result) -> bytes:
    """The file of a cell: the same result has the same bytes."""
    about = {"format": FORMAT, "key": cell.key, "facts": result.facts}
    return parquet_bytes(_table(cell, result).replace_schema_metadata({METADATA: json.dumps(about).encode()}))


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file whose pages have checksums."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read_cell(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Columns of a cell's rows, checked against the checksums they were written with.

    Raises:
        OSError, pa.ArrowException: there is no such file, or it is damaged.
    """
    # threads cost more than they bring to so small a file
    return pq.ParquetFile(path, page_checksum_verification=True).read(columns, use_threads=False)


def facts_in(schema: pa.Schema) -> dict[str, Any]:
    """Input digest and realised rates, from the metadata of a cell's file."""
    facts: dict[str, Any] = json.loads((schema.metadata or {})[METADATA])["facts"]
    return facts


def why_unusable(path: Path, key: str) -> str | None:
    """What is wrong with a file as that of a cell, as far as its footer says; None where nothing is."""
    try:
        schema = pq.read_schema(path)
        known = json.loads((schema.metadata or {})[METADATA])
        if known["key"] == key and known["format"] == FORMAT and schema.equals(PREDICTIONS):
            return None
        return "holds another cell, or one of another format"
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        return one_line(error)


def one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _table(cell: Cell, result: Result) -> pa.Table:
    n = len(result.ids)
    same: dict[str, Any] = {"key": cell.key}
    for name in ("model", "recipe", "train_seed", "checkpoint", "dataset", "split"):
        same[name] = getattr(cell, name)
    for name in ("stress", "params", "severity", "severity_2", "condition", "seed"):
        same[name] = getattr(cell, name)
    if cell.is_clean:
        same["severity"] = "0"
    columns = {name: pa.repeat(pa.scalar(value, PREDICTIONS.field(name).type), n) for name, value in same.items()}
    columns["sample_id"] = pa.array(result.ids, pa.string())
    columns["group"] = pa.array(result.groups, pa.string())
    columns["y_true"] = pa.array(result.y_true, pa.float32())
    columns["y_pred"] = pa.array(result.y_pred, pa.float32())
    for i, letter in enumerate("tav"):
        columns[f"present_{letter}"] = pa.array(result.present[:, i])
    columns["extras"] = _extras(result.extras, n)
    return pa.table([columns[name] for name in PREDICTIONS.names], schema=PREDICTIONS)


def _extras(extras: dict[str, NDArray[np.float32]], n: int) -> pa.MapArray:
    """A map of name to list of float32 per sample, built from whole columns."""
    names = sorted(extras)
    parts = [np.asarray(extras[name], dtype=np.float32).reshape(n, -1) for name in names]
    widths = [part.shape[1] for part in parts]
    values = np.concatenate(parts, axis=1).ravel() if parts else np.zeros(0, np.float32)
    list_offsets = np.concatenate([[0], np.cumsum(np.tile(widths, n))]).astype(np.int32)
    items = pa.ListArray.from_arrays(pa.array(list_offsets), pa.array(values, pa.float32()))
    keys = pa.array(names * n, pa.string())
    map_offsets = pa.array((np.arange(n + 1) * len(names)).astype(np.int32))
    return pa.MapArray.from_arrays(map_offsets, keys, items)
