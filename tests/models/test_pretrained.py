"""Pretrained text encoders: found, read without running anything, refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from corruptions import InputError
from robustbench_msa.models.pretrained import SETTINGS, build, digest, find, read_settings, read_weights, sizes_of

transformers = pytest.importorskip("transformers", reason='needs the extra "bert" (transformers)')
huggingface_hub = pytest.importorskip("huggingface_hub")
Save = Callable[..., Path]


def read(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder, build(read_settings(folder)))


@pytest.fixture
def copy(encoder_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder to spoil."""
    return Path(shutil.copytree(encoder_folder, tmp_path / "copy"))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, {"format": "pt"})


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_encoder_computes_what_its_library_computes(kind: str, save_encoder: Save, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / kind, kind)
    ours = build(read_settings(folder))
    ours.load_state_dict(read(folder))
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")
    ids, mask = torch.randint(1000, 2000, (3, 7)), torch.ones(3, 7, dtype=torch.int64)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
        got = ours.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    np.testing.assert_array_equal(got, expected)
    assert sizes_of(ours) == (16, 2100, 24)


def test_settings_hold_what_decides_the_outputs_and_nothing_else(copy: Path) -> None:
    before = read_settings(copy)
    assert json.loads(before).keys() == {"model_type", *SETTINGS["bert"]}
    change_config(copy, _name_or_path="/home/someone", auto_map={"AutoModel": "evil.py--Evil"}, attn_implementation="x")
    change_config(copy, torch_dtype="float16", use_cache=False, transformers_version="1.0")
    assert read_settings(copy) == before
    change_config(copy, layer_norm_eps=1e-5)
    assert read_settings(copy) != before


def test_settings_that_are_not_given_have_the_librarys_defaults(copy: Path) -> None:
    before = read_settings(copy)
    config = json.loads((copy / "config.json").read_text())
    del config["hidden_act"], config["layer_norm_eps"]  # left at their defaults when it was made
    (copy / "config.json").write_text(json.dumps(config))
    assert read_settings(copy) == before


def test_building_leaves_the_random_state(encoder_folder: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(read_settings(encoder_folder))
    np.testing.assert_array_equal(torch.get_rng_state(), before)


def test_the_digest_is_of_the_weights_and_not_of_the_file(encoder_folder: Path, copy: Path) -> None:
    before = digest(read(encoder_folder))
    assert before == digest(read(copy))

    def as_published(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The names of a model with a head, layer normalisation as TensorFlow calls it, and no pooler."""
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        found = {"cls.predictions.bias": torch.zeros(2100)}
        for name, tensor in tensors.items():
            for new, old in names.items():
                name = name.replace(new, old)
            found[f"bert.{name}"] = tensor
        return {name: tensor for name, tensor in found.items() if "pooler" not in name}

    change_weights(copy, as_published)
    assert digest(read(copy)) == before
    change_weights(copy, lambda t: t | {"bert.embeddings.LayerNorm.gamma": t["bert.embeddings.LayerNorm.gamma"] + 1e-6})
    assert digest(read(copy)) != before


def test_half_precision_is_read_as_float32(copy: Path) -> None:
    change_weights(copy, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    assert {tensor.dtype for tensor in read(copy).values()} == {torch.float32}


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def other_shape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"embeddings.word_embeddings.weight": torch.zeros(9, 16)}


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (without("config.json"), r"expected a pretrained encoder, config\.json with .*there is no config"),
    "no weights": (without("model.safetensors"), r"no model\.safetensors; weights in pickles"),
    "only a pickle": (only_a_pickle, r"\(pytorch_model\.bin\) .*are not read: .*save_pretrained"),
    "broken weights": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), r"not a complete safetensors file"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), r"expected a model_type among bert, electra, .*'None'"),
    "another type": (lambda f: change_config(f, model_type="roberta"), r"model_type among .*got 'roberta'"),
    "another vocabulary": (lambda f: change_config(f, pad_token_id=1), r"where \[PAD\] is 0; here it is 1"),
    "no pad": (lambda f: change_config(f, pad_token_id=None), r"pad_token_id is out of reason: null"),
    "relative": (lambda f: change_config(f, position_embedding_type="relative_key"), r"absolute positions, got 'rel"),
    "too wide": (lambda f: change_config(f, hidden_size=10**9), r"hidden_size is out of reason: 1000000000"),
    "too deep": (lambda f: change_config(f, num_hidden_layers=10**5), r"num_hidden_layers is out of reason"),
    "layers in words": (lambda f: change_config(f, num_hidden_layers="two"), r"num_hidden_layers is out of reason"),
    "odd heads": (lambda f: change_config(f, num_attention_heads=3), r"cannot be built from its settings|do not fit"),
    "no such function": (lambda f: change_config(f, hidden_act="os.system"), r"cannot be built|do not fit"),
    "a layer less": (lambda f: change_config(f, num_hidden_layers=3), r"16 tensors are missing .*encoder\.layer\.2"),
    "other shape": (lambda f: change_weights(f, other_shape), r"1 tensors are missing or not of the shape .*word_emb"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_refused_in_one_line(name: str, copy: Path) -> None:
    WRONG[name][0](copy)
    with pytest.raises(InputError, match=WRONG[name][1]) as error:
        read(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("settings", ["", "{", "[]", '{"model_type": "bert", "attn_implementation": "a/kernel"}'])
def test_settings_of_a_strangers_checkpoint_are_checked_too(settings: str) -> None:
    with pytest.raises(InputError, match="text backbone: "):
        build(settings)


@pytest.mark.parametrize("sizes", [{"dim": 2**17, "hidden_dim": 2**17}, {"vocab_size": 2**17, "dim": 2**13}])
def test_settings_that_ask_for_too_much_are_refused_before_memory_is_taken(sizes: dict[str, int]) -> None:
    """The first asks for 429 GB, and nothing stands in the way of a frozen encoder's shapes but its settings."""
    settings = {"model_type": "distilbert", "n_layers": 1, "n_heads": 2, **sizes}
    with pytest.raises(InputError, match=r"its settings ask for [0-9,]+ parameters, more than 536,870,912"):
        build(json.dumps(settings))


def test_folders_come_first_then_shelves(encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(str(encoder_folder)) == encoder_folder
    monkeypatch.setenv("MSABENCH_BACKBONES", f"{tmp_path}{os.pathsep}{encoder_folder.parent}")
    for name in ("tiny-bert", "owner/tiny-bert", "owner/tiny-bert@v1", "/elsewhere/tiny-bert"):
        assert find(name) == encoder_folder
    monkeypatch.chdir(encoder_folder.parent)
    assert find("tiny-bert") == Path("tiny-bert")


@pytest.mark.parametrize("name", ["", "/no/such/folder", "a/b/c", "../x", "a b"])
def test_a_name_that_no_hub_has_is_not_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=r"no such folder, also not below \$MSABENCH_BACKBONES, and no name"):
        find(name)


def test_the_hub_is_asked_for_two_files_its_cache_first(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(cached: Path | None, fetched: Path | None) -> Callable[..., str]:
        def download(**wanted: Any) -> str:
            asked.append(wanted)
            folder = cached if wanted["local_files_only"] else fetched
            if folder is None:
                raise OSError("nothing\nthere")
            return str(folder)

        return download

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download(encoder_folder, None))
    assert find("owner/name@v1") == encoder_folder
    assert asked == [
        {
            "repo_id": "owner/name",
            "revision": "v1",
            "allow_patterns": ["config.json", "model.safetensors"],
            "local_files_only": True,
        }
    ]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download(tmp_path, encoder_folder))
    assert find("name") == encoder_folder, "what the cache has is not all of it"
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download(None, None))
    with pytest.raises(InputError, match=r"'owner/name': .* and the hub gives none \(OSError: nothing there\)"):
        find("owner/name")


def test_without_the_extra_it_says_what_to_install(encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    expected = r'needs the transformers library: pip install "robustbench-msa\[bert\]"$'
    with pytest.raises(InputError, match=expected):
        read_settings(encoder_folder)
    with pytest.raises(InputError, match=expected):
        find("owner/name")


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    code = """
import sys
import robustbench_msa.cli.main, robustbench_msa.run, robustbench_msa.training.train
from robustbench_msa.models.registry import model_class
model_class("qa_moe-tokens"), model_class("qa_moe")
print(sorted({name.partition(".")[0] for name in sys.modules} & {"transformers", "huggingface_hub", "tokenizers"}))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
