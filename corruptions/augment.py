"""Corruption inside a training loop: fresh draws from a generator, on the batch's own device."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import torch

from corruptions.batch import Batch
from corruptions.draws import GeneratorDraws
from corruptions.grid import Point, canonical
from corruptions.reference import Reference
from corruptions.registry import Stress


@dataclass(frozen=True, eq=False)
class Augment:
    """One stress at a severity drawn anew for each batch, uniform on (0, high) for each of its axes.

    Args:
        stress: as people type it, parameters included.
        high: the greatest severity.
        reference: ``Reference.fit(train_batch)``. Without one, a stress that needs it takes each batch's own statistics
            (noisier, and not what the paper does).

    >>> import numpy as np
    >>> batch = Batch(text=np.ones((4, 6, 3)), audio=np.ones((4, 5, 2)), vision=np.ones((4, 5, 2)))
    >>> Augment("missing", high=0.8)(batch, torch.Generator().manual_seed(0)).present.any(1).all().item()
    True
    """

    stress: str
    high: float = 1.0
    reference: Reference | None = None

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch, corrupted. All randomness comes from the generator, on its device (the batch's, to stay there).

        Donors come from the batch itself. Raises InputError for an unknown stress or one without severities.
        """
        stress = Stress.parse(self.stress)
        point = Point(*(drawn_severity(generator, self.high) for _ in stress.axes))
        fit = self.reference
        if fit is None and stress.uses_reference:
            fit = Reference.fit(batch)
        return stress.apply(batch, point, GeneratorDraws(generator, batch), fit).batch


@dataclass(frozen=True, eq=False)
class SpectrumAugment(Augment):
    """QA-MoE's spectrum-aware training (3.5, A.1.1): lambda, eta ~ U(0, 1) per batch; noise, then missing."""

    stress: str = "spectrum"


def drawn_severity(generator: torch.Generator, high: float) -> str:
    """A severity ~ U(0, high) with three decimals: engine and reader see the same number."""
    u = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    return canonical(Decimal(f"{u.item() * high:.3f}"))
