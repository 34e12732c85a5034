"""Hostile files made on the spot are refused by name and run nothing; honest ones come back as pickle gives them."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from corruptions import InputError
from robustbench_msa.data import safe_pickle

CORE = np.zeros(1).__reduce__()[0].__module__  # numpy._core.multiarray; numpy.core.multiarray before NumPy 2
FORTY_GB = 40 * 10**9
RUNSTRING = ("numpy.testing._private.utils", "runstring")  # exec in a NumPy dress
FREE_EXTENSION = 0xF0  # copyreg codes 240-255 are for private use


class Call:
    """Pickles as a call of ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> Any:
        return self.reduced


class PersistentPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return "an-id" if obj == "x" else None


def code(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


def shell(marker: Path) -> str:
    return f"echo run > {marker}"


# Opcodes by hand, for what the honest pickler does not write.


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return f"L{value}L\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    return named(module, name) + tuple_of(*args) + b"R"


def dtype(spec: str, *state: bytes) -> bytes:
    made = call("numpy", "dtype", text(spec), b"\x89", b"\x88")
    return made + tuple_of(*state) + b"b" if state else made


def empty_array(subtype: bytes = named("numpy", "ndarray"), shape: int = 0) -> bytes:
    return call(CORE, "_reconstruct", subtype, number(shape) + b"\x85", b"C\x01b")


def array(shape: int, kind: bytes, content: bytes) -> bytes:
    return empty_array() + tuple_of(b"K\x01", number(shape) + b"\x85", kind, b"\x89", content) + b"b"


def persistent(protocol: int) -> bytes:
    stream = io.BytesIO()
    PersistentPickler(stream, protocol).dump(["x"])
    return stream.getvalue()


Hostile = dict[str, tuple[Callable[[Path], bytes], str]]

# These do run under pickle.loads (test_payloads_are_live), so that "nothing ran" means something.
LIVE: Hostile = {
    "os.system": (lambda m: call("os", "system", text(shell(m))) + b".", r"refused os\.system"),
    "os.system by reduce": (
        lambda m: pickle.dumps(Call(os.system, shell(m))),
        rf"refused {os.name}\.system",
    ),
    "stack global": (
        lambda m: b"\x80\x04" + text("os") + text("system") + b"\x93(" + text(shell(m)) + b"tR.",
        r"refused os\.system",
    ),
    "builtins.eval": (lambda m: pickle.dumps(Call(eval, code(m)), 5), r"refused builtins\.eval"),
    "builtins.eval protocol 0": (
        lambda m: pickle.dumps(Call(eval, code(m)), 0),
        r"refused __builtin__\.eval",
    ),
    "builtins.exec": (lambda m: pickle.dumps(Call(exec, code(m)), 4), r"refused builtins\.exec"),
    "builtins.getattr": (
        lambda m: (
            call("builtins", "getattr", named("os", "environ"), text("get"))
            + call("os", "system", text(shell(m)))
            + b"."
        ),
        r"refused builtins\.getattr",
    ),
    "functools.partial": (
        lambda m: call("functools", "partial", named("builtins", "eval"), text(code(m))) + b")R.",
        r"refused functools\.partial",
    ),
    "nested pickle": (
        lambda m: pickle.dumps(Call(pickle.loads, pickle.dumps(Call(eval, code(m)))), 4),
        r"refused _pickle\.loads",
    ),
    "in an object array": (
        lambda m: pickle.dumps(np.array([Call(eval, code(m))], object), 4),
        r"refused builtins\.eval",
    ),
    "deep inside": (
        lambda m: pickle.dumps({"train": {"id": ["a", (1, [Call(eval, code(m))])]}}, 3),
        r"refused builtins\.eval",
    ),
    "numpy.testing": (
        lambda m: call(*RUNSTRING, text(code(m)), b"}") + b".",
        r"refused numpy\.testing\._private\.utils\.runstring",
    ),
    "INST": (lambda m: b"(" + text(shell(m)) + b"ios\nsystem\n.", r"refused opcode INST os\.system"),
    "OBJ": (lambda m: b"(" + named("os", "system") + text(shell(m)) + b"o.", r"refused os\.system"),
    "EXT1": (lambda m: b"\x80\x02\x82\xf0(" + text(code(m)) + b"}tR.", r"refused opcode EXT1"),
    "EXT2": (lambda m: b"\x80\x02\x83\xf0\x00(" + text(code(m)) + b"}tR.", r"refused opcode EXT2"),
    "EXT4": (lambda m: b"\x80\x02\x84\xf0\x00\x00\x00(" + text(code(m)) + b"}tR.", r"refused opcode EXT4"),
}

BOMB = b")" + b"q\x00h\x00\x86" * 60  # a tuple of two of a tuple of two of ...
MINUS_ONE = b"J\xff\xff\xff\xff"
PLAIN = (b"NNN", MINUS_ONE, MINUS_ONE)

REFUSED: Hostile = {
    "subprocess.Popen": (
        lambda m: call("subprocess", "Popen", b"(" + text("touch") + text(str(m)) + b"l") + b".",
        r"refused subprocess\.Popen",
    ),
    "codecs.decode": (
        lambda m: call("codecs", "decode", b"C\x01a", text("hex")) + b".",
        r"refused codecs\.decode",
    ),
    "_codecs.decode": (
        lambda m: call("_codecs", "decode", b"C\x01a", text("hex")) + b".",
        r"refused _codecs\.decode",
    ),
    "_codecs.encode": (
        lambda m: call("_codecs", "encode", text("a"), text("rot13")) + b".",
        r"refused _codecs\.encode with rot13",
    ),
    "numpy.load": (lambda m: call("numpy", "load", text(str(m))) + b".", r"refused numpy\.load"),
    "numpy.lib": (
        lambda m: call("numpy.lib.format", "open_memmap", text(str(m)), text("w+")) + b".",
        r"refused numpy\.lib\.format\.open_memmap",
    ),
    "dotted name": (
        lambda m: b"\x80\x04" + text("numpy") + text("ndarray.tofile") + b"\x93.",
        r"refused numpy\.ndarray\.tofile",
    ),
    "subclass": (
        lambda m: empty_array(named("numpy", "matrix")) + b".",
        r"refused numpy\.matrix",
    ),
    "class that is not named": (
        lambda m: empty_array(b"N") + b".",
        r"refused .*_reconstruct called with \(NoneType",
    ),
    "reserve by _reconstruct": (lambda m: empty_array(shape=FORTY_GB) + b".", r"refused .*_reconstruct"),
    "reserve by ndarray": (
        lambda m: call("numpy", "ndarray", number(FORTY_GB) + b"\x85") + b".",
        r"refused numpy\.ndarray called with",
    ),
    "reserve by state": (
        lambda m: array(10 * 10**9, dtype("f4"), b"C\x04abcd") + b".",
        r"refused numpy\.ndarray .*claims 40,000,000,000 bytes and holds 4",
    ),
    "reserve by object state": (
        lambda m: array(FORTY_GB, dtype("O8"), b"]") + b".",
        r"refused numpy\.ndarray .*claims 40,000,000,000 elements and holds 0",
    ),
    "reserve by _frombuffer": (
        lambda m: (
            call(
                "numpy._core.numeric",
                "_frombuffer",
                b"C\x01a",
                dtype("u1"),
                number(FORTY_GB) + b"\x85",
                text("C"),
            )
            + b"."
        ),
        r"refused numpy\.ndarray .*claims 40,000,000,000 bytes and holds 1",
    ),
    "reserve by bytearray": (
        lambda m: call("builtins", "bytearray", number(FORTY_GB)) + b".",
        r"refused .*int where bytes is expected",
    ),
    "reserve by announcement": (
        lambda m: b"\x80\x04\x8e" + struct.pack("<Q", FORTY_GB) + b"abc.",
        r"truncated: 40,000,000,000 more bytes are announced, 4 are left",
    ),
    "elements of no size": (
        lambda m: array(FORTY_GB, dtype("U0"), b"C\x00") + b".",
        r"refused numpy\.dtype U0",
    ),
    "negative shape": (
        lambda m: array(-1, dtype("u1"), b"C\x00") + b".",
        r"shape that is not of whole numbers",
    ),
    "pointers from bytes": (
        lambda m: array(1, dtype("O8"), b"C\x08AAAAAAAA") + b".",
        r"refused an object array with bytes",
    ),
    "forged dtype flags": (
        lambda m: array(1, dtype("O8", b"K\x03", text("|"), *PLAIN, b"K\x00"), b"C\x08AAAAAAAA") + b".",
        r"refused numpy\.dtype object with a state that NumPy does not write",
    ),
    "forged dtype size": (
        lambda m: dtype("f4", b"K\x03", text("<"), b"NNN", number(FORTY_GB), MINUS_ONE, b"K\x00") + b".",
        r"refused numpy\.dtype float32 with a state",
    ),
    "code points that do not exist": (
        lambda m: pickle.dumps(np.array([97, 0x110000], ">u4").view(">U1"), 4),
        r"refused numpy\.ndarray of dtype >U1: it holds code points that do not exist",
    ),
    "records": (lambda m: pickle.dumps(np.zeros(1, [("a", "f4")]), 4), r"refused numpy\.dtype V4"),
    "dates": (lambda m: pickle.dumps(np.zeros(1, "M8[s]"), 4), r"refused numpy\.dtype M8"),
    "object scalar": (
        lambda m: call(CORE, "scalar", dtype("O8"), b"C\x08AAAAAAAA") + b".",
        r"refused .*multiarray\.scalar",
    ),
    "name in the data": (
        lambda m: b"]" + named("numpy", "ndarray") + b"a.",
        r"refused numpy\.ndarray in the place of",
    ),
    "name in an object array": (
        lambda m: array(1, dtype("O8"), b"]" + named("numpy", "dtype") + b"a") + b".",
        r"refused numpy\.dtype in the place of data",
    ),
    "BUILD of str": (lambda m: text("a") + b"}b.", r"refused BUILD of str"),
    "BUILD of list": (lambda m: b"](K\x01tb.", r"refused BUILD of list"),
    "BUILD of a name": (
        lambda m: named("_codecs", "encode") + b"(K\x01tb.",
        r"refused BUILD of _codecs\.encode",
    ),
    "BUILD twice": (
        lambda m: array(1, dtype("u1"), b"C\x01a") + tuple_of(b"K\x01K\x01\x85", dtype("u1"), b"\x89C\x01b") + b"b.",
        r"refused BUILD of ndarray",
    ),
    "call of a string": (lambda m: text("os.system") + b")R.", r"refused a call of str"),
    "NEWOBJ": (lambda m: b"\x80\x02" + named("numpy", "ndarray") + b")\x81.", r"refused opcode NEWOBJ"),
    "BINPERSID": (lambda m: persistent(2), r"refused opcode BINPERSID"),
    "PERSID": (lambda m: persistent(0), r"refused opcode PERSID an-id"),
    "out-of-band buffer": (lambda m: b"\x80\x05\x97.", r"refused opcode NEXT_BUFFER"),
    "hash of 2^60 steps": (lambda m: b"}" + BOMB + b"Ns.", r"refused tuple as a key"),
    "repr of 2^60 steps": (lambda m: BOMB + BOMB + b"\x93.", r"refused tuple\.tuple"),
    "shape of 2^60 steps": (
        lambda m: empty_array() + tuple_of(b"K\x01", BOMB, dtype("f4"), b"\x89", b"C\x00") + b"b.",
        r"a shape that is not of whole numbers",
    ),
    "dtype of 2^60 steps": (lambda m: call("numpy", "dtype", BOMB) + b".", r"refused numpy\.dtype tuple"),
    "arguments of 2^60 steps": (lambda m: call("_codecs", "encode", BOMB, BOMB) + b".", r"refused _codecs\.encode"),
    "huge integer key": (lambda m: b"}" + number(2**100) + b"Ns.", r"refused int as a key"),
    "names with line breaks": (
        lambda m: b"\x80\x04" + text("os\nOK: safe") + text("x" * 500) + b"\x93.",
        r"refused os\\nOK: safe\.x+\.\.\.$",
    ),
}

HOSTILE = LIVE | REFUSED


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    copyreg.add_extension(*RUNSTRING, FREE_EXTENSION)
    yield tmp_path / "marker"
    copyreg.remove_extension(*RUNSTRING, FREE_EXTENSION)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", LIVE)
def test_payloads_are_live(name: str, marker: Path) -> None:
    pickle.loads(LIVE[name][0](marker))
    assert marker.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name_and_run_nothing(name: str, marker: Path) -> None:
    make, message = HOSTILE[name]
    path = write(marker.parent, make(marker))
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as error:
        safe_pickle.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not marker.exists()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert peak < 4 * 2**20


def test_data_that_is_multiplied_is_refused(tmp_path: Path) -> None:
    content = b"B" + struct.pack("<I", 10**5) + bytes(10**5) + b"q\x00"
    copies = array(10**5, dtype("u1"), b"h\x00") * 100
    with pytest.raises(InputError, match="together they hold more bytes than the file"):
        safe_pickle.load(write(tmp_path, content + copies + b"."))


def test_memo_index_reserves_nothing(tmp_path: Path) -> None:
    assert safe_pickle.load(write(tmp_path, b"]r\xff\xff\xff\xff.")) == []


NOT_PICKLES = {
    b"": "the file is empty",
    b"<!DOCTYPE html><html><body>Sign in</body></html>": "a web page",
    b"\n  <html></html>": "a web page",
    b"PK\x03\x04" + bytes(60): "a zip archive",
    b"\x1f\x8b\x08" + bytes(60): "a gzip archive",
    b"\x93NUMPY\x01\x00": "a .npy array",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "a Git LFS pointer",
    b"video_id,text,label\n1,hello,0\n": "broken or not a pickle",
    b"\x80\x04": "truncated",
    b"\x80\x63.": "broken or not a pickle",
}


@pytest.mark.parametrize("content", NOT_PICKLES)
def test_what_is_not_a_pickle_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=NOT_PICKLES[content]) as error:
        safe_pickle.load(write(tmp_path, content))
    assert "expected a pickle of NumPy arrays" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        safe_pickle.load(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="not a regular file"):
        safe_pickle.load(tmp_path)
    with pytest.raises(InputError, match="has 4 bytes, more than the limit of 3"):
        safe_pickle.load(write(tmp_path, pickle.dumps(None)), max_bytes=3)


def honest() -> dict[str, Any]:
    dtypes = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16")
    arrays: dict[str, Any] = {d: np.arange(24).reshape(2, 3, 4).astype(d) for d in dtypes}
    arrays |= {f">{d}": np.arange(600, dtype=f">{d}") for d in ("f2", "f4", "f8", "i2", "i4", "i8", "u4")}
    return {
        "train": arrays,
        "valid": {
            "id": np.array(["a$_$1", "ü$_$2", "中"]),
            "big-endian id": np.array(["a", "ü"], dtype=">U5"),
            "bytes": np.array([b"ab", b"\xff"]),
            "objects": np.array(["a", b"b", 1, 2.5, None, True, ["x", (1, 2)], {"k": 1}, np.float32(3)], dtype=object),
            "nested objects": np.array([[None, "a"], ["b", 1]], dtype=object),
            "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            "permuted": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
            "no steps": np.zeros((3, 0, 5), np.float32),
            "no dimensions": np.array(1.5),
            "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("ab"), np.complex64(1j)],
        },
        "test": {
            "containers": [
                (),
                (1,),
                (1, 2),
                (1, 2, 3),
                (1, 2, 3, 4),
                [],
                {},
                {1: {2.5: None}},
                {"a"},
                frozenset([b"b"]),
                set(),
            ],
            "values": [
                "",
                "é\n\\",
                b"",
                b"\x00\xff" * 300,
                bytearray(b"x\xff"),
                bytearray(),
                1 + 2j,
                True,
                False,
                None,
            ],
            "numbers": [0, 255, 256, -1, 2**31, -(2**31), 2**63, -(10**300), 0.1, float("inf")],
            "lengths": list(range(3000)),
        },
    }


def assert_same(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        if expected.dtype == object:
            assert_same(actual.ravel().tolist(), expected.ravel().tolist())
        else:
            assert actual.tobytes() == expected.tobytes()
    else:
        assert actual == expected or (actual != actual and expected != expected)


@pytest.mark.parametrize("protocol", range(6))
def test_honest_files_come_back_as_pickle_gives_them(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(honest(), protocol)
    assert_same(safe_pickle.load(write(tmp_path, content)), pickle.loads(content))


@pytest.mark.parametrize("protocol", range(6))
def test_shared_objects_stay_shared(protocol: int, tmp_path: Path) -> None:
    lengths = np.arange(5)
    loaded: Any = safe_pickle.load(write(tmp_path, pickle.dumps({"audio": lengths, "vision": lengths}, protocol)))
    assert loaded["audio"] is loaded["vision"]


def test_files_of_numpy_1(tmp_path: Path) -> None:
    old = pickle.dumps(np.arange(400.0), 2).replace(b"numpy._core.", b"numpy.core.")
    np.testing.assert_array_equal(safe_pickle.load(write(tmp_path, old)), np.arange(400.0))


def test_files_of_python_2(tmp_path: Path) -> None:
    code_b = b"U\x01b"
    made = call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), b"K\x00\x85", code_b)
    kind = call("numpy", "dtype", b"U\x02f4", b"K\x00", b"K\x01")
    kind += tuple_of(b"K\x03", b"U\x01<", b"NNN", MINUS_ONE, MINUS_ONE, b"K\x00") + b"b"
    content = np.array([1.5, -2.0], "<f4").tobytes()
    state = tuple_of(b"K\x01", b"K\x02\x85", kind, b"\x89", b"U" + bytes([len(content)]) + content)
    loaded = safe_pickle.load(write(tmp_path, b"\x80\x02" + made + state + b"b."))
    np.testing.assert_array_equal(loaded, np.array([1.5, -2.0], np.float32))


ARRAYS = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes()
    | hnp.floating_dtypes(sizes=(16, 32, 64))
    | hnp.unicode_string_dtypes(max_len=5)
).flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))


@settings(max_examples=60, deadline=None)
@given(
    array=ARRAYS, rest=st.dictionaries(st.text(), st.integers() | st.floats() | st.text()), protocol=st.integers(0, 5)
)
def test_any_honest_data(
    array: Any, rest: dict[str, Any], protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = pickle.dumps({"array": array, "rest": rest}, protocol)
    assert_same(safe_pickle.load(write(tmp_path_factory.getbasetemp(), content)), pickle.loads(content))


SMALL = {
    "id": np.array(["a", "b"], object),
    "x": np.arange(3, dtype=">f4"),
    "n": [1, None, (2.5, "é")],
    "s": {b"x"},
}


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_every_truncation_is_an_input_error(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(SMALL, protocol)
    for end in range(len(content)):
        with pytest.raises(InputError, match=r"data\.pkl: expected a pickle"):
            safe_pickle.load(write(tmp_path, content[:end]))


@settings(max_examples=200, deadline=None)
@given(
    protocol=st.integers(0, 5),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_damage_gives_data_or_an_input_error(
    protocol: int, edits: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(pickle.dumps(SMALL, protocol))
    for position, byte in edits:
        content[position % len(content)] = byte
    try:
        safe_pickle.load(write(tmp_path_factory.getbasetemp(), bytes(content)))
    except InputError as error:
        assert "expected a pickle" in str(error)  # noqa: PT017  # either outcome is right


# Tensors: torch pickles one as a call of its own with the bytes of a file inside.


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_come_back_as_arrays(protocol: int, tmp_path: Path) -> None:
    made = {
        "float": torch.randn(5, 3),
        "transposed": torch.arange(12).view(3, 4).t(),
        "part": torch.randn(10)[3:7],
        "expanded": torch.ones(1).expand(3),
        "half": torch.randn(2, 2).half(),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "zeros": torch.zeros(1000),
        "trained": torch.randn(2, requires_grad=True),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(made, protocol=protocol))
    found: Any = safe_pickle.load(path)
    for name, tensor in made.items():
        expected = tensor.detach().numpy()
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype
        assert found[name].flags.writeable


def tensor_pickle(storage: Any, *args: Any) -> bytes:
    return pickle.dumps(Call(torch._utils._rebuild_tensor_v2, storage, *args), protocol=4)


def stored_bytes(count: int = 4) -> bytes:
    """The bytes that torch pickles for a tensor of so many float32."""
    typed = torch.randn(count).__reduce_ex__(4)[1][0]
    content: bytes = typed.__reduce__()[1][0]
    return content


def storage(content: bytes) -> Call:
    return Call(torch.storage._load_from_bytes, content)


HOSTILE_TENSORS: dict[str, Callable[[Path], tuple[bytes, str]]] = {
    "beyond its values": lambda _: (
        tensor_pickle(storage(stored_bytes()), 0, (5,), (1,), False, {}),
        "reaches beyond its 4 values",
    ),
    "offset beyond": lambda _: (tensor_pickle(storage(stored_bytes()), 4, (1,), (1,), False, {}), "reaches beyond"),
    "negative steps": lambda _: (tensor_pickle(storage(stored_bytes()), 3, (4,), (-1,), False, {}), "refused torch"),
    "without end": lambda _: (
        tensor_pickle(storage(stored_bytes()), 0, (10**10,), (0,), False, {}),
        "more bytes than the file",
    ),
    "fewer steps": lambda _: (tensor_pickle(storage(stored_bytes()), 0, (2, 2), (1,), False, {}), "refused torch"),
    "no storage": lambda _: (tensor_pickle(b"x", 0, (1,), (1,), False, {}), "refused torch._utils._rebuild_tensor_v2"),
    "no bytes": lambda _: (tensor_pickle(storage(b""), 0, (1,), (1,), False, {}), "broken|truncated"),
    "cut": lambda _: (tensor_pickle(storage(stored_bytes()[:-1]), 0, (4,), (1,), False, {}), "claims 4 values and hol"),
    "other count": lambda _: (
        tensor_pickle(storage(stored_bytes() + bytes(4)), 0, (4,), (1,), False, {}),
        "claims 4 values and holds 20",
    ),
    "a program inside": lambda marker: (
        tensor_pickle(storage(pickle.dumps(Call(os.system, shell(marker)))), 0, (1,), (1,), False, {}),
        "refused (posix|nt).system",
    ),
    "a program for a storage": lambda marker: (
        tensor_pickle(
            storage(b"".join(pickle.dumps(x) for x in (safe_pickle._MAGIC, 1001, {"little_endian": True}))
            + pickle.dumps(Call(os.system, shell(marker)))), 0, (1,), (1,), False, {},
        ),
        "refused (posix|nt).system",
    ),
    "a reference outside": lambda _: (b"\x80\x04\x8c\x01aQ.", "refused opcode BINPERSID"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_TENSORS)
def test_hostile_tensors_are_refused(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content, message = HOSTILE_TENSORS[name](marker)
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        safe_pickle.load(tmp_path / "x.pkl")
    assert not marker.exists()
