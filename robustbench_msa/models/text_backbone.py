"""Text as token ids: any model here behind a pretrained text encoder, frozen or fine-tuned.

The encoder turns token ids ``(N, T)`` into token states ``(N, T, d)``, and the model takes these as its text features.
Corrupted text is then text whose tokens are gone: their neighbours' states know nothing of them. A class of this kind
is named after its model, ``qa_moe-tokens``, and needs the extra ``bert``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, make_dataclass, replace
from functools import cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corruptions import Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part, told_input
from robustbench_msa.models.layers import valid_steps
from robustbench_msa.models.pretrained import build, digest, find, read_settings, read_weights, sizes_of
from robustbench_msa.models.registry import TOKENS

VERSION = 1
"""Raise it when the same encoder gives other states."""

PAD = 0
AT_ONCE = 64  # samples in a pass of the encoder
KEPT_BYTES = 4 << 30  # how much memory the training split's states may take


@dataclass(frozen=True)
class TextBackbone:
    """The encoder's part of a configuration, beside the fields of the model's own.

    text_backbone: a folder or a name on the hub (``pretrained.find``). text_finetune: train it with the model; else it
        is frozen, without dropout. text_store: write a frozen encoder's weights into the checkpoint; else loading the
        checkpoint asks for the encoder by its name, with exactly these weights. A fine-tuned one is always stored.
    text_learning_rate: the encoder's peak rate when fine-tuned (Devlin et al., 2019: 2e-5 to 5e-5), on the schedule of
        the model's own.
    text_config, text_sha256: its settings and the digest of its pretrained weights, found when training starts.
    """

    text_backbone: str = ""
    text_finetune: bool = False
    text_store: bool = False
    text_learning_rate: float = 2e-5
    text_config: str = ""
    text_sha256: str = ""

    @property
    def stored(self) -> bool:
        """Does a checkpoint hold the encoder's weights?"""
        return self.text_finetune or self.text_store


class TokenTextModel(MSAModel):
    """A model whose text is token ids. ``token_class`` makes the class for each model; all but text is the model's own.

    Tokens are seen up to the sample's length; [PAD] (id 0) is not seen, wherever it stands. What is not seen has a
    state of zeros, so text that is told absent, one step of [PAD], is one step of zeros for the model, as features are.

    Standardisation: a frozen encoder's states are standardised as features are, with the statistics of all training
    samples; they are computed once and used again for training samples that come uncorrupted. A fine-tuned encoder's
    states change, so they are taken as they are (clipped at ``Standardise.limit``, as everything is).
    """

    inner_class: ClassVar[type[MSAModel]]

    def __init__(self, spec: InputSpec, config: Any) -> None:
        super().__init__(spec, config)
        if spec.dims[0]:
            raise InputError(
                f"{self.name}: text is features of {spec.dims[0]} dims, expected token ids (N, T); read the dataset "
                "with --text tokens, or train without a text backbone"
            )
        if config.text_learning_rate < 0:
            raise InputError(f"{self.name}: text_learning_rate must be at least 0; got {config.text_learning_rate}")
        encoder = build(config.text_config)
        encoder.requires_grad_(config.text_finetune).train(config.text_finetune)
        self.sizes = sizes_of(encoder)
        inner = self.inner_class.config_class(**_of(self.inner_class.config_class, config))
        self.inner = self.inner_class(replace(spec, dims=(self.sizes.hidden, *spec.dims[1:])), inner)
        self._encoder = (encoder,)  # in a tuple it is no submodule: neither in the weights nor among the parameters
        if config.stored:
            self.backbone = encoder
        self._known: dict[bytes, int] = {}
        self._states: Tensor | None = None

    @property
    def encoder(self) -> nn.Module:
        return self._encoder[0]

    def read_backbone(self, device: torch.device | str = "cpu") -> None:
        """Take the pretrained weights from where ``text_backbone`` is found, on a device.

        Raises:
            InputError: it is not found, or its weights are not those that the configuration was made with.
        """
        folder = find(self.config.text_backbone)
        weights = read_weights(folder, self.encoder)
        if (found := digest(weights)) != self.config.text_sha256:
            raise InputError(
                f"{self.name}: {folder} does not hold the text backbone this was trained with (sha256 {found[:12]} "
                f"instead of {self.config.text_sha256[:12]}); expected {self.config.text_backbone!r} as it was then"
            )
        self.encoder.load_state_dict(weights)
        self.encoder.to(device)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.train(mode and self.config.text_finetune)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # what .to and .cuda go through
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.config.stored:
            self.encoder._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def fit_statistics(self, train: Batch) -> None:
        if self.config.text_finetune:  # a step of zeros says nothing, and the standardiser stays the identity
            one = torch.ones_like(train.text_lengths)
            nothing = torch.zeros(len(train), 1, self.sizes.hidden, device=train.device)
            self.inner.fit_statistics(train.replace(text=nothing, text_lengths=one))
            return
        ids, lengths = told_input(train, "text")
        states = self.states(ids, lengths)
        self.inner.fit_statistics(train.replace(text=states))
        if states.numel() * states.element_size() <= KEPT_BYTES:
            self._known = {row: i for i, row in enumerate(_rows(self._tokens(ids, lengths)))}
            self._states = states

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Token states ``(N, T, d)`` of token ids ``(N, T)``; zeros at what is not seen. lengths: ``(N,)``.

        Raises:
            InputError: features instead of ids, ids outside the vocabulary, more tokens than the encoder takes.
        """
        ids = self._tokens(ids, lengths)
        if self.training and self._states is not None:
            places = [self._known.get(row, -1) for row in _rows(ids)]
            if min(places) >= 0:  # all of them or none: which rows share a pass never depends on what is known
                return self._states[places].to(ids.device)
        with torch.set_grad_enabled(self.config.text_finetune and torch.is_grad_enabled()):
            order = (ids != PAD).sum(dim=1).argsort(stable=True)  # samples of like length share a pass: fewer steps
            states = torch.cat([self._pass(rows) for rows in torch.split(ids[order], AT_ONCE)])
            return states[order.argsort()]

    def _tokens(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The ids that are seen, ``(N, T)``, [PAD] elsewhere."""
        if ids.is_floating_point() or ids.ndim != 2:
            raise InputError(
                f"text: expected token ids (N, T), got features of shape {tuple(ids.shape)}; read the dataset with "
                "--text tokens"
            )
        seen = ids.masked_fill(~valid_steps(ids, lengths), PAD)
        if seen.numel() and not 0 <= int(seen.min()) <= int(seen.max()) < self.sizes.vocabulary:
            worst = int(seen.min()) if int(seen.min()) < 0 else int(seen.max())
            raise InputError(
                f"text: token id {worst} is not among the {self.sizes.vocabulary} of {self.config.text_backbone!r}; "
                "the ids must be of its vocabulary"
            )
        return seen

    def _pass(self, ids: Tensor) -> Tensor:
        """One pass over as many steps as are used: ``(n, T) -> (n, T, d)``."""
        seen = ids != PAD  # (n, T)
        steps = int(seen.any(dim=0).nonzero().max()) + 1 if bool(seen.any()) else 1
        if steps > self.sizes.positions:
            limit = self.sizes.positions
            raise InputError(f"text: {steps} tokens, but {self.config.text_backbone!r} takes {limit}; cut the text")
        attended = seen[:, :steps].clone()
        attended[:, 0] |= ~seen.any(dim=1)  # a softmax over nothing is not a number
        device = next(self.encoder.parameters()).device
        output = self.encoder(input_ids=ids[:, :steps].to(device), attention_mask=attended.to(device, torch.int64))
        states: Tensor = output.last_hidden_state.to(ids.device)  # (n, steps, d)
        states = states.masked_fill(~seen[:, :steps, None], 0.0)
        return F.pad(states, (0, 0, 0, ids.shape[1] - steps))  # (n, T, d)

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        return self.inner.encode_modality(modality, self.states(x, lengths) if modality == "text" else x, lengths)

    def derived_inputs(self) -> tuple[str, ...]:
        return self.inner.derived_inputs()

    def encode_derived(self, name: str, values: Tensor) -> Part:
        return self.inner.encode_derived(name, values)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return self.inner.fuse(encoded, present)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.inner.loss(batch.replace(text=self.states(*told_input(batch, "text"))))


def with_backbone(config: Any) -> Any:
    """A configuration with the settings and the digest of the encoder that it names.

    Raises:
        InputError: no encoder is named, or it is not found or cannot be read.
    """
    if not config.text_backbone:
        raise InputError("no text backbone: give a folder or a hub name with --text-backbone")
    folder = find(config.text_backbone)
    settings = read_settings(folder)
    weights = read_weights(folder, build(settings))
    return replace(config, text_config=settings, text_sha256=digest(weights))


@cache
def token_class(inner: type[MSAModel]) -> type[TokenTextModel]:
    """The class of a model on token ids: ``NAME-tokens``, with the model's presets and the fields of TextBackbone.

    Raises:
        InputError: the model does not look at text.
    """
    if "text" not in inner.reads:
        raise InputError(f"{inner.name} does not read text: it has no use for a text backbone")
    name = f"{inner.__name__}OnTokens"
    config_class = make_dataclass(f"{name}Config", [], bases=(inner.config_class, TextBackbone), frozen=True)
    own = {
        "__doc__": f"{inner.__name__} on token ids: the configuration of {inner.name} and of its text backbone.",
        "inner_class": inner,
        "name": f"{inner.name}{TOKENS}",
        "version": 1000 * VERSION + inner.version,
        "paper": inner.paper,
        "config_class": config_class,
        "presets": {preset: config_class(**asdict(config)) for preset, config in inner.presets.items()},
        "optimisation": inner.optimisation,
        "reads": inner.reads,
        "pools": inner.pools,
    }
    made: type[TokenTextModel] = type(name, (TokenTextModel,), own)
    return made


def _of(config_class: type[Any], config: Any) -> dict[str, Any]:
    """The values of the fields of config_class in a configuration that has more."""
    return {field.name: getattr(config, field.name) for field in fields(config_class)}


def _rows(ids: Tensor) -> list[bytes]:
    return [row.tobytes() for row in ids.cpu().numpy()]
