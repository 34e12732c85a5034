"""Arrays by name in .npz and HDF5 files: what they hold comes back; hostile and broken ones are refused in a line."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corruptions import MODALITIES, InputError
from robustbench_msa.data.arrays import read_arrays
from robustbench_msa.data.dataset import Dataset

Arrays = dict[str, Any]
Write = Callable[[Arrays], Path]


def write_hdf5(path: Path, arrays: Arrays, **options: Any) -> Path:
    h5py = pytest.importorskip("h5py", reason='needs the extra "hdf5" (h5py)')
    with h5py.File(path, "w") as file:
        for name, x in arrays.items():
            if isinstance(x, np.ndarray) and x.dtype.kind == "U":
                file.create_dataset(name, data=x.tolist(), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=x, **(options if np.ndim(x) else {}))
    return path


def write_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture(params=["npz", "compressed npz", "hdf5", "compressed hdf5"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    def as_asked(arrays: Arrays) -> Path:
        if request.param == "npz":
            return write_npz(tmp_path / "data.npz", arrays)
        if request.param == "compressed npz":
            np.savez_compressed(tmp_path / "data.npz", **arrays)
            return tmp_path / "data.npz"
        options = {"compression": "gzip", "shuffle": True} if "compressed" in request.param else {}
        return write_hdf5(tmp_path / "data.h5", arrays, **options)

    return as_asked


def test_what_was_written_is_read(write: Write, arrays: Arrays, dataset: Dataset) -> None:
    found = read_arrays(write(arrays), "small")
    assert found.fingerprint == dataset.fingerprint
    assert (found.profile, found.text_at, found.dims) == ("mosi", "embeddings", (4, 3, 2))
    assert found.notes[0] == "train: 6 samples in 3 groups (videos)"


def test_defaults(write: Write, arrays: Arrays) -> None:
    few = {name: x for name, x in arrays.items() if name.split("/")[1] in (*MODALITIES, "labels")}
    batch = read_arrays(write(few), "sims-mine").splits["valid"]
    assert batch.ids == batch.groups == ("valid0", "valid1", "valid2")
    assert batch.present.all()
    assert (batch.text_lengths.tolist(), batch.audio_lengths.tolist()) == ([5] * 3, [7] * 3)
    assert read_arrays(write(few), "sims-mine").profile == "sims"


def test_classes_and_unimodal_labels(write: Write, arrays: Arrays) -> None:
    for split in ("train", "valid", "test"):
        n = len(arrays[f"{split}/labels"])
        arrays[f"{split}/labels"] = np.arange(n, dtype=np.int32) % 3
        arrays[f"{split}/labels_audio"] = np.full(n, 0.5)
    found = read_arrays(write(arrays | {"classes": np.array(["ja", "nein", "vielleicht"])}), "x")
    assert (found.profile, found.classes) == ("classification", ("ja", "nein", "vielleicht"))
    assert found.splits["train"].labels.tolist() == [0, 1, 2, 0, 1, 2]  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.unimodal_labels["test"]["audio"], np.full(4, 0.5, np.float32))


def test_tokens(write: Write, arrays: Arrays) -> None:
    for split in ("train", "valid", "test"):
        arrays[f"{split}/tokens"] = np.arange(5 * len(arrays[f"{split}/text"])).reshape(-1, 5).astype(">i2")
    found = read_arrays(write(arrays), "x", "tokens")
    assert (found.text_at, found.dims) == ("tokens", (0, 3, 2))
    np.testing.assert_array_equal(found.splits["valid"].text, np.arange(15).reshape(3, 5))
    expected = found.fingerprint  # before the file, which it may be mapped from, is written anew
    assert read_arrays(write(arrays), "x").dims == (4, 3, 2)
    without = {name: x for name, x in arrays.items() if not name.endswith("text")}
    assert read_arrays(write(without), "x").fingerprint == expected


@pytest.mark.parametrize("dtype", [">f4", "<f2", ">f8", "<i4"])
def test_other_kinds_of_numbers_are_converted(dtype: str, write: Write, arrays: Arrays) -> None:
    original = arrays["test/audio"] = np.rint(arrays["test/audio"])
    arrays["test/audio"] = original.astype(dtype)
    np.testing.assert_array_equal(read_arrays(write(arrays), "x").splits["test"].audio, original)


def test_plain_hdf5_arrays_stay_in_the_file(tmp_path: Path, arrays: Arrays) -> None:
    path = write_hdf5(tmp_path / "data.h5", arrays)
    before = path.read_bytes()
    audio = read_arrays(path, "x").splits["train"].audio
    maps = [line.split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    assert any(int(a, 16) <= audio.data_ptr() < int(b.split()[0], 16) for a, b, *_ in maps)
    np.testing.assert_array_equal(audio, arrays["train/audio"])
    assert path.read_bytes() == before


def change(name: str, value: Any) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.__setitem__(name, value)


WRONG: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "no audio": (lambda a: a.pop("test/audio"), r"test/audio: expected this array, the split has groups, ids"),
    "misspelt": (change("test/prsent", np.ones((4, 3))), r"unknown array 'test/prsent' \(did you mean 'test/present'"),
    "other split": (change("dev/text", np.ones(1)), r"unknown array 'dev/text'"),
    "no labels": (lambda a: a.pop("train/labels"), "train/labels: expected this array"),
    "one row less": (change("test/audio", np.ones((3, 7, 3))), r"test: audio has 3 samples, text has 4"),
    "pooled": (change("test/audio", np.ones((4, 3))), r"test/audio: expected features \(N, T, d\)"),
    "no rows": (change("test/audio", np.ones((0, 7, 3))), r"test/audio: expected features .*at least one of each"),
    "strings": (change("test/audio", np.full((4, 7, 3), b"1")), r"test/audio: expected features"),
    "NaN": (change("test/audio", np.full((4, 7, 3), np.nan)), "x/test: audio features hold NaN or infinite values"),
    "beyond float32": (change("test/audio", np.full((4, 7, 3), 1e300)), "audio features hold NaN or infinite values"),
    "long lengths": (change("test/lengths", np.full((4, 3), 6)), r"test: text_lengths must be 4 whole numbers"),
    "half lengths": (change("test/lengths", np.full((4, 3), 1.5)), r"test: text_lengths must be 4 whole numbers"),
    "flat lengths": (change("test/lengths", np.ones(4)), r"test/lengths: expected \(4, 3\) for text, audio, vision"),
    "presence of 2": (change("test/present", np.full((4, 3), 2)), r"test/present: expected True or False"),
    "numbers as ids": (change("test/ids", np.arange(4)), r"test/ids: expected 4 strings"),
    "repeated ids": (change("test/ids", np.array(["a"] * 4)), r"test: expected 4 distinct ids"),
    "ids of no language": (change("test/ids", np.array([b"\xff", b"a", b"b", b"c"])), r"expected readable strings"),
    "few labels": (change("test/labels", np.ones(3)), r"test/labels: expected 4 numbers, got \(3,\)"),
    "float classes": (change("classes", np.array(["a", "b"])), r"train/labels: expected 6 classes, whole numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_are_refused_in_one_line(name: str, write: Write, arrays: Arrays) -> None:
    WRONG[name][0](arrays)
    with pytest.raises(InputError, match=WRONG[name][1]) as error:
        read_arrays(write(arrays), "x")
    assert "\n" not in str(error.value)


def test_text_is_features_or_tokens(tmp_path: Path, arrays: Arrays) -> None:
    path = write_npz(tmp_path / "a.npz", arrays)
    with pytest.raises(InputError, match="text: expected features or tokens, got 'words'"):
        read_arrays(path, "x", "words")
    with pytest.raises(InputError, match="train/tokens: expected this array"):
        read_arrays(path, "x", "tokens")


# Archives that nobody honest writes.


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(descr: str, shape: tuple[int, ...], content: bytes = b"") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "a path upwards": ({"../../evil.npy": npy("<f4", (0,))}, r"arrays named like train/audio.npy.*evil"),
    "an absolute path": ({"/tmp/evil.npy": npy("<f4", (0,))}, r"arrays named like train/audio.npy"),
    "another file": ({"readme.txt": b"hello"}, r"arrays named like train/audio.npy, each once; got 'readme.txt'"),
    "torch": ({"x/data.pkl": b"", "x/version": b"3"}, "this was written by torch.save"),
    "objects": ({"train/text.npy": npy("|O", (1,), b"\x80\x04N.")}, "Python objects, which are pickles"),
    "40 GB": ({"train/text.npy": npy("<f4", (10**10,), bytes(16))}, "claims 40,000,000,000 bytes, more than 100 times"),
    "no npy": ({"train/text.npy": b"<html>"}, "this is a web page or XML"),
    "too short": ({"train/text.npy": npy("<f4", (9, 1, 1), bytes(35))}, "announces 36 bytes of values, 35 follow"),
    "too long": ({"train/text.npy": npy("<f4", (9, 1, 1), bytes(37))}, "announces 36 bytes of values, 36 follow"),
    "a bomb": ({"train/text.npy": npy("<f4", (2**25, 1, 1), bytes(2**27))}, "claims 134,217,728 bytes, more than 100"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    members, message = ARCHIVES[name]
    others = {f"train/{field}.npy": npy("<f4", (0,)) for field in ("audio", "vision", "labels")}
    path = zipped(tmp_path / "x.npz", {**members, **(others if "train/text.npy" in members else {})})
    with pytest.raises(InputError, match=message) as error:
        read_arrays(path, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_truncated_files_are_refused(keep: float, write: Write, arrays: Arrays) -> None:
    path = write(arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match="broken or truncated"):
        read_arrays(path, "x")


def test_damaged_values_are_noticed(tmp_path: Path, arrays: Arrays) -> None:
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    whole = bytearray((tmp_path / "x.npz").read_bytes())
    start = whole.index(b"train/text.npy") + 60
    whole[start : start + 40] = b"\x00" * 40
    (tmp_path / "x.npz").write_bytes(whole)
    with pytest.raises(InputError, match=r"train/text.npy: this entry is broken"):
        read_arrays(tmp_path / "x.npz", "x")


def hdf5(path: Path, make: Callable[[Any, Any], object]) -> Path:
    h5py = pytest.importorskip("h5py", reason='needs the extra "hdf5" (h5py)')
    with h5py.File(path, "w") as file:
        make(h5py, file)
    return path


def external_storage(h5py: Any, file: Any) -> None:
    file.create_dataset("train/text", (2, 3), "f4", external=[("/etc/hostname", 0, 24)])


def virtual(h5py: Any, file: Any) -> None:
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (2, 3))
    file.create_virtual_dataset("train/text", layout)


HDF5: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "external link": (
        lambda h5py, file: file.__setitem__("train", h5py.ExternalLink("/etc/other.h5", "/")),
        "'train' is a link to another file, which is not followed",
    ),
    "soft link": (
        lambda h5py, file: file.create_group("train").__setitem__("text", h5py.SoftLink("/x")),
        "'text' is a soft link, which is not followed",
    ),
    "external storage": (external_storage, "train/text: its values lie in other files"),
    "virtual": (virtual, "train/text: its values lie in other files"),
    "groups in groups": (lambda h5py, file: file.create_group("train/deep/er"), "got another group"),
    "a cycle": (lambda h5py, file: file.create_group("train").__setitem__("text", file), "got another group"),
    "40 GB of fill values": (
        lambda h5py, file: [
            file.create_dataset(f"train/{f}", (10**6, 10, 10**3), "f4", chunks=(1, 10, 10)) for f in FOUR
        ],
        "claims 40,000,000,000 bytes, more than 100 times the file's",
    ),
    "records": (
        lambda h5py, file: [file.create_dataset(f"train/{f}", (2,), [("a", "f4")]) for f in FOUR],
        "expected numbers or strings",
    ),
    "empty": (
        lambda h5py, file: [file.create_dataset(f"train/{f}", data=h5py.Empty("f4")) for f in FOUR],
        "expected an array, it is empty",
    ),
}
FOUR = ("text", "audio", "vision", "labels")


@pytest.mark.parametrize("name", HDF5)
def test_hostile_hdf5_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=HDF5[name][1]) as error:
        read_arrays(hdf5(tmp_path / "x.h5", HDF5[name][0]), "x")
    assert "\n" not in str(error.value)


def test_without_h5py_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match=r'reading HDF5 needs h5py: pip install "robustbench-msa\[hdf5\]"'):
        read_arrays(tmp_path / "x.h5", "x")
