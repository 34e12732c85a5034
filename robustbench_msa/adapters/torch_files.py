"""Files that ``torch.save`` wrote, from strangers: looked through before torch reads them, and by ``weights_only``."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch

from corruptions import InputError
from robustbench_msa.adapters.pickles import Scan, scan
from robustbench_msa.models.checkpoint_config import one_line

MAX_MEMBERS = 200_000
MAX_PICKLE = 64 * 2**20
"""Bytes of a pickle without its tensors: names and shapes of a hundred thousand tensors take a third of this."""

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch before 1.6 begin: a pickle of the number 0x1950a86a20f9469cfc6c."""

TRUST = "--trust-checkpoint, if you trust who wrote it as you trust a program"
ALONE = "torch.save(model.state_dict(), FILE) writes weights alone"


@dataclass(frozen=True)
class Archive:
    """A zip file of torch. kind: weights, script (TorchScript) or export (torch.export); prefix: its folder."""

    kind: str
    prefix: str
    sizes: dict[str, int]


def load_torch(path: Path, file: BinaryIO, size: int) -> Any:
    """What weights file ``path``, open as ``file``, holds: tensors and plain values, on the CPU.

    Raises:
        InputError: a file that asks for anything that is no part of weights (each such name is said), that claims more
            than it holds, that is broken, or that is a program.
    """
    found = _scan_zip(path, file, size) if _head(file).startswith(ZIP) else _scan_legacy(path, file, size)
    if found.globals:
        # what arrays are made of comes last: it must not push a call of the shell beyond what is shown
        names = sorted(found.globals, key=lambda name: name.partition(".")[0] in ("numpy", "_codecs"))
        named = ", ".join(map(_shown, names[:4])) + (", ..." if len(names) > 4 else "")
        raise InputError(
            f"{path}: it asks for {named}, no part of weights; nothing of it was run ({ALONE}; or {TRUST})"
        )
    if found.problems:
        raise InputError(f"{path}: refused, since it holds {found.problems[0]}; {ALONE}, as safetensors do")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch itself does not take
        raise InputError(f"{path}: torch cannot read it as weights ({one_line(error)}); {ALONE}") from None


def load_trusted(path: Path, kind: str) -> Any:
    """What is in a file of torch, its program run: a module of TorchScript or torch.export, or anything pickled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "script":
                return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            if kind == "export":
                with path.open("rb") as file:
                    return torch.export.load(file).module()
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: torch cannot load it, though it was trusted ({what})") from error


def read_archive(path: Path, file: BinaryIO, size: int) -> Archive:
    """The members of a zip file of torch, checked by the zip's own table: nothing is unpacked.

    Raises:
        InputError: no zip file of torch, or one that is made to harm.
    """
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: a broken or truncated zip file ({one_line(error)}); copy it again") from None
    if len(members) > MAX_MEMBERS:
        raise InputError(f"{path}: {len(members):,} members in the zip file, more than the limit of {MAX_MEMBERS:,}")
    sizes = {member.filename: member.file_size for member in members}
    prefix = members[0].filename.split("/")[0] if members else ""
    kind = _kind(prefix, sizes)
    for what in _harm(members, size, kind):
        raise InputError(f"{path}: refused, {what}; a file that torch.save wrote has no such thing")
    if not kind:
        raise InputError(f"{path}: a zip file, but not one of torch.save (no data.pkl in it)")
    return Archive(kind, prefix, sizes)


def _kind(prefix: str, sizes: dict[str, int]) -> str:
    if f"{prefix}/constants.pkl" in sizes or any(name.startswith(f"{prefix}/code/") for name in sizes):
        return "script"
    if f"{prefix}/archive_format" in sizes or any(name.endswith("serialized_exported_program.json") for name in sizes):
        return "export"
    return "weights" if f"{prefix}/data.pkl" in sizes else ""


def _harm(members: list[zipfile.ZipInfo], size: int, kind: str) -> Iterator[str]:
    """What is wrong with the members of a zip file of ``size`` bytes."""
    seen = set()
    for member in members:
        name = member.orig_filename
        shown = _shown(name)
        if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts or "\0" in name:
            yield f"its member {shown} leads out of the archive"
        if member.flag_bits & 0x1:
            yield f"its member {shown} is encrypted"
        if name.lower() in seen and kind in ("weights", ""):  # torch looks names up without regard to case
            yield f"its member {shown} is there twice"
        seen.add(name.lower())
        if member.compress_type != zipfile.ZIP_STORED and kind in ("weights", ""):
            sizes = f"{member.compress_size:,} bytes to {member.file_size:,}"
            yield f"its member {shown} is compressed, {sizes} (a zip bomb?)"
    total = sum(max(member.file_size, member.compress_size) for member in members)
    if total > size and kind in ("weights", ""):
        yield f"its members claim {total:,} bytes, and the whole file has {size:,} (a zip bomb?)"


def _scan_zip(path: Path, file: BinaryIO, size: int) -> Scan:
    archive = read_archive(path, file, size)
    if archive.kind != "weights":
        what = "TorchScript" if archive.kind == "script" else "torch.export"
        raise InputError(f"{path}: a program ({what}), not weights, and programs do what they want; to run it: {TRUST}")
    if (length := archive.sizes[f"{archive.prefix}/data.pkl"]) > MAX_PICKLE:
        raise InputError(f"{path}: its data.pkl has {length:,} bytes, more than the limit of {MAX_PICKLE:,}")
    try:
        with zipfile.ZipFile(file) as opened:
            data = opened.read(f"{archive.prefix}/data.pkl")
    except Exception as error:  # checksums, passwords, names: a broken archive breaks anywhere
        raise InputError(f"{path}: a broken or truncated zip file ({one_line(error)}); copy it again") from None
    found = scan(data)
    for key, claimed in found.storages.items():
        held = archive.sizes.get(f"{archive.prefix}/data/{key}")
        if held != claimed:
            found.problems.append(f"a tensor of {claimed:,} bytes for which there are {held or 0:,}")
    return found


def _scan_legacy(path: Path, file: BinaryIO, size: int) -> Scan:
    """Five pickles (the magic number, the protocol, the system, the weights, the keys), then the values."""
    file.seek(0)
    data = file.read(MAX_PICKLE)
    total, end = Scan(), 0
    for _ in range(5 if data.startswith(LEGACY) else 1):
        found = scan(data, end)
        end = found.end
        total.globals += [name for name in found.globals if name not in total.globals]
        total.problems += found.problems
        total.storages |= found.storages
        if found.problems:
            break
    if not data.startswith(LEGACY) and not total.globals:
        total.problems.insert(0, "a pickle that torch.save did not write")
    if (claimed := sum(total.storages.values())) > size - end:
        total.problems.append(f"tensors of {claimed:,} bytes for which there are {max(0, size - end):,}")
    return total


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(16)


def _shown(name: str) -> str:
    """A name from the file, fit for one line."""
    text = name[:80].encode("unicode_escape").decode("ascii")
    return text[:80] + ("..." if len(name) > 80 or len(text) > 80 else "")
