"""What a case gives: tables, as Markdown and JSON, and the place in a page where they go."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustbench_msa.atomic import write_text


@dataclass(frozen=True)
class Table:
    """title, then a row a line of texts, as wide as columns; notes: sentences under it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = field(default=())

    def markdown(self) -> str:
        lines = [f"### {self.title}", ""]
        if self.rows:
            marks = ["---" if i == 0 else "--:" for i in range(len(self.columns))]
            lines += [_line(cells) for cells in (self.columns, marks, *self.rows)]
            lines.append("")
        lines += [f"{note}\n" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def block(page: str, device: str) -> tuple[str, str, str]:
    """What is before a device's two markers, between them, and after, the markers left out.

    Raises:
        ValueError: they are not there once each, in their order.
    """
    begin, end = (f"<!-- benchmarks: {device} {side} -->" for side in ("begin", "end"))
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"expected {begin} and {end}, once each and in this order")
    before, rest = page.split(begin)
    inside, after = rest.split(end)
    return before + begin, inside, end + after


def sections_in(inside: str) -> dict[str, str]:
    """What is there of each case by now.

    >>> sections_in("\\n<!-- case: a -->\\none\\n\\n<!-- case: b -->\\ntwo\\n")
    {'a': 'one', 'b': 'two'}
    """
    _, *parts = re.split(r"<!-- case: (\w+) -->", inside)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def with_sections(page: str, device: str, sections: Mapping[str, str], order: Sequence[str]) -> str:
    """The page with the sections of these cases in place of what it has of them; all else stays."""
    before, inside, after = block(page, device)
    all_of_them = sections_in(inside) | dict(sections)
    texts = [f"<!-- case: {name} -->\n\n{all_of_them[name].strip()}\n" for name in order if name in all_of_them]
    return "\n\n".join([before, *[text.rstrip() for text in texts], after])


def write_page(path: Path, device: str, sections: Mapping[str, str], order: Sequence[str]) -> None:
    """A page that is not there yet is begun."""
    empty = f"<!-- benchmarks: {device} begin -->\n<!-- benchmarks: {device} end -->\n"
    page = path.read_text("utf-8") if path.exists() else empty
    write_text(path, with_sections(page, device, sections, order))


def spread(values: Sequence[float], unit: str = "", digits: int = 2) -> str:
    """The median, and the least and greatest behind it where there are several.

    >>> spread([1.0, 3.0, 2.0], "x", 1), spread([0.5], " s")
    ('2.0x (1.0-3.0)', '0.50 s')
    """
    middle = f"{statistics.median(values):.{digits}f}{unit}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def judged(values: Sequence[float], least: float | None = None, most: float | None = None) -> str:
    """A goal and whether the median reaches it.

    >>> judged([5.2], least=5.0), judged([1.3], most=1.05)
    ('at least 5: yes', 'at most 1.05: no')
    """
    middle = statistics.median(values)
    if least is not None:
        return f"at least {least:g}: {'yes' if middle >= least else 'no'}"
    return f"at most {most:g}: {'yes' if most is not None and middle <= most else 'no'}"
