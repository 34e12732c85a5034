"""What a model from outside is handed: which argument of its ``forward`` gets what."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from corruptions import MODALITIES, InputError
from robustbench_msa.models.contract import Encoded

Inputs = str | tuple[Any, ...] | Mapping[str, Any]
"""A word, or words in tuples and dicts: the call is written as it is made. At the top a tuple is positional arguments,
a dict keyword arguments; further inside they are handed over as a tuple and a dict."""

WORDS: dict[str, str] = {
    **{m: f"{m}'s features (N, T, d), zeros after its last step; text may be token ids (N, T)" for m in MODALITIES},
    **{f"{m}_lengths": f"{m}'s steps, (N,) int64, at least 1" for m in MODALITIES},
    **{f"{m}_mask": f"(N, T) bool, True on {m}'s steps" for m in MODALITIES},
    **{f"{m}_padding_mask": f"(N, T) bool, True after {m}'s last step" for m in MODALITIES},
    "present": "(N, 3) bool, False where text, audio or vision is told absent",
    "text_bert": "token ids, mask and segments, (N, 3, T) float32, as MMSA stacks them",
}
"""What a model can be handed, beside the derived inputs of a dataset by their names."""

_NAMES = {
    "text": ("text", "t", "l", "language", "x_t", "x_l", "text_x"),
    "audio": ("audio", "a", "acoustic", "x_a", "audio_x"),
    "vision": ("vision", "v", "visual", "video", "x_v", "vision_x", "video_x"),
}
_ENDINGS = {
    "": ("",),
    "_lengths": ("_lengths", "_length", "_lens", "_len"),
    "_mask": ("_mask", "_attention_mask"),
    "_padding_mask": ("_padding_mask", "_key_padding_mask", "_pad_mask"),
}
ARGUMENTS: dict[str, str] = {
    "present": "present",
    "text_bert": "text_bert",
    **{
        f"{name}{ending}": f"{modality}{word}"
        for modality, names in _NAMES.items()
        for name in names
        for word, endings in _ENDINGS.items()
        for ending in endings
    },
}
"""Names of arguments that say what they want: ``visual_len`` is ``vision_lengths``."""


def inputs_of(forward: Callable[..., Any], what: str) -> Inputs:
    """The inputs that a function's arguments ask for by their names; by position where these are its first ones.

    An argument that has a default and a name unknown here is left out.

    Raises:
        InputError: an argument without a default whose name is not in ARGUMENTS, or none at all.

    >>> inputs_of(lambda text, audio, video, audio_len=None, alpha=1.0: 0, "forward")
    ('text', 'audio', 'vision', 'audio_lengths')
    >>> inputs_of(lambda text, alpha=1.0, video=None: 0, "forward")
    {'text': 'text', 'video': 'vision'}
    """
    names = list(_arguments(forward))
    found = {name: ARGUMENTS[name] for name, _, _ in names if name in ARGUMENTS}
    unknown = [name for name, needed, _ in names if needed and name not in ARGUMENTS]
    if unknown or not found:
        asked = ", ".join(name for name, _, _ in names)
        which = f"what is {', '.join(unknown)}?" if unknown else "no argument has a name that says what it wants"
        raise InputError(
            f"{what}({asked}): {which} Say what it is handed, in its order, as in "
            'adapt(model, inputs=("text", "audio", "vision"))'
        )
    first = names[: len(found)]  # modules of torch.export take them by position alone
    return tuple(found.values()) if all(name in found and placed for name, _, placed in first) else found


def _arguments(forward: Callable[..., Any]) -> Iterator[tuple[str, bool, bool]]:
    """(name, must be given, can be given by position) of each argument of its own."""
    schema = getattr(forward, "schema", None)  # TorchScript has no signature
    if schema is not None:
        yield from ((a.name, not a.has_default_value(), True) for a in schema.arguments[1:])
        return
    for p in inspect.signature(forward).parameters.values():
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY):
            yield p.name, p.default is p.empty, p.kind is not p.KEYWORD_ONLY


def words_of(inputs: Inputs) -> list[str]:
    """Every word in the inputs, in their order."""
    if isinstance(inputs, str):
        return [inputs]
    inner = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [word for part in inner for word in words_of(part)]


def check_inputs(inputs: Any, what: str) -> None:
    """Raise InputError where the inputs are no words in tuples and dicts. Words may be names of derived inputs."""
    if isinstance(inputs, list | tuple | Mapping):
        if not inputs:
            raise InputError(f"{what}: inputs are empty; expected words among {', '.join(WORDS)}")
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            check_inputs(part, what)
    elif not isinstance(inputs, str):
        raise InputError(f"{what}: inputs are words in tuples and dicts, got {type(inputs).__name__}")


def call(function: Callable[..., Any], inputs: Inputs, values: Mapping[str, Tensor]) -> Any:
    """The function called with the values in the places that the inputs give them."""
    given = _filled(inputs, values)
    if isinstance(inputs, Mapping):
        return function(**given)
    return function(given) if isinstance(inputs, str) else function(*given)


def _filled(inputs: Inputs, values: Mapping[str, Tensor]) -> Any:
    if isinstance(inputs, str):
        return values[inputs]
    if isinstance(inputs, Mapping):
        return {name: _filled(part, values) for name, part in inputs.items()}
    return tuple(_filled(part, values) for part in inputs)


def value_of(word: str, encoded: Encoded, present: Tensor) -> Tensor:
    """What a word stands for. A tensor of its own: a model that writes into its input harms nobody."""
    if word == "present":
        return present.clone()
    if word in encoded.derived:
        return encoded.derived[word]["x"].clone()
    modality, _, rest = word.partition("_")
    part = encoded.part(modality)
    if rest == "lengths":
        return part["lengths"].clone()
    if not rest:
        return part["x"].clone()
    steps = torch.arange(part["x"].shape[1], device=present.device)
    seen = steps < part["lengths"][:, None]  # (N, T)
    if rest == "bert":
        return torch.stack([part["x"], seen, torch.zeros_like(seen)], dim=1).float()  # (N, 3, T)
    return seen if rest == "mask" else ~seen
