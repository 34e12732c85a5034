"""The outcome of one check of a model: pass, flag, fail or skip, with a line that says what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from corruptions import InputError

Status = Literal["pass", "flag", "fail", "skip"]
STATUSES: tuple[str, ...] = get_args(Status)

WORDS: Mapping[str, str] = {
    "shape": "wrong shape",
    "finite": "not finite",
    "ids": "rows out of order",
    "order": "depends on the order",
    "batch_size": "depends on the batch",
    "deterministic": "not deterministic",
    "eval_mode": "training mode on",
    "lengths": "reads padding",
    "separable": "encoders not separable",
    "encode_fuse": "encode + fuse is not forward",
    "absence": "ignores absence",
    "inputs_untouched": "changes its input",
    "label_free": "uses labels",
    "data": "padding in the data",
}
"""The checks in the order of tables, each with what a flag or a fail of it is called there."""


@dataclass(frozen=True)
class Check:
    """check: a name in WORDS. note: one line, what was expected, what came and how large it is.

    pass: as it should be. flag: results stand, with a remark. fail: results would mean nothing. skip: it does not
    apply, or could not be told.

    >>> Check("finite", "flag", "1 of 64 predictions is NaN").flagged
    True
    """

    check: str
    status: Status
    note: str = ""

    @property
    def flagged(self) -> bool:
        """Does it go into tables?"""
        return self.status in ("flag", "fail")

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Check:
        """Raises InputError when it is not one of ours."""
        names = ("check", "status", "note")
        if not isinstance(entry, Mapping) or not all(isinstance(entry.get(name), str) for name in names):
            raise InputError(f"preflight: expected check, status and note as text, got {entry!r}")
        if entry["status"] not in STATUSES:
            raise InputError(f"preflight: expected one of {', '.join(STATUSES)}, got {entry['status']!r}")
        return cls(entry["check"], entry["status"], entry["note"])
