"""Figures of what happens inside the models of a run, from the extras beside its predictions.

One file a checkpoint, or one a run for what breaks models. Each function writes ``stem.png``, ``.pdf`` and ``.csv``
(and further tables as CSV), and returns the stems. docs/inside.md says what they show. Raises InputError where the run
has nothing to draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from corruptions import InputError
from robustbench_msa.analysis.inside.breaking import breaking_info
from robustbench_msa.analysis.inside.calibration import CalibrationInfo, calibration_info
from robustbench_msa.analysis.inside.cells import WHO
from robustbench_msa.analysis.inside.experts import factor_table
from robustbench_msa.analysis.inside.reliability import ReliabilityInfo, reliability_info
from robustbench_msa.analysis.inside.risk import RiskInfo, risk_info
from robustbench_msa.analysis.inside.routing import routing_table
from robustbench_msa.atomic import write_bytes
from robustbench_msa.reporting import names
from robustbench_msa.reporting.breaking_figure import flips_figure, modalities_figure
from robustbench_msa.reporting.calibration_figure import calibration_figure, risk_figure
from robustbench_msa.reporting.experts_figure import experts_figure
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.reliability_figure import reliability_figure
from robustbench_msa.reporting.routing_figure import routing_figure


def draw_routing(run: Path, out: Path) -> list[Path]:
    """``routing-<line>-<extra>``: mean weights and their deviation between samples, against severity."""
    stems = []
    for line, title, table in _lines(routing_table(run)):
        for extra, rows in table.groupby("extra", sort=False):
            stems.append(_save(routing_figure(title, rows), rows, out / f"routing-{line}-{extra}"))
    return stems


def draw_reliability(run: Path, out: Path) -> list[Path]:
    """``reliability-<line>`` (CSV: levels), and tables ``-correlations`` and ``-bins``."""
    info, stems = reliability_info(run), []
    for line, title, levels in _lines(info.levels):
        mine = ReliabilityInfo(levels, *(_same(levels, table) for table in info[1:]))
        stems.append(_save(reliability_figure(title, mine), levels, out / f"reliability-{line}"))
        _write(mine.correlations, stems[-1], "correlations")
        _write(mine.bins, stems[-1], "bins")
    return stems


def draw_calibration(run: Path, out: Path) -> list[Path]:
    """``calibration-<line>`` (CSV: points), and tables ``-coverage`` and ``-sparsification``."""
    info, stems = calibration_info(run), []
    for line, title, points in _lines(info.points):
        mine = CalibrationInfo(points, *(_same(points, table) for table in info[1:]))
        stems.append(_save(calibration_figure(title, mine), points, out / f"calibration-{line}"))
        _write(mine.coverage, stems[-1], "coverage")
        _write(mine.sparsification, stems[-1], "sparsification")
    return stems


def draw_risk(run: Path, out: Path) -> list[Path]:
    """``risk-<line>`` (CSV: curves), and the table ``-areas``."""
    info, stems = risk_info(run), []
    for line, title, curves in _lines(info.curves):
        mine = RiskInfo(curves, _same(curves, info.areas))
        stems.append(_save(risk_figure(title, mine), curves, out / f"risk-{line}"))
        _write(mine.areas, stems[-1], "areas")
    return stems


def draw_experts(run: Path, out: Path) -> list[Path]:
    """``experts-<line>``: correlations with the true factors of synth, on the clean input (CSV: at all points)."""
    return [
        _save(experts_figure(title, table), table, out / f"experts-{line}")
        for line, title, table in _lines(factor_table(run))
    ]


def draw_breaking(run: Path, out: Path) -> list[Path]:
    """``breaking-modalities`` and ``breaking-flips``, as far as the run has them, and ``breaking-flips-first.csv``."""
    info, stems = breaking_info(run), []
    if not info.modalities.empty:
        figure = modalities_figure(info.modalities.assign(who=_names(info.modalities)))
        stems.append(_save(figure, info.modalities, out / "breaking-modalities"))
    if not info.shares.empty:
        figure = flips_figure(info.shares.assign(who=_names(info.shares)))
        stems.append(_save(figure, info.shares, out / "breaking-flips"))
        _write(info.flips, stems[-1], "first")
    if not stems:
        raise InputError(
            f"{run}: nothing that breaks one modality or has one severity axis; run missing-fixed, noise or missing"
        )
    return stems


def _lines(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(name in file names, name for people, rows) of every checkpoint."""
    named = table.assign(who=_names(table))
    for title, rows in named.groupby("who", sort=False):
        first = rows.iloc[0]
        several = named[[*WHO[:3]]].eq(first[[*WHO[:3]]]).all(axis=1) & (named["checkpoint"] != first["checkpoint"])
        seed = "" if pd.isna(first["train_seed"]) else str(first["train_seed"])
        parts = [first["model"], first["recipe"], seed, first["checkpoint"][:8] if several.any() or not seed else ""]
        yield re.sub(r"[^\w.+-]+", "-", "-".join(filter(None, parts))), str(title), rows.drop(columns="who")


def _names(table: pd.DataFrame) -> list[str]:
    """Who each row is of; recipe, training seed and checkpoint only where they are needed to tell lines apart."""
    keys = [
        (str(model), str(recipe), None if pd.isna(seed) else int(seed), str(checkpoint))
        for model, recipe, seed, checkpoint in table[list(WHO)].itertuples(index=False)
    ]
    lines = set(keys)
    told_recipe = any(recipe not in ("", "clean") for _, recipe, _, _ in lines)
    labels = []
    for key in keys:
        model, recipe, seed, checkpoint = key
        parts = [names.MODELS.get(model, model), recipe if told_recipe else ""]
        parts += [f"seed {seed}"] if len({line[2] for line in lines if line[:2] == key[:2]}) > 1 else []
        parts += [checkpoint[:8]] if len([line for line in lines if line[:3] == key[:3]]) > 1 else []
        labels.append(", ".join(filter(None, parts)))
    return labels


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
