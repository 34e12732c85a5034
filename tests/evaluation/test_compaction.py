"""Compaction: fewer files and nothing else different, whenever it is stopped and whoever reads or writes meanwhile."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corruptions import InputError
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.tables import derive
from robustbench_msa.evaluation import compaction, staging
from robustbench_msa.evaluation.cells import Cell, Subject, plan
from robustbench_msa.evaluation.compaction import compact
from robustbench_msa.evaluation.progress import progress_of
from robustbench_msa.evaluation.records import forget, recall, remember
from robustbench_msa.evaluation.schemas import PREDICTIONS
from robustbench_msa.evaluation.store import Store

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = [Subject("a", 1, "a" * 64, "clean", 1), Subject("b", 1, "b" * 64, "clean", 1)]
N = 6
COLUMNS = ["y_true", "y_pred", "group", "extras"]


@pytest.fixture
def requests(request_of) -> list[Any]:
    return [request_of("missing", "0:0.4:0.2", 2), request_of("noise", "0,0.5", 1)]


@pytest.fixture
def cells(setting, requests) -> list[Cell]:
    return plan(SUBJECTS, setting, requests)  # 2 x (clean + 4 + 1)


@pytest.fixture
def store(folder: Path, cells, requests, setting, result_of, runtime) -> Store:
    """A folder with all its cells done, one file each."""
    store = Store(folder)
    about = {"command": "msabench run", "checkpoints": {s.checkpoint: {"model": s.model} for s in SUBJECTS}}
    about |= {"dataset": {"notes": []}, "profile": "mosi", "protocols": {}, "commit": None, "versions": {}}
    remember(store, cells, requests, setting, about)
    fill(store, cells, result_of, runtime)
    return store


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of two cells."""
    for module in (staging, compaction):
        monkeypatch.setattr(module, "GROUP_ROWS", 2 * N)


def fill(store: Store, cells: list[Cell], result_of: Any, runtime: Any) -> None:
    truth = result_of(n=N, seed=0).y_true
    for i, cell in enumerate(cells):
        result = replace(result_of(n=N, seed=i), y_true=truth)
        facts = {"input_digest": f"{i % 6}", "realised": {"lost_t": i / 10}, "nonfinite": 0}
        store.write(cell, replace(result, facts=facts), replace(runtime, seconds=float(i)))


def contents(folder: Path) -> dict[str, Any]:
    """All that anyone can learn of the cells, from an object that has read nothing yet."""
    store = Store(folder)
    keys = [cell.key for cell in recall(store).cells]
    done = store.done(keys)
    rows = {key: store.predictions(key).to_pylist() for key in keys if key in done}
    some = {key: store.predictions(key, COLUMNS).to_pylist() for key in keys if key in done}
    return {
        "done": done,
        "rows": rows,
        "some": some,
        "facts": {key: store.facts(key) for key in done},
        "runtime": sorted(store.runtime(done).to_pylist(), key=lambda row: row["key"]),
        "progress": progress_of(folder).to_json(),
    }


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "predictions").iterdir())


def tables(folder: Path) -> dict[str, bytes]:
    names = ("curves", "nauc", "cells")
    return {name: (folder / name / f"{name}.parquet").read_bytes() for name in names}


def seen_by_strangers(folder: Path) -> list[tuple[str, str]]:
    """Every row as pandas sees it: cell and sample."""
    frame = pd.read_parquet(folder / "predictions")
    return sorted(zip(frame["key"], frame["sample_id"], strict=True))


def test_everything_is_the_same_in_one_file(store, cells) -> None:
    before, strangers = contents(store.root), seen_by_strangers(store.root)
    derive(store, recall(store))
    derived = tables(store.root)
    found = compact(store.root)
    assert (found.cells, found.gathered, found.damaged, found.files) == (12, 12, 0, (12, 1))
    assert found.bytes[1] < found.bytes[0]
    (name,) = files(store.root)
    assert name.startswith("part-")
    assert pq.read_schema(store.root / "predictions" / name).equals(PREDICTIONS)
    assert contents(store.root) == before
    assert seen_by_strangers(store.root) == strangers
    for path in store.root.glob("*/*.parquet"):
        if path.parent.name in ("curves", "nauc", "cells"):
            path.unlink()
    derive(Store(store.root), recall(store))
    assert tables(store.root) == derived, "byte for byte"


def test_an_object_that_listed_the_folder_before_goes_on(store, cells, result_of, runtime) -> None:
    reader = Store(store.root)
    assert len(reader.done(cell.key for cell in cells)) == 12
    rows = {cell.key: reader.predictions(cell.key, COLUMNS) for cell in cells}
    compact(store.root)
    for cell in cells:
        assert reader.predictions(cell.key, COLUMNS).equals(rows[cell.key])
        assert reader.facts(cell.key) == Store(store.root).facts(cell.key)
    assert len(reader.done(cell.key for cell in cells)) == 12


def test_arrays_of_a_compacted_cell_stand_alone(store, cells) -> None:
    """A slice of a row group would show all its neighbours' extras to whoever looks at the map's children."""
    whole = {cell.key: store.predictions(cell.key, ["extras"]) for cell in cells}
    compact(store.root)
    for cell in cells:
        extras = Store(store.root).predictions(cell.key, ["extras"])["extras"].combine_chunks()
        assert extras.keys.equals(whole[cell.key]["extras"].combine_chunks().keys)
        assert extras.items.flatten().equals(whole[cell.key]["extras"].combine_chunks().items.flatten())


def test_cells_stand_in_the_order_of_the_plan_in_groups_of_whole_cells(store, cells, small_groups) -> None:
    compact(store.root)
    (path,) = (store.root / "predictions").iterdir()
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2 * N] * 6
    assert list(dict.fromkeys(file.read(["key"])["key"].to_pylist())) == [cell.key for cell in cells]
    for cell in cells:
        assert set(Store(store.root).predictions(cell.key)["key"].to_pylist()) == {cell.key}


def test_many_cells_make_several_parts_and_few_more_join_a_small_one(
    store, cells, setting, request_of, result_of, runtime, small_groups
) -> None:
    size = store.predictions(cells[0].key).nbytes
    found = compact(store.root, part_bytes=4 * size)
    assert found.files[1] > 1
    before = contents(store.root)
    whole = compact(store.root)
    assert whole.files == (found.files[1], 1), "parts that are small for the limit are gathered again"
    assert contents(store.root) == before

    more = request_of("conflict", "0,0.5", 2)
    planned = plan(SUBJECTS, setting, [more])
    about = {**recall(store).manifest, "command": "more"}
    remember(store, planned, [more], setting, about)
    new = [cell for cell in planned if not cell.is_clean]
    fill(store, new, result_of, runtime)
    assert len(files(store.root)) == 1 + len(new)
    grown = compact(store.root)
    assert (grown.cells, grown.files) == (16, (5, 1))
    assert contents(store.root)["done"] == before["done"] | {cell.key for cell in new}


def test_compacting_again_changes_nothing(store) -> None:
    compact(store.root)
    before = {path: path.stat().st_mtime_ns for path in (store.root / "predictions").iterdir()}
    again = compact(store.root)
    assert (again.gathered, again.files) == (0, (1, 1))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_cell_computed_twice_is_kept_once(store, cells, result_of, runtime) -> None:
    """A run that planned before the other one's cells were compacted finishes the same cell: nothing is written."""
    late = Store(store.root)
    late.done(cell.key for cell in cells)
    before = contents(store.root)
    compact(store.root)
    late.write(cells[3], result_of(n=N, seed=3), runtime)
    assert len(files(store.root)) == 1
    assert contents(store.root)["rows"] == before["rows"]


def test_a_cell_that_two_files_hold_is_read_once_and_cleared_up(store, cells, result_of, runtime) -> None:
    """As when the two runs are on machines that see each other's files late."""
    bytes_of_one = store.path(cells[3].key).read_bytes()
    before = contents(store.root)
    compact(store.root)
    store.path(cells[3].key).write_bytes(bytes_of_one)
    assert contents(store.root)["rows"] == before["rows"]
    Store(store.root).tidy()
    assert len(files(store.root)) == 1


def test_another_label_takes_the_old_one_out_of_its_part(store, cells, result_of, runtime) -> None:
    """Labels are no part of the key: predictions that are imported again under another recipe keep their keys."""
    compact(store.root)
    renamed = replace(cells[3], recipe="spectrum")
    assert renamed.key == cells[3].key
    Store(store.root).write(renamed, result_of(n=N, seed=3), runtime)
    fresh = Store(store.root)
    assert fresh.done(cell.key for cell in cells) == {cell.key for cell in cells}
    assert set(fresh.predictions(renamed.key)["recipe"].to_pylist()) == {"spectrum"}
    assert len(seen_by_strangers(store.root)) == 12 * N
    assert not (store.root / "quarantine").exists()


def test_a_checkpoint_can_be_forgotten(store, cells) -> None:
    compact(store.root)
    left = forget(store, ["a" * 64])
    assert {cell.model for cell in left.cells} == {"b"}
    assert left == recall(Store(store.root))
    assert list(left.manifest["checkpoints"]) == ["b" * 64]
    assert {key for key, _ in seen_by_strangers(store.root)} == {cell.key for cell in left.cells}
    forget(Store(store.root), ["b" * 64])
    assert files(store.root) == []


def damage(path: Path, group: int, column: str) -> None:
    """Flip the bytes of one column's page in one row group; the footer stays whole."""
    metadata = pq.read_metadata(path)
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    chunk = metadata.row_group(group).column(names.index(column))
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    end = start + chunk.total_compressed_size
    for i in range(end - 10, end):
        data[i] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_damaged_row_group_costs_only_its_own_cells(store, cells, small_groups, result_of, runtime) -> None:
    planned = recall(store)
    derive(store, planned)
    sound, before = tables(store.root), contents(store.root)
    compact(store.root)
    (path,) = (store.root / "predictions").iterdir()
    damage(path, 2, "y_pred")
    with pytest.raises((OSError, pa.ArrowException)):
        Store(store.root).predictions(cells[4].key)
    reader = Store(store.root)
    assert derive(reader, planned) == 2
    lost = {cells[4].key, cells[5].key}
    assert Store(store.root).done(before["done"]) == before["done"] - lost
    assert (store.root / "quarantine" / path.name).is_file()
    assert (store.root / "quarantine" / f"{path.stem}.txt").read_text("utf-8").strip()
    assert {key for key, _ in seen_by_strangers(store.root)} == before["done"] - lost
    truth = result_of(n=N, seed=0).y_true
    for i in (4, 5):  # computed again
        facts = {"input_digest": f"{i % 6}", "realised": {"lost_t": i / 10}, "nonfinite": 0}
        reader.write(cells[i], replace(result_of(n=N, seed=i), y_true=truth, facts=facts), runtime)
    assert derive(Store(store.root), planned) == 0
    assert tables(store.root) == sound


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "flipped footer", "foreign", "no index"])
def test_a_part_that_cannot_be_used_is_set_aside_and_its_cells_are_missing(kind, store, cells) -> None:
    compact(store.root)
    (path,) = (store.root / "predictions").iterdir()
    whole = path.read_bytes()
    flipped = whole[:-300] + bytes(b ^ 0xFF for b in whole[-300:-8]) + whole[-8:]
    bad = {"empty": b"", "truncated": whole[:-50], "text": b"not parquet\n" * 40, "flipped footer": flipped}.get(kind)
    if bad is None:
        table = pa.table({"key": ["x"]}) if kind == "foreign" else PREDICTIONS.empty_table()
        pq.write_table(table.replace_schema_metadata({b"msabench": b'{"format": 1}'}), path)
    else:
        path.write_bytes(bad)
    fresh = Store(store.root)
    assert fresh.done(cell.key for cell in cells) == set()
    assert (store.root / "quarantine" / path.name).is_file()
    assert progress_of(store.root).quarantined == 1
    assert not progress_of(store.root).complete


@pytest.mark.parametrize(
    "harm",
    [
        lambda index: index["group"].__setitem__(0, 7),
        lambda index: index["first"].__setitem__(0, -1),
        lambda index: index["rows"].__setitem__(0, "1"),
        lambda index: index["rows"].__setitem__(0, 2**70),
        lambda index: index["fact"].__setitem__(0, len(index["facts"])),
        lambda index: index.update(bytes="many"),
        lambda index: index.update(replaces=[["x"]]),
        lambda index: index.update(padding="x" * 2**27),
    ],
)
def test_an_index_that_leads_out_of_its_part_is_none(harm, store, cells) -> None:
    compact(store.root)
    (path,) = (store.root / "predictions").iterdir()
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"msabench"])
    index = json.loads(zlib.decompress(base64.b64decode(about["index"])))
    harm(index)
    about["index"] = base64.b64encode(zlib.compress(json.dumps(index).encode())).decode()
    pq.write_table(table.replace_schema_metadata({b"msabench": json.dumps(about).encode()}), path)
    assert Store(store.root).done(cell.key for cell in cells) == set()
    assert "index" in (store.root / "quarantine" / f"{path.stem}.txt").read_text("utf-8")


def test_a_part_that_may_not_be_read_is_no_damaged_one(store, cells, monkeypatch) -> None:
    compact(store.root)
    (path,) = (store.root / "predictions").iterdir()

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(PermissionError):
        Store(store.root).done(cell.key for cell in cells)
    assert path.is_file()


def test_damaged_cells_are_set_aside_while_gathering(store, cells) -> None:
    data = bytearray(store.path(cells[1].key).read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:footer] = bytes(b ^ 0xFF for b in data[4:footer])
    store.path(cells[1].key).write_bytes(bytes(data))
    store.path(cells[2].key).write_bytes(b"")
    found = compact(store.root)
    assert (found.cells, found.gathered, found.damaged) == (10, 10, 2)
    assert len(list((store.root / "quarantine").glob("*.parquet"))) == 2
    assert Store(store.root).done(cell.key for cell in cells) == {c.key for c in cells} - {cells[1].key, cells[2].key}


class Killed(BaseException):
    """Stands for a kill: nothing between it and the next command may run."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> Iterator[list[str]]:
    """Stop at the n-th change of a name in the file system, before it happens."""
    done: list[str] = []

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == moment:
                raise Killed
            done.append(real.__name__)
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counting(os.replace))
        patch.setattr(os, "unlink", counting(os.unlink))
        patch.setattr(Path, "unlink", counting(Path.unlink))
        yield done


def test_stopped_at_any_moment_nothing_is_lost_and_nothing_seen_twice(
    store, cells, monkeypatch, tmp_path, small_groups
) -> None:
    loose = {path.name: path.read_bytes() for path in (store.root / "predictions").iterdir()}
    compact(store.root, part_bytes=1)  # parts of two cells, so that there are parts to be replaced
    store.parts.refresh()
    for key in (cells[1].key, cells[8].key):  # and cells with files of their own
        store.forget([key])
        (store.root / "predictions" / f"{key}.parquet").write_bytes(loose[f"{key}.parquet"])
    assert len(files(store.root)) == 8
    before = contents(store.root)
    moment, finished = 0, False
    while not finished:
        copy = tmp_path / f"stopped-{moment}"
        shutil.copytree(store.root, copy)
        with killed_at(monkeypatch, moment):
            try:
                compact(copy)
                finished = True
            except Killed:
                pass
        strangers = seen_by_strangers(copy) if files(copy) else []
        assert len(set(strangers)) == len(strangers), f"{moment}: a stranger sees a cell twice"
        assert contents(copy) == before, f"{moment}: something is lost"
        compact(copy)
        assert len(files(copy)) == 1
        assert contents(copy) == before, f"{moment}: something is lost in the next compaction"
        assert [p.name for p in copy.rglob("*.tmp-*")] == []
        shutil.rmtree(copy)
        moment += 1
    assert moment > 8, "there were that many steps to stop at"


COMPACT = """
import sys
from pathlib import Path
from robustbench_msa.evaluation.compaction import compact
for folder in sys.argv[1:]:
    print("next", flush=True)
    compact(Path(folder))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("delay", [0.004, 0.02])
def test_kill_9_in_the_middle_of_compaction(delay, store, tmp_path) -> None:
    before = contents(store.root)
    copies = [shutil.copytree(store.root, tmp_path / f"copy-{i}") for i in range(12)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMPACT, *map(str, copies)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "next\n"
    time.sleep(delay)  # anywhere in the middle
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for copy in copies:
        strangers = seen_by_strangers(copy) if files(copy) else []
        assert len(set(strangers)) == len(strangers)
        assert contents(copy) == before
        assert compact(copy).files[1] == 1
        assert contents(copy) == before


def test_one_compaction_at_a_time(store) -> None:
    with Store(store.root).rewriting(), pytest.raises(InputError, match=r"another msabench holds this folder"):
        compact(store.root)


def test_a_full_disk_changes_nothing(store, monkeypatch) -> None:
    before = contents(store.root)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            compact(store.root)
    assert "part-" in str(error.value.filename)
    assert contents(store.root) == before
    assert len(files(store.root)) == 12


def test_several_folders_are_read_as_one(store) -> None:
    one = open_tables([store.root]).curves()
    compact(store.root)
    assert open_tables([store.root]).curves().equals(one)


def test_what_is_no_run_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json there"):
        compact(tmp_path)
    assert list(tmp_path.iterdir()) == []


WRITE = """
import sys
from pathlib import Path
import numpy as np
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.compaction import compact
from robustbench_msa.evaluation.records import remember
from robustbench_msa.evaluation.cells import Setting
from robustbench_msa.evaluation.store import Result, Runtime, Store
root, n = Path(sys.argv[1]), int(sys.argv[2])
store, setting = Store(root), Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
about = {"command": "x", "dataset": {}, "checkpoints": {}, "protocols": {}, "profile": "mosi", "commit": None}
cells = [Cell(model="m", data=setting.data, stress="missing", severity="0.5", seed=i) for i in range(n)]
remember(store, cells, [], setting, about | {"versions": {}})
runtime = Runtime("cpu", 1, 1, 0.0, "2026-01-01", "h", "3", "2", "0")
values = np.arange(5, dtype=np.float32)
result = Result(list("abcde"), list("ggghh"), values, values, np.ones((5, 3), bool), {"r": values}, {"nonfinite": 0})
for i, cell in enumerate(cells):
    store.write(cell, result, runtime)
    if i == 0:
        print("go", flush=True)
    if i % 60 == 59:
        compact(root)
print("end", flush=True)
"""


def polars_rows(folder: Path) -> list[tuple[str, str]]:
    polars = pytest.importorskip("polars")
    frame = polars.scan_parquet(folder).select("key", "sample_id", "y_pred").collect()
    return [(key, sample) for key, sample, _ in frame.rows()]


def duckdb_rows(folder: Path) -> list[tuple[str, str]]:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        query = f"select key, sample_id, y_pred, extras from read_parquet('{folder}/*.parquet')"
        return [row[:2] for row in connection.execute(query).fetchall()]


def pandas_rows(folder: Path) -> list[tuple[str, str]]:
    frame = pd.read_parquet(folder)
    if frame.empty:  # no file there at that moment: pandas knows of no columns then
        return []
    return list(zip(frame["key"], frame["sample_id"], strict=True))


@pytest.mark.parametrize("rows_of", [pandas_rows, polars_rows, duckdb_rows])
def test_strangers_read_while_a_run_writes_and_compacts(rows_of, folder: Path) -> None:
    """Whole cells, each once. A file that was there when the folder was listed may be gone: then one reads again."""
    cells, seen, refused = 240, [0], set()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITE, str(folder), str(cells)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        while process.poll() is None:
            try:
                rows = rows_of(folder / "predictions")
            except Exception as error:
                refused.add(str(error))
                continue
            assert len(set(rows)) == len(rows), "a cell is seen twice"
            assert len(rows) % 5 == 0, "cells are seen whole"
            seen.append(len(rows))
    assert process.returncode == 0
    assert len(rows_of(folder / "predictions")) == 5 * cells
    assert any(0 < n < 5 * cells for n in seen), "it was read while the run was writing"
    gone = ("No such file", "No files found", "paths were empty")
    assert not [text for text in refused if not any(words in text for words in gone)]
