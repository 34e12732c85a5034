"""Which rows the cells of one stress have in common.

At a severity a stress of whole modalities leaves most samples as they are at another: of a seed's cells of ``missing``
each has the same few rows. What is fused together must not depend on which cells a run has or lacks, or a value's last
bit would (a sum over a batch of another size may be taken in another order). So the group of a cell is laid down by the
cell alone: all points of the stressor's own default grid that share its seed and what is inside its modalities.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from corruptions import Point
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.rows import distinct, places, rows_of

MAX_POINTS = 64  # of a group: more severities than that do not help


def points_like(cell: Cell) -> list[Point]:
    """Points of the stressor's default grid that differ from the cell's in the last severity alone, where that says
    nothing about what is inside modalities."""
    stress = cell.to_stress()
    stressor, point, axes = stress.stressor, cell.point, stress.grid().axes
    if not stressor.by_halves or not axes or len(axes) != len(point.values):
        return []
    last = "severity" if len(axes) == 1 else "severity_2"
    points = [replace(point, **{last: severity}) for severity in axes[-1]]
    mine = stressor.feature_point(point)
    return [p for p in points if not p.is_clean and stressor.feature_point(p) == mine][:MAX_POINTS]


def shared_rows(cell: Cell, inputs: Inputs, known: Tensor) -> Tensor | None:
    """The distinct rows ``(R, 4)`` of a cell's group that are not known, in a fixed order. None: few are shared."""
    points = points_like(cell)
    if len(points) < 2:
        return None
    rows = torch.cat([rows_of(inputs.sources(cell, point)) for point in points])
    found = distinct(rows)
    found = found[places(known, found) < 0]
    return found if 0 < 2 * len(found) <= len(rows) else None
