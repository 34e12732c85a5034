"""Landscapes: one metric over a grid of two severities, a heat map per model on one colour scale.

Two functions: ``landscape_info`` says exactly what is drawn, ``landscape_figure`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from corruptions import InputError
from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import choice, entries, names, style
from robustbench_msa.reporting.entries import Entry, Facts
from robustbench_msa.reporting.heat_map import (
    MAX_ANNOTATED as MAX_ANNOTATED,
)
from robustbench_msa.reporting.heat_map import (
    Layout,
    Scale,
    Values,
    draw_cells,
    draw_colour_bar,
    draw_iso_lines,
    heat_axes,
    layout,
    write_values,
)

MAX_PANELS = 12
"""More lines than this do not fit a page; then those that would be coloured are shown (``choice``)."""


class Panel(NamedTuple):
    """One model."""

    entry: Entry
    values: Values


class LandscapeInfo(NamedTuple):
    """x, y: severities as in the store. low, high: the ends of the common scale. chance: its level, if it
    was run; left_out: lines that were run and are not shown.
    """

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
    left_out: tuple[Entry, ...] = ()

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
    curves: pd.DataFrame,
    metric: str | None = None,
    stress: str | None = None,
    params: str | None = None,
    models: Sequence[str] | None = None,
) -> LandscapeInfo:
    """What a landscape shows: means over corruption seeds. Chance is a level, not a panel.

    Args:
        curves: the tidy table of curves of one dataset, split and profile.
        metric: default the first of the profile's usual metrics.
        stress, params: may be left out where only one stress has two axes.
        models: the lines to show (``choice.fits``); default all of them and the oracle.

    Raises:
        InputError: nothing or several things to draw, several datasets, an unknown metric or line.
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
    shown = choice.alone(choice.named(who, models), [stress]) if models else who
    panels = tuple(Panel(entry, _values(entries.rows_of(drawn, entry), entry, x, y)) for entry in shown)
    low, high = _ends(panels)
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
        low=low,
        high=high,
        chance=None if level.empty else float(level.iloc[0]),
        facts=entries.find_facts(_with_draws(rows)),
        left_out=tuple(entry for entry in who if entry[:4] not in {other[:4] for other in shown}),
    )


def fitting_a_page(info: LandscapeInfo) -> LandscapeInfo:
    """The same with no more than MAX_PANELS panels."""
    if len(info.panels) <= MAX_PANELS:
        return info
    who = [panel.entry for panel in info.panels]
    kept = choice.coloured(who)
    panels = tuple(panel for panel in info.panels if panel.entry in kept or panel.entry.is_reference)
    low, high = _ends(panels)
    others = tuple(entry for entry in who if entry not in kept and not entry.is_reference)
    return info._replace(panels=panels, low=low, high=high, left_out=info.left_out + others)


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


def landscape_note(info: LandscapeInfo) -> str:
    """What the drawing adds to the numbers, for its caption: iso-lines, and who is not shown."""
    sentences = ["Lines join equal values, those at the ticks of the colour bar"]
    if _chance_in_range(info):
        sentences.append("dashed where a model falls to chance")
    left_out = f" Not shown: {'; '.join(entry.label for entry in info.left_out)}." if info.left_out else ""
    return f"{', '.join(sentences)}.{left_out}"


def landscape_figure(info: LandscapeInfo, width: float | None = None) -> Figure:
    """Draws what ``landscape_info`` found. width: inches at most; default a column for one model, a page for more."""
    place = layout(len(info.panels), len(info.x), len(info.y), width)
    scale = Scale(Normalize(*_limits(info)), brighter_is_better(info.metric))
    with style.styled():
        figure = style.new_figure(*place.size, "compressed")
        axes = heat_axes(figure, place, len(info.panels), info.x_label, info.y_label)
        for ax, panel in zip(axes, info.panels, strict=True):
            _draw_panel(ax, panel, info, scale, place)
        percent = names.is_percent(info.metric)
        bar = draw_colour_bar(figure, axes, scale, names.metric_label(info.metric), percent)
        if info.chance is not None and _chance_in_range(info):
            bar.axhline(info.chance, color="white", linewidth=2.2)
            bar.axhline(info.chance, color="black", linestyle=(0, (2, 1)), linewidth=1.0)
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


def _with_draws(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of points that are drawn anew for each seed; the untouched input has one realisation."""
    drawn = rows[(rows["severity"] != "0") | (rows["severity_2"] != "0")]
    return rows if drawn.empty else drawn


def _ends(panels: Sequence[Panel]) -> tuple[float, float]:
    found = [value for panel in panels for row in panel.values for value in row if value is not None]
    return min(found, default=0.0), max(found, default=1.0)


def _values(rows: pd.DataFrame, entry: Entry, x: tuple[str, ...], y: tuple[str, ...]) -> Values:
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


def _draw_panel(ax: Axes, panel: Panel, info: LandscapeInfo, scale: Scale, place: Layout) -> None:
    values = np.array(panel.values, dtype=np.float64)  # (len(y), len(x)), NaN where null
    draw_cells(ax, values, info.x, info.y, scale)
    inks = [scale.ink(level) for level in scale.levels()]
    for level, ink in zip(scale.levels(), inks, strict=True):
        draw_iso_lines(ax, values, np.array([level]), colors=ink, linewidths=0.5, alpha=0.8)
    if info.chance is not None:
        draw_iso_lines(ax, values, np.array([info.chance]), colors="white", linewidths=2.2)
        draw_iso_lines(ax, values, np.array([info.chance]), colors="black", linewidths=1.0, linestyles=[(0, (2, 1))])
    if max(values.shape) <= MAX_ANNOTATED:
        decimals = 1 if names.is_percent(info.metric) else 2
        text = partial(names.format_value, info.metric, decimals=decimals)
        write_values(ax, values, text, scale, place.cell)
    ax.set_title(style.wrapped(panel.entry.label, place.cell * place.n_x))
