"""``msabench convert``: read a dataset once, keep it as a folder that is mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Example:

msabench convert unaligned_50.pkl --dataset mosei --out mosei.msa

msabench run --model qa_moe --dataset mosei --data mosei.msa --stress missing

Results are the same cells as those of the source: its fingerprint is kept. A conversion that was stopped leaves nothing
that is taken for a dataset; the same command starts it again."""


def convert(
    source: Annotated[Path, typer.Argument(help="A pickle, .npz, HDF5 file, or folder.", metavar="SOURCE")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset's name.", metavar="NAME")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write, NAME.msa.", metavar="FOLDER")],
    text: Annotated[
        str | None, typer.Option(help="Read text as features or tokens; default features.", metavar="KIND")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Convert a dataset to plain arrays that are mapped, not read: opened at once, shared, larger than memory."""
    import os

    from corruptions import InputError
    from robustbench_msa.cli.display import say, working
    from robustbench_msa.data.registry import load_dataset
    from robustbench_msa.data.stored import write_stored

    if os.path.lexists(out):  # said before minutes of reading
        raise InputError(f"{out}: is already there; remove it, or choose another --out")
    with working(f"reading {source.name}", not quiet):
        loaded = load_dataset(dataset, source, text)
    with working(f"writing {out} and reading it back", not quiet):
        write_stored(loaded, out)
    if not quiet:
        for note in loaded.notes:
            say(note)
        sizes = "/".join(str(len(batch)) for batch in loaded.splits.values())
        say(f"{out}: {loaded.name}, {sizes} samples, fingerprint {loaded.fingerprint[:12]}; now type --data {out}")
