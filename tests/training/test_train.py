"""Training: repeatable, resumable after a kill at any moment, selected on validation, blind to the test split."""

import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import robustbench_msa
from corruptions import Batch, InputError
from corruptions.keyed_random import key_of
from robustbench_msa import atomic
from robustbench_msa.analysis.metrics import score
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.checkpoint import load_model, read_checkpoint
from robustbench_msa.models.contract import InputSpec, Optimisation
from robustbench_msa.models.late_fusion import LateFusion, LateFusionConfig
from robustbench_msa.training.loop import Job, TrainingError, fit, learning_rate, predict, repeatable
from robustbench_msa.training.recipes import parse_recipe
from robustbench_msa.training.train import STATE, train

SIZES = (70, 30, 20)
FAST = {"hidden": 6, "fusion": 6}


@pytest.fixture(scope="module")
def data():
    return make_synth(3, SIZES)


def run(data, out, **changes):
    arguments = {"recipe": "spectrum", "seed": 5, "epochs": 3, "overrides": FAST} | changes
    return train("late_fusion", data, out=out, **arguments)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """The bytes that any way of running the default ``run`` must end with."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(data, folder)
    return weights(folder)


# --- what is written


def test_the_checkpoint_says_how_it_was_made(data, tmp_path):
    told = []
    made = run(data, tmp_path, score=score, command="msabench train ...", progress=lambda *line: told.append(line))
    config = made.config
    assert [line[:2] for line in told] == [(1, 3), (2, 3), (3, 3)]
    values = [line[3] for line in told]
    assert config["selection"]["split"] == "valid"
    assert config["selection"]["by"].startswith("mean MAE over 9 fixed views")
    assert config["selection"]["value"] == min(values)
    training = config["training"]
    assert training["best_epoch"] == values.index(min(values)) + 1 == told[-1][4]
    assert (training["epochs_run"], training["device"], training["threads"]) == (3, "cpu", torch.get_num_threads())
    assert training["command"] == "msabench train ..."
    assert training["optimisation"] == dataclasses.asdict(
        dataclasses.replace(LateFusion.optimisation["synth"], epochs=3)
    )
    assert config["dataset"]["fingerprint"] == data.fingerprint
    assert config["dataset"]["sizes"] == {"train": 70, "valid": 30}
    assert (config["preset"], config["recipe"], config["train_seed"]) == ("synth", "spectrum", 5)
    assert config["arguments"]["config"]["hidden"] == 6
    valid = data.splits["valid"]
    assert config["validation"] == score(valid.labels, predict(load_model(made), valid), "mosi")
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_default_place_and_preset(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = dataclasses.replace(data, name="mine")
    made = train("late_fusion", named, recipe="missing-random:0.3", epochs=1, overrides=FAST)
    assert made.path == Path("checkpoints/mine/late_fusion/missing-random-0.3/1111")
    assert made.config["preset"] == "mosi"
    assert made.config["validation"] == {"mae": made.config["validation"]["mae"]}


def test_the_selected_epoch_is_the_one_that_is_kept(data, tmp_path):
    """Labels of the wrong sign soon make validation worse: the weights on disk must be those of an early epoch."""
    batch = data.splits["train"]
    wrong = Dataset("synth", {**data.splits, "train": batch.replace(labels=-batch.labels)})
    values = []
    settings = FAST | {"learning_rate": 0.01, "schedule": "constant", "dropout": 0.0}
    arguments = {"recipe": "clean", "epochs": 6, "overrides": settings}
    made = run(wrong, tmp_path, **arguments, progress=lambda *line: values.append(line[3]))
    best = int(np.argmin(values))
    assert values[best] < values[-1]
    assert made.config["training"]["best_epoch"] == best + 1
    valid = data.splits["valid"]
    mae = (predict(load_model(made), valid) - valid.labels).abs().mean().item()
    np.testing.assert_allclose(mae, values[best], rtol=1e-6)


# --- the arithmetic of the loop, against a plain reference


@pytest.mark.parametrize(
    "optimisation",
    [
        Optimisation("adam", 3e-3, 1e-2, batch_size=16, epochs=2, grad_clip=0.5, schedule="cosine"),
        Optimisation("adamw", 3e-3, 1e-1, batch_size=64, epochs=3, grad_clip=0.0, schedule="constant"),
    ],
)
def test_the_loop_does_what_a_plain_one_does(data, tmp_path, optimisation):
    batch, config = data.splits["train"], LateFusionConfig(6, 6, dropout=0.0)
    job = Job(
        lambda: LateFusion(InputSpec(data.dims), config),
        optimisation,
        parse_recipe("clean"),
        9,
        "identity",
        tmp_path / STATE,
        torch.device("cpu"),
    )
    fitted = fit(job, batch, batch)

    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = LateFusion(InputSpec(data.dims), config)
    model.fit_statistics(batch)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimisation.optimizer]
    optimizer = kind(model.parameters(), weight_decay=optimisation.weight_decay)
    order = torch.Generator().manual_seed(key_of("training", 9, "shuffling") // 2)
    per_epoch = math.ceil(len(batch) / optimisation.batch_size)
    errors, states = [], []
    for epoch in range(optimisation.epochs):
        shuffled = torch.randperm(len(batch), generator=order)
        for i in range(per_epoch):
            done = (epoch * per_epoch + i) / (optimisation.epochs * per_epoch)
            factor = (1 + math.cos(math.pi * done)) / 2 if optimisation.schedule == "cosine" else 1
            optimizer.param_groups[0]["lr"] = optimisation.learning_rate * factor
            optimizer.zero_grad()
            model.loss(batch.select(shuffled[i * optimisation.batch_size :][: optimisation.batch_size]))[
                "total"
            ].backward()
            if optimisation.grad_clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), optimisation.grad_clip)
            optimizer.step()
        with torch.no_grad():
            errors.append((model(batch).prediction - batch.labels).abs().mean().item())
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    best = int(np.argmin(errors))
    assert fitted.best_epoch == best + 1
    np.testing.assert_allclose(fitted.value, errors[best], rtol=1e-6)
    for name, tensor in fitted.model.state_dict().items():
        np.testing.assert_allclose(tensor, states[best][name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_cosine_starts_at_the_peak_and_ends_near_zero():
    cosine = Optimisation(learning_rate=2.0, schedule="cosine")
    rates = [learning_rate(cosine, step, 50) for step in range(50)]
    assert rates[0] == 2.0
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01
    np.testing.assert_allclose(np.mean(rates), 1.0, atol=0.05)


# --- the test split


class Sealed(dict):
    """Splits whose test split must not be asked for."""

    def __getitem__(self, split):
        assert split != "test", "the test split was read in training"
        return super().__getitem__(split)

    def values(self):
        raise AssertionError("all splits were read in training")

    items = values


def test_the_test_split_is_never_read(tmp_path):
    sealed = make_synth(3, SIZES)
    assert len(sealed.fingerprint) == 64  # content of all splits, known before training
    object.__setattr__(sealed, "splits", Sealed(sealed.splits))
    with pytest.raises(AssertionError, match="was read"):
        sealed.splits["test"]
    run(sealed, tmp_path, score=score)


def test_another_test_split_gives_the_same_weights(data, tmp_path, uninterrupted):
    other = make_synth(4, SIZES).splits["test"]
    run(Dataset("synth", {**data.splits, "test": other}), tmp_path)
    assert weights(tmp_path) == uninterrupted


# --- repeatable


def test_the_seed_alone_decides_and_nothing_global_changes(data, tmp_path, uninterrupted):
    torch.manual_seed(77)
    np.random.seed(78)  # noqa: NPY002
    random.seed(79)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    run(data, tmp_path / "again")
    assert weights(tmp_path / "again") == uninterrupted
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    run(data, tmp_path / "other", seed=6)
    assert weights(tmp_path / "other") != uninterrupted


def test_every_model_is_repeatable(data, tmp_path):
    for name in ("qa_moe", "rider_moe"):
        for attempt in "ab":
            train(name, data, "modality-dropout", 1, tmp_path / name / attempt, epochs=1)
        assert weights(tmp_path / name / "a") == weights(tmp_path / name / "b")


# --- killed and continued


class Killed(BaseException):
    pass


@pytest.mark.parametrize("batch", [0, 2, 3, 4, 8])
def test_stopped_in_any_batch_it_continues_as_if_nothing_had_happened(
    data, tmp_path, monkeypatch, uninterrupted, batch
):
    """Three batches an epoch: the first of all, the last of an epoch, the first and second of the next, the last."""
    calls = []
    loss = LateFusion.loss

    def dying(self, *args):
        calls.append(1)
        if len(calls) == batch + 1:
            raise Killed
        return loss(self, *args)

    monkeypatch.setattr(LateFusion, "loss", dying)
    with pytest.raises(Killed):
        run(data, tmp_path)
    notes, epochs = [], []
    run(data, tmp_path, notice=notes.append, progress=lambda *line: epochs.append(line[0]))
    assert weights(tmp_path) == uninterrupted
    assert epochs == list(range(batch // 3 + 1, 4))
    assert notes == ([f"continuing after epoch {batch // 3} of 3 from {tmp_path / STATE}"] if batch >= 3 else [])
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


KILL = """
import os, signal, sys
from pathlib import Path
from robustbench_msa import atomic
from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.late_fusion import LateFusion
from robustbench_msa.training.train import train

what, count, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
calls = []

def killing(function, before):
    def call(*args):
        calls.append(1)
        if before and len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if what == "batch":
    LateFusion.loss = killing(LateFusion.loss, True)
else:
    atomic.os.replace = killing(os.replace, what == "before")
train("late_fusion", make_synth(3, (70, 30, 20)), "spectrum", 5, out, epochs=3, overrides={"hidden": 6, "fusion": 6})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_again_and_again_it_ends_with_the_same_bytes(data, tmp_path, uninterrupted):
    """SIGKILL in the second epoch; while its state is written; between the weights and config.json. Then to the end."""
    out = tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # equal threads, equal bits
    for what, count in (("batch", 5), ("before", 1), ("after", 3)):
        done = subprocess.run(
            [sys.executable, "-c", KILL, what, str(count), str(out)],
            cwd=Path(robustbench_msa.__file__).parents[1],
            env=environment,
            check=False,
            timeout=120,
        )
        assert done.returncode == -signal.SIGKILL
        assert (out / STATE).exists()
        assert not (out / "config.json").exists()
    assert weights(out) == uninterrupted  # written, but not yet a checkpoint
    epochs = []
    run(data, out, progress=lambda *line: epochs.append(line[0]))
    assert epochs == []  # all epochs were done
    assert weights(out) == uninterrupted
    read_checkpoint(out)
    assert not (out / STATE).exists()


@pytest.mark.parametrize("change", ["epochs", "overrides", "recipe", "seed", "data"])
def test_another_training_does_not_continue_a_foreign_state(data, tmp_path, monkeypatch, change):
    replaced = []
    replace = os.replace

    def dying(a, b):
        replace(a, b)
        replaced.append(b)
        raise Killed

    monkeypatch.setattr(atomic.os, "replace", dying)
    with pytest.raises(Killed):
        run(data, tmp_path / "run")
    monkeypatch.undo()
    assert os.listdir(tmp_path / "run") == [STATE]
    changes = {"epochs": 2, "overrides": FAST | {"dropout": 0.1}, "recipe": "clean", "seed": 6}
    other = make_synth(4, SIZES) if change == "data" else data
    kept = {} if change == "data" else {change: changes[change]}
    notes, epochs = [], []
    run(other, tmp_path / "run", notice=notes.append, progress=lambda *line: epochs.append(line[0]), **kept)
    assert epochs[0] == 1
    assert len(notes) == 1
    assert "belongs to another training; starting from the beginning" in notes[0]
    run(other, tmp_path / "fresh", **kept)
    assert weights(tmp_path / "run") == weights(tmp_path / "fresh")


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04"])
def test_a_broken_state_is_started_over(data, tmp_path, content, uninterrupted):
    (tmp_path / STATE).write_bytes(content)
    run(data, tmp_path)
    assert weights(tmp_path) == uninterrupted


class Payload:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_hostile_state_is_not_run(data, tmp_path, monkeypatch, uninterrupted):
    monkeypatch.chdir(tmp_path)
    torch.save({"identity": Payload()}, STATE)
    run(data, tmp_path)
    assert not Path("pwned").exists()
    assert weights(tmp_path) == uninterrupted


# --- finished before


def test_a_finished_training_is_not_repeated_unless_asked(data, tmp_path, uninterrupted):
    run(data, tmp_path)
    written = (tmp_path / "config.json").stat().st_mtime_ns
    notes, epochs = [], []
    tell = {"notice": notes.append, "progress": lambda *line: epochs.append(line[0])}
    again = run(data, tmp_path, command="the same in other words", **tell)
    assert notes == [f"{tmp_path} holds this very training; nothing to do (overwrite trains it again)"]
    assert epochs == []
    assert again.config["training"]["command"] == ""
    assert (tmp_path / "config.json").stat().st_mtime_ns == written
    run(data, tmp_path, overwrite=True, **tell)
    assert epochs == [1, 2, 3]
    assert weights(tmp_path) == uninterrupted


def test_a_checkpoint_of_another_training_is_not_written_over(data, tmp_path):
    run(data, tmp_path)
    before = weights(tmp_path)
    with pytest.raises(
        InputError, match=r"holds a checkpoint of another training \(late_fusion/synth, recipe spectrum"
    ):
        run(data, tmp_path, epochs=1)
    assert weights(tmp_path) == before
    assert run(data, tmp_path, epochs=1, overwrite=True).config["training"]["epochs_run"] == 1


# --- what cannot be trained


def test_a_loss_that_is_not_finite_stops_with_epoch_and_rate(data, tmp_path):
    with pytest.raises(
        TrainingError, match=r"late_fusion: .* is (nan|inf) in epoch \d+ at learning rate 1e\+30; lower"
    ):
        run(data, tmp_path, overrides=FAST | {"learning_rate": 1e30, "schedule": "constant", "loss": "mse"})
    assert not (tmp_path / "config.json").exists()


def test_predictions_that_are_not_finite_stop_it_too(data, tmp_path, monkeypatch):
    fuse = LateFusion.fuse

    def broken(self, encoded, present):
        output = fuse(self, encoded, present)
        return output if self.training else dataclasses.replace(output, prediction=output.prediction / 0)

    monkeypatch.setattr(LateFusion, "fuse", broken)
    with pytest.raises(TrainingError, match=r"validation MAE is (nan|inf) in epoch 1"):
        run(data, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "mosi2"}, r"unknown preset 'mosi2' \(did you mean 'mosi'\?\); it has mosi, mosei, synth"),
        ({"overrides": {"hiden": 3}}, r"unknown setting 'hiden' \(did you mean 'hidden'\?\)"),
        ({"overrides": {"hidden": "many"}}, r"setting hidden: expected a whole number, as in hidden=64; got 'many'"),
        ({"overrides": {"hidden": 3.5}}, "expected a whole number"),
        ({"overrides": {"hidden": float("inf")}}, "expected a whole number"),
        ({"overrides": {"hidden": True}}, "expected a whole number"),
        ({"overrides": {"dropout": "nan"}}, "setting dropout: expected a number"),
        ({"overrides": {"dropout": None}}, "setting dropout: expected a number"),
        ({"overrides": {"loss": "huber"}}, "late_fusion: loss"),
        ({"overrides": {"optimizer": "sgd"}}, "expected adam or adamw, got 'sgd'"),
        ({"overrides": {"batch_size": 0}}, "setting batch_size: expected at least 1, got 0"),
        ({"epochs": 0}, "setting epochs: expected at least 1"),
        ({"seed": -1}, "train seed: expected a whole number from 0"),
        ({"recipe": "spectral"}, "unknown recipe"),
        ({"device": "cuda:99"}, "sees [0-9]+ CUDA devices here"),
        ({"device": "gpu"}, "device 'gpu': expected cpu, cuda or cuda:N"),
        ({"device": "meta"}, "device 'meta': expected cpu, cuda or cuda:N"),
    ],
)
def test_settings_that_do_not_fit(data, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(data, tmp_path, **changes)
    assert os.listdir(tmp_path) == []


def test_settings_may_be_text(data, tmp_path):
    typed = {"hidden": "6", "fusion": "6", "dropout": "0", "loss": "mse", "batch_size": "32", "learning_rate": "1e-2"}
    config = run(data, tmp_path, epochs=1, overrides=typed).config
    assert config["arguments"]["config"] == {"hidden": 6, "fusion": 6, "dropout": 0.0, "loss": "mse"}
    assert config["training"]["optimisation"]["learning_rate"] == 0.01
    flag = train("qa_moe", data, out=tmp_path / "flag", epochs=1, overrides={"no_prior": "TRUE", "d_model": "8"})
    assert flag.config["arguments"]["config"]["no_prior"] is True


def test_a_name_that_no_checkpoint_may_have_is_refused_before_training(data, tmp_path):
    with pytest.raises(InputError, match="dataset 'my data'"):
        run(dataclasses.replace(data, name="my data"), tmp_path)
    assert os.listdir(tmp_path) == []


def test_references_and_half_classes_cannot_be_trained(data, tmp_path):
    with pytest.raises(InputError, match="chance is a reference"):
        train("chance", data, out=tmp_path)
    x = {m: torch.ones(3, 2, 2) for m in ("text", "audio", "vision")}
    wrong = ((torch.tensor([0.0, 1.5, 2.0]), "whole numbers from 0"), (torch.zeros(3).long(), "at least 2"))
    for labels, match in wrong:
        batch = Batch(**x, labels=labels)
        classes = Dataset("intents", dict.fromkeys(("train", "valid", "test"), batch), profile="classification")
        with pytest.raises(InputError, match=f"intents.*{match}"):
            train("late_fusion", classes, out=tmp_path)


def test_the_settings_for_a_gpu_are_given_back():
    def settings():
        cudnn = torch.backends.cudnn
        return (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)

    def failing():
        with repeatable(torch.device("cuda")):
            assert settings() == (True, False, False, False)
            raise Killed

    before = settings()
    with pytest.raises(Killed):
        failing()
    assert settings() == before != (True, False, False, False)
    with repeatable(torch.device("cpu")):
        assert settings() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_repeats_itself_and_agrees_with_the_cpu(data, tmp_path):
    flags = (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)
    values = {}
    for name, device in (("a", "cuda"), ("b", "cuda"), ("c", "cpu")):
        made = run(data, tmp_path / name, device=device, recipe="clean", overrides=FAST | {"dropout": 0.0})
        values[name] = made.config["selection"]["value"]
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    np.testing.assert_allclose(values["a"], values["c"], atol=1e-3)
    assert flags == (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)
