"""Equal rows are fused once, and what is fused together does not depend on which cells a run has or lacks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Stress
from corruptions.corruption import Sources
from robustbench_msa.evaluation.cells import Cell, Request, Subject, plan
from robustbench_msa.evaluation.groups import points_like, shared_rows
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.rows import distinct, kinds_of_derived, places, rows_of
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part

SUBJECT = Subject("any", 1, "c" * 64)


class Gossip(MSAModel):
    """Its predictions tell who was fused together: each depends a little on all rows of its batch, and their order."""

    name = "gossip"

    def __init__(self) -> None:
        super().__init__(InputSpec((1, 1, 1)), None)
        self.fused = 0

    def encode_modality(self, modality: str, x: torch.Tensor, lengths: torch.Tensor) -> Part:
        return {"mean": x.mean((1, 2))}

    def fuse(self, encoded: Encoded, present: torch.Tensor) -> Output:
        self.fused += len(present)
        own = torch.stack([encoded.part(m)["mean"] for m in MODALITIES], 1)
        own = (own + present) @ torch.tensor([1.0, 2.0, 4.0])
        company = (own * torch.arange(len(own))).sum() + 0.1 * len(own)
        return Output(own + 1e-3 * company, {"own": own})


@pytest.fixture
def inputs(gappy: Any) -> Inputs:
    return Inputs(gappy, "test")


def cells_of(inputs: Inputs, *stresses: str, grid: str | None = None, seeds: int = 3) -> list[Cell]:
    drawn = tuple(range(1111, 1111 + seeds))
    parsed = [Stress.parse(text) for text in stresses]
    return plan([SUBJECT], inputs.setting, [Request(stress, stress.grid(grid), drawn) for stress in parsed])


def test_a_row_says_where_each_modality_comes_from() -> None:
    lost = torch.tensor([[False, True, False], [False, False, False], [True, False, True]])
    donor = torch.tensor([[-1, 1, 2], [-1, -1, -1], [-1, -1, 0]])
    expected = [[0, 0, 6, 5], [1, 1, 1, 1], [2, 8, 2, 8]]
    np.testing.assert_array_equal(rows_of(Sources(lost, donor)), expected)


def test_places_and_distinct_rows_are_those_of_plain_sets() -> None:
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(0, 3, (200, 4)))
    table = distinct(rows[:60])
    as_tuples = [tuple(row) for row in table.tolist()]
    assert as_tuples == sorted({tuple(row) for row in rows[:60].tolist()})
    found = [as_tuples.index(row) if (row := tuple(r)) in as_tuples else -1 for r in rows.tolist()]
    np.testing.assert_array_equal(places(table, rows), found)
    assert -1 in found


def test_a_derived_input_goes_with_its_sources() -> None:
    n = 10
    rows = torch.tensor([[3, 3, 3, 3], [3, 3, 15, 3], [3, 3, 15, 23], [4, 24, 4, 4], [5, 5, 15, 16]])
    available = torch.ones(n, dtype=torch.bool)
    available[5] = False  # lacks vision, say: it has no such input
    kind, row = kinds_of_derived(rows, n, ("audio", "vision"), available)
    assert kind.tolist() == [0, 1, 2, 0, 0]
    assert row.tolist() == [3, 5, 3, 4, 5]


@pytest.mark.parametrize(
    ("stress", "grid", "severities"),
    [
        ("missing", None, ["0.2", "0.4", "0.6", "0.8"]),
        ("missing", "0.35", ["0.2", "0.4", "0.6", "0.8"]),  # of a grid of one's own: the paper's all the same
        ("conflict", None, ["0.25", "0.5", "0.75", "1"]),
        ("spectrum", "0.33x0.4", ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]),
        ("spectrum", "0x0.4", ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]),  # without the clean point
        ("noise", "0.3", ["0.3"]),
        ("noise", "0.33", []),
        ("missing-fixed", "t", []),
        ("noise+missing", "0.3x0.4", []),
    ],
)
def test_a_group_is_laid_down_by_the_stress(inputs: Inputs, stress, grid, severities) -> None:
    cell = cells_of(inputs, stress, grid=grid)[-1]
    points = points_like(cell)
    assert [str(p.values[-1]) for p in points] == severities
    assert {p.severity for p in points} <= {cell.severity} or len(cell.point.values) == 1


def test_only_distinct_rows_are_fused(inputs: Inputs) -> None:
    cells = cells_of(inputs, "missing", "conflict", "missing-random")
    model = Gossip().eval()
    runner = Runner(model, inputs, 16)
    for cell in cells:
        runner.run(cell)
    n, seen = len(inputs.batch), set()
    for cell in cells:
        sources = inputs.corruption(cell).sources
        for i in range(n):
            state = tuple(map(tuple, (sources.lost[i].tolist(), sources.donor[i].tolist())))
            touched = any(state[0]) or max(state[1]) >= 0
            seen.add((cell.stress, cell.seed, i, state) if touched else ("clean", None, i, None))
    assert model.fused == len(seen)
    assert model.fused < len(cells) * n / 2.5


def test_the_rows_of_a_spectrum_are_those_of_one_noise_level(inputs: Inputs) -> None:
    cells = [c for c in cells_of(inputs, "spectrum", seeds=1) if c.severity in ("0.3", "0.4")]
    model = Gossip().eval()
    runner = Runner(model, inputs, 64)
    for cell in cells:
        runner.run(cell)
    n = len(inputs.batch)
    masks = {(i, tuple(inputs.corruption(c).sources.lost[i].tolist())) for c in cells for i in range(n)}
    assert model.fused == 2 * len(masks) < len(cells) * n / 2


def test_values_depend_on_the_cell_alone(inputs: Inputs) -> None:
    """Bit for bit, with a model that would give away any other company: in order, shuffled, and each cell alone."""
    cells = cells_of(
        inputs, "missing", "conflict", "missing-random:told=true", "missing-fixed", "noise+missing", seeds=2
    )
    cells += cells_of(inputs, "missing", grid="0.1,0.35,0.9", seeds=2)[1:] + cells_of(
        inputs, "spectrum", grid="0,0.2x0:0.6:0.2", seeds=1
    )
    cells = list({cell.key: cell for cell in cells}.values())
    runner = Runner(Gossip().eval(), inputs, 16)
    expected = {cell.key: runner.run(cell).y_pred for cell in cells}
    random.Random(1).shuffle(cells)
    runner = Runner(Gossip().eval(), inputs, 16)
    for cell in cells:
        np.testing.assert_array_equal(runner.run(cell).y_pred, expected[cell.key])
    for cell in cells[::3]:
        np.testing.assert_array_equal(Runner(Gossip().eval(), inputs, 16).run(cell).y_pred, expected[cell.key])


def test_the_rows_are_the_right_ones(inputs: Inputs) -> None:
    """What a model says of a row by itself, against the whole model on the corrupted input."""
    runner = Runner(Gossip().eval(), inputs, 16)
    for cell in cells_of(inputs, "missing", "conflict", "spectrum:told=true", "imbalanced:fill=mean", seeds=1):
        batch = inputs.corruption(cell).batch
        with torch.inference_mode():
            expected = Gossip()(batch).extras["own"].numpy()
        np.testing.assert_allclose(runner.run(cell).extras["own"], expected, atol=1e-5, err_msg=str(cell.point))


def test_a_group_that_shares_little_is_none(inputs: Inputs, monkeypatch) -> None:
    (cell,) = cells_of(inputs, "missing", grid="0.8", seeds=1)[1:]
    n = len(inputs.batch)
    own = torch.arange(n)
    clean = own[:, None].expand(n, 4)
    found = shared_rows(cell, inputs, clean)
    assert found is not None
    assert (places(clean, found) == -1).all()

    def always_another(cell: Cell, point: Any) -> Sources:
        step = int(float(point.severity) * 10)
        return Sources(torch.zeros(n, 3, dtype=torch.bool), torch.stack([own, own.roll(step), own], 1))

    monkeypatch.setattr(inputs, "sources", always_another)
    assert shared_rows(cell, inputs, clean) is None


def test_no_more_than_the_latest_group_is_kept(inputs: Inputs) -> None:
    runner = Runner(Gossip().eval(), inputs, 16)
    cells = cells_of(inputs, "missing", "conflict")
    for cell in cells:
        runner.run(cell)
    fuser = runner._fuser
    assert fuser is not None
    (group,) = fuser._groups.values()
    assert group is not None
    assert len(group.rows) <= 2 * len(inputs.batch)
    assert len(fuser.encodings._kept) == 6  # clean and absent, by modality
