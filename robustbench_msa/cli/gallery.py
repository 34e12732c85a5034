"""``msabench gallery``: a page with every picture that a run has data for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gallery(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The page; its pictures go beside it.", metavar="FILE.md")
    ] = Path("gallery.md"),
) -> None:
    """Write a page of all pictures of a run: what each shows, how to make it and how to read it, with its numbers.

    Pictures go to figures/gallery beside the page. What the run has no data for is left out.

    Example:  msabench gallery reports/gallery --out docs/gallery.md
    """
    from corruptions import InputError
    from robustbench_msa.cli.display import Ticker, say
    from robustbench_msa.reporting.gallery_exhibits import EXHIBITS
    from robustbench_msa.reporting.result_gallery import write_gallery

    if out.is_dir():
        raise InputError(f"--out {out}: that is a folder; expected a file's name, as in {out / 'gallery.md'}")
    with Ticker(True) as ticker:
        ticker.begin(len(EXHIBITS), "pictures")
        written = write_gallery(folder, out, ticker.tick)
    for path in written:
        say(str(path))
