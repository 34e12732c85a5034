"""Suites: what is planned, what is skipped, what a failure or a kill costs, and what is shown."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import robustbench_msa
from corruptions import InputError
from robustbench_msa.analysis.metrics import score
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.models.checkpoint import read_checkpoint
from robustbench_msa.models.registry import MODELS
from robustbench_msa.training import suite
from robustbench_msa.training.suite import Result, Settings, Suite, Training, plan_suite, run_suite, table
from robustbench_msa.training.train import STATE, train

DATASET = "synth:train=32,valid=16,test=16"
LATE, QA, BLOCKED = (
    Training("late_fusion", "spectrum", 1112),
    Training("qa_moe", "clean", 1111),
    Training("late_fusion", "clean", 1111),
)
SYSTEMS = ("qa_moe", "rider_moe", "ca_moe", "emoe", "text_moe")
CLASSICS = ("late_fusion", "tfn", "lmf", "mult", "misa", "text_only", "audio_only", "vision_only")


def folder(out: Path, training: Training) -> Path:
    return out / "synth" / training.model / training.recipe / str(training.seed)


def weights(out: Path, training: Training) -> bytes:
    return (folder(out, training) / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def dataset() -> Any:
    return load_dataset(DATASET)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(suite, "_Running", started)


# --- the plan


@pytest.mark.parametrize("seeds", [1, 3])
def test_papers_is_systems_by_recipes_and_seeds_and_classics_once(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SYSTEMS, *CLASSICS):  # some may not be registered
        monkeypatch.setitem(MODELS, name, "nowhere:Nothing")
    plan = plan_suite("papers", seeds)
    systems = {(m, r, 1111 + i) for m in SYSTEMS for r in ("clean", "spectrum") for i in range(seeds)}
    classics = {(m, "clean", 1111) for m in CLASSICS}
    assert len(plan) == 10 * seeds + 8
    assert {(t.model, t.recipe, t.seed) for t in plan} == systems | classics
    assert [t.seed for t in plan] == sorted(t.seed for t in plan)  # a suite that is stopped early has whole seeds


def test_a_model_that_is_not_registered_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suite.SUITES, "mine", Suite(("qa_moe", "qa_mole"), ("nothing",)))
    with pytest.raises(
        InputError, match=r"suite mine: qa_mole, nothing not registered; expected models among .*qa_moe"
    ):
        plan_suite("mine")


def test_bad_plans() -> None:
    with pytest.raises(InputError, match=r"unknown suite 'paper' \(did you mean 'papers'\?\); known: papers"):
        plan_suite("paper")
    for seeds in (0, -1, 1001):
        with pytest.raises(InputError, match=rf"expected 1 to 1000 training seeds, got {seeds}"):
            plan_suite("papers", seeds)


@pytest.mark.parametrize(
    ("changes", "jobs", "message"),
    [
        ({}, 0, "jobs: expected 1 or more processes, got 0"),
        ({"overrides": {"learning_rat": "1"}}, 1, r"late_fusion: unknown setting 'learning_rat' \(did you mean"),
        ({"overrides": {"top_k": "2"}}, 1, "late_fusion: unknown setting 'top_k'"),
        ({"preset": "mosii"}, 1, "unknown preset 'mosii'"),
        ({"epochs": 0}, 1, "epochs: expected at least 1"),
        ({"dataset": "mosii"}, 1, "unknown dataset 'mosii'"),
        ({"dataset": "mosi", "data": Path("no.pkl")}, 1, "no.pkl"),
    ],
    ids=str,
)
def test_what_fits_no_training_is_said_before_the_first(
    changes: dict[str, Any], jobs: int, message: str, tmp_path: Path, no_process: None
) -> None:
    settings = replace(Settings(DATASET, out=tmp_path / "out"), **changes)
    with pytest.raises(InputError, match=message):
        run_suite([LATE, QA], settings, jobs)
    assert not (tmp_path / "out").exists()


# --- a suite of two: one is trained, one cannot be


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[Result], list[tuple[Any, ...]]]:
    """The settings, the results and what was told. A file stands where one checkpoint should go."""
    out = tmp_path_factory.mktemp("suite")
    folder(out, BLOCKED).parent.mkdir(parents=True)
    folder(out, BLOCKED).write_text("in the way", "utf-8")
    settings = Settings(DATASET, out=out, epochs=2, score=score, command="msabench train --suite mine")
    told: list[tuple[Any, ...]] = []
    threads = os.environ.get("OMP_NUM_THREADS")
    results = run_suite(
        [QA, BLOCKED],
        settings,
        jobs=2,
        started=lambda total: told.append(("started", total)),
        progress=lambda *values: told.append(("epoch", *values)),
        finished=lambda result: told.append(("finished", result.training)),
    )
    assert os.environ.get("OMP_NUM_THREADS") == threads  # one thread is for the processes, not for this one
    return settings, results, told


def test_a_failing_training_does_not_stop_the_others(ran: Any) -> None:
    settings, results, _ = ran
    assert [(r.training, r.state) for r in results] == [(QA, "trained"), (BLOCKED, "failed")]
    assert "FileExistsError" in results[1].error
    assert "\n" not in results[1].error
    config = read_checkpoint(folder(settings.out, QA)).config
    assert (config["model"], config["recipe"], config["train_seed"]) == ("qa_moe", "clean", 1111)
    assert (config["training"]["threads"], config["training"]["epochs_run"]) == (1, 2)
    assert config["training"]["command"] == "msabench train --suite mine"
    assert {"mae", "corr", "acc7"} <= config["validation"].keys()


def test_what_is_told_while_it_runs(ran: Any) -> None:
    _, results, told = ran
    assert told[0] == ("started", 2)
    assert {t[1] for t in told if t[0] == "finished"} == {QA, BLOCKED}
    epochs = [t[1:] for t in told if t[0] == "epoch"]
    assert [t[:3] for t in epochs] == [(QA, 1, 2), (QA, 2, 2)]
    assert min(t[3] for t in epochs) == results[0].checkpoint.config["selection"]["value"]


def test_it_is_the_training_of_the_one_model_command(ran: Any, dataset: Any, tmp_path: Path, one_thread: None) -> None:
    settings, _, _ = ran
    train("qa_moe", dataset, "clean", 1111, tmp_path, epochs=2)
    assert (tmp_path / "model.safetensors").read_bytes() == weights(settings.out, QA)


def test_the_table(ran: Any) -> None:
    _, results, _ = ran
    text = io.StringIO()
    Console(file=text, width=80).print(table(results))
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    assert lines[0] == ["Validation", "scores"]
    assert lines[1] == ["model", "recipe", "seed", "acc2_non0", "mae", "corr", "epoch", "seconds"]
    validation, training = (results[0].checkpoint.config[key] for key in ("validation", "training"))
    scores = [f"{validation[name]:.3f}" for name in ("acc2_non0", "mae", "corr")]
    made = [str(training["best_epoch"]), f"{training['seconds']:.0f}"]
    assert lines[3:] == [
        ["qa_moe", "clean", "1111", *scores, *made, "trained"],
        ["late_fusion", "clean", "1111", *"—————", "failed"],
    ]


def test_the_longest_names_fit_a_narrow_terminal() -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(table([Result(Training("vision_only", "spectrum", 1111), "trained")]))
    assert "vision_only spectrum 1111" in text.getvalue()
    assert "…" not in text.getvalue()


def test_results_as_json(ran: Any) -> None:
    settings, results, _ = ran
    trained, failed = (json.loads(json.dumps(result.to_json())) for result in results)
    assert (trained["model"], trained["recipe"], trained["train_seed"]) == ("qa_moe", "clean", 1111)
    assert (trained["state"], trained["error"]) == ("trained", None)
    assert trained["folder"] == str(folder(settings.out, QA))
    assert trained["validation"] == results[0].checkpoint.config["validation"]
    assert (failed["state"], failed["error"]) == ("failed", results[1].error)
    assert failed["validation"] is failed["folder"] is failed["best_epoch"] is failed["seconds"] is None


def test_what_is_there_is_skipped_without_a_process(ran: Any, no_process: None) -> None:
    settings, before, _ = ran
    written = (folder(settings.out, QA) / "config.json").stat().st_mtime_ns
    started: list[int] = []
    (result,) = run_suite([QA], replace(settings, command="other"), started=started.append)
    assert started == [0]
    assert (result.training, result.state) == (QA, "there")
    assert result.to_json() == before[0].to_json() | {"state": "there"}
    assert (folder(settings.out, QA) / "config.json").stat().st_mtime_ns == written


def test_a_checkpoint_of_another_training_is_not_written_over(ran: Any, no_process: None) -> None:
    settings, _, _ = ran
    before = weights(settings.out, QA)
    (result,) = run_suite([QA], replace(settings, epochs=1))
    assert result.state == "failed"
    assert "holds a checkpoint of another training (qa_moe/synth, recipe clean, train seed 1111)" in result.error
    assert "--overwrite" in result.error
    assert weights(settings.out, QA) == before


# --- killed and stopped


@pytest.fixture(scope="module")
def uninterrupted(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that LATE must end with after 80 epochs, whatever happens on the way."""
    out, before = tmp_path_factory.mktemp("uninterrupted"), torch.get_num_threads()
    torch.set_num_threads(1)
    train(LATE.model, dataset, LATE.recipe, LATE.seed, out, epochs=80)
    torch.set_num_threads(before)
    return (out / "model.safetensors").read_bytes()


class Stop(BaseException):
    pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.slow
def test_a_killed_process_costs_its_training_alone_and_stopping_stops_the_rest(tmp_path: Path) -> None:
    ended: list[Result] = []

    def kill_one_stop_at_the_next(training: Training, epoch: int, epochs: int, value: float) -> None:
        (child,) = multiprocessing.active_children()
        if training == BLOCKED:
            raise Stop
        if epoch == 2:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    settings = Settings(DATASET, out=tmp_path, epochs=10_000)
    with pytest.raises(Stop):
        run_suite([LATE, BLOCKED], settings, 1, progress=kill_one_stop_at_the_next, finished=ended.append)
    assert [(r.training, r.state) for r in ended] == [(LATE, "failed")]
    assert ended[0].error.startswith("its process was killed by signal 9 (Killed)")
    assert multiprocessing.active_children() == []
    for training in (LATE, BLOCKED):  # both will be continued
        assert (folder(tmp_path, training) / STATE).exists()
        assert not (folder(tmp_path, training) / "config.json").exists()


KILLED_SUITE = """
import os, signal, sys
from pathlib import Path
from robustbench_msa.training.suite import Settings, Training, run_suite

def kill(training, epoch, epochs, value):
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    settings = Settings(sys.argv[1], out=Path(sys.argv[2]), epochs=80)
    run_suite([Training("late_fusion", "spectrum", 1112)], settings, progress=kill)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.slow
def test_a_killed_suite_takes_its_processes_with_it_and_continues(tmp_path: Path, uninterrupted: bytes) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(KILLED_SUITE, "utf-8")
    root = Path(robustbench_msa.__file__).parents[1]
    done = subprocess.run(  # returns when the last process that writes to its pipes has ended
        [sys.executable, str(script), DATASET, str(out)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (folder(out, LATE) / STATE).exists()
    assert not (folder(out, LATE) / "config.json").exists()  # its process did not train to the end

    notes: list[str] = []
    results = run_suite([LATE], Settings(DATASET, out=out, epochs=80), notice=lambda _, line: notes.append(line))
    assert [r.state for r in results] == ["trained"]
    assert notes[0].startswith("continuing after epoch ")
    assert weights(out, LATE) == uninterrupted
    assert not (folder(out, LATE) / STATE).exists()
