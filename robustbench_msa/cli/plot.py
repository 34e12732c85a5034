"""``msabench plot``: figures of a run. A table of what can be drawn; each row is a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    no_args_is_help=True,
    help="Draw severity curves, landscapes, or what happens inside the models of a run: PNG, PDF and the CSV behind.",
)
Folder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="A metric; repeat for several.", metavar="NAME")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Show this line, as MODEL, MODEL/RECIPE or MODEL/RECIPE/SEED; repeat.", metavar="NAME"
    ),
]
Width = Annotated[
    str | None, typer.Option(help="column (3.25 in), page (6.75 in), or inches; default as needed.", metavar="WIDTH")
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for the figures; default RUN/figures.", metavar="FOLDER")
]


class Figure(NamedTuple):
    """draw: module and function of robustbench_msa.reporting; example: what stands behind ``msabench plot NAME``."""

    draw: str
    help: str
    example: str


OF_TABLES = {
    "landscape": Figure(
        "run_figures.plot_landscapes",
        "Landscapes of two-axis stresses (spectrum): value per cell, iso-lines, clean at the lower left.",
        "reports/synth-spectrum --metric acc7",
    ),
    "comparison": Figure(
        "run_figures.plot_comparisons",
        "Every line against the best: paired differences with 95 % intervals, and who is tied after Holm.",
        "reports/synth-rider --metric mae --width column",
    ),
}
INSIDE = {
    "routing": Figure(
        "inside_figures.draw_routing",
        "Routing weights of experts against severity: their means, and how much they differ between samples.",
        "reports/synth-missing",
    ),
    "reliability": Figure(
        "inside_figures.draw_reliability",
        "Reliability scores r against severity and against the error (QA-MoE's validation).",
        "reports/synth-noise",
    ),
    "calibration": Figure(
        "inside_figures.draw_calibration",
        "Predicted variance under stress: likelihood, coverage of intervals, sparsification.",
        "reports/synth-noise --model qa_moe",
    ),
    "risk": Figure(
        "inside_figures.draw_risk",
        "Risk and coverage: the error of the most confident samples, by every confidence that a model offers.",
        "reports/synth-noise",
    ),
    "experts": Figure(
        "inside_figures.draw_experts",
        "On synth: correlations of experts' outputs with the true redundant, unique and synergistic factors.",
        "reports/synth-missing",
    ),
    "breaking": Figure(
        "inside_figures.draw_breaking",
        "Which modality's loss hurts most, and which samples flip their predicted sign first.",
        "reports/synth-missing",
    ),
}


def _of_tables(figure: Figure) -> Callable[..., None]:
    def command(
        folder: Folder, metric: Metrics = None, model: Models = None, width: Width = None, out: Out = None
    ) -> None:
        _draw(figure.draw, folder, out, width, models=model, metrics=metric)

    return command


def _inside(figure: Figure) -> Callable[..., None]:
    def command(folder: Folder, model: Models = None, width: Width = None, out: Out = None) -> None:
        _draw(figure.draw, folder, out, width, models=model)

    return command


@app.command()
def curves(
    folder: Folder,
    metric: Metrics = None,
    model: Models = None,
    only: Annotated[bool, typer.Option("--only", help="Leave out all lines but those of --model.")] = False,
    width: Width = None,
    out: Out = None,
) -> None:
    """Severity curves with 95 % bands, chance and oracle.

    Lines named by --model are coloured, the others grey. Without it all are coloured, or six where there are more: your
    own models first, then this package's trained on clean data.

    Example:  msabench plot curves reports/synth-missing --metric acc2_non0 --metric mae
    """
    _draw("run_figures.plot_curves", folder, out, width, models=model, metrics=metric, only=only)


@app.command()
def difference(
    folder: Folder,
    model: Annotated[list[str], typer.Option("--model", "-m", help="The model, or several.", metavar="NAME")],
    baseline: Annotated[str, typer.Option("--baseline", "-b", help="What is subtracted.", metavar="NAME")],
    metric: Metrics = None,
    stress: Annotated[
        str | None, typer.Option("--stress", "-s", help="Which, where several have two axes.", metavar="NAME[:k=v]")
    ] = None,
    width: Width = None,
    out: Out = None,
) -> None:
    """Landscapes of model minus baseline, paired at every point; dots where the 95 % interval leaves zero out.

    NAME is MODEL, MODEL/RECIPE or MODEL/RECIPE/SEED; by default the clean recipe, all training seeds together.

    Example:  msabench plot difference reports/synth-spectrum --model rider_moe --baseline qa_moe --metric mae
    """
    _draw(
        "run_figures.plot_differences",
        folder,
        out,
        width,
        models=model,
        baseline=baseline,
        metrics=metric,
        stress=stress,
    )


def _add(figures: dict[str, Figure], make: Callable[[Figure], Callable[..., None]]) -> None:
    """Each figure as a command."""
    for name, figure in figures.items():
        app.command(name, help=f"{figure.help}\n\nExample:  msabench plot {name} {figure.example}")(make(figure))


def _draw(draw: str, folder: Path, out: Path | None, width: str | None, **wanted: Any) -> None:
    """Calls a drawing function of robustbench_msa.reporting and says what it wrote."""
    from importlib import import_module

    from robustbench_msa.cli.display import say, working
    from robustbench_msa.reporting.style import parse_width

    module, _, name = draw.partition(".")
    inches = parse_width(width)
    with working("drawing", True):
        function = getattr(import_module(f"robustbench_msa.reporting.{module}"), name)
        stems = function(folder, out or folder / "figures", width=inches, **wanted)
    for stem in stems:
        say(f"{stem}.png (.pdf, .csv)")


_add(OF_TABLES, _of_tables)
_add(INSIDE, _inside)
