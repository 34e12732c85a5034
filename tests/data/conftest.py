"""What tests of readers share: one small dataset, and the same as arrays by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch
from robustbench_msa.data.dataset import Dataset

SIZES = {"train": 6, "valid": 3, "test": 4}
STEPS = {"text": (5, 4), "audio": (7, 3), "vision": (6, 2)}


def split_of(split: str, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    lengths = np.stack([rng.integers(1, STEPS[m][0] + 1, n) for m in MODALITIES], axis=1)
    fields: dict[str, Any] = {"lengths": lengths, "labels": np.linspace(-3, 3, n).astype(np.float32)}
    for i, (modality, (steps, d)) in enumerate(STEPS.items()):
        valid = np.arange(steps) < lengths[:, i, None]
        fields[modality] = (rng.normal(size=(n, steps, d)) * valid[:, :, None]).astype(np.float32)
    present = np.ones((n, 3), bool)
    present[0, 2] = False
    fields |= {"present": present, "ids": np.array([f"{split}{i // 2}$_${i}" for i in range(n)])}
    return fields | {"groups": np.array([f"{split}{i // 2}" for i in range(n)])}


@pytest.fixture
def arrays() -> dict[str, Any]:
    """``train/text`` and so on: the layout of .npz and HDF5 files."""
    return {f"{split}/{field}": x for split, n in SIZES.items() for field, x in split_of(split, n).items()}


@pytest.fixture
def dataset() -> Dataset:
    """The dataset of these arrays, made without any reader."""
    batches = {}
    for split, n in SIZES.items():
        fields = split_of(split, n)
        tensors: dict[str, Any] = {m: torch.from_numpy(fields[m]) for m in MODALITIES}
        tensors |= {f"{m}_lengths": fields["lengths"][:, i] for i, m in enumerate(MODALITIES)}
        own = {key: tuple(map(str, fields[key])) for key in ("ids", "groups")}
        batches[split] = Batch(**tensors, **own, labels=fields["labels"], present=fields["present"])
    return Dataset("small", batches)
