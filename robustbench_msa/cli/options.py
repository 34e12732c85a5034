"""Options that several commands share: one name, one letter, one help text wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Stresses = Annotated[
    list[str] | None,
    typer.Option(
        "--stress",
        "-s",
        help="A stress, parameters after a colon; A+B is A, then B; repeat for several.",
        metavar="NAME[:k=v]",
    ),
]
GridText = Annotated[
    str | None,
    typer.Option("--grid", "-g", help="Severities: 0:0.8:0.2, 0,0.25,1 or AxB; default the paper's.", metavar="GRID"),
]
ProtocolName = Annotated[
    str | None, typer.Option("--protocol", "-p", help="A named protocol, or a .toml file.", metavar="NAME")
]
Modalities = Annotated[
    str | None, typer.Option(help="Restrict the stress to these, as in text or audio,vision.", metavar="NAMES")
]
DatasetName = Annotated[str, typer.Option("--dataset", "-d", help="The dataset's name.", metavar="NAME")]
DataPath = Annotated[Path | None, typer.Option(help="The dataset's file.", metavar="PATH")]
TextKind = Annotated[
    str | None, typer.Option(help="Read text as features or tokens; default features.", metavar="KIND")
]
SplitName = Annotated[str, typer.Option(help="train, valid or test.", metavar="SPLIT")]
Seeds = Annotated[int, typer.Option(help="Number of corruption seeds (1111, 1112, ...).", metavar="N")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", metavar="DEVICE")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="A model's name, FILE.py:FUNCTION or mmsa:NAME; repeat for several.", metavar="NAME"
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint", "-c", help="A checkpoint's folder; weights for FILE.py; hub://OWNER/NAME.", metavar="PATH"
    ),
]
Name = Annotated[str | None, typer.Option(help="What tables call a model of your own.", metavar="NAME")]
TrustCheckpoint = Annotated[
    bool, typer.Option("--trust-checkpoint", help="Run what the checkpoint asks for: pickles are programs.")
]
Recipe = Annotated[str, typer.Option(help="How the checkpoint was trained.", metavar="NAME")]
TrainSeed = Annotated[str, typer.Option(help="Its training seed, or all.", metavar="SEED")]
Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the figures at the end.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
