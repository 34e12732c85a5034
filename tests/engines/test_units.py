"""Units, shares of them, and who gets which next."""

from __future__ import annotations

import threading
import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import InputError, Stress
from robustbench_msa.engines.on_ray import gathered
from robustbench_msa.engines.schedule import Schedule
from robustbench_msa.engines.units import Shard, Unit, units_of
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.groups import points_like

SETTING = Setting(dataset="synth", data="d" * 64, split="test", pool="p" * 64, reference="r" * 64)


def cells_of(models: str, *stresses: str, seeds: int = 3) -> list[Cell]:
    parsed = [Stress.parse(text) for text in stresses]
    requests = [Request(stress, stress.grid(None), tuple(range(1111, 1111 + seeds))) for stress in parsed]
    return plan([Subject(name, 1, name * 64, "clean", 1111) for name in models], SETTING, requests)


def test_what_is_fused_together_is_in_one_unit() -> None:
    cells = cells_of("ab", "missing", "spectrum", "noise+missing")
    home = {cell.key: i for i, unit in enumerate(units_of(cells)) for cell in unit.cells}
    assert home.keys() == {cell.key for cell in cells}
    fused = {(c.checkpoint, c.stress, c.seed) for c in cells if not c.is_clean and points_like(c)}
    assert len(fused) == 2 * 2 * 3, "of missing and of spectrum"
    where: dict[tuple[object, ...], set[int]] = {}
    for cell in cells:
        if not cell.is_clean:
            where.setdefault((cell.checkpoint, cell.stress, cell.options, cell.seed), set()).add(home[cell.key])
    assert all(len(units) == 1 for units in where.values())
    assert len(units_of(cells)) == len(where) == 2 * 3 * 3, "the clean cells are no units of their own"


def test_the_clean_cell_comes_first_and_alone_only_where_nothing_else_is_left() -> None:
    cells = cells_of("ab", "missing")
    for name in "ab":
        first = next(unit for unit in units_of(cells) if unit.checkpoint == name * 64)
        assert first.cells[0].is_clean
    left = [cell for cell in cells if cell.checkpoint == "a" * 64 or cell.is_clean]
    assert [len(unit.cells) for unit in units_of(left)] == [5, 4, 4, 1]
    assert units_of([]) == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.sampled_from(["a", "ab", "abcde"]),
    st.sampled_from([("missing",), ("missing", "spectrum"), ("noise", "conflict", "missing")]),
    st.integers(1, 4),
)
def test_the_shares_are_the_cells_each_once(count: int, models: str, stresses: tuple[str, ...], seeds: int) -> None:
    cells = cells_of(models, *stresses, seeds=seeds)
    shares = [Shard(i + 1, count).of(cells) for i in range(count)]
    assert [cell for share in shares for cell in share] == sorted(cells, key=key_of(units_of(cells)))
    largest = max(len(unit.cells) for unit in units_of(cells))
    assert all(abs(len(share) - len(cells) / count) <= largest for share in shares)
    for unit, share in product(units_of(cells), shares):
        there = {cell.key for cell in share}
        assert len({cell.key in there for cell in unit.cells}) == 1, "a unit is in one share"


def key_of(units: list[Unit]):
    place = {cell.key: i for i, cell in enumerate(cell for unit in units for cell in unit.cells)}
    return lambda cell: place[cell.key]


def test_a_share_of_nothing() -> None:
    assert Shard(1, 3).of([]) == []


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "1/4/4", "-1/4", " 1/4", "01/4", "1/4x", "", "١/٤"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard .*: expected I/N with I from 1 to N, as in 1/4 .*SLURM_ARRAY"):
        Shard.parse(text)


def test_a_worker_stays_with_its_checkpoint_and_free_ones_go_where_most_is_to_be_done() -> None:
    schedule = Schedule(units_of(cells_of("ab", "missing", seeds=4) + cells_of("c", "missing", seeds=10)))
    taken = {worker: [schedule.take(worker)] for worker in range(3)}
    assert [units[0].checkpoint[0] for units in taken.values()] == ["c", "c", "a"]
    rest = [schedule.take(2).checkpoint[0] for _ in range(4)]
    assert rest == ["a", "a", "a", "b"], "the one that holds a ends a, then helps where nobody is"
    assert [schedule.take(0).checkpoint[0] for _ in range(8)] == ["c"] * 8
    assert [schedule.take(1).checkpoint[0] for _ in range(3)] == ["b"] * 3


def test_who_has_no_more_to_do_waits_for_what_may_come_back() -> None:
    (unit,) = units_of(cells_of("a", "missing", seeds=1))
    schedule, got = Schedule([unit]), []
    assert schedule.take(0) == unit
    other = threading.Thread(target=lambda: got.append(schedule.take(1)))
    other.start()
    time.sleep(0.05)
    assert got == []
    schedule.give_back(0, unit)
    other.join(10)
    assert got == [unit]
    schedule.finish()
    assert schedule.take(0) is None


def test_units_are_put_together_for_few_tasks() -> None:
    units = units_of(cells_of("ab", "missing", "noise", seeds=5))
    found = gathered(units, 2)
    assert [cell for unit in found for cell in unit.cells] == [cell for unit in units for cell in unit.cells]
    assert all(len({cell.checkpoint for cell in unit.cells}) == 1 for unit in found)
    assert 8 <= len(found) < len(units)
    assert gathered(units, 100) == units
