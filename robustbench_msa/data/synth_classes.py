"""``synth-classes``: the synthetic dataset with its score cut into classes, and the exact probabilities of them.

Features, lengths, videos and ids are those of ``synth`` (see ``data.synth``); the label is the interval that the score
c y*, before it is clipped and rounded, falls into:

    class 0 (negative): c y* < -q    class 1 (neutral): -q <= c y* < q    class 2 (positive): c y* >= q

q is the score's 2/3 quantile, so the classes are equally frequent in the population and not in a sample of it. The
posterior of c y* given a (corrupted) input is a mixture of Gaussians (``oracle.posterior``), so the probability of a
class is a difference of its distribution functions: the most probable class is the best decision for accuracy, and
accuracy alone (a macro F1 can be higher by deciding for rare classes more often).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.oracle import Mixture
from robustbench_msa.data.synth import SIZES, SynthModel, make_synth, true_factors

Array = NDArray[np.float64]

NAME = "synth-classes"
VERSION = 1
CLASSES = ("negative", "neutral", "positive")


def cuts() -> tuple[float, float]:
    """The scores -q and q between the classes; P(c y* < q) = 2/3.

    >>> [round(cut, 3) for cut in cuts()]
    [-0.654, 0.654]
    """
    q = _upper_tercile(SynthModel.default())
    return (-q, q)


@cache
def _upper_tercile(model: SynthModel) -> float:
    """y* is a Gaussian shifted by the product of the signs, +a_s or -a_s, each half of the time."""
    spread = np.sqrt(model.a_redundant**2 + sum(a**2 for a in model.a_unique) + model.noise**2)

    from scipy.optimize import brentq  # half a second, for a number that this dataset alone needs

    def beyond(y: float) -> float:
        return float((ndtr((y - model.a_synergy) / spread) + ndtr((y + model.a_synergy) / spread)) / 2 - 2 / 3)

    return float(round(model.scale * brentq(beyond, 0.0, 10.0), 6))


def classes_of(score: Array) -> NDArray[np.int64]:
    """Classes of scores c y*, ``(N,)``.

    >>> classes_of(np.array([-2.0, -0.65, 0.0, 0.66])).tolist()
    [0, 1, 1, 2]
    """
    return np.searchsorted(np.array(cuts()), score, side="right").astype(np.int64)


def make_synth_classes(seed: int = 1111, sizes: Sequence[int] = SIZES) -> Dataset:
    """The synthetic dataset of a seed in three classes, with `sizes` samples in train, valid and test.

    Raises:
        InputError: sizes that are not three whole numbers of at least 1.

    >>> data = make_synth_classes(seed=1, sizes=(4, 2, 3))
    >>> data.profile, data.classes, data.splits["train"].labels.tolist()
    ('classification', ('negative', 'neutral', 'positive'), [1, 2, 1, 2])
    """
    scores = make_synth(seed, sizes)
    splits = {}
    for split in SPLITS:
        y_star = true_factors(seed, split, sizes)["y_star"]
        labels = torch.from_numpy(classes_of(SynthModel.default().scale * y_star))
        splits[split] = scores.splits[split].replace(labels=labels)
    made = {**scores.parameters, "generator": NAME, "cuts": list(cuts()), "classes_version": VERSION}
    return Dataset(NAME, splits, "classification", scores.text_at, parameters=made, classes=CLASSES)


def class_probabilities(mixture: Mixture) -> Array:
    """P(class | input), ``(N, 3)``, from the posterior of the score (``oracle.posterior``)."""
    below = np.stack([np.zeros(len(mixture.weights)), *map(mixture.below, cuts()), np.ones(len(mixture.weights))])
    return np.asarray(np.diff(below, axis=0).T)
