"""What a model from outside gives back: the prediction found in it, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from corruptions import InputError

Key = str | int
PREDICTIONS = ("M", "prediction", "predictions", "logits", "logits_c", "pred", "output")
"""Keys under which a dict is searched for its prediction, in this order."""


def prediction_in(returned: Any, key: Key | None, n: int, classes: int, what: str) -> Tensor:
    """Scores ``(N,)``, or logits ``(N, C)`` where there are classes.

    Args:
        returned: a tensor, or a dict or tuple that holds one. key: where; None: PREDICTIONS, or the first of a tuple.
        n: samples. classes: C, 0 for scores. what: whose it is, for messages.

    Raises:
        InputError: nothing there, or of another shape.

    >>> prediction_in({"M": torch.zeros(3, 1), "Feature_t": torch.zeros(3, 8)}, None, 3, 0, "forward").shape
    torch.Size([3])
    """
    if key is None and isinstance(returned, Mapping):
        known = [name for name in PREDICTIONS if name in returned]
        if not known and len(returned) != 1:
            raise InputError(
                f"{what} gives a dict with {_named(returned)}; say which is the prediction: adapt(model, output=...)"
            )
        key = known[0] if known else next(iter(returned))
    elif key is None and isinstance(returned, list | tuple):
        key = 0
    found = tensor_at(returned, key, what)
    wanted = f"({n}, {classes}) logits" if classes else f"({n},) or ({n}, 1) scores"
    shaped = _shaped(found, n, classes)
    if shaped is None:
        place = "" if key is None else f" at {key!r}"
        raise InputError(f"{what} gives {tuple(found.shape)}{place}; expected {wanted} for {n} samples")
    return shaped.to(torch.float32)


def extra_in(returned: Any, key: Key, n: int, what: str) -> Tensor:
    """A tensor of a value or a vector per sample, ``(N,)`` or ``(N, k)``. Raises InputError where it is none."""
    found = tensor_at(returned, key, what)
    if found.ndim == 0 or len(found) != n:
        raise InputError(f"{what} gives {tuple(found.shape)} at {key!r}; expected ({n},) or ({n}, k) for an extra")
    squeezed = found.reshape(n, *[size for size in found.shape[1:] if size != 1])
    if squeezed.ndim > 2:
        raise InputError(f"{what} gives {tuple(found.shape)} at {key!r}; expected ({n},) or ({n}, k) for an extra")
    return squeezed.to(torch.float32)


def tensor_at(returned: Any, key: Key | None, what: str) -> Tensor:
    """The tensor under a key of a dict, a place in a tuple, or a name of an object."""
    try:
        if key is None:
            found = returned
        elif isinstance(key, str) and not isinstance(returned, Mapping):
            found = getattr(returned, key)
        else:
            found = returned[key]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InputError(f"{what} has nothing at {key!r}; it gives {_kind(returned)}") from None
    if not isinstance(found, Tensor):
        place = "" if key is None else f" at {key!r}"
        raise InputError(f"{what} gives {_kind(found)}{place}; expected a tensor (adapt(model, output=...))")
    return found


def _shaped(found: Tensor, n: int, classes: int) -> Tensor | None:
    if found.is_complex() or found.dtype == torch.bool:
        return None
    if classes:
        return found if found.shape == (n, classes) else None
    if n == 1 and found.numel() == 1:  # squeezed away, as in .squeeze()
        return found.reshape(1)
    return found.reshape(n) if found.shape in ((n,), (n, 1), (n, 1, 1)) else None


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with {_named(value)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


def _named(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(str(name)[:40] for name in list(mapping)[:12]) or "nothing in it"
