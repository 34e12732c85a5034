"""Fixtures of the evaluation's tests: a tiny dataset, one trained checkpoint, hand-made results for the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import Stress
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.cells import Request, Setting, Subject
from robustbench_msa.evaluation.store import Result, Runtime
from robustbench_msa.models.checkpoint import Checkpoint
from robustbench_msa.training.train import train

SETTING = Setting(dataset="synth", data="d" * 64, split="test", pool="p" * 64, reference="r" * 64)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_synth(sizes=(60, 20, 40))


@pytest.fixture(scope="session")
def gappy(dataset: Dataset) -> Dataset:
    """The same with modalities that are absent by nature in some test samples; what stands in their place is junk."""
    test = dataset.splits["test"]
    present = torch.ones(len(test), 3, dtype=torch.bool)
    present[::4, 0] = present[1::4, 1] = present[2::5, 2] = False
    present[3] = torch.tensor([False, False, True])
    present[7] = torch.tensor([False, True, False])
    return Dataset("synth", {**dataset.splits, "test": test.replace(present=present)}, text_at="tokens")


@pytest.fixture(scope="session")
def checkpoint(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return train("late_fusion", dataset, out=tmp_path_factory.mktemp("checkpoints") / "a", epochs=1)


@pytest.fixture
def setting() -> Setting:
    return SETTING


@pytest.fixture
def subject() -> Subject:
    return Subject("late_fusion", 1, "c" * 64, "clean", 1111)


@pytest.fixture
def request_of() -> Callable[..., Request]:
    """``request_of("missing", "0:0.8:0.2", seeds=3)``."""

    def make(stress: str, grid: str | None = None, seeds: int = 1) -> Request:
        parsed = Stress.parse(stress)
        return Request(parsed, parsed.grid(grid), tuple(range(1111, 1111 + seeds)))

    return make


@pytest.fixture
def result_of() -> Callable[..., Result]:
    """A result of n samples with two extras of different widths, from a seed."""

    def make(n: int = 7, seed: int = 0) -> Result:
        rng = np.random.default_rng(seed)
        return Result(
            ids=[f"v{i // 2}$_${i}" for i in range(n)],
            groups=[f"v{i // 2}" for i in range(n)],
            y_true=rng.normal(size=n).astype(np.float32),
            y_pred=rng.normal(size=n).astype(np.float32),
            present=rng.uniform(size=(n, 3)) < 0.7,
            extras={
                "gates": rng.normal(size=(n, 4)).astype(np.float32),
                "consensus": rng.uniform(size=n).astype(np.float32),
            },
            facts={"input_digest": "ab12", "realised": {"lost_t": 0.25, "noise_db_t": None}, "nonfinite": 0},
        )

    return make


@pytest.fixture
def runtime() -> Runtime:
    return Runtime("cpu", 256, 1, 0.5, "2026-01-01T00:00:00+00:00", "host", "3.11", "2.13", "0.1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
