"""What can be evaluated: trained checkpoints, and the two references that need none (chance, oracle)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import Batch, InputError, Stress
from corruptions.stressor import allowed
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import WholeModel
from robustbench_msa.models.checkpoint import Checkpoint, load_model
from robustbench_msa.models.contract import MSAModel, Output


@dataclass(frozen=True)
class Candidate:
    """A subject with the way to load it."""

    subject: Subject
    load: Callable[[], MSAModel | WholeModel]
    about: dict[str, Any]  # for the manifest
    covers: Callable[[Stress], bool] = field(default=lambda stress: True)  # stresses it has an answer to


def from_checkpoint(checkpoint: Checkpoint, device: str) -> Candidate:
    """A trained checkpoint."""
    config = checkpoint.config
    subject = Subject(
        checkpoint.model, int(config["model_version"]), checkpoint.identity, checkpoint.recipe, checkpoint.train_seed
    )
    about = {name: config[name] for name in ("model", "recipe", "train_seed", "dataset", "selection", "parameters")}
    about |= {"weights_sha256": checkpoint.weights_sha256, "path": str(checkpoint.path)}
    return Candidate(subject, lambda: load_model(checkpoint, device), about)


def chance(dataset: Dataset) -> Candidate:
    """The best constant of the training labels: median for MAE, mean otherwise."""
    from robustbench_msa.models.chance import Chance

    labels = dataset.splits["train"].labels
    assert labels is not None
    model = Chance.from_labels(labels)
    identity = identity_of({"model": "chance", "version": model.version, **model.arguments()})
    return Candidate(Subject("chance", model.version, identity), lambda: model, {"model": "chance"})


def has_oracle(dataset: Dataset) -> bool:
    return dataset.parameters.get("generator") == "synth"


def oracle(dataset: Dataset) -> Candidate:
    """The exact Bayes decision. Raises InputError where the data's generative model is not known."""
    if not has_oracle(dataset):
        raise InputError(f"oracle: the best prediction is known on the synthetic dataset only, not on {dataset.name}")
    identity = identity_of({"model": "oracle", "version": Oracle.version, "parameters": dict(dataset.parameters)})
    return Candidate(Subject("oracle", Oracle.version, identity), Oracle, {"model": "oracle"}, oracle_covers)


def oracle_covers(stress: Stress) -> bool:
    """Is the exact posterior known under this stress?

    It is for steps and modalities that are lost (and seen to be: filled with zeros) and for Gaussian noise that is the
    same on all steps of all samples, added before anything is lost; conflict, as published, is a strong reference.
    """
    if stress.name == "conflict":
        return "modalities" not in dict(stress.options)
    for place, (name, options) in enumerate(_parts(stress)):
        noisy = name in NOISY
        if not (noisy and place == 0) and name not in LOSING:
            return False
        if options.get("fill", "auto") not in ("auto", "zeros") or options.get("variant") == "mixture":
            return False
    return True


NOISY = ("noise", "noise-lambda", "spectrum")
LOSING = ("missing", "missing-fixed", "missing-random", "frame-missing", "burst", "imbalanced", "correlated")


def _parts(stress: Stress) -> list[tuple[str, dict[str, Any]]]:
    """The stressors of a stress in their order, each with its parameters."""
    names, options = stress.name.split("+"), dict(stress.options)
    if len(names) == 1:
        return [(stress.name, options)]
    split = [(name.split(".", 1), value) for name, value in options.items()]
    return [(name, {key: value for (part, key), value in split if part == name}) for name in names]


class Oracle:
    """The oracle as a model. It is told the stress and the severity: a bound, not a competitor."""

    version = 1

    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output:
        from robustbench_msa.data.oracle import decisions, posterior
        from robustbench_msa.data.synth import SynthModel

        conflict = float(cell.point.values[0]) if cell.stress == "conflict" else 0.0
        mixture = posterior(batch.to("cpu"), SynthModel.default(), _noise_std(cell, inputs), conflict)
        made = {name: torch.from_numpy(np.asarray(x, dtype=np.float32)) for name, x in decisions(mixture).items()}
        metrics = {f"for_{name}": x for name, x in made.items() if name not in ("mean", "median", "p_positive")}
        return Output(made["mean"], {"p_positive": made["p_positive"], "median": made["median"], **metrics})


def _noise_std(cell: Cell, inputs: Inputs) -> Mapping[str, NDArray[np.float64]]:
    """Standard deviation of the additive noise per feature of audio and vision; empty where the stress adds none."""
    if cell.is_clean:
        return {}
    name, options = _parts(cell.to_stress())[0]
    if name not in NOISY:
        return {}
    level, scope = float(cell.point.values[0]), str(options["sigma_ref"])
    reference = inputs.reference.to("cpu")
    noisy = [m for m in allowed(options) if m != "text"]
    return {m: level * reference.noise_sigma(m, scope).double().numpy() for m in noisy}


def identity_of(what: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
