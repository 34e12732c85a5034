"""Small runs made by hand: three lines under noise, missing and spectrum, in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from corruptions import Stress
from robustbench_msa.analysis.tables import derive
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.records import recall, remember
from robustbench_msa.evaluation.store import Result, Runtime, Store

N, SEEDS = 60, (1111, 1112)
LABELS = np.random.default_rng(1).uniform(-3, 3, N).astype(np.float32)
GROUPS = [f"video{i // 3}" for i in range(N)]
IDS = [f"{group}$_${i}" for i, group in enumerate(GROUPS)]
SETTING = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
QA = Subject("qa_moe", 1, "a" * 64, "clean", 1111)
RIDER = Subject("rider_moe", 1, "b" * 64, "clean", 1111)
SPECTRUM = Subject("qa_moe", 1, "c" * 64, "spectrum", 1111)
CHANCE = Subject("chance", 1, "e" * 64)
LINES = (QA, RIDER, SPECTRUM, CHANCE)
SLOPES = {QA.checkpoint: 0.6, RIDER.checkpoint: 0.3, SPECTRUM.checkpoint: 0.1, CHANCE.checkpoint: 0.0}
_RUNTIME = Runtime("cpu", 256, 1, 0.1, "2026-01-01", "host", "3.11", "2.13", "0")


def predict(cell: Cell) -> np.ndarray[Any, Any]:
    """Labels with an error that grows with severity, at a slope of each line's own; chance: the mean label."""
    if cell.model == "chance":
        return np.full(N, LABELS.mean())
    severity = sum(float(s) for s in (cell.severity, cell.severity_2) if s)
    shared = np.random.default_rng([int(100 * severity), cell.seed or 0]).normal(size=N)
    own = np.random.default_rng(int(cell.checkpoint[:4], 16)).normal(size=N)
    return LABELS + (0.3 + SLOPES[cell.checkpoint] * severity) * shared + 0.05 * own


def make_run(
    root: Path,
    *stresses: tuple[str, str],
    lines: tuple[Subject, ...] = LINES,
    command: str = "msabench run --out /somewhere/r",
) -> Path:
    """A finished run of these stresses over these grids."""
    store = Store(root)
    parsed = [(Stress.parse(name), grid) for name, grid in stresses]
    requests = [Request(stress, stress.grid(grid), SEEDS) for stress, grid in parsed]
    cells = plan(lines, SETTING, requests)
    checkpoints = {line.checkpoint: {"model": line.model, "recipe": line.recipe, "parameters": 7} for line in lines}
    about = {"command": command, "checkpoints": checkpoints, "dataset": {}, "profile": "mosi", "commit": None}
    remember(store, cells, requests, SETTING, {**about, "protocols": {"own": "text"}, "versions": {"torch": "2"}})
    for cell in cells:
        facts = {"input_digest": f"{cell.stress}{cell.point}{cell.seed}", "realised": {}, "nonfinite": 0}
        y_pred, present = predict(cell).astype(np.float32), np.ones((N, 3), dtype=bool)
        store.write(cell, Result(IDS, GROUPS, LABELS, y_pred, present, {}, facts), _RUNTIME)
    derive(store, recall(store))
    return root
