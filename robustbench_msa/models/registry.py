"""Models by name. Only names are held here: a model's file is read when the model is asked for."""

from __future__ import annotations

from importlib import import_module

from corruptions.errors import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.models.contract import MSAModel

MODELS: dict[str, str] = {
    "late_fusion": "robustbench_msa.models.late_fusion:LateFusion",
    "qa_moe": "robustbench_msa.models.qa_moe:QAMoE",
    "rider_moe": "robustbench_msa.models.rider_moe:RIDERMoE",
    "ca_moe": "robustbench_msa.models.ca_moe:CAMoE",
    "emoe": "robustbench_msa.models.emoe:EMOE",
    "text_moe": "robustbench_msa.models.text_moe:TEXT",
    "tfn": "robustbench_msa.models.tfn:TFN",
    "lmf": "robustbench_msa.models.lmf:LMF",
    "mult": "robustbench_msa.models.mult:MulT",
    "misa": "robustbench_msa.models.misa:MISA",
    "text_only": "robustbench_msa.models.unimodal:TextOnly",
    "audio_only": "robustbench_msa.models.unimodal:AudioOnly",
    "vision_only": "robustbench_msa.models.unimodal:VisionOnly",
}
"""What can be trained and has checkpoints."""

REFERENCES: tuple[str, ...] = ("chance", "oracle")
"""What stands in every table untrained: the best constant, and the best possible prediction. No checkpoints."""


def model_class(name: str) -> type[MSAModel]:
    """The class of a trainable model.

    Raises:
        InputError: no model of this name, or a reference, which is built from the data and not from a checkpoint.

    >>> model_class("late_fusion").name
    'late_fusion'
    """
    if name in REFERENCES:
        raise InputError(f"{name} is a reference: it is built from the dataset and has nothing to train or to load")
    if name not in MODELS:
        known = ", ".join(MODELS)
        raise InputError(f"unknown model {name[:80]!r}{did_you_mean(name, [*MODELS, *REFERENCES])}; known: {known}")
    module, _, attribute = MODELS[name].partition(":")
    found: type[MSAModel] = getattr(import_module(module), attribute)
    return found
