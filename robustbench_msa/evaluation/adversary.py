"""A model as the worst case sees it: losses of samples, and their gradients by the features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from corruptions import MODALITIES, Batch
from robustbench_msa.evaluation.chunks import Chunks
from robustbench_msa.models.contract import MSAModel


class ModelAdversary:
    """The absolute error of a score (cross-entropy of classes) per sample, and its gradient by the raw features.

    Args:
        model: in eval mode. batch_size: samples per pass, or the chunks that are in use elsewhere.
        device: where the model is, if that is not where batches are.
    """

    def __init__(self, model: MSAModel, batch_size: int | Chunks, device: torch.device | None = None) -> None:
        self.model = model
        self.device = device
        self.chunks = batch_size if isinstance(batch_size, Chunks) else Chunks(batch_size)

    def losses(self, batch: Batch) -> Tensor:
        """``(N,)``."""
        with torch.no_grad():
            losses = torch.cat(self.chunks.over(len(batch), lambda rows: self._losses(self._copied(batch, rows))))
            return losses.to(batch.device)

    def gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        """``(N, T_m, d_m)`` per modality of features."""
        chunks = self.chunks.over(len(batch), lambda rows: self._gradients(self._copied(batch, rows)))
        return {m: torch.cat([chunk[m].to(batch.device) for chunk in chunks]) for m in chunks[0]}

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        # cuDNN has no backward pass for recurrent layers in eval mode
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
            moved = {
                m: batch.features(m).detach().clone().requires_grad_()
                for m in MODALITIES
                if batch.features(m).is_floating_point()
            }
            total = self._losses(batch.replace(**moved)).sum()
            if not total.requires_grad:  # a constant predictor
                return {m: torch.zeros_like(x) for m, x in moved.items()}
            gradients = torch.autograd.grad(total, list(moved.values()), allow_unused=True)
        return {
            m: torch.zeros_like(x) if gradient is None else gradient
            for (m, x), gradient in zip(moved.items(), gradients, strict=True)
        }

    def _losses(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        prediction = self.model(batch).prediction
        if prediction.ndim == 2:
            return F.cross_entropy(prediction, batch.labels.long(), reduction="none")
        error: Tensor = (prediction - batch.labels.to(prediction.dtype)).abs()
        return error

    def _copied(self, batch: Batch, rows: slice) -> Batch:
        return batch.select(range(rows.start, rows.stop)).to(self.device or batch.device)
