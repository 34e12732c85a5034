"""EMOE's fusion as its release computes it, sample by sample, against ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from benchmarks.budget import Budget
from benchmarks.report import Table, spread
from benchmarks.setting import ALIGNED, random_dataset, random_model
from benchmarks.timing import Side, alternate
from corruptions import MODALITIES, Batch
from robustbench_msa.models import emoe
from robustbench_msa.models.contract import Encoded, MSAModel

WHOLE_AT = (16, 64)  # the encoders of larger batches take long and are the same on both sides


def combine_one_by_one(h: Tensor, w: Tensor, fusion: str) -> Tensor:
    """What ``emoe.combine`` gives (eq. 2-3), the way the release goes about it: a Python loop over the batch, in which
    each sample's weighted vectors are put together alone and appended to all that is there so far by concatenation."""
    fused = torch.empty(0)
    for i in range(len(h)):
        weighed = [h[i, m] * w[i, m] for m in range(len(MODALITIES))]
        one = (weighed[0] + weighed[1] + weighed[2] if fusion == "sum" else torch.cat(weighed))[None]
        fused = one if i == 0 else torch.cat([fused, one])
    return fused


@contextmanager
def one_by_one() -> Iterator[None]:
    """EMOE with that fusion."""
    with mock.patch.object(emoe, "combine", combine_one_by_one):
        yield


def emoe_fusion(budget: Budget) -> list[Table]:
    dataset = random_dataset(WHOLE_AT[-1], ALIGNED)
    model = random_model("emoe", "mosi", dataset).to(budget.device)
    batch = dataset.splits["test"].to(budget.device)
    rows = [_whole_row(model, batch.rows(slice(0, n)), budget.of(2, 7)) for n in WHOLE_AT]
    with torch.inference_mode():
        encoded = model.encode(batch.rows(slice(0, 16)))
    rows += [_fusion_row(model, encoded, n, budget.of(5, 30)) for n in (16, 64, 256, 1024)]
    note = (
        "`emoe` (mosi), prediction. Sample by sample: a Python loop over the batch whose result grows by "
        "concatenation, as in the released code, written anew from its description; all else is ours on both sides. "
        "The larger the encoders' part, the less it is of the whole."
    )
    columns = ("what", "batch", "sample by sample", "ours", "gain", "gain, processor")
    return [Table("EMOE: fusion sample by sample against ours", columns, rows, [note])]


@torch.inference_mode()
def _whole_row(model: MSAModel, batch: Batch, rounds: int) -> list[str]:
    def slow() -> None:
        with one_by_one():
            model(batch)

    return _row("whole forward pass", len(batch), slow, lambda: model(batch), rounds)


@torch.inference_mode()
def _fusion_row(model: MSAModel, few: Encoded, n: int, rounds: int) -> list[str]:
    parts = {m: {k: x.repeat(n // len(x), *[1] * (x.ndim - 1)) for k, x in few.part(m).items()} for m in MODALITIES}
    encoded, present = (
        Encoded(parts["text"], parts["audio"], parts["vision"]),
        next(model.parameters()).new_ones(n, 3).bool(),
    )

    def slow() -> None:
        with one_by_one():
            model.fuse(encoded, present)

    return _row("fusion alone", n, slow, lambda: model.fuse(encoded, present), rounds)


def _row(what: str, n: int, slow: Side, ours: Side, rounds: int) -> list[str]:
    sides = {"slow": slow, "ours": ours}
    alternate(sides, 1)  # warms up
    found = alternate(sides, rounds)
    elapsed, processor = found.ratios("slow", "ours")
    times = [spread([1000 * turn.elapsed for turn in found.turns[side]], " ms", 1) for side in sides]
    return [what, str(n), *times, spread(elapsed, "x", 2), spread(processor, "x", 2)]
