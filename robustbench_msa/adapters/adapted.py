"""Anyone's module as a model of msabench: ``adapt(module)``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from corruptions import MODALITIES, InputError
from robustbench_msa.adapters.inputs import WORDS, Inputs, call, check_inputs, inputs_of, value_of, words_of
from robustbench_msa.adapters.outputs import Key, extra_in, prediction_in
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part
from robustbench_msa.models.layers import valid_steps

NO_SPEC = InputSpec((0, 0, 0))
_ONE = "h"


def adapt(
    module: nn.Module,
    *,
    inputs: Inputs | None = None,
    output: Key | None = None,
    extras: Mapping[str, Key] | None = None,
    name: str = "",
    version: int = 1,
) -> MSAModel:
    """A module as a model that msabench can run.

    What it is handed: features whose padding is zero, on every step after a sample's length; a modality that is told
    absent is one step of zeros (length 1), whatever the batch holds. NaN is never handed over. Each tensor is the
    module's own, to be written into as it likes.

    A module with ``encode(modality, x, lengths)``, of one modality alone, and ``fuse(parts, present)`` is run by
    these two: encodings are then made once and shared by all severities. ``encode`` gives a tensor or a dict of
    tensors with N rows, ``parts`` is a dict from text, audio and vision to what it gave. Any other module is run as
    a whole on every corrupted input; only time is lost by that.

    Args:
        module: takes tensors of N samples. Is set to eval mode, with no gradients of its parameters.
        inputs: what ``forward`` is handed, as the call is written: ``("text", "audio", "vision")`` by position,
            ``{"x_l": "text", "x_a": "audio"}`` by name, ``("text", ("audio", "audio_lengths"))`` with a tuple inside.
            Words are in ``inputs.WORDS``, and names of derived inputs. Default: by the names of the arguments.
        output: where in a dict or tuple the prediction is. Default: the keys in ``outputs.PREDICTIONS``; the first of
            a tuple. It is ``(N,)`` or ``(N, 1)`` scores, or ``(N, C)`` logits on data with C classes.
        extras: further tensors per sample to keep: ``{"routing": "channel_weight"}`` keeps the output's
            ``channel_weight`` as ``routing``, which figures know.
        name: what tables call it. version: raise it when outputs change for the same weights and the same files.

    Raises:
        InputError: no module, inputs that are no words, an argument whose name says nothing.

    >>> class Mean(nn.Module):
    ...     def forward(self, text, audio, video): return text.mean((1, 2)) + audio.mean((1, 2))
    >>> from corruptions import Batch
    >>> ones = torch.ones(2, 3, 4)
    >>> adapt(Mean())(Batch(ones, ones, ones)).prediction.tolist()
    [2.0, 2.0]
    """
    if isinstance(module, MSAModel):
        if inputs is not None or output is not None or extras:
            raise InputError(
                f"adapt: a {type(module).__name__} says itself what it reads and gives; leave the rest out"
            )
        return quiet(module)
    given: Any = module
    if not isinstance(given, nn.Module):
        what = f"the class {given.__name__}, not an instance" if isinstance(given, type) else type(given).__name__
        raise InputError(f"adapt: expected a torch.nn.Module, got {what}")
    what = type(module).__name__
    separable = inputs is None and _is_separable(module)
    if not separable:
        inputs = inputs_of(module.forward, f"{what}.forward") if inputs is None else inputs
        check_inputs(inputs, what)
    return AdaptedModel(module, inputs, output, dict(extras or {}), name, version)


class AdaptedModel(MSAModel):
    """A module from outside behind the contract. The parts of ``Encoded`` are its inputs, or what its ``encode`` gave.

    inputs: None for a module with ``encode`` and ``fuse``. label, declared_version: as given to ``adapt``.
    """

    name = "adapted"

    def __init__(
        self,
        module: nn.Module,
        inputs: Inputs | None,
        output: Key | None,
        extra_keys: Mapping[str, Key],
        label: str,
        version: int,
    ) -> None:
        super().__init__(NO_SPEC, None)
        self.module = module
        self.inputs = inputs
        self.words = [] if inputs is None else list(dict.fromkeys(words_of(inputs)))
        self.output, self.extra_keys = output, extra_keys
        self.label, self.declared_version = label, version
        quiet(self)

    def bind(self, spec: InputSpec) -> None:
        """Say what the data is. Raises InputError for a word that is no input of this data."""
        self.spec = spec
        tokens = spec.dims[0] == 0
        for word in self.words:
            if word not in WORDS and word not in spec.derived:
                known = ", ".join([*WORDS, *spec.derived])
                raise InputError(f"{self._what}: there is no input {word[:80]!r}; expected words among {known}")
            if word == "text_bert" and not tokens:
                raise InputError(f"{self._what}: text_bert is token ids, this text is features; add --text tokens")

    def derived_inputs(self) -> tuple[str, ...]:
        return tuple(word for word in self.words if word not in WORDS)

    def encode_derived(self, name: str, values: Tensor) -> Part:
        return {"x": values}

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        valid = valid_steps(x, lengths)
        x = x.masked_fill(~(valid if x.ndim == 2 else valid[..., None]), 0)
        lengths = lengths.clamp(min=1)  # packed sequences and softmax over steps take no empty one
        if self.inputs is not None:
            used = any(word.partition("_")[0] == modality for word in self.words)
            return {"x": x, "lengths": lengths} if used else {}
        part = cast(Any, self.module).encode(modality, x.clone(), lengths.clone())
        return _checked_part(part, len(x), f"{self._what.removesuffix('.fuse')}.encode")

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        if self.inputs is None:
            returned = cast(Any, self.module).fuse({m: _given(encoded.part(m)) for m in MODALITIES}, present.clone())
        else:
            values = {word: value_of(word, encoded, present) for word in self.words}
            returned = call(self.module, self.inputs, values)
        n = len(present)
        prediction = prediction_in(returned, self.output, n, self.spec.num_classes, self._what)
        extras = {name: extra_in(returned, key, n, self._what) for name, key in self.extra_keys.items()}
        return Output(prediction, extras)

    def arguments(self) -> dict[str, Any]:
        return {"spec": self.spec.to_json(), "config": {}}

    @property
    def _what(self) -> str:
        return f"{type(self.module).__name__}.{'fuse' if self.inputs is None else 'forward'}"


def quiet(model: MSAModel) -> MSAModel:
    """The model in eval mode, none of its parameters asking for gradients."""
    for module in model.modules():
        module.training = False
    with contextlib.suppress(NotImplementedError):  # a module of torch.export is exported in one mode
        model.eval()  # for modules that have an eval of their own
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _is_separable(module: nn.Module) -> bool:
    """Does it have ``encode(modality, x, lengths)`` and ``fuse``? A method ``encode`` of another kind is no sign."""
    encode = getattr(module, "encode", None)
    if not callable(encode) or not callable(getattr(module, "fuse", None)):
        return False
    code = getattr(encode, "__code__", None)
    return code is not None and code.co_varnames[1:4] == ("modality", "x", "lengths")


def _checked_part(part: Any, n: int, what: str) -> Part:
    named = part if isinstance(part, Mapping) else {_ONE: part}
    for name, x in named.items():
        if not isinstance(x, torch.Tensor) or x.ndim == 0 or len(x) != n:
            got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise InputError(f"{what} gives {got}{'' if named is not part else f' as {name}'}; expected {n} rows")
    return dict(named)


def _given(part: Part) -> Any:
    own = {name: x.clone() for name, x in part.items()}
    return own[_ONE] if set(own) == {_ONE} else own
