"""``msabench status``: how far a run has come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_msa.cli import options

SHOWN = 20  # ways to fail


def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    as_json: options.AsJson = False,
) -> int:
    """Say how many cells of a run are done, failed or missing, by model and stress, and how to continue.

    Example:  msabench status reports/synth-missing

    Exit code 0 when all planned cells are there, 3 when some are not.
    """
    from robustbench_msa.cli.display import console, print_json, say
    from robustbench_msa.evaluation.progress import progress_of
    from robustbench_msa.printable import printable

    report = progress_of(folder)
    if as_json:
        print_json(report.to_json())
    else:
        console.print(report.to_rich())
        for line in failures(report.failures):
            say(f"  failed  {printable(line)}")
        if report.quarantined:
            say(f"  {report.quarantined} unreadable files were set aside in {folder / 'quarantine'}")
        if not report.complete:
            say(f"  to continue: {printable(report.command)}")
    return 0 if report.complete else 3


def failures(messages: dict[str, str]) -> list[str]:
    """A line for each way to fail, most frequent first, with the key of a cell that did.

    >>> failures({"a1": "OSError: x", "b2": "RuntimeError: y", "c3": "RuntimeError: y"})
    ['b2 and 1 more: RuntimeError: y', 'a1: OSError: x']
    """
    keys: dict[str, list[str]] = {}
    for key in sorted(messages):
        keys.setdefault(messages[key], []).append(key)
    ways = sorted(keys.items(), key=lambda way: -len(way[1]))
    lines = [f"{cells[0]}{f' and {len(cells) - 1} more' if cells[1:] else ''}: {message}" for message, cells in ways]
    rest = f"... and {len(lines) - SHOWN} more ways to fail (--json has all)"
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], rest]
