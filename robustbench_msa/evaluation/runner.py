"""Running cells: encode once, then fuse what differs.

Cells of whole-modality stresses only pick rows of encodings, and rows that several cells have in common (the untouched
samples; those that a stress treats alike at several severities) are fused once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions import Batch, InputError
from corruptions.corruption import Corruption
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.chunks import Chunks
from robustbench_msa.evaluation.fusing import Fuser
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Result
from robustbench_msa.models.chance import Chance
from robustbench_msa.models.contract import MSAModel, Output


class WholeModel(Protocol):
    """A model that only offers a prediction for a whole corrupted input (the oracle)."""

    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output: ...


class Runner:
    """One model over cells of one split. Keeps what was encoded and fused for as long as a later cell may need it.

    Args:
        batch_size: samples per forward pass; halved where memory does not suffice (``chunks.size`` is what is used).
    """

    def __init__(self, model: MSAModel | WholeModel, inputs: Inputs, batch_size: int) -> None:
        self.model = model
        self.inputs = inputs
        self.chunks = Chunks(batch_size)
        self._fuser: Fuser | None = None

    def run(self, cell: Cell) -> Result:
        """Predictions, extras and facts of one cell."""
        with self._mode(cell):
            if isinstance(self.model, MSAModel):
                if self._fuser is None or self._fuser.numerics != cell.numerics:
                    self._fuser = Fuser(self.model, self.inputs, self.chunks, cell.numerics)
                return self._result(cell, *self._fuser.output(cell))
            corruption = self.inputs.corruption(cell)
            return self._result(cell, corruption, self.model.predict(corruption.batch, cell, self.inputs))

    @staticmethod
    def _mode(cell: Cell) -> AbstractContextManager[Any]:
        """Tensors made in inference mode could not be differentiated through."""
        attacked = not cell.is_clean and cell.to_stress().stressor.needs_adversary
        return torch.no_grad() if attacked else torch.inference_mode()

    def _result(self, cell: Cell, corruption: Corruption, output: Output) -> Result:
        clean = corruption.clean
        assert clean.labels is not None
        y_pred, logits = self._predicted(output.prediction)
        facts = {**self.inputs.facts(cell, corruption), "nonfinite": int((~np.isfinite(y_pred)).sum())}
        return Result(
            ids=clean.ids,
            groups=clean.groups,
            y_true=clean.labels.to(torch.float32).cpu().numpy(),
            y_pred=y_pred,
            present=corruption.present.cpu().numpy(),
            extras={name: x.to(torch.float32).cpu().numpy() for name, x in (output.extras | logits).items()},
            facts=facts,
        )

    def _predicted(self, prediction: Tensor) -> tuple[NDArray[np.float32], dict[str, Tensor]]:
        """Scores, or classes and their logits as an extra. Logits that are not all finite are of no class: NaN.

        Raises:
            InputError: scores where the dataset has classes, or the other way round; another number of classes.
        """
        expected, given = self.inputs.num_classes, prediction.shape[1] if prediction.ndim == 2 else 0
        if bool(given) != bool(expected) or (given != expected and not self._is_chance):
            wanted, got = (f"logits of {count} classes" if count else "scores" for count in (expected, given))
            raise InputError(
                f"{self.inputs.dataset.name}: expected {wanted}, the model gives {got}; "
                "pick a checkpoint that was trained on this dataset"
            )
        if not given:
            return prediction.to(torch.float32).cpu().numpy(), {}
        known = torch.isfinite(prediction).all(dim=1)
        classes = prediction.argmax(dim=1).to(torch.float32).masked_fill(~known, torch.nan)
        return classes.cpu().numpy(), {"logits": prediction}

    @property
    def _is_chance(self) -> bool:
        """It knows of the classes of the training split alone."""
        return isinstance(self.model, Chance)
