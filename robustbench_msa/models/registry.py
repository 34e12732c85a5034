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

TOKENS = "-tokens"
"""What the name of a model on token-id text ends in: ``qa_moe-tokens``, QA-MoE behind a text backbone."""

REFERENCES: tuple[str, ...] = ("chance", "oracle")
"""What stands in every table untrained: the best constant, and the best possible prediction. No checkpoints."""


def model_class(name: str) -> type[MSAModel]:
    """The class of a trainable model; of a name that ends in TOKENS, that of the model behind a text backbone.

    Raises:
        InputError: no model of this name, or a reference, which is built from the data and not from a checkpoint.

    >>> model_class("late_fusion").name, model_class("qa_moe-tokens").name
    ('late_fusion', 'qa_moe-tokens')
    """
    if name in REFERENCES:
        raise InputError(f"{name} is a reference: it is built from the dataset and has nothing to train or to load")
    base = name.removesuffix(TOKENS)
    if base not in MODELS:
        known = ", ".join(MODELS)
        raise InputError(f"unknown model {name[:80]!r}{did_you_mean(name, [*MODELS, *REFERENCES])}; known: {known}")
    module, _, attribute = MODELS[base].partition(":")
    found: type[MSAModel] = getattr(import_module(module), attribute)
    if base != name:
        found = import_module("robustbench_msa.models.text_backbone").token_class(found)
    return found
