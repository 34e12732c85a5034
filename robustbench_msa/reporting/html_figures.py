"""Charts of the HTML report: who is drawn how, and figures as JSON that plotly.js draws.

Colours, markers and dashes are those of the static figures (``style``). plotly checks every figure here and is
imported only when one is made.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from corruptions import InputError
from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import names, style
from robustbench_msa.reporting.entries import Entry

SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
BLACK, GRID = "#000000", "#e3e6ea"
CHANCE = "#737373"  # 4.7 : 1 on white
WIDTH = 2.0
_DASH = 1.6  # pixels of a dash per point of the static figures' dashes, whose lines are thinner

Value = float | None


class Look(NamedTuple):
    """How a line is drawn. symbol: plotly's name, empty for none; dash: pixels on and off, empty for solid."""

    colour: str
    symbol: str
    dash: tuple[float, ...]

    @property
    def line(self) -> dict[str, Any]:
        dash = ",".join(f"{length:g}px" for length in self.dash) or "solid"
        return {"color": self.colour, "dash": dash, "width": WIDTH}


class Chart(NamedTuple):
    """One figure of the page.

    when: the choices under which it is shown, by control ("metric": "mae"). entry: whose figure it is, where it is
    one model's alone; hidden with it.
    """

    id: str
    title: str
    label: str
    figure: dict[str, Any]
    when: dict[str, str] = {}
    entry: int | None = None

    @property
    def condition(self) -> str:
        return condition(self.when)

    @property
    def height(self) -> int:
        return int(self.figure["layout"]["height"])


class Line(NamedTuple):
    """One line of a chart. x: where; low, high: its band, or bars; text: what hovering shows, already escaped."""

    name: str
    look: Look
    x: Sequence[float]
    y: Sequence[Value]
    low: Sequence[Value]
    high: Sequence[Value]
    text: Sequence[str]
    entry: int | None = None
    joined: bool = True


class Axis(NamedTuple):
    """ticks: (place, label), labels already escaped; range: low and high; percent: fractions shown as percent.

    shared: the name of a range that several charts have in common, which follows what is shown of them.
    """

    title: str
    ticks: Sequence[tuple[float, str]] = ()
    range: tuple[float, float] | None = None
    percent: bool = False
    reversed: bool = False
    shared: str = ""


def condition(when: dict[str, str]) -> str:
    """As the page's script reads it.

    >>> condition({"metric": "mae", "routing": "3"})
    'metric=mae;routing=3'
    """
    return ";".join(f"{control}={choice}" for control, choice in when.items())


def look_of(order: int) -> Look:
    """The order-th line's, as in the static figures."""
    given = style.line_style(order)
    return Look(given.colour, SYMBOLS[given.marker], tuple(round(_DASH * d, 1) for d in given.dashes))


def look_of_entry(entry: Entry, order: int) -> Look:
    if entry.model == "oracle":
        return Look(BLACK, "", (2.0, 3.0))
    if entry.model == "chance":
        return Look(CHANCE, "", (7.0, 4.0))
    return look_of(order)


def plain(text: str) -> str:
    """Text that plotly shows as it is: it reads a few tags and entities in every label.

    >>> plain("<b>R&D</b>")
    '&lt;b&gt;R&amp;D&lt;/b&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def value_text(metric: Metric, value: Value, low: Value = None, high: Value = None) -> str:
    """A score with its interval, as tables print it.

    >>> from robustbench_msa.analysis.metrics import get_profile
    >>> value_text(get_profile("mosi").metric("acc7"), 0.4567, 0.41, 0.5)
    '45.7 % [41.0, 50.0]'
    """
    unit = " %" if names.is_percent(metric) and value is not None else ""
    return f"{names.format_value(metric, value)}{unit} {names.format_interval(metric, low, high)}".rstrip()


def line_chart(lines: Iterable[Line], x: Axis, y: Axis, height: int = 300) -> dict[str, Any]:
    """Lines with bands; the bands are traces of their own that the page can switch on and off."""
    bands, traces = [], []
    for line in lines:
        meta = {} if line.entry is None else {"entry": line.entry}
        if line.joined:
            bands += [_band(line, {**meta, "band": True})] if any(low is not None for low in line.low) else []
        traces.append(_trace(line, meta))
    figure = figure_json([*bands, *traces], x, y, height)
    if y.shared:
        figure["layout"]["meta"] = {"shared": y.shared}
    return figure


def figure_json(traces: Sequence[dict[str, Any]], x: Axis, y: Axis, height: int) -> dict[str, Any]:
    """A figure that plotly has checked, as plain dictionaries and lists."""
    layout = {"template": {}, "height": height, "xaxis": _axis(x), "yaxis": _axis(y)}
    figure = plotly("graph_objects").Figure(list(traces), layout).to_plotly_json()
    found = {"data": figure["data"], "layout": figure["layout"]}
    found["layout"].pop("template", None)
    return found


def plotly(part: str) -> Any:
    """A module of plotly. Raises InputError where it is not installed."""
    try:
        return importlib.import_module(f"plotly.{part}")
    except ImportError:
        raise InputError("report: the charts need plotly, which is not installed (pip install plotly)") from None


def compact(values: Iterable[Any]) -> list[Value]:
    """For JSON: five significant digits, null for what is undefined.

    >>> compact([0.123456789, float("nan"), None, 2])
    [0.12346, None, None, 2.0]
    """
    numbers = [math.nan if value is None else float(value) for value in values]
    return [float(f"{number:.5g}") if math.isfinite(number) else None for number in numbers]


def padded(values: Iterable[Value], share: float = 0.05) -> tuple[float, float]:
    """The range of values with some room; 0 to 1 where there are none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = share * (high - low) or 0.05
    return low - room, high + room


def _trace(line: Line, meta: dict[str, Any]) -> dict[str, Any]:
    y = compact(line.y)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": plain(line.name),
        "x": compact(line.x),
        "y": y,
        "mode": "+".join([*(["lines"] if line.joined else []), *(["markers"] if line.look.symbol else [])]) or "lines",
        "line": line.look.line,
        "hovertext": list(line.text),
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
        "meta": meta,
    }
    if line.look.symbol:
        trace["marker"] = {"symbol": line.look.symbol, "size": 8, "color": line.look.colour}
    if not line.joined:
        ends = list(zip(y, compact(line.low), compact(line.high), strict=True))
        up = [None if v is None or high is None else high - v for v, _, high in ends]
        down = [None if v is None or low is None else v - low for v, low, _ in ends]
        bars = {"array": up, "arrayminus": down, "symmetric": False}
        trace["error_y"] = {"type": "data", **bars, "color": line.look.colour, "thickness": 1.2, "width": 0}
    return trace


def _band(line: Line, meta: dict[str, Any]) -> dict[str, Any]:
    """The area between both ends, in pieces where there is none."""
    x: list[Value] = []
    y: list[Value] = []
    piece: list[tuple[float, float, float]] = []
    for at, low, high in [*zip(compact(line.x), compact(line.low), compact(line.high), strict=True), (None,) * 3]:
        if at is not None and low is not None and high is not None:
            piece.append((at, low, high))
        elif piece:
            back = piece[::-1]
            x += [*(p[0] for p in piece), *(p[0] for p in back), None]
            y += [*(p[1] for p in piece), *(p[2] for p in back), None]
            piece = []
    red, green, blue = (int(line.look.colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "x": x[:-1],
        "y": y[:-1],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.15)",
        "hoverinfo": "skip",
        "showlegend": False,
        "meta": meta,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": plain(axis.title)}, "gridcolor": GRID, "zeroline": False}
    if axis.ticks:
        made |= {"tickvals": [place for place, _ in axis.ticks], "ticktext": [label for _, label in axis.ticks]}
    if axis.range is not None:
        made["range"] = list(axis.range[::-1] if axis.reversed else axis.range)
    if axis.percent:
        made["tickformat"] = ".0%"
    return made
