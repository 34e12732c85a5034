"""What a stress does to one sample, severity by severity: the data behind ``sample_figure``, made without drawing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from corruptions import MODALITIES, Batch, Draws, Grid, InputError, Point, Reference, Stress
from corruptions.grid import ALL_AVAILABLE
from corruptions.stressor import Adversary
from robustbench_msa.reporting import names
from robustbench_msa.reporting.sample_strip import PADDING, TOLD, UNTOLD, Array, Strip, strip_of

MAX_COLUMNS = 6
"""Severities shown; available sets are all shown, there are seven of them."""
TRIED = 48
"""Samples among which the representative one is looked for."""


class Column(NamedTuple):
    """The sample at one point. title: a line for each severity axis."""

    point: Point
    title: str
    strips: tuple[Strip, ...]

    @property
    def happened(self) -> frozenset[tuple[str, str]]:
        """What can be seen in it: pairs of modality and mark."""
        marks = {(strip.modality, mark) for strip in self.strips for mark in strip.marks}
        return frozenset(pair for pair in marks if pair[1] not in ("", PADDING))


class SampleInfo(NamedTuple):
    """stress: as typed. data: dataset and split in words. model: whose worst case it is.

    limits: the end of each modality's colour scale, in training standard deviations.
    """

    stress: str
    title: str
    sample: str
    label: float | None
    data: str
    seed: int | None
    model: str
    token_text: bool
    columns: tuple[Column, ...]
    limits: tuple[float, ...]

    def frame(self) -> pd.DataFrame:
        """The masks that are drawn, one row a step; steps count from 1, noise is in training standard deviations."""
        rows = [
            (column.point, strip, t, mark)
            for column in self.columns
            for strip in column.strips
            for t, mark in enumerate(strip.marks)
        ]
        return pd.DataFrame(
            {
                "stress": self.stress,
                "sample": self.sample,
                "severity": [point.severity for point, *_ in rows],
                "severity_2": [point.severity_2 for point, *_ in rows],
                "condition": [point.condition for point, *_ in rows],
                "modality": [strip.modality for _, strip, *_ in rows],
                "step": [t + 1 for *_, t, _ in rows],
                "mark": [mark for *_, mark in rows],
                "noise": [float(strip.noise[t]) for _, strip, t, _ in rows],
                "donor": [strip.donor for _, strip, *_ in rows],
                "shift": [strip.shift for _, strip, *_ in rows],
            }
        )


class Setting(NamedTuple):
    """What a sample is shown under. points: the columns. split: the samples it stands among, where donors come from.

    reference: the training statistics, for the noise and for what is shown. adversary, model: the model and its name,
    for a stress that depends on it. All on the CPU.
    """

    stress: Stress
    points: tuple[Point, ...]
    split: Batch
    reference: Reference
    seed: int = 1111
    adversary: Adversary | None = None
    model: str = ""


def sample_info(setting: Setting, sample: str, data: str) -> SampleInfo:
    """One sample under one stress. data: dataset and split in words.

    Raises:
        InputError: no such sample in the split (near ids are named), or the stress does not fit the data.
    """
    row = row_of(sample, setting.split, data)
    (columns,) = columns_of(setting, [row])
    limits = tuple(_limit([column.strips[i].values for column in columns]) for i in range(len(MODALITIES)))
    stress, labels = setting.stress, setting.split.labels
    label = None if labels is None else float(labels[row])
    seed = setting.seed if stress.stressor.random else None
    title = names.stress_title(stress.name, stress.params)
    return SampleInfo(
        stress.label, title, sample, label, data, seed, setting.model, setting.split.has_token_text, columns, limits
    )


def row_of(sample: str, split: Batch, data: str) -> int:
    """The place of a sample by its id. Raises InputError when there is none."""
    if sample in split.ids:
        return split.ids.index(sample)
    near = difflib.get_close_matches(sample, split.ids, n=3, cutoff=0.5)
    there = f"near it: {', '.join(near)}" if near else f"the first is {split.ids[0]}"
    raise InputError(f"sample {sample[:80]!r} is not one of the {len(split)} of {data}; {there}")


def columns_of(setting: Setting, rows: Sequence[int]) -> list[tuple[Column, ...]]:
    """The columns of each of these samples. The rest of the split is left alone unless the order of samples matters."""
    stress, split = setting.stress, setting.split
    everyone = order_matters(stress)
    batch = split if everyone else split.select(list(rows))
    draws = Draws(setting.seed, batch)
    done = [
        stress.apply(batch, point, draws, setting.reference, split, None if point.is_clean else setting.adversary)
        for point in setting.points
    ]
    places = list(rows) if everyone else range(len(rows))
    return [
        tuple(
            Column(point, _title(stress, point), tuple(strip_of(c, place, m, setting.reference) for m in MODALITIES))
            for point, c in zip(setting.points, done, strict=True)
        )
        for place in places
    ]


def shown_points(stress: Stress, grid: Grid) -> tuple[Point, ...]:
    """The untouched input, then at most five points spread over the grid (of two axes: its diagonal), or every set.

    >>> noise = Stress.parse("noise-lambda")
    >>> [str(point) for point in shown_points(noise, noise.grid("0:0.7:0.1"))]
    ['0', '0.2', '0.4', '0.6', '0.7']
    """
    if grid.conditions:
        return tuple(Point(condition=c) for c in (ALL_AVAILABLE, *(c for c in grid.conditions if c != ALL_AVAILABLE)))
    count = min(map(len, grid.axes))
    diagonal = [Point(*(axis[_spread(i, count, len(axis))] for axis in grid.axes)) for i in range(count)]
    points = [Point(*("0" for _ in grid.axes)), *(point for point in diagonal if not point.is_clean)]
    every = max(1, -(-(len(points) - 1) // (MAX_COLUMNS - 1)))
    thinned = points[::every]
    return (*thinned, *([points[-1]] if thinned[-1] != points[-1] else []))


def order_matters(stress: Stress) -> bool:
    """Does what happens to a sample depend on its place in the split? Variants named legacy say so."""
    return any(key.rpartition(".")[2] == "legacy" and value != "none" for key, value in stress.options)


def representative(setting: Setting) -> str:
    """The id of a sample that shows well what the stress does.

    It has all modalities, and text and audio of at least middling length, as far as there is one; of those, the
    nearest to the seventh decile of length (no faint labels first) that the draws hit in the middle column, with
    several things to see.
    """
    split, stressor = setting.split, setting.stress.stressor
    longer = np.stack([_share_shorter(split.lengths(m).numpy()) for m in MODALITIES], 1)  # (N, 3)
    short = ((longer < 0.5) & (longer < longer.max(0)))[:, :2].any(1)
    missing = 3 - split.present.numpy().sum(1)
    size = np.zeros(len(split)) if split.labels is None else split.labels.abs().numpy()
    faint = size < np.median(size)
    ids = np.array(split.ids)
    order: list[int] = np.lexsort((ids, np.abs(longer - 0.7).sum(1), faint, short, missing)).tolist()
    if not stressor.random or stressor.needs_adversary:
        return split.ids[order[0]]
    fitting = [row for row in order if (missing[row], short[row]) == (missing[order[0]], short[order[0]])]
    tried = fitting[:TRIED]
    interest = [_interest(columns) for columns in columns_of(setting, tried)]
    return split.ids[tried[interest.index(max(interest))]]


def _interest(columns: tuple[Column, ...]) -> tuple[bool, bool, int, int]:
    """Is it hit in the middle, and not all gone there; how many different columns (three are enough); how much to see
    in the middle."""
    happened = [column.happened for column in columns]
    place = len(columns) // 2
    something_left = any(strip.fate not in (TOLD, UNTOLD) for strip in columns[place].strips)
    return bool(happened[place]), something_left, min(3, len(set(happened))), len(happened[place])


def _share_shorter(lengths: Array) -> Array:
    """The share of samples that are shorter, ``(N,)``."""
    return np.searchsorted(np.sort(lengths), lengths) / len(lengths)


def _spread(i: int, count: int, length: int) -> int:
    """The i-th of ``count`` places spread evenly over ``length``."""
    return length - 1 if count == 1 else round(i * (length - 1) / (count - 1))


def _title(stress: Stress, point: Point) -> str:
    if point.is_clean:
        return "untouched"
    if point.condition is not None:
        return f"only {names.condition_label(point.condition)}"
    symbols = [names.AXES.get(axis.symbol, axis.symbol).split()[-1] for axis in stress.axes]
    if len(set(symbols)) < len(symbols):  # of a composition: whose is whose?
        symbols = [f"{part} {symbol}" for part, symbol in zip(stress.name.split("+"), symbols, strict=True)]
    values = [value for value in (point.severity, point.severity_2) if value is not None]
    return "\n".join(f"{symbol} = {value}" for symbol, value in zip(symbols, values, strict=True))


def _limit(values: Sequence[Array]) -> float:
    """Where the colours end: 98 of 100 values lie within, in half standard deviations; at least 1."""
    size = np.abs(np.concatenate([v[~np.isnan(v)] for v in values]))
    return max(1.0, float(np.ceil(2 * np.quantile(size, 0.98)) / 2)) if len(size) else 1.0
