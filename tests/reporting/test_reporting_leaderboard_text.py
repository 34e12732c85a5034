from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_msa.reporting.leaderboard import leaderboard
from robustbench_msa.reporting.leaderboard_text import escape_latex, escape_markdown

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def board(nauc):
    """Names to escape, a null, a model that was not run, intervals, available sets, both references."""
    noise = {"stress": "noise-lambda", "params": "fill=mean", "grid": "0:0.7:0.1"}
    sets = {"stress": "missing-fixed", "grid": "t,t+a"}
    plugin = {"model": "my_model.py:build_50%", "recipe": "missing-random:0.3"}
    rows = [
        {"nauc": 0.9, "ci_low": 0.85, "ci_high": 0.96},
        {**plugin, "nauc": 1.0, "ci_low": 0.9, "ci_high": 1.1},
        {"model": "oracle", "recipe": "", "nauc": 0.5, "ci_low": 0.45, "ci_high": 0.56},
        {"model": "chance", "recipe": "", "nauc": 1.4, "ci_low": 1.3, "ci_high": 1.5},
        {**noise, "metric": "acc2_non0", "nauc": 0.7512, "ci_low": 0.7, "ci_high": 0.8},
        {**noise, "metric": "mae", "note": "mae is undefined in a_cell | of & the grid"},
        {**noise, **plugin, "metric": "acc2_non0", "nauc": 0.8, "ci_low": 0.75, "ci_high": 0.85},
        {**noise, **plugin, "metric": "mae", "nauc": 1.25, "ci_low": 1.2, "ci_high": 1.3},
        {**sets, "metric": "corr", "grid_mean": -0.05},
        {**sets, **plugin, "metric": "corr", "grid_mean": 0.25},
        {**sets, "model": "chance", "recipe": "", "metric": "corr", "grid_mean": 0.0},
    ]
    return leaderboard(nauc(*rows).assign(n=686), sort="missing mae")


@pytest.mark.parametrize(("name", "write"), [("board.md", "to_markdown"), ("board.tex", "to_latex")])
def test_golden_files(board, name, write):
    assert getattr(board, write)() + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


def test_all_rows_of_the_markdown_table_are_equally_wide_and_have_all_cells(board):
    table = [line for line in board.to_markdown().splitlines() if line.startswith("| ")]
    assert len(table) == 6  # header, rule, four rows
    assert len({len(line) for line in table}) == 1
    bars = [line.replace("\\|", "").count("|") for line in table]
    assert bars == [2 + 1 + 4] * 6


def test_the_latex_table_has_as_many_cells_in_every_line_and_balanced_braces(board):
    text = board.to_latex()
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {5}
    unescaped = text.replace("\\{", "").replace("\\}", "")
    assert unescaped.count("{") == unescaped.count("}")
    for environment in ("table*", "tabular"):
        assert text.count(f"\\begin{{{environment}}}") == text.count(f"\\end{{{environment}}}") == 1


def test_every_special_character_is_escaped():
    assert escape_latex(r"\{}$&#^_%~<>|" + "\n") == (
        r"\textbackslash{}\{\}\$\&\#\textasciicircum{}\_\%\textasciitilde{}\textless{}\textgreater{}\textbar{} "
    )
    assert escape_markdown("a*b_c|d\n`e` [f](g) <h> &amp; ~i~ \\") == (
        r"a\*b\_c\|d \`e\` \[f\](g) &lt;h&gt; &amp;amp; \~i\~ \\"
    )


def test_a_small_table_is_one_column_wide_and_without_recipes_has_no_column_of_them(nauc):
    board = leaderboard(nauc({"recipe": "", "nauc": 1.0}))
    text = board.to_latex(label="tab:x")
    assert text.startswith("\\begin{table}[t]")
    assert "\\label{tab:x}" in text
    assert "\\begin{tabular}{@{}lr@{}}" in text
    assert "QA-MoE & 1.000 \\\\\n\\bottomrule" in text
    assert "Recipe" not in text + board.to_markdown()
