"""Runs made by hand for the tests of the HTML report: every kind of stress, extras, and names that would do harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corruptions import Stress
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.records import remember
from robustbench_msa.evaluation.store import Result, Runtime, Store

EVIL = "<script>boom()</script>\"'><img src=x onerror=boom()>%{x}$a$"
PROTOCOL = f"""name = "evil"
version = 1
description = '''{EVIL.replace("'", "")} </script><script>boom()</script>\u2028 & <b>'''

[[stress]]
name = "noise"
grid = "0:0.4:0.2"
"""
SETTING = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
RUNTIME = Runtime("cpu", 256, 1, 0.5, "2026-01-02T03:04:05+00:00", "secret-host", "3.11", "2.13", "0")
QA, RIDER = Subject("qa_moe", 1, "a" * 64, "clean", 1111), Subject("rider_moe", 1, "b" * 64, "clean", 1111)
LATE, LATE_2 = Subject("late_fusion", 1, "c" * 64, "clean", 1111), Subject("late_fusion", 1, "e" * 64, "clean", 1112)
HOSTILE = Subject(EVIL, 1, "f" * 64, "clean", 1111)
CHANCE = Subject("chance", 1, "0" * 64)
NOISE, SETS, SPECTRUM = (
    ("noise", "0:0.4:0.2"),
    ("missing-fixed", "t,a,v,t+a,t+v,a+v,t+a+v"),
    ("spectrum", "0,0.3x0,0.3"),
)
N = 60
RNG = np.random.default_rng(3)
GROUPS = [f"video{i // 5}" for i in range(N)]
IDS = [f"{group}$_${EVIL if i % 7 == 0 else ''}{i}" for i, group in enumerate(GROUPS)]
LABELS = RNG.normal(0.2, 1.5, N).clip(-3, 3).astype(np.float32)
NOISES = {seed: RNG.normal(size=N) for seed in (None, 1111, 1112)}

Keep = Callable[[Cell], bool]


def severity_of(cell: Cell) -> float:
    lost = 0.2 * (3 - len(cell.condition.split("+"))) if cell.condition else 0.0
    return lost + sum(float(s) for s in (cell.severity, cell.severity_2) if s)


def predict(cell: Cell) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Predictions that get worse with severity, and the extras of the model."""
    s = severity_of(cell)
    rng = np.random.default_rng([int(100 * s), cell.seed or 0, len(cell.model)])
    if cell.model == "chance":
        return np.full(N, 0.2), {}
    skill = {"rider_moe": 0.3, "qa_moe": 0.9, "late_fusion": 1.4}.get(cell.model, 2.2)  # far apart, to point at
    y = (1 - s) * LABELS + skill * (0.5 + s) * NOISES[cell.seed] + 0.1 * rng.normal(size=N)
    if cell.model == "qa_moe":
        gates = np.concatenate([rng.dirichlet(np.ones(4), N) for _ in range(3)], axis=1)
        return y, {"r": rng.uniform(0.3, 0.7, (N, 3)), "gates": gates}
    return y, {
        "routing": rng.dirichlet(np.ones(5), N),
        "r": rng.dirichlet(np.ones(3), N),
    } if "rider" in cell.model else {}


def make_run(
    root: Path,
    subjects: Sequence[Subject],
    *stresses: tuple[str, str],
    seeds: int = 2,
    keep: Keep = lambda cell: True,
    predict: Callable[[Cell], tuple[Any, dict[str, Any]]] = predict,
    protocols: dict[str, str] | None = None,
    command: str = "msabench run --stress noise",
    digest: Callable[[Cell], str] = lambda cell: f"{cell.stress}{cell.point}{cell.seed}",
    notes: Sequence[str] = (),
) -> Path:
    """A run's folder. keep: which of the planned cells are there."""
    store, requests = Store(root), []
    for text, grid in stresses:
        stress = Stress.parse(text)
        requests.append(Request(stress, stress.grid(grid), tuple(range(1111, 1111 + seeds))))
    cells = plan(subjects, SETTING, requests)
    about: dict[str, Any] = {
        "command": command,
        "checkpoints": {s.checkpoint: _about(s) for s in subjects},
        "profile": "mosi",
        "protocols": protocols or {},
        "commit": "abc123-dirty",
        "versions": {"msabench": "1.2.3", "torch": "2.13"},
        "dataset": {"parameters": {}, "notes": list(notes), "text_at": "tokens"},
    }
    remember(store, cells, requests, SETTING, about)
    present = np.ones((N, 3), dtype=bool)
    for cell in filter(keep, cells):
        y, extras = predict(cell)
        facts = {"input_digest": digest(cell), "realised": {"steps_t": severity_of(cell)}, "nonfinite": 0}
        facts["nonfinite"] = int((~np.isfinite(y)).sum())
        store.write(cell, Result(IDS, GROUPS, LABELS, np.asarray(y, np.float32), present, extras, facts), RUNTIME)
    return root


def _about(subject: Subject) -> dict[str, Any]:
    if not subject.recipe:
        return {"model": subject.model}
    selection = {"split": "valid", "by": f"MAE {EVIL}", "value": 0.77}
    about = {"model": subject.model, "recipe": subject.recipe, "train_seed": subject.train_seed, "parameters": 33274}
    return about | {"selection": selection, "weights_sha256": "9" * 64, "path": f"checkpoints/{subject.model}"}
