"""Padding that is cut off before an encoder changes nothing of what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corruptions import MODALITIES
from robustbench_msa.evaluation.trimming import by_length
from robustbench_msa.models.contract import InputSpec, Part
from robustbench_msa.models.registry import MODELS, model_class

DIMS = {"text": 24, "audio": 6, "vision": 5}
POOLING = [name for name in MODELS if model_class(name).pools]


def ragged(n: int, steps: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lengths from 0 to all steps; what stands in the padding is junk."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, steps + 1, (n,), generator=g)
    return torch.randn(n, steps, d, generator=g), lengths


def test_all_but_mult_pool() -> None:
    trained = {name for name in MODELS if name not in ("chance", "majority", "oracle")}
    assert trained - set(POOLING) == {"mult"}


@pytest.mark.parametrize("name", POOLING)
@pytest.mark.parametrize("n", [7, 40, 300])
def test_encodings_are_the_same(name: str, n: int) -> None:
    cls = model_class(name)
    torch.manual_seed(1)
    model = cls(InputSpec(tuple(DIMS.values())), cls.presets["synth"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for m in MODALITIES:
        x, lengths = ragged(n, 18, DIMS[m])
        with torch.inference_mode():
            plain = model.encode_modality(m, x, lengths)
            cut = by_length(lambda x, lengths, m=m: model.encode_modality(m, x, lengths), x, lengths)
        assert plain.keys() == cut.keys()
        for part in plain:
            np.testing.assert_allclose(cut[part], plain[part], rtol=0, atol=1e-5, err_msg=f"{m} {part}")


class Watched:
    """Sees what it is given, and gives each sample's sum and place."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, lengths: Tensor) -> Part:
        self.seen.append((x.shape[0], x.shape[1]))
        assert int(lengths.max()) <= x.shape[1]
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        return {"sum": (x[..., 0] * valid).sum(1), "lengths": lengths}


@pytest.mark.parametrize(
    ("lengths", "seen"),
    [
        ([10] * 64, [(64, 10)]),  # nothing to cut
        ([3] * 64, [(64, 3)]),  # the same for all
        ([0] * 64, [(64, 1)]),
        ([2, 10] * 32, [(32, 2), (32, 10)]),
        ([9, 10] * 32, [(64, 10)]),  # not worth it
        ([1] * 31 + [10], [(32, 10)]),  # too few
        ([4, 1, 2, 3] * 32, [(32, 1), (32, 2), (32, 3), (32, 4)]),
    ],
)
def test_buckets(lengths: list[int], seen: Any) -> None:
    watched, x = Watched(), torch.randn(len(lengths), 10, 2)
    found = by_length(watched, x, torch.tensor(lengths))
    assert watched.seen == seen
    expected = [float(row[:k, 0].sum()) for row, k in zip(x, lengths, strict=True)]
    np.testing.assert_allclose(found["sum"], expected, atol=1e-5)
    assert found["lengths"].tolist() == lengths, "in the order of the batch"


def test_no_more_than_eight_buckets() -> None:
    watched = Watched()
    lengths = torch.arange(1000) % 40
    by_length(watched, torch.randn(1000, 50, 1), lengths)
    assert len(watched.seen) == 8
    assert [steps for _, steps in watched.seen] == [4, 9, 14, 19, 24, 29, 34, 39]


def test_nothing_where_nothing_is_read() -> None:
    assert by_length(lambda x, lengths: {}, torch.randn(100, 9, 1), torch.arange(100) % 9) == {}
