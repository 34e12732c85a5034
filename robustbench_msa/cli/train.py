"""``msabench train``: a checkpoint from a dataset."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_msa.cli import options


def train(
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model's name.", metavar="NAME")] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Many trainings: papers, every model here.", metavar="NAME")
    ] = None,
    dataset: options.DatasetName = "synth",
    data: options.DataPath = None,
    text: Annotated[
        str | None,
        typer.Option(help="Read text as features or tokens; default features, with a backbone tokens.", metavar="KIND"),
    ] = None,
    text_backbone: Annotated[
        str | None,
        typer.Option(help="Text through this pretrained encoder: a folder or a hub name.", metavar="NAME"),
    ] = None,
    finetune_text: Annotated[
        bool, typer.Option("--finetune-text", help="Train the text backbone too; else it is frozen.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="clean (default), spectrum, modality-dropout, or STRESS:SEVERITY.", metavar="NAME"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed; default 1111.", metavar="SEED")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Of a suite: training seeds 1111, 1112, ...; default 3.", metavar="N")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Of a suite: processes at a time; default one a core.", metavar="N")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Hyper-parameters; default the dataset's.", metavar="NAME")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; default the paper's.", metavar="N")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyper-parameter or ablation of the model; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    device: options.Device = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Default checkpoints/<dataset>/<model>/<recipe>/<seed>; of a suite, instead of checkpoints.",
            metavar="FOLDER",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train again what is already there.")] = False,
    quiet: options.Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the configs or the table as JSON.")] = False,
) -> int:
    """Train a model, or a suite of them, and write model.safetensors and config.json; selection is on validation only.

    Examples:

    msabench train --model qa_moe --recipe spectrum

    msabench train --model rider_moe --dataset mosi --data aligned_50.pkl --seed 1112

    msabench train --model rider_moe --set lambda_p=0 --out checkpoints-ablation/no-prior

    msabench train --model qa_moe --dataset mosi --data aligned_50.pkl --text-backbone bert-base-uncased

    msabench train --suite papers --dataset mosi --data aligned_50.pkl --seeds 3

    The same command continues what was stopped, also after kill -9.

    The suite papers: five systems x recipes clean and spectrum x seeds, classics x clean x one seed;

    each training is a process of its own with one thread, what is there is skipped.

    Exit code 3: some trainings failed, the others are done.
    """
    from robustbench_msa.run import resolve_device

    texts = {"text": text, "text-backbone": text_backbone, "finetune-text": finetune_text or None}
    _check(model, suite, recipe=recipe, seed=seed, seeds=seeds, jobs=jobs, **texts)
    common: dict[str, Any] = {
        "preset": preset,
        "epochs": epochs,
        "overrides": _overrides(settings or []),
        "device": str(resolve_device(device)),
        "overwrite": overwrite,
        "command": shlex.join(["msabench", *sys.argv[1:]]),
    }
    show = not (quiet or as_json)
    if suite is not None:
        common |= {"dataset": dataset, "data": data, "out": out or Path("checkpoints")}
        return _suite(suite, 3 if seeds is None else seeds, jobs, common, show, as_json)
    assert model is not None
    one = {"recipe": recipe or "clean", "seed": 1111 if seed is None else seed, "out": out}
    one |= {"text_backbone": text_backbone, "finetune_text": finetune_text}
    text = text or (None if text_backbone is None else "tokens")
    _one(model, (dataset, data, text), one | common, show, as_json)
    return 0


def _check(model: str | None, suite: str | None, **given: object) -> None:
    """One of --model and --suite, and none of the options of the other."""
    if (model is None) == (suite is None):
        got = "neither" if model is None else "both"
        raise typer.BadParameter(f"expected --model NAME for one training or --suite NAME for many, got {got}")
    ours = ("recipe", "seed", "text", "text-backbone", "finetune-text")
    other, options = ("--suite", ours) if suite is not None else ("--model", ("seeds", "jobs"))
    if wrong := [f"--{name}" for name in options if given[name] is not None]:
        brings = "a suite brings its recipes, reads features, and takes --seeds N"
        instead = {"--suite": brings, "--model": "--seed SEED trains one"}[other]
        raise typer.BadParameter(f"{' and '.join(wrong)} cannot be given with {other}; {instead}")


def _one(
    model: str, dataset: tuple[str, Path | None, str | None], arguments: dict[str, Any], show: bool, as_json: bool
) -> None:
    from robustbench_msa.analysis.metrics import score
    from robustbench_msa.cli.display import Ticker, print_json, say
    from robustbench_msa.data.registry import load_dataset
    from robustbench_msa.training.loop import criterion_of
    from robustbench_msa.training.train import spec_of
    from robustbench_msa.training.train import train as run_training

    with Ticker(show) as ticker:

        def progress(epoch: int, epochs: int, loss: float, value: float, best: int) -> None:
            if not ticker.total:
                ticker.begin(epochs - epoch + 1, model)
            reached = f"validation {criterion} {value:.3f} (best: epoch {best})"
            ticker.tick(f"{model} epoch {epoch}/{epochs}: loss {loss:.3f}, {reached}")

        notice = say if show else None
        loaded = load_dataset(*dataset)
        criterion = criterion_of(spec_of(loaded)).name
        checkpoint = run_training(model, loaded, **arguments, score=score, progress=progress, notice=notice)
    if as_json:
        print_json(checkpoint.config)
    elif show:
        scores = ", ".join(f"{k} {v:.3f}" for k, v in checkpoint.config["validation"].items() if v is not None)
        say(f"{checkpoint.path}: validation {scores}")


def _suite(suite: str, seeds: int, jobs: int | None, settings: dict[str, Any], show: bool, as_json: bool) -> int:
    from robustbench_msa.analysis.metrics import score
    from robustbench_msa.cli.display import SuiteProgress, console, print_json
    from robustbench_msa.training.suite import Settings, plan_suite, run_suite, table

    with SuiteProgress(show) as progress:
        results = run_suite(
            plan_suite(suite, seeds),
            Settings(**settings, score=score),
            jobs,
            started=progress.start,
            progress=progress.epoch,
            notice=lambda training, line: progress.note(f"{training}: {line}"),
            finished=progress.ended,
        )
    failed = [result for result in results if result.state == "failed"]
    if as_json:
        rows = [result.to_json() for result in results]
        print_json({"suite": suite, "out": str(settings["out"]), "complete": not failed, "trainings": rows})
    elif show:
        console.print(table(results))
    for result in failed:
        print(f"msabench: {result}", file=sys.stderr)
    if failed:
        resume = f"to continue: {settings['command']}"
        print(f"msabench: {len(failed)} of {len(results)} trainings failed; {resume}", file=sys.stderr)
    return 3 if failed else 0


def _overrides(settings: list[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise typer.BadParameter(f"--set: expected NAME=VALUE, got {name!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}
