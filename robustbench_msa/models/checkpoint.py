"""Checkpoints on disk: a folder with ``model.safetensors`` and ``config.json``, read as if a stranger had written it.

Nothing in a checkpoint is run. The weights are read by safetensors alone, the configuration is JSON that is checked key
by key, and no model takes memory before the file is known to hold exactly its tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from corruptions import MODALITIES, InputError
from robustbench_msa import atomic
from robustbench_msa.models.checkpoint_config import FORMAT, NAME, RECIPE, check_config, one_line, read_config
from robustbench_msa.models.contract import InputSpec, MSAModel
from robustbench_msa.models.registry import TOKENS, model_class
from robustbench_msa.models.shapes import shapes_only
from robustbench_msa.models.text_backbone import TokenTextModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_WEIGHT_BYTES = 8 * 2**30
_SHIPPED = Path(__file__).resolve().parents[1] / "shipped"
_BESIDE_PACKAGE = Path(__file__).resolve().parents[2] / "checkpoints"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model on disk, its config.json read and checked; the weights wait for ``load_model``.

    path: the folder. config: all of config.json. dataset: the name of what it was trained on. recipe: how, as typed.
    """

    path: Path
    config: Mapping[str, Any]
    model: str
    dataset: str
    recipe: str
    train_seed: int

    @property
    def label(self) -> str:
        """What messages call it: ``qa_moe/mosi``."""
        return f"{self.model}/{self.dataset}"

    @cached_property
    def weights_sha256(self) -> str:
        """sha256 (hex) of the weights file, read when first asked for."""
        return hashlib.sha256(_read_weights(self.path / WEIGHTS)).hexdigest()

    @property
    def identity(self) -> str:
        """sha256 (hex) of what decides its outputs: the weights, and the model's name, version and arguments.

        The version is that of the model's code here and now: a changed model is never mistaken for the old one.
        """
        version = model_class(self.model).version
        arguments = json.dumps(self.config["arguments"], sort_keys=True, separators=(",", ":"))
        text = "\n".join(["msabench checkpoint 1", self.weights_sha256, self.model, str(version), arguments])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def dims(self) -> tuple[int, int, int]:
        """Feature dimensions it takes for text, audio, vision (0: token ids)."""
        text, audio, vision = self.config["arguments"]["spec"]["dims"]
        return (text, audio, vision)


class HasDims(Protocol):
    """What ``check_fits`` asks of a dataset."""

    @property
    def name(self) -> str: ...
    @property
    def dims(self) -> tuple[int, int, int]: ...
    @property
    def derived_dims(self) -> Mapping[str, int]: ...


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """The checkpoint in a folder, its config.json checked.

    Raises:
        InputError: no such folder or file, a file that is too large, not JSON, or lacks a key or holds the wrong type.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: expected a checkpoint, a folder with {CONFIG} and {WEIGHTS}; {name} is missing or no file "
                "(msabench list checkpoints shows those that are there)"
            )
    config = read_config(folder / CONFIG)
    return Checkpoint(
        folder, config, config["model"], config["dataset"]["name"], config["recipe"], config["train_seed"]
    )


def write_checkpoint(folder: str | Path, model: MSAModel, config: Mapping[str, Any]) -> Checkpoint:
    """Write a model and how it came to be. A folder with a config.json is always complete: it is written last.

    Args:
        folder: made if need be; a checkpoint that is there is replaced.
        model: its weights, name, version, arguments and number of parameters are taken from it.
        config: the other keys of config.json: preset, dataset, recipe, train_seed, training, selection, validation,
            versions, commit.

    Raises:
        InputError: a key is missing or of the wrong type.
        ValueError: NaN or infinity among the values.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(tensors)
    ours = {
        "format": FORMAT,
        "model": model.name,
        "model_version": model.version,
        "arguments": model.arguments(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    written = {**ours, **config, **ours}  # in this order of keys; what the model says wins
    checked = check_config(str(folder / CONFIG), json.loads(json.dumps(written, allow_nan=False)))
    (folder / CONFIG).unlink(missing_ok=True)  # between old and new weights the folder is no checkpoint
    atomic.write_bytes(folder / WEIGHTS, data)
    atomic.write_json(folder / CONFIG, checked)
    return read_checkpoint(folder)


def load_model(checkpoint: Checkpoint, device: str | torch.device = "cpu") -> MSAModel:
    """The model with its weights, in eval mode, on a device. The global random state stays as it is.

    Raises:
        InputError: an unknown model, arguments it does not take, a weights file that is broken, was changed, or does
            not hold exactly the model's tensors; a frozen text backbone that is not found or is another one.
    """
    where = f"{checkpoint.label} ({checkpoint.path})"
    cls = model_class(checkpoint.model)
    if checkpoint.config["model_version"] > cls.version:
        raise InputError(
            f"{where}: written by version {checkpoint.config['model_version']} of the model, this msabench has "
            f"version {cls.version}; upgrade msabench"
        )
    data = _read_weights(checkpoint.path / WEIGHTS)
    sha256 = hashlib.sha256(data).hexdigest()
    tensors = _parse_weights(checkpoint.path / WEIGHTS, data)
    if sha256 != checkpoint.weights_sha256 or sha256 != checkpoint.config.get("weights_sha256", sha256):
        raise InputError(f"{where}: {WEIGHTS} is not the file that {CONFIG} was written with; copy or train it again")
    with shapes_only():
        expected = _build(where, cls, checkpoint.config["arguments"]).state_dict()
    if difference := _difference(expected, tensors):
        raise InputError(f"{where}: the weights do not fit the model: {difference}")
    with torch.random.fork_rng(devices=[]):
        model = _build(where, cls, checkpoint.config["arguments"])
    model.load_state_dict(tensors, strict=True)
    if isinstance(model, TokenTextModel) and not model.config.stored:
        try:
            model.read_backbone()
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return model.to(device).eval()


def check_fits(checkpoint: Checkpoint, dataset: HasDims) -> None:
    """Raise InputError, naming the modality or derived input, when a checkpoint cannot read this dataset's features."""
    for modality, expected, got in zip(MODALITIES, checkpoint.dims, dataset.dims, strict=True):
        if expected != got:
            other = "retrain with --data" if expected and got else f"--text {'features' if expected else 'tokens'}"
            raise InputError(
                f"{checkpoint.label}: checkpoint expects {_dims(modality, expected)}, {dataset.name} has "
                f"{got or 'token ids'} ({other}, or pick another checkpoint: msabench list checkpoints)"
            )
    for name, expected in checkpoint.config["arguments"]["spec"].get("derived", {}).items():
        if (found := dataset.derived_dims.get(name)) != expected:
            there = f"one of {found} dims" if found else "none"
            raise InputError(
                f"{checkpoint.label}: checkpoint reads the derived input {name} of {expected} dims, {dataset.name} has "
                f"{there} (retrain with --data, or pick another checkpoint: msabench list checkpoints)"
            )


def folder_of(dataset: str, model: str, recipe: str, train_seed: int) -> Path:
    """The place of a checkpoint below a folder of checkpoints: ``<dataset>/<model>/<recipe>/<train seed>``.

    Raises:
        InputError: a name or recipe that could lead anywhere else.

    >>> folder_of("mosi", "qa_moe", "missing-random:0.3", 1111).as_posix()
    'mosi/qa_moe/missing-random-0.3/1111'
    """
    for what, name, pattern in (("dataset", dataset, NAME), ("model", model, NAME), ("recipe", recipe, RECIPE)):
        if not pattern.fullmatch(name):
            raise InputError(f"{what} {name[:80]!r}: expected letters, digits and - _ (a recipe: also . , = + :)")
    return Path(dataset, model, recipe.replace(":", "-"), str(int(train_seed)))


def search_paths() -> list[Path]:
    """Where checkpoints are looked for by name: ./checkpoints, each of $MSABENCH_CHECKPOINTS, the shipped ones."""
    given = [Path(text) for text in os.environ.get("MSABENCH_CHECKPOINTS", "").split(os.pathsep) if text]
    distinct: dict[Path, Path] = {}
    for path in [Path("checkpoints"), *given, _SHIPPED if _SHIPPED.is_dir() else _BESIDE_PACKAGE]:
        distinct.setdefault(path.resolve(), path)
    return list(distinct.values())


def list_checkpoints() -> tuple[list[Checkpoint], list[str]]:
    """All checkpoints by name, and one line for each that cannot be read.

    A checkpoint that is hidden by one of the same name in an earlier folder is listed too.
    """
    found, problems = [], []
    for folder in search_paths():
        for path in sorted(folder.glob(f"*/*/*/*/{CONFIG}")):
            try:
                found.append(read_checkpoint(path.parent))
            except InputError as error:
                problems.append(str(error))
    return found, problems


def find_checkpoints(model: str, dataset: str, recipe: str = "clean", train_seed: int | str = 1111) -> list[Checkpoint]:
    """The checkpoints of a model by what they are: one, or one for each train seed with ``train_seed="all"``.

    Raises:
        InputError: there is none; what there is and the command that trains one are named.
    """
    model_class(model)  # an unknown name has its own message
    if train_seed != "all" and not isinstance(train_seed, int):
        raise InputError(f"train seed: expected a whole number or all, got {train_seed[:80]!r}")
    everything, problems = list_checkpoints()
    place = folder_of(dataset, model, recipe, 0).parent
    matching: dict[int, Checkpoint] = {}
    for c in everything:
        if folder_of(c.dataset, c.model, c.recipe, 0).parent == place and train_seed in ("all", c.train_seed):
            matching.setdefault(c.train_seed, c)  # earlier folders come first
    if not matching:
        raise InputError(_none_found(place, recipe, train_seed, everything, problems))
    return [matching[seed] for seed in sorted(matching)]


def _none_found(
    place: Path, recipe: str, train_seed: int | str, everything: list[Checkpoint], problems: list[str]
) -> str:
    dataset, model = place.parts[:2]
    near = [c for c in everything if c.model == model] or everything
    there = list(dict.fromkeys(f"{c.label} {c.recipe} {c.train_seed}" for c in near))
    listed = (", ".join(there[:6]) + (f" and {len(there) - 6} more" if len(there) > 6 else "")) or "none at all"
    data = "" if dataset == "synth" else " --data PATH"
    seed = 1111 if train_seed == "all" else train_seed
    broken = f"; {len(problems)} could not be read (first: {problems[0]})" if problems else ""
    trained = f"{model.removesuffix(TOKENS)} --text-backbone NAME" if model.endswith(TOKENS) else model
    return (
        f"no checkpoint of {model} for {dataset} with recipe {recipe} and train seed {train_seed}; "
        f"there is {listed}{broken}; "
        f"train it: msabench train --model {trained} --dataset {dataset}{data} --recipe {recipe} --seed {seed}"
    )


def _read_weights(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_WEIGHT_BYTES:
            raise InputError(f"{path}: {size:,} bytes are more than the limit of {MAX_WEIGHT_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint's weights") from None


def _parse_weights(path: Path, data: bytes) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Its header cannot claim more than the file holds."""
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # its Rust half and its Python half fail in types of their own
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: not a complete safetensors file ({reason}); copy or train it again") from None


def _build(where: str, cls: type[MSAModel], arguments: Mapping[str, Any]) -> MSAModel:
    try:
        spec = InputSpec(**_tuples(arguments["spec"]))
        return cls(spec, cls.config_class(**_tuples(arguments["config"])))
    except Exception as error:  # values of the right type may still be nonsense to the model, in any way
        raise InputError(f"{where}: the model cannot be built from {CONFIG}'s arguments: {one_line(error)}") from None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where dataclasses have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _difference(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str:
    """What differs in names, shapes and types, in a few words; empty when nothing does."""
    changed = [
        f"{name} is {_shape(got[name])} instead of {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in got and _shape(got[name]) != _shape(tensor)
    ]
    parts = {
        "missing": [name for name in expected if name not in got],
        "unexpected": [repr(name[:80]) for name in sorted(got) if name not in expected],
        "different": changed,
    }
    return "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in parts.items() if names)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _dims(modality: str, dims: int) -> str:
    return f"{modality} features of {dims} dims" if dims else f"{modality} as token ids"
