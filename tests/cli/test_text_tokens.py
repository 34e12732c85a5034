"""Text as token ids on the command line: trained behind a text backbone, then run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason='needs the extra "bert" (transformers)')


def test_train_and_run(msabench, token_file: Path, encoder_folder: Path) -> None:
    common = ("--dataset", "words", "--data", token_file, "--device", "cpu")
    train = ("train", "--model", "late_fusion", *common, "--text-backbone", encoder_folder, "--epochs", 2)
    ran = msabench(*train, "--finetune-text", "--set", "text_learning_rate=1e-4", "--json")
    assert (ran.code, ran.err) == (0, "")
    config = json.loads(ran.out)
    assert config["model"] == "late_fusion-tokens"
    given = config["arguments"]["config"]
    assert (given["text_backbone"], given["text_finetune"]) == (str(encoder_folder), True)
    assert given["text_learning_rate"] == 1e-4
    assert Path("checkpoints/words/late_fusion-tokens/clean/1111/model.safetensors").is_file()

    ran = msabench("run", "--model", "late_fusion", *common, "--text", "tokens", "--stress", "frame-missing")
    assert ran.code == 0, ran.err
    assert "late_fusion-tokens" in ran.out
    manifest = json.loads(Path("reports/words-frame-missing/manifest.json").read_text())
    assert manifest["dataset"]["text_at"] == "tokens"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--text-backbone", "/no/such"), 2, "text backbone '/no/such': no such folder, also not below"),
        (("--text", "tokens"), 2, "late_fusion: text is token ids, expected features"),
        (("--text", "words"), 2, "text: expected features or tokens, got 'words'"),
        (("--finetune-text",), 2, "there is no text backbone to train; name one with --text-backbone"),
    ],
)
def test_bad_input_is_one_line(arguments, code, message, msabench, token_file: Path) -> None:
    ran = msabench("train", "--model", "late_fusion", "--dataset", "words", "--data", token_file, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("option", [("--text", "tokens"), ("--text-backbone", "x"), ("--finetune-text",)])
def test_suites_read_features(option, msabench) -> None:
    ran = msabench("train", "--suite", "papers", *option)
    assert ran.code == 2
    assert f"{option[0]} cannot be given with --suite" in ran.err
