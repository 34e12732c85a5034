"""Small multiples of what happens inside one model: a column per stress (and axis), a row per quantity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corruptions.grid import SUBSETS
from robustbench_msa.reporting import names, style
from robustbench_msa.reporting.multiples import fold, multiples

LEAST = 0.95  # inches: the narrowest panel
_AXES = ("severity", "severity_2")
_SPREAD = 0.6  # of a category's width, over which series stand side by side


class Slice(NamedTuple):
    """Points in a row: those of one stress along one of its axes, the other at its least.

    x: where each point is drawn; labels: of its tick; points: (severity, severity_2, condition) as in the table.
    """

    stress: str
    params: str
    title: str
    x_label: str
    points: tuple[tuple[str | None, str | None, str | None], ...]
    x: tuple[float, ...]
    labels: tuple[str, ...]
    categorical: bool

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that are on this slice, in its order, with a column x."""
        here = frame[(frame["stress"] == self.stress) & (frame["params"] == self.params)]
        place = dict(zip(self.points, self.x, strict=True))
        x = [place.get(key) for key in _keys(here)]
        return here.assign(x=np.array(x, dtype=np.float64)).dropna(subset="x").sort_values("x", kind="stable")


class Row(NamedTuple):
    """One quantity, drawn into a panel of every slice. x_label: None where it is against severity."""

    y_label: str
    draw: Callable[[Axes, Slice], None]
    x_label: str | None = None
    percent: bool = False


class Series(NamedTuple):
    """The columns of a table that lines and bands come from; by: the column that tells lines apart, in this order."""

    by: str
    order: Sequence[Any]
    value: str
    low: str
    high: str
    label: Callable[[Any], str] = str


def slices_of(frame: pd.DataFrame) -> list[Slice]:
    """The slices of a tidy table, stresses in their usual order. Two axes make two slices."""
    found: list[Slice] = []
    for (stress, params), rows in frame.groupby(["stress", "params"]):
        found += _slices(str(stress), str(params), rows)
    order = list(names.STRESSES)
    return sorted(found, key=lambda s: (s.categorical, order.index(s.stress) if s.stress in order else len(order)))


def page(
    title: str, slices: Sequence[Slice], rows: Sequence[Row], width: float | None = None, least: float = LEAST
) -> Figure:
    """All rows for all slices, and one legend below.

    width: inches; default one column for one slice, a page for more; least: of a panel.
    """
    width = width or (style.COLUMN if len(slices) == 1 else style.PAGE)
    weights = [1.5 if slice_.categorical and len(slices) > 1 else 1.0 for slice_ in slices]
    blocks = len(fold(weights, width, least))
    with style.styled():
        figure = style.new_figure(width, 1.0)
        grid = multiples(figure, len(rows), weights, least)
        for i, (row, axes) in enumerate(zip(rows, grid.axes, strict=True)):
            shared = row.x_label is None and [r.x_label for r in rows[i + 1 : i + 2]] == [None]
            for ax, slice_, inches in zip(axes, slices, grid.panel, strict=True):
                row.draw(ax, slice_)
                _label_x(ax, row, slice_, shared, inches)
            for start in grid.starts:
                axes[start].set_ylabel(row.y_label)
            if row.percent:
                axes[0].yaxis.set_major_formatter(style.PERCENT)
        for ax, slice_, inches in zip(grid.axes[0], slices, grid.panel, strict=True):
            lines = slice_.title.split("\n")
            ax.set_title("\n".join(style.wrapped(line, inches - 0.1) for line in lines))
        figure.suptitle(style.wrapped(title, width - 0.2), fontsize=8.5)
        legend = draw_legend(figure, grid.all, width)
        figure.set_size_inches(width, blocks * (1.3 * len(rows) + 0.55) + 0.15 * legend + 0.25)
    return figure


def draw_series(ax: Axes, rows: pd.DataFrame, series: Series, categorical: bool = False, markevery: int = 1) -> None:
    """A line with a band for each of the series; on categories a marker with a bar. rows: with a column x."""
    there = [name for name in series.order if (rows[series.by] == name).any()]
    for i, name in enumerate(there):
        part, look = rows[rows[series.by] == name], style.line_style(list(series.order).index(name))
        x, y, low, high = (part[c].to_numpy(np.float64) for c in ("x", series.value, series.low, series.high))
        label = series.label(name)
        if categorical:
            x = x + (_SPREAD * (i / (len(there) - 1) - 0.5) if len(there) > 1 else 0.0)
            ax.vlines(x, low, high, color=look.colour, linewidth=0.9)
            ax.plot(x, y, color=look.colour, linestyle="none", marker=look.marker, label=label)
        else:
            ax.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
            line = {"color": look.colour, "linestyle": look.line, "marker": look.marker}
            ax.plot(x, y, **line, markevery=markevery, label=label)


def ends(rows: pd.DataFrame, error: str) -> tuple[float, float]:
    """x of the points with the smallest and the largest mean error."""
    x, errors = rows["x"].to_numpy(np.float64), rows[error].to_numpy(np.float64)
    return float(x[errors.argmin()]), float(x[errors.argmax()])


def against_severity(
    table: pd.DataFrame, label: str, series: Series, percent: bool = False, levels: Sequence[float] = ()
) -> Row:
    """A quantity against severity; levels: a dotted reference for each of the series."""

    def draw(ax: Axes, slice_: Slice) -> None:
        for i, level in enumerate(levels):
            ax.axhline(level, color=style.line_style(i).colour, linestyle=":", linewidth=0.9, zorder=1.5)
        draw_series(ax, slice_.rows(table), series, slice_.categorical)

    return Row(label, draw, percent=percent)


def signed(value: float) -> str:
    """A correlation in print.

    >>> signed(-0.4567), signed(1.0), signed(float("nan"))
    ('−.46', '1.00', '—')
    """
    if np.isnan(value):
        return names.NULL
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−").replace("0.", ".")


def draw_legend(figure: Figure, axes: Sequence[Axes], width: float) -> int:
    """One legend for all panels, below them; a label that several share appears once. Returns its lines."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return 0
    columns = style.legend_columns(list(handles), width)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
    return -(-len(handles) // columns)


def _label_x(ax: Axes, row: Row, slice_: Slice, shared: bool, width: float) -> None:
    """shared: the row below has the same axis, and its labels; width: of the panel in inches."""
    if shared:
        ax.tick_params(labelbottom=False)
    else:
        ax.set_xlabel(row.x_label or slice_.x_label)
    if row.x_label is None:
        every = 1 if slice_.categorical else -(-len(slice_.x) // max(2, min(7, int(width / 0.25))))
        ax.set_xticks(slice_.x, [label if i % every == 0 else "" for i, label in enumerate(slice_.labels)])
        ax.set_xlim(*_limits(slice_))


def _limits(slice_: Slice) -> tuple[float, float]:
    margin = 0.6 if slice_.categorical else 0.06 * max(slice_.x[-1] - slice_.x[0], 0.1)
    return slice_.x[0] - margin, slice_.x[-1] + margin


def _slices(stress: str, params: str, rows: pd.DataFrame) -> list[Slice]:
    points, title = set(_keys(rows)), names.stress_title(stress, params)
    if any(condition for _, _, condition in points):
        ordered = sorted(points, key=lambda point: SUBSETS.index(str(point[2])))
        labels = tuple(names.condition_label(str(point[2])) for point in ordered)
        x = tuple(map(float, range(len(ordered))))
        return [Slice(stress, params, title, "available modalities", tuple(ordered), x, labels, True)]
    n_axes = 2 if any(second for _, second, _ in points) else 1
    found = []
    for axis, label in enumerate(names.axis_labels(stress, n_axes)):
        along = _along(points, axis, n_axes)
        if len(along) > 1 or n_axes == 1:
            other = (
                [f"{names.axis_labels(stress, 2)[1 - axis].split()[-1]} = {along[0][1 - axis]}"] if n_axes == 2 else []
            )
            at = [str(point[axis]) for point in along]
            ticks = tuple("0\nclean" if s == "0" and not other else s for s in at)
            x = tuple(map(float, at))
            found.append(Slice(stress, params, "\n".join([title, *other]), label, tuple(along), x, ticks, False))
    return found


def _along(points: set[Any], axis: int, n_axes: int) -> list[Any]:
    """The points along an axis, the other at its least."""
    if n_axes == 2:
        least = min((point[1 - axis] for point in points), key=Decimal)
        points = {point for point in points if point[1 - axis] == least}
    return sorted(points, key=lambda point: Decimal(point[axis]))


def _keys(frame: pd.DataFrame) -> list[tuple[str | None, str | None, str | None]]:
    columns = [[None if pd.isna(v) else str(v) for v in frame[c]] for c in (*_AXES, "condition")]
    return list(zip(*columns, strict=True))
