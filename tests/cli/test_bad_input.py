"""Bad input: exit code 2, one line that says what was expected, what came and what to do, and nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_msa.models.checkpoint import Checkpoint

MODEL = ("--model", "late_fusion")
STRESS = ("--stress", "missing")
SMALL = ("--dataset", "synth:train=60,valid=20,test=40")
GOOD = (*MODEL, *STRESS, *SMALL)


def mmsa_split(n: int, seed: int, dims: tuple[int, int, int]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    names = zip(("text", "audio", "vision"), dims, strict=True)
    features = {name: rng.normal(size=(n, 5, d)).astype(np.float32) for name, d in names}
    return {
        "id": [f"v{seed}{i // 2}$_${i}" for i in range(n)],
        **features,
        "regression_labels": rng.uniform(-3, 3, n).astype(np.float32),
    }


@pytest.fixture
def mmsa(tmp_path: Path) -> Callable[..., Path]:
    """Writes an MMSA pickle; ``change`` may spoil its contents first."""

    def write(change: Callable[[dict[str, Any]], None] = lambda data: None, dims=(48, 24, 16)) -> Path:
        data = {split: mmsa_split(8, i, dims) for i, split in enumerate(("train", "valid", "test"))}
        change(data)
        path = tmp_path / "file.pkl"
        path.write_bytes(pickle.dumps(data))
        return path

    return write


@pytest.fixture
def refused(msabench, tmp_path: Path) -> Callable[..., str]:
    """Runs ``msabench run`` with --out and returns its one line of complaint."""

    def check(*arguments: object) -> str:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        ran = msabench("run", "--out", "out", *arguments)
        assert ran.err.endswith("\n")
        lines = ran.err.splitlines()
        assert len(lines) == 1, ran.err
        assert lines[0].startswith("msabench: ")
        assert "Traceback" not in ran.err
        assert ran.out == ""
        assert ran.code == 2, ran.err
        assert not Path("out").is_dir(), "nothing may be written for bad input"
        assert not Path("reports").exists()
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        return lines[0]

    return check


CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown model": (("--model", "late_fusoin", *STRESS), ("'late_fusoin'", "did you mean 'late_fusion'?", "qa_moe")),
    "unknown stress": ((*MODEL, "--stress", "mising"), ("'mising'", "did you mean 'missing'?", "known: noise")),
    "unknown stress parameter": (
        (*MODEL, "--stress", "missing:fil=mean"),
        ("unknown parameter 'fil'", "did you mean 'fill'?"),
    ),
    "stress parameter of the wrong type": (
        (*MODEL, "--stress", "missing-random:told=maybe"),
        ("expected true or false", "'maybe'"),
    ),
    "fill for other text": (
        (*MODEL, *SMALL, "--stress", "missing-random:fill=unk"),
        ("fill=unk", "token ids", "zeros"),
    ),
    "unknown protocol": ((*MODEL, "--protocol", "ridr"), ("'ridr'", "did you mean 'rider'?", ".toml")),
    "missing protocol file": ((*MODEL, "--protocol", "mine.toml"), ("mine.toml", "cannot be read")),
    "grid not increasing": ((*MODEL, *STRESS, "--grid", "0,0.4,0.2"), ("must increase", "0,0.4,0.2")),
    "grid repeats": ((*MODEL, *STRESS, "--grid", "0,0.2,0.20"), ("must increase",)),
    "grid out of range": ((*MODEL, *STRESS, "--grid", "0:1:0.2"), ("1 is outside the stressor's range", "m in [0, 1)")),
    "grid negative": ((*MODEL, *STRESS, "--grid=-0.2,0.4"), ("-0.2 is outside",)),
    "grid garbage": ((*MODEL, *STRESS, "--grid", "many"), ("'many' is not a severity", "expected decimals like")),
    "grid nan": ((*MODEL, *STRESS, "--grid", "0,nan"), ("'nan' is not a severity",)),
    "grid step does not divide": ((*MODEL, *STRESS, "--grid", "0:0.5:0.2"), ("does not divide",)),
    "grid too long": ((*MODEL, *STRESS, "--grid", "0:0.9:0.000001"), ("at most|more than", "larger step")),
    "grid empty": ((*MODEL, *STRESS, "--grid", ""), ("grid",)),
    "grid of one axis for two": ((*MODEL, "--stress", "spectrum", "--grid", "0:0.4:0.2"), ("a product of two axes",)),
    "grid of sets for severities": (
        (*MODEL, "--stress", "missing-fixed", "--grid", "0:1:0.5"),
        ("not an available set",),
    ),
    "grid with two stresses": (
        (*MODEL, *STRESS, "--stress", "noise", "--grid", "0:0.4:0.2"),
        ("--grid needs exactly one --stress", "got 2"),
    ),
    "stress and protocol": ((*MODEL, *STRESS, "--protocol", "rider"), ("--protocol, or --stress",)),
    "neither stress nor protocol": (MODEL, ("nothing to run", "--stress", "--protocol")),
    "no model": (STRESS, ("no model", "--model", "--checkpoint")),
    "no checkpoint of the recipe": (
        (*GOOD, "--recipe", "spectrum"),
        ("no checkpoint of late_fusion", "recipe spectrum", "msabench train --model late_fusion"),
    ),
    "no checkpoint of the seed": ((*GOOD, "--train-seed", "7"), ("train seed 7", "msabench train")),
    "train seed is a word": ((*GOOD, "--train-seed", "any"), ("--train-seed", "a whole number or all", "'any'")),
    "train seed of two dashes": ((*GOOD, "--train-seed=--5"), ("--train-seed", "a whole number or all", "'--5'")),
    "train seed is superscript": ((*GOOD, "--train-seed", "²"), ("--train-seed", "a whole number or all")),
    "unknown dataset": ((*MODEL, *STRESS, "--dataset", "mosii"), ("'mosii'", "did you mean 'mosi'?", "--data PATH")),
    "dataset without its file": ((*MODEL, *STRESS, "--dataset", "mosi"), ("mosi", "--data PATH")),
    "unknown dataset parameter": ((*MODEL, *STRESS, "--dataset", "synth:tset=5"), ("'tset'", "did you mean 'test'?")),
    "a file for synth": ((*MODEL, *STRESS, "--data", "x.pkl"), ("synth is made in memory", "x.pkl")),
    "missing data file": ((*MODEL, *STRESS, "--dataset", "mosi", "--data", "no/such.pkl"), ("no/such.pkl",)),
    "a folder as data file": ((*MODEL, *STRESS, "--dataset", "mosi", "--data", "."), ("expected",)),
    "missing checkpoint folder": (
        ("--checkpoint", "no/where", *STRESS),
        ("no/where", "config.json", "model.safetensors", "msabench list checkpoints"),
    ),
    "split": ((*GOOD, "--split", "foo"), ("train, valid, test", "'foo'")),
    "no seeds": ((*GOOD, "--seeds", "0"), ("1 or more", "got 0")),
    "negative seeds": ((*GOOD, "--seeds", "-3"), ("1 or more", "got -3")),
    "seeds are a word": ((*GOOD, "--seeds", "three"), ("--seeds", "integer")),
    "no batch": ((*GOOD, "--batch-size", "0"), ("batch size", "1 or more", "got 0")),
    "device": ((*GOOD, "--device", "tpu"), ("auto, cpu or cuda", "'tpu'")),
    "unknown option": ((*GOOD, "--sevrity", "3"), ("--sevrity", "msabench run --help")),
    "option without a value": ((*GOOD, "--grid"), ("--grid",)),
    "stray argument": ((*GOOD, "extra"), ("extra", "msabench run --help")),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line(case: str, refused) -> None:
    arguments, words = CASES[case]
    line = refused(*arguments)
    for word in words:
        assert any(option in line for option in word.split("|")), f"{word!r} is not in: {line}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda(refused) -> None:
    line = refused(*GOOD, "--device", "cuda")
    assert "no CUDA device" in line
    assert "--device cpu" in line


def test_a_truncated_pickle(refused, mmsa) -> None:
    path = mmsa()
    path.write_bytes(path.read_bytes()[:-200])
    assert "file.pkl" in refused(*MODEL, *STRESS, "--dataset", "mosi", "--data", path)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_hostile_pickle_is_refused_and_not_run(refused, mmsa, tmp_path: Path) -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["train"]["extra"] = Hostile(tmp_path / "owned")

    line = refused(*MODEL, *STRESS, "--dataset", "mosi", "--data", mmsa(spoil))
    assert not (tmp_path / "owned").exists()
    assert "mkdir" in line


def test_labels_that_are_not_numbers(refused, mmsa) -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["test"]["regression_labels"][3] = np.nan

    line = refused(*MODEL, *STRESS, "--dataset", "mosi", "--data", mmsa(spoil))
    assert "test" in line
    assert "NaN" in line


def test_an_empty_split(refused, mmsa) -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["valid"] = {name: values[:0] for name, values in data["valid"].items()}

    line = refused(*MODEL, *STRESS, "--dataset", "mosi", "--data", mmsa(spoil))
    assert "valid" in line
    assert "empty" in line


def test_a_split_that_is_missing(refused, mmsa) -> None:
    line = refused(*MODEL, *STRESS, "--dataset", "mosi", "--data", mmsa(lambda data: data.pop("valid")))
    assert "valid" in line
    assert "the file has 'train', 'test'" in line


def test_a_checkpoint_for_other_dimensions(refused, mmsa, checkpoint: Checkpoint) -> None:
    path = mmsa(dims=(48, 5, 16))
    line = refused("--checkpoint", checkpoint.path, *STRESS, "--dataset", "mosi", "--data", path)
    for words in ("expects audio features of 24 dims", "mosi has 5", "retrain"):
        assert words in line


def test_the_oracle_on_other_data(refused, mmsa, checkpoint: Checkpoint) -> None:
    line = refused("--model", "oracle", *STRESS, "--dataset", "mosi", "--data", mmsa())
    assert "synthetic dataset only" in line


def test_a_model_and_another_ones_checkpoint(refused, checkpoint: Checkpoint) -> None:
    line = refused("--model", "qa_moe", "--checkpoint", checkpoint.path, *STRESS)
    assert "holds a late_fusion" in line


@pytest.fixture
def copied(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint.path, tmp_path / "copied"))


def test_weights_cut_short(refused, copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    line = refused("--checkpoint", copied, *STRESS, *SMALL)
    assert "model.safetensors" in line


def test_weights_that_are_not_those_of_the_config(refused, copied: Path) -> None:
    weights = copied / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    line = refused("--checkpoint", copied, *STRESS, *SMALL)
    assert "model.safetensors" in line


def test_a_config_that_is_no_json(refused, copied: Path) -> None:
    (copied / "config.json").write_text("{", "utf-8")
    assert "not valid JSON" in refused("--checkpoint", copied, *STRESS, *SMALL)


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_out_where_a_file_is(where: str, msabench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    ran = msabench("run", *GOOD, "--out", where)
    assert ran.err.startswith(f"msabench: --out {where}")
    assert ran.err.count("\n") == 1
    assert "expected a folder" in ran.err
    assert ran.code == 2
    assert (tmp_path / "file").read_text("utf-8") == "mine"


@pytest.mark.parametrize("command", [("status",), ("leaderboard",), ("plot", "curves"), ("plot", "landscape")])
@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_that_is_no_run(command: tuple[str, ...], folder: str, msabench, tmp_path: Path) -> None:
    ran = msabench(*command, folder)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("msabench: ")
    assert "expected the folder of an msabench run" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnu",), ("rnu", "msabench --help")),
        (("list", "model"), ("model", "msabench list --help")),
        (("train",), ("--model",)),
        (("train", "--model", "chance"), ("reference",)),
        (("train", "--model", "late_fusoin"), ("did you mean",)),
        (("train", "--model", "late_fusion", "--recipe", "claen"), ("claen",)),
        (("train", "--model", "late_fusion", "--epochs", "0", *SMALL), ("epochs", "at least 1")),
        (("train", "--model", "late_fusion", "--preset", "x", *SMALL), ("preset 'x'", "synth")),
        (("leaderboard",), ("RUN",)),
    ],
)
def test_other_commands_say_it_in_one_line_too(arguments, words, msabench, tmp_path: Path) -> None:
    ran = msabench(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("msabench: ")
    for word in words:
        assert word in ran.err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_in_a_process_of_its_own(process, tmp_path: Path) -> None:
    """Nothing that importing prints or warns of gets between."""
    ran = process("run", *MODEL, "--stress", "mising", "--out", "out", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("msabench: unknown stress 'mising'")
    assert list(tmp_path.iterdir()) == []
