"""Cells are written beside computing, in their order; nothing that was computed is lost, and a full disk is said."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.execute import Tally, execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store
from robustbench_msa.evaluation.writing import AHEAD, Writer
from robustbench_msa.models.contract import Output

A = "a" * 64
CELLS = [Cell(seed=i) for i in range(12)]


class Mean:
    def __init__(self, fails: Callable[[Cell], BaseException | None] = lambda cell: None) -> None:
        self.fails = fails

    def predict(self, batch: Any, cell: Cell, inputs: Inputs) -> Output:
        if (error := self.fails(cell)) is not None:
            raise error
        return Output(batch.text.mean((1, 2)), {})


@pytest.fixture
def inputs(dataset: Any) -> Inputs:
    return Inputs(dataset, "test")


@pytest.fixture
def cells(inputs: Inputs, request_of: Callable[..., Any]) -> list[Cell]:
    from robustbench_msa.evaluation.cells import Subject, plan

    return plan([Subject("a", 1, A)], inputs.setting, [request_of("missing", "0:0.8:0.2", 3)])  # 13


def test_in_order_beside_computing_and_told_by_the_one_who_puts() -> None:
    written: list[int | None] = []
    told: list[tuple[int | None, bool, int]] = []
    writers: set[int] = set()

    def job(cell: Cell) -> bool:
        writers.add(threading.get_ident())
        written.append(cell.seed)
        return cell.seed != 5

    def progress(cell: Cell, ok: bool) -> None:
        assert cell.seed in written, "told before it was written"
        told.append((cell.seed, ok, threading.get_ident()))

    with Writer(progress) as writer:
        for cell in CELLS:
            writer.put(cell, lambda cell=cell: job(cell))
    assert written == list(range(12))
    assert told == [(i, i != 5, threading.get_ident()) for i in range(12)]
    assert writer.failed == 1
    assert threading.get_ident() not in writers


def test_no_more_than_a_few_wait() -> None:
    gate, started = threading.Event(), threading.Event()
    put: list[int] = []

    def slow() -> bool:
        started.set()
        return gate.wait(30)

    def produce() -> None:
        with Writer() as writer:
            for i, cell in enumerate(CELLS):
                writer.put(cell, slow)
                put.append(i)

    producer = threading.Thread(target=produce)
    producer.start()
    started.wait(30)
    producer.join(0.3)
    assert producer.is_alive(), "it waits for the slow disk"
    assert len(put) <= AHEAD
    gate.set()
    producer.join(30)
    assert put == list(range(12))


def test_what_a_job_raises_is_raised_to_the_one_who_puts() -> None:
    done: list[int | None] = []

    def job(cell: Cell) -> bool:
        if cell.seed == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(cell.seed)
        return True

    with pytest.raises(OSError, match="No space left"), Writer() as writer:  # noqa: PT012
        for cell in CELLS:
            writer.put(cell, lambda cell=cell: job(cell))
    assert done[:3] == [0, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("bad"), RuntimeError("bug")])
def test_leaving_by_an_error_writes_what_was_put(error) -> None:
    gate, done = threading.Event(), []

    def job(cell: Cell) -> bool:
        gate.wait(30)
        done.append(cell.seed)
        return True

    with pytest.raises(type(error)), Writer() as writer:  # noqa: PT012
        for cell in CELLS[:3]:
            writer.put(cell, lambda cell=cell: job(cell))
        threading.Timer(0.05, gate.set).start()
        raise error
    assert done == [0, 1, 2]


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(cells, folder, inputs, monkeypatch) -> None:
    store, write = Store(folder), Store.write

    def full(self: Store, cell: Cell, *rest: Any) -> None:
        if cell.key == cells[6].key:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, cell, *rest)

    def full_too(self: Store, *rest: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Store, "write", full)
        disk.setattr(Store, "write_failure", full_too)
        with pytest.raises(OSError, match="No space left on device"):
            execute(cells, store, {A: Mean}, inputs)
    done = Store(folder).done(c.key for c in cells)
    assert {c.key for c in cells[:6]} <= done
    assert execute(cells, Store(folder), {A: Mean}, inputs) == Tally(13, len(done), 13 - len(done), 0)


def test_a_cell_that_cannot_be_written_is_a_failure(cells, folder, inputs, monkeypatch) -> None:
    store, write = Store(folder), Store.write

    def odd(self: Store, cell: Cell, *rest: Any) -> None:
        if cell.key == cells[6].key:
            raise ValueError("no such type\nin Parquet")
        write(self, cell, *rest)

    monkeypatch.setattr(Store, "write", odd)
    told: list[bool] = []
    assert execute(cells, store, {A: Mean}, inputs, progress=lambda cell, ok: told.append(ok)) == Tally(13, 0, 12, 1)
    assert store.failures() == {cells[6].key: "ValueError: no such type"}
    assert told == [True] * 6 + [False] + [True] * 6


def test_progress_is_told_once_the_cell_is_on_the_disk(cells, folder, inputs) -> None:
    there: list[bool] = []
    store = Store(folder)
    execute(cells, store, {A: Mean}, inputs, progress=lambda cell, ok: there.append(store.path(cell.key).is_file()))
    assert there == [True] * 13


def test_an_interrupt_writes_what_is_computed(cells, folder, inputs) -> None:
    stop = lambda cell: KeyboardInterrupt() if cell.key == cells[9].key else None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        execute(cells, Store(folder), {A: lambda: Mean(stop)}, inputs)
    assert Store(folder).done(c.key for c in cells) == {c.key for c in cells[:9]}
