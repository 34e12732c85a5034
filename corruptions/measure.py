"""What was really done to an input: realised rates, and a digest that two groups can compare."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch, energy
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
    with their modality; altered (where the stress does such things): share of them that hold the value of another step
    or sample; noise_db: noise power over signal power on the steps that are neither (None: no noise). hosts: share of
    samples with a donor; skipped and unable: counts of hosts and of donors that lack a modality to be swapped. Of a
    composition: what all its stresses did together.
    """
    stages = corruption.stages
    clean = stages[0].clean
    lost, donor = (torch.stack([getattr(s.sources, name) for s in stages]) for name in ("lost", "donor"))
    lost, swapped = lost.any(0), (donor >= 0).any(0)  # (N, 3)
    facts: dict[str, float | None] = {}
    for i, modality in enumerate(MODALITIES):
        letter, available = LETTER[modality], clean.present[:, i]
        n = max(1, int(available.sum()))
        steps = maskable(clean, modality) & available[:, None]
        total = max(1, int(steps.sum()))
        gone = steps & (_any([s.features.lost for s in stages], modality, steps) | lost[:, i, None])
        altered = steps & ~gone & _any([s.features.altered for s in stages], modality, steps)
        facts[f"absent_{letter}"] = 1.0 - _share(available)
        facts[f"lost_{letter}"] = float((lost[:, i] & available).sum()) / n
        facts[f"swapped_{letter}"] = float(swapped[:, i].sum()) / n
        facts[f"steps_{letter}"] = float(gone.sum()) / total
        if any(modality in s.features.altered for s in stages):
            facts[f"altered_{letter}"] = float(altered.sum()) / total
        facts[f"noise_db_{letter}"] = _noise_db(stages, modality, steps & ~gone & ~altered)
    facts["hosts"] = _share(swapped.any(1))
    facts["skipped"] = float(sum(s.sources.skipped for s in stages))
    facts["unable"] = float(max(s.sources.unable for s in stages))
    return facts


def _any(masks: list[Mapping[str, Tensor]], modality: str, like: Tensor) -> Tensor:
    """Where any of the stages says so, ``(N, T_m)``; a swap may have padded further, which is cut off."""
    found = torch.zeros_like(like)
    for mask in masks:
        if modality in mask:
            found = found | mask[modality][:, : like.shape[1]]
    return found


def _share(mask: Tensor) -> float:
    return float(mask.to(torch.float64).mean()) if len(mask) else 0.0


def _noise_db(stages: tuple[Corruption, ...], modality: str, steps: Tensor) -> float | None:
    """Power of what was added inside the modality, over the power of what it was added to, on these steps."""
    power = []
    for stage in stages:
        x, noisy = stage.clean.features(modality), stage.features.batch.features(modality)
        if x is noisy or not x.is_floating_point():
            continue
        there = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        there[:, : steps.shape[1]] = steps
        there &= stage.clean.valid(modality)  # a donor may be shorter than its host
        noise, signal = powers(stage, modality)
        power.append((float(noise[there].sum()), float(signal[there].sum())))
    if not power or power[0][1] == 0 or sum(noise for noise, _ in power) == 0:
        return None
    # rounded: how a sum over many values ends depends on the number of threads, and a record should not
    return round(10 * math.log10(sum(noise for noise, _ in power) / power[0][1]), 6)


def powers(stage: Corruption, modality: str) -> tuple[Tensor, Tensor]:
    """What was added to each step and what was there, as sums of squares: two ``(N, T_m)`` float64.

    Lost steps count as without noise where they are all that has changed. Measured once for all corruptions that share
    these features; a run of samples at a time, so that nothing of the features' own size is made.
    """
    known = stage.features.powers
    if modality not in known:
        x, noisy = stage.clean.features(modality), stage.features.batch.features(modality)
        signal = stage.clean.energy(modality)
        noise = torch.zeros_like(signal)
        if noisy is not x and modality not in stage.features.filled:
            parts = [slice(start, start + PROBE) for start in range(0, max(1, len(x)), PROBE)]
            noise = torch.cat([energy(noisy[part] - x[part]) for part in parts])
        known[modality] = (noise, signal)
    return known[modality]


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
    clean = corruption.stages[0].clean
    order = torch.tensor(sorted(range(len(clean)), key=clean.ids.__getitem__), device=clean.device)
    donors = clean if corruption.pool is None else corruption.pool
    for stage in corruption.stages:
        for masks in (stage.features.lost, stage.features.altered):
            for modality in MODALITIES:
                if modality in masks:
                    _add(digest, _unpadded(masks[modality][order], stage.clean.lengths(modality)[order]))
        _add(digest, stage.sources.lost[order])
        _add(digest, stage.present[order])
        donor = stage.sources.donor[order].cpu()
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
