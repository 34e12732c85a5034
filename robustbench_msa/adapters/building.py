"""From what was typed to a model that was tried: a program, weights, or both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corruptions import Batch, InputError
from robustbench_msa.adapters.adapted import AdaptedModel, adapt
from robustbench_msa.adapters.card import read_card
from robustbench_msa.adapters.programs import arguments_of, call_program, find_program, shown, undisturbed
from robustbench_msa.adapters.sources import classes_of, digest_of
from robustbench_msa.adapters.weights import load_weights, read_anything, sha256_of, trusting, weights_file
from robustbench_msa.models.contract import InputSpec, MSAModel, Output

PROBE = 3  # samples
ABOUT = "msabench_about"
"""An attribute of a module from outside: a dict of plain values for the run's manifest, and a part of its identity."""


@dataclass(frozen=True)
class Outside:
    """A model from outside, as it was asked for.

    program: ``my_model.py:build``, or None for weights that are a program themselves. weights: a file, or a folder with
    model.safetensors. trust: --trust-checkpoint was said.
    """

    program: str | None
    weights: Path | None
    spec: InputSpec
    trust: bool = False

    @property
    def typed(self) -> str:
        return self.program or str(self.weights)


@dataclass(frozen=True, eq=False)
class Built:
    """A model that was built.

    identity: sha256 over its weights, its files and its version. label: its name in tables. about: for the manifest.
    """

    model: MSAModel
    version: int
    identity: str
    label: str
    about: dict[str, Any]


def build(asked: Outside) -> Built:
    """The model, in eval mode, on the CPU. Global random states are left as they are.

    A program that takes ``checkpoint`` gets the weights' path and reads them itself; for one that does not, they are
    read here and loaded strictly.

    Raises:
        InputError: in one line, whatever is wrong with the program, the weights, or the two together.
    """
    with trusting(asked.trust):
        return _of_program(asked, asked.program) if asked.program is not None else _of_file(asked)


def try_model(model: MSAModel, batch: Batch, typed: str) -> None:
    """One pass over a few samples. Raises InputError where the model cannot take them, or gives no prediction."""
    few = batch.rows(slice(0, PROBE))
    try:
        with undisturbed(), torch.inference_mode():
            output = model(few)
    except InputError as error:
        raise InputError(f"{typed}: {error}") from error
    except Exception as error:  # whatever the model raises
        took = ", ".join(f"{m} {tuple(few.features(m).shape)}" for m in ("text", "audio", "vision"))
        raise InputError(f"{typed}: a pass over {len(few)} samples ({took}) raised {shown(error)}") from error
    if not isinstance(output, Output):
        raise InputError(f"{typed}: it gives a {type(output).__name__}; an MSAModel's fuse gives an Output")
    classes = model.spec.num_classes
    if output.prediction.shape != ((len(few), classes) if classes else (len(few),)):
        wanted = f"({len(few)}, {classes})" if classes else f"({len(few)},)"
        raise InputError(f"{typed}: its prediction is {tuple(output.prediction.shape)}; expected {wanted}")


def _of_program(asked: Outside, text: str) -> Built:
    program = find_program(text)
    made = call_program(program, asked.weights, asked.spec)
    if not isinstance(made, nn.Module):
        got = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
        raise InputError(
            f"--model {text}: it gives {got}; expected a torch.nn.Module, or what adapt(module) makes of it"
        )
    about: dict[str, Any] = {"program": text, "sources_sha256": program.sources}
    if asked.weights is not None and "checkpoint" not in arguments_of(program):
        inner = made.module if isinstance(made, AdaptedModel) else made
        about["loaded"] = list(load_weights(inner, asked.weights))
    return _built(asked, made, [program.sources], program.label, about)


def _of_file(asked: Outside) -> Built:
    assert asked.weights is not None
    path = weights_file(asked.weights)
    with undisturbed():
        loaded = read_anything(path)
    if not isinstance(loaded, nn.Module):
        raise InputError(
            f"{path}: weights alone, which say nothing of the model they belong to; say what builds it: --model "
            "FILE.py:FUNCTION (msabench init-adapter writes a file to start from)"
        )
    return _built(asked, loaded, [], path.stem, {"program": "the checkpoint itself"})


def _built(asked: Outside, made: nn.Module, sources: list[str], label: str, about: dict[str, Any]) -> Built:
    try:
        model = adapt(made)
        if isinstance(model, AdaptedModel):
            model.bind(asked.spec)
    except InputError as error:
        raise InputError(f"{asked.typed}: {error}") from error
    version = model.declared_version if isinstance(model, AdaptedModel) else int(model.version)
    inner = model.module if isinstance(model, AdaptedModel) else model
    sources = [*sources, digest_of(classes_of(inner))]
    if isinstance(own := getattr(inner, ABOUT, None), dict):
        told = json.dumps(own, sort_keys=True, default=str)
        about, sources = {**json.loads(told), **about}, [*sources, told]
    state = digest_of_state(inner.state_dict())
    about |= {"state_sha256": state, "parameters": sum(p.numel() for p in inner.parameters())}
    file = None
    if asked.weights is not None:
        path = weights_file(asked.weights)
        file = sha256_of(path)
        about |= {"weights_sha256": file, "path": str(path), **read_card(path)}
    about.setdefault("selection", {"split": "unknown"})
    text = json.dumps(["msabench model from outside 1", state, sources, file, version])
    said = model.label if isinstance(model, AdaptedModel) else str(getattr(model, "name", ""))
    return Built(model, version, hashlib.sha256(text.encode()).hexdigest(), said or label, about)


def digest_of_state(state: dict[str, Any]) -> str:
    """sha256 (hex) over a state dict, tensor by tensor in the order of their names, wherever it was loaded from."""
    sha256 = hashlib.sha256(b"msabench state 1")
    for name in sorted(state):
        if isinstance(tensor := state[name], Tensor):
            x = tensor.detach().cpu().contiguous()
            sha256.update(f"{name} {x.dtype} {tuple(x.shape)} ".encode())
            sha256.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
