"""Recipes: how the inputs of a training are corrupted, and the fixed validation views that select an epoch.

Every model can be trained by every recipe, and a result says by which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import torch

from corruptions import Batch, Draws, GeneratorDraws, InputError, Point, Reference, Stress
from corruptions.augment import drawn_severity
from corruptions.grid import canonical
from corruptions.registry import STRESSORS, did_you_mean

RECIPES: dict[str, str] = {
    "clean": "inputs as they are",
    "spectrum": "per batch lambda, eta ~ U(0, 1): noise, then missing modalities, untold (QA-MoE 3.5, A.1.1)",
    "modality-dropout": "per batch m ~ U(0, 0.8): modalities missing, told, at least one stays",
    "STRESS:SEVERITY": "any stress at one severity, as in missing-random:0.3 (QA-MoE, table 3)",
}
"""What can be typed, with one line for listings."""

VIEW_SEED = 0
SPECTRUM_VIEWS = ("0", "0.35", "0.7")
DROPOUT_MAX = 0.8


@dataclass(frozen=True, eq=False)
class Recipe:
    """One way to train.

    name: canonical, as people type it. stress: what corrupts, None for clean. draw: the severity of a training batch,
    from a generator. fixed: the severities of the validation views; the clean split is among them.
    """

    name: str
    stress: Stress | None
    draw: Callable[[torch.Generator], Point]
    fixed: tuple[Point, ...]

    def corrupt(self, batch: Batch, generator: torch.Generator, reference: Reference | None) -> Batch:
        """A training batch with fresh draws: one severity for all its samples. Donors come from the batch itself."""
        if self.stress is None:
            return batch
        point = self.draw(generator)
        return self.stress.apply(batch, point, GeneratorDraws(generator, batch), reference).batch

    def views(self, valid: Batch, reference: Reference | None) -> list[Batch]:
        """The validation split as selection sees it: the same draws in every epoch and for every model."""
        if self.stress is None:
            return [valid]
        draws = Draws(VIEW_SEED, valid)
        return [self.stress.apply(valid, point, draws, reference).batch for point in self.fixed]

    def selection(self, metric: str = "MAE") -> str:
        """In words, by what an epoch is selected.

        >>> parse_recipe("clean").selection("accuracy")
        'accuracy on the clean split'
        """
        if len(self.fixed) == 1:
            return f"{metric} on the clean split"
        return f"mean {metric} over {len(self.fixed)} fixed views: {'; '.join(map(_shown, self.fixed))}"


def parse_recipe(text: str) -> Recipe:
    """The recipe from what people type.

    - ``clean``.
    - ``spectrum``: per batch lambda, eta ~ U(0, 1) for all its samples: noise-lambda, then missing-random, untold
      (QA-MoE 3.5, A.1.1). Views: lambda, eta in {0, .35, .7}.
    - ``modality-dropout``: per batch m ~ U(0, 0.8), the stress ``missing``, told. Views: clean and m = 0.4, the mean.
    - ``STRESS:SEVERITY``: one severity for every batch (QA-MoE, table 3). Views: clean and this severity.

    Severities drawn at random have three decimals.

    Raises:
        InputError: an unknown recipe or stress, no severity or several, or severity 0.

    >>> parse_recipe("missing-random:told=true:0.30").name
    'missing-random:told=true:0.3'
    """
    text = text.strip()
    if text == "clean":
        return Recipe("clean", None, lambda generator: Point("0"), (Point("0"),))
    if text == "spectrum":
        grid = tuple(Point(lam, eta) for lam in SPECTRUM_VIEWS for eta in SPECTRUM_VIEWS)
        return Recipe(
            "spectrum", Stress.parse("spectrum"), lambda g: Point(drawn_severity(g, 1.0), drawn_severity(g, 1.0)), grid
        )
    if text == "modality-dropout":
        views = (Point("0"), Point(canonical(Decimal(str(DROPOUT_MAX)) / 2)))
        return Recipe(text, Stress.parse("missing"), lambda g: Point(drawn_severity(g, DROPOUT_MAX)), views)
    return _fixed(text)


def _fixed(text: str) -> Recipe:
    name = text.partition(":")[0]
    if name not in STRESSORS:
        known = [recipe for recipe in RECIPES if ":" not in recipe]
        hint = did_you_mean(name, [*known, *STRESSORS])
        raise InputError(
            f"unknown recipe {text[:80]!r}{hint}; known: {', '.join(known)}, or a stress at a severity such as "
            f"missing-random:0.3 (stresses: {', '.join(STRESSORS)})"
        )
    stress_text, _, severity = text.rpartition(":")
    if not stress_text or "=" in severity:
        raise InputError(f"recipe {text!r}: expected a severity after the stress, as in {text}:0.3")
    stress = Stress.parse(stress_text)
    points = stress.grid(severity).points
    if len(points) != 1:
        raise InputError(f"recipe {text!r}: expected one severity, got {len(points)}; train one checkpoint for each")
    (point,) = points
    if point.is_clean:
        raise InputError(f"recipe {text!r}: at this severity nothing is corrupted; the recipe is called clean")
    clean = Point(condition="t+a+v") if point.condition else Point(*("0" for _ in point.values))
    return Recipe(f"{stress.label}:{_shown(point)}", stress, lambda generator: point, (clean, point))


def _shown(point: Point) -> str:
    """A point as a grid spells it."""
    return point.condition or "x".join(canonical(value) for value in point.values)
