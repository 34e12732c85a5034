"""Models by name."""

import subprocess
import sys
from pathlib import Path

import pytest

import robustbench_msa
from corruptions import InputError
from robustbench_msa.models.contract import MSAModel
from robustbench_msa.models.registry import MODELS, REFERENCES, model_class


@pytest.mark.parametrize("name", MODELS)
def test_every_name_leads_to_a_model_of_that_name_with_its_presets(name):
    cls = model_class(name)
    assert issubclass(cls, MSAModel)
    assert cls.name == name
    assert set(cls.presets) == set(cls.optimisation)
    assert {"mosi", "synth"} <= set(cls.presets)


def test_unknown_names_are_answered_with_the_nearest_and_the_known():
    with pytest.raises(InputError, match=r"unknown model 'qa_mo' \(did you mean 'qa_moe'\?\); known: .*rider_moe"):
        model_class("qa_mo")


@pytest.mark.parametrize("name", REFERENCES)
def test_references_have_nothing_to_load(name):
    assert name not in MODELS
    with pytest.raises(InputError, match=f"{name} is a reference"):
        model_class(name)


def test_the_registry_does_not_import_the_models():
    script = (
        "import sys, robustbench_msa.models.registry, robustbench_msa.models.checkpoint\n"
        "from robustbench_msa.models.registry import MODELS\n"
        "print([m for m in MODELS.values() if m.partition(':')[0] in sys.modules])"
    )
    repository = Path(robustbench_msa.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
