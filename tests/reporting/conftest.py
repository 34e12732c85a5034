"""Small tidy tables, as the analysis makes them, with every column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

Make = Callable[..., pd.DataFrame]

_WHO = {"recipe": "clean", "train_seed": None, "checkpoint": "", "dataset": "mosi", "split": "test", "profile": "mosi"}
_CURVE = {
    "stress": "missing",
    "params": "",
    "severity": "0",
    "severity_2": None,
    "condition": None,
    "seed": None,
    "metric": "mae",
    "value": None,
    "ci_low": None,
    "ci_high": None,
    "n": 686,
    "n_groups": 62,
    "n_seeds": 3,
    "n_train_seeds": 1,
}
_NAUC = {
    "stress": "missing",
    "params": "",
    "grid": "0:0.8:0.2",
    "metric": "mae",
    "nauc": None,
    "ci_low": None,
    "ci_high": None,
    "grid_mean": None,
    "worst": None,
    "retention": None,
    "clean": None,
    "n_seeds": 3,
    "n_groups": 62,
    "n_train_seeds": 1,
    "note": None,
}
_WHOLE = ("train_seed", "seed", "n", "n_groups", "n_seeds", "n_train_seeds")
_REAL = ("value", "nauc", "ci_low", "ci_high", "grid_mean", "worst", "retention", "clean")


def _frame(rows: tuple[dict[str, Any], ...], defaults: dict[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame([{"model": "qa_moe", **_WHO, **defaults, **row} for row in rows])
    whole = {name: "Int64" for name in _WHOLE if name in frame}
    return frame.astype(whole | {name: "float64" for name in _REAL if name in frame})


@pytest.fixture
def curves() -> Make:
    """``curves({...}, {...})``: one row each, the rest by default."""
    return lambda *rows: _frame(rows, _CURVE)


@pytest.fixture
def nauc() -> Make:
    return lambda *rows: _frame(rows, _NAUC)


@pytest.fixture
def two_stresses(curves: Make) -> pd.DataFrame:
    """QA-MoE and RIDER-MoE with chance and oracle: missing at 0 and 0.4, and three available sets; MAE and Acc-2."""
    rows = []
    for model, recipe, skill in (("rider_moe", "clean", 0.1), ("qa_moe", "clean", 0.0), ("oracle", "", 0.2)):
        for severity, loss in (("0.4", 0.2), ("0", 0.0)):  # not in order
            where = {"model": model, "recipe": recipe, "severity": severity}
            mae, acc = 1.0 - skill + loss, 0.75 + skill - loss
            rows.append({**where, "metric": "mae", "value": mae, "ci_low": mae - 0.05, "ci_high": mae + 0.1})
            rows.append({**where, "metric": "acc2_non0", "value": acc, "ci_low": acc - 0.02, "ci_high": acc + 0.02})
        for condition, loss in (("t+a+v", 0.0), ("v", 0.3), ("t", 0.1)):
            where = {"model": model, "recipe": recipe, "stress": "missing-fixed", "severity": None, "n_seeds": 1}
            where["condition"] = condition
            rows.append({**where, "metric": "mae", "value": 1.0 - skill + loss})
            rows.append({**where, "metric": "acc2_non0", "value": 0.75 + skill - loss})
    for metric, value in (("mae", 1.5), ("acc2_non0", 0.5)):
        where = {"model": "chance", "recipe": "", "metric": metric, "value": value}
        rows += [{**where, "severity": severity} for severity in ("0", "0.4")]
        rows += [{**where, "stress": "missing-fixed", "severity": None, "condition": c} for c in ("t", "v", "t+a+v")]
    return curves(*rows)
