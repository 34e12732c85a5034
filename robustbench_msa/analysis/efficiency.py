"""What a model costs at inference: parameters, FLOPs, latency, throughput and peak memory (docs/efficiency.md).

Measured is prediction alone: a batch that is already in memory, in eval and inference mode, float32. The three calls,
the whole model, its encoders and its fusion, are timed in turns, so that whatever else the machine does meets all.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from corruptions import MODALITIES, Batch, InputError
from corruptions.batch import Derived
from robustbench_msa.models.checkpoint import load_model, read_checkpoint
from robustbench_msa.models.contract import InputSpec, MSAModel
from robustbench_msa.models.registry import model_class
from robustbench_msa.models.shapes import shapes_only
from robustbench_msa.models.text_backbone import TokenTextModel

MIB = 2**20
SEED = 1111  # of random weights and inputs
TOKEN_IDS = 100  # random ids are below it: every vocabulary has them, and what they say costs nothing

Progress = Callable[[str], None]
"""Told what has just been measured; ``ticks`` says how often."""


class Spread(NamedTuple):
    """Median and quartiles of repeated measurements."""

    median: float
    q1: float
    q3: float


class Memory(NamedTuple):
    """MiB: the peak in predicting, and what was taken before there was a model."""

    peak: float
    base: float

    @property
    def above(self) -> float:
        return self.peak - self.base


@dataclass(frozen=True)
class Shapes:
    """What a sample looks like: steps and features of text, audio, vision (0 features: token ids), and of derived
    inputs by name."""

    dims: tuple[int, int, int]
    steps: tuple[int, int, int]
    derived: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A model to be measured, not yet built: a preset with random weights, or a checkpoint's folder."""

    model: str
    preset: str
    spec: InputSpec
    shapes: Shapes
    checkpoint: Path | None = None

    @property
    def label(self) -> str:
        """``qa_moe:mosi``, of a checkpoint ``qa_moe/mosi``."""
        return read_checkpoint(self.checkpoint).label if self.checkpoint else f"{self.model}:{self.preset}"

    def build(self) -> MSAModel:
        """On the CPU, in eval mode. The global random state stays as it is."""
        if self.checkpoint is not None:
            return load_model(read_checkpoint(self.checkpoint))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return self._new().eval()

    def hollow(self) -> MSAModel:
        """Without weights: it takes no memory but for what building imports."""
        with shapes_only():
            return self._new()

    def _new(self) -> MSAModel:
        cls = model_class(self.model)
        if self.checkpoint is None:
            return cls(self.spec, cls.presets[self.preset])
        given = read_checkpoint(self.checkpoint).config["arguments"]["config"]
        return cls(self.spec, cls.config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}))


@dataclass(frozen=True)
class AtBatch:
    """Milliseconds a batch of the whole model, of its encoders, of its fusion; memory None where none was measured."""

    batch_size: int
    latency: Spread
    encode: Spread
    fuse: Spread
    memory: Memory | None

    @property
    def samples_per_second(self) -> float:
        return throughput(self.batch_size, self.latency.median)

    @property
    def saved(self) -> float:
        """Share of the encoders in encoders and fusion: what encoding once saves of a long whole-modality grid."""
        return self.encode.median / (self.encode.median + self.fuse.median)


@dataclass(frozen=True)
class Cost:
    """Everything measured of one model."""

    subject: Subject
    parameters: int
    active_parameters: int
    flops_per_sample: float
    batches: tuple[AtBatch, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, one row a batch size."""
        about = {
            "label": self.subject.label,
            "model": self.subject.model,
            "preset": self.subject.preset,
            "checkpoint": None if self.subject.checkpoint is None else str(self.subject.checkpoint),
            "parameters": self.parameters,
            "active_parameters": self.active_parameters,
            **footprint(self.parameters),
            "flops_per_sample": self.flops_per_sample,
        }
        return [about | _row(at) for at in self.batches]


def measure(
    subject: Subject,
    batch_sizes: Sequence[int],
    device: torch.device,
    inputs: Callable[[int], Batch] | None = None,
    repeats: int = 30,
    warmup: int = 5,
    memory: bool = True,
    progress: Progress = lambda what: None,
) -> Cost:
    """All costs of one model.

    Args:
        subject: what to build. batch_sizes: samples a batch, each at least 1.
        device: cpu or cuda. repeats, warmup: timed and untimed calls, at each batch size.
        inputs: gives the batch of a size, on the CPU. Default: ``random_batch`` of the subject's shapes.
        memory: measure peak memory too (on the CPU in a process of its own, a few seconds a model).

    Raises:
        InputError: numbers below 1, a model that cannot be built, or that does not fit into memory.
    """
    for name, value in (("repeats", repeats), ("warmup", warmup), *(("batch size", n) for n in batch_sizes)):
        if value < 1:
            raise InputError(f"{name}: expected 1 or more, got {value}")
    make = inputs or (lambda n: random_batch(subject.shapes, n))
    sizes, label = sorted(set(batch_sizes)), subject.label
    taken = _cuda_allocated(device)
    model = subject.build()
    counts = parameters(model)
    batch = make(sizes[0])
    flops = count_flops(lambda: model(batch)) / len(batch)
    progress(f"{label} FLOPs")
    peaks: dict[int, Memory] = {}
    if memory and device.type == "cpu":
        peaks = resident_peaks(subject, sizes)
        progress(f"{label} memory")
    model = model.to(device)
    measured = []
    for n in sizes:
        batch = make(n).to(device)
        times = _time_model(model, batch, repeats, warmup, device)
        peak = peaks.get(n) or (_cuda_peak(model, batch, device, taken) if memory and device.type == "cuda" else None)
        measured.append(AtBatch(n, *times, peak))
        progress(f"{label} batches of {n}")
    return Cost(subject, *counts, flops, tuple(measured))


def ticks(models: int, batch_sizes: Sequence[int], device: torch.device, memory: bool) -> int:
    """How often ``measure`` tells of progress, over all models."""
    return models * (1 + len(set(batch_sizes)) + (memory and device.type == "cpu"))


def parameters(model: MSAModel) -> tuple[int, int]:
    """Total and active. A text backbone counts whole, also where it is frozen and in no state dict."""
    if not isinstance(model, TokenTextModel):
        return sum(p.numel() for p in model.parameters()), model.active_parameters()
    backbone = sum(p.numel() for p in model.encoder.parameters())
    total, active = parameters(model.inner)
    return backbone + total, backbone + active


def footprint(count: int) -> dict[str, float]:
    """MiB of the parameters alone: in float32, in float16, and in training with mixed precision and AdamW.

    RIDER-MoE table 6: 4, 2 and 16 bytes a parameter (float16 weights and gradients, float32 weights, m and v).

    >>> {name: round(mib, 2) for name, mib in footprint(1_522_299).items()}
    {'weights_fp32_mib': 5.81, 'weights_fp16_mib': 2.9, 'train_state_mib': 23.23}
    """
    sizes = {"weights_fp32_mib": 4, "weights_fp16_mib": 2, "train_state_mib": 16}
    return {name: count * size / MIB for name, size in sizes.items()}


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call on the CPU; 2 a multiply-add.

    Fused kernels are taken apart while counting (attention, LSTM), or their products would not be seen. Not counted:
    what works element by element, norms, softmax, sums, look-ups.

    >>> count_flops(lambda: torch.nn.Linear(5, 3)(torch.zeros(7, 5)))  # 2 x 7 x 5 x 3
    210
    """
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the switch for oneDNN speaks of Intel's GPUs, whatever there is
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
            call()
    return int(counter.get_total_flops())


def time_calls(
    calls: Mapping[str, Callable[[], object]], repeats: int, warmup: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """What the clock says of each call, ``repeats`` times, in turns, after ``warmup`` turns that do not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            start = clock()
            call()
            elapsed = clock() - start
            if turn >= warmup:
                found[name].append(elapsed)
    return found


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, linear between neighbours.

    >>> spread([4.0, 1.0, 3.0, 2.0, 5.0])
    Spread(median=3.0, q1=2.0, q3=4.0)
    """
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, q1, q3)


def throughput(batch_size: int, milliseconds: float) -> float:
    """Samples a second, of batches one after the other.

    >>> round(throughput(16, 10.59))  # QA-MoE's A.5: 1,510
    1511
    """
    return 1000 * batch_size / milliseconds


def random_batch(shapes: Shapes, n: int) -> Batch:
    """n samples of standard normal features (or random token ids); every step is valid."""
    g = torch.Generator().manual_seed(SEED)
    text, audio, vision = (_random(n, t, d, g) for t, d in zip(shapes.steps, shapes.dims, strict=True))
    derived = {name: Derived(_random(n, t, d, g), MODALITIES) for name, (t, d) in shapes.derived.items()}
    return Batch(text, audio, vision, derived=derived)


def shapes_of(batch: Batch) -> Shapes:
    """The shapes of a batch; derived inputs that are no sequences are left out."""
    dims = [0 if x.ndim == 2 else x.shape[2] for x in map(batch.features, MODALITIES)]
    steps = [batch.features(m).shape[1] for m in MODALITIES]
    derived = {n: (d.values.shape[1], d.values.shape[2]) for n, d in batch.derived.items() if d.values.ndim == 3}
    return Shapes((dims[0], dims[1], dims[2]), (steps[0], steps[1], steps[2]), derived)


def resident_peaks(subject: Subject, batch_sizes: Sequence[int]) -> dict[int, Memory]:
    """Peak resident memory of a fresh process that builds the model and predicts, by batch size, smallest first.

    The base is the process with all that the model imports. Empty where the system tells no peak.

    Raises:
        InputError: the process was killed (as one that takes too much memory is).
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_resident_peaks, subject, sorted(batch_sizes), torch.get_num_threads()).result()
    except BrokenProcessPool:
        sizes = ", ".join(map(str, batch_sizes))
        raise InputError(
            f"{subject.label}: the process that measures memory was killed at batch size {sizes}, probably for taking "
            "too much; try a smaller --batch-size, or leave memory out with --no-memory"
        ) from None


def machine(device: torch.device) -> dict[str, Any]:
    """Where it was measured: names, cores this process may use, threads, versions, and how busy it was (load)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cuda = device.type == "cuda"
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "memory": "torch.cuda.max_memory_allocated" if cuda else "peak resident set of a fresh process",
    }


def _time_model(
    model: MSAModel, batch: Batch, repeats: int, warmup: int, device: torch.device
) -> tuple[Spread, Spread, Spread]:
    """Milliseconds of the whole, of encode and of fuse."""
    with torch.inference_mode():
        encoded = model.encode(batch)
        calls: dict[str, Callable[[], object]] = {
            "whole": lambda: model(batch),
            "encode": lambda: model.encode(batch),
            "fuse": lambda: model.fuse(encoded, batch.present),
        }
        seconds = time_calls(calls, repeats, warmup, _clock(device))
    whole, encode, fuse = (spread([1000 * s for s in seconds[name]]) for name in calls)
    return whole, encode, fuse


def _clock(device: torch.device) -> Callable[[], float]:
    """Kernels run beside the program on a GPU: there the clock is read when all that was started has ended."""

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised if device.type == "cuda" else time.perf_counter


def _cuda_allocated(device: torch.device) -> float:
    """MiB of tensors before there is a model, those of the last one gone."""
    if device.type != "cuda":
        return 0.0
    gc.collect()
    return torch.cuda.memory_allocated(device) / MIB


def _cuda_peak(model: MSAModel, batch: Batch, device: torch.device, base: float) -> Memory:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        model(batch)
    torch.cuda.synchronize(device)
    return Memory(torch.cuda.max_memory_allocated(device) / MIB, base)


def _resident_peaks(subject: Subject, batch_sizes: Sequence[int], threads: int) -> dict[int, Memory]:
    """What the fresh process runs."""
    torch.set_num_threads(threads)
    subject.hollow()  # what is imported only now is no part of the model
    base, found = _resident("VmRSS"), {}
    model = subject.build()
    _forget_peak()
    with torch.inference_mode():
        for n in batch_sizes:
            batch = random_batch(subject.shapes, n)
            for _ in range(2):
                model(batch)
            peak = _resident("VmHWM")
            if peak is not None and base is not None:
                found[n] = Memory(peak, base)
    return found


def _forget_peak() -> None:
    """On Linux the peak is then that of predicting, not of reading or making the weights."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return


def _resident(entry: str) -> float | None:
    """MiB of this process: now (VmRSS) or at most (VmHWM). Elsewhere than on Linux, at most so far, for both.

    Linux's own ru_maxrss is not it: a process inherits it from the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines() if ":" in line)
        return int(lines[entry].split()[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _random(n: int, steps: int, d: int, g: torch.Generator) -> torch.Tensor:
    return torch.randn(n, steps, d, generator=g) if d else torch.randint(1, TOKEN_IDS, (n, steps), generator=g)


def _row(at: AtBatch) -> dict[str, Any]:
    times = {"latency": at.latency, "encode": at.encode, "fuse": at.fuse}
    memory = at.memory or (None, None)
    return {
        "batch_size": at.batch_size,
        **{f"{name}_{key}_ms": value for name, found in times.items() for key, value in found._asdict().items()},
        "samples_per_second": at.samples_per_second,
        "encode_share": at.saved,
        "peak_memory_mib": memory[0],
        "base_memory_mib": memory[1],
    }
