"""The columns of a leaderboard: a score of a metric under a stress over a grid, how it is read, written and ordered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from corruptions import InputError
from corruptions.grid import SUBSETS
from corruptions.registry import did_you_mean
from robustbench_msa.analysis.grid_report import NEVER_HALVED, SCORES, standing
from robustbench_msa.analysis.metrics import Metric
from robustbench_msa.reporting import entries, names

CLEAN, MCE, RELATIVE_MCE = "clean", "mce", "relative_mce"
MEANS: Mapping[str, str] = {"ce": MCE, "relative_ce": RELATIVE_MCE}
"""What a corruption error is averaged to over stresses."""

MEANINGS: Mapping[str, str] = {
    "nauc": "the area under a curve divided by the range of its grid",
    "auc_raw": "the area under a curve, not divided",
    "grid_mean": "the plain mean over the grid",
    "worst": "the worst cell of the grid",
    "retention": "the share of the gain over the best constant that is left",
    "half_life": "the severity at which half of the gain over the best constant is gone",
    "cliff": "the steepest drop between two severities, per unit of severity",
    "cliff_at": "where the steepest drop begins",
    "area_within_5": "the share of the range in which at most 5 % of the clean score is lost",
    "area_within_10": "the share of the range in which at most 10 % of the clean score is lost",
    "ce": "errors per error of the baseline",
    "relative_ce": "errors added to the clean ones, per error added to the baseline's",
    "regret": "nAUC behind that of the oracle",
    CLEAN: "on the untouched input",
    MCE: "the mean CE over the stresses",
    RELATIVE_MCE: "the mean relative CE over the stresses",
}
_LABELS = {CLEAN: "Clean", MCE: "mCE", RELATIVE_MCE: "Relative mCE"}
_LIKE_METRIC = frozenset(("nauc", "grid_mean", "worst", "regret", "cliff", CLEAN))
"""Written as the metric is: in percent where it is a fraction. The rest are ratios, severities or areas."""


class Column(NamedTuple):
    """One score of one metric under one stress over one grid. Another grid or parameter is another column."""

    stress: str
    params: str
    grid: str
    metric: Metric
    score: str = "nauc"

    @property
    def over(self) -> tuple[str, str, str, str]:
        """What is shared by the columns under one heading."""
        return self.stress, self.params, self.grid, self.score

    @property
    def title(self) -> str:
        return {CLEAN: "Clean input", "": "All stresses"}.get(self.stress, names.stress_title(self.stress, self.params))

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
    def where(self) -> str:
        """The stress and its grid, in words."""
        return " ".join(filter(None, (self.title, self.grid_label)))

    @property
    def score_label(self) -> str:
        if self.by_condition and self.score == "grid_mean":
            return "mean"
        return score_label(self.score)

    @property
    def key(self) -> str:
        """The words that name this column."""
        words = (f"{self.stress}{':' if self.params else ''}{self.params}", self.grid, self.metric.name, self.score)
        return " ".join(filter(None, words))

    @property
    def words(self) -> set[str]:
        """What may be typed to sort by this column."""
        return {self.stress, *self.key.split()}

    @property
    def higher_is_better(self) -> bool | None:
        """None: neither is, it is a place."""
        better = SCORES[self.score].better if self.score in SCORES else "metric" if self.score == CLEAN else "lower"
        return {"metric": self.metric.higher_is_better, "higher": True, "lower": False}.get(better)

    @property
    def ranks(self) -> bool:
        """Does a model that is better in every cell never score worse? Else it compares a model with itself."""
        return SCORES[self.score].ranks if self.score in SCORES else self.score != RELATIVE_MCE

    @property
    def head(self) -> str:
        """The metric, with an arrow to the better side."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.metric.label}{arrow}"

    @property
    def is_percent(self) -> bool:
        return names.is_percent(self.metric) and self.score in _LIKE_METRIC

    def format(self, value: float | None) -> str:
        """In print; a dash for null."""
        if value is None or self.score in _LIKE_METRIC:
            return names.format_value(self.metric, value)
        return f"{round(value, 6):g}" if self.score == "cliff_at" else f"{round(value, 3) + 0.0:.3f}"

    def format_interval(self, low: float | None, high: float | None) -> str:
        """``[low, high]`` as the value is printed; empty when there is none. A half-life's may be open above."""
        if self.score == "half_life" and low is not None and high is None:
            return f"[{self.format(low)}, …)"
        return "" if low is None or high is None else f"[{self.format(low)}, {self.format(high)}]"

    def standing(self, value: float | None, reason: str) -> float:
        """What to sort by in descending order: null last, a margin that is never halved first.

        Raises:
            InputError: a place, which is neither good nor bad.
        """
        if self.score in SCORES:
            return standing(self.score, value, reason, self.metric.higher_is_better)
        if value is None:
            return -np.inf
        return value if self.higher_is_better else -value

    def places(self, values: list[float | None], reasons: list[str]) -> list[int]:
        """1 for the best as printed, 2 for the second, else 0. Equal print is equal place; one row alone has none."""
        if self.higher_is_better is None:
            return [0] * len(values)
        printed = [None if value is None else float(self.format(value)) for value in values]
        levels = [
            -np.inf if value is None and reason != NEVER_HALVED else self.standing(value, reason)
            for value, reason in zip(printed, reasons, strict=True)
        ]
        known = sorted({level for level in levels if level != -np.inf}, reverse=True)
        if sum(level != -np.inf for level in levels) < 2:
            return [0] * len(values)
        return [known.index(level) + 1 if level in known[:2] else 0 for level in levels]


def score_label(score: str) -> str:
    """
    >>> score_label("half_life"), score_label("mce")
    ('Half-life', 'mCE')
    """
    return SCORES[score].label if score in SCORES else _LABELS[score]


def check_scores(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Raises InputError for what is no score."""
    known = [*SCORES, CLEAN]
    for name in wanted:
        if name not in known:
            raise InputError(f"no score {name!r}{did_you_mean(name, known)}; expected one of {', '.join(known)}")
    return tuple(dict.fromkeys(wanted))


class Read(NamedTuple):
    """A score as it stands in a row of the nAUC table. reason: why it is null, or has no interval."""

    value: float | None
    low: float | None
    high: float | None
    reason: str


def read_score(row: Mapping[Any, Any], column: Column) -> Read:
    """The score of a column from its row of the tidy table."""
    score = column.score
    ends = ("ci_low", "ci_high") if score == "nauc" else (f"{score}_low", f"{score}_high")
    value, low, high = (entries.number(row.get(name)) for name in (score, *ends))
    note = row.get("note")
    note = note.strip() if isinstance(note, str) else ""
    if value is None:
        return Read(None, None, None, reasons(row).get(score) or note or "undefined")
    # the note is on nAUC and its interval: with one shown, it is about something that is not
    return Read(value, low, high, note if score == "nauc" and low is None else "")


def reasons(row: Mapping[Any, Any]) -> dict[str, str]:
    """Why scores are null, by score.

    >>> reasons({"reasons": {"regret": "no oracle was given"}}), reasons({})
    ({'regret': 'no oracle was given'}, {})
    """
    found = row.get("reasons")
    if found is None or isinstance(found, float) or found is pd.NA:
        return {}
    return {str(name): str(why) for name, why in dict(found).items()}
