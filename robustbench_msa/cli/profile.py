"""``msabench profile``: what models cost at inference."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from math import floor, log10
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_msa.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from corruptions import Batch
    from robustbench_msa.analysis.efficiency import Cost, Shapes, Subject
    from robustbench_msa.data.dataset import Dataset

WIDTH = 100  # of the table, where there is no terminal to fill
FORMATS = {"terminal": "", "markdown": ".md", "csv": ".csv", "json": ".json"}
HEADS = (
    *("Model", "Params", "Active", "FLOPs", "Batch", "ms", "quartiles", "Per s", "Encode", "Fuse", "Saved", "+MiB"),
)
Three = tuple[int, int, int]


def profile(
    model: options.Models = None,
    preset: Annotated[
        str | None, typer.Option(help="Sizes, with random weights; default the dataset's.", metavar="NAME")
    ] = None,
    checkpoint: options.Checkpoints = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Use its test split; default random input.", metavar="NAME")
    ] = None,
    data: options.DataPath = None,
    dims: Annotated[
        str | None,
        typer.Option(help="Features of text, audio, vision, as 768,74,35; default synth's.", metavar="T,A,V"),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Steps of text, audio, vision, as 50,50,50; default synth's.", metavar="T,A,V")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option("--batch-size", help="Default 16 and 64; repeat for several.", metavar="N")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed calls at each batch size.", metavar="N")] = 30,
    warmup: Annotated[int, typer.Option(help="Calls before that do not count.", metavar="N")] = 5,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory.")] = True,
    device: options.Device = "auto",
    form: Annotated[
        str | None, typer.Option("--format", "-f", help="terminal, markdown, csv or json.", metavar="FORMAT")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this file: .md, .csv or .json.", metavar="FILE")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure parameters, FLOPs, latency, throughput and peak memory of models; docs/efficiency.md says what each is.

    Examples:

    msabench profile --model qa_moe --model rider_moe

    msabench profile --model qa_moe --preset mosi --dims 768,74,35 --steps 50,50,50 --batch-size 16

    msabench profile --checkpoint checkpoints/synth/qa_moe/clean/1111 --dataset synth --out cost.md
    """
    from robustbench_msa.analysis.efficiency import machine, measure, ticks
    from robustbench_msa.cli.display import Ticker
    from robustbench_msa.run import resolve_device

    shape = (_form("json" if as_json else form, out), out)
    where = resolve_device(device)
    sizes = tuple(dict.fromkeys(batch_size or (16, 64)))
    load = _loader(dataset, data)
    subjects = _subjects(model or [], checkpoint or [], preset, load, _three("--dims", dims), _three("--steps", steps))
    inputs = [_inputs(subject, load, sizes) for subject in subjects]
    costs = []
    with Ticker(show=not (quiet or as_json)) as ticker:
        ticker.begin(ticks(len(subjects), sizes, where, memory), "measuring")
        for subject, given in zip(subjects, inputs, strict=True):
            costs.append(measure(subject, sizes, where, given, repeats, warmup, memory, ticker.tick))
    about = machine(where) | {"repeats": repeats, "warmup": warmup, "input": _input(dataset, subjects)}
    _show(costs, about, *shape)


Load = Callable[[bool], "Dataset | None"]
"""The dataset, if there is one; True: with its text as token ids."""


def _loader(dataset: str | None, data: Path | None) -> Load:
    from functools import cache

    from robustbench_msa.data.registry import load_dataset

    if dataset is None and data is not None:
        raise typer.BadParameter("--data: expected --dataset NAME beside it")
    return cache(lambda tokens: None if dataset is None else load_dataset(dataset, data, "tokens" if tokens else None))


def _subjects(
    models: list[str], folders: list[Path], preset: str | None, load: Load, dims: Three | None, steps: Three | None
) -> list[Subject]:
    """Checkpoints, and presets of the models that have none among them. Raises InputError for anything unusable."""
    from corruptions import InputError
    from robustbench_msa.models.checkpoint import read_checkpoint
    from robustbench_msa.models.registry import TOKENS, model_class

    if not models and not folders:
        raise InputError("no model: give --model NAME (msabench list models) or --checkpoint FOLDER")
    checkpoints = [read_checkpoint(folder) for folder in dict.fromkeys(folders)]
    for checkpoint in checkpoints:
        if models and checkpoint.model not in models:
            raise InputError(f"{checkpoint.path} holds a {checkpoint.model}, but --model says {', '.join(models)}")
    names = [n for n in dict.fromkeys(models) if n not in {checkpoint.model for checkpoint in checkpoints}]
    for name in names:
        if model_class(name).name.endswith(TOKENS):
            raise InputError(f"{name}: expected a --checkpoint of it, for its text backbone is part of what it costs")
    if preset is not None and not names:
        raise InputError(f"--preset {preset}: a checkpoint brings its own sizes; leave it out, or name another --model")
    if load(False) is not None and (dims or steps):
        raise InputError("--dims and --steps: the dataset has its own; leave them out, or leave out --dataset")
    given = [_of_preset(name, preset, load(False), dims, steps) for name in names]
    return given + [_of_checkpoint(checkpoint.path, load, dims, steps) for checkpoint in checkpoints]


def _of_preset(name: str, preset: str | None, data: Dataset | None, dims: Three | None, steps: Three | None) -> Subject:
    from dataclasses import replace

    from robustbench_msa.analysis.efficiency import Shapes, Subject, shapes_of
    from robustbench_msa.models.contract import InputSpec
    from robustbench_msa.models.registry import model_class
    from robustbench_msa.training.settings import choose_preset

    cls = model_class(name)
    if data is not None:
        shapes, family = shapes_of(data.splits["test"]), data.name
    else:
        shapes, family = Shapes(dims or _synth().dims, steps or _synth().steps), "mosi" if dims else "synth"
    chosen = choose_preset(cls, preset, family)
    spec = InputSpec(shapes.dims, derived={key: d for key, (_, d) in shapes.derived.items()})
    reads = Subject(name, chosen, spec, shapes).hollow().derived_inputs()  # the rest is no part of it, as in training
    return Subject(name, chosen, replace(spec, derived={key: spec.derived[key] for key in reads}), shapes)


def _of_checkpoint(folder: Path, load: Load, dims: Three | None, steps: Three | None) -> Subject:
    from corruptions import InputError
    from robustbench_msa.analysis.efficiency import Shapes, Subject, shapes_of
    from robustbench_msa.models.checkpoint import check_fits, read_checkpoint
    from robustbench_msa.models.contract import InputSpec

    checkpoint = read_checkpoint(folder)
    spec = checkpoint.config["arguments"]["spec"]
    data = load(not checkpoint.dims[0])
    if data is not None:
        check_fits(checkpoint, data)
        shapes = shapes_of(data.splits["test"])
    elif dims and dims != checkpoint.dims:
        raise InputError(f"{checkpoint.label}: the checkpoint has dims {checkpoint.dims}, not --dims {dims}")
    else:
        at = steps or _synth().steps
        shapes = Shapes(checkpoint.dims, at, {name: (at[0], d) for name, d in spec.get("derived", {}).items()})
    derived = spec.get("derived", {})
    return Subject(
        checkpoint.model, checkpoint.config["preset"], InputSpec(shapes.dims, derived=derived), shapes, folder
    )


def _synth() -> Shapes:
    from robustbench_msa.analysis.efficiency import Shapes
    from robustbench_msa.data.synth import SynthModel

    made = SynthModel.default()
    t, a, v = made.text, made.audio, made.vision
    return Shapes((len(t.loadings), len(a.loadings), len(v.loadings)), (t.steps, a.steps, v.steps))


def _inputs(subject: Subject, load: Load, sizes: Sequence[int]) -> Callable[[int], Batch] | None:
    from corruptions import InputError

    data = load(not subject.shapes.dims[0])
    if data is None:
        return None
    test = data.splits["test"]
    if max(sizes) > len(test):
        raise InputError(f"--batch-size {max(sizes)}: {data.name}'s test split has {len(test)} samples")
    return lambda n: test.rows(slice(0, n))


def _three(option: str, text: str | None) -> Three | None:
    """``768,74,35`` as numbers."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and 0 < int(part) < 10**6 for part in parts):
        raise typer.BadParameter(
            f"{option}: expected three whole numbers of text, audio, vision, as 50,50,50; got {text!r}"
        )
    t, a, v = map(int, parts)
    return t, a, v


def _form(form: str | None, out: Path | None) -> str:
    """The format: as said, or as the file's name ends, or for the terminal. Raises where no file can be written."""
    from corruptions import InputError

    if form is None and out is not None:
        form = next((name for name, end in FORMATS.items() if end and out.suffix.lower() == end), "")
    form = form or ("terminal" if out is None else "")
    if form not in FORMATS or (out is not None and form == "terminal"):
        raise typer.BadParameter(
            f"--format: expected {', '.join(FORMATS)} (a file, .md, .csv or .json, is one of the last three)"
        )
    if out is not None:
        there = next(path for path in (out, *out.absolute().parents) if path.exists())
        if out.is_dir() or (there != out and not there.is_dir()):
            raise InputError(f"--out {out}: expected a file's name, in a folder ({there} is in the way)")
    return form


def _input(dataset: str | None, subjects: Sequence[Subject]) -> str:
    if dataset is not None:
        return f"{dataset}, test split"
    shapes = list(dict.fromkeys((s.shapes.dims, s.shapes.steps) for s in subjects))
    texts = [" ".join(f"{t}x{d or 'ids'}" for d, t in zip(d3, t3, strict=True)) for d3, t3 in shapes]
    return f"random, steps x features of text, audio, vision {' or '.join(texts)}"


def _show(costs: Sequence[Cost], about: dict[str, Any], form: str, out: Path | None) -> None:
    from robustbench_msa.atomic import write_text
    from robustbench_msa.cli.display import console, say

    if form == "terminal":
        table = to_rich(costs)
        if console.is_terminal:
            console.print(table)
        else:
            print(_plain(table), end="")
        say(fill(caption(about), WIDTH))
        return
    text = {"markdown": to_markdown, "csv": to_csv, "json": to_json}[form](costs, about)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        say(str(out))


def caption(about: dict[str, Any]) -> str:
    """Where and how it was measured."""
    gpu = "" if about["device"] == "cpu" else f" and {about['device']} (CUDA {about['cuda']})"
    load = "" if about["load"] is None else f", load {about['load']}"
    return (
        f"{about['cpu']}{gpu}, {about['cores']} cores, {about['threads']} torch threads{load}, torch {about['torch']}. "
        f"Medians and quartiles of {about['repeats']} calls after {about['warmup']}, float32. "
        f"Input: {about['input']}. +MiB: {about['memory']}, above what there is without a model. "
        "NAME:PRESET has random weights, NAME/DATASET is a checkpoint."
    )


def cells(cost: Cost) -> list[list[str]]:
    """One line a batch size, in the order of HEADS; what is of the model alone stands in the first."""
    own = [cost.subject.label, *map(short, (cost.parameters, cost.active_parameters, cost.flops_per_sample))]
    lines = []
    for i, at in enumerate(cost.batches):
        times = [digits(at.latency.median), f"{digits(at.latency.q1)}-{digits(at.latency.q3)}"]
        speed = [f"{at.samples_per_second:,.0f}", digits(at.encode.median), digits(at.fuse.median), f"{at.saved:.0%}"]
        memory = "-" if at.memory is None else digits(at.memory.above)
        lines.append([*(own if i == 0 else [""] * 4), str(at.batch_size), *times, *speed, memory])
    return lines


def to_rich(costs: Sequence[Cost]) -> Table:
    """A table that fits 100 columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for i, head in enumerate(HEADS):
        table.add_column(head, justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
    for cost in costs:
        for line in cells(cost):
            table.add_row(*line)
    return table


def to_markdown(costs: Sequence[Cost], about: dict[str, Any]) -> str:
    from robustbench_msa.reporting.leaderboard_text import escape_markdown

    lines = [list(HEADS), *(list(map(escape_markdown, line)) for cost in costs for line in cells(cost))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [f"{'-' * (w - 1)}{':' if i else '-'}" for i, w in enumerate(widths)]
    padded = [
        [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in (lines[0], rule, *lines[1:])
    ]
    table = "".join(f"| {' | '.join(line)} |\n" for line in padded)
    return f"{escape_markdown(caption(about))}\n\n{table}"


def to_csv(costs: Sequence[Cost], about: dict[str, Any]) -> str:
    """One row a model and batch size, with the machine in every row."""
    rows = [row | about for cost in costs for row in cost.rows()]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(costs: Sequence[Cost], about: dict[str, Any]) -> str:
    rows = [row for cost in costs for row in cost.rows()]
    return json.dumps({"measured": about, "rows": rows}, indent=1, allow_nan=False) + "\n"


def short(number: float) -> str:
    """A count in three digits.

    >>> short(34_881), short(1_522_299), short(4.33e9), short(210)
    ('34.9k', '1.52M', '4.33G', '210')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{digits(number / size)}{letter}"
    return f"{number:.0f}"


def digits(value: float) -> str:
    """Three digits, or all before the point.

    >>> digits(0.05123), digits(10.59), digits(1234.5), digits(0.0)
    ('0.0512', '10.6', '1234', '0')
    """
    return f"{value:.{max(0, 2 - floor(log10(value)))}f}" if value > 0 else "0"


def _plain(table: Table) -> str:
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDTH, highlight=False).print(table)
    return text.getvalue()
