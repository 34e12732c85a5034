"""``msabench export``: the corrupted inputs as files, for code that cannot be called from here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_msa.cli import options

if TYPE_CHECKING:
    from robustbench_msa.evaluation.export import Room

EPILOG = """Examples:

msabench export --stress missing --grid 0:0.8:0.2 --out inputs

msabench export --dataset mosi --data aligned_50.pkl --protocol rider --seeds 3 --out inputs --format mmsa

Then run your code on every file, write cell, id and prediction to a csv, and: msabench score --inputs inputs ...

The same command continues an export that was stopped."""


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="A new or empty folder.", metavar="FOLDER")],
    stress: options.Stresses = None,
    grid: options.GridText = None,
    protocol: options.ProtocolName = None,
    modalities: options.Modalities = None,
    dataset: options.DatasetName = "synth",
    data: options.DataPath = None,
    text: options.TextKind = None,
    split: options.SplitName = "test",
    seeds: options.Seeds = 3,
    layout: Annotated[
        str, typer.Option("--format", "-f", help="npz, or mmsa (a pickle in the layout of MMSA).", metavar="FORMAT")
    ] = "npz",
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
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
