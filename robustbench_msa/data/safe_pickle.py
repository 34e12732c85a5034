"""Reading pickles from strangers: an interpreter for the data half of the pickle language.

A pickle is a program. An ``Unpickler`` with a filtered ``find_class`` still calls and builds whatever passes the
filter with arguments the file chose, sizes its memo by the largest index a file claims, reserves the bytes a file
announces, and hashes any key. So the opcodes are parsed by ``pickletools.genops`` and interpreted here, and only
those that make plain data exist: what is not in ``_STEPS`` or ``_GLOBALS`` is refused by name, and nothing the file
names is ever imported.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from corruptions import InputError

_T = TypeVar("_T")

MAX_BYTES = 64 * 2**30
_MAX_OPCODES = 10_000_000  # an empty set costs one byte in the file and 216 in memory; MOSEI needs about a million
_SLACK = 4096
_EXPECTED = "a pickle of NumPy arrays, strings, numbers and builtin containers only"
_LOOKALIKES = {
    b"<": "a web page or XML, not the data; download the file again",
    b"PK\x03\x04": "a zip archive (written by torch.save or numpy.savez?)",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x93NUMPY": "a .npy array",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself",
}


class _Refused(Exception):
    """What the file holds and this reader does not make; ``load`` adds the file and what was expected."""


def load(path: Path, max_bytes: int = MAX_BYTES) -> object:
    """The data in a pickle file (protocols 0 to 5), without running anything the file says.

    Only these are built: NumPy arrays (bool, integers, floats, complex, text, and object arrays of the rest of this
    list; tensors of torch come back as arrays), NumPy scalars and dtypes, and dict, list, tuple, set, frozenset, str,
    bytes, bytearray, int, float, complex, bool and None. Keys of dicts and members of sets are strings, bytes and plain
    numbers. Memory stays within a small multiple of the file's size plus what ten million opcodes can make.

    Args:
        path: the file; trusted in no way.
        max_bytes: larger files are refused unread.

    Raises:
        InputError: the file is missing, too large, truncated, not a pickle, or asks for anything else; a refused
            function, class or opcode is named.

    >>> import pickle, tempfile
    >>> class Payload:
    ...     def __reduce__(self): return print, ("it runs",)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "data.pkl")
    ...     _ = path.write_bytes(pickle.dumps({"id": ["a"], "audio": np.ones((1, 2))}))
    ...     print(load(path))
    ...     _ = path.write_bytes(pickle.dumps(Payload(), protocol=4))
    ...     try: load(path)
    ...     except InputError as error: print(str(error).split("; ")[-1])
    {'id': ['a'], 'audio': array([[1., 1.]])}
    refused builtins.print
    """
    try:
        if not path.is_file():  # a pipe or device could be read for ever
            raise _Refused("there is no such file" if not path.exists() else "this is not a regular file")
        with path.open("rb") as file:
            return _load(file, path.stat().st_size, max_bytes)
    except _Refused as error:
        raise InputError(f"{path}: expected {_EXPECTED}; {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a hostile file may break the parser anywhere, in any way
        reason = f"{type(error).__name__}: {_shown(str(error), 160)}"
        raise InputError(f"{path}: expected {_EXPECTED}; this one is broken or not a pickle ({reason})") from error


def _load(file: BinaryIO, size: int, max_bytes: int) -> object:
    if size == 0:
        raise _Refused("the file is empty")
    if size > max_bytes:
        raise _Refused(f"the file has {size:,} bytes, more than the limit of {max_bytes:,}")
    head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what in _LOOKALIKES.items():
        if head.startswith(magic):
            raise _Refused(f"this is {what}")
    file.seek(0)
    result = _Machine(size).run(_Stream(file, size))
    _check_only_data(result)
    return result


class _Stream:
    """The file, which gives no more than it has: an announced size is checked before any memory is reserved."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, n: int) -> bytes:
        if n > self.left:
            raise _Refused(f"the file is truncated: {n:,} more bytes are announced, {self.left:,} are left")
        self.left -= n
        return self.file.read(n)

    def readline(self) -> bytes:
        line = self.file.readline()
        self.left -= len(line)
        return line


class _Global(NamedTuple):
    """Stands for a name in the file; calling it runs a function of this module, never the thing named."""

    name: str
    call: Callable[[_Machine, tuple[Any, ...]], Any]


class _Machine:
    """The pickle machine: a stack, marks into it, and a memo."""

    def __init__(self, size: int) -> None:
        self.steps, self.globals = _STEPS, _GLOBALS
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.unbuilt: dict[int, Any] = {}  # arrays and dtypes by id() that await their one BUILD
        # Data that is made from memoized data costs the file nothing, so all of it is counted. Three times the size:
        # protocols 0 to 2 hold bytes as text, counted when it is encoded, as values of a tensor, and as an array.
        self.budget = 3 * size + _SLACK

    def run(self, stream: _Stream) -> Any:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if count >= _MAX_OPCODES:
                raise _Refused(f"more than {_MAX_OPCODES:,} opcodes (features must be arrays, not lists)")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name not in self.steps:
                named = f" {_shown(arg.replace(' ', '.', 1))}" if isinstance(arg, str) else ""
                raise _Refused(f"refused opcode {opcode.name}{named}")
            self.steps[opcode.name](self, arg)
        raise _Refused("the file is truncated: no STOP")

    def spend(self, n: int) -> None:
        self.budget -= n
        if self.budget < 0:
            raise _Refused("refused arrays: together they hold more bytes than the file")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def tuple_of(self, n: int) -> None:
        if len(self.stack) < n:
            raise _Refused("the file is broken: a tuple of more items than there are")
        self.stack[-n:] = [tuple(self.stack[-n:])]

    def append(self, items: list[Any]) -> None:
        _exactly(list, self.stack[-1], "appending").extend(items)

    def set_items(self, items: list[Any]) -> None:
        _exactly(dict, self.stack[-1], "setting items").update(zip(_keys(items[::2]), items[1::2], strict=True))

    def dict_of_marked(self, _: Any) -> None:
        items = self.pop_mark()
        self.push({})
        self.set_items(items)

    def add_items(self, items: list[Any]) -> None:
        _exactly(set, self.stack[-1], "adding items").update(_keys(items))

    def find(self, module: Any, name: Any) -> None:
        shown = f"{_shown(module)}.{_shown(name)}"
        if type(module) is not str or type(name) is not str or (module, name) not in self.globals:
            raise _Refused(f"refused {shown}")
        self.stack.append(_Global(shown, self.globals[module, name]))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(args) is not tuple:
            raise _Refused(f"refused a call of {_kind(function)}")
        try:
            self.stack.append(function.call(self, args))
        except (TypeError, ValueError):
            given = ", ".join(_kind(arg) for arg in args[:6])
            raise _Refused(f"refused {function.name} called with ({given})") from None

    def push_storage(self, _: Any) -> None:
        """A reference out of the pickle, to the values behind it. In no other place is there anything to refer to."""
        kind, storage, key, _, count, *_ = self.stack.pop()
        if kind != "storage" or type(storage) is not _Global or type(key) is not str or type(count) is not int:
            raise _Refused("refused a tensor that torch does not write")
        self.stack.append(_Storage(np.dtype(_STORAGES[storage.name.split(".")[1].removesuffix("Storage")]), key, count))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if self.unbuilt.pop(id(target), None) is None or type(state) is not tuple:
            raise _Refused(f"refused BUILD of {_kind(target)}")
        if isinstance(target, np.dtype):
            _build_dtype(target, state)
        else:
            _build_array(self, target, state)


def _no_call(machine: _Machine, args: tuple[Any, ...]) -> Any:
    raise ValueError("only named, never called")


def _encode(machine: _Machine, args: tuple[Any, ...]) -> bytes:
    """How protocols 0 to 2 hold bytes: as text to be encoded."""
    text, codec = args
    if type(text) is not str or codec != "latin1":
        raise _Refused(f"refused _codecs.encode with {_shown(codec)}")
    machine.spend(len(text))
    return text.encode("latin1")


def _empty_bytes(machine: _Machine, args: tuple[Any, ...]) -> bytes:
    if args:
        raise ValueError("protocols 0 to 2 call bytes() for b'' only")
    return b""


def _bytearray(machine: _Machine, args: tuple[Any, ...]) -> bytearray:
    raw = _raw(args[0]) if args else b""  # never a number: bytearray(10**11) reserves it
    machine.spend(len(raw))
    return bytearray(raw)


def _set(machine: _Machine, args: tuple[Any, ...]) -> set[Any]:
    items = _exactly(list, args[0], "making a set") if args else []
    machine.spend(len(items))
    return set(_keys(items))


def _frozenset(machine: _Machine, args: tuple[Any, ...]) -> frozenset[Any]:
    return frozenset(_set(machine, args))


def _complex(machine: _Machine, args: tuple[Any, ...]) -> complex:
    real, imaginary = args
    return complex(_exactly(float, real, "complex"), _exactly(float, imaginary, "complex"))


def _reconstruct(machine: _Machine, args: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """The empty array that a BUILD will fill; always a plain ndarray, always of shape (0,)."""
    subtype, shape, code = args
    if type(subtype) is not _Global or subtype.name != "numpy.ndarray":
        raise ValueError("only plain arrays")
    if shape != (0,) or code not in (b"b", "b"):
        raise ValueError("only the empty array that NumPy itself writes")
    array = np.ndarray((0,), np.int8)
    machine.unbuilt[id(array)] = array
    return array


_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,6}|O8")


def _dtype(machine: _Machine, args: tuple[Any, ...]) -> np.dtype[Any]:
    """A simple dtype in native order. No records, subarrays, metadata or dates: they carry further objects."""
    spec, *flags = args
    if type(spec) is not str or not _DTYPE.fullmatch(spec):
        raise _Refused(f"refused numpy.dtype {_shown(spec)}")
    if any(type(flag) not in (bool, int) for flag in flags) or len(flags) > 2:
        raise ValueError("align and copy are flags")
    dtype = np.dtype(spec, copy=True)
    machine.unbuilt[id(dtype)] = dtype
    return dtype


def _build_dtype(dtype: np.dtype[Any], state: tuple[Any, ...]) -> None:
    """Sets the byte order, all there is to set; flags or sizes of the file's own would let it forge pointers."""
    order = state[1] if len(state) == 8 else None
    trusted = dtype.newbyteorder(order).__reduce__()[2] if order in ("<", ">", "|") else None
    if trusted is None or any(type(a) is not type(b) or a != b for a, b in zip(state, trusted, strict=True)):
        raise _Refused(f"refused numpy.dtype {dtype} with a state that NumPy does not write")
    dtype.__setstate__(trusted)  # type: ignore[attr-defined]  # NumPy's stubs leave it out


def _build_array(machine: _Machine, array: np.ndarray[Any, Any], state: tuple[Any, ...]) -> None:
    if len(state) != 5 or state[0] != 1 or type(state[3]) not in (bool, int):
        raise _Refused("refused numpy.ndarray with a state that NumPy does not write")
    _, shape, dtype, fortran, content = state
    size = _size(shape, dtype)
    if dtype.hasobject:
        data: Any = _exactly(list, content, "an object array")
        _match(shape, dtype, size, len(data), "elements")
        machine.spend(size)
    else:
        data = _raw(content)
        _match(shape, dtype, size * dtype.itemsize, len(data), "bytes")
        _check_text(dtype, data)
        machine.spend(len(data))
    built: Any = (1, shape, dtype, bool(fortran), data)
    array.__setstate__(built)


def _frombuffer(machine: _Machine, args: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Protocol 5: the array is a view of the bytes."""
    content, dtype, shape, order, *axes = args
    size = _size(shape, dtype)
    if type(content) not in (bytes, bytearray) or dtype.hasobject or order not in ("C", "F", "K"):
        raise ValueError("a buffer holds plain values")
    _match(shape, dtype, size * dtype.itemsize, len(content), "bytes")
    _check_text(dtype, content)
    machine.spend(len(content))
    flat = np.frombuffer(content, dtype) if size else np.empty(0, dtype)
    if order != "K":
        return flat.reshape(shape, order=order)
    return flat.reshape(shape).transpose(_exactly(tuple, axes[0], "the order of axes"))


def _scalar(machine: _Machine, args: tuple[Any, ...]) -> Any:
    dtype, content = args
    if _size((), dtype) and dtype.hasobject:
        raise ValueError("a scalar holds a plain value")
    data = _raw(content)
    _match((), dtype, dtype.itemsize, len(data), "bytes")
    _check_text(dtype, data)
    machine.spend(len(data))
    return np.frombuffer(data, dtype)[0]


def _empty_ordered_dict(machine: _Machine, args: tuple[Any, ...]) -> dict[Any, Any]:
    """The hooks of a tensor, of which there are none."""
    if args:
        raise ValueError("only an empty one")
    return {}


_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # with these torch.save began its files before they were archives
_STORAGES = {"Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1"}
_STORAGES |= {"Byte": "u1", "Bool": "b1"}


def _torch_storage(machine: _Machine, args: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """The values of a tensor as a flat array. torch pickles them as the bytes of a file that torch.save wrote.

    That file is five pickles (magic number, protocol, byte order, one storage, its key), a count and the values.
    """
    (content,) = args
    raw = _raw(content)
    machine.spend(len(raw))
    stream = _Stream(io.BytesIO(raw), len(raw))
    magic, protocol, system = (_Machine(len(raw)).run(stream) for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or type(system) is not dict or system.get("little_endian") is not True:
        raise _Refused("refused a tensor that torch did not write on a little-endian machine")
    inner = _Machine(len(raw))
    inner.steps, inner.globals = {**_STEPS, "BINPERSID": _Machine.push_storage}, _STORAGE_TYPES
    dtype, key, count = _exactly(_Storage, inner.run(stream), "reading a tensor")
    keys = _Machine(len(raw)).run(stream)
    values = stream.read(stream.left)
    if keys != [key] or len(values) != 8 + count * dtype.itemsize or int.from_bytes(values[:8], "little") != count:
        raise _Refused(f"refused a tensor: it claims {count:,} values and holds {max(0, len(values) - 8):,} bytes")
    return np.frombuffer(values, dtype, offset=8)


class _Storage(NamedTuple):
    """What a storage in a file of torch.save claims to be."""

    dtype: np.dtype[Any]
    key: str
    values: int


def _tensor(machine: _Machine, args: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """An array of a storage, an offset, sizes and steps; what autograd adds is dropped."""
    storage, offset, shape, strides, *_ = args
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or type(strides) is not tuple:
        raise ValueError("a tensor is made of a storage")
    size = _size(shape, storage.dtype)
    if len(strides) != len(shape) or not all(type(n) is int and 0 <= n < 2**63 for n in (offset, *strides)):
        raise ValueError("as many steps as sizes")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if size and last >= len(storage):
        raise _Refused(f"refused a tensor of shape {shape}: it reaches beyond its {len(storage):,} values")
    machine.spend(size * storage.itemsize)
    if not size:
        return np.empty(shape, storage.dtype)
    steps = tuple(step * storage.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False).copy()


def _check_text(dtype: np.dtype[Any], data: bytes) -> None:
    """NumPy makes strings of any four bytes, and breaks (SystemError) when one is read that Unicode does not have."""
    if dtype.kind == "U" and data and np.frombuffer(data, f"{dtype.byteorder}u4").max() > sys.maxunicode:
        raise _Refused(f"refused numpy.ndarray of dtype {dtype}: it holds code points that do not exist")


def _size(shape: Any, dtype: Any) -> int:
    """Elements in an array of this shape."""
    if not isinstance(dtype, np.dtype) or type(shape) is not tuple or len(shape) > 32:
        raise _Refused(f"refused numpy.ndarray of shape {_kind(shape)} and dtype {_kind(dtype)}")
    if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise _Refused("refused numpy.ndarray with a shape that is not of whole numbers")
    return math.prod(shape)


def _match(shape: tuple[int, ...], dtype: np.dtype[Any], claimed: int, held: int, unit: str) -> None:
    if claimed != held:
        what = f"numpy.ndarray of shape {shape} and dtype {dtype}"
        raise _Refused(f"refused {what}: it claims {claimed:,} {unit} and holds {held:,}")


def _raw(content: Any) -> bytes:
    """The bytes of an array; Python 2 wrote them as its str."""
    if type(content) is str:
        return content.encode("latin1")
    return bytes(content) if type(content) is bytearray else _exactly(bytes, content, "an array's content")


def _exactly(kind: type[_T], value: Any, doing: str) -> _T:
    if type(value) is not kind:
        raise _Refused(f"refused {doing} with {_kind(value)} where {kind.__name__} is expected")
    return value


def _keys(keys: Iterable[Any]) -> Iterable[Any]:
    """Keys whose hash is quick to compute and hard to collide: no nested tuples, no integers beyond 64 bits."""
    for key in keys:
        if type(key) not in (str, bytes, bool, float, type(None)) and not (type(key) is int and abs(key) < 2**64):
            raise _Refused(f"refused {_kind(key)} as a key; keys are strings, bytes and plain numbers")
        yield key


def _kind(value: Any) -> str:
    return value.name if type(value) is _Global else type(value).__name__


def _shown(value: Any, width: int = 80) -> str:
    """Text from the file, fit for one line of a message. Other values by type: a repr can be endless, too."""
    text = value if type(value) is str else _kind(value)
    line = text[:width].encode("unicode_escape").decode("ascii")
    return line if len(line) <= width >= len(text) else line[: width - 3] + "..."


_LEAVES = frozenset((str, bytes, bytearray, int, float, complex, bool, type(None)))


def _check_only_data(root: Any) -> None:
    """Refuses names that were left lying in the data, also inside object arrays."""
    todo, seen = [root], {id(root)}
    while todo:
        value = todo.pop()
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            inner: Iterable[Any] = value.ravel(order="K").tolist()
        elif type(value) is dict:
            inner = value.values()  # keys were checked as they came
        elif type(value) in (list, tuple, set, frozenset):
            inner = value
        elif type(value) in _LEAVES or isinstance(value, (np.ndarray, np.generic, np.dtype)):
            continue
        else:
            raise _Refused(f"refused {_kind(value)} in the place of data")
        for item in inner:
            if type(item) not in _LEAVES and id(item) not in seen:
                seen.add(id(item))
                todo.append(item)


_GLOBALS: dict[tuple[str, str], Callable[[_Machine, tuple[Any, ...]], Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _no_call,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,  # the builtins: protocols that have no opcode for them
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytearray"): _bytearray,
    ("builtins", "bytearray"): _bytearray,
    ("__builtin__", "set"): _set,
    ("builtins", "set"): _set,
    ("__builtin__", "frozenset"): _frozenset,
    ("builtins", "frozenset"): _frozenset,
    ("__builtin__", "complex"): _complex,
    ("builtins", "complex"): _complex,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _torch_storage,
    ("collections", "OrderedDict"): _empty_ordered_dict,
}

_STORAGE_TYPES: dict[tuple[str, str], Callable[[_Machine, tuple[Any, ...]], Any]] = {
    ("torch", f"{name}Storage"): _no_call for name in _STORAGES
}

_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_LITERALS, _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, arg: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": _Machine.memoize,
    "NONE": lambda machine, arg: machine.push(None),
    "NEWTRUE": lambda machine, arg: machine.push(True),
    "NEWFALSE": lambda machine, arg: machine.push(False),
    "EMPTY_TUPLE": lambda machine, arg: machine.push(()),
    "EMPTY_LIST": lambda machine, arg: machine.push([]),
    "EMPTY_DICT": lambda machine, arg: machine.push({}),
    "EMPTY_SET": lambda machine, arg: machine.push(set()),
    "MARK": _Machine.mark,
    "TUPLE1": lambda machine, arg: machine.tuple_of(1),
    "TUPLE2": lambda machine, arg: machine.tuple_of(2),
    "TUPLE3": lambda machine, arg: machine.tuple_of(3),
    "TUPLE": lambda machine, arg: machine.push(tuple(machine.pop_mark())),
    "LIST": lambda machine, arg: machine.push(machine.pop_mark()),
    "DICT": _Machine.dict_of_marked,
    "FROZENSET": lambda machine, arg: machine.push(frozenset(_keys(machine.pop_mark()))),
    "APPEND": lambda machine, arg: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, arg: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, arg: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, arg: machine.set_items(machine.pop_mark()),
    "ADDITEMS": lambda machine, arg: machine.add_items(machine.pop_mark()),
    "GLOBAL": lambda machine, arg: machine.find(*arg.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
