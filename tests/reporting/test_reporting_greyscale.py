"""What is told apart in colour is told apart in greyscale, and by the colour-blind."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from robustbench_msa.reporting import style
from robustbench_msa.reporting.choice import MAX_COLOURED
from robustbench_msa.reporting.curves_figure import curves_figure, curves_info

# Linear RGB as dichromats see it (Vienot, Brettel and Mollon 1999, Digital video colourmaps, section 2)
_DICHROMATS = {
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def test_the_lines_of_a_figure_differ_in_marker_and_dashes_or_in_luminance() -> None:
    looks = [style.line_style(i) for i in range(MAX_COLOURED)]
    for a, b in itertools.combinations(looks, 2):
        differ_in_grey = abs(style.luminance(a.colour) - style.luminance(b.colour)) > 0.1
        assert a.marker != b.marker
        assert a.dashes != b.dashes or differ_in_grey
    assert len({look.colour for look in looks}) == MAX_COLOURED


@pytest.mark.parametrize("kind", _DICHROMATS)
def test_colours_differ_for_the_colour_blind(kind: str) -> None:
    seen = [np.array(_DICHROMATS[kind]) @ linear(colour) for colour in style.COLOURS]
    for a, b in itertools.combinations(seen, 2):
        assert np.abs(a - b).max() > 0.05


def test_drawn_lines_keep_what_tells_them_apart(curves) -> None:
    models = ("qa_moe", "rider_moe", "ca_moe", "emoe", "text_moe", "late_fusion", "tfn", "lmf")
    rows = [{"model": m, "severity": s, "value": 1.0} for m in (*models, "oracle", "chance") for s in ("0", "0.4")]
    ax = curves_figure(curves_info(pd.DataFrame(curves(*rows)))).axes[0]
    looks = [
        (line.get_marker(), str(line._unscaled_dash_pattern), round(style.luminance(line.get_color()), 1))
        for line in ax.get_lines()
        if line.get_color() != style.OTHERS
    ]
    assert len(looks) == MAX_COLOURED + 2
    assert len(set(looks)) == len(looks)


def test_grey_lines_stand_back_and_text_is_black_enough() -> None:
    assert style.luminance(style.OTHERS) > max(map(style.luminance, style.COLOURS))
    assert style.luminance("white") == pytest.approx(1.0)
    assert style.luminance(style.ORACLE) == 0.0


@pytest.mark.parametrize(("text", "inches"), [("column", 3.25), ("page", 6.75), ("5", 5.0), (None, None)])
def test_widths(text: str | None, inches: float | None) -> None:
    assert style.parse_width(text) == inches


@pytest.mark.parametrize("text", ["wide", "1", "99", "nan", ""])
def test_widths_that_are_none(text: str) -> None:
    from corruptions import InputError

    with pytest.raises(InputError, match=r"--width: expected column \(3.25 in\), page \(6.75 in\) or inches"):
        style.parse_width(text)
