"""Files made to harm, given to the commands people type: one line, exit code 2, nothing run, nothing written.

Each payload would write a file called canary. Readers have tests of their own with many more such files; here is
what reaches them through the command line, in every format.
"""

from __future__ import annotations

import builtins
import codecs
import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from robustbench_msa.data.registry import load_dataset
from robustbench_msa.data.stored import write_stored
from robustbench_msa.models.checkpoint import Checkpoint

CANARY = "canary"
COMMAND, SOURCE = f"touch {CANARY}", f"open({CANARY!r}, 'w').close()"
FORTY_GB = 40 * 10**9
SYNTH = "synth:train=60,valid=20,test=40"
PAGE = b"<!DOCTYPE html><html><body>Sign in to download</body></html>"
DEEP = b'{"a": ' + b"[" * 100_000
MEMORY = 512 * 2**20


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


PAYLOADS: dict[str, tuple[Any, str]] = {
    "os-system": (Calls(os.system, COMMAND), f"{os.name}.system"),
    "eval": (Calls(builtins.eval, SOURCE), "builtins.eval"),
    "exec": (Calls(builtins.exec, SOURCE), "builtins.exec"),
    "codecs": (Calls(codecs.decode, b"x", "zlib"), "_codecs.decode"),
    "getattr": (Calls(builtins.getattr, Calls(builtins.__import__, "os"), "system"), "builtins.getattr"),
    "object-array": (np.array([Calls(os.system, COMMAND)], object), f"{os.name}.system"),
    "nested-pickle": (Calls(pickle.loads, pickle.dumps(Calls(os.system, COMMAND))), "pickle.loads"),
    "numpy-load": (Calls(np.load, CANARY, None, True), "numpy.load"),
}


def torch_file(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(x: Any, claimed: str = "") -> bytes:
    """A .npy file whose header says another shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(x), allow_pickle=True)
    content, shape = buffer.getvalue(), str(np.shape(x))
    assert shape.encode() in content
    return (
        content.replace(f"{shape}, }}".encode().ljust(len(claimed) + 3), f"{claimed}, }}".encode(), 1)
        if claimed
        else content
    )


def with_member(content: bytes, name: str, held: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    return zipped(members | {name: held})


def pickled_array(shape: int) -> bytes:
    """``np.zeros(4)`` that claims another number of values."""
    content = pickle.dumps({"train": np.zeros(4)}, 2)
    assert b"K\x04\x85" in content
    return content.replace(b"K\x04\x85", b"\x8a\x06" + shape.to_bytes(6, "little") + b"\x85")


def safetensors(header: Any, held: int = 16, order: str = "<") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack(f"{order}Q", len(text)) + text + bytes(held)


def entry(numbers: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}


STATE = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
LEGACY = {"_use_new_zipfile_serialization": False}
ARRAYS = {
    f"{split}/{name}.npy": npy(np.ones((2,) if name == "labels" else (2, 3, 4), np.float32))
    for split in ("train", "valid", "test")
    for name in ("text", "audio", "vision", "labels")
}

DATA: dict[str, tuple[bytes, str]] = {
    **{f"{name}.pkl": (pickle.dumps({"train": value}, 4), named) for name, (value, named) in PAYLOADS.items()},
    "eval-protocol-0.pkl": (pickle.dumps(PAYLOADS["eval"][0], 0), "__builtin__.eval"),
    "claims-40-gb.pkl": (pickled_array(FORTY_GB // 8), "claims 40,000,000,000 bytes"),
    "announces-40-gb.pkl": (b"\x80\x04\x8e" + struct.pack("<Q", FORTY_GB) + b"abc.", "40,000,000,000 more bytes"),
    "big-endian-tensor.pkl": (
        re.sub(rb"(little_endianq.)\x88", lambda m: m[1] + b"\x89", pickle.dumps({"train": torch.zeros(2)}, 4)),
        "little-endian machine",
    ),
    "truncated.pkl": (pickle.dumps({"train": np.zeros(400)}, 4)[:300], "truncated"),
    "empty.pkl": (b"", "empty"),
    "page.pkl": (PAGE, "a web page"),
    "lfs.pkl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "objects.npz": (
        zipped(ARRAYS | {"train/text.npy": npy(np.array([{"a": 1}], object))}),
        "Python objects, which are pickles",
    ),
    "claims-40-gb.npz": (
        zipped(ARRAYS | {"train/text.npy": npy(np.ones(1), f"({FORTY_GB // 8},)")}),
        "claims 40,000,000,000 bytes",
    ),
    "bomb.npz": (
        zipped(ARRAYS | {"train/text.npy": npy(np.zeros(2**24))}, zipfile.ZIP_DEFLATED),
        "more than 100 times",
    ),
    "traversal.npz": (zipped({**ARRAYS, f"../../{CANARY}.npy": npy(np.ones(2))}), "named like train/audio.npy"),
    "truncated.npz": (zipped(ARRAYS)[:-40], "broken or truncated"),
    "cut.h5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "broken or truncated"),
}

WEIGHTS: dict[str, tuple[bytes, str]] = {
    **{f"{name}.pth": (torch_file({"w": value}), named) for name, (value, named) in PAYLOADS.items()},
    "os-system-legacy.pth": (torch_file({"w": PAYLOADS["os-system"][0]}, **LEGACY), f"{os.name}.system"),
    "plain-pickle.pth": (pickle.dumps(PAYLOADS["os-system"][0], 4), f"{os.name}.system"),
    "nested-storage.pth": (
        torch_file({"w": Calls(torch.storage._load_from_bytes, torch_file(PAYLOADS["os-system"][0]))}),
        "torch.storage._load_from_bytes",
    ),
    "claims-40-gb-legacy.pth": (
        torch_file({"w": torch.zeros(4)}, **LEGACY)
        .replace(b"K\x04t", b"\x8a\x06" + (FORTY_GB // 4).to_bytes(6, "little") + b"t")
        .replace(b"K\x04Nt", b"\x8a\x06" + (FORTY_GB // 4).to_bytes(6, "little") + b"Nt"),
        "40,000,000,000 bytes",
    ),
    "bomb.pth": (zipped({"a/data.pkl": bytes(2**26)}, zipfile.ZIP_DEFLATED), "a zip bomb?"),
    "traversal.pth": (with_member(torch_file(STATE), f"archive/../../{CANARY}", b"x"), "leads out of the archive"),
    "truncated.pth": (torch_file(STATE)[:-80], "broken or truncated"),
    "empty.pth": (b"", "empty"),
    "page.pth": (PAGE, "a web page"),
    "claims-40-gb.safetensors": (safetensors({"weight": entry(FORTY_GB // 4)}), "claims 40,000,000,000 bytes"),
    "big-endian.safetensors": (safetensors({"weight": entry(4)}, order=">"), "expected weights"),
    "truncated.safetensors": (safetensors({"weight": entry(4)}, held=3), "the file holds 3"),
    "deep.safetensors": (struct.pack("<Q", len(DEEP)) + DEEP, "not JSON"),
}


def test_there_are_many() -> None:
    programs = [name for name, (_, named) in (DATA | WEIGHTS).items() if named.split(".")[0] in
                (os.name, "builtins", "__builtin__", "_codecs", "pickle", "numpy", "torch")]  # fmt: skip
    assert len(programs) > 18
    assert len(DATA) + len(WEIGHTS) > 40


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob("*")}


@contextmanager
def limited_memory() -> Iterator[None]:
    """No more than this beyond what the process has, where the system can say so."""
    if sys.platform != "linux":
        yield
        return
    import resource

    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024 + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


Refused = Callable[..., str]


@pytest.fixture
def refused(msabench: Callable[..., Any], tmp_path: Path) -> Refused:
    """Runs a command that must refuse a file; its line."""

    def check(*arguments: object, named: str = "") -> str:
        before = state_of(tmp_path)
        with limited_memory():
            ran = msabench(*arguments)
        assert ran.code == 2, (ran.code, ran.out, ran.err)
        lines = [line for line in ran.err.splitlines() if "a program from outside" not in line]
        assert len(lines) == 1, ran.err
        assert lines[0].startswith("msabench: ")
        assert "Traceback" not in ran.err
        assert len(lines[0]) < 900
        assert named in lines[0], lines[0]
        assert ran.out == ""
        assert not Path(CANARY).exists()
        assert state_of(tmp_path) == before, "nothing on the disk may change"
        return lines[0]

    return check


def test_payloads_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary can sing."""
    monkeypatch.chdir(tmp_path)
    for name in ("os-system.pkl", "eval.pkl", "exec.pkl", "object-array.pkl", "nested-pickle.pkl"):
        pickle.loads(DATA[name][0])
        assert Path(CANARY).exists(), name
        Path(CANARY).unlink()


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(
    "command",
    [
        ("inspect",),
        ("convert", "--dataset", "mosi", "--out", "out.msa"),
        ("run", "--model", "late_fusion", "--dataset", "mosi", "--stress", "missing", "--out", "out", "--data"),
    ],
    ids=lambda command: command[0],
)
def test_data(name: str, command: tuple[str, ...], refused: Refused) -> None:
    content, named = DATA[name]
    Path(name).write_bytes(content)
    refused(*command, name, named=named)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str, msabench: Callable[..., Any], refused: Refused) -> None:
    content, named = WEIGHTS[name]
    Path(name).write_bytes(content)
    assert msabench("init-adapter", "mine.py").code == 0
    refused("run", "--model", "mine.py:build", "--checkpoint", name, "--dataset", SYNTH, "--stress", "missing",
            "--out", "out", named=named)  # fmt: skip


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "too wide": (lambda c: c["arguments"]["config"].update(hidden=2**40), "whole numbers up to"),
    "a width beyond its weights": (lambda c: c["arguments"]["config"].update(hidden=2**17), "do not fit the model"),
    "a path for a name": (lambda c: c.update(model="../../x"), "model must be"),
    "an argument that is a dict": (lambda c: c["arguments"]["config"].update(hidden={"a": 1}), "arguments must be"),
    "another hash": (lambda c: c.update(weights_sha256="0" * 64), "is not the file"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case: str, checkpoint: Checkpoint, refused: Refused) -> None:
    folder = Path(shutil.copytree(checkpoint.path, "theirs"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    CONFIGS[case][0](config)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    refused("run", "--checkpoint", folder, "--dataset", SYNTH, "--stress", "missing", named=CONFIGS[case][1])


CHECKPOINT_FILES = {
    "nested too deep": ("config.json", DEEP, "not valid JSON"),
    "a page": ("config.json", PAGE, "not valid JSON"),
    "a pickle as weights": ("model.safetensors", pickle.dumps(PAYLOADS["os-system"][0]), "not a complete safetensors"),
    "40 GB": ("model.safetensors", safetensors({"a": entry(FORTY_GB // 4)}), "not a complete safetensors"),
    "no weights": ("model.safetensors", b"", "not a complete safetensors"),
}


@pytest.mark.parametrize("case", CHECKPOINT_FILES)
def test_checkpoint_folders(case: str, checkpoint: Checkpoint, refused: Refused) -> None:
    name, content, named = CHECKPOINT_FILES[case]
    folder = Path(shutil.copytree(checkpoint.path, "theirs"))
    (folder / name).write_bytes(content)
    refused("run", "--checkpoint", folder, "--dataset", SYNTH, "--stress", "missing", named=named)


def renamed_array(folder: Path) -> None:
    header = json.loads((folder / "dataset.json").read_text("utf-8"))
    header["splits"]["train"]["arrays"]["../../../secret"] = header["splits"]["train"]["arrays"]["text"]
    (folder / "dataset.json").write_text(json.dumps(header), "utf-8")


def linked_split(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to("/etc")


STORED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a name that leads out": (renamed_array, "not described"),
    "a split that is a link": (linked_split, "symbolic links are not followed"),
    "objects": (lambda f: (f / "train/text.npy").write_bytes(npy(np.array([None], object))), "which are pickles"),
    "claims": (
        lambda f: (f / "train/labels.npy").write_bytes(npy(np.ones(1), f"({FORTY_GB // 8},)")),
        "40,000,000,000",
    ),
    "deep": (lambda f: (f / "dataset.json").write_bytes(DEEP), "broken"),
}


@pytest.mark.parametrize("case", STORED)
def test_converted_folders(case: str, refused: Refused) -> None:
    write_stored(load_dataset(SYNTH), Path("theirs.msa"))
    STORED[case][0](Path("theirs.msa"))
    refused("run", "--model", "late_fusion", "--dataset", "mine", "--data", "theirs.msa", "--stress", "missing",
            named=STORED[case][1])  # fmt: skip


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from robustbench_msa.bridge import export as export_inputs

    out = tmp_path_factory.mktemp("export") / "inputs"
    export_inputs(out, "missing", "0,0.4", dataset=SYNTH, seeds=1)
    return out


COLUMNS = ("cell.npy", "id.npy", "prediction.npy")
SCORED: dict[str, tuple[str, bytes, str]] = {
    "a pickle in an npz": ("p.npz", zipped(dict.fromkeys(COLUMNS, npy(np.array([None], object)))), "Python objects"),
    "a bomb": ("p.npz", zipped(dict.fromkeys(COLUMNS, npy(np.zeros(2**22))), zipfile.ZIP_DEFLATED), "rows"),
    "a zip that is none": ("p.npz", b"PK\x03\x04" + bytes(40), "cannot be read as npz"),
    "a page": ("p.csv", PAGE, "expected the columns"),
    "zeros": ("p.csv", bytes(400), "p.csv"),
    "a page as parquet": ("p.parquet", PAGE, "cannot be read as parquet"),
    "a pickle": ("p.pkl", pickle.dumps(PAYLOADS["os-system"][0]), "ends in .csv"),
    "a deep manifest": ("manifest.json", DEEP, "not valid JSON"),
    "a manifest of a page": ("manifest.json", PAGE, "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", SCORED)
def test_scored_files(case: str, export: Path, refused: Refused) -> None:
    name, content, named = SCORED[case]
    folder = Path(shutil.copytree(export, "inputs"))
    (folder / name).write_bytes(content)
    predictions = folder / (name if name.startswith("p.") else "p.csv")
    refused("score", "--inputs", folder, "--predictions", predictions, "--model", "theirs", named=named)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint) -> Path:
    from robustbench_msa import benchmark

    out = tmp_path_factory.mktemp("run") / "theirs"
    benchmark(checkpoint=checkpoint.path, stress="missing", grid="0,0.4", dataset=SYNTH, seeds=1, out=out)
    return out


def changed(**fields: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        (folder / "manifest.json").write_text(json.dumps(manifest | fields), "utf-8")

    return change


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


RUNS: dict[str, Callable[[Path], object]] = {
    "a page": put("manifest.json", PAGE),
    "no manifest": put("manifest.json", b""),
    "a pickle": put("manifest.json", pickle.dumps(PAYLOADS["os-system"][0])),
    "requests of nothing": changed(requests=[{"stress": "missing"}]),
    "a grid of a billion": changed(requests=[{"stress": "missing", "grid": "0:0.9:0.000000001", "seeds": [1]}]),
    "a stress that is none": changed(requests=[{"stress": "os.system", "grid": "0,0.4", "seeds": [1]}]),
    "a list for a dict": changed(checkpoints=[]),
    "nested too deep": put("manifest.json", b"[" * 100_000),
    "a plan of a page": put("plan/plan.parquet", PAGE),
    "a plan cut short": put("plan/plan.parquet", b"PAR1" + bytes(40) + b"PAR1"),
}


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("command", ["status", "leaderboard"])
def test_runs(case: str, command: str, finished: Path, refused: Refused) -> None:
    folder = Path(shutil.copytree(finished, "theirs"))
    RUNS[case](folder)
    refused(command, folder)


@pytest.mark.parametrize("content", [b"7", b"[" * 100_000, b'{"message": "\x1b[2Jgone"}'])
def test_failures_of_others_are_told_as_text(content: bytes, finished: Path, msabench: Callable[..., Any]) -> None:
    folder = Path(shutil.copytree(finished, "theirs"))
    cell = next(path for path in (folder / "predictions").iterdir())
    cell.unlink()
    (folder / "failures").mkdir()
    (folder / "failures" / f"{cell.stem}.json").write_bytes(content)
    ran = msabench("status", folder)
    assert (ran.code, ran.err) == (3, "")
    assert f"failed  {cell.stem}: " in ran.out
    assert "\x1b[2J" not in ran.out


def test_labels_of_others_are_no_markup(finished: Path, msabench: Callable[..., Any]) -> None:
    folder = Path(shutil.copytree(finished, "theirs"))
    plan = pq.read_table(folder / "plan" / "plan.parquet")
    recipe = pa.array(["[/x]\x1b[2J"] * len(plan))
    pq.write_table(
        plan.set_column(plan.column_names.index("recipe"), "recipe", recipe), folder / "plan" / "plan.parquet"
    )
    ran = msabench("status", folder)
    assert (ran.code, ran.err) == (0, "")
    assert r"[/x]\x1b[2J" in ran.out


@pytest.mark.parametrize("command", [("leaderboard",), ("compare",), ("plot", "severity"), ("report",)])
def test_names_of_others_do_not_speak_to_the_terminal(
    command: tuple[str, ...], finished: Path, msabench: Callable[..., Any]
) -> None:
    folder = Path(shutil.copytree(finished, "theirs"))
    for path in (*folder.glob("*/*.parquet"), folder / "manifest.json"):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace("late_fusion", "late\\u001b[2Jfusion"))
            continue
        table = pq.read_table(path)
        if path.parent.name != "predictions" and "model" in table.column_names:
            names = [f"{name}\x1b[2J" if name == "late_fusion" else name for name in table["model"].to_pylist()]
            table = table.set_column(table.column_names.index("model"), "model", pa.array(names))
            pq.write_table(table, path)
    ran = msabench(*command, folder)
    assert "\x1b" not in ran.out + ran.err
