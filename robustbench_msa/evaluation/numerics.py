"""How a model is computed: in exact float32, in bfloat16, compiled. A part of a cell's identity.

Inputs are corrupted in exact float32 whatever the policy, and a worst case is sought on the model in float32: cells
that differ in the policy alone have the same input.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES, InputError
from robustbench_msa.evaluation.cells import NUMERICS
from robustbench_msa.models.contract import Encoded, MSAModel, Output, Part

BF16, COMPILE = "bf16", "compile"
POLICIES = {
    NUMERICS: "exact float32, TF32 off",
    BF16: "encoders and fusion under autocast to bfloat16; what they give is float32",
    COMPILE: "encoders and fusion through torch.compile, in float32",
    f"{BF16}+{COMPILE}": "both",
}
BACKEND = "inductor"  # of torch.compile


def check_numerics(numerics: str, device: torch.device) -> None:
    """Raises InputError for an unknown policy, and where this machine cannot compute by it."""
    if numerics not in POLICIES:
        raise InputError(f"numerics: expected one of {', '.join(POLICIES)}; got {numerics!r}")
    if BF16 in numerics and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"numerics {numerics}: this GPU has no bfloat16; choose another --numerics or --device cpu")
    if COMPILE in numerics:
        _check_compiler(numerics, device)


def _check_compiler(numerics: str, device: torch.device) -> None:
    name = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    if shutil.which(name.split()[0] if name else "") is None:
        raise InputError(f"numerics {numerics}: torch.compile needs a C++ compiler, {name!r} is none; install one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of what it imports
            torch.compile(torch.sin, backend=BACKEND)(torch.zeros(8, device=device))
    except Exception as error:  # compilers, headers, drivers: anything can be missing
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"numerics {numerics}: torch.compile does not work on this machine ({reason})") from None


class Computed:
    """The halves of a model under a policy, as ``MSAModel`` names them."""

    def __init__(self, model: MSAModel, numerics: str, device: torch.device) -> None:
        self._model, self._device = model, device
        self._bf16, self.compiles = BF16 in numerics, COMPILE in numerics
        self._encoders = {m: self._made(partial(model.encode_modality, m)) for m in MODALITIES}
        self._derived = {name: self._made(partial(model.encode_derived, name)) for name in model.derived_inputs()}
        self._fuse = self._made(self._fused)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        part: Part = self._call(self._encoders[modality], x, lengths)
        return {name: self._exact(value) for name, value in part.items()}

    def derived_inputs(self) -> tuple[str, ...]:
        return tuple(self._derived)

    def encode_derived(self, name: str, values: Tensor) -> Part:
        part: Part = self._call(self._derived[name], values)
        return {name: self._exact(value) for name, value in part.items()}

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        parts = {m: encoded.part(m) for m in MODALITIES}
        prediction, extras = self._call(self._fuse, parts, dict(encoded.derived), present)
        return Output(self._exact(prediction), {name: self._exact(value) for name, value in extras.items()})

    def _fused(
        self, parts: Mapping[str, Part], derived: Mapping[str, Part], present: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``fuse`` on and to plain containers, which compile without a break."""
        output = self._model.fuse(Encoded(**parts, derived=derived), present)
        return output.prediction, output.extras

    def _made(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled for any number of samples from the start: what a cell is computed by must not depend on which
        cells came before it."""
        return torch.compile(function, dynamic=True, backend=BACKEND) if self.compiles else function

    def _call(self, function: Callable[..., Any], *given: Any) -> Any:
        if not self._bf16:
            return function(*given)
        with torch.autocast(self._device.type, torch.bfloat16):
            return function(*given)

    def _exact(self, value: Tensor) -> Tensor:
        return value.to(torch.float32) if self._bf16 and value.is_floating_point() else value
