"""Stresses that change values inside modalities, on a converted dataset larger than the memory a run may take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from corruptions import Batch
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.stored import write_stored

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds mapped memory on Linux alone")
ROOT = Path(__file__).resolve().parents[2]
STEPS, AUDIO = 20, 1536  # 123 kB of audio a sample
TRAIN, TEST = 250, 400  # 31 MB of audio, its statistics in float64 61 MB; 49 MB
CAP = 144 * 2**20  # noise made of a whole copy would take four times the 49 MB

MODEL = f"""
import torch
from robustbench_msa.adapters import adapt


class Means(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        dims = {{"text": 8, "audio": {AUDIO}, "vision": 4}}
        self.w = torch.nn.ParameterDict({{m: torch.randn(d, generator=generator) for m, d in dims.items()}})

    def encode(self, modality, x, lengths):
        return (x @ self.w[modality]).mean(1)

    def fuse(self, parts, present):
        return sum(parts[m] for m in parts)


def build():
    return adapt(Means(), name="means")
"""

CODE = """
import resource, sys, torch
from robustbench_msa.cli.main import main
import pandas, pyarrow.parquet, scipy.linalg, scipy.stats, robustbench_msa.run  # what is loaded late would need room
torch.set_num_threads(1)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
cap = int(sys.argv.pop(1))
if cap:
    resource.setrlimit(resource.RLIMIT_DATA, (int(status["VmData"].split()[0]) * 1024 + cap,) * 2)
if sys.argv[1] == "copy":
    from pathlib import Path
    from robustbench_msa.data.stored import read_stored
    read_stored(Path(sys.argv[2])).splits["test"].audio.repeat(4, 1, 1)
else:
    main()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)

    def batch(n: int) -> Batch:
        dims = {"text": 8, "audio": AUDIO, "vision": 4}
        x = {m: torch.from_numpy(rng.standard_normal((n, STEPS, d), np.float32)) for m, d in dims.items()}
        lengths = {f"{m}_lengths": rng.integers(1, STEPS + 1, n) for m in dims}
        ids = tuple(f"v{i // 8}$_${n}-{i}" for i in range(n))
        present = rng.uniform(size=(n, 3)) < 0.9
        return Batch(**x, **lengths, ids=ids, labels=rng.normal(size=n), present=present)

    folder = tmp_path_factory.mktemp("large")
    dataset = Dataset("x", {"train": batch(TRAIN), "valid": batch(6), "test": batch(TEST)}, text_at="tokens")
    write_stored(dataset, folder / "x.msa")
    (folder / "means.py").write_text(MODEL)
    return folder


def msabench(folder: Path, cap: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line with at most ``cap`` bytes of data beyond what importing took (0: any)."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1"}
    env |= {
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "1048576",
    }  # what is freed is given back, not kept in holes
    command = [sys.executable, "-c", CODE, str(cap), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, check=False, cwd=folder)


PROTOCOL = """
name = "p"
version = 1
reference = "none"
description = "Values inside modalities changed, modalities lost, both, and donors before noise."
"""
STRESSES = {
    "noise": "0.3",
    "missing": "0:0.4:0.2",
    "frame-missing": "0.5",
    "conflict+burst": "0.5x0.4",
}


def run(folder: Path, out: str, cap: int) -> None:
    tables = "".join(f'[[stress]]\nname = "{name}"\ngrid = "{grid}"\n' for name, grid in STRESSES.items())
    (folder / "p.toml").write_text(PROTOCOL + tables)
    words = "run --model means.py:build --dataset custom --data x.msa --protocol p.toml --seeds 1 --batch-size 16"
    ran = msabench(
        folder, cap, *words.split(), "--no-plots", "--quiet", "--no-references", "--device", "cpu", "--out", out
    )
    assert ran.returncode == 0, ran.stderr


def test_a_run_over_more_than_memory_holds_is_the_run_with_all_the_memory(large: Path) -> None:
    run(large, "free", 0)
    run(large, "capped", CAP)
    order = [("key", "ascending"), ("sample_id", "ascending")]
    ours, theirs = (pq.read_table(large / out / "predictions").sort_by(order) for out in ("capped", "free"))
    assert len(ours) == TEST * 6  # clean and five others
    assert ours.equals(theirs)
    ours, theirs = (pq.read_table(large / out / "cells").sort_by("key") for out in ("capped", "free"))
    assert ours.num_rows == 6
    assert ours.equals(theirs)


def test_a_copy_finds_no_room_there(large: Path) -> None:
    ran = msabench(large, CAP, "copy", "x.msa")
    assert "can't allocate memory" in ran.stderr
