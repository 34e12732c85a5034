"""Tables are derived again when what they are made of has changed, and not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from robustbench_msa.evaluation.cells import Subject, plan
from robustbench_msa.evaluation.compaction import compact
from robustbench_msa.evaluation.current import TABLES, derive_if_needed
from robustbench_msa.evaluation.records import Planned, recall, remember
from robustbench_msa.evaluation.store import Store

ABOUT = {"dataset": {}, "checkpoints": {}, "protocols": {}, "profile": "mosi", "commit": None}


@pytest.fixture
def store(folder: Path, setting, request_of, result_of, runtime) -> Store:
    store, requests = Store(folder), [request_of("missing", "0,0.2,0.4")]
    cells = plan([Subject("a", 1, "a" * 64)], setting, requests)
    remember(store, cells, requests, setting, {**ABOUT, "command": "x", "versions": {"numpy": "2"}})
    for cell in cells[:-1]:
        store.write(cell, result_of(), runtime)
    return store


@pytest.fixture
def code(tmp_path: Path) -> Path:
    source = tmp_path / "code" / "scores.py"
    source.parent.mkdir()
    source.write_text("one = 1\n", "utf-8")
    return source


@pytest.fixture
def again(store: Store, code: Path) -> Callable[[], bool]:
    """Asks for the tables; whether they were derived. What derives them is not what is tested here."""

    def derive(store: Store, planned: Planned) -> int:
        derived.append(1)
        for name in TABLES:
            store.write_table(name, pa.table({"done": [len(store.done(c.key for c in planned.cells))]}))
        return 0

    derived: list[int] = []

    def call() -> bool:
        derived.clear()
        fresh = Store(store.root)
        assert derive_if_needed(fresh, recall(fresh), derive, [code.parent]) == 0
        return bool(derived)

    assert call(), "there are none yet"
    return call


def test_nothing_changed(again) -> None:
    assert not again()
    assert not again()


def a_new_cell(store: Store, cells: Any, code: Path, make: Any) -> None:
    store.write(cells[-1], *make)


def a_cell_gone(store: Store, cells: Any, code: Path, make: Any) -> None:
    store.path(cells[0].key).unlink()


def a_cell_changed(store: Store, cells: Any, code: Path, make: Any) -> None:
    path = store.path(cells[0].key)
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF  # in the values: the footer is whole
    path.write_bytes(bytes(data))


def the_code_changed(store: Store, cells: Any, code: Path, make: Any) -> None:
    code.write_text("one = 1.5\n", "utf-8")


def a_table_gone(store: Store, cells: Any, code: Path, make: Any) -> None:
    (store.root / "nauc" / "nauc.parquet").unlink()


def a_table_damaged(store: Store, cells: Any, code: Path, make: Any) -> None:
    (store.root / "curves" / "curves.parquet").write_bytes(b"x")


def the_note_damaged(store: Store, cells: Any, code: Path, make: Any) -> None:
    (store.root / ".tables.json").write_bytes(b"{")


def compacted(store: Store, cells: Any, code: Path, make: Any) -> None:
    compact(store.root)


CHANGES = [a_new_cell, a_cell_gone, a_cell_changed, the_code_changed, a_table_gone, a_table_damaged]
CHANGES += [the_note_damaged, compacted]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_something_changed(change, again, store, code, result_of, runtime) -> None:
    change(store, recall(store).cells, code, (result_of(), runtime))
    assert again()
    assert not again()


def test_another_request_or_version(again, store, setting, request_of) -> None:
    requests = [request_of("missing", "0,0.2")]  # a smaller grid: no new cell
    remember(store, [], requests, setting, {**ABOUT, "command": "y", "versions": {"numpy": "2"}})
    assert again()
    remember(store, [], [], setting, {**ABOUT, "command": "z", "versions": {"numpy": "2"}})
    assert not again(), "the same asked for in other words"
    remember(store, [], [], setting, {**ABOUT, "command": "z", "versions": {"numpy": "3"}})
    assert again()


def test_tables_of_damaged_cells_are_not_noted_as_current(store, code) -> None:
    def derive(store: Store, planned: Planned) -> int:
        calls.append(1)
        return 1

    calls: list[int] = []
    planned = recall(store)
    assert [derive_if_needed(store, planned, derive, [code]) for _ in range(2)] == [1, 1]
    assert len(calls) == 2
