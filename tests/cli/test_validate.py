"""``msabench validate``: the table, JSON, exit codes, and bad input; and ``run`` with and without preflight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_msa.evaluation.preflight_check import STATUSES, WORDS
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.models.contract import Encoded, Output
from robustbench_msa.models.late_fusion import LateFusion

SMALL = ("--dataset", "synth:train=60,valid=20,test=40")
MODEL = ("validate", "--model", "late_fusion", *SMALL)


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = LateFusion.fuse

    def fuse(self: LateFusion, encoded: Encoded, present: torch.Tensor) -> Output:
        output = usual(self, encoded, present)
        return Output(output.prediction + 0.1 * torch.randn(len(present)))

    monkeypatch.setattr(LateFusion, "fuse", fuse)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its predictions are a column, and NaN."""
    usual = LateFusion.fuse

    def fuse(self: LateFusion, encoded: Encoded, present: torch.Tensor) -> Output:
        return Output(usual(self, encoded, present).prediction * torch.nan)

    monkeypatch.setattr(LateFusion, "fuse", fuse)


def statuses(out: str) -> dict[str, str]:
    lines = [line.split() for line in out.splitlines() if line.startswith("  ")]
    return {words[0]: words[1] for words in lines}


def test_a_table_in_words(msabench: Callable[..., Any]) -> None:
    ran = msabench(*MODEL)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "late_fusion (clean, 1111) on synth, test split: 14 pass"
    assert statuses(ran.out) == dict.fromkeys(WORDS, "pass")
    starts = {line.index("pass") for line in ran.out.splitlines()[1:]}
    assert len(starts) == 1, "aligned"
    assert ran.err == ""


def test_a_checkpoint_and_the_references(msabench: Callable[..., Any], checkpoint: Checkpoint) -> None:
    ran = msabench("validate", "--checkpoint", checkpoint.path, *SMALL, "--references", "--split", "valid")
    heads = [line for line in ran.out.splitlines() if not line.startswith("  ")]
    assert [head.split()[0] for head in heads] == ["late_fusion", "chance", "oracle"]
    assert all("on synth, valid split" in head for head in heads)
    assert heads[-1].endswith("11 pass, 3 skip")
    assert ran.code == 0


def test_json(msabench: Callable[..., Any], checkpoint: Checkpoint) -> None:
    ran = msabench(*MODEL, "--json")
    record = json.loads(ran.out)
    assert (record["dataset"], record["split"], record["device"]) == ("synth", "test", "cpu")
    (model,) = record["models"]
    assert (model["model"], model["checkpoint"], model["passed"]) == ("late_fusion", checkpoint.identity, True)
    assert model["flags"] == []
    assert [check["check"] for check in model["checks"]] == list(WORDS)
    assert all(set(check) == {"check", "status", "note"} and check["status"] in STATUSES for check in model["checks"])
    assert ran.err == ""


def test_a_flag_is_no_error(msabench: Callable[..., Any], noisy: None) -> None:
    ran = msabench(*MODEL, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    ran = msabench(*MODEL)
    assert statuses(ran.out)["deterministic"] == "flag"
    assert "1 flag" in ran.out.splitlines()[0]


def test_a_fail_is_exit_code_2_and_one_line(msabench: Callable[..., Any], broken: None) -> None:
    ran = msabench(*MODEL, "--quiet")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err == (
        "msabench: preflight failed: late_fusion (clean, 1111): finite (40 of 40 predictions are NaN or infinite on "
        "clean input)\n"
    )
    ran = msabench(*MODEL, "--json")
    assert ran.code == 2
    assert json.loads(ran.out)["models"][0]["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("validate",), "no model: give --model NAME"),
        (("validate", "--model", "late_fusio", *SMALL), "unknown model 'late_fusio'"),
        (("validate", "--checkpoint", "nowhere"), "nowhere: expected a checkpoint"),
        ((*MODEL, "--split", "dev"), "split: expected one of train, valid, test; got 'dev'"),
        ((*MODEL, "--device", "tpu"), "device: expected auto, cpu or cuda"),
        ((*MODEL, "--train-seed", "x"), "--train-seed: expected a whole number or all"),
        ((*MODEL, "--recipe", "spectrum"), "no checkpoint of late_fusion for synth with recipe spectrum"),
        (("validate", "--model", "late_fusion", "--dataset", "mosi"), "--data"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, msabench: Callable[..., Any]) -> None:
    ran = msabench(*arguments)
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_a_run_says_its_flags(run: Callable[..., Any], noisy: None) -> None:
    ran = run("--stress", "missing", "--grid", "0,0.4", "--seeds", "1", "--no-references", "--no-plots", "--out", "r")
    assert ran.code == 0
    assert "  flag    late_fusion (clean, 1111): not deterministic: two passes differ by up to" in ran.out
    assert "checked" not in ran.err, "over in a moment"


def test_a_run_stops_at_a_fail_unless_told_otherwise(run: Callable[..., Any], broken: None) -> None:
    arguments = (
        "--stress",
        "missing",
        "--grid",
        "0,0.4",
        "--seeds",
        "1",
        "--no-references",
        "--no-plots",
        "--out",
        "r",
    )
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(
        "msabench: late_fusion (clean, 1111): preflight check finite failed: 40 of"
    )
    assert "--no-preflight" in ran.err
    assert not Path("r").exists()
    ran = run(*arguments, "--no-preflight")
    assert ran.code == 0
    assert "  flag    late_fusion (clean, 1111): not finite: 40 of 40 predictions" in ran.out


def test_the_help_names_every_option_and_the_exit_codes(msabench: Callable[..., Any]) -> None:
    text = " ".join(msabench("validate", "--help").out.split())
    for words in (
        "--model",
        "--checkpoint",
        "--dataset",
        "--data",
        "--text",
        "--split",
        "--device",
        "--references",
        "--json",
    ):
        assert words in text
    assert "2 when one fails" in text
