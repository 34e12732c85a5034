"""Runs made by hand whose cells have extras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corruptions import Stress
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.records import remember
from robustbench_msa.evaluation.store import Result, Runtime, Store

N, GROUPS = 60, 12
RNG = np.random.default_rng(3)
VIDEOS = [f"v{i:02d}" for i in np.sort(np.arange(N) % GROUPS)]
IDS = [f"{video}$_${i}" for i, video in enumerate(VIDEOS)]
LABELS = (np.rint(RNG.normal(0, 1.5, N).clip(-3, 3) * 5) / 5).astype(np.float32)
SETTING = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
RUNTIME = Runtime("cpu", 256, 1, 0.1, "2026-01-01", "host", "3.11", "2.13", "0")
Predict = Callable[[Cell], dict[str, Any]]


class Made:
    """A folder, and what its cells hold: ``y_pred`` and extras as ``predict`` gave them, by cell."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, Store(root)
        self.labels, self.ids, self.videos = LABELS, IDS, VIDEOS

    def add(
        self,
        predict: Predict,
        *stresses: tuple[str, str | None],
        models: Sequence[str] = ("qa_moe",),
        seeds: int = 1,
        parameters: dict[str, Any] | None = None,
    ) -> list[Cell]:
        """predict: a cell's "y_pred" ``(N,)``, optionally "present" ``(N, 3)``, "y_true" and "ids", and any extras."""
        subjects = [Subject(model, 1, f"{i:x}" * 64, "clean", 1111) for i, model in enumerate(models, 1)]
        requests = []
        for text, grid in stresses:
            stress = Stress.parse(text)
            requests.append(Request(stress, stress.grid(grid), tuple(range(1111, 1111 + seeds))))
        cells = plan(subjects, SETTING, requests)
        about: dict[str, Any] = {"command": "x", "checkpoints": {}, "profile": "mosi", "protocols": {}, "commit": None}
        remember(
            self.store, cells, requests, SETTING, {**about, "dataset": {"parameters": parameters or {}}, "versions": {}}
        )
        for cell in cells:
            self.write(cell, predict(cell))
        return cells

    def write(self, cell: Cell, holds: dict[str, Any]) -> None:
        given = dict(holds)
        y_pred = np.asarray(given.pop("y_pred"), dtype=np.float32)
        n = len(y_pred)
        present = np.asarray(given.pop("present", np.ones((n, 3))), dtype=bool)
        y_true = np.asarray(given.pop("y_true", LABELS), dtype=np.float32)
        ids, groups = given.pop("ids", IDS), given.pop("groups", VIDEOS)
        facts = {"input_digest": "ab", "realised": {}, "nonfinite": 0}
        self.store.write(cell, Result(ids, groups, y_true, y_pred, present, given, facts), RUNTIME)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "run")
