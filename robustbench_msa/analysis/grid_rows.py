"""The rows of nauc: every score of every line over every requested grid, with what their intervals are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from robustbench_msa.analysis.evaluated import Evaluated, Line
from robustbench_msa.analysis.forms import Interval
from robustbench_msa.analysis.grid_curve import GridCurve
from robustbench_msa.analysis.grid_report import NEVER_HALVED, NO_BASELINE, NO_ORACLE, SCORES, grid_reports
from robustbench_msa.analysis.grid_scores import error_form
from robustbench_msa.analysis.line_over import CLEAN_POINT, LineOver, axes, stressed
from robustbench_msa.analysis.metrics import PROFILES, Array
from robustbench_msa.analysis.over import overs
from robustbench_msa.analysis.references import Reference, References
from robustbench_msa.analysis.score_intervals import Compared, Errors
from robustbench_msa.analysis.variance import Score, seed_deviations
from robustbench_msa.evaluation.cells import Request

Row = dict[str, Any]


class GridRow(NamedTuple):
    """A row of nauc for each metric.

    columns, nulls: ``(M,)``; texts, reasons: lists of M, a reason for each score that is null. intervals: by name of
    the score, of those that may have one. span: the range of the grid's only axis; NaN: it has none, or two.
    """

    facts: Row
    own: LineOver
    columns: dict[str, Array]
    texts: dict[str, list[str | None]]
    reasons: list[dict[str, str]]
    intervals: dict[str, Interval]
    span: float
    nulls: Array
    note: str | None


class _Kind(NamedTuple):
    """Metrics whose scores are made together: of one direction and one error form."""

    columns: list[int]
    higher_is_better: bool
    as_error: Callable[[Array], Array] | None


class GridRows:
    """Makes the rows of nauc from evaluated cells."""

    def __init__(self, tables: Evaluated, references: References) -> None:
        self.tables, self.references = tables, references
        metrics = PROFILES[tables.planned.profile].metrics
        kinds: dict[tuple[bool, str], _Kind] = {}
        for i, metric in enumerate(metrics):
            as_error = error_form(metric)
            kind = metric.higher_is_better, type(metric).__name__ if as_error else ""
            kinds.setdefault(kind, _Kind([], metric.higher_is_better, as_error)).columns.append(i)
        self.kinds = list(kinds.values())
        self.errors = Errors.of(metrics)
        self.sign = np.array([1.0 if metric.higher_is_better else -1.0 for metric in metrics])
        value, influences = tables.floor_scores.counted(tables.nulls)
        self.floor = Score(value[None, None], influences[None])

    def of(self, line: Line, request: Request) -> Iterator[GridRow]:
        """Over the whole grid, and of available sets also over those without the full one."""
        tables = self.tables
        clean = tables.score(line, request, CLEAN_POINT)
        whole, *parts = overs(request.grid)
        at = {point: tables.score(line, request, point) for point in whole.points}
        missing = sum(score is None for score in at.values())
        if clean is None or missing == len(at):
            return
        cells = [cell for point in at for cell in tables.cells_at(line, request, point) or ()]
        nulls = np.sum([np.isnan(tables.scores[cell.key].value) for cell in cells], axis=0)
        if missing:
            note = f"{missing} of {len(at)} grid points are missing"
            whole, parts = whole._replace(area=np.full(len(at), np.nan), note=note), []
        for over in (whole, *parts):
            own = LineOver.of(line, over, [at[point] for point in over.points], clean)
            yield self._row(own, request, nulls)

    def _row(self, own: LineOver, request: Request, nulls: Array) -> GridRow:
        over, grid, of = own.over, axes(request), (own.line, request, own.over)
        baseline, oracle = self.references.baseline(*of), self.references.oracle(*of)
        columns, reasons = self._scores(own, grid, baseline, oracle)
        half_life = np.where([r.get("half_life") == NEVER_HALVED for r in reasons], np.inf, columns["half_life"])
        split = own.area if over.has_area else own.mean
        sd_train, sd_corruption = seed_deviations(split.by_seed)
        deviations = {"sd_train": sd_train, "sd_corruption": sd_corruption, "sd_sampling": split.sd_sampling}
        columns |= {"nauc": own.area.value, "grid_mean": own.mean.value, "clean": own.clean.value}
        columns |= {"floor": self.tables.floor, **deviations}
        has_errors = ~np.isnan(self.errors.slope)
        texts = {
            "baseline": [baseline.label if has else None for has in has_errors],
            "oracle": [oracle.label for _ in has_errors],
        }
        facts: Row = {"stress": request.stress.name, "params": request.stress.params, "grid": over.grid}
        facts |= {"n_seeds": len(request.drawn), "claim": own.mean.claim}
        intervals = self._intervals(own, grid, half_life, baseline.found, oracle.found)
        span = float(grid[0][-1] - grid[0][0]) if len(grid) == 1 else np.nan
        return GridRow(facts, own, columns, texts, reasons, intervals, span, nulls, over.note)

    def _scores(
        self, own: LineOver, grid: list[Array], baseline: Reference, oracle: Reference
    ) -> tuple[dict[str, Array], list[dict[str, str]]]:
        """Every score of SCORES, ``(M,)`` each, and for each metric why some are null."""
        shape = tuple(map(len, grid)) or (len(own.over.points),)
        untouched = ~stressed(own.over).reshape(shape)
        why_not = {NO_BASELINE: baseline.why_not, NO_ORACLE: oracle.why_not}
        found = {name: np.full(len(self.sign), np.nan) for name in SCORES}
        reasons: list[dict[str, str]] = [{} for _ in self.sign]
        for columns, higher, as_error in self.kinds:
            line = own.curve(shape, columns)
            base, ideal = (o.found.curve(shape, columns) if o.found else None for o in (baseline, oracle))
            floor = self.tables.floor[columns]
            curve = GridCurve(grid, line.values, line.clean, floor, higher, base, ideal, as_error, untouched)
            for i, report in zip(columns, grid_reports(curve), strict=True):
                for name, (value, reason) in report.items():
                    if value is not None:
                        found[name][i] = value
                    elif reason is not None:
                        reasons[i][name] = why_not.get(reason, reason)
        return found, reasons

    def _intervals(
        self, own: LineOver, grid: list[Array], half_life: Array, baseline: LineOver | None, oracle: LineOver | None
    ) -> dict[str, Interval]:
        """Of a finished grid. A line compared with itself has 1, or 0, whatever the sample: no interval."""
        compared = Compared(own, self.floor, self.sign)
        found: dict[str, Interval] = {}
        if None in own.at:
            return found
        if own.over.has_area:
            found["retention"] = compared.retention()
            if len(grid) == 1:
                found["half_life"] = compared.half_life(grid[0], half_life)
            if oracle is not None and oracle.line != own.line:
                found["regret"] = compared.regret(oracle)
        if baseline is not None and baseline.line != own.line and own.n_stressed:
            found["ce"] = compared.ce(baseline, self.errors)
            found["relative_ce"] = compared.relative_ce(baseline, self.errors)
        return found
