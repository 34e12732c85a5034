"""What can be evaluated: trained checkpoints, models from outside, and the two references (chance, oracle)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import Batch, InputError, Stress
from corruptions.composition import Composition
from corruptions.stressor import allowed
from robustbench_msa.adapters.asked import split_asked
from robustbench_msa.adapters.building import Outside, build, try_model
from robustbench_msa.adapters.hub import Place
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.cells import FIRST_SEED, Cell, Subject
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import WholeModel
from robustbench_msa.models.checkpoint import Checkpoint, load_model
from robustbench_msa.models.classes import num_classes_of
from robustbench_msa.models.contract import InputSpec, MSAModel, Output
from robustbench_msa.models.registry import MODELS, REFERENCES, TOKENS


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


def from_outside(
    models: Sequence[str],
    paths: Sequence[Path],
    dataset: Dataset,
    device: str,
    *,
    recipe: str = "clean",
    train_seed: int | str = FIRST_SEED,
    name: str | None = None,
    trust: bool = False,
) -> tuple[list[Candidate], list[str], list[Path]]:
    """The models from outside among those asked for, and the names and folders of msabench's own that are left.

    Args:
        models: names, ``file.py:function``, ``module:function``. paths: folders, files of weights, ``hub://owner/name``.
        recipe, train_seed: labels, where a card beside the weights does not say otherwise. Several files are the
            training seeds ``train_seed``, ``train_seed + 1`` and so on, in their order.
        name: what tables call the model. trust: run checkpoints that are programs.

    Raises:
        InputError: anything about them that cannot be used; a name for none or several models.
    """
    pairs, own_models, own_paths = split_asked(models, paths)
    if name is not None and len({pair.program for pair in pairs}) != 1:
        raise InputError(
            f"--name {name[:80]}: it names one model from outside (--model FILE.py:FUNCTION), not {len(pairs)}"
        )
    first = FIRST_SEED if isinstance(train_seed, str) else train_seed
    made = [
        from_adapter(p.program, p.weights, dataset, device, recipe=recipe, train_seed=first + i, name=name, trust=trust)
        for p, i in zip(pairs, _numbers(pairs), strict=True)
    ]
    return made, own_models, own_paths


def from_adapter(
    program: str | None,
    weights: Place | Path | None,
    dataset: Dataset,
    device: str,
    *,
    recipe: str = "clean",
    train_seed: int | None = None,
    name: str | None = None,
    trust: bool = False,
) -> Candidate:
    """A model that a program builds (``file.py:function``) with its weights, or one that is a program itself.

    It is built here for its identity, and again when it is loaded: then it is tried on a few samples.

    Raises:
        InputError: in one line, whatever is wrong with it.
    """
    place = Place(weights) if isinstance(weights, Path) else weights
    asked = Outside(program, place.path if place else None, spec_of(dataset), trust)
    built = build(asked)
    label = checked_label(re.sub(r"[^A-Za-z0-9._-]", "_", built.label) if name is None else name)
    recipe = str(built.about.get("recipe", recipe))
    subject = Subject(label, built.version, built.identity, recipe, built.about.get("train_seed", train_seed))
    about = built.about | {"model": label, "recipe": recipe, "train_seed": subject.train_seed}
    if "trained_on" in about:
        about |= {"dataset": {"name": about["trained_on"]}}  # where checkpoints of msabench have it
    if place is not None and place.name:
        about |= {"hub": place.name, "revision": place.commit}

    def load() -> MSAModel:
        again = build(asked)
        if again.identity != subject.checkpoint:
            raise InputError(f"{asked.typed}: it built another model the second time; expected the same one every time")
        model = again.model.to(device)
        try_model(model, dataset.splits["test"].rows(slice(0, 3)).to(device), asked.typed)
        return model

    return Candidate(subject, load, about)


def spec_of(dataset: Dataset) -> InputSpec:
    """What a model must know of a dataset to be built for it."""
    span = (-1.0, 1.0) if dataset.profile == "sims" else (-3.0, 3.0)
    return InputSpec(dataset.dims, span, num_classes=num_classes_of(dataset), derived=dataset.derived_dims)


def checked_label(name: str) -> str:
    """The name, when it can stand in tables. Raises InputError for one that is taken or is none."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(f"--name {name[:80]!r}: expected letters, digits, . - and _, up to 64")
    if name.removesuffix(TOKENS) in (*MODELS, *REFERENCES):
        raise InputError(f"--name {name}: this is a model of msabench; choose another name, as in --name {name}-theirs")
    return name


def _numbers(pairs: Sequence[tuple[str | None, Any]]) -> list[int]:
    """The place of each pair among those with the same program."""
    programs = [program for program, _ in pairs]
    return [programs[:i].count(program) for i, program in enumerate(programs)]


def chance(dataset: Dataset) -> Candidate:
    """The best constant of the training labels: median for MAE, mean otherwise."""
    from robustbench_msa.models.chance import Chance

    labels = dataset.splits["train"].labels
    assert labels is not None
    model = Chance.from_labels(labels)
    identity = identity_of({"model": "chance", "version": model.version, **model.arguments()})
    return Candidate(Subject("chance", model.version, identity), lambda: model, {"model": "chance"})


def has_oracle(dataset: Dataset) -> bool:
    return dataset.parameters.get("generator") in ("synth", "synth-classes")


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
    stressor, options = stress.stressor, dict(stress.options)
    if not isinstance(stressor, Composition):
        return [(stressor.name, options)]
    return [(part.name, stressor.options_of(part, options)) for part in stressor.parts]


class Oracle:
    """The oracle as a model. It is told the stress and the severity: a bound, not a competitor."""

    version = 1

    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output:
        from robustbench_msa.data.oracle import decisions, posterior
        from robustbench_msa.data.synth import SynthModel
        from robustbench_msa.data.synth_classes import class_probabilities

        conflict = float(cell.point.values[0]) if cell.stress == "conflict" else 0.0
        mixture = posterior(batch.to("cpu"), SynthModel.default(), _noise_std(cell, inputs), conflict)
        if inputs.num_classes:
            logits = np.log(np.maximum(class_probabilities(mixture), 1e-30))  # an infinite logit would be no prediction
            return Output(torch.from_numpy(logits).float())
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
