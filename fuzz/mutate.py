"""Changes that know the format: a JSON value, a pickle's opcode, an array's header, a member of an archive.

Bytes changed anywhere mostly break a checksum or a length and never reach what lies behind. So a file is taken apart,
one part is changed, and it is put together again; what cannot be taken apart is changed as bytes.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import pickletools
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Random = random.Random
Mutator = Callable[[bytes, Random], bytes]

NUMBERS = (0, 1, -1, 2, 3, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63,
           2**64 - 1, 10**10, 40 * 10**9, -(2**31), -(2**63))  # fmt: skip
STRINGS = ("", "\0", "a" * 300, "\ud800", "\U0001f600", "../../canary", "/etc/passwd", "a\nb", "\x1b[31m", "nan",
           "-inf", "1e999", "0x10", "_", "٣", "[bold", "[/x]", "%s{0}", "os.system", "text", "audio", "vision",
           "train")  # fmt: skip


def change_bytes(data: bytes, rng: Random) -> bytes:
    """One of the small changes that need no format."""
    b = bytearray(data)
    at, n = rng.randrange(len(b) + 1), len(b)
    size = rng.choice((1, 2, 4, 8, 16, 64, 256))
    match rng.randrange(8):
        case 0 if n:
            b[at % n] ^= 1 << rng.randrange(8)
        case 1 if n:
            b[at % n] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2:
            del b[at : at + size]
        case 3:
            b[at:at] = b[at : at + size] * rng.choice((1, 2, 9))
        case 4:
            del b[at:]
        case 5:  # a length or an offset
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            value = rng.choice((*NUMBERS, n, n - 1, n + 1, rng.randrange(n + 2)))
            b[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)
        case 6:
            start = rng.randrange(n + 1)
            b[at : at + size] = b[start : start + size]
        case _:
            b[at:at] = rng.choice(STRINGS).encode("utf-8", "surrogatepass")
    return bytes(b)


def change_text(data: bytes, rng: Random) -> bytes:
    """A line or a field of a table, a word of a sentence, a number among letters."""
    text = data.decode("utf-8", "replace")
    pieces = re.split(rng.choice((r"(\n)", r"([\t,])", r"([\s,:=+x.\"\[\]]+)", r"(\d+)")), text)
    at = rng.randrange(len(pieces))
    match rng.randrange(6):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(at, pieces[rng.randrange(len(pieces))])
        case 2:
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3:
            pieces[at] = rng.choice(STRINGS)
        case 4:
            pieces[at] = str(rng.choice(NUMBERS))
        case _:
            pieces[at] = rng.choice(
                ('"', "'", "[[", "{", "=", ",", "\t", "\r", ":", "1e9", "1e-9", "0.1", "true", "[0]")
            )
    return "".join(pieces).encode("utf-8", "surrogatepass")


def _json_value(rng: Random) -> Any:
    deep: Any = 1
    for _ in range(rng.choice((3, 40, 400))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    plain: tuple[Any, ...] = (
        None,
        True,
        False,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        10**30,
        [],
        {},
        [[]],
        [None],
        {"a": 1},
    )
    return rng.choice((*plain, *plain, deep, *NUMBERS, *STRINGS, "0" * 64, "f" * 24))


def change_value(value: Any, rng: Random) -> Any:
    """A value within nested dicts and lists, replaced, removed, renamed, repeated or made another type."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(12):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(rng.choice(STRINGS) if k == key else k): v for k, v in value.items()}
            case 2:
                return {**value, key: value[rng.choice(list(value))]}
        return {**value, key: change_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        match rng.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * rng.choice((2, 3, 50)) + value[at + 1 :]
        return [*value[:at], change_value(value[at], rng), *value[at + 1 :]]
    match rng.randrange(5):
        case 0 if isinstance(value, int | float):
            return rng.choice((value + 1, -value, value * 10**6, str(value), [value], float(value)))
        case 1 if isinstance(value, str):
            return change_text(value.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "replace")
    return _json_value(rng)


def change_json(data: bytes, rng: Random) -> bytes:
    """Also keys that stand twice, and nesting beyond what a parser follows."""
    text = json.dumps(change_value(json.loads(data), rng))
    if rng.random() < 0.03:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    if rng.random() < 0.02:
        text = text.replace(":", ":" + "[" * 100_000, 1)
    return text.encode("utf-8", "surrogatepass")


def change_lines(data: bytes, rng: Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = any_of(lines[at], rng, change_json, change_text)
    return b"\n".join(lines)


OPCODES = (
    b"(", b")", b"}", b"]", b"\x8f", b"N", b"\x88", b"t", b"\x85", b"\x86", b"\x87", b"l", b"d", b"R", b"b", b"a", b"e",
    b"s", b"u", b"\x90", b"\x91", b"\x81", b"\x92", b"o", b"Q", b"0", b"1", b"2", b".", b"\x93", b"\x94", b"\x97",
    b"\x98", b"h\x00", b"h\x01", b"j\xff\xff\xff\xff", b"q\x00", b"r\xff\xff\xff\xff", b"K\x00", b"J\xff\xff\xff\xff",
    b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00", b"\x8a\x05\x00\xe4\x0b\x54\x02", b"G\x7f\xf8\0\0\0\0\0\0",
    b"I00\n", b"C\x01a", b"X\x01\0\0\0a", b"\x8c\x02f4", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"B\xff\xff\xff\xff",
    b"\x95" + b"\0" * 8, b"cos\nsystem\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n", b"cnumpy.core.numeric\n_frombuffer\n", b"c_codecs\nencode\n",
    b"c__builtin__\nset\n", b"c__builtin__\nbytearray\n", b"c__builtin__\ncomplex\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n", b"ctorch.storage\n_load_from_bytes\n", b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nSize\n", b"ctorch\ndevice\n", b"ctorch\nfloat32\n", b"cbuiltins\neval\n", b"ios\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93",
)  # fmt: skip


def change_pickle(data: bytes, rng: Random) -> bytes:
    """Opcodes removed, repeated, exchanged, put in, or given another argument."""
    stream, starts = io.BytesIO(data), []
    try:
        for _, _, position in pickletools.genops(stream):
            starts.append(position or 0)
    except Exception:  # the rest of a broken pickle stays one piece
        pass
    if len(starts) < 2:
        return change_bytes(data, rng)
    bounds = [*starts, len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(bounds) if data[a : a + 1] != b"\x95"]
    at = rng.randrange(len(parts))
    match rng.randrange(12):
        case 0:
            del parts[at : at + rng.choice((1, 1, 2, 5))]
        case 1:
            parts.insert(at, rng.choice(parts))
        case 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        case 3 | 4:
            parts.insert(at, b"".join(rng.choice(OPCODES) for _ in range(rng.choice((1, 1, 2, 4)))))
        case 5:
            parts[at] = rng.choice(OPCODES)
        case 6 | 7 | 8:  # another argument of the same size; short ones are numbers and places in the memo
            short = [i for i, part in enumerate(parts) if 1 < len(part) < 12] or [at]
            at = rng.choice(short)
            value = rng.choice(NUMBERS) if rng.random() < 0.4 else rng.randrange(64)
            parts[at] = parts[at][:1] + (value % 2**88).to_bytes(11, "little")[: len(parts[at]) - 1]
        case 9:  # the same opcode as another of the file has it
            same = [part for part in parts if part[:1] == parts[at][:1]]
            parts[at] = rng.choice(same)
        case _:
            parts[at] = parts[at][:1] + change_bytes(parts[at][1:], rng)
    return b"".join(parts)


DTYPES = ("<f4", ">f4", "<f8", "<f2", "|b1", "|u1", "<i8", ">i2", "<U3", ">U3", "|S2", "|O", "|V4", "<M8[s]", "<c8",
          "<f16", "<U0", "|S0", "<U999999999", "i4,f4", "(2,)f4", "<f3", "", "|T", "<m8")  # fmt: skip


def change_npy(data: bytes, rng: Random) -> bytes:
    """The header's shape, dtype or order; or the values."""
    width = {1: 2, 2: 4}[data[6]]
    length = int.from_bytes(data[8 : 8 + width], "little")
    header, values = data[8 + width : 8 + width + length], data[8 + width + length :]
    fields = ast.literal_eval(header.decode("latin1"))
    match rng.randrange(7):
        case 0:
            fields["descr"] = rng.choice(DTYPES)
        case 1 | 2:
            shape = list(fields["shape"]) or [1]
            shape[rng.randrange(len(shape))] = rng.choice((*NUMBERS, 0.5, "3", True, None))
            fields["shape"] = tuple(shape)
        case 3:
            fields["shape"] = rng.choice(((), (0,), (1,) * 9, (1,) * 65, (2**32, 2**32), (-1,), [3], 3, None))
        case 4:
            fields["fortran_order"] = rng.choice((True, False, 1, "x", None))
        case 5:
            values = change_bytes(values, rng)
        case _:
            header = change_bytes(header, rng)
            return data[:8] + len(header).to_bytes(width, "little") + header + values
    text = repr(fields).encode("latin1")
    return data[:8] + len(text).to_bytes(width, "little") + text + values


def change_zip(data: bytes, rng: Random) -> bytes:
    """A member's content, name, compression; members left out, added, or there twice. All else is written anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    if not members:
        return change_bytes(data, rng)
    at = rng.randrange(len(members))
    if rng.random() < 0.6:  # data.pkl is one of many
        at = next((i for i, (name, _, _) in enumerate(members) if name.endswith("data.pkl")), at)
    name, content, kind = members[at]
    match rng.randrange(12):
        case 0:
            del members[at]
        case 1:
            members.append((name, content, kind))
        case 2:
            bad = ("../../canary", "/tmp/canary", "a\\b", "c:/x", "x.npy", "train/text", "train/" + "a" * 200 + ".npy")
            members[at] = (rng.choice((*bad, *STRINGS[:6])), content, kind)
        case 3:
            members[at] = (name, content, rng.choice((0, 8, 12, 14)))
        case 4:
            members[at] = (name, bytes(1 << 20), 8)
        case _:
            members[at] = (name, change(name, content, rng), kind)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, held, how in members:
            archive.writestr(zipfile.ZipInfo(member.replace("\ud800", "?")), held, how)
    return buffer.getvalue()


def change_safetensors(data: bytes, rng: Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, values = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.85:
        header = change_json(header, rng)
    else:
        values = change_bytes(values, rng)
    claimed = len(header) if rng.random() < 0.9 else rng.choice(NUMBERS) % 2**64
    return struct.pack("<Q", claimed) + header + values


def change_parquet(data: bytes, rng: Random) -> bytes:
    """A value, a column's type or name, the metadata; written anew, so that every checksum is right."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data), use_threads=False)
    metadata = dict(table.schema.metadata or {})
    at = rng.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    match rng.randrange(8):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.rename_columns([rng.choice(STRINGS[2:]) if n == name else n for n in table.column_names])
        case 2:
            kind = rng.choice((pa.string(), pa.int32(), pa.float64(), pa.null(), pa.list_(pa.string()), pa.binary()))
            table = table.set_column(at, name, pa.nulls(len(column), kind))
        case 3 if metadata:
            key = rng.choice(list(metadata))
            metadata[key] = any_of(metadata[key], rng, change_json, change_text)
        case 4:
            table = rng.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])))
        case 5:
            table = table.append_column(name, column)
        case _:
            values = column.to_pylist()
            if values:
                values[rng.randrange(len(values))] = _cell(rng.choice(values), rng)
            table = table.set_column(at, name, pa.array(values, column.type, from_pandas=False))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression=rng.choice(("zstd", "none", "gzip")))
    return bytes(sink.getvalue())


def _cell(value: Any, rng: Random) -> Any:
    if isinstance(value, str):
        return any_of(value.encode(), rng, change_json, change_text).decode("utf-8", "replace")
    if isinstance(value, float):
        return rng.choice((float("nan"), float("inf"), -1.0, 1e30, None))
    if isinstance(value, list):
        return change_value(value, rng) if value and isinstance(value[0], str) else None
    return rng.choice((None, 0, 1, -1, value))


def change_hdf5(data: bytes, rng: Random) -> bytes:
    """An array stored in another way, or something in its place that is none."""
    import h5py

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names = [f"{group}/{name}" for group in file if isinstance(file[group], h5py.Group) for name in file[group]]
        name = rng.choice(names)
        value = file[name][...]
        del file[name]
        match rng.randrange(12):
            case 0:
                file[name] = value.astype(rng.choice((">f4", "<f8", "<i8", "|u1", "<f2", ">i4", "|b1")))
            case 1:
                file[name] = h5py.SoftLink(rng.choice(("/train/audio", "/nowhere", f"/{name}")))
            case 2:
                file[name] = h5py.ExternalLink("/etc/passwd", "/a")
            case 3:
                shape = rng.choice(((10**10,), (2**20, 2**20), (0,), (2, 0, 3), (40 * 10**9,)))
                file.create_dataset(name, shape=shape, dtype="f4", chunks=tuple(min(n or 1, 64) for n in shape))
            case 4:
                file.create_dataset(name, shape=(4, 3, 4), dtype="f4", external=[("/etc/passwd", 0, 192)])
            case 5:
                file[name] = rng.choice((h5py.Empty("f4"), 1.5, "text", np.void(b"abcd")))
            case 6:
                file.create_dataset(name, data=["a", "\u00fc", "c" * 2000])
            case 7:
                filters = ({"compression": "gzip"}, {"compression": "lzf"}, {"fletcher32": True}, {"scaleoffset": 0})
                file.create_dataset(name, data=np.zeros((4, 3, 4), "i4"), **rng.choice(filters))
            case 8:
                layout = h5py.VirtualLayout(shape=(4, 3, 4), dtype="f4")
                layout[:] = h5py.VirtualSource("other.h5", "a", shape=(4, 3, 4))
                file.create_virtual_dataset(name, layout)
            case 9:
                kinds = (
                    h5py.ref_dtype,
                    h5py.vlen_dtype("i4"),
                    h5py.enum_dtype({"A": 1}),
                    np.dtype([("a", "f4")]),
                    np.dtype("c8"),
                )
                file.create_dataset(name, shape=(2,), dtype=rng.choice(kinds))
            case 10:
                file.create_group(name)
            case _:
                file[f"{name}x"] = value
    return buffer.getvalue()


def any_of(data: bytes, rng: Random, *mutators: Mutator) -> bytes:
    """By the first of these that fits."""
    for mutator in mutators:
        try:
            return mutator(data, rng)
        except Exception:  # not of this format any more
            continue
    return change_bytes(data, rng)


BY_ENDING: dict[str, Mutator] = {
    ".pkl": change_pickle,
    ".npz": change_zip,
    ".npy": change_npy,
    ".pth": lambda data, rng: any_of(data, rng, change_zip, change_pickle),
    ".json": change_json,
    ".jsonl": change_lines,
    ".safetensors": change_safetensors,
    ".parquet": change_parquet,
    ".h5": change_hdf5,
    **dict.fromkeys((".tsv", ".csv", ".txt", ".toml"), change_text),
}


def change(name: str, data: bytes, rng: Random) -> bytes:
    """By the format that the file's name says, or as bytes."""
    mutator = BY_ENDING.get("." + name.rpartition(".")[2])
    if mutator is None or rng.random() < 0.2:
        return change_bytes(data, rng)
    return any_of(data, rng, mutator)
