"""What the commands print and write, on a tiny run."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.run import benchmark

PNG, PDF = b"\x89PNG", b"%PDF"
QUICK = ("--seeds", 1, "--no-plots")


@pytest.fixture(scope="module")
def kept(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two stresses."""
    out = tmp_path_factory.mktemp("kept") / "r"
    tiny = make_synth(sizes=(60, 20, 40))
    for stress, grid in (("missing", "0:0.8:0.4"), ("spectrum", "0,0.3x0,0.3,0.6")):
        command = f"msabench run --model late_fusion --stress {stress} --grid {grid}"
        benchmark(
            "late_fusion", stress, grid, checkpoint=checkpoint.path, dataset=tiny, seeds=1, out=out, command=command
        )
    return out


@pytest.fixture
def done(kept: Path, msabench) -> Path:
    """A copy of it in the folder ``r``."""
    return Path(shutil.copytree(kept, "r"))


def test_run_prints_tables_and_writes_everything(run) -> None:
    ran = run("--stress", "missing", "--grid", "0:0.8:0.4", "--seeds", 2, "--out", "r")
    assert ran.code == 0, ran.err
    assert "15 cells computed, 0 already there -> r" in ran.out  # 3 models, each clean and 2 severities of 2 seeds
    for words in ("nAUC", "MAE", "Corr", "Late fusion", "hance", "racle", "0.4", "0.8"):
        assert words in ran.out
    assert "msabench leaderboard r" in ran.out
    r = Path("r")
    assert len(list((r / "predictions").glob("*.parquet"))) == 15
    for table in ("curves", "nauc", "cells", "plan"):
        assert len(pd.read_parquet(r / table)) > 0
    assert len(pd.read_parquet(r / "cells")) == len(pd.read_parquet(r / "plan")) == 15
    assert (r / "figures" / "curves.png").read_bytes().startswith(PNG)
    assert (r / "figures" / "curves.pdf").read_bytes().startswith(PDF)
    assert not [p for p in r.rglob("*") if ".tmp-" in p.name]


def test_the_manifest_says_what_was_run_on_what(run, checkpoint: Checkpoint) -> None:
    assert run("--stress", "missing", *QUICK, "--quiet", "--out", "r").code == 0
    manifest = json.loads(Path("r/manifest.json").read_text("utf-8"))
    (command,) = manifest["commands"]
    assert command.startswith("msabench run --model late_fusion --dataset synth:train=60,valid=20,test=40 --stress")
    assert manifest["dataset"]["data"] == checkpoint.config["dataset"]["fingerprint"]
    assert manifest["dataset"]["split"] == "test"
    assert manifest["checkpoints"][checkpoint.identity]["weights_sha256"] == checkpoint.weights_sha256
    assert manifest["requests"] == [{"stress": "missing", "grid": "0:0.8:0.2", "seeds": [1111]}]
    assert set(manifest["versions"]) >= {"msabench", "python", "torch", "numpy", "pandas", "pyarrow"}
    assert {"profile", "protocols", "commit"} <= set(manifest)


def test_json_output(run) -> None:
    ran = run("--stress", "missing", *QUICK, "--json", "--out", "r")
    assert ran.code == 0
    assert ran.err == ""
    record = json.loads(ran.out)
    assert record["complete"] is True
    assert record["cells"] == {"planned": 15, "reused": 0, "computed": 15, "failed": 0}
    assert record["out"] == "r"
    ours = [r for r in record["nauc"] if r["model"] == "late_fusion" and r["metric"] == "mae"]
    stored = pd.read_parquet("r/nauc").query("model == 'late_fusion' and metric == 'mae'")
    assert len(ours) == len(stored) == 1
    assert ours[0]["nauc"] == pytest.approx(stored["nauc"].item(), rel=1e-12)
    chance = next(r for r in record["nauc"] if r["model"] == "chance" and r["metric"] == "corr")
    assert chance["train_seed"] is None
    assert chance["nauc"] == 0
    again = json.loads(run("--stress", "missing", *QUICK, "--json", "--out", "r").out)
    assert again["cells"] == {"planned": 15, "reused": 15, "computed": 0, "failed": 0}
    assert again["nauc"] == record["nauc"]


def test_quiet_prints_nothing(run) -> None:
    ran = run("--stress", "missing-fixed", "--quiet", "--out", "r")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert Path("r/figures/curves.png").is_file()


def test_figures_for_one_and_two_axes(run) -> None:
    run("--stress", "missing", "--grid", "0,0.4", *QUICK, "--quiet", "--out", "r")
    ran = run("--stress", "spectrum:told=true", "--grid", "0,0.3x0,0.4", "--seeds", 1, "--json", "--out", "r")
    figures = json.loads(ran.out)["figures"]
    assert len(figures) == 2
    for figure in map(Path, figures):
        assert figure.read_bytes().startswith(PNG)
        assert figure.with_suffix(".pdf").read_bytes().startswith(PDF)
        assert figure.with_suffix(".csv").is_file()


@pytest.mark.parametrize("grid", ["0", "0.4"])
def test_a_grid_of_one_point_is_a_run_too(grid: str, run) -> None:
    ran = run("--stress", "missing", "--grid", grid, "--seeds", 1, "--out", "r")
    assert ran.code == 0, ran.err
    assert pd.read_parquet("r/nauc")["nauc"].isna().all()


def test_the_default_folder_and_a_second_split(run) -> None:
    assert run("--stress", "missing-random:told=true", "--grid", "0,0.3", *QUICK, "--quiet").code == 0
    assert run("--stress", "conflict", "--grid", "0,1", *QUICK, "--quiet", "--split", "valid").code == 0
    assert sorted(p.name for p in Path("reports").iterdir()) == [
        "synth-conflict-valid",
        "synth-missing-random-told-true",
    ]


def test_scores_on_valid_are_those_of_the_checkpoint(run, checkpoint: Checkpoint) -> None:
    assert run("--stress", "missing", "--grid", "0,0.4", *QUICK, "--quiet", "--split", "valid", "--out", "r").code == 0
    curves = pd.read_parquet("r/curves").query("model == 'late_fusion' and stress == 'clean'")
    scores = checkpoint.config["validation"]
    assert set(curves["metric"]) == set(scores)
    for name, value in scores.items():
        assert curves.query("metric == @name")["value"].item() == pytest.approx(value, abs=1e-4), name


def test_without_references(run) -> None:
    run("--stress", "missing", *QUICK, "--quiet", "--no-references", "--out", "r")
    assert set(pd.read_parquet("r/nauc")["model"]) == {"late_fusion"}


def test_a_checkpoint_by_its_folder(msabench, checkpoint: Checkpoint) -> None:
    small = ("--dataset", "synth:train=60,valid=20,test=40")
    ran = msabench(
        "run", "--checkpoint", checkpoint.path, *small, "--stress", "missing", *QUICK, "--json", "--out", "r"
    )
    assert {row["model"] for row in json.loads(ran.out)["nauc"]} == {"late_fusion", "chance", "oracle"}


def test_long_paths_stay_on_one_line(run, tmp_path: Path) -> None:
    """What is printed to be copied must be copied whole, also off a terminal."""
    out = tmp_path / ("a-folder-whose-name-is-long-" * 4) / "[run] 1"
    ran = run("--stress", "missing", "--grid", "0,0.4", "--seeds", 1, "--out", out)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert any(f"-> {out}" in line for line in lines)
    assert any("msabench leaderboard" in line and str(out) in line.replace("'", "") for line in lines)
    assert any(f"{out / 'figures' / 'curves'}.png" in line for line in lines)


@pytest.mark.parametrize("name", ["[red]", "[/red]", "[run] 1"])
def test_brackets_in_a_folders_name_are_no_markup(name: str, run) -> None:
    ran = run("--stress", "missing", "--grid", "0,0.4", *QUICK, "--out", name)
    assert ran.code == 0, ran.err
    assert f"-> {name}" in ran.out


def test_leaderboard_in_every_format(done: Path, msabench) -> None:
    terminal = msabench("leaderboard", done)
    markdown = msabench("leaderboard", done, "--format", "markdown")
    text = msabench("leaderboard", done, "--format", "csv")
    latex = msabench("leaderboard", done, "--format", "latex")
    for ran in (terminal, markdown, text, latex):
        assert (ran.code, ran.err) == (0, "")
    assert "issing" in terminal.out
    rows = [line for line in markdown.out.splitlines() if line.startswith("|")]
    assert len(rows) >= 5  # header, rule, three models
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1
    table = list(csv.reader(io.StringIO(text.out)))
    assert len({len(row) for row in table}) == 1
    assert latex.out.count(r"\begin{tabular") == latex.out.count(r"\end{tabular") == 1
    assert r"\bottomrule" in latex.out


def test_leaderboard_to_a_file_and_as_json(done: Path, msabench) -> None:
    ran = msabench("leaderboard", done, "--format", "latex", "--out", "table.tex")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    printed = msabench("leaderboard", done, "--format", "latex").out
    assert Path("table.tex").read_text("utf-8") == printed
    rows = json.loads(msabench("leaderboard", done, "--json").out)
    assert {row["stress"] for row in rows} == {"missing", "spectrum"}


def test_leaderboard_of_one_metric_and_sorted(done: Path, msabench) -> None:
    ran = msabench("leaderboard", done, "--metric", "corr", "--sort", "missing", "--format", "csv")
    assert ran.code == 0
    frame = pd.read_csv(io.StringIO(ran.out))
    assert set(frame["metric"]) == {"corr"}
    assert len(frame) == 3 * 2
    for wrong, word in (
        (("--metric", "acc9"), "acc9"),
        (("--sort", "nois"), "nois"),
        (("--format", "xls"), "terminal"),
    ):
        bad = msabench("leaderboard", done, *wrong)
        assert bad.code == 2
        assert bad.err.count("\n") == 1
        assert word in bad.err


@pytest.mark.parametrize(
    ("kind", "stems"),
    [("curves", ["curves"]), ("landscape", ["landscape-spectrum-acc7", "landscape-spectrum-mae"])],
)
def test_plot_writes_png_pdf_and_csv(kind: str, stems: list[str], done: Path, msabench) -> None:
    ran = msabench("plot", kind, done, "--metric", "acc7", "--metric", "mae", "--out", "figures here")
    assert ran.code == 0, ran.err
    folder = Path("figures here")
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{s}.{e}" for s in stems for e in ("csv", "pdf", "png"))
    for stem in stems:
        assert (folder / f"{stem}.png").read_bytes().startswith(PNG)
        assert (folder / f"{stem}.pdf").read_bytes().startswith(PDF)
        assert len(pd.read_csv(folder / f"{stem}.csv")) > 3
        assert f"{stem}.png" in ran.out


def test_plot_of_what_is_not_there(run, msabench) -> None:
    run("--stress", "missing", "--grid", "0,0.4", *QUICK, "--quiet", "--out", "r")
    ran = msabench("plot", "landscape", "r")
    assert ran.code == 2
    assert "no landscape to draw" in ran.err
    assert msabench("plot", "curves", "r", "--metric", "acc9").code == 2
    assert not Path("r/figures").exists()


LISTS = {
    "models": {"late_fusion", "qa_moe", "rider_moe", "chance", "oracle"},
    "datasets": {"synth", "mosi", "mosei", "sims", "simsv2"},
    "stresses": {"noise", "missing", "conflict", "missing-fixed", "missing-random", "noise-lambda", "spectrum"},
    "protocols": {"rider", "qa_moe"},
}


@pytest.mark.parametrize("kind", ["models", "datasets", "stresses"])
def test_list_has_what_plug_ins_offer(kind: str, msabench, monkeypatch) -> None:
    entries = [EntryPoint("theirs", "their.package:thing", f"msabench.{kind.replace('stresses', 'stressors')}")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in entries if e.group == group])
    ran = msabench("list", kind)
    assert (ran.code, ran.err) == (0, "")  # nothing of it is run, so nothing is said
    assert re.search(r"theirs .*a plug-in \(their\.package:thing\)", ran.out)
    (row,) = [row for row in json.loads(msabench("list", kind, "--json").out) if row["name"] == "theirs"]
    assert "a plug-in (their.package:thing)" in row.values()


@pytest.mark.parametrize("what", LISTS)
def test_list(what: str, msabench) -> None:
    plain, as_json = msabench("list", what), msabench("list", what, "--json")
    assert (plain.code, plain.err, as_json.code, as_json.err) == (0, "", 0, "")
    rows = json.loads(as_json.out)
    assert {row["name"] for row in rows} >= LISTS[what]
    for row in rows:
        assert row["name"][:8] in plain.out
        assert len(row) > 1


def test_list_checkpoints(checkpoint: Checkpoint, shelf: Path, msabench) -> None:
    rows = json.loads(msabench("list", "checkpoints", "--json").out)
    ours = [row for row in rows if row["path"] == str(checkpoint.path)]
    assert len(ours) == 1
    assert ours[0]["valid MAE"] == pytest.approx(checkpoint.config["validation"]["mae"], abs=1e-9)
    assert "late_fusion" in msabench("list", "checkpoints").out


def test_an_unreadable_checkpoint_is_named_and_skipped(msabench, monkeypatch, tmp_path: Path) -> None:
    bad = tmp_path / "shelf" / "synth" / "late_fusion" / "clean" / "1"
    bad.mkdir(parents=True)
    (bad / "config.json").write_text("{", "utf-8")
    (bad / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv("MSABENCH_CHECKPOINTS", str(tmp_path / "shelf"))
    ran = msabench("list", "checkpoints", "--json")
    assert ran.code == 0
    assert all(row["path"] != str(bad) for row in json.loads(ran.out))
    assert ran.err.startswith("msabench: skipped: ")
    assert str(bad) in ran.err


def test_status_of_a_finished_run(done: Path, msabench) -> None:
    ran = msabench("status", done)
    assert (ran.code, ran.err) == (0, "")
    assert "late_fusion" in ran.out
    record = json.loads(msabench("status", done, "--json").out)
    assert record["complete"] is True
    assert record["done"] == record["planned"] == 3 * (1 + 2 + 5)
    assert record["failures"] == {}


def test_status_of_an_unfinished_run(done: Path, msabench) -> None:
    cells = pd.read_parquet(done / "cells")
    keys = cells.query("model == 'chance' and stress == 'missing'")["key"].tolist()
    for key in keys[:2]:
        (done / "predictions" / f"{key}.parquet").unlink()
    ran = msabench("status", done)
    assert ran.code == 3
    assert re.search(r"all\s+22\s+24", ran.out)
    assert "to continue: msabench run --model late_fusion" in ran.out
    record = json.loads(msabench("status", done, "--json").out)
    assert record["complete"] is False
    assert (record["done"], record["planned"]) == (22, 24)
    (line,) = [x for x in record["lines"] if (x["model"], x["stress"]) == ("chance", "missing")]
    assert (line["done"], line["planned"]) == (0, 2)


def test_a_failed_cell_is_exit_code_3_and_how_to_go_on(run, msabench, monkeypatch) -> None:
    from robustbench_msa.evaluation.runner import Runner

    usual, calls = Runner.run, []

    def fails_once(self: Any, cell: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory\nsecond line")
        return usual(self, cell)

    monkeypatch.setattr(Runner, "run", fails_once)
    arguments = ("--stress", "missing", *QUICK, "--out", "r")
    ran = run(*arguments, "--quiet")
    assert ran.code == 3
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert "1 cells failed" in ran.err
    assert "to continue: msabench run --model late_fusion" in ran.err
    status = msabench("status", "r")
    assert status.code == 3
    assert "RuntimeError: out of memory" in status.out
    ran = run(*arguments, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["cells"] == {"planned": 15, "reused": 14, "computed": 1, "failed": 0}
    assert msabench("status", "r").code == 0


def test_a_damaged_cell_is_computed_again(run, msabench) -> None:
    arguments = ("--stress", "missing", *QUICK, "--out", "r")
    first = json.loads(run(*arguments, "--json").out)
    paths = sorted(Path("r/predictions").iterdir())
    whole = [path.read_bytes() for path in paths[:2]]
    paths[0].write_bytes(whole[0][: len(whole[0]) // 2])
    footer = len(whole[1]) - 8 - int.from_bytes(whole[1][-8:-4], "little")  # where the values end
    paths[1].write_bytes(whole[1][:4] + bytes(b ^ 0xFF for b in whole[1][4:footer]) + whole[1][footer:])
    ran = run(*arguments, "--json")
    assert ran.code == 0, ran.err
    again = json.loads(ran.out)
    assert again["cells"] == {"planned": 15, "reused": 13, "computed": 2, "failed": 0}
    assert again["nauc"] == first["nauc"]
    assert [path.read_bytes() for path in paths[:2]] == whole
    assert msabench("status", "r").code == 0


def test_train_writes_a_checkpoint_that_run_finds(msabench) -> None:
    small = ("--dataset", "synth:train=60,valid=20,test=40")
    train = ("train", "--model", "late_fusion", *small, "--seed", 7, "--epochs", 1)
    ran = msabench(*train, "--json")
    assert ran.code == 0, ran.err
    config = json.loads(ran.out)
    assert config["train_seed"] == 7
    assert config["training"]["command"].startswith("msabench train --model late_fusion")
    assert Path("checkpoints/synth/late_fusion/clean/7/model.safetensors").is_file()
    ran = msabench(
        "run",
        "--model",
        "late_fusion",
        *small,
        "--train-seed",
        "all",
        "--stress",
        "missing",
        *QUICK,
        "--json",
        "--out",
        "r",
    )
    assert ran.code == 0, ran.err
    seeds = [
        r["train_seed"] for r in json.loads(ran.out)["nauc"] if (r["model"], r["metric"]) == ("late_fusion", "mae")
    ]
    assert sorted(seeds, key=str) == [1111, 7, None]


def test_the_reader_of_the_output_may_leave_early(process, tmp_path: Path) -> None:
    """``msabench list stresses | head -1``."""
    ran = process("list", "stresses", cwd=tmp_path, shell="| true")
    assert ran.stderr == ""
    assert ran.returncode == 0


def test_debug_shows_the_traceback(run, msabench, monkeypatch) -> None:
    def broken(self: Any, *arguments: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Store, "write_manifest", broken)
    ran = run("--stress", "missing", *QUICK, "--out", "r")
    assert ran.code == 1
    assert ran.err == (
        "msabench: a bug: ZeroDivisionError: division by zero "
        "(set MSABENCH_DEBUG=1 to see where, and please report it)\n"
    )
    monkeypatch.setenv("MSABENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        msabench("run", "--model", "late_fusion", "--stress", "missing", "--out", "r2")


def test_numerics_are_said_in_every_table(run, msabench) -> None:
    ran = run("--stress", "missing", "--grid", "0,0.4", *QUICK, "--numerics", "bf16", "--out", "r")
    assert ran.code == 0, ran.err
    board = " ".join(msabench("leaderboard", "r", "--format", "markdown").out.split())
    assert "computed in bf16, not in exact float32" in board
    other = run("--stress", "noise", "--grid", "0,0.4", *QUICK, "--out", "r")
    assert (other.code, other.out) == (2, "")
    assert "r holds results of numerics bf16, this run is of float32; choose another --out" in other.err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--numerics", "float16", "numerics: expected one of float32, bf16, compile, bf16+compile; got 'float16'"),
        ("--batch-size", "many", "batch size: expected auto or 1 or more, got many"),
        ("--batch-size", "0", "batch size: expected auto or 1 or more, got 0"),
    ],
)
def test_what_cannot_be_computed_with(option: str, value: str, said: str, run) -> None:
    ran = run("--stress", "missing", "--grid", "0,0.4", *QUICK, option, value, "--out", "r")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not Path("r").exists()
