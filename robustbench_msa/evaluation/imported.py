"""Predictions that other code made on exported inputs, as a model like any other in the store."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from corruptions import InputError
from robustbench_msa.evaluation.cells import Cell, Subject
from robustbench_msa.evaluation.export_manifest import Export, decode_present
from robustbench_msa.evaluation.prediction_files import Predictions, shown
from robustbench_msa.evaluation.records import PLAN, Planned, recall
from robustbench_msa.evaluation.store import Result, Runtime, Store
from robustbench_msa.evaluation.subjects import identity_of
from robustbench_msa.models.chance import Chance
from robustbench_msa.models.contract import Encoded
from robustbench_msa.models.registry import MODELS, REFERENCES, TOKENS
from robustbench_msa.version import __version__

IMPORTED = "imported"
"""The key under which a run's manifest says that a checkpoint is one of these."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RECIPE = re.compile(r"[^\x00-\x1f\x7f]{0,100}")

Results = list[tuple[Cell, Result]]


def imported_subject(
    model: str, recipe: str, train_seed: int | None, export: Export, predictions: Predictions
) -> Subject:
    """The model behind the predictions. Its checkpoint is a sha256 over its name and all that it predicted.

    Raises:
        InputError: a name that is none, or that of a model of msabench; a recipe that is not one line; classes or
            logits for scores, or those of other classes.
    """
    if not _NAME.fullmatch(model):
        raise InputError(f"--model: expected a name of letters, digits, . - and _, got {shown(model)!r}")
    if model.removesuffix(TOKENS) in (*MODELS, *REFERENCES):
        raise InputError(f"--model: {model} is a model of msabench; choose another name, as in {model}-theirs")
    _check_classes(export, predictions)
    if not _RECIPE.fullmatch(recipe):
        raise InputError(f"--recipe: expected one line of at most 100 characters, got {shown(recipe)!r}")
    digest = hashlib.sha256(json.dumps(["msabench predictions 1", model, export.ids]).encode())
    said = predictions.values if predictions.logits is None else predictions.logits
    for cell, values, given in zip(export.plan(Subject(model, 1, "")), said, predictions.given, strict=True):
        if given:
            digest.update(cell.key.encode())
            digest.update(np.where(np.isnan(values), np.float32(np.nan), values).astype("<f4").tobytes())
    return Subject(model, 1, digest.hexdigest(), recipe, train_seed)


def imported_results(export: Export, subject: Subject, predictions: Predictions) -> Results:
    """The cells that are given, as a run would have made them."""
    cells = zip(export.plan(subject), export.cells, predictions.values, predictions.given, strict=True)
    logits = predictions.logits
    return [
        (cell, _result(export, entry, values, {} if logits is None else {"logits": logits[i]}))
        for i, (cell, entry, values, given) in enumerate(cells)
        if given
    ]


def _check_classes(export: Export, predictions: Predictions) -> None:
    count, logits = export.num_classes, predictions.logits
    if logits is not None and logits.shape[2] != count:
        expected = f"logits of {count} classes" if count else "one prediction for each id: its labels are scores"
        raise InputError(f"{export.folder}: expected {expected}, got {logits.shape[2]} logits")
    known = predictions.values[np.isfinite(predictions.values)]
    wrong = known[(known < 0) | (known >= count) | (known != np.floor(known))]
    if count and wrong.size:
        raise InputError(f"{export.folder}: expected classes, 0 to {count - 1}, got a prediction of {wrong[0]:g}")


def chance_results(export: Export) -> tuple[Subject, Results]:
    """Chance, from the training constants in the manifest: the same cells that a run on the dataset has."""
    model = Chance.from_constants(export.manifest["chance"])
    identity = identity_of({"model": "chance", "version": model.version, **model.arguments()})
    subject = Subject("chance", model.version, identity)
    with torch.inference_mode():
        output = model.fuse(Encoded({}, {}, {}), torch.ones(len(export.ids), 3, dtype=torch.bool))
    extras, y_pred = {name: x.numpy() for name, x in output.extras.items()}, output.prediction.numpy()
    if export.num_classes:
        extras, y_pred = {**extras, "logits": y_pred}, y_pred.argmax(axis=1).astype(np.float32)
    cells = zip(export.plan(subject), export.cells, strict=True)
    return subject, [(cell, _result(export, entry, y_pred, extras)) for cell, entry in cells]


def write_results(store: Store, results: Results) -> int:
    """Write the cells that are not there yet, or are there under another recipe or training seed. How many it were."""
    done = store.done(cell.key for cell, _ in results)
    missing = [(cell, result) for cell, result in results if cell.key not in done or not _is_labelled(store, cell)]
    for cell, result in missing:
        store.write(cell, result, _elsewhere())
    return len(missing)


def drop_superseded(store: Store, planned: Planned, cells: Sequence[Cell]) -> Planned:
    """Forget incomplete imports under the same names that asked for no more than these cells, with what they left.

    What was scored first with cells missing is scored again with all of them: another content, so another checkpoint.
    """
    theirs = _superseded(store, planned, cells)
    if not theirs:
        return planned
    known = {name: about for name, about in planned.manifest["checkpoints"].items() if name not in theirs}
    store.write_manifest({**planned.manifest, "checkpoints": known})
    kept = [cell for cell in planned.cells if cell.checkpoint not in theirs]
    rows = [{"key": cell.key, "cell": json.dumps(asdict(cell))} for cell in kept]
    store.write_table("plan", pa.Table.from_pylist(rows, schema=PLAN))
    for cell in planned.cells:
        if cell.checkpoint in theirs:
            store.path(cell.key).unlink(missing_ok=True)
            (store.root / "runtime" / f"{cell.key}.parquet").unlink(missing_ok=True)
    return recall(store)


def _superseded(store: Store, planned: Planned, cells: Sequence[Cell]) -> set[str]:
    """Checkpoints of imports that are to be forgotten."""
    ours, places = cells[0], {_place(cell) for cell in cells}
    named = (ours.model, ours.recipe, ours.train_seed)
    by_checkpoint: dict[str, list[Cell]] = {}
    for cell in planned.cells:
        about = planned.manifest["checkpoints"].get(cell.checkpoint)
        imported = isinstance(about, dict) and bool(about.get(IMPORTED))
        if imported and cell.checkpoint != ours.checkpoint and named == (cell.model, cell.recipe, cell.train_seed):
            by_checkpoint.setdefault(cell.checkpoint, []).append(cell)
    return {
        checkpoint
        for checkpoint, theirs in by_checkpoint.items()
        if {_place(cell) for cell in theirs} <= places and len(store.done(cell.key for cell in theirs)) < len(theirs)
    }


def _place(cell: Cell) -> tuple[Any, ...]:
    return (cell.stress, cell.options, cell.point, cell.seed)


def _result(
    export: Export, entry: Mapping[str, Any], y_pred: NDArray[np.float32], extras: dict[str, NDArray[np.float32]]
) -> Result:
    facts = {name: entry[name] for name in ("input_digest", "realised")}
    return Result(
        ids=export.ids,
        groups=export.groups,
        y_true=export.labels,
        y_pred=y_pred,
        present=decode_present(entry["present"]),
        extras=extras,
        facts={**facts, "nonfinite": int((~np.isfinite(y_pred)).sum())},
    )


def _is_labelled(store: Store, cell: Cell) -> bool:
    """Does the cell's file say of whom it is what we say? The labels are no part of its key."""
    try:
        (row,) = store.predictions(cell.key, ["recipe", "train_seed"]).slice(0, 1).to_pylist()
    except (pa.ArrowException, OSError, ValueError):
        return False
    return bool(row == {"recipe": cell.recipe, "train_seed": cell.train_seed})


def _elsewhere() -> Runtime:
    """What an imported cell ran on is not known here; when it came, and to what, is."""
    return Runtime(
        device="elsewhere",
        batch_size=0,
        threads=0,
        seconds=0.0,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        python=platform.python_version(),
        torch=torch.__version__,
        msabench=__version__,
    )
