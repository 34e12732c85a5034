"""What tests of several folders share: a tiny text encoder made on the spot, and a tiny file with token ids for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

VOCABULARY = 2100
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "electra": {
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    },
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24},
}


@pytest.fixture(scope="session")
def save_encoder() -> Callable[..., Path]:
    """``save_encoder(folder, kind="bert", seed=0)``: an encoder with random weights, as its library saves it."""
    transformers = pytest.importorskip("transformers", reason='needs the extra "bert" (transformers)')

    def save(folder: Path, kind: str = "bert", seed: int = 0) -> Path:
        config = transformers.AutoConfig.for_model(
            kind, vocab_size=VOCABULARY, max_position_embeddings=24, initializer_range=0.3, **SETTINGS[kind]
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformers.AutoModel.from_config(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def encoder_folder(save_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT: 2 layers of width 16."""
    return save_encoder(tmp_path_factory.mktemp("encoders") / "tiny-bert")


@pytest.fixture(scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MMSA pickle without text features: ids whose mean says the label, audio and vision that say little."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "tokens.pkl"
    path.write_bytes(pickle.dumps({split: _split(split, n, rng) for split, n in SIZES.items()}))
    return path


SIZES = {"train": 48, "valid": 16, "test": 24}


def _split(split: str, n: int, rng: np.random.Generator) -> dict[str, Any]:
    labels = rng.uniform(-3, 3, n).astype(np.float32)
    lengths = rng.integers(4, 13, n)
    steps = np.arange(12)
    mask = steps < lengths[:, None]
    words = np.where(rng.uniform(size=(n, 12)) < (labels[:, None] + 3) / 6, 2000, 1000) + rng.integers(0, 5, (n, 12))
    ids = np.where(steps == 0, 101, np.where(steps == lengths[:, None] - 1, 102, words)) * mask
    features = {m: rng.normal(size=(n, 3, d)) + 0.2 * labels[:, None, None] for m, d in (("audio", 3), ("vision", 2))}
    return {
        "id": [f"{split}{i // 4}$_${i}" for i in range(n)],
        "text_bert": np.stack([ids, mask, np.zeros_like(ids)], axis=1),
        "regression_labels": labels,
        **features,
    }
