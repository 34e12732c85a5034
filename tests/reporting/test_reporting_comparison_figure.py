from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corruptions import InputError
from robustbench_msa.analysis.comparisons import compare
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.reporting.comparison_figure import (
    BEST,
    WORSE,
    comparison_caption,
    comparison_figure,
    comparison_info,
)
from robustbench_msa.reporting.comparison_latex import comparison_latex
from robustbench_msa.reporting.comparison_table import comparison_frame
from robustbench_msa.reporting.run_figures import plot_comparisons

sys.path.insert(0, str(Path(__file__).parent))
from small_runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "r", ("missing", "0,0.4,0.8"), ("noise", "0,0.5"))


@pytest.fixture(scope="module")
def pairs(run: Path) -> pd.DataFrame:
    return comparison_frame(compare(open_tables([run]), permutations=0).comparisons.to_pandas(), "nauc", ["mae"])


def test_every_line_stands_against_the_best(pairs: pd.DataFrame) -> None:
    info = comparison_info(pairs, "mae", "checkpoint")
    assert [panel.title for panel in info.panels] == ["Noise 0,0.5", "Missing modalities 0:0.8:0.4"]
    assert [entry.label for entry in info.rows] == ["QA-MoE, spectrum", "RIDER-MoE, clean", "QA-MoE, clean"]
    best, second, third = info.panels[1].standings
    assert (best.verdict, best.difference) == (BEST, None)
    np.testing.assert_allclose(third.difference, third.value - best.value)
    assert third.ci_low is not None
    assert third.ci_low > 0
    assert third.verdict == WORSE
    assert second.p_holm is not None
    assert (second.verdict == WORSE) == (second.p_holm < 0.05)
    assert (info.n, info.n_groups, info.n_seeds, info.n_tests) == (60, 20, 2, 3)


def test_lines_can_be_chosen(pairs: pd.DataFrame) -> None:
    info = comparison_info(pairs, "mae", "checkpoint", models=["qa_moe"])
    assert [entry.label for entry in info.rows] == ["QA-MoE, spectrum", "QA-MoE, clean"]
    assert info.n_tests == 1  # Holm's family is what is shown
    pair = pairs[(pairs["model_a"] == "qa_moe") & (pairs["model_b"] == "qa_moe")].set_index("stress")
    for panel in info.panels:
        assert panel.standings[1].p_holm == pair.loc[panel.stress, "p_bootstrap"]
    with pytest.raises(InputError, match="expected two checkpoints or more"):
        comparison_info(pairs, "mae", "checkpoint", models=["rider_moe"])
    with pytest.raises(InputError, match="expected two methods or more"):
        comparison_info(pairs, "mae", "method")


def test_the_figure_shows_differences_intervals_and_verdicts(pairs: pd.DataFrame) -> None:
    info = comparison_info(pairs, "mae", "checkpoint")
    figure = comparison_figure(info)
    first, second = figure.axes
    assert [t.get_text() for t in first.get_yticklabels()] == [entry.label for entry in info.rows]
    assert first.get_ylim() == second.get_ylim() == (2.5, -0.5)
    assert second.get_xlabel() == "difference in MAE ↓"
    dots = [line for line in second.get_lines() if len(line.get_xdata()) == 1]
    found = [(float(dot.get_xdata()[0]), dot.get_markerfacecolor()) for dot in dots]
    for (x, face), standing in zip(found, info.panels[1].standings, strict=True):
        assert x == (standing.difference or 0.0)
        assert (face == "white") == (standing.verdict == WORSE)


def test_caption_names_the_interval_the_claim_and_the_adjustment(pairs: pd.DataFrame) -> None:
    text = comparison_caption(comparison_info(pairs, "mae", "checkpoint"))
    for words in (
        "nAUC (MAE ↓)",
        "60 samples, 20 groups, 2 corruption seeds",
        "claims about checkpoints",
        "over 3 pairs",
    ):
        assert words in text


def test_latex_has_differences_intervals_and_adjusted_p(pairs: pd.DataFrame) -> None:
    info = comparison_info(pairs, "mae", "checkpoint")
    (text,) = comparison_latex(info, "tab:x")
    standing = info.panels[1].standings[2]
    assert f"\\underline{{+{standing.difference:.3f}}}" in text
    assert f"[+{standing.ci_low:.3f}, +{standing.ci_high:.3f}]" in text
    assert f"\\textbf{{{info.panels[1].standings[0].value:.3f}}}" in text
    assert "Open" not in text
    assert text.count("\\begin{") == text.count("\\end{") == 2
    assert text.count("&") % 2 == 0  # two grids beside the names in every line
    several = info._replace(panels=info.panels * 3)
    assert [t.count("tab:x-") for t in comparison_latex(several, "tab:x")] == [1, 1]


def test_files(run: Path, tmp_path: Path) -> None:
    (stem,) = plot_comparisons(run, tmp_path, width=3.25)
    assert stem.name == "comparison-checkpoint-acc2_non0"
    assert len(pd.read_csv(stem.with_name(f"{stem.name}.csv"))) == 6
