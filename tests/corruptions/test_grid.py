"""Severities as exact decimals, and grids as people type them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import STRESSORS, Grid, InputError, Point, Stress
from corruptions.grid import SUBSETS, Axis, canonical, rounded_share

UNIT = [Axis("rho", "0", "1")]
OPEN = [Axis("m", "0", "1", open_end=True)]
TWO = [Axis("lambda", "0", "2"), Axis("eta", "0", "1")]


@pytest.mark.parametrize(
    ("severity", "length", "count"),
    [
        ("0.3", 15, 4),  # 4.5, half to even; the float 0.1 + 0.2 gives 4.500000000000001
        ("0.1", 5, 0),
        ("0.7", 10, 7),
        ("0.1", 15, 2),
        ("0.1", 35, 4),
        ("0.14", 75, 10),  # 10.5; in floats 10.500000000000002
        ("0.35", 90, 32),  # 31.5; in floats 31.499999999999996
        ("0.7", 45, 32),  # 31.5; in floats 31.499999999999996
        ("0.82", 75, 62),  # 61.5; in floats 61.49999999999999
        ("0.5", 1, 0),
        ("0.5", 3, 2),
        ("1", 13, 13),
        ("0", 13, 0),
        ("0.9", 0, 0),
    ],
)
def test_counts_by_hand(severity: str, length: int, count: int) -> None:
    assert rounded_share(Decimal(severity), torch.tensor([length])).tolist() == [count]


def test_counts_are_those_of_fractions(make: ModuleType) -> None:
    lengths = list(range(121))
    for hundredths in range(101):
        severity = canonical(Decimal(hundredths) / 100)
        got = rounded_share(Decimal(severity), torch.tensor(lengths))
        assert got.dtype == torch.int64
        assert got.tolist() == [make.half_even(severity, n) for n in lengths], severity


@pytest.mark.parametrize(
    ("text", "spelling"),
    [("0.30", "0.3"), ("1e-1", "0.1"), ("1E+0", "1"), ("-0.0", "0"), ("10", "10"), ("0.000", "0"), ("1.20e1", "12")],
)
def test_canonical_decimals(text: str, spelling: str) -> None:
    assert canonical(Decimal(text)) == spelling


@settings(max_examples=60, deadline=None)
@given(st.decimals(-1000, 1000, places=4), st.integers(0, 4))
def test_equal_decimals_have_one_spelling(value: Decimal, zeros: int) -> None:
    longer = value.quantize(Decimal(1).scaleb(-4 - zeros))
    assert canonical(longer) == canonical(value)
    assert Fraction(canonical(value)) == Fraction(value)
    assert "E" not in canonical(value)


@pytest.mark.parametrize(
    ("text", "axes", "expected"),
    [
        ("0:0.8:0.2", OPEN, [("0", "0.2", "0.4", "0.6", "0.8")]),
        ("0:0.7:0.1", UNIT, [tuple(canonical(Decimal(i) / 10) for i in range(8))]),
        ("0:1:0.25", UNIT, [("0", "0.25", "0.5", "0.75", "1")]),
        ("0,0.25,1", UNIT, [("0", "0.25", "1")]),
        (" 0.10 , 0.2 ", UNIT, [("0.1", "0.2")]),
        ("0.4", OPEN, [("0.4",)]),
        ("0.999999", OPEN, [("0.999999",)]),
        ("1e-1,2E-1", UNIT, [("0.1", "0.2")]),
        ("0.1:0.4:0.15", UNIT, [("0.1", "0.25", "0.4")]),
        ("0:0.2:0.1x0,1", TWO, [("0", "0.1", "0.2"), ("0", "1")]),
        ("0:2:1X0.5", TWO, [("0", "1", "2"), ("0.5",)]),
        ("0,2×0.5", TWO, [("0", "2"), ("0.5",)]),
    ],
)
def test_grids_that_are_right(text: str, axes: list[Axis], expected: list[tuple[str, ...]]) -> None:
    assert Grid.parse(text, axes).axes == tuple(expected)


@pytest.mark.parametrize(
    ("text", "axes", "message"),
    [
        ("0.4,0.2", UNIT, r"'0.4,0.2'.*must increase"),
        ("0,0.2,0.20", UNIT, "must increase"),
        ("0:1.2:0.2", UNIT, r"1\.2 is outside the stressor's range, rho in \[0, 1\]"),
        ("-0.1,0.2", UNIT, r"-0\.1 is outside"),
        ("0,1", OPEN, r"1 is outside the stressor's range, m in \[0, 1\)"),
        ("0:1:0.2", OPEN, "1 is outside"),
        ("0:0.8:0.3", UNIT, "step 0.3 does not divide the range from 0 to 0.8"),
        ("0:0.8:0", UNIT, "positive step"),
        ("0:0.8:-0.2", UNIT, "positive step"),
        ("0.8:0:0.2", UNIT, "start < stop"),
        ("0:0.8", UNIT, "expected start:stop:step"),
        ("0:0.8:0.2:1", UNIT, "expected start:stop:step"),
        ("", UNIT, "'' is not a severity"),
        ("0,,1", UNIT, "'' is not a severity"),
        ("much", UNIT, "'much' is not a severity"),
        ("nan", UNIT, "not a severity"),
        ("0,inf", UNIT, "not a severity"),
        ("1e-99", UNIT, "not a severity"),
        ("0.1234567890123", UNIT, "not a severity"),
        ("0:1:0.00001", UNIT, "more than 10000 points"),
        ("0:2:0.01x0:1:0.01", TWO, "20301 points; at most 10000"),
        ("0:0.7:0.1", TWO, "expected a product of two axes.*got 1 axes"),
        ("0:0.7:0.1x0:0.7:0.1", UNIT, "expected a grid like 0:0.8:0.2, got 2 axes"),
        ("0x0.5x1", TWO, "got 3 axes"),
        ("0:2:1x0:2:1", TWO, "2 is outside the stressor's range, eta"),
        ("t,q", [], "'q' is not an available set; expected some of t, a, v"),
        ("0.4", [], "'0.4' is not an available set"),
        ("t+t", [], "not an available set"),
        ("", [], "not an available set"),
        ("t+a,a+t", [], "listed twice"),
    ],
)
def test_grids_that_are_wrong(text: str, axes: list[Axis], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grid.parse(text, axes)


def test_available_sets_have_one_spelling() -> None:
    assert Grid.parse("T, v + a ,v+t+a", []).conditions == ("t", "a+v", "t+a+v")
    assert len(set(SUBSETS)) == 7


def test_points_are_the_product_in_order() -> None:
    points = Grid.parse("0,1x0,0.5", TWO).points
    assert points == (Point("0", "0"), Point("0", "0.5"), Point("1", "0"), Point("1", "0.5"))
    assert [p.is_clean for p in points] == [True, False, False, False]
    assert points[1].values == (Decimal(0), Decimal("0.5"))
    assert [p.is_clean for p in Grid.parse("t,t+a+v", []).points] == [False, True]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 1000), min_size=1, max_size=6), st.sets(st.integers(0, 1000), min_size=1, max_size=6))
def test_a_grid_is_parsed_from_its_own_text(first: set[int], second: set[int]) -> None:
    text = "x".join(",".join(str(Decimal(v) / 1000) for v in sorted(axis)) for axis in (first, second))
    grid = Grid.parse(text, TWO)
    assert Grid.parse(str(grid), TWO) == grid
    assert len(grid.points) == len(first) * len(second)


@pytest.mark.parametrize("name", STRESSORS)
def test_default_grids_are_grids(name: str) -> None:
    stress = Stress.parse(name)
    assert str(stress.grid()) == stress.stressor.default_grid
    assert stress.grid() == stress.grid(stress.stressor.default_grid)


def test_an_empty_grid_is_not_the_default() -> None:
    with pytest.raises(InputError, match="not a severity"):
        Stress.parse("missing").grid("")
