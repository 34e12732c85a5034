"""Predictions from files: the bridge proved against a run, and files that are wrong, broken or hostile."""

from __future__ import annotations

import csv
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from corruptions import Batch, InputError
from robustbench_msa import bridge
from robustbench_msa.bridge import Scored, export, score_predictions
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.prediction_files import read_predictions
from robustbench_msa.evaluation.progress import progress_of
from robustbench_msa.models.checkpoint import load_model, read_checkpoint
from robustbench_msa.run import benchmark, open_run

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "synth" / "late_fusion" / "clean" / "1111"
STRESSES = ["missing", "noise", "conflict"]
Table = pd.DataFrame


@pytest.fixture(scope="module")
def inputs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two severities of missing, two seeds: clean and four cells of forty samples."""
    return export(tmp_path_factory.mktemp("export") / "inputs", "missing", "0,0.4,0.8", dataset=dataset, seeds=2).out


@pytest.fixture(scope="module")
def table(inputs: Path) -> Table:
    """Predictions for them, from the features that are left."""
    rows = []
    for path in sorted(inputs.glob("*.npz")):
        x = np.load(path, allow_pickle=False)
        y = x["text"].mean((1, 2)) * 30 + x["audio"].mean((1, 2)) * 10
        rows += [(path.stem, sample, float(np.float32(p))) for sample, p in zip(x["ids"], y, strict=True)]
    return pd.DataFrame(rows, columns=["cell", "id", "prediction"])


def write(table: Table, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        columns = {name: np.array(table[name].tolist()) for name in table}
        np.savez(path, **columns)
    return path


@pytest.fixture
def scored(inputs: Path, tmp_path: Path) -> Callable[..., Scored]:
    def call(table: Table, name: str = "p.csv", model: str = "theirs", **options: Any) -> Scored:
        given = {"out": tmp_path / "run", **options}
        return score_predictions(inputs, write(table, tmp_path / name), model, **given)

    return call


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_hand(path: Path, model: torch.nn.Module) -> tuple[list[str], np.ndarray]:
    """A checkpoint called on a file alone, as other code would."""
    with np.load(path, allow_pickle=False) as x:
        names = ("text", "audio", "vision", "text_lengths", "audio_lengths", "vision_lengths", "present")
        batch = Batch(**{name: x[name] for name in names})
        with torch.inference_mode():
            return x["ids"].tolist(), model(batch).prediction.numpy()


def test_tables_have_what_another_run_added_meanwhile(
    scored: Callable[..., Scored], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the plan and the tables of one scoring another one begins and ends in the same folder."""
    write_results = bridge.write_results

    def interrupted(*given: Any) -> int:
        monkeypatch.setattr(bridge, "write_results", write_results)
        scored(table.assign(prediction=0.5), "other.csv", "others")
        return write_results(*given)

    monkeypatch.setattr(bridge, "write_results", interrupted)
    result = scored(table).result
    assert {"theirs", "others"} <= set(result.nauc["model"])
    assert {"theirs", "others"} <= set(result.curves["model"])


@pytest.mark.parametrize("kind", ["dataset", "gappy"])
def test_the_bridge_gives_what_a_run_gives(kind: str, request, tmp_path: Path) -> None:
    """Out as files, predicted there, and back: the same cells, predictions, metrics and digests as ``benchmark``."""
    data: Dataset = request.getfixturevalue(kind)
    done = export(tmp_path / "inputs", STRESSES, dataset=data, seeds=2)
    model = load_model(read_checkpoint(SHIPPED))
    with (tmp_path / "p.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["cell", "id", "prediction"])
        for path in sorted((tmp_path / "inputs").glob("*.npz")):
            ids, predictions = by_hand(path, model)
            rows.writerows(zip([path.stem] * len(ids), ids, map(float, predictions), strict=True))
    out = tmp_path / "run"
    ran = set(benchmark(stress=STRESSES, checkpoint=SHIPPED, dataset=data, seeds=2, out=out).nauc["model"])
    scored = score_predictions(tmp_path / "inputs", tmp_path / "p.csv", "theirs", recipe="clean", out=out)
    assert scored.missing == ()
    assert scored.nonfinite == 0
    n = len(done.export.cells)
    assert (scored.result.tally.planned, scored.result.tally.reused, scored.result.tally.computed) == (2 * n, n, n)
    assert n == 1 + 2 * (4 + 5 + 4)
    assert scored.result.tally.complete

    both = open_run(out)
    where = ["stress", "params", "severity", "condition", "seed"]
    cells = both.cells.set_index(where).sort_index()
    mine, theirs = (cells[cells["model"] == name] for name in ("late_fusion", "theirs"))
    assert len(mine) == len(theirs) == n
    pd.testing.assert_series_equal(mine["input_digest"], theirs["input_digest"])
    assert [dict(rates) for rates in mine["realised"]] == [dict(rates) for rates in theirs["realised"]]
    same = ["sample_id", "group", "y_true", "present_t", "present_a", "present_v", "split", "dataset", *where]
    for one, other in zip(mine["key"], theirs["key"], strict=True):
        a, b = (pd.read_parquet(out / "predictions" / f"{key}.parquet") for key in (one, other))
        pd.testing.assert_frame_equal(a[same], b[same], check_exact=True)
        np.testing.assert_allclose(a["y_pred"], b["y_pred"], rtol=0, atol=1e-5)
        assert list(a) == list(b)
    assert pq.read_schema(out / "predictions" / f"{one}.parquet").equals(
        pq.read_schema(out / "predictions" / f"{other}.parquet")
    )
    for frame, column in ((both.curves, "value"), (both.nauc, "nauc")):
        a, b = (frame[frame["model"] == name].reset_index(drop=True) for name in ("late_fusion", "theirs"))
        assert len(a) == len(b) > 0
        left_out = ["model", "checkpoint", "train_seed", column, "ci_low", "ci_high", "grid_mean", "worst", "retention"]
        shared = [name for name in frame if name not in [*left_out, "clean"]]
        pd.testing.assert_frame_equal(a[shared], b[shared])
        numbers = [name for name in frame if name in left_out[3:]]
        pd.testing.assert_frame_equal(a[numbers], b[numbers], rtol=0, atol=1e-5)
    assert ran >= {"late_fusion", "chance"}
    assert set(both.nauc["model"]) == ran | {"theirs"}


def test_chance_is_the_one_of_a_run(scored, table: Table, dataset: Dataset, tmp_path: Path) -> None:
    """The same keys and values, made without the dataset."""
    run = benchmark(
        "chance", "missing", "0,0.4,0.8", dataset=dataset, seeds=2, out=tmp_path / "other", references=False
    )
    result = scored(table).result
    keys = set(run.cells["key"])
    assert keys == set(result.cells.query("model == 'chance'")["key"])
    for key in keys:
        one, other = (tmp_path / name / "predictions" / f"{key}.parquet" for name in ("other", "run"))
        assert one.read_bytes() == other.read_bytes()
    assert set(scored(table, out=tmp_path / "alone", references=False).result.nauc["model"]) == {"theirs"}


@pytest.mark.parametrize("name", ["p.npz", "p.parquet"])
def test_every_kind_of_file_gives_the_same_model(name: str, scored, table: Table, tmp_path: Path) -> None:
    first = scored(table).result
    before = first.nauc
    again = scored(table.sample(frac=1, random_state=0), name=name).result
    assert again.tally.computed == 0
    pd.testing.assert_frame_equal(open_run(first.out).nauc, before)


def test_scoring_the_same_file_again_changes_nothing(scored, table: Table, tmp_path: Path) -> None:
    assert scored(table, command="msabench score").result.tally.computed == 10
    before = tree(tmp_path / "run")
    again = scored(table, command="msabench score").result.tally
    assert (again.planned, again.reused, again.computed) == (10, 10, 0)
    assert tree(tmp_path / "run") == before


def test_other_predictions_or_another_name_are_another_model(scored, table: Table) -> None:
    def checkpoint(table: Table, model: str = "theirs") -> str:
        run = scored(table, model=model).result
        cells = run.cells[run.cells["model"] == model]
        return str(cells["checkpoint"].iloc[-1])

    changed = table.copy()
    changed.loc[7, "prediction"] += 1e-3
    found = {checkpoint(table), checkpoint(table, "other"), checkpoint(changed, "third")}
    assert len(found) == 3
    assert all(len(value) == 64 for value in found)
    run = scored(changed).result
    assert run.nauc.query("model == 'theirs'")["checkpoint"].nunique() == 2, "never silently the old one"


def test_cells_without_predictions(scored, table: Table, inputs: Path, tmp_path: Path) -> None:
    part = table[table["cell"] != "missing-0.8-1112"]
    first = scored(part)
    assert first.missing == ("missing-0.8-1112",)
    assert not first.result.tally.complete
    assert (first.result.tally.planned, first.result.tally.computed) == (10, 9)
    assert len(first.result.curves.query("model == 'theirs' and seed == 1111 and metric == 'mae'")) == 2
    row = first.result.nauc.query("model == 'theirs' and metric == 'mae'")
    assert row["nauc"].isna().all()
    assert row["note"].item().startswith("1 of 3 grid points are missing")
    assert not progress_of(tmp_path / "run").complete

    whole = scored(table)
    assert whole.missing == ()
    assert whole.result.nauc.query("model == 'theirs' and metric == 'mae'")["nauc"].notna().all()
    assert progress_of(tmp_path / "run").complete, "the incomplete one made room"
    assert set(tree(tmp_path / "run")) == set(tree(scored(table, out=tmp_path / "fresh").result.out))
    by = ["model", "metric"]
    now, fresh = (open_run(tmp_path / name).nauc.sort_values(by, ignore_index=True) for name in ("run", "fresh"))
    pd.testing.assert_frame_equal(now, fresh)


def test_only_the_incomplete_makes_room(scored, table: Table, dataset: Dataset, tmp_path: Path) -> None:
    """Not what is complete, another recipe or seed, another name, or asked for other cells."""
    part = table[table["cell"] != "clean"]

    def other(change: float) -> Table:
        return part.assign(prediction=part["prediction"] + change)

    scored(table.assign(prediction=0.5))
    scored(other(0.1), recipe="spectrum")
    scored(other(0.2), train_seed=7)
    scored(other(0.3), model="other")
    more = export(tmp_path / "more", "missing", "0,0.4,0.6,0.8", dataset=dataset, seeds=2).out
    score_predictions(more, write(other(0.4), tmp_path / "part.csv"), "theirs", out=tmp_path / "run")
    scored(other(0.5))  # makes room for the next
    scored(table)
    checkpoints = open_run(tmp_path / "run").cells.groupby("model")["checkpoint"].nunique()
    assert checkpoints.to_dict() == {"chance": 1, "other": 1, "theirs": 5}


def test_the_recipe_is_a_label_that_can_be_put_right(scored, table: Table, tmp_path: Path) -> None:
    first = scored(table).result.cells
    second = scored(table, recipe="spectrum", train_seed=3).result
    assert second.tally.computed == 5
    assert set(second.cells["key"]) == set(first["key"])
    ours = second.nauc.query("model == 'theirs'")
    assert set(ours["recipe"]) == {"spectrum"}
    assert set(ours["train_seed"]) == {3}
    rows = pd.concat(pd.read_parquet(path) for path in (tmp_path / "run" / "predictions").iterdir())
    assert set(rows.query("model == 'theirs'")["recipe"]) == {"spectrum"}


def test_training_seeds_are_averaged(scored, table: Table) -> None:
    scored(table, recipe="clean", train_seed=1)
    nauc = scored(table.assign(prediction=table["prediction"] / 2), recipe="clean", train_seed=2).result.nauc
    ours = nauc.query("model == 'theirs' and metric == 'mae'").set_index("n_train_seeds")["nauc"]
    assert ours[2] == pytest.approx(ours[1].mean())


def test_a_damaged_cell_is_written_again(scored, table: Table, tmp_path: Path) -> None:
    scored(table, command="c")
    before = tree(tmp_path / "run" / "predictions")
    paths = sorted((tmp_path / "run" / "predictions").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    data = bytearray(paths[1].read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:footer] = bytes(b ^ 0xFF for b in data[4:footer])
    paths[1].write_bytes(data)
    assert scored(table, command="c").result.tally.complete
    assert tree(tmp_path / "run" / "predictions") == before


def test_nan_and_infinite_predictions_are_counted(scored, table: Table) -> None:
    odd = table.copy()
    clean = odd.index[odd["cell"] == "clean"]
    odd.loc[clean[:4], "prediction"] = [np.nan, np.inf, -np.inf, 1e300]
    done = scored(odd)
    assert done.nonfinite == 4
    cells = done.result.cells.query("model == 'theirs'").set_index("stress")["nonfinite"]
    assert cells["clean"] == 4
    assert (cells["missing"] == 0).all()
    curves = done.result.curves.query("model == 'theirs' and stress == 'clean'").set_index("metric")["value"]
    assert np.isnan(curves["mae"])
    assert curves["acc2_has0"] <= 36 / 40
    assert scored(odd, name="p.npz").result.tally.computed == 0
    assert scored(odd, name="p.parquet").result.tally.computed == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "qa_moe"}, "qa_moe is a model of msabench; choose another name"),
        ({"model": "qa_moe-tokens"}, "qa_moe-tokens is a model of msabench"),
        ({"model": "chance"}, "chance is a model of msabench"),
        ({"model": ""}, "expected a name of letters"),
        ({"model": "a/b"}, "expected a name of letters, digits, . - and _, got 'a/b'"),
        ({"model": "\x1b[31m"}, r"got .*x1b\[31m"),
        ({"recipe": "a\nb"}, "--recipe: expected one line"),
    ],
)
def test_names_that_are_refused(options: dict[str, str], words: str, scored, table: Table, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        scored(table, **options)
    assert not (tmp_path / "run").exists()


def test_a_run_on_other_data_is_refused(scored, table: Table, gappy: Dataset, checkpoint, tmp_path: Path) -> None:
    benchmark(stress="missing", grid="0,0.4", checkpoint=checkpoint.path, dataset=gappy, seeds=1, out=tmp_path / "run")
    before = tree(tmp_path / "run")
    with pytest.raises(InputError, match="holds results on synth"):
        scored(table)
    assert tree(tmp_path / "run") == before


def test_an_unfinished_export_is_not_scored(dataset: Dataset, table: Table, tmp_path: Path) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "i", "missing", "0,0.4", dataset=dataset, seeds=1, command="msabench export", progress=stop)
    with pytest.raises(InputError, match="1 of 2 cells are not exported yet; to continue: msabench export"):
        score_predictions(tmp_path / "i", write(table, tmp_path / "p.csv"), "theirs")


def test_only_the_manifest_is_needed(dataset: Dataset, table: Table, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "manifest.json").write_bytes((inputs / "manifest.json").read_bytes())
    scored = score_predictions(tmp_path / "moved", write(table, tmp_path / "p.csv"), "theirs", out=tmp_path / "run")
    assert scored.result.tally.complete


# Files that are wrong. Everything below writes nothing and says it in one line.

CELLS, IDS = ("clean", "noise-0.2-1111"), ("a$_$1", "b", "7")
ROWS = [(cell, sample, 0.5 * i) for i, cell in enumerate(CELLS) for sample in IDS]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, bytes], Any]:
    def call(name: str, data: bytes) -> Any:
        (tmp_path / name).write_bytes(data)
        return read_predictions(tmp_path / name, CELLS, IDS)

    return call


def text(rows: list[tuple[Any, ...]] = ROWS, header: str = "cell,id,prediction") -> bytes:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]).encode()


def npz(save: Callable[..., None] = np.savez, **changes: Any) -> bytes:
    columns = {name: np.array([row[i] for row in ROWS]) for i, name in enumerate(("cell", "id", "prediction"))}
    file = io.BytesIO()
    save(file, allow_pickle=True, **{k: v for k, v in (columns | changes).items() if v is not None})
    return file.getvalue()


def parquet(**changes: Any) -> bytes:
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(("cell", "id", "prediction"))}
    file = io.BytesIO()
    pq.write_table(pa.table({k: v for k, v in (columns | changes).items() if v is not None}), file)
    return file.getvalue()


def raw_npz(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_what_is_accepted(read) -> None:
    expected = np.array([[0, 0, 0], [0.5, 0.5, 0.5]], np.float32)
    good = {
        "plain.csv": text(),
        "bom.csv": b"\xef\xbb\xbf" + text(),
        "lines.csv": text().replace(b"\n", b"\r\n") + b"\r\n\r\n",
        "quoted.csv": b'"cell","id","prediction"\n' + b"\n".join(f'"{c}","{i}","{p}"'.encode() for c, i, p in ROWS),
        "index.csv": text([(i, p, 9, c) for c, i, p in ROWS], "id, prediction ,more,cell"),
        "plain.npz": npz(),
        "PLAIN.NPZ": npz(),
        "column.npz": npz(prediction=np.array([[row[2]] for row in ROWS], np.float16)),
        "bytes.npz": npz(cell=np.array([row[0].encode() for row in ROWS]), more=np.zeros(3)),
        "compressed.npz": npz(np.savez_compressed),
        "plain.parquet": parquet(),
        "single.parquet": parquet(prediction=pa.array([row[2] for row in ROWS], pa.float32())),
        "half.parquet": parquet(prediction=pa.array([row[2] for row in ROWS], pa.float16())),
        "categories.parquet": parquet(cell=pa.array([row[0] for row in ROWS]).dictionary_encode(), more=[[1]] * 6),
        "large.parquet": parquet(id=pa.array([row[1] for row in ROWS], pa.large_string())),
    }
    for name, data in good.items():
        found = read(name, data)
        np.testing.assert_array_equal(found.values, expected, err_msg=name, strict=True)
        assert found.given.all()


def test_ids_that_are_whole_numbers(tmp_path: Path) -> None:
    cells = np.array(["clean"] * 3)
    for kind in (np.int64, np.uint8):
        np.savez(tmp_path / "p.npz", cell=cells, id=np.array([2, 0, 1], kind), prediction=np.array([2, 0, 1]))
        found = read_predictions(tmp_path / "p.npz", ["clean"], ["0", "1", "2"])
        assert found.values.tolist() == [[0, 1, 2]]
    pq.write_table(pa.table({"cell": cells, "id": [2, 0, 1], "prediction": [2, 0, 1]}), tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet", ["clean"], ["0", "1", "2"]).values.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("written", ["nan", "NaN", "", " ", "inf", "-Infinity", "1e999"])
def test_what_is_not_finite(written: str, read) -> None:
    value = read("p.csv", text([("clean", "a$_$1", written), *ROWS[1:3]])).values[0, 0]
    assert not np.isfinite(value)
    assert np.isnan(value) == (written.strip().lower() in ("nan", ""))


def many(n: int) -> list[tuple[str, str, float]]:
    return [*ROWS, *((f"x{i}", "b", 0.0) for i in range(n))]


WRONG: dict[str, tuple[str, bytes, str]] = {
    "a foreign id": ("p.csv", text([*ROWS, ("clean", "c", 1)]), r"1 ids that the export does not have \(clean: c\)"),
    "ids twice": (
        "p.csv",
        text([*ROWS, ROWS[0], ROWS[0], ROWS[4]]),
        r"3 ids that come more than once \(clean: a\$_\$1, noise-0\.2-1111: b\)",
    ),
    "an id is missing": ("p.csv", text(ROWS[1:]), r"1 ids without a prediction \(clean: a\$_\$1\); expected one row"),
    "a foreign cell": ("p.csv", text(many(5)), r"5 rows of cells that the export does not have \(x0, x1, x2\)"),
    "a cell with its ending": (
        "p.csv",
        text([("clean.npz", *row[1:]) for row in ROWS[:3]]),
        r"3 rows .*\(clean\.npz\)",
    ),
    "several at once": ("p.csv", text([*ROWS[1:], ("x", "b", 1)]), "1 rows of cells .*; 1 ids without a prediction"),
    "no number": (
        "p.csv",
        text([("clean", "b", "high"), ROWS[0], ROWS[2]]),
        r"1 predictions that are not numbers \(clean: b: high\)",
    ),
    "a number with underscores": ("p.csv", text([("clean", "b", "1_0"), ROWS[0], ROWS[2]]), "not numbers"),
    "a logit pair": ("p.csv", text([("clean", "b", "[0.1 0.2]"), ROWS[0], ROWS[2]]), "not numbers"),
    "control characters": ("p.csv", text([("clean", "\x1b[31m", 1)]), r"\(clean: \\x1b\[31m\)"),
    "nothing": ("p.csv", b"", r"expected the columns cell, id, prediction, each once \(or .* logits\); it has none"),
    "a header alone": ("p.csv", text([]), "no rows; expected one for each of 3 ids of 2 cells"),
    "other columns": ("p.csv", text(header="cell,sample,prediction"), "it has cell, sample, prediction"),
    "a column twice": ("p.csv", text([(*r, 1) for r in ROWS], "cell,id,prediction,id"), "each once"),
    "semicolons": ("p.csv", text().replace(b",", b";"), "it has cell;id;prediction"),
    "a short row": ("p.csv", text() + b"\nclean,b", "line 8 has 2 fields, the first line has 3"),
    "a long row": ("p.csv", text() + b"\nclean,b,1,5", "line 8 has 4 fields, the first line has 3"),
    "not UTF-8": ("p.csv", text() + b"\nclean,\xff\xfe,1", "cannot be read as csv"),
    "an open quote": ("p.csv", text() + b'\nclean,"b,1', "cannot be read as csv"),
    "a field without end": ("p.csv", text([("clean", "b" * 200_000, 1)], "cell,id,prediction"), "too many|limit"),
    "too many rows": ("p.csv", text(many(1200)), "more than 1,036 rows"),
    "too many bytes": ("p.csv", b"x" * (4096 * 1036 + 1), "bytes are too many for 2 cells of 3 ids"),
    "a csv that is a pickle": ("p.csv", pickle.dumps(ROWS), "cannot be read as csv|expected the columns"),
    "another ending": ("p.txt", text(), r"expected a file that ends in \.csv, \.npz, \.parquet"),
    "a pickle": ("p.pkl", pickle.dumps(ROWS), "expected a file that ends in"),
    "an npz cut short": ("p.npz", npz()[:-40], "cannot be read as npz"),
    "an npz of zeros": ("p.npz", bytes(1000), "cannot be read as npz"),
    "an npz that is a csv": ("p.npz", text(), "cannot be read as npz"),
    "an npy": ("p.npz", npy("'<f8'", "(1,)", bytes(8)), "cannot be read as npz"),
    "an npz without ids": (
        "p.npz",
        npz(id=None),
        "expected the columns cell, id, prediction, each once; it has cell, pr",
    ),
    "objects": ("p.npz", npz(id=np.array([row[1] for row in ROWS], object)), "id holds Python objects; save it as"),
    "records": ("p.npz", npz(id=np.zeros(6, [("a", "i4")])), "expected strings in id"),
    "numbers as text": (
        "p.npz",
        npz(prediction=np.array(["1"] * 6)),
        "expected numbers in prediction, got an array of",
    ),
    "truth as numbers": ("p.npz", npz(prediction=np.ones(6, bool)), "expected numbers in prediction"),
    "complex numbers": ("p.npz", npz(prediction=np.ones(6, complex)), "expected numbers in prediction"),
    "cells as numbers": ("p.npz", npz(cell=np.ones(6)), "expected strings in cell"),
    "a cube": (
        "p.npz",
        npz(prediction=np.ones((6, 2, 2))),
        r"expected one value a row in prediction, got shape \(6, 2, 2",
    ),
    "too many": (
        "p.npz",
        npz(prediction=np.ones((6, 300))),
        r"expected one value a row in prediction, got shape \(6, 300",
    ),
    "logits with a hole": ("p.csv", text(header="cell,id,prediction_0,prediction_2"), "for logits"),
    "a scalar": ("p.npz", npz(prediction=np.array(1.0)), r"expected one value a row in prediction, got shape \(\)"),
    "other lengths": ("p.npz", npz(prediction=np.ones(5)), "cell, id and prediction have 6, 6 and 5"),
    "a huge claim": (
        "p.npz",
        raw_npz({n: npy("'<f8'", "(1000000000000,)") for n in ("cell.npy", "id.npy", "prediction.npy")}),
        "1,000,000,000,000 rows; 12 would be twice what is asked",
    ),
    "a negative claim": (
        "p.npz",
        raw_npz({n: npy("'<f8'", "(-1,)") for n in ("cell.npy", "id.npy", "prediction.npy")}),
        "-1 rows",
    ),
    "a claim beyond the data": (
        "p.npz",
        raw_npz({n: npy("'<U500000'", "(1000,)") for n in ("cell.npy", "id.npy", "prediction.npy")}),
        "claims 1,000 x 2,000,000 bytes",
    ),
    "a bomb": (
        "p.npz",
        raw_npz(
            {n: npy("'<f8'", "(1,)", bytes(50_000_000)) for n in ("cell.npy", "id.npy", "prediction.npy")},
            zipfile.ZIP_DEFLATED,
        ),
        "claims 1 x 8 bytes",
    ),
    "code points that do not exist": (
        "p.npz",
        raw_npz(
            {n: npy("'<U1'", "(1,)", b"\xff" * 4) for n in ("cell.npy", "id.npy")}
            | {"prediction.npy": npy("'<f8'", "(1,)", bytes(8))}
        ),
        "cell holds code points that do not exist",
    ),
    "a header that is code": (
        "p.npz",
        raw_npz({n: npy("__import__('os').getcwd()", "(1,)") for n in ("cell.npy", "id.npy", "prediction.npy")}),
        "cannot be read as npz",
    ),
    "members that are pickles": (
        "p.npz",
        raw_npz({n: pickle.dumps(ROWS) for n in ("cell.npy", "id.npy", "prediction.npy")}),
        "cannot be read as npz",
    ),
    "a parquet cut short": ("p.parquet", parquet()[:-9], "cannot be read as parquet"),
    "a parquet that is none": ("p.parquet", b"PAR1" + bytes(100) + b"PAR1", "cannot be read as parquet"),
    "a parquet of text": ("p.parquet", parquet(prediction=["1"] * 6), "expected numbers in prediction, got string"),
    "a parquet without cells": ("p.parquet", parquet(cell=None), "it has id, prediction"),
    "null ids": ("p.parquet", parquet(id=[None, *[row[1] for row in ROWS[1:]]]), "a cell or id is null"),
    "lists as cells": ("p.parquet", parquet(cell=[["a"]] * 6), "cannot be read as parquet"),
    "many rows": (
        "p.parquet",
        parquet(**{n: ["x"] * 5000 for n in ("cell", "id")}, prediction=[1.0] * 5000),
        "5,000 rows",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_wrong_is_one_line(case: str, read) -> None:
    name, data, words = WRONG[case]
    with pytest.raises(InputError, match=words) as caught:
        read(name, data)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_nothing_in_a_file_is_run(read, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    with pytest.raises(InputError, match="holds Python objects"):
        read("p.npz", npz(cell=np.array([Payload()] * 6, object)))
    pickled = raw_npz({f"{name}.npy": pickle.dumps(Payload()) for name in ("cell", "id", "prediction")})
    with pytest.raises(InputError, match="cannot be read"):
        read("p.npz", pickled)
    assert not (tmp_path / "owned").exists()


def test_every_cut_and_flipped_byte_is_one_line_or_the_same(read) -> None:
    """Damage anywhere in a file never gives a traceback, and never other predictions for npz and its checksums."""
    whole = npz()
    expected = read("p.npz", whole)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 60).tolist():
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        for data in (bytes(flipped), whole[:at]):
            try:
                found = read("p.npz", data)
            except InputError:
                continue
            np.testing.assert_array_equal(found.values, expected.values)
    whole = parquet()
    for at in rng.integers(0, len(whole), 60).tolist():
        try:
            read("p.parquet", whole[:at])
        except InputError:
            continue
        raise AssertionError(f"a file cut at {at} was read")


def test_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_predictions(tmp_path / "p.csv", CELLS, IDS)
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        read_predictions(tmp_path / "d.csv", CELLS, IDS)
