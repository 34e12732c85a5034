"""``msabench export`` and ``msabench score``: what they print, write and refuse; docs/bridge.md as typed."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robustbench_msa.data import safe_pickle
from robustbench_msa.data.mmsa import read_mmsa

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "bridge.md").read_text("utf-8")
SMALL = ("--dataset", "synth:train=60,valid=20,test=40")
ASKED = (*SMALL, "--stress", "missing", "--grid", "0,0.4", "--seeds", 2)


def block(language: str, word: str) -> str:
    """The code block of the page that holds a word."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)\n```", DOC, re.S) if word in text]
    assert len(found) == 1, f"docs/bridge.md: {len(found)} {language} blocks with {word}"
    return str(found[0])


def predict(x: Any) -> np.ndarray:
    return np.asarray(x["text"].mean((1, 2)) * 30)


def predict_all(leave_out: str = "nothing", folder: str = "inputs") -> Path:
    with Path("predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["cell", "id", "prediction"])
        for path in sorted(Path(folder).glob("*.npz")):
            x = np.load(path, allow_pickle=False)
            if leave_out not in path.stem:
                rows.writerows(zip([path.stem] * len(x["ids"]), x["ids"], predict(x).tolist(), strict=True))
    return Path("predictions.csv")


@pytest.fixture
def exported(msabench) -> None:
    """The folder ``inputs``: clean, and missing at 0.4 with two seeds."""
    assert msabench("export", *ASKED, "--out", "inputs", "--quiet").code == 0


def test_export_says_what_it_takes_and_what_comes_next(msabench) -> None:
    ran = msabench("export", *ASKED, "--out", "the inputs")
    assert ran.code == 0, ran.err
    first, second, third = ran.out.splitlines()
    assert re.fullmatch(r"3 files, 1\.3 MB in all; [0-9.]+ [GT]B free -> the inputs", first)
    assert second == "3 files written, 0 already there -> the inputs"
    assert third == "  next    msabench score --inputs 'the inputs' --predictions FILE.csv --model NAME"
    assert "3 of 3" in ran.err
    names = ["clean.npz", "manifest.json", "missing-0.4-1111.npz", "missing-0.4-1112.npz"]
    assert sorted(path.name for path in Path("the inputs").iterdir()) == names
    manifest = json.loads(Path("the inputs/manifest.json").read_text("utf-8"))
    assert manifest["command"].startswith("msabench export --dataset synth:train=60,valid=20,test=40 --stress missing")
    (Path("the inputs") / "clean.npz").unlink()
    again = msabench("export", *ASKED, "--out", "the inputs")
    assert "3 files, 1.3 MB in all, 428.2 kB still to be written" in again.out
    assert "1 files written, 2 already there" in again.out


def test_export_as_json_and_in_the_mmsa_layout(msabench) -> None:
    ran = msabench("export", *SMALL, "--protocol", "seven-subsets", "--out", "i", "--format", "mmsa", "--json")
    assert (ran.code, ran.err) == (0, "")
    record = json.loads(ran.out)
    assert record["complete"] is True
    assert record["files"] == {"written": 7, "kept": 0}
    assert record["bytes"] > 7 * 400_000
    fields = safe_pickle.load(Path("i/missing-fixed-t+a.pkl"))["test"]  # type: ignore[index]
    assert fields["vision_present"].tolist() == [False] * 40
    assert not fields["vision"].any()
    assert fields["audio"].any()
    assert json.loads(Path("i/manifest.json").read_text("utf-8"))["run"] == "synth-seven-subsets"


def test_score_prints_tables_and_shares_the_folder_of_run(msabench, run, exported) -> None:
    assert run("--stress", "missing", "--grid", "0,0.4", "--seeds", 2, "--no-plots", "--quiet").code == 0
    ran = msabench("score", "--inputs", "inputs", "--predictions", predict_all(), "--model", "their.model")
    assert ran.code == 0, ran.err
    assert "3 cells added, 3 already there -> reports/synth-missing" in ran.out  # chance was there
    for words in ("nAUC", "their.model", "Late fusion", "chance", "msabench leaderboard reports/synth-missing"):
        assert words in ran.out
    assert Path("reports/synth-missing/figures/curves.png").stat().st_size > 10_000
    board = msabench("leaderboard", "reports/synth-missing", "--json")
    assert {row["model"] for row in json.loads(board.out)} == {"late_fusion", "their.model", "chance", "oracle"}
    assert msabench("status", "reports/synth-missing").code == 0
    manifest = json.loads(Path("reports/synth-missing/manifest.json").read_text("utf-8"))
    assert [command.split()[1] for command in manifest["commands"]] == ["run", "score"]
    (theirs,) = (about for about in manifest["checkpoints"].values() if about["model"] == "their.model")
    assert {name: theirs[name] for name in ("imported", "recipe", "train_seed")} == {
        "imported": True,
        "recipe": "",
        "train_seed": None,
    }
    assert {check["status"] for check in theirs["preflight"]} == {"pass", "skip"}
    assert run("--stress", "missing", "--grid", "0,0.4", "--seeds", 2, "--no-plots", "--quiet").code == 0


def test_score_as_json_and_twice(msabench, exported) -> None:
    arguments = ("score", "--inputs", "inputs", "--predictions", predict_all(), "--model", "m", "--out", "r")
    named = ("--recipe", "clean", "--train-seed", 7, "--no-plots", "--json")
    first, second = (msabench(*arguments, *named) for _ in range(2))
    assert (first.code, first.err) == (0, "")
    one, two = json.loads(first.out), json.loads(second.out)
    assert one["cells"] == {"planned": 6, "reused": 0, "computed": 6}
    assert two["cells"] == {"planned": 6, "reused": 6, "computed": 0}
    assert one["nauc"] == two["nauc"]
    assert (one["complete"], one["missing"], one["nonfinite"], one["out"]) == (True, [], 0, "r")
    (row,) = [row for row in one["nauc"] if (row["model"], row["metric"]) == ("m", "mae")]
    assert (row["recipe"], row["train_seed"]) == ("clean", 7)
    assert row["nauc"] == pytest.approx(row["grid_mean"]), "of two points"
    quiet = msabench(*arguments, "--no-plots", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


@pytest.mark.parametrize("references", ["--references", "--no-references"])
@pytest.mark.parametrize("leave_out", ["1112", "clean", "missing"])
def test_missing_cells_are_exit_code_3_and_listed(leave_out: str, references: str, msabench, exported) -> None:
    arguments = ("score", "--inputs", "inputs", "--model", "m", "--out", "r", references)
    path = predict_all(leave_out)
    ran = msabench(*arguments, "--predictions", path)
    assert ran.code == 3
    missing = {"1112": ["missing-0.4-1112"], "clean": ["clean"]}
    names = ", ".join(missing.get(leave_out, ["missing-0.4-1111", "missing-0.4-1112"]))
    assert f"cells have no predictions: {names}; add them to predictions.csv and score again" in ran.err
    assert ran.err.count("\n") == 1
    assert f"  missing {names}\n" in ran.out
    again = msabench(*arguments, "--predictions", path, "--no-plots", "--json")
    assert json.loads(again.out)["missing"] == names.split(", ")
    status = msabench("status", "r")
    assert status.code == 3
    assert f"to continue: msabench score --inputs inputs --model m --out r {references}" in status.out
    assert len(pd.read_parquet("r/cells").query("model == 'm'")) == 3 - len(names.split(", "))
    whole = msabench(*arguments, "--predictions", predict_all(), "--no-plots", "--json")
    assert whole.code == 0
    assert json.loads(whole.out)["complete"] is True
    assert msabench("status", "r").code == 0


def test_nan_predictions_are_said(msabench, exported) -> None:
    table = pd.read_csv(predict_all())
    table.loc[3, "prediction"] = np.nan
    table.to_csv("predictions.csv", index=False)
    ran = msabench("score", "--inputs", "inputs", "--predictions", "predictions.csv", "--model", "m", "--no-plots")
    assert ran.code == 0, ran.err
    assert "  1 predictions are NaN or infinite" in ran.out


BAD_EXPORT: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
    "no folder": (("--stress", "missing"), ("--out", "msabench export --help")),
    "no stress": (("--out", "i"), ("nothing to run", "--stress", "--protocol")),
    "unknown stress": (("--out", "i", "--stress", "mising"), ("did you mean 'missing'?",)),
    "worst-case": (("--out", "i", "--stress", "worst-case"), ("its inputs depend on the model", "msabench run")),
    "format": (("--out", "i", "--stress", "missing", "--format", "h5"), ("expected npz or mmsa", "'h5'")),
    "split": (("--out", "i", "--stress", "missing", "--split", "dev"), ("train, valid, test", "'dev'")),
    "grid": (("--out", "i", "--stress", "missing", "--grid", "0:1:0.2"), ("1 is outside",)),
    "a file in the way": (("--out", "file", "--stress", "missing"), ("--out file: a file is in the way",)),
    "a folder with files": (("--out", ".", "--stress", "missing"), ("new or empty folder", "it holds file")),
    "too many files": (
        ("--out", "i", "--stress", "spectrum", "--grid", "0:0.5:0.01x0:0.5:0.01", "--seeds", 999999),
        ("2,599,997,401 files", "at most 100,000", "fewer severities or seeds"),
    ),
}


@pytest.mark.parametrize("case", BAD_EXPORT)
def test_bad_exports_are_one_line(case: str, msabench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    arguments, words = BAD_EXPORT[case]
    assert_refused(msabench("export", *SMALL, *arguments), words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def assert_refused(ran: Any, words: tuple[str, ...]) -> None:
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("msabench: ")
    for word in words:
        assert word in ran.err, ran.err


def test_an_export_that_does_not_fit(msabench, monkeypatch, tmp_path: Path) -> None:
    full = shutil._ntuple_diskusage(10**12, 10**12 - 12_345, 12_345)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    ran = msabench("export", *ASKED, "--out", "i")
    assert_refused(ran, ("i: 3 files of 428.2 kB need 1.3 MB more, the disk has 12.3 kB free", "fewer severities"))
    assert list(tmp_path.iterdir()) == []


BAD_SCORE: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no predictions": ({"--predictions": None}, ("--predictions", "msabench score --help")),
    "no model": ({"--model": None}, ("--model", "msabench score --help")),
    "no such file": ({"--predictions": "p.csv"}, ("p.csv: there is no such file",)),
    "no export": ({"--inputs": "."}, ("manifest.json: cannot be read", "expected the folder of an msabench export")),
    "a run as inputs": ({"--inputs": "run"}, ("not the manifest of an export",)),
    "a model's own name": ({"--model": "qa_moe"}, ("qa_moe is a model of msabench", "qa_moe-theirs")),
    "a file in the way": ({"--out": "predictions.csv"}, ("a file is in the way",)),
    "a training seed that is a word": ({"--train-seed": "one"}, ("--train-seed",)),
    "columns": ({"--predictions": "columns.csv"}, ("expected the columns cell, id, prediction", "it has a, b")),
    "an id is missing": (
        {"--predictions": "short.csv"},
        ("short.csv: 1 ids without a prediction (missing-0.4-1112: ", "expected one row for each of 40 ids"),
    ),
    "objects": ({"--predictions": "objects.npz"}, ("cell holds Python objects", ".astype(str)")),
    "a pickle": ({"--predictions": "pickle.npz"}, ("pickle.npz: cannot be read as npz",)),
}


@pytest.mark.parametrize("case", BAD_SCORE)
def test_bad_scores_are_one_line(case: str, msabench, exported, tmp_path: Path) -> None:
    changes, words = BAD_SCORE[case]
    lines = predict_all().read_text("utf-8").splitlines(keepends=True)
    Path("short.csv").write_text("".join(lines[:-1]), "utf-8")
    Path("columns.csv").write_text("a,b\n1,2\n", "utf-8")
    Path("pickle.npz").write_bytes(pickle.dumps({"cell": Hostile()}))
    objects = np.array([Hostile()] * 2, object)
    np.savez("objects.npz", allow_pickle=True, cell=objects, id=objects, prediction=objects)
    Path("run").mkdir()
    Path("run/manifest.json").write_text('{"format": 1}', "utf-8")
    before = sorted(tmp_path.rglob("*"))
    options = {"--inputs": "inputs", "--predictions": "predictions.csv", "--model": "m", "--out": "r", **changes}
    given = [text for name, value in options.items() if value is not None for text in (name, value)]
    assert_refused(msabench("score", *given), words)
    assert sorted(tmp_path.rglob("*")) == before


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("owned",))


@pytest.mark.parametrize("command", ["export", "score"])
def test_help_shows_examples_that_are_understood(command: str, msabench) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", msabench(command, "--help").out)
    assert f"Usage: msabench {command}" in text
    assert f"msabench {command} --" in text.partition("[OPTIONS]")[2]
    assert re.search(rf"│ {command} ", re.sub(r"\x1b\[[0-9;]*m", "", msabench("--help").out))


def test_the_example_of_the_help(msabench) -> None:
    example = "msabench export --stress missing --grid 0:0.8:0.2 --out inputs"
    from robustbench_msa.cli.export import EPILOG

    assert example in EPILOG
    assert msabench(*shlex.split(example)[1:], *SMALL, "--seeds", 1, "--quiet").code == 0
    assert len(list(Path("inputs").iterdir())) == 6


@pytest.fixture
def mmsa_file(tmp_path: Path) -> None:
    """``aligned_50.pkl``, a tiny one."""
    rng = np.random.default_rng(0)
    data = {
        split: {
            "id": [f"{split}{i // 2}$_${i}" for i in range(n)],
            **{m: rng.normal(size=(n, 5, d)).astype(np.float32) for m, d in (("text", 4), ("audio", 3), ("vision", 2))},
            "text_bert": np.stack([rng.integers(1000, 2000, (n, 7)), *np.ones((2, n, 7), int)], axis=1),
            "regression_labels": rng.uniform(-3, 3, n).astype(np.float32),
        }
        for split, n in (("train", 12), ("valid", 6), ("test", 8))
    }
    Path(tmp_path / "aligned_50.pkl").write_bytes(pickle.dumps(data))


def test_the_page_works_as_typed(msabench, mmsa_file) -> None:
    """docs/bridge.md from its first command to its last, and every cell of it."""
    assert msabench(*shlex.split(block("sh", "msabench export"))[1:]).code == 0
    cells = 1 + 3 * (4 + 5 + 4)
    assert len(list(Path("inputs").glob("*.npz"))) == cells
    exec(compile(block("python", "csv.writer"), "bridge.md", "exec"), {"predict": predict})
    assert len(pd.read_csv("predictions.csv")) == 8 * cells
    ran = msabench(*shlex.split(block("sh", "msabench score"))[1:])
    assert ran.code == 0, ran.err
    assert f"{2 * cells} cells added, 0 already there -> reports/mosi-rider" in ran.out
    assert "their_model" in ran.out


def test_the_page_on_mmsa_files(msabench, mmsa_file) -> None:
    export = shlex.split(block("sh", "msabench export").replace("rider --seeds 3", "seven-subsets"))[1:]
    assert msabench(*export, "--format", "mmsa", "--quiet").code == 0
    exec(compile(block("python", "pickle.load"), "bridge.md", "exec"), {})
    original, changed = (read_mmsa(Path(name)) for name in ("aligned_50.pkl", "with-missing-fixed-t.pkl"))
    assert changed.splits["train"].audio.equal(original.splits["train"].audio)
    assert changed.splits["test"].text.equal(original.splits["test"].text)
    assert not changed.splits["test"].audio.any()
    assert changed.splits["test"].present.tolist() == [[True, False, False]] * 8


def test_text_as_tokens(msabench, mmsa_file) -> None:
    asked = ("--dataset", "mosi", "--data", "aligned_50.pkl", "--stress", "noise-lambda", "--grid", "1", "--seeds", 1)
    assert msabench("export", *asked, "--text", "tokens", "--out", "inputs", "--quiet").code == 0
    x = np.load("inputs/noise-lambda-1-1111.npz", allow_pickle=False)
    assert x["text"].tolist() == [[103] * 7] * 8, "every token is [MASK]"
    assert msabench("export", *asked, "--out", "features", "--quiet").code == 0
    assert np.load("features/clean.npz", allow_pickle=False)["text"].shape == (8, 5, 4)
    refused = msabench("export", *asked, "--out", "inputs", "--quiet")
    assert refused.code == 2
    assert "holds another export" in refused.err


def test_the_page_names_every_array(msabench, exported) -> None:
    with np.load("inputs/clean.npz", allow_pickle=False) as x:
        for name in x.files:
            assert f"`{name}`" in DOC


KILLED = ("export", "--stress", "noise", "--seeds", "4", "--dataset", "synth:train=60,valid=20,test=200")


def test_kill_9_costs_no_file_and_no_byte(msabench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle, the same command ends with the same bytes, the manifest's too, as if never stopped."""
    whole = {}
    for folder in ("undisturbed", "killed"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        there = killed_with(6) if folder == "killed" else 0
        ran = msabench(*KILLED, "--out", "inputs", "--json")
        assert ran.code == 0, ran.err
        kept = json.loads(ran.out)["files"]["kept"]
        assert there - 1 <= kept <= there, "all but the file that the manifest had not heard of"
        whole[folder] = {path.name: path.read_bytes() for path in Path("inputs").iterdir()}
    assert len(whole["killed"]) == 1 + 5 * 4 + 1
    assert whole["killed"] == whole["undisturbed"]


def killed_with(files: int) -> int:
    """Starts the export in a process of its own and kills it when so many files are there. How many there are."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robustbench_msa.cli.main", *KILLED, "--out", "inputs", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        limit = time.monotonic() + 90
        while len(list(Path("inputs").glob("*.npz"))) < files:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.0005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    there = len(list(Path("inputs").glob("*.npz")))
    assert files <= there < 21
    json.loads(Path("inputs/manifest.json").read_text("utf-8"))
    return there
