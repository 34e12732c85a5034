"""One HTML page of one or several runs: no file beside it, and nothing is loaded from anywhere.

docs/report.md says what stands in it. The page's own scripts are allowed by their hashes and no other script runs, so
a name that came through the escaping could still do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robustbench_msa.atomic import write_text
from robustbench_msa.reporting import names
from robustbench_msa.reporting.curves_figure import curves_info
from robustbench_msa.reporting.entries import counted, find_entries, find_facts, stressed
from robustbench_msa.reporting.html_board import board_table
from robustbench_msa.reporting.html_breaking import breaking_view
from robustbench_msa.reporting.html_charts import conditions_section, curves_section
from robustbench_msa.reporting.html_data import STEPS as READING
from robustbench_msa.reporting.html_data import Gathered, Step, attempt, gather
from robustbench_msa.reporting.html_figures import plotly
from robustbench_msa.reporting.html_inside import reliability_view, routing_view
from robustbench_msa.reporting.html_landscapes import Landscape, landscapes
from robustbench_msa.reporting.html_page import render
from robustbench_msa.reporting.html_parts import Roster, Section
from robustbench_msa.reporting.html_provenance import provenance

STEPS = (*READING, "charts", "writing")
"""What ``step`` is told, in this order."""


class Curves(NamedTuple):
    """What the table of curves gives. why: nothing of a kind can be shown."""

    curves: Section | None
    conditions: Section | None
    landscapes: tuple[Landscape, ...]
    why: str


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    step: Step | None = None,
) -> Path:
    """Write the report of runs on the same data to one file, replacing an older one whole.

    Args:
        folders: of runs; several are read as if one run had made them.
        out: the file; default ``report.html`` in the first folder.
        metrics: which to show, in this order; default the profile's usual ones.
        step: told each of STEPS as it begins.

    Returns:
        The file.

    Raises:
        InputError: a folder that is none of ours or has no finished cell, runs on different data, an unknown metric,
            or plotly is not installed.
    """
    page = render_report(folders, metrics, step)
    (step or _silent)(STEPS[-1])
    path = Path(out) if out is not None else Path(folders[0]) / "report.html"
    write_text(path, page)
    return path


def render_report(folders: Sequence[str | Path], metrics: Sequence[str] | None = None, step: Step | None = None) -> str:
    """The page as text. Arguments and errors as in ``write_report``."""
    step = step or _silent
    library = str(plotly("offline").get_plotlyjs())  # first: without plotly there is nothing to wait for
    gathered = gather(folders, metrics, step)
    step(STEPS[-2])
    return _page(gathered, library)


def _page(gathered: Gathered, library: str) -> str:
    board = gathered.board
    roster = _roster(gathered)
    curves = _curves(gathered, roster)
    inside, why = gathered.inside, gathered.inside.why
    routing = None if inside.routing is None else routing_view(inside.routing)
    reliability = None if inside.reliability is None else reliability_view(inside.reliability)
    breaking = None if inside.breaking is None else breaking_view(inside.breaking, roster)
    table = None if board is None else board_table(board, roster)
    charts = [
        *(chart for section in _sections(curves) for chart in section.charts),
        *(chart for view in (routing, reliability) if view for group in view.groups for chart in group.charts),
        *(breaking.charts if breaking else ()),
    ]
    return render(
        library,
        charts,
        state=gathered.runs,
        header=_header(gathered),
        metrics=_metrics(curves),
        roster=[(entry.label, roster.look(entry), entry.is_reference) for entry in roster.entries],
        board=table,
        no_board=gathered.no_board,
        curves=curves,
        routing=routing,
        reliability=reliability,
        breaking=breaking,
        why=why,
        provenance=provenance(gathered.runs),
    )


def _roster(gathered: Gathered) -> Roster:
    frame, _ = attempt(lambda: stressed(gathered.curves))
    drawn = () if frame is None else find_entries(frame, set(frame["stress"]))
    ranked = () if gathered.board is None else [row.entry for row in gathered.board.rows]
    return Roster(drawn, ranked)


def _curves(gathered: Gathered, roster: Roster) -> Curves:
    info, why = attempt(lambda: curves_info(gathered.curves, gathered.metrics))
    if info is None:
        curves = conditions = None
    else:
        curves, conditions = curves_section(info, roster), conditions_section(info, roster)
    two_axes = gathered.curves["severity_2"].notna().any()
    chosen = _chosen(gathered)
    wide = tuple(landscapes(gathered.curves, chosen, roster)) if two_axes and chosen else ()
    return Curves(_unless_empty(curves), _unless_empty(conditions), wide, why)


def _chosen(gathered: Gathered) -> tuple[str, ...]:
    """The metrics of landscapes: those asked for, else the usual ones."""
    profile = str(gathered.curves["profile"].iloc[0])
    have = set(gathered.curves["metric"])
    return tuple(name for name in gathered.metrics or names.DEFAULT_METRICS[profile] if name in have)


def _unless_empty(section: Section | None) -> Section | None:
    return section if section is not None and section.charts else None


def _sections(curves: Curves) -> list[Section]:
    found = [curves.curves, curves.conditions, *(landscape.section for landscape in curves.landscapes)]
    return [section for section in found if section is not None]


def _metrics(curves: Curves) -> list[tuple[str, str]]:
    """(name, label) of the metrics that charts can be switched between."""
    labels: dict[str, str] = {}
    for section in _sections(curves):
        for table in section.values:
            labels.setdefault(table.when["metric"], table.title.partition(": ")[2].partition(",")[0])
    return list(labels.items())


def _header(gathered: Gathered) -> dict[str, Any]:
    """The page's title, and the facts that stand below it."""
    models = gathered.curves[~gathered.curves["model"].isin(names.REFERENCES)]
    facts = find_facts(gathered.curves)
    stresses = [request.stress for run in gathered.runs for request in run.planned.requests]
    titles = dict.fromkeys(names.stress_title(stress.name, stress.params) for stress in stresses)
    several = len(set(models["model"])) > 1
    found = {
        "Data": f"{names.DATASETS.get(facts.dataset, facts.dataset)}, {facts.split} split",
        "Size": ", ".join(filter(None, [counted(facts.n, "sample"), counted(facts.n_groups, "group")])),
        "Models": str(models["model"].nunique()) if several else ", ".join(_names(models["model"])),
        "Checkpoints": str(models.loc[models["checkpoint"] != "", "checkpoint"].nunique()),
        "Training recipes": ", ".join(facts.recipes),
        "Stresses": ", ".join(titles),
    }
    where = names.DATASETS.get(facts.dataset, facts.dataset)
    return {"title": f"Robustness on {where}", "facts": {name: text for name, text in found.items() if text}}


def _names(models: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(names.MODELS.get(str(model), str(model)) for model in models))


def _silent(_: str) -> None:
    """Nobody listens."""
