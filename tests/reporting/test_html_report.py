"""The HTML report without a browser: what it says, that names stay text, and that nothing in it asks a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from corruptions import InputError
from robustbench_msa.analysis.merged import open_tables
from robustbench_msa.analysis.metrics import get_profile
from robustbench_msa.cli.report import report
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.store import Store
from robustbench_msa.reporting import style
from robustbench_msa.reporting.html_breaking import earliest
from robustbench_msa.reporting.html_figures import BLACK, Axis, Line, line_chart, look_of, padded
from robustbench_msa.reporting.html_heat import Scale
from robustbench_msa.reporting.html_page import safe_json
from robustbench_msa.reporting.html_report import STEPS, render_report, write_report

sys.path.insert(0, str(Path(__file__).parent))
from html_runs import (  # beside this file, however pytest imports tests
    CHANCE,
    EVIL,
    HOSTILE,
    LATE,
    LATE_2,
    NOISE,
    PROTOCOL,
    QA,
    RIDER,
    SETS,
    SPECTRUM,
    N,
    make_run,
    predict,
)


class Page(HTMLParser):
    """A page as a browser's parser takes it: tags with attributes, the texts of scripts, and text by element id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else ""
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts.append(data)
        elif self._in == "style":
            self.styles.append(data)
        else:
            self.texts.append(data)
            if self.tables and self.tables[-1] and self.tables[-1][-1]:
                self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    @property
    def charts(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    def board(self) -> dict[str, list[str]]:
        """Cells of the leaderboard's rows by name."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.tables[0][2:]]
        return {row[0]: row[1:] for row in rows}

    def chart(self, title: str, when: str = "") -> dict[str, Any]:
        """The figure under a caption."""
        start = re.search(
            rf'<figure[^>]*{re.escape(when)}[^>]*>\s*<figcaption>{re.escape(title)}</figcaption>\s*<div[^>]*id="([^"]+)"',
            self.source,
        )
        assert start is not None, title
        return self.charts[start.group(1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "full"
    subjects = (QA, RIDER, LATE, LATE_2, HOSTILE, CHANCE)
    told: dict[str, Any] = {"protocols": {EVIL: PROTOCOL}, "command": f"msabench {EVIL}", "notes": [EVIL]}
    return make_run(root, subjects, NOISE, SETS, SPECTRUM, **told)


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(render_report([folder]))


@pytest.fixture(scope="module")
def tables(folder: Path) -> Any:
    return open_tables([folder])


def test_the_leaderboard_has_every_model_and_prints_its_scores(page: Page, tables: Any) -> None:
    nauc = tables.nauc().to_pandas()
    board = page.board()
    assert set(board) == {"QA-MoE", "RIDER-MoE", "Late fusion", EVIL, "chance"}
    for name, model in (("QA-MoE", "qa_moe"), ("Late fusion", "late_fusion"), (EVIL, EVIL)):
        rows = nauc[(nauc["model"] == model) & (nauc["stress"] == "noise") & (nauc["metric"] == "mae")]
        row = rows[rows["train_seed"].isna()].iloc[0] if model == "late_fusion" else rows.iloc[0]
        shown = f"{row['nauc']:.3f}"
        assert any(
            cell.replace("†", "").startswith(f"{shown}[{row['ci_low']:.3f}, {row['ci_high']:.3f}]")
            for cell in board[name]
        ), name


def test_the_leaderboard_can_be_sorted_by_real_buttons(page: Page) -> None:
    sortable = [attrs for tag, attrs in page.tags if tag == "th" and "aria-sort" in attrs]
    assert len(sortable) == 1 + 3 * 4  # names, and three metrics over noise, two sets of sets, spectrum
    assert sum(attrs["aria-sort"] != "none" for attrs in sortable) == 1
    cell = page.source[page.source.index("data-column=") :]
    assert re.match(r'data-column="0"[^>]*><button type="button"', cell)
    values = [attrs["data-sort"] for tag, attrs in page.tags if tag == "td" and "data-sort" in attrs]
    assert all(np.isfinite(float(value)) for value in values if value)


def test_no_name_becomes_markup(page: Page) -> None:
    assert [tag for tag, _ in page.tags if tag == "img"] == []
    assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
    assert len(page.scripts) == 5  # the charts, plotly, and three of the page's own
    assert "boom" not in "".join(page.scripts[1:])
    assert "</script" not in page.scripts[0].lower()
    assert "<" not in page.scripts[0]
    assert "\u2028" not in page.scripts[0]
    assert page.text.count(EVIL) > 5  # as text, whole: model, note, command, selection, sample ids


def test_names_in_charts_are_text_for_plotly_too(page: Page) -> None:
    """plotly reads tags in labels; only those written by the page itself may be there."""
    for figure in page.charts.values():
        for text in re.findall(r"<[^>]*>", json.dumps(figure)):
            assert text in ("<b>", "</b>", "<br>", "<extra>", "</extra>"), text


def test_only_the_pages_own_scripts_may_run(page: Page) -> None:
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts[1:]]
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert set(rules) <= {"default-src", "base-uri", "form-action", "img-src", "script-src", "style-src"}
    first = [tag for tag, attrs in page.tags if tag == "script" or attrs.get("http-equiv") == "Content-Security-Policy"]
    assert first[0] == "meta", "the policy holds for what comes after it"


def test_nothing_is_loaded(page: Page) -> None:
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"url\(|@import|https?:", "".join(page.styles))


def test_hovering_a_curve_shows_value_and_interval(page: Page, tables: Any) -> None:
    curves = tables.curves().to_pandas()
    where = (curves["model"] == "qa_moe") & (curves["stress"] == "noise") & curves["seed"].isna()
    row = curves[where & (curves["metric"] == "acc2_non0") & (curves["severity"] == "0.4")].iloc[0]
    figure = page.chart("Noise", "metric=acc2_non0")
    trace = next(t for t in figure["data"] if t.get("name") == "QA-MoE")
    np.testing.assert_allclose(trace["x"], [0, 0.2, 0.4])
    np.testing.assert_allclose(trace["y"][2], row["value"], rtol=1e-4)
    low, value, high = (f"{100 * row[c]:.1f}" for c in ("ci_low", "value", "ci_high"))
    assert (
        trace["hovertext"][2] == f"<b>QA-MoE</b><br>noise level ρ = 0.4<br>Acc-2 (non-zero) {value} % [{low}, {high}]"
    )


def test_references_have_no_bands_and_their_own_look(page: Page) -> None:
    figure = page.chart("Noise", "metric=mae")
    names = [t.get("name", "band") for t in figure["data"]]
    assert names.count("band") == 4
    chance = next(t for t in figure["data"] if t.get("name") == "chance")
    assert "marker" not in chance
    assert "px" in chance["line"]["dash"]


def test_landscapes_and_sets_hold_every_cell(page: Page, tables: Any) -> None:
    curves = tables.curves().to_pandas()
    mine = curves[(curves["model"] == "rider_moe") & (curves["metric"] == "mae") & curves["seed"].isna()]
    heat, words = page.chart("RIDER-MoE", "metric=mae")["data"]
    spectrum = mine[mine["stress"] == "spectrum"].sort_values(["severity_2", "severity"])
    np.testing.assert_allclose(np.array(heat["z"]).ravel(), spectrum["value"], rtol=1e-4)
    assert f"MAE {spectrum['value'].iloc[3]:.3f} [" in heat["hovertext"][1][1]
    assert words["text"][0] == f"{spectrum['value'].iloc[0]:.2f}"
    sets = page.chart("Available modalities", "metric=mae")
    at = sets["layout"]["yaxis"]["ticktext"].index("RIDER-MoE")
    fixed = mine[mine["stress"] == "missing-fixed"].set_index("condition")["value"]
    np.testing.assert_allclose(
        sets["data"][0]["z"][at], fixed[["t", "a", "v", "t+a", "t+v", "a+v", "t+a+v"]], rtol=1e-4
    )


def test_the_inside_of_models_is_there_where_they_have_extras(page: Page) -> None:
    assert {"QA-MoE: gates of text", "RIDER-MoE: routing weights"} <= set(page.texts)
    assert "Spearman's correlation of r with" in page.text
    assert "One modality hit alone: Available modalities" in page.text
    assert "all 5 checkpoints" in page.text


def test_a_flip_line_of_two_training_seeds_is_their_mean_with_their_range(page: Page) -> None:
    figure = page.chart("Noise")  # the first in the page is a curve; flips come later
    figure = next(f for name, f in page.charts.items() if name == "flips-0")
    late = next(t for t in figure["data"] if t.get("name") == "Late fusion")
    assert "mean and range of 2 checkpoints" in late["hovertext"][1]
    assert "checkpoints" not in next(t for t in figure["data"] if t.get("name") == "QA-MoE")["hovertext"][1]


def test_provenance(page: Page) -> None:
    for words in (
        "d" * 64,
        "a" * 64,
        "9" * 64,
        "abc123-dirty",
        "msabench 1.2.3",
        "0:0.4:0.2",
        "corruption seeds 1111, 1112",
    ):
        assert words in page.text
    assert "33,274" in page.text
    assert "each the same for all models" in page.text
    assert "secret-host" not in page.source


def test_the_citation_names_protocol_hash_version_data_and_seeds(page: Page) -> None:
    digest = hashlib.sha256(PROTOCOL.encode()).hexdigest()
    citation, bibtex = (
        re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page.source, re.DOTALL) for name in ("citation", "bibtex")
    )
    assert citation is not None
    assert bibtex is not None
    for text in (citation.group(1), bibtex.group(1)):
        for words in (digest, "msabench 1.2.3", "d" * 64, "1111, 1112"):
            assert words in text
    assert bibtex.group(1).count("{") == bibtex.group(1).count("}")
    assert "year = {2026}" in bibtex.group(1)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """One cell is missing and one failed; one model predicts NaN; two models saw different inputs at one point."""
    nan = LATE_2.__class__("nan_model", 1, "1" * 64, "clean", 1111)

    def with_nan(cell: Cell) -> tuple[Any, dict[str, Any]]:
        y, extras = predict(cell)
        return (np.where(np.arange(N) == 0, np.nan, y) if cell.model == "nan_model" else y), extras

    def digest(cell: Cell) -> str:
        return "other" if (cell.model, cell.severity) == ("nan_model", "0.4") else f"{cell.point}{cell.seed}"

    def keep(cell: Cell) -> bool:
        return (cell.model, cell.severity, cell.seed) not in {
            ("late_fusion", "0.4", 1112),
            ("late_fusion", "0.2", 1111),
        }

    root = tmp_path_factory.mktemp("runs") / "broken"
    make_run(root, (LATE, nan), NOISE, predict=with_nan, keep=keep, digest=digest)
    for cell in open_tables([root]).planned.cells:
        if (cell.model, cell.severity, cell.seed) == ("late_fusion", "0.2", 1111):
            Store(root).write_failure(cell, f"out of memory {EVIL}", "details")
    return Page(render_report([root]))


def test_an_incomplete_run_says_so_at_the_top(broken: Page) -> None:
    top = broken.text[: broken.text.index("Filter")]
    assert "This run is incomplete: 8 of 10 cells" in top
    assert "late_fusion, clean, 1111, noise: 2 of 4 done" in top
    assert f"out of memory {EVIL}" in top
    assert "To continue: msabench run --stress noise" in top


def test_null_scores_are_a_dash_with_the_reason(broken: Page) -> None:
    board = broken.board()
    assert [cell[0] for cell in board["Late fusion"][-3:]] == ["—", "—", "—"]
    assert re.search("2 of 3 (grid points|cells)", broken.text)
    assert [cell[0] for cell in board["nan_model"][-3:]] != ["—", "—", "—"]
    assert board["nan_model"][-2][0] == "—"  # MAE
    marks = [cell[1:] for name in ("Late fusion", "nan_model") for cell in board[name][-3:] if cell[0] == "—"]
    assert len(marks) == 4
    notes = [attrs["id"] for tag, attrs in broken.tags if tag == "li" and str(attrs.get("id")).startswith("note-")]
    assert {f"note-{mark[0]}" for mark in marks} <= set(notes)
    trace = next(t for t in broken.chart("Noise", "metric=mae")["data"] if t.get("name") == "Late fusion")
    assert trace["y"][1:] == [None, None]


def test_flags_and_unequal_inputs_are_warned_of(broken: Page) -> None:
    top = broken.text[: broken.text.index("Filter")]
    assert "nan_model: predictions that are not finite (5 cells)" in top
    assert "1 input was not the same for all models" in top
    assert "no commit holds" in top


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "single", (LATE,), NOISE, seeds=1)


def test_one_model_without_extras(single: Path) -> None:
    page = Page(render_report([single], ["acc7"]))
    assert list(page.board()) == ["Late fusion"]
    assert len(page.board()["Late fusion"]) == 1
    assert re.search(r"No routing weights: .*late_fusion stores no routing weights", page.text)
    assert re.search(r"No reliability scores: .*qa_moe and rider_moe store one", page.text)
    assert "incomplete" not in page.text
    assert "custom" in page.text
    assert hashlib.sha256(b"noise 0:0.4:0.2\n").hexdigest() in page.text
    assert {name.split("-")[0] for name in page.charts} == {"curves", "flips"}


def test_several_folders_are_one_page(single: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", (QA, LATE), NOISE, seeds=1)
    page = Page(render_report([single, other, single]))
    assert set(page.board()) == {"Late fusion", "QA-MoE"}
    flips = page.charts["flips-0"]["data"]
    assert sorted(t["name"] for t in flips if "name" in t) == ["Late fusion", "QA-MoE"]
    both = {s["name"]: s["y"] for s in flips if "name" in s}
    alone = {t["name"]: t["y"] for t in Page(render_report([other])).charts["flips-0"]["data"] if "name" in t}
    assert both == alone
    assert f"{single}, {other}" in page.text


def test_the_file_is_replaced_whole_and_steps_are_told(single: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "page.html"
    out.parent.mkdir()
    out.write_text("old")
    told: list[str] = []
    assert write_report([single], out, ["mae"], told.append) == out
    assert told == list(STEPS)
    assert out.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert list(out.parent.iterdir()) == [out]
    assert write_report([single]) == single / "report.html"


def test_what_cannot_be_used_is_one_line(single: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no manifest\.json there"):
        render_report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="nonsense"):
        render_report([single], ["nonsense"])
    empty = make_run(tmp_path / "empty", (LATE,), NOISE, keep=lambda cell: False)
    with pytest.raises(InputError, match="no cell is finished there"):
        render_report([empty])


def test_only_the_clean_cell_gives_a_page_without_scores(tmp_path: Path) -> None:
    page = Page(render_report([make_run(tmp_path / "clean", (LATE,), NOISE, keep=lambda cell: cell.is_clean)]))
    assert "This run is incomplete: 1 of 5 cells" in page.text
    assert "No severity curves" in page.text or page.charts


def test_the_command(single: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    out = tmp_path / "page.html"
    ran = CliRunner().invoke(app, [str(single), "--metric", "mae", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert re.search(r"page.html \(\d\.\d MB\)", ran.output)
    assert out.stat().st_size < 6e6  # plotly.js is 4.9 MB of it
    refused = CliRunner().invoke(app, [str(single), "--out", str(tmp_path)])
    assert refused.exit_code == 2
    assert "expected a file" in refused.output


def test_json_in_a_script_cannot_end_it() -> None:
    text = str(safe_json({"</script><!--": "\u2028\u2029&'\""}))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"</script><!--": "\u2028\u2029&'\""}
    with pytest.raises(ValueError, match="JSON"):
        safe_json(float("nan"))


def test_looks_are_those_of_the_static_figures() -> None:
    looks = [look_of(i) for i in range(len(style.COLOURS) * len(style.DASHES))]
    assert len(set(looks)) == len(looks)
    for look, given in zip(looks, map(style.line_style, range(len(looks))), strict=True):
        assert look.colour == given.colour
        assert len(look.dash) == len(given.dashes)


def test_a_band_has_a_hole_where_there_is_no_interval() -> None:
    line = Line("a", look_of(0), [0, 1, 2, 3], [1, 2, None, 4], [0, 1, None, 3], [2, 3, None, 5], ["a"] * 4)
    band, drawn = line_chart([line], Axis("x"), Axis("y"))["data"]
    assert band["x"] == [0, 1, 1, 0, None, 3, 3]
    assert band["y"] == [0, 1, 3, 2, None, 3, 5]
    assert drawn["y"] == [1, 2, None, 4]


def test_ink_contrasts_with_its_cell() -> None:
    scale = Scale(0.0, 1.0, True)
    for value in np.linspace(0, 1, 11):
        light, dark = style.luminance(scale.colour(value)), style.luminance(scale.ink(value))
        assert (max(light, dark) + 0.05) / (min(light, dark) + 0.05) > 4.58, value
    assert scale.ink(None) == BLACK
    assert Scale(0.0, 1.0, False).colour(0.0) == scale.colour(1.0)


def test_ranges_have_room() -> None:
    assert padded([1.0, None, 3.0]) == (0.9, 3.1)
    assert padded([None]) == (0.0, 1.0)
    low, high = padded([2.0])
    assert low < 2 < high


def test_the_samples_that_break_first_come_first() -> None:
    """Over a grid of three severities: time spent flipped, then the surest clean prediction; 20 at most."""
    rows = [("late", "0.6", 2.0), ("early", "0.2", 0.1), ("sure", "0.4", -3.0), ("unsure", "0.4", 1.0)]
    rows += [("late", "0.6", 2.0)]  # in two checkpoints, two points of the grid in all: as those at 0.4
    flips = pd.DataFrame(rows, columns=["id", "severity", "clean_prediction"]).assign(label=0.5, prediction=-0.5)
    found = earliest(flips, ["0.2", "0.4", "0.6"], 2)
    assert [sample.id for sample in found] == ["early", "sure", "late", "unsure"]
    assert [(sample.severity, sample.flips, sample.of) for sample in found[2:]] == [("0.6", 2, 2), ("0.4", 1, 2)]
    many = pd.concat([flips.assign(id=flips["id"] + str(i)) for i in range(9)])
    assert len(earliest(many, ["0.2", "0.4", "0.6"], 2)) == 20


def test_metrics_of_the_profile_can_be_chosen(single: Path) -> None:
    page = Page(render_report([single], ["corr", "mae"]))
    options = [
        attrs["value"] for tag, attrs in page.tags if tag == "option" and attrs["value"] in get_profile("mosi").names
    ]
    assert options == ["corr", "mae"]
