"""The text of the HTML report: templates filled in, scripts that are allowed by their hashes, JSON that is safe."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from robustbench_msa.reporting.html_figures import Chart

_FOLDER = Path(__file__).parent / "html"
_SCRIPTS = ("page.js", "table.js", "charts.js")

SHAPES = {
    "circle": "M9 8a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0",
    "square": "M9.2 4.6h6.8v6.8h-6.8z",
    "triangle-up": "M12.6 3.6l4.2 7.4h-8.4z",
    "triangle-down": "M12.6 12.4l4.2 -7.4h-8.4z",
    "diamond": "M12.6 3.2l4.6 4.8l-4.6 4.8l-4.6 -4.8z",
    "cross": "M11.2 3.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
    "x": "M9.6 3.4l3 3l3 -3l1.9 1.9l-2.9 2.7l2.9 2.7l-1.9 1.9l-3 -3l-3 3l-1.9 -1.9l2.9 -2.7l-2.9 -2.7z",
}
"""Markers of the legend, as SVG paths around (12.6, 8), by plotly's name."""


def render(library: str, charts: Sequence[Chart], **context: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["swatch"] = swatch
    scripts = [library, *((_FOLDER / name).read_text("utf-8") for name in _SCRIPTS)]
    page = environment.get_template("report.html.j2").render(
        **context,
        policy=content_policy(scripts),
        style=Markup((_FOLDER / "style.css").read_text("utf-8")),
        scripts=[Markup(script) for script in scripts],
        charts=safe_json({chart.id: chart.figure for chart in charts}),
        symbols=SHAPES,
    )
    return re.sub(r"\n\s*\n+", "\n", page[: page.index("<script")]) + page[page.index("<script") :]


def content_policy(scripts: Iterable[str]) -> str:
    """The page's Content-Security-Policy: no network at all, only these scripts, images from within the page."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def safe_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no tag can end it, no character ends a line.

    >>> str(safe_json({"a": "</script>\u2028"}))
    '{"a":"\\\\u003c/script\\\\u003e\\\\u2028"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII alone
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def swatch(dash: Sequence[float]) -> str:
    """A dash pattern for SVG; empty for a solid line."""
    return " ".join(f"{length:g}" for length in dash)
