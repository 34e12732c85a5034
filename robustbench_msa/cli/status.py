"""``msabench status``: how far a run has come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_msa.cli import options


def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    as_json: options.AsJson = False,
) -> int:
    """Say which cells of a run are done, missing or failed, and how to continue.

    Example:  msabench status reports/synth-missing

    Exit code 0 when all planned cells are there, 3 when some are not.
    """
    from robustbench_msa.cli.display import console, print_json, say
    from robustbench_msa.evaluation.progress import progress_of

    report = progress_of(folder)
    if as_json:
        print_json(report.to_json())
    else:
        console.print(report.to_rich())
        for key, message in report.failures.items():
            say(f"  failed  {key}  {message}")
        if report.quarantined:
            say(f"  {report.quarantined} unreadable files were set aside in {folder / 'quarantine'}")
        if not report.complete:
            say(f"  to continue: {report.command}")
    return 0 if report.complete else 3
