"""The loop people write: the split is corrupted in the data set's constructor, a DataLoader, the whole model, metrics.

It is written as published robustness scripts do it, and not slower: a constructor that works on whole NumPy arrays, the
default DataLoader (one process, in order), ``eval`` and ``no_grad``, predictions to the CPU batch by batch, metrics a
cell. Which steps, modalities and donors a cell takes is handed to it for nothing; noise it draws itself, with NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from benchmarks.setting import Bench
from corruptions import MODALITIES, Batch
from corruptions.corruption import Corruption
from robustbench_msa.analysis.metrics import score
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.models.contract import MSAModel

Arrays = dict[str, NDArray[Any]]
Normals = Callable[[str], NDArray[np.float32]]


class Recipe:
    """One stressed set as NumPy needs it: every random decision. normals: noise of a modality, ``(N, T, d)``."""

    def __init__(self, name: str, severity: float, corruption: Corruption, sigma: Arrays, normals: Normals) -> None:
        self.lost_steps = {m: mask.cpu().numpy() for m, mask in corruption.features.lost.items()}
        self.lost, self.donor = corruption.sources.lost.cpu().numpy(), corruption.sources.donor.cpu().numpy()
        self.told = corruption.told
        self.sigma = {m: np.float32(severity) * sigma[m] for m in ("audio", "vision") if name == "noise"}
        self.normals = normals


def recipes_of(inputs: Inputs, cells: Sequence[Cell], own_noise: bool = True) -> list[Recipe]:
    """own_noise: drawn by NumPy with the cell's seed; else the harness's own, for the same predictions."""
    sigma = {m: x.cpu().numpy() for m, x in inputs.reference.sigma.items()}
    found = []
    for cell in cells:
        severity = 0.0 if cell.is_clean else float(cell.point.values[0])
        normals = _drawn(inputs.batch, cell.seed) if own_noise else _keyed(inputs, cell.seed)
        found.append(Recipe(cell.stress, severity, inputs.corruption(cell), sigma, normals))
    return found


def _drawn(batch: Batch, seed: int | None) -> Normals:
    shapes = {m: batch.features(m).shape for m in MODALITIES}
    return lambda m: np.random.default_rng(seed).standard_normal(shapes[m], np.float32)


def _keyed(inputs: Inputs, seed: int | None) -> Normals:
    return lambda m: inputs.draws(seed).normal("noise", m).cpu().numpy()


def arrays_of(batch: Batch) -> Arrays:
    assert batch.labels is not None
    arrays = {m: batch.features(m).cpu().numpy() for m in MODALITIES} | {"label": batch.labels.cpu().numpy()}
    return arrays | {f"{m}_lengths": batch.lengths(m).cpu().numpy() for m in MODALITIES}


class StressedSplit(Dataset[Arrays]):
    """A split that is corrupted when it is made, whole arrays at a time."""

    def __init__(self, data: Arrays, recipe: Recipe) -> None:
        self.arrays: Arrays = {"label": data["label"], "present": ~recipe.lost | (not recipe.told)}
        for k, m in enumerate(MODALITIES):
            x, lengths, donor = data[m], data[f"{m}_lengths"], recipe.donor[:, k]
            if (donor >= 0).any():
                source = np.where(donor >= 0, donor, np.arange(len(donor)))
                x, lengths = x[source], lengths[source]
            if m in recipe.sigma:
                valid = np.arange(x.shape[1])[None, :] < lengths[:, None]
                x = x + valid[:, :, None] * recipe.normals(m) * recipe.sigma[m]
            if m in recipe.lost_steps:
                x = x * ~recipe.lost_steps[m][:, :, None]
            if recipe.lost[:, k].any():
                x = x * ~recipe.lost[:, k, None, None]
            self.arrays |= {m: x, f"{m}_lengths": lengths}

    def __len__(self) -> int:
        return len(self.arrays["text"])

    def __getitem__(self, i: int) -> Arrays:
        return {name: x[i] for name, x in self.arrays.items()}


def stressed_batches(data: Arrays, recipe: Recipe, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
    yield from DataLoader(StressedSplit(data, recipe), batch_size=batch_size)


@torch.no_grad()
def predict(model: MSAModel, data: Arrays, recipe: Recipe, batch_size: int, device: str | torch.device) -> Arrays:
    """Labels and predictions of one stressed set, ``(N,)`` each."""
    y_true, y_pred = [], []
    for batch in stressed_batches(data, recipe, batch_size):
        label = batch.pop("label")
        given = Batch(**{name: x.to(device) for name, x in batch.items()})  # type: ignore[arg-type]
        y_pred.append(model(given).prediction.cpu())
        y_true.append(label)
    return {"y_true": torch.cat(y_true).numpy(), "y_pred": torch.cat(y_pred).numpy()}


def usual_loop(b: Bench, data: Arrays, recipes: Sequence[Recipe], batch_size: int) -> None:
    for recipe in recipes:
        found = predict(b.model, data, recipe, batch_size, b.inputs.batch.device)
        score(found["y_true"], found["y_pred"])
