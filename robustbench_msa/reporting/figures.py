"""All figures of a run at once: severity curves, and a landscape per two-axis stress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from corruptions import InputError
from robustbench_msa.reporting.curves_figure import curves_figure, curves_info
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.landscape_figure import landscape_figure, landscape_info


def draw_curves(curves: pd.DataFrame, folder: Path, metrics: Sequence[str] | None = None) -> list[Path]:
    """``folder/curves.{png,pdf,csv}``. Returns paths without extension. InputError when there is nothing to draw."""
    info = curves_info(curves, metrics)
    stem = folder / "curves"
    save_figure(curves_figure(info), info.frame(), _made(stem))
    return [stem]


def draw_landscapes(curves: pd.DataFrame, folder: Path, metrics: Sequence[str] | None = None) -> list[Path]:
    """``folder/landscape-<stress>-<metric>.{png,pdf,csv}`` for each two-axis stress and metric (default: one)."""
    two_axes = curves[curves["severity_2"].notna()]
    found = two_axes[["stress", "params"]].drop_duplicates().itertuples(index=False)
    stems = []
    for stress, params in found:
        for metric in metrics or (None,):
            info = landscape_info(curves, metric, stress, params)
            label = f"{stress}-{params.replace('=', '-').replace(',', '-')}" if params else stress
            stem = folder / f"landscape-{label}-{info.metric.name}"
            save_figure(landscape_figure(info), info.frame(), _made(stem))
            stems.append(stem)
    if not stems:
        raise InputError("no landscape to draw: this run has no two-axis stress (run --stress spectrum)")
    return stems


def draw_all(curves: pd.DataFrame, folder: Path) -> list[Path]:
    """Every figure that the run has data for."""
    stems = []
    if curves["severity_2"].isna().all() or (curves["severity_2"].isna() & (curves["stress"] != "clean")).any():
        stems += draw_curves(curves, folder)
    if curves["severity_2"].notna().any():
        stems += draw_landscapes(curves, folder)
    return stems


def _made(stem: Path) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    return stem
