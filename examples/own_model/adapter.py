"""The model of model.py for msabench: what it is handed, where its prediction is, and what else is worth keeping."""

from model import WeightedSum

from robustbench_msa.adapters import adapt, load_weights


def build(checkpoint, spec):
    model = WeightedSum(*spec.dims)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return adapt(
        model,
        inputs=("text", "audio", "vision", ("text_lengths", "audio_lengths", "vision_lengths")),
        output="M",
        extras={"routing": "weights"},
    )
