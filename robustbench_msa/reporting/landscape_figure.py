"""Landscapes: one metric over a grid of two severities, a heat map per model on one colour scale.

Two functions: ``landscape_info`` says exactly what is drawn, ``landscape_figure`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from corruptions import InputError
from robustbench_msa.analysis.metrics import Array, Metric
from robustbench_msa.reporting import entries, names, style
from robustbench_msa.reporting.entries import Entry, Facts

MAX_ANNOTATED = 10
"""Values are written into the cells up to this many per axis."""


class Panel(NamedTuple):
    """One model. values: rows by the second severity from 0 upwards, columns by the first; None: null or not run."""

    entry: Entry
    values: tuple[tuple[float | None, ...], ...]


class Scale(NamedTuple):
    """From values to colours."""

    norm: Normalize
    cmap: Colormap

    def ink(self, value: float) -> str:
        """Black or white, whichever contrasts more with the value's colour (relative luminance of sRGB, WCAG 2)."""
        rgb = np.asarray(self.cmap(float(self.norm(value)))[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = float(linear @ [0.2126, 0.7152, 0.0722])
        return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


class LandscapeInfo(NamedTuple):
    """x, y: severities as in the store. low, high: the ends of the common scale. chance: its level, if it was run."""

    stress: str
    params: str
    metric: Metric
    x: tuple[str, ...]
    y: tuple[str, ...]
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    low: float
    high: float
    chance: float | None
    facts: Facts

    def frame(self) -> pd.DataFrame:
        """What is drawn, one row a cell, in the units of the store."""
        return pd.DataFrame(
            [
                (self.stress, self.params, self.metric.name, *entry.columns(), x, y, value)
                for entry, values in self.panels
                for y, row in zip(self.y, values, strict=True)
                for x, value in zip(self.x, row, strict=True)
            ],
            columns=["stress", "params", "metric", *entries.COLUMNS, "severity", "severity_2", "value"],
        ).astype({"train_seed": "Int64", "value": "float64"})


def landscape_info(
    curves: pd.DataFrame, metric: str | None = None, stress: str | None = None, params: str | None = None
) -> LandscapeInfo:
    """What a landscape shows: means over corruption seeds. Chance is a level, not a panel.

    Args:
        curves: the tidy table of curves of one dataset, split and profile.
        metric: default the first of the profile's usual metrics.
        stress, params: may be left out where only one stress has two axes.

    Raises:
        InputError: nothing or several things to draw, several datasets, an unknown metric.
    """
    frame = entries.stressed(curves)
    stress, params, rows = _select(frame, stress, params)
    chosen = entries.choose_metrics(rows, None if metric is None else [metric])[0]
    rows = rows[rows["metric"] == chosen.name]
    x, y = (tuple(sorted(set(rows[axis]), key=Decimal)) for axis in ("severity", "severity_2"))
    drawn = rows[rows["model"] != "chance"]
    if drawn.empty:
        raise InputError("landscape: expected a model to draw, there is only chance, which is the same everywhere")
    who = entries.find_entries(drawn, [stress])
    panels = tuple(Panel(entry, _values(entries.rows_of(drawn, entry), entry, x, y)) for entry in who)
    found = [value for panel in panels for row in panel.values for value in row if value is not None]
    x_label, y_label = names.axis_labels(stress, 2)
    level = rows["value"][rows["model"] == "chance"].dropna()
    return LandscapeInfo(
        stress=stress,
        params=params,
        metric=chosen,
        x=x,
        y=y,
        x_label=x_label,
        y_label=y_label,
        panels=panels,
        low=min(found, default=0.0),
        high=max(found, default=1.0),
        chance=None if level.empty else float(level.iloc[0]),
        facts=entries.find_facts(rows),
    )


def landscape_caption(info: LandscapeInfo) -> str:
    seeds = info.facts.seeds()
    sentences = [
        f"{names.metric_label(info.metric)} over {names.stress_title(info.stress, info.params)} on {info.facts.data()}",
        f"Cells are means over {seeds}" if seeds else "Cells are means over seeds",
        "One colour scale for all panels, brighter is better; the clean input is at the lower left",
        "Hatched: undefined or not run" if any(None in row for panel in info.panels for row in panel.values) else "",
        info.facts.training(),
        "The dashed line on the colour bar is chance" if _chance_in_range(info) else "",
    ]
    return ". ".join(filter(None, sentences)) + "."


def landscape_figure(info: LandscapeInfo) -> Figure:
    """Draws what ``landscape_info`` found. One column wide for one model, a page wide for more."""
    n_x, n_y = len(info.x), len(info.y)
    rows, columns = _arrange(len(info.panels), n_x)
    width = style.COLUMN if columns == 1 else style.PAGE
    cell = min(0.42, (width - 1.0 - 0.2 * columns) / columns / n_x)  # inches
    scale = Scale(Normalize(*_limits(info)), brighter_is_better(info.metric))
    with style.styled():
        figure = style.new_figure(columns * (cell * n_x + 0.2) + 1.0, rows * (cell * n_y + 0.25) + 0.5, "compressed")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, panel in zip(axes.flat, info.panels, strict=False):
            _draw_panel(ax, panel, info, scale, cell)
        for ax in axes.flat[len(info.panels) :]:
            ax.remove()
        for i, ax in enumerate(axes.flat[: len(info.panels)]):
            ax.set_ylabel(info.y_label if i % columns == 0 else "")
            if i + columns >= len(info.panels):
                ax.set_xlabel(info.x_label)
                ax.tick_params(labelbottom=True)  # also where the panel below is empty
        _draw_colour_bar(figure, axes.flat[: len(info.panels)].tolist(), info, scale)
    return figure


def brighter_is_better(metric: Metric) -> Colormap:
    return matplotlib.colormaps["viridis" if metric.higher_is_better else "viridis_r"]


def _select(frame: pd.DataFrame, stress: str | None, params: str | None) -> tuple[str, str, pd.DataFrame]:
    rows = frame[frame["severity_2"].notna()]
    rows = rows.assign(params=rows["params"].fillna(""))
    if stress is not None:
        rows = rows[rows["stress"] == stress]
    if params is not None:
        rows = rows[rows["params"] == params]
    found = sorted(set(zip(rows["stress"], rows["params"], strict=True)))
    if len(found) != 1:
        have = ", ".join(names.stress_title(*key) for key in found) or "none"
        raise InputError(
            f"landscape: expected one stress with two severity axes, got {have}; name one by stress, params"
        )
    return *found[0], rows


def _arrange(panels: int, n_x: int) -> tuple[int, int]:
    """Rows and columns of panels on a page, as even as can be, with cells wide enough (0.2 inches) for their values."""
    most = min(panels, 4, int((style.PAGE - 1.0) / (0.2 * n_x + 0.2)) or 1)
    rows = -(-panels // most)
    return rows, -(-panels // rows)


def _values(
    rows: pd.DataFrame, entry: Entry, x: tuple[str, ...], y: tuple[str, ...]
) -> tuple[tuple[float | None, ...], ...]:
    keys = list(zip(rows["severity"], rows["severity_2"], strict=True))
    if len(set(keys)) < len(keys):
        raise InputError(f"landscape: {entry.label} has two values at one point of the grid; select one run")
    at = dict(zip(keys, map(entries.number, rows["value"]), strict=True))
    return tuple(tuple(at.get((a, b)) for a in x) for b in y)


def _limits(info: LandscapeInfo) -> tuple[float, float]:
    """The ends of the colour scale; a constant landscape gets some room."""
    return (info.low, info.high) if info.low < info.high else (info.low - 0.5, info.high + 0.5)


def _chance_in_range(info: LandscapeInfo) -> bool:
    return info.chance is not None and info.low <= info.chance <= info.high


def _draw_panel(ax: Axes, panel: Panel, info: LandscapeInfo, scale: Scale, cell: float) -> None:
    values = np.array(panel.values, dtype=np.float64)  # (len(y), len(x)), NaN where null
    edges = [np.arange(n + 1) - 0.5 for n in (len(info.x), len(info.y))]
    ax.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=scale.cmap, norm=scale.norm, edgecolors="white", lw=0.4)
    for j, i in zip(*np.nonzero(np.isnan(values)), strict=True):
        ax.add_patch(
            Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor="0.93", edgecolor="0.6", hatch="////", linewidth=0.4)
        )
    if max(values.shape) <= MAX_ANNOTATED:
        _write_values(ax, values, info.metric, scale, cell)
    ax.set_title(style.wrapped(panel.entry.label, cell * len(info.x)))
    ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks(range(len(info.x)), _thinned(info.x))
    ax.set_yticks(range(len(info.y)), _thinned(info.y))


def _thinned(severities: Sequence[str]) -> list[str]:
    """Labels of a tick per severity, at most MAX_ANNOTATED of them not empty."""
    every = -(-len(severities) // MAX_ANNOTATED)
    return [severity if i % every == 0 else "" for i, severity in enumerate(severities)]


def _write_values(ax: Axes, values: Array, metric: Metric, scale: Scale, cell: float) -> None:
    decimals = 1 if names.is_percent(metric) else 2
    for (j, i), value in np.ndenumerate(values):
        if not np.isnan(value):
            text = names.format_value(metric, float(value), decimals)
            size = min(6.5, 72 * cell / (0.68 * max(4, len(text))))  # a digit is about 0.64 em wide
            ax.text(i, j, text, ha="center", va="center", fontsize=size, color=scale.ink(float(value)))


def _draw_colour_bar(figure: Figure, axes: list[Axes], info: LandscapeInfo, scale: Scale) -> None:
    bar = figure.colorbar(
        ScalarMappable(scale.norm, scale.cmap),
        ax=axes,
        label=names.metric_label(info.metric),
        fraction=0.04,
        pad=0.02,
        aspect=28,
    )
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    if names.is_percent(info.metric):
        bar.ax.yaxis.set_major_formatter(style.PERCENT)
    if info.chance is not None and _chance_in_range(info):
        bar.ax.axhline(info.chance, color="white", linewidth=2.2)
        bar.ax.axhline(info.chance, color="black", linestyle=(0, (2, 1)), linewidth=1.0)
