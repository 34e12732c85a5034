"""HDF5 files are tried in another process first: what ends the library, or keeps it for ever, does so there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.data import entries

h5py: Any = pytest.importorskip("h5py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "data.h5"
    with h5py.File(found, "w") as file:
        file["train/text"] = np.ones((2, 3), np.float32)
        file.create_dataset("train/audio", data=np.ones((50, 3), np.float32), chunks=(10, 3), compression="gzip")
        file["train/ids"] = ["a", "bc"]
        file["classes"] = h5py.SoftLink("/nowhere")
    return found


DEATHS = {
    "import os; os.abort()": r"breaks the library \(-6\)",
    "import os; os._exit(3)": r"breaks the library \(3\)",
    "import time; time.sleep(60)": "does not come to an end in 1 seconds",
}


@pytest.mark.parametrize("program", DEATHS)
def test_what_ends_the_other_process_is_refused(program: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_APART", program)
    monkeypatch.setattr(entries, "SECONDS_APART", 1 if "sleep" in program else 30)
    with ExitStack() as stack, pytest.raises(InputError, match=DEATHS[program]) as error:
        entries.open_hdf5(path, stack)
    assert str(error.value).startswith(f"{path}: expected an HDF5 file, reading this one ")


def test_the_other_process_looks_at_everything(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Strings and the first and last chunk are read; links are not followed."""
    seen = tmp_path / "seen"
    said = f"    open({str(seen)!r}, 'a').write(name + ' ' + str(found.dtype) + '\\n')\n    if found.dtype"
    monkeypatch.setattr(entries, "_APART", entries._APART.replace("    if found.dtype", said))
    entries.try_apart(path)
    assert sorted(seen.read_text().splitlines()) == ["train/audio float32", "train/ids object", "train/text float32"]


def test_what_is_merely_broken_is_left_to_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    entries.try_apart(path)
    with ExitStack() as stack, pytest.raises(InputError, match="this one is broken or truncated"):
        entries.open_hdf5(path, stack)


def test_a_module_in_the_working_folder_is_not_run(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``python -c`` looks for modules in the folder it is started in, where a stranger's may lie."""
    (tmp_path / "h5py.py").write_text("open('canary', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    entries.try_apart(path)
    assert not Path("canary").exists()


def test_chunks_beyond_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chunks.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("train/text", (1,), "f4", chunks=(2**28,), maxshape=(None,))
    with ExitStack() as stack, pytest.raises(InputError, match=r"chunks of .* are larger than the file could fill"):
        entries.open_hdf5(path, stack)
