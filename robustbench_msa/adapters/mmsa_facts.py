"""What a checkpoint of MMSA does not say of itself: six facts, typed or in a JSON file beside it.

``mult-mosi.mmsa.json`` belongs to ``mult-mosi.pth``. All keys are optional::

    {"model": "mult", "dataset": "mosi", "version": "2.2.1", "seed": 1115, "pretrained": "bert-base-uncased",
     "config": {"nlevels": 4}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.models.checkpoint_config import MAX_BYTES, one_line

SUFFIX = "mmsa.json"


@dataclass(frozen=True)
class Facts:
    """What was said; None where nothing was.

    dataset: whose settings MMSA trained it with. version: MMSA's. seed: the training seed. pretrained: the folder of
    its text encoder. config: settings other than MMSA's own, as they were given to ``MMSA_run(config=...)``.
    """

    model: str | None = None
    dataset: str | None = None
    version: str | None = None
    seed: int | None = None
    pretrained: Path | None = None
    config: dict[str, Any] | None = None


KEYS = tuple(field.name for field in fields(Facts))
_KINDS: dict[str, tuple[type, str]] = {"seed": (int, "a whole number from 0"), "config": (dict, "an object")}


def typed_facts(text: str, rest: str) -> Facts:
    """From ``key=value,key=value`` after the model's name; ``config`` is the path of a JSON file there.

    >>> typed_facts("mmsa:misa:dataset=mosei,seed=3", "dataset=mosei,seed=3").seed
    3
    """
    found: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in KEYS[1:] or not equals or not value:
            raise InputError(f"--model {text}: expected KEY=VALUE with one of {', '.join(KEYS[1:])}; got {part[:80]!r}")
        found[key] = value
    if "seed" in found:
        found["seed"] = int(found["seed"]) if found["seed"].isdecimal() else found["seed"]
    if "config" in found:
        found["config"] = _object(Path(found["config"]).expanduser())
    return _checked(f"--model {text}", found, Path())


def facts_of(weights: Path, model: str, typed: Facts) -> Facts:
    """What was typed, and where nothing was, what the file beside the weights says.

    Raises:
        InputError: a file that is no JSON object, has a key or a kind of value it should not have, or is of another
            model.
    """
    written = Facts()
    for path in (weights.with_name(f"{weights.stem}.{SUFFIX}"), weights.with_name(SUFFIX)):
        if path.is_file():
            written = _checked(str(path), _object(path), path.parent)
            break
    if written.model is not None and written.model.lower() != model:
        raise InputError(f"{path}: the weights are of {written.model}, and mmsa:{model} was asked for")
    merged = {key: getattr(written if getattr(typed, key) is None else typed, key) for key in KEYS}
    return Facts(**merged)


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, got a {type(found).__name__}")
    return found


def _checked(where: str, found: dict[str, Any], folder: Path) -> Facts:
    """Facts of the right kinds. A relative path of the encoder is relative to ``folder``."""
    for key, value in found.items():
        if key not in KEYS:
            known = ", ".join(KEYS)
            raise InputError(f"{where}: unknown key {key[:80]!r}{did_you_mean(key, KEYS)}; it has {known}")
        kind, what = _KINDS.get(key, (str, "text"))
        if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 2**63):
            raise InputError(f"{where}: {key} must be {what}, got {str(value)[:80]!r}")
    if "pretrained" in found:
        found = {**found, "pretrained": folder / Path(found["pretrained"]).expanduser()}
    return Facts(**found)
