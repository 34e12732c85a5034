"""``msabench report``: one self-contained HTML page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples:

msabench report reports/synth-rider

msabench report reports/synth-rider --metric mae --metric acc7 --out rider.html

msabench report reports/first reports/second --out both.html

msabench report reports/synth-rider --paper paper

docs/report.md says what stands in the page."""


def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs on the same data.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; default RUN/report.html.", metavar="FILE")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric; repeat for several.", metavar="NAME")
    ] = None,
    paper: Annotated[
        Path | None, typer.Option(help="Also write tables and figures for a paper here.", metavar="FOLDER")
    ] = None,
) -> None:
    """Make one HTML page of a run: leaderboard, curves, landscapes, what happens inside, provenance, how to cite.

    The page is one file that loads nothing from anywhere: mail it, put it on a server, print it. Nothing is run again.
    Several runs on the same data make one page.
    """
    from robustbench_msa.cli.display import Ticker, say
    from robustbench_msa.reporting.html_report import STEPS, write_report

    if out is not None and out.is_dir():
        raise typer.BadParameter(f"--out: expected a file, got the folder {out} (try {out / 'report.html'})")
    with Ticker(True) as ticker:
        ticker.begin(len(STEPS), "report")
        page = write_report(folders, out, metric, ticker.tick)
    say(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    if paper is not None:
        from robustbench_msa.reporting.paper import write_paper

        for path in write_paper(folders, paper, metric):
            say(str(path))
