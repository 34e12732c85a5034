"""Figures of what happens inside the models of a run, from the extras beside its predictions.

One file a checkpoint, or one a run for what breaks models. Each function writes ``stem.png``, ``.pdf`` and ``.csv``
(and further tables as CSV), and returns the stems. models: names of lines (``choice.fits``), default all;
width: inches. docs/inside.md says what they show. Raises InputError where the run has nothing to draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from corruptions import InputError
from robustbench_msa.analysis.inside.breaking import breaking_info
from robustbench_msa.analysis.inside.calibration import CalibrationInfo, calibration_info
from robustbench_msa.analysis.inside.experts import factor_table
from robustbench_msa.analysis.inside.reliability import ReliabilityInfo, reliability_info
from robustbench_msa.analysis.inside.risk import RiskInfo, risk_info
from robustbench_msa.analysis.inside.routing import routing_table
from robustbench_msa.atomic import write_bytes
from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.store import Store
from robustbench_msa.reporting import choice, entries
from robustbench_msa.reporting.breaking_figure import flips_figure, modalities_figure
from robustbench_msa.reporting.calibration_figure import calibration_figure, risk_figure
from robustbench_msa.reporting.experts_figure import experts_figure
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.reliability_figure import reliability_figure
from robustbench_msa.reporting.routing_figure import routing_figure

Names = Sequence[str] | None


def draw_routing(run: Path, out: Path, models: Names = None, width: float | None = None) -> list[Path]:
    """``routing-<line>-<extra>``: mean weights and their deviation between samples, against severity."""
    stems = []
    for line, title, table in _lines(routing_table(run, _models(models)), models):
        for extra, rows in table.groupby("extra", sort=False):
            stems.append(_save(routing_figure(title, rows, width), rows, out / f"routing-{line}-{extra}"))
    return stems


def draw_reliability(run: Path, out: Path, models: Names = None, width: float | None = None) -> list[Path]:
    """``reliability-<line>`` (CSV: levels), and tables ``-correlations`` and ``-bins``."""
    info, profile, stems = reliability_info(run, _models(models)), profile_of(run), []
    for line, title, levels in _lines(info.levels, models):
        mine = ReliabilityInfo(levels, *(_same(levels, table) for table in info[1:]))
        stems.append(_save(reliability_figure(title, mine, width, profile), levels, out / f"reliability-{line}"))
        _write(mine.correlations, stems[-1], "correlations")
        _write(mine.bins, stems[-1], "bins")
    return stems


def draw_calibration(run: Path, out: Path, models: Names = None, width: float | None = None) -> list[Path]:
    """``calibration-<line>`` (CSV: points), and tables ``-coverage`` and ``-sparsification``."""
    info, profile, stems = calibration_info(run, _models(models)), profile_of(run), []
    for line, title, points in _lines(info.points, models):
        mine = CalibrationInfo(points, *(_same(points, table) for table in info[1:]))
        stems.append(_save(calibration_figure(title, mine, width, profile), points, out / f"calibration-{line}"))
        _write(mine.coverage, stems[-1], "coverage")
        _write(mine.sparsification, stems[-1], "sparsification")
    return stems


def draw_risk(run: Path, out: Path, models: Names = None, width: float | None = None) -> list[Path]:
    """``risk-<line>`` (CSV: curves), and the table ``-areas``."""
    info, profile, stems = risk_info(run, models=_models(models)), profile_of(run), []
    for line, title, curves in _lines(info.curves, models):
        mine = RiskInfo(curves, _same(curves, info.areas))
        stems.append(_save(risk_figure(title, mine, width, profile), curves, out / f"risk-{line}"))
        _write(mine.areas, stems[-1], "areas")
    return stems


def draw_experts(run: Path, out: Path, models: Names = None, width: float | None = None) -> list[Path]:
    """``experts-<line>``: correlations with the true factors of synth, on the clean input (CSV: at all points)."""
    return [
        _save(experts_figure(title, table, width), table, out / f"experts-{line}")
        for line, title, table in _lines(factor_table(run, _models(models)), models)
    ]


def draw_breaking(run: Path, out: Path, models: Names = None, width: float | None = None) -> list[Path]:
    """``breaking-modalities`` and ``breaking-flips``, as far as the run has them, and ``breaking-flips-first.csv``.

    Drawn are the lines that would be coloured (``choice.coloured``); the tables have all of them.
    """
    info, profile, stems = breaking_info(run), profile_of(run), []
    if not info.modalities.empty:
        drawn = _coloured(info.modalities, models)
        stems.append(_save(modalities_figure(drawn, width, profile), info.modalities, out / "breaking-modalities"))
    if not info.shares.empty:
        drawn = _coloured(info.shares, models)
        stems.append(_save(flips_figure(drawn, width, profile), info.shares, out / "breaking-flips"))
        _write(info.flips, stems[-1], "first")
    if not stems:
        raise InputError(
            f"{run}: nothing that breaks one modality or has one severity axis; run missing-fixed, noise or missing"
        )
    return stems


def profile_of(run: Path) -> str:
    """The metric profile of a run's dataset."""
    return recall(Store(run)).profile


def _models(names: Names) -> list[str]:
    """The models that lines are of: the first part of their names."""
    return [name.partition("/")[0] for name in names or ()]


def _lines(table: pd.DataFrame, models: Names) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(name in file names, name for people, rows) of every checkpoint that is asked for."""
    who = entries.find_entries(table, [])
    for entry in choice.named(who, models) if models else who:
        alike = [other for other in who if other[:3] == entry[:3]]
        seed = "" if entry.train_seed is None else str(entry.train_seed)
        checkpoint = str(entry.checkpoint)[:8] if len(alike) > 1 or not seed else ""
        parts = [entry.model, entry.recipe, seed, checkpoint]
        yield re.sub(r"[^\w.+-]+", "-", "-".join(filter(None, parts))), entry.label, entries.rows_of(table, entry)


def _coloured(table: pd.DataFrame, models: Names) -> pd.DataFrame:
    """The rows of the lines that are drawn, one after another, with a column who."""
    chosen = choice.coloured(entries.find_entries(table, []), models)
    return pd.concat([entries.rows_of(table, entry).assign(who=entry.label) for entry in chosen])


def _same(like: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the one line that another table is of."""
    return table[np.asarray(table["checkpoint"] == like["checkpoint"].iloc[0])]


def _save(figure: Figure, table: pd.DataFrame, stem: Path) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, table, stem)
    return stem


def _write(table: pd.DataFrame, stem: Path, what: str) -> None:
    path = stem.with_name(f"{stem.name}-{what}.csv")
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())
