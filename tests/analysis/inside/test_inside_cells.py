"""Cells with their extras: seeds together, the clean point first, and one clear line when there is nothing."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from corruptions import InputError, Point
from robustbench_msa.analysis.inside.cells import WHERE, WHO, Inside, each_point, frame_of


def level(cell) -> float:
    return float(cell.severity or 0) + 10 * (cell.seed or 0)


def holds(cell):
    n = 60
    r = np.full((n, 3), level(cell)) + np.arange(n)[:, None]
    return {"y_pred": np.full(n, level(cell)), "r": r, "consensus": np.arange(n) * 0.5}


def test_the_seeds_of_a_point_are_together_and_clean_is_first(made) -> None:
    made.add(holds, ("noise", "0:0.2:0.1"), seeds=2)
    (sweep,) = Inside(made.root).sweeps("r")
    assert [point for point, _ in sweep.points] == [Point("0"), Point("0.1"), Point("0.2")]
    clean, first, _ = (samples for _, samples in sweep.points)
    assert (clean.n_seeds, first.n_seeds, first.n, len(first.ids)) == (1, 2, 60, 120)
    np.testing.assert_array_equal(first.seed, np.repeat([0, 1], 60))
    np.testing.assert_allclose(first.y_pred, np.repeat([11110.1, 11120.1], 60), rtol=1e-6)
    expected = np.repeat([11110.1, 11120.1], 60) + np.tile(np.arange(60), 2)
    np.testing.assert_allclose(first.extras["r"], np.repeat(expected[:, None], 3, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(first.extras["consensus"][:60, 0], np.arange(60) * 0.5)
    np.testing.assert_array_equal(first.group[:60], np.unique(made.videos, return_inverse=True)[1])
    np.testing.assert_allclose(clean.error, np.abs(made.labels), rtol=1e-6)


def test_conditions_and_two_axes(made) -> None:
    made.add(holds, ("missing-fixed", "t,a,t+a+v"), ("spectrum", "0,0.3x0,0.3"))
    fixed, spectrum = Inside(made.root).sweeps()
    assert [point.condition for point, _ in fixed.points] == ["t+a+v", "t", "a"]
    assert (fixed.n_axes, spectrum.n_axes) == (0, 2)
    assert spectrum.points[0][0] == Point("0", "0")
    assert len(spectrum.points) == 4


def test_rows_say_where_they_are(made) -> None:
    made.add(holds, ("noise:modalities=t", "0,0.1"), seeds=2)
    sweeps = Inside(made.root).sweeps()
    assert sweeps[0].modalities == "t"
    frame = frame_of(each_point(sweeps, lambda line, samples: [{"x": samples.y_pred.mean()}]), "x")
    assert list(frame.columns) == [*WHO, *WHERE, "x"]
    row = frame.iloc[1]
    expected = {
        "model": "qa_moe",
        "stress": "noise",
        "params": "modalities=t",
        "severity": "0.1",
        "n_seeds": 2,
        "n": 60,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["n_groups"] == 12


def test_a_missing_extra_is_one_clear_line(made) -> None:
    made.add(holds, ("noise", "0,0.1"), models=("late_fusion", "tfn"))
    with pytest.raises(InputError, match=r"late_fusion, tfn store no routing weights \(extra gates\); qa_moe stores"):
        Inside(made.root).sweeps("gates", what="routing weights", models="qa_moe stores them")


def test_references_are_left_out(made) -> None:
    made.add(holds, ("noise", "0,0.1"), models=("chance", "qa_moe"))
    assert [line.model for line in Inside(made.root).lines()] == ["qa_moe"]


def test_nothing_but_references(made) -> None:
    made.add(holds, ("noise", "0,0.1"), models=("chance",))
    with pytest.raises(InputError, match="no finished cell of a model"):
        Inside(made.root)


def test_only_the_clean_cell(made) -> None:
    made.add(holds, ("noise", "0"))
    with pytest.raises(InputError, match="nothing but clean cells"):
        Inside(made.root).sweeps()


def test_a_damaged_file_is_one_clear_line(made) -> None:
    cell = made.add(holds, ("noise", "0,0.1"))[1]
    path = made.store.path(cell.key)
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "y_pred")
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"damaged \(.*\); run the same msabench run again"):
        Inside(made.root).sweeps()


def test_a_model_on_token_text_has_the_names_of_its_model(made) -> None:
    made.add(holds, ("noise", "0,0.1"), models=("rider_moe-tokens",))
    assert Inside(made.root).lines()[0].base == "rider_moe"
