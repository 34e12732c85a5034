"""The gallery of a run: a page with every kind of picture that msabench draws, and how to make and read it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from corruptions import InputError
from robustbench_msa.atomic import write_bytes, write_text
from robustbench_msa.reporting.curves_figure import curves_info
from robustbench_msa.reporting.gallery import DPI, gallery_png
from robustbench_msa.reporting.gallery_exhibits import EXHIBITS, OVERVIEW_WIDTH, Source

FIGURES = "figures/gallery"  # beside the page
WIDTH = 120
OVERVIEW_PIXELS = 1600
COLOURS = 256  # a diverging scale needs both its ends


class Text(NamedTuple):
    """What stands around a picture. command: with RUN for the folder; reading: two sentences."""

    title: str
    shows: str
    command: str
    reading: str


TEXTS = {
    "overview": Text(
        "In one picture",
        "Accuracy of the five systems trained on clean data against three stresses, with chance and the oracle, "
        "the best prediction that the corrupted input still allows.",
        "msabench gallery RUN --out docs/gallery.md",
        "Every line starts at the untouched input and falls as the stress grows; what is left above chance is "
        "what the model still knows. The gap to the dotted line is what a better model could win back.",
    ),
    "curves": Text(
        "Severity curves",
        "A row a metric, a column a stress; bands are 95 % intervals, other lines that were run are grey.",
        "msabench plot curves RUN --width page",
        "Arrows say which way is better, and dashed and dotted lines are chance and the oracle. Where bands "
        "overlap, do not rank by eye: the differences are paired, and the comparison below tests them.",
    ),
    "landscape": Text(
        "Landscapes",
        "One metric over two severities, noise and missing modalities, a panel a line, on one colour scale.",
        "msabench plot landscape RUN --metric mae --model qa_moe --model oracle",
        "The untouched input is at the lower left, brighter is better, and lines join cells of equal value. "
        "Colours that change upwards but not to the right mean that the model bears noise but not loss.",
    ),
    "difference": Text(
        "Difference landscapes",
        "The same grid, model minus baseline at every point, on a scale that is symmetric about zero.",
        "msabench plot difference RUN --model qa_moe/spectrum --model late_fusion --baseline qa_moe/clean --metric mae",
        "Purple is better than the baseline, orange worse; filled and open dots say the same where the paired 95 "
        "% interval leaves zero out, so that the picture survives greyscale. The intervals are not adjusted for "
        "the number of cells.",
    ),
    "comparison": Text(
        "Who is really better",
        "Differences of nAUC from the best line of each panel, paired, with 95 % intervals.",
        "msabench plot comparison RUN --metric mae",
        "Open dots are worse than the best after Holm's adjustment over all pairs; filled ones cannot be told "
        "apart from it, whatever their order. A long bar means that this test set could not show a difference of "
        "that size.",
    ),
    "routing": Text(
        "Routing",
        "Mean weights of the experts against severity, and below how much they differ from sample to sample.",
        "msabench plot routing RUN --model rider_moe/clean/1111",
        "A router that reacts to the stress has lines that cross or bend. One whose deviation between samples is "
        "near zero gives every sample the same mixture, whatever the means do.",
    ),
    "reliability": Text(
        "Reliability scores",
        "The scores r that the model gives its modalities, against severity, and the error of samples by their score.",
        "msabench plot reliability RUN --model qa_moe/clean/1111",
        "A working score falls with severity and its curve below falls to the right. Flat lines mean that the "
        "score does not see the corruption.",
    ),
    "calibration": Text(
        "Predicted variance",
        "Likelihood, coverage of the predicted intervals, and the error left when the most uncertain samples are "
        "dropped.",
        "msabench plot calibration RUN --model qa_moe/clean/1111",
        "Lines of coverage below their dotted level mean that the model is too sure of itself. A curve in the "
        "last row that does not fall means that its variance does not order the errors.",
    ),
    "risk": Text(
        "Risk and coverage",
        "The error of the most confident samples, by every confidence that the model offers.",
        "msabench plot risk RUN --model rider_moe/clean/1111",
        "Read from right to left: as unsure samples are left out, a useful confidence falls towards the dotted "
        "line. One that stays at the dashed line orders nothing, one above it misleads.",
    ),
    "experts": Text(
        "What experts stand for",
        "Correlations of each expert's output with the factors that made the labels of the synthetic data.",
        "msabench plot experts RUN --model rider_moe/clean/1111",
        "If experts were what their names say, U_T would be darkest at u_T, R at r and S at the synergy. Compare "
        "rows: rows that look alike are experts that do the same.",
    ),
    "breaking_modalities": Text(
        "Which modality's loss hurts",
        "The error added when one modality alone is lost, a bar a model.",
        "msabench plot breaking RUN",
        "The longest bar is the modality that the model leans on. Bars near zero are modalities that it does without.",
    ),
    "breaking_flips": Text(
        "Signs that flip",
        "The share of samples whose predicted sign is not the one of the untouched input.",
        "msabench plot breaking RUN",
        "A flip is a changed answer, right or wrong. The table beside the picture lists which samples flip first.",
    ),
    "features": Text(
        "Fused features",
        "t-SNE of the vector that the prediction is made from, coloured by label.",
        "python: analysis.inside.features (docs/inside.md)",
        "Colours that change along the cloud mean that the fused vector orders samples by sentiment. Distances "
        "between far points mean little: a picture, not a measurement.",
    ),
}


def write_gallery(run: Path, page: Path, step: Callable[[str], None]) -> list[Path]:
    """Write the page, and its pictures into FIGURES beside it. Pictures that the run has no data for are left out.

    Args:
        step: told each picture's name when it is done.

    Returns:
        the files written, the page last.

    Raises:
        InputError: the folder is none of a run, or not one picture can be made of it.
    """
    source = Source(run)
    _ = source.curves  # a folder that is none of a run is said here
    written, sections, left_out = [], [], []
    for name, make in EXHIBITS.items():
        try:
            figure, numbers = make(source)
        except InputError as error:
            left_out.append(f"{TEXTS[name].title} ({error})")
        else:
            file = page.parent / FIGURES / f"{name.replace('_', '-')}.png"
            dpi = int(OVERVIEW_PIXELS / OVERVIEW_WIDTH) if name == "overview" else DPI
            write_bytes(file, gallery_png(figure, dpi, COLOURS))
            written.append(file)
            sections.append(_section(TEXTS[name], f"{FIGURES}/{file.name}", numbers, run))
        step(name)
    if not written:
        raise InputError(f"{run}: no picture can be made of it; {left_out[0]}")
    write_text(page, "\n".join([_intro(source, run), *sections]))
    return [*written, page]


def _section(text: Text, picture: str, numbers: str, run: Path) -> str:
    command = text.command.replace("RUN", _named(run))
    paragraphs = [
        f"## {text.title}",
        _wrapped(text.shows),
        f"![{text.title}]({picture})",
        f"```\n{command}\n```",
        _wrapped(f"**How to read it.** {text.reading}"),
        _wrapped(f"**In this run.** {numbers}"),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _intro(source: Source, run: Path) -> str:
    facts = curves_info(source.curves).facts
    manifest = source.tables.planned.manifest
    commands = "\n".join(_without_folders(command, run) for command in manifest["commands"])
    where = f"Data: {facts.data()}; {facts.seeds()}. Intervals: {facts.intervals()}."
    return "\n\n".join(
        [
            "# Gallery of results",
            "<!-- made by `msabench gallery`; change robustbench_msa/reporting/result_gallery.py and run it again -->",
            _wrapped(
                "Every kind of picture that msabench draws of a run, made by one command from one run; all numbers "
                "on this page come from it. The command beside a picture writes it as PNG, as PDF with embedded fonts "
                "and the width of a column or a page (`--width column|page`), and as a CSV of what it shows."
            ),
            _wrapped(where),
            f"The run:\n\n```sh\n{commands}\nmsabench gallery {_named(run)} --out docs/gallery.md\n```\n",
        ]
    )


def _without_folders(command: str, run: Path) -> str:
    """A command as it can be typed anywhere: the run's folder is named as on this page."""
    return re.sub(r"(--out|-o) \S+", rf"\1 {_named(run)}", command)


def _named(run: Path) -> str:
    return f"reports/{run.resolve().name}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
