"""Pretrained text encoders: where their files are, what is read of them, and the module that is made of it.

Two files of a folder are read: ``config.json``, of which the settings in SETTINGS alone are taken, and
``model.safetensors``. Nothing in either is run, and weights in a pickle (``pytorch_model.bin``) are never opened. The
transformers library (the extra ``bert``) is imported when an encoder is built, not before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from corruptions.errors import InputError
from robustbench_msa.models.checkpoint_config import MAX_ARGUMENT, one_line
from robustbench_msa.models.shapes import shapes_only

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHELVES = "MSABENCH_BACKBONES"
MAX_CONFIG_BYTES = 2**20
MAX_LAYERS = 128
MAX_PARAMETERS = 2**29
"""Two gigabytes in float32; bert-large has 335 million."""

_BERT = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob "
    "attention_probs_dropout_prob max_position_embeddings type_vocab_size layer_norm_eps pad_token_id"
)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "bert": tuple(_BERT.split()),
    "electra": (*_BERT.split(), "embedding_size"),
    "distilbert": (
        *("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "activation", "dropout", "attention_dropout"),
        *("max_position_embeddings", "sinusoidal_pos_embds", "pad_token_id"),
    ),
}
"""Model types whose checkpoints come with BERT's vocabularies, with the settings that decide what they compute.

The engine writes [MASK], [UNK], [CLS] and [SEP] by their ids in these vocabularies.
"""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?(@[\w./-]{1,95})?")


class Sizes(NamedTuple):
    """hidden: the dimension of a token's state; vocabulary: how many token ids; positions: how many tokens at most."""

    hidden: int
    vocabulary: int
    positions: int


def find(name: str) -> Path:
    """The folder of an encoder.

    Args:
        name: a folder; else a name below one of the folders in $MSABENCH_BACKBONES (a hub name without its owner); else
            a name on the hub, ``owner/name`` or ``owner/name@revision``, taken from its cache or fetched: the two files
            that are read and no others.

    Raises:
        InputError: it is nowhere.
    """
    shelves = [Path(text) for text in os.environ.get(SHELVES, "").split(os.pathsep) if text]
    last = Path(name.partition("@")[0]).name
    for folder in [Path(name).expanduser(), *(shelf / last for shelf in shelves)]:
        if name and folder.is_dir():
            return folder
    return _from_hub(name)


def read_settings(folder: Path) -> str:
    """What decides the encoder's outputs beside its weights: the settings of its config.json, as canonical JSON.

    Raises:
        InputError: no such file, or the configuration of a model that is none of SETTINGS.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: expected a pretrained encoder, {CONFIG} with {WEIGHTS}; there is no {CONFIG}")
    try:
        values = json.loads(path.read_bytes()[: MAX_CONFIG_BYTES + 1].decode())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error)})") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in SETTINGS:
        raise InputError(f"{path}: expected a model_type among {', '.join(SETTINGS)}, got {str(kind)[:40]!r}")
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{path}: expected absolute positions, got {str(values['position_embedding_type'])[:40]!r}")
    given = {name: values[name] for name in SETTINGS[kind] if name in values}
    full = _transformers_config(_checked({"model_type": kind} | given))  # what is not given has the library's default
    return json.dumps({"model_type": kind} | {name: getattr(full, name) for name in SETTINGS[kind]}, sort_keys=True)


def build(settings: str) -> nn.Module:
    """The encoder itself, with random weights and without a pooler. The global random state stays as it is.

    Raises:
        InputError: transformers is not installed, or the settings are none that ``read_settings`` gives.
    """
    try:
        values = json.loads(settings)
    except (ValueError, RecursionError) as error:
        raise InputError(f"text backbone: its settings are not JSON ({one_line(error)})") from None
    config = _transformers_config(_checked(values))
    with shapes_only():  # counted before it takes any memory: a line of JSON can ask for any size
        count = sum(parameter.numel() for parameter in _built(config).parameters())
    if count > MAX_PARAMETERS:
        raise InputError(f"text backbone: its settings ask for {count:,} parameters, more than {MAX_PARAMETERS:,}")
    return _built(config)


def _built(config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        try:  # eager: one formula for attention, whatever the library's version prefers
            encoder: Any = _transformers().AutoModel.from_config(config, attn_implementation="eager")
        except Exception as error:  # sizes that do not go together, in any way
            raise InputError(f"text backbone: it cannot be built from its settings: {one_line(error)}") from None
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # token states are used, not the pooled one
    built: nn.Module = encoder
    return built


def sizes_of(encoder: nn.Module) -> Sizes:
    """What an encoder from ``build`` takes and gives."""
    config: Any = encoder.config
    return Sizes(config.hidden_size, config.vocab_size, config.max_position_embeddings)


def read_weights(folder: Path, encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's tensors in a folder, float32, by the encoder's names; a task's head beside them is left out.

    Raises:
        InputError: no model.safetensors, a broken one, or one that lacks a tensor or has it in another shape.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(
            f"{folder}: no {WEIGHTS}; weights in pickles (pytorch_model.bin) or in several files are not read: load "
            "them where you trust them and save_pretrained(FOLDER, safe_serialization=True)"
        )
    try:
        stored = safetensors.torch.load_file(path)
    except Exception as error:  # its Rust half and its Python half fail in types of their own
        raise InputError(f"{path}: not a complete safetensors file ({one_line(error)}); copy it again") from None
    prefix = f"{encoder.base_model_prefix}."
    named = {_today(name.removeprefix(prefix)): tensor for name, tensor in stored.items()}
    expected = encoder.state_dict()
    wrong = [n for n, tensor in expected.items() if n not in named or named[n].shape != tensor.shape]
    if wrong:
        few = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        raise InputError(f"{path}: {len(wrong)} tensors are missing or not of the shape that {CONFIG} says: {few}")
    return {name: named[name].float() for name in expected}


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, shapes and values: the same for the same weights, in whatever file they came."""
    sha256 = hashlib.sha256(b"msabench text backbone 1")
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name].numpy())
        sha256.update(f"{name}{array.dtype.str}{array.shape}".encode())
        sha256.update(array.data)
    return sha256.hexdigest()


def _from_hub(name: str) -> Path:
    where = f"text backbone {name[:200]!r}: no such folder, also not below ${SHELVES}"
    if not _HUB_NAME.fullmatch(name):
        raise InputError(f"{where}, and no name that the hub could have; expected a folder with {CONFIG} and {WEIGHTS}")
    _transformers()  # brings huggingface_hub
    hub: Any = import_module("huggingface_hub")
    repository, _, revision = name.partition("@")
    wanted = {"repo_id": repository, "revision": revision or None, "allow_patterns": [CONFIG, WEIGHTS]}
    for cached in (True, False):
        try:
            folder = Path(hub.snapshot_download(**wanted, local_files_only=cached))
        except Exception as error:  # not cached, no network, no such name, no permission: types of its own
            reason = f"{type(error).__name__}: {one_line(error)}"
        else:
            if not cached or all((folder / file).is_file() for file in (CONFIG, WEIGHTS)):
                return folder
    raise InputError(f"{where}, and the hub gives none ({reason})")


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError:
        raise InputError(
            'a text backbone needs the transformers library: pip install "robustbench-msa[bert]"'
        ) from None


def _transformers_config(values: Mapping[str, Any]) -> Any:
    try:
        return _transformers().AutoConfig.for_model(**values)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"text backbone: its settings do not fit its type: {one_line(error)}") from None


def _checked(values: Any) -> dict[str, Any]:
    """Settings that build nothing but an encoder of BERT's kind of a size within reason."""
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in SETTINGS or not set(values) <= {"model_type", *SETTINGS[kind]}:
        raise InputError(f"text backbone: expected the settings of one of {', '.join(SETTINGS)}, got others")
    for name, value in values.items():
        whole = type(value) is int and 0 <= value <= (MAX_LAYERS if name.endswith("_layers") else MAX_ARGUMENT)
        if not (whole or (isinstance(value, str | float | bool) and not name.endswith("_layers"))):
            raise InputError(f"text backbone: {name} is out of reason: {json.dumps(value)[:40]}")
    if values.get("pad_token_id", 0) != 0:
        raise InputError(
            f"text backbone: expected a BERT vocabulary, where [PAD] is 0; here it is {values['pad_token_id']}"
        )
    return dict(values)


def _today(name: str) -> str:
    """The name of a tensor that was written with TensorFlow's names of layer normalisation."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
