"""What a path is taken for, and one line for what is no dataset."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest

from corruptions import InputError
from robustbench_msa.data.kinds import KINDS, kind_of
from robustbench_msa.data.registry import load_dataset

FILES = {
    "a.pkl": (pickle.dumps({}), "pickle"),
    "b.pkl": (b"PK\x03\x04rest", "npz"),
    "c.npz": (b"\x89HDF\r\n\x1a\nrest", "hdf5"),
    "d": (b"(dp0\n.", "pickle"),
}


@pytest.mark.parametrize("name", FILES)
def test_content_counts_not_the_name(name: str, tmp_path: Path) -> None:
    content, kind = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) == kind
    assert kind in KINDS


FOLDERS = {"dataset.json": "stored", "dev.tsv": "mintrec", "IEMOCAP_features_raw_6way.pkl": "iemocap"}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    assert kind_of(tmp_path) == FOLDERS[name]


NONE = {
    "html.pkl": (b"\n <!DOCTYPE html><html>", "a web page or XML, not the data; download the file again"),
    "html.npz": (b"<html>", "a web page or XML"),
    "html.h5": (b"\xef\xbb\xbf<html>", "a web page or XML"),
    "x.pkl.gz": (b"\x1f\x8b\x08", "a gzip archive; unpack it first"),
    "x.npy": (b"\x93NUMPY\x01\x00", "a single .npy array"),
    "x.pkl": (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    "empty.pkl": (b"", "the file is empty"),
    "cut.h5": (b"\x89HD", "its name says .h5, its content does not"),
    "cut.npz": (b"PK", "its name says .npz, its content does not"),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_dataset_is_said_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = NONE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_dataset("mosi", tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["pkl", "npz", "h5", "dat"])
def test_truncated_pickles_and_noise(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{suffix}"
    for content in (pickle.dumps({"train": {"id": ["a"]}})[:-9], bytes(range(256)), b"PK\x03\x04" + bytes(50)):
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            load_dataset("mosi", path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file or folder"):
        kind_of(tmp_path / "none.pkl")
    with pytest.raises(
        InputError, match=r"expected a folder with dataset.json \(converted\), train.tsv \(MIntRec\) or"
    ):
        kind_of(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"this is not a regular file"):
        kind_of(tmp_path / "pipe")


def test_files_of_torch_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(InputError, match=r"this was written by torch.save"):
        load_dataset("mosi", tmp_path / "x.pt")
