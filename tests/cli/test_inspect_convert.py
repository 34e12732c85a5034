"""inspect and convert as people type them, from a file to a first run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_msa.cli import convert, inspect
from robustbench_msa.cli import main as entry


@pytest.fixture(autouse=True)
def registered() -> None:
    names = {command.name for command in entry.app.registered_commands}
    for name, module in (("inspect", inspect), ("convert", convert)):
        if name not in names:
            entry.app.command(name, epilog=module.EPILOG)(getattr(module, name))


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """An MMSA pickle of late_fusion's dimensions, with -inf in its audio and padding at the front of its vision."""
    rng = np.random.default_rng(0)

    def split(name: str, n: int) -> dict[str, Any]:
        x = {m: rng.normal(size=(n, 6, d)).astype(np.float32) for m, d in (("text", 48), ("audio", 24), ("vision", 16))}
        x["audio"][0, 0, 0] = -np.inf
        x["vision"][:, :2] = 0
        lengths = {"text_lengths": [6] * n, "audio_lengths": [6] * n, "vision_lengths": [4] * n}
        return {
            "id": [f"{name}{i // 3}$_${i}" for i in range(n)],
            "regression_labels": rng.uniform(-3, 3, n),
            **x,
            **lengths,
        }

    path = tmp_path / "mine.pkl"
    path.write_bytes(pickle.dumps({name: split(name, n) for name, n in (("train", 12), ("valid", 6), ("test", 9))}))
    return path


Call = Callable[..., Any]


def test_inspect_says_what_is_there(msabench: Call, pickled: Path) -> None:
    ran = msabench("inspect", pickled)
    assert (ran.code, ran.err) == (0, "")
    for words in (
        "a pickle, MMSA layout",
        "train  12 samples in 4 groups",
        "12x6x48",
        "1 -inf",
        "train: audio holds 1 -inf (read as 0)",
        "train: vision is padded at the front (moved to the end when read)",
        f"msabench run --model late_fusion --dataset mine --data {pickled} --stress missing",
        f"msabench convert {pickled} --dataset mine --out mine.msa",
    ):
        assert words in ran.out
    assert "would be refused" not in ran.out
    assert max(map(len, ran.out.splitlines()[1:20])) <= 80  # the tables fit a narrow terminal


def test_inspect_as_json(msabench: Call, pickled: Path) -> None:
    found = json.loads(msabench("inspect", pickled, "--json").out)
    assert [s["samples"] for s in found["splits"]] == [12, 6, 9]
    assert found["refusal"] is None
    audio = next(f for f in found["splits"][0]["fields"] if f["name"] == "audio")
    assert (audio["minus_inf"], audio["shape"], audio["lengths"]["longest"]) == (1, [12, 6, 24], 6)


def test_inspect_shows_why_a_file_would_be_refused(msabench: Call, pickled: Path) -> None:
    data = pickle.loads(pickled.read_bytes())
    del data["test"]["audio"]
    pickled.write_bytes(pickle.dumps(data))
    ran = msabench("inspect", pickled)
    assert ran.code == 0
    assert "would be refused" in ran.out
    assert "test/audio: expected this key" in ran.out
    assert "msabench run" not in ran.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>403</body></html>", "a web page or XML, not the data; download the file again"),
        (b"", "the file is empty"),
        (pickle.dumps({"train": 1})[:-4], "the file is truncated"),
        (b"PK\x03\x04" + bytes(40), "expected a .npz file, this one is broken or truncated"),
        (pickle.dumps(print), "refused builtins.print"),
    ],
)
@pytest.mark.parametrize("verb", ["inspect", "convert", "run"])
def test_what_is_no_dataset_is_one_line_and_exit_code_2(
    verb: str, content: bytes, message: str, msabench: Call, tmp_path: Path
) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    arguments = {
        "inspect": ("inspect", "x.pkl"),
        "convert": ("convert", "x.pkl", "--dataset", "mosi", "--out", "x.msa"),
        "run": ("run", "--model", "late_fusion", "--dataset", "mosi", "--data", "x.pkl", "--stress", "missing"),
    }[verb]
    ran = msabench(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_a_converted_dataset_gives_the_cells_of_its_source(msabench: Call, pickled: Path) -> None:
    ran = msabench("convert", pickled, "--dataset", "synth-like", "--out", "mine.msa")
    assert (ran.code, ran.err) == (0, "")
    assert "mine.msa: synth-like, 12/6/9 samples, fingerprint" in ran.out
    train = ("train", "--model", "late_fusion", "--dataset", "synth-like", "--epochs", 1, "--device", "cpu", "--quiet")
    assert msabench(*train, "--data", "mine.msa").code == 0
    run = ("run", "--model", "late_fusion", "--dataset", "synth-like", "--stress", "missing", "--seeds", 1, "--json")
    run += ("--no-plots", "--device", "cpu")
    first = json.loads(msabench(*run, "--data", "mine.msa").out)
    again = json.loads(msabench(*run, "--data", pickled).out)
    assert first["cells"]["computed"] == first["cells"]["planned"] > 4
    assert again["cells"] == {**first["cells"], "computed": 0, "reused": first["cells"]["planned"]}
    assert first["nauc"] == again["nauc"]


def test_convert_does_not_write_over_anything(msabench: Call, pickled: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    ran = msabench("convert", pickled, "--dataset", "x", "--out", "there")
    assert (ran.code, ran.out) == (2, "")
    assert "there: is already there; remove it, or choose another --out" in ran.err
    assert (tmp_path / "there").read_text() == "mine"


def test_inspect_of_a_converted_dataset(msabench: Call, pickled: Path) -> None:
    assert msabench("convert", pickled, "--dataset", "x", "--out", "x.msa", "--quiet").out == ""
    ran = msabench("inspect", "x.msa")
    assert "x.msa  a converted dataset (.msa), x" in ran.out
    assert "--dataset x --data x.msa" in ran.out
