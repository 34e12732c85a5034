"""Models on token ids: states, padding and absence, frozen and fine-tuned training, checkpoints without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corruptions import MODALITIES, Batch, Derived, InputError, corrupt
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.models.checkpoint import Checkpoint, load_model
from robustbench_msa.models.contract import InputSpec, MSAModel, Output
from robustbench_msa.models.layers import Standardise
from robustbench_msa.models.registry import MODELS, model_class
from robustbench_msa.models.text_backbone import TextBackbone, TokenTextModel, token_class, with_backbone
from robustbench_msa.run import benchmark
from robustbench_msa.training.loop import _optimizer, predict
from robustbench_msa.training.train import train

transformers = pytest.importorskip("transformers", reason='needs the extra "bert" (transformers)')
Save = Callable[..., Path]
READERS = [name for name in MODELS if "text" in model_class(name).reads]
DERIVED = {"comment": 3, "explanation_audio": 3, "explanation_vision": 3}
TINY = {"d_model": 8, "top_k": 1, "num_experts": 2, "batch_size": 16}


def make_batch(n: int = 9, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 8, (n,), generator=g)
    ids = torch.randint(1000, 2100, (n, 7), generator=g)
    ids[:, 0], ids[torch.arange(n), lengths - 1] = 101, 102
    return Batch(
        text=ids,
        text_lengths=lengths,
        audio=torch.randn(n, 5, 5, generator=g),
        vision=torch.randn(n, 6, 4, generator=g),
        labels=torch.rand(n, generator=g) * 6 - 3,
        derived={name: Derived(torch.randn(n, 4, d, generator=g), MODALITIES) for name, d in DERIVED.items()},
    )


def made(folder: Path, name: str = "qa_moe", **settings: Any) -> TokenTextModel:
    """A model with its backbone, before training."""
    cls = model_class(f"{name}-tokens")
    config = with_backbone(replace(cls.presets["synth"], text_backbone=str(folder), **settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        reads = cls(InputSpec((0, 5, 4), derived=DERIVED), config).derived_inputs()
        torch.manual_seed(3)
        model = cls(InputSpec((0, 5, 4), derived={name: DERIVED[name] for name in reads}), config)
    assert isinstance(model, TokenTextModel)
    model.read_backbone()
    return model


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith("_moe") or name == "emoe"])
def test_classes_from_token_ids(encoder_folder: Path, name: str) -> None:
    """The head is the model's own: logits, and a loss that reaches it."""
    cls = model_class(f"{name}-tokens")
    config = with_backbone(replace(cls.presets["synth"], text_backbone=str(encoder_folder)))
    model = cls(InputSpec((0, 5, 4), num_classes=3), config)
    assert isinstance(model, TokenTextModel)
    model.read_backbone()
    batch = make_batch().replace(labels=torch.arange(9) % 3)
    model.fit_statistics(batch)
    loss = model.loss(batch)["total"]
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.inner.parameters())
    with torch.no_grad():
        assert model.eval()(batch).prediction.shape == (9, 3)
        np.testing.assert_array_equal(predict(model, batch), model(batch).prediction.argmax(dim=1))


@pytest.fixture(params=READERS)
def model(request: pytest.FixtureRequest, encoder_folder: Path) -> Iterator[TokenTextModel]:
    model = made(encoder_folder, request.param)
    model.fit_statistics(make_batch(32, seed=1))
    with torch.no_grad():
        yield model.eval()


def close(a: Output, b: Output, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(a.prediction, b.prediction, rtol=0, atol=atol)
    assert a.extras.keys() == b.extras.keys()
    for name, value in a.extras.items():
        np.testing.assert_allclose(value, b.extras[name], rtol=0, atol=atol, err_msg=name)


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "electra", "distilbert"])
def test_states_are_the_librarys_sample_by_sample(kind: str, save_encoder: Save, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / kind, kind)
    model, batch = made(folder, "late_fusion").eval(), make_batch(70)  # more than one pass
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    states = model.states(batch.text, batch.text_lengths)
    assert states.shape == (70, 7, 16)
    for i, length in enumerate(batch.text_lengths.tolist()):
        with torch.no_grad():
            expected = theirs(input_ids=batch.text[i : i + 1, :length]).last_hidden_state[0]
        np.testing.assert_allclose(states[i, :length], expected, rtol=0, atol=1e-5)
        assert not states[i, length:].any()


def test_padding_is_not_seen_wherever_it_stands(encoder_folder: Path) -> None:
    model = made(encoder_folder).eval()
    ids = torch.tensor([[101, 1500, 102, 0, 0], [101, 1500, 102, 9**9, -1], [0, 0, 0, 0, 0]])
    states = model.states(ids, torch.tensor([5, 3, 1]))
    np.testing.assert_allclose(states[0], states[1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(states[2], np.zeros((5, 16)))
    assert torch.isfinite(model.states(ids, torch.tensor([0, 0, 0]))).all()
    assert model.states(ids[:, :3], torch.tensor([3, 3, 3])).shape == (3, 3, 16)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 3, 4), r"expected token ids \(N, T\), got features of shape \(2, 3, 4\); .*--text tokens"),
        (torch.full((2, 3), 2100), r"token id 2100 is not among the 2100 of '.*tiny-bert'"),
        (torch.full((2, 3), -7), r"token id -7 is not among"),
        (torch.full((2, 30), 1500), r"30 tokens, but '.*tiny-bert' takes 24; cut the text"),
    ],
)
def test_text_that_the_encoder_cannot_read(ids: Tensor, message: str, encoder_folder: Path) -> None:
    lengths = torch.full((len(ids),), ids.shape[1])
    with pytest.raises(InputError, match=message):
        made(encoder_folder).encode_modality("text", ids, lengths)


# --- the contract, for every model that reads text --------------------------------------------------------------------


def test_the_model_gets_the_states_as_its_text(model: TokenTextModel) -> None:
    batch = make_batch()
    states = batch.replace(text=model.states(batch.text, batch.text_lengths))
    output = model(batch)
    assert output.prediction.shape == (9,)
    assert torch.isfinite(output.prediction).all()
    close(output, model.inner(states), atol=0)
    changed = batch.replace(text=torch.where(batch.text > 999, 3099 - batch.text, batch.text))
    assert (model(changed).prediction - output.prediction).abs().max() > 1e-5


def test_padding_never_matters(model: TokenTextModel) -> None:
    batch = make_batch()
    ids = torch.cat([batch.text, batch.text], dim=1)
    ids = torch.where(torch.arange(14) < batch.text_lengths[:, None], ids, 2**31)
    close(model(batch), model(batch.replace(text=ids)), atol=1e-6)


def test_the_batch_never_matters(model: TokenTextModel) -> None:
    batch = make_batch()
    rows = [model(batch.select([i])) for i in range(9)]
    extras = {name: torch.cat([row.extras[name] for row in rows]) for name in rows[0].extras}
    close(model(batch), Output(torch.cat([row.prediction for row in rows]), extras))


def test_nothing_depends_on_text_that_is_told_absent(model: TokenTextModel) -> None:
    batch, present = make_batch(), torch.ones(9, 3, dtype=torch.bool)
    present[::2, 0] = False
    there, ids, lengths = batch.replace(present=present), batch.text.clone(), batch.text_lengths.clone()
    ids[::2], lengths[::2] = 10**9, 0
    close(model(there), model(there.replace(text=ids, text_lengths=lengths)), atol=1e-6)
    assert (model(there).prediction - model(batch).prediction)[::2].abs().max() > 1e-5
    features = there.replace(text=model.states(batch.text, batch.text_lengths))
    close(model(there), model.inner(features), atol=1e-6)  # as features that are told absent


def test_a_sample_without_any_token_is_finite(model: TokenTextModel) -> None:
    nothing = torch.zeros(9, dtype=torch.int64)
    assert torch.isfinite(model(make_batch().replace(text_lengths=nothing)).prediction).all()


@pytest.mark.parametrize("name", READERS)
def test_fine_tuning_reaches_the_whole_encoder(name: str, encoder_folder: Path) -> None:
    model = made(encoder_folder, name, text_finetune=True).train()
    model.fit_statistics(make_batch(64))
    losses = model.loss(make_batch(64))
    losses["total"].backward()
    without = [n for n, p in model.encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [n for n in without if "key.bias" not in n] == []  # a key's bias moves all scores of a query alike
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())


# --- frozen and fine-tuned --------------------------------------------------------------------------------------------


def test_a_frozen_encoder_is_outside_of_the_model(encoder_folder: Path) -> None:
    model, batch = made(encoder_folder).train(), make_batch()
    assert not any("backbone" in name for name in model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.inner.parameters())
    model.loss(batch)["total"].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    first, second = (model.states(batch.text, batch.text_lengths) for _ in range(2))
    np.testing.assert_array_equal(first, second)  # no dropout, although the model trains
    assert not first.requires_grad
    assert {t.dtype for t in model.double().encoder.state_dict().values()} == {torch.float64}, "it goes where it goes"


def test_a_frozen_encoder_that_is_stored_has_no_gradients_either(encoder_folder: Path) -> None:
    model = made(encoder_folder, text_store=True).train()
    assert sum("backbone" in name for name in model.state_dict()) == len(model.encoder.state_dict()) > 0
    model.loss(make_batch())["total"].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.encoder.parameters())


def test_a_fine_tuned_encoder_has_dropout_in_training_alone(encoder_folder: Path) -> None:
    model, batch = made(encoder_folder, text_finetune=True).train(), make_batch()
    first, second = (model.states(batch.text, batch.text_lengths) for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    first, second = (model.eval().states(batch.text, batch.text_lengths) for _ in range(2))
    np.testing.assert_array_equal(first.detach(), second.detach())


def test_the_loss_is_the_models_own(encoder_folder: Path) -> None:
    batch = make_batch()
    for settings in ({}, {"text_finetune": True}):
        model = made(encoder_folder, "rider_moe", **settings).eval()
        ours = model.loss(batch)
        theirs = model.inner.loss(batch.replace(text=model.states(batch.text, batch.text_lengths)))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            np.testing.assert_array_equal(value.detach(), theirs[name].detach())


def standardisers(model: TokenTextModel) -> list[Standardise]:
    return [module for module in model.inner.modules() if isinstance(module, Standardise)]


def test_states_of_a_frozen_encoder_are_standardised(encoder_folder: Path) -> None:
    model, batch = made(encoder_folder), make_batch(70)
    model.fit_statistics(batch)
    steps = model.eval().states(batch.text, batch.text_lengths)[batch.valid("text")]
    text, audio, _ = standardisers(model)
    np.testing.assert_allclose(text.mean, steps.mean(dim=0), atol=1e-5)
    np.testing.assert_allclose(text.std, steps.std(dim=0, correction=0), atol=1e-5)
    np.testing.assert_allclose(audio.mean, batch.audio.flatten(0, 1).mean(dim=0), atol=1e-5)


def test_states_of_a_fine_tuned_encoder_are_taken_as_they_are(encoder_folder: Path) -> None:
    model, batch = made(encoder_folder, text_finetune=True), make_batch(70)
    model.fit_statistics(batch)
    text, audio, _ = standardisers(model)
    np.testing.assert_array_equal(text.mean, np.zeros(16))
    np.testing.assert_array_equal(text.std, np.ones(16))
    np.testing.assert_allclose(audio.mean, batch.audio.flatten(0, 1).mean(dim=0), atol=1e-5)


def test_uncorrupted_training_samples_are_encoded_once(encoder_folder: Path) -> None:
    model, batch = made(encoder_folder), make_batch(20)
    expected = model.states(batch.text, batch.text_lengths)
    model.fit_statistics(batch)
    passes: list[int] = []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    some = batch.select([7, 3, 3 + 8]).replace(text=batch.text[[7, 3, 11], :])
    np.testing.assert_array_equal(model.train().states(some.text, some.text_lengths), expected[[7, 3, 11]])
    assert passes == []
    lost = corrupt(some, "frame-missing", 0.9)
    found = model.states(lost.text, lost.text_lengths)
    assert passes == [1]
    np.testing.assert_array_equal(found, model.eval().states(lost.text, lost.text_lengths))
    assert (found - expected[[7, 3, 11]]).abs().max() > 1e-3
    model.states(some.text, some.text_lengths)
    assert passes == [1, 1, 1], "nothing is taken from memory in evaluation"


def test_the_encoder_has_its_own_learning_rate(encoder_folder: Path) -> None:
    model = made(encoder_folder, text_finetune=True, text_learning_rate=1e-5)
    optimisation = replace(model.optimisation["synth"], learning_rate=1e-3)
    inner, text = _optimizer(model, optimisation).param_groups
    assert (inner["lr"] * inner.get("share", 1.0), text["lr"] * text["share"]) == pytest.approx((1e-3, 1e-5))
    assert {id(p) for p in text["params"]} == {id(p) for p in model.encoder.parameters()}
    assert len(inner["params"]) + len(text["params"]) == len(list(model.parameters()))
    assert len(_optimizer(made(encoder_folder), optimisation).param_groups) == 1


# --- the class --------------------------------------------------------------------------------------------------------


def test_the_class_of_a_model_on_tokens() -> None:
    inner, cls = model_class("qa_moe"), model_class("qa_moe-tokens")
    assert cls is token_class(inner)
    assert (cls.name, cls.paper, cls.version) == ("qa_moe-tokens", inner.paper, 1000 + inner.version)
    assert cls.presets.keys() == inner.presets.keys()
    assert cls.optimisation == inner.optimisation
    config = cls.presets["mosi"]
    assert isinstance(config, inner.config_class)
    assert isinstance(config, TextBackbone)
    assert config.d_model == inner.presets["mosi"].d_model
    with pytest.raises(InputError, match="quality_predictor must be one of"):
        cls.config_class(quality_predictor="none")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("audio_only-tokens", "audio_only does not read text: it has no use for a text backbone"),
        ("qa_mo-tokens", "unknown model 'qa_mo-tokens'"),
        ("qa_moe-tokens-tokens", "unknown model 'qa_moe-tokens-tokens'"),
        ("chance-tokens", "unknown model 'chance-tokens'"),
    ],
)
def test_there_is_no_such_class(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model_class(name)


def test_borders(encoder_folder: Path) -> None:
    model = made(encoder_folder)
    with pytest.raises(InputError, match=r"qa_moe-tokens: text is features of 6 dims, expected token ids .*--text tok"):
        type(model)(InputSpec((6, 5, 4)), model.config)
    with pytest.raises(InputError, match="text_learning_rate must be at least 0"):
        type(model)(model.spec, replace(model.config, text_learning_rate=-1.0))
    with pytest.raises(InputError, match="no text backbone: give a folder or a hub name with --text-backbone"):
        with_backbone(type(model).presets["synth"])
    with pytest.raises(InputError, match="no labels"):
        model.loss(make_batch().replace(labels=None))


# --- training, checkpoints --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(token_file: Path) -> Dataset:
    return load_dataset("tokens", token_file)


@pytest.fixture
def movable(encoder_folder: Path, tmp_path: Path) -> Path:
    """The tiny encoder in a place of its own, to take away or to change."""
    return Path(shutil.copytree(encoder_folder, tmp_path / "encoders" / "tiny-bert"))


def trained(dataset: Dataset, out: Path, backbone: Path, finetune: bool = False, **settings: Any) -> Checkpoint:
    overrides = TINY | {"epochs": 2} | settings
    return train("qa_moe", dataset, out=out, overrides=overrides, text_backbone=str(backbone), finetune_text=finetune)


def predictions(checkpoint: Checkpoint, dataset: Dataset) -> np.ndarray[Any, Any]:
    return predict(load_model(checkpoint), dataset.splits["test"]).numpy()


def test_a_checkpoint_of_a_frozen_encoder_asks_for_exactly_that_encoder(
    dataset: Dataset, movable: Path, tmp_path: Path, save_encoder: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained(dataset, tmp_path / "out", movable)
    assert (checkpoint.model, checkpoint.dims) == ("qa_moe-tokens", (0, 3, 2))
    assert json.loads(checkpoint.config["arguments"]["config"]["text_config"])["model_type"] == "bert"
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 30_000, "the encoder's embeddings take 134 kB"
    before = predictions(checkpoint, dataset)
    assert np.ptp(before) > 0.01

    elsewhere = movable.rename(tmp_path / "tiny-bert")
    with pytest.raises(InputError, match=r"qa_moe-tokens/tokens .*: text backbone '.*tiny-bert': no such folder") as e:
        load_model(checkpoint)
    assert "\n" not in str(e.value)
    monkeypatch.setenv("MSABENCH_BACKBONES", str(tmp_path))
    np.testing.assert_array_equal(predictions(checkpoint, dataset), before)

    shutil.rmtree(elsewhere)
    save_encoder(elsewhere, seed=1)
    with pytest.raises(InputError, match=r"does not hold the text backbone this was trained with \(sha256 \w{12} inst"):
        load_model(checkpoint)


@pytest.mark.parametrize("finetune", [True, False], ids=["fine-tuned", "frozen, stored"])
def test_a_checkpoint_with_the_encoder_needs_nothing_else(
    finetune: bool, dataset: Dataset, movable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"text_learning_rate": 1e-2} if finetune else {"text_store": "true"}
    checkpoint = trained(dataset, tmp_path / "out", movable, finetune, **settings)
    before = predictions(checkpoint, dataset)
    pretrained = made(movable).encoder.state_dict()
    shutil.rmtree(movable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    np.testing.assert_array_equal(predictions(checkpoint, dataset), before)
    model = load_model(checkpoint)
    assert isinstance(model, TokenTextModel)
    moved = [name for name, t in model.encoder.state_dict().items() if not torch.equal(t, pretrained[name])]
    assert bool(moved) == finetune
    assert not model.encoder.training


def test_a_changed_configuration_does_not_load(dataset: Dataset, encoder_folder: Path, tmp_path: Path) -> None:
    checkpoint = trained(dataset, tmp_path / "out", encoder_folder, epochs=1)
    arguments = checkpoint.config["arguments"]["config"]
    good = arguments["text_config"]
    for text, message in (
        (good.replace('"hidden_size": 16', '"hidden_size": 20'), "the weights do not fit the model"),
        (good.replace('"intermediate_size": 24', '"intermediate_size": 30'), "not of the shape that config.json says"),
        ('{"model_type": "gpt2"}', "expected the settings of one of bert, electra, distilbert"),
    ):
        arguments["text_config"] = text
        with pytest.raises(InputError, match=message):
            load_model(checkpoint)


@pytest.mark.parametrize("finetune", [True, False], ids=["fine-tuned", "frozen"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    finetune: bool, dataset: Dataset, encoder_folder: Path, tmp_path: Path
) -> None:
    whole = trained(dataset, tmp_path / "whole", encoder_folder, finetune)

    def stop(epoch: int, *_: Any) -> None:
        raise KeyboardInterrupt

    arguments = {"overrides": TINY | {"epochs": 2}, "text_backbone": str(encoder_folder), "finetune_text": finetune}
    with pytest.raises(KeyboardInterrupt):
        train("qa_moe", dataset, out=tmp_path / "parts", progress=stop, **arguments)
    again = train("qa_moe", dataset, out=tmp_path / "parts", **arguments)
    assert again.weights_sha256 == whole.weights_sha256
    assert again.identity == whole.identity
    done: list[str] = []
    train("qa_moe-tokens", dataset, out=tmp_path / "parts", notice=done.append, **arguments)
    assert "nothing to do" in done[0]


def test_an_encoder_that_changed_is_another_training(
    dataset: Dataset, movable: Path, tmp_path: Path, save_encoder: Save
) -> None:
    trained(dataset, tmp_path / "out", movable, epochs=1)
    shutil.rmtree(movable)
    save_encoder(movable, seed=1)
    with pytest.raises(InputError, match="holds a checkpoint of another training"):
        trained(dataset, tmp_path / "out", movable, epochs=1)


def test_what_cannot_be_trained(dataset: Dataset, encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"text is token ids, expected features .*--text-backbone NAME"):
        train("qa_moe", dataset, out=tmp_path)
    with pytest.raises(InputError, match="there is no text backbone to train"):
        train("qa_moe", dataset, out=tmp_path, finetune_text=True)
    with pytest.raises(InputError, match="no text backbone: give a folder"):
        train("qa_moe-tokens", dataset, out=tmp_path)
    with pytest.raises(InputError, match="text is features of 48 dims, expected token ids"):
        trained(load_dataset("synth:train=8,valid=8,test=8"), tmp_path, encoder_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("finetune", [True, False], ids=["fine-tuned", "frozen"])
def test_training_learns_what_the_words_say(
    finetune: bool, dataset: Dataset, encoder_folder: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 12, "learning_rate": 1e-2, "text_learning_rate": 1e-2}
    checkpoint = trained(dataset, tmp_path / "out", encoder_folder, finetune, **settings)
    labels = dataset.splits["test"].labels
    assert labels is not None
    assert np.corrcoef(predictions(checkpoint, dataset), labels.numpy())[0, 1] > 0.5


# --- running ----------------------------------------------------------------------------------------------------------


def test_lost_words_become_unk_before_the_encoder(
    dataset: Dataset, token_file: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = trained(dataset, Path("checkpoints/tokens/qa_moe-tokens/clean/1111"), encoder_folder, epochs=1)
    result = benchmark(
        "qa_moe", "frame-missing", "0,0.5", dataset="tokens", data=token_file, text="tokens", seeds=1, device="cpu"
    )
    assert (result.tally.computed, result.tally.failed) == (4, 0)  # with chance
    assert set(result.curves["model"]) == {"qa_moe-tokens", "chance"}
    test = dataset.splits["test"]
    lost = corrupt(test, "frame-missing", 0.5, seed=1111)
    gone = lost.text != test.text
    assert gone.any()
    assert (lost.text[gone] == 100).all()
    np.testing.assert_array_equal(lost.text_lengths, test.text_lengths)
    model = load_model(checkpoint)
    errors = (predict(model, lost) - lost.labels).abs().mean()
    curves = result.curves
    row = curves[
        (curves["model"] == "qa_moe-tokens")
        & (curves["metric"] == "mae")
        & (curves["severity"] == "0.5")
        & (curves["seed"] == 1111)
    ]
    np.testing.assert_allclose(row["value"], [errors], atol=1e-5)
    told = benchmark(
        "qa_moe-tokens", ["missing", "noise"], dataset=dataset, seeds=1, device="cpu", out="more", references=False
    )
    assert told.tally.failed == 0


def test_what_is_missing_is_said_with_the_command_that_makes_it(
    dataset: Dataset, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = "train it: msabench train --model qa_moe --text-backbone NAME --dataset tokens --data PATH"
    with pytest.raises(InputError, match=expected):
        benchmark("qa_moe", "missing", dataset=dataset)
    checkpoint = trained(dataset, Path("out"), encoder_folder, epochs=1)
    synth = load_dataset("synth:train=8,valid=8,test=8")
    with pytest.raises(InputError, match=r"checkpoint expects text as token ids, synth has 48 \(--text tokens, or"):
        benchmark(stress="missing", checkpoint=checkpoint.path, dataset=synth)


def test_every_model_that_reads_text_is_an_msa_model_on_tokens() -> None:
    assert all(issubclass(model_class(f"{name}-tokens"), MSAModel) for name in READERS)
    assert len(READERS) >= 8
