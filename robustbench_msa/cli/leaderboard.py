"""``msabench leaderboard``: who stands where, over one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from robustbench_msa.reporting.leaderboard import Leaderboard

FORMS = ("terminal", "markdown", "csv", "latex", "json")


def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs on the same data.", metavar="RUN...")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric; repeat for several.", metavar="NAME")
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option("--score", help="nauc, worst, retention, clean, ...; repeat for several.", metavar="NAME"),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Sort by this stress, metric, score or several.", metavar="WORDS")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Model that ce divides by; default late_fusion.", metavar="NAME")
    ] = None,
    ties: Annotated[
        bool, typer.Option("--ties/--no-ties", help="Test what is tied with the best, from the predictions.")
    ] = True,
    with_published: Annotated[
        bool, typer.Option("--published", help="Also what papers print, in grey; a paper's name after it: that one's.")
    ] = False,
    form: Annotated[
        str, typer.Option("--format", "-f", help=f"{', '.join(FORMS[:-1])} or {FORMS[-1]}.", metavar="FORMAT")
    ] = "terminal",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the leaderboard of one or several runs: any score, intervals, ranks, ties, chance and oracle.

    Runs are merged as if one had made them; those that do not belong in one table are refused.

    What every column and mark is: docs/leaderboard.md

    Examples:

    msabench leaderboard reports/synth-rider

    msabench leaderboard reports/first reports/second --sort "missing mae" --score nauc --score worst

    msabench leaderboard reports/mosi-rider --published rider_moe --format latex --out table.tex
    """
    from robustbench_msa.cli.display import working
    from robustbench_msa.reporting.merged_board import merged_board

    form = "json" if as_json else form
    if form not in FORMS or (form == "terminal" and out is not None):
        raise typer.BadParameter(f"--format: expected {', '.join(FORMS)} (a file needs one of the last four)")
    runs, papers = split_papers(folders, with_published)
    with working("reading predictions, testing differences", True):
        board = merged_board(
            runs, metric, sort, scores=score, baseline=baseline, ties=ties, papers=papers if with_published else None
        )
    _print(board, form, out)


def split_papers(folders: list[Path], with_published: bool) -> tuple[list[Path], list[str]]:
    """Folders, and after --published names of papers, which are no folders.

    >>> split_papers([Path("reports/nowhere"), Path("emoe")], with_published=True)[1]
    ['emoe']
    """
    from robustbench_msa.published import PAPERS

    papers = [str(f) for f in folders if with_published and str(f) in PAPERS and not f.exists()]
    runs = [folder for folder in folders if str(folder) not in papers]
    if not runs:
        raise typer.BadParameter("expected the folder of a run (RUN...) beside --published")
    return runs, papers


def _print(board: Leaderboard, form: str, out: Path | None) -> None:
    from robustbench_msa.cli.display import console

    if form == "terminal":
        console.print(board.to_rich(width=console.width))
        return
    write = {"markdown": board.to_markdown, "csv": board.to_csv, "latex": board.to_latex, "json": board.to_json}
    text = write[form]()
    if out is None:
        print(text)
    else:
        from robustbench_msa.atomic import write_text

        write_text(out, text + "\n")
