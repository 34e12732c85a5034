"""What a pass of a model may change beside its output: the global random generators, and the model's own buffers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def seed_all(seed: int) -> None:
    """Every global generator a model may draw from."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():  # before that, torch.manual_seed would keep every call with its traceback
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one is what is meant


def generators(device: torch.device) -> dict[str, bytes]:
    """The states of the global generators, by name."""
    states = {"torch": torch.get_rng_state().numpy().tobytes(), "random": repr(random.getstate()).encode()}
    if device.type == "cuda":
        states["torch.cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return states | {"numpy": repr((name, np.asarray(keys).tobytes(), rest)).encode()}


@contextmanager
def left_as_it_was(model: object, device: torch.device) -> Iterator[None]:
    """The global generators and the model's buffers are afterwards what they were before."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    before = {name: x.clone() for name, x in buffers(model).items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)
            restore(model, before)


@contextmanager
def in_eval_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """These modules, in training mode, are out of it meanwhile."""
    chosen = list(modules)
    try:
        for module in chosen:
            module.training = False
        yield
    finally:
        for module in chosen:
            module.training = True


def restore(model: object, before: Mapping[str, Tensor]) -> None:
    """Buffers that have other values get these back."""
    for name, x in buffers(model).items():
        if name in before and x.shape == before[name].shape and not same(x, before[name]):
            with torch.no_grad():
                x.copy_(before[name])


def buffers(model: object) -> dict[str, Tensor]:
    """The buffers of every module of a model, by name."""
    return {
        f"{name}.{key}".lstrip("."): x
        for name, module in modules_of(model).items()
        for key, x in module.named_buffers(recurse=False)
    }


def same(a: Tensor, b: Tensor) -> bool:
    """The same shape, type and values; NaN is NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


def modules_of(model: object) -> dict[str, nn.Module]:
    """Every torch module of a model, by name.

    Submodules, and those that it, or one of them, holds in a plain attribute, a list, a tuple or a dict, or as the
    owner of a bound method: ``module.eval()`` does not reach these.
    """
    found: dict[str, nn.Module] = {}
    waiting: list[tuple[str, object]] = [("", model)]
    seen: set[int] = set()
    while waiting:
        name, thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found[name] = thing
        for key, value in _inside(thing, thing is model).items():
            if isinstance(value, nn.Module | dict | list | tuple) or hasattr(value, "__self__"):
                waiting.append((name if key in ("_modules", "") else f"{name}.{key}".lstrip("."), value))
    return found


def _inside(thing: object, is_model: bool) -> Mapping[Any, object]:
    if isinstance(thing, nn.Module) or is_model:
        found: Mapping[Any, object] = getattr(thing, "__dict__", {})
        return found
    if isinstance(thing, dict):
        return thing
    if isinstance(thing, list | tuple):
        return dict(enumerate(thing))
    return {"": getattr(thing, "__self__", None)}  # a bound method
