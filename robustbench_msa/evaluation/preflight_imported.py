"""Preflight of predictions that came from a file: what can be said without the model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.preflight import CHECKS
from robustbench_msa.evaluation.preflight_check import Check
from robustbench_msa.evaluation.store import Result

READ = {"shape": "one prediction for each id of each cell", "ids": "matched by id, each id of a cell once"}
"""What reading the file has made sure of: anything else was bad input."""


def preflight_imported(results: Iterable[tuple[Cell, Result]]) -> list[dict[str, str]]:
    """The same checks, as they stand in a manifest; those that need the model itself are skipped.

    Never a fail: predictions that are not finite are scored as such (docs/scores.md), and flagged.
    """
    wrong = {
        f"{cell.stress} {cell.point}" if not cell.is_clean else "clean input": bad
        for cell, result in results
        if (bad := int((~np.isfinite(result.y_pred.reshape(len(result.y_pred), -1))).any(axis=1).sum()))
    }
    made = [_finite(wrong), *(Check(name, "pass", note) for name, note in READ.items())]
    known = {check.check: check for check in made}
    elsewhere = "the model is not here, only what it predicted"
    names = [check.__name__ for check in CHECKS]
    return [known.get(name, Check(name, "skip", elsewhere)).to_json() for name in names]


def _finite(wrong: dict[str, int]) -> Check:
    if not wrong:
        return Check("finite", "pass", "every prediction of every cell")
    where, most = max(wrong.items(), key=lambda item: item[1])
    cells = "1 cell" if len(wrong) == 1 else f"{len(wrong)} cells"
    return Check("finite", "flag", f"NaN or infinite predictions in {cells}, at most {most} (under {where})")
