"""What the messages and the documentation say of models is so: their extras, and the vector each predicts from."""

from __future__ import annotations

import doctest
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.analysis.inside.features import LAYERS, fused_features, tsne
from robustbench_msa.data.synth import make_synth
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.registry import MODELS, model_class

DATA = make_synth(seed=5, sizes=(8, 4, 20))
TEST = DATA.splits["test"]
STORED = {
    "rider_moe": {"routing", "experts", "r", "consensus", "entropy"},
    "qa_moe": {"gates", "r", "log_variance"},
    "ca_moe": {"routing", "gates", "entropy"},
    "emoe": {"routing", "unimodal"},
    "text_moe": {"routing", "gate"},
}
DOC = Path(__file__).resolve().parents[3] / "docs" / "inside.md"
READ = set().union(*STORED.values(), {"reliability"})


def built(name: str):
    torch.manual_seed(0)
    cls = model_class(name)
    return cls(InputSpec(DATA.dims), cls.presets["synth"]).eval()


@pytest.mark.parametrize("name", MODELS)
def test_models_store_what_is_said(name: str) -> None:
    with torch.no_grad():
        extras = built(name)(TEST).extras
    assert set(extras) & READ == STORED.get(name, set())


@pytest.mark.parametrize("name", LAYERS)
def test_the_prediction_is_made_from_the_features(name: str) -> None:
    model = built(name)
    with torch.no_grad():
        features = torch.from_numpy(fused_features(model, TEST)).float()
        made = getattr(model, LAYERS[name])(features)
        made = (made[1] if isinstance(made, tuple) else made).squeeze(1)
        np.testing.assert_allclose(made.numpy(), model(TEST).prediction.numpy(), atol=1e-5)
    assert not getattr(model, LAYERS[name])._forward_pre_hooks  # nothing is left behind


def test_ca_moe_with_two_passes_gives_the_last() -> None:
    cls = model_class("ca_moe")
    torch.manual_seed(0)
    config = type(cls.presets["synth"])(**{**vars(cls.presets["synth"]), "inference_confidence": "first_pass"})
    model = cls(InputSpec(DATA.dims), config).eval()
    with torch.no_grad():
        made = model.output(torch.from_numpy(fused_features(model, TEST)).float()).squeeze(1)
        np.testing.assert_allclose(made.numpy(), model(TEST).prediction.numpy(), atol=1e-5)


def test_models_without_features() -> None:
    with pytest.raises(InputError, match="rider_moe offers no fused vector; qa_moe, ca_moe, emoe do"):
        fused_features(built("rider_moe"), TEST)
    with pytest.raises(InputError, match="eval mode"):
        fused_features(built("qa_moe").train(), TEST)


def test_tsne_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(InputError, match="needs scikit-learn, which msabench does not"):
        tsne(np.zeros((40, 3)))


def test_tsne_keeps_far_clusters_apart() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 4)), 30 + rng.normal(size=(20, 4))])
    points = tsne(x, perplexity=5)
    assert points.shape == (40, 2)
    np.testing.assert_array_equal(points, tsne(x, perplexity=5))
    gap = np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0))
    assert gap > 2 * max(points[:20].std(), points[20:].std())


def test_tsne_of_few_samples() -> None:
    with pytest.raises(InputError, match=r"more than 30 samples \(the perplexity\), got 5"):
        tsne(np.zeros((5, 3)))


def test_the_documentation_can_be_typed() -> None:
    done = doctest.testfile(str(DOC), module_relative=False)
    assert (done.failed, done.attempted) == (0, 6)


def test_the_documentation_names_what_is_there() -> None:
    named = re.findall(r"^\| .*? \| `(\w+)\.(\w+)`", DOC.read_text("utf-8"), re.M)
    assert len(named) == 9
    for module, function in named:
        assert callable(getattr(import_module(f"robustbench_msa.analysis.inside.{module}"), function))
