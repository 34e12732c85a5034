"""The predicted variance under stress, and how well any confidence orders the errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbench_msa.analysis.inside.calibration import LEVELS, CalibrationInfo
from robustbench_msa.analysis.inside.risk import CONFIDENCES, RiskInfo
from robustbench_msa.reporting import style
from robustbench_msa.reporting.inside_panels import (
    Row,
    Series,
    Slice,
    against_severity,
    draw_series,
    ends,
    page,
    slices_of,
)
from robustbench_msa.reporting.names import error_name

_BY: Mapping[str, str] = {"variance": "predicted variance", "r": "mean r", "routing": "entropy of routing"}


def calibration_figure(title: str, info: CalibrationInfo, width: float | None = None, profile: str = "mosi") -> Figure:
    """Mean NLL and coverage against severity; sparsification at the points of the smallest and the largest MAE.

    info: of one line.
    """
    nll = Series("what", ("mean NLL",), "nll", "nll_low", "nll_high")
    coverage = Series("level", LEVELS, "coverage", "coverage_low", "coverage_high", _interval)
    rows = [
        against_severity(info.points.assign(what="mean NLL"), "NLL in nats ↓", nll),
        against_severity(info.coverage, "labels within\nthe interval", coverage, percent=True, levels=LEVELS),
        Row(f"{error_name(profile)} of the rest ↓", partial(_draw_sparsification, info), "share of samples dropped"),
    ]
    return page(f"{title}: predicted variance", slices_of(info.points), rows, width)


def risk_figure(title: str, info: RiskInfo, width: float | None = None, profile: str = "mosi") -> Figure:
    """Error of the most confident samples, at the points of the smallest and the largest. info: of one line."""
    rows = [
        Row(f"{error_name(profile)}, {what} ↓", partial(_draw_risk, info, end), "coverage (share kept)")
        for end, what in enumerate(("easiest point", "hardest point"))
    ]
    return page(f"{title}: risk and coverage", slices_of(info.curves), rows, width)


def _interval(level: float) -> str:
    return f"{100 * level:g} % interval (nominal: dotted)"


def _draw_sparsification(info: CalibrationInfo, ax: Axes, slice_: Slice) -> None:
    rows = slice_.rows(info.sparsification)
    for order, (x, what) in enumerate(
        zip(ends(slice_.rows(info.points), "area_random"), ("easiest point", "hardest point"), strict=True)
    ):
        part, look = rows[rows["x"] == x], style.line_style(order)
        share, low, high = (part[c].to_numpy(np.float64) for c in ("dropped", "error_low", "error_high"))
        ax.fill_between(share, low, high, color=look.colour, alpha=0.15, linewidth=0)
        ax.plot(share, part["error"], color=look.colour, linestyle=look.line, label=f"most uncertain dropped, {what}")
        label = f"largest errors dropped, {what}"
        ax.plot(share, part["oracle"], color=look.colour, linestyle=":", linewidth=1.2, label=label)
    ax.axhline(0, color="none")  # the axis starts at 0; a limit would stop it from growing with other panels


def _draw_risk(info: RiskInfo, end: int, ax: Axes, slice_: Slice) -> None:
    x = ends(slice_.rows(info.areas), "random")[end]
    rows = slice_.rows(info.curves)
    rows = rows[rows["x"] == x].assign(x=lambda frame: frame["coverage"])
    draw_series(ax, rows, Series("confidence", tuple(CONFIDENCES), "risk", "risk_low", "risk_high", _by), markevery=5)
    first = rows[rows["confidence"] == rows["confidence"].iloc[0]]
    oracle: dict[str, Any] = {
        "color": style.ORACLE,
        "linestyle": ":",
        "linewidth": 1.2,
        "label": "by true error (oracle)",
    }
    ax.plot(first["coverage"], first["oracle"], **oracle)
    everyone = float(first["risk"].iloc[-1])
    ax.axhline(everyone, color=style.CHANCE, linestyle=(0, (4, 2)), linewidth=1.0, label="random order")
    ax.axhline(0, color="none")  # the axis starts at 0; a limit would stop it from growing with other panels


def _by(confidence: str) -> str:
    return f"by {_BY.get(confidence, confidence)}"
