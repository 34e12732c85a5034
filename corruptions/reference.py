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


@dataclass(frozen=True, eq=False)
class Reference:
    """sigma_ref and means, one ``(d_m,)`` float32 tensor per modality (token-id text has none)."""

    sigma: Mapping[str, Tensor]
    mean: Mapping[str, Tensor]

    @classmethod
    def fit(cls, train: Batch) -> Reference:
        """Statistics over the valid steps of available modalities of the training split (population sd, float64)."""
        sigma, mean = {}, {}
        for i, modality in enumerate(MODALITIES):
            x = train.features(modality)
            if not x.is_floating_point():
                continue
            steps = x[train.valid(modality) & train.present[:, i, None]].to(torch.float64)  # (steps, d_m)
            if not len(steps):
                steps = torch.zeros(1, x.shape[2], dtype=torch.float64, device=x.device)
            mean[modality] = steps.mean(0).to(torch.float32)
            sigma[modality] = steps.std(0, correction=0).to(torch.float32)
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
