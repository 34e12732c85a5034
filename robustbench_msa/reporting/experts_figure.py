"""What experts stand for: a heat map of correlations with the factors of synth; and fused features in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from robustbench_msa.analysis.inside.experts import FACTORS
from robustbench_msa.reporting import style
from robustbench_msa.reporting.inside_panels import signed, slices_of

_DIVERGING = "PuOr"  # told apart by the colour-blind


def experts_figure(title: str, table: pd.DataFrame, width: float | None = None) -> Figure:
    """Outputs by factors, each with its interval, at the first point (the clean one, where it was run).

    table: the rows of one line of ``analysis.inside.experts.factor_table``; width: inches.
    """
    drawn, clean = first_point(table)
    outputs, factors = list(drawn["output"].unique()), list(FACTORS)
    at = drawn.set_index(["output", "factor"])
    with style.styled():
        figure = style.new_figure(width or style.COLUMN, 0.3 * len(outputs) + 1.2)
        ax = figure.subplots()
        grid = np.array([[at.loc[(o, f), "correlation"] for f in factors] for o in outputs], dtype=np.float64)
        image = ax.imshow(np.ma.masked_invalid(grid), cmap=_DIVERGING, vmin=-1, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            low, high = (float(at.loc[(outputs[i], factors[j]), f"correlation_{end}"]) for end in ("low", "high"))
            ink = "white" if abs(value) > 0.6 else "black"
            text: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
            ax.text(j, i - 0.13, signed(float(value)), fontsize=6.5, **text)
            ax.text(j, i + 0.26, f"[{signed(low)}, {signed(high)}]", fontsize=4.8, **text)
        ax.set_xticks(range(len(factors)), [factor.replace(" ", "\n") for factor in factors])
        ax.set_yticks(range(len(outputs)), outputs)
        ax.set_xlabel("true factor (r redundant, u unique, b synergistic)")
        ax.set_ylabel("output")
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set_title(f"{title}, untouched input" if clean else title)
        bar = figure.colorbar(image, ax=ax, label="Pearson's correlation\n(small: 95 % interval)", fraction=0.05)
        bar.ax.grid(visible=False)
    return figure


def first_point(table: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The rows of the clean input, and that they are; those of the first point of a stress where it was not run."""
    rows = slices_of(table)[0].rows(table)
    clean = (rows["severity"] == "0") & rows["severity_2"].fillna("0").eq("0") | (rows["condition"] == "t+a+v")
    return (rows[clean], True) if clean.any() else (rows[rows["x"] == rows["x"].min()], False)


def features_figure(title: str, points: ArrayLike, labels: ArrayLike, width: float | None = None) -> Figure:
    """Features of samples in the plane, coloured by label (EMOE, figure 5; CA-MoE, figure 5).

    points: ``(N, 2)`` of ``analysis.inside.features.tsne``; labels: ``(N,)``. The axes of t-SNE have no unit.
    """
    xy, y = np.asarray(points, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    limit = float(np.abs(y).max(initial=0.0)) or 1.0
    with style.styled():
        figure = style.new_figure(width or style.COLUMN, 2.7)
        ax = figure.subplots()
        dots = ax.scatter(xy[:, 0], xy[:, 1], c=y, s=7, cmap=_DIVERGING, vmin=-limit, vmax=limit, edgecolors="0.4")
        dots.set_linewidth(0.2)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("t-SNE 1 (no unit)")
        ax.set_ylabel("t-SNE 2 (no unit)")
        ax.set_title(title)
        figure.colorbar(dots, ax=ax, label="label").ax.grid(visible=False)
    return figure
