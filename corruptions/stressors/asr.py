"""What a speech recogniser does to the text: substitutions, deletions and repetitions."""

from __future__ import annotations

import torch
from torch import Tensor

from corruptions.batch import Batch
from corruptions.corruption import Features, fill_steps, maskable
from corruptions.draws import Draws
from corruptions.errors import InputError
from corruptions.grid import Axis, Point
from corruptions.reference import Reference
from corruptions.stressor import FILL_UNK, Options, Stressor
from corruptions.stressors.noise import smallest

SUBSTITUTED, DELETED = 0.6, 0.8  # below .6 substituted, below .8 deleted, else repeated: the ratio 6:2:2
TRIES = 64


class ASR(Stressor):
    """``asr`` at s, the word error rate: exactly ``round(s L)`` text tokens wrong, half to even; the length stays.

    Each wrong token is, in the ratio 6:2:2, substituted by another token of the pool (uniform over the pool's maskable
    tokens; the next one of another value where the draw gives the same), deleted ([UNK], or zeros for features), or
    overwritten by a repetition of the token before it. The first token has none and is deleted, and so is one for which
    64 tokens of the pool in a row are the same. What is repeated is
    the true token, so errors nest as s grows. Where text is contextual features, a substituted state is that of another
    sentence and the neighbours still carry the true token.
    """

    name = "asr"
    axes = (Axis("s", "0", "1"),)
    default_grid = "0:0.5:0.1"
    summary = "text tokens substituted, deleted or repeated, as a speech recogniser errs"
    formula = "round(s L) tokens wrong: u < .6 another token of the pool, u < .8 lost, else x_t <- x_(t-1)"
    source = "beyond the papers: word errors 6:2:2, length-preserving"
    option_table = {"fill": FILL_UNK}
    purposes = frozenset({"error", "kind", "token"})
    touches_features = True
    uses_pool = True
    acts_on = "t"

    def features(
        self,
        batch: Batch,
        point: Point,
        draws: Draws,
        reference: Reference | None,
        pool: Batch,
        options: Options,
    ) -> Features:
        steps = maskable(batch, "text")  # (N, T)
        wrong = smallest(draws.steps("error", "text"), steps, point.values[0])
        kind = draws.steps("kind", "text")
        before = _previous(steps)  # (N, T), -1: none
        substituted = wrong & (kind < SUBSTITUTED)
        repeated = wrong & (kind >= DELETED) & (before >= 0)
        deleted = wrong & ~substituted & ~repeated
        x = batch.text
        if bool(repeated.any()):
            x = torch.where(_wide(repeated, x), _at(batch.text, before.clamp(min=0)), x)
        if bool(substituted.any()):
            tokens, found = other_tokens(batch, pool, substituted, draws.steps("token", "text")[substituted])
            x = x.clone()
            x[substituted] = tokens
            deleted[substituted] = ~found
            substituted = substituted & ~deleted
        if bool(deleted.any()):
            fill = str(options["fill"])
            fill = "unk" if fill == "auto" and batch.has_token_text else fill
            x = fill_steps(batch.replace(text=x), "text", deleted, fill, reference)
        changed = batch if x is batch.text else batch.replace(text=x)
        return Features(changed, {"text": deleted}, {"text": substituted | repeated})


def other_tokens(batch: Batch, pool: Batch, where: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """For each true place of ``where (N, T)`` a token of the pool that differs from the one there.

    u: one uniform a place. The pool's tokens are counted in the order of its ids, so the order of its samples does not
    matter. Returns ``(places,)`` ids or ``(places, d)`` features, and where one was found, ``(places,)`` bool.

    Raises:
        InputError: the pool's text is of another kind.
    """
    if pool.text.shape[2:] != batch.text.shape[2:] or pool.text.dtype != batch.text.dtype:
        raise InputError("pool: its text is of another kind than the batch's; substitutions need the same features")
    order = torch.tensor(sorted(range(len(pool)), key=pool.ids.__getitem__), dtype=torch.int64, device=pool.device)
    rows, steps = maskable(pool, "text")[order].nonzero(as_tuple=True)  # one entry a token, in the order of ids
    rows, count, ours = order[rows], len(rows), batch.text[where]
    if not count:
        return ours, torch.zeros_like(u, dtype=torch.bool)
    pick = (u * count).to(torch.int64).clamp(max=count - 1)
    for _ in range(TRIES):
        theirs = pool.text[rows[pick], steps[pick]]
        same = (theirs == ours).flatten(1).all(1) if theirs.ndim > 1 else theirs == ours
        if not bool(same.any()):
            break
        pick = torch.where(same, (pick + 1) % count, pick)
    return theirs, ~same


def _previous(steps: Tensor) -> Tensor:
    """The place of the maskable step before each step, ``(N, T)`` int64; -1 where there is none."""
    places = torch.where(steps, torch.arange(steps.shape[1], device=steps.device), -1)
    latest = places.cummax(1).values
    return torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], 1)


def _at(x: Tensor, places: Tensor) -> Tensor:
    """``x (N, T, ...)`` at other places of the same sample, ``(N, T)``."""
    return x.gather(1, places if x.ndim == 2 else places[:, :, None].expand_as(x))


def _wide(mask: Tensor, x: Tensor) -> Tensor:
    return mask if x.ndim == 2 else mask[:, :, None]
