"""One of MMSA's models, called as MMSA's own trainer calls it in a test."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from corruptions import InputError

WITH_LENGTHS = ("self_mm", "mmim")
"""Audio and vision are handed over as (features, lengths)."""
DRAWS = ("mfm",)
"""A training loss is computed in every pass, from random numbers that do not reach the prediction."""


class Zoo(nn.Module):
    """MMSA's ``AMIO`` behind one call for all its models.

    amio: the module, whose state dict MMSA saves. settings: its argument object. unsaved: modules that graph_mfn keeps
    in a plain dict: not in the state dict, not trained, not moved to a device by ``to``; here they are moved, and seen
    by who hashes the weights.
    """

    msabench_about: dict[str, Any]

    def __init__(self, amio: nn.Module, settings: Any) -> None:
        super().__init__()
        self.amio: Any = amio
        self.settings = settings
        graph = getattr(self.amio.Model, "graph_mfn", None)
        self.unsaved = nn.ModuleList(list(getattr(graph, "networks", {}).values()))

    def forward(
        self,
        text: Tensor,
        audio: Tensor,
        vision: Tensor,
        audio_lengths: Tensor | None = None,
        vision_lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``M``, the prediction, and ``unimodal``, those of text, audio and vision alone where the model has them.

        Args:
            text: ``(N, T, d)`` features, or ids, mask and segments, ``(N, 3, T)``. audio, vision: ``(N, T, d)``.
        """
        audio = audio.masked_fill(audio == -torch.inf, 0)
        if self.settings.get("need_normalized"):
            audio, vision = time_mean(audio), time_mean(vision)
        self._meet(text)
        given: list[Any] = [audio, vision]
        if audio_lengths is not None and vision_lengths is not None:
            given = [(audio, audio_lengths.cpu()), (vision, vision_lengths.cpu())]  # packing wants them there
        with self._random_state(text.device):
            returned = self.amio(text, *given)
        if isinstance(returned, tuple):  # mfm: the prediction, then losses
            return {"M": returned[0]}
        alone = [returned[letter].reshape(len(text), 1) for letter in "TAV" if letter in returned]
        return {"M": returned["M"]} | ({"unimodal": torch.cat(alone, dim=1)} if alone else {})

    def _meet(self, text: Tensor) -> None:
        """What MMSA's loader tells a model of the data and the device, told at the call."""
        self.settings["device"] = text.device
        if not self.settings.get("need_model_aligned"):
            return
        self.amio.alignNet.dst_len = text.shape[1]  # audio and vision are pooled to as many steps as text
        norm = getattr(self.amio.Model, "norm", None)
        if norm is not None and norm.num_features != text.shape[1]:
            raise InputError(
                f"it normalises over {norm.num_features} steps of text and gets {text.shape[1]}; run it on data padded "
                f"to {norm.num_features} steps, as it was trained"
            )

    def _random_state(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        if self.settings["model_name"] not in DRAWS:
            return contextlib.nullcontext()
        return torch.random.fork_rng([device] if device.type == "cuda" else [])


def time_mean(x: Tensor) -> Tensor:
    """The mean over all steps, padding among them, ``(N, T, d)`` to ``(N, 1, d)``, with 0 for NaN, as MMSA's loader.

    >>> time_mean(torch.tensor([[[3.0], [0.0], [0.0]]])).tolist()
    [[[1.0]]]
    """
    mean = x.mean(dim=1, keepdim=True)
    return mean.masked_fill(mean.isnan(), 0)
