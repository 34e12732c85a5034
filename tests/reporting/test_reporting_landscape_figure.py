from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import Normalize
from matplotlib.contour import ContourSet
from matplotlib.patches import Rectangle

from corruptions import InputError
from robustbench_msa.analysis.metrics import get_profile
from robustbench_msa.reporting.landscape_figure import (
    Scale,
    brighter_is_better,
    fitting_a_page,
    landscape_caption,
    landscape_figure,
    landscape_info,
    landscape_note,
)

SEVERITIES = ("0", "0.5", "1")


@pytest.fixture
def spectrum(curves):
    """Two models on 3 x 2 points: value 1 - lambda/2 - eta/4, RIDER-MoE 0.1 lower; one null, one not run; chance."""
    rows = []
    for model, less in (("qa_moe", 0.0), ("rider_moe", 0.1)):
        for a, b in itertools.product(SEVERITIES, ("0", "0.4")):
            if (model, a, b) != ("rider_moe", "1", "0.4"):
                value = None if (model, a, b) == ("qa_moe", "1", "0") else 0.9 - float(a) / 2 - float(b) / 4 - less
                where = {"model": model, "stress": "spectrum", "severity": a, "severity_2": b, "metric": "acc2_non0"}
                rows.append({**where, "value": value})
    chance = {"model": "chance", "recipe": "", "stress": "spectrum", "severity": "0", "severity_2": "0"}
    return curves(*rows, {**chance, "metric": "acc2_non0", "value": 0.5})


def test_info_holds_exactly_what_is_drawn(spectrum):
    info = landscape_info(spectrum)
    assert (info.stress, info.params, info.metric.name) == ("spectrum", "", "acc2_non0")
    assert (info.x, info.y) == (SEVERITIES, ("0", "0.4"))
    assert (info.x_label, info.y_label) == ("noise level λ", "missing rate η")
    assert [panel.entry.label for panel in info.panels] == ["QA-MoE", "RIDER-MoE"]
    qa, rider = (np.array(panel.values, dtype=float) for panel in info.panels)
    np.testing.assert_allclose(qa, [[0.9, 0.65, np.nan], [0.8, 0.55, 0.3]])  # clean first: the lower left
    np.testing.assert_allclose(rider, [[0.8, 0.55, 0.3], [0.7, 0.45, np.nan]])
    np.testing.assert_allclose([info.low, info.high, info.chance], [0.3, 0.9, 0.5])


def test_the_file_behind_the_figure_is_what_is_drawn(spectrum):
    info = landscape_info(spectrum)
    frame = info.frame()
    assert len(frame) == 12
    qa = frame[frame["model"] == "qa_moe"]
    assert list(zip(qa["severity"], qa["severity_2"], strict=True)) == [(x, y) for y in info.y for x in info.x]
    np.testing.assert_array_equal(qa["value"], np.array(info.panels[0].values, dtype=float).ravel())


def test_the_figure_shows_values_hatches_nulls_and_has_one_colour_bar(spectrum):
    info = landscape_info(spectrum)
    figure = landscape_figure(info)
    qa, rider, bar = figure.axes
    assert [t.get_text() for t in qa.texts] == ["90.0", "65.0", "80.0", "55.0", "30.0"]
    assert [t.get_position() for t in qa.texts][:3] == [(0, 0), (1, 0), (0, 1)]
    hatched = [p for p in rider.patches if isinstance(p, Rectangle)]
    assert [(p.get_x(), p.get_y(), p.get_hatch()) for p in hatched] == [(1.5, 0.5, "////")]
    assert qa.get_ylim()[0] < qa.get_ylim()[1]  # clean at the bottom
    assert (qa.get_xlabel(), qa.get_ylabel(), rider.get_ylabel()) == ("noise level λ", "missing rate η", "")
    assert bar.get_ylabel() == "Acc-2 (non-zero) ↑"
    meshes = [ax.collections[0] for ax in (qa, rider)]
    assert meshes[0].norm is meshes[1].norm
    np.testing.assert_allclose([meshes[0].norm.vmin, meshes[0].norm.vmax], [0.3, 0.9])
    assert len(bar.get_lines()) == 2  # chance: dashes on a white ground


@pytest.mark.parametrize(("metric", "better", "worse"), [("acc7", 0.9, 0.2), ("mae", 0.5, 1.5), ("corr", 0.8, -0.1)])
def test_better_is_always_brighter(metric, better, worse):
    scale = Scale(Normalize(*sorted((better, worse))), brighter_is_better(get_profile("mosi").metric(metric)))
    brightness = [sum(scale.cmap(float(scale.norm(value)))[:3]) for value in (better, worse)]
    assert brightness[0] > brightness[1]
    assert (scale.ink(better), scale.ink(worse)) == ("black", "white")


def test_large_grids_are_not_written_into_and_have_few_ticks(curves):
    points = [f"{i / 20:g}" for i in range(16)]
    rows = [{"stress": "spectrum", "severity": a, "severity_2": b} for a, b in itertools.product(points, points)]
    figure = landscape_figure(landscape_info(curves(*({**row, "value": 1.0} for row in rows))))
    ax = figure.axes[0]
    assert len(ax.texts) == 0
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels[:4] == ["0", "", "0.1", ""]


def test_panels_without_a_neighbour_below_have_their_axis(curves):
    rows = [
        {"model": f"m{i}", "stress": "spectrum", "severity": a, "severity_2": "0", "value": i + float(a)}
        for i in range(5)
        for a in ("0", "0.5")
    ]
    figure = landscape_figure(landscape_info(curves(*rows)))
    *panels, _ = figure.axes
    assert [ax.get_xlabel() for ax in panels] == ["", "", *["noise level λ"] * 3]
    assert [ax.get_ylabel() for ax in panels] == ["missing rate η", "", "", "missing rate η", ""]


def test_caption(spectrum):
    assert landscape_caption(landscape_info(spectrum)) == (
        "Acc-2 (non-zero) ↑ over Spectrum on CMU-MOSI, test split (686 samples, 62 groups). Cells are means over "
        "3 corruption seeds and 1 training seed. One colour scale for all panels, brighter is better; the clean input "
        "is at the lower left. Hatched: undefined or not run. Training recipe: clean. "
        "The dashed line on the colour bar is chance."
    )


def test_what_cannot_be_drawn_is_said(curves, spectrum):
    with pytest.raises(InputError, match="got none"):
        landscape_info(curves({}))
    told = spectrum.assign(params="told=true")
    with pytest.raises(InputError, match=r"got Spectrum, Spectrum \(told=true\)"):
        landscape_info(curves(*spectrum.to_dict("records"), *told.to_dict("records")))
    both = curves(*spectrum.to_dict("records"), *told.to_dict("records"))
    assert landscape_info(both, params="told=true").params == "told=true"
    with pytest.raises(InputError, match="there is only chance"):
        landscape_info(spectrum[spectrum["model"] == "chance"])
    with pytest.raises(InputError, match="two values at one point"):
        landscape_info(curves(*spectrum.to_dict("records"), spectrum.to_dict("records")[0]))


def test_iso_lines_and_the_line_of_chance(curves):
    """value = 1 - lambda, so that the line of .5 is at lambda .5 whatever eta is."""
    points = itertools.product(SEVERITIES, SEVERITIES)
    rows = [{"stress": "spectrum", "severity": a, "severity_2": b, "value": 1 - float(a)} for a, b in points]
    chance = {"model": "chance", "recipe": "", "stress": "spectrum", "severity": "0", "severity_2": "0", "value": 0.25}
    info = landscape_info(curves(*rows, chance))
    figure = landscape_figure(info)
    ax, bar = figure.axes
    lines = [c for c in ax.collections if isinstance(c, ContourSet)]
    at = {float(c.levels[0]): np.concatenate(c.get_paths()[0].to_polygons(closed_only=False))[:, 0] for c in lines}
    for level, x in at.items():
        np.testing.assert_allclose(x, 2 * (1 - level), atol=1e-9)  # cells are one apart, severities a half
    assert {0.2, 0.4, 0.6, 0.8, 0.25} == {round(level, 9) for level in at}
    np.testing.assert_allclose(bar.get_yticks(), [0.2, 0.4, 0.6, 0.8])
    assert landscape_note(info) == (
        "Lines join equal values, those at the ticks of the colour bar, dashed where a model falls to chance."
    )


def test_lines_are_chosen_and_labelled_for_themselves(spectrum):
    info = landscape_info(spectrum, models=["rider_moe"])
    assert [panel.entry.label for panel in info.panels] == ["RIDER-MoE"]
    np.testing.assert_allclose([info.low, info.high], [0.3, 0.8])
    assert "Not shown: QA-MoE." in landscape_note(info)
    with pytest.raises(InputError, match="--model emoe: no such line"):
        landscape_info(spectrum, models=["emoe"])


def test_more_lines_than_fit_a_page_are_chosen_from(curves):
    rows = [
        {"model": f"m{i:02}", "stress": "spectrum", "severity": a, "severity_2": "0", "value": i + float(a)}
        for i in range(13)
        for a in ("0", "0.5")
    ]
    info = landscape_info(curves(*rows))
    assert len(info.panels) == 13
    fitting = fitting_a_page(info)
    assert [panel.entry.model for panel in fitting.panels] == [f"m{i:02}" for i in range(6)]
    assert (fitting.low, fitting.high) == (0.0, 5.5)
    assert len(fitting.left_out) == 7
    assert fitting_a_page(fitting) == fitting


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_landscapes_are_no_wider_than_asked_for(spectrum, width):
    assert landscape_figure(landscape_info(spectrum), width).get_size_inches()[0] <= width + 1e-9
