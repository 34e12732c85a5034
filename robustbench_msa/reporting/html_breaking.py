"""The HTML report's view of what breaks models: flipped signs, lost modalities, and the samples that break first.

A line is a model with its recipe here, the mean over its checkpoints; where there are several, what looks like an
interval is their range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pandas as pd

from corruptions import MODALITIES
from robustbench_msa.analysis.inside.breaking import BreakingInfo
from robustbench_msa.reporting import entries, html_figures, names
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.html_figures import Axis, Chart, Line, Value, padded, plain
from robustbench_msa.reporting.html_inside import lines_of, numbers, title_of
from robustbench_msa.reporting.html_parts import CROWD, Roster
from robustbench_msa.reporting.inside_panels import Slice, slices_of

FIRST = 20
"""How many samples are listed."""
_POINT = ["stress", "params", "severity", "severity_2", "condition"]


class Sample(NamedTuple):
    """One that breaks early. severity: the smallest at which a checkpoint flips it; flips: in how many, of how many."""

    id: str
    label: float
    clean: float
    severity: str
    after: float
    flips: int
    of: int


class First(NamedTuple):
    """The samples that break first under one stress, in one checkpoint or (choice "all") over all of them."""

    title: str
    when: dict[str, str]
    x_label: str
    samples: tuple[Sample, ...]

    @property
    def condition(self) -> str:
        return html_figures.condition(self.when)


class Breaking(NamedTuple):
    """options: (choice, label) of the control "breaking"."""

    charts: tuple[Chart, ...]
    firsts: tuple[First, ...]
    options: tuple[tuple[str, str], ...]


def breaking_view(info: BreakingInfo, roster: Roster) -> Breaking:
    """Charts of flipped signs and lost modalities, and lists of the samples that flip first."""
    charts = [*_flip_charts(info.shares, roster), *_modality_charts(info.modalities, roster)]
    options: list[tuple[str, str]] = []
    firsts: list[First] = []
    if not info.flips.empty:
        lines = lines_of(info.flips)
        options = [("all", f"all {len(lines)} checkpoints"), *((str(i), e.label) for i, (e, _) in enumerate(lines))]
        firsts += _firsts(info.flips, info.shares, "all")
        for i, (entry, rows) in enumerate(lines):
            firsts += _firsts(rows, entries.rows_of(info.shares, entry), str(i))
    return Breaking(tuple(charts), tuple(firsts), tuple(options))


def earliest(flips: pd.DataFrame, severities: Sequence[str], n_lines: int) -> list[Sample]:
    """The samples that flip first over checkpoints: by how much of the grid each spends flipped, on average.

    flips: rows of ``BreakingInfo.flips`` of one stress. severities: of its grid, rising, without the clean one. Of
    equals the one with the surest clean prediction comes first.
    """
    rank = {severity: i for i, severity in enumerate(severities)}
    found = []
    for name, rows in flips.groupby("id", sort=False):
        ranks = [rank[s] for s in rows["severity"]]
        spent = sum(len(severities) - r for r in ranks)
        clean = float(rows["clean_prediction"].mean())
        first = rows.iloc[int(np.argmin(ranks))]
        after, label = float(rows["prediction"].mean()), float(rows["label"].iloc[0])
        sample = Sample(str(name), label, clean, str(first["severity"]), after, len(rows), n_lines)
        found.append((-spent, -abs(clean), sample))
    return [sample for _, _, sample in sorted(found)[:FIRST]]


def _firsts(flips: pd.DataFrame, shares: pd.DataFrame, choice: str) -> Iterator[First]:
    """shares: of the same checkpoints; they name every severity, also those at which nothing flips."""
    order = list(names.STRESSES)
    keys = sorted(
        {(str(s), str(p)) for s, p in zip(flips["stress"], flips["params"], strict=True)},
        key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key),
    )
    for stress, params in keys:
        rows, points = (t[(t["stress"] == stress) & (t["params"] == params)] for t in (flips, shares))
        severities = sorted(set(points["severity"].dropna()) - {"0"}, key=Decimal)
        n_lines = points["checkpoint"].nunique()
        title, label = names.stress_title(stress, params), names.axis_labels(stress, 1)[0]
        yield First(title, {"breaking": choice}, label, tuple(earliest(rows, severities, n_lines)))


def _flip_charts(shares: pd.DataFrame, roster: Roster) -> Iterator[Chart]:
    if shares.empty:
        return
    table, who = _together(shares, "flipped")
    limits = padded(value for end in ("", "_low", "_high") for value in table[f"flipped{end}"])
    for i, slice_ in enumerate(slices_of(table)):
        rows = slice_.rows(table)
        lines = [_flip_line(entries.rows_of(rows, entry), entry, slice_, roster) for entry in who]
        every = -(-len(slice_.x) // 6)
        ticks = [
            (x, plain(at).replace("\n", "<br>") if j % every == 0 else "")
            for j, (x, at) in enumerate(zip(slice_.x, slice_.labels, strict=True))
        ]
        y = Axis("signs that flip ↓", (), limits, percent=True, shared="flips")
        height = 300 if len(who) <= CROWD else 380
        figure = html_figures.line_chart([line for line in lines if line.x], Axis(slice_.x_label, ticks), y, height)
        told = f"share of samples whose predicted sign flips against {slice_.x_label}, {slice_.title}"
        yield Chart(f"flips-{i}", title_of(slice_), told, figure)


def _flip_line(rows: pd.DataFrame, entry: Entry, slice_: Slice, roster: Roster) -> Line:
    value, low, high = (numbers(rows[f"flipped{end}"]) for end in ("", "_low", "_high"))
    where = (f"{slice_.x_label} = {x:g}" for x in rows["x"])
    facts = zip(where, value, low, high, rows["lines"], strict=True)
    text = [f"<b>{plain(entry.label)}</b><br>{plain(at)}<br>{_share(*score)}" for at, *score in facts]
    look = roster.look(entry)
    return Line(entry.label, look, list(rows["x"]), value, low, high, text, entry=roster.index(entry))


def _share(value: Value, low: Value, high: Value, lines: int) -> str:
    if value is None:
        return names.NULL
    ends = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f} % flipped{ends}{_of(lines)}"


def _of(lines: int) -> str:
    return f"<br>mean and range of {lines} checkpoints" if lines > 1 else ""


def _modality_charts(table: pd.DataFrame, roster: Roster) -> Iterator[Chart]:
    """One modality hit alone, at the hardest point that was run: what it adds to the error."""
    if table.empty:
        return
    hit = ["stress", "modality"]
    last = table[~table.duplicated(["checkpoint", *hit, "params"], keep="last")]
    together, who = _together(last, "mae_added", ["modality"])
    for i, (stress, rows) in enumerate(together.groupby("stress", sort=False)):
        limits = padded([0.0, *(v for end in ("", "_low", "_high") for v in rows[f"mae_added{end}"])])
        lines = []
        for j, entry in enumerate(who):
            mine = entries.rows_of(rows, entry)
            if not mine.empty:
                aside = 0.7 * (j / max(len(who) - 1, 1) - 0.5) if len(who) > 1 else 0.0
                lines.append(_modality_line(mine, entry, aside, roster))
        x = Axis("modality hit alone", [(float(k), m) for k, m in enumerate(MODALITIES)], (-0.5, 2.5))
        figure = html_figures.line_chart(lines, x, Axis("MAE added ↓", (), limits))
        title = names.stress_title(str(stress))
        told = f"MAE added by each modality that is hit alone, {title}"
        yield Chart(f"modalities-{i}", f"One modality hit alone: {title}", told, figure)


def _modality_line(rows: pd.DataFrame, entry: Entry, aside: float, roster: Roster) -> Line:
    value, low, high = (numbers(rows[f"mae_added{end}"]) for end in ("", "_low", "_high"))
    text = [
        f"<b>{plain(entry.label)}</b><br>{modality} alone<br>MAE {_added(*score)}"
        for modality, *score in zip(rows["modality"], value, low, high, rows["lines"], strict=True)
    ]
    x = [MODALITIES.index(modality) + aside for modality in rows["modality"]]
    look = roster.look(entry)
    return Line(entry.label, look, x, value, low, high, text, entry=roster.index(entry), joined=False)


def _added(value: Value, low: Value, high: Value, lines: int) -> str:
    if value is None:
        return names.NULL
    ends = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
    return f"{value:+.3f}{ends}{_of(lines)}"


def _together(table: pd.DataFrame, value: str, by: Sequence[str] = ()) -> tuple[pd.DataFrame, list[Entry]]:
    """Mean over the checkpoints of a model and recipe; their range in place of an interval where there are several."""
    ends = [value, f"{value}_low", f"{value}_high"]
    keys = ["model", "recipe", *_POINT, *by]
    rows = []
    for key, mine in table.groupby(keys, sort=False, dropna=False):
        several = len(mine) > 1
        low, high = (mine[value].min(), mine[value].max()) if several else mine[ends[1:]].iloc[0]
        seed = None if several else entries.count(mine["train_seed"].iloc[0])
        checkpoint = "" if several else str(mine["checkpoint"].iloc[0])
        rows.append((*key, seed, checkpoint, mine[value].mean(), low, high, len(mine)))
    frame = pd.DataFrame(rows, columns=[*keys, "train_seed", "checkpoint", *ends, "lines"])
    frame = frame.astype({"train_seed": "Int64"}).astype(dict.fromkeys(["severity", "severity_2", "condition"], object))
    return frame, list(entries.find_entries(frame, []))
