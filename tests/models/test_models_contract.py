"""What every model here must keep, whatever its paper says: the contract of robustbench_msa/models/contract.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.chance import Chance
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Optimisation, Output
from robustbench_msa.models.registry import MODELS as NAMES
from robustbench_msa.models.registry import model_class

MODELS: tuple[type[MSAModel], ...] = tuple(map(model_class, NAMES))
SPEC = InputSpec(dims=(6, 5, 4))
CLASSES = InputSpec(dims=(6, 5, 4), num_classes=4)
SYNTH_DIMS = (48, 24, 16)
SYNTH_PARAMETERS = 250_000  # 1 MB of float32


def make_batch(n: int = 9, seed: int = 0, spec: InputSpec = SPEC) -> Batch:
    g = torch.Generator().manual_seed(seed)
    lengths = {
        f"{m}_lengths": torch.randint(1, t + 1, (n,), generator=g) for m, t in zip(MODALITIES, (7, 5, 6), strict=True)
    }
    return Batch(
        text=torch.randn(n, 7, 6, generator=g) * 2 + 1,
        audio=torch.randn(n, 5, 5, generator=g) * 30,
        vision=torch.randn(n, 6, 4, generator=g) - 4,
        labels=labels_for(spec, n, g),
        **lengths,
    )


def labels_for(spec: InputSpec, n: int, g: torch.Generator) -> Tensor:
    if spec.num_classes:
        return torch.randint(spec.num_classes, (n,), generator=g)
    return torch.rand(n, generator=g) * 6 - 3


def built(cls: type[MSAModel], spec: InputSpec = SPEC) -> MSAModel:
    torch.manual_seed(3)
    model = cls(spec, cls.presets["synth"])
    return model.eval()


def both(cls: type[MSAModel]) -> list[tuple[type[MSAModel], InputSpec]]:
    return [(cls, SPEC), (cls, CLASSES)]


EVERY = [pair for cls in MODELS for pair in both(cls)]
"""Every model with a score to predict, and with classes."""


def shown(value: object) -> str:
    if isinstance(value, InputSpec):
        return "classes" if value.num_classes else "score"
    return str(getattr(value, "name", value))


@pytest.fixture(params=EVERY, ids=lambda pair: f"{pair[0].name}-{shown(pair[1])}")
def model(request: pytest.FixtureRequest) -> Iterator[MSAModel]:
    model = built(*request.param)
    model.fit_statistics(make_batch())
    with torch.no_grad():
        yield model


def close(a: Output, b: Output, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(a.prediction, b.prediction, rtol=0, atol=atol)
    assert a.extras.keys() == b.extras.keys()
    for name, value in a.extras.items():
        np.testing.assert_allclose(value, b.extras[name], rtol=0, atol=atol, err_msg=name)


def test_shapes(model: MSAModel) -> None:
    output = model(make_batch())
    assert output.prediction.shape == ((9, 4) if model.spec.num_classes else (9,))
    assert all(len(value) == 9 and torch.isfinite(value).all() for value in output.extras.values())


def test_predictions_depend_on_every_modality_that_is_read(model: MSAModel) -> None:
    batch = make_batch()
    before = model(batch).prediction
    for modality in MODALITIES:
        x = batch.features(modality)
        after = model(batch.replace(**{modality: x.flip(0) * 1.7})).prediction
        assert ((before - after).abs().max() > 1e-4) == (modality in model.reads)


@pytest.mark.parametrize("index", range(3), ids=MODALITIES)
def test_nothing_depends_on_what_is_told_absent(model: MSAModel, index: int) -> None:
    batch, modality = make_batch(), MODALITIES[index]
    present = torch.ones(9, 3, dtype=torch.bool)
    present[::2, index] = False
    x, lengths = batch.features(modality).clone(), batch.lengths(modality).clone()
    x[::2], lengths[::2] = torch.full_like(x[::2], torch.nan), 0
    there = batch.replace(present=present)
    gone = there.replace(**{modality: x, f"{modality}_lengths": lengths})
    close(model(there), model(gone), atol=1e-6)
    change = (model(there).prediction - model(batch).prediction)[::2].abs().max()
    assert (change > 1e-5) == (modality in model.reads)


def test_encoders_are_separable(model: MSAModel) -> None:
    """h_m depends on modality m alone, so parts of two encodings can be mixed."""
    one, two = make_batch(), make_batch(seed=5)
    a, b = model.encode(one), model.encode(two)
    for modality in MODALITIES:
        changed = {modality: two.features(modality), f"{modality}_lengths": two.lengths(modality)}
        encoded = model.encode(one.replace(**changed))
        for other in MODALITIES:
            expected = (b if other == modality else a).part(other)
            for name, value in expected.items():
                np.testing.assert_allclose(encoded.part(other)[name], value, rtol=0, atol=1e-6)
    mixed = Encoded(text=b.text, audio=a.audio, vision=a.vision)
    close(model.fuse(mixed, one.present), model(one.replace(text=two.text, text_lengths=two.text_lengths)))


def test_padding_never_matters(model: MSAModel) -> None:
    batch = make_batch()
    longer: dict[str, Tensor] = {}
    for modality in MODALITIES:
        x = torch.cat([batch.features(modality), batch.features(modality)[:, :3]], dim=1)
        steps = torch.arange(x.shape[1])
        longer[modality] = torch.where((steps < batch.lengths(modality)[:, None])[..., None], x, 777.0)
    close(model(batch), model(batch.replace(**longer)), atol=1e-6)


def test_the_batch_never_matters(model: MSAModel) -> None:
    batch = make_batch()
    whole = model(batch)
    rows = [model(batch.select([i])) for i in range(9)]
    extras = {name: torch.cat([row.extras[name] for row in rows]) for name in whole.extras}
    close(whole, Output(torch.cat([row.prediction for row in rows]), extras))
    order = [4, 0, 8, 2, 1, 7, 3, 6, 5]
    close(
        model(batch.select(order)),
        Output(whole.prediction[order], {name: value[order] for name, value in whole.extras.items()}),
    )


def test_a_sample_without_any_step_is_finite(model: MSAModel) -> None:
    nothing = {f"{m}_lengths": torch.zeros(9, dtype=torch.int64) for m in MODALITIES}
    output = model(make_batch().replace(**nothing))
    assert torch.isfinite(output.prediction).all()
    np.testing.assert_allclose(output.prediction, output.prediction[:1].expand_as(output.prediction), atol=1e-6)


def test_weights_and_statistics_travel_in_the_state_dict(model: MSAModel) -> None:
    torch.manual_seed(99)
    spec, config = json.loads(json.dumps(model.arguments())).values()
    again = type(model)(InputSpec(**{**spec, "dims": tuple(spec["dims"])}), type(model).config_class(**config)).eval()
    assert (again(make_batch()).prediction - model(make_batch()).prediction).abs().max() > 1e-3
    again.load_state_dict(model.state_dict())
    close(again(make_batch()), model(make_batch()), atol=0)


@pytest.mark.parametrize(("cls", "spec"), EVERY, ids=shown)
def test_gradients_reach_every_parameter(cls: type[MSAModel], spec: InputSpec) -> None:
    model = built(cls, spec).train()
    model.fit_statistics(make_batch(64))
    losses = model.loss(make_batch(64, spec=spec))
    losses["total"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize(("cls", "spec"), EVERY, ids=shown)
def test_a_few_steps_lower_the_loss(cls: type[MSAModel], spec: InputSpec) -> None:
    model, batch = built(cls, spec), make_batch(32, spec=spec)
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = model.loss(batch)["total"].item()
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        optimizer.step()
    assert model.loss(batch)["total"].item() < (0.8 if spec.num_classes else 0.7) * before


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.name)
def test_the_task_loss_of_classes_is_the_cross_entropy_of_the_prediction(cls: type[MSAModel]) -> None:
    model, batch = built(cls, CLASSES), make_batch(spec=CLASSES)
    if cls.name == "ca_moe":  # but for the label that it writes into its weights in training
        model = cls(CLASSES, replace(cls.presets["synth"], training_label="loss_only")).eval()
    model.fit_statistics(batch)
    with torch.no_grad():
        terms, logits = model.loss(batch), model(batch).prediction.double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert batch.labels is not None
    expected = -log_p[np.arange(9), batch.labels].mean()
    task = next(terms[name] for name in ("L_task", "L_nll", "L_multi", "L_ce") if name in terms)
    np.testing.assert_allclose(task.item(), expected, rtol=1e-5)


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.name)
def test_32_samples_of_classes_are_learnt_by_heart(cls: type[MSAModel]) -> None:
    batch, config = make_batch(32, spec=CLASSES), cls.presets["synth"]
    dropouts = {f.name: 0.0 for f in fields(config) if "dropout" in f.name and f.type == "float"}
    torch.manual_seed(0)
    model = cls(CLASSES, replace(config, **dropouts))
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(1, 201):
        optimizer.zero_grad()
        model.train().loss(batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 and known_by_heart(model, batch):
            break
    assert known_by_heart(model, batch)


def known_by_heart(model: MSAModel, batch: Batch) -> bool:
    with torch.no_grad():
        return bool((model.eval()(batch).prediction.argmax(dim=1) == batch.labels).all())


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.name)
def test_presets_and_their_optimisation(cls: type[MSAModel]) -> None:
    assert cls.presets.keys() == cls.optimisation.keys()
    assert cls.presets.keys() >= {"mosi", "mosei", "synth"}
    assert all(isinstance(o, Optimisation) for o in cls.optimisation.values())
    assert all(json.loads(json.dumps(asdict(config))) == asdict(config) for config in cls.presets.values())
    small = built(cls, InputSpec(dims=SYNTH_DIMS))
    assert sum(value.numel() for value in small.state_dict().values()) <= SYNTH_PARAMETERS


@pytest.mark.parametrize(("cls", "spec"), EVERY, ids=shown)
def test_it_can_be_built_without_memory(cls: type[MSAModel], spec: InputSpec) -> None:
    """Checkpoints are compared with the shapes of a model that takes no memory."""
    with torch.device("meta"):
        shapes = {name: x.shape for name, x in cls(spec, cls.presets["synth"]).state_dict().items()}
    assert shapes == {name: x.shape for name, x in built(cls, spec).state_dict().items()}


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.name)
def test_borders(cls: type[MSAModel]) -> None:
    with pytest.raises(InputError, match=f"{cls.name}: text is token ids"):
        cls(InputSpec(dims=(0, 5, 4)), cls.presets["synth"])
    with pytest.raises(InputError, match=f"{cls.name}: expected 0 .* got num_classes=1"):
        cls(InputSpec(dims=(6, 5, 4), num_classes=1), cls.presets["synth"])
    with pytest.raises(InputError, match="expected classes 0 to 3, got a label of"):
        built(cls, CLASSES).loss(make_batch())
    with pytest.raises(InputError, match="text: expected features"):
        built(cls).encode(make_batch().replace(text=torch.ones(9, 7, dtype=torch.int64)))
    with pytest.raises(InputError, match="no labels"):
        built(cls).loss(make_batch().replace(labels=None))


def test_chance_is_the_best_constant() -> None:
    labels = torch.tensor([-2.0, 0.2, 0.4, 3.0, 0.1, 0.3])
    chance, batch = Chance.from_labels(labels), make_batch()
    output = chance(batch)
    grid = torch.linspace(-3, 3, 2401)[:, None]
    best_squared = grid[(labels - grid).square().mean(dim=1).argmin()]
    np.testing.assert_allclose(output.prediction, best_squared.expand(9), atol=0.0025)
    absolute = (labels - grid).abs().mean(dim=1).min()
    np.testing.assert_allclose((labels - output.extras["for_mae"][0]).abs().mean(), absolute, atol=1e-6)
    tokens = batch.replace(text=torch.ones(9, 7, dtype=torch.int64))
    close(chance.fuse(chance.encode(tokens), tokens.present), output, atol=0)
    assert chance.state_dict() == {}


def test_chance_of_classes_is_the_majority() -> None:
    chance, batch = Chance.from_labels(torch.tensor([2, 0, 2, 1, 1])), make_batch()
    np.testing.assert_array_equal(chance(batch).prediction.argmax(dim=1), 1)  # of equally frequent ones the first
    assert chance(batch).prediction.shape == (9, 3)
    assert chance.spec.num_classes == 3
    again = Chance.from_constants(asdict(chance.config))
    assert (type(again), again.arguments()) == (type(chance), chance.arguments())
    scores = Chance.from_labels(torch.tensor([0.0, 3.0, 0.0]))
    assert Chance.from_constants(asdict(scores.config)).arguments() == scores.arguments()


def test_chance_has_nothing_to_train() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        Chance(0.0, 0.0).loss(make_batch())
    with pytest.raises(InputError, match="got none"):
        Chance.from_labels(torch.zeros(0))
