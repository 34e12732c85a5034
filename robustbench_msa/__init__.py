"""msabench: how a multimodal sentiment model degrades when its inputs do, and whether it beats another.

>>> from robustbench_msa import score
>>> round(score([-1.0, 2.0, 0.5], [-0.5, 1.0, -1.0])["acc2_non0"], 3)
0.667
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_msa.analysis.metrics import score
    from robustbench_msa.run import Benchmark, benchmark, open_run

__all__ = ["Benchmark", "benchmark", "open_run", "score"]


def __getattr__(name: str) -> Any:
    """Heavy imports wait until they are used, so that ``msabench --help`` answers at once."""
    from importlib import import_module

    homes = {"score": "analysis.metrics", "benchmark": "run", "Benchmark": "run", "open_run": "run"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"robustbench_msa.{homes[name]}"), name)
