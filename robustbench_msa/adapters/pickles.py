"""What a pickle of weights would do, found out without doing any of it.

``torch.load(weights_only=True)`` calls nothing but what it knows, and still believes the file: sixteen bytes may pass
for a tensor of forty gigabytes, and a nested key takes for ever to hash. So the opcodes are followed here first, with
stand-ins for all that they would make, and only a pickle in which everything adds up goes on to torch.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, which protocols 0 to 2 are written with
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple

MAX_OPCODES = 2_000_000
MAX_NAMED = 50  # names and problems that are kept

STORAGES: dict[str, int] = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
"""Bytes of an element, by the name of the storage's class in torch."""

_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"


class Global(NamedTuple):
    """A name that the pickle asks for."""

    name: str


class Storage(NamedTuple):
    """The values of a tensor: how many, and of how many bytes each."""

    numel: int
    itemsize: int


class _Thing:
    """Something that the pickle makes, known by its kind alone; compared by identity: no tuple passes for it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


LIST, DICT, ORDERED, TENSOR, OTHER = map(_Thing, ("list", "dict", "ordered dict", "tensor", "other"))
_MARK = _Thing("mark")


@dataclass
class Scan:
    """What was found. globals: names that are no part of weights. problems: what else does not add up.

    storages: the bytes of each storage that a tensor takes its values from, by its key. end: bytes read.
    """

    globals: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    storages: dict[str, int] = field(default_factory=dict)
    end: int = 0

    @property
    def ok(self) -> bool:
        return not self.globals and not self.problems


def scan(data: bytes, start: int = 0) -> Scan:
    """Follow one pickle from ``start`` to its STOP. Nothing is imported, called or made; never raises."""
    machine = _Machine()
    stream = BytesIO(data)
    stream.seek(start)
    try:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_OPCODES:
                machine.problem(f"more than {MAX_OPCODES:,} opcodes")
                break
            machine.step(opcode, arg)
    except Exception as error:  # a hostile file may break the parser anywhere, in any way
        machine.problem(f"it is broken or no pickle ({' '.join(str(error).split())[:100]})")
    machine.found.end = stream.tell()
    return machine.found


def is_allowed(name: str) -> bool:
    """Is this global a part of weights?"""
    module, _, last = name.rpartition(".")
    return name in _CALLS or (module == "torch" and (last in STORAGES or last in _DTYPES.split()))


class _Machine:
    """The pickle machine on stand-ins: a stack with marks in it, and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.found = Scan()

    def step(self, opcode: Any, arg: Any) -> None:
        name = opcode.name
        if name in _LITERALS:
            self.stack.append(arg)
            if name == "SHORT_BINUNICODE":  # of protocol 4: read for the names in it, and refused
                self.problem("opcode SHORT_BINUNICODE")
        elif name in _STEPS:
            _STEPS[name](self, arg)
        elif name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
            self.named_otherwise(name, arg)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self.problem(f"opcode {name}")
            self.generic(opcode)

    def problem(self, what: str) -> None:
        if len(self.found.problems) < MAX_NAMED:
            self.found.problems.append(what)

    def pop(self) -> Any:
        return self.stack.pop() if self.stack else OTHER

    def pop_mark(self) -> list[Any]:
        items = []
        while self.stack and (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def top(self) -> Any:
        return self.stack[-1] if self.stack else OTHER

    def generic(self, opcode: Any) -> None:
        """An opcode that weights have no use for: what it takes and leaves, so that the names after it are right."""
        taken = [thing.name for thing in opcode.stack_before]
        if "mark" in taken:
            self.pop_mark()
            taken = taken[: taken.index("mark")]
        for _ in taken:
            self.pop()
        self.stack += [OTHER] * len(opcode.stack_after)

    def find(self, module: str, name: str) -> None:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.name(f"{module}.{name}")

    def name(self, name: str) -> None:
        if len(self.found.globals) < MAX_NAMED and not is_allowed(name) and name not in self.found.globals:
            self.found.globals.append(name)
        self.stack.append(Global(name))

    def named_otherwise(self, opcode: str, arg: Any) -> None:
        """The ways to name and to call something that torch itself does not write."""
        self.problem(f"opcode {opcode}")
        if opcode == "STACK_GLOBAL":
            name, module = self.pop(), self.pop()
            if isinstance(name, str) and isinstance(module, str):
                self.find(module, name)
            else:
                self.name("a name made at run time")
            return
        if opcode in ("INST", "OBJ"):
            self.pop_mark()
        else:
            for _ in range(3 if opcode == "NEWOBJ_EX" else 2):
                self.pop()
        if opcode == "INST":
            self.find(*_two(arg))
        else:
            self.stack.append(OTHER)

    def reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        made = OTHER
        if isinstance(function, Global) and function.name in _CALLS and isinstance(args, tuple):
            made = _CALLS[function.name](args) or OTHER
            if made is OTHER:
                self.problem(f"{function.name} called with what it is not written with")
        elif not isinstance(function, Global) or is_allowed(function.name):
            self.problem(f"a call of {_kind(function)}")
        self.stack.append(made)

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()
        self.problem("opcode MEMOIZE")

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if target is not ORDERED or (state is not DICT and state is not ORDERED):
            self.problem(f"BUILD of {_kind(target)}")

    def persistent(self, _: Any) -> None:
        """A storage: ("storage", its class, its key, where it was, elements), in old files with a view at the end."""
        made: Any = OTHER
        reference = self.pop()
        if isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage":
            _, kind, key, place, numel = reference[:5]
            itemsize = STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Global) else None
            plain = isinstance(key, str) and isinstance(place, str) and _whole(numel) and _view(reference[5:])
            if itemsize and plain and self.found.storages.setdefault(key, numel * itemsize) == numel * itemsize:
                made = Storage(numel, itemsize)
        if made is OTHER:
            self.problem("a persistent id that is no storage")
        self.stack.append(made)

    def add(self, kinds: tuple[Any, ...], items: list[Any], keys: bool) -> None:
        if not any(self.top() is kind for kind in kinds):
            self.problem(f"items for {_kind(self.top())}")
        if keys and not all(_is_key(key) for key in items[::2]):  # the hash of nested tuples can take for ever
            self.problem("keys that are neither text nor numbers")


def _rebuild_tensor(args: tuple[Any, ...]) -> _Thing | None:
    """A tensor, when its storage holds all that its size and strides reach, and each value once."""
    if len(args) not in (4, 6) or not isinstance(args[0], Storage) or not _whole(args[1]):
        return None
    storage, offset, size, stride = args[:4]
    plain = all(isinstance(x, tuple) and all(map(_whole, x)) for x in (size, stride)) and len(size) == len(stride)
    if not plain or len(size) > 64 or (len(args) == 6 and args[5] is not ORDERED):
        return None
    numel, reach = 1, offset
    for n, step in zip(size, stride, strict=True):
        numel, reach = numel * n, reach + max(0, n - 1) * step
    fits = numel == 0 or (reach < storage.numel and numel <= storage.numel)
    return TENSOR if fits else None


def _rebuild_parameter(args: tuple[Any, ...]) -> _Thing | None:
    return TENSOR if len(args) == 3 and args[0] is TENSOR and args[2] is ORDERED else None


_CALLS: dict[str, Callable[[tuple[Any, ...]], _Thing | None]] = {
    "collections.OrderedDict": lambda args: None if args else ORDERED,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": lambda args: _Thing("size") if len(args) == 1 and isinstance(args[0], tuple) else None,
    "torch.device": lambda args: _Thing("device") if all(type(a) in (str, int) for a in args) else None,
}


def _two(arg: str) -> tuple[str, str]:
    """Module and name, which the parser gives as one text with a space between."""
    module, _, name = arg.partition(" ")
    return module, name


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _view(rest: tuple[Any, ...]) -> bool:
    """None, or (key, offset, elements): a part of a storage, which cannot be larger than it."""
    return all(r is None or (isinstance(r, tuple) and len(r) == 3 and type(r[0]) is str) for r in rest)


def _is_key(value: Any) -> bool:
    return type(value) in (str, bool, float, type(None)) or (type(value) is int and abs(value) < 2**64)


def _kind(value: Any) -> str:
    if isinstance(value, Global):
        return value.name
    return value.kind if isinstance(value, _Thing) else type(value).__name__.lower()


_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING")


def _tuple(n: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(n)][::-1]
        machine.stack.append(tuple(items))

    return step


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": _tuple(0),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "EMPTY_LIST": lambda m, _: m.stack.append(LIST),
    "EMPTY_DICT": lambda m, _: m.stack.append(DICT),
    "EMPTY_SET": lambda m, _: m.stack.append(OTHER),
    "MARK": lambda m, _: m.stack.append(_MARK),
    "APPEND": lambda m, _: m.add((LIST,), [m.pop()], keys=False),
    "APPENDS": lambda m, _: m.add((LIST,), m.pop_mark(), keys=False),
    "SETITEM": lambda m, _: m.add((DICT, ORDERED), [m.pop(), m.pop()][::-1], keys=True),
    "SETITEMS": lambda m, _: m.add((DICT, ORDERED), m.pop_mark(), keys=True),
    "GLOBAL": lambda m, arg: m.find(*_two(arg)),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, arg: m.memo.update({arg: m.top()})),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, arg: m.stack.append(m.memo.get(arg, OTHER))),
    "MEMOIZE": _Machine.memoize,
}
