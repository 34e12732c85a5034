"""Printed accuracies against every count there is."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corruptions import InputError
from robustbench_msa.analysis.granularity import Printed, check, read_csv


def counts_that_print(units: int, decimals: int, total: int) -> list[int]:
    """By enumeration: |100 k / N - v| at most half a unit of the last decimal."""
    value, half = Fraction(units, 10**decimals), Fraction(1, 2 * 10**decimals)
    return [k for k in range(total + 1) if abs(Fraction(100 * k, total) - value) <= half]


@pytest.mark.parametrize(("n", "seeds"), [(1, 1), (7, 1), (29, 1), (13, 3), (40, 5)])
@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_possible_is_what_some_count_prints_as(n: int, seeds: int, decimals: int) -> None:
    for units in range(0, 100 * 10**decimals + 1, 7 if decimals == 2 else 1):
        text = f"{Decimal(units).scaleb(-decimals):f}"
        (verdict,) = check(Printed(text, n, seeds, decimals))
        expected = counts_that_print(units, decimals, n * seeds)
        assert verdict.possible == bool(expected), text
        if expected:
            assert verdict.counts == (expected[0], expected[-1])


@given(st.integers(1, 3000), st.integers(1, 5), st.integers(0, 4), st.data())
def test_what_was_really_reached_can_always_be_printed(n: int, seeds: int, decimals: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n * seeds))
    exact = Decimal(100 * count) / Decimal(n * seeds)
    for rounding in (ROUND_HALF_EVEN, ROUND_HALF_UP):
        text = str(exact.quantize(Decimal(1).scaleb(-decimals), rounding=rounding))
        (verdict,) = check(Printed(text, n, seeds))
        assert verdict.counts is not None
        assert verdict.counts[0] <= count <= verdict.counts[1]


@given(st.integers(1, 2000), st.integers(0, 1000))
def test_the_nearest_values_stand_on_either_side(n: int, tenths: int) -> None:
    (verdict,) = check(Printed(f"{tenths / 10:.1f}", n))
    value = Fraction(tenths, 10)
    near = [Fraction(100 * count, n) for count, _ in verdict.nearest]
    if len(near) == 1:
        assert near == [value]
    else:
        assert near[0] < value < near[1]
        assert near[1] - near[0] == Fraction(100, n)
    for (_, text), exact in zip(verdict.nearest, near, strict=True):
        assert abs(Fraction(text) - exact) <= Fraction(1, 2000)


def test_on_the_686_clips_of_mosi() -> None:
    possible, impossible = check(Printed("86.4", 686))[0], check(Printed("86.1", 686))[0]
    assert possible.counts == (593, 593)  # 86.443
    assert not impossible.possible
    assert impossible.nearest == ((590, "86.006"), (591, "86.152"))
    assert check(Printed("86.1", 686, seeds=3))[0].possible
    assert str(impossible) == "86.1  n 686: impossible; nearest 86.006 (590/686) and 86.152 (591/686)"


def test_a_half_may_be_rounded_either_way() -> None:
    """1 of 8 is 12.5: as whole percent 12 and 13 are both granted, 14 is not."""
    assert [check(Printed(text, 8))[0].possible for text in ("12", "13", "14")] == [True, True, False]


def test_trailing_zeros_and_given_decimals_are_decimals() -> None:
    assert not check(Printed("33.30", 3))[0].possible  # 33.33 to two decimals
    assert check(Printed("33.3", 3))[0].possible
    assert not check(Printed("33.3", 3, decimals=2))[0].possible
    assert check(Printed("33%", 3))[0].possible


def test_fractions_are_percents_by_another_name() -> None:
    for text, fraction in (("86.1", ".861"), ("86.4", "0.864"), ("100.0", "1.000")):
        one, other = check(Printed(text, 686))[0], check(Printed(fraction, 686, fraction=True))[0]
        assert one.counts == other.counts


def test_where_samples_are_many_nothing_can_be_said() -> None:
    assert [check(Printed("50.3", n))[0].informative for n in (999, 1000)] == [True, False]
    assert "so is every value" in str(check(Printed("50.3", 1000))[0])
    for units in range(1001):
        assert check(Printed(f"{units / 10:.1f}", 1000))[0].possible


def test_the_non_zero_samples_are_a_second_chance() -> None:
    verdicts = check(Printed("86.1", 686, n_nonzero=656))
    assert [(v.denominator, v.n, v.possible) for v in verdicts] == [("n", 686, False), ("n_nonzero", 656, True)]


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (Printed("abc", 10), "a percentage like 86.4 between 0 and 100, got 'abc'"),
        (Printed("100.1", 10), "between 0 and 100"),
        (Printed("-1", 10), "between 0 and 100"),
        (Printed("nan", 10), "between 0 and 100"),
        (Printed("86.4", 10, fraction=True), "a fraction like 0.864 between 0 and 1"),
        (Printed("86.44", 10, decimals=1), "'86.44' has 2 decimals"),
        (Printed("86", 10, decimals=-1), "from 0 to 12, got -1"),
        (Printed("86", 0), "n of 1 or more, got 0"),
        (Printed("86", 10, seeds=0), "seeds of 1 or more"),
        (Printed("86", 10, n_nonzero=-3), "n_nonzero of 1 or more"),
    ],
)
def test_bad_input_says_so(printed: Printed, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(printed)


def test_a_csv_gives_its_own_counts_or_takes_the_given_ones(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("model,value,n,seeds,decimals\na,86.1,,,\nb, 84.4 ,656,3,2\n", encoding="utf-8-sig")
    found = read_csv(path, {"n": 686, "seeds": 1, "decimals": None})
    assert found == [Printed("86.1", 686), Printed(" 84.4 ", 656, 3, 2)]
    assert [check(one)[0].value for one in found] == ["86.1", "84.4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "with rows and the columns value"),
        ("n,seeds\n3,1\n", "the columns value"),
        ("value\n86.1\n", "row 2: expected n, the number of samples"),
        ("value,n\n86.1,12.5\n", "row 2, n: expected a whole number, got '12.5'"),
    ],
)
def test_a_bad_csv_says_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        read_csv(path, {})
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_csv(tmp_path / "none.csv", {})
