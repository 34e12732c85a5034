"""``msabench profile``: tables that fit, files that can be read back, refusals before anything is measured."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustbench_msa.cli.profile import HEADS, WIDTH, _of_checkpoint
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.registry import model_class
from robustbench_msa.training.train import train

FAST = ("--repeats", "2", "--warmup", "1", "--no-memory", "--device", "cpu")
SMALL = ("--dims", "6,5,4", "--steps", "3,4,5", "--batch-size", "2")


@pytest.fixture
def rows(msabench) -> Callable[..., list[dict]]:
    def run(*arguments: object) -> list[dict]:
        ran = msabench("profile", *arguments, *FAST, "--json")
        assert (ran.code, ran.err) == (0, "")
        return json.loads(ran.out)["rows"]

    return run


def test_the_table_fits_and_says_where_it_was_measured(msabench) -> None:
    ran = msabench("profile", "-m", "late_fusion", "-m", "vision_only", "-m", "text_moe", *FAST)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= WIDTH
    lines = ran.out.splitlines()
    assert lines[1].split() == " ".join(HEADS).split()
    at = [line.split() for line in lines[3:9]]
    assert [words[0] for words in at[::2]] == ["late_fusion:synth", "vision_only:synth", "text_moe:synth"]
    assert [words[4 if i % 2 == 0 else 0] for i, words in enumerate(at)] == ["16", "64"] * 3
    text = " ".join(ran.out.split())
    for words in ("2 calls after 1", "torch threads", "text, audio, vision 24x48 40x24 32x16", "cores"):
        assert words in text
    assert ran.err.splitlines()[-1].endswith("9 of 9")


def test_sizes_come_from_preset_and_dims(rows) -> None:
    (at,) = rows("--model", "late_fusion", "--preset", "synth", *SMALL)
    cls = model_class("late_fusion")
    model = cls(InputSpec((6, 5, 4)), cls.presets["synth"])
    assert at["parameters"] == at["active_parameters"] == sum(p.numel() for p in model.parameters())
    h = 64  # a layer from the mean over time and another, for each modality; then 3 h to h, h to h, h to 1
    assert at["flops_per_sample"] == 2 * ((6 + 5 + 4) * h + 3 * h * h + 3 * h * h + h * h + h)
    np.testing.assert_allclose(at["samples_per_second"], 1000 * at["batch_size"] / at["latency_median_ms"])
    assert (at["label"], at["checkpoint"], at["peak_memory_mib"]) == ("late_fusion:synth", None, None)
    assert rows("--model", "late_fusion", *SMALL)[0]["preset"] == "mosi", "dims of one's own are no synth's"


def test_a_checkpoint_brings_its_sizes(rows, checkpoint: Checkpoint) -> None:
    (at,) = rows("--checkpoint", checkpoint.path, "--batch-size", 2)
    assert (at["label"], at["model"], at["checkpoint"]) == ("late_fusion/synth", "late_fusion", str(checkpoint.path))
    assert at["parameters"] == checkpoint.config["parameters"]
    both = rows("-m", "vision_only", "-m", "late_fusion", "-c", checkpoint.path, "--batch-size", 2)
    assert [row["label"] for row in both] == ["vision_only:synth", "late_fusion/synth"]


def test_a_dataset_is_the_input_and_brings_derived_inputs(msabench, rows) -> None:
    data = ("--dataset", "synth-explained:train=8,valid=4,test=6", "--batch-size", "6")
    (explained,) = rows("--model", "text_moe", *data)
    (plain,) = rows("--model", "text_moe", "--batch-size", "6")
    assert explained["preset"] == plain["preset"] == "synth"
    assert explained["parameters"] > plain["parameters"]
    ran = msabench("profile", "-m", "late_fusion", *data, *FAST)
    assert "Input: synth-explained:train=8,valid=4,test=6, test split." in " ".join(ran.out.split())


def test_a_checkpoint_on_token_ids_reads_ids(rows, encoder_folder: Path, token_file: Path, tmp_path: Path) -> None:
    from robustbench_msa.data.registry import load_dataset

    dataset = load_dataset("mosi", token_file, "tokens")
    folder = tmp_path / "made"
    trained = train("late_fusion", dataset, out=folder, epochs=1, preset="synth", text_backbone=str(encoder_folder))
    (random,) = rows("--checkpoint", folder, "--batch-size", "4", "--steps", "12,3,3")
    (real,) = rows("--checkpoint", folder, "--batch-size", "4", "--dataset", "mosi", "--data", token_file)
    assert random["parameters"] == real["parameters"] > trained.config["parameters"] + 30_000
    subject = _of_checkpoint(folder, lambda tokens: None, None, (12, 3, 3))
    hollow = subject.hollow()
    assert all(p.is_meta for p in hollow.parameters())
    assert {n: p.shape for n, p in hollow.named_parameters()} == {
        n: p.shape for n, p in subject.build().named_parameters()
    }
    assert random["flops_per_sample"] >= real["flops_per_sample"] > 100_000, "text of full length and shorter text"


def test_memory_is_measured_and_shown(msabench) -> None:
    arguments = ("--repeats", "1", "--warmup", "1", "--device", "cpu", "--json")
    (at,) = json.loads(msabench("profile", "-m", "late_fusion", *SMALL, *arguments).out)["rows"]
    assert at["peak_memory_mib"] > at["base_memory_mib"] > 10


def test_csv_and_json_hold_the_same_rows(msabench) -> None:
    ran = msabench("profile", "-m", "late_fusion", "-m", "qa_moe", *FAST, "--out", "cost.csv")
    assert ran.out == "cost.csv\n"
    table = list(csv.DictReader(io.StringIO(Path("cost.csv").read_text("utf-8"))))
    assert [(row["model"], row["batch_size"]) for row in table] == [
        *(("late_fusion", "16"), ("late_fusion", "64"), ("qa_moe", "16"), ("qa_moe", "64"))
    ]
    assert all(row["cpu"] and row["torch"] for row in table)
    assert msabench("profile", "-m", "late_fusion", *FAST, "--out", "cost.json").code == 0
    written = json.loads(Path("cost.json").read_text("utf-8"))
    assert list(written["rows"][0]) + list(written["measured"]) == list(table[0])


def test_markdown_is_a_table(msabench) -> None:
    ran = msabench("profile", "-m", "late_fusion", *FAST, "--format", "markdown", "--quiet")
    assert ran.err == ""
    caption, _, table = ran.out.partition("\n\n")
    assert "torch threads" in caption
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    assert lines[0] == list(HEADS)
    assert lines[2][0] == r"late\_fusion:synth"
    assert len(lines) == 4
    assert len({len(line) for line in table.splitlines()}) == 1


REFUSED = {
    "nothing": ((), ("no model", "msabench list models")),
    "unknown model": (("-m", "late_fusoin"), ("did you mean 'late_fusion'",)),
    "reference": (("-m", "chance"), ("chance is a reference",)),
    "unknown preset": (("-m", "late_fusion", "--preset", "msoi"), ("unknown preset 'msoi'", "did you mean")),
    "tokens without checkpoint": (("-m", "qa_moe-tokens"), ("expected a --checkpoint",)),
    "no such checkpoint": (("-c", "nowhere"), ("nowhere: expected a checkpoint",)),
    "two dims": (("-m", "late_fusion", "--dims", "6,5"), ("--dims: expected three whole numbers", "'6,5'")),
    "steps of 0": (("-m", "late_fusion", "--steps", "0,5,5"), ("--steps: expected three whole numbers",)),
    "data alone": (("-m", "late_fusion", "--data", "x.pkl"), ("--data: expected --dataset",)),
    "dims and data": (("-m", "late_fusion", "-d", "synth", "--dims", "6,5,4"), ("the dataset has its own",)),
    "large batch": (
        ("-m", "late_fusion", "-d", "synth:train=9,valid=4,test=6", "--batch-size", "7"),
        ("--batch-size 7: synth's test split has 6 samples",),
    ),
    "batch of 0": (("-m", "late_fusion", "--batch-size", "0"), ("batch size: expected 1 or more, got 0",)),
    "no repeats": (("-m", "late_fusion", "--repeats", "0"), ("repeats: expected 1 or more, got 0",)),
    "device": (("-m", "late_fusion", "--device", "tpu"), ("expected auto, cpu or cuda; got 'tpu'",)),
    "format": (("-m", "late_fusion", "--format", "latex"), ("expected terminal, markdown, csv, json",)),
    "file of no format": (("-m", "late_fusion", "--out", "cost.txt"), ("--format: expected", ".md, .csv or .json")),
    "out below a file": (("-m", "late_fusion", "--out", "file/cost.md"), ("--out file/cost.md", "in the way")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_nothing_is_written(case: str, msabench) -> None:
    arguments, words = REFUSED[case]
    Path("file").write_text("mine", "utf-8")
    ran = msabench("profile", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("msabench: ")
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_a_checkpoint_refuses_what_is_not_its_own(msabench, checkpoint: Checkpoint) -> None:
    for arguments, words in {
        ("--preset", "synth"): "a checkpoint brings its own sizes",
        ("--dims", "6,5,4"): "late_fusion/synth: the checkpoint has dims (48, 24, 16)",
        ("--model", "qa_moe"): "holds a late_fusion, but --model says qa_moe",
    }.items():
        ran = msabench("profile", "--checkpoint", checkpoint.path, *arguments)
        assert ran.code == 2
        assert words in ran.err


def test_help_shows_examples(msabench) -> None:
    text = msabench("profile", "--help").out
    assert "msabench profile --model qa_moe" in text
    for option in ("--model", "--preset", "--checkpoint", "--dims", "--steps", "--batch-size", "--format", "--json"):
        assert option in text
