"""Models that others wrote: wrapped, built from their files, their weights read without trust.

>>> from robustbench_msa.adapters import adapt, load_weights, read_weights
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_msa.adapters.adapted import AdaptedModel, adapt
    from robustbench_msa.adapters.weights import load_weights, read_weights

__all__ = ["AdaptedModel", "adapt", "load_weights", "read_weights"]

_HOMES = {"AdaptedModel": "adapted", "adapt": "adapted", "load_weights": "weights", "read_weights": "weights"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
