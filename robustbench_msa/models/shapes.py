"""Models without memory, for what their tensors are called and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """What is built inside has shapes and no values (torch's device ``meta``), however large it claims to be.

    What models do to their weights at birth (initialisers, scaling, stacking) is said here by its shape: for each of
    these torch would load its compiler, which takes a second.
    """
    with torch.device("meta"), _AtBirth():
        yield


class _AtBirth(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in _SCALING and args[0].is_meta and not isinstance(args[1], Tensor):
            return args[0]
        if func is torch.stack and args[0][0].is_meta and len(args) == 1 and not kwargs:
            return torch.empty(len(args[0]), *args[0][0].shape)
        return func(*args, **kwargs)


_SCALING = (Tensor.mul, Tensor.div, Tensor.sub, Tensor.__mul__, Tensor.__rmul__, Tensor.__truediv__, Tensor.__sub__)
