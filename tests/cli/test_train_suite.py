"""``msabench train --suite``: the table, JSON, exit codes, and bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustbench_msa.training import suite
from robustbench_msa.training.suite import Suite

SMALL = ("--dataset", "synth:train=32,valid=16,test=16", "--epochs", 1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of one training."""
    monkeypatch.setitem(suite.SUITES, "tiny", Suite((), ("late_fusion",)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--model NAME", "--suite NAME", "got neither", "msabench train --help")),
        (("--suite", "tiny", "--model", "late_fusion"), ("--model NAME", "--suite NAME", "got both")),
        (("--suite", "tinny"), ("unknown suite 'tinny'", "did you mean 'tiny'?", "papers")),
        (("--suite", "tiny", "--seed", "1"), ("--seed cannot be given with --suite", "--seeds N")),
        (("--suite", "tiny", "--recipe", "clean"), ("--recipe cannot be given with --suite",)),
        (("--model", "late_fusion", "--seeds", "2"), ("--seeds cannot be given with --model", "--seed SEED")),
        (("--model", "late_fusion", "--jobs", "2"), ("--jobs cannot be given with --model",)),
        (("--suite", "tiny", "--seeds", "0"), ("expected 1 to 1000 training seeds", "got 0")),
        (("--suite", "tiny", "--seeds", "three"), ("--seeds", "integer")),
        (("--suite", "tiny", "--jobs", "0", *SMALL), ("jobs", "1 or more", "got 0")),
        (("--suite", "tiny", "--set", "hiden=3", *SMALL), ("late_fusion: unknown setting 'hiden'", "'hidden'")),
        (("--suite", "tiny", "--set", "hidden"), ("--set", "NAME=VALUE")),
        (("--suite", "tiny", "--dataset", "mosi"), ("mosi", "--data PATH")),
        (("--suite", "tiny", "--device", "tpu"), ("auto, cpu or cuda", "'tpu'")),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_bad_input_is_one_line(arguments, words, msabench, tmp_path: Path) -> None:
    ran = msabench("train", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("msabench: ")
    for word in words:
        assert word in ran.err
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_not_registered_are_named(msabench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suite.SUITES, "tiny", Suite(("nobody",), ("late_fusion",)))
    ran = msabench("train", "--suite", "tiny", *SMALL)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("msabench: suite tiny: nobody not registered; expected models among ")


def test_a_suite_is_trained_shown_and_then_there(msabench, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("train", "--suite", "tiny", *SMALL)
    first = msabench(*command, "--jobs", 1, "--out", "mine")
    assert first.code == 0, first.err
    assert "Validation scores" in first.out
    assert first.out.split()[-1] == "trained"
    assert "late_fusion clean 1111 trained, validation " in first.err
    assert "1 of 1 done" in first.err
    assert Path("mine/synth/late_fusion/clean/1111/model.safetensors").is_file()

    quiet = msabench(*command, "--out", "mine", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    as_json = msabench(*command, "--out", "mine", "--json")
    assert (as_json.code, as_json.err) == (0, "")
    record = json.loads(as_json.out)
    assert (record["suite"], record["out"], record["complete"]) == ("tiny", "mine", True)
    (training,) = record["trainings"]
    config = json.loads(Path("mine/synth/late_fusion/clean/1111/config.json").read_text("utf-8"))
    assert (training["state"], training["validation"]) == ("there", config["validation"])
    assert config["training"]["command"].startswith("msabench train --suite tiny --dataset synth:")

    failed = msabench("train", "--suite", "tiny", *SMALL[:2], "--epochs", 2, "--out", "mine", "--quiet")
    assert (failed.code, failed.out) == (3, "")
    one, summary = failed.err.splitlines()
    assert one.startswith(
        "msabench: late_fusion clean 1111 failed: mine/synth/late_fusion/clean/1111 holds a checkpoint"
    )
    assert summary.startswith("msabench: 1 of 1 trainings failed; to continue: msabench train --suite tiny --dataset ")


def test_one_model_is_trained_as_before(msabench) -> None:
    ran = msabench("train", "--model", "late_fusion", *SMALL)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("checkpoints/synth/late_fusion/clean/1111: validation ")
