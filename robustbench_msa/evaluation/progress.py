"""How far a run has come: done, missing and failed cells by model and stress."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.store import Store
from robustbench_msa.printable import printable

SHOWN = 60
"""Lines of the table up to which each training seed has its own."""


@dataclass(frozen=True)
class Report:
    """planned, done, failed: cells by (model, recipe, training seed, stress); failures: message by key."""

    planned: Counter[tuple[str, ...]]
    done: Counter[tuple[str, ...]]
    failed: Counter[tuple[str, ...]]
    failures: dict[str, str]
    quarantined: int
    command: str

    @property
    def complete(self) -> bool:
        return self.planned == self.done

    def to_json(self) -> dict[str, Any]:
        names = ("model", "recipe", "train_seed", "stress")
        lines = [
            dict(zip(names, who, strict=True)) | {"planned": n, "done": self.done[who], "failed": self.failed[who]}
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

    def lines(self) -> dict[tuple[str, ...], tuple[int, int, int]]:
        """(done, failed, planned) of each line that is shown; where they are many, training seeds stand together."""
        seeds: dict[tuple[str, ...], int] = Counter((who[0], who[1], who[3]) for who in self.planned)
        many = len(self.planned) > SHOWN
        found: dict[tuple[str, ...], tuple[int, int, int]] = {}
        for who, n in self.planned.items():
            count = seeds[who[0], who[1], who[3]]
            name = (*who[:2], f"{count} seeds", who[3]) if many and count > 1 else who
            done, failed, planned = found.get(name, (0, 0, 0))
            found[name] = (done + self.done[who], failed + self.failed[who], planned + n)
        return found

    def to_rich(self) -> Table:
        """How many cells are done; failed and missing ones (those that nobody has tried yet) where there are any."""
        lines = {**self.lines(), ("all", "", "", ""): (self.done.total(), self.failed.total(), self.planned.total())}
        counts = {who: (done, n, failed, n - done - failed) for who, (done, failed, n) in lines.items()}
        names = ("done", "planned", "failed", "missing")
        shown = [i for i, name in enumerate(names) if name in names[:2] or any(c[i] for c in counts.values())]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("model", "recipe", "train seed", "stress"):
            table.add_column(name, no_wrap=name == "model")
        for i in shown:
            table.add_column(names[i], justify="right")
        for who, line in counts.items():
            if who[0] == "all" and not any(who[1:]):
                table.add_section()
            table.add_row(
                *(escape(printable(name)) for name in who), *(str(line[i] or ("" if i > 1 else 0)) for i in shown)
            )
        return table


def progress_of(folder: Path) -> Report:
    """The state of a run's folder. Raises InputError when it is none."""
    store = Store(folder)
    planned = recall(store)
    done = store.done(cell.key for cell in planned.cells)
    who: dict[str, tuple[str, ...]] = {
        cell.key: (cell.model, cell.recipe, "" if cell.train_seed is None else str(cell.train_seed), cell.stress)
        for cell in planned.cells
    }
    failures = {key: message for key, message in store.failures().items() if key in who and key not in done}
    quarantine = folder / "quarantine"
    set_aside = len(list(quarantine.glob("*.parquet"))) if quarantine.is_dir() else 0
    command = str(planned.manifest["commands"][-1])
    done_by, failed_by = (Counter(who[key] for key in keys) for keys in (done, failures))
    return Report(Counter(who.values()), done_by, failed_by, failures, set_aside, command)
