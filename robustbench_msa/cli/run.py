"""``msabench run``: the main job."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_msa.cli import options

if TYPE_CHECKING:
    from robustbench_msa.run import Benchmark

EPILOG = """Examples:

msabench run --model qa_moe --stress missing --grid 0:0.8:0.2

msabench run --model qa_moe --model rider_moe --recipe spectrum --protocol rider --seeds 5

msabench run --model qa_moe --dataset mosi --data aligned_50.pkl --protocol qa_moe

msabench run --model my_model.py:build --checkpoint best.pth --name mine --stress missing

msabench run --model qa_moe --stress noise --modalities audio,vision

msabench run --model qa_moe --stress noise+missing --grid 0:0.4:0.2x0:0.8:0.2

msabench run --model qa_moe --model rider_moe --protocol rider --workers 4

msabench run --model qa_moe --protocol qa_moe --engine ray --address 10.0.0.1:6379

sbatch --array=1-4 --wrap 'msabench run -m qa_moe -p qa_moe --shard $SLURM_ARRAY_TASK_ID/4'

The same command continues a run that was stopped; a larger grid or more seeds compute only the difference."""


def run(
    model: options.Models = None,
    stress: options.Stresses = None,
    grid: options.GridText = None,
    protocol: options.ProtocolName = None,
    modalities: options.Modalities = None,
    checkpoint: options.Checkpoints = None,
    name: options.Name = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    recipe: options.Recipe = "clean",
    train_seed: options.TrainSeed = "1111",
    dataset: options.DatasetName = "synth",
    data: options.DataPath = None,
    text: options.TextKind = None,
    split: options.SplitName = "test",
    seeds: options.Seeds = 3,
    device: options.Device = "auto",
    batch_size: Annotated[
        str, typer.Option(help="Samples per forward pass; auto: 256 on a CPU, what fits on a GPU.", metavar="N")
    ] = "auto",
    numerics: Annotated[
        str,
        typer.Option(help="float32 (exact), bf16, compile or bf16+compile; said in every table.", metavar="NAME"),
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run; default reports/<dataset>-<stress>.", metavar="FOLDER"),
    ] = None,
    references: Annotated[
        bool, typer.Option("--references/--no-references", help="Also run chance, and the oracle where there is one.")
    ] = True,
    preflight: Annotated[
        bool,
        typer.Option(
            "--preflight/--no-preflight",
            help="Stop where a model fails a check (msabench validate), or go on and flag it in every table.",
        ),
    ] = True,
    engine: Annotated[
        str, typer.Option(help="local (this machine) or ray (a Ray cluster, or one started here).", metavar="NAME")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes at once; default this one, or one for each of several GPUs.", metavar="N"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster to join: HOST:PORT or auto; default a new one.", metavar="ADDRESS"),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Compute the I-th of N shares alone, 1/N to N/N; docs/clusters.md.", metavar="I/N"),
    ] = None,
    plots: options.Plots = True,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> int:
    """Run models over severity grids: severity curves, nAUC tables with intervals, landscapes.

    Every model gets exactly the same corrupted inputs. Results go to one folder, a file per cell, as they are made.
    """
    from robustbench_msa.cli.check_progress import CheckProgress
    from robustbench_msa.cli.display import CellProgress, say
    from robustbench_msa.run import benchmark, open_run

    show = not (quiet or as_json)
    command = shlex.join(["msabench", *sys.argv[1:]])
    with CheckProgress(show) as checks, CellProgress(show) as progress:
        result = benchmark(
            model or [],
            stress or [],
            grid,
            protocol=protocol,
            modalities=modalities,
            checkpoint=checkpoint or [],
            recipe=recipe,
            train_seed=_seed(train_seed),
            dataset=dataset,
            data=data,
            text=text,
            split=split,
            seeds=seeds,
            device=device,
            batch_size=batch_size,
            numerics=numerics,
            out=out,
            references=references,
            name=name,
            trust_checkpoint=trust_checkpoint,
            preflight=preflight,
            engine=engine,
            workers=workers,
            address=address,
            shard=shard,
            command=without_shard(command),
            checked=checks.checked,
            started=progress.start,
            progress=progress.cell,
        )
    whole = result.tally if shard is None else open_run(result.out).tally
    figures = draw(result, show) if plots and (shard is None or whole.complete) else []
    if as_json:
        _print_json(result, figures)
    elif show:
        print_tables(result)
        for line in _flagged(result):
            say(f"  flag    {line}")
        say(f"{result.tally.computed} cells computed, {result.tally.reused} already there -> {result.out}")
        if shard is not None:
            say(f"  shard   {shard} done; of the whole run {whole.reused} of {whole.planned} cells are there")
        for stem in figures:
            say(f"  figure  {stem}.png (.pdf, .csv)")
        say(f"  next    msabench leaderboard {shlex.quote(str(result.out))}")
    return _exit_code(result, command)


def without_shard(command: str) -> str:
    """The command of the whole run: what all shards have in common, and what finishes the work of any of them.

    >>> without_shard("msabench run -m qa_moe --shard 1/4 -s missing"), without_shard("msabench run --shard=2/4")
    ('msabench run -m qa_moe -s missing', 'msabench run')
    """
    words = shlex.split(command)
    left = [w for i, w in enumerate(words) if not w.startswith("--shard") and words[max(0, i - 1)] != "--shard"]
    return shlex.join(left)


def _seed(text: str) -> int | str:
    if text == "all":
        return text
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise typer.BadParameter(f"--train-seed: expected a whole number or all, got {text!r}")
    return int(text)


def _flagged(result: Benchmark) -> list[str]:
    from robustbench_msa.evaluation.preflight import remarks
    from robustbench_msa.evaluation.store import Store

    return remarks(Store(result.out).manifest() or {})


def draw(result: Benchmark, show: bool) -> list[Path]:
    from robustbench_msa.cli.display import working
    from robustbench_msa.reporting.figures import draw_all

    with working("drawing the figures", show):
        return draw_all(result.curves, result.out / "figures")


def print_tables(result: Benchmark) -> None:
    from robustbench_msa.cli.display import console
    from robustbench_msa.reporting.leaderboard import curve_tables, leaderboard

    for table in curve_tables(result.curves):
        console.print(table)
    console.print(leaderboard(result.nauc).to_rich(width=console.width))


def _print_json(result: Benchmark, figures: list[Path]) -> None:
    from robustbench_msa.cli.display import print_json

    tally = result.tally
    cells = {"planned": tally.planned, "reused": tally.reused, "computed": tally.computed, "failed": tally.failed}
    record: dict[str, Any] = {"out": str(result.out), "complete": tally.complete, "cells": cells}
    record["figures"] = [f"{stem}.png" for stem in figures]
    print_json(record | {"nauc": result.nauc})


def _exit_code(result: Benchmark, command: str) -> int:
    if result.tally.complete:
        return 0
    failed = f"{result.tally.failed} cells failed (msabench status {result.out})"
    print(f"msabench: {failed}; to continue: {command}", file=sys.stderr)
    return 3
