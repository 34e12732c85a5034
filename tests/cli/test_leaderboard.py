"""``msabench leaderboard``: several runs, scores, ties, published rows, formats, and what it says to wrong input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from robustbench_msa.cli.leaderboard import split_papers

QUICK = ("--seeds", 1, "--no-plots", "--quiet")


@pytest.fixture
def two(run, msabench) -> tuple[Path, Path]:
    """The same model under missing, and under noise, in two folders."""
    for name, stress, grid in (("missing", "missing", "0,0.4,0.8"), ("noise", "noise", "0,0.5")):
        assert run("--stress", stress, "--grid", grid, *QUICK, "--out", name).code == 0
    return Path("missing"), Path("noise")


def test_two_folders_in_every_format(two, msabench, run) -> None:
    assert run("--stress", "missing", "--grid", "0,0.4,0.8", *QUICK, "--out", "both").code == 0
    assert run("--stress", "noise", "--grid", "0,0.5", *QUICK, "--out", "both").code == 0
    for form in ("terminal", "markdown", "csv", "latex", "json"):
        merged, one = (msabench("leaderboard", *folders, "--format", form) for folders in (two, ["both"]))
        assert (merged.code, merged.err) == (0, "")
        assert merged.out == one.out, form
    rows = json.loads(msabench("leaderboard", *two, "--json").out)
    assert {row["stress"] for row in rows} == {"missing", "noise"}
    assert {row["kind"] for row in rows} == {"model", "reference"}
    assert {row["selected_on"] for row in rows if row["kind"] == "model"} == {"valid"}


def test_scores_and_sorting(two, msabench) -> None:
    ran = msabench("leaderboard", *two, "--metric", "mae", "--score", "worst", "--sort", "missing regret", "-f", "csv")
    frame = pd.read_csv(io.StringIO(ran.out))
    assert set(frame["score"]) == {"worst", "regret"}
    assert (frame.loc[(frame["model"] == "oracle") & (frame["score"] == "regret"), "value"] == 0).all()
    clean = msabench("leaderboard", two[0], "--score", "clean", "--metric", "mae", "--no-ties")
    assert "Clean input" in clean.out
    assert "Differences were not tested" in " ".join(clean.out.split())


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_the_terminal(width: int, two, msabench, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = msabench("leaderboard", *two, "--score", "nauc", "--score", "half_life", "--no-ties").out
    assert max(map(len, out.splitlines())) <= width
    assert "Half-life" in out
    assert "Training and selection" in out


def test_published_says_that_there_is_nothing_on_synth(two, msabench) -> None:
    for arguments in (("--published",), ("--published", "emoe")):
        ran = msabench("leaderboard", two[0], *arguments, "-f", "markdown")
        assert ran.code == 0, ran.err
        assert "No published numbers on the synthetic dataset" in ran.out or "No published numbers on synth" in ran.out


def test_a_paper_is_told_from_a_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_papers([Path("r"), Path("emoe")], with_published=True) == ([Path("r")], ["emoe"])
    assert split_papers([Path("r"), Path("emoe")], with_published=False) == ([Path("r"), Path("emoe")], [])
    (tmp_path / "emoe").mkdir()
    assert split_papers([Path("emoe")], with_published=True) == ([Path("emoe")], [])


def test_to_a_file(two, msabench) -> None:
    ran = msabench("leaderboard", *two, "--format", "json", "--out", "board.json")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert Path("board.json").read_text("utf-8") == msabench("leaderboard", *two, "--json").out


def test_what_does_not_belong_together_is_one_line(two, msabench, run) -> None:
    assert run("--stress", "missing", "--grid", "0,0.2", *QUICK, "--out", "shorter").code == 0
    small = ("run", "--model", "late_fusion", "--dataset", "synth:train=60,valid=20,test=30")
    assert msabench(*small, "--stress", "missing", "--grid", "0,0.4,0.8", *QUICK, "--out", "smaller").code == 0
    assert run("--stress", "missing", "--grid", "0,0.4,0.8", "--split", "valid", *QUICK, "--out", "valid").code == 0
    for other, words in (
        ("shorter", "the grid of missing: 0:0.8:0.4 in missing, 0,0.2 in shorter"),
        ("smaller", "the data of synth"),
        ("valid", "split: test in missing, valid in valid"),
    ):
        ran = msabench("leaderboard", "missing", other)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"msabench: missing and {other} do not belong in one table; they differ in ")
        assert words in ran.err
        assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (("--score", "naucc"), "nauc"),
        (("--sort", "cliff_at"), "cannot sort by 'cliff_at'"),
        (("--sort", "burst"), "no column to sort by 'burst'"),
        (("--baseline", "tfn"), "tfn"),
        (("--format", "xls"), "expected terminal, markdown, csv, latex, json"),
        (("--out", "x.txt"), "a file needs one of the last four"),
        (("nowhere",), "nowhere: no manifest.json there"),
        (("--published", "emo"), "emo: no manifest.json there"),
    ],
)
def test_wrong_input_is_one_line(wrong, word, two, msabench) -> None:
    ran = msabench("leaderboard", two[0], *wrong)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert word in ran.err


def test_published_alone_asks_for_a_run(msabench) -> None:
    ran = msabench("leaderboard", "--published", "emoe")
    assert ran.code == 2
    assert "expected the folder of a run" in ran.err


def test_list_published(msabench) -> None:
    plain, as_json = msabench("list", "published"), msabench("list", "published", "--json")
    assert (plain.code, plain.err, as_json.code) == (0, "", 0)
    rows = json.loads(as_json.out)
    assert sum(row["rows"] for row in rows) == 2765
    assert {
        "paper": "qa_moe",
        "table": "9",
        "setting": "spectrum",
        "datasets": "mosi",
        "metrics": "acc7",
        "rows": 64,
    } in rows
    assert "rider_moe: RIDER-MoE: Reliability-Aware Expert Routing" in plain.out


def test_csv_has_a_row_for_every_cell(two, msabench) -> None:
    table = list(csv.DictReader(io.StringIO(msabench("leaderboard", *two, "-f", "csv").out)))
    assert len(table) == 3 * 2 * 3  # late fusion, oracle, chance; two stresses; three metrics
    assert {len(row) for row in table} == {len(table[0])}
