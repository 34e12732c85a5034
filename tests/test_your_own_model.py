"""Following docs/your-own-model.md word for word leads from nothing to a row in the leaderboard."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own-model.md").read_text("utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which every shell command of the page was typed, and what they printed."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "bin").mkdir()
    for name, arguments in (("python", ""), ("msabench", "-m robustbench_msa.cli.main ")):
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n', "utf-8")
        (folder / "bin" / name).chmod(0o755)
    commands = "\n".join(re.findall(r"^```sh\n(.*?)\n```", PAGE, re.S | re.M))
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder / "my_project", done.stdout


@pytest.mark.skipif(os.name == "nt", reason="the page is written for a shell")
def test_the_page_leads_to_a_row(followed: tuple[Path, str]) -> None:
    folder, printed = followed
    nauc = pd.read_parquet(folder / "reports" / "synth-missing" / "nauc").query("metric == 'corr'").set_index("model")
    assert set(nauc.index) == {"my_model", "late_fusion", "chance", "oracle"}
    assert nauc["nauc"]["oracle"] > nauc["nauc"]["my_model"] > 0.4 > nauc["nauc"]["chance"]
    assert "my_model" in printed
    assert (folder / "reports" / "synth-noise" / "manifest.json").is_file()  # the file to start from runs as it is


@pytest.mark.skipif(os.name == "nt", reason="the page is written for a shell")
def test_everyone_had_the_same_input_and_the_card_is_remembered(followed: tuple[Path, str]) -> None:
    run = followed[0] / "reports" / "synth-missing"
    cells = pd.read_parquet(run / "cells")
    assert (cells.groupby(["severity", cells["seed"].fillna(0)], dropna=False)["input_digest"].nunique() == 1).all()
    checkpoints = json.loads((run / "manifest.json").read_text("utf-8"))["checkpoints"].values()
    (about,) = (entry for entry in checkpoints if entry["model"] == "my_model")
    assert about["selection"]["split"] == "valid"
    assert about["selection"]["by"] == "MAE"
    assert (about["recipe"], about["train_seed"], about["dataset"]) == ("clean", 1, {"name": "synth"})
    assert len(about["weights_sha256"]) == len(about["sources_sha256"]) == 64


@pytest.mark.skipif(os.name == "nt", reason="the page is written for a shell")
def test_the_weights_of_modalities_are_kept(followed: tuple[Path, str]) -> None:
    run = followed[0] / "reports" / "synth-missing"
    rows = pd.read_parquet(run / "predictions").query("model == 'my_model'")
    routing = pd.DataFrame([dict(extras)["routing"] for extras in rows["extras"]])
    assert routing.shape[1] == 3
    assert (routing.sum(axis=1) - 1).abs().max() < 1e-5


def test_the_words_of_the_page_are_those_of_the_code() -> None:
    from robustbench_msa.adapters.inputs import ARGUMENTS, WORDS
    from robustbench_msa.adapters.outputs import PREDICTIONS

    for word in ("text_bert", "present", "audio_lengths", "audio_mask", "audio_padding_mask"):
        assert word in WORDS
        assert f"`{word}`" in PAGE
    for name in ("x_l", "acoustic", "video", "audio_len", "text_mask"):
        assert name in ARGUMENTS
        assert f"`{name}`" in PAGE
    for key in ("M", "prediction", "logits", "logits_c"):
        assert key in PREDICTIONS
