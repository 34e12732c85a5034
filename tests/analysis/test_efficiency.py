"""Counts against closed forms, times from a clock of our own, memory of a process that takes a known amount."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corruptions import MODALITIES, InputError
from robustbench_msa.analysis import efficiency
from robustbench_msa.analysis.efficiency import (
    AtBatch,
    Memory,
    Shapes,
    Spread,
    Subject,
    count_flops,
    footprint,
    machine,
    measure,
    parameters,
    random_batch,
    resident_peaks,
    shapes_of,
    spread,
    throughput,
    ticks,
    time_calls,
)
from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part
from robustbench_msa.models.registry import MODELS, model_class
from robustbench_msa.models.text_backbone import with_backbone

CPU = torch.device("cpu")
SHAPES = Shapes((6, 5, 4), (7, 5, 6))
E, K, D = 4, 1, 8  # experts, active ones, width


@dataclass(frozen=True)
class TinyConfig:
    pass


class Tiny(MSAModel):
    """One linear layer a modality on the mean over time, and one of E experts after them."""

    name: ClassVar[str] = "tiny"
    config_class: ClassVar[type[TinyConfig]] = TinyConfig

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(spec, TinyConfig())
        self.encoder = nn.ModuleDict({m: nn.Linear(d, D) for m, d in zip(MODALITIES, spec.dims, strict=True)})
        self.experts = nn.ModuleList(nn.Linear(3 * D, 1, bias=False) for _ in range(E))

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        return {"h": self.encoder[modality](x.mean(dim=1))}

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return Output(self.experts[0](torch.cat([encoded.part(m)["h"] for m in MODALITIES], dim=1)).squeeze(1))


class Sparse(Tiny):
    def active_parameters(self) -> int:
        one = sum(p.numel() for p in self.experts[0].parameters())
        return super().active_parameters() - (E - K) * one


def subject(**changes: Any) -> Subject:
    return replace(Subject("late_fusion", "synth", InputSpec(SHAPES.dims), SHAPES), **changes)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_are_counted_and_sparse_experts_by_their_share() -> None:
    spec = InputSpec(SHAPES.dims)
    encoders = sum((d + 1) * D for d in SHAPES.dims)
    assert parameters(Tiny(spec)) == (encoders + E * 3 * D, encoders + E * 3 * D)
    assert parameters(Sparse(spec)) == (encoders + E * 3 * D, encoders + K * 3 * D)


@pytest.mark.parametrize("name", MODELS)
def test_no_model_has_more_active_parameters_than_parameters(name: str) -> None:
    model = subject(model=name).hollow()
    total, active = parameters(model)
    assert total == sum(p.numel() for p in model.state_dict(keep_vars=True).values() if isinstance(p, nn.Parameter))
    assert 0 < active <= total


@pytest.mark.parametrize("finetune", [False, True])
def test_a_text_backbone_counts_whether_it_is_frozen_or_not(finetune: bool, encoder_folder: Path) -> None:
    cls, inner = model_class("late_fusion-tokens"), model_class("late_fusion")
    config = replace(cls.presets["synth"], text_backbone=str(encoder_folder), text_finetune=finetune)
    model = cls(InputSpec((0, 5, 4)), with_backbone(config))
    d, width, vocabulary, positions = 16, 24, 2100, 24
    layer = 4 * (d * d + d) + 2 * d * width + width + d + 2 * 2 * d
    bert = (vocabulary + positions + 2) * d + 2 * d + 2 * layer
    head = sum(p.numel() for p in inner(InputSpec((d, 5, 4)), inner.presets["synth"]).parameters())
    assert parameters(model) == (bert + head, bert + head)


def test_footprint_is_that_of_riders_table_6() -> None:
    printed = {1_522_299: (5.81, 2.90, 23.23), 12_011_259: (45.82, 22.91, 183.28)}
    for count, mib in printed.items():
        np.testing.assert_allclose(list(footprint(count).values()), mib, atol=0.005)


# --- FLOPs ------------------------------------------------------------------------------------------------------------


def test_flops_of_known_layers() -> None:
    n, t, d, h = 3, 5, 8, 4
    x = torch.zeros(n, t, d)
    assert count_flops(lambda: nn.Linear(d, h)(x)) == 2 * n * t * d * h
    assert count_flops(lambda: nn.Conv1d(d, h, 3, padding=1)(x.mT)) == 2 * n * t * d * h * 3
    assert count_flops(lambda: nn.LSTM(d, h, batch_first=True)(x)) == 2 * n * t * 4 * h * (d + h)
    q = torch.zeros(n, 2, t, h)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * 2 * (n * 2 * t * t * h)
    assert count_flops(lambda: x.exp() + x.softmax(dim=1)) == 0


def test_flops_a_sample_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "build", lambda self: Tiny(self.spec).eval())
    cost = measure(subject(), (4, 2), CPU, repeats=1, warmup=1, memory=False)
    assert cost.flops_per_sample == 2 * D * sum(SHAPES.dims) + 2 * 3 * D
    assert [at.batch_size for at in cost.batches] == [2, 4]


def test_counting_leaves_torch_as_it_was() -> None:
    before = (torch.backends.mkldnn.is_available(), torch.is_grad_enabled(), torch._C._get_mkldnn_enabled())
    count_flops(lambda: None)
    assert (torch.backends.mkldnn.is_available(), torch.is_grad_enabled(), torch._C._get_mkldnn_enabled()) == before


# --- times ------------------------------------------------------------------------------------------------------------


def test_calls_take_turns_and_warm_up_does_not_count() -> None:
    called: list[str] = []
    now = 0.0

    def costs(name: str, seconds: list[float]) -> Any:
        left = iter(seconds)

        def call() -> None:
            nonlocal now
            called.append(name)
            now += next(left)

        return call

    calls = {"a": costs("a", [100, 1, 2]), "b": costs("b", [50, 10, 30])}
    assert time_calls(calls, repeats=2, warmup=1, clock=lambda: now) == {"a": [1, 2], "b": [10, 30]}
    assert called == ["a", "b"] * 3


def test_medians_and_quartiles_from_an_injected_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reading of the clock is one step later, and step k lasts k milliseconds."""

    def clock() -> Iterator[float]:
        now, step = 0.0, 0
        while True:
            yield now
            step += 1
            now += step / 1000

    ticking = clock()
    monkeypatch.setattr(efficiency, "_clock", lambda device: lambda: next(ticking))
    (at,) = measure(subject(), (4,), CPU, repeats=5, warmup=1, memory=False).batches
    whole = [6 * turn + 1 for turn in range(1, 6)]  # six readings a turn; a call lasts the step between two of them
    np.testing.assert_allclose(at.latency, np.quantile(whole, [0.5, 0.25, 0.75]))
    np.testing.assert_allclose(at.encode, np.add(at.latency, 2))
    np.testing.assert_allclose(at.fuse, np.add(at.latency, 4))
    np.testing.assert_allclose(at.samples_per_second, 4 / (whole[2] / 1000))


def test_spread_is_order_free_and_throughput_is_batch_over_latency() -> None:
    values = np.random.default_rng(0).gamma(2, size=21)
    assert spread(values.tolist()) == spread(sorted(values.tolist()))
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0)
    assert throughput(16, 10.0) == 1600


def test_what_encoding_once_saves() -> None:
    """A grid of many points: K (encode + fuse) becomes encode + K fuse."""
    encode, fuse, k = 9.0, 3.0, 100_000
    at = AtBatch(8, Spread(12, 12, 12), Spread(encode, 8, 10), Spread(fuse, 2, 4), None)
    saved = 1 - (encode + k * fuse) / (k * (encode + fuse))
    np.testing.assert_allclose(at.saved, saved, atol=1e-4)


# --- inputs, memory, machine ------------------------------------------------------------------------------------------


def test_random_batches_have_the_shapes_and_repeat() -> None:
    shapes = Shapes((0, 5, 4), (7, 5, 6), {"comment": (3, 2)})
    batch = random_batch(shapes, 3)
    assert shapes_of(batch) == shapes
    assert batch.has_token_text
    assert 0 < int(batch.text.min()) <= int(batch.text.max()) < 100
    assert all(bool(batch.valid(m).all()) for m in MODALITIES)
    np.testing.assert_array_equal(batch.audio, random_batch(shapes, 3).audio)


def test_shapes_are_those_of_a_dataset() -> None:
    batch = make_synth(1, (4, 4, 4), explanations=True).splits["test"]
    shapes = shapes_of(batch)
    assert (shapes.dims, shapes.steps) == ((48, 24, 16), (24, 40, 32))
    assert shapes.derived.keys() == batch.derived.keys()


def test_random_weights_are_the_same_every_time_and_leave_the_global_state() -> None:
    before = torch.random.get_rng_state()
    a, b = subject().build(), subject().build()
    np.testing.assert_array_equal(torch.random.get_rng_state(), before)
    assert not a.training
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, b.state_dict()[name])
    assert all(p.is_meta for p in subject().hollow().parameters())


def test_peak_memory_holds_at_least_the_input_of_the_largest_batch() -> None:
    shapes = Shapes((256, 64, 64), (64, 64, 64))
    small, large = 1, 256
    peaks = resident_peaks(subject(spec=InputSpec(shapes.dims), shapes=shapes), [large, small])
    assert list(peaks) == [small, large]
    features = large * 64 * (256 + 64 + 64) * 4 / 2**20
    assert peaks[large].above > features
    assert peaks[large].peak - peaks[small].peak > 0.9 * features
    assert peaks[small].base == peaks[large].base > 10


def test_a_process_that_is_killed_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed:
        def __init__(self, *_: object, **__: object) -> None:
            raise efficiency.BrokenProcessPool

    monkeypatch.setattr(efficiency, "ProcessPoolExecutor", Killed)
    with pytest.raises(InputError, match="late_fusion:synth: the process that measures memory was killed"):
        resident_peaks(subject(), [4])


def test_progress_is_told_as_often_as_said() -> None:
    told: list[str] = []
    measure(subject(), (2, 3, 2), CPU, repeats=1, warmup=1, memory=False, progress=told.append)
    assert len(told) == ticks(1, (2, 3, 2), CPU, memory=False) == 3
    assert ticks(2, (2, 3), CPU, memory=True) == 8
    assert ticks(2, (2, 3), torch.device("cuda"), memory=True) == 6


def test_rows_are_plain_and_complete() -> None:
    cost = measure(subject(), (2, 3), CPU, repeats=2, warmup=1, memory=False)
    batches = tuple(replace(at, memory=Memory(30.0, 20.0)) for at in cost.batches)
    rows = replace(cost, batches=batches).rows()
    assert [row["batch_size"] for row in rows] == [2, 3]
    assert rows[0]["label"] == "late_fusion:synth"
    assert rows[0]["peak_memory_mib"] - rows[0]["base_memory_mib"] == batches[0].memory.above == 10  # type: ignore[union-attr]
    np.testing.assert_allclose(rows[1]["latency_median_ms"], cost.batches[1].latency.median)
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    assert cost.rows()[0]["peak_memory_mib"] is None


def test_the_machine_is_named() -> None:
    about = machine(CPU)
    assert about["threads"] == torch.get_num_threads()
    assert about["torch"] == torch.__version__
    assert about["cpu"]
    assert about["cores"] >= 1
    assert (about["device"], about["cuda"]) == ("cpu", None)


@pytest.mark.parametrize(
    ("what", "arguments"),
    [("repeats", {"repeats": 0}), ("warmup", {"warmup": 0}), ("batch size", {"batch_sizes": (4, 0)})],
)
def test_numbers_below_one_are_refused(what: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{what}: expected 1 or more, got 0"):
        measure(subject(), device=CPU, **{"batch_sizes": (4,)} | arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_the_same_things() -> None:
    device = torch.device("cuda")
    (at,) = measure(subject(), (8,), device, repeats=3, warmup=2).batches
    assert at.memory is not None
    inputs = 8 * sum(t * d for t, d in zip(SHAPES.steps, SHAPES.dims, strict=True)) * 4
    assert at.memory.above > inputs / 2**20
    assert at.latency.q1 <= at.latency.median <= at.latency.q3
    assert machine(device)["memory"] == "torch.cuda.max_memory_allocated"
