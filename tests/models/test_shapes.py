"""Models built for their shapes alone: the same names, shapes and types as the real ones, no memory, no compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.registry import MODELS, model_class
from robustbench_msa.models.shapes import shapes_only

SPEC = InputSpec((24, 40, 32), (-3.0, 3.0))


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_the_real_model(name: str) -> None:
    cls = model_class(name)
    real = cls(SPEC, cls.presets["synth"]).state_dict()
    with shapes_only():
        found = cls(SPEC, cls.presets["synth"]).state_dict()
    assert list(found) == list(real)
    for key, tensor in real.items():
        assert (found[key].shape, found[key].dtype) == (tensor.shape, tensor.dtype), key
        assert found[key].device.type == "meta"


def test_nothing_is_taken_however_large() -> None:
    with shapes_only():
        layer = nn.Linear(10**7, 10**7)
        assert torch.stack([layer.weight * 2.0, layer.weight / 3.0]).shape == (2, 10**7, 10**7)


def test_outside_everything_is_as_before() -> None:
    with shapes_only():
        pass
    x = nn.init.ones_(torch.empty(2)) * 2.0
    assert torch.stack([x, x]).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_the_compiler_stays_away() -> None:
    code = f"""
import sys
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.registry import MODELS, model_class
from robustbench_msa.models.shapes import shapes_only
for name in MODELS:
    cls = model_class(name)
    with shapes_only():
        cls(InputSpec({SPEC.dims}, {SPEC.label_range}), cls.presets["synth"])
    assert "torch._dynamo" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)
