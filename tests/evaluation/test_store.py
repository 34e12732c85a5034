"""The store: exact round trips, whole files or none, nothing unreadable is ever fatal."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from corruptions import InputError, Point, Stress
from robustbench_msa.evaluation.cells import Cell, cell_at, clean_cell
from robustbench_msa.evaluation.schemas import PREDICTIONS, RUNTIME
from robustbench_msa.evaluation.store import METADATA, Store


@pytest.fixture
def cell(setting, subject) -> Cell:
    return cell_at(subject, setting, Stress.parse("spectrum:told=true"), Point("0.1", "0.3"), 1112)


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder)


def frame_of(store: Store, cell: Cell) -> pd.DataFrame:
    return store.predictions(cell.key).to_pandas()


def test_predictions_and_extras_come_back_exactly(store, cell, result_of, runtime) -> None:
    result = result_of(n=9)
    store.write(cell, result, runtime)
    frame = frame_of(store, cell)
    np.testing.assert_array_equal(frame["y_pred"].to_numpy(), result.y_pred)
    np.testing.assert_array_equal(frame["y_true"].to_numpy(), result.y_true)
    np.testing.assert_array_equal(frame[["present_t", "present_a", "present_v"]].to_numpy(), result.present)
    assert frame["sample_id"].tolist() == list(result.ids)
    assert frame["group"].tolist() == list(result.groups)
    for i, row in enumerate(frame["extras"]):
        extras = {name: np.asarray(values, dtype=np.float32) for name, values in row}
        assert list(extras) == ["consensus", "gates"]
        np.testing.assert_array_equal(extras["gates"], result.extras["gates"][i])
        np.testing.assert_array_equal(extras["consensus"], result.extras["consensus"][i : i + 1])
    assert store.facts(cell.key) == result.facts


def test_the_cell_is_written_beside_its_values(store, cell, result_of, runtime) -> None:
    store.write(cell, result_of(), runtime)
    row = store.predictions(cell.key).to_pylist()[0]
    expected = {"key": cell.key, "stress": "spectrum", "params": "told=true", "severity": "0.1", "severity_2": "0.3"}
    expected |= {"seed": 1112, "model": "late_fusion", "recipe": "clean", "train_seed": 1111, "split": "test"}
    expected |= {"condition": None, "dataset": "synth", "checkpoint": cell.checkpoint}
    assert {name: row[name] for name in expected} == expected


def test_a_clean_cell_has_severity_0_and_no_seed(store, setting, subject, result_of, runtime) -> None:
    cell = clean_cell(subject, setting)
    store.write(cell, result_of(), runtime)
    table = store.predictions(cell.key)
    assert set(table["severity"].to_pylist()) == {"0"}
    assert set(table["seed"].to_pylist()) == {None}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e-42, -0.0, 3.4e38])
def test_unusual_floats_survive(value, store, cell, result_of, runtime) -> None:
    result = result_of(n=3)
    y_pred = np.array([1.0, value, 2.0], dtype=np.float32)
    extras = {"r": np.array([[value, 0.5], [value, value], [0, 1]], dtype=np.float32)}
    store.write(cell, replace(result, y_pred=y_pred, extras=extras), runtime)
    table = store.predictions(cell.key)
    assert table["y_pred"].combine_chunks().to_numpy().tobytes() == y_pred.tobytes()
    items = np.array([dict(row)["r"] for row in table["extras"].to_pylist()], dtype=np.float32)
    np.testing.assert_array_equal(items, extras["r"])
    assert table["y_pred"].null_count == 0, "NaN is a value that a model gave, not a null"


def test_a_model_without_extras_has_the_same_schema(store, cell, setting, subject, result_of, runtime) -> None:
    bare = clean_cell(subject, setting)
    store.write(bare, replace(result_of(), extras={}), runtime)
    store.write(cell, result_of(), runtime)
    for key in (bare.key, cell.key):
        assert pq.read_schema(store.path(key)).equals(PREDICTIONS)
    tables = [store.predictions(key) for key in (bare.key, cell.key)]
    assert tables[0]["extras"].to_pylist()[0] == []
    assert [len(table) for table in tables] == [7, 7]


def test_runtime_is_apart(store, cell, result_of, runtime) -> None:
    store.write(cell, result_of(), runtime)
    table = store.runtime([cell.key, "f" * 24])
    assert table.schema.equals(RUNTIME)
    (row,) = table.to_pylist()
    assert row["key"] == cell.key
    assert row["batch_size"] == 256
    assert "batch_size" not in frame_of(store, cell)
    assert store.runtime([]).num_rows == 0


def test_runtime_of_an_earlier_version_is_read_too(store, cell, setting, subject, result_of, runtime) -> None:
    """It was a Parquet file a cell; where a cell ran again later, that counts."""
    clean = clean_cell(subject, setting)
    store.write(clean, result_of(), replace(runtime, finished="2026-01-02", device="later"))
    for key in (cell.key, clean.key):
        row = pa.Table.from_pylist([{"key": key, **asdict(replace(runtime, device="earlier"))}], schema=RUNTIME)
        pq.write_table(row, store.root / "runtime" / f"{key}.parquet")
    expected = [(cell.key, "earlier"), (clean.key, "later")]
    assert [(row["key"], row["device"]) for row in store.runtime([cell.key, clean.key]).to_pylist()] == expected
    assert store.log.merge_single() == 2
    assert [path.suffix for path in (store.root / "runtime").iterdir()] == [".jsonl"]
    assert [(row["key"], row["device"]) for row in store.runtime([cell.key, clean.key]).to_pylist()] == expected


def test_a_log_that_was_cut_short_loses_its_last_line_only(store, cell, setting, subject, result_of, runtime) -> None:
    clean = clean_cell(subject, setting)
    store.write(clean, result_of(), runtime)
    store.write(cell, result_of(), runtime)
    (log,) = (store.root / "runtime").iterdir()
    log.write_bytes(log.read_bytes()[:-20])
    (store.root / "runtime" / "1-other.jsonl").write_bytes(b'\xff\n[1]\n{"no": "key"}\n\n')
    assert [row["key"] for row in store.runtime([cell.key, clean.key]).to_pylist()] == [clean.key]
    assert store.done([cell.key, clean.key]) == {cell.key, clean.key}


@pytest.mark.parametrize(
    "wrong", [{"host": 7}, {"finished": None}, {"seconds": "1"}, {"threads": 2**63}, {"batch_size": -1}, {"device": []}]
)
def test_a_line_of_another_kind_is_no_runtime(wrong, store, cell, result_of, runtime) -> None:
    store.write(cell, result_of(), runtime)
    line = json.dumps({"key": cell.key, **asdict(replace(runtime, finished="9999")), **wrong})
    (store.root / "runtime" / "1-other.jsonl").write_text(f"{line}\n{'[' * 100_000}\n", "utf-8")
    (store.root / "runtime" / f"{cell.key}.parquet").write_bytes(b"PAR1 and no more")
    assert [row["finished"] for row in store.runtime([cell.key]).to_pylist()] == [runtime.finished]


def test_a_log_that_cannot_be_written_costs_no_cell(store, cell, result_of, runtime) -> None:
    store.root.mkdir()
    (store.root / "runtime").write_bytes(b"a file in the way")
    store.write(cell, result_of(), runtime)
    assert store.done([cell.key]) == {cell.key}


def test_files_that_did_not_change_are_not_opened_again(store, cell, result_of, runtime, monkeypatch) -> None:
    from robustbench_msa.evaluation import store as module

    store.write(cell, result_of(), runtime)
    monkeypatch.setattr(module, "QUIET", 0)
    opened: list[str] = []
    monkeypatch.setattr(module, "why_unusable", lambda path, key: opened.append(key))
    fresh = Store(store.root)
    assert fresh.done([cell.key]) == {cell.key}
    assert opened == [], "its writer noted what it looks like"
    status = store.path(cell.key).stat()
    os.utime(store.path(cell.key), ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))
    assert fresh.done([cell.key]) == {cell.key}
    assert opened == [cell.key], "another time: it is looked into"
    assert fresh.done([cell.key]) == {cell.key}
    assert opened == [cell.key], "and known from then on"
    store.path(cell.key).write_bytes(b"short")
    monkeypatch.undo()
    assert fresh.done([cell.key]) == set(), "another size"


def test_temporary_files_are_never_among_the_predictions(store, cell, result_of, runtime, monkeypatch) -> None:
    """polars reads every file of a folder, whatever it is called."""
    real, seen = os.replace, []

    def watching(source: Any, target: Any) -> None:
        seen.append(Path(source).parent.name)
        real(source, target)

    monkeypatch.setattr(os, "replace", watching)
    store.write(cell, result_of(), runtime)
    assert seen == [".tmp"]


def test_the_same_result_has_the_same_bytes(store, cell, result_of, runtime, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    store.write(cell, result_of(), runtime)
    other.write(cell, result_of(), replace(runtime, device="cuda", seconds=9.0))
    assert store.path(cell.key).read_bytes() == other.path(cell.key).read_bytes()


def test_a_crash_before_the_last_step_leaves_no_cell(store, cell, result_of, runtime, monkeypatch) -> None:
    real = os.replace

    def crash(source: Any, target: Any) -> None:
        if "predictions" in str(target):
            raise OSError("no power")
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no power"):
        store.write(cell, result_of(), runtime)
    assert not store.path(cell.key).exists()
    assert list((store.root / "predictions").iterdir()) == []
    assert store.done([cell.key]) == set()
    monkeypatch.undo()
    store.write(cell, result_of(), runtime)
    assert store.done([cell.key]) == {cell.key}


def test_a_crash_while_replacing_keeps_the_old_cell(store, cell, result_of, runtime, monkeypatch) -> None:
    store.write(cell, result_of(seed=1), runtime)
    before = store.path(cell.key).read_bytes()

    def crash(source: Any, target: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write(cell, result_of(seed=2), runtime)
    assert store.path(cell.key).read_bytes() == before


def test_temporary_files_are_no_cells(store, cell, result_of, runtime) -> None:
    """What a killed process leaves behind disturbs nobody who reads the folder."""
    store.write(cell, result_of(n=7), runtime)
    folder = store.root / "predictions"
    whole = store.path(cell.key).read_bytes()
    left = "a" * 24
    (folder / f".{left}.parquet.tmp-1").write_bytes(whole[: len(whole) // 2])
    (folder / f".{cell.key}.parquet.tmp-1").write_bytes(b"")
    assert store.done([cell.key, left]) == {cell.key}
    assert len(pd.read_parquet(folder)) == 7
    assert pads.dataset(folder, format="parquet").count_rows() == 7
    assert pq.read_table(folder).num_rows == 7
    assert not (store.root / "quarantine").exists()


def broken(kind: str, whole: bytes, other: bytes) -> bytes:
    """A cell's file as accidents leave it."""
    if kind == "empty":
        return b""
    if kind == "truncated":
        return whole[: len(whole) - 40]
    if kind == "text":
        return b"not parquet at all\n" * 30
    if kind == "another cell":
        return other
    if kind == "flipped footer":
        return whole[:-30] + bytes(b ^ 0xFF for b in whole[-30:-8]) + whole[-8:]
    table = pa.table({"key": ["x"]})
    metadata = {
        "foreign": None,
        "metadata is no JSON": {METADATA: b"{"},
        "metadata is a list": {METADATA: b"[1, 2]"},
        "metadata is null": {METADATA: b"null"},
    }[kind]
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    return buffer.getvalue().to_pybytes()


KINDS = ["empty", "truncated", "text", "another cell", "flipped footer", "foreign"]
KINDS += ["metadata is no JSON", "metadata is a list", "metadata is null"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_cell_is_set_aside(kind, store, cell, setting, subject, result_of, runtime) -> None:
    sound = clean_cell(subject, setting)
    store.write(sound, result_of(), runtime)
    store.write(cell, result_of(), runtime)
    path = store.path(cell.key)
    bad = broken(kind, path.read_bytes(), store.path(sound.key).read_bytes())
    path.write_bytes(bad)
    assert store.done([sound.key, cell.key]) == {sound.key}
    assert not path.exists()
    assert (store.root / "quarantine" / path.name).read_bytes() == bad
    assert (store.root / "quarantine" / f"{cell.key}.txt").read_text("utf-8").strip()
    store.write(cell, result_of(), runtime)
    assert store.done([sound.key, cell.key]) == {sound.key, cell.key}


def test_a_cell_that_lost_a_column_is_set_aside(store, cell, result_of, runtime) -> None:
    store.write(cell, result_of(n=200), runtime)
    path = store.path(cell.key)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["y_pred"]), path)  # keeps the metadata and so the key
    assert store.done([cell.key]) == set()
    assert (store.root / "quarantine" / path.name).exists()


@pytest.mark.parametrize("many", [False, True])
def test_damaged_values_under_a_whole_footer_are_noticed_when_read(many, store, cell, result_of, runtime) -> None:
    """``done`` looks at the footer alone; whoever reads the values is told, and sets the file aside."""
    store.write(cell, result_of(n=200), runtime)
    path = store.path(cell.key)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # where the values end
    places = range(4, footer) if many else [footer // 2]
    damaged = bytes(b ^ 0xFF if i in places else b for i, b in enumerate(whole))
    path.write_bytes(damaged)
    with pytest.raises((OSError, pa.ArrowException)):
        store.predictions(cell.key)
    store.set_aside(cell.key, "damaged")
    assert store.done([cell.key]) == set()
    assert (store.root / "quarantine" / path.name).read_bytes() == damaged


def test_a_folder_in_a_cells_place_is_set_aside(store, cell, result_of, runtime) -> None:
    store.path(cell.key).mkdir(parents=True)
    assert store.done([cell.key]) == set()
    store.write(cell, result_of(), runtime)
    assert store.done([cell.key]) == {cell.key}


def test_failures_are_recorded_and_cleared(store, cell, result_of, runtime) -> None:
    store.write_failure(cell, "RuntimeError: out of memory", "Traceback ...\n  line")
    assert store.failures() == {cell.key: "RuntimeError: out of memory"}
    assert store.done([cell.key]) == set()
    entry = json.loads((store.root / "failures" / f"{cell.key}.json").read_text("utf-8"))
    assert entry["cell"]["stress"] == "spectrum"
    assert "Traceback" in entry["details"]
    store.write(cell, result_of(), runtime)
    assert store.failures() == {}


def test_a_broken_failure_file_is_still_a_failure(store, cell) -> None:
    store.write_failure(cell, "x", "y")
    (store.root / "failures" / f"{cell.key}.json").write_bytes(b"\xff{")
    assert "cannot be read" in store.failures()[cell.key]


def test_a_failure_may_say_anything(store, cell) -> None:
    """File names that are not text reach error messages as lone surrogates."""
    store.write_failure(cell, "OSError: caf\udce9.bin", "Ω\n\x00")
    assert set(store.failures()) == {cell.key}


def test_an_empty_folder_is_an_empty_store(store) -> None:
    assert store.done(["a" * 24]) == set()
    assert store.failures() == {}
    assert store.manifest() is None
    assert store.runtime(["a" * 24]).num_rows == 0
    assert not store.root.exists(), "asking writes nothing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b'{"format": 99}', b"\xff\xfe"])
def test_a_foreign_manifest_is_refused(content, store) -> None:
    store.root.mkdir()
    (store.root / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest.*choose another --out"):
        store.manifest()


def test_a_derived_table_that_is_missing_or_broken_says_so(store) -> None:
    with pytest.raises(InputError, match="no curves table there"):
        store.read_table("curves", PREDICTIONS)
    store.write_table("curves", PREDICTIONS.empty_table())
    path = store.root / "curves" / "curves.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"cannot be read.*run the same msabench run again"):
        store.read_table("curves", PREDICTIONS)
