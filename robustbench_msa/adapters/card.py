"""A card beside weights: how they were trained, and on which split they were chosen.

``best.card.json`` belongs to ``best.pth``, ``card.json`` to all weights in its folder; in the layout of the hub the
card may also be an object ``card`` in ``config.json``. All keys are optional::

    {"recipe": "clean", "train_seed": 1111, "trained_on": "mosi", "selection": {"split": "valid", "by": "MAE"},
     "paper": "A. Author et al., 2025", "notes": "..."}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.models.checkpoint import CONFIG
from robustbench_msa.models.checkpoint_config import MAX_BYTES, RECIPE, one_line

CARD = "card.json"
SPLITS = ("train", "valid", "test", "none", "unknown")
"""Where the epoch or the settings were chosen. none: the last epoch, with settings of elsewhere."""

UNKNOWN: dict[str, Any] = {"split": "unknown"}
_TEXTS = ("trained_on", "paper", "notes")
_KEYS = ("recipe", "train_seed", "selection", *_TEXTS)


def read_card(weights: Path) -> dict[str, Any]:
    """The card of a file of weights; without one, ``{"selection": {"split": "unknown"}}``.

    Raises:
        InputError: a card that is no JSON object, a key it does not have, or a value of the wrong kind.
    """
    for path in (weights.with_name(f"{weights.stem}.{CARD}"), weights.with_name(CARD)):
        if path.is_file():
            return _checked(str(path), _read(path))
    config = weights.with_name(CONFIG)
    if config.is_file() and isinstance(found := _read(config), dict) and "card" in found:
        return _checked(f"{config}: card", found["card"])
    return {"selection": dict(UNKNOWN)}


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES:,} bytes; expected a few lines of JSON")
        return json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error)})") from None


def _checked(where: str, card: Any) -> dict[str, Any]:
    if not isinstance(card, dict):
        raise InputError(f"{where}: expected a JSON object with some of {', '.join(_KEYS)}")
    for key in card:
        if key not in _KEYS:  # a slip in "selection" would hide what it says
            raise InputError(
                f"{where}: unknown key {str(key)[:80]!r}{did_you_mean(str(key), _KEYS)}; it has {', '.join(_KEYS)}"
            )
    for key in _TEXTS:
        if not _is_line(card.get(key, "")):
            raise InputError(f"{where}: {key} must be one line of at most 500 characters")
    if not (isinstance(card.get("recipe", "clean"), str) and RECIPE.fullmatch(card.get("recipe", "clean"))):
        raise InputError(f"{where}: recipe must be a recipe such as clean or missing-random:0.3")
    seed = card.get("train_seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InputError(f"{where}: train_seed must be a whole number from 0")
    return {**card, "selection": _selection(where, card.get("selection", "unknown"))}


def _selection(where: str, value: Any) -> dict[str, Any]:
    """``"valid"`` or ``{"split": "valid", "by": "MAE", "value": 0.71}``, as the latter."""
    found = {"split": value} if isinstance(value, str) else value
    if not isinstance(found, dict) or found.get("split") not in SPLITS:
        raise InputError(
            f"{where}: selection must say on which split: one of {', '.join(SPLITS)}, or an object with it"
        )
    number = found.get("value", 0.0)
    known = set(found) <= {"split", "by", "value"} and _is_line(found.get("by", ""))
    if not known or type(number) not in (int, float) or not abs(number) < 1e12:
        raise InputError(f"{where}: selection has split, and may have by (a metric) and value (a number)")
    return dict(found)


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 500 and value.isprintable()
