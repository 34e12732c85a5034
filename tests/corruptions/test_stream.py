"""Corruption in runs of samples: the values of the whole, whatever the size of a run."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Draws, InputError, Reference, Stress, corrupt, stream
from corruptions.stressors import conflict


class Model:
    """A linear model: what a worst case is handed."""

    def losses(self, batch) -> torch.Tensor:  # type: ignore[no-untyped-def]
        return torch.stack([batch.features(m).flatten(1).sum(1) for m in MODALITIES]).sum(0)

    def gradients(self, batch):  # type: ignore[no-untyped-def]
        return {m: torch.ones_like(batch.features(m)) for m in MODALITIES if batch.features(m).is_floating_point()}


@pytest.mark.parametrize("size", [1, 5, 30, 1000])
def test_the_values_of_the_whole(make: ModuleType, stressed: tuple[str, str], size: int) -> None:
    for batch in (make.feature_batch(30, absent=0.2), make.token_batch(30, absent=0.2)):
        fit, model = Reference.fit(batch), Model()
        whole = corrupt(batch, *stressed, reference=fit, adversary=model)
        parts = list(stream(batch, *stressed, reference=fit, adversary=model, size=size))
        assert [len(part) for part in parts] == [min(size, 30 - start) for start in range(0, 30, size)]
        assert [i for part in parts for i in part.ids] == list(batch.ids)
        for part in parts:
            make.assert_same_samples(whole, part)


def test_draws_are_shared_between_severities(make: ModuleType) -> None:
    batch = make.feature_batch(20)
    fit, draws = Reference.fit(batch), Draws(1112, batch)
    for severity in ("0.2", "0.4"):
        whole = corrupt(batch, "noise", severity, seed=1112, reference=fit)
        for part in stream(batch, "noise", severity, reference=fit, draws=draws, size=7):
            make.assert_same_samples(whole, part)


def test_rows_share_memory_and_the_clean_point_copies_nothing(make: ModuleType) -> None:
    batch = make.feature_batch(10)
    part = batch.rows(slice(4, 8))
    assert part.ids == batch.ids[4:8]
    assert part.text.data_ptr() == batch.text[4:].data_ptr()
    make.assert_same_samples(batch, part)
    assert batch.rows(slice(0, 10)) is batch
    for clean in stream(batch, "noise", 0, size=5):
        assert clean.text.untyped_storage().data_ptr() == batch.text.untyped_storage().data_ptr()


def test_a_donor_is_chosen_once_for_all_severities(make: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, asked = make.feature_batch(40), []
    choose = conflict.choose_donors

    def counting(batch, hosts, *args):  # type: ignore[no-untyped-def]
        asked.extend(batch.ids[i] for i in hosts)
        return choose(batch, hosts, *args)

    monkeypatch.setattr(conflict, "choose_donors", counting)
    draws, stress = Draws(1111, batch), Stress.parse("conflict")
    found = {}
    for severity in ("0.25", "0.5", "1", "0.75"):
        (point,) = stress.grid(severity).points
        found[severity] = stress.apply(batch, point, draws).sources.donor
        fresh = stress.apply(batch, point, Draws(1111, batch)).sources.donor
        np.testing.assert_array_equal(found[severity], fresh)
    assert max(asked.count(i) for i in batch.ids) <= 5  # once here, and at most once in each of the four fresh runs
    other = batch.replace(labels=-batch.labels)  # other labels, other donors: nothing is remembered across
    (point,) = stress.grid("1").points
    np.testing.assert_array_equal(
        stress.apply(other, point, draws).sources.donor, stress.apply(other, point, Draws(1111, other)).sources.donor
    )


def test_a_size_that_is_none(make: ModuleType) -> None:
    with pytest.raises(InputError, match="expected size of 1 or more, got 0"):
        next(stream(make.feature_batch(3), size=0))
