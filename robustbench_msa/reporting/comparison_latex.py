"""Paired differences from the best line as a LaTeX table (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import names
from robustbench_msa.reporting.comparison_figure import BEST, WORSE, ComparisonInfo, Panel, Standing, comparison_caption
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.leaderboard_latex import escape_latex

MAX_COLUMNS = 4
"""Grids side by side in one table of a page's width; more go into further tables."""


def comparison_latex(info: ComparisonInfo, label: str) -> list[str]:
    """Tables of all grids, MAX_COLUMNS at a time: differences, and below each its interval and Holm's p."""
    parts = np.array_split(np.arange(len(info.panels)), -(-len(info.panels) // MAX_COLUMNS))
    return [
        _table(info, [info.panels[j] for j in part], f"{label}-{i}" if len(parts) > 1 else label)
        for i, part in enumerate(parts, 1)
    ]


def _table(info: ComparisonInfo, panels: Sequence[Panel], label: str) -> str:
    environment = "table" if len(panels) == 1 else "table*"
    # a table has no dots to be open or filled
    caption = comparison_caption(info).partition(" Open: ")[0].replace("Bars:", "Intervals:").replace("panel", "column")
    caption += (
        f" In brackets the interval, then p after Holm's adjustment over {info.n_tests} pairs. "
        "Bold: the best, with its value; underlined: worse than the best, p < .05."
    )
    rows = [_row(entry, panels, info.metric) for entry in info.rows]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            f"\\begin{{{environment}}}[t]",
            "\\centering",
            "\\small",
            f"\\caption{{{escape_latex(caption)}}}",
            f"\\label{{{label}}}",
            f"\\begin{{tabular}}{{@{{}}l{'r' * len(panels)}@{{}}}}",
            "\\toprule",
            _line(["", *(escape_latex(names.stress_title(panel.stress, panel.params)) for panel in panels)]),
            _line(["Model", *(escape_latex(_grid(panel.grid)) for panel in panels)]),
            "\\midrule",
            "\n\\addlinespace\n".join(rows),
            "\\bottomrule",
            "\\end{tabular}",
            f"\\end{{{environment}}}",
        ]
    )


def _row(entry: Entry, panels: Sequence[Panel], metric: Metric) -> str:
    found = [next((s for s in panel.standings if s.entry == entry), None) for panel in panels]
    above = _line([escape_latex(entry.label), *(_value(standing, metric) for standing in found)])
    below = [_interval(standing, metric) for standing in found]
    return f"{above}\n{_line(['', *below])}" if any(below) else above


def _value(standing: Standing | None, metric: Metric) -> str:
    if standing is None:
        return "---"
    if standing.verdict == BEST:
        return f"\\textbf{{{names.format_value(metric, standing.value)}}}"
    if standing.difference is None:
        return "undefined"
    text = signed(metric, standing.difference)
    return f"\\underline{{{text}}}" if standing.verdict == WORSE else text


def _interval(standing: Standing | None, metric: Metric) -> str:
    if standing is None or standing.ci_low is None or standing.ci_high is None:
        return ""
    p = "" if standing.p_holm is None else f", {format_p(standing.p_holm)}"
    return f"{{\\tiny [{signed(metric, standing.ci_low)}, {signed(metric, standing.ci_high)}]{p}}}"


def signed(metric: Metric, value: float) -> str:
    """A difference in LaTeX, in the metric's own decimals.

    >>> from robustbench_msa.analysis.metrics import get_profile
    >>> signed(get_profile("mosi").metric("mae"), -0.0312), signed(get_profile("mosi").metric("acc7"), 0.02)
    ('$-$0.031', '+2.0')
    """
    text = names.format_value(metric, value)
    return f"$-${text[1:]}" if text.startswith("-") else f"+{text}"


def format_p(p: float) -> str:
    """
    >>> format_p(0.0312), format_p(0.0001), format_p(1.0)
    ('$p$ .031', '$p$ $<$.001', '$p$ 1.000')
    """
    return "$p$ $<$.001" if p < 0.001 else f"$p$ {p:.3f}".replace(" 0.", " .")


def _grid(grid: str) -> str:
    return names.condition_label(grid) if grid[:1].isalpha() else grid


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
