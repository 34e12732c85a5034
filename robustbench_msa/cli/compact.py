"""``msabench compact``: a run's many small files in few large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_msa.cli import options


def compact(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Gather the predictions of finished cells in few large files; every table stays the same.

    Example:  msabench compact reports/synth-missing

    Runs may write into the folder meanwhile, and everything continues as before: the same columns and rows, read by
    anything that reads Parquet. Worth it from some thousand cells on. Stopped at any moment, it loses nothing.
    """
    from dataclasses import asdict

    from robustbench_msa.cli.display import Ticker, print_json, say
    from robustbench_msa.evaluation.compaction import compact as gather

    show = not (quiet or as_json)
    with Ticker(show) as ticker:

        def read(done: int, total: int) -> None:
            if not ticker.total:
                ticker.begin(total, "gathering cells")
            while ticker.done < done:
                ticker.tick("gathering cells")

        found = gather(folder, progress=read if show else None)
    if as_json:
        print_json(asdict(found))
    elif show:
        (before, after), (was, now) = found.files, found.bytes
        say(f"{found.cells} cells, {found.gathered} gathered: {_files(before, was)} -> {_files(after, now)}")
        if found.damaged:
            aside = f"{found.damaged} damaged cells were set aside in {folder / 'quarantine'}"
            say(f"  {aside}; the same msabench run makes them again")


def _files(count: int, size: int) -> str:
    from robustbench_msa.cli.display import size_in_words

    return f"{count} file{'' if count == 1 else 's'} of {size_in_words(size)}"
