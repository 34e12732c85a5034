"""A model on trial: single passes of it over a probe of the data, and how far two ways to the same scores are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from corruptions import Batch, Draws, Stress
from robustbench_msa.evaluation.cells import FIRST_SEED, Cell, Subject, cell_at, clean_cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.preflight_probe import copied, probe
from robustbench_msa.evaluation.preflight_state import seed_all
from robustbench_msa.evaluation.runner import WholeModel
from robustbench_msa.models.contract import Encoded, MSAModel, Output

TOLERANCE = 1e-5
"""How far passes that should agree may be apart: this, or this many standard deviations of the predictions where that
is more."""
NOISE = 2.0
"""Of a model whose identical passes differ, a gap shows when it is more than so many standard errors."""
ALONE = 16
"""Samples of the probe that are passed one by one."""
PASSES = 8
"""Pairs of passes whose differences are averaged where identical passes differ."""
SEEDS = tuple(range(FIRST_SEED, FIRST_SEED + PASSES))
"""Of the global generators before each pass."""

BETWEEN = 1000
"""Between the seeds of two batches of one pass: else every batch would have the same noise."""

Pass = Callable[[int], Tensor]
"""Scores ``(N, k)`` from a seed of the global generators."""


@dataclass(frozen=True)
class Gap:
    """How far two tensors of N rows are apart, by the largest difference in each row.

    largest: of all rows, infinite where only one of the two is a number; rms: root mean square over rows; rows: how
    many are beyond the tolerance, of n. noise: the root mean square that the model's own noise would give.
    """

    largest: float
    rms: float
    rows: int
    n: int
    noise: float = 0.0

    @property
    def is_noise(self) -> bool:
        """Could it be the model's own noise?"""
        return self.rms <= NOISE * self.noise


class Trial:
    """A model and a probe of a split. Every pass gets a copy of its batch, so that none can spoil another's.

    Args:
        model: as it will be run. inputs: the split under stress.
        subject: who a WholeModel is told to be.
        covers: the stresses the model has an answer to.
        tolerance: see TOLERANCE.
    """

    def __init__(
        self,
        model: MSAModel | WholeModel,
        inputs: Inputs,
        subject: Subject | None = None,
        covers: Callable[[Stress], bool] = lambda stress: True,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.subject = subject or Subject("", 1, "")
        self.covers = covers
        self.batch = probe(inputs)
        self._tolerance = tolerance
        self._wholes: dict[int, Tensor] = {}

    def predict(self, batch: Batch, cell: Cell | None = None, seed: int = FIRST_SEED) -> Output:
        """One pass as a run makes it, on a copy. The global generators start from a seed: what they give is given."""
        return self.predict_on(copied(batch), cell, seed)

    def predict_on(self, batch: Batch, cell: Cell | None = None, seed: int = FIRST_SEED) -> Output:
        """The same on the batch itself."""
        seed_all(seed)
        with torch.inference_mode():
            if isinstance(self.model, MSAModel):  # a run calls the halves, not a model's own encode and forward
                return self.model.fuse(MSAModel.encode(self.model, batch), batch.present)
            return self.model.predict(batch, cell or clean_cell(self.subject, self.inputs.setting), self.inputs)

    def encode(self, model: MSAModel, batch: Batch) -> Encoded:
        """The encodings as a run makes them."""
        batch = copied(batch)
        seed_all(FIRST_SEED)
        with torch.inference_mode():
            return MSAModel.encode(model, batch)

    def forward(self, model: MSAModel, batch: Batch, seed: int = FIRST_SEED) -> Output:
        """The model's own forward pass, as in training."""
        batch = copied(batch)
        seed_all(seed)
        with torch.inference_mode():
            output: Output = model(batch)
            return output

    def under(self, text: str, severity: str) -> Output | None:
        """The pass over the probe under a stress; None where the model has no answer to that stress."""
        stress = Stress.parse(text)
        if not self.covers(stress):
            return None
        (point,) = (point for point in stress.grid(severity).points if not point.is_clean)
        draws = Draws(FIRST_SEED, self.batch)
        reference = self.inputs.reference.to(self.batch.device)
        batch = stress.apply(self.batch, point, draws, reference, self.batch).batch
        return self.predict(batch, cell_at(self.subject, self.inputs.setting, stress, point, FIRST_SEED))

    def in_batches(self, rows: Sequence[int], size: int, seed: int = FIRST_SEED) -> Tensor:
        """Scores of these samples of the probe, ``(len(rows), k)``, from batches of a size, each with its own seed."""
        starts = range(0, len(rows), size)
        outputs = [
            self.predict(self.batch.select(list(rows[start : start + size])), seed=seed + BETWEEN * i)
            for i, start in enumerate(starts)
        ]
        return torch.cat([scores(output) for output in outputs])

    @cached_property
    def first(self) -> Output:
        """The pass over the probe, as it is."""
        return self.predict(self.batch)

    @property
    def scores(self) -> Tensor:
        return self.whole(FIRST_SEED)

    def whole(self, seed: int) -> Tensor:
        """Scores of the probe in one batch."""
        if seed not in self._wholes:
            self._wholes[seed] = scores(self.first if seed == FIRST_SEED else self.predict(self.batch, seed=seed))
        return self._wholes[seed]

    @cached_property
    def alone(self) -> Gap:
        """Between the whole probe and batches of one, on samples over all of it."""
        n = len(self.batch)
        rows = sorted({round(i * (n - 1) / (ALONE - 1)) for i in range(ALONE)})
        return self.compare(lambda seed: self.whole(seed)[rows], lambda seed: self.in_batches(rows, 1, seed))

    @cached_property
    def noise(self) -> Gap:
        """Between identical passes, two from the same state of the global generators and one from another."""
        again, other = (scores(self.predict(self.batch, seed=seed)) for seed in SEEDS[:2])
        return max(self.gap(self.scores, again), self.gap(self.scores, other), key=lambda gap: gap.largest)

    @property
    def is_noisy(self) -> bool:
        return self.noise.largest > self.tolerance

    @cached_property
    def std(self) -> float:
        """Standard deviation of the predictions over the probe; 0 where none is finite."""
        values = self.first.prediction.detach().double()
        values = values[torch.isfinite(values)]
        return float(values.std(correction=0)) if len(values) else 0.0

    @property
    def tolerance(self) -> float:
        return self._tolerance * max(1.0, self.std)

    def gap(self, a: Tensor, b: Tensor) -> Gap:
        """Between two tensors of one shape. NaN and NaN, or twice the same infinity, are no difference."""
        a, b = (x.detach().double().reshape(len(x), -1) for x in (a, b))
        no_difference = (a == b) | (a.isnan() & b.isnan())
        apart = (a - b).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(no_difference, 0.0)
        if apart.numel() == 0:
            return Gap(0.0, 0.0, 0, len(a))
        rows = apart.amax(dim=1)
        rms = float(rows.square().mean().sqrt())
        return Gap(float(rows.max()), rms, int((rows > self.tolerance).sum()), len(rows))

    def compare(self, one: Pass, other: Pass) -> Gap:
        """Between two ways to the same scores from the same seed.

        Of a model whose identical passes differ, where these do too: the mean difference over PASSES pairs of passes,
        with what its standard error would give.
        """
        gap = self.gap(one(FIRST_SEED), other(FIRST_SEED))
        if gap.largest <= self.tolerance or not self.is_noisy:
            return gap
        pairs = torch.stack([one(seed) - other(seed) for seed in SEEDS])  # (PASSES, N, k)
        error = (pairs.std(dim=0) / PASSES**0.5).amax(dim=1)
        mean = pairs.mean(dim=0)
        return replace(self.gap(mean, torch.zeros_like(mean)), noise=float(error.square().mean().sqrt()))

    def compare_batches(self, one: Batch, other: Batch) -> Gap:
        """Between the scores of two batches of the same samples."""
        return self.compare(
            lambda seed: scores(self.predict(one, seed=seed)), lambda seed: scores(self.predict(other, seed=seed))
        )


def scores(output: Output) -> Tensor:
    """All that is scored, ``(N, k)`` float64 on the CPU: the prediction, and what stands in for it by metric."""
    parts = [output.prediction, *(x for name, x in sorted(output.extras.items()) if name.startswith("for_"))]
    return torch.cat([part.detach().double().cpu().reshape(len(part), -1) for part in parts], dim=1)
