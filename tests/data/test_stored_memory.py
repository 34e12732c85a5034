"""A converted dataset larger than the memory a process may take is read, hashed and evaluated by mapping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import Batch
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.stored import HEADER, write_stored

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds mapped memory on Linux alone")
ROOT = Path(__file__).resolve().parents[2]
SAMPLES, STEPS, AUDIO = 2560, 50, 640  # 328 MB of audio
CAP = 256 * 2**20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test split of SAMPLES, its values holes in sparse files: zeros that take no room on the disk."""
    rng = np.random.default_rng(0)

    def batch(n: int) -> Batch:
        x = {"text": rng.normal(size=(n, STEPS, 16)), "audio": rng.normal(size=(n, STEPS, AUDIO))}
        ids = tuple(f"{n}-{i}" for i in range(n))
        return Batch(**x, vision=rng.normal(size=(n, STEPS, 8)), ids=ids, labels=rng.normal(size=n))

    folder = tmp_path_factory.mktemp("large") / "x.msa"
    write_stored(Dataset("x", {"train": batch(20), "valid": batch(6), "test": batch(7)}), folder)
    header = json.loads((folder / HEADER).read_text())
    split = header["splits"]["test"]
    split["samples"] = SAMPLES
    for name, described in split["arrays"].items():
        described["shape"][0] = SAMPLES
        shape, dtype = tuple(described["shape"]), np.dtype(described["dtype"])
        with (folder / f"test/{name}.npy").open("wb") as file:
            about = {"descr": described["dtype"], "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, about)
            if name in ("lengths", "present"):
                file.write(np.full(shape, STEPS if name == "lengths" else 1, dtype).tobytes())
            file.truncate(
                file.seek(0, 2) + (0 if name in ("lengths", "present") else int(np.prod(shape)) * dtype.itemsize)
            )
    ids = [f"v{i // 8}$_${i}" for i in range(SAMPLES)]
    samples = {"ids": ids, "groups": [i.split("$")[0] for i in ids]}
    (folder / "test/samples.json").write_text(json.dumps(samples))
    (folder / HEADER).write_text(json.dumps(header))
    return folder


def under_a_cap(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code with at most CAP bytes of data beyond what importing took; ``folder`` is the dataset.

    RLIMIT_DATA counts private memory that can be written to. RLIMIT_AS would count the mapped file itself.
    """
    start = f"""
import resource, torch
from pathlib import Path
from robustbench_msa.data.stored import read_stored
from robustbench_msa.evaluation.cells import Request, Subject, plan
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.registry import model_class
from corruptions import Stress
torch.set_num_threads(1)
late_fusion, folder = model_class("late_fusion"), Path({str(folder)!r})
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
resource.setrlimit(resource.RLIMIT_DATA, (int(status["VmData"].split()[0]) * 1024 + {CAP},) * 2)
"""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env |= {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "2097152",
    }  # what is freed is given back, not kept in holes
    command = [sys.executable, "-c", start + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, check=False)


def test_it_is_gone_through_hashed_and_evaluated(large: Path) -> None:
    """Clean input and whole-modality stresses read mapped values in chunks; a copy, as a control, finds no room."""
    ran = under_a_cap(
        """
dataset = read_stored(folder)
test = dataset.splits["test"]
total = sum(float(test.rows(slice(i, i + 8)).audio.abs().sum()) for i in range(0, len(test), 8))
print(len(test), test.audio.numel() * 4, total, len(dataset.fingerprint))
inputs = Inputs(dataset, "test")
runner = Runner(late_fusion(InputSpec(dataset.dims), late_fusion.presets["synth"]).eval(), inputs, 8)
stresses = [Stress.parse(text) for text in ("conflict", "missing", "missing-random", "missing-random:fill=mean")]
requests = [Request(stress, stress.grid("0,0.5"), (1111,)) for stress in stresses]
for cell in plan([Subject("late_fusion", 1, "c" * 64)], inputs.setting, requests):
    print(cell.stress, cell.params, len(runner.run(cell).y_pred))
try:
    test.audio.clone()
except RuntimeError as error:
    print("can't allocate memory" in str(error))
""",
        large,
    )
    assert ran.returncode == 0, ran.stderr
    values = f"{SAMPLES} {SAMPLES * STEPS * AUDIO * 4} 0.0 64"
    cells = ["clean ", "conflict ", "missing ", "missing-random ", "missing-random fill=mean"]
    assert ran.stdout.splitlines() == [values, *(f"{cell} {SAMPLES}" for cell in cells), "True"]


def test_claims_of_40_gb_take_no_memory(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason='needs the extra "hdf5" (h5py)')
    ran = under_a_cap(
        """
import io, zipfile
import h5py
import numpy as np
from corruptions import InputError
from robustbench_msa.data.arrays import read_arrays
from robustbench_msa.data.npy import mapped
from robustbench_msa.data.safe_pickle import load
fields = ["train/text", "train/audio", "train/vision", "train/labels"]
header = io.BytesIO()
np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10, 100)})
(folder / "x.npy").write_bytes(header.getvalue())
with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    for field in fields:
        archive.writestr(field + ".npy", header.getvalue() + bytes(2**20))
with h5py.File(folder / "x.h5", "w") as file:
    for field in fields:
        file.create_dataset(field, (10**7, 10, 100), "f4", chunks=(1, 10, 10))
(folder / "x.pkl").write_bytes(b"\\x80\\x04\\x8e" + (40 * 10**9).to_bytes(8, "little") + b"x.")
arrays = lambda path: read_arrays(path, "x")
readers = {"x.npy": mapped, "x.npz": arrays, "x.h5": arrays, "x.pkl": load}
for name, read in readers.items():
    try:
        read(folder / name)
    except InputError as error:
        print(error)
""",
        tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 4
    assert all("40,000,000,000" in line for line in lines)


def test_mapping_does_not_need_torch_to_copy(large: Path) -> None:
    from robustbench_msa.data.npy import mapped, tensor_of

    x = mapped(large / "test/audio.npy")
    assert tensor_of(x).data_ptr() == x.__array_interface__["data"][0]
    assert tensor_of(x)[-1].equal(torch.zeros(STEPS, AUDIO))
