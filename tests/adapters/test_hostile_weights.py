"""Files that pass for weights and are none: each is refused in one line, nothing of it is run, memory stays bounded.

All of them are read in one process whose memory is limited. In it the canary is a file that every payload would write.
"""

from __future__ import annotations

import builtins
import codecs
import contextlib
import io
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.adapters.weights import read_weights

ROOT = Path(__file__).parents[2]
CANARY = "canary"
SPARE = 400 * 2**20  # bytes of memory that reading may take
COMMAND = f"touch {CANARY}"
SOURCE = f"open({CANARY!r}, 'w')"


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class CallsEx(Calls):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.call


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_pickle(data: bytes) -> bytes:
    """A torch file with this pickle for its data.pkl."""
    ours = members(saved({"w": torch.zeros(4)}))
    return zipped({name: data if name.endswith("data.pkl") else held for name, held in ours.items()})


def edited(old: bytes, new: bytes) -> bytes:
    """The data.pkl of ``{"w": zeros(4)}`` with bytes replaced, in its torch file."""
    ours = next(data for name, data in members(saved({"w": torch.zeros(4)})).items() if name.endswith("data.pkl"))
    assert old in ours
    return with_pickle(ours.replace(old, new))


def safetensors(header: Any, held: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * held


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def encrypted(data: bytes) -> bytes:
    """The zip file with the flag of encryption set on every member."""
    changed = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            changed[at + offset] |= 1
            at = data.find(signature, at + 4)
    return bytes(changed)


def claiming(data: bytes, compressed: int) -> bytes:
    """The zip file with another number of bytes for its first member in the table at its end."""
    at = data.find(b"PK\x01\x02") + 20
    return data[:at] + struct.pack("<I", compressed) + data[at + 4 :]


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def of_storage(numel: int, rebuilt: bytes, place: bytes = b"h") -> bytes:
    """A state dict of one tensor: a storage of ``numel`` floats, then the rest of the call's arguments."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rebuilt + b"\x89ccollections\nOrderedDict\n)Rt" + b"R"
    return with_pickle(opcodes(b"}", text("w"), call, b"s"))


def number(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def sizes(size: int, stride: int) -> bytes:
    return number(0) + number(size) + b"\x85" + number(stride) + b"\x85"


NESTED = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(60))  # its hash takes 2^60 steps
STATE = {"w": torch.zeros(4)}
LEGACY = {"_use_new_zipfile_serialization": False}
OBJECT_ARRAY = np.array([{"a": 1}], dtype=object)

HOSTILE: dict[str, tuple[bytes | Callable[[], bytes], tuple[str, ...]]] = {
    # programs
    "os-system.pth": (saved({"w": Calls(os.system, COMMAND)}), ("posix.system", "--trust-checkpoint")),
    "os-system-legacy.pth": (saved({"w": Calls(os.system, COMMAND)}, **LEGACY), ("posix.system",)),
    "subprocess.bin": (saved({"w": Calls(subprocess.call, COMMAND, 0, None, None, None)}), ("subprocess.call",)),
    "eval.pth": (saved({"w": Calls(builtins.eval, SOURCE)}), ("builtins.eval",)),
    "exec.pt": (saved({"w": Calls(builtins.exec, SOURCE)}), ("builtins.exec",)),
    "getattr.pth": (
        saved({"w": Calls(builtins.getattr, Calls(__import__, "os"), "system")}),
        ("builtins.getattr", "builtins.__import__"),
    ),
    "codecs.pth": (saved({"w": Calls(codecs.decode, b"x", "zlib")}), ("_codecs.decode",)),
    "reduce-ex.pth": (saved(OrderedDict(w=CallsEx(os.system, COMMAND))), ("posix.system",)),
    "numpy-object.pth": (saved({"w": OBJECT_ARRAY}), ("multiarray._reconstruct", "numpy.ndarray")),
    "hidden-array.pth": (saved({"w": np.array([Calls(os.system, COMMAND)], dtype=object)}), ("posix.system",)),
    "numpy-loads.pth": (saved({"w": Calls(np.load, "x.npy", None, True)}), ("numpy.load",)),
    "nested.pth": (
        saved({"w": Calls(pickle.loads, pickle.dumps(Calls(os.system, COMMAND)))}),
        ("pickle.loads", "_codecs.encode"),
    ),
    "nested-storage.pth": (
        saved({"w": Calls(torch.storage._load_from_bytes, saved(Calls(os.system, COMMAND)))}),
        ("torch.storage._load_from_bytes",),
    ),
    "plain-pickle.pth": (pickle.dumps(Calls(os.system, COMMAND), protocol=4), ("posix.system",)),
    "protocol-0.pth": (pickle.dumps(Calls(os.system, COMMAND), protocol=0), ("posix.system",)),
    "protocol-4.pth": (saved({"w": Calls(os.system, COMMAND)}, pickle_protocol=4), ("posix.system",)),
    "built-name.pth": (with_pickle(opcodes(text("os"), text("sys"), b"0", text("system"), b"\x93)R")), ("os.system",)),
    "made-name.pth": (with_pickle(opcodes(b"}", b"N", b"\x93)R")), ("a name made at run time",)),
    "inst.pth": (with_pickle(opcodes(b"(", text(COMMAND), b"ios\nsystem\n")), ("os.system",)),
    "obj.pth": (with_pickle(opcodes(b"(cos\nsystem\n", text(COMMAND), b"o")), ("os.system",)),
    "second-pickle.pth": (
        saved(STATE, **LEGACY).replace(b"]q\x00", b"cos\nsystem\n" + text(COMMAND) + b"\x85R]q\x00"),
        ("os.system",),
    ),
    "python-2-name.pth": (with_pickle(opcodes(b"c__builtin__\neval\n", text(SOURCE), b"\x85R")), ("builtins.eval",)),
    "module.pth": (saved(torch.nn.Linear(2, 1)), ("torch.nn.modules.linear.Linear",)),
    # opcodes that weights have no use for
    "persistent-id.pth": (with_pickle(opcodes(text("os.system"), b"Q")), ("a persistent id that is no storage",)),
    "persistent-module.pth": (
        with_pickle(opcodes(b"(", text("module"), b"ccollections\nOrderedDict\n", text("f"), text("s"), b"tQ")),
        ("a persistent id that is no storage",),
    ),
    "build-tensor.pth": (edited(b"q\x0cR", b"q\x0cR}b"), ("BUILD of tensor",)),
    "nested-key.pth": (with_pickle(opcodes(b"}", NESTED, b"Ns")), ("keys that are neither text nor numbers",)),
    "ordered-dict-of.pth": (with_pickle(opcodes(b"ccollections\nOrderedDict\n", NESTED, b"\x85R")), ("OrderedDict",)),
    "bytearray.pth": (
        with_pickle(opcodes(b"c__builtin__\nbytearray\n", number(10**11), b"\x85R")),
        ("builtins.bytearray",),
    ),
    # claims that nothing stands behind
    "grown-tensor.pth": (of_storage(4, sizes(10**10, 1)), ("_rebuild_tensor_v2 called with what",)),
    "stride-0.pth": (of_storage(4, sizes(10**10, 0)), ("_rebuild_tensor_v2 called with what",)),
    "negative-size.pth": (of_storage(4, sizes(-1, 1)), ("_rebuild_tensor_v2 called with what",)),
    "large-storage.pth": (of_storage(10**10, sizes(4, 1)), ("40,000,000,000 bytes", "there are 16")),
    "large-legacy.pth": (
        saved(STATE, **LEGACY).replace(b"K\x04t", number(10**10) + b"t").replace(b"K\x04Nt", number(10**10) + b"Nt"),
        ("40,000,000,000 bytes",),
    ),
    "containers.pth": (
        lambda: with_pickle(opcodes(b"]" * 2_100_000)),
        ("more than 2,000,000 opcodes",),
    ),
    "large-pickle.pth": (lambda: with_pickle(bytes(65 * 2**20)), ("data.pkl has", "more than the limit")),
    "long-string.pth": (with_pickle(b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"w."), ("broken or no pickle",)),
    # zip files
    "zip-bomb.pth": (
        lambda: zipped(
            members(saved(STATE)) | {"archive/data/1": bytes(2**26)}, zipfile.ZIP_DEFLATED
        ),
        ("is compressed", "a zip bomb?"),
    ),
    "traversal.pth": (zipped(members(saved(STATE)) | {"archive/../../canary": b"x"}), ("leads out of the archive",)),
    "absolute.pth": (zipped(members(saved(STATE)) | {"/tmp/canary": b"x"}), ("leads out of the archive",)),
    "encrypted.pth": (encrypted(saved(STATE)), ("is encrypted",)),
    "other-case.pth": (
        zipped(members(saved(STATE)) | {"Archive/Data.pkl": pickle.dumps(Calls(os.system, COMMAND))}),
        ("is there twice",),
    ),
    "no-name.pth": (saved(STATE).replace(b"archive/data.pkl", b"archive/\x80ata.pkl", 1), ("broken or truncated zip",)),
    "claims-4-gb.pth": (claiming(saved(STATE), 4 * 10**9), ("its members claim 4,0", "a zip bomb?")),
    "no-torch.pth": (zipped({"a/b.txt": b"x"}), ("not one of torch.save",)),
    "truncated.pth": (saved(STATE)[:-80], ("broken or truncated zip",)),
    "truncated-legacy.pth": (saved(STATE, **LEGACY)[:120], ("broken",)),
    # no weights at all
    "empty.pth": (b"", ("the file is empty",)),
    "page.pth": (b"<!DOCTYPE html><html><body>Sign in</body></html>", ("a web page",)),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ("a Git LFS pointer",)),
    "gzip.pth": (b"\x1f\x8b\x08" + bytes(40), ("a gzip archive",)),
    "zeros.pth": (bytes(100), ("expected weights",)),
    "pickle.safetensors": (saved(Calls(os.system, COMMAND)), ("named .safetensors",)),
    # safetensors
    "claims-40-gb.safetensors": (
        safetensors({"w": entry([10**10], 0, 4 * 10**10)}, held=16),
        ("'w' claims 40,000,000,000 bytes",),
    ),
    "long-header.safetensors": (safetensors({}, length=40 * 10**9), ("its header claims 40,000,000,000 bytes",)),
    "overlap.safetensors": (safetensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12), ("'b' overlaps",)),
    "out-of-range.safetensors": (safetensors({"a": entry([2], 8, 16)}, 12), ("'a' claims 8 bytes",)),
    "gap.safetensors": (safetensors({"a": entry([1], 4, 8)}, 8), ("leaves a gap",)),
    "left-over.safetensors": (safetensors({"a": entry([1], 0, 4)}, 8), ("4 bytes at its end",)),
    "twice.safetensors": (
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4),
        ("'a' is there twice",),
    ),
    "shape.safetensors": (safetensors({"a": entry([2**40, 2**40], 0, 4)}, 4), ("'a' claims",)),
    "dtype.safetensors": (safetensors({"a": entry([1], 0, 4, "Q9")}, 4), ("no known dtype",)),
    "deep.safetensors": (safetensors(b'{"a":' + b"[" * 100_000, 0), ("not a sound safetensors file",)),
    "no-object.safetensors": (safetensors(b'{"a": 1}', 0), ("no known dtype",)),
}  # fmt: skip

READER = f"""
import json, resource, sys, warnings
from pathlib import Path
from corruptions import InputError
from robustbench_msa.adapters.weights import read_weights
import torch, safetensors.torch
read_weights("sound.pth"), read_weights("sound.safetensors")  # everything is loaded before memory is limited
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {SPARE},) * 2)
said = {{}}
for name in json.loads(sys.stdin.read()):
    try:
        said[name] = "read: " + str(read_weights(name))
    except InputError as error:
        said[name] = str(error)
    except BaseException as error:
        said[name] = "raised " + repr(error)
read_weights("sound.pth")
print(json.dumps({{"said": said, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What reading each file said."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in HOSTILE.items():
        (folder / name).write_bytes(data() if callable(data) else data)
    torch.save(STATE, folder / "sound.pth")
    (folder / "sound.safetensors").write_bytes(safetensors({"a": entry([1], 0, 4)}, 4))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps(list(HOSTILE)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(folder.rglob(CANARY)), "a payload was run"
    assert not Path("/tmp", CANARY).exists()
    said: dict[str, str] = json.loads(done.stdout)["said"]
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what Linux has for it")
@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_line(answers: dict[str, str], name: str) -> None:
    message = answers[name]
    assert message.startswith(name), message
    assert "\n" not in message
    assert len(message) < 500
    for words in HOSTILE[name][1]:
        assert words in message, message


def test_there_are_many() -> None:
    assert len(HOSTILE) > 50


def test_a_payload_would_run_if_it_were_let(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary can sing: with trust, the same file writes it."""
    monkeypatch.chdir(tmp_path)
    data = HOSTILE["os-system.pth"][0]
    assert isinstance(data, bytes)
    Path("os-system.pth").write_bytes(data)
    with pytest.raises(InputError, match=r"no state dict in it"):
        read_weights("os-system.pth", trust=True)
    assert Path(CANARY).exists()


def test_the_payloads_are_what_they_say() -> None:
    """Each hand-made pickle is one that Python's own disassembler can read to its end."""
    for name in ("grown-tensor.pth", "nested-key.pth", "inst.pth", "obj.pth", "persistent-id.pth"):
        data = HOSTILE[name][0]
        assert isinstance(data, bytes)
        pickled = next(held for member, held in members(data).items() if member.endswith("data.pkl"))
        assert list(pickletools.genops(pickled))[-1][0].name == "STOP"


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("options", [{}, LEGACY])
def test_weights_cut_short_anywhere_are_refused(tmp_path: Path, fraction: float, options: dict[str, Any]) -> None:
    whole = saved({"w": torch.ones(50), "b": torch.zeros(3)}, **options)
    path = tmp_path / "short.pth"
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(InputError, match=r"short.pth") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_weights_with_bytes_changed_are_read_or_refused(tmp_path: Path) -> None:
    """Every byte of the pickle in a torch file, changed: an InputError or tensors, never anything else."""
    path, rng = tmp_path / "changed.pth", np.random.default_rng(0)
    content = members(saved({"w": torch.ones(6), "epoch": 3}))
    name = next(name for name in content if name.endswith("data.pkl"))
    for at in range(len(content[name])):
        changed = bytearray(content[name])
        changed[at] = rng.integers(256)
        path.write_bytes(zipped(content | {name: bytes(changed)}))
        with contextlib.suppress(InputError):
            assert all(x.untyped_storage().nbytes() <= 24 for x in read_weights(path).tensors.values())
