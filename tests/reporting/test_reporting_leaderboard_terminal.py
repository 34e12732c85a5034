from __future__ import annotations

import io

import pytest
from rich.console import Console, Group
from rich.text import Text

from corruptions import InputError
from robustbench_msa.reporting.leaderboard import curve_tables, leaderboard


def printed(renderable, width=100):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def board(nauc):
    rows = []
    for stress, grid in (("noise", "0:0.5:0.1"), ("missing", "0:0.8:0.2")):
        for model, mae in (("qa_moe", 0.9), ("rider_moe", 1.25), ("chance", 1.5)):
            where = {"stress": stress, "grid": grid, "model": model, "recipe": "" if model == "chance" else "clean"}
            known = (stress, model) != ("missing", "rider_moe")
            value = {"nauc": mae, "ci_low": mae - 0.25, "ci_high": mae + 0.25} if known else {"note": "too few"}
            rows.append({**where, "metric": "mae", **value})
            rows.append({**where, "metric": "acc2_non0", "nauc": 1 - mae / 2, "ci_low": 0.05, "ci_high": 1.0})
    return leaderboard(nauc(*rows))


def test_a_table_per_stress_with_digits_below_digits_and_references_apart(board):
    lines = printed(board.to_rich())
    start = lines.index("Missing modalities, 0:0.8:0.2: nAUC")
    assert lines[start + 2 : start + 8] == [
        " Model       Acc-2 (non-zero) ↑                  MAE ↓",
        " ─────────────────────────────────────────────────────",
        " QA-MoE       55.0 [5.0, 100.0]   0.900 [0.650, 1.150]",
        " RIDER-MoE    37.5 [5.0, 100.0]       — (1)",
        "",
        " chance       25.0 [5.0, 100.0]   1.500 [1.250, 1.750]",
    ]
    assert lines[0] == "Noise, 0:0.5:0.1: nAUC"
    assert lines[-1] == "(1) too few"


def test_it_fits_the_width_by_splitting_metrics_over_tables(board):
    assert max(map(len, printed(board.to_rich()))) <= 100
    narrow = printed(board.to_rich(width=50), width=50)
    assert max(map(len, narrow)) <= 50
    wide = printed(board.to_rich())
    heads = [[line for line in lines if line.startswith(" Model ")] for lines in (narrow, wide)]
    assert [len(found) for found in heads] == [4, 2]  # two stresses, whose two metrics fit side by side or not
    assert all("MAE" in head for head in heads[1])


def test_best_is_bold_second_underlined_intervals_dim(board):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", highlight=False)
    console.print(board.to_rich())
    output = console.file.getvalue()
    assert "\x1b[1m0.900\x1b[0m\x1b[2m [0.650, 1.150]\x1b[0m" in output
    assert "\x1b[4m1.250\x1b[0m" in output
    assert "\x1b[1m1.500" not in output


def test_a_run_s_curve_is_a_row_per_severity_with_chance_below(two_stresses):
    tables = curve_tables(two_stresses, ["mae"], "missing")
    assert len(tables) == 4  # QA-MoE, RIDER-MoE, oracle; where the intervals come from
    assert printed(tables[0]) == [
        "QA-MoE, Missing modalities",
        "",
        " missing rate m                  MAE ↓",
        " ─────────────────────────────────────",
        " 0                1.000 [0.950, 1.100]",
        " 0.4              1.200 [1.150, 1.300]",
        "",
        " chance           1.500",
        "",
    ]
    assert isinstance(tables[-1], Text)
    assert tables[-1].plain.startswith("On CMU-MOSI, test split (686 samples, 62 groups).")


def test_available_sets_and_the_oracle_s_role(two_stresses):
    lines = printed(Group(*curve_tables(two_stresses)))
    assert "oracle (bound), Available modalities" in lines
    assert " TAV                                  75.0   1.000" in lines


def test_two_axes_are_printed_as_their_landscape(curves):
    rows = [
        {"stress": "spectrum", "severity": a, "severity_2": b, "value": 1 + float(a) + 2 * float(b)}
        for a, b in (("0", "0"), ("0.5", "0"), ("0", "0.4"))
    ]
    clean = {"stress": "clean", "severity": "0", "value": 1.0}
    tables = curve_tables(curves(*rows, clean))
    assert printed(tables[0]) == [
        "QA-MoE, Spectrum: MAE ↓",
        "",
        " missing rate η \\ noise level λ       0     0.5",
        " ──────────────────────────────────────────────",
        " 0.4                              1.800       —",
        " 0                                1.000   1.500",
        "",
    ]
    assert len(tables) == 2


def test_an_unknown_stress_is_said(two_stresses):
    with pytest.raises(InputError, match="stress 'noise' has no curve"):
        curve_tables(two_stresses, stress="noise")
