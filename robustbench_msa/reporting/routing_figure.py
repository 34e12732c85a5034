"""Routing weights against severity (RIDER-MoE, figure 4; QA-MoE, figure 5)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robustbench_msa.reporting.inside_panels import Series, against_severity, page, slices_of


def routing_figure(title: str, table: pd.DataFrame, width: float | None = None) -> Figure:
    """Mean weights of experts, and below them how much they differ from sample to sample.

    table: the rows of one line and one extra of ``analysis.inside.routing.routing_table``.
    """
    rows = []
    for part in table["part"].unique():
        mine = table[table["part"] == part]
        for value, label in (("mean", "mean weight"), ("sd", "SD of weight\nbetween samples")):
            series = Series("expert", list(mine["expert"].unique()), value, f"{value}_low", f"{value}_high")
            rows.append(against_severity(mine, f"{part}: {label}" if part else label, series))
    return page(f"{title}: routing", slices_of(table), rows, width)
