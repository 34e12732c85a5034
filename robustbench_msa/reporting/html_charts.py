"""The HTML report's severity curves and grids over available sets, with all their values as tables."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from robustbench_msa.reporting import html_figures, names
from robustbench_msa.reporting.curves_figure import CurvesInfo, Panel, Series, curves_caption
from robustbench_msa.reporting.entries import Entry
from robustbench_msa.reporting.html_figures import Axis, Chart, Line, padded, plain, value_text
from robustbench_msa.reporting.html_heat import Scale, heat_map
from robustbench_msa.reporting.html_parts import CROWD, Roster, Section, Values, bar_of, cell, ends_of, short, unit


def curves_section(info: CurvesInfo, roster: Roster) -> Section:
    """Stresses with one numeric axis: a chart for each, per metric."""
    charts: list[Chart] = []
    values: list[Values] = []
    for row in info.panels:
        drawn = [panel for panel in row if not panel.conditions]
        limits = padded(v for panel in drawn for series in panel.series for v in _drawn(series))
        for panel in drawn:
            charts.append(_curve_chart(f"curves-{len(charts)}", panel, roster, limits))
            values.append(_values(panel, roster, _severities(panel), panel.x_label))
    kept = info._replace(panels=tuple(tuple(p for p in row if not p.conditions) for row in info.panels))
    return Section(tuple(charts), tuple(values), curves_caption(kept) if charts else "")


def conditions_section(info: CurvesInfo, roster: Roster) -> Section:
    """Available sets: a grid of models by sets for each stress and metric."""
    charts: list[Chart] = []
    values, bars = [], []
    for row in info.panels:
        for panel in (panel for panel in row if panel.conditions):
            low, high = ends_of(v for s in panel.series for v in s.values)
            charts.append(_condition_chart(f"sets-{len(charts)}", panel, roster, (low, high)))
            bars.append(bar_of(panel.metric, low, high))
            values.append(_values(panel, roster, panel.conditions, "available"))
    kept = info._replace(panels=tuple(tuple(p for p in row if p.conditions) for row in info.panels))
    caption = curves_caption(kept).replace("Severity curves on", "Scores on") if charts else ""
    return Section(tuple(charts), tuple(values), caption.replace("Bars:", "Intervals:"), tuple(bars))


def _drawn(series: Series) -> tuple[float | None, ...]:
    """Everything of a line that is drawn; references have no bands."""
    return series.values if series.entry.is_reference else (*series.values, *series.ci_low, *series.ci_high)


def _severities(panel: Panel) -> tuple[str, ...]:
    return tuple(sorted({at for series in panel.series for at in series.at}, key=Decimal))


def _curve_chart(id_: str, panel: Panel, roster: Roster, limits: tuple[float, float]) -> Chart:
    at = _severities(panel)
    every = -(-len(at) // 6)
    ticks = [(float(s), "0<br>clean" if s == "0" else plain(s) if i % every == 0 else "") for i, s in enumerate(at)]
    percent = names.is_percent(panel.metric)
    figure = html_figures.line_chart(
        [_line(series, panel, at, roster) for series in panel.series],
        Axis(panel.x_label, ticks),
        Axis(names.metric_label(panel.metric), (), limits, percent, shared=f"curves {panel.metric.name}"),
        height=300 if len(panel.series) <= CROWD else 380,
    )
    label = f"{panel.metric.label} against {panel.x_label}, {panel.title}: {len(panel.series)} lines; values below"
    return Chart(id_, panel.title, label, figure, {"metric": panel.metric.name})


def _line(series: Series, panel: Panel, at: Sequence[str], roster: Roster) -> Line:
    """Of all severities of the panel, so that one that was not run is a gap."""
    points = {where: rest for where, *rest in series.points()}
    rows = [points.get(where, [None, None, None]) for where in at]
    value, low, high = zip(*rows, strict=True)
    text = [_hover(series.entry, panel, where, *row) for where, row in zip(at, rows, strict=True)]
    x = [float(where) for where in at]
    if series.entry.is_reference:
        low = high = (None,) * len(at)
    return Line(
        series.entry.label, roster.look(series.entry), x, value, low, high, text, entry=roster.index(series.entry)
    )


def _hover(
    entry: Entry, panel: Panel, at: str, value: float | None, low: float | None = None, high: float | None = None
) -> str:
    where = f"available: {names.condition_label(at)}" if panel.conditions else f"{panel.x_label} = {at}"
    score = value_text(panel.metric, value, low, high)
    return f"<b>{plain(entry.label)}</b><br>{plain(where)}<br>{plain(panel.metric.label)} {score}"


def _condition_chart(id_: str, panel: Panel, roster: Roster, ends: tuple[float, float]) -> Chart:
    z, cells, hover = [], [], []
    for series in panel.series:
        points = {where: rest for where, *rest in series.points()}
        row = [points.get(c, [None, None, None]) for c in panel.conditions]
        z.append([value for value, _, _ in row])
        cells.append([short(panel.metric, value) for value, _, _ in row])
        hover.append([_hover(series.entry, panel, c, *r) for c, r in zip(panel.conditions, row, strict=True)])
    figure = heat_map(
        z,
        cells,
        hover,
        Scale(*ends, panel.metric.higher_is_better),
        Axis("available modalities", [(i, names.condition_label(c)) for i, c in enumerate(panel.conditions)]),
        Axis(
            "",
            [(i, plain(s.entry.label)) for i, s in enumerate(panel.series)],
            (-0.5, len(panel.series) - 0.5),
            reversed=True,
        ),
        height=80 + 26 * len(panel.series),
    )
    figure["layout"]["meta"] = {"rows": [roster.index(series.entry) for series in panel.series]}
    label = f"{panel.metric.label} of {len(panel.series)} models by available modalities; values below"
    return Chart(id_, panel.title, label, figure, {"metric": panel.metric.name})


def _values(panel: Panel, roster: Roster, at: Sequence[str], corner: str) -> Values:
    rows = []
    for series in panel.series:
        points = {where: rest for where, *rest in series.points()}
        rows.append(
            (
                roster.index(series.entry),
                series.entry.label,
                tuple(cell(panel.metric, *points.get(where, [None, None, None])) for where in at),
            )
        )
    head = tuple(names.condition_label(a) if panel.conditions else a for a in at)
    title = f"{panel.title}: {names.metric_label(panel.metric)}" + unit(panel.metric)
    return Values(title, {"metric": panel.metric.name}, corner, head, tuple(rows))
