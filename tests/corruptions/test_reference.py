"""Reference: population statistics over the valid steps of what is there, and nothing else."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from corruptions import MODALITIES, Reference


def test_fit_is_numpy_over_valid_steps_of_what_is_there(make: ModuleType) -> None:
    batch = make.feature_batch(30, absent=0.3)
    fit = Reference.fit(batch)
    for i, m in enumerate(MODALITIES):
        x, lengths = batch.features(m).numpy().astype(np.float64), batch.lengths(m).tolist()
        steps = np.concatenate([x[j, : lengths[j]] for j in range(30) if batch.present[j, i]])
        np.testing.assert_allclose(fit.mean[m], steps.mean(0), rtol=1e-6)
        np.testing.assert_allclose(fit.sigma[m], steps.std(0), rtol=1e-6)


def test_padding_changes_no_bit(make: ModuleType) -> None:
    batch = make.feature_batch(30, absent=0.3)
    fit, same = Reference.fit(batch), Reference.fit(make.padded(batch, 4, junk=float("nan")))
    assert fit.fingerprint == same.fingerprint
    for m in MODALITIES:
        np.testing.assert_array_equal(fit.sigma[m], same.sigma[m])


def test_the_fingerprint_sees_every_value(make: ModuleType) -> None:
    fit = Reference.fit(make.feature_batch(30))
    prints = {fit.fingerprint}
    for m in MODALITIES:
        prints.add(Reference({**fit.sigma, m: fit.sigma[m] * 2}, fit.mean).fingerprint)
        prints.add(Reference(fit.sigma, {**fit.mean, m: fit.mean[m] + 1}).fingerprint)
    assert len(prints) == 7


def test_token_ids_have_no_statistics(make: ModuleType) -> None:
    assert set(Reference.fit(make.token_batch(5)).sigma) == {"audio", "vision"}


def test_what_is_never_there_has_no_noise(make: ModuleType) -> None:
    batch = make.feature_batch(5)
    fit = Reference.fit(batch.replace(present=np.array([[True, True, False]] * 5)))
    np.testing.assert_array_equal(fit.sigma["vision"], np.zeros(4))
    np.testing.assert_array_equal(fit.mean["vision"], np.zeros(4))
