from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from corruptions import InputError, Point
from robustbench_msa.analysis.comparisons import compare
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.metrics import get_profile
from robustbench_msa.reporting.difference_figure import (
    DifferenceInfo,
    difference_caption,
    difference_figure,
    difference_info,
    purple_is_better,
)
from robustbench_msa.reporting.run_figures import plot_differences
from robustbench_msa.reporting.style import luminance

sys.path.insert(0, str(Path(__file__).parent))
from small_runs import LABELS, LINES, QA, RIDER, make_run, predict

from robustbench_msa.evaluation.cells import Cell

GRID = "0,0.5,1x0,0.4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "r", ("spectrum", GRID), ("noise", "0,0.3"))


@pytest.fixture(scope="module")
def info(run: Path) -> DifferenceInfo:
    return difference_info(open_tables([run]), ["rider_moe", "qa_moe/spectrum"], "qa_moe", "mae")


def test_values_are_differences_of_means_over_seeds(info: DifferenceInfo) -> None:
    def mae(checkpoint: str, x: str, y: str) -> float:
        point = Point(x, y)
        cells = [Cell(checkpoint=checkpoint, severity=x, severity_2=y, seed=seed) for seed in (1111, 1112)]
        cells = [Cell(checkpoint=checkpoint)] if point.is_clean else cells
        return float(np.mean([np.abs(predict(cell).astype(np.float32) - LABELS).mean() for cell in cells]))

    assert (info.x, info.y) == (("0", "0.5", "1"), ("0", "0.4"))
    expected = [[mae(RIDER.checkpoint, x, y) - mae(QA.checkpoint, x, y) for x in info.x] for y in info.y]
    np.testing.assert_allclose(info.panels[0].values(), expected, atol=1e-6)
    assert info.limit == max(np.abs(panel.values()).max() for panel in info.panels)


def test_intervals_are_those_of_the_comparisons_at_the_points(run: Path, info: DifferenceInfo) -> None:
    """The table of comparisons has every pair at every point; a - b there may be b - a here."""
    table = compare(open_tables([run]), points=True, permutations=0).comparisons.to_pandas()
    at = table[(table["score"] == "value") & (table["metric"] == "mae") & (table["stress"] == "spectrum")]
    pair = at[(at["checkpoint_a"] == QA.checkpoint) & (at["checkpoint_b"] == RIDER.checkpoint)]
    assert len(pair) == 6
    for row in pair.itertuples():
        cell = info.panels[0].cells[info.y.index(row.severity_2)][info.x.index(row.severity)]
        np.testing.assert_allclose([cell.ci_low, cell.ci_high, cell.p], [-row.ci_high, -row.ci_low, row.p_bootstrap])


def test_marks_say_who_is_better_where_the_interval_leaves_zero_out(info: DifferenceInfo) -> None:
    mae, corr = (get_profile("mosi").metric(name) for name in ("mae", "corr"))
    panel = info.panels[1]
    lows = np.array([[cell.ci_low for cell in row] for row in panel.cells])
    highs = np.array([[cell.ci_high for cell in row] for row in panel.cells])
    np.testing.assert_array_equal(panel.marks(mae), 1 * (highs < 0) - 1 * (lows > 0))
    np.testing.assert_array_equal(panel.marks(corr), 1 * (lows > 0) - 1 * (highs < 0))
    assert panel.marks(mae)[1, 2] == 1  # a sixth of the slope at the far corner
    assert panel.cells[1][2].p <= panel.cells[1][2].p_holm <= 6 * panel.cells[1][2].p + 1e-12


def test_the_figure_has_one_symmetric_scale_signed_values_and_dots(info: DifferenceInfo) -> None:
    figure = difference_figure(info)
    first, second, _ = figure.axes
    norms = [ax.collections[0].norm for ax in (first, second)]
    assert norms[0] is norms[1]
    np.testing.assert_allclose([norms[0].vmin, norms[0].vmax], [-info.limit, info.limit])
    assert [ax.get_title().replace("\n", " ") for ax in (first, second)] == [
        "RIDER-MoE, clean − QA-MoE, clean",
        "QA-MoE, spectrum − QA-MoE, clean",
    ]
    texts = [text.get_text() for text in second.texts]
    assert len(texts) == 6
    assert all(text[0] in "+−" for text in texts)
    marks = info.panels[1].marks(info.metric)
    dots = [line for line in second.get_lines() if line.get_marker() == "o"]
    assert len(dots) == int((marks != 0).sum()) > 0
    assert {dot.get_markerfacecolor() for dot in dots if dot.get_ydata()[0] > 1} == {"black"}  # better
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["better, the 95 % interval leaves 0 out", "worse"]


@pytest.mark.parametrize(("metric", "better"), [("mae", 0.0), ("corr", 1.0)])
def test_purple_is_better_and_both_sides_are_as_dark_in_greyscale(metric: str, better: float) -> None:
    cmap = purple_is_better(get_profile("mosi").metric(metric))
    red, green, blue, _ = cmap(better)
    assert blue > red > green
    ends = [luminance(cmap(x)) for x in (0.0, 0.5, 1.0)]
    assert ends[1] > 0.9
    assert max(ends[0], ends[2]) < 0.3


def test_the_file_behind_the_figure_is_what_is_drawn(info: DifferenceInfo) -> None:
    frame = info.frame()
    assert len(frame) == 12
    assert set(frame["baseline"]) == {"QA-MoE, clean"}
    first = frame[frame["model"] == "rider_moe"]
    np.testing.assert_allclose(first["difference"], info.panels[0].values().ravel())
    assert list(frame.columns[-5:]) == ["difference", "ci_low", "ci_high", "p", "p_holm"]


def test_caption_says_what_dots_are_and_that_they_are_not_adjusted(info: DifferenceInfo) -> None:
    assert difference_caption(info) == (
        "Paired differences from QA-MoE, clean: MAE ↓ over Spectrum on the synthetic dataset, test split (60 samples, "
        "20 groups). Cells are means over 2 corruption seeds and 1 training seed. One colour scale for all panels, "
        "symmetric about zero; the thick line is zero. Dots: the interval leaves zero out (filled: better than the "
        "baseline, open: worse), not adjusted for the number of cells: 95 % bootstrap intervals over groups (videos); "
        "one training seed: claims about checkpoints, not methods. Training recipes: clean, spectrum."
    )


def test_what_cannot_be_subtracted_is_said(run: Path, tmp_path: Path) -> None:
    tables = open_tables([run])
    for models, baseline, words in (
        (["qa_moe"], "qa_moe/clean", "qa_moe/clean/1111 is the baseline"),
        (["rider_moe"], "emoe", "--model emoe: no such line"),
    ):
        with pytest.raises(InputError, match=words):
            difference_info(tables, models, baseline)
    with pytest.raises(InputError, match="two severity axes, got spectrum, not noise"):
        difference_info(tables, ["rider_moe"], "qa_moe", stress="noise")
    one_axis = make_run(tmp_path / "r", ("noise", "0,0.3"), lines=LINES[:2])
    with pytest.raises(InputError, match=r"got none \(run --stress spectrum\)"):
        difference_info(open_tables([one_axis]), ["rider_moe"], "qa_moe")


def test_a_run_is_drawn_from_the_cells_that_are_needed(run: Path, tmp_path: Path) -> None:
    (stem,) = plot_differences(run, tmp_path / "f", ["rider_moe"], "qa_moe/clean", ["corr"])
    assert stem.name == "difference-spectrum-rider_moe-qa_moe-clean-corr"
    for extension in ("png", "pdf", "csv"):
        assert stem.with_name(f"{stem.name}.{extension}").stat().st_size > 0
    with pytest.raises(InputError, match=r"no emoe in .*; there is chance, qa_moe, rider_moe"):
        plot_differences(run, tmp_path / "f", ["emoe"], "qa_moe")
