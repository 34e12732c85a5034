"""The engine alone, no model: the rider protocol's 13 stressed sets to a consumer, against what is written today.

- *sample by sample*: a data set whose ``__getitem__`` corrupts one sample in NumPy, behind a ``DataLoader``;
- *whole arrays*: the split corrupted in NumPy when the data set is made (``usual_loop``), then a ``DataLoader``;
- *engine*: ``Stress.blocks``.

All get the same random numbers, made before and timed apart; that the values agree is checked on every sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.budget import Budget
from benchmarks.processes import extra_memory
from benchmarks.report import Table, judged, spread
from benchmarks.setting import ALIGNED, random_dataset
from benchmarks.timing import alternate, timed
from benchmarks.usual_loop import Arrays, Recipe, arrays_of, recipes_of, stressed_batches
from corruptions import MODALITIES, Protocol
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.inputs import Inputs

BATCH_SIZE = 64
GOALS = {"sample by sample": 3.0, "whole arrays": 5.0}


class OneByOne(Dataset[Arrays]):
    """One sample at a time, as a ``__getitem__`` does it. noise: that of all samples, by modality."""

    def __init__(self, data: Arrays, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self.noise = {m: recipe.normals(m) for m in recipe.sigma}

    def __len__(self) -> int:
        return len(self.data["text"])

    def __getitem__(self, i: int) -> Arrays:
        r = self.recipe
        sample = {"label": self.data["label"][i], "present": ~r.lost[i] | (not r.told)}
        for k, m in enumerate(MODALITIES):
            source = r.donor[i, k] if r.donor[i, k] >= 0 else i
            x, length = self.data[m][source].copy(), self.data[f"{m}_lengths"][source]
            if m in r.sigma:
                x[:length] += self.noise[m][i, :length] * r.sigma[m]
            if m in r.lost_steps:
                x[r.lost_steps[m][i]] = 0
            if r.lost[i, k]:
                x[:] = 0
            sample |= {m: x, f"{m}_lengths": length}
        return sample


def one_by_one(data: Arrays, recipe: Recipe) -> Iterator[dict[str, torch.Tensor]]:
    yield from DataLoader(OneByOne(data, recipe), batch_size=BATCH_SIZE)


def engine_batches(inputs: Inputs, cell: Cell) -> Iterator[dict[str, torch.Tensor]]:
    given = (inputs.batch, cell.point, inputs.draws(cell.seed), inputs.reference, inputs.batch)
    for corruption in cell.to_stress().blocks(*given, size=BATCH_SIZE):
        b = corruption.batch
        yield {**{m: b.features(m) for m in MODALITIES}, **{f"{m}_lengths": b.lengths(m) for m in MODALITIES}}


def stressed_cells(inputs: Inputs) -> list[Cell]:
    requests = [Request(stress, grid, (1111,)) for stress, grid in Protocol.load("rider").stresses]
    return [cell for cell in plan([Subject("none", 1, "none")], inputs.setting, requests) if not cell.is_clean]


def consume(sets: Iterable[Iterator[Any]]) -> None:
    """What a model would do first: take the tensors."""
    for batches in sets:
        for batch in batches:
            assert len(batch["text"])


def check(ours: Iterator[Any], theirs: Iterator[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        for name, x in a.items():
            np.testing.assert_allclose(x.numpy(), b[name].numpy(), rtol=0, atol=1e-5, err_msg=name)


def agree(inputs: Inputs, data: Arrays, cells: Sequence[Cell], recipes: Sequence[Recipe]) -> None:
    for cell, recipe in zip(cells, recipes, strict=True):
        check(engine_batches(inputs, cell), one_by_one(data, recipe))
        check(engine_batches(inputs, cell), stressed_batches(data, recipe, BATCH_SIZE))


def corruption(budget: Budget) -> list[Table]:
    n = budget.of(300, 1200)
    inputs = Inputs(random_dataset(n, ALIGNED), "test")
    cells, data = stressed_cells(inputs), arrays_of(inputs.batch)
    drawing = timed(lambda: [next(engine_batches(inputs, cell)) for cell in reversed(cells)]).elapsed
    recipes = recipes_of(inputs, cells, own_noise=False)
    agree(inputs, data, cells, recipes)
    sides = {
        "engine": lambda: consume(engine_batches(inputs, cell) for cell in cells),
        "sample by sample": lambda: consume(one_by_one(data, recipe) for recipe in recipes),
        "whole arrays": lambda: consume(stressed_batches(data, recipe, BATCH_SIZE) for recipe in recipes),
    }
    peak, found, rows = extra_memory(sides["engine"]), alternate(sides, budget.of(1, 3)), []
    for side in sides:
        speed = spread([n * len(cells) / turn.elapsed for turn in found.turns[side]], digits=0)
        elapsed, processor = found.ratios(side, "engine")
        goal = judged(elapsed, least=GOALS[side]) if side in GOALS else ""
        rows.append([side, found.seconds(side), speed, spread(elapsed, "x"), spread(processor, "x"), goal])
    block = sum(data[m][:BATCH_SIZE].nbytes for m in MODALITIES) / 2**20
    note = (
        f"{n:,} samples of aligned CMU-MOSEI's shape, {len(cells)} stressed sets, batches of {BATCH_SIZE}, CPU; the "
        f"values of the three agree. Draws, shared by all and timed apart: {drawing:.1f} s. The engine takes "
        f"{peak:.0f} MiB at most beside data and draws, where a block has {block:.0f} MiB."
    )
    columns = ("side", "elapsed", "samples a second", "elapsed / engine's", "processor", "goal")
    return [Table("Corruption alone", columns, rows, [note])]
