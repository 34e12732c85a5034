"""Panels in rows and columns on a page of given width: where columns do not fit, they go on below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MARGIN = 0.5  # inches, for the labels of the vertical axis


class Multiples(NamedTuple):
    """axes: rows of columns, whatever block a column is in; starts: the columns that begin a block; panel: inches."""

    axes: tuple[tuple[Axes, ...], ...]
    starts: tuple[int, ...]
    panel: tuple[float, ...]

    @property
    def all(self) -> list[Axes]:
        return [ax for row in self.axes for ax in row]


def fold(weights: Sequence[float], width: float, least: float, margin: float = MARGIN) -> tuple[tuple[int, ...], ...]:
    """Columns in blocks that fit into a width in inches, as even as can be.

    Args:
        weights: how wide each column is, as a multiple of ``least`` inches; margin: inches for labels at the left.

    >>> fold([1, 1, 1, 1.5], 6.75, 1.25), fold([1, 1, 1], 3.25, 1.25)
    (((0, 1, 2, 3),), ((0, 1), (2,)))
    """
    room = max(width - margin, least)
    n_blocks = -(-int(1000 * sum(weights) * least) // int(1000 * room))
    while True:
        blocks = _even(weights, n_blocks)
        if n_blocks >= len(weights) or all(least * sum(weights[i] for i in block) <= room + 1e-9 for block in blocks):
            return blocks
        n_blocks += 1


def multiples(
    figure: Figure,
    n_rows: int,
    weights: Sequence[float],
    least: float,
    share_x: bool = False,
    margin: float = MARGIN,
) -> Multiples:
    """Empty panels. A row shares its vertical axis over all blocks; labels of it stand at the left of each block.

    share_x: a column shares its horizontal axis, and labels of it stand at its foot.
    """
    width = float(figure.get_size_inches()[0])
    blocks = fold(weights, width, least, margin)
    total = max(sum(weights[i] for i in block) for block in blocks)
    outer = figure.add_gridspec(len(blocks), 1)
    axes: list[list[Axes]] = [[] for _ in range(n_rows)]
    for b, block in enumerate(blocks):
        ratios = [weights[i] for i in block]
        rest = total - sum(ratios)  # panels of a shorter block are no wider
        inner = outer[b].subgridspec(n_rows, len(ratios) + (rest > 0), width_ratios=ratios + [rest] * (rest > 0))
        for i, row in enumerate(axes):
            for j in range(len(block)):
                above = axes[0][block[j]] if share_x and i else None
                ax = figure.add_subplot(inner[i, j], sharey=row[0] if row else None, sharex=above)
                ax.tick_params(labelleft=j == 0, labelbottom=not share_x or i == n_rows - 1)
                row.append(ax)
    panel = tuple((width - margin) * weight / total for weight in weights)
    return Multiples(tuple(map(tuple, axes)), tuple(block[0] for block in blocks), panel)


def _even(weights: Sequence[float], n_blocks: int) -> tuple[tuple[int, ...], ...]:
    ends = np.array_split(np.arange(len(weights)), n_blocks)
    return tuple(tuple(map(int, block)) for block in ends if len(block))
