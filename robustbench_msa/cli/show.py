"""``msabench show``: what a stress does to one sample, and the gallery of all stressors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_msa.cli import options

if TYPE_CHECKING:
    from robustbench_msa.data.dataset import Dataset
    from robustbench_msa.reporting.sample_info import Setting

GALLERY_MODEL = "late_fusion"  # whose worst case the gallery shows
FIGURES = "figures/stressors"  # beside the page


def show(
    stress: Annotated[
        str | None,
        typer.Option(
            "--stress", "-s", help="A stress, parameters after a colon; A+B is A, then B.", metavar="NAME[:k=v]"
        ),
    ] = None,
    sample: Annotated[
        str | None, typer.Option(help="A sample's id; default one that shows the stress well.", metavar="ID")
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", "-g", help="Severities, at most six are shown; default the paper's.")
    ] = None,
    modalities: options.Modalities = None,
    dataset: options.DatasetName = "synth",
    data: options.DataPath = None,
    text: options.TextKind = None,
    split: options.SplitName = "test",
    seed: Annotated[int, typer.Option(help="Corruption seed.", metavar="SEED")] = 1111,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="For worst-case: the model it is worst for.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Default reports/show/<stress>-<sample>.png.", metavar="FILE"),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Write the page of all stressors here, its figures beside it.", metavar="FILE.md"),
    ] = None,
) -> None:
    """Draw what a stress does to one sample: text, audio and vision over severities, as PNG, PDF and the CSV behind.

    Examples:

    msabench show --stress noise

    msabench show --stress conflict --sample 'test003$_$7' --grid 0:1:0.5

    msabench show --stress worst-case --model qa_moe

    msabench show --gallery docs/stressors.md
    """
    from robustbench_msa.cli.display import say, working
    from robustbench_msa.data.registry import load_dataset
    from robustbench_msa.reporting.figure_files import save_figure
    from robustbench_msa.reporting.sample_figure import sample_figure
    from robustbench_msa.reporting.sample_info import representative, sample_info

    if gallery is not None:
        fixed = (dataset, split, seed) == ("synth", "test", 1111)
        if not fixed or any(given is not None for given in (stress, sample, grid, modalities, data, text, out)):
            raise typer.BadParameter("--gallery shows every stress on synth; the one other option it takes is --model")
        _write_gallery(gallery, model or GALLERY_MODEL)
        return
    if stress is None:
        raise typer.BadParameter("--stress: expected a stress (msabench list stresses), or --gallery FILE.md")
    loaded = load_dataset(dataset, data, text)
    setting = _setting(loaded, split, stress, grid, modalities, seed, model)
    chosen = sample or representative(setting)
    info = sample_info(setting, chosen, f"{loaded.name}, {split} split")
    out = out or Path("reports", "show", f"{_slug(info.stress)}-{_slug(chosen)}.png")
    _check_place("--out", out)
    stem = _stem(out)
    with working("drawing", True):
        save_figure(sample_figure(info), info.frame(), stem)
    say(f"{stem}.png (.pdf, .csv): sample {chosen}")


def _setting(
    dataset: Dataset,
    split: str,
    stress: str,
    grid: str | None = None,
    modalities: str | None = None,
    seed: int = 1111,
    model: str | None = None,
) -> Setting:
    """What the sample is shown under. Raises InputError for anything that does not fit."""
    from corruptions import InputError, Reference, Stress
    from robustbench_msa.data.dataset import SPLITS
    from robustbench_msa.evaluation.adversary import ModelAdversary
    from robustbench_msa.models.checkpoint import check_fits, find_checkpoints, load_model
    from robustbench_msa.reporting.sample_info import Setting, shown_points

    if split not in SPLITS:
        raise InputError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}")
    parsed = Stress.parse(stress, **({} if modalities is None else {"modalities": modalities}))
    points = shown_points(parsed, parsed.grid(grid))
    reference = Reference.fit(dataset.splits["train"])
    setting = Setting(parsed, points, dataset.splits[split], reference, seed)
    if not parsed.stressor.needs_adversary:
        if model is not None:
            raise InputError(f"{parsed.name} does not depend on the model; leave out --model {model}")
        return setting
    if model is None:
        raise InputError(f"{parsed.name} depends on the model: add --model NAME (msabench list checkpoints)")
    (checkpoint,) = find_checkpoints(model, dataset.name)
    check_fits(checkpoint, dataset)
    return setting._replace(adversary=ModelAdversary(load_model(checkpoint), 256), model=model)


def _write_gallery(page: Path, model: str) -> None:
    from robustbench_msa.atomic import write_bytes, write_text
    from robustbench_msa.cli.display import say
    from robustbench_msa.data.registry import load_dataset
    from robustbench_msa.reporting.gallery import exhibits, gallery_png, gallery_text
    from robustbench_msa.reporting.sample_figure import sample_figure
    from robustbench_msa.reporting.sample_info import representative, sample_info

    _check_place("--gallery", page)
    loaded = load_dataset("synth")
    for exhibit in exhibits():
        setting = _setting(loaded, "test", exhibit.stress, model=model if exhibit.needs_model else None)
        info = sample_info(setting, representative(setting), "synth, test split")
        path = page.parent / FIGURES / exhibit.figure
        write_bytes(path, gallery_png(sample_figure(info)))
        say(str(path))
    write_text(page, gallery_text(FIGURES, model))
    say(str(page))


def _check_place(option: str, path: Path) -> None:
    """Raises InputError where no file can be written."""
    from corruptions import InputError

    if path.is_dir():
        raise InputError(f"{option} {path}: that is a folder; expected a file's name")
    there = next(above for above in path.absolute().parents if above.exists())
    if not there.is_dir():
        raise InputError(f"{option} {path}: a file is in the way ({there}); expected a folder")


def _stem(path: Path) -> Path:
    """The path without the extension of one of the three files that are written.

    >>> _stem(Path("a/noise-0.5.png")).name, _stem(Path("noise-0.5")).name
    ('noise-0.5', 'noise-0.5')
    """
    return path.with_suffix("") if path.suffix in (".png", ".pdf", ".csv") else path


def _slug(text: str) -> str:
    """A name for a file from a stress or a sample's id.

    >>> _slug("missing-random:told=true"), _slug("test003$_$7"), _slug("../a b")
    ('missing-random-told-true', 'test003-7', '..-a-b')
    """
    return re.sub(r"(?:[^\w.+-]|_)+", "-", text)[:80]
