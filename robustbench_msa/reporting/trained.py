"""How the checkpoints behind a row were trained and selected, from what the manifest holds of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from robustbench_msa.evaluation.preflight_check import WORDS
from robustbench_msa.reporting import names
from robustbench_msa.reporting.entries import Entry

_SPLITS = {"valid": "validation", "test": "test", "train": "training"}
Checkpoints = Mapping[str, Mapping[str, Any]]
"""The manifest's ``checkpoints``: facts by identity."""


class Trained(NamedTuple):
    """seeds: training seeds, None unknown; selected_on: valid, test, ... ; selected_by: the criterion, in words.

    parameters: smallest and largest count. elsewhere: other datasets that it was trained on. flags: what its preflight
    found. imported: predictions that other code made. numerics: other than exact float32.
    """

    seeds: tuple[int, ...]
    selected_on: tuple[str, ...]
    selected_by: tuple[str, ...]
    parameters: tuple[int, int] | None
    elsewhere: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    imported: bool = False
    numerics: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """The badges of a row, in words: what a reader must not miss."""
        told = ["selected on test: its scores are not those of unseen data"] if "test" in self.selected_on else []
        told += [f"trained on {', '.join(self.elsewhere)}"] if self.elsewhere else []
        told += [f"preflight: {'; '.join(self.flags)}"] if self.flags else []
        told += ["predictions made elsewhere: training and selection unknown"] if self.imported else []
        told += [f"computed in {', '.join(self.numerics)}, not in exact float32"] if self.numerics else []
        return "; ".join(told)

    @property
    def seeds_label(self) -> str:
        """
        >>> Trained((1111, 1112, 1113), (), (), None).seeds_label, Trained((7, 9), (), (), None).seeds_label
        ('1111–1113', '7, 9')
        """
        if len(self.seeds) > 2 and self.seeds == tuple(range(self.seeds[0], self.seeds[-1] + 1)):
            return f"{self.seeds[0]}–{self.seeds[-1]}"
        return ", ".join(map(str, self.seeds)) or names.NULL

    @property
    def selection_label(self) -> str:
        """The split, and the criterion without its list of views."""
        where = ", ".join(_SPLITS.get(split, split) for split in self.selected_on)
        by = ", ".join(dict.fromkeys(text.split(":")[0] for text in self.selected_by))
        return ": ".join(filter(None, (where, by))) or names.NULL

    @property
    def parameters_label(self) -> str:
        """
        >>> Trained((), (), (), (33274, 33274)).parameters_label, Trained((), (), (), (5, 1200)).parameters_label
        ('33,274', '5–1,200')
        """
        if self.parameters is None:
            return names.NULL
        return "–".join(dict.fromkeys(f"{count:,}" for count in self.parameters))


def find_trained(entry: Entry, checkpoints: Checkpoints, dataset: str) -> Trained | None:
    """Of a row of the board; None where nothing is known. dataset: that of the run."""
    if entry.is_reference:
        return None
    members = [about for identity, about in checkpoints.items() if _is_member(entry, identity, about)]
    if not members:
        return None
    counts = [int(about["parameters"]) for about in members if about.get("parameters") is not None]
    selections = [about["selection"] for about in members if isinstance(about.get("selection"), Mapping)]
    trained_on = [about["dataset"].get("name") for about in members if isinstance(about.get("dataset"), Mapping)]
    return Trained(
        seeds=tuple(sorted({int(about["train_seed"]) for about in members if about.get("train_seed") is not None})),
        selected_on=_distinct([selection.get("split") for selection in selections]),
        selected_by=_distinct([selection.get("by") for selection in selections]),
        parameters=(min(counts), max(counts)) if counts else None,
        elsewhere=_distinct([name for name in trained_on if name != dataset]),
        flags=_distinct([flag for about in members for flag in _flags(about)]),
        imported=any(about.get("imported") for about in members),
        numerics=_distinct([about.get("numerics") for about in members]),
    )


def _is_member(entry: Entry, identity: str, about: Mapping[str, Any]) -> bool:
    if entry.checkpoint is not None:
        return identity == entry.checkpoint
    same = (about.get("model"), about.get("recipe") or "") == (entry.model, entry.recipe)
    return same and entry.train_seed in (None, about.get("train_seed"))


def _flags(about: Mapping[str, Any]) -> list[str]:
    """What preflight found: neither what passed nor what does not apply."""
    found = [check for check in about.get("preflight") or [] if check.get("status") not in ("pass", "skip")]
    return [
        WORDS.get(check["check"], check["check"]) + (f" ({check['note']})" if check.get("note") else "")
        for check in found
    ]


def _distinct(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values if value}))
