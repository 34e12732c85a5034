"""LMF against its equations, with the full weight tensor built from the factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.lmf import LMF, LMFConfig

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = LMFConfig(lstm=7, text_out=4, audio=3, vision=2, r=3)


def make_batch(n: int = 7, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(n, 5, d, generator=g) + 1 for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    lengths = {f"{m}_lengths": torch.randint(1, 6, (n,), generator=g) for m in MODALITIES}
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, n))


def make_model(**options: object) -> LMF:
    torch.manual_seed(0)
    model = LMF(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.6)
    model.fit_statistics(make_batch(40, seed=1))
    return model.eval()


def weights_of(model: LMF) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in model.state_dict().items()}


def embeddings(model: LMF, batch: Batch, i: int) -> list[Array]:
    """z_m with the appended 1, of one sample, step by step (sec. 4.3)."""
    w = weights_of(model)

    def affine(prefix: str, x: Array) -> Array:
        return w[f"{prefix}.weight"] @ x + w[f"{prefix}.bias"]

    def steps(m: str) -> Array:
        x = batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy()
        return (x - w[f"subnet.{m}.standardise.mean"]) / w[f"subnet.{m}.standardise.std"]

    def sigmoid(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    h, cell, states = np.zeros(7), np.zeros(7), []
    for x in steps("text"):
        gates = w["subnet.text.lstm.weight_ih_l0"] @ x + w["subnet.text.lstm.bias_ih_l0"]
        gates = gates + w["subnet.text.lstm.weight_hh_l0"] @ h + w["subnet.text.lstm.bias_hh_l0"]
        into, forget, candidate, out = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(candidate)
        h = sigmoid(out) * np.tanh(cell)
        states.append(h)
    read = states[-1] if model.config.text_state == "last" else np.mean(states, axis=0)
    z = [affine("subnet.text.dense", read)]
    for m in ("audio", "vision"):
        x = steps(m).mean(axis=0)
        x = (x - w[f"subnet.{m}.standardise_mean.mean"]) / w[f"subnet.{m}.standardise_mean.std"]
        for layer in range(model.config.layers):
            x = np.maximum(affine(f"subnet.{m}.dense.{3 * layer}", x), 0)
        z.append(x)
    return [np.append(x, 1) for x in z]


def outer(vectors: list[Array]) -> Array:
    t, a, v = vectors
    return np.multiply.outer(np.multiply.outer(t, a), v)


def reference(model: LMF, batch: Batch, i: int) -> float:
    """Eq. 1 to 5: the weight tensor W is built, the input tensor Z is built, h = W . Z + b."""
    w, c = weights_of(model), model.config
    factors = [w[f"factors.{m}"] for m in MODALITIES]  # (r, d_m) each
    if c.fusion == "product_of_sums":
        weight = outer([f.sum(axis=0) for f in factors])  # eq. 6 as printed: rank one
    else:
        each = w["weights"] if c.fusion == "weighted" else np.ones(c.r)
        weight = sum(each[k] * outer([f[k] for f in factors]) for k in range(c.r))  # eq. 3-4
    z = outer(embeddings(model, batch, i))  # eq. 1
    return float((weight * z).sum() + (w["bias"] if c.bias else 0.0))  # eq. 2, 5


@pytest.mark.parametrize("fusion", ["sum_of_products", "product_of_sums", "weighted"])
def test_each_class_is_an_LMF_with_factors_of_its_own(fusion: str) -> None:
    torch.manual_seed(0)
    model = LMF(InputSpec(dims=SPEC.dims, num_classes=3), replace(SMALL, fusion=fusion)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.6)
    batch = make_batch()
    for k in range(3):
        one = make_model(fusion=fusion)
        state = model.state_dict()
        own = {name: x[k] for name, x in state.items() if name.startswith("factors") or name == "bias"}
        one.load_state_dict({**state, **own})
        with torch.no_grad():
            expected = [reference(one, batch, i) for i in range(len(batch))]  # d_h = 1: the full tensor of this class
            np.testing.assert_allclose(model(batch).prediction[:, k], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "product_of_sums"},
        {"fusion": "weighted"},
        {"bias": False},
        {"layers": 3},
        {"text_state": "mean"},
        {"r": 1},
    ],
    ids=str,
)
def test_efficient_fusion_equals_the_full_tensor(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    expected = [reference(model, batch, i) for i in range(len(batch))]
    assert np.std(expected) > 1e-2
    with torch.no_grad():
        np.testing.assert_allclose(model(batch).prediction, expected, rtol=1e-4, atol=1e-4)


def test_equation_6_is_not_equation_5() -> None:
    """As printed the sum and the product change places: only at rank 1 are the two the same."""
    batch = make_batch()
    with torch.no_grad():
        for r, same in ((1, True), (3, False)):
            a = make_model(r=r)(batch).prediction
            b = make_model(r=r, fusion="product_of_sums")(batch).prediction
            assert bool(torch.allclose(a, b, atol=1e-5)) is same


def test_the_appended_one_lets_a_modality_speak_alone() -> None:
    """With the factors of audio and vision zero but for their last entry, only text is left, linearly in z_t."""
    model, batch, other = make_model(), make_batch(), make_batch(seed=3)
    with torch.no_grad():
        for m in ("audio", "vision"):
            model.factors[m].zero_()
            model.factors[m][:, -1] = 1.0
        prediction = model(batch).prediction
        silent = batch.replace(audio=other.audio, vision=other.vision)
        np.testing.assert_allclose(model(silent).prediction, prediction, atol=1e-6)
        z = model.encode(batch).text["z"]
        linear = z @ model.factors["text"].sum(dim=0)[:-1] + model.factors["text"][:, -1].sum() + model.bias
    np.testing.assert_allclose(prediction, linear, atol=1e-5)


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_loss(loss: str) -> None:
    model, batch = make_model(loss=loss), make_batch()
    error = np.array([reference(model, batch, i) for i in range(len(batch))]) - np.linspace(-3, 3, len(batch))
    expected = np.abs(error).mean() if loss == "l1" else (error**2).mean()
    losses = model.loss(batch)
    assert losses.keys() == {"total", "L_task"}
    np.testing.assert_allclose(losses["total"].item(), expected, rtol=1e-4)
    np.testing.assert_allclose(losses["L_task"].item(), expected, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"fusion": "weighted"}, {"bias": False}, {"layers": 3}], ids=str)
def test_parameter_count_is_linear_in_the_modalities(options: dict[str, object]) -> None:
    c = replace(SMALL, **options)  # type: ignore[arg-type]
    text, audio, vision = SPEC.dims
    lstm = 4 * c.lstm * (text + c.lstm + 2) + (c.lstm + 1) * c.text_out
    means = sum((d + 1) * k + (c.layers - 1) * (k + 1) * k for d, k in ((audio, c.audio), (vision, c.vision)))
    factors = c.r * (c.text_out + c.audio + c.vision + 3)  # O(d_y r sum d_m), sec. 5.3
    fusion = factors + (c.r if c.fusion == "weighted" else 0) + int(c.bias)
    assert sum(p.numel() for p in LMF(SPEC, c).parameters()) == lstm + means + fusion


@pytest.mark.parametrize("fusion", ["sum_of_products", "weighted"])
def test_every_parameter_is_trained_and_32_samples_are_learned(fusion: str) -> None:
    torch.manual_seed(0)
    config = replace(LMF.presets["synth"], dropout=0.0, dropout_text=0.0, fusion=fusion)
    model, batch = LMF(SPEC, config), make_batch(32)
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    moved: set[str] = set()
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        moved |= {name for name, p in model.named_parameters() if bool(p.grad.abs().sum() > 0)}
        optimizer.step()
    assert moved == {name for name, _ in model.named_parameters()}
    assert model.loss(batch)["L_task"].item() < 0.1


def test_factors_start_as_xavier_normals() -> None:
    torch.manual_seed(0)
    model = LMF(SPEC, replace(SMALL, r=100, text_out=299))
    np.testing.assert_allclose(model.factors["text"].std().item(), np.sqrt(2 / 400), rtol=0.02)


def test_dropout_acts_where_the_docstring_says() -> None:
    model = make_model(dropout=0.1, dropout_text=0.4)
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and m.p}
    assert rates == {"subnet.text.dropout": 0.4, "subnet.audio.dropout": 0.1, "subnet.vision.dropout": 0.1}


def test_published_numbers() -> None:
    """Sec. 5.3's sizes are the defaults; the presets are MMSA's."""
    c = LMFConfig()
    assert (c.audio, c.vision, c.text_out, c.r, c.layers) == (32, 32, 64, 4, 2)
    sizes = {n: (p.lstm, p.text_out, p.audio, p.vision, p.r, p.dropout) for n, p in LMF.presets.items()}
    assert sizes["mosi"] == (128, 64, 16, 128, 3, 0.3)
    assert sizes["mosei"] == (128, 64, 16, 128, 4, 0.2)
    assert sizes["sims"] == (64, 32, 16, 64, 4, 0.2)
    rates = {n: (o.learning_rate, o.weight_decay, o.batch_size) for n, o in LMF.optimisation.items()}
    assert rates["mosi"] == (1e-3, 5e-3, 64)
    assert rates["mosei"] == (1e-3, 1e-3, 32)
    assert rates["sims"] == (2e-3, 5e-3, 64)


def test_bad_options() -> None:
    with pytest.raises(InputError, match="lmf: fusion must be one of sum_of_products, product_of_sums, weighted"):
        LMFConfig(fusion="sum")
    with pytest.raises(InputError, match="lmf: r and layers must be 1 or more; got 0 and 2"):
        LMFConfig(r=0)
    for option in ("loss", "text_state"):
        with pytest.raises(InputError, match=f"lmf: {option} must be one of"):
            replace(SMALL, **{option: "median"})
