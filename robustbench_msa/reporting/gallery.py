"""The gallery of stressors: one figure each, and a page that says what they do, made from their own descriptions."""

from __future__ import annotations

import inspect
import io
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from corruptions import LETTERS, STRESSORS, Stress
from corruptions.stressor import Option, Stressor
from robustbench_msa.reporting.style import styled

VARIANTS = ("missing-random:variant=keep_one", "spectrum:variant=mixture", "frame-missing:legacy=lnln")
COMPOSITION = "noise+missing"
DPI = 150
COLOURS = 96  # a palette: a third of the bytes, and no difference to the eye
WIDTH = 120

INTRO = """\
# Stressors

<!-- made by `msabench show --gallery docs/stressors.md`; change the stressors' own docstrings, or
robustbench_msa/reporting/gallery.py, and run it again -->

What each stress does to the input, with one sample of the synthetic dataset to look at. `msabench list stresses` prints
the short form; `msabench run --model qa_moe --stress NAME` runs one; `msabench show --stress NAME` draws a figure like
these, of any sample of any dataset.

## Words

- **Sample**: one utterance. Text, audio and vision, each a sequence of steps of features, with its number of valid
  steps, L. What follows the valid steps is **padding**; no stress touches it, and no stress changes the label.
- **Severity**: how hard the stress is, a decimal on the stressor's own axis. 0 is the untouched input, exactly. A
  **grid** is the severities of one run: `0:0.8:0.2` is 0, 0.2, 0.4, 0.6, 0.8; `0,0.25,1` lists them; `AxB` is the
  product of two axes. Severities are computed with as decimals, and counts such as round(0.3 L) round half to even.
- **Seed**: one realisation of all random draws. `--seeds 3` means 1111, 1112 and 1113.
- **Draws**: the random numbers that a seed gives one sample. They hang on the seed, the sample's id, the modality and
  the purpose, on nothing else. So every model, batch size, order, subset and device gets the same corrupted input
  (variants named `legacy` excepted), and a step that is lost at 0.2 is still lost at 0.4: along a row of a figure the
  damage only grows (`worst-case` excepted).
- **Fill**: what stands where something was lost. By default zeros of the raw features; for token ids [MASK] or [UNK].
  `fill=mean` puts the training mean there.
- **Told**: whether the model is told that a modality is gone. Where it is, the model does what it has for that case.
  Where it is not, it gets zeros of the usual length and must find out by itself.
- **Natural absence**: a modality that the data lack. It stays absent, is counted apart, and can be neither lost nor
  swapped.
- **sigma_ref**: the standard deviation of each feature over the valid steps of the training split. Noise is scaled by
  it, so a noise level means the same for all features. `sigma_ref=modality` uses one value per modality.
- **Pool**: the samples that donors and wrong tokens come from, by default the whole evaluated split.
- **Parameters** follow a colon: `missing-random:told=true,fill=mean`. A default stands in brackets below.
- **Modalities**: every stressor has the parameter `modalities`, the letters of those it may touch; the rest stays as it
  is. `--modalities audio,vision` sets it for all stresses of a command.
- **Compositions**: `A+B` is A, then B on what A left, over the product of their grids. Parameters are named
  `part.parameter`; one without a part's name goes to every part that has it.

## How to read the figures

A row is a modality, a column a severity; the first column is the untouched input. Time runs to the right, features from
top to bottom, and colours are standardised values: white is the training mean, full red and full blue are the ends of
the bar at the right. Of two axes the diagonal is shown.

- Dark with light stripes: lost steps, filled. A whole modality of them is lost and the model is *not* told. Where noise
  was added to them afterwards it is seen between dark stripes.
- Light with crossed lines: the modality is lost and the model is told.
- Dashed frame: the modality is that of another sample, whose id and label stand above it.
- Bars above a strip: what was added to the values of each step, as a root mean square in standard deviations.
- Triangles above a strip: wrong tokens, black where substituted, white where the token before is repeated.
- Dashed line: steps were shifted in time; the utterance's first step is there now.
- Dots: padding. Circles: the modality is not in the data.
"""


class Exhibit(NamedTuple):
    """One section with its figure. stress: as typed. needs_model: is it a worst case?"""

    stress: str
    figure: str
    is_variant: bool
    needs_model: bool


def exhibits() -> list[Exhibit]:
    """Every stressor, its variants after it, and a composition."""
    labels = [
        label for name in STRESSORS for label in (name, *(v for v in VARIANTS if v.partition(":")[0] == name))
    ] + [COMPOSITION]
    return [
        Exhibit(
            label,
            re.sub(r"[^\w-]+", "-", label) + ".png",
            label in VARIANTS,
            Stress.parse(label).stressor.needs_adversary,
        )
        for label in labels
    ]


def gallery_text(figures: str, model: str) -> str:
    """The page in Markdown. figures: the folder of the figures, relative to it; model: whose worst case is drawn."""
    shown = exhibits()
    sections = [_section(exhibit, figures, model) for exhibit in shown]
    return "\n".join([INTRO, "## All of them\n", *_overview(shown), "", *sections])


def gallery_png(figure: Figure, dpi: int = DPI, colours: int = COLOURS) -> bytes:
    """A small PNG of a figure: fewer dots and a palette of so many colours."""
    drawn, small = io.BytesIO(), io.BytesIO()
    with styled():
        figure.savefig(drawn, format="png", dpi=dpi)
    Image.open(drawn).convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _overview(shown: list[Exhibit]) -> Iterator[str]:
    yield "| stress | what it does | severity | told? |"
    yield "| --- | --- | --- | --- |"
    for label, _, variant, _ in shown:
        stress = Stress.parse(label)
        option = label.partition(":")[2].partition("=")[0]
        what = stress.stressor.parameters[option].help if variant else stress.stressor.summary
        told = "yes" if _told(stress) else "no"
        yield f"| [{label}](#{_anchor(label)}) | {what} | {_axis(stress)} | {told} |"


def _section(exhibit: Exhibit, figures: str, model: str) -> str:
    stress = Stress.parse(exhibit.stress)
    title = f"{'###' if exhibit.is_variant else '##'} {exhibit.stress}"
    picture = f"![{exhibit.stress} on one sample, severity by severity]({figures}/{exhibit.figure})"
    words = [] if exhibit.is_variant else _paragraphs(stress.stressor)
    facts = [*_setting(stress), *([] if exhibit.is_variant else _description(stress.stressor))]
    if exhibit.needs_model:
        facts.append(f"- **The figure**: the worst case for the shipped `{model}`, trained on clean data")
    return "\n\n".join([title, *words, picture, "\n".join(map(_wrapped_item, facts))]) + "\n"


def _setting(stress: Stress) -> list[str]:
    """What depends on the variant."""
    told, other = ("yes", "false") if _told(stress) else ("no", "true")
    option = f" (`told={other}` says otherwise)" if "told" in stress.stressor.option_table else ""
    return [f"- **Severity**: {_axis(stress)}; default grid `{stress.grid()}`", f"- **Told**: {told}{option}"]


def _description(stressor: Stressor) -> list[str]:
    """What is true of all its variants."""
    needs = [
        ("training statistics", stressor.needs_reference),
        ("a pool of other samples", stressor.uses_pool),
        ("a model", stressor.needs_adversary),
    ]
    needed = [what for what, is_needed in needs if is_needed]
    return [
        f"- **Formula**: `{stressor.formula}`",
        f"- **Acts on**: {', '.join(LETTERS[letter] for letter in stressor.acts_on)}",
        *([f"- **Needs**: {', '.join(needed)}"] if needed else []),
        *([] if stressor.random else ["- **Draws**: none; one seed is as good as ten"]),
        *(["- **Parameters**:"] if stressor.option_table else []),
        *(_parameter(name, option) for name, option in stressor.option_table.items()),
        f"- **Source**: {stressor.source}",
    ]


def _paragraphs(stressor: Stressor) -> list[str]:
    """The docstring of a stressor as Markdown."""
    text = inspect.cleandoc(type(stressor).__doc__ or stressor.summary).replace("``", "`")
    return [_wrapped(" ".join(paragraph.split())) for paragraph in text.split("\n\n")]


def _wrapped(text: str, indent: str = "") -> str:
    """Lines of Markdown, none of which begins with what would be a list or a heading there.

    >>> _wrapped("word " * 23 + "at 10. Then").splitlines()[1]
    'at 10. Then'
    """
    text = re.sub(r" (?=(?:\d+[.)]|[-+*>#]+) )", "\0", text)  # no line may break there
    lines = textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")


def _wrapped_item(item: str) -> str:
    return _wrapped(item, " " * (item.index("- ") + 2))


def _axis(stress: Stress) -> str:
    return " and ".join(f"`{axis}`" for axis in stress.axes) or "the set of modalities that are left"


def _anchor(label: str) -> str:
    """The anchor that Markdown viewers give a heading: lower case, punctuation gone, spaces as hyphens."""
    return re.sub(r"[^\w -]", "", label.lower()).replace(" ", "-")


def _told(stress: Stress) -> bool:
    options = dict(stress.options)
    return bool(options.get("told", stress.stressor.told))


def _parameter(name: str, option: Option) -> str:
    default = str(option.default).lower() if isinstance(option.default, bool) else option.default
    choices = f"; one of {', '.join(option.choices)}" if option.choices else ""
    return f"  - `{name}` ({default}): {option.help}{choices}"
