"""Figures of a run from its tables: severity curves and landscapes. They write files.

Each function writes ``stem.png``, ``.pdf`` and ``.csv`` and returns the stems. models: names of lines
(``choice.fits``); width: inches. Raises InputError where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from corruptions import InputError
from robustbench_msa.reporting.curves_figure import curves_figure, curves_info
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.landscape_figure import fitting_a_page, landscape_figure, landscape_info

Names = Sequence[str] | None


def draw_curves(
    curves: pd.DataFrame,
    folder: Path,
    metrics: Names = None,
    models: Names = None,
    only: bool = False,
    width: float | None = None,
) -> list[Path]:
    """``folder/curves``. only: leave out the lines that are not coloured."""
    info = curves_info(curves, metrics, models=models, only=only)
    stem = folder / "curves"
    save_figure(curves_figure(info, width), info.frame(), made(stem))
    return [stem]


def draw_landscapes(
    curves: pd.DataFrame, folder: Path, metrics: Names = None, models: Names = None, width: float | None = None
) -> list[Path]:
    """``folder/landscape-<stress>-<metric>`` for each two-axis stress and metric (default: one)."""
    two_axes = curves[curves["severity_2"].notna()]
    found = two_axes[["stress", "params"]].drop_duplicates().itertuples(index=False)
    stems = []
    for stress, params in found:
        for metric in metrics or (None,):
            info = fitting_a_page(landscape_info(curves, metric, stress, params or "", models))
            stem = folder / f"landscape-{slug(stress, params)}-{info.metric.name}"
            save_figure(landscape_figure(info, width), info.frame(), made(stem))
            stems.append(stem)
    if not stems:
        raise InputError("no landscape to draw: this run has no two-axis stress (run --stress spectrum)")
    return stems


def draw_all(curves: pd.DataFrame, folder: Path) -> list[Path]:
    """Curves and landscapes, as far as the run has data for them."""
    stems = []
    if curves["severity_2"].isna().all() or (curves["severity_2"].isna() & (curves["stress"] != "clean")).any():
        stems += draw_curves(curves, folder)
    if curves["severity_2"].notna().any():
        stems += draw_landscapes(curves, folder)
    return stems


def slug(stress: str, params: str | None) -> str:
    """A stress in a file's name."""
    return f"{stress}-{params.replace('=', '-').replace(',', '-')}" if params else stress


def made(stem: Path) -> Path:
    """The stem, in a folder that is there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    return stem
