"""The engine's own README: its code runs as it stands, and it can be packed alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import corruptions

ROOT = Path(corruptions.__file__).parent


def test_the_code_runs_in_its_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks[0], blocks[2]:  # the second defines a `batch` of its own
        exec(compile(block, "README.md", "exec"), names)
    exec(compile(blocks[1], "README.md", "exec"), {})
    dropped = names["dropped"]
    assert isinstance(dropped, corruptions.Batch)
    assert not dropped.present.all()


def test_its_package_lists_every_folder() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {p.parent for p in ROOT.rglob("*.py")}
    here = {".".join(["corruptions", *f.relative_to(ROOT).parts]) for f in folders}
    assert set(described["packages"]) == here
    assert described["package-dir"] == {
        name: name.partition(".")[2].replace(".", "/") or "." for name in described["packages"]
    }
