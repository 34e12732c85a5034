"""``msabench score``: predictions that other code made on exported inputs, taken into a run's tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_msa.cli import options

if TYPE_CHECKING:
    from robustbench_msa.bridge import Scored

EPILOG = """Examples:

msabench score --inputs inputs --predictions predictions.csv --model their_model

msabench score --inputs inputs --predictions seed7.npz --model their_model --recipe clean --train-seed 7 --out RUN

The file has cell (a file's name without its ending), id and prediction: one row for each id of each file."""

NAMED = 5


def score(
    inputs: Annotated[Path, typer.Option("--inputs", "-i", help="The folder of the export.", metavar="FOLDER")],
    predictions: Annotated[Path, typer.Option("--predictions", help="A .csv, .npz or .parquet file.", metavar="FILE")],
    model: Annotated[str, typer.Option("--model", "-m", help="What to call the model in tables.", metavar="NAME")],
    recipe: Annotated[str, typer.Option(help="How it was trained, as in clean.", metavar="TEXT")] = "",
    train_seed: Annotated[
        int | None, typer.Option("--train-seed", help="Its training seed; several are averaged.", metavar="SEED")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run; default that of msabench run.", metavar="RUN"),
    ] = None,
    references: Annotated[bool, typer.Option("--references/--no-references", help="Also add chance.")] = True,
    plots: options.Plots = True,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> int:
    """Score what other code predicted on exported inputs, beside everything else in the run's folder.

    Exit code 3: some cells have no predictions; the tables hold what is there.
    """
    from robustbench_msa.bridge import score_predictions
    from robustbench_msa.cli.display import working

    show = not (quiet or as_json)
    command = shlex.join(["msabench", *sys.argv[1:]])
    with working("scoring", show):
        scored = score_predictions(
            inputs,
            predictions,
            model,
            recipe=recipe,
            train_seed=train_seed,
            out=out,
            references=references,
            command=command,
        )
    figures = _figures(scored, show) if plots else []
    if as_json:
        _print_json(scored, figures)
    elif show:
        _print(scored, figures)
    return _exit_code(scored, predictions)


def _figures(scored: Scored, show: bool) -> list[Path]:
    """What there is to draw: of an incomplete result that may be nothing."""
    from corruptions.errors import InputError
    from robustbench_msa.cli.run import draw

    try:
        return draw(scored.result, show)
    except InputError:
        if not scored.missing:
            raise
        return []


def _print(scored: Scored, figures: list[Path]) -> None:
    from corruptions.errors import InputError
    from robustbench_msa.cli.display import say
    from robustbench_msa.cli.run import print_tables

    result = scored.result
    try:
        print_tables(result)
    except InputError as error:
        if not scored.missing:
            raise
        say(f"no table yet: {error}")
    say(f"{result.tally.computed} cells added, {result.tally.reused} already there -> {result.out}")
    if scored.nonfinite:
        say(f"  {scored.nonfinite} predictions are NaN or infinite: wrong in accuracies, MAE and Corr are null")
    if scored.missing:
        say(f"  missing {', '.join(scored.missing)}")
    for stem in figures:
        say(f"  figure  {stem}.png (.pdf, .csv)")
    say(f"  next    msabench leaderboard {shlex.quote(str(result.out))}")


def _print_json(scored: Scored, figures: list[Path]) -> None:
    from robustbench_msa.cli.display import print_json

    result, tally = scored.result, scored.result.tally
    print_json(
        {
            "out": str(result.out),
            "complete": tally.complete,
            "cells": {"planned": tally.planned, "reused": tally.reused, "computed": tally.computed},
            "missing": list(scored.missing),
            "nonfinite": scored.nonfinite,
            "figures": [f"{stem}.png" for stem in figures],
            "nauc": result.nauc,
        }
    )


def _exit_code(scored: Scored, predictions: Path) -> int:
    """Says which cells have no predictions, the first few of them; all are in what was printed."""
    if not scored.missing:
        return 0
    some = ", ".join(scored.missing[:NAMED]) + (", ..." if len(scored.missing) > NAMED else "")
    left = f"{len(scored.missing)} cells have no predictions: {some}"
    print(f"msabench: {left}; add them to {predictions} and score again", file=sys.stderr)
    return 3
