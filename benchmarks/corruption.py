"""How fast inputs are corrupted: the engine against what is written today, the same values, ratios measured in one run.

    python benchmarks/corruption.py                 # inputs of CMU-MOSEI's size, several minutes
    python benchmarks/corruption.py --samples 500   # a smaller split

All three give the rider protocol's stressed test sets (13 of them: noise, missing, conflict without their clean points)
to a consumer in batches of 64, from the same random numbers, made before and timed apart:

- *loop*: a data set whose ``__getitem__`` corrupts one sample in NumPy, behind a ``DataLoader``;
- *matrix*: the whole split corrupted in NumPy when the data set is built, then a ``DataLoader``;
- *engine*: ``Stress.blocks``.

That the values agree is checked on every sample before anything is timed. The two sides alternate; each figure is a
median over rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from corruptions import MODALITIES, Batch, Draws, Point, Protocol, Reference, Stress, realised
from corruptions.corruption import Corruption

SHAPES = {"text": (50, 768), "audio": (50, 74), "vision": (50, 35)}
BATCH_SIZE = 64
SEED = 1111
Arrays = dict[str, NDArray[Any]]


def mosei_shaped(n: int) -> Batch:
    """Random features in the shape of aligned CMU-MOSEI, lengths from 5 to 50, labels in [-3, 3]."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 51, (n,), generator=g)
    valid = (torch.arange(50) < lengths[:, None])[:, :, None]
    features = {m: torch.randn(n, *shape, generator=g) * valid for m, shape in SHAPES.items()}
    return Batch(
        **features,
        **{f"{m}_lengths": lengths for m in MODALITIES},
        ids=tuple(f"v{i // 15}$_${i}" for i in range(n)),
        labels=torch.rand(n, generator=g) * 6 - 3,
    )


class Recipe:
    """What the two NumPy sides need of one stressed set: every random decision, and the data as arrays."""

    def __init__(self, name: str, severity: float, corruption: Corruption, draws: Draws, reference: Reference) -> None:
        self.name, self.severity = name, severity
        self.lost_steps = {m: mask.numpy() for m, mask in corruption.features.lost.items()}
        self.lost, self.donor = corruption.sources.lost.numpy(), corruption.sources.donor.numpy()
        self.z = {m: draws.normal("noise", m).numpy() for m in ("audio", "vision")} if name == "noise" else {}
        self.sigma = {m: reference.sigma[m].numpy() for m in self.z}


class LoopDataset(Dataset[Arrays]):
    """One sample at a time, as a ``__getitem__`` does it."""

    def __init__(self, data: Arrays, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe

    def __len__(self) -> int:
        return len(self.data["text"])

    def __getitem__(self, i: int) -> Arrays:
        r, sample = self.recipe, {}
        for k, m in enumerate(MODALITIES):
            source = r.donor[i, k] if r.donor[i, k] >= 0 else i
            x = self.data[m][source].copy()
            length = self.data["lengths"][source]
            if m in r.z:
                x[:length] += r.z[m][i, :length] * (np.float32(r.severity) * r.sigma[m])
            if m in r.lost_steps:
                x[r.lost_steps[m][i]] = 0
            if r.lost[i, k]:
                x[:] = 0
            sample |= {m: x, f"{m}_lengths": length}
        return {**sample, "label": self.data["labels"][i], "present": ~r.lost[i]}


class MatrixDataset(Dataset[Arrays]):
    """Everything at once in the constructor."""

    def __init__(self, data: Arrays, r: Recipe) -> None:
        self.arrays: Arrays = {"label": data["labels"], "present": ~r.lost}
        valid = np.arange(50)[None, :] < data["lengths"][:, None]
        for k, m in enumerate(MODALITIES):
            source = np.where(r.donor[:, k] >= 0, r.donor[:, k], np.arange(len(r.donor)))
            x = data[m][source]
            if m in r.z:
                x = x + valid[:, :, None] * r.z[m] * (np.float32(r.severity) * r.sigma[m])
            if m in r.lost_steps:
                x = x * ~r.lost_steps[m][:, :, None]
            x = x * ~r.lost[:, k, None, None]
            self.arrays |= {m: x, f"{m}_lengths": data["lengths"][source]}

    def __len__(self) -> int:
        return len(self.arrays["text"])

    def __getitem__(self, i: int) -> Arrays:
        return {name: x[i] for name, x in self.arrays.items()}


def numpy_batches(kind: type[LoopDataset] | type[MatrixDataset], data: Arrays, recipe: Recipe) -> Iterator[Arrays]:
    yield from DataLoader(kind(data, recipe), batch_size=BATCH_SIZE)


def engine_batches(
    batch: Batch, stress: Stress, point: Point, draws: Draws, reference: Reference
) -> Iterator[dict[str, torch.Tensor]]:
    for corruption in stress.blocks(batch, point, draws, reference, batch, size=BATCH_SIZE):
        b = corruption.batch
        yield {**{m: b.features(m) for m in MODALITIES}, **{f"{m}_lengths": b.lengths(m) for m in MODALITIES}}


def consume(batches: Iterator[Any]) -> int:
    """What a model would do first: take the tensors. Returns the number of batches."""
    count = 0
    for batch in batches:
        assert len(batch["text"])
        count += 1
    return count


def check(ours: Iterator[Any], theirs: Iterator[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        for name, x in a.items():
            np.testing.assert_allclose(x.numpy(), b[name].numpy(), rtol=0, atol=1e-5, err_msg=name)


def extra_memory(side: Callable[[], Any]) -> float:
    """MiB that a side takes at its peak beyond what is resident before (Linux; NaN elsewhere)."""

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    try:
        ctypes.CDLL(None).malloc_trim(0)  # gives back what is free but still resident
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # forgets the peak so far
        before = status("VmRSS")
        side()
        return status("VmHWM") - before
    except (OSError, AttributeError):
        return float("nan")


def timed(side: Callable[[], Any]) -> float:
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4659, help="size of the split (CMU-MOSEI's test split: 4659)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds whose median is taken")
    arguments = parser.parse_args()
    batch = mosei_shaped(arguments.samples)
    reference, draws = Reference.fit(batch), Draws(SEED, batch)
    data: Arrays = {m: batch.features(m).numpy() for m in MODALITIES}
    assert batch.labels is not None
    data |= {"labels": batch.labels.numpy(), "lengths": batch.text_lengths.numpy()}
    cells = [
        (stress, point)
        for stress, grid in Protocol.load("rider").stresses
        for point in grid.points
        if not point.is_clean
    ]
    start = time.perf_counter()
    for stress, point in reversed(cells):  # from the top of each grid: all donors of a seed are chosen at once
        next(stress.blocks(batch, point, draws, reference, batch, size=BATCH_SIZE))
    drawing = time.perf_counter() - start
    recipes, sizes = [], []
    for stress, point in cells:
        corruption = stress.apply(batch, point, draws, reference, batch)
        recipes.append(Recipe(stress.name, float(point.values[0]), corruption, draws, reference))
        sizes.append(realised(corruption)["steps_t"])
        del corruption

    for (stress, point), recipe in zip(cells, recipes, strict=True):
        check(engine_batches(batch, stress, point, draws, reference), numpy_batches(LoopDataset, data, recipe))
        check(engine_batches(batch, stress, point, draws, reference), numpy_batches(MatrixDataset, data, recipe))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}")
    print(f"{len(batch):,} samples, {len(cells)} stressed sets; values of the three sides agree; draws {drawing:.1f} s")

    sides: dict[str, Callable[[], None]] = {
        "engine": lambda: [consume(engine_batches(batch, s, p, draws, reference)) for s, p in cells],
        "loop": lambda: [consume(numpy_batches(LoopDataset, data, r)) for r in recipes],
        "matrix": lambda: [consume(numpy_batches(MatrixDataset, data, r)) for r in recipes],
    }  # type: ignore[dict-item]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    block = sum(x[:BATCH_SIZE].nbytes for x in (data[m] for m in MODALITIES)) / 2**20
    print(f"engine: {extra_memory(sides['engine']):.0f} MiB at most beside data and draws; a block has {block:.0f} MiB")
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            seconds[name].append(timed(side))
    total = len(batch) * len(cells)
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = statistics.median(v / e for v, e in zip(values, seconds["engine"], strict=True))
        print(f"{name:<8} {median:7.2f} s  {total / median:10,.0f} samples/s  {ratio:5.2f}x the engine's time")


if __name__ == "__main__":
    main()
