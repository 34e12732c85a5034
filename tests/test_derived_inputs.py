"""Models that read derived inputs (explanations), from training over the checkpoint to the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import InputError, Stress
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.evaluation.adversary import ModelAdversary
from robustbench_msa.evaluation.cells import Request, Subject, plan
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.checkpoint import check_fits, load_model
from robustbench_msa.models.contract import MSAModel
from robustbench_msa.training.train import train

SIZES = "train=48,valid=16,test=24"
STRESSES = {
    "missing": "0,0.4,0.8",
    "missing-random": "0.5",
    "conflict": "0.5,1",
    "noise": "0.3",
    "spectrum": "0.3x0.5",
    "conflict+missing": "1x0.5",
    "missing+conflict": "0.5x1",
    "noise+missing-random": "0.3x0.5",
    "worst-case:steps=2": "0.2",
    "worst-case:attack=draws,of=missing,draws=2": "0.5",
}


@pytest.fixture(scope="module")
def explained() -> Dataset:
    return load_dataset(f"synth-explained:{SIZES}")


def test_only_what_a_model_reads_is_part_of_it(explained: Dataset, tmp_path: Path) -> None:
    text = train("text_moe", explained, out=tmp_path / "text", epochs=1)
    late = train("late_fusion", explained, out=tmp_path / "late", epochs=1)
    assert set(text.config["arguments"]["spec"]["derived"]) == set(explained.derived_dims)
    assert "derived" not in late.config["arguments"]["spec"]
    assert text.config["preset"] == "synth"  # the family's, for synth-explained has none of its own
    assert load_model(text).derived_inputs() == tuple(sorted(explained.derived_dims))
    plain = load_dataset(f"synth:{SIZES}")
    check_fits(text, explained)
    check_fits(late, plain)
    with pytest.raises(InputError, match="reads the derived input comment of 16 dims, synth has none"):
        check_fits(text, plain)


@pytest.fixture(scope="module")
def model(explained: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MSAModel:
    return load_model(train("text_moe", explained, out=tmp_path_factory.mktemp("text"), epochs=1))


@pytest.mark.parametrize(("name", "grid"), STRESSES.items())
def test_the_runner_gives_what_the_whole_model_gives(explained: Dataset, model: MSAModel, name: str, grid: str) -> None:
    present = torch.ones(24, 3, dtype=torch.bool)
    present[::5, 1] = False
    test = explained.splits["test"].replace(present=present)
    data = Dataset("x", {**explained.splits, "test": test}, parameters=explained.parameters)
    inputs, stress = Inputs(data, "test"), Stress.parse(name)
    runner = Runner(model, inputs, batch_size=7)
    request = Request(stress, stress.grid(grid), (1111,))
    for cell in plan([Subject("text_moe", 1, "x")], inputs.setting, [request]):
        got = runner.run(cell).y_pred
        with torch.no_grad():
            attacked = not cell.is_clean and stress.stressor.needs_adversary
            corruption = inputs.corruption(cell, ModelAdversary(model, 7) if attacked else None)
            expected = model(corruption.batch).prediction
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=2e-5, err_msg=str(cell.point))
