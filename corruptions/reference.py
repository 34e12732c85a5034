"""What a stressor must know of the data: per-feature means and standard deviations of the training split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch
from corruptions.memory import room


@dataclass(frozen=True, eq=False)
class Reference:
    """sigma_ref and means, one ``(d_m,)`` float32 tensor per modality (token-id text has none)."""

    sigma: Mapping[str, Tensor]
    mean: Mapping[str, Tensor]

    @classmethod
    def fit(cls, train: Batch) -> Reference:
        """Statistics over the valid steps of available modalities of the training split (population sd, float64).

        ``train`` may be mapped from a file that memory does not hold: its features are then read a few at a time.
        """
        sigma, mean = {}, {}
        for i, modality in enumerate(MODALITIES):
            x = train.features(modality)
            if not x.is_floating_point():
                continue
            valid = train.valid(modality) & train.present[:, i, None]
            found = [_statistics(_steps(x, valid, part)) for part in _columns(x, int(valid.sum()))]
            mean[modality], sigma[modality] = (torch.cat(values) for values in zip(*found, strict=True))
        return cls(sigma, mean)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the values; part of the identity of every cell whose stressor uses them."""
        digest = hashlib.sha256(b"msabench reference 1")
        for values in (self.sigma, self.mean):
            for modality in MODALITIES:
                if modality in values:
                    digest.update(modality.encode())
                    digest.update(np.ascontiguousarray(values[modality].cpu().numpy()).tobytes())
        return digest.hexdigest()

    def noise_sigma(self, modality: str, scope: str) -> Tensor:
        """sigma_ref as ``(d_m,)``: per feature, or one value per modality (root mean square over features)."""
        sigma = self.sigma[modality]
        return sigma if scope == "feature" else sigma.square().mean().sqrt().expand_as(sigma)

    def to(self, device: torch.device | str) -> Reference:
        return Reference(
            {m: x.to(device) for m, x in self.sigma.items()}, {m: x.to(device) for m, x in self.mean.items()}
        )


COLUMNS_BYTES = 1 << 30  # of float64 values looked at at once, at most a quarter of what there is room for
_ALIKE = 64  # torch adds up columns side by side, so many of them that a last few cannot be added up in another order


def _columns(x: Tensor, steps: int) -> list[slice]:
    """Runs of features. Each feature's sum is taken in one go, over all steps: sums of sums would end in other bits."""
    width = max(1, min(COLUMNS_BYTES, room() // 4) // (8 * max(1, steps)) // _ALIKE) * _ALIKE
    return [slice(start, start + width) for start in range(0, max(1, x.shape[2]), width)]


def _steps(x: Tensor, valid: Tensor, part: slice) -> Tensor:
    """The valid steps ``(steps, columns)`` of some features, float64; one step of zeros where there is none."""
    count, columns = int(valid.sum()), x[..., part]
    steps = torch.zeros(max(1, count), columns.shape[2], dtype=torch.float64, device=x.device)
    at = 0
    for start in range(0, len(x), 64):
        rows = slice(start, start + 64)
        some = columns[rows][valid[rows]]
        steps[at : at + len(some)] = some
        at += len(some)
    return steps


def _statistics(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation by column, float32."""
    return steps.mean(0).to(torch.float32), steps.std(0, correction=0).to(torch.float32)
