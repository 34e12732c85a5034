"""``msabench plot``: figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

app = typer.Typer(
    no_args_is_help=True, help="Draw severity curves or landscapes of a run, as PNG, PDF and the CSV behind."
)
Folder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="A metric; repeat for several.", metavar="NAME")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for the figures; default RUN/figures.", metavar="FOLDER")
]


@app.command()
def curves(folder: Folder, metric: Metrics = None, out: Out = None) -> None:
    """Severity curves with 95 % bands, chance and oracle.

    Example:  msabench plot curves reports/synth-missing --metric acc2_non0 --metric mae
    """
    from robustbench_msa.reporting.figures import draw_curves

    _draw(draw_curves, folder, metric, out)


@app.command()
def landscape(folder: Folder, metric: Metrics = None, out: Out = None) -> None:
    """Reliability landscapes of two-axis stresses (spectrum): value per cell, clean at the lower left.

    Example:  msabench plot landscape reports/synth-spectrum --metric acc7
    """
    from robustbench_msa.reporting.figures import draw_landscapes

    _draw(draw_landscapes, folder, metric, out)


def _draw(
    draw: Callable[[pd.DataFrame, Path, list[str] | None], list[Path]],
    folder: Path,
    metric: list[str] | None,
    out: Path | None,
) -> None:
    from robustbench_msa.cli.display import say, working
    from robustbench_msa.run import open_run

    run = open_run(folder)
    with working("drawing", True):
        stems = draw(run.curves, out or folder / "figures", metric)
    for stem in stems:
        say(f"{stem}.png (.pdf, .csv)")
