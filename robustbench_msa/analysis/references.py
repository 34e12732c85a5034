"""Which lines of a run the others are compared with: the baseline of CE, the oracle of regret."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.analysis.evaluated import Evaluated, Line
from robustbench_msa.analysis.line_over import LineOver, line_over
from robustbench_msa.analysis.over import Over
from robustbench_msa.evaluation.cells import Request
from robustbench_msa.models.registry import TOKENS

BASELINE = "late_fusion"
ORACLE = "oracle"


class Reference(NamedTuple):
    """A line to compare with, over the same grid (without its points' Scores); or why there is none."""

    found: LineOver | None
    why_not: str = ""

    @property
    def label(self) -> str | None:
        return self.found.line.label if self.found else None


class References:
    """Chooses for each line and request. The plan alone decides who is chosen, so that a cell that failed makes a null
    and not another baseline; who is chosen counts only with every cell of the grid, for the same corruption seeds."""

    def __init__(self, tables: Evaluated, baseline: str | None = None, one_baseline: bool = False) -> None:
        """baseline: a model of the run, which ``choose`` takes a line of for each other line; or the label of one line,
        which all are compared with. Default: late_fusion, or behind a text backbone late_fusion-tokens. one_baseline:
        all are compared with the line that a method of recipe clean would be, so that their CE have one order.

        Raises:
            InputError: no such model or line in the run.
        """
        self._asked: dict[Request, list[Line]] = defaultdict(list)
        for line, request in tables.asked():
            self._asked[request].append(line)
        self._models = sorted({cell.model for cell in tables.planned.cells})
        labels = sorted({line.label for lines in self._asked.values() for line in lines})
        if baseline is not None and baseline not in {*self._models, *labels}:
            near = did_you_mean(baseline, [*self._models, *labels])
            lines = f"; or one line, such as {labels[0]!r}" if labels else ""
            raise InputError(f"baseline: no {baseline!r} in this run{near}; there is {', '.join(self._models)}{lines}")
        tokens = BASELINE not in self._models and BASELINE + TOKENS in self._models
        self.name = baseline or BASELINE + (TOKENS if tokens else "")
        self._for_all = Line(self.name, "clean", None, "", ()) if one_baseline else None
        self._tables = tables
        self._known: dict[tuple[Line, Request, str], LineOver | None] = {}

    def baseline(self, line: Line, request: Request, over: Over) -> Reference:
        return self._found(self.name, line, request, over)

    def oracle(self, line: Line, request: Request, over: Over) -> Reference:
        return self._found(ORACLE, line, request, over)

    def _found(self, name: str, line: Line, request: Request, over: Over) -> Reference:
        there = [other for other in self._asked[request] if name in (other.model, other.label)]
        if not there:
            absent = name in (BASELINE, ORACLE) and name not in self._models
            how = "is not in this run" if absent else "was not run over this grid with these corruption seeds"
            return Reference(None, f"{name} {how}")
        chosen = line if line in there and self._for_all is None else choose(there, self._for_all or line)
        if chosen is None:
            return Reference(None, f"several checkpoints of {name} could be meant")
        if not self._tables.complete(chosen, request) or (found := self._over(chosen, request, over)) is None:
            return Reference(None, f"{chosen.label} has not finished this grid with these corruption seeds")
        return Reference(found)

    def _over(self, line: Line, request: Request, over: Over) -> LineOver | None:
        key = line, request, over.grid
        if key not in self._known:
            made = line_over(self._tables, line, request, over)
            self._known[key] = made and replace(made, at=())  # the points of a large grid are too much to keep
        return self._known[key]


def choose(lines: list[Line], line: Line) -> Line | None:
    """Which of the lines of one model another line is compared with; None: more than one could be meant.

    Of the same recipe where there is one, else of recipe clean, else of the only recipe there is. Of these, that of the
    same training seed, else the mean over training seeds, else the only checkpoint. A mean is compared with the mean.
    """
    recipes = {other.recipe for other in lines}
    recipe = next(name for name in (line.recipe, "clean", *recipes) if name in recipes)
    if recipe not in (line.recipe, "clean") and len(recipes) > 1:
        return None
    of_recipe = [other for other in lines if other.recipe == recipe]
    means = [other for other in of_recipe if len(other.members) > 1]
    single = [other for other in of_recipe if len(other.members) == 1]
    same = [other for other in single if line.train_seed is not None and other.train_seed == line.train_seed]
    candidates = same or means or single
    return candidates[0] if len(candidates) == 1 else None
