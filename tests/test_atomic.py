"""The atomic writer: whole files or the old ones, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_msa import atomic


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "made" / "on the way" / "a.json"
    atomic.write_json(path, {"b": 1, "a": [None, 0.1, "ü"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": [None, 0.1, "ü"]}
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["b", "a"]
    atomic.write_text(path, "one\r\ntwo\n")
    assert path.read_bytes() == b"one\r\ntwo\n"
    atomic.write_bytes(str(path), b"")
    assert path.read_bytes() == b""
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_after_an_exception_the_old_file_stands_and_nothing_else(tmp_path, error):
    path = tmp_path / "weights.bin"
    atomic.write_bytes(path, b"old")

    def write_half():
        with atomic.replacing(path) as file:
            file.write(b"half of the ne")
            file.flush()
            assert sorted(os.listdir(tmp_path)) == [f".weights.bin.tmp-{os.getpid()}-{atomic.place()}", "weights.bin"]
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_nothing(tmp_path, monkeypatch, call):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(tmp_path / "a.bin", b"x")
    assert os.listdir(tmp_path) == []


def test_json_that_cannot_be_read_back_is_refused_before_anything_is_written(tmp_path):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            atomic.write_json(tmp_path / "a.json", {"score": value})
    with pytest.raises(TypeError):
        atomic.write_json(tmp_path / "a.json", {"score": {1, 2}})
    assert os.listdir(tmp_path) == []


def test_the_data_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path, order = tmp_path / "a.bin", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    atomic.write_bytes(path, b"x")
    assert order[:2] == ["fsync", "replace"]
    assert order[2:] == (["fsync"] if hasattr(os, "O_DIRECTORY") else [])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from robustbench_msa import atomic\n"
        "with atomic.replacing(sys.argv[1]) as file:\n"
        "    file.write(b'half of the ne'); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    repository = Path(atomic.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=repository, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (left,) = set(os.listdir(tmp_path)) - {"a.bin"}
    assert left.startswith(".a.bin.tmp-")
