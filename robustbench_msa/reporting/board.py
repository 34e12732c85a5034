"""What a leaderboard holds, whatever it is written as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from robustbench_msa.reporting import caption, names
from robustbench_msa.reporting.columns import Column
from robustbench_msa.reporting.entries import Entry, Facts
from robustbench_msa.reporting.trained import Trained

__all__ = ["Board", "Column", "PublishedRow", "PublishedScore", "Row", "Score", "groups"]


class Noted(Protocol):
    """What may have a footnote."""

    @property
    def note(self) -> str: ...


class Score(NamedTuple):
    """One cell.

    place: 1 best, 2 second among models, as printed; 0 otherwise. note: why something in it is null. rank to tied: its
    standing in the column, null where that was not tested (``analysis.standings``).
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    place: int = 0
    note: str = ""
    n_groups: int | None = None
    n_seeds: int | None = None
    n_train_seeds: int | None = None
    rank: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    n_ranked: int | None = None
    tied_with_best: bool | None = None

    @property
    def rank_interval(self) -> str:
        """
        >>> Score(1, 1, 1, rank_low=1, rank_high=3).rank_interval, Score(1, 1, 1, rank_low=2, rank_high=2).rank_interval
        ('1–3', '2')
        """
        if self.rank_low is None or self.rank_high is None:
            return ""
        return f"{self.rank_low}" if self.rank_low == self.rank_high else f"{self.rank_low}–{self.rank_high}"

    @property
    def tie_mark(self) -> str:
        """Marks what is tied with the best without being the best itself."""
        return caption.TIED if self.tied_with_best and self.rank != 1 else ""


class Row(NamedTuple):
    """One model (of one recipe and, where they are told apart, one training seed); one score per column."""

    entry: Entry
    scores: tuple[Score, ...]
    trained: Trained | None = None

    @property
    def note(self) -> str:
        """What must be known of it beside its numbers."""
        return "" if self.trained is None else self.trained.warning


class PublishedScore(NamedTuple):
    """A number that a paper prints. value: in the units of the store; printed: with its digits."""

    value: float
    printed: str
    note: str


class PublishedRow(NamedTuple):
    """One row of a paper's table; None where it has no such number. paper: as people call it."""

    paper: str
    table: str
    setting: str
    model: str
    scores: tuple[PublishedScore | None, ...]

    @property
    def source(self) -> str:
        return f"{self.paper} {self.table}" + (f", {self.setting}" if self.setting else "")

    @property
    def name(self) -> str:
        return f"{self.model} [{self.source}]"


class Board(NamedTuple):
    """rows: sorted, references last. sorted_by: the column that sorts them. published: rows from papers, below all.

    about_published: what to know of the published rows. baseline: whose errors corruption errors are divided by.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sorted_by: Column
    facts: Facts
    published: tuple[PublishedRow, ...] = ()
    about_published: str = ""
    baseline: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Footnotes 1, 2, ... as they come in reading order."""
        return tuple(dict.fromkeys(note for note in self._all_notes() if note))

    def _all_notes(self) -> Iterator[str]:
        for row in self.rows:
            yield row.note
            yield from (score.note for score in row.scores)
        for published in self.published:
            yield from (score.note for score in published.scores if score is not None)

    def mark(self, noted: Noted) -> str:
        """The number of its footnote; empty when it has none."""
        return str(self.notes.index(noted.note) + 1) if noted.note else ""

    def caption(self, interval: str = names.INTERVAL) -> str:
        """What the table cannot say itself. interval: what the intervals are."""
        return caption.caption(self, interval)

    @property
    def models(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.entry.is_reference)

    @property
    def tested(self) -> bool:
        """Were differences from the best tested in any column?"""
        return any(score.rank is not None for row in self.rows for score in row.scores)

    @property
    def by(self) -> int:
        """The place of the sorting column."""
        return self.columns.index(self.sorted_by)

    @property
    def has_ranks(self) -> bool:
        """Has the sorting column ranks to show?"""
        return any(row.scores[self.by].rank is not None for row in self.rows)

    @property
    def has_recipe(self) -> bool:
        return any(row.entry.recipe for row in self.rows)


def groups(columns: Sequence[Column], n_shared: int = 4) -> list[list[int]]:
    """Places of the columns under one heading, in order. n_shared: how much of ``over`` they share; 3: not the score.

    >>> from robustbench_msa.analysis.metrics import get_profile
    >>> mae, corr = (get_profile("mosi").metric(name) for name in ("mae", "corr"))
    >>> groups([Column("noise", "", "0:1:0.5", m, s) for s in ("nauc", "worst") for m in (mae, corr)])
    [[0, 1], [2, 3]]
    """
    found: dict[tuple[str, ...], list[int]] = {}
    for place, column in enumerate(columns):
        found.setdefault(column.over[:n_shared], []).append(place)
    return list(found.values())
