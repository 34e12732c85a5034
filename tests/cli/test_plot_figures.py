"""What msabench plot draws and of whom: widths, chosen lines, differences, comparisons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from robustbench_msa.cli.plot import INSIDE, OF_TABLES, app

COMMANDS = ["curves", "landscape", "comparison", "difference", *INSIDE]


@pytest.fixture
def done(run: Callable[..., Any]) -> Path:
    """A run of one model and the references over one and two axes."""
    assert (
        run("--stress", "spectrum", "--grid", "0,0.4x0,0.4", "--seeds", "1", "--no-plots", "-q", "--out", "r").code == 0
    )
    assert run("--stress", "missing", "--grid", "0,0.4", "--seeds", "1", "--no-plots", "-q", "--out", "r").code == 0
    return Path("r")


def test_the_table_is_all_there_is() -> None:
    known = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert sorted(known) == sorted(COMMANDS)
    assert known[0] == "curves"
    assert set(OF_TABLES) | set(INSIDE) | {"curves", "difference"} == set(known)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_options(name: str, msabench: Callable[..., Any]) -> None:
    text = msabench("plot", name, "--help").out
    assert f"msabench plot {name} reports/" in text
    for option in ("--width", "--model", "--out"):
        assert option in text


@pytest.mark.parametrize(("width", "pixels"), [("column", 650), ("page", 1350), ("4.5", 900)])
def test_widths(width: str, pixels: int, done: Path, msabench: Callable[..., Any]) -> None:
    assert msabench("plot", "curves", done, "--width", width, "--out", "f").code == 0
    with Image.open("f/curves.png") as image:
        assert image.width == pixels  # at 200 a inch


def test_chosen_lines(done: Path, msabench: Callable[..., Any]) -> None:
    ran = msabench("plot", "curves", done, "--model", "late_fusion/clean", "--only", "--out", "f")
    assert (ran.code, ran.err) == (0, "")
    assert set(pd.read_csv("f/curves.csv")["model"]) == {"late_fusion", "chance", "oracle"}
    assert msabench("plot", "landscape", done, "--model", "oracle", "--out", "f").code == 0
    assert set(pd.read_csv("f/landscape-spectrum-acc2_non0.csv")["model"]) == {"oracle"}


def test_a_difference_of_a_model_and_the_oracle(done: Path, msabench: Callable[..., Any]) -> None:
    wanted = ("--model", "late_fusion", "--baseline", "oracle", "--metric", "mae", "--out", "f")
    ran = msabench("plot", "difference", done, *wanted)
    assert (ran.code, ran.err) == (0, "")
    assert "difference-spectrum-late_fusion-oracle-mae.png (.pdf, .csv)" in ran.out
    frame = pd.read_csv("f/difference-spectrum-late_fusion-oracle-mae.csv")
    assert len(frame) == 4
    assert (frame["difference"] > 0).all()  # nobody beats the oracle in the mean


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("curves", "--width", "broad"), "--width: expected column"),
        (("curves", "--model", "qa"), "--model qa: no such line in these results; there is late_fusion/clean"),
        (("landscape", "--model", "qa"), "--model qa: no such line"),
        (("difference", "--model", "late_fusion", "--baseline", "qa"), "difference: no qa in"),
        (("difference", "--model", "late_fusion", "--baseline", "late_fusion"), "is the baseline"),
        (("difference", "--model", "late_fusion"), "--baseline"),
        (("comparison",), "no two models here share a nauc"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    arguments: tuple[str, ...], words: str, done: Path, msabench: Callable[..., Any]
) -> None:
    ran = msabench("plot", arguments[0], done, *arguments[1:], "--out", "f")
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert not Path("f").exists()
