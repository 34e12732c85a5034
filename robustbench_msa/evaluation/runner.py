"""Running cells: encode once, then fuse.

A modality's encoder runs once on the clean input and once on lost input, whatever the grid; cells of whole-modality
stresses only pick rows of these and fuse. What changes inside a modality is encoded again, that modality alone, and
cells that share the change (a row of the spectrum) share the encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions import MODALITIES, Batch, InputError
from corruptions.corruption import Corruption, fill_steps, maskable
from robustbench_msa.evaluation.adversary import ModelAdversary
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.store import Result
from robustbench_msa.models.chance import Chance
from robustbench_msa.models.contract import Encoded, MSAModel, Output, Part, told_derived, told_input


class WholeModel(Protocol):
    """A model that only offers a prediction for a whole corrupted input (the oracle)."""

    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output: ...


class Runner:
    """One model over cells of one split. Keeps what was encoded for as long as a later cell may need it."""

    def __init__(self, model: MSAModel | WholeModel, inputs: Inputs, batch_size: int) -> None:
        self.model = model
        self.inputs = inputs
        self.batch_size = batch_size
        self._kept: dict[tuple[Any, ...], Part] = {}
        self._changed_at: tuple[Any, ...] = ()

    def run(self, cell: Cell) -> Result:
        """Predictions, extras and facts of one cell."""
        corruption = self._corruption(cell)
        with torch.inference_mode():
            return self._predict(cell, corruption)

    def _corruption(self, cell: Cell) -> Corruption:
        if not isinstance(self.model, MSAModel) or cell.is_clean or not cell.to_stress().stressor.needs_adversary:
            with torch.inference_mode():
                return self.inputs.corruption(cell)
        with torch.no_grad():  # tensors made in inference mode could not be differentiated through
            return self.inputs.corruption(cell, ModelAdversary(self.model, self.batch_size))

    def _predict(self, cell: Cell, corruption: Corruption) -> Result:
        if isinstance(self.model, MSAModel):
            output = self._fuse(self._encoded(cell, corruption), corruption.present)
        else:
            output = self.model.predict(corruption.batch, cell, self.inputs)
        return self._result(cell, corruption, output)

    def _encoded(self, cell: Cell, corruption: Corruption) -> Encoded:
        parts: dict[str, Part] = {}
        for i, modality in enumerate(MODALITIES):
            part = self._features_part(cell, corruption, modality)
            donor, lost = corruption.sources.donor[:, i], corruption.sources.lost[:, i]
            if bool((donor >= 0).any()):
                part = _put(part, donor >= 0, self._clean_part(modality), donor[donor >= 0])
            if bool(lost.any()):
                part = _put(part, lost, self._lost_part(corruption, modality), lost.nonzero().squeeze(1))
            parts[modality] = part
        return Encoded(**parts, derived={name: self._derived_part(name, corruption) for name in self._derived_names})

    @property
    def _derived_names(self) -> tuple[str, ...]:
        assert isinstance(self.model, MSAModel)
        return self.model.derived_inputs()

    def _derived_part(self, name: str, corruption: Corruption) -> Part:
        """A derived input goes with its sources: lost with any of them, swapped with them."""
        clean, changed = self.inputs.batch, corruption.clean
        if changed.derived is not clean.derived:  # an earlier stress of a composition, or an attack, has taken some
            return self._encode_derived(name, told_derived(corruption.batch, name))
        columns = [MODALITIES.index(source) for source in clean.derived[name].sources]
        values, told = clean.derived[name].values, told_derived(clean, name)
        part = self._keep(("clean", name), lambda: self._encode_derived(name, told))
        donor = corruption.sources.donor[:, columns].amax(1)
        swapped = (donor >= 0) & clean.present[:, columns].all(1)  # a host that lacks another source has none anyway
        if bool(swapped.any()):
            whole = part if told is values else self._keep(("untold", name), lambda: self._encode_derived(name, values))
            part = _put(part, swapped, whole, donor[swapped])
        lost = corruption.sources.lost[:, columns].any(1)
        if bool(lost.any()):
            zeros = self._keep(("lost", name), lambda: self._encode_derived(name, torch.zeros_like(values)))
            part = _put(part, lost, zeros, lost.nonzero().squeeze(1))
        return part

    def _encode_derived(self, name: str, values: Tensor) -> Part:
        assert isinstance(self.model, MSAModel)
        return _joined([self.model.encode_derived(name, values[rows]) for rows in self._chunks(len(values))])

    def _clean_part(self, modality: str) -> Part:
        return self._keep(("clean", modality), lambda: self._encode(modality, self.inputs.batch))

    def _features_part(self, cell: Cell, corruption: Corruption, modality: str) -> Part:
        """The encoding after feature-level changes: the clean one where this modality was not touched."""
        changed = corruption.features.batch
        if changed.features(modality) is self.inputs.batch.features(modality):
            return self._clean_part(modality)
        at = ("changed", cell.stress, cell.options, cell.seed, cell.to_stress().stressor.feature_point(cell.point))
        if at != self._changed_at:  # only the latest change is kept: cells come in its order
            for key in [key for key in self._kept if key[0] == "changed"]:
                del self._kept[key]
            self._changed_at = at
        return self._keep(("changed", modality), lambda: self._encode(modality, changed))

    def _lost_part(self, corruption: Corruption, modality: str) -> Part:
        """The encoding of a lost modality: what is told absent, or filled steps that look like any others."""
        ours, clean = self.inputs.batch, corruption.clean
        if corruption.told:
            present = torch.zeros_like(ours.present)
            return self._keep(("absent", modality), lambda: self._encode(modality, ours.replace(present=present)))
        if clean.lengths(modality) is not ours.lengths(modality):  # swapped before it was lost: the donors' lengths
            return self._encode(modality, self._filled(corruption, clean, modality))
        return self._keep(
            ("lost", modality, corruption.fill),
            lambda: self._encode(modality, self._filled(corruption, ours, modality)),
        )

    @staticmethod
    def _filled(corruption: Corruption, batch: Batch, modality: str) -> Batch:
        steps = maskable(batch, modality)
        return batch.replace(**{modality: fill_steps(batch, modality, steps, corruption.fill, corruption.reference)})

    def _keep(self, key: tuple[Any, ...], make: Callable[[], Part]) -> Part:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _encode(self, modality: str, batch: Batch) -> Part:
        assert isinstance(self.model, MSAModel)
        x, lengths = told_input(batch, modality)
        return _joined([self.model.encode_modality(modality, x[rows], lengths[rows]) for rows in self._chunks(len(x))])

    def _fuse(self, encoded: Encoded, present: Tensor) -> Output:
        assert isinstance(self.model, MSAModel)
        outputs = []
        for rows in self._chunks(len(present)):
            chunk = {m: {name: x[rows] for name, x in encoded.part(m).items()} for m in MODALITIES}
            derived = {n: {name: x[rows] for name, x in part.items()} for n, part in encoded.derived.items()}
            outputs.append(self.model.fuse(Encoded(**chunk, derived=derived), present[rows]))
        return Output(torch.cat([o.prediction for o in outputs]), _joined([o.extras for o in outputs]))

    def _chunks(self, n: int) -> Iterable[slice]:
        return [slice(start, start + self.batch_size) for start in range(0, n, self.batch_size)]

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


def _put(part: Part, hosts: Tensor, source: Part, rows: Tensor) -> Part:
    """A copy of the part with the hosts' rows, ``(N,)`` bool, replaced by these rows of another."""
    places = hosts.nonzero().squeeze(1)
    return {name: x.index_copy(0, places, source[name][rows]) for name, x in part.items()}


def _joined(parts: list[Part]) -> Part:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
