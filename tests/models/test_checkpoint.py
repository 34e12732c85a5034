"""Checkpoints: what is written is read back, what is broken or hostile is refused in one line, names find folders."""

import dataclasses
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from corruptions import Batch, InputError
from robustbench_msa import atomic
from robustbench_msa.models import checkpoint as module
from robustbench_msa.models.checkpoint import (
    check_fits,
    find_checkpoints,
    folder_of,
    list_checkpoints,
    load_model,
    read_checkpoint,
    search_paths,
    write_checkpoint,
)
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.late_fusion import LateFusion, LateFusionConfig

DIMS = (5, 4, 3)


def small_model(seed=0, **config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LateFusion(InputSpec(DIMS), LateFusionConfig(hidden=4, fusion=4, **config))


def some_config(**changes):
    config = {
        "preset": "synth",
        "dataset": {"name": "synth", "fingerprint": "0" * 64, "dims": DIMS, "parameters": {}, "sizes": {"train": 9}},
        "recipe": "clean",
        "train_seed": 1111,
        "training": {"command": "msabench train"},
        "selection": {"split": "valid", "by": "MAE", "value": 1.0},
        "validation": {"mae": 1.0, "corr": None},
        "versions": {"torch": torch.__version__},
        "commit": None,
    }
    return config | changes


def some_batch():
    rng = np.random.default_rng(0)
    text, audio, vision = (rng.normal(size=(6, 7, d)).astype(np.float32) for d in DIMS)
    return Batch(text=text, audio=audio, vision=vision)


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "ours", small_model(), some_config())
    return tmp_path / "ours"


def edit(folder, change):
    """Rewrite config.json by a function of its value."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(config)))


# --- written and read back


def test_a_model_comes_back_as_it_was(folder):
    model = small_model().eval()
    checkpoint = read_checkpoint(folder)
    before = torch.get_rng_state()
    loaded = load_model(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.spec == model.spec
    np.testing.assert_array_equal(loaded(some_batch()).prediction.detach(), model(some_batch()).prediction.detach())
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]


def test_the_configuration_says_what_the_model_is(folder):
    config = read_checkpoint(folder).config
    assert list(config)[:5] == ["format", "model", "model_version", "arguments", "parameters"]
    assert config["parameters"] == sum(p.numel() for p in small_model().parameters())
    assert config["arguments"]["spec"]["dims"] == list(DIMS)
    assert config["arguments"]["config"]["hidden"] == 4
    checkpoint = read_checkpoint(folder)
    fields = (checkpoint.model, checkpoint.dataset, checkpoint.recipe, checkpoint.train_seed, checkpoint.dims)
    assert fields == ("late_fusion", "synth", "clean", 1111, DIMS)


def test_what_the_model_says_cannot_be_overruled(tmp_path):
    written = write_checkpoint(tmp_path, small_model(), some_config(model="qa_moe", parameters=1))
    assert (written.model, written.config["parameters"] > 1) == ("late_fusion", True)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_checkpoint(tmp_path / name, small_model(), some_config())
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("survivor", [1, 2])
def test_a_folder_with_a_configuration_is_complete_whenever_the_writer_dies(folder, monkeypatch, survivor):
    """Replacing a checkpoint: killed after the n-th file it is either gone or whole, never a mixture."""
    written = []
    replace = os.replace

    def dying(a, b):
        replace(a, b)
        written.append(b)
        if len(written) == survivor:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(folder, small_model(seed=1), some_config(train_seed=2))
    if survivor == 1:
        with pytest.raises(InputError, match=r"config.json is missing"):
            read_checkpoint(folder)
    else:
        assert read_checkpoint(folder).train_seed == 2
        load_model(read_checkpoint(folder))


def test_scores_that_are_not_numbers_are_refused_before_anything_changes(folder):
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_checkpoint(folder, small_model(seed=1), some_config(validation={"mae": float("nan")}))
    with pytest.raises(InputError, match="validation must be"):
        write_checkpoint(folder, small_model(seed=1), some_config(validation={"mae": "good"}))
    assert (folder / "config.json").read_bytes() == before


# --- identity


def test_identity_changes_with_all_that_decides_outputs_and_with_nothing_else(tmp_path, monkeypatch):
    def identity(model, **changes):
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        return write_checkpoint(folder, model, some_config(**changes)).identity

    base = identity(small_model())
    assert len(base) == 64
    assert identity(small_model(), recipe="spectrum", train_seed=7, commit="abc") == base
    others = [identity(small_model(seed=1)), identity(small_model(dropout=0.0)), identity(small_model(loss="mse"))]
    monkeypatch.setattr(LateFusion, "version", 2)
    others.append(read_checkpoint(tmp_path / "0").identity)
    assert len({base, *others}) == 5


def test_a_checkpoint_of_an_older_model_still_loads_and_one_of_a_newer_does_not(folder, monkeypatch):
    monkeypatch.setattr(LateFusion, "version", 2)
    load_model(read_checkpoint(folder))
    edit(folder, lambda config: config | {"model_version": 3})
    with pytest.raises(InputError, match="written by version 3 of the model, this msabench has version 2; upgrade"):
        load_model(read_checkpoint(folder))


# --- does it fit?


@dataclasses.dataclass
class Data:
    name: str
    dims: tuple


def test_fits(folder):
    checkpoint = read_checkpoint(folder)
    check_fits(checkpoint, Data("synth", DIMS))
    with pytest.raises(InputError) as caught:
        check_fits(checkpoint, Data("mosi", (5, 74, 3)))
    assert str(caught.value) == (
        "late_fusion/synth: checkpoint expects audio features of 4 dims, mosi has 74 "
        "(retrain with --data, or pick another checkpoint: msabench list checkpoints)"
    )
    with pytest.raises(InputError, match="expects text features of 5 dims, mosi has token ids"):
        check_fits(checkpoint, Data("mosi", (0, 4, 3)))


# --- broken and hostile files


def refuse(folder, *words):
    """Reading and loading fails with one line that holds these words."""
    with pytest.raises(InputError) as caught:
        load_model(read_checkpoint(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder, name):
    (folder / name).unlink()
    refuse(folder, f"{name} is missing", "msabench list checkpoints")
    (folder / name).mkdir()
    refuse(folder, f"{name} is missing or no file")
    with pytest.raises(InputError, match="expected a checkpoint"):
        read_checkpoint(folder / "nowhere")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def header(value, length=None):
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


FORTY_GB = {"x": {"dtype": "F32", "shape": [10_000_000_000], "data_offsets": [0, 40_000_000_000]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        pickle.dumps(Payload()),
        b"PK\x03\x04" + b"\x00" * 100,
        header(FORTY_GB),
        header(FORTY_GB) + b"\x00" * 64,
        header({}, 40 * 10**9),
        header({}, 2**64 - 1),
        header([1, 2]),
        header({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"\x00" * 4,
        header({"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}) + b"\x00" * 4,
        header({"x": {"dtype": "Q99", "shape": [1], "data_offsets": [0, 4]}}) + b"\x00" * 4,
        header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + b"\x00" * 4,
        struct.pack("<Q", 50_000) + b"[" * 50_000,
    ],
)
def test_weights_that_are_not_safetensors(folder, data, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").write_bytes(data)
    edit(folder, lambda config: {k: v for k, v in config.items() if k != "weights_sha256"})
    refuse(folder, "model.safetensors", "not a complete safetensors file", "copy or train it again")
    assert not (folder / "pwned").exists()


def test_weights_cut_short_anywhere_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25).astype(int):
        (folder / "model.safetensors").write_bytes(whole[:length])
        refuse(folder, "not a complete safetensors file")


def test_weights_that_were_swapped_or_damaged_are_noticed(folder, tmp_path):
    checkpoint = read_checkpoint(folder)
    assert load_model(checkpoint) is not None
    damaged = bytearray((folder / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (folder / "model.safetensors").write_bytes(damaged)
    refuse(folder, "is not the file that config.json was written with")
    with pytest.raises(InputError, match="is not the file"):  # read before it changed
        load_model(checkpoint)


def test_weights_larger_than_the_limit(folder, monkeypatch):
    monkeypatch.setattr(module, "MAX_WEIGHT_BYTES", 100)
    refuse(folder, "more than the limit of 100")


def test_weights_of_another_model_are_told_apart_tensor_by_tensor(folder):
    other = small_model()
    other.head = torch.nn.Linear(9, 1)
    other.extra = torch.nn.Linear(2, 2)
    del other.post_fusion
    write_checkpoint(folder, other.half(), some_config())
    message = refuse(
        folder, "late_fusion/synth", "4 missing: post_fusion.", "2 unexpected: 'extra.bias', 'extra.weight'"
    )
    assert "different: " in message
    assert "is (5,) float16 instead of (5,) float32" in message
    assert ", ..." in message


def test_arguments_that_do_not_go_with_the_weights_take_no_memory(folder):
    def wide(config):
        config["arguments"]["config"] |= {"hidden": 100_000, "fusion": 100_000}  # 120 gigabytes
        return config

    edit(folder, wide)
    refuse(folder, "the weights do not fit the model", "instead of")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hiden": 4}, "hiden"),
        ({"hidden": "many"}, "the model cannot be built"),
        ({"hidden": -4}, "the model cannot be built"),
        ({"loss": "huber"}, "loss"),
    ],
)
def test_arguments_the_model_does_not_take(folder, change, word):
    def changed(config):
        config["arguments"]["config"] |= change
        return config

    edit(folder, changed)
    refuse(folder, word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object, got list"),
        ("null", "expected a JSON object"),
        ("\udcff", "not valid JSON"),
        ('{"format": NaN}', "NaN is not a JSON number"),
        ('{"format": 1e999}', "too large a number"),
        ('{"format": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"format": 1}', "model, model_version, arguments"),
        (" " * 2_000_000, "larger than 1,048,576 bytes"),
    ],
)
def test_configurations_that_are_not_json_or_not_ours(folder, text, words):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refuse(folder, "config.json", words)


HOSTILE = {
    "format": [2, "1", True, None, 1.0],
    "model": ["../../etc", "", 3, "a" * 65, "late_fusion\n", None],
    "model_version": [0, True, "1", 1.5],
    "arguments": [
        None,
        {},
        {"spec": {}, "config": {}},
        {"spec": {"dims": [5, 4]}, "config": {}},
        {"spec": {"dims": [5, 4, -3]}, "config": {}},
        {"spec": {"dims": [5, 4, True]}, "config": {}},
        {"spec": {"dims": [5, 4, 10**12]}, "config": {}},
        {"spec": {"dims": [5, 4, 3]}, "config": {"hidden": 10**9}},
        {"spec": {"dims": [5, 4, 3]}, "config": {"hidden": {"nested": 1}}},
        {"spec": {"dims": [5, 4, 3]}, "config": {"hidden": [[1]]}},
        {"spec": {"dims": [5, 4, 3]}, "config": {}, "code": "print()"},
    ],
    "preset": [3, "a\nb"],
    "dataset": [None, {}, {"name": "../../../etc"}, {"name": "a", "fingerprint": "0" * 63}, {"name": "a/b"}],
    "recipe": ["../../..", "", "a/b", "missing random", None, "a\\b"],
    "train_seed": [-1, "1111", 2**64, True, None],
    "training": [[], None],
    "selection": ["valid"],
    "validation": [{"mae": "low"}, {"mae": True}, []],
    "parameters": [-1, "many"],
    "versions": [None],
    "commit": [7, "a\rb"],
    "weights_sha256": ["0", 7, None],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in HOSTILE.items() for value in values])
def test_configurations_with_hostile_values(folder, key, value):
    edit(folder, lambda config: config | {key: value})
    refuse(folder, f"config.json: {key} must be")


def test_every_key_is_required(folder):
    whole = json.loads((folder / "config.json").read_text())
    for key in set(whole) - {"weights_sha256"}:
        edit(folder, lambda config, key=key: {k: v for k, v in whole.items() if k != key})
        refuse(folder, f"config.json: {key} missing")


def test_a_model_that_is_not_known(folder):
    edit(folder, lambda config: config | {"model": "late_fushion"})
    refuse(folder, "unknown model 'late_fushion' (did you mean 'late_fusion'?)")


# --- found by name


@pytest.fixture
def places(tmp_path, monkeypatch):
    """./checkpoints, two folders of $MSABENCH_CHECKPOINTS and the shipped one, all empty."""
    folders = [tmp_path / "work" / "checkpoints", tmp_path / "one", tmp_path / "two", tmp_path / "shipped"]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MSABENCH_CHECKPOINTS", os.pathsep.join([str(folders[1]), "", str(folders[2]), str(folders[1])]))
    monkeypatch.setattr(module, "_SHIPPED", folders[3])
    return folders


def put(place, seed=1111, dataset="synth", recipe="clean", weights=0):
    config = some_config(train_seed=seed, recipe=recipe)
    config["dataset"] = config["dataset"] | {"name": dataset}
    return write_checkpoint(place / folder_of(dataset, "late_fusion", recipe, seed), small_model(weights), config)


def test_where_checkpoints_are_looked_for(places, monkeypatch, tmp_path):
    assert [p.resolve() for p in search_paths()] == places
    monkeypatch.setenv("MSABENCH_CHECKPOINTS", str(places[0]))
    assert [p.resolve() for p in search_paths()] == [places[0], places[3]]
    monkeypatch.setattr(module, "_SHIPPED", tmp_path / "not there")
    assert search_paths()[-1] == module._BESIDE_PACKAGE


def test_listing_skips_what_cannot_be_read_and_says_so(places):
    put(places[0])
    put(places[1], seed=1112)
    put(places[3], recipe="missing-random:0.3")
    broken = put(places[2], seed=5)
    (broken.path / "config.json").write_text("{")
    (places[2] / "config.json").write_text("{}")  # not in the layout: none of our business
    found, problems = list_checkpoints()
    assert [(c.train_seed, c.recipe) for c in found] == [(1111, "clean"), (1112, "clean"), (1111, "missing-random:0.3")]
    assert len(problems) == 1
    assert str(broken.path) in problems[0]


def test_finding_by_what_it_is(places):
    put(places[0], seed=1112)
    put(places[1], seed=1111)
    put(places[3], seed=1111, weights=1)  # hidden by the one before
    put(places[3], seed=1113)
    put(places[3], seed=1111, recipe="missing-random:0.3")
    put(places[3], seed=1111, dataset="mosi")
    (one,) = find_checkpoints("late_fusion", "synth")
    assert one.path.is_relative_to(places[1])
    everything = find_checkpoints("late_fusion", "synth", train_seed="all")
    assert [c.train_seed for c in everything] == [1111, 1112, 1113]
    assert everything[0].identity == one.identity
    (rate,) = find_checkpoints("late_fusion", "synth", "missing-random:0.3")
    assert rate.recipe == "missing-random:0.3"


def test_what_is_not_found_is_answered_with_what_is_there_and_the_command(places):
    with pytest.raises(InputError) as caught:
        find_checkpoints("late_fusion", "mosi", "spectrum", 7)
    assert str(caught.value) == (
        "no checkpoint of late_fusion for mosi with recipe spectrum and train seed 7; there is none at all; train it: "
        "msabench train --model late_fusion --dataset mosi --data PATH --recipe spectrum --seed 7"
    )
    for seed in range(1111, 1120):
        put(places[0], seed=seed)
    (places[0] / "synth/late_fusion/clean/1111/config.json").write_text("{")
    with pytest.raises(InputError) as caught:
        find_checkpoints("late_fusion", "synth", train_seed=1111)
    message = str(caught.value)
    assert "there is late_fusion/synth clean 1112, late_fusion/synth clean 1113" in message
    assert "and 2 more; 1 could not be read (first: " in message
    assert message.endswith("msabench train --model late_fusion --dataset synth --recipe clean --seed 1111")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("late_fushion", "synth"), r"did you mean 'late_fusion'"),
        (("chance", "synth"), "chance is a reference"),
        (("late_fusion", "../.."), "dataset '../..'"),
        (("late_fusion", "synth", "../../clean"), "recipe '../../clean'"),
        (("late_fusion", "synth", "clean", "first"), "expected a whole number or all, got 'first'"),
    ],
)
def test_names_that_cannot_be_looked_for(places, arguments, message):
    with pytest.raises(InputError, match=message):
        find_checkpoints(*arguments)
