"""What a leaderboard holds, whatever it is written as."""

from __future__ import annotations

from typing import NamedTuple

from corruptions.grid import SUBSETS
from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import names
from robustbench_msa.reporting.entries import Entry, Facts


class Column(NamedTuple):
    """One metric under one stress over one grid. Another grid, or another parameter, is another column."""

    stress: str
    params: str
    grid: str
    metric: Metric

    @property
    def over(self) -> tuple[str, str, str]:
        """What is shared by the columns under one heading."""
        return self[:3]

    @property
    def title(self) -> str:
        return names.stress_title(self.stress, self.params)

    @property
    def by_condition(self) -> bool:
        """Available sets have no order, so no area: their score is the mean over the sets."""
        return self.grid[:1].isalpha()

    @property
    def grid_label(self) -> str:
        if not self.by_condition:
            return self.grid
        return "all 7 sets" if set(self.grid.split(",")) == set(SUBSETS) else names.condition_label(self.grid)

    @property
    def key(self) -> str:
        """The words that name this column."""
        return f"{self.stress}{':' if self.params else ''}{self.params} {self.grid} {self.metric.name}"


class Score(NamedTuple):
    """One cell. place: 1 best, 2 second among models, as printed; 0 otherwise. note: why something in it is null."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    place: int = 0
    note: str = ""
    n_groups: int | None = None
    n_seeds: int | None = None
    n_train_seeds: int | None = None


class Row(NamedTuple):
    """One model (of one recipe and, where they are told apart, one training seed); one score per column."""

    entry: Entry
    scores: tuple[Score, ...]


class Board(NamedTuple):
    """rows: sorted, references last. sorted_by: the column that sorts them."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sorted_by: Column
    facts: Facts

    @property
    def notes(self) -> tuple[str, ...]:
        """Footnotes 1, 2, ... as they come in reading order."""
        return tuple(dict.fromkeys(score.note for row in self.rows for score in row.scores if score.note))

    def mark(self, score: Score) -> str:
        """The number of a cell's footnote; empty when it has none."""
        return str(self.notes.index(score.note) + 1) if score.note else ""

    def caption(self, interval: str = names.INTERVAL) -> str:
        """What the table cannot say itself. interval: what the intervals are."""
        grids = dict.fromkeys((column.title, column.grid_label) for column in self.columns if not column.by_condition)
        sets = dict.fromkeys((column.title, column.grid_label) for column in self.columns if column.by_condition)
        seeds = self.facts.seeds()
        percent = dict.fromkeys(column.metric.label for column in self.columns if names.is_percent(column.metric))
        role = names.oracle_role([column.stress for column in self.columns])
        references = {"oracle": f"the oracle ({role})", "chance": "chance (the best constant of the training labels)"}
        by = self.sorted_by
        unranked = [references[row.entry.model] for row in self.rows if row.entry.is_reference]
        sentences = [
            f"Robustness on {self.facts.data()}" + (f"; means over {seeds}" if seeds else ""),
            f"nAUC, the area under a curve divided by the range of its grid: {_listed(grids)}" if grids else "",
            f"Mean over available sets: {_listed(sets)}" if sets else "",
            self.facts.training(),
            f"{', '.join(percent)} in percent" if percent else "",
            "↑ higher is better, ↓ lower is better",
            f"In brackets: {self.facts.intervals(interval)}",
            f"Sorted by {by.title} {by.grid_label}, {by.metric.label}",
            "Bold: best, underlined: second, of each column as printed",
            f"Not ranked: {' and '.join(unranked)}" if unranked else "",
        ]
        return ". ".join(filter(None, sentences)) + "."


def _listed(pairs: dict[tuple[str, str], None]) -> str:
    return "; ".join(f"{title} {grid}" for title, grid in pairs)
