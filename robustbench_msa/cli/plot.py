"""``msabench plot``: figures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

app = typer.Typer(
    no_args_is_help=True,
    help="Draw severity curves, landscapes, or what happens inside the models of a run: PNG, PDF and the CSV behind.",
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


@app.command()
def routing(folder: Folder, out: Out = None) -> None:
    """Routing weights of experts against severity: their means, and how much they differ between samples.

    Example:  msabench plot routing reports/synth-missing
    """
    from robustbench_msa.reporting.inside_figures import draw_routing

    _draw_inside(draw_routing, folder, out)


@app.command()
def reliability(folder: Folder, out: Out = None) -> None:
    """Reliability scores r against severity and against the error (QA-MoE's validation).

    Example:  msabench plot reliability reports/synth-noise
    """
    from robustbench_msa.reporting.inside_figures import draw_reliability

    _draw_inside(draw_reliability, folder, out)


@app.command()
def calibration(folder: Folder, out: Out = None) -> None:
    """Predicted variance under stress: likelihood, coverage of intervals, sparsification.

    Example:  msabench plot calibration reports/synth-noise
    """
    from robustbench_msa.reporting.inside_figures import draw_calibration

    _draw_inside(draw_calibration, folder, out)


@app.command()
def risk(folder: Folder, out: Out = None) -> None:
    """Risk and coverage: the error of the most confident samples, by every confidence that a model offers.

    Example:  msabench plot risk reports/synth-noise
    """
    from robustbench_msa.reporting.inside_figures import draw_risk

    _draw_inside(draw_risk, folder, out)


@app.command()
def experts(folder: Folder, out: Out = None) -> None:
    """On synth: correlations of experts' outputs with the true redundant, unique and synergistic factors.

    Example:  msabench plot experts reports/synth-missing
    """
    from robustbench_msa.reporting.inside_figures import draw_experts

    _draw_inside(draw_experts, folder, out)


@app.command()
def breaking(folder: Folder, out: Out = None) -> None:
    """Which modality's loss hurts most, and which samples flip their predicted sign first.

    Example:  msabench plot breaking reports/synth-missing
    """
    from robustbench_msa.reporting.inside_figures import draw_breaking

    _draw_inside(draw_breaking, folder, out)


def _draw_inside(draw: Callable[[Path, Path], list[Path]], folder: Path, out: Path | None) -> None:
    from robustbench_msa.cli.display import say, working

    with working("drawing", True):
        stems = draw(folder, out or folder / "figures")
    for stem in stems:
        say(f"{stem}.png (.pdf, .csv)")


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
