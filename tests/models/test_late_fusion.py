"""LF-DNN against a plain NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.late_fusion import LateFusion, LateFusionConfig

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(3, 2, 4))


def make_batch() -> Batch:
    g = torch.Generator().manual_seed(0)
    sizes = {m: torch.randn(5, 6, d, generator=g) + 1 for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    return Batch(**sizes, text_lengths=torch.tensor([6, 1, 3, 0, 2]), labels=torch.linspace(-3, 3, 5))


def make_model(**options: object) -> LateFusion:
    torch.manual_seed(0)
    model = LateFusion(SPEC, LateFusionConfig(hidden=8, fusion=7, **options))  # type: ignore[arg-type]
    for p in model.parameters():  # biases start at zero: give them values, so that a missing one shows
        torch.nn.init.normal_(p, std=0.5)
    model.fit_statistics(make_batch())
    return model.eval()


def reference(model: LateFusion, batch: Batch, i: int) -> float:
    """One sample, by hand from the weights."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def dnn(prefix: str, x: Array) -> Array:
        for layer in (1, 3):
            x = np.maximum(weights[f"{prefix}.{layer}.weight"] @ x + weights[f"{prefix}.{layer}.bias"], 0)
        return x

    h = []
    for m in MODALITIES:
        steps = batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy()
        steps = (steps - weights[f"standardise.{m}.mean"]) / weights[f"standardise.{m}.std"]
        h.append(dnn(f"subnet.{m}", steps.sum(0) / max(len(steps), 1)))
    fused = dnn("post_fusion", np.concatenate(h))
    return float((weights["head.weight"] @ fused + weights["head.bias"])[0])


def test_prediction_against_the_reference() -> None:
    model, batch = make_model(), make_batch()
    expected = [reference(model, batch, i) for i in range(5)]
    np.testing.assert_allclose(model(batch).prediction.detach(), expected, rtol=1e-4, atol=1e-5)


def test_lost_steps_count_in_the_mean() -> None:
    """Zeros in valid steps dilute the average: they are lost, not absent, and nobody tells the network."""
    model, batch = make_model(), make_batch()
    x = batch.audio.clone()
    x[:, 3:] = 0
    shorter = batch.replace(audio_lengths=torch.full((5,), 3))
    assert (model(batch.replace(audio=x)).prediction - model(shorter).prediction).abs().max() > 1e-3


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_loss(loss: str) -> None:
    model, batch = make_model(loss=loss), make_batch()
    assert batch.labels is not None
    error = (model(batch).prediction - batch.labels).detach().numpy()
    expected = np.abs(error).mean() if loss == "l1" else (error**2).mean()
    np.testing.assert_allclose(model.loss(batch)["total"].item(), expected, rtol=1e-5)


def test_unknown_loss() -> None:
    with pytest.raises(InputError, match="late_fusion: loss must be one of l1, mse"):
        LateFusionConfig(loss="huber")
