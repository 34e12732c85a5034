"""Exported inputs: what is in the files, that they are the same bytes every time, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Draws, InputError, Reference, Stress, corrupt, input_digest, realised
from robustbench_msa.bridge import Exported, export
from robustbench_msa.data import safe_pickle
from robustbench_msa.data.dataset import Dataset, batch_fingerprint
from robustbench_msa.data.mmsa import read_mmsa
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation import export as export_module
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.export_manifest import cell_names, decode_present, encode_present
from robustbench_msa.evaluation.export_reading import read_export
from robustbench_msa.evaluation.layouts import arrays_of, mmsa_of, write_mmsa

STRESSES = ["noise", "missing", "conflict:modalities=audio", "missing-fixed", "spectrum", "frame-missing"]


@pytest.fixture
def exported(dataset: Dataset, tmp_path: Path) -> Callable[..., Exported]:
    """``exported("missing", "0,0.4", seeds=1, out=...)`` of the tiny dataset into ``inputs``."""

    def call(stress: Any = "missing", grid: str | None = "0,0.4", **options: Any) -> Exported:
        given = {"out": tmp_path / "inputs", "dataset": dataset, "seeds": 1, **options}
        return export(given.pop("out"), stress, grid, **given)

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def batch_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def corrupted(dataset: Dataset, entry: dict[str, Any], split: str = "test") -> Batch:
    """A cell's input as the engine alone makes it."""
    batch = dataset.splits[split]
    if entry["stress"] == "clean":
        return batch
    label = f"{entry['stress']}:{entry['params']}"
    at = entry["condition"] or tuple(s for s in (entry["severity"], entry["severity_2"]) if s is not None)
    severity = at[0] if isinstance(at, tuple) and len(at) == 1 else at
    reference = Reference.fit(dataset.splits["train"])
    return corrupt(batch, label, severity, seed=entry["seed"] or 0, reference=reference)


def assert_is_batch(arrays: dict[str, np.ndarray], batch: Batch) -> None:
    for modality in MODALITIES:
        np.testing.assert_array_equal(arrays[modality], batch.features(modality).numpy(), strict=True)
        np.testing.assert_array_equal(arrays[f"{modality}_lengths"], batch.lengths(modality).numpy())
    np.testing.assert_array_equal(arrays["present"], batch.present.numpy())
    assert tuple(arrays["ids"].tolist()) == batch.ids
    assert tuple(arrays["groups"].tolist()) == batch.groups
    assert batch.labels is not None
    np.testing.assert_array_equal(arrays["labels"], batch.labels.numpy(), strict=True)
    for name, derived in batch.derived.items():
        np.testing.assert_array_equal(arrays[f"derived__{name}"], derived.values.numpy())


@pytest.mark.parametrize("kind", ["dataset", "gappy"])
@pytest.mark.parametrize("stress", STRESSES)
def test_a_file_holds_what_the_engine_makes(stress: str, kind: str, request, tmp_path: Path) -> None:
    data: Dataset = request.getfixturevalue(kind)
    grid = {"spectrum": "0,0.3x0,0.4", "missing-fixed": "t,a+v,t+a+v"}.get(stress, "0,0.4")
    done = export(tmp_path, stress, grid, dataset=data, seeds=2)
    entries = done.export.cells
    assert {entry["file"] for entry in entries} | {"manifest.json"} == {path.name for path in tmp_path.iterdir()}
    assert len(entries) == {"missing-fixed": 1 + 2, "spectrum": 1 + 2 * 3}.get(stress, 1 + 2)
    for entry in entries:
        expected = corrupted(data, entry)
        arrays = batch_of(tmp_path / entry["file"])
        assert_is_batch(arrays, expected)
        assert entry["content"] == batch_fingerprint(expected)
        np.testing.assert_array_equal(decode_present(entry["present"]), expected.present.numpy())
        assert entry["sha256"] == hashlib.sha256((tmp_path / entry["file"]).read_bytes()).hexdigest()


def test_the_digest_and_the_rates_are_the_engines(exported, dataset: Dataset) -> None:
    done = exported("noise", "0,0.3")
    _, entry = done.export.cells
    test, reference = dataset.splits["test"], Reference.fit(dataset.splits["train"])
    stress = Stress.parse("noise")
    (point,) = stress.grid("0.3").points
    corruption = stress.apply(test, point, Draws(1111, test), reference, test)
    pool = batch_fingerprint(test)
    data = f"{dataset.fingerprint}/test"
    assert entry["input_digest"] == input_digest(data, stress, point, 1111, corruption, pool, reference)
    assert entry["realised"] == realised(corruption)
    assert done.export.manifest["pool"] == pool
    assert done.export.manifest["reference"] == reference.fingerprint


def test_the_manifest_says_what_was_exported_of_what(exported, dataset: Dataset, tmp_path: Path) -> None:
    exported(["missing", "noise"], None, seeds=2, command="msabench export ...")
    manifest = json.loads((tmp_path / "inputs" / "manifest.json").read_text("utf-8"))
    assert manifest["dataset"]["data"] == dataset.fingerprint
    assert (manifest["dataset"]["name"], manifest["dataset"]["split"]) == ("synth", "test")
    assert (manifest["kind"], manifest["format"], manifest["layout"]) == ("msabench export", 1, "npz")
    assert manifest["requests"] == [
        {"stress": "missing", "grid": "0:0.8:0.2", "seeds": [1111, 1112]},
        {"stress": "noise", "grid": "0:0.5:0.1", "seeds": [1111, 1112]},
    ]
    train, test = (dataset.splits[split].labels.numpy().astype(float) for split in ("train", "test"))
    assert manifest["chance"]["mean"] == pytest.approx(train.mean(), abs=1e-12)
    assert manifest["chance"]["median"] == np.median(train)
    assert manifest["samples"]["labels"] == test.tolist()
    assert manifest["run"] == "synth-missing+noise"
    assert manifest["command"] == "msabench export ..."
    assert set(manifest["versions"]) >= {"msabench", "python", "torch", "numpy"}


def test_nothing_in_an_npz_is_pickled_or_compressed(exported, tmp_path: Path) -> None:
    exported()
    for path in (tmp_path / "inputs").glob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                assert info.compress_type == zipfile.ZIP_STORED
                assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert all(not array.dtype.hasobject for array in batch_of(path).values())


@pytest.mark.parametrize("layout", ["npz", "mmsa"])
def test_the_same_bytes_every_time(layout: str, exported, tmp_path: Path) -> None:
    one, two = (exported("noise", "0,0.3", layout=layout, out=tmp_path / name).out for name in ("one", "two"))
    assert files(one) == files(two)
    assert len(files(one)) == 3


def test_derived_inputs_travel_with_the_batch(tmp_path: Path) -> None:
    explained = make_synth(sizes=(20, 8, 10), explanations=True)
    done = export(tmp_path, "missing", "0,0.6", dataset=explained, seeds=1)
    for entry in done.export.cells:
        expected = corrupted(explained, entry)
        assert set(expected.derived) == {"explanation_audio", "explanation_vision", "comment"}
        assert_is_batch(batch_of(tmp_path / entry["file"]), expected)
    assert done.export.manifest["derived"]["explanation_audio"] == ["audio"]


def tokens(dataset: Dataset) -> Dataset:
    """The dataset with text as token ids."""
    rng = np.random.default_rng(0)
    splits = {
        split: batch.replace(
            text=torch.from_numpy(rng.integers(1000, 2000, batch.text.shape[:2])) * batch.valid("text")
        )
        for split, batch in dataset.splits.items()
    }
    return Dataset("tokens", splits, text_at="tokens")


@pytest.mark.parametrize("kind", ["dataset", "gappy", "tokens"])
def test_mmsa_holds_the_same_as_npz(kind: str, request, tmp_path: Path) -> None:
    data = tokens(request.getfixturevalue("dataset")) if kind == "tokens" else request.getfixturevalue(kind)
    done = export(tmp_path, ["missing", "noise-lambda"], dataset=data, seeds=1, layout="mmsa")
    for entry in done.export.cells[::3]:
        path = tmp_path / entry["file"]
        assert path.suffix == ".pkl"
        (fields,) = safe_pickle.load(path).values()  # type: ignore[attr-defined]
        with path.open("rb") as file:
            plainly = pickle.load(file)["test"]
        expected = corrupted(data, entry)
        assert set(fields) == set(plainly) == set(mmsa_of(expected))
        assert fields["id"] == plainly["id"] == list(expected.ids)
        assert fields["raw_text"] == [""] * len(expected)
        for name, value in fields.items():
            np.testing.assert_array_equal(value, plainly[name])
            assert type(value) in (list, np.ndarray)
        for i, modality in enumerate(MODALITIES):
            np.testing.assert_array_equal(fields[f"{modality}_lengths"], expected.lengths(modality).numpy())
            np.testing.assert_array_equal(fields[f"{modality}_present"], expected.present[:, i].numpy())
        np.testing.assert_array_equal(fields["audio"], expected.audio.numpy(), strict=True)
        if kind == "tokens":
            assert "text" not in fields
            np.testing.assert_array_equal(fields["text_bert"][:, 0], expected.text.numpy())
            np.testing.assert_array_equal(fields["text_bert"][:, 1], expected.valid("text").numpy())
        else:
            np.testing.assert_array_equal(fields["text"], expected.text.numpy(), strict=True)


@pytest.mark.parametrize("kind", ["dataset", "tokens"])
def test_mmsa_files_are_read_as_a_dataset(kind: str, dataset: Dataset, tmp_path: Path) -> None:
    """The three splits put together are the dataset again."""
    dataset = tokens(dataset) if kind == "tokens" else dataset
    together: dict[str, Any] = {}
    for split in ("train", "valid", "test"):
        export(tmp_path / split, "missing", "0", dataset=dataset, split=split, seeds=1, layout="mmsa")
        together |= pickle.loads((tmp_path / split / "clean.pkl").read_bytes())
    (tmp_path / "all.pkl").write_bytes(pickle.dumps(together))
    again = read_mmsa(tmp_path / "all.pkl", "synth")
    assert again.fingerprint == dataset.fingerprint


def test_old_numpy_can_load_the_pickle(dataset: Dataset, tmp_path: Path) -> None:
    """NumPy 1 has no numpy._core; NumPy 2 still knows numpy.core.multiarray._reconstruct."""
    with (tmp_path / "x.pkl").open("wb") as file:
        write_mmsa(file, dataset.splits["test"], "test")
    data = (tmp_path / "x.pkl").read_bytes()
    assert b"numpy._core" not in data
    assert b"numpy.core.multiarray" in data
    assert data[:2] == b"\x80\x04"


def test_arrays_of_every_kind_survive_the_pickle(tmp_path: Path) -> None:
    """Strings that are not ASCII, an empty modality, a transposed array, a sample alone."""
    wide = np.arange(24, dtype=np.float64).reshape(4, 3, 2).transpose(1, 0, 2)
    batch = Batch(
        text=wide,
        audio=np.zeros((3, 0, 2)),
        vision=np.full((3, 1, 1), -0.0),
        ids=["ü$_$1", "二", ""],
        labels=[0, 2, 1],
    )
    with (tmp_path / "x.pkl").open("wb") as file:
        write_mmsa(file, batch, "valid")
    for data in (safe_pickle.load(tmp_path / "x.pkl"), pickle.loads((tmp_path / "x.pkl").read_bytes())):
        fields = data["valid"]  # type: ignore[index]
        assert fields["id"] == ["ü$_$1", "二", ""]
        np.testing.assert_array_equal(fields["text"], wide.astype(np.float32))
        assert fields["audio"].shape == (3, 0, 2)
        assert np.signbit(fields["vision"]).all()
        assert fields["classification_labels"].tolist() == [0, 2, 1]


def test_the_same_call_keeps_what_is_whole_and_writes_the_rest(exported, tmp_path: Path) -> None:
    first = exported("missing", "0:0.8:0.2")
    assert (first.files.written, first.files.kept) == (5, 0)
    whole = files(first.out)
    stamps = {path.name: path.stat().st_mtime_ns for path in first.out.iterdir()}

    (first.out / "missing-0.4-1111.npz").unlink()
    damaged = bytearray(whole["missing-0.6-1111.npz"])
    damaged[1000] ^= 1
    (first.out / "missing-0.6-1111.npz").write_bytes(damaged)
    (first.out / ".missing-0.4-1111.npz.tmp-123").write_bytes(b"what a killed process left")
    again = exported("missing", "0:0.8:0.2")
    assert (again.files.written, again.files.kept) == (2, 3)
    assert files(first.out) == whole
    for name in ("clean.npz", "missing-0.2-1111.npz", "missing-0.8-1111.npz"):
        assert (first.out / name).stat().st_mtime_ns == stamps[name]


def test_a_file_that_the_manifest_does_not_know_is_not_believed(exported, tmp_path: Path) -> None:
    """Stopped between a file and its entry, and a file of that name that holds something else."""

    def stop(name: str) -> None:
        if name == "missing-0.2-1111":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exported("missing", "0:0.8:0.2", progress=stop)
    out = tmp_path / "inputs"
    assert read_export(out).unfinished == ["missing-0.4-1111", "missing-0.6-1111", "missing-0.8-1111"]
    shutil.copy(out / "clean.npz", out / "missing-0.4-1111.npz")
    done = exported("missing", "0:0.8:0.2")
    assert (done.files.written, done.files.kept) == (3, 2)
    assert files(out) == files(exported("missing", "0:0.8:0.2", out=tmp_path / "undisturbed").out)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": "0,0.2,0.4"}, "one of missing over 0,0.4 with seeds 1111, this is one of missing over 0:0.4:0.2"),
        ({"seeds": 2}, r"seeds 1111-1112 \(2\)"),
        ({"stress": "missing-random"}, "missing-random"),
        ({"split": "valid"}, r"one of synth, test split .* this is one of synth, valid split"),
        ({"layout": "mmsa"}, "one of format npz, this is one of format mmsa"),
        ({"dataset": make_synth(seed=2, sizes=(60, 20, 40))}, "this is one of synth"),
    ],
)
def test_a_folder_with_another_export_is_refused(change: dict[str, Any], words: str, exported) -> None:
    before = files(exported().out)
    with pytest.raises(InputError, match=f"holds another export, .*{words}.*; choose another --out$"):
        exported(**change)
    assert files(exported().out) == before


def test_a_folder_with_other_files_is_refused(exported, tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / ".hidden").touch()
    (tmp_path / "inputs" / "mine.npz").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"expected a new or empty folder, it holds mine\.npz"):
        exported()
    (tmp_path / "inputs" / "mine.npz").unlink()
    assert exported().files.written == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stress": "worst-case", "grid": "0,0.1"}, "worst-case: its inputs depend on the model"),
        ({"stress": ["missing", "worst-case"], "grid": None}, "worst-case: its inputs depend on the model"),
        ({"layout": "csv"}, "--format: expected npz or mmsa, got 'csv'"),
        ({"split": "dev"}, "split: expected one of train, valid, test; got 'dev'"),
        ({"stress": ()}, "nothing to run"),
        ({"stress": "missing-random:fill=unk"}, "token ids"),
        ({"seeds": 0}, "seeds: expected 1 or more"),
    ],
)
def test_what_cannot_be_exported_writes_nothing(options: dict[str, Any], words: str, exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        exported(**options)
    assert list(tmp_path.iterdir()) == []


def test_room_on_the_disk_is_told_and_asked_for(exported, monkeypatch, tmp_path: Path) -> None:
    rooms = []
    done = exported("missing", "0:0.8:0.2", started=rooms.append)
    real = sum(path.stat().st_size for path in done.out.glob("*.npz"))
    assert real <= rooms[0].size == rooms[0].needed <= 1.02 * real
    (done.out / "clean.npz").unlink()
    exported("missing", "0:0.8:0.2", started=rooms.append)
    assert rooms[1].needed == rooms[1].size // 5

    small = shutil._ntuple_diskusage(10**9, 10**9 - 999, 999)
    monkeypatch.setattr(export_module.shutil, "disk_usage", lambda path: small)
    with pytest.raises(InputError, match=r"5 files of .* kB need .* MB more, the disk has 999 bytes free; choose"):
        exported("missing", "0:0.8:0.2", out=tmp_path / "deep" / "er")
    assert not (tmp_path / "deep").exists()
    assert exported("missing", "0:0.8:0.2").files.kept == 5, "a finished export needs no room"


def test_an_error_of_the_disk_leaves_whole_files_only(exported, monkeypatch, tmp_path: Path) -> None:
    real, calls = os.replace, []

    def full(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 6:  # the manifest, then a file and the manifest for each cell
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        exported("missing", "0:0.8:0.2")
    monkeypatch.undo()
    out = tmp_path / "inputs"
    assert sorted(path.name for path in out.iterdir()) == ["clean.npz", "manifest.json", "missing-0.2-1111.npz"]
    assert exported("missing", "0:0.8:0.2").files.kept == 2


def test_names_are_different_readable_and_safe() -> None:
    def cell(stress: str, params: str = "", **at: Any) -> Cell:
        return Cell(stress=stress, params=params, options=(("params", params),), **at)

    cells = [
        Cell(),
        cell("noise", severity="0.2", seed=1111),
        cell("noise", "sigma_ref=modality", severity="0.2", seed=1111),
        cell("missing-fixed", condition="t+a"),
        cell("imbalanced", "weights=1:2:0", severity="0.2", seed=1111),
        cell("imbalanced", "weights=1,2-0", severity="0.2", seed=1111),
        cell("imbalanced", "WEIGHTS=1:2:0", severity="0.2", seed=1111),
        cell("my/../stress", "x" * 300, severity="1", seed=1),
        cell("my/../stress", "x" * 300, severity="1", seed=2),
    ]
    names = cell_names(cells)
    assert names[:4] == ["clean", "noise-0.2-1111", "noise-sigma_ref-modality-0.2-1111", "missing-fixed-t+a"]
    assert len({name.lower() for name in names}) == len(names)
    assert all(len(name) <= 120 and "/" not in name and ":" not in name for name in names)


def test_presence_as_digits() -> None:
    every = np.array([[bool(i & 4), bool(i & 2), bool(i & 1)] for i in range(8)])
    assert encode_present(every) == "01234567"
    np.testing.assert_array_equal(decode_present("01234567"), every)


def test_arrays_do_not_depend_on_where_the_batch_is(dataset: Dataset) -> None:
    arrays = arrays_of(dataset.splits["test"])
    assert {name: array.dtype.str for name, array in arrays.items() if array.dtype.kind in "fib"} == {
        **dict.fromkeys((*MODALITIES, "labels"), "<f4"),
        **dict.fromkeys([f"{modality}_lengths" for modality in MODALITIES], "<i8"),
        "present": "|b1",
    }


def spoil(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(changes)


def in_cell(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["cells"][1].update(changes)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another kind": (spoil(kind="msabench run"), "not the manifest of an export"),
    "a later format": (spoil(format=2), "format 2, this msabench reads format 1"),
    "a layout that is a list": (spoil(layout=["npz"]), "layout is missing"),
    "no requests": (spoil(requests=[]), "requests is missing or not as written"),
    "a request that is none": (spoil(requests=["missing"]), "requests is missing or not as written"),
    "an unknown stress": (
        spoil(requests=[{"stress": "mising", "grid": "0", "seeds": [1]}]),
        r"requests cannot be used \(unknown stress 'mising'",
    ),
    "seeds that are lists": (
        spoil(requests=[{"stress": "missing", "grid": "0,0.4", "seeds": [[1]]}]),
        "requests is missing or not as written",
    ),
    "a plan without end": (
        spoil(requests=[{"stress": "missing", "grid": "0:0.9:0.0001", "seeds": list(range(10_000))}]),
        "its cells are not those of its requests",
    ),
    "many plans": (
        spoil(requests=300 * [{"stress": "missing", "grid": "0,0.4", "seeds": [1111]}]),
        "its cells are not those of its requests",
    ),
    "cells of another grid": (
        spoil(requests=[{"stress": "missing", "grid": "0,0.2", "seeds": [1111]}]),
        "its cells are not those of its requests",
    ),
    "a file elsewhere": (in_cell(file="../../x.npz"), "its cells are not those of its requests"),
    "a name that is a list": (in_cell(name=[]), "cells is missing or not as written"),
    "an older stress": (in_cell(stress_version=0), "made with version 0 of missing, this msabench has version"),
    "a cell of no dict": (lambda m: m["cells"].append(3), "cells is missing or not as written"),
    "a cell more": (lambda m: m["cells"].append(m["cells"][0]), "its cells are not those of its requests"),
    "a hash that is none": (in_cell(input_digest="x" * 64), "cell missing-0.4-1111 is not as written"),
    "presence of other samples": (in_cell(present="77"), "cell missing-0.4-1111 is not as written"),
    "presence of digits that are none": (in_cell(present="8" * 40), "cell missing-0.4-1111 is not as written"),
    "rates that are text": (in_cell(realised={"lost_t": "x"}), "cell missing-0.4-1111 is not as written"),
    "half an entry": (in_cell(sha256=None), "cell missing-0.4-1111 is not as written"),
    "labels that are missing": (lambda m: m["samples"]["labels"].pop(), "samples is missing or not as written"),
    "labels that are text": (lambda m: m["samples"]["labels"].__setitem__(0, "1"), "samples is missing"),
    "labels beyond float32": (lambda m: m["samples"]["labels"].__setitem__(0, 1e300), "samples is missing"),
    "labels without end": (lambda m: m["samples"]["labels"].__setitem__(0, 10**400), "samples is missing"),
    "ids that repeat": (lambda m: m["samples"]["ids"].__setitem__(0, m["samples"]["ids"][1]), "samples is missing"),
    "a run elsewhere": (spoil(run="../../home"), "run is missing"),
    "a hidden run": (spoil(run=".ssh"), "run is missing"),
    "a split that is none": (lambda m: m["dataset"].update(split="all"), "dataset is missing"),
    "a profile that is none": (spoil(profile="x"), "profile is missing"),
    "chance that is null": (spoil(chance={"mean": None, "median": 0}), "chance is missing"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_is_not_believed(case: str, exported) -> None:
    change, words = HOSTILE[case]
    path = exported().out / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match=words):
        read_export(path.parent)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "not the manifest of an export"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"kind": NaN}', "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"kind": "msabench export", "format": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_a_manifest_that_is_none(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(InputError, match=f"{words}.*expected the folder of an msabench export"):
        read_export(tmp_path)


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"manifest\.json: cannot be read .*; expected the folder of an msabench export"
    ):
        read_export(tmp_path)
