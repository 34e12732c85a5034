"""Heat maps of the HTML report: values written into cells, in an ink that can be read on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.colors import to_hex

from robustbench_msa.reporting import style
from robustbench_msa.reporting.html_figures import BLACK, Axis, Value, compact, figure_json


class Scale(NamedTuple):
    """From values to colours. higher: is it better, and so brighter?"""

    low: float
    high: float
    higher: bool

    def colour(self, share: float) -> str:
        """At a share of the way from low to high, as plotly's Viridis has it."""
        return str(to_hex(matplotlib.colormaps["viridis" if self.higher else "viridis_r"](share)))

    def ink(self, value: Value) -> str:
        """Black or white, whichever contrasts more with the value's colour; an unknown value stands on light grey."""
        if value is None:
            return BLACK
        light = style.luminance(self.colour((value - self.low) / (self.high - self.low)))
        return BLACK if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def heat_map(
    z: Sequence[Sequence[Value]],
    cells: Sequence[Sequence[str]],
    hover: Sequence[Sequence[str]],
    scale: Scale,
    x: Axis,
    y: Axis,
    height: int,
) -> dict[str, Any]:
    """A value per cell, written into it where ``cells`` has a text."""
    trace = {
        "type": "heatmap",
        "z": [compact(row) for row in z],
        "x": [place for place, _ in x.ticks],
        "y": [place for place, _ in y.ticks],
        "hovertext": [list(row) for row in hover],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "zmin": scale.low,
        "zmax": scale.high,
        "colorscale": "Viridis",
        "reversescale": not scale.higher,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    written = [
        (a, b, text, scale.ink(value))
        for (b, _), values, texts in zip(y.ticks, z, cells, strict=True)
        for (a, _), value, text in zip(x.ticks, values, texts, strict=True)
    ]
    figure = figure_json([trace, _words(written)], x, y, height)
    for axis in ("xaxis", "yaxis"):
        figure["layout"][axis] |= {"showgrid": False, "zeroline": False, "ticklen": 0, "showline": False}
    figure["layout"]["plot_bgcolor"] = "#eceff2"
    return figure


def _words(written: Sequence[tuple[float, float, str, str]]) -> dict[str, Any]:
    """(x, y, text, colour) as a trace: a heat map's own texts have one grey for all light cells."""
    x, y, text, colour = zip(*written, strict=True)
    return {
        "type": "scatter",
        "mode": "text",
        "x": list(x),
        "y": list(y),
        "text": list(text),
        "textfont": {"color": list(colour)},
        "hoverinfo": "skip",
        "showlegend": False,
    }
