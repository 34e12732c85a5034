"""What the harness costs and what encode-once gains: ratios measured in one run.

    python benchmarks/harness.py            # all cases, a few minutes on two cores
    python benchmarks/harness.py --quick    # the synth presets only

Two questions per model (random weights: speed does not depend on them):

- *overhead*: ``execute`` on the noise grid (drawing, corrupting, digests, forward passes, writing files) over the bare
  forward passes on inputs that were corrupted beforehand;
- *gain*: the loop people write (corrupt the split, run the whole model, for every stress, severity and seed) over
  ``execute`` on the same cells, for the rider protocol and for missing and conflict alone.

Each figure is the median over rounds in which the two sides alternate.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from corruptions import Batch, Draws, Protocol
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.execute import execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.contract import InputSpec, MSAModel
from robustbench_msa.models.registry import model_class

SEEDS = (1111, 1112, 1113)
BATCH_SIZE = 256
UNALIGNED = {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}  # steps and features of CMU-MOSI, unaligned


def mosi_shaped() -> Dataset:
    """Random features in the shape of unaligned CMU-MOSI: the speed of a real data set without the data."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int, name: str) -> Batch:
        features = {m: torch.randn(n, *shape, generator=generator) for m, shape in UNALIGNED.items()}
        ids = tuple(f"{name}{i // 20}$_${i}" for i in range(n))
        return Batch(**features, ids=ids, labels=torch.randn(n, generator=generator), groups=tuple(i[:6] for i in ids))

    return Dataset(
        "mosi-shaped", {"train": split(64, "train"), "valid": split(32, "valid"), "test": split(686, "test")}
    )


def alternate(sides: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
    """Seconds of each side in each round, after one round that is not counted."""
    seconds: list[list[float]] = [[] for _ in sides]
    for round_ in range(rounds + 1):
        for i, side in enumerate(sides):
            start = time.perf_counter()
            side()
            if round_:
                seconds[i].append(time.perf_counter() - start)
    return seconds


@torch.inference_mode()
def forward(model: MSAModel, batches: Sequence[Batch]) -> None:
    for batch in batches:
        for start in range(0, len(batch), BATCH_SIZE):
            model(batch.select(range(start, min(start + BATCH_SIZE, len(batch)))))


@torch.inference_mode()
def plain_loop(model: MSAModel, inputs: Inputs, cells: Sequence[Cell]) -> None:
    """Corrupt everything, run everything, cell by cell."""
    batch = inputs.batch
    for cell in cells:
        if cell.is_clean:
            forward(model, [batch])
        else:
            draws = Draws(cell.seed or 0, batch)
            forward(model, [cell.to_stress().apply(batch, cell.point, draws, inputs.reference, batch).batch])


def harness(model: MSAModel, inputs: Inputs, cells: Sequence[Cell]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fresh = Inputs(inputs.dataset, inputs.split)  # nothing kept from an earlier round
        tally = execute(cells, Store(Path(folder)), {"bench": lambda: model}, fresh, BATCH_SIZE)
        assert tally.complete


def measure(name: str, preset: str, dataset: Dataset, rounds: int) -> None:
    cls = model_class(name)
    torch.manual_seed(0)
    model = cls(InputSpec(dataset.dims), cls.presets[preset]).eval()
    model.fit_statistics(dataset.splits["train"])
    inputs = Inputs(dataset, "test")
    subject = Subject(name, 1, "bench")
    requests = [Request(stress, grid, SEEDS) for stress, grid in Protocol.load("rider").stresses]
    cells = plan([subject], inputs.setting, requests)
    noise = [cell for cell in cells if cell.stress == "noise"]
    whole = [cell for cell in cells if cell.stress in ("missing", "conflict")]
    corrupted = [inputs.corruption(cell).batch for cell in noise]
    bare, ours = alternate([lambda: forward(model, corrupted), lambda: harness(model, inputs, noise)], rounds)
    overhead = statistics.median(b / a for a, b in zip(bare, ours, strict=True))
    gains = []
    for some in (cells, whole):
        loop, ours = alternate(
            [lambda some=some: plain_loop(model, inputs, some), lambda some=some: harness(model, inputs, some)], rounds
        )
        gains.append(statistics.median(a / b for a, b in zip(loop, ours, strict=True)))
    row = [
        name,
        preset,
        dataset.name,
        f"{statistics.median(bare):.2f} s",
        f"{overhead:.2f}",
        *(f"{g:.1f}x" for g in gains),
    ]
    print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the synth presets only")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per figure (default 3)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()} CPU\n")
    print("| model | preset | data | bare noise forward | overhead on noise | gain, rider | gain, missing + conflict |")
    print("| --- | --- | --- | --: | --: | --: | --: |")
    for dataset, preset in (
        [(make_synth(), "synth")] if options.quick else [(make_synth(), "synth"), (mosi_shaped(), "mosi")]
    ):
        for name in ("late_fusion", "qa_moe", "rider_moe"):
            measure(name, preset, dataset, options.rounds)


if __name__ == "__main__":
    main()
