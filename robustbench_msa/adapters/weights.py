"""Weights that a stranger saved: read without running anything, unwrapped, and loaded strictly.

safetensors first; files of ``torch.save`` by ``weights_only`` after a look through (``torch_files``, ``pickles``). What
is a program, or names anything else than weights, is read only where ``--trust-checkpoint`` says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor, nn

from corruptions import InputError
from robustbench_msa import plugins
from robustbench_msa.adapters.pickles import scan
from robustbench_msa.adapters.safetensors_files import load_safetensors
from robustbench_msa.adapters.torch_files import LEGACY, TRUST, ZIP, load_torch, load_trusted, read_archive
from robustbench_msa.models.checkpoint import MAX_WEIGHT_BYTES, WEIGHTS

_LOOKALIKES = {
    b"<": "a web page (a download that needed a login?)",
    b"{": "JSON text",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x93NUMPY": "a .npy array",
    b"\x89HDF": "an HDF5 file (Keras?)",
}
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "student")
"""Keys under which training loops put weights, in the order they are looked for."""

PREFIXES = ("module.", "_orig_mod.", "Model.", "model.", "net.", "network.")
"""What wrappers of modules put before names."""

trusted: ContextVar[bool] = ContextVar("trusted", default=False)
"""Was --trust-checkpoint said? Holds for ``read_weights`` within a program that builds a model."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name. sha256: of the file. notes: what was unwrapped, one line each."""

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...] = ()


def read_weights(path: str | Path, *, trust: bool | None = None) -> Weights:
    """The state dict in a file; of a folder, in its model.safetensors.

    Args:
        path: .safetensors, or what ``torch.save`` wrote; what it is is told from its first bytes. A state dict inside a
            dict of a training loop (``{"state_dict": ..., "epoch": ...}``) is taken out of it.
        trust: run what the file asks for (a pickle is a program). Default: as ``--trust-checkpoint`` says.

    Raises:
        InputError: no such file, none of weights, damaged or hostile; a global that was refused is named.
    """
    path = weights_file(path)
    loaded = read_anything(path, trust=trust)
    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    tensors, notes = _unwrapped(path, loaded)
    return Weights(tensors, sha256_of(path), tuple(notes))


def load_weights(module: nn.Module, path: str | Path, *, trust: bool | None = None) -> tuple[str, ...]:
    """Put the weights of a file into a module, all of them and nothing else; what was unwrapped, one line each.

    Prefixes that wrappers put before names (``module.`` of DataParallel, ``Model.`` of MMSA) are taken off, or put
    before them, where the module's own names are then met.

    Raises:
        InputError: as ``read_weights``; tensors that are missing, left over or of another shape, by their names.
    """
    return put_weights(module, read_weights(path, trust=trust), str(path))


def put_weights(module: nn.Module, weights: Weights, where: str, what: str = "") -> tuple[str, ...]:
    """``load_weights`` for weights that were read. where: their file; what: the module, both for messages."""
    expected, what = module.state_dict(), what or type(module).__name__
    tensors, notes = _renamed(weights.tensors, set(expected))
    if difference := _difference(expected, tensors):
        raise InputError(f"{where}: the weights do not fit {what}: {difference}")
    try:
        module.load_state_dict(tensors, strict=True)
    except Exception as error:  # a module with a say of its own
        raise InputError(f"{where}: {what} does not take the weights: {_one(error)}") from None
    return (*weights.notes, *notes, *_cast(expected, tensors))


def read_anything(path: Path, *, trust: bool | None = None) -> Any:
    """What a file of weights holds, before it is unwrapped; with trust also a module."""
    trust = trusted.get() if trust is None else trust
    size = _size(path)
    with path.open("rb") as file:
        kind = kind_of(path, file, size)
        if kind == "safetensors":
            return load_safetensors(path, file, size)
        if not trust:
            return load_torch(path, file, size)
    plugins.announce("checkpoint", str(path))
    return load_trusted(path, kind)


def kind_of(path: Path, file: BinaryIO, size: int) -> str:
    """safetensors, weights (of torch), script, export or pickle, by the first bytes.

    Raises:
        InputError: none of these.
    """
    file.seek(0)
    head = file.read(32)
    if head.startswith(ZIP):
        kind = read_archive(path, file, size).kind
    elif head.startswith(LEGACY):
        kind = "weights"
    elif head[:1] == b"\x80" and head[1:2] <= b"\x05":
        kind = "pickle"
    elif len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**62:
        kind = "safetensors"
    else:
        raise InputError(_no_weights(path, file, head))
    if path.suffix == ".safetensors" and kind != "safetensors":
        raise InputError(f"{path}: it is named .safetensors and holds something else ({kind}); it was not opened")
    return kind


def weights_file(path: str | Path) -> Path:
    """The file of weights that a path means: itself, or model.safetensors in a folder."""
    path = Path(path)
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise InputError(f"{path}: no {WEIGHTS} in this folder; name the file of weights itself")
        return path / WEIGHTS
    return path


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Within, ``read_weights`` follows this answer of the user's."""
    token = trusted.set(trust)
    try:
        yield
    finally:
        trusted.reset(token)


def _size(path: Path) -> int:
    if not path.is_file():  # a pipe or a device could be read for ever
        what = "is no regular file" if path.exists() else "does not exist"
        raise InputError(f"{path}: {what}; expected weights (.safetensors, or of torch.save)")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty; expected weights (.safetensors, or of torch.save)")
    if size > MAX_WEIGHT_BYTES:
        raise InputError(f"{path}: {size:,} bytes are more than the limit of {MAX_WEIGHT_BYTES:,}")
    return size


def _no_weights(path: Path, file: BinaryIO, head: bytes) -> str:
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    what = next((what for magic, what in _LOOKALIKES.items() if stripped.startswith(magic)), "")
    if not what:
        file.seek(0)
        found = scan(file.read(2**20))  # a pickle of protocol 0 has no mark of its own; it is named all the same
        named = ", ".join(name[:80] for name in found.globals[:4])
        if named and not any("broken" in problem for problem in found.problems):
            return f"{path}: a pickle that asks for {named!s}, no part of weights; nothing of it was run ({TRUST})"
    said = f"this is {what}" if what else f"it begins with {head[:8].hex(' ')}"
    return f"{path}: expected weights (.safetensors, or of torch.save); {said}"


def _unwrapped(path: Path, loaded: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict within what a training loop saved."""
    notes: list[str] = []
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        inner = {str(key): value for key, value in loaded.items() if isinstance(value, Mapping)}
        keys = [key for key in WRAPPERS if inner.get(key)]
        if not keys and len(inner) == 1 and not _tensors(loaded):
            keys = list(inner)
        if not keys:
            break
        beside = [str(key)[:40] for key in loaded if key != keys[0]]
        notes.append(f"took {keys[0]!r}" + (f", beside {', '.join(beside[:6])}" if beside else ""))
        loaded = inner[keys[0]]
    tensors = _tensors(loaded)
    if not tensors:
        what = f"a dict with {', '.join(map(str, list(loaded)[:6]))}" if isinstance(loaded, Mapping) else _name(loaded)
        raise InputError(f"{path}: no state dict in it, but {what[:200]}; save model.state_dict()")
    if left := [str(key) for key in loaded if str(key) not in tensors]:
        notes.append(f"left out {_few(left)}, which are no tensors")
    return tensors, notes


def _tensors(loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        return {}
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def _renamed(tensors: dict[str, Tensor], expected: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the names that are expected, as far as prefixes taken off or put before them go."""
    notes: list[str] = []
    while set(tensors) != expected:
        overlap = len(expected & set(tensors))
        off = [p for p in PREFIXES if all(name.startswith(p) for name in tensors)]
        for prefix in off:
            shorter = {name.removeprefix(prefix): x for name, x in tensors.items()}
            if len(expected & set(shorter)) >= overlap:
                tensors, notes = shorter, [*notes, f"took {prefix!r} off the names"]
                break
        else:
            longer = {p: {f"{p}{name}": x for name, x in tensors.items()} for p in PREFIXES}
            fitting = [p for p, named in longer.items() if len(expected & set(named)) > overlap]
            if not fitting:
                break
            tensors, notes = longer[fitting[0]], [*notes, f"put {fitting[0]!r} before the names"]
    return tensors, notes


def _difference(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> str:
    """What differs in names and shapes, in a few words; empty when nothing does."""
    shapes = [
        f"{name} is {tuple(got[name].shape)} instead of {tuple(x.shape)}"
        for name, x in expected.items()
        if isinstance(x, Tensor) and name in got and got[name].shape != x.shape
    ]
    parts = {
        "missing": [name for name in expected if name not in got],
        "unexpected": [repr(name[:80]) for name in sorted(got) if name not in expected],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in parts.items() if names)


def _cast(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    kinds = {f"{x.dtype} to {expected[name].dtype}" for name, x in got.items() if x.dtype != expected[name].dtype}
    return [f"converted {kind.replace('torch.', '')}" for kind in sorted(kinds)]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _name(value: Any) -> str:
    return f"a {type(value).__name__}"


def _one(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
