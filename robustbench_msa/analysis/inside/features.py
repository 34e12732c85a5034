"""Fused features in the plane, to be coloured by label (EMOE, figure 5; CA-MoE, figure 5).

No model stores them. They are read off the input of the layers that turn them into a prediction, by a hook, so that it
is the very vector that the prediction was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corruptions import Batch, InputError
from robustbench_msa.analysis.metrics import Array
from robustbench_msa.models.contract import MSAModel

LAYERS: Mapping[str, str] = {"qa_moe": "value", "ca_moe": "output", "emoe": "fused_head"}
"""What each model predicts from its fused vector with: h_final of QA-MoE (eq. 8), h-hat of CA-MoE (eq. 12-13), f_c of
EMOE (eq. 2-3). RIDER-MoE mixes scalars and TEXT tokens: they have no such vector here."""
_AT_ONCE = 256  # samples; memory only


def fused_features(model: MSAModel, batch: Batch) -> Array:
    """The vector that each prediction is made from, ``(N, p)``.

    Raises:
        InputError: a model without one, or in training mode.
    """
    if model.name not in LAYERS:
        raise InputError(f"features: {model.name} offers no fused vector; {', '.join(LAYERS)} do")
    if model.training:
        raise InputError("features: expected a model in eval mode (model.eval())")
    parts: list[Tensor] = []

    def keep(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach())

    seen: list[Tensor] = []
    handle = getattr(model, LAYERS[model.name]).register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            for start in range(0, len(batch), _AT_ONCE):
                rows = torch.arange(start, min(start + _AT_ONCE, len(batch)), device=batch.device)
                seen.clear()
                model(batch.select(rows))
                parts.append(seen[-1])  # the last pass is the one that counts (CA-MoE may make a first one)
    finally:
        handle.remove()
    return torch.cat(parts).double().cpu().numpy()


def tsne(features: Array, seed: int = 0, perplexity: float = 30.0) -> Array:
    """t-SNE (van der Maaten and Hinton 2008) of ``(N, p)`` to ``(N, 2)``, started from the principal components.

    Distances between far points mean little in it: a picture, not a measurement.

    Raises:
        InputError: scikit-learn is not installed, or fewer samples than t-SNE can place.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise InputError("t-SNE needs scikit-learn, which msabench does not: pip install scikit-learn") from None
    if len(features) <= perplexity:
        raise InputError(f"t-SNE: expected more than {perplexity:g} samples (the perplexity), got {len(features)}")
    made = TSNE(random_state=seed, perplexity=perplexity, init="pca").fit_transform(features.astype(np.float32))
    return np.asarray(made, dtype=np.float64)
