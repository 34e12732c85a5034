"""``msabench compare``: is one model really better than another?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples:

msabench compare reports/synth-rider

msabench compare reports/first reports/second --metric mae --format csv --out differences.csv

docs/statistics.md says what each interval and test is."""


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs on the same data.", metavar="RUN...")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A metric; repeat for several.", metavar="NAME")
    ] = None,
    score: Annotated[str, typer.Option(help="nauc or grid_mean.", metavar="NAME")] = "nauc",
    form: Annotated[str, typer.Option("--format", "-f", help="terminal or csv.", metavar="FORMAT")] = "terminal",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the CSV here.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all comparisons as JSON.")] = False,
) -> None:
    """Paired differences between all models of one or several runs, with intervals, Holm-adjusted p-values and ranks.

    Nothing is run again. Checkpoints are compared with checkpoints, methods (several training seeds) with methods; the
    inputs are shared, so differences are paired. Of few videos: see the note under the table.
    """
    from robustbench_msa.analysis.comparisons import compare as compare_lines
    from robustbench_msa.analysis.merged import open_tables
    from robustbench_msa.cli.display import console, print_json, say, working
    from robustbench_msa.reporting.comparison_table import comparison_frame, comparison_tables

    if score not in ("nauc", "grid_mean"):
        raise typer.BadParameter(f"--score: expected nauc or grid_mean, got {score!r}")
    if form not in ("terminal", "csv"):
        raise typer.BadParameter(f"--format: expected terminal or csv, got {form!r}")
    with working("comparing", not as_json):
        found = compare_lines(open_tables(folders))
    frame = comparison_frame(found.comparisons.to_pandas(), score, metric)
    if as_json:
        print_json(frame)
    elif form == "csv" or out is not None:
        text = frame.to_csv(index=False, lineterminator="\n")
        if out is None:
            print(text, end="")
        else:
            from robustbench_msa.atomic import write_text

            write_text(out, text)
            say(f"{len(frame)} comparisons -> {out}")
    else:
        for table in comparison_tables(frame):
            console.print(table)
