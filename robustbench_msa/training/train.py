"""``train``: from names to a checkpoint that says how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import Batch, InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.models.checkpoint import CONFIG, Checkpoint, folder_of, read_checkpoint, write_checkpoint
from robustbench_msa.models.classes import num_classes_of
from robustbench_msa.models.contract import InputSpec, MSAModel, Optimisation
from robustbench_msa.models.registry import TOKENS, model_class
from robustbench_msa.models.shapes import shapes_only
from robustbench_msa.models.text_backbone import TokenTextModel, with_backbone
from robustbench_msa.training.loop import LOOP_VERSION, Fitted, Job, Progress, criterion_of, fit, predict, repeatable
from robustbench_msa.training.recipes import Recipe, parse_recipe
from robustbench_msa.training.settings import choose_preset, override
from robustbench_msa.version import commit, versions

STATE = "training-state.pt"
Score = Callable[[NDArray[Any], NDArray[Any], str], Mapping[str, float | None]]
"""(labels ``(N,)``, predictions ``(N,)``, profile) to metrics by name."""

_LABEL_RANGES = {"mosi": (-3.0, 3.0), "sims": (-1.0, 1.0)}


def spec_of(dataset: Dataset) -> InputSpec:
    """What a model must know of a dataset to be built.

    Raises:
        InputError: labels of a dataset of classes that are none.
    """
    label_range = _LABEL_RANGES.get(dataset.profile, InputSpec.label_range)
    return InputSpec(dataset.dims, label_range, num_classes_of(dataset), dataset.derived_dims)


def train(
    model_name: str,
    dataset: Dataset,
    recipe: str = "clean",
    seed: int = 1111,
    out: Path | None = None,
    preset: str | None = None,
    device: str = "cpu",
    epochs: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    text_backbone: str | None = None,
    finetune_text: bool = False,
    score: Score | None = None,
    command: str = "",
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    overwrite: bool = False,
) -> Checkpoint:
    """Train a model and write its checkpoint. Of the test split only the dataset's fingerprint knows.

    The epoch is selected by the smallest MAE (of classes by the largest accuracy) in the mean over the recipe's fixed
    views of the validation split. The same call continues after a kill at any moment and ends with the same weights,
    bit for bit; a finished one has nothing to do.

    Args:
        model_name: a trainable model of the registry.
        recipe: how inputs are corrupted in training (``recipes.parse_recipe``).
        seed: of the initial weights, dropout, shuffling and corruption.
        out: the checkpoint's folder. Default: checkpoints/<dataset>/<model>/<recipe>/<seed>.
        preset: whose configuration and optimisation. Default: the dataset's own where the model has one, else "mosi".
        epochs: instead of the preset's.
        overrides: fields of the model's configuration or of Optimisation, by name; values may be text.
        text_backbone: for text as token ids, a pretrained encoder in front of the model: a folder or a name on the hub
            (``models.pretrained.find``). The checkpoint is one of ``<model_name>-tokens``. finetune_text: train it too.
        score: makes "validation" in config.json from the clean validation split; default MAE (acc) alone.
        command: what was typed, kept in config.json.
        progress: told of each epoch. notice: told in a line when a run continues or has nothing to do.
        overwrite: replace a checkpoint that is there, of this or of another training.

    Raises:
        InputError: unknown names, values or labels that do not fit, a folder with another checkpoint.
        TrainingError: the loss is no longer finite.
    """
    given = dict(overrides or {})
    if text_backbone is not None:
        model_name = model_name.removesuffix(TOKENS) + TOKENS
        given |= {"text_backbone": text_backbone, "text_finetune": finetune_text}
    elif finetune_text:
        raise InputError("finetune_text: there is no text backbone to train; name one with --text-backbone")
    cls, parsed = model_class(model_name), parse_recipe(recipe)
    if not 0 <= seed < 2**63:
        raise InputError(f"train seed: expected a whole number from 0, got {seed}")
    chosen = choose_preset(cls, preset, dataset.name)
    config, optimisation = override(cls, chosen, given, epochs)
    if issubclass(cls, TokenTextModel):
        config = with_backbone(config)
    spec = spec_of(dataset)
    with shapes_only():  # what this model reads of the derived inputs; the rest is no part of it
        reads = cls(spec, config).derived_inputs()
    spec = replace(spec, derived={name: spec.derived[name] for name in reads})
    identity = _identity(cls, spec, config, optimisation, dataset, parsed, seed)
    place = folder_of(dataset.name, model_name, parsed.name, seed)  # refuses odd names before training, not after
    out = out or Path("checkpoints") / place
    done = None if overwrite else _finished(out, identity)
    if done is None:
        where = _device(device)
        job = Job(lambda: _new(cls, spec, config, where), optimisation, parsed, seed, identity, out / STATE, where)
        fitted = fit(job, dataset.splits["train"], dataset.splits["valid"], progress, notice)
        done = write_checkpoint(out, fitted.model, _describe(job, fitted, chosen, dataset, score, command))
    elif notice is not None:
        notice(f"{out} holds this very training; nothing to do (overwrite trains it again)")
    (out / STATE).unlink(missing_ok=True)
    return done


def _new(cls: type[MSAModel], spec: InputSpec, config: Any, device: torch.device) -> MSAModel:
    """The model before training; a text backbone is pretrained, and where it will be used."""
    model = cls(spec, config)
    if isinstance(model, TokenTextModel):
        model.read_backbone(device)
    return model


def _identity(
    cls: type[MSAModel],
    spec: InputSpec,
    config: Any,
    optimisation: Optimisation,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
) -> str:
    """sha256 (hex) over all that decides the weights, but for the device and the threads."""
    what = {
        "loop": LOOP_VERSION,
        "model": [cls.name, cls.version],
        "arguments": {"spec": spec.to_json(), "config": asdict(config)},
        "optimisation": asdict(optimisation),
        "dataset": dataset.fingerprint,
        "recipe": recipe.name,
        "seed": seed,
    }
    if recipe.stress is not None:
        what["stressor"] = [recipe.stress.stressor.version, [list(option) for option in recipe.stress.options]]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _finished(out: Path, identity: str) -> Checkpoint | None:
    """The checkpoint of this very training, if it is there."""
    if not (out / CONFIG).exists():
        return None
    checkpoint = read_checkpoint(out)
    if checkpoint.config["training"].get("identity") != identity:
        raise InputError(
            f"{out} holds a checkpoint of another training ({checkpoint.label}, recipe {checkpoint.recipe}, train seed "
            f"{checkpoint.train_seed}); choose another folder with --out, or replace it with --overwrite"
        )
    return checkpoint


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r}: expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}: expected cpu, cuda or cuda:N")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _describe(
    job: Job, fitted: Fitted, preset: str, dataset: Dataset, score: Score | None, command: str
) -> dict[str, Any]:
    """config.json, but for what ``write_checkpoint`` takes from the model."""
    train, valid = dataset.splits["train"], dataset.splits["valid"]
    return {
        "preset": preset,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "dims": list(dataset.dims),
            "parameters": dict(dataset.parameters),
            "sizes": {"train": len(train), "valid": len(valid)},  # of what was read
        },
        "recipe": job.recipe.name,
        "train_seed": job.seed,
        "training": {
            "command": command,
            "identity": job.identity,
            "optimisation": asdict(job.optimisation),
            "epochs_run": job.optimisation.epochs,
            "best_epoch": fitted.best_epoch,
            "seconds": round(fitted.seconds, 1),
            "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        },
        "selection": {
            "split": "valid",
            "by": job.recipe.selection(criterion_of(fitted.model.spec).name),
            "value": fitted.value,
        },
        "validation": _validation(fitted.model, valid.to(job.device), dataset.profile, score),
        "versions": versions(),
        "commit": commit(),
    }


def _validation(model: MSAModel, valid: Batch, profile: str, score: Score | None) -> dict[str, float | None]:
    assert valid.labels is not None
    with repeatable(valid.device):
        y, p = valid.labels.cpu().numpy(), predict(model, valid).numpy()
    if score is None:
        return {"acc": float((p == y).mean())} if model.spec.num_classes else {"mae": float(np.abs(p - y).mean())}
    return dict(score(y, p, profile))
