"""What was really done to an input: realised rates, and a digest that two groups can compare."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch
from corruptions.corruption import Corruption, maskable
from corruptions.draws import Draws
from corruptions.grid import Point
from corruptions.keyed_random import key_of
from corruptions.reference import Reference
from corruptions.registry import Stress

PROBE = 64
LETTER = dict(zip(MODALITIES, "tav", strict=True))


def realised(corruption: Corruption) -> dict[str, float | None]:
    """Realised rates of a corruption over its batch, per modality (t, a, v).

    absent: share of samples that lack the modality by nature; lost: share of available ones whose modality the stress
    took; swapped: share swapped with a donor; steps: share of maskable steps of available modalities lost, alone or
    with their modality; noise_db: noise power over signal power on the surviving steps (None: no noise). hosts:
    share of samples with a donor; skipped and unable: counts of hosts and of donors that lack a modality to be swapped.
    """
    clean, sources = corruption.clean, corruption.sources
    facts: dict[str, float | None] = {}
    for i, modality in enumerate(MODALITIES):
        letter, available = LETTER[modality], clean.present[:, i]
        n = max(1, int(available.sum()))
        steps = maskable(clean, modality) & available[:, None]
        gone = corruption.features.lost.get(modality, torch.zeros_like(steps)) & steps
        gone = gone | (steps & sources.lost[:, i, None])
        facts[f"absent_{letter}"] = 1.0 - _share(available)
        facts[f"lost_{letter}"] = float((sources.lost[:, i] & available).sum()) / n
        facts[f"swapped_{letter}"] = float((sources.donor[:, i] >= 0).sum()) / n
        facts[f"steps_{letter}"] = float(gone.sum()) / max(1, int(steps.sum()))
        facts[f"noise_db_{letter}"] = _noise_db(corruption, modality, steps & ~gone)
    facts["hosts"] = _share((sources.donor >= 0).any(1))
    facts["skipped"], facts["unable"] = float(sources.skipped), float(sources.unable)
    return facts


def _share(mask: Tensor) -> float:
    return float(mask.to(torch.float64).mean()) if len(mask) else 0.0


def _noise_db(corruption: Corruption, modality: str, steps: Tensor) -> float | None:
    x, noisy = corruption.clean.features(modality), corruption.features.batch.features(modality)
    if x is noisy or not x.is_floating_point():
        return None
    noise = (noisy[steps] - x[steps]).square().sum(dtype=torch.float64)
    signal = x[steps].square().sum(dtype=torch.float64)
    if float(noise) == 0 or float(signal) == 0:
        return None
    return float(10 * torch.log10(noise / signal))


def probe_of(batch: Batch) -> Batch:
    """The fixed 64 samples (chosen by id) whose corrupted values enter the digest, on the CPU."""
    order = sorted(range(len(batch)), key=lambda i: (key_of("probe", batch.ids[i]), batch.ids[i]))
    return batch.select(order[:PROBE]).to("cpu")


def input_digest(
    data: str,
    stress: Stress,
    point: Point,
    seed: int | None,
    corruption: Corruption,
    pool: str,
    reference: Reference | None,
    probe: tuple[Batch, Draws] | None = None,
) -> str:
    """sha256 (hex) of a cell's input, the same for every model, device, batch size and order of samples.

    Over: the data's fingerprint, the stressor's name, version and parameters, pool, reference, severity, seed, all
    masks, patterns and donors, and the corrupted values of a fixed probe of 64 samples computed on the CPU.
    ``probe``: ``probe_of(batch)`` and its draws, for a caller that makes many digests from one seed.
    """
    stressor = stress.stressor
    fitted = reference.fingerprint if reference is not None and stress.uses_reference else ""
    drawn = None if seed is None else int(seed)
    identity = (data, stress.name, stressor.version, stress.options, pool, fitted, point, drawn)
    digest = hashlib.sha256(repr(("msabench input 1", *identity)).encode())
    clean = corruption.clean
    order = torch.tensor(sorted(range(len(clean)), key=clean.ids.__getitem__), device=clean.device)
    for modality in MODALITIES:
        if modality in corruption.features.lost:
            _add(digest, _unpadded(corruption.features.lost[modality][order], clean.lengths(modality)[order]))
    _add(digest, corruption.sources.lost[order])
    _add(digest, corruption.present[order])
    donor = corruption.sources.donor[order].cpu()
    donors = clean if corruption.pool is None else corruption.pool
    digest.update("\0".join("" if j < 0 else donors.ids[j] for j in donor.flatten().tolist()).encode())
    part = probe_of(clean) if probe is None else probe[0]
    draws = Draws(seed or 0, part) if probe is None else probe[1]
    pool_batch = donors.to("cpu") if stressor.uses_pool else None
    fit = None if reference is None else reference.to("cpu")
    values = stress.apply(part, point, draws, fit, pool_batch).batch
    for modality in MODALITIES:
        _add(digest, values.lengths(modality))
        _add(digest, values.features(modality)[values.valid(modality)])
    return digest.hexdigest()


def _unpadded(mask: Tensor, lengths: Tensor) -> Tensor:
    """The mask's valid steps as one row, so that padding to another length changes nothing."""
    steps = torch.arange(mask.shape[1], device=mask.device)
    return mask[steps[None, :] < lengths[:, None]]


def _add(digest: hashlib._Hash, values: Tensor) -> None:
    digest.update(np.ascontiguousarray(values.cpu().numpy()).tobytes())
