"""Recipes: what a batch meets in training, and the views that select."""

import numpy as np
import pytest
import torch

from corruptions import Batch, InputError, Reference, corrupt
from robustbench_msa.training.recipes import parse_recipe

N = 3000


@pytest.fixture(scope="module")
def batch():
    x = {
        m: torch.randn(N, 4, d, generator=torch.Generator().manual_seed(d)) for m, d in zip(TAV, (5, 3, 2), strict=True)
    }
    return Batch(**x, labels=torch.linspace(-3, 3, N))


TAV = ("text", "audio", "vision")


@pytest.fixture(scope="module")
def reference(batch):
    return Reference.fit(batch)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lost(batch):
    """``(N, 3)`` bool: modalities that are all zero."""
    return torch.stack([(batch.features(m) == 0).all(2).all(1) for m in TAV], 1).numpy()


def test_clean_is_the_batch_itself(batch):
    recipe = parse_recipe("clean")
    assert recipe.corrupt(batch, generator(), None) is batch
    assert recipe.views(batch, None) == [batch]
    assert recipe.selection() == "MAE on the clean split"
    assert recipe.selection("accuracy") == "accuracy on the clean split"


def drawn(text, count=4000):
    recipe, source = parse_recipe(text), generator(1)
    return np.array([[float(v) for v in recipe.draw(source).values] for _ in range(count)])


def test_the_spectrum_draws_both_severities_uniformly_and_apart():
    values = drawn("spectrum")
    assert values.shape == (4000, 2)
    np.testing.assert_allclose(values, np.round(values, 3), atol=1e-12)  # decimals
    np.testing.assert_allclose(values.mean(0), 0.5, atol=4 * 0.2887 / np.sqrt(4000))
    np.testing.assert_allclose(values.std(0), 1 / np.sqrt(12), atol=0.01)
    assert (values.min(), values.max()) >= (0, 0.99)
    assert values.max() <= 1
    assert abs(np.corrcoef(values.T)[0, 1]) < 4 / np.sqrt(4000)


def test_modality_dropout_draws_up_to_its_maximum():
    values = drawn("modality-dropout")
    np.testing.assert_allclose(values.mean(), 0.4, atol=4 * 0.231 / np.sqrt(4000))
    assert 0.79 < values.max() <= 0.8


def test_a_spectrum_batch_has_one_noise_level_and_one_missing_rate_untold(batch, reference):
    recipe = parse_recipe("spectrum")
    for seed in range(5):
        level, rate = (float(v) for v in recipe.draw(generator(seed)).values)
        corrupted = recipe.corrupt(batch, generator(seed), reference)
        gone = lost(corrupted)
        spread = 4 * np.sqrt(rate * (1 - rate) / N)
        np.testing.assert_allclose(gone[:, 1:].mean(0), rate, atol=spread)  # text may also lose all of its tokens
        added = (corrupted.audio - batch.audio)[~gone[:, 1]] / reference.sigma["audio"]
        np.testing.assert_allclose(added.std().item(), level, rtol=0.05)
        kept = corrupted.text[~gone[:, 0]]
        if level < 0.9:  # tokens lost, given that at least one of four stays
            expected = (level - level**4) / (1 - level**4)
            np.testing.assert_allclose((kept == 0).all(2).float().mean().item(), expected, atol=0.03)
        assert corrupted.present.all()


def test_modality_dropout_tells_and_leaves_one(batch):
    recipe = parse_recipe("modality-dropout")
    for seed in range(5):
        m = float(recipe.draw(generator(seed)).values[0])
        corrupted = recipe.corrupt(batch, generator(seed), None)
        gone = lost(corrupted)
        np.testing.assert_array_equal(corrupted.present.numpy(), ~gone)
        assert corrupted.present.any(1).all()
        rate = (m - m**3) / (1 - m**3)  # PROTOCOLS: the real rate of a modality
        np.testing.assert_allclose(gone.mean(0), rate, atol=4 * np.sqrt(rate * (1 - rate) / N) + 1e-9)


def test_a_fixed_recipe_keeps_its_severity(batch):
    recipe, source = parse_recipe("missing-random:0.3"), generator()
    batches = [recipe.corrupt(batch, source, None) for _ in range(3)]
    for corrupted in batches:
        np.testing.assert_allclose(lost(corrupted).mean(0), 0.3, atol=4 * np.sqrt(0.21 / N))
        assert corrupted.present.all()
    assert not np.array_equal(lost(batches[0]), lost(batches[1]))  # fresh draws in every batch
    assert parse_recipe("missing-random:told=true:0.3").corrupt(batch, source, None).present.all().item() is False


@pytest.mark.parametrize("text", ["spectrum", "modality-dropout", "noise:0.2", "conflict:0.5"])
def test_the_same_generator_gives_the_same_batch(batch, reference, text):
    few = batch.select(range(40))
    one, two, other = (parse_recipe(text).corrupt(few, generator(seed), reference) for seed in (3, 3, 4))
    for m in TAV:
        np.testing.assert_array_equal(one.features(m), two.features(m))
    assert any(not torch.equal(one.features(m), other.features(m)) for m in TAV)


@pytest.mark.parametrize(
    ("text", "stress", "severities"),
    [
        ("spectrum", "spectrum", [(a, b) for a in ("0", "0.35", "0.7") for b in ("0", "0.35", "0.7")]),
        ("modality-dropout", "missing", ["0", "0.4"]),
        ("missing-random:0.3", "missing-random", ["0", "0.3"]),
        ("missing-fixed:t+v", "missing-fixed", ["t+a+v", "t+v"]),
        ("spectrum:0.2x0.5", "spectrum", [("0", "0"), ("0.2", "0.5")]),
    ],
)
def test_views_are_the_stress_at_fixed_points_with_keyed_draws(batch, reference, text, stress, severities):
    valid, recipe = batch.select(range(50)), parse_recipe(text)
    views = recipe.views(valid, reference)
    assert len(views) == len(severities)
    assert views[0].audio is valid.audio  # the clean split is one of them
    for view, severity in zip(views, severities, strict=True):
        expected = corrupt(valid, stress, severity, seed=0, reference=reference)
        for m in TAV:
            np.testing.assert_array_equal(view.features(m), expected.features(m))
        np.testing.assert_array_equal(view.present, expected.present)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" clean ", "clean"),
        ("missing-random:0.30", "missing-random:0.3"),
        ("missing-random:told=false:.3", "missing-random:0.3"),
        ("noise:fill=mean,sigma_ref=modality:0.2", "noise:fill=mean,sigma_ref=modality:0.2"),
        ("missing-fixed:v+t", "missing-fixed:t+v"),
        ("spectrum:0.2x0.50", "spectrum:0.2x0.5"),
    ],
)
def test_one_recipe_has_one_name(text, name):
    assert parse_recipe(text).name == name
    assert parse_recipe(name).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "spectral",
            r"unknown recipe 'spectral' \(did you mean 'spectrum'\?\); known: clean, spectrum, modality-dropout, or",
        ),
        ("mising:0.3", r"did you mean 'missing'"),
        ("", "unknown recipe ''"),
        ("clean:0.3", "unknown recipe 'clean:0.3'"),
        ("missing", "expected a severity after the stress, as in missing:0.3"),
        ("missing-random:told=true", "as in missing-random:told=true:0.3"),
        ("missing:0", "the recipe is called clean"),
        ("missing-fixed:t+a+v", "the recipe is called clean"),
        ("missing:0:0.8:0.2", "expected key=value"),
        ("missing:0.1,0.2", "expected one severity, got 2; train one checkpoint for each"),
        ("missing:1", r"outside the stressor's range"),
        ("missing:nan", "not a severity"),
        ("missing:colour=red:0.2", "unknown parameter 'colour'"),
    ],
)
def test_what_is_no_recipe_is_said_in_a_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(text)
    assert "\n" not in str(caught.value)


def test_a_recipe_with_noise_needs_the_training_statistics(batch):
    with pytest.raises(InputError, match="Reference"):
        parse_recipe("noise:0.2").corrupt(batch, generator(), None)
