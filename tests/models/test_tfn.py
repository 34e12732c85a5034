"""TFN against its description, written out with NumPy and loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec, Output
from robustbench_msa.models.tfn import SUBTENSORS, TFN, TFNConfig, region_mask, tensor_fusion

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = TFNConfig(lstm=7, text_out=4, audio=6, vision=5, post_fusion=8)
STEPS = (6, 5, 7)


def make_batch(n: int = 7, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = {m: torch.randn(n, t, d, generator=g) + 1 for m, t, d in zip(MODALITIES, STEPS, SPEC.dims, strict=True)}
    lengths = {
        f"{m}_lengths": torch.randint(1, t + 1, (n,), generator=g) for m, t in zip(MODALITIES, STEPS, strict=True)
    }
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, n))


def make_model(**options: object) -> TFN:
    torch.manual_seed(0)
    model = TFN(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    model.fit_statistics(make_batch(40, seed=1))
    return model.eval()


def run(model: TFN, batch: Batch) -> Output:
    with torch.no_grad():
        return model(batch)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reference(model: TFN, batch: Batch, i: int) -> float:
    """The prediction for one sample, step by step from the weights."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    c = model.config

    def affine(prefix: str, x: Array) -> Array:
        return w[f"{prefix}.weight"] @ x + w[f"{prefix}.bias"]

    def steps(m: str) -> Array:
        x = batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy()
        return (x - w[f"subnet.{m}.standardise.mean"]) / w[f"subnet.{m}.standardise.std"]

    h, cell, states = np.zeros(c.lstm), np.zeros(c.lstm), []
    for x in steps("text"):
        gates = w["subnet.text.lstm.weight_ih_l0"] @ x + w["subnet.text.lstm.bias_ih_l0"]
        gates = gates + w["subnet.text.lstm.weight_hh_l0"] @ h + w["subnet.text.lstm.bias_hh_l0"]
        into, forget, candidate, out = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(candidate)
        h = sigmoid(out) * np.tanh(cell)
        states.append(h)
    z = {"text": states[-1] if c.text_state == "last" else np.mean(states, axis=0)}
    for layer in range(c.text_relu):
        z["text"] = np.maximum(affine(f"subnet.text.dense.{3 * layer}", z["text"]), 0)
    if not c.text_relu:
        z["text"] = affine("subnet.text.dense", z["text"])
    for m in ("audio", "vision"):
        x = steps(m).mean(axis=0)
        x = (x - w[f"subnet.{m}.standardise_mean.mean"]) / w[f"subnet.{m}.standardise_mean.std"]
        for layer in (0, 3, 6):
            x = np.maximum(affine(f"subnet.{m}.dense.{layer}", x), 0)
        z[m] = x

    sizes = (c.text_out, c.audio, c.vision)
    entries = []
    for index in product(*(range(d + 1) for d in sizes)):  # z^m, entry by entry
        region = "".join(letter for letter, j, d in zip("tav", index, sizes, strict=True) if j < d)
        if region in SUBTENSORS[c.subtensors]:
            entries.append(np.prod([[*z[m], 1.0][j] for m, j in zip(MODALITIES, index, strict=True)]))
    u = np.array(entries)
    for layer in (0, 3):
        u = np.maximum(affine(f"inference.1.{layer}", u), 0)
    value = float(affine("inference.2", u)[0])
    return -3 + 6 * float(sigmoid(np.array(value))) if c.output == "sigmoid" else value


OPTIONS: list[dict[str, object]] = [
    {},
    {"text_relu": 0},
    {"text_state": "mean"},
    {"dropout_at": "input", "dropout_text": 0.3},
    {"output": "linear"},
    *({"subtensors": name} for name in SUBTENSORS if name != "all"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_prediction_against_the_reference(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    expected = [reference(model, batch, i) for i in range(len(batch))]
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(run(model, batch).prediction, expected, rtol=1e-4, atol=1e-5)


def test_tensor_fusion_against_numpy() -> None:
    g = torch.Generator().manual_seed(2)
    z = [torch.randn(5, d, generator=g) for d in (4, 3, 2)]
    fused = tensor_fusion(*z).numpy()
    for n in range(5):
        t, a, v = (np.append(x[n].numpy(), 1) for x in z)
        np.testing.assert_allclose(fused[n], np.multiply.outer(np.multiply.outer(t, a), v), rtol=1e-5)


def test_the_seven_subtensors_and_the_constant_tile_the_tensor() -> None:
    masks = torch.stack([region_mask((4, 3, 2), (region,)) for region in SUBTENSORS["all"]])
    np.testing.assert_array_equal(masks.sum(dim=0), 1)
    sizes = dict(zip(SUBTENSORS["all"], masks.flatten(1).sum(dim=1).tolist(), strict=True))
    assert sizes == {"": 1, "t": 4, "a": 3, "v": 2, "ta": 12, "tv": 8, "av": 6, "tav": 24}


def test_subtensors_read_what_their_names_say() -> None:
    batch, other = make_batch(), make_batch(seed=5)
    reads = {"language": {"text"}, "acoustic": {"audio"}, "visual": {"vision"}, "early": set(MODALITIES)}
    for name in SUBTENSORS:
        model = make_model(subtensors=name, output="linear", audio=16, vision=16)  # wide: no modality is dead
        before = run(model, batch).prediction
        for m in MODALITIES:
            changed = batch.replace(**{m: other.features(m), f"{m}_lengths": other.lengths(m)})
            differs = bool((run(model, changed).prediction - before).abs().max() > 1e-5)
            assert differs is (m in reads.get(name, set(MODALITIES))), (name, m)


@pytest.mark.parametrize(("loss", "l2"), [("mse", 0.01), ("l1", 0.0), ("mse", 0.3)])
def test_loss_terms(loss: str, l2: float) -> None:
    model, batch = make_model(loss=loss, l2=l2), make_batch()
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    error = np.array([reference(model, batch, i) for i in range(len(batch))]) - np.linspace(-3, 3, len(batch))
    weights = [
        value.numpy() for name, value in model.state_dict().items() if "dense." in name or name.startswith("inference")
    ]
    text = [value.numpy() for name, value in model.state_dict().items() if name.startswith("subnet.text.dense")]
    squares = sum((w**2).sum() for w in weights if w.ndim == 2) - sum((w**2).sum() for w in text if w.ndim == 2)
    task = (error**2).mean() if loss == "mse" else np.abs(error).mean()
    np.testing.assert_allclose(losses["L_task"], task, rtol=1e-4)
    np.testing.assert_allclose(losses["L_2"], l2 * squares, rtol=1e-5)
    np.testing.assert_allclose(losses["total"], task + l2 * squares, rtol=1e-4)


def test_the_sigmoid_stays_in_the_range_of_the_labels() -> None:
    torch.manual_seed(0)
    model = TFN(InputSpec(dims=SPEC.dims, label_range=(-1.0, 1.0)), SMALL).eval()
    batch = make_batch(50)
    wild = batch.replace(text=batch.text * 100, audio=batch.audio * 100, vision=batch.vision * 100)
    prediction = run(model, wild).prediction
    assert prediction.abs().max() <= 1
    assert prediction.std() > 0.1


def test_dropout_acts_where_the_option_says() -> None:
    def active(**options: object) -> dict[str, set[str]]:
        model = make_model(dropout=0.1, dropout_fusion=0.2, **options)
        found: dict[str, set[str]] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Dropout) and module.p:
                found.setdefault(str(module.p), set()).add(name)
        return found

    hidden = {f"subnet.{m}.dense.{layer}" for m in ("audio", "vision") for layer in (2, 5, 8)}
    assert active() == {"0.1": hidden, "0.2": {"inference.1.2", "inference.1.5"}}
    at_input = {"0.1": {"subnet.audio.dropout", "subnet.vision.dropout"}, "0.2": {"inference.0"}}
    assert active(dropout_at="input") == at_input
    assert active(dropout_at="input", dropout_text=0.4) == {**at_input, "0.4": {"subnet.text.dropout"}}


def test_means_over_time_are_standardised_over_the_samples_that_have_them() -> None:
    model, train = make_model(), make_batch(40, seed=1)
    present = torch.ones(40, 3, dtype=torch.bool)
    present[:10, 1] = False
    spoilt = train.audio.clone()
    spoilt[:10] = 1e6
    model.fit_statistics(train.replace(present=present, audio=spoilt))
    subnet, kept = model.subnet["audio"], train.select(range(10, 40))
    x = kept.audio.double().numpy()
    valid = np.concatenate([x[i, :n] for i, n in enumerate(kept.audio_lengths)])
    mean, std = valid.mean(axis=0), valid.std(axis=0)
    np.testing.assert_allclose(subnet.standardise.mean, mean, rtol=1e-5)
    means = np.stack([((x[i, :n] - mean) / std).mean(axis=0) for i, n in enumerate(kept.audio_lengths)])
    np.testing.assert_allclose(subnet.standardise_mean.mean, means.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(subnet.standardise_mean.std, means.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("state", ["last", "mean"])
def test_padding_and_empty_samples(state: str) -> None:
    """What lies after the last valid step is never read, not even where no step is valid."""
    model, batch = make_model(text_state=state), make_batch()
    lengths = batch.text_lengths.clone()
    lengths[2] = 0
    batch = batch.replace(text_lengths=lengths)
    x = torch.cat([batch.text, batch.text], dim=1)
    padding = (torch.arange(x.shape[1]) >= lengths[:, None])[..., None]
    clean = run(model, batch).prediction
    assert torch.isfinite(clean).all()
    dirty = run(model, batch.replace(text=x.masked_fill(padding, torch.nan))).prediction
    np.testing.assert_allclose(dirty, clean, atol=1e-6)
    zeros = batch.text.clone()
    zeros[2] = 0
    one_step = batch.replace(text=zeros, text_lengths=lengths.clamp(min=1))
    np.testing.assert_allclose(run(model, one_step).prediction, clean, atol=1e-6)


@pytest.mark.parametrize("preset", ["mosi", "mosei", "sims", "synth"])
def test_parameter_count(preset: str) -> None:
    dims = (48, 24, 16)
    c = TFN.presets[preset]
    text, audio, vision = dims
    lstm = 4 * c.lstm * (text + c.lstm + 2)
    head = (c.lstm + 1) * c.text_out + max(c.text_relu - 1, 0) * (c.text_out + 1) * c.text_out
    means = sum((d + 1) * k + 2 * (k + 1) * k for d, k in ((audio, c.audio), (vision, c.vision)))
    tensor = (c.text_out + 1) * (c.audio + 1) * (c.vision + 1)
    inference = (tensor + 1) * c.post_fusion + (c.post_fusion + 1) * c.post_fusion + c.post_fusion + 1
    model = TFN(InputSpec(dims), c)
    assert sum(p.numel() for p in model.parameters()) == lstm + head + means + inference


def test_every_parameter_is_trained_and_32_samples_are_learned() -> None:
    torch.manual_seed(0)
    config = replace(TFN.presets["synth"], dropout=0.0, dropout_fusion=0.0, dropout_text=0.0, l2=0.0)
    model, batch = TFN(SPEC, config), make_batch(32)
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    moved: set[str] = set()
    for _ in range(250):
        optimizer.zero_grad()
        losses = model.loss(batch)
        losses["total"].backward()
        moved |= {name for name, p in model.named_parameters() if bool(p.grad.abs().sum() > 0)}
        optimizer.step()
    assert moved == {name for name, _ in model.named_parameters()}
    assert model.loss(batch)["L_task"].item() < 0.1


def test_published_numbers() -> None:
    """The paper's for MOSI (sec. 4.1, 4.3 and its training details), MMSA's for the others."""
    paper, recipe = TFN.presets["mosi"], TFN.optimisation["mosi"]
    assert (paper.text_out, paper.audio, paper.vision, paper.post_fusion) == (128, 32, 32, 128)
    assert (paper.dropout, paper.dropout_fusion, paper.l2, paper.loss) == (0.15, 0.15, 0.01, "mse")
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adam", 5e-4, 0.0)
    mosei, sims = TFN.presets["mosei"], TFN.presets["sims"]
    assert (mosei.lstm, mosei.audio, mosei.vision, mosei.text_out, mosei.post_fusion) == (128, 16, 128, 128, 16)
    assert (sims.lstm, sims.audio, sims.vision, sims.text_out, sims.post_fusion) == (128, 32, 128, 256, 32)
    assert {(c.dropout, c.dropout_fusion, c.l2, c.loss) for c in (mosei, sims)} == {(0.4, 0.4, 0.0, "l1")}
    rates = {name: (o.learning_rate, o.batch_size) for name, o in TFN.optimisation.items()}
    assert (rates["mosei"], rates["sims"]) == ((5e-3, 128), (5e-4, 32))


def test_bad_options() -> None:
    with pytest.raises(InputError, match="tfn: subtensors must be one of all, language"):
        TFNConfig(subtensors="quadrimodal")
    with pytest.raises(InputError, match="tfn: text_state must be one of last, mean; got 'first'"):
        TFNConfig(text_state="first")
    with pytest.raises(InputError, match="tfn: dropout_at must be one of hidden, input"):
        TFNConfig(dropout_at="everywhere")
    with pytest.raises(InputError, match="l2 and text_relu must be 0 or more; got -1 and 2"):
        TFNConfig(l2=-1)
    for option in ("loss", "output"):
        with pytest.raises(InputError, match=f"tfn: {option} must be one of"):
            replace(SMALL, **{option: "huber"})


def test_absent_modalities_come_in_as_zeros() -> None:
    model, batch = make_model(), make_batch()
    present = torch.ones(len(batch), 3, dtype=torch.bool)
    present[:, 2] = False
    zeros = torch.zeros_like(batch.vision)
    told = run(model, batch.replace(present=present)).prediction
    np.testing.assert_allclose(told, run(model, batch.replace(vision=zeros)).prediction, atol=1e-6)
