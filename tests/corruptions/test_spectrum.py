"""spectrum: noise-lambda, then missing-random, with the same draws as the two alone."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Draws, Reference, Stress
from corruptions.grid import Point


def assert_equal(a: Batch, b: Batch) -> None:
    for m in MODALITIES:
        np.testing.assert_array_equal(a.features(m), b.features(m))
    np.testing.assert_array_equal(a.present, b.present)
    for name, d in a.derived.items():
        np.testing.assert_array_equal(d.values, b.derived[name].values)


@pytest.mark.parametrize("level", ["0", "0.3", "0.7", "1.5"])
@pytest.mark.parametrize("maker", ["feature_batch", "token_batch"])
def test_without_loss_it_is_noise_lambda(make: ModuleType, maker: str, level: str) -> None:
    batch = getattr(make, maker)(20, absent=0.1)
    spectrum, noise = (make.apply(batch, s, v) for s, v in (("spectrum", f"{level}x0"), ("noise-lambda", level)))
    assert_equal(spectrum.batch, noise.batch)
    assert not spectrum.sources.lost.any()


@pytest.mark.parametrize("eta", ["0", "0.3", "0.7", "1"])
@pytest.mark.parametrize("maker", ["feature_batch", "token_batch"])
@pytest.mark.parametrize("told", ["", ":told=true"])
def test_without_noise_it_is_missing_random(make: ModuleType, maker: str, eta: str, told: str) -> None:
    batch = getattr(make, maker)(20, absent=0.1)
    spectrum = make.apply(batch, f"spectrum{told}", f"0x{eta}")
    missing = make.apply(batch, f"missing-random{told}", eta)
    assert_equal(spectrum.batch, missing.batch)
    assert spectrum.features.batch is batch


@pytest.mark.parametrize("told", [False, True])
def test_inside_it_is_one_after_the_other(make: ModuleType, told: bool) -> None:
    batch = make.feature_batch(40, absent=0.1)
    both = make.apply(batch, f"spectrum:told={str(told).lower()}", "0.6x0.5")
    noise, missing = make.apply(batch, "noise-lambda", "0.6"), make.apply(batch, "missing-random", "0.5")
    lost = missing.sources.lost
    np.testing.assert_array_equal(both.sources.lost, lost)
    np.testing.assert_array_equal(both.batch.present, batch.present & ~lost if told else batch.present)
    for i, m in enumerate(MODALITIES):
        gone = batch.valid(m) & lost[:, i, None]
        expected = torch.where(gone[:, :, None], 0.0, noise.batch.features(m))
        np.testing.assert_array_equal(both.batch.features(m), expected)


def test_the_noise_is_encoded_once_per_level() -> None:
    stressor = Stress.parse("spectrum").stressor
    assert stressor.feature_point(Point("0.3", "0.5")) == stressor.feature_point(Point("0.3", "0.1"))
    assert stressor.feature_point(Point("0.3", "0.5")) != stressor.feature_point(Point("0.4", "0.5"))


def test_the_part_inside_features_depends_on_the_feature_point_alone(
    make: ModuleType, stressed: tuple[str, str]
) -> None:
    """What runners rely on to encode once: at equal feature points what was changed is equal."""
    batch = make.feature_batch(15)
    stress, fit, draws = Stress.parse(stressed[0]), Reference.fit(batch), Draws(1111, batch)
    changed: dict[tuple[Point, str], torch.Tensor] = {}
    for point in stress.grid().points:
        features = stress.apply(batch, point, draws, fit, adversary=make.Linear()).features.batch
        for m in MODALITIES:
            x = features.features(m)
            if x is not batch.features(m):
                np.testing.assert_array_equal(changed.setdefault((stress.stressor.feature_point(point), m), x), x)
        if not stress.stressor.touches_features:
            assert features is batch
    assert bool(changed) == stress.stressor.touches_features


def test_the_grid_of_table_9() -> None:
    grid = Stress.parse("spectrum").grid()
    assert grid.axes == (("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"),) * 2
    assert len(grid.points) == 64
