"""The HTML report in a real browser: sorting, hovering, filtering, keyboard, phone, print, and no request to anywhere.

Needs Chromium (Debian's package, or any found on the path). Without one the tests are skipped, but in CI they fail.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from robustbench_msa.reporting.html_report import write_report

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
    make_run,
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE, SMALL = (1440, 900), (390, 844), (360, 740)


@dataclass
class Opened:
    """A page with everything that it said and asked for."""

    page: Any
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """Of the leaderboard's visible rows, from top to bottom."""
        return [text.strip() for text in self.page.locator("#board tbody tr:visible .name").all_inner_texts()]

    def column(self, place: int) -> list[float]:
        values = self.page.locator(f"#board tbody tr:not(.reference) td[data-column='{place}']")
        return [float(value) for value in values.evaluate_all("cells => cells.map((cell) => cell.dataset.sort)")]

    def sorted(self, place: int) -> str | None:
        return self.page.locator(f"#board th[data-column='{place}']").get_attribute("aria-sort")

    def choose(self, control: str, choice: str) -> None:
        self.page.select_option(f"#{control}", choice)
        self.drawn()

    def drawn(self) -> None:
        """Wait until every chart that is shown is drawn."""
        self.page.wait_for_selector("body[data-drawn]")

    def hover(self, chart: str, name: str, point: int) -> list[str]:
        """Move the mouse over a point of a line; the lines of the label that appears."""
        where = self.page.evaluate(
            """([id, name, point]) => {
                const slot = document.getElementById(id);
                slot.scrollIntoView({ block: "center" });
                const at = slot.data.findIndex((trace) => trace.name === name);
                const { xaxis, yaxis } = slot._fullLayout;
                const box = slot.getBoundingClientRect();
                const trace = slot.data[at];
                return [
                    box.left + xaxis._offset + xaxis.d2p(trace.x[point]),
                    box.top + yaxis._offset + yaxis.d2p(trace.y[point]),
                ];
            }""",
            [chart, name, point],
        )
        self.page.mouse.move(where[0] - 30, where[1] + 40)
        self.page.mouse.move(*where)
        label = self.page.locator(f"#{chart} .hoverlayer .hovertext", has_text=html.unescape(name))
        label.wait_for()
        return [str(line) for line in label.locator("tspan.line").all_text_contents()]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "full"
    told: dict[str, Any] = {"protocols": {EVIL: PROTOCOL}, "command": f"msabench {EVIL}", "notes": [EVIL], "seeds": 1}
    make_run(root, (QA, RIDER, LATE, LATE_2, HOSTILE, CHANCE), NOISE, SETS, SPECTRUM, **told)
    return write_report([root])


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on the path, and CI is set: install the package chromium")
        pytest.skip("no Chromium on the path")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright") if not os.environ.get("CI") else None
    if api is None:
        from playwright import sync_api as api
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            headless=True,
            chromium_sandbox=False,
            args=list(ARGUMENTS),
        )
        context.set_default_timeout(20_000)
        yield context
        context.close()


def open_page(chromium: Any, report: Path, size: tuple[int, int]) -> Opened:
    page = chromium.new_page()
    opened = Opened(page)
    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.said.append(str(error)))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(report.as_uri())
    opened.drawn()
    return opened


@pytest.fixture
def desktop(chromium: Any, report: Path) -> Iterator[Opened]:
    """Newly opened."""
    opened = open_page(chromium, report, DESKTOP)
    yield opened
    assert opened.said == []
    opened.page.close()


@pytest.fixture(scope="module")
def shared(chromium: Any, report: Path) -> Iterator[Opened]:
    """One page for all tests that leave it as it was, or do not care how they find it."""
    opened = open_page(chromium, report, DESKTOP)
    yield opened
    assert opened.said == []
    opened.page.close()


def test_no_request_leaves_the_page_and_no_name_runs(shared: Opened, report: Path) -> None:
    page = shared.page
    page.evaluate("() => { window.scrollTo(0, document.body.scrollHeight); }")
    for metric in ("mae", "corr", "acc2_non0"):
        shared.choose("metric-curves", metric)
    assert set(shared.requests) == {report.as_uri()}
    assert page.evaluate("typeof boom") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator("#board .name", has_text="<script>boom()</script>").count() == 1
    assert page.locator("#board .name", has_text="<script>").inner_text() == EVIL


def test_an_injected_script_could_not_run(desktop: Opened) -> None:
    """Even markup that came through the escaping would do nothing: only the page's own scripts are allowed."""
    found = desktop.page.evaluate(
        """async () => {
            window.harm = 0;
            const script = document.createElement("script");
            script.textContent = "window.harm = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.harm = 2'>");
            const refused = await fetch("https://example.invalid/").then(() => "", (error) => String(error));
            await new Promise((done) => setTimeout(done, 100));
            return [window.harm, refused];
        }"""
    )
    assert found[0] == 0
    assert "Failed to fetch" in found[1]
    assert all("Content Security Policy" in line or "Failed to load" in line for line in desktop.said), desktop.said
    assert len(desktop.said) >= 3
    assert not [url for url in desktop.requests if url.startswith("http")]
    desktop.said.clear()


def test_columns_sort_both_ways_with_references_last(shared: Opened) -> None:
    head = shared.page.locator("#board th[data-column='1'] button")
    head.click()
    assert shared.sorted(1) == "ascending"  # MAE: the best is the lowest
    values = shared.column(1)
    assert values == sorted(values)
    assert len(values) == 4
    head.click()
    assert shared.sorted(1) == "descending"
    assert shared.column(1) == sorted(values, reverse=True)
    assert shared.names()[-1] == "chance"
    assert shared.sorted(0) == "none"
    shared.page.locator("#board th[data-name] button").click()
    assert [name.lower() for name in shared.names()[1:]] == ["late fusion", "qa-moe", "rider-moe", "chance"]


def test_the_keyboard_alone_reaches_and_sorts(desktop: Opened) -> None:
    page = desktop.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the leaderboard"
    assert page.locator(".skip").bounding_box()["x"] >= 0, "seen when it has the focus"
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.dataset.column") == "1":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "solid" in outline
    assert "3px" in outline
    page.keyboard.press("Enter")
    assert desktop.sorted(1) == "ascending"
    page.keyboard.press("Space")
    assert desktop.sorted(1) == "descending"


def test_rows_are_filtered_by_text(shared: Opened) -> None:
    shared.page.fill("#filter", "MOE")
    assert set(shared.names()) == {"QA-MoE", "RIDER-MoE"}
    assert shared.page.inner_text("#board-status") == "2 of 5 rows"
    shared.page.fill("#filter", "")
    assert len(shared.names()) == 5


def test_columns_and_models_can_be_hidden(desktop: Opened) -> None:
    page = desktop.page
    page.click("text=Choose columns and models")
    page.uncheck("input[data-metric='mae']")
    heads = page.locator("#board th[data-metric]:visible").evaluate_all("all => all.map((th) => th.dataset.metric)")
    assert set(heads) == {"acc2_non0", "corr"}
    spans = page.locator("#board th.over").evaluate_all("all => all.map((th) => th.colSpan)")
    assert set(spans) == {2}
    page.uncheck("input[data-over='0']")
    assert page.locator("#board th.over:visible").count() == len(spans) - 1
    page.get_by_label("QA-MoE", exact=True).first.uncheck()
    assert "QA-MoE" not in desktop.names()
    desktop.drawn()
    shown = page.evaluate("document.getElementById('curves-0').data.filter((t) => t.name === 'QA-MoE')[0].visible")
    assert shown is False, "hidden in the charts too"
    assert page.locator("[data-toggle][aria-pressed='false']").count() == 2  # both legends say so
    rows = page.evaluate("document.querySelector('#conditions .chart').layout.yaxis.ticktext.length")
    assert rows == 4


def test_hovering_shows_value_and_interval(shared: Opened) -> None:
    shared.choose("metric-curves", "mae")
    for chart, score in (("curves-1", r"MAE \d\.\d{3} "), ("flips-0", r"\d+\.\d % flipped ")):
        name, where, text = shared.hover(chart, "QA-MoE", 1)[:3]
        assert (name, where) == ("QA-MoE", "noise level ρ = 0.2")
        assert re.match(score + r"\[\d+\.\d+, \d+\.\d+\]$", text), text


def test_hovering_a_hostile_name_shows_it_as_text(shared: Opened) -> None:
    shared.choose("metric-curves", "mae")
    assert shared.hover("curves-1", EVIL.replace("<", "&lt;").replace(">", "&gt;"), 2)[0].endswith(EVIL)
    assert shared.page.evaluate("typeof boom") == "undefined"


def test_grids_show_value_and_interval_on_hovering(shared: Opened) -> None:
    shared.choose("metric-curves", "acc2_non0")
    for place in ("conditions", "landscapes"):
        chart = shared.page.locator(f"#{place} .chart:visible").first
        chart.scroll_into_view_if_needed()
        box = chart.locator(".nsewdrag").bounding_box()
        shared.page.mouse.move(box["x"] + 5, box["y"] + 5)
        shared.page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + box["height"] * 0.1)
        label = chart.locator(".hoverlayer .hovertext")
        label.wait_for()
        text = label.text_content()
        assert re.search(r"Acc-2 \(non-zero\) \d+\.\d % \[\d+\.\d, \d+\.\d\]", text), (place, text)
        shared.page.mouse.move(2, 2)


def test_choices_switch_charts_and_tables(shared: Opened) -> None:
    page = shared.page
    shared.choose("metric-landscapes", "mae")
    assert page.input_value("#metric-curves") == "mae", "one choice for the page"
    assert page.evaluate("document.getElementById('curves-1').layout.yaxis.title.text") == "MAE ↓"
    assert page.locator("#curves-1").is_visible()
    assert not page.locator("#curves-0").is_visible()
    page.select_option("select[data-control='routing']", label="RIDER-MoE")
    shared.drawn()
    assert page.locator("#routing h3:visible").all_inner_texts() == ["RIDER-MoE: routing weights"]
    page.select_option("select[data-control='breaking']", label="QA-MoE")
    assert page.locator("#breaking table:visible tbody tr").count() <= 20
    assert page.locator("#breaking table:visible thead", has_text="flips in checkpoints").count() == 0


def test_a_chart_can_be_saved_as_an_image(shared: Opened) -> None:
    """The page's policy must not forbid what plotly makes images with."""
    made = shared.page.evaluate("Plotly.toImage(document.getElementById('curves-0'), { format: 'png' })")
    assert made.startswith("data:image/png;base64,")
    bar = shared.page.locator("#curves-0 .modebar-btn").evaluate_all("all => all.map((b) => b.dataset.title)")
    assert not [title for title in bar if re.search("cloud|studio|plotly", title, re.IGNORECASE)]


def test_the_citation_is_copied_or_selected(shared: Opened) -> None:
    shared.page.click("button[data-copy='bibtex']")
    said = shared.page.locator("#copied")
    said.get_by_text(re.compile("Copied|Selected")).wait_for()
    if "Selected" in said.inner_text():
        assert shared.page.evaluate("getSelection().toString()").startswith("@misc{")


@pytest.mark.parametrize("size", [DESKTOP, PHONE, SMALL], ids=str)
def test_nothing_is_wider_than_the_window(size: tuple[int, int], chromium: Any, report: Path, tmp_path: Path) -> None:
    opened = open_page(chromium, report, size)
    page = opened.page
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    opened.drawn()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    wide = page.locator("figure:visible, h1, h2, h3:visible, p:visible, pre, .controls").evaluate_all(
        "all => all.filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML)"
    )
    assert wide == []
    small = page.locator("button:visible, select:visible").evaluate_all(
        "all => all.filter((e) => e.getBoundingClientRect().height < 24).map((e) => e.outerHTML)"
    )
    assert small == [], "large enough to be touched"
    covered = page.locator("figcaption:visible").evaluate_all(
        """all => all.filter((caption) => {
            caption.scrollIntoView({ block: "center" });
            const { left, top, width, height } = caption.getBoundingClientRect();
            return document.elementFromPoint(left + width / 2, top + height / 2) !== caption;
        }).map((caption) => caption.textContent)"""
    )
    assert covered == [], "nothing lies over a chart's title"
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert opened.said == []
    page.close()


def test_the_page_prints(desktop: Opened) -> None:
    page = desktop.page
    before = page.evaluate("document.getElementById('curves-0').getBoundingClientRect().width")
    seen = """() => addEventListener("beforeprint", () => {
        window.printed = {
            folded: document.querySelectorAll("details:not([open])").length,
            columns: [...document.querySelectorAll(".board:not([hidden])")].map((t) => t.rows[1].cells.length),
            buttons: document.querySelectorAll(".board:not([hidden]) button").length,
            width: document.getElementById("curves-0").layout.width,
        };
    })"""
    page.evaluate(seen)
    pdf = page.pdf(format="A4")
    printed = page.evaluate("printed")
    assert printed == {"folded": 0, "columns": [9, 3], "buttons": 0, "width": 308}
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 4
    assert page.locator("details[open]").count() == 0, "as it was before"
    assert page.locator(".board").count() == 1
    page.emulate_media(media="print")
    for hidden in (".contents", ".controls", ".skip", ".copy"):
        assert page.locator(f"{hidden}:visible").count() == 0
    page.emulate_media(media="screen")
    after = page.evaluate("document.getElementById('curves-0').getBoundingClientRect().width")
    assert after == pytest.approx(before, abs=1)
