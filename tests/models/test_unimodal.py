"""One modality alone: what is read, what is not, and what the head does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.unimodal import AudioOnly, TextOnly, Unimodal, UnimodalConfig, VisionOnly

MODELS: tuple[type[Unimodal], ...] = (TextOnly, AudioOnly, VisionOnly)
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = UnimodalConfig(d_model=8, hidden=7)
each = pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.name)


def make_batch(n: int = 7, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(n, 5, d, generator=g) * 2 + 1 for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    lengths = {f"{m}_lengths": torch.randint(1, 6, (n,), generator=g) for m in MODALITIES}
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, n))


def make_model(cls: type[Unimodal], **options: object) -> Unimodal:
    torch.manual_seed(0)
    model = cls(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    model.fit_statistics(make_batch(40, seed=1))
    return model.eval()


def reference(model: Unimodal, batch: Batch, i: int) -> float:
    """One sample without padding, by hand from the weights."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    m, length = model.modality, int(batch.lengths(model.modality)[i])
    x = batch.features(m)[i, :length].double().numpy()
    h = (x - w["encoder.standardise.mean"]) / w["encoder.standardise.std"]
    h = h @ w["encoder.project.weight"].T + w["encoder.project.bias"]
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    around = np.pad(h, ((1, 1), (0, 0)))
    taps = w["encoder.convs.0.weight"]  # (d, d, 3)
    mixed = sum(around[j : j + length] @ taps[:, :, j].T for j in range(3)) + w["encoder.convs.0.bias"]
    h = h + gelu(mixed)
    tau = (np.arange(length) + 0.5) / length
    place = [f(np.pi * k * tau) for f in (np.cos, np.sin) for k in (1, 2, 3, 4)]
    score = np.exp(np.column_stack([h, *place]) @ w["encoder.score.weight"][0])
    pooled = score @ h / score.sum()
    h = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5) * w["encoder.norm.weight"] + w["encoder.norm.bias"]
    hidden = gelu(w["head.0.weight"] @ h + w["head.0.bias"])
    return float((w["head.3.weight"] @ hidden + w["head.3.bias"])[0])


@each
def test_prediction_against_the_reference(cls: type[Unimodal]) -> None:
    model, batch = make_model(cls), make_batch()
    expected = [reference(model, batch, i) for i in range(len(batch))]
    with torch.no_grad():
        np.testing.assert_allclose(model(batch).prediction, expected, rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_loss(cls: type[Unimodal], loss: str) -> None:
    model, batch = make_model(cls, loss=loss), make_batch()
    error = np.array([reference(model, batch, i) for i in range(len(batch))]) - np.linspace(-3, 3, len(batch))
    expected = np.abs(error).mean() if loss == "l1" else (error**2).mean()
    losses = model.loss(batch)
    assert losses.keys() == {"total", "L_task"}
    np.testing.assert_allclose(losses["total"].item(), expected, rtol=1e-4)


@each
def test_the_other_modalities_are_never_read(cls: type[Unimodal]) -> None:
    model, batch = make_model(cls), make_batch()
    model.train(False)
    with torch.no_grad():
        before = model(batch).prediction
        own = batch.features(cls.reads[0])
        assert (model(batch.replace(**{cls.reads[0]: own.flip(0)})).prediction - before).abs().max() > 1e-3
        for m in MODALITIES:
            if m == cls.reads[0]:
                continue
            assert model.encode(batch).part(m) == {}
            broken = {m: torch.full_like(batch.features(m), torch.nan), f"{m}_lengths": torch.zeros(7).long()}
            np.testing.assert_array_equal(model(batch.replace(**broken)).prediction, before)
            present = torch.ones(7, 3, dtype=torch.bool)
            present[:, MODALITIES.index(m)] = False
            np.testing.assert_array_equal(model(batch.replace(present=present)).prediction, before)


@each
def test_training_statistics_come_from_its_own_modality(cls: type[Unimodal]) -> None:
    model, train = make_model(cls), make_batch(40, seed=1)
    present = torch.ones(40, 3, dtype=torch.bool)
    index = MODALITIES.index(cls.reads[0])
    present[:10, index] = False
    model.fit_statistics(train.replace(present=present))
    x, lengths = train.features(cls.reads[0]), train.lengths(cls.reads[0])
    steps = np.concatenate([x[i, : lengths[i]].double().numpy() for i in range(10, 40)])
    np.testing.assert_allclose(model.encoder.standardise.mean, steps.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.encoder.standardise.std, steps.std(axis=0), rtol=1e-5)


@each
def test_told_absent_is_one_finite_constant(cls: type[Unimodal]) -> None:
    model, batch = make_model(cls), make_batch()
    present = torch.ones(7, 3, dtype=torch.bool)
    present[::2, MODALITIES.index(cls.reads[0])] = False
    x = batch.features(cls.reads[0]).clone()
    x[::2] = torch.inf
    with torch.no_grad():
        there = model(batch).prediction
        gone = model(batch.replace(present=present, **{cls.reads[0]: x})).prediction
    assert torch.isfinite(gone).all()
    np.testing.assert_allclose(gone[::2], gone[0].expand(4), atol=1e-6)
    np.testing.assert_allclose(gone[1::2], there[1::2], atol=1e-6)
    assert (gone - there)[::2].abs().max() > 1e-3


@each
def test_parameter_count(cls: type[Unimodal]) -> None:
    d_in, c = SPEC.dims[MODALITIES.index(cls.reads[0])], replace(SMALL, conv_layers=2)
    d = c.d_model
    encoder = (d_in + 1) * d + c.conv_layers * (3 * d + 1) * d + (d + 8) + 2 * d
    head = (d + 1) * c.hidden + c.hidden + 1
    assert sum(p.numel() for p in cls(SPEC, c).parameters()) == encoder + head


@each
def test_every_parameter_is_trained_and_32_samples_are_learned(cls: type[Unimodal]) -> None:
    torch.manual_seed(0)
    model, batch = cls(SPEC, replace(cls.presets["synth"], dropout=0.0)), make_batch(32)
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    moved: set[str] = set()
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        moved |= {name for name, p in model.named_parameters() if bool(p.grad.abs().sum() > 0)}
        optimizer.step()
        rates.step()
    assert moved == {name for name, _ in model.named_parameters()}
    assert model.loss(batch)["L_task"].item() < 0.1


def test_names_presets_and_options() -> None:
    assert {cls.name: cls.reads[0] for cls in MODELS} == {f"{m}_only": m for m in MODALITIES}
    for cls in MODELS:
        assert cls.presets.keys() == cls.optimisation.keys() == {"mosi", "mosei", "sims", "synth"}
    with pytest.raises(InputError, match="unimodal: loss must be one of l1, mse"):
        UnimodalConfig(loss="huber")


@each
def test_borders(cls: type[Unimodal]) -> None:
    with pytest.raises(InputError, match=f"{cls.name}: text is token ids"):
        cls(InputSpec(dims=(0, 5, 4)), SMALL)
    with pytest.raises(InputError, match=r"vision: expected features \(N, T, 4\)"):
        make_model(cls).encode(make_batch().replace(vision=torch.zeros(7, 5, 3)))
