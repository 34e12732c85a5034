"""The harness against the loop people write, over the whole rider protocol, and over missing and conflict alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from benchmarks.budget import Budget
from benchmarks.report import Table, judged, spread
from benchmarks.setting import BATCH_SIZE, UNALIGNED, Bench, bench, harness_with_metrics
from benchmarks.timing import alternate, timed
from benchmarks.usual_loop import arrays_of, recipes_of, usual_loop
from robustbench_msa.evaluation.cells import Cell

LOOP_BATCHES = (16, 64)
WHOLE = ("missing", "conflict")
LOOP_NOTE = (
    "The loop: the split is corrupted in the data set's constructor (whole arrays, NumPy), DataLoader, `eval`, "
    "`no_grad`, the whole model for every cell, every metric. Which steps, modalities and donors are hit is handed to "
    "it for nothing; its noise it draws with NumPy. The harness: drawing, corrupting, digests, encoding, fusing, one "
    "file a cell, and every metric read back from the files; no intervals, which the loop has not either."
)
DATA_NOTE = "Random features in the shape of aligned CMU-MOSEI (50 steps; 768, 74, 35), lengths from 5 to 50."


def protocol(budget: Budget) -> list[Table]:
    """Whole rider protocol, three seeds: 40 cells."""
    gpu = budget.device == "cuda"
    sizes = {"emoe": budget.of(16, 96), "qa_moe": budget.of(64, 384), "rider_moe": budget.of(32, 256)}
    presets = [(name, "mosi") for name in sizes] + ([("rider_moe", "mosei")] if gpu else [])
    rows = []
    for name, preset in presets:
        b = bench(name, preset, 4659 if gpu else sizes[name], budget.device)
        rows += _protocol_rows(b, budget.of(1, 2))
    columns = (
        *("model (preset)", "samples x cells", "loop's batch", "loop", f"harness, batch {BATCH_SIZE}", "gain"),
        *("gain, processor", "gain at the loop's own batch", "goal"),
    )
    return [Table("Against the loop people write: rider protocol, 3 seeds", columns, rows, [LOOP_NOTE, DATA_NOTE])]


def _protocol_rows(b: Bench, rounds: int) -> list[list[str]]:
    data, recipes = arrays_of(b.inputs.batch), recipes_of(b.inputs, b.cells)
    sides = {f"loop {n}": (lambda n=n: usual_loop(b, data, recipes, n)) for n in LOOP_BATCHES}
    sides |= {f"harness {n}": (lambda n=n: harness_with_metrics(b, b.cells, n)) for n in (*LOOP_BATCHES, BATCH_SIZE)}
    found, rows = alternate(sides, rounds), []
    for n in LOOP_BATCHES:
        elapsed, processor = found.ratios(f"loop {n}", f"harness {BATCH_SIZE}")
        own, _ = found.ratios(f"loop {n}", f"harness {n}")
        goal = 20.0 if b.inputs.batch.device.type == "cuda" else {16: 5.0, 64: 2.0}[n]
        times = [found.seconds(f"loop {n}"), found.seconds(f"harness {BATCH_SIZE}")]
        gains = [spread(elapsed, "x"), spread(processor, "x"), spread(own, "x"), judged(elapsed, least=goal)]
        rows.append([b.name, f"{len(b.inputs.batch)} x {len(b.cells)}", str(n), *times, *gains])
    return rows


def whole_modality(budget: Budget) -> list[Table]:
    """Missing and conflict alone: what encode-once is for."""
    rows = []
    for name, n, shape in (
        ("emoe", budget.of(16, 96), None),
        ("late_fusion", budget.of(32, 256), UNALIGNED),
        ("qa_moe", budget.of(32, 256), UNALIGNED),
        ("qa_moe", budget.of(64, 384), None),
        ("rider_moe", budget.of(32, 256), None),
    ):
        b = bench(name, "mosi", n, budget.device, **({} if shape is None else {"shape": shape}))
        rows.append(_whole_row(b, b.of("clean", *WHOLE), "aligned" if shape is None else "unaligned", budget.of(1, 2)))
    columns = (
        *("model (preset)", "data", "samples x cells", "encoders' share", "loop, batch 64"),
        *(f"harness, batch {BATCH_SIZE}", "gain", "gain, processor", "goal"),
    )
    unaligned = "Unaligned: CMU-MOSI's shape, 50 x 768, 375 x 5, 500 x 20."
    share = "The encoders' share is that of a forward pass of one batch; with little of it, there is little to save."
    return [Table("Missing and conflict alone", columns, rows, [f"{share} {unaligned} Loop and harness as above."])]


def _whole_row(b: Bench, cells: Sequence[Cell], data_name: str, rounds: int) -> list[str]:
    data, recipes, share = arrays_of(b.inputs.batch), recipes_of(b.inputs, cells), encoders_share(b)
    sides = {"loop": lambda: usual_loop(b, data, recipes, 64), "harness": lambda: harness_with_metrics(b, cells)}
    found = alternate(sides, rounds)
    elapsed, processor = found.ratios("loop", "harness")
    goal = judged(elapsed, least=4.0) if share >= 0.5 else "-"
    size = f"{len(b.inputs.batch)} x {len(cells)}"
    times = [found.seconds("loop"), found.seconds("harness"), spread(elapsed, "x"), spread(processor, "x")]
    return [b.name, data_name, size, f"{100 * share:.0f} %", *times, goal]


@torch.inference_mode()
def encoders_share(b: Bench, repeats: int = 3) -> float:
    batch = b.inputs.batch.rows(slice(0, 64))
    encoded = b.model.encode(batch)
    encode = statistics.median(timed(lambda: b.model.encode(batch)).elapsed for _ in range(repeats))
    fuse = statistics.median(timed(lambda: b.model.fuse(encoded, batch.present)).elapsed for _ in range(repeats))
    return encode / (encode + fuse)
