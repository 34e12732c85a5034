"""A picture of what a stress does to one sample: a row per modality, a column per severity.

``sample_info`` says exactly what is drawn, ``sample_figure`` draws it. Marks differ in hatching or shape, so that they
can be told apart in greyscale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from corruptions import MODALITIES
from robustbench_msa.reporting import style
from robustbench_msa.reporting.sample_info import Column, SampleInfo
from robustbench_msa.reporting.sample_strip import (
    ABSENT,
    LOST,
    MOVED,
    PADDING,
    REPEATED,
    SUBSTITUTED,
    SWAPPED,
    TOLD,
    UNTOLD,
    Array,
    Strip,
)

CMAP = "RdBu_r"
MAX_FEATURES = 100
"""Features drawn; of more, as many spread evenly."""
FINE = 100
"""Up to this many steps every one has a pixel of its own."""

LEFT, RIGHT, GAP, WIDEST = 0.78, 0.55, 0.07, 1.7  # inches: row labels, colour bars, between columns, widest column
HEAT, TRACK, BETWEEN = 0.62, 0.15, 0.22  # inches: a strip, the marks over it, the steps under it
TOP = TRACK / HEAT  # the track's height where the strip's is 1
SMALL = 6.0  # points
LETTER = 0.05  # inches: a letter of that size is about as wide

HATCHES = {LOST: "//////", UNTOLD: "//////", TOLD: "xxxxx", ABSENT: "ooo", PADDING: "...."}
FACES = {LOST: "0.25", UNTOLD: "0.25", TOLD: "0.93", ABSENT: "white", PADDING: "white"}  # no step of values is all dark
EDGES = {LOST: "0.8", UNTOLD: "0.8", TOLD: "0.35", ABSENT: "0.5", PADDING: "0.75"}
MARKERS = {SUBSTITUTED: ("v", "black"), REPEATED: ("<", "white")}
DASHES = (0, (3, 1.5))
MEANINGS = {
    LOST: "lost step",
    UNTOLD: "modality lost, model not told",
    TOLD: "modality lost, model told",
    ABSENT: "modality not in the data",
    SWAPPED: "taken from the sample named above",
    SUBSTITUTED: "substituted token",
    REPEATED: "repeats the token before",
    MOVED: "shifted: the first step is here now",
    PADDING: "padding",
}


Place = tuple[float, float, float, float]
"""Left, bottom, width and height."""


class Row(NamedTuple):
    """What the strips of one modality share. shown: steps drawn; limit: the end of the colour scale.

    loudest: the noise that fills the track, 0 where there is none. tokens: text as token ids. width: inches.
    """

    shown: int
    limit: float
    loudest: float
    tokens: bool
    width: float


def sample_figure(info: SampleInfo) -> Figure:
    """Draws what ``sample_info`` found, at most a page wide."""
    columns = len(info.columns)
    cell = min(WIDEST, (style.PAGE - LEFT - RIGHT) / columns - GAP)  # inches
    width = LEFT + columns * (cell + GAP) + RIGHT
    heading = style.wrapped(_heading(info), width)
    handles = _legend(info)
    fit = style.legend_columns([str(handle.get_label()) for handle in handles], width) if handles else 1
    titles = max(column.title.count("\n") for column in info.columns)
    head = 0.42 + 0.13 * (titles + heading.count("\n"))
    height = head + 3 * (TRACK + HEAT + BETWEEN) + 0.16 * -(-len(handles) // fit) + 0.1
    with style.styled():
        figure = style.new_figure(width, height)
        figure.set_layout_engine("none")  # every place is said in inches
        figure.text(0.06 / width, 1 - 0.06 / height, heading, va="top", fontsize=7.5, parse_math=False)
        top = height - head - TRACK
        rows = _rows(info, cell)
        for i, row in enumerate(rows):
            bottom = top - HEAT - i * (TRACK + HEAT + BETWEEN)
            for j, column in enumerate(info.columns):
                place = (LEFT + j * (cell + GAP), bottom, cell, HEAT + TRACK)
                ax = figure.add_axes(_fractions(place, width, height))
                _draw_strip(ax, column.strips[i], row)
                ax.set_title(column.title if i == 0 else "", pad=2)
                if j == 0:
                    _label_row(ax, column.strips[i], row)
            if not row.tokens:
                place = (LEFT + columns * (cell + GAP), bottom, 0.07, HEAT)
                topmost = all(above.tokens for above in rows[:i])
                _draw_colour_bar(figure.add_axes(_fractions(place, width, height)), row.limit, topmost)
        figure.legend(handles=handles, loc="lower center", ncols=fit, borderaxespad=0.3)
    return figure


def _fractions(place: Place, width: float, height: float) -> Place:
    """Left, bottom, width and height in inches as fractions of the figure."""
    return (place[0] / width, place[1] / height, place[2] / width, place[3] / height)


def _heading(info: SampleInfo) -> str:
    label = "" if info.label is None else f", label {_signed(info.label)}"
    seed = "" if info.seed is None else f", seed {info.seed}"
    against = f", against {info.model}" if info.model else ""
    return f"{info.title}: sample {info.sample} of {info.data}{label}{seed}{against}"


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def _rows(info: SampleInfo, cell: float) -> list[Row]:
    loudest = _loudest(info.columns)
    tokens = [info.token_text and modality == "text" for modality in MODALITIES]
    strips = [[column.strips[i] for column in info.columns] for i in range(len(MODALITIES))]
    return [Row(_shown(s), info.limits[i], loudest, tokens[i], cell) for i, s in enumerate(strips)]


def _shown(strips: Sequence[Strip]) -> int:
    """How many steps of a row are drawn: the longest valid part and some of the padding after it."""
    longest = max(strip.length for strip in strips)
    return min(max(len(strip.values) for strip in strips), max(longest + 2, math.ceil(1.2 * longest)))


def _loudest(columns: Sequence[Column]) -> float:
    """The noise that fills the track, in tenths of a standard deviation."""
    most = max(float(strip.noise[: strip.length].max(initial=0.0)) for column in columns for strip in column.strips)
    return math.ceil(10 * most - 1e-9) / 10


def _draw_strip(ax: Axes, strip: Strip, row: Row) -> None:
    ax.set_xlim(0, row.shown)
    ax.set_ylim(0, 1 + TOP)
    ax.axis("off")
    marks = strip.marks[: row.shown]
    ax.imshow(
        np.ma.masked_invalid(_features(strip.values)[: row.shown].T),
        cmap=CMAP,
        norm=Normalize(-row.limit, row.limit),
        extent=(0, len(marks), 0, 1),
        aspect="auto",
        interpolation="nearest" if row.shown <= FINE else "auto",  # auto: averages what is finer than a pixel
    )
    if row.tokens and row.shown <= FINE:
        ax.vlines(np.arange(1, strip.length), 0, 1, colors="0.8", linewidth=0.4)
    for mark, start, stop in _runs(marks):
        if mark in HATCHES:
            ax.add_patch(_box(mark, start, stop, strip.values))
    _draw_track(ax, strip, marks, row)
    swapped = strip.fate == SWAPPED
    line, edge = ("--", 1.4) if swapped else ("-", 0.5)
    ax.add_patch(Rectangle((0, 0), row.shown, 1, fill=False, linewidth=edge, linestyle=line, clip_on=False, zorder=4))
    if strip.fate and not swapped:
        box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        middle = (strip.length if strip.length > 0.6 * row.shown else row.shown) / 2
        ax.text(middle, 0.5, strip.fate, ha="center", va="center", fontsize=SMALL, bbox=box, zorder=6)


def _draw_track(ax: Axes, strip: Strip, marks: Sequence[str], row: Row) -> None:
    """Over the strip: bars of noise, a marker at every token that is another's, where the rest comes from."""
    noise = np.where([mark == PADDING for mark in marks], 0.0, strip.noise[: len(marks)])
    if row.loudest:
        heights = 1.03 + (TOP - 0.06) * noise / row.loudest
        ax.stairs(heights, np.arange(len(marks) + 1), baseline=1.03, fill=True, color="0.25", linewidth=0)
    size = float(np.clip(72 * row.width / max(1, len(marks)), 1.0, 3.4))
    for mark, (shape, face) in MARKERS.items():
        at = [t + 0.5 for t, m in enumerate(marks) if m == mark]
        ax.plot(at, [1 + TOP / 2] * len(at), shape, ms=size, mfc=face, mec="black", mew=0.5, ls="none", clip_on=False)
    over = []
    if strip.fate == SWAPPED:
        over += [_shortened(strip.donor, int(row.width / LETTER))]
        over += [] if strip.donor_label is None else [f"label {_signed(strip.donor_label)}"]
    if MOVED in marks:
        ax.vlines(strip.shift % strip.length, 0, 1, colors="black", linestyles=DASHES, linewidth=1.1, zorder=5)
        over.append(_shift(strip.shift, strip.length))
    y = 1 + TOP if noise.any() else 1.04
    ax.text(
        row.shown / 2, y, "\n".join(over), ha="center", va="bottom", fontsize=SMALL, linespacing=1.0, parse_math=False
    )


def _features(values: Array) -> Array:
    """At most MAX_FEATURES of them, spread evenly: ``(T, d')``."""
    d = values.shape[1]
    return values if d <= MAX_FEATURES else values[:, np.linspace(0, d - 1, MAX_FEATURES).round().astype(int)]


def _runs(marks: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Stretches of one mark: (mark, start, stop)."""
    start = 0
    for mark, group in itertools.groupby(marks):
        stop = start + len(list(group))
        yield mark, start, stop
        start = stop


def _box(mark: str, start: int, stop: int, values: Array) -> Rectangle:
    """A hatched stretch. Lost steps that hold something again (noise on the zeros) stay seen under the hatching."""
    open_ = mark in (LOST, UNTOLD) and bool(np.any(np.nan_to_num(values[start:stop])))
    face, edge = ("none", "black") if open_ else (FACES[mark], EDGES[mark])
    place = ((start, 0), stop - start, 1)
    return Rectangle(*place, facecolor=face, edgecolor=edge, hatch=HATCHES[mark], linewidth=0.0, zorder=3)


def _shortened(name: str, letters: int) -> str:
    """A name without its middle.

    >>> _shortened("03bSnISJMiM$_$11", 9)
    '03bS…_$11'
    """
    return name if len(name) <= letters else f"{name[: letters // 2]}…{name[len(name) - (letters - 1) // 2 :]}"


def _shift(shift: int, length: int) -> str:
    if abs(shift) == length // 2:  # as far earlier as later
        return "half a turn"
    return f"{abs(shift)} step{'s' if abs(shift) > 1 else ''} {'later' if shift > 0 else 'earlier'}"


def _label_row(ax: Axes, strip: Strip, row: Row) -> None:
    """What a row is, at its left; the first and the last step that is drawn, below."""
    d = strip.values.shape[1]
    what = f"{d} feature{'s' if d > 1 else ''}" if d <= MAX_FEATURES else f"{MAX_FEATURES} of {d}\nfeatures"
    what = "token ids" if row.tokens else what
    at = ax.get_yaxis_transform()
    ax.text(-0.1, 0.5, f"{strip.modality}\n{what}", transform=at, ha="right", va="center")
    ax.text(0, -0.05, "step 1", ha="left", va="top", fontsize=6.5)
    if row.shown > 1:
        ax.text(row.shown, -0.05, str(row.shown), ha="right", va="top", fontsize=6.5)


def _draw_colour_bar(ax: Axes, limit: float, topmost: bool) -> None:
    bar = ax.figure.colorbar(ScalarMappable(Normalize(-limit, limit), CMAP), cax=ax, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([_signed(-limit), "0", _signed(limit)])
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    if topmost:
        bar.ax.text(0, 1.12, "value (sd)", transform=bar.ax.transAxes, va="bottom", fontsize=6.5)


def _legend(info: SampleInfo) -> list[Patch | Line2D]:
    """What each mark in this figure means."""
    found = {mark for column in info.columns for strip in column.strips for mark in (*strip.marks, strip.fate)}
    if LOST in found:
        found.discard(UNTOLD)  # drawn alike, as a model sees them alike
    handles = [_handle(mark, text) for mark, text in MEANINGS.items() if mark in found]
    loudest = _loudest(info.columns)
    noise = Patch(facecolor="0.25", label=f"added to the values (rms of a step; full height {loudest:g} sd)")
    return [*handles, noise] if loudest else handles


def _handle(mark: str, text: str) -> Patch | Line2D:
    if mark in HATCHES:
        return Patch(facecolor=FACES[mark], edgecolor=EDGES[mark], hatch=HATCHES[mark], linewidth=0.5, label=text)
    if mark in MARKERS:
        shape, face = MARKERS[mark]
        return Line2D([], [], ls="none", marker=shape, ms=4, mfc=face, mec="black", mew=0.5, label=text)
    line, width = ("--", 1.4) if mark == SWAPPED else (DASHES, 1.1)
    return Line2D([], [], color="black", ls=line, lw=width, label=text)
