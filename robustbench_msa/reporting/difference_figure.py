"""Difference landscapes: models minus a baseline over a grid of two severities, paired at every point.

Two functions: ``difference_info`` says exactly what is drawn, ``difference_figure`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from corruptions import InputError, Point
from robustbench_msa.analysis.evaluated import Evaluated, Line
from robustbench_msa.analysis.metrics import Array, Metric, get_profile
from robustbench_msa.analysis.paired import difference, holm
from robustbench_msa.evaluation.cells import Request
from robustbench_msa.reporting import choice, entries, names, style
from robustbench_msa.reporting.entries import Entry, Facts
from robustbench_msa.reporting.heat_map import (
    MAX_ANNOTATED,
    Layout,
    Scale,
    draw_cells,
    draw_colour_bar,
    draw_iso_lines,
    heat_axes,
    layout,
    write_values,
)


class Cell(NamedTuple):
    """Model minus baseline at a point, with its 95 % interval; p_holm: p adjusted over the cells of the panel."""

    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float

    @property
    def excludes_zero(self) -> bool:
        return self.ci_low > 0 or self.ci_high < 0


class Panel(NamedTuple):
    """One model. cells: rows by the second severity from 0 upwards, columns by the first."""

    entry: Entry
    cells: tuple[tuple[Cell, ...], ...]

    def values(self) -> Array:
        """``(rows, columns)``; NaN: undefined."""
        return np.array([[cell.difference for cell in row] for row in self.cells])

    def marks(self, metric: Metric) -> Array:
        """``(rows, columns)``: 1 where the model is better and the interval leaves zero out, -1 worse, else 0."""
        sign = 1 if metric.higher_is_better else -1
        return np.array([[cell.excludes_zero * sign * np.sign(cell.difference) for cell in row] for row in self.cells])


class DifferenceInfo(NamedTuple):
    """x, y: severities as in the store. limit: the colour scale of all panels is from -limit to limit."""

    stress: str
    params: str
    metric: Metric
    x: tuple[str, ...]
    y: tuple[str, ...]
    x_label: str
    y_label: str
    baseline: Entry
    panels: tuple[Panel, ...]
    limit: float
    facts: Facts

    def frame(self) -> pd.DataFrame:
        """What is drawn, one row a cell, in the units of the store."""
        return pd.DataFrame(
            [
                (self.stress, self.params, self.metric.name, *entry.columns(), self.baseline.label, x, y, *cell)
                for entry, cells in self.panels
                for y, row in zip(self.y, cells, strict=True)
                for x, cell in zip(self.x, row, strict=True)
            ],
            columns=[*_IDENTITY, *entries.COLUMNS, "baseline", "severity", "severity_2", *Cell._fields],
        ).astype({"train_seed": "Int64"})


_IDENTITY = ("stress", "params", "metric")


def difference_info(
    tables: Evaluated,
    models: Sequence[str],
    baseline: str,
    metric: str | None = None,
    stress: str | None = None,
) -> DifferenceInfo:
    """What a difference landscape shows: means over corruption seeds, and intervals of paired differences.

    Args:
        tables: the run, of which the lines asked for are enough.
        models, baseline: names of lines (``choice.fits``). Where several lines fit, the clean recipe, and of that the
            mean over training seeds.
        metric: default the first of the profile's usual metrics.
        stress: with its parameters after a colon; may be left out where only one stress has two axes.

    Raises:
        InputError: no such line or metric, nothing or several things to draw, or a model that is its own baseline.
    """
    request, lines = _select(tables, stress)
    who = dict(zip(_entries(lines, request.stress.name), lines, strict=True))
    against = _one(tuple(who), baseline)
    wanted = list(dict.fromkeys(_one(tuple(who), model) for model in models))
    if against in wanted:
        raise InputError(f"difference: {choice.line_name(against)} is the baseline; name another --model or --baseline")
    drawn = [who[entry] for entry in (*wanted, against)]
    *chosen, against = _entries(drawn, request.stress.name)
    profile = get_profile(tables.planned.profile)
    shown = profile.metric(metric or names.DEFAULT_METRICS[profile.name][0])
    x, y = ([str(severity) for severity in axis] for axis in request.grid.axes)
    panels = tuple(
        Panel(entry, _cells(tables, line, drawn[-1], request, x, y, shown))
        for entry, line in zip(chosen, drawn, strict=False)
    )
    limit = max((np.nanmax(np.abs(p.values()), initial=0.0) for p in panels), default=0.0)
    x_label, y_label = names.axis_labels(request.stress.name, 2)
    return DifferenceInfo(
        stress=request.stress.name,
        params=request.stress.params,
        metric=shown,
        x=tuple(x),
        y=tuple(y),
        x_label=x_label,
        y_label=y_label,
        baseline=against,
        panels=panels,
        limit=float(limit) or 1.0,
        facts=_facts(tables, request, drawn),
    )


def difference_caption(info: DifferenceInfo, interval: str = names.INTERVAL) -> str:
    seeds = info.facts.seeds()
    what = f"{names.metric_label(info.metric)} over {names.stress_title(info.stress, info.params)}"
    sentences = [
        f"Paired differences from {info.baseline.label}: {what} on {info.facts.data()}",
        f"Cells are means over {seeds}" if seeds else "",
        "One colour scale for all panels, symmetric about zero; the thick line is zero",
        "Dots: the interval leaves zero out (filled: better than the baseline, open: worse), not adjusted for the "
        f"number of cells: {info.facts.intervals(interval)}",
        info.facts.training(),
    ]
    return ". ".join(filter(None, sentences)) + "."


def difference_figure(info: DifferenceInfo, width: float | None = None) -> Figure:
    """Draws what ``difference_info`` found. width: inches at most; default a column for one model, a page for more."""
    place = layout(len(info.panels), len(info.x), len(info.y), width)
    scale = Scale(Normalize(-info.limit, info.limit), purple_is_better(info.metric))
    with style.styled():
        broad, high = place.size
        figure = style.new_figure(broad, high + 0.2, "compressed")
        axes = heat_axes(figure, place, len(info.panels), info.x_label, info.y_label)
        for ax, panel in zip(axes, info.panels, strict=True):
            _draw_panel(ax, panel, info, scale, place)
        label = f"difference in {names.metric_label(info.metric)}"
        draw_colour_bar(figure, axes, scale, label, names.is_percent(info.metric)).axhline(0, color="black", lw=1.1)
        _draw_legend(figure)
    return figure


def purple_is_better(metric: Metric) -> Colormap:
    """From orange over white to purple, told apart by the colour-blind; without the ends, on which nothing is read."""
    shades = matplotlib.colormaps["PuOr" if metric.higher_is_better else "PuOr_r"](np.linspace(0.1, 0.9, 256))
    return ListedColormap(shades)


_DOT: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 3.0, "markeredgewidth": 0.5}
_DOTS = {
    1: {**_DOT, "markerfacecolor": "black", "markeredgecolor": "white"},
    -1: {**_DOT, "markerfacecolor": "white", "markeredgecolor": "black"},
}


def _select(tables: Evaluated, stress: str | None) -> tuple[Request, list[Line]]:
    """The two-axis request that most lines finished, then with most seeds, and its lines."""
    done: dict[Request, list[Line]] = {}
    for line, request in tables.asked():
        if len(request.grid.axes) == 2 and tables.complete(line, request):
            done.setdefault(request, []).append(line)
    labels = sorted({request.stress.label for request in done})
    if stress is not None:
        done = {request: lines for request, lines in done.items() if request.stress.label == stress}
    if len({request.stress.label for request in done}) != 1:
        raise InputError(
            f"difference: expected one stress with two severity axes, got {', '.join(labels) or 'none'}"
            + ("; name one by --stress" if done else " (run --stress spectrum)" if not labels else f", not {stress}")
        )
    best = max(done, key=lambda request: (len(done[request]), len(request.seeds), request.seeds))
    return best, done[best]


def _identity(line: Line) -> tuple[str, str, int | None, str]:
    return line.model, line.recipe, line.train_seed, line.checkpoint


def _entries(lines: Sequence[Line], stress: str) -> list[Entry]:
    """The lines as they are labelled when they are all that is shown, in their order."""
    plain = [Entry(*_identity(line), "", "", 0) for line in lines]
    found = {entry[:4]: entry for entry in choice.alone(plain, [stress])}
    return [found[model, recipe, seed, checkpoint or None] for model, recipe, seed, checkpoint in map(_identity, lines)]


def _one(who: Sequence[Entry], text: str) -> Entry:
    """The line that is meant: of several the clean recipe, and of that the mean over training seeds."""
    found = choice.named(who, [text])
    for better in ([e for e in found if e.recipe in ("", "clean")], [e for e in found if e.train_seed is None]):
        found = tuple(e for e in found if e in better) or found
    if len(found) > 1:
        have = ", ".join(dict.fromkeys(choice.line_name(entry) for entry in found))
        raise InputError(f"difference: {text} means {len(found)} lines; name one of {have}")
    return found[0]


def _cells(
    tables: Evaluated, line: Line, baseline: Line, request: Request, x: Sequence[str], y: Sequence[str], metric: Metric
) -> tuple[tuple[Cell, ...], ...]:
    at, m = [], tables.metrics.index(metric.name)
    for point in (Point(a, b) for b in y for a in x):
        scores = [tables.score(one, request, point) for one in (line, baseline)]
        first, second = (score for score in scores if score is not None)  # lines are complete
        found = difference(first, second, tables.weights)
        value, low, high, p = (float(column[m]) for column in (found.value, found.low, found.high, found.p))
        at.append(Cell(value, low, high, p, p_holm=np.nan))
    adjusted = holm([cell.p for cell in at])
    cells = [cell._replace(p_holm=float(p)) for cell, p in zip(at, adjusted, strict=True)]
    return tuple(tuple(cells[j * len(x) : (j + 1) * len(x)]) for j in range(len(y)))


def _facts(tables: Evaluated, request: Request, lines: Sequence[Line]) -> Facts:
    trained = [len(line.members) for line in lines]
    return Facts(
        dataset=tables.cells[0].dataset,
        split=tables.cells[0].split,
        profile=tables.planned.profile,
        n=(tables.n, tables.n),
        n_groups=(tables.n_groups, tables.n_groups),
        n_seeds=(len(request.drawn), len(request.drawn)),
        n_train_seeds=(min(trained), max(trained)),
        recipes=tuple(sorted({line.recipe for line in lines} - {""})),
    )


def _draw_panel(ax: Axes, panel: Panel, info: DifferenceInfo, scale: Scale, place: Layout) -> None:
    values = panel.values()
    draw_cells(ax, values, info.x, info.y, scale)
    for level in scale.levels():
        draw_iso_lines(
            ax, values, np.array([level]), colors=scale.ink(level), linewidths=0.5, linestyles="-", alpha=0.8
        )
    draw_iso_lines(ax, values, np.zeros(1), colors="black", linewidths=1.1)
    annotated = max(values.shape) <= MAX_ANNOTATED
    if annotated:
        decimals = 1 if names.is_percent(info.metric) else 3 if place.cell > 0.25 and info.limit < 0.1 else 2
        write_values(ax, values, lambda value: _signed(info.metric, value, decimals), scale, place.cell)
    for (j, i), mark in np.ndenumerate(panel.marks(info.metric)):
        if mark:
            ax.plot(i + 0.34 * annotated, j + 0.34 * annotated, **_DOTS[int(mark)])
    ax.set_title(style.wrapped(f"{panel.entry.label} − {info.baseline.label}", place.cell * place.n_x))


def _signed(metric: Metric, value: float, decimals: int) -> str:
    """
    >>> [_signed(get_profile("mosi").metric(name), value, 1) for name, value in (("acc7", 0.0123), ("mae", -0.44))]
    ['+1.2', '−.4']
    """
    number = names.format_value(metric, abs(value), decimals)
    return ("−" if value < 0 else "+") + (number if names.is_percent(metric) else number.removeprefix("0"))


def _draw_legend(figure: Figure) -> None:
    words = {1: "better, the 95 % interval leaves 0 out", -1: "worse"}
    handles = [Line2D([], [], **_DOTS[mark]) for mark in words]
    figure.legend(handles, list(words.values()), loc="outside lower center", ncols=2, handlelength=1.0)
