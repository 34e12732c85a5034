"""``msabench init-adapter``: a file that runs as it is and never takes the place of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.cli.init_adapter import init_adapter
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.subjects import from_adapter


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_it_runs_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    init_adapter(Path("my_model.py"))
    assert "msabench run --model my_model.py:build --stress missing" in capsys.readouterr().out
    lines = Path("my_model.py").read_text("utf-8").splitlines()
    assert 20 <= len(lines) <= 30
    assert max(map(len, lines)) <= 120
    dataset = make_synth(sizes=(8, 4, 6))
    candidate = from_adapter("my_model.py:build", None, dataset, "cpu")
    with torch.inference_mode():
        first = candidate.load()(dataset.splits["test"]).prediction
    assert first.shape == (6,)
    model = candidate.load()
    torch.save(model.module.state_dict(), "best.pth")  # type: ignore[union-attr]
    with torch.inference_mode():
        again = from_adapter("my_model.py:build", Path("best.pth"), dataset, "cpu").load()(dataset.splits["test"])
    np.testing.assert_array_equal(again.prediction, first)


def test_it_refuses_to_overwrite() -> None:
    Path("mine.py").write_text("precious", "utf-8")
    with pytest.raises(InputError, match=r"mine.py is there already and was left as it is"):
        init_adapter(Path("mine.py"))
    assert Path("mine.py").read_text("utf-8") == "precious"


@pytest.mark.parametrize(
    ("path", "message"),
    [("mine.txt", "expected a file that ends in .py"), ("nowhere/mine.py", "there is no folder nowhere")],
)
def test_paths_that_will_not_do(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        init_adapter(Path(path))
