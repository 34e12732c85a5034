"""The look of all figures: sizes, fonts, and line styles that survive greyscale."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from corruptions import InputError

COLUMN, PAGE = 3.25, 6.75
"""Inches: one column and the full width of a two-column paper."""
WIDTHS: Mapping[str, float] = {"column": COLUMN, "page": PAGE}
NARROWEST, WIDEST = 2.5, 20.0

RC: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere, and it has the arrows and Greek letters
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.5,
    "axes.unicode_minus": True,
    "pdf.fonttype": 42,  # TrueType: text stays text, as publishers ask for
    "ps.fonttype": 42,
    "savefig.facecolor": "white",
}

# Okabe and Ito's colours that stand out on white; black and grey belong to the oracle and to chance.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (5, 1.4, 1, 1.4), (8, 1.6), (8, 1.4, 1, 1.4, 1, 1.4))
ORACLE, CHANCE, OTHERS = "black", "0.55", "0.8"
PERCENT = FuncFormatter(lambda value, _: f"{round(100 * value, 9):g}%".replace("-", "−"))


class LineStyle(NamedTuple):
    """dashes: points on and off, empty for a solid line."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> Any:
        return (0, self.dashes) if self.dashes else "-"


def parse_width(text: str | None) -> float | None:
    """A figure's width in inches: a name of WIDTHS or a number; None: what suits the figure.

    Raises:
        InputError: anything else, or a width that no figure fits.

    >>> parse_width("column"), parse_width("5.5"), parse_width(None)
    (3.25, 5.5, None)
    """
    if text is None or text in WIDTHS:
        return WIDTHS[text] if text else None
    try:
        inches = float(text)
    except ValueError:
        inches = float("nan")
    if not NARROWEST <= inches <= WIDEST:
        known = ", ".join(f"{name} ({inches:g} in)" for name, inches in WIDTHS.items())
        raise InputError(f"--width: expected {known} or inches from {NARROWEST:g} to {WIDEST:g}, got {text!r}")
    return inches


def line_style(order: int) -> LineStyle:
    """The style of the order-th model. Colour, marker and dashes all differ for neighbours; 210 combinations."""
    return LineStyle(COLOURS[order % len(COLOURS)], MARKERS[order % len(MARKERS)], DASHES[order % len(DASHES)])


def luminance(colour: Any) -> float:
    """Relative luminance of a colour, 0 black to 1 white (sRGB, WCAG 2): what is left of it in greyscale.

    >>> luminance("white"), round(luminance("#0072B2"), 2)
    (1.0, 0.15)
    """
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure in inches, laid out so that nothing overlaps (compressed: for square cells), outside pyplot."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def wrapped(title: str, width: float) -> str:
    """A title in lines that fit into a width in inches (estimated), broken at spaces.

    >>> wrapped("Randomly missing (told=true)", 1.2)
    'Randomly missing\\n(told=true)'
    """
    return textwrap.fill(title, max(8, int(width / 0.06)), break_long_words=False, break_on_hyphens=False)


def styled() -> AbstractContextManager[None]:
    """A context in which figures are drawn and saved (some settings are read only then), whatever the user's are."""
    return matplotlib.style.context(["default", dict(RC)])


def legend_columns(labels: Sequence[str], width: float) -> int:
    """How many columns of a legend, filled top to bottom, fit into a width in inches (estimated; at least one).

    >>> legend_columns(["QA-MoE", "RIDER-MoE", "chance"], 6.75), legend_columns(["a long label, one of many"] * 3, 3.25)
    (3, 1)
    """
    for columns in range(len(labels), 1, -1):
        shares = np.array_split([len(label) for label in labels], columns)  # as matplotlib fills them
        if sum(0.052 * share.max() + 0.6 for share in shares) <= width:
            return columns
    return 1
