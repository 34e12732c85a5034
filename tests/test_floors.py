"""Each package imports from floors below it alone, so that every part can be used and tested without those above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "robustbench_msa"
TOP = f"{PACKAGE}.__init__"
FLOORS = {
    f"{PACKAGE}.version": 0,
    f"{PACKAGE}.allocator": 0,
    f"{PACKAGE}.atomic": 0,
    f"{PACKAGE}.printable": 0,
    "corruptions": 1,
    f"{PACKAGE}.plugins": 2,
    f"{PACKAGE}.data": 3,
    f"{PACKAGE}.models": 3,
    f"{PACKAGE}.published": 3,
    f"{PACKAGE}.adapters": 4,  # over models: it makes models of other people's
    f"{PACKAGE}.training": 5,
    f"{PACKAGE}.evaluation": 5,
    f"{PACKAGE}.analysis": 6,
    f"{PACKAGE}.engines": 6,  # over evaluation: they share its work out
    f"{PACKAGE}.reporting": 7,  # over analysis: it shows what analysis made
    f"{PACKAGE}.run": 8,
    f"{PACKAGE}.bridge": 9,  # over run: it plans as run does
    f"{PACKAGE}.cli": 10,
    PACKAGE: 11,  # the front door offers what lies behind it
}
SOURCES = sorted(p for folder in ("corruptions", PACKAGE) for p in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def home_of(module: str) -> str | None:
    """The entry of FLOORS that a module belongs to: ``robustbench_msa.data.mmsa`` is in ``robustbench_msa.data``."""
    found = [name for name in FLOORS if module == name or (module.startswith(f"{name}.") and name != PACKAGE)]
    return max(found, key=len, default=None)


def imports(source: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports are not used here"
            assert node.module is not None
            yield node.lineno, node.module
            # `from robustbench_msa import data` names a module too
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names if node.module == PACKAGE)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(source: str, path: Path, module: str) -> list[str]:
    """Lines that import from the same floor or a higher one."""
    home, found = home_of(module), []
    if home is None:
        return [f"{path}:1: {module} stands on no floor; add it to FLOORS"]
    for line, name in imports(source, path):
        if name.split(".")[0] not in ("corruptions", PACKAGE) or name == PACKAGE:
            continue
        target = home_of(name)
        if target is None:
            found.append(f"{path}:{line}: {name} stands on no floor; add it to FLOORS")
        elif target != home and FLOORS[target] >= FLOORS[home]:
            found.append(
                f"{path}:{line}: {module} (floor {FLOORS[home]}) imports {name} (floor {FLOORS[target]}); "
                "only floors below may be imported"
            )
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    found = violations(path.read_text("utf-8"), path.relative_to(ROOT), module_of(path))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("corruptions.grid", "from robustbench_msa.data.dataset import Dataset"),
        ("robustbench_msa.data.mmsa", "from robustbench_msa.models.contract import Part"),
        ("robustbench_msa.models.qa_moe", "def f():\n    import robustbench_msa.data.synth"),
        ("robustbench_msa.training.loop", "from robustbench_msa.evaluation.cells import Cell"),
        ("robustbench_msa.analysis.metrics", "from robustbench_msa.reporting import names"),
        ("robustbench_msa.evaluation.store", "import_module('robustbench_msa.analysis.metrics')"),
        ("robustbench_msa.run", "from robustbench_msa import cli"),
        ("robustbench_msa.somewhere.new", "import torch"),
    ],
)
def test_the_check_can_fail(module: str, source: str) -> None:
    assert len(violations(source, Path("x.py"), module)) == 1


def test_the_engine_needs_torch_and_numpy_only() -> None:
    """Anyone can import corruptions alone."""
    allowed = {"torch", "numpy", "corruptions"}
    for path in (ROOT / "corruptions").rglob("*.py"):
        for line, name in imports(path.read_text("utf-8"), path):
            package = name.split(".")[0]
            standard = package in __import__("sys").stdlib_module_names
            assert package in allowed or standard, f"{path}:{line}: {package}"
