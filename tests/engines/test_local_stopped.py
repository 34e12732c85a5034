"""The engine local when the driver is killed or the disk is full: nothing is lost, and no worker is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_runs import CELLS, assert_same, workers_of

from robustbench_msa.run import Benchmark

Run = Callable[..., Benchmark]


@pytest.mark.slow
def test_when_the_driver_is_stopped_or_killed_its_workers_end_too(
    start: Callable[..., subprocess.Popen[str]], job: Run, reference: Path, tmp_path: Path
) -> None:
    out, ended = tmp_path / "run", []
    for sent, workers in ((signal.SIGINT, 1), (signal.SIGKILL, 2)):
        process, before = start(out, "--workers", str(workers)), set(workers_of(out))
        wait_for(lambda p=process, b=before, n=workers: p.poll() is not None or len(set(workers_of(out)) - b) == n)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
        ended.append((process.returncode, stdout, stderr))
        wait_for(lambda: not any(is_there(pid) for pid in workers_of(out)))
    stopped = "msabench: stopped; what was finished is kept, the same command continues\n"
    assert ended == [(3, "", stopped), (-signal.SIGKILL, "", "")]
    assert len(workers_of(out)) == 3
    there = len(list((out / "predictions").iterdir()))
    assert 0 < there < CELLS
    tally = job(out).tally
    assert (tally.reused, tally.computed) == (there, CELLS - there)
    assert_same(out, reference)


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not reached():
        assert time.monotonic() < end, "it got stuck"
        time.sleep(0.002)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for about a dozen cells."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, timeout=30, check=False)


def test_a_disk_that_is_full_for_a_worker_ends_the_run(job: Run, reference: Path, disk: Path) -> None:
    out = disk / "run"
    with pytest.raises(OSError, match="No space left on device") as stopped:
        job(out, workers=2)
    assert stopped.value.errno == errno.ENOSPC
    assert str(out) in stopped.value.filename
    there = {path.name: path.read_bytes() for path in (out / "predictions").iterdir()}
    assert 0 < len(there) < CELLS
    assert there.items() <= {path.name: path.read_bytes() for path in (reference / "predictions").iterdir()}.items()
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], timeout=30, check=True)
    assert job(out).tally.reused == len(there)
    assert_same(out, reference)
