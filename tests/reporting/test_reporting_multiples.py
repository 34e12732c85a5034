from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robustbench_msa.reporting import style
from robustbench_msa.reporting.multiples import MARGIN, fold, multiples


@given(st.lists(st.sampled_from([1.0, 1.5]), min_size=1, max_size=12), st.sampled_from([3.25, 6.75, 12.0]))
def test_blocks_hold_every_column_once_and_fit(weights: list[float], width: float) -> None:
    blocks = fold(weights, width, 0.9)
    assert [i for block in blocks for i in block] == list(range(len(weights)))
    for block in blocks:
        assert len(block) == 1 or 0.9 * sum(weights[i] for i in block) <= width - MARGIN + 1e-6


def test_three_stresses_stand_side_by_side_in_one_column() -> None:
    assert fold([1, 1, 1], style.COLUMN, 0.9) == ((0, 1, 2),)


def test_panels_share_axes_over_blocks_and_are_labelled_at_the_edges() -> None:
    with style.styled():
        figure = style.new_figure(3.25, 4)
        grid = multiples(figure, 2, [1.0] * 5, 0.9, share_x=True)
    assert [len(row) for row in grid.axes] == [5, 5]
    assert grid.starts == (0, 3)
    top, bottom = grid.axes
    top[0].set_ylim(0, 7)
    assert {ax.get_ylim() for ax in top} == {(0, 7)}
    bottom[4].set_xlim(0, 3)
    assert top[4].get_xlim() == (0, 3)
    assert bottom[0].get_ylim() != (0, 7)
    shown = [[ax.yaxis.get_tick_params()["labelleft"] for ax in row] for row in grid.axes]
    assert shown == [[True, False, False, True, False]] * 2
    assert [row[0].xaxis.get_tick_params()["labelbottom"] for row in grid.axes] == [False, True]


def test_a_shorter_block_has_panels_of_about_the_same_width() -> None:
    with style.styled():
        figure = style.new_figure(3.25, 4)
        grid = multiples(figure, 1, [1.0] * 5, 0.9)
        figure.draw_without_rendering()
    widths = [ax.get_position().width for ax in grid.axes[0]]
    np.testing.assert_allclose(widths, widths[0], rtol=0.15)  # two of three columns would be 50 % wider
