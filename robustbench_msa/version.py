"""What made a result: versions of the packages, and the commit of a checkout."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1]

try:
    __version__ = version("robustbench-msa")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "not installed"


def versions() -> dict[str, str]:
    """The versions that results may depend on."""
    names = ("torch", "numpy", "pandas", "scipy", "pyarrow", "safetensors")
    return {"msabench": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def commit() -> str | None:
    """The commit of this code where it runs from its repository, with "-dirty" when its packages were changed since."""
    if not (_SOURCE / ".git").exists():
        return None
    try:
        head = _git("rev-parse", "HEAD").stdout.strip()
        changed = _git("diff", "--quiet", "HEAD", "--", "corruptions", "robustbench_msa").returncode
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{head}-dirty" if head and changed else head or None


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=_SOURCE, capture_output=True, text=True, timeout=30, check=False)
