"""What a run's folder remembers: the plan, the manifest, and on which data it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corruptions import InputError
from robustbench_msa.atomic import place
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.progress import progress_of
from robustbench_msa.evaluation.records import PLAN, recall, remember
from robustbench_msa.evaluation.store import Store


def about(command: str = "msabench run", **more: Any) -> dict[str, Any]:
    return {
        "command": command,
        "checkpoints": {"c" * 64: {"model": "late_fusion"}},
        "dataset": {"notes": []},
        "profile": "mosi",
        "protocols": {},
        "commit": None,
        "versions": {},
        **more,
    }


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder)


@pytest.fixture
def request_a(request_of):
    return request_of("missing", "0:0.4:0.2", 2)


@pytest.fixture
def cells(subject, setting, request_a) -> list[Cell]:
    return plan([subject], setting, [request_a])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_plan_comes_back(store, cells, request_a, setting) -> None:
    planned = remember(store, cells, [request_a], setting, about())
    assert planned == recall(store)
    assert list(planned.cells) == cells
    assert [cell.key for cell in planned.cells] == [cell.key for cell in cells]
    assert planned.requests == (request_a,)
    assert planned.profile == "mosi"
    assert planned.manifest["dataset"]["data"] == setting.data


def test_runs_into_one_folder_add_up(store, subject, cells, request_a, setting, request_of) -> None:
    more = request_of("noise:fill=mean", "0,0.5", 1)
    remember(store, cells, [request_a], setting, about("first"))
    both = remember(store, plan([subject], setting, [more]), [more], setting, about("second"))
    assert both.requests == (request_a, more)
    assert len(both.cells) == len(cells) + 1  # the clean cell is shared
    assert both.manifest["commands"] == ["first", "second"]


def test_the_same_run_again_changes_nothing(store, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    before = snapshot(store.root)
    remember(store, cells, [request_a], setting, about())
    assert snapshot(store.root) == before


def test_status_tells_the_command_of_the_latest_run(store, cells, request_a, setting) -> None:
    for command in ("first", "second", "first"):
        remember(store, cells, [request_a], setting, about(command))
    assert progress_of(store.root).command == "first"


def test_a_protocol_text_stays_when_another_stress_is_added(
    store, subject, cells, request_a, setting, request_of
) -> None:
    """The manifest holds the protocol text of results that are still in the folder."""
    remember(store, cells, [request_a], setting, about("msabench run --protocol p", protocols={"p": "name = 'p'"}))
    more = request_of("conflict")
    remember(store, plan([subject], setting, [more]), [more], setting, about("msabench run --stress conflict"))
    assert "name = 'p'" in json.dumps(recall(store).manifest)


@pytest.mark.parametrize("change", [{"data": "e" * 64}, {"split": "valid"}])
def test_other_data_or_another_split_is_refused(change, store, subject, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    before = snapshot(store.root)
    other = replace(setting, dataset="mosi", **change)
    with pytest.raises(InputError, match=r"holds results on synth.*this run is on mosi.*choose another --out"):
        remember(store, plan([subject], other, [request_a]), [request_a], other, about())
    assert snapshot(store.root) == before


def test_another_name_for_the_same_data_is_fine(store, subject, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    renamed = replace(setting, dataset="again")
    planned = remember(store, plan([subject], renamed, [request_a]), [request_a], renamed, about())
    assert len(planned.cells) == len(cells)


def test_a_folder_without_a_manifest_is_no_run(store) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json there; expected the folder of an msabench run"):
        recall(store)


WRONG = [
    {"format": 1},
    {"format": 1, "dataset": None, "requests": [], "commands": [], "checkpoints": {}, "profile": "mosi"},
    {"format": 1, "dataset": {"name": "x"}, "requests": [], "commands": [], "checkpoints": {}, "profile": "mosi"},
]


@pytest.mark.parametrize("manifest", WRONG)
def test_a_manifest_that_lacks_something_is_refused_in_words(manifest, store, cells, request_a, setting) -> None:
    store.root.mkdir()
    (store.root / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match=r"manifest"):
        remember(store, cells, [request_a], setting, about())


def test_status_of_a_manifest_without_commands_is_said_in_words(store, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    path = store.root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "commands": []}), "utf-8")
    with pytest.raises(InputError, match="manifest"):
        progress_of(store.root)


def test_a_request_that_is_no_longer_understood_is_said(store, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    path = store.root / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"missing"', '"vanished"'), "utf-8")
    with pytest.raises(InputError, match=r"manifest or plan cannot be used.*vanished"):
        recall(store)


def test_a_broken_plan_is_made_again_by_the_same_run(store, cells, request_a, setting) -> None:
    """Reading it says "run the same msabench run again": then that must work."""
    remember(store, cells, [request_a], setting, about())
    path = store.root / "plan" / "plan.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="run the same msabench run again"):
        recall(store)
    assert list(remember(store, cells, [request_a], setting, about()).cells) == cells


def test_a_crash_between_plan_and_manifest_does_not_mix_datasets(
    store, subject, cells, request_a, setting, monkeypatch
) -> None:
    real = os.replace

    def crash(source: Any, target: Any) -> None:
        if "manifest" in str(target):
            raise OSError("no power")
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no power"):
        remember(store, cells, [request_a], setting, about())
    monkeypatch.undo()
    other = replace(setting, dataset="mosi", data="e" * 64)
    planned = remember(store, plan([subject], other, [request_a]), [request_a], other, about())
    assert {cell.data for cell in planned.cells} == {other.data}


def test_progress_counts_by_model_and_stress(store, subject, cells, request_a, setting, result_of, runtime) -> None:
    remember(store, cells, [request_a], setting, about("msabench run --stress missing"))
    for cell in cells[:3]:
        store.write(cell, result_of(), runtime)
    store.write_failure(cells[3], "RuntimeError: x", "")
    report = progress_of(store.root)
    who = {"model": "late_fusion", "recipe": "clean", "train_seed": "1111"}
    assert not report.complete
    assert report.to_json() == {
        "complete": False,
        "planned": 5,
        "done": 3,
        "lines": [
            {**who, "stress": "clean", "planned": 1, "done": 1, "failed": 0},
            {**who, "stress": "missing", "planned": 4, "done": 2, "failed": 1},
        ],
        "failures": {cells[3].key: "RuntimeError: x"},
        "quarantined": 0,
        "command": "msabench run --stress missing",
    }
    for cell in cells[3:]:
        store.write(cell, result_of(), runtime)
    assert progress_of(store.root).complete


def test_many_training_seeds_stand_together(store, setting, request_a, result_of, runtime) -> None:
    subjects = [Subject("late_fusion", 1, f"{i:064x}", "clean", i) for i in range(40)]
    cells = plan(subjects, setting, [request_a])
    remember(store, cells, [request_a], setting, about())
    for cell in cells[:5]:  # all of the first seed
        store.write(cell, result_of(), runtime)
    store.write_failure(cells[5], "RuntimeError: x", "")
    report = progress_of(store.root)
    assert report.lines() == {
        ("late_fusion", "clean", "40 seeds", "clean"): (1, 1, 40),
        ("late_fusion", "clean", "40 seeds", "missing"): (4, 0, 160),
    }
    assert len(report.to_json()["lines"]) == 80
    few = plan(subjects[:2], setting, [request_a])
    apart = Store(store.root.parent / "apart")
    remember(apart, few, [request_a], setting, about())
    assert [who[2] for who in progress_of(apart.root).lines()] == ["0", "0", "1", "1"]


def test_a_plan_of_an_earlier_version_is_read_and_written_anew(store, subject, cells, request_a, setting) -> None:
    """It had one column with all fields of a cell as JSON."""
    remember(store, cells, [request_a], setting, about())
    rows = [{"key": cell.key, "cell": json.dumps({**asdict(cell), "unknown": 1})} for cell in cells]
    store.write_table("plan", pa.Table.from_pylist(rows, schema=PLAN))
    assert list(recall(store).cells) == cells
    spectrum = [Request.from_json({"stress": "spectrum:told=true", "grid": "0,0.5x0,0.5", "seeds": [1111]})]
    more = plan([replace(subject, train_seed=None)], setting, spectrum)
    both = remember(store, more, spectrum, setting, about())
    assert "cell" not in pq.read_schema(store.root / "plan" / "plan.parquet").names
    assert list(both.cells[: len(cells)]) == [replace(cells[0], train_seed=None), *cells[1:]], "the later label counts"
    assert both.cells == recall(Store(store.root)).cells
    assert [cell.key for cell in both.cells] == [cell.key for cell in recall(Store(store.root)).cells]


def test_a_plan_with_columns_of_a_later_version_is_read(store, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    path = store.root / "plan" / "plan.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("later", pa.array([1] * len(table))), path)
    assert list(recall(store).cells) == cells
    pq.write_table(table.drop_columns(["passes", "params"]), path)
    assert list(recall(store).cells) == [replace(cell, params="") for cell in cells], (
        "fields it lacks are as by default"
    )


def test_a_run_clears_up_after_dead_ones_and_after_nobody_else(store, cells, request_a, setting) -> None:
    remember(store, cells, [request_a], setting, about())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder, hour = store.root / ".tmp", 3600
    folder.mkdir(exist_ok=True)
    old = time.time() - 30 * hour
    left = {
        f".{'a' * 24}.parquet.tmp-{ended.pid}-{place()}": False,
        f".{'b' * 24}.parquet.tmp-{os.getpid()}-{place()}": True,  # alive
        f".{'c' * 24}.parquet.tmp-{ended.pid}-otherone": True,  # another machine's
        f".{'d' * 24}.parquet.tmp-1": True,  # of an earlier version: nobody knows whose
        "tmp-1": True,  # not ours
    }
    for name in left:
        (folder / name).write_bytes(b"x")
    forgotten = folder / f".{'e' * 24}.parquet.tmp-1-otherone"
    forgotten.write_bytes(b"x")
    os.utime(forgotten, (old, old))
    remember(store, cells, [request_a], setting, about())
    assert {path.name for path in folder.iterdir()} == {name for name, stays in left.items() if stays}


def test_inputs_that_depend_on_the_model_get_a_folder_of_their_own(
    store, subject, cells, request_a, setting, request_of
) -> None:
    worst = request_of("worst-case", "0,0.2", 1)
    mixed = [*cells, *plan([subject], setting, [worst])]
    with pytest.raises(InputError, match=r"worst-case depends on the model.* run it apart from missing, into another"):
        remember(store, mixed, [request_a, worst], setting, about())
    assert not store.root.exists()
    remember(store, cells, [request_a], setting, about())
    before = snapshot(store.root)
    with pytest.raises(InputError, match="table of its own"):
        remember(store, mixed, [worst], setting, about())
    assert snapshot(store.root) == before
    apart = Store(store.root.parent / "apart")
    remember(apart, plan([subject], setting, [worst]), [worst], setting, about())
    with pytest.raises(InputError, match="run it apart from missing"):
        remember(apart, cells, [request_a], setting, about())
