"""Freed memory is kept: what is asked for next is not mapped anew, page by page."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from robustbench_msa.allocator import keep_freed_memory

PAGES = """
import resource
import sys

import numpy as np

from robustbench_msa.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(6):
    if _ == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.zeros(10 << 20, np.float32)[:] = 1  # 40 MiB, as a batch of features
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def glibc() -> bool:
    return sys.platform == "linux" and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")


@pytest.mark.skipif(not glibc(), reason="needs glibc")
def test_pages_are_mapped_once() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def pages(what: str) -> int:
        done = subprocess.run([sys.executable, "-c", PAGES, what], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    anew, kept = pages("anew"), pages("kept")
    assert kept < anew / 4, "five blocks of 40 MiB: 51,200 pages, or fewer large ones"


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
