from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from corruptions import InputError
from robustbench_msa.reporting import style
from robustbench_msa.reporting.curves_figure import LEAST, curves_caption, curves_figure, curves_info, others_note
from robustbench_msa.reporting.multiples import fold


def test_info_holds_exactly_what_is_drawn(curves):
    frame = curves(
        {"severity": "0.4", "value": 1.25, "ci_low": 1.0, "ci_high": 1.5},
        {"severity": "0.10", "value": None},
        {"severity": "0", "value": 1.0, "ci_low": 0.75, "ci_high": 1.25},
        {"severity": "0", "seed": 1111, "value": 9.0},
        {"stress": "spectrum", "severity": "0", "severity_2": "0", "value": 9.0},
        {"model": "chance", "recipe": "", "value": 1.5},
    )
    info = curves_info(frame)
    ((panel,),) = info.panels
    assert (panel.stress, panel.title, panel.x_label) == ("missing", "Missing modalities", "missing rate m")
    assert panel.conditions == ()
    model, chance = panel.series
    assert (model.entry.label, model.at) == ("QA-MoE", ("0", "0.10", "0.4"))  # by size, not as text
    assert (model.values, model.ci_low, model.ci_high) == ((1.0, None, 1.25), (0.75, None, 1.0), (1.25, None, 1.5))
    assert (chance.entry.label, chance.at, chance.values) == ("chance", ("0",), (1.5,))


def test_rows_are_metrics_and_columns_are_stresses_with_available_sets_last(two_stresses):
    info = curves_info(two_stresses)
    grid = [[(p.metric.name, p.stress) for p in row] for row in info.panels]
    assert grid == [
        [("acc2_non0", "missing"), ("acc2_non0", "missing-fixed")],
        [("mae", "missing"), ("mae", "missing-fixed")],
    ]
    sets = info.panels[1][1]
    assert sets.conditions == ("t", "v", "t+a+v")
    assert sets.x_label == "available modalities"
    assert [s.entry.label for s in sets.series] == ["QA-MoE", "RIDER-MoE", "oracle (bound)", "chance"]
    np.testing.assert_allclose(sets.series[0].values, [1.1, 1.3, 1.0])


def test_stresses_and_metrics_come_as_asked_for(two_stresses):
    info = curves_info(two_stresses, ["mae", "acc2_non0"], ["missing-fixed", "missing"])
    assert [[(p.metric.name, p.stress) for p in row] for row in info.panels] == [
        [("mae", "missing-fixed"), ("mae", "missing")],
        [("acc2_non0", "missing-fixed"), ("acc2_non0", "missing")],
    ]


def test_another_parameter_is_another_column(curves):
    frame = curves({"stress": "missing-random"}, {"stress": "missing-random", "params": "told=true"})
    titles = [panel.title for panel in curves_info(frame).panels[0]]
    assert titles == ["Randomly missing", "Randomly missing (told=true)"]


def test_the_oracle_is_a_bound_except_under_conflict(two_stresses):
    conflict = two_stresses[two_stresses["stress"] == "missing"].assign(stress="conflict")
    labels = [s.entry.label for s in curves_info(conflict).panels[0][0].series]
    assert labels[2] == "oracle (strong reference)"


def test_chance_has_corr_zero_and_a_models_null_stays_a_gap(curves):
    frame = curves({"metric": "corr"}, {"metric": "corr", "model": "chance", "recipe": ""})
    model, chance = curves_info(frame).panels[0][0].series
    assert (model.values, chance.values) == ((None,), (0.0,))


def test_a_model_keeps_its_place_when_fewer_stresses_are_drawn(two_stresses):
    here = two_stresses[(two_stresses["stress"] == "missing") | (two_stresses["model"] != "qa_moe")]
    orders = {s.entry.model: s.entry.order for s in curves_info(here, None, ["missing-fixed"]).panels[0][0].series}
    assert orders == {"rider_moe": 1, "oracle": 2, "chance": 3}


def test_nothing_to_draw_is_said(curves, two_stresses):
    with pytest.raises(InputError, match="stress 'noise' has no curve in these results; there is missing, missing-fix"):
        curves_info(two_stresses, None, ["noise"])
    with pytest.raises(InputError, match="no stress with one severity axis"):
        curves_info(curves({"stress": "spectrum", "severity": "0", "severity_2": "0"}))
    with pytest.raises(InputError, match="QA-MoE has two values of mae at one severity"):
        curves_info(curves({}, {}))


def test_the_file_behind_the_figure_is_what_is_drawn(curves):
    frame = curves(
        {"severity": "0", "value": 1.0, "ci_low": 0.75, "ci_high": 1.25},
        {"severity": "0.4", "value": None},
        {"model": "chance", "recipe": "", "value": 1.5, "train_seed": None},
    )
    behind = curves_info(frame).frame()
    assert behind.columns.tolist() == [
        *("stress", "params", "metric", "model", "recipe", "train_seed", "label"),
        *("grey", "at", "value", "ci_low", "ci_high"),
    ]
    assert behind.drop(columns=["stress", "params", "metric", "recipe", "train_seed"]).to_csv(index=False) == (
        "model,label,grey,at,value,ci_low,ci_high\n"
        "qa_moe,QA-MoE,False,0,1.0,0.75,1.25\n"
        "qa_moe,QA-MoE,False,0.4,,,\n"
        "chance,chance,False,0,1.5,,\n"
    )


def test_caption_says_what_the_band_is_and_counts(two_stresses):
    assert curves_caption(curves_info(two_stresses)) == (
        "Severity curves on CMU-MOSI, test split (686 samples, 62 groups). Values are means over 3 corruption seeds "
        "and 1 training seed. Bands and bars: 95 % bootstrap intervals over groups (videos); "
        "one training seed: claims about checkpoints, not methods. Training recipe: clean. "
        "Severity 0 is the untouched input. Chance: the best constant of the training labels. "
        "The oracle knows how the data were made, and the stress."
    )
    only_sets = curves_caption(curves_info(two_stresses, None, ["missing-fixed"]), interval="none")
    assert "Bars: none" in only_sets
    assert "Severity 0" not in only_sets


def test_the_figure_has_a_panel_per_metric_and_stress_with_labels_and_one_legend(two_stresses):
    before = plt.get_fignums()
    figure = curves_figure(curves_info(two_stresses))
    assert plt.get_fignums() == before
    assert len(figure.axes) == 4
    assert figure.get_size_inches()[0] == style.PAGE
    top_left, top_right, bottom_left, bottom_right = figure.axes
    assert (top_left.get_ylabel(), bottom_left.get_ylabel()) == ("Acc-2 (non-zero) ↑", "MAE ↓")
    assert (top_left.get_title(), top_right.get_title()) == ("Missing modalities", "Available modalities")
    assert (bottom_left.get_xlabel(), bottom_right.get_xlabel()) == ("missing rate m", "available modalities")
    assert top_left.get_ylim() == top_right.get_ylim()
    assert [t.get_text() for t in bottom_right.get_xticklabels()] == ["T", "V", "TAV"]
    assert [t.get_text() for t in bottom_left.get_xticklabels()] == ["0\nclean", "0.4"]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["QA-MoE", "RIDER-MoE", "oracle (bound)", "chance"]


def test_lines_bands_and_references_of_a_curve(two_stresses):
    ax = curves_figure(curves_info(two_stresses, ["mae"], ["missing"])).axes[0]
    qa, rider, oracle, chance = ax.get_lines()
    np.testing.assert_allclose(qa.get_xydata(), [[0, 1.0], [0.4, 1.2]])
    np.testing.assert_allclose(rider.get_xydata(), [[0, 0.9], [0.4, 1.1]])
    assert qa.get_marker() != rider.get_marker()
    assert qa.get_linestyle() != rider.get_linestyle()
    assert (oracle.get_color(), oracle.get_linestyle()) == ("black", ":")
    assert chance.get_linestyle() == "--"
    np.testing.assert_array_equal(chance.get_ydata(), [1.5, 1.5])
    bands = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert len(bands) == 2  # of models alone
    heights = bands[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [0.95, 1.3])
    low, high = ax.get_ylim()
    assert low < 0.8
    assert high > 1.5


def test_available_sets_are_dots_side_by_side_and_not_joined(two_stresses):
    ax = curves_figure(curves_info(two_stresses, ["mae"], ["missing-fixed"])).axes[0]
    qa, rider, _ = ax.get_lines()
    assert qa.get_linestyle() == rider.get_linestyle() == "None"
    assert all(qa.get_xdata() < rider.get_xdata())
    bars = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(bars) == 3  # two models' intervals and the oracle's levels
    np.testing.assert_allclose([s[0, 1] for s in bars[2].get_segments()], [0.9, 1.1, 0.8])


def test_many_severities_are_labelled_sparsely(curves):
    frame = curves(*({"severity": f"{i / 10:g}", "value": 1.0} for i in range(8)))
    ax = curves_figure(curves_info(frame)).axes[0]
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels == ["0\nclean", "", "0.2", "", "0.4", "", "0.6", ""]


def test_neighbours_differ_in_colour_marker_and_dashes_and_styles_last_for_hundreds():
    looks = [style.line_style(i) for i in range(210)]
    assert len(set(looks)) == 210
    for a, b in itertools.pairwise(looks):
        assert all(x != y for x, y in zip(a, b, strict=True))


@pytest.fixture
def many(curves):
    """Nine models under missing, of which some are this package's, and chance."""
    models = ("qa_moe", "rider_moe", "ca_moe", "emoe", "text_moe", "late_fusion", "tfn", "lmf", "mine")
    rows = [
        {"model": m, "severity": s, "value": 1.0 + i + float(s)} for i, m in enumerate(models) for s in ("0", "0.4")
    ]
    return curves(*rows, {"model": "chance", "recipe": "", "value": 1.5})


def test_of_many_lines_six_are_coloured_and_the_rest_is_grey_and_named(many):
    info = curves_info(many)
    coloured = ["CA-MoE", "EMOE", "QA-MoE", "RIDER-MoE", "TEXT"]
    assert sorted(entry.label for entry in info.coloured) == sorted([*coloured, "mine"])
    assert others_note(info) == "In grey: Late fusion; LMF; TFN."
    frame = info.frame()
    assert set(frame["label"][frame["grey"]]) == {"Late fusion", "LMF", "TFN"}
    figure = curves_figure(info)
    grey = [line for line in figure.axes[0].get_lines() if line.get_color() == style.OTHERS]
    assert len(grey) == 3
    bands = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    assert len(bands) == 6
    assert [t.get_text() for t in figure.legends[0].get_texts()][-1] == "3 others"


def test_named_lines_are_coloured_and_others_can_be_left_out(many):
    info = curves_info(many, models=["lmf", "tfn"])
    assert [entry.label for entry in info.coloured] == ["LMF", "TFN"]
    assert len(info.others) == 7
    only = curves_info(many, models=["lmf", "tfn"], only=True)
    assert [s.entry.label for s in only.panels[0][0].series] == ["LMF", "TFN", "chance"]
    assert only.others == ()
    assert others_note(only) == ""


def test_labels_of_a_few_lines_do_not_tell_them_from_those_left_out(curves):
    frame = curves(*({"model": m, "recipe": r} for m in ("qa_moe", "emoe") for r in ("clean", "spectrum")))
    assert curves_info(frame).coloured[0].label == "EMOE, clean"
    assert [e.label for e in curves_info(frame, models=["qa_moe/clean", "emoe/clean"], only=True).coloured] == [
        "EMOE",
        "QA-MoE",
    ]


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_the_width_is_kept_and_many_stresses_go_on_below(two_stresses, width):
    stresses = ["noise", "conflict", "burst", "drift", "asr", "misalign", "frame-missing"]
    missing = two_stresses[two_stresses["stress"] == "missing"]
    frame = pd.concat([two_stresses, *(missing.assign(stress=stress) for stress in stresses)])
    info = curves_info(frame)
    figure = curves_figure(info, width)
    assert figure.get_size_inches()[0] == width
    assert len(figure.axes) == 2 * 9
    labelled = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    n_blocks = len(fold([1.0] * 8 + [1.5], width, LEAST))
    assert n_blocks == {3.25: 4, 6.75: 2}[width]
    assert labelled.count("MAE ↓") == n_blocks
