"""A cell's key is the hash of what it is: every field says what it counts as, and only identity counts."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, fields, replace

import pytest

from corruptions import Point, Stress
from robustbench_msa.evaluation import cells
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, cell_at, clean_cell, plan
from robustbench_msa.evaluation.schemas import RUNTIME
from robustbench_msa.evaluation.store import Runtime

CELL = Cell(
    model="late_fusion",
    model_version=2,
    checkpoint="c" * 64,
    data="d" * 64,
    split="test",
    stress="conflict",
    stress_version=1,
    options=(("fill", "auto"),),
    pool="p" * 64,
    reference=None,
    severity="0.25",
    seed=1112,
    recipe="clean",
    train_seed=1111,
    dataset="synth",
)


def undeclared(cls: type) -> list[str]:
    """Fields that are neither identity nor label."""
    return [f.name for f in fields(cls) if f.metadata.get("kind") not in ("identity", "label")]


def test_every_field_of_a_cell_is_declared() -> None:
    missing = undeclared(Cell)
    assert not missing, (
        f"Cell.{', Cell.'.join(missing)}: declare each with identity() if two cells that differ in it are two cells, "
        "with label() if it only names what an identity field holds; what a cell merely ran on belongs in store.Runtime"
    )


def test_the_check_above_can_fail() -> None:
    @dataclass(frozen=True)
    class Wider(Cell):
        colour: str = "red"

    assert undeclared(Wider) == ["colour"]
    with pytest.raises(KeyError):  # and such a cell has no key: nothing can be stored under a wrong one
        Wider().key  # noqa: B018


def test_what_a_cell_ran_on_is_neither_identity_nor_label() -> None:
    shared = {f.name for f in fields(Runtime)} & {f.name for f in fields(Cell)}
    assert not shared, f"{', '.join(sorted(shared))}: a field of Runtime must not enter a Cell"
    assert RUNTIME.names == ["key", *(f.name for f in fields(Runtime))], "schemas.RUNTIME must hold Runtime's fields"


def other(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, tuple):
        return (*value, ("told", True))
    return f"{value or ''}x"


@pytest.mark.parametrize("name", [f.name for f in fields(Cell) if f.metadata.get("kind") == "identity"])
def test_the_key_changes_with_every_identity_field(name: str) -> None:
    assert replace(CELL, **{name: other(getattr(CELL, name))}).key != CELL.key


@pytest.mark.parametrize("name", [f.name for f in fields(Cell) if f.metadata.get("kind") == "label"])
def test_the_key_does_not_change_with_a_label(name: str) -> None:
    assert replace(CELL, **{name: other(getattr(CELL, name))}).key == CELL.key


def test_null_and_its_spellings_are_different_values() -> None:
    keys = {replace(CELL, severity=s, seed=n).key for s in (None, "", "None", "0") for n in (None, 0)}
    assert len(keys) == 8


def test_an_option_that_is_true_is_not_the_text_true() -> None:
    assert replace(CELL, options=(("told", True),)).key != replace(CELL, options=(("told", "true"),)).key


def test_the_key_is_pinned() -> None:
    """A change here makes every stored result unreachable: raise KEY_VERSION, on purpose, and pin the new one."""
    assert cells.KEY_VERSION == 1
    assert CELL.key == "e4e842bc135dc5f9bc19cd3c"
    assert Cell().key == "880c0a3ad60a293682dc7594"


def test_the_key_version_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CELL.key
    monkeypatch.setattr(cells, "KEY_VERSION", 2)
    assert CELL.key != before


def test_a_cell_comes_back_from_its_json(setting: Setting, subject: Subject) -> None:
    cell = cell_at(subject, setting, Stress.parse("spectrum:told=true"), Point("0.1", "0.3"), 1111)
    entry = asdict(cell)
    again = Cell(**{**entry, "options": tuple((k, v) for k, v in [list(o) for o in entry["options"]])})
    assert again == cell
    assert again.key == cell.key
    assert again.to_stress().label == "spectrum:told=true"
    assert again.point == Point("0.1", "0.3")


def test_clean_is_one_cell_for_all_stresses(setting: Setting, subject: Subject, request_of) -> None:
    requests = [
        request_of("missing", "0:0.8:0.2", 3),
        request_of("noise:fill=mean", None, 2),
        request_of("missing-fixed"),
        request_of("spectrum", "0,0.5x0,0.5", 2),
        request_of("conflict", None, 2),
    ]
    planned = plan([subject], setting, requests)
    assert [cell for cell in planned if cell.is_clean] == [clean_cell(subject, setting)]
    assert planned[0].is_clean
    for request in requests:
        clean_points = [point for point in request.grid.points if point.is_clean]
        assert len(clean_points) == 1
        assert cell_at(subject, setting, request.stress, clean_points[0], 1112) == planned[0]


def test_a_plan_has_no_duplicates(setting: Setting, subject: Subject, request_of) -> None:
    twin = replace(subject, checkpoint="e" * 64, train_seed=1112)
    requests = [request_of("missing", "0:0.8:0.2", 3), request_of("missing:fill=auto", "0.2,0.40", 5)]
    planned = plan([subject, twin, subject], setting, [*requests, requests[0]])
    keys = [cell.key for cell in planned]
    assert len(set(keys)) == len(keys)
    # per model: clean, four severities of three seeds, two severities of two more seeds
    assert len(keys) == 2 * (1 + 4 * 3 + 2 * 2)
    checkpoints = [cell.checkpoint for cell in planned]
    assert checkpoints == sorted(checkpoints), "cells of one checkpoint must stay together"


def test_fixed_conditions_have_no_seeds(setting: Setting, subject: Subject, request_of) -> None:
    three = plan([subject], setting, [request_of("missing-fixed", None, 3)])
    assert three == plan([subject], setting, [request_of("missing-fixed", None, 1)])
    assert len(three) == 7  # six conditions and clean
    assert {cell.seed for cell in three} == {None}
    assert {cell.condition for cell in three} == {None, "t", "a", "v", "t+a", "t+v", "a+v"}


def test_severities_have_one_spelling(setting: Setting, subject: Subject, request_of) -> None:
    one, two = (plan([subject], setting, [request_of("missing", grid)]) for grid in ("0,0.2,0.4", "0.00:0.40:0.2"))
    assert one == two


def test_only_what_a_stressor_uses_enters_its_cells(setting: Setting, subject: Subject, request_of) -> None:
    def used(stress: str, grid: str) -> tuple[bool, bool]:
        cell = plan([subject], setting, [request_of(stress, grid)])[-1]
        return cell.pool is not None, cell.reference is not None

    assert used("missing", "0.4") == (False, False)
    assert used("missing:fill=mean", "0.4") == (False, True)
    assert used("conflict", "0.5") == (True, False)
    assert used("noise", "0.5") == (False, True)
    assert used("spectrum", "0,0.5x0.5") == (False, True)


def test_a_larger_grid_and_more_seeds_keep_the_old_cells(setting: Setting, subject: Subject, request_of) -> None:
    small = plan([subject], setting, [request_of("noise", "0,0.2,0.4", 2)])
    large = plan([subject], setting, [request_of("noise", "0:0.5:0.1", 3)])
    assert {cell.key for cell in small} < {cell.key for cell in large}


@pytest.mark.parametrize(
    "stress", ["missing", "spectrum:told=true,fill=mean", "missing-fixed", "noise:sigma_ref=modality"]
)
def test_a_request_comes_back_from_its_json(stress: str, request_of) -> None:
    request = request_of(stress, None, 3)
    assert Request.from_json(request.to_json()) == request


def test_a_cell_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CELL.seed = 3
