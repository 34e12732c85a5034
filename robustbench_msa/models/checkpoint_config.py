"""A checkpoint's config.json: what it must hold, checked key by key before anything believes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corruptions.errors import InputError

FORMAT = 1
MAX_BYTES = 2**20
MAX_ARGUMENT = 2**17
"""The largest whole number among a model's arguments: a width or a count beyond it is a broken or hostile file."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RECIPE = re.compile(r"[a-z][A-Za-z0-9.,=+_:-]{0,99}")
_LINE = re.compile(r"[^\x00-\x1f\x7f]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPECTED = "expected a checkpoint's configuration, as msabench train writes it"

Check = Callable[[Any], bool]


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a file.

    Raises:
        InputError: unreadable, larger than MAX_BYTES, not JSON (NaN is not), or what ``check_config`` finds.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_EXPECTED}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES:,} bytes; {_EXPECTED}")
    try:
        value = json.loads(data.decode(), parse_constant=_not_json, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({one_line(error)}); {_EXPECTED}") from None
    return check_config(str(path), value)


def check_config(where: str, config: Any) -> dict[str, Any]:
    """The configuration itself, when every key is there and of its type; keys that are not known are let be.

    Raises:
        InputError: not an object, keys that are missing, a value of the wrong type or out of reason.
    """
    if not isinstance(config, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(config).__name__}; {_EXPECTED}")
    if missing := [key for key in _REQUIRED if key not in config]:
        raise InputError(f"{where}: {', '.join(missing)} missing; {_EXPECTED}")
    for key, (what, check) in (_REQUIRED | _OPTIONAL).items():
        if key in config and not check(config[key]):
            raise InputError(f"{where}: {key} must be {what}, got {json.dumps(config[key])[:80]}")
    return config


def one_line(error: Exception) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:160]


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _text(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _scores(value: Any) -> bool:
    return _object(value) and all(v is None or type(v) in (int, float) for v in value.values())


def _dims(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_whole(0, MAX_ARGUMENT), value))


def _arguments(value: Any) -> bool:
    """``{"spec": {...}, "config": {...}}`` with plain values."""
    if not (_object(value) and set(value) == {"spec", "config"} and all(map(_object, value.values()))):
        return False
    spec, config = value["spec"], value["config"]
    derived = spec.get("derived", {})
    if not (_object(derived) and len(derived) <= 64 and all(map(_whole(1, MAX_ARGUMENT), derived.values()))):
        return False
    plain = [value for key, value in spec.items() if key != "derived"]
    return _dims(spec.get("dims")) and all(map(_argument, [*plain, *config.values()]))


def _argument(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(_argument(v) and not isinstance(v, list) for v in value)
    if type(value) is int:
        return abs(value) <= MAX_ARGUMENT
    return value is None or isinstance(value, (bool, float, str))


def _dataset(value: Any) -> bool:
    if not _object(value):
        return False
    checks = {
        "name": _text(NAME),
        "fingerprint": _text(_SHA256),
        "dims": _dims,
        "parameters": _object,
        "sizes": _object,
    }
    return all(check(value.get(key)) for key, check in checks.items())


_REQUIRED: dict[str, tuple[str, Check]] = {
    "format": (f"{FORMAT} (a newer format needs a newer msabench)", _whole(FORMAT, FORMAT)),
    "model": ("a model's name", _text(NAME)),
    "model_version": ("a whole number from 1", _whole(1, 10**6)),
    "arguments": (f"the model's spec and config with plain values, whole numbers up to {MAX_ARGUMENT}", _arguments),
    "preset": ("a preset's name or null", _or_null(_text(_LINE))),
    "dataset": ("an object with name, fingerprint, dims, parameters and sizes", _dataset),
    "recipe": ("a recipe such as clean or missing-random:0.3", _text(RECIPE)),
    "train_seed": ("a whole number from 0", _whole(0, 2**63 - 1)),
    "training": ("an object", _object),
    "selection": ("an object", _object),
    "validation": ("an object of numbers or null", _scores),
    "parameters": ("a whole number", _whole(0, 10**15)),
    "versions": ("an object", _object),
    "commit": ("a commit or null", _or_null(_text(_LINE))),
}
_OPTIONAL: dict[str, tuple[str, Check]] = {"weights_sha256": ("a sha256 in hex", _text(_SHA256))}
