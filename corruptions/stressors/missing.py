"""Whole modalities missing: RIDER-MoE's (C.2), QA-MoE's Protocol I, fixed and random (4.3.1, A.1), GCNet's, and
rates that differ between modalities or come in bursts over them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corruptions.batch import LETTERS, MODALITIES, Batch
from corruptions.corruption import Sources
from corruptions.draws import Draws
from corruptions.grid import SUBSETS, Axis, Point
from corruptions.stressor import FILL, TOLD, Option, Options, Stressor, allowed, allowed_columns


class Missing(Stressor):
    """``missing`` at m: each available modality dropped with probability m, drawn again if all are gone.

    Drawn as a random order of the modalities and one uniform per sample: the first k are dropped, k by inverse CDF of
    ``P(k) ~ C(n, k) m^k (1-m)^(n-k)``, k < n, for n available modalities. The same distribution, and nested in m.
    The real rate per modality of three is ``(m - m^3) / (1 - m^3)``: 0.59 at m = 0.8. With ``modalities``: among
    those; where another is there, all of them may go, and the real rate is m.
    """

    name = "missing"
    axes = (Axis("m", "0", "1", open_end=True),)
    default_grid = "0:0.8:0.2"
    told = True
    summary = "modalities dropped independently, at least one stays"
    formula = "drop the first k of a random order, P(k) ~ C(3,k) m^k (1-m)^(3-k), k = 0, 1, 2"
    source = "RIDER-MoE, appendix C.2"
    purposes = frozenset({"order", "count"})

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        return lose(batch, drop_but_one(batch, draws, float(point.values[0]), options))


class MissingFixed(Stressor):
    """``missing-fixed``: only the modalities of the condition are left, the same for every sample. No nAUC."""

    name = "missing-fixed"
    axes = ()
    random = False
    default_grid = ",".join(SUBSETS)
    told = True
    summary = "only a fixed set of modalities is available"
    formula = "keep the modalities of the set, lose the others"
    source = "QA-MoE, Protocol I, fixed missing (section 4.3.1, table 2)"

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        assert point.condition is not None
        kept = {LETTERS[letter] for letter in point.condition.split("+")}
        gone = [modality in allowed(options) and modality not in kept for modality in MODALITIES]
        return lose(batch, torch.tensor(gone, device=batch.device)[None, :] & batch.present)


class MissingRandom(Stressor):
    """``missing-random`` at eta: each modality's whole sequence zeroed with probability eta; all three may go.

    Models are not told: QA-MoE's quality score must find out by itself (``told=true`` says otherwise).

    ``variant=keep_one``, GCNet's convention: independent drops with p that solves ``(p - p^3) / (1 - p^3) = eta``, at
    least one modality kept, models told. eta above 2/3 cannot be reached and means 2/3. With ``modalities``: where
    another one is there, they are dropped at eta itself.
    """

    name = "missing-random"
    axes = (Axis("eta", "0", "1"),)
    default_grid = "0:0.7:0.1"
    summary = "each modality lost with probability eta, all three may be"
    formula = "modality m is zeroed where u_m < eta; keep_one: as missing at p, (p - p^3)/(1 - p^3) = min(eta, 2/3)"
    source = "QA-MoE, Protocol I, random missing (section 4.3.1, appendix A.1); keep_one: GCNet (Lian et al., 2023)"
    option_table = {
        "fill": FILL,
        "told": TOLD,
        "variant": Option(
            "independent", "keep_one: GCNet's, at least one stays", ("independent", "keep_one"), added=True
        ),
    }
    purposes = frozenset({"drop", "order", "count"})

    def implied(self, given: Options) -> Options:
        return {"told": True} if given.get("variant") == "keep_one" else {}

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        eta = float(point.values[-1])
        if options.get("variant") == "keep_one":
            return lose(batch, drop_but_one(batch, draws, drop_rate_of(eta), options, spared=eta))
        return lose(batch, drop_independently(batch, draws, [eta] * 3, options))


def weights(text: str) -> str:
    """Drop weights of text, audio and vision, scaled to mean 1. Raises ValueError when they are none.

    >>> weights("1:2:3"), weights("1 : 1 : 1")
    ('0.5:1:1.5', '1:1:1')
    """
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    total = sum(values)
    if len(values) != 3 or not all(0 <= v < math.inf for v in values) or not 0 < total < math.inf:
        raise ValueError("three weights of text, audio and vision, none negative, as in 1:2:3")
    scale = 1.0 if abs(total - 3) < 1e-4 else 3 / total  # what was scaled before, to six digits, stays as it is
    return ":".join(f"{scale * v:.6g}" for v in values)


class Imbalanced(Stressor):
    """``imbalanced`` at s: modality m lost with probability ``min(s w_m, 1)``, independently; all three may go.

    The weights for text, audio and vision have mean 1 (they are scaled so): s is the mean drop rate while no rate is
    cut at 1. Models are not told (``told=true`` says otherwise). With equal weights it is ``missing-random``.
    """

    name = "imbalanced"
    axes = (Axis("s", "0", "1"),)
    default_grid = "0:0.6:0.1"
    summary = "modalities lost independently at rates that differ: s times the weight of each"
    formula = "modality m is zeroed where u_m < min(s w_m, 1), mean of w = 1"
    source = "beyond the papers; shared against imbalanced rates as in MissBench (2026)"
    option_table = {
        "fill": FILL,
        "told": TOLD,
        "weights": Option("0.5:1:1.5", "drop weights of text:audio:vision, scaled to mean 1", read=weights),
    }
    purposes = frozenset({"drop"})

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        s = float(point.values[0])
        rates = [min(s * float(weight), 1.0) for weight in str(options["weights"]).split(":")]
        return lose(batch, drop_independently(batch, draws, rates, options))


class Correlated(Stressor):
    """``correlated`` at s: each modality lost with probability s, and they tend to go together.

    The three events are joined by a Gaussian copula: modality m is lost where ``sqrt(corr) g + sqrt(1 - corr) e_m`` is
    below the s-quantile of N(0, 1), g and e_m independent standard normals; ``corr`` is the latent correlation (0:
    independent, 1: all or none). Models are not told (``told=true`` says otherwise).
    """

    name = "correlated"
    axes = (Axis("s", "0", "1"),)
    default_grid = "0:0.7:0.1"
    summary = "modalities lost with probability s each, but tending to go together"
    formula = "modality m is zeroed where sqrt(corr) g + sqrt(1-corr) e_m < Phi^-1(s); g, e_m ~ N(0,1)"
    source = "beyond the papers: a Gaussian copula over the drops of missing-random"
    option_table = {
        "fill": FILL,
        "told": TOLD,
        "corr": Option(0.8, "latent correlation of the three events", low=0.0, high=1.0),
    }
    purposes = frozenset({"common", "own"})

    def sources(self, batch: Batch, point: Point, draws: Draws, pool: Batch, options: Options) -> Sources:
        corr = float(options["corr"])
        common = math.sqrt(corr) * draws.gaussian("common")  # (N,)
        own = torch.stack([draws.gaussian("own", modality) for modality in MODALITIES], 1)  # (N, 3)
        latent = common[:, None] + math.sqrt(1 - corr) * own
        threshold = torch.special.ndtri(torch.tensor(float(point.values[0]), dtype=torch.float64)).item()
        return lose(batch, (latent < threshold) & batch.present & allowed_columns(batch, options))


def drop_rate_of(eta: float) -> float:
    """p with ``(p - p^3) / (1 - p^3) = eta``, the rate before "at least one stays"; 1 from eta = 2/3 on.

    >>> round(drop_rate_of(0.59016), 3), drop_rate_of(0.7)
    (0.8, 1.0)
    """
    if eta >= 2 / 3:
        return 1.0
    half = (1 - eta) / 2  # (1 - eta) p^2 + (1 - eta) p - eta = 0, after dividing by 1 - p
    return (math.sqrt(half * half + (1 - eta) * eta) - half) / (1 - eta)


def drop_but_one(batch: Batch, draws: Draws, m: float, options: Options, spared: float | None = None) -> Tensor:
    """``(N, 3)`` bool: allowed, available modalities dropped with probability m, one of the sample's always left.

    spared: the probability where a modality that may not be touched is there anyway; default m.
    """
    may = batch.present & allowed_columns(batch, options)  # (N, 3)
    order = torch.stack([draws.uniform("order", modality) for modality in MODALITIES], 1)
    rank = order.masked_fill(~may, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)  # (N, 3)
    spare = (batch.present & ~may).any(1)  # something is left whatever goes
    u, n = draws.uniform("count"), may.sum(1)
    count = drop_count(u, n, m, spare)
    if spared is not None:
        count = torch.where(spare, drop_count(u, n, spared, spare), count)
    return (rank < count[:, None]) & may


def drop_count(u: Tensor, available: Tensor, m: float, spare: Tensor | None = None) -> Tensor:
    """k by inverse CDF of ``P(k) ~ C(n, k) m^k (1-m)^(n-k)``, k = 0 .. n-1, and up to n where ``spare``.

    u: ``(N,)``; available n: ``(N,)``; spare: ``(N,)`` bool. At m = 1: as many as may go.
    """
    spare = torch.zeros_like(available, dtype=torch.bool) if spare is None else spare
    most = torch.where(spare, available, available - 1).clamp(min=0)
    if m >= 1:
        return most
    k = torch.zeros_like(available)
    for n in (1, 2, 3):
        terms = [math.comb(n, j) * m**j * (1.0 - m) ** (n - j) for j in range(n + 1)]
        for top in (n - 1, n):
            total, below = sum(terms[: top + 1]), 0.0
            for term in terms[:top]:
                below += term
                k += ((available == n) & (most == top) & (u * total >= below)).to(k.dtype)
    return k


def drop_independently(batch: Batch, draws: Draws, rates: list[float] | Tensor, options: Options) -> Tensor:
    """``(N, 3)`` bool: available modalities whose draw is below their rate; rates: three, or ``(N, 3)``."""
    draw = torch.stack([draws.uniform("drop", modality) for modality in MODALITIES], 1)
    rate = torch.as_tensor(rates, dtype=torch.float64, device=draw.device)
    return (draw < rate) & batch.present & allowed_columns(batch, options)


def lose(batch: Batch, lost: Tensor) -> Sources:
    return Sources(lost, Sources.untouched(batch).donor)
