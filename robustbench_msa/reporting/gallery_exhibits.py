"""What the gallery of a run shows: each picture with the one number or two that it is about, all from the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from corruptions import MODALITIES, InputError
from robustbench_msa.analysis.comparisons import compare
from robustbench_msa.analysis.inside.breaking import BreakingInfo, breaking_info
from robustbench_msa.analysis.inside.calibration import CalibrationInfo, calibration_info
from robustbench_msa.analysis.inside.experts import factor_table
from robustbench_msa.analysis.inside.features import fused_features, tsne
from robustbench_msa.analysis.inside.reliability import ReliabilityInfo, reliability_info
from robustbench_msa.analysis.inside.risk import RiskInfo, risk_info
from robustbench_msa.analysis.inside.routing import routing_table
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.tables import Tables
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.evaluation.schemas import frame_of
from robustbench_msa.models.checkpoint import find_checkpoints, load_model
from robustbench_msa.reporting import choice, entries, names
from robustbench_msa.reporting.breaking_figure import flips_figure, modalities_figure
from robustbench_msa.reporting.calibration_figure import calibration_figure, risk_figure
from robustbench_msa.reporting.comparison_figure import BEST, TIED, comparison_figure, comparison_info
from robustbench_msa.reporting.comparison_table import comparison_frame
from robustbench_msa.reporting.curves_figure import CurvesInfo, curves_figure, curves_info
from robustbench_msa.reporting.difference_figure import difference_figure, difference_info
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.experts_figure import experts_figure, features_figure, first_point
from robustbench_msa.reporting.inside_figures import profile_of
from robustbench_msa.reporting.inside_panels import signed
from robustbench_msa.reporting.landscape_figure import landscape_figure, landscape_info
from robustbench_msa.reporting.reliability_figure import reliability_figure
from robustbench_msa.reporting.routing_figure import routing_figure
from robustbench_msa.reporting.run_figures import stored_curves
from robustbench_msa.reporting.style import styled

SYSTEMS = tuple(list(names.MODELS)[:5])
SEED = 1111  # of the training whose inside is shown
OVERVIEW_WIDTH = 6.0  # inches: 7 points are then 13 pixels on a page of 830
Shown = tuple[Figure, str]
"""A figure, and a sentence with its numbers."""


class Source:
    """A run, read as little as needed. metric: the error that pictures of one metric are about."""

    def __init__(self, run: Path) -> None:
        self.run = run

    @cached_property
    def curves(self) -> pd.DataFrame:
        return stored_curves(self.run)

    @cached_property
    def tables(self) -> Tables:
        return open_tables([self.run])

    @cached_property
    def breaking(self) -> BreakingInfo:
        return breaking_info(self.run)

    @cached_property
    def profile(self) -> str:
        return profile_of(self.run)

    @property
    def metric(self) -> str:
        return "mae" if (self.curves["metric"] == "mae").any() else str(self.curves["metric"].iloc[0])


def overview(source: Source) -> Shown:
    info = curves_info(source.curves, None, _rider(source), _systems(source), only=True)
    info = info._replace(panels=info.panels[:1])
    figure = curves_figure(info, OVERVIEW_WIDTH)
    n = len(info.coloured)
    count = _COUNTS[n] if n < len(_COUNTS) else str(n)
    with styled():
        figure.suptitle(f"{count} multimodal sentiment models as their inputs get worse", weight="bold")
        figure.set_size_inches(OVERVIEW_WIDTH, figure.get_size_inches()[1] + 0.55)
    return figure, _at_the_end(info)


def curves(source: Source) -> Shown:
    info = curves_info(source.curves, None, _rider(source))
    return curves_figure(info), _at_the_end(info._replace(panels=info.panels[-1:]))


def landscape(source: Source) -> Shown:
    everyone = landscape_info(source.curves, source.metric)
    who = [panel.entry for panel in everyone.panels]
    system = next((model for model in SYSTEMS if any(entry.model == model for entry in who)), who[0].model)
    wanted = [system, *(["oracle"] if any(entry.model == "oracle" for entry in who) else [])]
    info = landscape_info(source.curves, source.metric, models=wanted)
    first, last = ([panel.values[i][i] for panel in info.panels] for i in (0, -1))
    told = [
        f"{panel.entry.label} from {names.format_value(info.metric, a)} to {names.format_value(info.metric, b)}"
        for panel, a, b in zip(info.panels, first, last, strict=True)
    ]
    return landscape_figure(info), f"From the untouched input to the far corner: {'; '.join(told)}."


def difference(source: Source) -> Shown:
    """What training on the spectrum changes, and another model, against the same baseline."""
    stored = source.curves[source.curves["severity_2"].notna()]
    who = [e for e in entries.find_entries(entries.shown(stored), []) if not e.is_reference]
    ours = [f"{model}/{recipe}" for model in ("qa_moe",) for recipe in ("spectrum", "clean")]
    there = [name for name in [ours[0], "late_fusion", ours[1]] if any(choice.fits(entry, name) for entry in who)]
    wanted = there if len(there) > 1 else [choice.line_name(entry) for entry in who[:2]]
    if len(wanted) < 2:
        raise InputError("difference: expected two lines on a grid of two severities")
    info = difference_info(source.tables, wanted[:-1], wanted[-1], source.metric)
    told = []
    for panel in info.panels:
        marks = panel.marks(info.metric)
        better, worse = int((marks > 0).sum()), int((marks < 0).sum())
        told.append(f"{panel.entry.label}: better in {better} of {marks.size}, worse in {worse}")
    return difference_figure(
        info
    ), f"Cells whose interval leaves 0 out, against {info.baseline.label}: {'; '.join(told)}."


def comparison(source: Source) -> Shown:
    found = frame_of(compare(source.tables, permutations=0).comparisons)
    frame = comparison_frame(found, "nauc", [source.metric])
    claim = "method" if (frame["claim"] == "method").any() else "checkpoint"
    info = comparison_info(frame, source.metric, claim)
    told = []
    for panel in info.panels:
        tied = sum(standing.verdict in (BEST, TIED) for standing in panel.standings)
        told.append(f"{tied} of {len(panel.standings)} under {panel.title}")
    return comparison_figure(info), f"Not told apart from the best {claim}: {'; '.join(told)}."


def routing(source: Source) -> Shown:
    title, rows = _one(routing_table(source.run, ["rider_moe"]), "rider_moe")
    rows = rows[rows["extra"] == rows["extra"].iloc[0]]
    stress = next((name for name in ("missing", "noise") if (rows["stress"] == name).any()), rows["stress"].iloc[0])
    some = rows[rows["stress"] == stress]
    at = [some[some["severity"] == some["severity"].iloc[i]].set_index("expert") for i in (0, -1)]
    expert = str(at[0]["mean"].drop("U", errors="ignore").idxmax())
    means, spreads = ([float(part.loc[expert, column]) for part in at] for column in ("mean", "sd"))
    return routing_figure(title, rows), (
        f"The largest expert, {expert}, has a mean weight of {means[0]:.2f} on the untouched input and {means[1]:.2f} "
        f"at the end of {names.stress_title(str(stress))}; it varies between samples by {spreads[0]:.2f} and "
        f"{spreads[1]:.2f} (standard deviation)."
    )


def reliability(source: Source) -> Shown:
    info = reliability_info(source.run, ["qa_moe"])
    title, levels = _one(info.levels, "qa_moe")
    mine = ReliabilityInfo(levels, *(_rows(table, levels) for table in info[1:]))
    told = []
    for (stress, params), rows in mine.correlations[mine.correlations["target"] == "severity"].groupby(
        ["stress", "params"]
    ):
        found = rows.set_index("score")["rank_correlation"]
        values = ", ".join(f"{m} {signed(float(found[m]))}" for m in ("text", "audio", "vision") if m in found)
        told.append(f"{names.stress_title(str(stress), str(params))}: {values}")
    figure = reliability_figure(title, mine, profile=source.profile)
    return figure, f"Spearman's correlation of r with severity. {'; '.join(told)}."


def calibration(source: Source) -> Shown:
    info = calibration_info(source.run, ["qa_moe"])
    title, points = _one(info.points, "qa_moe")
    mine = CalibrationInfo(points, *(_rows(table, points) for table in info[1:]))
    nine = mine.coverage[mine.coverage["level"] == 0.9]
    low, high = float(nine["coverage"].min()), float(nine["coverage"].max())
    return calibration_figure(title, mine, profile=source.profile), (
        f"Intervals that should hold 90 % of the labels hold {100 * low:.0f} to {100 * high:.0f} %, over all points."
    )


def risk(source: Source) -> Shown:
    info = risk_info(source.run, models=["rider_moe"])
    title, rows = _one(info.curves, "rider_moe")
    mine = RiskInfo(rows, _rows(info.areas, rows))
    gains = mine.areas.groupby("confidence", sort=False)["gain"].mean().sort_values(ascending=False)
    told = ", ".join(f"{name} {signed(float(gain))}" for name, gain in gains.items())
    figure = risk_figure(title, mine, profile=source.profile)
    return figure, f"Gain over a random order, mean over all points (1: the true order): {told}."


def experts(source: Source) -> Shown:
    title, rows = _one(factor_table(source.run, ["rider_moe"]), "rider_moe")
    drawn, _ = first_point(rows)
    told = []
    for output, mine in drawn.groupby("output", sort=False):
        best = mine.sort_values("correlation").iloc[-1]
        told.append(f"{output} with {best['factor']} ({signed(float(best['correlation']))})")
    return experts_figure(title, rows), f"Each output's largest correlation: {'; '.join(told)}."


def breaking_modalities(source: Source) -> Shown:
    table = source.breaking.modalities
    if table.empty:
        raise InputError("nothing hits one modality alone in this run")
    rows = _drawn(table)
    told = []
    for modality in MODALITIES:
        mine = rows[rows["modality"] == modality]
        told.append(f"{modality} {float(mine['mae_added'].min()):.2f} to {float(mine['mae_added'].max()):.2f}")
    what = f"Added by the loss of one modality ({names.error_name(source.profile)}), over the models shown"
    return modalities_figure(rows, profile=source.profile), f"{what}: {'; '.join(told)}."


def breaking_flips(source: Source) -> Shown:
    table = source.breaking.shares
    if table.empty:
        raise InputError("no stress with one severity axis in this run")
    rows = _drawn(table[table["stress"].isin(_rider(source) or list(table["stress"]))])
    told = []
    for stress, mine in rows.groupby("stress", sort=False):
        last = mine[mine["severity"] == max(mine["severity"], key=float)]["flipped"]
        told.append(f"{names.stress_title(str(stress))} {100 * last.min():.0f} to {100 * last.max():.0f} %")
    what = f"Samples whose {names.flip_name(source.profile)} flips at the largest severity, over the models shown"
    return flips_figure(rows, profile=source.profile), f"{what}: {'; '.join(told)}."


def features(source: Source) -> Shown:
    """t-SNE of the fused features of a shipped checkpoint on the run's data, where they can be made here."""
    about = source.tables.planned.manifest["dataset"]
    if about.get("parameters", {}).get("generator") != "synth":
        raise InputError("features: the gallery makes them for synth alone, which needs no file")
    (checkpoint,) = find_checkpoints("emoe", "synth", "clean", SEED)
    batch = load_dataset("synth").splits[about["split"]]
    if batch.labels is None:
        raise InputError("features: the data have no labels")
    points = tsne(fused_features(load_model(checkpoint), batch))
    title = f"{names.MODELS['emoe']}: fused features"
    return features_figure(title, points, batch.labels.numpy()), f"{len(points)} samples of the {about['split']} split."


EXHIBITS: dict[str, Callable[[Source], Shown]] = {
    made.__name__: made
    for made in (
        *(overview, curves, landscape, difference, comparison, routing, reliability, calibration, risk, experts),
        *(breaking_modalities, breaking_flips, features),
    )
}


_COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six")


class Ends(NamedTuple):
    """The last point of a panel."""

    label: str
    value: float


def _at_the_end(info: CurvesInfo) -> str:
    """Where the coloured lines end, in the last panel of missing modalities or else the first panel."""
    panel = next((p for p in info.panels[0] if p.stress == "missing"), info.panels[0][0])
    last = [Ends(s.entry.label, s.values[-1]) for s in panel.series if s.values[-1] is not None]
    coloured = [end for end in last if end.label in {entry.label for entry in info.coloured}]
    low, high = (pick(coloured, key=lambda end: end.value) for pick in (min, max))
    text = [f"{end.label.partition(' (')[0]} {names.format_value(panel.metric, end.value)}" for end in (low, high)]
    others = [
        f"{s.entry.model} {names.format_value(panel.metric, s.values[-1])}"
        for s in panel.series
        if s.entry.is_reference
    ]
    where = f"{panel.title} at {panel.series[0].at[-1]}"
    rest = f" ({', '.join(others)})" if others else ""
    return f"{names.metric_label(panel.metric)}, {where}: from {text[0]} to {text[1]} among the coloured lines{rest}."


def _rider(source: Source) -> list[str] | None:
    """The three stresses of the usual figure, as far as they were run; None: whatever there is."""
    there = set(source.curves["stress"])
    return [stress for stress in ("missing", "noise", "conflict") if stress in there] or None


def _systems(source: Source) -> list[str] | None:
    there = source.curves[["model", "recipe"]].drop_duplicates().itertuples(index=False)
    found = [f"{model}/clean" for model, recipe in there if model in SYSTEMS and recipe == "clean"]
    return found or None


def _one(table: pd.DataFrame, model: str) -> tuple[str, pd.DataFrame]:
    """Name and rows of one line: that model's trained clean with SEED, or whichever comes first."""
    who = entries.find_entries(table, [])
    line = next((entry for entry in who if choice.fits(entry, f"{model}/clean/{SEED}")), who[0])
    return line.name.partition(",")[0], entries.rows_of(table, line)


def _rows(table: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    return table[np.asarray(table["checkpoint"] == like["checkpoint"].iloc[0])]


def _drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the lines to draw, with a column who: the model's name, for there is one line of each."""
    who = choice.coloured(entries.find_entries(table, []))
    return pd.concat([entries.rows_of(table, entry).assign(who=_short(entry, who)) for entry in who])


def _short(entry: Entry, who: Sequence[Entry]) -> str:
    alone = [other.model for other in who].count(entry.model) == 1
    return names.MODELS.get(entry.model, entry.model) if alone else entry.label
