"""Who stands in a table or figure: the rows to show of tidy frames, their labels, and the facts for captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from corruptions import InputError
from robustbench_msa.analysis.jackknife import few_groups_note
from robustbench_msa.analysis.metrics import Metric, get_profile
from robustbench_msa.reporting import names


class Entry(NamedTuple):
    """One line of a figure, one row of a table.

    name: for tables with a column of recipes; label: stands alone. order: its place, and the place of its style.
    """

    model: str
    recipe: str
    train_seed: int | None
    checkpoint: str | None
    name: str
    label: str
    order: int

    def columns(self) -> tuple[str, str, int | None, str]:
        """What the file behind a figure says of it, under COLUMNS."""
        return self.model, self.recipe, self.train_seed, self.label

    @property
    def is_reference(self) -> bool:
        return self.model in names.REFERENCES


COLUMNS = ("model", "recipe", "train_seed", "label")
_CLAIMS = (
    "one training seed: claims about checkpoints, not methods",
    "claims about methods where there are several training seeds, else about checkpoints",
    "claims about methods: training seeds vary too",
)
Span = tuple[int, int] | None
"""The smallest and largest of a count; None where it was never given."""


class Facts(NamedTuple):
    """What a caption must say of the evaluation. Counts are those of models; references count only when alone."""

    dataset: str
    split: str
    profile: str
    n: Span
    n_groups: Span
    n_seeds: Span
    n_train_seeds: Span
    recipes: tuple[str, ...]

    def data(self) -> str:
        """The dataset and its size, in words."""
        where = f"{names.DATASETS.get(self.dataset, self.dataset)}, {self.split} split"
        counts = [counted(self.n, "sample"), counted(self.n_groups, "group")]
        return f"{where} ({', '.join(c for c in counts if c)})" if any(counts) else where

    def training(self) -> str:
        """How the models were trained, in words; empty when unknown."""
        return (
            f"Training recipe{'s' if len(self.recipes) > 1 else ''}: {', '.join(self.recipes)}" if self.recipes else ""
        )

    def seeds(self) -> str:
        """Corruption and training seeds, in words; empty when neither was given."""
        counts = [counted(self.n_seeds, "corruption seed"), counted(self.n_train_seeds, "training seed")]
        return " and ".join(c for c in counts if c)

    def intervals(self, interval: str = names.INTERVAL) -> str:
        """What the intervals are, what they speak of, and a warning where groups are few."""
        claim = ""
        if self.n_train_seeds is not None:
            several = [count > 1 for count in self.n_train_seeds]
            claim = _CLAIMS[sum(several)]
        few = few_groups_note(self.n_groups[0]) if self.n_groups is not None else ""
        return "; ".join(filter(None, [interval, claim, few]))


def stressed(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of curves to show: means over corruption seeds, under a stress (whose severity 0 is the clean input).

    Raises:
        InputError: as ``shown``.
    """
    return shown(curves[curves["seed"].isna() & (curves["stress"] != "clean")])


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to show: the mean over training seeds where it exists, single training seeds where it does not.

    Raises:
        InputError: no rows, or rows of several datasets, splits or profiles, which never share a table.
    """
    if frame.empty:
        raise InputError("report: the table has no rows; run some cells first")
    for column in ("dataset", "split", "profile"):
        found = sorted(map(str, frame[column].unique()))
        if len(found) > 1:
            raise InputError(f"report: expected one {column}, got {', '.join(found)}; select one of them first")
    mean = frame["train_seed"].isna()
    by = [frame[c] for c in ("model", "recipe", "stress", "params", "metric", "grid") if c in frame]
    return frame[mean | ~mean.groupby(by, dropna=False).transform("any")]


def choose_metrics(frame: pd.DataFrame, wanted: Sequence[str] | None) -> tuple[Metric, ...]:
    """The metrics to show, in the order asked for; default: the profile's usual ones, as far as the frame has them.

    Raises:
        InputError: a metric that the profile or the frame does not have.
    """
    profile = get_profile(str(frame["profile"].iloc[0]))
    have = set(frame["metric"])
    chosen = tuple(wanted or [name for name in names.DEFAULT_METRICS[profile.name] if name in have])
    missing = [name for name in chosen if profile.metric(name).name not in have]
    if missing or not chosen:
        raise InputError(
            f"report: no rows of metric {', '.join(missing) or '(any)'}; there is {', '.join(sorted(have))}"
        )
    return tuple(profile.metric(name) for name in chosen)


def find_entries(frame: pd.DataFrame, stresses: Collection[str]) -> tuple[Entry, ...]:
    """Everyone in the frame, references last, with labels that tell them apart. stresses: those to be shown.

    A recipe is named unless every model was trained on clean data; a training seed or checkpoint only where a model
    would otherwise appear twice.
    """
    keys = sorted({_key(row) for row in _identities(frame)}, key=_order)
    models = [key for key in keys if key[0] not in names.REFERENCES]
    name_recipe = any(recipe != "clean" for _, recipe, _, _ in models)
    seeds = Counter(key[:2] for key in {key[:3] for key in keys})
    checkpoints = Counter(key[:3] for key in keys)
    entries = []
    for order, key in enumerate(keys):
        model, recipe, seed, checkpoint = key
        told = [f"seed {seed}"] if seed is not None and seeds[key[:2]] > 1 else []
        told += [checkpoint[:8]] if checkpoint is not None and checkpoints[key[:3]] > 1 else []
        name = [names.MODELS.get(model, model), *told]
        label = [name[0], *([recipe] if name_recipe and recipe and model not in names.REFERENCES else []), *told]
        if model == "oracle":
            label[0] = f"oracle ({names.oracle_role(stresses)})"
        entries.append(Entry(*key, ", ".join(name), ", ".join(label), order))
    return tuple(entries)


def rows_of(frame: pd.DataFrame, entry: Entry) -> pd.DataFrame:
    keep = [_key(row) == entry[:4] for row in _identities(frame)]
    return frame[keep]


def find_facts(frame: pd.DataFrame) -> Facts:
    models = frame[~frame["model"].isin(names.REFERENCES)]
    counted_rows = frame if models.empty else models
    recipes = tuple(sorted({_text(recipe) for recipe in models["recipe"]} - {""}))
    first = frame.iloc[0]
    return Facts(
        dataset=str(first["dataset"]),
        split=str(first["split"]),
        profile=str(first["profile"]),
        n=_span(counted_rows, "n"),
        n_groups=_span(counted_rows, "n_groups"),
        n_seeds=_span(counted_rows, "n_seeds"),
        n_train_seeds=_span(counted_rows, "n_train_seeds"),
        recipes=recipes,
    )


def counted(span: Span, noun: str) -> str:
    """
    >>> counted((1, 1), "group"), counted((3, 5), "group"), counted(None, "group")
    ('1 group', '3–5 groups', '')
    """
    if span is None:
        return ""
    low, high = span
    number = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    return f"{number} {noun}{'' if high == 1 else 's'}"


def number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def count(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


Key = tuple[str, str, int | None, str | None]


def _identities(frame: pd.DataFrame) -> Iterable[tuple[Any, ...]]:
    return zip(frame["model"], frame["recipe"], frame["train_seed"], frame["checkpoint"], strict=True)


def _key(row: tuple[Any, ...]) -> Key:
    model, recipe, seed, checkpoint = row
    return str(model), _text(recipe), count(seed), _text(checkpoint) or None


def _order(key: Key) -> tuple[int, str, str, int, str]:
    model, recipe, seed, checkpoint = key
    reference = names.REFERENCES.index(model) + 1 if model in names.REFERENCES else 0
    name = names.MODELS.get(model, model)
    return reference, name.lower(), "" if recipe == "clean" else recipe, -1 if seed is None else seed, checkpoint or ""


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _span(frame: pd.DataFrame, column: str) -> Span:
    values = frame[column].dropna() if column in frame else pd.Series(dtype="float64")
    return None if values.empty else (int(values.min()), int(values.max()))
