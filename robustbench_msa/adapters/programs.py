"""Programs that build models: ``module:function``, ``path/to/file.py:function``, names that packages announce, and
models of zoos that msabench knows, ``zoo:model``.

The one convention: the function (or class) is called with those of ``checkpoint`` (a Path, or None) and ``spec`` (an
InputSpec) that it has as arguments, by these names, and gives a ``torch.nn.Module`` or what ``adapt`` makes of one.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa import plugins
from robustbench_msa.adapters.sources import digest_of, files_of
from robustbench_msa.models.contract import InputSpec

GROUP = "msabench.models"
_NOT_THEIRS = (Path(__file__).parents[1], Path(inspect.getfile(did_you_mean)).parent, Path(inspect.__file__).parent)
CONVENTION = "build(checkpoint, spec), or fewer of these two by name"
ZOOS = {"mmsa": "robustbench_msa.adapters.mmsa"}
"""Before the colon of ``zoo:model``; the module's ``find(text)`` gives its Program."""


@dataclass(frozen=True)
class Program:
    """A function that builds a model. text: as typed. sources: sha256 over its files. label: a name for tables."""

    text: str
    function: Callable[..., Any]
    sources: str
    label: str
    file: str


def is_program(name: str) -> bool:
    """Is this a program, rather than the name of a model of msabench?

    >>> is_program("my_model.py:build"), is_program("package.module:Model"), is_program("qa_moe")
    (True, True, False)
    """
    return ":" in name or name.endswith(".py") or name in plugins.entry_points(GROUP)


def find_program(text: str) -> Program:
    """Import the program that is named. From here on it runs.

    Raises:
        InputError: no such file, module or function; with the class and the message of an error that importing raises.
    """
    if (zoo := text.partition(":")[0]) in ZOOS:
        found: Program = importlib.import_module(ZOOS[zoo]).find(text)
        return found
    announced = plugins.entry_points(GROUP)
    target = announced[text].value if text in announced else text
    place, _, name = target.rpartition(":")
    if not place or not name:
        offered = _functions(Path(text)) if text.endswith(".py") else []
        hint = f"; it has {', '.join(offered[:6])}" if offered else ""
        raise InputError(f"--model {text}: expected FILE.py:FUNCTION or MODULE:FUNCTION, as in my_model.py:build{hint}")
    path = Path(place).expanduser()
    if place.endswith(".py") and not path.is_file():
        raise InputError(f"--model {text}: there is no file {place}")
    plugins.announce("model", text if text == target else f"{text} = {target}")
    with undisturbed():
        module, files = _from_file(path.resolve(), text) if place.endswith(".py") else _from_module(place, text)
    function = _attribute(module, name, text)
    label = text if text in announced else f"{path.stem if place.endswith('.py') else place}.{name}"
    return Program(text, function, digest_of(files), label, getattr(module, "__file__", None) or "")


def call_program(program: Program, checkpoint: Path | None, spec: InputSpec) -> Any:
    """What the program makes, built with the global random state and numerics left as they are.

    Random initial weights come from a fixed seed: the same program gives the same model each time.

    Raises:
        InputError: it takes other arguments, or raises; with the class and the message of what it raises.
    """
    given = {"checkpoint": checkpoint, "spec": spec}
    arguments = {name: given[name] for name in arguments_of(program)}
    with undisturbed():
        return _trying(lambda: program.function(**arguments), f"--model {program.text}")


def arguments_of(program: Program) -> list[str]:
    """Which of ``checkpoint`` and ``spec`` the function takes. Raises InputError where it wants more."""
    try:
        parameters = inspect.signature(program.function).parameters.values()
    except (TypeError, ValueError):
        raise InputError(f"--model {program.text}: its arguments cannot be read; expected {CONVENTION}") from None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in named if p.name in ("checkpoint", "spec")]
    if more := [p.name for p in named if p.name not in known and p.default is p.empty]:
        raise InputError(
            f"--model {program.text}: it wants {', '.join(more)}, which msabench does not have; expected {CONVENTION}"
        )
    return known


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Run a stranger's code from a fixed seed, and put back what it may change for everybody else.

    These are random states (Python, NumPy, torch), the default dtype, numerics flags and ``sys.argv``. What it prints
    goes to stderr.
    """
    python, numpy, argv = random.getstate(), np.random.get_state(), sys.argv  # noqa: NPY002  # the global one
    dtype, precision, tf32 = torch.get_default_dtype(), torch.get_float32_matmul_precision(), _tf32()
    try:
        with torch.random.fork_rng(_cuda()), contextlib.redirect_stdout(sys.stderr):
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(0)
            sys.argv = argv[:1]  # not ours to parse
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        sys.argv = argv
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32


def _tf32() -> bool:
    return bool(torch.backends.cudnn.allow_tf32)


def _cuda() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _trying(action: Callable[[], Any], where: str) -> Any:
    """The action's result; whatever it raises becomes one line."""
    try:
        return action()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{where} raised {shown(error)}{_line_of(error)}") from error


def shown(error: BaseException) -> str:
    """The class and the message of an error, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__


def _line_of(error: BaseException) -> str:
    """`` (model.py, line 12)``: the last line of the stranger's own that the error came through."""
    place, found = error.__traceback__, ""
    while place is not None:
        file = Path(place.tb_frame.f_code.co_filename)
        if file.suffix == ".py" and "site-packages" not in file.parts and not set(_NOT_THEIRS) & set(file.parents):
            found = f" ({file.name}, line {place.tb_lineno})"
        place = place.tb_next
    return found


_loaded: dict[Path, tuple[str, ModuleType]] = {}
_hashes: dict[str, str] = {}


def _from_file(path: Path, text: str) -> tuple[ModuleType, dict[str, Path]]:
    """The module in a file, with the modules beside it importable. A file that changed is read again."""
    files = files_of(path, path.parent)
    digest = digest_of(files)
    _at_front(path.parent)
    beside = [name for name in files if name]
    if path in _loaded and _loaded[path][0] == digest and all(_is_from(name, files[name]) for name in beside):
        return _loaded[path][1], files
    for name in beside:  # another program may have a module of this name, or this one an older version of it
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    name = f"msabench_program_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look there
    _trying(lambda: spec.loader.exec_module(module), f"--model {text}: {path.name}")  # type: ignore[union-attr]
    _loaded[path] = (digest, module)
    return module, files


def _is_from(name: str, path: Path) -> bool:
    """Is the module of this name, where it was imported at all, the one in the file?"""
    module = sys.modules.get(name)
    return module is None or Path(getattr(module, "__file__", None) or "") == path


def _from_module(name: str, text: str) -> tuple[ModuleType, dict[str, Path]]:
    _at_front(Path.cwd())
    try:
        module: ModuleType = _trying(lambda: importlib.import_module(name), f"--model {text}: {name}")
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            raise InputError(
                f"--model {text}: there is no module {cause.name} (in {Path.cwd()} or installed)"
            ) from None
        raise
    file = getattr(module, "__file__", None)
    if file is None:
        raise InputError(f"--model {text}: {name} is no Python file")
    path = Path(file).resolve()
    depth = name.count(".") + (path.name == "__init__.py")
    files = files_of(path, path.parents[depth], name.partition(".")[0], name)
    digest = digest_of(files)
    if _hashes.setdefault(name, digest) != digest:  # what runs is what was imported, not what the files say now
        raise InputError(f"--model {text}: its files changed since {name} was imported; start Python again")
    return module, files


def _at_front(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]


def _attribute(module: ModuleType, name: str, text: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            offered = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            own = [n for n in offered if getattr(vars(module)[n], "__module__", None) == module.__name__]
            there = f"; it has {', '.join(own[:6])}" if own else ""
            raise InputError(f"--model {text}: there is no {name} in it{did_you_mean(name, own)}{there}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"--model {text}: {name} is a {type(found).__name__}; expected a function or a class")
    function: Callable[..., Any] = found
    return function


def _functions(path: Path) -> list[str]:
    """What a file defines, read without running it."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [f"{path}:{node.name}" for node in body if isinstance(node, kinds) and not node.name.startswith("_")]
