"""``msabench train``: a checkpoint from a dataset."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name.", metavar="NAME")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset's name.", metavar="NAME")] = "synth",
    data: Annotated[Path | None, typer.Option(help="The dataset's file.", metavar="PATH")] = None,
    recipe: Annotated[
        str, typer.Option(help="clean, spectrum, modality-dropout, or STRESS:SEVERITY.", metavar="NAME")
    ] = "clean",
    seed: Annotated[int, typer.Option(help="Training seed.", metavar="SEED")] = 1111,
    preset: Annotated[str | None, typer.Option(help="Hyper-parameters; default the dataset's.", metavar="NAME")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; default the paper's.", metavar="N")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyper-parameter or ablation of the model; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", metavar="DEVICE")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Default checkpoints/<dataset>/<model>/<recipe>/<seed>.", metavar="FOLDER"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train again what is already there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checkpoint's config as JSON.")] = False,
) -> None:
    """Train a model and write model.safetensors and config.json; selection is on the validation split only.

    Examples:

    msabench train --model qa_moe --recipe spectrum

    msabench train --model rider_moe --dataset mosi --data aligned_50.pkl --seed 1112

    msabench train --model rider_moe --set lambda_p=0 --out checkpoints-ablation/no-prior

    The same command continues a training that was stopped.
    """
    from robustbench_msa.analysis.metrics import score
    from robustbench_msa.cli.display import Ticker, print_json, say
    from robustbench_msa.data.registry import load_dataset
    from robustbench_msa.run import resolve_device
    from robustbench_msa.training.train import train as run_training

    where = resolve_device(device)
    loaded = load_dataset(dataset, data)
    show = not (quiet or as_json)
    with Ticker(show) as ticker:

        def progress(epoch: int, epochs: int, loss: float, value: float, best: int) -> None:
            if not ticker.total:
                ticker.begin(epochs - epoch + 1, model)
            ticker.tick(
                f"{model} epoch {epoch}/{epochs}: loss {loss:.3f}, validation MAE {value:.3f} (best: epoch {best})"
            )

        checkpoint = run_training(
            model,
            loaded,
            recipe,
            seed,
            out,
            preset=preset,
            device=str(where),
            epochs=epochs,
            overrides=_overrides(settings or []),
            overwrite=overwrite,
            score=score,
            command=shlex.join(["msabench", *sys.argv[1:]]),
            progress=progress,
            notice=say if show else None,
        )
    if as_json:
        print_json(checkpoint.config)
    elif show:
        scores = ", ".join(f"{k} {v:.3f}" for k, v in checkpoint.config["validation"].items() if v is not None)
        say(f"{checkpoint.path}: validation {scores}")


def _overrides(settings: list[str]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise typer.BadParameter(f"--set: expected NAME=VALUE, got {name!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}
