"""The leaderboard of two runs is that of one run that did the work of both, to the last byte in every format."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stored_runs import CHANCE, MODEL, NOISE, Run, degraded, request_of

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.reporting.leaderboard import Leaderboard
from robustbench_msa.reporting.merged_board import merged_board

MISSING, SETS = request_of("missing", "0,0.2,0.6", 2), request_of("missing-fixed", "t,t+a,t+a+v")
SEEDS = [replace(MODEL, checkpoint=c * 64, train_seed=1111 + i) for i, c in enumerate("ade")]
OTHERS = [Subject(name, 1, c * 64, "clean", 1111) for name, c in (("qa_moe", "7"), ("tfn", "8"))]
OPTIONS: dict[str, Any] = {"scores": ["nauc", "half_life", "ce", "clean"], "sort": "missing mae"}


def predict(cell: Cell) -> Any:
    return degraded(cell) + {"qa_moe": 0.1, "tfn": 1.5}.get(cell.model, 0.0) * NOISE[1120]


def describe(run: Run, *subjects: Subject) -> None:
    """What a real run's manifest says of its checkpoints."""
    manifest = run.planned.manifest
    for subject in subjects:
        about = {"model": subject.model, "recipe": subject.recipe, "train_seed": subject.train_seed, "parameters": 7}
        manifest["checkpoints"][subject.checkpoint] = {**about, "selection": {"split": "valid", "by": "MAE"}}
    run.store.write_manifest(manifest)


def written(board: Leaderboard) -> dict[str, str]:
    texts = {name: getattr(board, f"to_{name}")() for name in ("markdown", "latex", "csv", "json")}
    for width in (80, 140):
        console = Console(file=io.StringIO(), width=width, force_terminal=True)
        console.print(board.to_rich(width))
        texts[f"terminal {width}"] = console.file.getvalue()  # type: ignore[attr-defined]
    return texts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run(tmp_path_factory.mktemp("whole"))
    run.add([*SEEDS, *OTHERS, CHANCE], [MISSING, SETS], predict)
    describe(run, *SEEDS, *OTHERS)
    return run.store.root


def test_runs_merged_are_one_run_in_every_format(whole: Path, tmp_path: Path) -> None:
    first, second, third = (Run(tmp_path / name) for name in ("first", "second", "third"))
    first.add([SEEDS[1], OTHERS[0], CHANCE], [SETS, MISSING], predict)
    second.add([SEEDS[0], SEEDS[2]], [MISSING, SETS], predict)
    second.add([CHANCE, OTHERS[0]], [MISSING], predict)  # cells that the first has as well
    third.add([OTHERS[1]], [MISSING, SETS], predict)
    describe(first, SEEDS[1], OTHERS[0])
    describe(second, SEEDS[0], SEEDS[2])
    describe(third, OTHERS[1])
    one = written(merged_board([whole], **OPTIONS))
    folders = [run.store.root for run in (first, second, third)]
    for order in (folders[::-1], [*folders, folders[0], whole]):
        assert written(merged_board(order, **OPTIONS)) == one
    assert "Training seeds 1111–1113, selected on validation: MAE (parameters): Late fusion (7)" in one["markdown"]
    rows = json.loads(one["json"])
    assert {row["model"] for row in rows} == {"late_fusion", "qa_moe", "tfn", "chance"}
    assert any(row["tied_with_best"] and row["rank"] > 1 for row in rows)


def test_the_stored_table_of_a_single_run_is_the_same_board_without_ties(whole: Path) -> None:
    tested, quick = (merged_board([whole], ties=ties) for ties in (True, False))
    assert "Differences were not tested" in quick.caption()
    assert "Differences were not tested" not in tested.caption()
    bare = [column for column in tested.to_frame() if not column.startswith(("rank", "n_ranked", "tied"))]
    assert tested.to_frame()[bare].equals(quick.to_frame()[bare])
    assert not quick.has_ranks


def test_nothing_null_is_dropped(tmp_path: Path) -> None:
    """A cell that was not run, and a NaN: both rows are there, last, with the reason."""

    def predictions(cell: Cell) -> Any:
        y = predict(cell)
        if cell.model == "tfn" and cell.severity == "0.6":
            y[3] = float("nan")
        return y

    run = Run(tmp_path)
    run.add(
        [SEEDS[0], *OTHERS, CHANCE], [MISSING], predictions, lambda c: (c.model, c.severity) == ("late_fusion", "0.2")
    )
    frame = merged_board([tmp_path], ["mae", "acc7"], "mae").to_frame()
    mae = frame[frame["metric"] == "mae"].set_index("model")
    assert mae.index.tolist() == ["qa_moe", "late_fusion", "tfn", "chance"]
    assert mae["value"].isna().tolist() == [False, True, True, False]
    assert "1 of 3" in mae.loc["late_fusion", "note"]
    assert mae.loc["tfn", "note"]
    assert mae["rank"].isna().tolist() == [True, True, True, True], "one row alone is no race"
    acc7 = frame[frame["metric"] == "acc7"].set_index("model")
    assert acc7["rank"].isna().tolist() == [False, True, False, True]


def test_what_does_not_belong_together_is_refused_with_the_folders_names(whole: Path, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    other.add([OTHERS[0]], [request_of("missing", "0:0.4:0.2", 2)], predict)
    with pytest.raises(InputError) as error:
        merged_board([whole, other.store.root])
    assert f"the grid of missing: 0,0.2,0.6 in {whole}, 0:0.4:0.2 in {other.store.root}" in str(error.value)


def test_a_folder_without_a_finished_grid(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.add([MODEL], [MISSING], predict, leave_out=lambda cell: True)
    with pytest.raises(InputError, match=r"no grid is finished yet in .*continue with the same msabench run"):
        merged_board([tmp_path])


def test_another_stress_in_another_folder_is_another_column(whole: Path, tmp_path: Path) -> None:
    other = Run(tmp_path / "burst")
    other.add([OTHERS[0]], [request_of("burst", "0:0.6:0.2")], predict)
    board = merged_board([whole, other.store.root], ["mae"])
    assert [column.stress for column in board.columns] == ["missing", "missing-fixed", "missing-fixed", "burst"]
    assert [row.scores[-1].note for row in board.rows if row.entry.model != "qa_moe"] == ["not run"] * 3


def test_a_baseline_by_name(whole: Path) -> None:
    board = merged_board([whole], ["mae"], scores=["ce"], baseline="tfn", ties=False)
    values = {row.entry.model: row.scores[0].value for row in board.rows}
    assert values["tfn"] == 1
    assert "Baseline: tfn, clean, seed 1111" in board.caption()
    with pytest.raises(InputError, match=r"baseline: no.* 'tfnn' in this run"):
        merged_board([whole], baseline="tfnn")


def test_an_older_table_is_made_again(whole: Path, tmp_path: Path) -> None:
    """From before it had all scores: half_life is not missing, it was not there yet."""
    import pyarrow.parquet as pq

    old = tmp_path / "old"
    shutil.copytree(whole, old)
    path = old / "nauc" / "nauc.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["reasons", "half_life", "regret"]), path)
    boards = [merged_board([folder], ["mae"], scores=["half_life"], ties=False) for folder in (whole, old)]
    assert boards[0].to_csv() == boards[1].to_csv()
