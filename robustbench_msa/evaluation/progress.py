"""How far a run has come: done, missing and failed cells by model and stress."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.store import Store


@dataclass(frozen=True)
class Report:
    """planned, done: cells by (model, recipe, training seed, stress); failures: message by key."""

    planned: Counter[tuple[str, ...]]
    done: Counter[tuple[str, ...]]
    failures: dict[str, str]
    quarantined: int
    command: str

    @property
    def complete(self) -> bool:
        return self.planned == self.done

    def to_json(self) -> dict[str, Any]:
        names = ("model", "recipe", "train_seed", "stress")
        lines = [
            dict(zip(names, who, strict=True)) | {"planned": n, "done": self.done[who]}
            for who, n in self.planned.items()
        ]
        return {
            "complete": self.complete,
            "planned": self.planned.total(),
            "done": self.done.total(),
            "lines": lines,
            "failures": self.failures,
            "quarantined": self.quarantined,
            "command": self.command,
        }

    def to_rich(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("model", "recipe", "train seed", "stress"):
            table.add_column(name)
        for name in ("done", "planned"):
            table.add_column(name, justify="right")
        for who, n in self.planned.items():
            table.add_row(*who, str(self.done[who]), str(n))
        table.add_section()
        table.add_row("all", "", "", "", str(self.done.total()), str(self.planned.total()))
        return table


def progress_of(folder: Path) -> Report:
    """The state of a run's folder. Raises InputError when it is none."""
    store = Store(folder)
    planned = recall(store)
    done = store.done(cell.key for cell in planned.cells)
    who = {
        cell.key: (cell.model, cell.recipe, "" if cell.train_seed is None else str(cell.train_seed), cell.stress)
        for cell in planned.cells
    }
    failures = {key: message for key, message in store.failures().items() if key in who and key not in done}
    quarantine = folder / "quarantine"
    set_aside = len(list(quarantine.glob("*.parquet"))) if quarantine.is_dir() else 0
    command = str(planned.manifest["commands"][-1])
    return Report(Counter(who.values()), Counter(who[key] for key in done), failures, set_aside, command)
