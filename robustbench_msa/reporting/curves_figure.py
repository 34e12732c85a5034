"""Severity curves as small multiples: a column per stress, a row per metric.

Two functions: ``curves_info`` says exactly what is drawn, ``curves_figure`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from corruptions import InputError
from corruptions.grid import SUBSETS
from robustbench_msa.analysis.metrics import NULL_SCORES, Array, Metric
from robustbench_msa.reporting import choice, entries, names, style
from robustbench_msa.reporting.entries import Entry, Facts
from robustbench_msa.reporting.multiples import Multiples, fold, multiples

LEAST = 0.9  # inches: the narrowest panel


class Series(NamedTuple):
    """One model in one panel. at: severities as in the store, or available sets; None is null and leaves a gap."""

    entry: Entry
    at: tuple[str, ...]
    values: tuple[float | None, ...]
    ci_low: tuple[float | None, ...]
    ci_high: tuple[float | None, ...]

    def points(self) -> list[tuple[str, float | None, float | None, float | None]]:
        return list(zip(self.at, self.values, self.ci_low, self.ci_high, strict=True))


class Panel(NamedTuple):
    """One metric under one stress. conditions: every available set on a categorical axis; empty for a numeric one."""

    stress: str
    params: str
    title: str
    x_label: str
    metric: Metric
    conditions: tuple[str, ...]
    series: tuple[Series, ...]


class CurvesInfo(NamedTuple):
    """panels: rows by metric, columns by stress; coloured: the lines that are told apart, others are grey."""

    panels: tuple[tuple[Panel, ...], ...]
    facts: Facts
    coloured: tuple[Entry, ...]

    @property
    def others(self) -> tuple[Entry, ...]:
        """The lines in grey, references apart."""
        found = {s.entry: None for panel in self.panels[0] for s in panel.series if not s.entry.is_reference}
        return tuple(entry for entry in found if entry not in self.coloured)

    def frame(self) -> pd.DataFrame:
        """What is drawn, one row a point, in the units of the store. grey: is the line one of the others?"""
        return pd.DataFrame(
            [
                (p.stress, p.params, p.metric.name, *s.entry.columns(), s.entry in self.others, *point)
                for row in self.panels
                for p in row
                for s in p.series
                for point in s.points()
            ],
            columns=[*_IDENTITY, "grey", "at", "value", "ci_low", "ci_high"],
        ).astype({"train_seed": "Int64", "value": "float64", "ci_low": "float64", "ci_high": "float64"})


_IDENTITY = ("stress", "params", "metric", *entries.COLUMNS)


def curves_info(
    curves: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    stresses: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    only: bool = False,
) -> CurvesInfo:
    """What a figure of severity curves shows. Two-axis stresses are left out; they have landscapes.

    Args:
        curves: the tidy table of curves of one dataset, split and profile. Only means over corruption seeds are drawn.
        metrics, stresses: what to show, in this order. Default: the profile's usual metrics, and every stress.
        models: the lines in colours (``choice.coloured``); only: leave the others out instead of drawing them grey.

    Raises:
        InputError: nothing to draw, several datasets, an unknown metric, a stress or a line that was not run.
    """
    frame = entries.stressed(curves)
    chosen = entries.choose_metrics(frame, metrics)
    drawable = frame[frame["severity_2"].isna() & frame["metric"].isin([metric.name for metric in chosen])]
    columns = _columns(drawable, stresses)
    drawn = drawable[drawable["stress"].isin([stress for stress, _ in columns])]
    who = entries.find_entries(frame, [stress for stress, _ in columns])  # of all rows: a model keeps its style
    colours = choice.coloured(who, models)
    if only:  # labels need not tell them from those that are left out
        kept = [entry for entry in who if entry.is_reference or entry in colours]
        who = choice.alone(kept, [stress for stress, _ in columns])
        colours = tuple(entry for entry in who if not entry.is_reference)
    rows = tuple(tuple(_panel(drawn, who, metric, *column) for column in columns) for metric in chosen)
    return CurvesInfo(rows, entries.find_facts(_with_draws(drawn)), colours)


def curves_caption(info: CurvesInfo, interval: str = names.INTERVAL) -> str:
    """What the figure cannot say itself: the data, the seeds, what line and band are. interval: what the band is."""
    first_row = info.panels[0]
    who = {series.entry.model for panel in first_row for series in panel.series}
    seeds = info.facts.seeds()
    sentences = [
        f"Severity curves on {info.facts.data()}",
        f"Values are means over {seeds}" if seeds else "Values are means over seeds",
        f"{_marks(first_row)}: {info.facts.intervals(interval)}",
        info.facts.training(),
        "Severity 0 is the untouched input" if any(not panel.conditions for panel in first_row) else "",
        "Chance: the best constant of the training labels" if "chance" in who else "",
        "The oracle knows how the data were made, and the stress" if "oracle" in who else "",
    ]
    return ". ".join(filter(None, sentences)) + "."


def others_note(info: CurvesInfo) -> str:
    """Who is drawn in grey, for the caption of the drawing; empty where nobody is."""
    return f"In grey: {'; '.join(entry.label for entry in info.others)}." if info.others else ""


def curves_figure(info: CurvesInfo, width: float | None = None) -> Figure:
    """Draws what ``curves_info`` found. width: inches; default one column for one stress, a page for more."""
    n_rows, first_row = len(info.panels), info.panels[0]
    weights = [1.5 if panel.conditions and len(first_row) > 1 else 1.0 for panel in first_row]
    width = width or (style.COLUMN if len(first_row) == 1 else style.PAGE)
    blocks = len(fold(weights, width, LEAST))
    with style.styled():
        figure = style.new_figure(width, 1.0)
        grid = multiples(figure, n_rows, weights, LEAST, share_x=True)
        for row, axes in zip(info.panels, grid.axes, strict=True):
            for ax, panel in zip(axes, row, strict=True):
                _draw_panel(ax, panel, info.coloured)
            for start in grid.starts:
                axes[start].set_ylabel(names.metric_label(row[0].metric))
            if names.is_percent(row[0].metric):
                axes[0].yaxis.set_major_formatter(style.PERCENT)
        for j, panel in enumerate(first_row):
            grid.axes[0][j].set_title(style.wrapped(panel.title, grid.panel[j] - 0.05))
            grid.axes[-1][j].set_xlabel(panel.x_label)
            if not panel.conditions:
                _severity_ticks(grid.axes[-1][j], panel, grid.panel[j])
        figure.align_xlabels()
        lines = _draw_legend(figure, info, grid, width)
        figure.set_size_inches(width, blocks * ((1.45 if width > 4 else 1.2) * n_rows + 0.45) + 0.15 * lines + 0.1)
    return figure


def _columns(frame: pd.DataFrame, stresses: Sequence[str] | None) -> list[tuple[str, str]]:
    """(stress, params) in the order asked for; numeric axes before conditions, else as they come in names.STRESSES."""
    found = set(zip(frame["stress"], frame["params"].fillna(""), strict=True))
    for stress in stresses or ():
        if stress not in {name for name, _ in found}:
            have = ", ".join(sorted({name for name, _ in found})) or "none"
            raise InputError(f"curves: stress {stress!r} has no curve in these results; there is {have}")
    if not found:
        raise InputError("curves: no stress with one severity axis in these results (two axes: plot landscape)")
    order = list(stresses or [*names.STRESSES, *sorted({name for name, _ in found} - set(names.STRESSES))])
    by_condition = set(frame["stress"][frame["condition"].notna()]) if stresses is None else set()
    return sorted(
        (column for column in found if column[0] in order),
        key=lambda column: (column[0] in by_condition, order.index(column[0]), column[1]),
    )


def _with_draws(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that had random draws, where there are any: available sets and the clean input have one realisation."""
    drawn = frame[frame["severity"].notna() & (frame["severity"] != "0")]
    return frame if drawn.empty else drawn


def _panel(frame: pd.DataFrame, who: Sequence[Entry], metric: Metric, stress: str, params: str) -> Panel:
    rows = frame[
        (frame["stress"] == stress) & (frame["params"].fillna("") == params) & (frame["metric"] == metric.name)
    ]
    found = set(rows["condition"].dropna())
    conditions = tuple(c for c in SUBSETS if c in found)
    series = tuple(_series(entries.rows_of(rows, entry), entry, metric, conditions) for entry in who)
    x_label = "available modalities" if conditions else names.axis_labels(stress, 1)[0]
    title = names.stress_title(stress, params)
    return Panel(stress, params, title, x_label, metric, conditions, tuple(s for s in series if s.at))


def _series(rows: pd.DataFrame, entry: Entry, metric: Metric, conditions: tuple[str, ...]) -> Series:
    if conditions:
        ordered = rows.assign(place=rows["condition"].map(conditions.index)).sort_values("place")
        at = tuple(map(str, ordered["condition"]))
    else:
        ordered = rows.assign(place=rows["severity"].map(Decimal)).sort_values("place")
        at = tuple(map(str, ordered["severity"]))
    if len(set(at)) < len(at):
        raise InputError(f"curves: {entry.label} has two values of {metric.name} at one severity; select one run")
    values = tuple(map(entries.number, ordered["value"]))
    if entry.model == "chance":  # the chance row of Corr is 0, though Corr of a constant is null
        values = tuple(NULL_SCORES.get(metric.name) if value is None else value for value in values)
    return Series(entry, at, values, *(tuple(map(entries.number, ordered[ci])) for ci in ("ci_low", "ci_high")))


def _marks(panels: Sequence[Panel]) -> str:
    kinds = {bool(panel.conditions) for panel in panels}
    return {(False,): "Bands", (True,): "Bars", (False, True): "Bands and bars"}[tuple(sorted(kinds))]


def _draw_panel(ax: Axes, panel: Panel, coloured: Sequence[Entry]) -> None:
    models = [series for series in panel.series if series.entry in coloured]
    for series in panel.series:
        if series.entry.model == "chance":
            _draw_chance(ax, series)
        elif series.entry.model == "oracle":
            _draw_oracle(ax, panel, series)
        elif series.entry not in coloured:
            _draw_other(ax, panel, series)
        elif panel.conditions:
            _draw_dots(ax, panel, series, coloured, _dodge(models, series))
        else:
            _draw_curve(ax, series, coloured)
    if panel.conditions:
        ax.set_xticks(range(len(panel.conditions)), [names.condition_label(c) for c in panel.conditions])
        ax.set_xlim(-0.6, len(panel.conditions) - 0.4)
        ax.grid(visible=False, axis="x")
    ax.autoscale(axis="y")  # axhline alone leaves a level near the edge without a margin


def _draw_chance(ax: Axes, series: Series) -> None:
    level = next((value for value in series.values if value is not None), None)
    if level is not None:  # the same constant whatever happens to the input
        ax.axhline(
            level, color=style.CHANCE, linestyle=(0, (4, 2)), linewidth=1.0, label=series.entry.label, zorder=1.5
        )


def _draw_oracle(ax: Axes, panel: Panel, series: Series) -> None:
    look: dict[str, Any] = {"color": style.ORACLE, "linestyle": ":", "linewidth": 1.3, "label": series.entry.label}
    x, (y, _, _) = _places(panel, series), _scores(series)
    if panel.conditions:  # categories are not joined by a line
        ax.hlines(y, x - 0.4, x + 0.4, **look)
    else:
        ax.plot(x, y, zorder=1.8, **look)


def _draw_other(ax: Axes, panel: Panel, series: Series) -> None:
    x, (y, _, _) = _places(panel, series), _scores(series)
    if panel.conditions:
        ax.plot(x, y, color=style.OTHERS, linestyle="none", marker="_", markersize=5, zorder=1.6)
    else:
        ax.plot(x, y, color=style.OTHERS, linewidth=0.8, zorder=1.6)


def _draw_curve(ax: Axes, series: Series, coloured: Sequence[Entry]) -> None:
    x, (y, low, high) = np.array([float(at) for at in series.at]), _scores(series)
    look, crowded = style.line_style(coloured.index(series.entry)), len(coloured) > 3
    ax.fill_between(x, low, high, color=look.colour, alpha=0.08 if crowded else 0.15, linewidth=0)
    line: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "marker": look.marker}
    line |= {"linewidth": 1.0, "markersize": 2.8} if crowded else {}
    ax.plot(x, y, label=series.entry.label, **line)


def _draw_dots(ax: Axes, panel: Panel, series: Series, coloured: Sequence[Entry], dodge: float) -> None:
    x, (y, low, high) = _places(panel, series), _scores(series)
    look = style.line_style(coloured.index(series.entry))
    ax.vlines(x + dodge, low, high, color=look.colour, linewidth=0.9)
    ax.plot(x + dodge, y, color=look.colour, linestyle="none", marker=look.marker, label=series.entry.label)


def _places(panel: Panel, series: Series) -> Array:
    """Where the points stand on the horizontal axis, ``(points,)``."""
    at = map(panel.conditions.index, series.at) if panel.conditions else series.at
    return np.array([float(place) for place in at])


def _dodge(models: Sequence[Series], series: Series) -> float:
    """Models side by side within 0.6 of a category."""
    if series not in models or len(models) == 1:
        return 0.0
    return 0.6 * (models.index(series) / (len(models) - 1) - 0.5)


def _scores(series: Series) -> tuple[Array, ...]:
    """Values and both ends of their intervals, ``(points,)`` each; NaN where null."""
    return tuple(np.array(v, dtype=np.float64) for v in (series.values, series.ci_low, series.ci_high))


def _severity_ticks(ax: Axes, panel: Panel, width: float) -> None:
    """A tick at every severity that was run, with as many labelled as fit, six at most; the clean end is named."""
    severities = sorted({at for series in panel.series for at in series.at}, key=Decimal)
    every = -(-len(severities) // max(2, min(6, int(width / 0.2))))
    ax.set_xticks(
        [float(s) for s in severities],
        ["0\nclean" if s == "0" else s if i % every == 0 else "" for i, s in enumerate(severities)],
    )


def _draw_legend(figure: Figure, info: CurvesInfo, grid: Multiples, width: float) -> int:
    """One legend for all panels, below them; a label that several panels share appears once. Returns its lines."""
    handles: dict[str, Any] = {}
    for ax in grid.all:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label if width > 4 else label.partition(" (")[0], handle)  # the caption says the rest
    if info.others:
        several = f"{len(info.others)} others" if len(info.others) > 1 else info.others[0].label
        handles[several] = Line2D([], [], color=style.OTHERS, linewidth=0.8)
    columns = style.legend_columns(list(handles), width)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
    return -(-len(handles) // columns)
