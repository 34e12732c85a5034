"""``msabench export``: the corrupted inputs as files, for code that cannot be called from here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from robustbench_msa.evaluation.export import Room

EPILOG = """Examples:

msabench export --stress missing --grid 0:0.8:0.2 --out inputs

msabench export --dataset mosi --data aligned_50.pkl --protocol rider --seeds 3 --out inputs --format mmsa

Then run your code on every file, write cell, id and prediction to a csv, and: msabench score --inputs inputs ...

The same command continues an export that was stopped."""


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="A new or empty folder.", metavar="FOLDER")],
    stress: Annotated[
        list[str] | None,
        typer.Option(
            "--stress",
            "-s",
            help="A stress, parameters after a colon; A+B is A, then B; repeat for several.",
            metavar="NAME[:k=v]",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            "--grid", "-g", help="Severities: 0:0.8:0.2, 0,0.25,1 or AxB; default the paper's.", metavar="GRID"
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "-p", help="A named protocol, or a .toml file.", metavar="NAME")
    ] = None,
    modalities: Annotated[
        str | None,
        typer.Option(help="Restrict the stress to these, as in text or audio,vision.", metavar="NAMES"),
    ] = None,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset's name.", metavar="NAME")] = "synth",
    data: Annotated[Path | None, typer.Option(help="The dataset's file.", metavar="PATH")] = None,
    text: Annotated[
        str | None, typer.Option(help="Read text as features or tokens; default features.", metavar="KIND")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.", metavar="SPLIT")] = "test",
    seeds: Annotated[int, typer.Option(help="Number of corruption seeds (1111, 1112, ...).", metavar="N")] = 3,
    layout: Annotated[
        str, typer.Option("--format", "-f", help="npz, or mmsa (a pickle in the layout of MMSA).", metavar="FORMAT")
    ] = "npz",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the corrupted inputs of every cell as files, for code that cannot be called from here.

    One file a cell, the clean one included, and manifest.json with their hashes; msabench score takes predictions back.
    """
    from robustbench_msa.bridge import export as write
    from robustbench_msa.cli.display import Ticker, print_json, say
    from robustbench_msa.evaluation.export import size_text

    show = not (quiet or as_json)
    rooms: list[Room] = []
    with Ticker(show) as ticker:

        def started(room: Room) -> None:
            rooms.append(room)
            if show:
                more = "" if room.needed == room.size else f", {size_text(room.needed)} still to be written"
                say(f"{room.files} files, {size_text(room.size)} in all{more}; {size_text(room.free)} free -> {out}")
            ticker.begin(room.files, "files")

        done = write(
            out,
            stress or [],
            grid,
            protocol=protocol,
            modalities=modalities,
            dataset=dataset,
            data=data,
            text=text,
            split=split,
            seeds=seeds,
            layout=layout,
            command=shlex.join(["msabench", *sys.argv[1:]]),
            started=started,
            progress=ticker.tick,
        )
    files = {"written": done.files.written, "kept": done.files.kept}
    if as_json:
        print_json({"out": str(out), "complete": True, "files": files, "bytes": rooms[0].size})
    elif show:
        say(f"{files['written']} files written, {files['kept']} already there -> {out}")
        say(f"  next    msabench score --inputs {shlex.quote(str(out))} --predictions FILE.csv --model NAME")
