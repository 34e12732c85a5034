"""``msabench compact`` and ``msabench status`` as they are typed."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import typer

from robustbench_msa.cli import main as command_line
from robustbench_msa.cli.compact import compact
from robustbench_msa.cli.status import failures


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is there, also where the command line does not list it yet."""
    names = {command.name for command in command_line.app.registered_commands}
    if "compact" not in names:
        app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
        app.registered_commands = [*command_line.app.registered_commands]
        app.registered_groups = [*command_line.app.registered_groups]
        app.command("compact")(compact)
        monkeypatch.setattr(command_line, "app", app)


def test_a_run_that_is_compacted_goes_on_as_before(run, msabench, tmp_path) -> None:
    arguments = ("--stress", "missing", "--seeds", "2", "--no-references", "--no-plots", "--out", "r", "--json")
    first = json.loads(run("--grid", "0:0.4:0.2", *arguments).out)
    before = pd.read_parquet(tmp_path / "r" / "predictions")
    ran = msabench("compact", "r")
    assert ran.code == 0
    assert ran.out.startswith("5 cells, 5 gathered: 5 files of ")
    assert " -> 1 file of " in ran.out
    after = pd.read_parquet(tmp_path / "r" / "predictions")
    pd.testing.assert_frame_equal(
        *(f.sort_values(["key", "sample_id"], ignore_index=True).drop(columns="extras") for f in (before, after))
    )
    again = json.loads(run("--grid", "0:0.4:0.2", *arguments).out)
    assert again["cells"] == {"planned": 5, "reused": 5, "computed": 0, "failed": 0}
    assert again["nauc"] == first["nauc"]
    more = json.loads(run("--grid", "0:0.6:0.2", *arguments).out)
    assert more["cells"] == {"planned": 7, "reused": 5, "computed": 2, "failed": 0}
    assert msabench("status", "r").code == 0
    found = json.loads(msabench("compact", "r", "--json").out)
    assert (found["cells"], found["files"]) == (7, [3, 1])
    assert msabench("compact", "r", "--quiet").out == ""


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_one_line(folder, msabench) -> None:
    ran = msabench("compact", folder)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "no manifest.json there; expected the folder of an msabench run" in ran.err


def test_status_counts_by_model_and_stress(run, msabench, tmp_path) -> None:
    run("--stress", "missing", "--grid", "0:0.4:0.2", "--seeds", "2", "--no-references", "--no-plots", "--out", "r")
    paths = sorted((tmp_path / "r" / "predictions").iterdir())
    for path in paths[:2]:
        path.unlink()
    failures_folder = tmp_path / "r" / "failures"
    failures_folder.mkdir()
    (failures_folder / f"{paths[0].stem}.json").write_text(json.dumps({"message": "RuntimeError: no memory"}), "utf-8")
    ran = msabench("status", "r")
    assert ran.code == 3
    assert {"model", "recipe", "stress", "done", "failed", "missing", "planned"} <= set(ran.out.split())
    (total,) = [line.split() for line in ran.out.splitlines() if line.strip().startswith("all")]
    assert total == ["all", "3", "5", "1", "1"]
    assert f"failed  {paths[0].stem}: RuntimeError: no memory" in ran.out
    record = json.loads(msabench("status", "r", "--json").out)
    assert sum(line["failed"] for line in record["lines"]) == 1


def test_failures_are_shown_by_what_went_wrong() -> None:
    many = {f"{i:04}": f"RuntimeError: {i % 40}" for i in range(1000)}
    lines = failures(many)
    assert len(lines) == 21
    assert lines[0] == "0000 and 24 more: RuntimeError: 0"
    assert lines[-1] == "... and 20 more ways to fail (--json has all)"
    assert failures({}) == []
