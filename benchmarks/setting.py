"""What the cases run: data of published shapes, models with random weights, cells, and the harness itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from corruptions import MODALITIES, Batch, Protocol
from robustbench_msa.analysis.metrics import score
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.execute import execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.contract import InputSpec, MSAModel
from robustbench_msa.models.registry import model_class

SEEDS = (1111, 1112, 1113)
BATCH_SIZE = 256  # of ``msabench run``
ALIGNED = {"text": (50, 768), "audio": (50, 74), "vision": (50, 35)}  # CMU-MOSEI, aligned
UNALIGNED = {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}  # CMU-MOSI, unaligned
Shape = dict[str, tuple[int, int]]


def random_split(n: int, shape: Shape, prefix: str = "v") -> Batch:
    """Random features; lengths from a tenth of the steps to all of them, fifteen samples a video."""
    g = torch.Generator().manual_seed(0)
    share = 0.1 + 0.9 * torch.rand(n, generator=g)
    lengths = {m: (share * steps).ceil().long().clamp(1, steps) for m, (steps, _) in shape.items()}
    valid = {m: torch.arange(steps) < lengths[m][:, None] for m, (steps, _) in shape.items()}
    features = {m: torch.randn(n, *shape[m], generator=g) * valid[m][:, :, None] for m in MODALITIES}
    ids = tuple(f"{prefix}{i // 15}$_${i}" for i in range(n))
    labels = torch.rand(n, generator=g) * 6 - 3
    groups = tuple(name.split("$")[0] for name in ids)
    values = features | {f"{m}_lengths": x for m, x in lengths.items()} | {"labels": labels}
    return Batch(**values, ids=ids, groups=groups)  # type: ignore[arg-type]


def random_dataset(n: int, shape: Shape) -> Dataset:
    sizes = {"train": 64, "valid": 16, "test": n}
    return Dataset("random", {name: random_split(size, shape, name) for name, size in sizes.items()})


@dataclass(frozen=True, eq=False)
class Bench:
    """One model on one dataset, with the cells of the rider protocol."""

    model: MSAModel
    preset: str
    dataset: Dataset
    inputs: Inputs
    cells: list[Cell]

    @property
    def name(self) -> str:
        return f"{self.model.name} ({self.preset})"

    def of(self, *stresses: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.stress in stresses]


def bench(name: str, preset: str, n: int, device: str = "cpu", shape: Shape = ALIGNED) -> Bench:
    """A preset with random weights, since speed does not depend on them."""
    dataset = random_dataset(n, shape)
    model = random_model(name, preset, dataset).to(device)
    inputs = Inputs(dataset, "test", device)
    requests = [Request(stress, grid, SEEDS) for stress, grid in Protocol.load("rider").stresses]
    cells = plan([Subject(name, 1, "bench")], inputs.setting, requests)
    made = Bench(model, preset, dataset, inputs, cells)
    harness(made, cells[:1])  # imports and first calls are over before anything is timed
    return made


def random_model(name: str, preset: str, dataset: Dataset, seed: int = 0) -> MSAModel:
    cls = model_class(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(InputSpec(dataset.dims), cls.presets[preset]).eval()
    model.fit_statistics(dataset.splits["train"])
    return model


@contextmanager
def ran(b: Bench, cells: Sequence[Cell], batch_size: int = BATCH_SIZE) -> Iterator[Store]:
    """The store of a run of these cells that begins with nothing: neither draws nor encodings are there."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        tally = execute(
            cells, store, {"bench": lambda: b.model}, Inputs(b.dataset, "test", b.inputs.batch.device), batch_size
        )
        if not tally.complete:
            raise RuntimeError(f"{b.name}: {tally.failed} cells failed: {next(iter(store.failures().values()))}")
        yield store


def harness(b: Bench, cells: Sequence[Cell], batch_size: int = BATCH_SIZE) -> None:
    with ran(b, cells, batch_size):
        pass


def harness_with_metrics(b: Bench, cells: Sequence[Cell], batch_size: int = BATCH_SIZE) -> None:
    """And every metric of every cell, read back from the files, as the usual loop has them."""
    with ran(b, cells, batch_size) as store:
        for cell in cells:
            rows = store.predictions(cell.key, ["y_true", "y_pred"])
            score(rows["y_true"].to_numpy(), rows["y_pred"].to_numpy())
