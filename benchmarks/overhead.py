"""What the harness costs where nothing can be reused: noise in all modalities, over the bare forward passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.budget import Budget
from benchmarks.report import Table, judged, spread
from benchmarks.setting import BATCH_SIZE, Bench, bench, harness
from benchmarks.timing import alternate
from corruptions import Batch
from robustbench_msa.models.contract import MSAModel


def overhead(budget: Budget) -> list[Table]:
    sizes = {"late_fusion": (64, 512), "qa_moe": (64, 512), "rider_moe": (32, 256), "emoe": (16, 96)}
    rows = []
    for name, (quick, full) in sizes.items():
        rows.append(_row(bench(name, "mosi", budget.of(quick, full), budget.device), budget.of(1, 3)))
    columns = (
        *("model (preset)", "samples x cells", "bare forward", "harness", "harness / bare"),
        *("processor", "over, a 1,000 samples", "goal"),
    )
    note = (
        f"Both in batches of {BATCH_SIZE} (of all samples, where there are fewer). Bare: encode and fuse over inputs "
        "that were corrupted before. The harness also draws, corrupts, measures and hashes the inputs and writes the "
        "files: what that takes hardly depends on the model, so the ratio says how heavy a model is beside its data."
    )
    return [Table("Harness over bare forward passes, noise", columns, rows, [note])]


def _row(b: Bench, rounds: int) -> list[str]:
    noise = b.of("noise")
    corrupted = [b.inputs.corruption(cell).batch for cell in noise]
    found = alternate({"bare": lambda: forward(b.model, corrupted), "harness": lambda: harness(b, noise)}, rounds)
    elapsed, processor = found.ratios("harness", "bare")
    pairs = zip(found.turns["harness"], found.turns["bare"], strict=True)
    count = len(b.inputs.batch) * len(noise)
    over = [1e6 * (h.elapsed - f.elapsed) / count for h, f in pairs]
    times = [found.seconds("bare"), found.seconds("harness"), spread(elapsed), spread(processor)]
    size = f"{len(b.inputs.batch)} x {len(noise)}"
    return [b.name, size, *times, spread(over, " ms", 0), judged(elapsed, most=1.05)]


@torch.inference_mode()
def forward(model: MSAModel, batches: Sequence[Batch], batch_size: int = BATCH_SIZE) -> list[torch.Tensor]:
    """Predictions of whole splits, ``(N,)`` each."""
    found = []
    for batch in batches:
        parts = [batch.rows(slice(i, min(i + batch_size, len(batch)))) for i in range(0, len(batch), batch_size)]
        found.append(torch.cat([model(part).prediction for part in parts]).cpu())
    return found
