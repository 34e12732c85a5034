"""synth-classes: synth's inputs, a score cut at its terciles, and the exact probabilities of the three classes."""

from __future__ import annotations

import numpy as np
import torch

from corruptions import MODALITIES
from robustbench_msa.data.oracle import Mixture, posterior
from robustbench_msa.data.synth import SynthModel, make_synth, true_factors
from robustbench_msa.data.synth_classes import class_probabilities, classes_of, cuts, make_synth_classes


def test_inputs_are_those_of_synth_and_labels_are_intervals_of_the_score() -> None:
    sizes = (40, 12, 25)
    ours, scores = make_synth_classes(7, sizes), make_synth(7, sizes)
    low, high = cuts()
    for split, batch in ours.splits.items():
        for m in MODALITIES:
            np.testing.assert_array_equal(batch.features(m), scores.splits[split].features(m))
            np.testing.assert_array_equal(batch.lengths(m), scores.splits[split].lengths(m))
        assert (batch.ids, batch.groups) == (scores.splits[split].ids, scores.splits[split].groups)
        y = 1.5 * true_factors(7, split, sizes)["y_star"]
        np.testing.assert_array_equal(batch.labels, (y >= low).astype(int) + (y >= high))
        assert batch.labels is not None
        assert batch.labels.dtype == torch.int64
    assert (ours.profile, ours.classes) == ("classification", ("negative", "neutral", "positive"))
    assert ours.fingerprint != scores.fingerprint


def test_the_classes_are_equally_frequent_in_the_population() -> None:
    rng, model = np.random.default_rng(0), SynthModel.default()
    spread = np.sqrt(model.a_redundant**2 + sum(a**2 for a in model.a_unique) + model.noise**2)
    y_star = spread * rng.normal(size=400_000) + model.a_synergy * rng.choice([-1, 1], 400_000)
    shares = np.bincount(classes_of(model.scale * y_star)) / len(y_star)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.003)


def test_probabilities_against_draws_from_the_mixture() -> None:
    rng = np.random.default_rng(1)
    weights = np.array([[0.2, 0.8], [1.0, 0.0]])
    means, variances = np.array([[-1.0, 0.5], [2.0, 0.0]]), np.array([[0.5, 1.5], [0.1, 1.0]])
    found = class_probabilities(Mixture(weights, means, variances))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for i in range(2):
        part = rng.choice(2, size=200_000, p=weights[i])
        drawn = classes_of(means[i, part] + np.sqrt(variances[i, part]) * rng.normal(size=len(part)))
        np.testing.assert_allclose(found[i], np.bincount(drawn, minlength=3) / len(part), atol=0.005)


def test_the_most_probable_class_is_right_as_often_as_it_says() -> None:
    test = make_synth_classes(3, (4, 4, 3000)).splits["test"]
    p = class_probabilities(posterior(test, SynthModel.default()))
    assert test.labels is not None
    right = (p.argmax(axis=1) == test.labels.numpy()).mean()
    np.testing.assert_allclose(right, p.max(axis=1).mean(), atol=3 * np.sqrt(0.25 / 3000))
    assert right > 0.64  # a third by chance
