"""Draws are keyed by (seed, sample id, modality, purpose): never by position, padding, batch or device."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import MODALITIES, Draws, GeneratorDraws, Reference, Stress
from corruptions.keyed_random import key_of, normals, uniforms


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(7)), size=st.integers(0, 7), seed=st.integers(0, 2**40))
def test_a_sample_has_its_own_draws(make: ModuleType, order: list[int], size: int, seed: int) -> None:
    batch, rows = make.feature_batch(7), order[:size]
    full, part = Draws(seed, batch), Draws(seed, batch.select(rows))
    np.testing.assert_array_equal(full.uniform("swap")[rows], part.uniform("swap"))
    for m in MODALITIES:
        np.testing.assert_array_equal(full.uniform("drop", m)[rows], part.uniform("drop", m))
        np.testing.assert_array_equal(full.steps("mask", m)[rows], part.steps("mask", m))
        np.testing.assert_array_equal(full.normal("noise", m)[rows], part.normal("noise", m))
    ids = ["x", *batch.ids]
    np.testing.assert_array_equal(full.pairs("donor", rows, ids), part.pairs("donor", list(range(size)), ids))


def test_a_longer_padding_keeps_the_draws_of_a_step(make: ModuleType) -> None:
    batch = make.feature_batch(5)
    short, long = Draws(1111, batch), Draws(1111, make.padded(batch, 3))
    for m in MODALITIES:
        steps = batch.features(m).shape[1]
        np.testing.assert_array_equal(short.steps("mask", m), long.steps("mask", m)[:, :steps])
        np.testing.assert_array_equal(short.normal("noise", m), long.normal("noise", m)[:, :steps])


def test_the_key_is_seed_id_modality_purpose(make: ModuleType) -> None:
    batch = make.feature_batch(3)
    draws = Draws(1112, batch)
    keys = np.array([key_of(1112, i, "audio", "noise") for i in batch.ids], dtype=np.uint64)
    np.testing.assert_array_equal(draws.normal("noise", "audio"), normals(keys, 7 * 2).reshape(3, 7, 2))
    np.testing.assert_array_equal(draws.steps("noise", "audio"), uniforms(keys, 7))
    np.testing.assert_array_equal(draws.uniform("noise", "audio"), uniforms(keys, 1)[:, 0])


def test_seeds_purposes_modalities_and_ids_are_independent(make: ModuleType) -> None:
    batch = make.wide(20_000)
    one, two = Draws(1111, batch), Draws(1112, batch)
    draws = [
        *(one.uniform("drop", m) for m in MODALITIES),
        *(one.uniform("order", m) for m in MODALITIES),
        one.uniform("count"),
        one.uniform("swap"),
        two.uniform("swap"),
        two.uniform("drop", "text"),
        one.uniform("drop", "text").roll(1),
    ]
    correlation = np.corrcoef(np.stack([u.numpy() for u in draws]))
    off_diagonal = np.abs(correlation - np.eye(len(draws))).max()
    assert off_diagonal < 4 / np.sqrt(len(batch))  # 55 pairs: four standard errors


def test_pairs_are_keyed_by_both_ids_and_uniform(make: ModuleType) -> None:
    batch = make.feature_batch(60)
    donors = [f"donor{i}" for i in range(500)]
    pairs = Draws(1111, batch).pairs("donor", list(range(60)), donors)
    assert pairs.shape == (60, 500)
    np.testing.assert_array_equal(Draws(1111, batch).pairs("donor", [7], donors[::-1])[0], pairs[7, ::-1])
    np.testing.assert_array_equal(Draws(1111, batch.select([7])).pairs("donor", [0], ["donor9"]), pairs[7:8, 9:10])
    assert len(np.unique(pairs)) == pairs.size
    assert abs(pairs.mean() - 0.5) < 3 * np.sqrt(1 / 12 / pairs.size)
    assert abs((pairs**2).mean() - 1 / 3) < 3 * np.sqrt(4 / 45 / pairs.size)
    for a, b in ((pairs[1:], pairs[:-1]), (pairs[:, 1:], pairs[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 3 / np.sqrt(a.size)


def test_a_draw_is_made_once(make: ModuleType) -> None:
    draws = Draws(1111, make.feature_batch(3))
    assert draws.normal("noise", "audio") is draws.normal("noise", "audio")
    assert draws.uniform("swap").dtype == torch.float64
    assert draws.normal("noise", "audio").dtype == torch.float32


def test_generator_draws_are_fresh_and_repeat_with_the_generator(make: ModuleType) -> None:
    batch = make.feature_batch(4)

    def once(generator: torch.Generator) -> list[torch.Tensor]:
        draws = GeneratorDraws(generator, batch)
        return [draws.uniform("swap"), draws.steps("mask", "audio"), draws.normal("noise", "audio")]

    generator = torch.Generator().manual_seed(3)
    first, second = once(generator), once(generator)
    again = once(torch.Generator().manual_seed(3))
    keyed = Draws(3, batch)
    shapes = [keyed.uniform("swap"), keyed.steps("mask", "audio"), keyed.normal("noise", "audio")]
    for a, b, c, k in zip(first, second, again, shapes, strict=True):
        assert a.shape == k.shape
        assert a.dtype == k.dtype
        np.testing.assert_array_equal(a, c)
        assert not torch.equal(a, b)


def test_every_stressor_takes_generator_draws(make: ModuleType, stressed: tuple[str, str]) -> None:
    batch, generator = make.feature_batch(40), torch.Generator().manual_seed(1)
    stress = Stress.parse(stressed[0])
    (point,) = stress.grid(stressed[1]).points
    draws = GeneratorDraws(generator, batch)
    out = stress.apply(batch, point, draws, Reference.fit(batch), adversary=make.Linear()).batch
    assert out.ids == batch.ids
    assert any(not torch.equal(out.features(m), batch.features(m)) for m in MODALITIES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_draws_on_a_gpu_are_those_of_the_cpu(make: ModuleType) -> None:
    batch = make.feature_batch(5)
    here, there = Draws(1111, batch), Draws(1111, batch.to("cuda"))
    for m in MODALITIES:
        assert there.normal("noise", m).is_cuda
        np.testing.assert_array_equal(here.normal("noise", m), there.normal("noise", m).cpu())
        np.testing.assert_array_equal(here.steps("mask", m), there.steps("mask", m).cpu())
