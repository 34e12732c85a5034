"""Reliability scores against severity, and the error of samples by their score (QA-MoE, 4.4.2)."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corruptions import MODALITIES
from robustbench_msa.analysis.inside.reliability import ReliabilityInfo
from robustbench_msa.reporting.inside_panels import (
    Row,
    Series,
    Slice,
    against_severity,
    draw_series,
    page,
    signed,
    slices_of,
)
from robustbench_msa.reporting.names import error_name


def reliability_figure(title: str, info: ReliabilityInfo, width: float | None = None, profile: str = "mosi") -> Figure:
    """Mean r_m at every point, Spearman's correlations in the titles, and MAE by fifths of the samples of all points.

    info: of one line.
    """
    levels = info.levels[info.levels["score"] != "mean"]
    series = Series("score", MODALITIES, "r", "r_low", "r_high")
    rows = [
        against_severity(levels, "mean r", series),
        Row(f"{error_name(profile)} of a fifth\nof samples ↓", partial(_draw_bins, info.bins), "mean r of the fifth"),
    ]
    slices = [_with_correlations(slice_, info.correlations) for slice_ in slices_of(levels)]
    return page(f"{title}: reliability score r", slices, rows, width, least=1.4)


def _draw_bins(bins: pd.DataFrame, ax: Axes, slice_: Slice) -> None:
    here = (bins["stress"] == slice_.stress) & (bins["params"] == slice_.params) & (bins["bins"] == "equal")
    rows = bins[here & (bins["score"] != "mean")].assign(x=lambda frame: frame["mean_r"])
    draw_series(ax, rows, Series("score", MODALITIES, "mae", "mae_low", "mae_high"))


def _with_correlations(slice_: Slice, table: pd.DataFrame) -> Slice:
    """Spearman's correlation of r with the severity along the slice (or with what was lost) below the title."""
    moves_second = len({point[1] for point in slice_.points}) > 1
    target = "lost" if slice_.categorical else "severity_2" if moves_second else "severity"
    here = (table["stress"] == slice_.stress) & (table["params"] == slice_.params) & (table["target"] == target)
    found = table[here].set_index("score")["rank_correlation"]
    values = [f"{m[0].upper()} {signed(float(found[m]))}" for m in MODALITIES if m in found]
    line = ", ".join(values).replace(" ", "\N{NO-BREAK SPACE}")
    return slice_._replace(title=f"{slice_.title}\nSpearman\n{line}") if values else slice_
