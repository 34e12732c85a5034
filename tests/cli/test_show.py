"""``msabench show``: one sample under one stress, and the gallery of all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from corruptions import STRESSORS
from robustbench_msa.cli.show import FIGURES, GALLERY_MODEL, _stem
from robustbench_msa.reporting import figure_files, gallery
from robustbench_msa.reporting.gallery import exhibits, gallery_text

PNG, PDF = b"\x89PNG", b"%PDF"
SMALL = ("--dataset", "synth:train=60,valid=20,test=40")
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "stressors.md"


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_three_files_under_reports(msabench) -> None:
    ran = msabench("show", "--stress", "noise", *SMALL)
    assert (ran.code, ran.err) == (0, "")
    found = re.fullmatch(r"(reports/show/noise-test\d+-\d+)\.png \(\.pdf, \.csv\): sample (test\d+\$_\$\d+)\n", ran.out)
    assert found is not None, ran.out
    stem, sample = found.groups()
    assert files() == [f"{stem}.csv", f"{stem}.pdf", f"{stem}.png"]
    assert Path(f"{stem}.png").read_bytes().startswith(PNG)
    assert Path(f"{stem}.pdf").read_bytes().startswith(PDF)
    frame = pd.read_csv(f"{stem}.csv")
    assert set(frame["sample"]) == {sample}
    assert sorted(set(frame["severity"])) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert {"lost", "noise"} < set(frame["mark"])


def test_the_same_sample_again_by_its_id_gives_the_same_bytes(msabench) -> None:
    ran = msabench("show", "--stress", "missing", *SMALL, "--out", "a.png")
    sample = ran.out.split()[-1]
    msabench("show", "--stress", "missing", *SMALL, "--sample", sample, "--out", "folder/b")
    assert files() == ["a.csv", "a.pdf", "a.png", "folder/b.csv", "folder/b.pdf", "folder/b.png"]
    for kind in ("csv", "pdf", "png"):
        assert Path(f"a.{kind}").read_bytes() == Path(f"folder/b.{kind}").read_bytes()


def test_every_option_has_an_effect(msabench, mmsa_of, monkeypatch) -> None:
    monkeypatch.setattr(figure_files, "_rendered", lambda figure, extension: b"")  # the tables are enough here

    def table(*arguments: object) -> pd.DataFrame:
        ran = msabench("show", *arguments, "--out", "x")
        assert ran.code == 0, ran.err
        return pd.read_csv("x.csv", dtype=str, keep_default_na=False)

    base = ("--stress", "missing-random", *SMALL, "--sample", "test000$_$1", "--grid", "0,0.5")
    plain = table(*base)
    assert set(plain["severity"]) == {"0", "0.5"}
    seeds = [table(*base, "--seed", seed)["mark"].tolist() for seed in (1111, 1112, 1113, 1114)]
    assert seeds[0] == plain["mark"].tolist()
    assert len(set(map(tuple, seeds))) > 1
    always = ("--stress", "missing-random", *SMALL, "--sample", "test000$_$1", "--grid", "1")
    audio = table(*always, "--modalities", "audio")
    assert set(audio["modality"][audio["mark"] == "lost, not told"]) == {"audio"}
    assert set(table("--stress", "noise", *SMALL, "--split", "valid")["sample"].str[:5]) == {"valid"}
    theirs = table("--stress", "noise", "--dataset", "mosi", "--data", mmsa_of(), "--sample", "v2$_$1")
    assert set(theirs["sample"]) == {"v2$_$1"}
    sets = table("--stress", "missing-fixed", *SMALL, "--grid", "t,a+v")
    assert list(dict.fromkeys(sets["condition"])) == ["t+a+v", "t", "a+v"]


@pytest.fixture
def mmsa_of(tmp_path: Path):
    """An MMSA pickle: text of 5 steps, audio and vision of one."""
    import pickle

    import numpy as np

    def write() -> Path:
        rng, data = np.random.default_rng(0), {}
        for i, split in enumerate(("train", "valid", "test")):
            data[split] = {
                "id": [f"v{i}$_${k}" for k in range(8)],
                **{
                    m: rng.normal(size=(8, t, 3)).astype(np.float32)
                    for m, t in (("text", 5), ("audio", 1), ("vision", 1))
                },
                "regression_labels": rng.uniform(-3, 3, 8).astype(np.float32),
            }
        path = tmp_path / "mine.pkl"
        path.write_bytes(pickle.dumps(data))
        return path

    return write


def test_the_worst_case_of_a_model(msabench) -> None:
    ran = msabench("show", "--stress", "worst-case:steps=2", "--grid", "0,0.3", "--model", "late_fusion", *SMALL)
    assert ran.code == 0, ran.err
    (path,) = Path("reports/show").glob("*.csv")
    assert path.name.startswith("worst-case-steps-2-test")
    frame = pd.read_csv(path, keep_default_na=False)
    hit = frame[frame["severity"] == 0.3]
    assert 0 < hit["noise"].max() <= 0.3 + 1e-4
    assert set(frame["mark"][frame["severity"] == 0]) <= {"padding", ""}


REFUSED = {
    "nothing": ((), ("--stress", "msabench list stresses")),
    "unknown stress": (("--stress", "nosie"), ("did you mean 'noise'",)),
    "unknown sample": (("--stress", "noise", "--sample", "test000$_$99"), ("test000$_$99", "near it: test000$_$")),
    "sample of another split": (
        ("--stress", "noise", "--sample", "train000$_$1"),
        ("one of the 40 of synth, test split",),
    ),
    "worst-case without a model": (("--stress", "worst-case"), ("worst-case depends on the model", "--model NAME")),
    "a model without worst-case": (("--stress", "noise", "--model", "qa_moe"), ("does not depend on the model",)),
    "unknown model": (("--stress", "worst-case", "--model", "late_fusoin"), ("did you mean",)),
    "bad grid": (("--stress", "noise", "--grid", "0:2:1"), ("outside the stressor's range",)),
    "bad split": (("--stress", "noise", "--split", "tets"), ("expected one of train, valid, test; got 'tets'",)),
    "bad modalities": (("--stress", "asr", "--modalities", "audio"), ("leaves it nothing to do",)),
    "fill for tokens": (("--stress", "missing:fill=mask"), ("fill=mask needs text as token ids",)),
    "gallery and a stress": (("--gallery", "page.md", "--stress", "noise"), ("--gallery shows every stress",)),
    "out below a file": (("--stress", "noise", "--out", "file/x.png"), ("--out file/x.png", "expected a folder")),
    "out is a folder": (("--stress", "noise", "--out", "."), ("that is a folder",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_nothing_is_written(case: str, msabench) -> None:
    arguments, words = REFUSED[case]
    Path("file").write_text("mine", "utf-8")
    ran = msabench("show", *arguments, *SMALL)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("msabench: ")
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err
    assert files() == ["file"]


def test_a_worst_case_needs_a_checkpoint_that_fits(msabench, mmsa_of) -> None:
    more = ("--dataset", "mosi", "--data", mmsa_of(), "--model", "late_fusion")
    ran = msabench("show", "--stress", "worst-case", *more)
    assert ran.code == 2
    assert "no checkpoint of late_fusion for mosi" in ran.err


def test_help_shows_examples(msabench) -> None:
    text = msabench("show", "--help").out
    assert "msabench show --stress noise" in text
    for option in (
        "--stress",
        "--sample",
        "--grid",
        "--modalities",
        "--dataset",
        "--data",
        "--split",
        "--seed",
        "--out",
    ):
        assert option in text
    assert re.search(r"show .*what a stress does to one sample", msabench("--help").out)


def test_dots_in_names_are_kept() -> None:
    assert [_stem(Path(name)).name for name in ("a-0.5.png", "a-0.5", "a.csv", "a.b")] == ["a-0.5", "a-0.5", "a", "a.b"]


def test_the_page_of_the_repository_is_what_the_command_writes() -> None:
    """``msabench show --gallery docs/stressors.md`` makes it again."""
    assert PAGE.read_text("utf-8") == gallery_text(FIGURES, GALLERY_MODEL)


def test_the_figures_of_the_repository_are_there_and_small() -> None:
    folder = PAGE.parent / FIGURES
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {exhibit.figure for exhibit in exhibits()}
    assert max(sizes.values()) <= 120_000
    assert sum(sizes.values()) <= 2_000_000
    for name in sizes:
        with Image.open(folder / name) as image:
            assert 600 <= image.width <= 6.75 * gallery.DPI + 1


def test_every_stress_is_on_the_page_with_all_that_is_said_of_it() -> None:
    page = PAGE.read_text("utf-8")
    flat = " ".join(page.split())
    for name, stressor in STRESSORS.items():
        assert f"\n## {name}\n" in page
        assert f"](#{name})" in page
        for text in (stressor.formula, stressor.source, f"`{stressor.default_grid}`", *map(str, stressor.axes)):
            assert " ".join(text.split()) in flat, f"{name}: {text}"
        for option in stressor.option_table:
            assert f"  - `{option}` (" in page[page.index(f"\n## {name}\n") :].partition("\n## ")[2]
    for variant in ("missing-random:variant=keep_one", "spectrum:variant=mixture", "frame-missing:legacy=lnln"):
        assert f"\n### {variant}\n" in page
    assert "\n## noise+missing\n" in page
    assert not re.search(r"^\d+[.)] ", page, re.M), "a wrapped line that Markdown takes for a list"
    assert "``" not in page


def test_the_gallery_command_writes_page_and_figures(msabench, monkeypatch) -> None:
    few = [exhibit for exhibit in exhibits() if exhibit.stress in ("missing", "worst-case")]
    monkeypatch.setattr(gallery, "exhibits", lambda: few)
    ran = msabench("show", "--gallery", "docs/page.md")
    assert (ran.code, ran.err) == (0, "")
    assert files() == ["docs/figures/stressors/missing.png", "docs/figures/stressors/worst-case.png", "docs/page.md"]
    assert Path("docs/page.md").read_text("utf-8") == gallery_text(FIGURES, GALLERY_MODEL)
    for target in re.findall(r"\]\(([^)#:]+)\)", Path("docs/page.md").read_text("utf-8")):
        assert (Path("docs") / target).is_file()
    assert ran.out.splitlines()[-1] == "docs/page.md"
