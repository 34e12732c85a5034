"""A model as the worst case sees it: losses, and gradients against a closed form and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Derived, Reference, corrupt
from robustbench_msa.evaluation.adversary import ModelAdversary
from robustbench_msa.models.chance import Chance
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part
from robustbench_msa.models.registry import model_class

DIMS = (3, 2, 4)


class Mean(MSAModel):
    """The sum over modalities of w_m . (mean of the valid steps), of what is told present; or its classes' logits."""

    name = "mean"

    def __init__(self, classes: int = 0, deaf_to: str = "") -> None:
        super().__init__(InputSpec(DIMS, num_classes=classes), None)
        torch.manual_seed(2)
        self.deaf_to = deaf_to
        self.w = torch.nn.ParameterDict(
            {m: torch.randn(d, max(1, classes)) for m, d in zip(MODALITIES, DIMS, strict=True)}
        )

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        return {"h": torch.where(valid[:, :, None], x, 0.0).sum(1) / lengths.clamp(min=1)[:, None]}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        heard = [
            encoded.part(m)["h"] @ self.w[m] * present[:, i, None]
            for i, m in enumerate(MODALITIES)
            if m != self.deaf_to
        ]
        total = torch.stack(heard).sum(0)
        return Output(total if self.spec.num_classes else total.squeeze(1))


def ragged(n: int = 11, absent: bool = True) -> Batch:
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {m: rng.normal(size=(n, 6, d)) for m, d in zip(MODALITIES, DIMS, strict=True)}
    arrays |= {f"{m}_lengths": rng.integers(1, 7, n) for m in MODALITIES}
    present = rng.random((n, 3)) > 0.2 * absent
    labels = torch.from_numpy(rng.normal(0, 2, n))
    return Batch(**arrays, labels=labels, present=torch.from_numpy(present), derived={"x": Derived(labels, ("text",))})


@pytest.mark.parametrize("size", [1, 4, 100])
def test_losses_and_gradients_of_a_linear_model(size: int) -> None:
    batch, model = ragged(), Mean().eval()
    adversary = ModelAdversary(model, size)
    means = {m: (batch.features(m) * batch.valid(m)[:, :, None]).sum(1) / batch.lengths(m)[:, None] for m in MODALITIES}
    assert batch.labels is not None
    error = -batch.labels.clone()
    for i, m in enumerate(MODALITIES):
        error += (means[m] @ model.w[m].detach()).squeeze(1) * batch.present[:, i]
    np.testing.assert_allclose(adversary.losses(batch), error.abs(), atol=1e-5)
    gradients = adversary.gradients(batch)
    assert set(gradients) == set(MODALITIES)
    for i, m in enumerate(MODALITIES):
        there = (batch.valid(m) & batch.present[:, i, None]) / batch.lengths(m)[:, None]  # (N, T)
        expected = error.sign()[:, None, None] * there[:, :, None] * model.w[m].detach().squeeze(1)
        np.testing.assert_allclose(gradients[m], expected, atol=1e-6)  # 0 on padding and on what is absent


def test_classes_have_cross_entropy() -> None:
    batch, model = ragged(), Mean(classes=3).eval()
    batch = batch.replace(labels=torch.arange(11) % 3)
    with torch.no_grad():
        p = model(batch).prediction.softmax(1)
    adversary = ModelAdversary(model, 4)
    np.testing.assert_allclose(adversary.losses(batch), -p[torch.arange(11), torch.arange(11) % 3].log(), atol=1e-5)
    wrong = p - torch.nn.functional.one_hot(torch.arange(11) % 3, 3)  # (N, C)
    there = (batch.valid("audio") & batch.present[:, 1, None]) / batch.audio_lengths[:, None]
    expected = there[:, :, None] * (wrong @ model.w["audio"].detach().T)[:, None]
    np.testing.assert_allclose(adversary.gradients(batch)["audio"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["late_fusion", "rider_moe", "qa_moe"])
def test_gradients_of_the_models_are_finite_differences(name: str, dataset: Any) -> None:
    """Along the gradient the loss rises as fast as the gradient is long; padding has none."""
    cls = model_class(name)
    torch.manual_seed(5)
    model = cls(InputSpec(dataset.dims), cls.presets["synth"])
    model.fit_statistics(dataset.splits["train"])
    model.eval()
    batch = dataset.splits["test"]
    adversary = ModelAdversary(model, 16)
    gradients, before = adversary.gradients(batch), adversary.losses(batch)
    length = torch.stack([g.square().sum((1, 2)) for g in gradients.values()]).sum(0)  # (N,)
    step = 1e-2 / length.sqrt()
    moved = {m: batch.features(m) + step[:, None, None] * g for m, g in gradients.items()}
    rise = (adversary.losses(batch.replace(**moved)) - before) / (step * length)
    assert float((rise - 1).abs().median()) < 0.05
    for m, g in gradients.items():
        assert not g[~batch.valid(m)].any()


def test_the_batch_size_does_not_matter() -> None:
    batch, model = ragged(), Mean().eval()
    one, many = ModelAdversary(model, 1), ModelAdversary(model, 100)
    np.testing.assert_allclose(one.losses(batch), many.losses(batch), atol=1e-6)
    for m, g in one.gradients(batch).items():
        np.testing.assert_allclose(g, many.gradients(batch)[m], atol=1e-7)


def test_token_ids_have_no_gradient() -> None:
    class Tokens(Mean):
        def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
            x = torch.nn.functional.one_hot(x % 3, 3).float() if modality == "text" else x
            return super().encode_modality(modality, x, lengths)

    batch = ragged().replace(text=torch.arange(66).view(11, 6))
    assert set(ModelAdversary(Tokens().eval(), 4).gradients(batch)) == {"audio", "vision"}


def test_what_a_model_does_not_read_has_no_gradient() -> None:
    batch = ragged()
    deaf = ModelAdversary(Mean(deaf_to="vision").eval(), 4).gradients(batch)
    np.testing.assert_array_equal(deaf["vision"], torch.zeros_like(batch.vision))
    assert deaf["audio"].any()
    constant = ModelAdversary(Chance(0.5, 0.5), 4)
    for m, g in constant.gradients(batch).items():
        np.testing.assert_array_equal(g, torch.zeros_like(batch.features(m)))
    assert batch.labels is not None
    np.testing.assert_allclose(constant.losses(batch), (0.5 - batch.labels).abs(), atol=1e-6)


def test_the_model_and_the_batch_are_left_as_they_were() -> None:
    batch, model = ragged(), Mean().eval()
    before = {m: batch.features(m).clone() for m in MODALITIES}
    with torch.no_grad():
        gradients = ModelAdversary(model, 4).gradients(batch)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for m in MODALITIES:
        assert not gradients[m].requires_grad
        assert not batch.features(m).requires_grad
        np.testing.assert_array_equal(batch.features(m), before[m])
    assert not ModelAdversary(model, 4).losses(batch).requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recurrent_layers_are_attacked_on_a_gpu() -> None:
    class Recurrent(Mean):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.ModuleDict(
                {m: torch.nn.LSTM(d, d, batch_first=True) for m, d in zip(MODALITIES, DIMS, strict=True)}
            )

        def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
            return {"h": self.lstm[modality](x)[0].mean(1)}

    batch, model = ragged(), Recurrent().eval()
    here = ModelAdversary(model, 4).gradients(batch)
    there = ModelAdversary(model.to("cuda"), 4).gradients(batch.to("cuda"))
    for m, g in here.items():
        np.testing.assert_allclose(g, there[m].cpu(), atol=1e-4)
    assert torch.backends.cudnn.enabled


def test_frozen_weights_are_attacked_as_well() -> None:
    batch, model, free = ragged(), Mean().eval(), Mean().eval()
    model.requires_grad_(False)
    for m, g in ModelAdversary(model, 4).gradients(batch).items():
        np.testing.assert_array_equal(g, ModelAdversary(free, 4).gradients(batch)[m])


def test_the_attack_reaches_the_worst_corner_of_a_linear_model() -> None:
    batch, model = ragged(absent=False), Mean().eval()
    batch = batch.replace(labels=torch.where(torch.arange(11) % 2 == 0, 30.0, -30.0))
    adversary, fit = ModelAdversary(model, 4), Reference.fit(batch)
    out = corrupt(batch, "worst-case", "0.5", reference=fit, adversary=adversary)
    reach = sum(float(0.5 * fit.sigma[m] @ model.w[m].detach().abs().squeeze(1)) for m in MODALITIES)
    np.testing.assert_allclose(adversary.losses(out) - adversary.losses(batch), reach, rtol=1e-4)
