"""Fixtures of the engine's tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    """A module beside this file, whichever way pytest imports tests."""
    spec = importlib.util.spec_from_file_location(f"engine_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


makers = _load("makers")


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """The makers module: small batches and comparisons."""
    return makers


@pytest.fixture(scope="session", params=makers.POINTS.items(), ids=lambda point: "-".join(point))
def stressed(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each stress in turn with a severity: ``("noise", "0.3")``."""
    point: tuple[str, str] = request.param
    return point


SHARED = [(stress, severity) for stress, severity in makers.POINTS.items() if not makers.needs_adversary(stress)]


@pytest.fixture(scope="session", params=[*SHARED, (makers.LEGACY, "0.4")], ids=lambda point: "-".join(point))
def shared(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each stress whose input is the same for all models, the legacy variant too."""
    point: tuple[str, str] = request.param
    return point
