"""Checks of what a model gives: shape, numbers, and that row i is about sample i whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from robustbench_msa.evaluation.preflight_check import Check, Status
from robustbench_msa.evaluation.preflight_probe import copied
from robustbench_msa.evaluation.preflight_state import buffers, generators, in_eval_mode, modules_of, same, seed_all
from robustbench_msa.evaluation.preflight_trial import PASSES, Gap, Trial, scores
from robustbench_msa.models.contract import Output

SEVEN = 7
STRESSES = (("missing-random", "1"), ("missing-random:told=true", "1"), ("noise", "1"), ("noise-lambda", "2"))
"""Everything lost, untold and told; the most noise, with steps lost and without."""


def shape(trial: Trial) -> Check:
    """One prediction a sample, and extras with as many rows."""
    n, output = len(trial.batch), cast(object, trial.first)  # other people's code may give anything
    if not isinstance(output, Output):
        return Check("shape", "fail", f"expected an Output, got a {type(output).__name__}")
    got, classes = tuple(output.prediction.shape), trial.inputs.dataset.profile == "classification"
    if got[:1] != (n,) or len(got) != 1 + classes or not output.prediction.is_floating_point():
        expected = f"({n}, C)" if classes else f"({n},)"
        kind = str(output.prediction.dtype).removeprefix("torch.")
        return Check("shape", "fail", f"expected predictions {expected} of floats, got {got} of {kind}")
    wrong = {name: tuple(x.shape) for name, x in output.extras.items() if x.shape[:1] != (n,) or x.ndim > 2}
    if wrong:
        listed = ", ".join(f"{name} {shape}" for name, shape in wrong.items())
        return Check("shape", "fail", f"expected extras ({n},) or ({n}, k), got {listed}")
    return Check("shape", "pass", f"predictions {got}, {len(output.extras)} extras")


def finite(trial: Trial) -> Check:
    """No NaN, no infinity: on the clean probe (else fail); with everything lost, with much noise, in extras (flag)."""
    if bad := nonfinite(trial.first.prediction):
        return Check("finite", "fail", f"{bad} predictions are NaN or infinite on clean input")
    found = [f"extra {name} on clean input" for name, x in trial.first.extras.items() if nonfinite(x)]
    tried = {f"{text} {severity}": trial.under(text, severity) for text, severity in STRESSES}
    for name, output in tried.items():
        if output is not None and (bad := nonfinite(output.prediction)):
            found.append(f"{bad} predictions under {name}")
    if found:
        return Check("finite", "flag", f"NaN or infinite: {'; '.join(found)}")
    names = [name for name, output in tried.items() if output is not None]
    return Check("finite", "pass", f"clean, {', '.join(names)}" if names else "clean")


def nonfinite(x: Tensor) -> str:
    """``3 of 64`` rows; empty where there are none."""
    bad = int((~torch.isfinite(x.reshape(len(x), -1))).any(dim=1).sum()) if x.numel() else 0
    return f"{bad} of {len(x)}" if bad else ""


def ids(trial: Trial) -> Check:
    """Row i is of sample i. A model that sorts its batch by length and never sorts it back fails."""
    try:
        _ = trial.alone
    except Exception:
        return Check("ids", "skip", "batches of one sample are not taken (see batch_size)")
    if trial.alone.largest > trial.tolerance and not trial.is_noisy:
        every = trial.in_batches(range(len(trial.batch)), 1)
        rearranged = trial.gap(trial.scores.sort(dim=0).values, every.sort(dim=0).values)
        if rearranged.largest <= trial.tolerance:
            wrong = trial.gap(trial.scores, every).rows
            return Check("ids", "fail", f"{wrong} of {len(every)} rows hold the prediction of another sample")
    return Check("ids", "pass", "no row holds the prediction of another sample")


def order(trial: Trial) -> Check:
    """The same samples in another order have the same predictions."""
    n = len(trial.batch)
    if n < 2:
        return Check("order", "skip", "one sample alone has no order")
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    moved = trial.batch.select(rows)
    gap = trial.compare(lambda seed: trial.whole(seed)[rows], lambda seed: scores(trial.predict(moved, seed=seed)))
    return judged(trial, "order", {"two orders of the samples": gap}, "any order of the samples agrees")


def batch_size(trial: Trial) -> Check:
    """Batches of one sample, of seven and of the whole probe agree."""
    n = len(trial.batch)
    if n < 2:
        return Check("batch_size", "skip", "there is one sample only")
    gaps = {f"batches of 1 and of {n}": trial.alone}
    if n > SEVEN:
        gap = trial.compare(trial.whole, lambda seed: trial.in_batches(range(n), SEVEN, seed))
        gaps[f"batches of {SEVEN} and of {n}"] = gap
    return judged(trial, "batch_size", gaps, f"batches of 1, {SEVEN} and {n} agree")


def deterministic(trial: Trial) -> Check:
    """Identical passes agree, leave the global generators alone and the model's buffers as they were."""
    if trial.is_noisy:
        return Check("deterministic", "flag", difference(trial, "two passes", trial.noise))
    batch, before = copied(trial.batch), {name: x.clone() for name, x in buffers(trial.model).items()}
    seed_all(0)
    states = generators(batch.device)
    trial.predict_on(batch, seed=0)
    moved = [name for name, state in generators(batch.device).items() if state != states[name]]
    after = buffers(trial.model)
    changed = [name for name, x in before.items() if name not in after or not same(x, after[name])]
    if moved:
        return Check("deterministic", "flag", f"two passes agree, but move the global generator of {few(moved)}")
    if changed:
        return Check("deterministic", "flag", f"two passes agree, but change the model's own {few(changed)}")
    rounding = f" up to rounding ({trial.noise.largest:.1g})" if trial.noise.largest else ""
    return Check("deterministic", "pass", f"two passes agree{rounding}")


def eval_mode(trial: Trial) -> Check:
    """No module of the model is in training mode, or none to which it makes a difference."""
    modules = modules_of(trial.model)
    if not modules:
        return Check("eval_mode", "skip", "it has no torch modules that could be seen")
    on = {name or "the model itself": module for name, module in modules.items() if module.training}
    if not on:
        return Check("eval_mode", "pass", f"all {len(modules)} modules")
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RNNBase)
    active = [f"{name} ({type(module).__name__})" for name, module in on.items() if isinstance(module, kinds)]
    training = f"{len(on)} of {len(modules)} modules are in training mode"
    if active:
        return Check("eval_mode", "flag", f"{training}: {few(active)}")
    with in_eval_mode(on.values()):
        other = scores(trial.predict(trial.batch))
    gap = trial.gap(trial.scores, other)
    return judged(trial, "eval_mode", {f"{training}: it and eval mode": gap}, f"{training}, which changes nothing")


def judged(trial: Trial, name: str, gaps: Mapping[str, Gap], agreed: str, otherwise: Status = "flag") -> Check:
    """What the gaps between passes that should agree come to; skip where they may be the model's own noise."""
    beyond = {what: gap for what, gap in gaps.items() if gap.largest > trial.tolerance}
    if not beyond:
        return Check(name, "pass", agreed)
    showing = {what: gap for what, gap in beyond.items() if not gap.is_noise}
    what, gap = max((showing or beyond).items(), key=lambda item: item[1].largest)
    if showing:
        return Check(name, otherwise, difference(trial, what, gap))
    return Check(name, "skip", f"cannot be told from the model's own noise: {difference(trial, what, gap)}")


def difference(trial: Trial, what: str, gap: Gap) -> str:
    """``two passes differ by up to 0.14 in 60 of 64 samples (std of predictions 0.8)``."""
    size = "between a number and none" if gap.largest == float("inf") else f"by up to {gap.largest:.2g}"
    where = "" if gap.rows == gap.n else f" in {gap.rows} of {gap.n} samples"
    mean = f", mean of {PASSES} pairs of passes" if gap.noise else ""
    return f"{what} differ {size}{where} (std of predictions {trial.std:.2g}{mean})"


def few(names: Iterable[str]) -> str:
    """The first three of a list."""
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
