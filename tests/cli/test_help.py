"""Help answers at once, for every command, with an example to copy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    (),
    ("run",),
    ("train",),
    ("leaderboard",),
    ("plot", "curves"),
    ("plot", "landscape"),
    ("plot", "difference"),
    ("plot", "comparison"),
    ("status",),
    ("report",),
    ("validate",),
    ("gallery",),
]
VERBS = ("run", "validate", "train", "leaderboard", "compare", "report", "plot", "show", "gallery", "list", "inspect")
VERBS += ("convert", "status", "export", "score", "check-table", "profile", "init-adapter")
GROUPS = [
    ("plot",),
    ("list",),
    *(("list", name) for name in ("models", "datasets", "stresses", "protocols", "checkpoints")),
]


def shown(msabench, *arguments: str) -> str:
    ran = msabench(*arguments)
    assert ran.code == 0
    assert ran.err == ""
    return re.sub(r"\x1b\[[0-9;]*m", "", ran.out)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(command: tuple[str, ...], flag: str, msabench) -> None:
    text = shown(msabench, *command, flag)
    assert "Usage: msabench" in text
    verb = " ".join(("msabench", *(command or ("run",))))
    rest = text.partition("[OPTIONS]")[2]
    assert f"{verb} --" in rest or f"{verb} reports/" in rest, "an example that can be copied"


@pytest.mark.parametrize("command", GROUPS, ids=" ".join)
def test_groups_have_help_too(command: tuple[str, ...], msabench) -> None:
    assert f"Usage: msabench {' '.join(command)}" in shown(msabench, *command, "--help")


def test_help_names_every_command_and_the_exit_codes(msabench) -> None:
    text = shown(msabench, "--help")
    for name in VERBS:
        assert re.search(rf"│ {name} ", text), name
    for words in ("Exit codes", "0 complete", "2 bad input", "3 incomplete"):
        assert words in text


def test_every_option_of_run_is_explained(msabench) -> None:
    text = shown(msabench, "run", "--help")
    options = ("--model", "--stress", "--grid", "--protocol", "--checkpoint", "--recipe", "--train-seed", "--dataset")
    options += (
        "--data",
        "--split",
        "--seeds",
        "--device",
        "--batch-size",
        "--out",
        "--references",
        "--plots",
        "--quiet",
    )
    for option in (*options, "--json"):
        assert option in text


@pytest.mark.parametrize("command", [(), ("list",), ("plot",)])
def test_nothing_typed_is_answered_with_help(command: tuple[str, ...], msabench) -> None:
    ran = msabench(*command)
    assert "Usage: msabench" in ran.out + ran.err
    assert "Traceback" not in ran.err
    assert ran.code == 2


def test_examples_of_the_help_are_understood(msabench) -> None:
    """The first example runs as typed, but for its model: it must get as far as looking for the checkpoint."""
    ran = msabench("run", "--model", "qa_moe", "--stress", "missing", "--grid", "0:0.8:0.2", "--out", "o")
    if ran.code != 0:  # the shipped checkpoint may not be there
        assert ran.code == 2
        assert ran.err.startswith("msabench: no checkpoint of qa_moe for synth")


def test_importing_the_command_line_is_light() -> None:
    heavy = ("torch", "pandas", "matplotlib", "pyarrow", "scipy", "numpy")
    code = f"import sys, json, robustbench_msa.cli.main; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60, check=True)
    assert json.loads(ran.stdout) == []
