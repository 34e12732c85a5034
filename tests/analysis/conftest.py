"""Fixtures of the analysis' tests. ``stored_runs`` beside this file can be imported, however pytest imports tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stored_runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """An empty run."""
    return Run(tmp_path / "run")
