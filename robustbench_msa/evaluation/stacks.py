"""Which severities go through a model together, where one of them alone would leave a GPU idle.

A split may have far fewer samples than a GPU takes at once. Severities that change the inside of modalities are then
encoded and fused several at a time, one below the other. As with groups (``groups``), which ones those are must not
depend on which cells a run has or lacks: it is laid down by the cell, the size of the split and the batch size alone.
A severity that is not on its stress's own default grid goes alone.
"""

from __future__ import annotations

from dataclasses import replace

from corruptions import Point
from robustbench_msa.evaluation.cells import Cell


def stack_of(cell: Cell, n: int, size: int) -> list[Cell]:
    """The cells that are computed with this one, itself among them, in the order of the default grid.

    Args:
        n: samples of the split. size: samples that go through a model at once.
    """
    stress, at_once = cell.to_stress(), size // n
    stressor = stress.stressor
    if at_once < 2 or stressor.needs_adversary:
        return [cell]
    mine, inside = stressor.feature_point(cell.point), dict[Point, Point]()
    for point in stress.grid().points:
        if not (changed := stressor.feature_point(point)).is_clean:
            inside.setdefault(changed, point)  # any of those that do the same inside modalities
    if mine not in inside:
        return [cell]
    inside[mine] = cell.point
    first = list(inside).index(mine) // at_once * at_once
    return [_at(cell, point) for point in list(inside.values())[first : first + at_once]]


def _at(cell: Cell, point: Point) -> Cell:
    return replace(cell, severity=point.severity, severity_2=point.severity_2)
