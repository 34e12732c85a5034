from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from robustbench_msa.analysis.standings import Standing
from robustbench_msa.published import published
from robustbench_msa.reporting.leaderboard import leaderboard
from robustbench_msa.reporting.leaderboard_latex import escape_latex
from robustbench_msa.reporting.leaderboard_text import escape_markdown
from robustbench_msa.reporting.ranked import with_standings

GOLDEN = Path(__file__).parent / "golden"


TRAINED = {"recipe": "clean", "parameters": 33274, "dataset": {"name": "mosi"}}
MANIFEST = {
    "checkpoints": {
        "a" * 64: {
            **TRAINED,
            "model": "qa_moe",
            "train_seed": 1111,
            "selection": {"split": "valid", "by": "MAE: view 0"},
        },
        "b" * 64: {
            **TRAINED,
            "model": "my_model.py:build_50%",
            "recipe": "missing-random:0.3",
            "train_seed": 7,
            "selection": {"split": "test", "by": "MAE"},
            "preflight": [
                {"check": "finite", "status": "pass", "note": ""},
                {"check": "batch_size", "status": "flag", "note": "differs by 0.01"},
                {"check": "separable", "status": "skip", "note": "no encoders"},
            ],
        },
    },
    "protocols": {},
}


class Tested:
    """Standings of the column that sorts: QA-MoE is the best, the plug-in is tied with it."""

    def over_grid(self, stress: str, params: str, grid: str, score: str) -> dict:
        plugin = ("my_model.py:build_50%", "missing-random:0.3", None, "")
        found = {("qa_moe", "clean", None, ""): Standing(1, 1, 2, 2, True), plugin: Standing(2, 1, 2, 2, True)}
        return {"mae": found} if (stress, score) == ("missing", "nauc") else {}


@pytest.fixture
def board(nauc):
    """Names to escape, a null, a model that was not run, intervals, available sets, both references, a badge, ranks,
    ties and published rows.
    """
    noise = {"stress": "noise-lambda", "params": "fill=mean", "grid": "0:0.7:0.1"}
    sets = {"stress": "missing-fixed", "grid": "t,t+a"}
    plugin = {"model": "my_model.py:build_50%", "recipe": "missing-random:0.3"}
    rows = [
        {"nauc": 0.9, "ci_low": 0.85, "ci_high": 0.96},
        {"metric": "corr", "nauc": 0.71, "ci_low": 0.65, "ci_high": 0.76},
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
    printed = published("rider_moe", table="2")
    printed = printed[printed["model"].isin(["MMIM", "RIDER-MoE"])]
    made = leaderboard(nauc(*rows).assign(n=686), sort="missing mae", manifest=MANIFEST, published=printed)
    return made._replace(rows=tuple(with_standings(made.rows, made.columns, Tested())))


@pytest.mark.parametrize(("name", "write"), [("board.md", "to_markdown"), ("board.tex", "to_latex")])
def test_golden_files(board, name, write):
    assert getattr(board, write)() + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


def test_all_rows_of_the_markdown_table_are_equally_wide_and_have_all_cells(board):
    table = [line for line in board.to_markdown().splitlines() if line.startswith("| ")]
    assert len(table) == 8  # header, rule, four rows, two published ones
    assert len({len(line) for line in table}) == 1
    bars = [line.replace("\\|", "").count("|") for line in table]
    assert bars == [3 + 1 + 5] * 8


def test_the_latex_table_has_as_many_cells_in_every_line_and_balanced_braces(board):
    text = board.to_latex()
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {7}
    unescaped = text.replace("\\{", "").replace("\\}", "")
    assert unescaped.count("{") == unescaped.count("}")
    for environment in ("table*", "tabular", "minipage"):
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
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{table}[t]")
    assert "\\label{tab:x}" in text
    assert "\\begin{tabular}{@{}lr@{}}" in text
    assert "QA-MoE & 1.000 \\\\\n\\bottomrule" in text
    assert "Recipe" not in text + board.to_markdown()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs and xcolor")
def test_latex_compiles(board, tmp_path):
    text = board.to_latex()
    packages = re.search(r"% needs (\\usepackage\{.*\})", text)[1]
    document = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{text}\n\\end{{document}}\n"
    (tmp_path / "board.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "board.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    if "not found" in done.stdout:
        pytest.skip("pdflatex lacks booktabs or xcolor")
    assert done.returncode == 0, done.stdout[-500:]
    assert (tmp_path / "board.pdf").stat().st_size > 10_000


def test_what_must_be_known_of_a_row_is_a_footnote_of_its_name(board):
    """The badge of a model that was selected on test, and what preflight flagged; neither passes nor skips."""
    assert board.rows[0].note == ""
    note = board.rows[1].note
    assert note.startswith("selected on test: ")
    assert note.endswith("preflight: depends on the batch (differs by 0.01)")
    mark = board.mark(board.rows[1])
    assert f"my\\_model.py:build\\_50% ({mark}) " in board.to_markdown()
    assert f"build\\_50\\%\\textsuperscript{{{mark}}}" in board.to_latex()
    frame = board.to_frame()
    assert set(frame.loc[frame["model"] == "my_model.py:build_50%", "flags"]) == {note}
    assert set(frame.loc[frame["model"] == "qa_moe", "selected_on"]) == {"valid"}


def test_ties_and_ranks_are_in_every_format(board):
    assert "<ins>1.000</ins>†" in board.to_markdown()
    assert r"\underline{1.000}\textsuperscript{\textdagger}" in board.to_latex()
    assert "\n| 1–2 " in board.to_markdown()
    assert "\n1--2 & QA-MoE" in board.to_latex()
    frame = board.to_frame()
    tied = frame[frame["rank"].notna()]
    assert tied[["rank", "rank_low", "rank_high", "n_ranked"]].values.tolist() == [[1, 1, 2, 2], [2, 1, 2, 2]]
    assert tied["tied_with_best"].tolist() == [True, True]
    assert (board.rows[0].scores[0].tie_mark, board.rows[1].scores[0].tie_mark) == ("", "†"), "the best needs no mark"
    assert "α = 0.05 after Holm over the comparisons with the best" in board.caption()


def test_published_rows_are_grey_below_all_others_with_their_remarks(board):
    assert [row.name for row in board.published] == ["MMIM [RIDER-MoE 2]", "RIDER-MoE [RIDER-MoE 2]"]
    assert [[None if s is None else s.printed for s in row.scores] for row in board.published] == [
        [None, "0.641", None, None, None],
        [None, "0.691", None, None, None],
    ]
    text = board.to_latex()
    assert text.index(r"\textcolor{gray}{MMIM [RIDER-MoE 2]}") > text.index("chance &")
    assert "they are not comparable one to one" in text
    assert "the redraw leaves a real rate of 0.59" in text
    last = board.to_frame().iloc[-1]
    assert last[["kind", "model", "metric", "value", "printed", "source"]].tolist() == [
        *("published", "RIDER-MoE", "corr", 0.691, "0.691", "RIDER-MoE 2")
    ]
