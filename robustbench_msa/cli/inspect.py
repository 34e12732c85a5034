"""``msabench inspect``: what a file or folder of data holds, and what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from robustbench_msa.data.array_facts import FieldFacts, LabelFacts
    from robustbench_msa.data.inspection import Inspection, SplitFacts

EPILOG = """Examples:

msabench inspect aligned_50.pkl

msabench inspect MIntRec/ --json

Nothing in a file is run. The exit code is 0 also for data that would be refused (the reason is shown), and 2 for what
is no dataset at all."""


def inspect(
    path: Annotated[Path, typer.Argument(help="A pickle, .npz, HDF5 file, or folder.", metavar="PATH")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a file holds: splits, shapes, lengths, padding, broken values, labels; and what to type next."""
    from dataclasses import asdict

    from robustbench_msa.cli.display import print_json, working
    from robustbench_msa.data.inspection import inspect_path

    with working(f"reading {path.name}", not as_json):
        found = inspect_path(path)
    if as_json:
        print_json(asdict(found))
        return
    _show(found)


def _show(found: Inspection) -> None:
    from rich.markup import escape

    from robustbench_msa.cli.display import console, say, size_in_words

    where = f"[bold]{escape(found.path)}[/bold]  {escape(found.kind)}"
    console.print(f"{where}, {size_in_words(found.bytes)}", soft_wrap=True)
    if found.likely is not None:
        sizes = "/".join(map(str, found.likely.sizes))
        says = {"exact": "match", "nearly": "nearly match", "no": "do not match"}[found.likely.match]
        say(f"looks like {found.likely.title}: {found.likely.because}; the published {sizes} clips {says}")
    for s in found.splits:
        title = s.name if s.key == s.name else f"{s.name} ({s.key})"
        repeated = f", {s.repeated} ids repeated" if s.repeated else ""
        console.print(f"\n[bold]{escape(title)}[/bold]  {s.samples:,} samples in {s.groups:,} groups{repeated}")
        if s.fields:
            console.print(_fields(s))
    if any(s.labels for s in found.splits):
        console.print(_labels(found))
    for line in (line for s in found.splits for lab in s.labels[:1] for line in _classes(s.name, lab)):
        say(line)
    refused = (found.refusal,) if found.refusal is not None else ()
    sections = {"odd": found.findings, "remarks": found.notes, "would be refused": refused, "next": found.next}
    for title, lines in sections.items():
        if lines:
            console.print(f"[bold]{title}[/bold]")
        for line in lines:
            say(f"  {line}")


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _fields(s: SplitFacts) -> Table:
    from rich.markup import escape

    table = _table("field", "shape", "dtype", "valid steps", "padding", "absent", "broken")
    for f in s.fields:
        shape = "x".join(map(str, f.shape))
        cells = (f.name, shape, f.dtype, _steps(f), f.padding, _absent(f, s.samples), _broken(f))
        table.add_row(*map(escape, cells))
    return table


def _steps(f: FieldFacts) -> str:
    """Shortest, median, longest."""
    if f.lengths is None:
        return "" if len(f.shape) < 2 or f.shape[1] == 1 or f.name == "text_bert" else "not stated"
    return f"{f.lengths.shortest} / {f.lengths.median:g} / {f.lengths.longest}"


def _broken(f: FieldFacts) -> str:
    return ", ".join(f"{n:,} {what}" for n, what in ((f.nan, "NaN"), (f.minus_inf, "-inf"), (f.plus_inf, "+inf")) if n)


def _absent(f: FieldFacts, samples: int) -> str:
    if f.present is not None and f.present < 1:
        return f"{1 - f.present:.1%}"
    return f"{f.empty / samples:.1%} zero" if f.empty and samples else ""


def _labels(found: Inspection) -> Table:
    table = _table("\nsplit", "\nlabels", "\nlowest", "\nhighest", "\nmean", "\nsd", "\nzeros", "\npositive")
    for s in found.splits:
        for lab in s.labels:
            numbers = (f"{lab.low:.4g}", f"{lab.high:.4g}", f"{lab.mean:.3f}", f"{lab.deviation:.3f}")
            table.add_row(s.name, lab.key, *numbers, f"{lab.zeros:,}", f"{lab.positive:,}")
    return table


def _classes(split: str, lab: LabelFacts) -> list[str]:
    counts = " ".join(f"{name}:{count}" for name, count in lab.classes.items())
    return [f"{split} classes  {counts}"] if lab.whole and lab.classes else []
