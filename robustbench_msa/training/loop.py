"""The training loop: epochs over shuffled batches, selection on fixed validation views, and a state to continue from.

It sees the training and the validation split and nothing else. All randomness comes from the seed: one generator
shuffles, one corrupts, and the global one (initial weights, dropout) is seeded inside and given back as it was. So a
run is repeated bit for bit on the same device with the same number of threads, also when it is killed and continues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corruptions import Batch, InputError, Reference
from corruptions.keyed_random import key_of
from robustbench_msa import atomic
from robustbench_msa.models.contract import InputSpec, MSAModel, Optimisation, Output
from robustbench_msa.models.text_backbone import TokenTextModel
from robustbench_msa.training.recipes import Recipe

LOOP_VERSION = 1
"""Raise it when the same seed gives other weights."""

EVALUATED_AT_ONCE = 512
Progress = Callable[[int, int, float, float, int], None]
"""Called after each epoch with (epoch, epochs, training loss, validation value, best epoch so far)."""


class TrainingError(InputError):
    """Training went to NaN or infinity: these settings do not work on this data."""


@dataclass(frozen=True, eq=False)
class Job:
    """One training. identity: a hash of what decides its result. state: the file that a killed run continues from."""

    build: Callable[[], MSAModel]
    optimisation: Optimisation
    recipe: Recipe
    seed: int
    identity: str
    state: Path
    device: torch.device


class Criterion(NamedTuple):
    """What selects an epoch: a value of labels and predictions, both ``(N,)`` float64, and its better side."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool


MAE = Criterion("MAE", lambda y, p: (p - y).abs().mean(), higher_is_better=False)
ACCURACY = Criterion("accuracy", lambda y, p: ((p == y) + 0 * p).mean(), higher_is_better=True)  # NaN stays NaN


def criterion_of(spec: InputSpec) -> Criterion:
    """MAE of scores; accuracy of classes: what the papers' tables of classes begin with, and steadier than a macro F1,
    which the few validation samples of a rare class decide."""
    return ACCURACY if spec.num_classes else MAE


@dataclass(frozen=True, eq=False)
class Fitted:
    """The model of the best epoch, in eval mode. value: what selected it; seconds: of training, over all attempts."""

    model: MSAModel
    best_epoch: int
    value: float
    seconds: float


def fit(
    job: Job,
    train: Batch,
    valid: Batch,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Fitted:
    """Train to the end, continuing from ``job.state`` when it is this job's.

    The state file is written after each epoch and left in place; remove it once the result is safe.

    Raises:
        TrainingError: a loss or a validation value is not finite; epoch and learning rate are named.
    """
    cuda = [job.device] if job.device.type == "cuda" else []
    tell = notice or (lambda line: None)
    with torch.random.fork_rng(devices=cuda), repeatable(job.device):
        run = _Run.start(job, train, valid)
        if run.restore():
            tell(f"continuing after epoch {run.epoch} of {job.optimisation.epochs} from {job.state}")
        elif job.state.exists():
            tell(f"{job.state} belongs to another training; starting from the beginning and replacing it")
        while run.epoch < job.optimisation.epochs:
            loss, value = run.one_epoch()
            run.save()
            if progress is not None:
                progress(run.epoch, job.optimisation.epochs, loss, value, run.best_epoch)
        run.model.load_state_dict(run.best)
        return Fitted(run.model.eval(), run.best_epoch, run.best_value, run.seconds)


def predict(model: MSAModel, batch: Batch) -> Tensor:
    """Predictions for MAE, or classes, ``(N,)`` float64 on the CPU; the model is left in eval mode.

    Logits that are not finite are of no class: NaN.
    """
    model.eval()
    parts = []
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(batch)), EVALUATED_AT_ONCE):
            output = model(batch.select(rows))
            parts.append(_class(output.prediction) if model.spec.num_classes else _score(output))
    return torch.cat(parts)


def _score(output: Output) -> Tensor:
    return output.extras.get("for_mae", output.prediction).double().cpu()


def _class(logits: Tensor) -> Tensor:
    found = logits.argmax(dim=1).double()
    return found.masked_fill(~torch.isfinite(logits).all(dim=1), math.nan).cpu()


def learning_rate(optimisation: Optimisation, step: int, steps: int) -> float:
    """The rate of a step, counted from 0, of ``steps`` in all: constant, or a half cosine from the peak towards zero.

    >>> cosine = Optimisation(learning_rate=0.2, schedule="cosine")
    >>> [round(learning_rate(cosine, step, 4), 4) for step in (0, 2)]
    [0.2, 0.1]
    """
    if optimisation.schedule == "cosine":
        return optimisation.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
    return optimisation.learning_rate


@dataclass(eq=False)
class _Run:
    """All that changes while training."""

    job: Job
    train: Batch
    views: list[Batch]
    reference: Reference
    model: MSAModel
    optimizer: torch.optim.Optimizer
    shuffling: torch.Generator
    corruption: torch.Generator
    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_value: float = math.nan
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def start(cls, job: Job, train: Batch, valid: Batch) -> _Run:
        torch.manual_seed(job.seed)  # inside fork_rng: initial weights and dropout
        model = job.build()
        model.fit_statistics(train)
        model.to(job.device)
        train, valid = train.to(job.device), valid.to(job.device)
        reference = Reference.fit(train)
        return cls(
            job,
            train,
            job.recipe.views(valid, reference),
            reference,
            model,
            _optimizer(model, job.optimisation),
            _generator(job.seed, "shuffling", torch.device("cpu")),
            _generator(job.seed, "corruption", job.device),
        )

    def one_epoch(self) -> tuple[float, float]:
        """Train through all samples once and validate: the mean training loss, and the value that selects."""
        started = time.monotonic()
        loss = self._train()
        value = self._validate()
        self.epoch += 1
        if self._is_better(value):  # of equal epochs the first
            self.best_epoch, self.best_value = self.epoch, value
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.seconds += time.monotonic() - started
        return loss, value

    def _train(self) -> float:
        optimisation, n = self.job.optimisation, len(self.train)
        batches = torch.split(torch.randperm(n, generator=self.shuffling), optimisation.batch_size)
        first, steps = self.epoch * len(batches), optimisation.epochs * len(batches)
        rates = [learning_rate(optimisation, first + i, steps) for i in range(len(batches))]
        self.model.train()
        losses = []
        for rows, rate in zip(batches, rates, strict=True):
            batch = self.job.recipe.corrupt(self.train.select(rows), self.corruption, self.reference)
            losses.append(self._step(batch, rate))
        total = 0.0
        for rows, rate, value in zip(batches, rates, torch.stack(losses).tolist(), strict=True):  # a GPU waits once
            self._require_finite("training loss", value, rate)
            total += len(rows) * value
        return total / n

    def _step(self, batch: Batch, rate: float) -> Tensor:
        """The loss before the step, a scalar on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(batch)["total"]
        loss.backward()  # type: ignore[no-untyped-call]
        if self.job.optimisation.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job.optimisation.grad_clip)
        self.optimizer.step()
        return loss.detach()

    @property
    def criterion(self) -> Criterion:
        return criterion_of(self.model.spec)

    def _is_better(self, value: float) -> bool:
        if not self.best_epoch:
            return True
        return value > self.best_value if self.criterion.higher_is_better else value < self.best_value

    def _validate(self) -> float:
        """The criterion, averaged over the fixed views."""
        values = []
        for view in self.views:
            assert view.labels is not None
            values.append(self.criterion.value(view.labels.double().cpu(), predict(self.model, view)).item())
        value = sum(values) / len(values)
        self._require_finite(f"validation {self.criterion.name}", value, self.optimizer.param_groups[0]["lr"])
        return value

    def _require_finite(self, what: str, value: float, rate: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.model.name}: {what} is {value} in epoch {self.epoch + 1} at learning rate {rate:.3g}; "
                "lower learning_rate, or set grad_clip"
            )

    def save(self) -> None:
        with atomic.replacing(self.job.state) as file:
            torch.save(
                {
                    "identity": self.job.identity,
                    "device": self.job.device.type,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "random": _random_state(self.job.device),
                    "shuffling": self.shuffling.get_state(),
                    "corruption": self.corruption.get_state(),
                    "epoch": self.epoch,
                    "best_epoch": self.best_epoch,
                    "best_value": self.best_value,
                    "best": self.best,
                    "seconds": self.seconds,
                },
                file,
            )

    def restore(self) -> bool:
        """Continue where a state of this very job ends. False when there is none: the run starts from the beginning."""
        state = read_state(self.job.state)
        if state.get("identity") != self.job.identity or state.get("device") != self.job.device.type:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.shuffling.set_state(state["shuffling"])
        self.corruption.set_state(state["corruption"])
        for name in ("epoch", "best_epoch", "best_value", "seconds"):
            setattr(self, name, state[name])
        self.best = {name: tensor.to(self.job.device) for name, tensor in state["best"].items()}
        _set_random_state(self.job.device, state["random"])
        return True


def read_state(path: Path) -> dict[str, Any]:
    """What a state file holds, read without running anything in it; empty when there is none or it is broken."""
    if not path.is_file():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # any file may lie there; a training that starts over is never wrong
        return {}
    return state if isinstance(state, dict) else {}


def _optimizer(model: MSAModel, optimisation: Optimisation) -> torch.optim.Optimizer:
    kinds: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind = kinds[optimisation.optimizer]
    return kind(_groups(model, optimisation), lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay)


def _groups(model: MSAModel, optimisation: Optimisation) -> list[dict[str, Any]]:
    """All parameters; those of a text encoder that is fine-tuned have their share of the learning rate."""
    if not (isinstance(model, TokenTextModel) and model.config.text_finetune):
        return [{"params": list(model.parameters())}]
    peak = optimisation.learning_rate
    share = model.config.text_learning_rate / peak if peak else 0.0
    return [{"params": list(model.inner.parameters())}, {"params": list(model.encoder.parameters()), "share": share}]


def _generator(seed: int, purpose: str, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(key_of("training", seed, purpose) >> 1)  # within int64


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On CUDA: no TF32 and no convolution algorithm that adds in changing order; as it was afterwards."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
