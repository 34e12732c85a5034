"""msabench gallery: one page of everything that a run has data for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from corruptions import InputError
from robustbench_msa.cli.gallery import gallery

app = typer.Typer()
app.command()(gallery)


def test_the_page_and_its_pictures(run: Callable[..., Any]) -> None:
    assert run("--stress", "missing", "--grid", "0,0.4", "--seeds", "1", "--no-plots", "-q", "--out", "r").code == 0
    ran = CliRunner().invoke(app, ["r", "--out", "docs/page.md"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "docs/page.md" in ran.output
    pictures = {path.name for path in Path("docs/figures/gallery").iterdir()}
    assert {"overview.png", "curves.png", "breaking-flips.png"} <= pictures
    text = Path("docs/page.md").read_text("utf-8")
    for picture in pictures:
        assert f"figures/gallery/{picture}" in text
    assert "msabench plot curves reports/r" in text


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="that is a folder; expected a file's name"):
        gallery(tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"no manifest\.json there"):
        gallery(tmp_path, tmp_path / "page.md")


def test_help_shows_an_example() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert "msabench gallery reports/gallery --out docs/gallery.md" in " ".join(text.split())
