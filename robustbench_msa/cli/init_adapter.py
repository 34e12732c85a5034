"""``msabench init-adapter``: a file to start from, for a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Example:

msabench init-adapter my_model.py

msabench run --model my_model.py:build --stress missing"""

TEMPLATE = '''"""My model for msabench: msabench run --model {name}:build --checkpoint best.pth --stress missing"""

import torch
from torch import nn

from robustbench_msa.adapters import adapt, load_weights


class MyModel(nn.Module):  # yours: import it instead, from my_project.model import MyModel
    def __init__(self, dims):
        super().__init__()
        self.head = nn.Linear(sum(dims), 1)

    def forward(self, text, audio, vision):  # each (N, T, d); what is lost or padded is zero
        return self.head(torch.cat([text.mean(1), audio.mean(1), vision.mean(1)], dim=1))  # (N, 1)


def build(checkpoint, spec):  # checkpoint: the path after --checkpoint, or None; spec: what the data is
    model = MyModel(spec.dims)  # spec.dims: features of text, audio, vision (text 0: token ids)
    if checkpoint is not None:
        load_weights(model, checkpoint)  # strict; refuses a file that holds anything but weights
    # Say what forward is handed, in its order: text_lengths, audio_mask, present, ... (docs/your-own-model.md)
    return adapt(model, inputs=("text", "audio", "vision"))  # output="M" for a dict; extras={{"routing": "gates"}}
'''


def init_adapter(
    path: Annotated[Path, typer.Argument(help="The file to write.", metavar="[PATH]")] = Path("my_model.py"),
) -> None:
    """Write a commented file that builds a model of your own for --model, and runs as it is."""
    from corruptions.errors import InputError

    if path.suffix != ".py":
        raise InputError(f"{path}: expected a file that ends in .py, as in {path.with_suffix('.py')}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=path))
    except FileExistsError:
        raise InputError(f"{path} is there already and was left as it is; name another file") from None
    print(f"{path} written; it runs as it is:  msabench run --model {path}:build --stress missing")
