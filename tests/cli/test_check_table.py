"""``msabench check-table``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_values_are_said_to_be_possible_or_not(msabench) -> None:
    ran = msabench("check-table", "--n", 686, "--value", "86.4", "--value", "86.1")
    assert ran.code == 0, "finding an impossible value is no failure"
    assert ran.out.splitlines() == [
        "86.4  n 686: possible (593/686)",
        "86.1  n 686: impossible; nearest 86.006 (590/686) and 86.152 (591/686)",
        "1 of 2 values cannot occur",
    ]


def test_a_value_may_be_over_the_non_zero_samples_and_over_seeds(msabench) -> None:
    ran = msabench("check-table", "--n", 686, "--n-nonzero", 656, "--seeds", 5, "--value", "84.37")
    assert ran.code == 0
    assert [line.split(": ")[1].split(" ")[0] for line in ran.out.splitlines()] == ["possible", "impossible;"]
    assert "n 686 x 5 seeds" in ran.out


def test_a_file_and_json(msabench) -> None:
    Path("t.csv").write_text("value,n\n0.861,\n0.5,4\n")
    ran = msabench("check-table", "t.csv", "--n", 686, "--fraction", "--json")
    assert ran.code == 0
    rows = json.loads(ran.out)
    assert [(row["value"], row["n"], row["possible"]) for row in rows] == [("0.861", 686, False), ("0.5", 4, True)]
    assert rows[0]["counts"] is None
    assert rows[1]["counts"] == [2, 2]
    assert rows[1]["nearest"] == [[2, "0.500"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to check"),
        (("--value", "86.4"), "expected --n"),
        (("--n", 686, "--value", "186"), "between 0 and 100"),
        (("--n", 0, "--value", "86"), "n of 1 or more"),
        (("--n", 686, "--value", "86.44", "--decimals", 1), "has 2 decimals"),
        (("none.csv", "--n", 686), "cannot be read as CSV"),
    ],
)
def test_bad_input_is_one_line_and_code_2(msabench, arguments, words) -> None:
    ran = msabench("check-table", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 1
    assert words in ran.err


def test_its_help_has_an_example(msabench) -> None:
    ran = msabench("check-table", "--help")
    assert ran.code == 0
    assert "msabench check-table --n 686" in ran.out
