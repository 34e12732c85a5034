"""Heat maps over two severities: cells, iso-lines and numbers, on a colour scale that several panels share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from robustbench_msa.analysis.metrics import Array
from robustbench_msa.reporting import style

MAX_ANNOTATED = 10
"""Values are written into the cells up to this many per axis."""
MARGIN, GAP = 1.0, 0.2  # inches: for labels and the colour bar; between panels
WIDEST_CELL = 0.42  # inches
Values = tuple[tuple[float | None, ...], ...]
"""Rows by the second severity from 0 upwards, columns by the first; None: null or not run."""


class Scale(NamedTuple):
    """From values to colours."""

    norm: Normalize
    cmap: Colormap

    def ink(self, value: float) -> str:
        """Black or white, whichever contrasts more with the value's colour (relative luminance of sRGB, WCAG 2)."""
        return "black" if (self.luminance(value) + 0.05) / 0.05 > 1.05 / (self.luminance(value) + 0.05) else "white"

    def luminance(self, value: float) -> float:
        return style.luminance(self.cmap(float(self.norm(value))))

    def levels(self) -> Array:
        """About five round values between the ends: where iso-lines are, and ticks of the colour bar."""
        low, high = float(self.norm.vmin or 0), float(self.norm.vmax or 0)
        found = np.asarray(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        return found[(found > low) & (found < high)]


class Layout(NamedTuple):
    """rows, columns: of panels; cell: inches; n_x, n_y: cells of a panel."""

    rows: int
    columns: int
    cell: float
    n_x: int
    n_y: int

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure in inches; panels have titles."""
        return self.columns * (self.cell * self.n_x + GAP) + MARGIN, self.rows * (self.cell * self.n_y + 0.25) + 0.5


def layout(panels: int, n_x: int, n_y: int, width: float | None = None) -> Layout:
    """Panels as even as can be, with cells wide enough (0.2 inches) for their values.

    width: inches; default one column for one panel, a page for more.
    """
    room = (width or (style.COLUMN if panels == 1 else style.PAGE)) - MARGIN
    most = min(panels, 4, int(room / (0.2 * n_x + GAP)) or 1)
    rows = -(-panels // most)
    columns = -(-panels // rows)
    return Layout(rows, columns, min(WIDEST_CELL, (room - GAP * columns) / columns / n_x), n_x, n_y)


def heat_axes(figure: Figure, place: Layout, panels: int, x_label: str, y_label: str) -> list[Axes]:
    """Empty panels with labels at the left and wherever nothing is below."""
    axes = figure.subplots(place.rows, place.columns, squeeze=False, sharex=True, sharey=True).ravel().tolist()
    for ax in axes[panels:]:
        ax.remove()
    for i, ax in enumerate(axes[:panels]):
        ax.set_ylabel(y_label if i % place.columns == 0 else "")
        if i + place.columns >= panels:
            ax.set_xlabel(x_label)
            ax.tick_params(labelbottom=True)  # also where the panel below is empty
    return axes[:panels]


def draw_cells(ax: Axes, values: Array, x: Sequence[str], y: Sequence[str], scale: Scale) -> None:
    """values: ``(len(y), len(x))``; NaN cells are hatched."""
    edges = [np.arange(n + 1) - 0.5 for n in (len(x), len(y))]
    ax.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=scale.cmap, norm=scale.norm, edgecolors="white", lw=0.4)
    for j, i in zip(*np.nonzero(np.isnan(values)), strict=True):
        box: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "0.6", "hatch": "////", "linewidth": 0.4}
        ax.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, **box))
    ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks(range(len(x)), _thinned(x))
    ax.set_yticks(range(len(y)), _thinned(y))


def draw_iso_lines(ax: Axes, values: Array, levels: Array, **look: Any) -> None:
    """Lines of equal value through the middles of the cells; none where they would cross less than a square."""
    known = values[~np.isnan(values)]
    crossed = levels[(levels > known.min(initial=np.inf)) & (levels < known.max(initial=-np.inf))]
    if min(values.shape) < 2 or not len(crossed):
        return
    ax.contour(np.ma.masked_invalid(values), levels=crossed, **look)


def write_values(ax: Axes, values: Array, text: Callable[[float], str], scale: Scale, cell: float) -> None:
    """The number of every cell, as large as fits. text: how a value is written."""
    for (j, i), value in np.ndenumerate(values):
        if not np.isnan(value):
            written = text(float(value))
            size = min(6.5, 72 * cell / (0.68 * max(4, len(written))))  # a digit is about 0.64 em wide
            behind = {"facecolor": scale.cmap(float(scale.norm(value))), "edgecolor": "none", "pad": 0.2}  # hides lines
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": scale.ink(float(value)), "bbox": behind}
            ax.text(i, j, written, fontsize=size, **look)


def draw_colour_bar(figure: Figure, axes: Sequence[Axes], scale: Scale, label: str, percent: bool) -> Axes:
    """The one scale of all panels, with a tick at every iso-line."""
    mappable = ScalarMappable(scale.norm, scale.cmap)
    bar = figure.colorbar(mappable, ax=list(axes), label=label, fraction=0.04, pad=0.02, aspect=28)
    bar.set_ticks(scale.levels().tolist())
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    if percent:
        bar.ax.yaxis.set_major_formatter(style.PERCENT)
    return bar.ax


def _thinned(severities: Sequence[str]) -> list[str]:
    """Labels of a tick per severity, at most MAX_ANNOTATED of them not empty."""
    every = -(-len(severities) // MAX_ANNOTATED)
    return [severity if i % every == 0 else "" for i, severity in enumerate(severities)]
