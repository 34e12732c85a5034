"""Which printed numbers belong beside a leaderboard's columns: same dataset, stress and metric, and the same score.

Where a paper prints a curve, its score over the column's grid is made from the printed values. Where it leaves out a
point of that grid (mostly the untouched input), its printed average stands there, and a footnote says over what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pandas as pd

from corruptions import Grid, Stress
from corruptions.grid import canonical
from robustbench_msa.analysis.grid_report import grid_report
from robustbench_msa.reporting import names
from robustbench_msa.reporting.board import Board, PublishedRow, PublishedScore
from robustbench_msa.reporting.columns import CLEAN, Column

PAPER_NAMES = {"qa_moe": "QA-MoE", "rider_moe": "RIDER-MoE", "ca_moe": "CA-MoE", "emoe": "EMOE", "text": "TEXT"}
NOT_COMPARABLE = (
    "Rows with a paper and its table in brackets: numbers as printed there, obtained elsewhere on other features, with "
    "other training and by other protocols; they are not comparable one to one with the rows above"
)
_CLEAN_SETTINGS = ("clean", "aligned", "unaligned")
_RIDER = {"noise": "0:0.5:0.1", "missing": "0:0.8:0.2", "conflict": "0:1:0.25"}
_CURVES = {
    ("missing-fixed", ""): "missing-fixed",
    ("missing-random", ""): "missing-random",
    ("noise-lambda", ""): "noise-lambda",
    ("spectrum", ""): "spectrum",
    ("spectrum", "variant=mixture"): "mixture",
}
"""The setting of the papers behind a stress with its parameters."""
_ALIKE = {"acc2": ("acc2_has0", "acc2_non0"), "f1": ("f1_has0", "f1_non0")}
"""Printed metrics that do not say what they do with labels of 0 (their remarks say that they do not)."""
_AVERAGE = "Avg"
Printed = Mapping[Any, Any]
"""A row of ``published()``."""


def published_rows(board: Board, rows: pd.DataFrame) -> dict[str, Any]:
    """``published`` and ``about_published`` of a board. rows: those of ``published()`` that may be shown."""
    dataset = family(board.facts.dataset)
    here = rows.assign(order=range(len(rows)))[rows["dataset"] == dataset]
    if here.empty:
        return {"published": (), "about_published": _none(board.facts.dataset, rows)}
    found: dict[tuple[str, ...], dict[int, PublishedScore]] = {}
    order: dict[tuple[str, ...], int] = {}
    for j, column in enumerate(board.columns):
        for row, setting, score in _of_column(column, here):
            key = (PAPER_NAMES[row["paper"]], row["table"], setting, _model(row))
            found.setdefault(key, {})[j] = score
            order[key] = min(row["order"], order.get(key, row["order"]))
    if not found:
        where = names.DATASETS.get(dataset, dataset)
        return {"published": (), "about_published": f"No published numbers on {where} for these columns"}
    split = "" if board.facts.split == "test" else "; theirs are on the test split"
    made = tuple(
        PublishedRow(key[0], key[1], key[2], key[3], tuple(found[key].get(j) for j in range(len(board.columns))))
        for key in sorted(found, key=lambda key: order[key])  # as in the papers' tables
    )
    return {"published": made, "about_published": NOT_COMPARABLE + split}


def family(dataset: str) -> str:
    """The dataset as papers know it: mosi for mosi-tokens or mosi:file.

    >>> family("mosi"), family("synth:test=40")
    ('mosi', 'synth')
    """
    return dataset.split(":")[0].split("-")[0]


def _of_column(column: Column, rows: pd.DataFrame) -> Iterator[tuple[Printed, str, PublishedScore]]:
    """A printed row (of a curve its first), the alignment where that is its setting, and its score."""
    rows = rows[[column.metric.name in _metrics(metric) for metric in rows["metric"]]]
    if column.score == CLEAN:
        some = rows[rows["setting"].isin(_CLEAN_SETTINGS) & (rows["variant"] == "") & (rows["condition"] == "")]
        for row in some.to_dict("records"):
            yield row, row["setting"].replace("clean", ""), _as_printed(row)
        return
    if column.params == "" and column.score == "nauc" and _RIDER.get(column.stress) == column.grid:
        some = rows[rows["metric"].str.startswith("nauc_") & (rows["setting"] == column.stress)]
        for row in some.to_dict("records"):
            yield row, "", _as_printed(row)
    setting = _CURVES.get((column.stress, column.params))
    if setting is not None and column.score in ("nauc", "auc_raw", "grid_mean", "worst"):
        some = rows[(rows["setting"] == setting) & ~rows["metric"].str.startswith("nauc_")]
        for _, curve in some.groupby(["paper", "table", "model", "variant", "metric"], sort=False):
            if score := _of_curve(column, curve):
                yield curve.iloc[0].to_dict(), "", score


def _of_curve(column: Column, curve: pd.DataFrame) -> PublishedScore | None:
    """The column's score from printed values, or the printed average of other points."""
    grid = Stress.parse(":".join(filter(None, (column.stress, column.params)))).grid(column.grid)
    printed = {_at(row["condition"]): row for row in curve.to_dict("records")}
    average = printed.pop((_AVERAGE,), None)
    points = [_point_key(point.condition, point.severity, point.severity_2) for point in grid.points]
    if printed.keys() == {()} and len(points) == 1:  # one mixed test set has no severity in print
        points = [()]
    if all(point in printed for point in points):
        rows = [printed[point] for point in points]
        value = _score(grid, [_value(row) for row in rows], column)
        if value is None:
            return None
        told = [f"made from the {len(rows)} printed values"] if len(rows) > 1 else []
        told += [f"the paper's average: {average['value']}"] if average else []
        return PublishedScore(value, column.format(value), "; ".join([*told, *_remarks([*rows, average])]))
    if average is None or column.score not in ("nauc", "grid_mean") or column.by_condition:
        return None
    return _as_printed(average, f"the paper's average over {', '.join(key[0] for key in printed)}, not over the grid")


def _score(grid: Grid, values: list[float], column: Column) -> float | None:
    axes = [[float(severity) for severity in axis] for axis in grid.axes]
    array = pd.Series(values).to_numpy().reshape([len(axis) for axis in axes] or [-1])
    higher = column.metric.higher_is_better
    return grid_report(axes, array, clean=None, floor=None, higher_is_better=higher)[column.score][0]


def _as_printed(row: Printed, told: str = "") -> PublishedScore:
    return PublishedScore(_value(row), row["value"], "; ".join(filter(None, [told, row["remark"]])))


def _value(row: Printed) -> float:
    number = float(row["number"])
    return round(number / 100, 8) if row["unit"] == "percent" else number


def _metrics(printed: str) -> tuple[str, ...]:
    """The metrics that a printed one may stand beside.

    >>> _metrics("nauc_acc2"), _metrics("mae")
    (('acc2', 'acc2_has0', 'acc2_non0'), ('mae',))
    """
    name = printed.removeprefix("nauc_")
    return (name, *_ALIKE.get(name, ()))


def _at(condition: str) -> tuple[str, ...]:
    """Where a printed value stands: severities in their one spelling, or a set.

    >>> _at("lambda=0.0;eta=0.30"), _at("t+a"), _at("")
    (('0', '0.3'), ('t+a',), ())
    """
    if "=" in condition:
        return tuple(canonical(Decimal(part.split("=")[1])) for part in condition.split(";"))
    return (condition,) if condition else ()


def _point_key(*where: str | None) -> tuple[str, ...]:
    return tuple(part for part in where if part is not None)


def _remarks(rows: Iterable[Printed | None]) -> list[str]:
    """Every remark once."""
    return list(dict.fromkeys(part for row in rows if row for part in row["remark"].split("; ") if part))


def _model(row: Printed) -> str:
    return ", ".join(filter(None, (row["model"], row["variant"].lower())))


def _none(dataset: str, rows: pd.DataFrame) -> str:
    known = [names.DATASETS.get(name, name) for name in dict.fromkeys(rows["dataset"]) if name]
    return f"No published numbers on {names.DATASETS.get(dataset, dataset)}: the papers' are on {', '.join(known)}"
