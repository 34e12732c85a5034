"""The checkpoints that come with the package: small, complete, and as good as they say."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from robustbench_msa.data.registry import load_dataset
from robustbench_msa.models.checkpoint import read_checkpoint
from robustbench_msa.run import benchmark

SHIPPED = sorted((Path(__file__).parents[1] / "checkpoints").glob("*/*/*/*/config.json"))
EXPECTED = {
    *(("qa_moe", recipe) for recipe in ("clean", "spectrum")),
    *(("rider_moe", recipe) for recipe in ("clean", "spectrum")),
    ("late_fusion", "clean"),
}


def test_the_promised_ones_are_there() -> None:
    found = {(path.parts[-4], path.parts[-3]) for path in SHIPPED}
    assert found >= EXPECTED


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: "-".join(path.parts[-4:-1]))
def test_a_shipped_checkpoint(config: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(config.parent)
    weights = config.parent / "model.safetensors"
    assert weights.stat().st_size <= 1_000_000
    assert checkpoint.config["selection"]["split"] == "valid"
    assert checkpoint.config["dataset"]["fingerprint"] == load_dataset("synth").fingerprint
    assert not checkpoint.config["commit"].endswith("-dirty")
    assert "/" not in checkpoint.config["training"]["command"], "a path of one machine"

    result = benchmark(checkpoint=config.parent, stress="missing", grid="0", split="valid", seeds=1, out=tmp_path)
    curves = result.curves
    mine = curves[(curves["stress"] == "clean") & (curves["model"] == checkpoint.model)]
    got = dict(zip(mine["metric"], mine["value"], strict=True))
    assert got == pytest.approx(json.loads(config.read_text("utf-8"))["validation"], abs=1e-4)


def test_trained_models_beat_chance_and_know_the_synergy() -> None:
    """Ridge on pooled features reaches Corr .73 on this test split; the models are there to do better."""
    assert pd.Series({p.parts[-4]: read_checkpoint(p.parent).config["validation"]["corr"] for p in SHIPPED}).min() > 0.6
