"""The result store: one crash-safe Parquet file a cell. A cell exists when its file does, whole and under its own key.

RUN/predictions/KEY.parquet   per-sample predictions and extras; the cell's facts are in the file's metadata
RUN/runtime/KEY.parquet       what the cell ran on
RUN/failures/KEY.json         why a cell failed, until it succeeds
RUN/quarantine/               unreadable files, set aside; their cells are computed again
RUN/{plan,cells,curves,nauc}/ derived tables, rebuilt at will
RUN/manifest.json             what was asked for, on what
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from corruptions import InputError
from robustbench_msa.atomic import write_bytes, write_json
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.schemas import PREDICTIONS, RUNTIME

FORMAT = 1
METADATA = b"msabench"
MANIFEST = {"dataset": dict, "requests": list, "commands": list, "checkpoints": dict, "protocols": dict, "profile": str}


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


class Store:
    """The folder of one run."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        return self.root / "predictions" / f"{key}.parquet"

    def done(self, keys: Iterable[str]) -> set[str]:
        """The keys whose cells are there and whole. Files that cannot be read are moved to quarantine."""
        there = set(_names(self.root / "predictions", ".parquet"))
        return {key for key in keys if key in there and self._whole(key)}

    def write(self, cell: Cell, result: Result, runtime: Runtime) -> None:
        """The cell's file, atomically; what it ran on goes to a file of its own first."""
        key = cell.key
        row = pa.Table.from_pylist([{"key": key, **asdict(runtime)}], schema=RUNTIME)
        write_bytes(self.root / "runtime" / f"{key}.parquet", _parquet(row))
        facts = {"format": FORMAT, "key": key, "facts": result.facts}
        table = _table(cell, key, result).replace_schema_metadata({METADATA: json.dumps(facts).encode()})
        write_bytes(self.path(key), _parquet(table))
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)

    def write_failure(self, cell: Cell, message: str, details: str) -> None:
        """Why a cell failed. It counts as missing and is tried again by the next run."""
        texts = {"message": message, "details": details}
        safe = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}
        entry = {"key": cell.key, "cell": asdict(cell), **safe}
        write_json(self.root / "failures" / f"{cell.key}.json", entry)

    def write_table(self, name: str, table: pa.Table) -> None:
        """A derived table, one file in a folder of its own."""
        write_bytes(self.root / name / f"{name}.parquet", _parquet(table))

    def read_table(self, name: str, schema: pa.Schema) -> pa.Table:
        """A derived table. Raises InputError when the run has none yet."""
        path = self.root / name / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"{self.root}: no {name} table there; expected the folder of a finished msabench run")
        try:
            return pq.read_table(path, schema=schema)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: cannot be read ({_line(error)}); run the same msabench run again") from None

    def facts(self, key: str) -> dict[str, Any]:
        """Input digest and realised rates of a cell, as they stand in its file."""
        metadata = pq.read_schema(self.path(key)).metadata or {}
        facts: dict[str, Any] = json.loads(metadata[METADATA])["facts"]
        return facts

    def predictions(self, key: str, columns: list[str] | None = None) -> pa.Table:
        """Columns of a cell's rows, checked against the checksums they were written with.

        Raises:
            OSError, pa.ArrowException: the file is damaged.
        """
        return pq.ParquetFile(self.path(key), page_checksum_verification=True).read(columns)

    def runtime(self, keys: Iterable[str]) -> pa.Table:
        there = set(_names(self.root / "runtime", ".parquet"))
        paths = [str(self.root / "runtime" / f"{key}.parquet") for key in keys if key in there]
        return pads.dataset(paths, schema=RUNTIME, format="parquet").to_table() if paths else RUNTIME.empty_table()

    def failures(self) -> dict[str, str]:
        """Message by key."""
        folder = self.root / "failures"
        found = {}
        for key in _names(folder, ".json"):
            try:
                found[key] = str(json.loads((folder / f"{key}.json").read_text("utf-8"))["message"])
            except (OSError, ValueError, KeyError):
                found[key] = "unknown (the failure's own file cannot be read)"
        return found

    def manifest(self) -> dict[str, Any] | None:
        """The run's manifest; None where there is none. Raises InputError when it is not a manifest."""
        path = self.root / "manifest.json"
        if not path.is_file():
            return None
        try:
            manifest = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a manifest ({_line(error)}); choose another --out") from None
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

    def _whole(self, key: str) -> bool:
        try:
            schema = pq.read_schema(self.path(key))
            known = json.loads((schema.metadata or {})[METADATA])
            if known["key"] == key and known["format"] == FORMAT and schema.equals(PREDICTIONS):
                return True
            reason = "holds another cell, or one of another format"
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            reason = _line(error)
        self.set_aside(key, reason)
        return False

    def set_aside(self, key: str, reason: str) -> None:
        """Move a file that cannot be used to quarantine; its cell counts as missing from then on."""
        quarantine = self.root / "quarantine"
        quarantine.mkdir(exist_ok=True)
        os.replace(self.path(key), quarantine / f"{key}.parquet")
        (quarantine / f"{key}.txt").write_text(reason + "\n", "utf-8")


def _names(folder: Path, suffix: str) -> list[str]:
    """File names without suffix; temporary and foreign files are not among them."""
    if not folder.is_dir():
        return []
    return [
        e.name[: -len(suffix)] for e in os.scandir(folder) if e.name.endswith(suffix) and not e.name.startswith(".")
    ]


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _table(cell: Cell, key: str, result: Result) -> pa.Table:
    n = len(result.ids)
    same: dict[str, Any] = {"key": key}
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


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
