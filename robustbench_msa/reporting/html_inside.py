"""The HTML report's look inside the models: routing weights and reliability scores, a checkpoint at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from corruptions import MODALITIES
from robustbench_msa.analysis.inside.reliability import ReliabilityInfo
from robustbench_msa.reporting import entries, html_figures, names
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.html_figures import Axis, Chart, Line, Look, Value, look_of, padded, plain
from robustbench_msa.reporting.html_parts import Cell, Values
from robustbench_msa.reporting.inside_panels import Slice, signed, slices_of

PARTS = {"routing": "routing weights", "gates": "gates", "gate": "gate"}
WEIGHTS = {"mean": "mean weight", "sd": "SD of weight between samples"}
TARGETS = {
    "severity": "severity",
    "severity_2": "second severity",
    "lost": "modality lost",
    "error": "absolute error",
}


class Group(NamedTuple):
    """Charts that share one legend. legend: (name, look) of their lines, in order."""

    title: str
    when: dict[str, str]
    legend: tuple[tuple[str, Look], ...]
    charts: tuple[Chart, ...]

    @property
    def condition(self) -> str:
        return html_figures.condition(self.when)


class View(NamedTuple):
    """What a reader picks one of. options: (choice, label)."""

    options: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    values: tuple[Values, ...] = ()


def routing_view(table: pd.DataFrame) -> View:
    """Weights of experts against severity; choices "routing" (the checkpoint) and "weights" (mean or sd)."""
    groups: list[Group] = []
    options = []
    for choice, (entry, rows) in enumerate(lines_of(table)):
        options.append((str(choice), entry.label))
        for (extra, part), mine in rows.groupby(["extra", "part"], sort=False):
            title = f"{PARTS.get(str(extra), str(extra))}{f' of {part}' if part else ''}"
            groups.append(_routing_group(f"routing-{len(groups)}", f"{entry.label}: {title}", mine, str(choice)))
    return View(tuple(options), tuple(groups))


def _routing_group(id_: str, title: str, rows: pd.DataFrame, choice: str) -> Group:
    experts = list(rows["expert"].unique())
    charts: list[Chart] = []
    for quantity, label in WEIGHTS.items():
        limits = padded(value for end in ("", "_low", "_high") for value in numbers(rows[f"{quantity}{end}"]))
        for slice_ in slices_of(rows):
            figure = slice_chart(rows, slice_, "expert", experts, quantity, Axis(label, (), limits))
            told = f"{label} of experts against {slice_.x_label}, {title}, {title_of(slice_)}"
            charts.append(Chart(f"{id_}-{len(charts)}", title_of(slice_), told, figure, {"weights": quantity}))
    return Group(title, {"routing": choice}, _legend(experts), tuple(charts))


def reliability_view(info: ReliabilityInfo) -> View:
    """Scores r against severity, errors by fifths of r, and rank correlations; choice "reliability"."""
    groups, values, options = [], [], []
    for choice, (entry, levels) in enumerate(lines_of(info.levels)):
        options.append((str(choice), entry.label))
        when = {"reliability": str(choice)}
        bins = entries.rows_of(info.bins, entry)
        charts = _reliability_charts(f"reliability-{choice}", entry, levels[levels["score"] != "mean"], bins)
        groups.append(Group(entry.label, when, _legend(MODALITIES), tuple(charts)))
        values += list(_correlations(entries.rows_of(info.correlations, entry), entry, when))
    return View(tuple(options), tuple(groups), tuple(values))


def _reliability_charts(id_: str, entry: Entry, levels: pd.DataFrame, bins: pd.DataFrame) -> Iterator[Chart]:
    bins = bins[(bins["bins"] == "equal") & (bins["score"] != "mean")]
    limits = padded(value for end in ("", "_low", "_high") for value in numbers(levels[f"r{end}"]))
    for i, slice_ in enumerate(slices_of(levels)):
        figure = slice_chart(levels, slice_, "score", MODALITIES, "r", Axis("mean r", (), limits))
        told = f"mean reliability score r against {slice_.x_label}, {entry.label}, {slice_.title}"
        yield Chart(f"{id_}-r-{i}", f"r, {title_of(slice_)}", told, figure)
    for i, ((stress, params), rows) in enumerate(bins.groupby(["stress", "params"], sort=False)):
        title = f"Error by r, {names.stress_title(str(stress), str(params))}"
        told = f"mean absolute error in fifths of the samples by r, {entry.label}, {title}"
        yield Chart(f"{id_}-bins-{i}", title, told, _bins_chart(rows))


def _legend(order: Sequence[str]) -> tuple[tuple[str, Look], ...]:
    return tuple((name, look_of(i)) for i, name in enumerate(order))


def lines_of(table: pd.DataFrame) -> list[tuple[Entry, pd.DataFrame]]:
    """Every checkpoint of a table with its rows."""
    found = entries.find_entries(table, [])
    return [(entry, entries.rows_of(table, entry)) for entry in found]


def title_of(slice_: Slice) -> str:
    return slice_.title.replace("\n", ", ")


def slice_chart(
    table: pd.DataFrame, slice_: Slice, by: str, order: Sequence[str], value: str, y: Axis
) -> dict[str, Any]:
    """A line for each of ``by`` with the band of ``value``_low and _high, against the severity of a slice."""
    rows = slice_.rows(table)
    there = [name for name in order if (rows[by] == name).any()]
    lines = [
        _line(rows[rows[by] == name], name, list(order).index(name), i / max(len(there) - 1, 1) - 0.5, value, slice_)
        for i, name in enumerate(there)
    ]
    every = -(-len(slice_.x) // 7)
    ticks = [
        (x, plain(text).replace("\n", "<br>") if i % every == 0 else "")
        for i, (x, text) in enumerate(zip(slice_.x, slice_.labels, strict=True))
    ]
    return html_figures.line_chart(lines, Axis(slice_.x_label, ticks), y, 260)


def _line(rows: pd.DataFrame, name: str, order: int, aside: float, value: str, slice_: Slice) -> Line:
    mean, low, high = (numbers(rows[f"{value}{end}"]) for end in ("", "_low", "_high"))
    labels = dict(zip(slice_.x, slice_.labels, strict=True))
    where = [labels[x].replace("\n", " ") for x in rows["x"]]
    text = [
        f"<b>{plain(name)}</b><br>{plain(slice_.x_label)} = {plain(at)}<br>{interval_text(*score)}"
        for at, *score in zip(where, mean, low, high, strict=True)
    ]
    x = rows["x"].to_numpy(np.float64) + (0.3 * aside if slice_.categorical else 0.0)
    return Line(name, look_of(order), [*x], mean, low, high, text, joined=not slice_.categorical)


def _bins_chart(rows: pd.DataFrame) -> dict[str, Any]:
    lines = []
    for order, score in enumerate(MODALITIES):
        mine = rows[rows["score"] == score]
        r, mae, low, high = (numbers(mine[c]) for c in ("mean_r", "mae", "mae_low", "mae_high"))
        if r:
            text = [
                f"<b>{score}</b><br>mean r {interval_text(at)}<br>MAE {interval_text(*found)}<br>{n} samples"
                for at, n, *found in zip(r, mine["n"], mae, low, high, strict=True)
            ]
            x = [at if at is not None else 0.0 for at in r]
            lines.append(Line(score, look_of(order), x, mae, low, high, text))
    limits = padded(v for line in lines for v in (*line.y, *line.low, *line.high))
    return html_figures.line_chart(lines, Axis("mean r of the fifth"), Axis("MAE ↓", (), limits), 260)


def _correlations(rows: pd.DataFrame, entry: Entry, when: dict[str, str]) -> Iterator[Values]:
    for (stress, params), here in rows.groupby(["stress", "params"], sort=False):
        targets = tuple(t for t in TARGETS if (here["target"] == t).any())
        scores = list(dict.fromkeys(here["score"]))
        found = here.set_index(["score", "target"])
        cells = [
            tuple(_correlation(found, score, target) for target in targets) for score in scores
        ]  # every score has every target
        title = f"{entry.label}, {names.stress_title(str(stress), str(params))}: Spearman's correlation of r with"
        rows_ = tuple((None, str(score), row) for score, row in zip(scores, cells, strict=True))
        yield Values(title, when, "r of", tuple(TARGETS[t] for t in targets), rows_)


def _correlation(found: pd.DataFrame, score: str, target: str) -> Cell:
    if (score, target) not in found.index:
        return Cell(names.NULL)
    columns = ("rank_correlation", "rank_correlation_low", "rank_correlation_high")
    value, low, high = np.asarray(found.loc[(score, target), list(columns)], dtype=np.float64)
    return Cell(signed(value), f"[{signed(low)}, {signed(high)}]" if not np.isnan([low, high]).any() else "")


def numbers(column: pd.Series) -> list[Value]:
    return [entries.number(value) for value in column]


def interval_text(value: Value, low: Value = None, high: Value = None) -> str:
    """
    >>> interval_text(0.1234, 0.1, 0.2), interval_text(None)
    ('0.123 [0.100, 0.200]', '—')
    """
    if value is None:
        return names.NULL
    ends = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{ends}"
