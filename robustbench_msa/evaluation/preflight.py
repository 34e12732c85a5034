"""Preflight: is this model fit to be measured? Checked in a second, before anything is computed (docs/preflight.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from corruptions import InputError, Stress
from robustbench_msa.evaluation.cells import Subject
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.preflight_check import WORDS, Check
from robustbench_msa.evaluation.preflight_inputs import (
    absence,
    data,
    encode_fuse,
    inputs_untouched,
    label_free,
    lengths,
    said,
    separable,
)
from robustbench_msa.evaluation.preflight_outputs import batch_size, deterministic, eval_mode, finite, ids, order, shape
from robustbench_msa.evaluation.preflight_state import left_as_it_was
from robustbench_msa.evaluation.preflight_trial import TOLERANCE, Trial
from robustbench_msa.evaluation.runner import WholeModel
from robustbench_msa.evaluation.subjects import Candidate
from robustbench_msa.models.contract import MSAModel
from robustbench_msa.version import __version__

VERSION = 1
"""Raise it when a check changes: results that are kept from an earlier one are not used again."""

CHECKS: tuple[Callable[[Trial], Check], ...] = (
    *(shape, finite, ids, order, batch_size, deterministic, eval_mode),
    *(lengths, separable, encode_fuse, absence, inputs_untouched, label_free, data),
)
_ALWAYS = (eval_mode, data)  # what can be said of a model that gives no usable output
Checks = Iterable[Mapping[str, Any]]


def preflight(
    model: MSAModel | WholeModel,
    inputs: Inputs,
    *,
    subject: Subject | None = None,
    covers: Callable[[Stress], bool] = lambda stress: True,
    tolerance: float = TOLERANCE,
) -> tuple[Check, ...]:
    """Every check of one model, in the order of ``CHECKS``. Model, inputs and random state are left as they were.

    Args:
        model: as a run loads it.
        inputs: the split it will run on; up to 64 of its samples are used, extreme lengths among them.
        subject: who a WholeModel is told to be.
        covers: the stresses the model has an answer to.
        tolerance: how far passes that should agree may be apart, in standard deviations of the predictions where
            that is above 1.

    Never raises for what the model does: a check in which it raises is a fail with the exception's first line.
    """
    trial = Trial(model, inputs, subject, covers, tolerance)
    with left_as_it_was(model, trial.batch.device):
        usable = _made(shape, trial)
        others = (check for check in CHECKS if check is not shape)
        if usable.status == "fail":
            return (usable, *(_made(c, trial) if c in _ALWAYS else _unseen(c) for c in others))
        return (usable, *(_made(check, trial) for check in others))


def _made(check: Callable[[Trial], Check], trial: Trial) -> Check:
    try:
        return check(trial)
    except Exception as error:  # whatever a model may do
        return Check(check.__name__, "fail", f"raised {said(error)}")


def _unseen(check: Callable[[Trial], Check]) -> Check:
    return Check(check.__name__, "skip", "no usable predictions to look at (see shape)")


def preflight_all(
    candidates: Iterable[Candidate],
    inputs: Inputs,
    known: Mapping[str, Any] | None = None,
    *,
    stop: bool = True,
    checked: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, str]]]:
    """The checks of all that is to be run, by checkpoint identity, as they stand in the manifest.

    Args:
        candidates: each is loaded, one at a time.
        known: the manifest's ``checkpoints`` so far; checks made by the same version on the same kind of device
            (``stamp``) are taken from it.
        stop: raise at the first fail, before anything is written. Else it is one more flag.
        checked: called with the model's name after each.

    Raises:
        InputError: a check failed: which model, which check, what was found, what to do.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for candidate in candidates:
        subject = candidate.subject
        model = candidate.load()  # broken weights show here, whatever is known
        if subject.checkpoint in found:
            continue
        checks = _kept((known or {}).get(subject.checkpoint), inputs)
        if checks is None:
            checks = preflight(model, inputs, subject=subject, covers=candidate.covers)
        failed = [check for check in checks if check.status == "fail"]
        if stop and failed:
            more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise InputError(
                f"{label_of(subject)}: preflight check {failed[0].check} failed: {failed[0].note}{more} "
                "(see docs/preflight.md; --no-preflight to go on, with the flag in every table)"
            )
        found[subject.checkpoint] = [check.to_json() for check in checks]
        if checked is not None:
            checked(label_of(subject))
    return found


def stamp(inputs: Inputs) -> dict[str, str]:
    """What made the checks, for the manifest beside them."""
    return {"msabench": __version__, "preflight": str(VERSION), "device": inputs.device.type}


def _kept(about: Any, inputs: Inputs) -> tuple[Check, ...] | None:
    """Checks that an earlier run wrote and that would come out the same; None where there are none."""
    if not isinstance(about, Mapping) or about.get("preflight_by") != stamp(inputs):
        return None
    try:
        return tuple(map(Check.from_json, about["preflight"]))
    except (InputError, KeyError, TypeError):
        return None


def flags_of(checks: Checks) -> list[str]:
    """Names of the checks that go into tables: flags and fails."""
    return [str(check["check"]) for check in checks if check["status"] in ("flag", "fail")]


def remarks(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each flag of each checkpoint of a run: model, what it is called in tables, and what was found."""
    lines = []
    for about in manifest.get("checkpoints", {}).values():
        for check in about.get("preflight", []):
            if check["status"] in ("flag", "fail"):
                made = label_of(Subject(about["model"], 1, "", about.get("recipe", ""), about.get("train_seed")))
                lines.append(f"{made}: {WORDS.get(check['check'], check['check'])}: {check['note']}")
    return lines


def label_of(subject: Subject) -> str:
    """``qa_moe (clean, 1111)``; a reference has neither recipe nor seed.

    >>> label_of(Subject("qa_moe", 1, "c", "clean", 1111)), label_of(Subject("chance", 1, "c"))
    ('qa_moe (clean, 1111)', 'chance')
    """
    made = [str(part) for part in (subject.recipe, subject.train_seed) if part not in ("", None)]
    return f"{subject.model} ({', '.join(made)})" if made else subject.model


__all__ = ["VERSION", "Check", "flags_of", "label_of", "preflight", "preflight_all", "remarks", "stamp"]
