from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from corruptions import InputError
from robustbench_msa.reporting.gallery import gallery_png
from robustbench_msa.reporting.gallery_exhibits import EXHIBITS, SYSTEMS, Source, overview
from robustbench_msa.reporting.result_gallery import FIGURES, OVERVIEW_PIXELS, TEXTS, write_gallery

sys.path.insert(0, str(Path(__file__).parent))
from small_runs import LINES, make_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stresses = ("missing", "0,0.4"), ("noise", "0,0.5"), ("spectrum", "0,0.5x0,0.4"), ("missing-fixed", "t,t+a+v")
    return make_run(tmp_path_factory.mktemp("run") / "r", *stresses)


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "gallery.md"
    steps: list[str] = []
    written = write_gallery(run, path, steps.append)
    assert steps == list(EXHIBITS)
    assert written[-1] == path
    return path


def test_every_exhibit_has_its_text() -> None:
    assert list(TEXTS) == list(EXHIBITS)
    for text in TEXTS.values():
        assert len(re.findall(r"[.:;]( |$)", text.reading)) >= 2, text.title
    assert SYSTEMS == ("qa_moe", "rider_moe", "ca_moe", "emoe", "text_moe")


def test_the_page_has_what_the_run_has_data_for(page: Path) -> None:
    text = page.read_text("utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    expected = ["overview", "curves", "landscape", "difference", "comparison", "breaking-flips"]
    assert pictures == [f"{FIGURES}/{name}.png" for name in expected]  # no extras: nothing inside models
    assert {p.name for p in (page.parent / FIGURES).iterdir()} == {f"{name}.png" for name in expected}
    assert text.count("**How to read it.**") == text.count("**In this run.**") == len(pictures)
    assert "/somewhere" not in text
    assert "msabench run --out reports/r" in text
    assert "60 samples, 20 groups" in text


def test_numbers_are_those_of_the_run(run: Path) -> None:
    source = Source(run)
    _, sentence = overview(source)
    curves = source.curves
    rows = curves[(curves["stress"] == "missing") & (curves["severity"] == "0.4") & curves["seed"].isna()]
    found = rows[(rows["metric"] == "acc2_non0") & (rows["recipe"] == "clean")].set_index("model")["value"]
    for model in ("qa_moe", "rider_moe"):
        assert f"{100 * found[model]:.1f}" in sentence
    assert "Missing modalities at 0.4" in sentence


def test_the_overview_fits_a_readme(run: Path) -> None:
    figure, _ = overview(Source(run))
    data = gallery_png(figure, int(OVERVIEW_PIXELS / figure.get_size_inches()[0]))
    with Image.open(io.BytesIO(data)) as image:
        assert 1500 < image.width <= OVERVIEW_PIXELS
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)  # white in dark mode too
    assert len(data) < 150_000


def test_commands_are_those_of_the_command_line() -> None:
    from robustbench_msa.cli import plot

    known = {command.name or command.callback.__name__ for command in plot.app.registered_commands}
    for text in TEXTS.values():
        words = text.command.split()
        if words[:2] == ["msabench", "plot"]:
            assert words[2] in known, text.command


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest.json there"):
        write_gallery(tmp_path, tmp_path / "g.md", lambda name: None)
    run = make_run(tmp_path / "r", ("missing", "0,0.4"), lines=LINES[:1])
    write_gallery(run, tmp_path / "g.md", lambda name: None)
    assert "Difference landscapes" not in (tmp_path / "g.md").read_text("utf-8")


def test_the_gallery_of_the_repository_is_whole_and_small() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == len(EXHIBITS)
    sizes = [(ROOT / "docs" / picture).stat().st_size for picture in pictures]
    assert sum(sizes) < 2_000_000
    with Image.open(ROOT / "docs" / FIGURES / "overview.png") as image:
        assert image.width <= OVERVIEW_PIXELS
