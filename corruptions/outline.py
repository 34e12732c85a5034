"""A corruption made block by block, without its values: who was changed, what was lost, by how much.

Values that were changed are handed on block by block and not kept. In their place stand tensors of the same shape that
take no memory (one NaN, expanded): whoever looks at them gets nothing that could pass for a value. All else is there in
full, so that realised rates, digests and what models are told are those of the whole corruption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from corruptions.batch import LETTERS, MODALITIES, Batch, Derived
from corruptions.corruption import Corruption, Features, Sources
from corruptions.measure import powers

_FIELDS = (*MODALITIES, *(f"{m}_lengths" for m in MODALITIES), "present")


class Block(NamedTuple):
    """What is kept of one block: ``batches`` before and after each half of each stage, and the stages themselves."""

    batches: tuple[Batch, ...]
    stages: tuple[Corruption, ...]


def outline(corruption: Corruption, measured: str = "tav") -> Block:
    """One block without its values.

    measured: letters of the modalities that the stress can change: of these ``realised`` tells noise from signal.
    """
    found: list[Batch] = []
    stages: list[Corruption] = []
    last: Batch | None = None
    for stage in corruption.stages:
        for batch in (stage.clean, stage.features.batch):
            found.append(batch if last is None else _emptied(batch, last, found[-1]))
            last = batch
        features = Features(found[-1], stage.features.lost, stage.features.altered)
        letters = [m for letter, m in LETTERS.items() if letter in measured]
        features.powers.update({m: powers(stage, m) for m in letters if stage.clean.features(m).is_floating_point()})
        bare = Corruption(found[-2], features, stage.sources, stage.told, stage.fill, stage.pool, stage.reference)
        stages.append(bare)
    if "batch" in corruption.__dict__:  # somebody needed it: the stress that follows will
        assert last is not None
        found.append(_emptied(corruption.batch, last, found[-1]))
    return Block(tuple(found), tuple(stages))


def _emptied(batch: Batch, before: Batch, known: Batch) -> Batch:
    """``known``, what is left of ``before``, changed as ``batch`` was; what is the same object there stays it here."""
    changes = {name: getattr(batch, name) for name in _FIELDS if getattr(batch, name) is not getattr(before, name)}
    changes |= {m: stand_in(x) for m, x in changes.items() if m in MODALITIES and x.is_floating_point()}
    derived = {} if batch.derived is before.derived else {"derived": batch.derived}
    return known.replace(**changes, **derived) if changes or derived else known


def stand_in(x: Tensor, n: int | None = None) -> Tensor:
    """NaN in the shape of ``x``, or of ``n`` such samples."""
    shape = (len(x) if n is None else n, *x.shape[1:])
    return torch.full((), torch.nan, dtype=x.dtype, device=x.device).expand(shape)


def joined(blocks: Sequence[Block], clean: Batch) -> Corruption:
    """The corruption of all samples, in the order of blocks; clean: the batch that they are the rows of."""
    current, corruption = clean, None
    batches = list(zip(*(block.batches for block in blocks), strict=True))
    for i, stages in enumerate(zip(*(block.stages for block in blocks), strict=True)):
        if i:
            current = _joined_batch(current, batches[2 * i - 1], batches[2 * i])
        inner = _joined_batch(current, batches[2 * i], batches[2 * i + 1])
        one, features = stages[0], _joined_features(inner, [stage.features for stage in stages])
        sources = _joined_sources([stage.sources for stage in stages])
        corruption = Corruption(current, features, sources, one.told, one.fill, one.pool, one.reference, corruption)
        current = inner
    assert corruption is not None
    if len(batches) > 2 * len(blocks[0].stages):
        corruption.__dict__["batch"] = _joined_batch(current, batches[-2], batches[-1])
    return corruption


def _joined_batch(whole: Batch, before: Sequence[Batch], after: Sequence[Batch]) -> Batch:
    """The whole batch, where any block was changed as the blocks were."""
    changes = {}
    for name in _FIELDS:
        if any(getattr(a, name) is not getattr(b, name) for a, b in zip(after, before, strict=True)):
            values = [getattr(batch, name) for batch in after]
            empty = name in MODALITIES and values[0].is_floating_point()
            changes[name] = stand_in(values[0], len(whole)) if empty else torch.cat(values)
    if all(a.derived is b.derived for a, b in zip(after, before, strict=True)):
        return whole.replace(**changes) if changes else whole
    return whole.replace(**changes, derived=_joined_derived([batch.derived for batch in after]))


def _joined_derived(blocks: Sequence[Mapping[str, Derived]]) -> Mapping[str, Derived]:
    return {name: Derived(torch.cat([b[name].values for b in blocks]), d.sources) for name, d in blocks[0].items()}


def _joined_features(batch: Batch, blocks: Sequence[Features]) -> Features:
    lost, altered = (
        {m: torch.cat([getattr(block, name)[m] for block in blocks]) for m in getattr(blocks[0], name)}
        for name in ("lost", "altered")
    )
    features = Features(batch, lost, altered)
    for m in blocks[0].powers:
        noise, signal = zip(*(block.powers[m] for block in blocks), strict=True)
        features.powers[m] = (torch.cat(noise), torch.cat(signal))
    return features


def _joined_sources(blocks: Sequence[Sources]) -> Sources:
    return Sources(
        torch.cat([block.lost for block in blocks]),
        torch.cat([block.donor for block in blocks]),
        sum(block.skipped for block in blocks),
        max(block.unable for block in blocks),
    )
