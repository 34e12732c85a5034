"""Where memory does not suffice, half as many samples go through at once, and no cell is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, InputError, Point, Stress
from robustbench_msa.evaluation.cells import Subject, cell_at, plan
from robustbench_msa.evaluation.chunks import Chunks, batch_size_of, is_out_of_memory
from robustbench_msa.evaluation.execute import Tally, execute
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB."
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
NO_MEMORY: list[Exception] = [
    torch.OutOfMemoryError(CUDA),
    MemoryError(),
    RuntimeError(CPU),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


class Narrow(MSAModel):
    """Only so many samples fit: any more at once raise."""

    name = "narrow"

    def __init__(self, dims: tuple[int, int, int], fits: int, where: str = "both", error: Any = None) -> None:
        super().__init__(InputSpec(dims), None)
        generator = torch.Generator().manual_seed(3)
        self.w = torch.nn.ParameterDict(
            {m: torch.randn(d, generator=generator) for m, d in zip(MODALITIES, dims, strict=True)}
        )
        self.fits, self.where, self.error = fits, where, error or torch.OutOfMemoryError(CUDA)

    def check(self, n: int, where: str) -> None:
        if n > self.fits and self.where in (where, "both"):
            raise self.error

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        self.check(len(x), "encode")
        return {"h": (x @ self.w[modality]).mean(1)}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        self.check(len(present), "fuse")
        h = torch.stack([encoded.part(m)["h"] for m in MODALITIES], 1) * present
        return Output(h.sum(1), {"h": h})


@pytest.fixture
def inputs(dataset: Any) -> Inputs:
    return Inputs(dataset, "test")  # 40 samples


def planned(inputs: Inputs, request_of: Callable[..., Any]) -> Any:
    requests = [request_of("missing", "0:0.6:0.2", 2), request_of("noise", "0.2,0.4"), request_of("conflict", "0.5")]
    return plan([Subject("narrow", 1, "c" * 64)], inputs.setting, requests)


@pytest.mark.parametrize("where", ["encode", "fuse", "both"])
@pytest.mark.parametrize("fits", [10, 1])
def test_no_cell_is_lost(inputs, request_of, folder, where, fits) -> None:
    cells, store = planned(inputs, request_of), Store(folder)
    model = Narrow(inputs.dataset.dims, fits, where).eval()
    assert execute(cells, store, {"c" * 64: lambda: model}, inputs, batch_size=64) == Tally(
        len(cells), 0, len(cells), 0
    )
    assert store.failures() == {}
    (used,) = {row["batch_size"] for row in store.runtime(c.key for c in cells).to_pylist()}
    assert used == fits
    plain = Runner(Narrow(inputs.dataset.dims, 1000).eval(), inputs, used)
    for cell in cells:  # exactly what that batch size gives
        np.testing.assert_array_equal(store.predictions(cell.key)["y_pred"].to_numpy(), plain.run(cell).y_pred)


def test_what_does_not_fit_alone_is_a_failure(inputs, request_of, folder) -> None:
    cells, store = planned(inputs, request_of), Store(folder)
    model = Narrow(inputs.dataset.dims, 0).eval()
    assert execute(cells, store, {"c" * 64: lambda: model}, inputs).failed == len(cells)
    assert store.failures()[cells[0].key] == f"OutOfMemoryError: {CUDA}"


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: str(error)[:30])
def test_every_kind_of_it_is_known(error) -> None:
    assert is_out_of_memory(error)
    seen: list[int] = []

    def work(rows: slice) -> int:
        seen.append(rows.stop - rows.start)
        if rows.stop - rows.start > 3:
            raise error
        return rows.start

    chunks = Chunks(100)
    assert chunks.over(8, work) == [0, 2, 4, 6]  # 8, then 4, then 2: halves of what was there, not of 100
    assert seen == [8, 4, 2, 2, 2, 2]
    assert chunks.size == 2
    assert chunks.over(5, work) == [0, 2, 4]


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of range"), KeyboardInterrupt()]
)
def test_any_other_error_is_left_alone(error) -> None:
    assert not is_out_of_memory(error)

    def work(rows: slice) -> None:
        raise error

    chunks = Chunks(8)
    with pytest.raises(type(error)):
        chunks.over(8, work)
    assert chunks.size == 8


def test_a_worst_case_finds_room_too(inputs) -> None:
    cell = cell_at(
        Subject("narrow", 1, "c" * 64), inputs.setting, Stress.parse("worst-case:steps=2"), Point("0.3"), 1111
    )
    runner = Runner(Narrow(inputs.dataset.dims, 12).eval(), inputs, 64)
    wide = Runner(Narrow(inputs.dataset.dims, 1000).eval(), inputs, 10)
    np.testing.assert_array_equal(runner.run(cell).y_pred, wide.run(cell).y_pred)
    assert runner.chunks.size == 10


@pytest.mark.parametrize(
    ("asked", "device", "free", "size"),
    [
        ("auto", "cpu", None, 256),  # as before there was a choice: stored values stay
        ("auto", "cuda", 0, 256),
        ("auto", "cuda", 64 * 10_000 * 1000, 512),  # 1000 samples would fit: the power of two below
        ("auto", "cuda", 10**12, 8192),
        (7, "cuda", 10**12, 7),
        ("1024", "cpu", None, 1024),
    ],
)
def test_where_a_run_begins(asked, device, free, size) -> None:
    assert batch_size_of(asked, 10_000, torch.device(device), free) == size


@pytest.mark.parametrize("asked", [0, -3, "many", "1.5", "", "auto "])
def test_what_is_no_batch_size(asked) -> None:
    with pytest.raises(InputError, match=f"batch size: expected auto or 1 or more, got {asked}"):
        batch_size_of(asked, 1, torch.device("cpu"))


def test_work_in_chunks_inside_a_chunk_mends_both() -> None:
    """A worst case looks for room inside a chunk: all that is returned is of the size that it found."""
    chunks, sizes = Chunks(40), []

    def inner(rows: slice) -> int:
        if rows.stop - rows.start > 10:
            raise MemoryError
        return rows.stop - rows.start

    def outer(rows: slice) -> list[int]:
        sizes.append(rows.stop - rows.start)
        return chunks.over(rows.stop - rows.start, inner)

    assert chunks.over(40, outer) == [[10]] * 4
    assert sizes == [40, 10, 10, 10, 10]
    assert chunks.size == 10
