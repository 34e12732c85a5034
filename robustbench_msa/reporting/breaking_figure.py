"""What breaks models: the error that the loss of one modality adds, and predicted signs that flip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corruptions import MODALITIES
from robustbench_msa.reporting import names, style
from robustbench_msa.reporting.inside_panels import Series, against_severity, draw_legend, page, slices_of
from robustbench_msa.reporting.multiples import fold, multiples

_HATCHES = ("", "////", "....", "xxxx", "----", "||||")
_LEAST = 1.3  # inches: the narrowest panel


def modalities_figure(table: pd.DataFrame, width: float | None = None, profile: str = "mosi") -> Figure:
    """A panel a stress, a bar for each modality that is hit alone and each line, at the hardest point that was run.

    table: ``BreakingInfo.modalities`` with a column ``who``, the line's name; width: inches; profile: of the metrics.
    """
    table = table.assign(what=_hits(table))
    who, what = list(dict.fromkeys(table["who"])), list(dict.fromkeys(table["what"]))
    width = width or (style.COLUMN if len(what) == 1 else style.PAGE)
    weights = [1.0] * len(what)
    with style.styled():
        figure = style.new_figure(width, 1.0)
        axes = multiples(figure, 1, weights, _LEAST).axes[0]
        for ax, hit in zip(axes, what, strict=True):
            rows = table[table["what"] == hit]
            _draw_bars(ax, rows[~rows.duplicated(["who", "modality"], keep="last")], who)
            ax.set_title(style.wrapped(hit, width / len(what) - 0.3))
            ax.set_xlabel(f"{names.error_name(profile)} added ↓")
        axes[0].set_yticks(range(3), MODALITIES)
        axes[0].set_ylim(2.5, -0.5)
        axes[0].set_ylabel("modality hit alone")
        legend = draw_legend(figure, list(axes), width)
        blocks = len(fold(weights, width, _LEAST))
        figure.set_size_inches(width, blocks * (0.9 + 0.3 * len(who)) + 0.15 * legend)
    return figure


def flips_figure(table: pd.DataFrame, width: float | None = None, profile: str = "mosi") -> Figure:
    """The share of samples whose predicted sign (of classes: class) is not the clean one, against severity.

    table: ``BreakingInfo.shares`` with a column ``who``; width: inches; profile: of the metrics.
    """
    series = Series("who", list(dict.fromkeys(table["who"])), "flipped", "flipped_low", "flipped_high")
    what = names.flip_name(profile)
    row = against_severity(table, f"samples whose predicted\n{what} flips ↓", series, percent=True)
    return page("Flipped classes" if what == "class" else "Flipped signs", slices_of(table), [row], width)


def _draw_bars(ax: Axes, rows: pd.DataFrame, who: Sequence[str]) -> None:
    height = 0.8 / len(who)
    for i, name in enumerate(who):
        mine, colour = rows[rows["who"] == name], style.line_style(i).colour
        y = np.array([MODALITIES.index(m) for m in mine["modality"]]) + height * (i - (len(who) - 1) / 2)
        value, low, high = (mine[f"mae_added{end}"].to_numpy(np.float64) for end in ("", "_low", "_high"))
        look: dict[str, Any] = {"color": colour, "edgecolor": "white", "hatch": _HATCHES[i % len(_HATCHES)]}
        ax.barh(y, value, height=0.9 * height, label=name, **look)
        ax.hlines(y, low, high, color="black", linewidth=0.8)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.grid(visible=False, axis="y")


def _hits(table: pd.DataFrame) -> list[str]:
    """What hits: the stress, without the modality that it is restricted to."""
    kept = [re.sub(r"(\w+\.)?modalities=\w+,?", "", params).strip(",") for params in table["params"]]
    return [names.stress_title(stress, params) for stress, params in zip(table["stress"], kept, strict=True)]
