"""Who is really better: every line's paired difference from the best, with intervals and a verdict after Holm.

Two functions: ``comparison_info`` says exactly what is drawn, ``comparison_figure`` draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from corruptions import InputError
from robustbench_msa.analysis.metrics import Metric, get_profile
from robustbench_msa.analysis.paired import holm
from robustbench_msa.reporting import choice, entries, names, style
from robustbench_msa.reporting.comparison_table import LEVEL, SIDES, against_best
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.multiples import fold, multiples

LEAST, MARGIN = 1.1, 1.0  # inches: the narrowest panel; names of lines
BEST, TIED, WORSE, UNDEFINED = "best", "tied with the best", "worse than the best", "undefined"


class Standing(NamedTuple):
    """One line over one grid. difference: its value minus the best line's; None for the best itself, or undefined."""

    entry: Entry
    value: float
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_holm: float | None
    verdict: str


class Panel(NamedTuple):
    """One grid, its lines in the order of the rows."""

    stress: str
    params: str
    grid: str
    title: str
    standings: tuple[Standing, ...]


class ComparisonInfo(NamedTuple):
    """rows: lines, the best over all panels first; n_tests: pairs that p was adjusted for, at most."""

    metric: Metric
    score: str
    claim: str
    rows: tuple[Entry, ...]
    panels: tuple[Panel, ...]
    n: int
    n_groups: int
    n_seeds: int
    n_tests: int

    def frame(self) -> pd.DataFrame:
        """What is drawn, one row a line in a panel, in the units of the store."""
        return pd.DataFrame(
            [
                (p.stress, p.params, p.grid, self.metric.name, self.score, self.claim, *s.entry.columns(), *s[1:])
                for p in self.panels
                for s in p.standings
            ],
            columns=["stress", "params", "grid", "metric", "score", "claim", *entries.COLUMNS, *Standing._fields[1:]],
        ).astype({"train_seed": "Int64"})


def comparison_info(
    comparisons: pd.DataFrame, metric: str, claim: str, score: str = "nauc", models: Sequence[str] | None = None
) -> ComparisonInfo:
    """What a figure of comparisons shows.

    Args:
        comparisons: pairs of lines (``comparison_table.comparison_frame``).
        claim: checkpoint or method. Of checkpoints, those are left out that are compared as methods.
        models: the lines to show (``choice.fits``); default all.

    Holm's adjustment is over the pairs of the lines that are shown, which no result has chosen: over the hundreds of
    pairs of single checkpoints, the bootstrap's smallest p (1 in 2,001) could not become significant.

    Raises:
        InputError: no two lines to compare, or a name that no line has.
    """
    rows = comparisons[(comparisons["metric"] == metric) & (comparisons["claim"] == claim)]
    who = _lines(comparisons, rows, claim)
    shown = choice.named(who, models) if models else who
    keep = {entry[:4] for entry in shown}
    both = [_key(row, "_a") in keep and _key(row, "_b") in keep for row in rows.to_dict("records")]
    rows = rows[np.array(both, dtype=bool)]
    if rows.empty:
        raise InputError(f"comparison: expected two {claim}s or more on one grid in {metric}, there are none")
    chosen = get_profile(str(rows["profile"].iloc[0])).metric(metric)
    by_key = {entry[:4]: entry for entry in shown}
    found: list[tuple[str, str, str, list[Standing]]] = []
    n_tests = 0
    for where, pairs in rows.groupby(["stress", "params", "grid"], sort=False, dropna=False):
        stress, params, grid = ("" if part is None or part != part else str(part) for part in where)
        adjusted = pairs.assign(p_holm=holm(pairs["p_bootstrap"].to_numpy(np.float64)))
        found.append((stress, params, grid, _standings(adjusted, chosen, by_key)))
        n_tests = max(n_tests, int(pairs["p_bootstrap"].notna().sum()))
    order = _overall([standings for *_, standings in found])
    panels = tuple(
        Panel(stress, params, grid, f"{names.stress_title(stress, params)} {grid}", _in_order(standings, order))
        for stress, params, grid, standings in sorted(found, key=lambda panel: _place(panel[0]))
    )
    n, n_groups, n_seeds = (int(rows[c].max()) for c in ("n", "n_groups", "n_seeds"))
    return ComparisonInfo(chosen, score, claim, tuple(order), panels, n, n_groups, n_seeds, n_tests)


def comparison_caption(info: ComparisonInfo, interval: str = names.INTERVAL) -> str:
    what = "nAUC" if info.score == "nauc" else "grid mean"
    sentences = [
        f"Differences of {what} ({names.metric_label(info.metric)}) from the best line of each panel, paired "
        f"({info.n:,} samples, {info.n_groups} groups, {info.n_seeds} corruption seeds)",
        f"Bars: {interval}; claims about {info.claim}s",
        f"Open: worse than the best, p < {LEVEL:g} after Holm's adjustment over {info.n_tests} pairs; "
        "filled: not told apart from it",
    ]
    return ". ".join(sentences) + "."


def comparison_figure(info: ComparisonInfo, width: float | None = None) -> Figure:
    """Draws what ``comparison_info`` found. width: inches; default one column for one grid, a page for more."""
    width = width or (style.COLUMN if len(info.panels) == 1 else style.PAGE)
    weights = [1.0] * len(info.panels)
    blocks = len(fold(weights, width, LEAST, MARGIN))
    with style.styled():
        figure = style.new_figure(width, blocks * (0.17 * len(info.rows) + 0.75) + 0.3)
        grid = multiples(figure, 1, weights, LEAST, margin=MARGIN)
        for ax, panel, inches in zip(grid.axes[0], info.panels, grid.panel, strict=True):
            _draw_panel(ax, panel, info.rows)
            ax.set_title(style.wrapped(panel.title, inches))
            ax.set_xlabel(f"difference in {names.metric_label(info.metric)}")
        first = grid.axes[0][0]
        first.set_yticks(range(len(info.rows)), [entry.label for entry in info.rows])
        first.set_ylim(len(info.rows) - 0.5, -0.5)
        if names.is_percent(info.metric):
            for ax in grid.axes[0]:
                ax.xaxis.set_major_formatter(style.PERCENT)
        handles = [Line2D([], [], **look) for look in _LOOKS.values()]
        figure.legend(handles, list(_LOOKS), loc="outside lower center", ncols=3, handlelength=1.0)
    return figure


_DOT: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": "#0072B2", "markersize": 3.6}
_LOOKS: dict[str, dict[str, Any]] = {
    BEST: {**_DOT, "marker": "D", "color": "black"},
    TIED: _DOT,
    WORSE: {**_DOT, "color": "#D55E00", "markerfacecolor": "white"},
}


def _lines(comparisons: pd.DataFrame, rows: pd.DataFrame, claim: str) -> tuple[Entry, ...]:
    """Everyone of a claim; of checkpoints those alone whose model and recipe are not compared as a method."""
    methods = comparisons[comparisons["claim"] == "method"]
    known = {_key(row, side)[:2] for row in methods.to_dict("records") for side in ("_a", "_b")}
    keys = {_key(row, side) for row in rows.to_dict("records") for side in ("_a", "_b")}
    kept = sorted(
        (key for key in keys if claim == "method" or key[:2] not in known),
        key=lambda key: tuple("" if part is None else str(part) for part in key),
    )
    return entries.find_entries(pd.DataFrame(kept, columns=list(SIDES)), []) if kept else ()


def _key(row: dict[Any, Any], side: str) -> tuple[str, str, int | None, str | None]:
    model, recipe, seed, checkpoint = (row[f"{name}{side}"] for name in SIDES)
    return str(model), str(recipe), entries.count(seed), None if pd.isna(checkpoint) else checkpoint or None


def _standings(pairs: pd.DataFrame, metric: Metric, who: dict[Any, Entry]) -> list[Standing]:
    """The best line first."""
    found = []
    for row in against_best(pairs, metric):
        model, recipe, seed, checkpoint = row["line"]
        entry = who[model, recipe, entries.count(seed), checkpoint or None]
        difference, low, high, p = (
            entries.number(row.get(name, np.nan)) for name in ("difference", "low", "high", "p_holm")
        )
        verdict = BEST if "difference" not in row else UNDEFINED if difference is None else _verdict(p)
        found.append(Standing(entry, float(row["value"]), difference, low, high, p, verdict))
    return found


def _verdict(p_holm: float | None) -> str:
    return WORSE if p_holm is not None and p_holm < LEVEL else TIED


def _overall(panels: Sequence[Sequence[Standing]]) -> list[Entry]:
    """Lines by the sum of their places; in a panel that lacks a line it would be last."""
    who = dict.fromkeys(s.entry for standings in panels for s in standings)
    places = [[s.entry for s in standings] for standings in panels]
    return sorted(who, key=lambda e: (sum(p.index(e) if e in p else len(who) for p in places), e.order))


def _in_order(standings: Sequence[Standing], order: Sequence[Entry]) -> tuple[Standing, ...]:
    return tuple(sorted(standings, key=lambda standing: order.index(standing.entry)))


def _place(stress: str) -> tuple[int, str]:
    order = list(names.STRESSES)
    return order.index(stress) if stress in order else len(order), stress


def _draw_panel(ax: Axes, panel: Panel, rows: Sequence[Entry]) -> None:
    ax.axvline(0, color="black", linewidth=0.6, zorder=1)
    for standing in panel.standings:
        look = _LOOKS.get(standing.verdict)
        if look is not None:
            y = rows.index(standing.entry)
            if standing.ci_low is not None and standing.ci_high is not None:
                ax.hlines(y, standing.ci_low, standing.ci_high, color=look["color"], linewidth=0.9)
            ax.plot(standing.difference or 0.0, y, **look)
    ax.grid(visible=False, axis="y")
