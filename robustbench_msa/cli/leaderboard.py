"""``msabench leaderboard``: the nAUC table of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leaderboard(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric; repeat for several.", metavar="NAME")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this stress or metric.", metavar="NAME")] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", help="terminal, markdown, csv or latex.", metavar="FORMAT")
    ] = "terminal",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the nAUC leaderboard of a run, with 95 % intervals, chance and oracle.

    Examples:

    msabench leaderboard reports/synth-rider

    msabench leaderboard reports/synth-rider --format latex --out table.tex
    """
    from robustbench_msa.cli.display import console, print_json
    from robustbench_msa.reporting.leaderboard import leaderboard as make
    from robustbench_msa.run import open_run

    run = open_run(folder)
    if as_json:
        print_json(run.nauc)
        return
    board = make(run.nauc, metrics=metric, sort=sort)
    forms = {"markdown": board.to_markdown, "csv": board.to_csv, "latex": board.to_latex}
    if form == "terminal" and out is None:
        console.print(board.to_rich(width=console.width))
        return
    if form not in forms:
        raise typer.BadParameter(
            f"--format: expected terminal, {', '.join(forms)} (a file needs one of the last three)"
        )
    text = forms[form]()
    if out is None:
        print(text)
    else:
        from robustbench_msa.atomic import write_text

        write_text(out, text + "\n")
