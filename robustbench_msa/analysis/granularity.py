"""Can a printed accuracy occur at all? With n samples an accuracy is a whole number of n-ths; few of those round to it.

The GRIM test (Brown and Heathers 2017) on tables of results: a mean over s training seeds is a multiple of 1 / (s n).
All arithmetic is on integers. It cannot speak of F1, MAE or correlations, nor of means of values rounded before.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from corruptions import InputError

COLUMNS = ("value", "n", "seeds", "decimals", "n_nonzero")
MAX_DECIMALS = 12


@dataclass(frozen=True)
class Printed:
    """A number of a table. n_nonzero: the samples of a non-zero Acc-2, where that may be what it is.

    value: as printed; decimals: None for as many as it shows; fraction: printed in 0..1, not in percent.
    """

    value: str
    n: int
    seeds: int = 1
    decimals: int | None = None
    n_nonzero: int | None = None
    fraction: bool = False


@dataclass(frozen=True)
class Verdict:
    """counts: the smallest and largest number of correct predictions (over all seeds) that print as the value, or None.

    nearest: the counts on either side (or the one that is exact) and their values; informative: False where the samples
    are so many that every value can occur.
    """

    value: str
    denominator: str
    n: int
    seeds: int
    counts: tuple[int, int] | None
    nearest: tuple[tuple[int, str], ...]
    informative: bool

    @property
    def possible(self) -> bool:
        return self.counts is not None

    def __str__(self) -> str:
        of = f"{self.denominator} {self.n}" + (f" x {self.seeds} seeds" if self.seeds > 1 else "")
        total = self.n * self.seeds
        if self.counts is None:
            near = " and ".join(f"{value} ({count}/{total})" for count, value in self.nearest)
            return f"{self.value}  {of}: impossible; nearest {near}"
        low, high = self.counts
        which = f"{low}/{total}" if low == high else f"{low}/{total} to {high}/{total}"
        return f"{self.value}  {of}: possible ({which})" + ("" if self.informative else "; so is every value")


def check(printed: Printed) -> list[Verdict]:
    """Whether a value can be an accuracy over n samples, and over the non-zero ones where their number is given.

    A count k prints as v with d decimals when ``|k / N - v| <= 10^-d / 2``, both ends included: either way of
    rounding a half is granted. N = n x seeds.

    Raises:
        InputError: not a number, outside 0..100 percent, more decimals than given, or counts below 1.

    >>> [str(verdict) for verdict in check(Printed("86.1", n=686))]
    ['86.1  n 686: impossible; nearest 86.006 (590/686) and 86.152 (591/686)']
    >>> check(Printed("86.4", n=686))[0].counts
    (593, 593)
    """
    for name, count in (("n", printed.n), ("seeds", printed.seeds), ("n_nonzero", printed.n_nonzero)):
        if count is not None and count < 1:
            raise InputError(f"check-table: expected {name} of 1 or more, got {count}")
    whole = 1 if printed.fraction else 100
    units, decimals = _units(printed, whole)
    found = [_verdict(printed, "n", printed.n, units, decimals, whole)]
    if printed.n_nonzero is not None:
        found.append(_verdict(printed, "n_nonzero", printed.n_nonzero, units, decimals, whole))
    return found


def read_csv(path: Path, defaults: Mapping[str, int | None], fraction: bool = False) -> list[Printed]:
    """Rows of a CSV file with a column ``value`` and any of n, seeds, decimals, n_nonzero; others are ignored.

    defaults: for columns that are not there and for empty cells.

    Raises:
        InputError: unreadable, no column ``value``, an n that is nowhere given, or a count that is no whole number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from None
    if not rows or "value" not in rows[0]:
        raise InputError(f"{path}: expected a CSV file with rows and the columns value, n, seeds, decimals")
    return [_printed(row, f"{path}, row {i}", defaults, fraction) for i, row in enumerate(rows, 2)]


def _printed(row: Mapping[str, str | None], where: str, defaults: Mapping[str, int | None], fraction: bool) -> Printed:
    counts = {name: _count(row.get(name), f"{where}, {name}", defaults.get(name)) for name in COLUMNS[1:]}
    if counts["n"] is None:
        raise InputError(f"{where}: expected n, the number of samples (a column n, or --n)")
    seeds = counts["seeds"] if counts["seeds"] is not None else 1
    return Printed(row["value"] or "", counts["n"], seeds, counts["decimals"], counts["n_nonzero"], fraction)


def _count(text: str | None, where: str, default: int | None) -> int | None:
    if text is None or not text.strip():
        return default
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: expected a whole number, got {text!r}") from None


def _units(printed: Printed, whole: int) -> tuple[int, int]:
    """The value in units of its last decimal, and the number of decimals."""
    text = printed.value.strip().removesuffix("%").strip()
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value <= whole:
        form = "a fraction like 0.864" if printed.fraction else "a percentage like 86.4"
        raise InputError(f"check-table: expected {form} between 0 and {whole}, got {printed.value!r}")
    shown = max(-int(value.as_tuple().exponent), 0)
    decimals = shown if printed.decimals is None else printed.decimals
    if not shown <= decimals <= MAX_DECIMALS:
        raise InputError(
            f"check-table: {printed.value!r} has {shown} decimals; expected --decimals from {shown} to {MAX_DECIMALS}, "
            f"got {decimals}"
        )
    return int(value.scaleb(decimals)), decimals


def _verdict(printed: Printed, name: str, n: int, units: int, decimals: int, whole: int) -> Verdict:
    total, scale = n * printed.seeds, whole * 10**decimals  # k / total prints as units / scale
    low = max(-((1 - 2 * units) * total // (2 * scale)), 0)  # ceil((units - 1/2) total / scale)
    high = min((2 * units + 1) * total // (2 * scale), total)
    below = units * total // scale
    near = [below] if below * scale == units * total else [below, below + 1]
    nearest = tuple((k, _decimal(Fraction(whole * k, total), decimals + 2)) for k in near)
    counts = (low, high) if low <= high else None
    return Verdict(printed.value.strip(), name, n, printed.seeds, counts, nearest, informative=total < scale)


def _decimal(value: Fraction, decimals: int) -> str:
    return f"{Decimal(round(value * 10**decimals)).scaleb(-decimals):f}"
