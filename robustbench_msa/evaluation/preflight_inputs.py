"""Checks of how a model reads its input: padding, encoders, absence, labels, memory; and of the data itself."""

from __future__ import annotations

import torch
from torch import Tensor

from corruptions import MODALITIES
from robustbench_msa.evaluation.preflight_check import Check, Status
from robustbench_msa.evaluation.preflight_outputs import few, judged, nonfinite
from robustbench_msa.evaluation.preflight_probe import (
    copied,
    swapped,
    tensors_of,
    told_absent,
    with_filled_padding,
    with_lengths,
    with_steps,
    with_wrong_labels,
)
from robustbench_msa.evaluation.preflight_state import same
from robustbench_msa.evaluation.preflight_trial import Trial, scores
from robustbench_msa.models.contract import MSAModel, Part

MORE_STEPS = 3


def lengths(trial: Trial) -> Check:
    """What is in the padding changes nothing, nor how much of it there is; lengths of 1 and 0 are taken."""
    gaps, notes, batch = {}, [], trial.batch
    if any(not bool(batch.valid(m).all()) for m in MODALITIES):
        gaps["two contents of the padding"] = trial.compare_batches(batch, with_filled_padding(batch))
        notes.append("content of padding does not matter")
    try:
        gap = trial.compare_batches(batch, with_steps(batch, MORE_STEPS))
        gaps[f"the input as it is and with {MORE_STEPS} more steps of padding"] = gap
        notes.append("nor how much there is" if notes else "amount of padding does not matter")
    except Exception as error:  # a fixed number of steps is a fair thing to ask for
        notes.append(f"no other number of steps is taken ({said(error)})")
    if (check := judged(trial, "lengths", gaps, "; ".join(notes))).status != "pass":
        return check
    for length in (1, 0):
        if (status := _takes(trial, length)) is not None:
            return Check("lengths", *status)
    return Check("lengths", "pass", f"{check.note}; lengths 1 and 0 are taken")


def _takes(trial: Trial, length: int) -> tuple[Status, str] | None:
    """What is wrong with sequences of this length; None where nothing is."""
    try:
        bad = nonfinite(trial.predict(with_lengths(trial.batch, length)).prediction)
        if bad and not nonfinite(trial.first.prediction):
            return "flag", f"{bad} predictions are NaN or infinite with sequences of length {length}"
        return None
    except Exception as error:
        ours = trial.inputs.batch
        there = any(bool((ours.present[:, i] & (ours.lengths(m) == length)).any()) for i, m in enumerate(MODALITIES))
        where = "as in the data" if there else "which the data do not have"
        return "fail" if there else "flag", f"sequences of length {length}, {where}, are not taken ({said(error)})"


def separable(trial: Trial) -> Check:
    """A modality's encoding does not depend on the others: a run encodes each once and puts them together anew."""
    model = trial.model
    if not isinstance(model, MSAModel):
        return Check("separable", "skip", "it has no encoders of its own: every cell runs the whole model")
    for m in MODALITIES:
        others = trial.batch
        for other in MODALITIES:
            others = others if other == m else swapped(others, other)
        expected, got = (trial.encode(model, batch).part(m) for batch in (trial.batch, others))
        if what := _unlike(trial, expected, got):
            if trial.is_noisy:
                return Check("separable", "skip", f"cannot be told from the model's own noise: {m} differs: {what}")
            return Check("separable", "fail", f"the encoding of {m} changes with the other modalities: {what}")
    return Check("separable", "pass", "no encoding changes with other modalities")


def _unlike(trial: Trial, expected: Part, got: Part) -> str:
    """Which tensor of two parts differs and by how much; empty where none does."""
    if expected.keys() != got.keys():
        return f"tensors {few(expected)} and {few(got)}"
    for name, x in expected.items():
        if x.shape != got[name].shape:
            return f"{name} has shape {tuple(x.shape)} and {tuple(got[name].shape)}"
        std = float(x.double().nan_to_num(posinf=0.0, neginf=0.0).std(correction=0)) if x.numel() else 0.0
        gap = trial.gap(x, got[name])
        if gap.largest > trial.tolerance * max(1.0, std):
            return f"{name} by up to {gap.largest:.2g} (std {std:.2g})"
    return ""


def encode_fuse(trial: Trial) -> Check:
    """The model as it was trained, ``forward``, is what a run makes of it: each encoder alone, then ``fuse``."""
    model = trial.model
    if not isinstance(model, MSAModel):
        return Check("encode_fuse", "skip", "it has no halves: every cell runs the whole model")
    whole = trial.forward(model, trial.batch)
    if whole.prediction.shape != trial.first.prediction.shape:
        got, ours = tuple(whole.prediction.shape), tuple(trial.first.prediction.shape)
        return Check("encode_fuse", "fail", f"forward gives predictions {got}, encode and fuse {ours}")
    gap = trial.compare(trial.whole, lambda seed: scores(trial.forward(model, trial.batch, seed)))
    return judged(trial, "encode_fuse", {"forward and encode + fuse": gap}, "forward is encode + fuse", "fail")


def absence(trial: Trial) -> Check:
    """With a modality told absent, what stands in its place changes nothing."""
    gaps = {}
    for m in MODALITIES:
        one, other = told_absent(trial.batch, m), told_absent(swapped(trial.batch, m), m)
        gaps[f"two contents of {m}, told absent,"] = trial.compare_batches(one, other)
    return judged(trial, "absence", gaps, "what is told absent does not matter")


def inputs_untouched(trial: Trial) -> Check:
    """No tensor that the model is handed is changed in place: runs share them between models and cells."""
    batch = copied(trial.batch)
    given = {name: (x, x.clone()) for name, x in tensors_of(batch).items()}
    trial.predict_on(batch)
    changed = [f"{name} {_by(*pair)}" for name, pair in given.items() if not same(*pair)]
    if isinstance(trial.model, MSAModel) and not changed:
        encoded = trial.encode(trial.model, trial.batch)
        parts = {f"encoded {m}": encoded.part(m) for m in MODALITIES} | dict(encoded.derived)
        given = {f"{name} {key}": (x, x.clone()) for name, part in parts.items() for key, x in part.items()}
        with torch.inference_mode():
            trial.model.fuse(encoded, batch.present)
        changed = [f"{name} {_by(*pair)}" for name, pair in given.items() if not same(*pair)]
    if changed:
        return Check("inputs_untouched", "fail", f"changed in place: {few(changed)}")
    return Check("inputs_untouched", "pass", "no tensor is changed in place")


def _by(now: Tensor, before: Tensor) -> str:
    if now.shape != before.shape:
        return f"(to shape {tuple(now.shape)})"
    return f"(by up to {float((now.double() - before.double()).abs().nan_to_num(nan=torch.inf).max()):.2g})"


def label_free(trial: Trial) -> Check:
    """Other labels in the batch change nothing."""
    if trial.batch.labels is None:
        return Check("label_free", "skip", "the data have no labels")
    batch, model = trial.batch, trial.model
    wrong = with_wrong_labels(batch)
    gaps = {"right and wrong labels": trial.compare_batches(batch, wrong)}
    if isinstance(model, MSAModel):
        gaps["forward with right and with wrong labels"] = trial.compare(
            lambda seed: scores(trial.forward(model, batch, seed)),
            lambda seed: scores(trial.forward(model, wrong, seed)),
        )
    return judged(trial, "label_free", gaps, "labels do not matter", "fail")


def data(trial: Trial) -> Check:
    """Padding in the data is zero, and lengths say where it begins."""
    batch, found, n = trial.batch, [], len(trial.batch)
    for i, m in enumerate(MODALITIES):
        there, valid = batch.present[:, i], batch.valid(m)
        x = batch.features(m)
        used = (x != 0).any(dim=2) if x.ndim == 3 else x != 0  # (N, T_m)
        if after := int(((used & ~valid).any(dim=1) & there).sum()):
            found.append(f"{m} has values after its length in {after} of {n} samples")
        if empty := int((there & (batch.lengths(m) == 0)).sum()):
            found.append(f"{m} is there with length 0 in {empty} of {n}")
        ends = int((~used[:, -1] & there & used.any(dim=1)).sum()) if x.shape[1] else 0
        if bool(valid.all()) and 2 * ends > n:
            found.append(f"{m} ends in zeros in {ends} of {n} samples, but its lengths are all {x.shape[1]}")
    if found:
        return Check("data", "flag", "; ".join(found))
    return Check("data", "pass", "padding is zero, and lengths say where it begins")


def said(error: Exception) -> str:
    """The kind of an exception and its first line."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first[:160]}"
