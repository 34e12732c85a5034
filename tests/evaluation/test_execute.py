"""``execute``: runs what is missing, survives a bad cell, loads a model only when it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell, Subject, plan
from robustbench_msa.evaluation.execute import Tally, execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.checkpoint import load_model
from robustbench_msa.models.contract import Output

A, B = "a" * 64, "b" * 64


class Flaky:
    """A whole model that fails where it is told to, and says the mean of text otherwise."""

    def __init__(self, fails: Callable[[Cell], Exception | None] = lambda cell: None) -> None:
        self.fails = fails

    def predict(self, batch: Any, cell: Cell, inputs: Inputs) -> Output:
        error = self.fails(cell)
        if error is not None:
            raise error
        mean = batch.text.mean((1, 2))
        return Output(mean if cell.severity != "0.6" else torch.where(mean > 0, mean, torch.nan), {})


@pytest.fixture
def inputs(dataset) -> Inputs:
    return Inputs(dataset, "test")


@pytest.fixture
def cells(inputs, request_of) -> list[Cell]:
    subjects = [Subject("a", 1, A), Subject("b", 1, B)]
    return plan(subjects, inputs.setting, [request_of("missing", "0:0.6:0.2", 2)])  # 7 cells each


def loading(models: dict[str, Any]) -> tuple[Counter[str], dict[str, Callable[[], Any]]]:
    loads: Counter[str] = Counter()

    def load(identity: str) -> Any:
        loads[identity] += 1
        return models[identity]

    return loads, {identity: (lambda identity=identity: load(identity)) for identity in models}


def test_everything_runs_once_and_then_nothing(cells, folder, inputs) -> None:
    loads, models = loading({A: Flaky(), B: Flaky()})
    seen: list[tuple[str, bool]] = []
    store = Store(folder)
    first = execute(cells, store, models, inputs, progress=lambda cell, ok: seen.append((cell.key, ok)))
    assert first == Tally(planned=14, reused=0, computed=14, failed=0)
    assert first.complete
    assert seen == [(cell.key, True) for cell in cells]
    assert loads == {A: 1, B: 1}, "a model is loaded once for all its cells"
    written = {path: path.stat().st_mtime_ns for path in (folder / "predictions").iterdir()}
    second = execute(cells, store, models, inputs, progress=lambda cell, ok: seen.append((cell.key, ok)))
    assert second == Tally(planned=14, reused=14, computed=0, failed=0)
    assert loads == {A: 1, B: 1}, "a model that nothing is missing of is not loaded"
    assert len(seen) == 14
    assert {path: path.stat().st_mtime_ns for path in (folder / "predictions").iterdir()} == written


def test_a_bad_cell_costs_only_itself(cells, folder, inputs) -> None:
    def fails(cell: Cell) -> Exception | None:
        return RuntimeError("first line\nsecond line") if (cell.severity, cell.seed) == ("0.4", 1112) else None

    store = Store(folder)
    _, models = loading({A: Flaky(fails), B: Flaky()})
    seen: list[bool] = []
    tally = execute(cells, store, models, inputs, progress=lambda cell, ok: seen.append(ok))
    assert tally == Tally(planned=14, reused=0, computed=13, failed=1)
    assert not tally.complete
    assert seen.count(False) == 1
    (bad,) = [c for c in cells if (c.checkpoint, c.severity, c.seed) == (A, "0.4", 1112)]
    assert store.failures() == {bad.key: "RuntimeError: first line"}
    assert store.done(c.key for c in cells) == {c.key for c in cells} - {bad.key}

    _, mended = loading({A: Flaky(), B: Flaky()})
    assert execute(cells, store, mended, inputs) == Tally(planned=14, reused=13, computed=1, failed=0)
    assert store.failures() == {}


def test_a_model_that_cannot_be_loaded_fails_its_cells_only(cells, folder, inputs) -> None:
    def broken() -> Any:
        raise RuntimeError("no memory")

    store = Store(folder)
    tally = execute(cells, store, {A: broken, B: Flaky}, inputs)
    assert (tally.computed, tally.failed) == (7, 7)
    assert set(store.failures()) == {c.key for c in cells if c.checkpoint == A}


def test_bad_input_stops_the_run_and_keeps_what_is_done(cells, folder, inputs) -> None:
    def fails(cell: Cell) -> Exception | None:
        return InputError("fill=mask needs text as token ids") if cell.severity == "0.6" else None

    store = Store(folder)
    with pytest.raises(InputError, match="token ids"):
        execute(cells, store, {A: lambda: Flaky(fails), B: Flaky}, inputs)
    assert len(store.done(c.key for c in cells)) == 3  # clean, 0.2, 0.4 of the first seed


def test_an_interrupt_keeps_what_is_done(cells, folder, inputs) -> None:
    def fails(cell: Cell) -> Any:
        if cell.severity == "0.4":
            raise KeyboardInterrupt
        return None

    store = Store(folder)
    with pytest.raises(KeyboardInterrupt):
        execute(cells, store, {A: lambda: Flaky(fails), B: Flaky}, inputs)
    assert len(store.done(c.key for c in cells)) == 2
    assert store.failures() == {}
    assert execute(cells, store, {A: Flaky, B: Flaky}, inputs) == Tally(14, 2, 12, 0)


def test_predictions_that_are_not_finite_are_kept_and_counted(cells, folder, inputs) -> None:
    store = Store(folder)
    execute(cells, store, {A: Flaky, B: Flaky}, inputs)
    (cell,) = [c for c in cells if (c.checkpoint, c.severity, c.seed) == (A, "0.6", 1111)]
    y_pred = store.predictions(cell.key)["y_pred"].to_numpy()
    assert 0 < np.isnan(y_pred).sum() == store.facts(cell.key)["nonfinite"]
    clean = next(c for c in cells if c.is_clean)
    assert store.facts(clean.key)["nonfinite"] == 0


def test_values_do_not_depend_on_what_was_there_already(cells, folder, inputs, checkpoint, tmp_path) -> None:
    """A resumed run encodes anew and starts in the middle; its values are the same, bit for bit."""
    cells = [replace(c, checkpoint=A) for c in cells if c.checkpoint == A]
    models = {A: lambda: load_model(checkpoint)}
    whole, resumed = Store(folder), Store(tmp_path / "resumed")
    execute(cells, whole, models, inputs)
    execute(cells[3:5], resumed, models, inputs)
    execute(cells[:1], resumed, models, inputs)
    assert execute(cells, resumed, models, inputs) == Tally(7, 3, 4, 0)
    for cell in cells:
        assert whole.path(cell.key).read_bytes() == resumed.path(cell.key).read_bytes()


def test_what_it_ran_on_is_recorded(cells, folder, inputs) -> None:
    store = Store(folder)
    execute(cells, store, {A: Flaky, B: Flaky}, inputs, batch_size=13)
    rows = store.runtime(c.key for c in cells).to_pylist()
    assert len(rows) == 14
    assert {(row["device"], row["batch_size"], row["torch"]) for row in rows} == {("cpu", 13, torch.__version__)}
    assert all(row["seconds"] >= 0 for row in rows)
