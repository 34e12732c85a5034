"""``msabench validate``: is a model fit to be measured?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_msa.cli import options

if TYPE_CHECKING:
    from robustbench_msa.evaluation.preflight import Check
    from robustbench_msa.run import Resolved

EPILOG = """Examples:

msabench validate --model qa_moe

msabench validate --checkpoint checkpoints/synth/text_moe/clean/1111 --json

msabench validate --model rider_moe --dataset mosi --data aligned_50.pkl

A flag is a remark that goes into every table of a run; docs/preflight.md says what each means.

Exit code 0 when all checks pass or flag, 2 when one fails."""

STYLES = {"pass": "green", "flag": "yellow", "fail": "red", "skip": "dim"}


def validate(
    model: options.Models = None,
    checkpoint: options.Checkpoints = None,
    name: options.Name = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    recipe: options.Recipe = "clean",
    train_seed: options.TrainSeed = "1111",
    dataset: options.DatasetName = "synth",
    data: options.DataPath = None,
    text: options.TextKind = None,
    split: options.SplitName = "test",
    device: options.Device = "auto",
    references: Annotated[
        bool, typer.Option("--references/--no-references", help="Also check chance, and the oracle where there is one.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> int:
    """Check models before they are measured: deterministic, independent of the batch, finite, told absence respected.

    Takes about a second a model, on up to 64 samples of the split. ``msabench run`` does the same before it starts.
    """
    from robustbench_msa.cli.check_progress import CheckProgress
    from robustbench_msa.cli.display import print_json
    from robustbench_msa.cli.run import _seed
    from robustbench_msa.evaluation.preflight import label_of, preflight
    from robustbench_msa.run import resolve

    resolved = resolve(
        model or [],
        checkpoint or [],
        recipe=recipe,
        train_seed=_seed(train_seed),
        dataset=dataset,
        data=data,
        text=text,
        split=split,
        device=device,
        references=references,
        name=name,
        trust_checkpoint=trust_checkpoint,
    )
    found: list[tuple[Check, ...]] = []
    with CheckProgress(show=not (quiet or as_json)) as progress:
        for c in resolved.candidates:
            found.append(preflight(c.load(), resolved.inputs, subject=c.subject, covers=c.covers))
            progress.checked(label_of(c.subject), len(resolved.candidates))
    if as_json:
        print_json(to_json(resolved, found))
    elif not quiet:
        show(resolved, found)
    return _exit_code(resolved, found)


def show(resolved: Resolved, found: list[tuple[Check, ...]]) -> None:
    """A block a model: a line that counts, then a line a check."""
    from rich.text import Text

    from robustbench_msa.cli.display import console
    from robustbench_msa.evaluation.preflight import label_of

    inputs = resolved.inputs
    width = max(len(check.check) for checks in found for check in checks)
    for candidate, checks in zip(resolved.candidates, found, strict=True):
        counts = ", ".join(f"{n} {status}" for status in STYLES if (n := _count(checks, status)))
        where = f"{inputs.dataset.name}, {inputs.split} split"
        console.print(Text(f"{label_of(candidate.subject)} on {where}: {counts}", style="bold"), soft_wrap=True)
        for check in checks:
            line = Text.assemble(f"  {check.check:{width}}  ", (check.status, STYLES[check.status]), f"  {check.note}")
            console.print(line, soft_wrap=True)


def to_json(resolved: Resolved, found: list[tuple[Check, ...]]) -> dict[str, Any]:
    inputs = resolved.inputs
    models = [
        {
            **{name: getattr(candidate.subject, name) for name in ("model", "recipe", "train_seed", "checkpoint")},
            "passed": not _count(checks, "fail"),
            "flags": [check.check for check in checks if check.flagged],
            "checks": [check.to_json() for check in checks],
        }
        for candidate, checks in zip(resolved.candidates, found, strict=True)
    ]
    return {"dataset": inputs.dataset.name, "split": inputs.split, "device": str(inputs.device), "models": models}


def _count(checks: tuple[Check, ...], status: str) -> int:
    return sum(check.status == status for check in checks)


def _exit_code(resolved: Resolved, found: list[tuple[Check, ...]]) -> int:
    from robustbench_msa.evaluation.preflight import label_of

    failed = [
        f"{label_of(candidate.subject)}: {check.check} ({check.note})"
        for candidate, checks in zip(resolved.candidates, found, strict=True)
        for check in checks
        if check.status == "fail"
    ]
    if not failed:
        return 0
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    print(f"msabench: preflight failed: {failed[0]}{more}", file=sys.stderr)
    return 2
