"""The worst that can happen within a severity: the worst of many draws, or an attack by gradients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from corruptions.batch import MODALITIES, Batch, Derived
from corruptions.corruption import Corruption, Features, Sources, check_fill
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.keyed_random import key_of
from corruptions.reference import Reference
from corruptions.stressor import FILL, SIGMA_REF, Adversary, Option, Options, Stressor, allowed
from corruptions.stressors.conflict import Conflict
from corruptions.stressors.missing import Missing, MissingRandom
from corruptions.stressors.noise import Noise, NoiseLambda

DRAWN: dict[str, Stressor] = {s.name: s for s in (Noise(), NoiseLambda(), Missing(), MissingRandom(), Conflict())}


class WorstCase(Stressor):
    """``worst-case`` at s: of what is possible within the severity, what hurts this model most on each sample.

    ``attack=gradient``: projected gradient ascent on the sample's loss, ``|x' - x| <= s sigma_ref`` for every feature
    of audio, vision and text features (L-infinity, in units of the training standard deviation): a random start
    inside, ``steps`` steps of ``2.5 s sigma_ref / steps`` along the sign of the gradient, projected back each time; the
    worst point met is kept, the untouched one included (Madry et al., 2018). Token ids cannot be moved and stay.

    ``attack=draws``: the worst of ``draws`` realisations of the stress ``of`` at s, with that stress's defaults.

    Each severity is attacked anew, and an ascent may end on a lesser hill: the loss found need not grow with s.

    The input depends on the model: it has no shared digest, and belongs in a table of its own.
    """

    name = "worst-case"
    axes = (Axis("s", "0", "1"),)
    default_grid = "0:0.3:0.1"
    summary = "the worst of many draws, or a gradient attack within s sigma_ref; depends on the model"
    formula = "argmax of the sample's loss over |x' - x| <= s sigma_ref (or over K draws of a stressor)"
    source = "beyond the papers; projected gradient descent: Madry et al., 2018"
    option_table = {
        "attack": Option("gradient", "gradient, or the worst of several draws", ("gradient", "draws")),
        "of": Option("noise", "the stress whose draws are compared (attack=draws)", tuple(DRAWN)),
        "draws": Option(8, "realisations compared (attack=draws)", low=1, high=1000),
        "steps": Option(10, "steps of the ascent (attack=gradient)", low=1, high=1000),
        "fill": FILL,
        "sigma_ref": SIGMA_REF,
    }
    purposes = frozenset({"attack"})
    needs_reference = True
    needs_adversary = True
    touches_features = True
    uses_pool = True
    by_halves = False

    def reach(self, given: Options) -> str:
        drawn = DRAWN.get(str(given.get("of"))) if given.get("attack") == "draws" else None
        return self.acts_on if drawn is None else drawn.acts_on

    def apply(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        options: Options,
        reference: Reference | None = None,
        pool: Batch | None = None,
        adversary: Adversary | None = None,
    ) -> Corruption:
        fill = str(options["fill"])
        check_fill(batch, fill, reference, allowed(options))
        if point.is_clean:
            return Corruption(batch, Features(batch), Sources.untouched(batch), told=False, fill=fill)
        if reference is None:
            raise InputError("worst-case scales by the training split: pass reference=Reference.fit(train_batch)")
        if adversary is None:
            raise InputError(
                "worst-case depends on the model: pass an adversary with losses(batch) and gradients(batch)"
            )
        if options["attack"] == "draws":
            return worst_of_draws(batch, point, draws, options, reference, pool, adversary)
        found = ascend(batch, float(point.values[0]), draws, options, reference, adversary)
        return Corruption(batch, Features(found), Sources.untouched(batch), False, fill, pool, reference)


def ascend(batch: Batch, s: float, draws: Draws, options: Options, reference: Reference, adversary: Adversary) -> Batch:
    """The worst point found for each sample by projected gradient ascent within ``s sigma_ref``."""
    bounds = _bounds(batch, s, reference, options)
    steps = int(options["steps"])
    start = {m: draws.normal("attack", m).clamp(-1, 1) * bound for m, bound in bounds.items()}
    current = batch.replace(**{m: batch.features(m) + move for m, move in start.items()})
    worst, most = batch, adversary.losses(batch)
    for step in range(steps + 1):
        losses = adversary.losses(current)
        worst, most = _choose(losses > most, current, worst), torch.maximum(losses, most)
        if step < steps:
            uphill = adversary.gradients(current)
            current = current.replace(
                **{
                    m: _within(batch.features(m), current.features(m) + 2.5 / steps * bound * uphill[m].sign(), bound)
                    for m, bound in bounds.items()
                }
            )
    return worst


def worst_of_draws(
    batch: Batch,
    point: Point,
    draws: Draws,
    options: Options,
    reference: Reference,
    pool: Batch | None,
    adversary: Adversary,
) -> Corruption:
    """Per sample the realisation, of K, with the greatest loss."""
    stressor = DRAWN[str(options["of"])]
    (axis,) = stressor.axes
    if not axis.holds(point.values[0]):
        raise InputError(f"worst-case: {point} is outside the range of {stressor.name}, {axis}")
    theirs = {name: option.default for name, option in stressor.option_table.items()}
    theirs |= {name: options[name] for name in ("fill", "sigma_ref") if name in theirs}
    theirs["modalities"] = str(options.get("modalities", "tav"))
    best: Corruption | None = None
    most = torch.empty(0)
    for k in range(int(options["draws"])):
        own = Draws(key_of("worst of draws", draws.seed, k), batch)
        tried = stressor.apply(batch, point, own, theirs, reference, pool)
        losses = adversary.losses(tried.batch)
        best = tried if best is None else _merge(losses > most, tried, best)
        most = losses if k == 0 else torch.maximum(losses, most)
    assert best is not None
    return best


def _bounds(batch: Batch, s: float, reference: Reference, options: Options) -> dict[str, Tensor]:
    """How far each feature may move, ``(N, T_m, d_m)``: ``s sigma_ref`` on valid steps of available modalities."""
    bounds = {}
    for i, m in enumerate(MODALITIES):
        if m in allowed(options) and batch.features(m).is_floating_point():
            sigma = reference.noise_sigma(m, str(options["sigma_ref"])).to(batch.device)
            steps = batch.valid(m) & batch.present[:, i, None]
            bounds[m] = steps[:, :, None] * (s * sigma)
    return bounds


def _within(x: Tensor, moved: Tensor, bound: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(moved, x - bound), x + bound)


def _choose(rows: Tensor, ours: Batch, other: Batch) -> Batch:
    """Where ``rows (N,)`` the sample of ``ours``, else that of ``other``."""
    fields = [*MODALITIES, *(f"{m}_lengths" for m in MODALITIES), "present"]
    changes = {name: _where(rows, getattr(ours, name), getattr(other, name)) for name in fields}
    derived = {
        name: Derived(_where(rows, d.values, other.derived[name].values), d.sources) for name, d in ours.derived.items()
    }
    return other.replace(**changes, derived=derived)


def _merge(rows: Tensor, ours: Corruption, other: Corruption) -> Corruption:
    """The corruption that is ``ours`` on some rows and ``other`` on the rest."""
    lost = {m: _where(rows, ours.features.lost[m], other.features.lost[m]) for m in ours.features.lost}
    features = Features(_choose(rows, ours.features.batch, other.features.batch), lost)
    sources = Sources(
        _where(rows, ours.sources.lost, other.sources.lost),
        _where(rows, ours.sources.donor, other.sources.donor),
        max(ours.sources.skipped, other.sources.skipped),
        ours.sources.unable,
    )
    return replace(ours, features=features, sources=sources)


def _where(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a if a is b else torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)
