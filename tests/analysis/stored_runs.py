"""Runs made by hand: predictions that get worse with severity, in the folder of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from corruptions import Stress
from robustbench_msa.analysis.tables import derive
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.records import Planned, recall, remember
from robustbench_msa.evaluation.schemas import CURVES, NAUC
from robustbench_msa.evaluation.store import Result, Runtime, Store

SETTING = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
MODEL = Subject("late_fusion", 1, "a" * 64, "clean", 1111)
CHANCE = Subject("chance", 1, "b" * 64)
RUNTIME = Runtime("cpu", 256, 1, 0.1, "2026-01-01", "host", "3.11", "2.13", "0")
N = 120
RNG = np.random.default_rng(7)
GROUPS = [f"video{i}" for i in np.sort(RNG.integers(0, 15, N))]
LABELS = (np.rint(RNG.normal(0.3, 1.6, N).clip(-3, 3) * 5) / 5).astype(np.float32)
NOISE = {name: RNG.normal(size=N) for name in ("clean", *range(1111, 1131))}
METRICS = ("mae", "corr", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc7", "acc5", "acc3")


def degraded(cell: Cell) -> np.ndarray[Any, Any]:
    """Predictions that get worse with severity, differently for each seed and checkpoint."""
    if cell.model == "chance":
        return np.full(N, LABELS.mean(), dtype=np.float32)
    level = sum(float(s) for s in (cell.severity, cell.severity_2) if s is not None)
    level += 0.2 * (3 - len(cell.condition.split("+"))) if cell.condition else 0.0
    own = 0.1 * NOISE[1130 - int(cell.checkpoint[0], 16)]
    return ((1 - 0.8 * level) * LABELS + own + (0.4 + 2 * level) * NOISE[cell.seed or "clean"]).astype(np.float32)


def write(store: Store, cell: Cell, y_pred: Any, extras: dict[str, Any] | None = None) -> None:
    ids = [f"{g}$_${i}" for i, g in enumerate(GROUPS)]
    facts = {"input_digest": "ab", "realised": {"lost_t": 0.5, "noise_db_t": None}, "nonfinite": 0}
    present = np.ones((N, 3), dtype=bool)
    y_pred = np.asarray(y_pred, dtype=np.float32)
    store.write(cell, Result(ids, GROUPS, LABELS, y_pred, present, extras or {}, facts), RUNTIME)


def request_of(stress: str, grid: str | None = None, seeds: int = 1) -> Request:
    parsed = Stress.parse(stress)
    return Request(parsed, parsed.grid(grid), tuple(range(1111, 1111 + seeds)))


class Run:
    """A run's folder made by hand, and its tables as pandas sees them."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def add(
        self,
        subjects: Sequence[Subject],
        requests: Sequence[Request],
        predict: Callable[[Cell], Any] = degraded,
        leave_out: Callable[[Cell], bool] = lambda cell: False,
    ) -> list[Cell]:
        cells = plan(subjects, SETTING, requests)
        about = {"command": "x", "checkpoints": {}, "dataset": {}, "profile": "mosi", "protocols": {}}
        about |= {"commit": None, "versions": {}}
        remember(self.store, cells, requests, SETTING, about)
        for cell in cells:
            if not leave_out(cell) and not self.store.done([cell.key]):
                write(self.store, cell, predict(cell))
        derive(self.store, self.planned)
        return cells

    @property
    def planned(self) -> Planned:
        return recall(self.store)

    @property
    def curves(self) -> pd.DataFrame:
        return self.store.read_table("curves", CURVES).to_pandas()

    @property
    def nauc(self) -> pd.DataFrame:
        return self.store.read_table("nauc", NAUC).to_pandas()

    @property
    def predictions(self) -> pd.DataFrame:
        return pd.read_parquet(self.store.root / "predictions")
