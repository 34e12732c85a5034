"""Models from outside through the main job and the command line, to the tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from corruptions import InputError
from robustbench_msa import benchmark
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth

ROOT = Path(__file__).parents[2]
PROGRAM = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, text, audio, vision):
        return self.scale * text.mean((1, 2))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(PROGRAM, "utf-8")
    torch.save({"state_dict": {"scale": torch.tensor([3.0])}}, "best.pth")


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    return make_synth(sizes=(60, 20, 40))


def run(tiny: Dataset, **changes: object):  # type: ignore[no-untyped-def]
    given = {"checkpoint": "best.pth", "name": "mine", "seeds": 1, "dataset": tiny, "references": False, "out": "r"}
    return benchmark("mine.py:Mean", "missing", "0,0.4", **(given | changes))


def test_the_same_call_continues_and_a_changed_model_is_another(tiny: Dataset) -> None:
    assert run(tiny).tally.computed == 2
    again = run(tiny)
    assert (again.tally.computed, again.tally.reused) == (0, 2)
    torch.save({"state_dict": {"scale": torch.tensor([4.0])}}, "best.pth")
    assert run(tiny).tally.computed == 2
    Path("mine.py").write_text(PROGRAM + "# a changed file\n", "utf-8")
    assert run(tiny).tally.computed == 2
    assert set(run(tiny).curves["model"]) == {"mine"}
    checkpoints = json.loads(Path("r/manifest.json").read_text("utf-8"))["checkpoints"]
    assert len(checkpoints) == 3
    assert {about["selection"]["split"] for about in checkpoints.values()} == {"unknown"}


def test_nothing_is_written_where_the_model_cannot_be_used(tiny: Dataset) -> None:
    Path("mine.py").write_text(PROGRAM.replace("text.mean((1, 2))", "text"), "utf-8")
    with pytest.raises(InputError, match=r"Mean.forward gives \(3, 24, 48\); expected \(3,\) or \(3, 1\) scores"):
        run(tiny)
    assert not Path("r").exists()


def test_beside_models_of_msabench(tiny: Dataset) -> None:
    result = benchmark(
        ["late_fusion", "mine.py:Mean"], "missing", "0,0.4", dataset=tiny, seeds=1, out="both", references=False
    )
    assert set(result.nauc["model"]) == {"late_fusion", "mine.Mean"}
    assert result.cells.groupby("stress")["input_digest"].nunique().eq(1).all()


def test_at_its_worst(tiny: Dataset) -> None:
    result = benchmark("mine.py:Mean", "worst-case", "0,0.1", dataset=tiny, seeds=1, out="w", references=False)
    assert result.tally.complete
    mae = result.curves.query("metric == 'mae' and seed.isna() or stress == 'clean' and metric == 'mae'")["value"]
    assert mae.max() > mae.min()


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robustbench_msa.cli.main", "run", "--stress", "missing", "--grid", "0,0.4"]
    command += ["--dataset", "synth:train=40,valid=8,test=20", "--seeds", "1", "--no-plots", "--no-references"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def test_typed(tmp_path: Path) -> None:
    done = typed("--model", "mine.py:Mean", "--checkpoint", "best.pth", "--name", "mine", "--json", "--out", "r")
    assert done.returncode == 0, done.stderr
    assert {row["model"] for row in json.loads(done.stdout)["nauc"]} == {"mine"}
    assert "msabench: runs the model mine.py:Mean: a program from outside, with your rights" in done.stderr
    import argparse

    torch.save({"state_dict": {"scale": torch.ones(1)}, "args": argparse.Namespace()}, "args.pth")
    done = typed("--model", "mine.py:Mean", "--checkpoint", "args.pth", "--out", "r")
    assert done.returncode == 2
    assert "args.pth: it asks for argparse.Namespace" in done.stderr
    done = typed("--model", "mine.py:Mean", "--checkpoint", "args.pth", "--out", "r", "--trust-checkpoint")
    assert done.returncode == 0, done.stderr
