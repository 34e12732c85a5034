from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from corruptions import InputError
from robustbench_msa.reporting.paper import write_paper
from robustbench_msa.reporting.paper_text import Picture, paper_tex

sys.path.insert(0, str(Path(__file__).parent))
from small_runs import LINES, QA, make_run

STRESSES = ("missing", "0,0.4"), ("spectrum", "0,0.5x0,0.4")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "my_run", *STRESSES)


@pytest.fixture(scope="module")
def paper(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paper") / "out"
    write_paper([run], out, ["mae"])
    return out


def test_files_are_there_and_each_has_its_csv(run: Path, paper: Path, tmp_path: Path) -> None:
    written = write_paper([run], tmp_path, ["mae"])
    assert written[0].name == "paper.tex"
    assert set(written) == {path for path in tmp_path.rglob("*") if path.is_file()}
    for path in written:
        assert path.stat().st_size > 0
        if path.suffix in (".pdf", ".tex") and path.name != "paper.tex":
            assert len(pd.read_csv(path.with_suffix(".csv"))) > 0
    names = {path.stem for path in written if path.suffix == ".pdf"}
    assert names == {"curves", "landscape-spectrum-mae", "difference-spectrum-mae", "comparison-checkpoint-mae"}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in written}
    assert again == {path.relative_to(paper): path.read_bytes() for path in paper.rglob("*") if path.is_file()}


def test_everything_that_is_written_is_in_the_document(paper: Path) -> None:
    text = (paper / "paper.tex").read_text("utf-8")
    for path in paper.rglob("*.pdf"):
        assert f"\\includegraphics{{figures/{path.name}}}" in text
    inputs = re.findall(r"\\input\{(.*?)\}", text)
    assert sorted(inputs) == sorted(f"tables/{path.stem}" for path in (paper / "tables").glob("*.tex"))
    labels = re.findall(r"\\label\{(.*?)\}", text + "".join(p.read_text("utf-8") for p in paper.glob("tables/*.tex")))
    assert len(set(labels)) == len(labels)


def test_figures_are_as_wide_as_columns_or_pages_and_embed_their_fonts(paper: Path) -> None:
    for path in (paper / "figures").glob("*.pdf"):
        data = path.read_bytes()
        box = re.search(rb"/MediaBox \[ *0 0 ([\d.]+) ([\d.]+) *\]", data)
        assert box is not None
        assert float(box[1]) / 72 <= 6.75 + 1e-3
        assert b"/FontFile2" in data
        assert b"/Type3" not in data


def test_captions_state_n_groups_seeds_claim_and_interval(paper: Path) -> None:
    text = (paper / "paper.tex").read_text("utf-8")
    captions = re.findall(r"\\caption\{(.*)\}", text)
    assert len(captions) == 4
    for caption in captions:
        assert "60 samples, 20 groups" in caption
        assert "2 corruption seeds" in caption
        if "brighter is better" not in caption:  # a landscape has no intervals, so nothing is claimed of it
            assert "95 \\% bootstrap intervals over groups (videos)" in caption
            assert "claims about checkpoints" in caption


def test_the_paragraph_says_how_to_get_the_same_numbers(run: Path, paper: Path) -> None:
    text = (paper / "paper.tex").read_text("utf-8").partition("section*{Reproducibility}")[2]
    for words in ("dddddddddddd", "\\texttt{spectrum}", "seeds 1111--1112", "\\texttt{own}", "torch 2", "msabench"):
        assert words in text
    assert "/somewhere" not in text  # nothing of the machine
    checkpoints = pd.read_csv(paper / "checkpoints.csv")
    assert set(checkpoints["checkpoint"]) == {line.checkpoint for line in LINES}
    inputs = pd.read_csv(paper / "inputs.csv")
    assert len(inputs) == 1 + 2 + 3 * 2  # clean; missing and spectrum for two seeds
    assert f"{len(inputs)} inputs" in text


def test_one_line_alone_has_no_comparison(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ("missing", "0,0.4"), lines=(QA,))
    names = {path.name for path in write_paper([run], tmp_path / "p", ["mae"])}
    assert "leaderboard-mae.tex" in names
    assert not any("comparison" in name or "difference" in name for name in names)


def test_several_runs_are_one_paper(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "r", ("noise", "0,0.5"))
    write_paper([run, other], tmp_path / "p", ["mae"])
    text = (tmp_path / "p" / "paper.tex").read_text("utf-8")
    assert "\\texttt{missing}" in text
    assert "\\texttt{noise}" in text
    assert {"missing", "noise"} <= set(pd.read_csv(tmp_path / "p" / "figures" / "curves.csv")["stress"])


def test_what_cannot_be_written_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="acc9"):
        write_paper([run], tmp_path / "p", ["acc9"])
    with pytest.raises(InputError, match=r"no manifest.json there"):
        write_paper([tmp_path], tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_characters_that_latex_does_not_know_are_declared() -> None:
    picture = Picture(Path("figures/a.pdf"), "σ ≤ 日", "fig:a", wide=False)
    text = paper_tex([picture], [], "words", "Ω")
    for line in (
        "\\DeclareUnicodeCharacter{03C3}{\\ensuremath{\\sigma}}",
        "\\DeclareUnicodeCharacter{2264}{\\ensuremath{\\leq}}",
        "\\DeclareUnicodeCharacter{65E5}{?}",
        "\\DeclareUnicodeCharacter{03A9}{\\ensuremath{\\Omega}}",
    ):
        assert line in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_document_compiles(paper: Path, tmp_path: Path) -> None:
    shutil.copytree(paper, tmp_path / "p")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    ran = subprocess.run(command, cwd=tmp_path / "p", capture_output=True, timeout=120, check=False)
    output = ran.stdout.decode("utf-8", "replace")
    assert ran.returncode == 0, output[-2000:]
    assert "Overfull" not in output
    assert (tmp_path / "p" / "paper.pdf").read_bytes().startswith(b"%PDF")
