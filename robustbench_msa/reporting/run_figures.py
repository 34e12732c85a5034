"""Figures straight from a run's folder, as ``msabench plot`` draws them. They write files.

Each function writes ``stem.png``, ``.pdf`` and ``.csv`` and returns the stems. models: names of lines
(``choice.fits``); width: inches. Raises InputError where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from corruptions import InputError
from robustbench_msa.analysis.comparisons import compare
from robustbench_msa.analysis.evaluated import Evaluated
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.schemas import CURVES, frame_of
from robustbench_msa.evaluation.store import Store
from robustbench_msa.reporting.comparison_figure import comparison_figure, comparison_info
from robustbench_msa.reporting.comparison_table import comparison_frame
from robustbench_msa.reporting.difference_figure import difference_figure, difference_info
from robustbench_msa.reporting.entries import choose_metrics
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.figures import Names, draw_curves, draw_landscapes, made, slug


def plot_curves(
    run: Path, out: Path, metrics: Names = None, models: Names = None, only: bool = False, width: float | None = None
) -> list[Path]:
    """``curves``; see ``figures.draw_curves``."""
    return draw_curves(stored_curves(run), out, metrics, models, only, width)


def plot_landscapes(
    run: Path, out: Path, metrics: Names = None, models: Names = None, width: float | None = None
) -> list[Path]:
    """``landscape-<stress>-<metric>``; see ``figures.draw_landscapes``."""
    return draw_landscapes(stored_curves(run), out, metrics, models, width)


def plot_differences(
    run: Path,
    out: Path,
    models: Sequence[str],
    baseline: str,
    metrics: Names = None,
    stress: str | None = None,
    width: float | None = None,
) -> list[Path]:
    """``difference-<stress>-<models>-<baseline>-<metric>``, one panel a model."""
    tables = _two_axes_of(run, [*models, baseline])
    stems = []
    for metric in metrics or (None,):
        info = difference_info(tables, models, baseline, metric, stress)
        who = "-".join(name.replace("/", "-") for name in (*models, baseline))
        stem = out / f"difference-{slug(info.stress, info.params)}-{who}-{info.metric.name}"
        save_figure(difference_figure(info, width), info.frame(), made(stem))
        stems.append(stem)
    return stems


def plot_comparisons(
    run: Path, out: Path, metrics: Names = None, models: Names = None, width: float | None = None
) -> list[Path]:
    """``comparison-<claim>-<metric>``, for checkpoints and for methods, as far as there are two of them."""
    return draw_comparisons(open_tables([run]), out, metrics, models, width)


def draw_comparisons(
    tables: Evaluated, out: Path, metrics: Names = None, models: Names = None, width: float | None = None
) -> list[Path]:
    """The same from tables that are read already."""
    found = compare(tables, permutations=0).comparisons.to_pandas()
    frame = comparison_frame(found, "nauc", metrics)
    stems = []
    for claim in ("method", "checkpoint"):
        for metric in choose_metrics(frame, metrics)[: None if metrics else 1]:
            if models is None and not (frame["claim"] == claim).any():
                continue
            info = comparison_info(frame, metric.name, claim, models=models)
            stem = out / f"comparison-{claim}-{metric.name}"
            save_figure(comparison_figure(info, width), info.frame(), made(stem))
            stems.append(stem)
    return stems


def stored_curves(run: Path) -> pd.DataFrame:
    """The table of curves of a run.

    Raises:
        InputError: the folder is none of a run, or has no table yet.
    """
    store = Store(run)
    recall(store)
    return frame_of(store.read_table("curves", CURVES))


def _two_axes_of(run: Path, wanted: Sequence[str]) -> Evaluated:
    """The cells of a run that a difference landscape needs, read from their files."""
    store, models = Store(run), {name.partition("/")[0] for name in wanted}
    planned = recall(store)
    if unknown := models - {cell.model for cell in planned.cells}:
        have = ", ".join(sorted({cell.model for cell in planned.cells}))
        raise InputError(f"difference: no {', '.join(sorted(unknown))} in {run}; there is {have}")
    needed = [c for c in planned.cells if c.model in models and (c.is_clean or c.severity_2 is not None)]
    return Evaluated(store, replace(planned, cells=tuple(needed)))
