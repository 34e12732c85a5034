"""The files that a program from outside is made of, for the identity of what it gives: a changed file, a changed model.

Imports are followed by reading, not by running: from the defining file to what it imports from its own folder or
package, and on from there. What is imported by a name made at run time is not seen (a module's own class always is).
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

HARNESS = ("corruptions", "robustbench_msa")
_INSTALLED = ("site-packages", "dist-packages")


def files_of(path: Path, root: Path, package: str = "", name: str = "") -> dict[str, Path]:
    """The file and all it imports from below ``root``: ``{module name: file}``; the file itself under ``name``.

    Args:
        path: a Python file. root: the folder that imports start from. package: follow imports of this package alone.
        name: the file's own module name ("" for a file that is no part of a package).
    """
    found, todo = {name: path}, [(name, path)]
    while todo:
        of, file = todo.pop()
        for module in _imported(file, of):
            top = module.partition(".")[0]
            if top in HARNESS or top in sys.stdlib_module_names or (package and top != package):
                continue
            parts = module.split(".")
            for i in range(1, len(parts) + 1):  # a package's __init__ runs with what is in it
                dotted = ".".join(parts[:i])
                place = root.joinpath(*parts[:i])
                hit = next((p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file()), None)
                if hit is not None and dotted not in found and hit != path:
                    found[dotted] = hit
                    todo.append((dotted, hit))
    return found


def classes_of(module: nn.Module) -> list[Path]:
    """The files that define the classes of a module and of all its submodules, but for installed packages and ours."""
    found = set()
    for kind in {type(part) for part in module.modules()}:
        if kind.__module__.partition(".")[0] not in (*HARNESS, "torch", "builtins"):
            try:
                found.add(Path(inspect.getfile(kind)).resolve())
            except (TypeError, OSError):  # made in a notebook, or by code that has no file
                continue
    return sorted(path for path in found if path.is_file() and not set(_INSTALLED) & set(path.parts))


def digest_of(paths: Mapping[str, Path] | list[Path]) -> str:
    """sha256 (hex) over the files' contents, wherever they lie."""
    files = paths.values() if isinstance(paths, Mapping) else paths
    contents = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()


def _imported(path: Path, of: str) -> Iterator[str]:
    """Names of the modules that a file may import; ``from a import b`` may be the module a.b."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # it cannot be imported either, and that has a message of its own
        return
    package = of if path.name == "__init__.py" else of.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
                base = ".".join([*parents, *([base] if base else [])])
            yield from ([base] if base else [])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
