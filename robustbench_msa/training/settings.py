"""A training's settings: a preset of the model, and the fields of it that someone changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.models.contract import MSAModel, Optimisation


def choose_preset(cls: type[MSAModel], preset: str | None, dataset: str) -> str:
    """The preset asked for; without one the dataset's own where the model has it ("synth" for "synth-explained" too),
    else "mosi".

    Raises:
        InputError: the model has no preset of this name.
    """
    if preset is None:
        family = dataset.partition("-")[0]
        return next(name for name in (dataset, family, "mosi", *cls.presets) if name in cls.presets)
    if preset not in cls.presets:
        known = ", ".join(cls.presets)
        raise InputError(f"{cls.name}: unknown preset {preset!r}{did_you_mean(preset, cls.presets)}; it has {known}")
    return preset


def override(
    cls: type[MSAModel], preset: str, overrides: dict[str, Any], epochs: int | None
) -> tuple[Any, Optimisation]:
    """The preset's configuration and optimisation, with fields of either replaced by name; values may be text.

    Raises:
        InputError: an unknown field, or a value that does not fit it.
    """
    config, optimisation = cls.presets[preset], cls.optimisation[preset]
    ours, theirs = ({f.name for f in fields(x)} for x in (config, optimisation))
    if epochs is not None:
        overrides["epochs"] = epochs
    for name, value in overrides.items():
        if name in ours:
            config = replace(config, **{name: _like(name, getattr(config, name), value)})
        elif name in theirs:
            optimisation = replace(optimisation, **{name: _like(name, getattr(optimisation, name), value)})
        else:
            known = sorted(ours | theirs)
            hint = did_you_mean(name, known)
            raise InputError(f"{cls.name}: unknown setting {name!r}{hint}; it has {', '.join(known)}")
    _check(optimisation)
    return config, optimisation


def _like(name: str, current: Any, value: Any) -> Any:
    """The value in the type of the one it replaces; from text where need be."""
    kind = type(current)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and isinstance(value, str):
        return value
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = kind(value)
            if number == float(value) and abs(number) != float("inf"):
                return number
        except (TypeError, ValueError, OverflowError):
            pass
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(kind, kind.__name__)
    raise InputError(f"setting {name}: expected {expected}, as in {name}={str(current).lower()}; got {value!r}")


def _check(o: Optimisation) -> None:
    for name, choices in (("optimizer", ("adam", "adamw")), ("schedule", ("constant", "cosine"))):
        if getattr(o, name) not in choices:
            raise InputError(f"setting {name}: expected {' or '.join(choices)}, got {getattr(o, name)!r}")
    for name, low in (("batch_size", 1), ("epochs", 1), ("learning_rate", 0), ("weight_decay", 0), ("grad_clip", 0)):
        if getattr(o, name) < low:
            raise InputError(f"setting {name}: expected at least {low}, got {getattr(o, name)}")
