"""What is fuzzed: each reader as the command line uses it. It returns, or raises InputError; all else is a bug."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import h5py  # noqa: F401  # these two are imported late by what is fuzzed
import numpy as np
import pyarrow as pa
import torch
import transformers  # noqa: F401
from rich.console import Console

from corruptions import InputError, Stress
from corruptions.protocols import Protocol
from robustbench_msa.adapters.card import read_card
from robustbench_msa.adapters.weights import load_weights, read_weights
from robustbench_msa.cli import display
from robustbench_msa.cli import inspect as inspect_command
from robustbench_msa.data import npy, safe_pickle
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.inspection import inspect_path
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.evaluation.cells import Subject
from robustbench_msa.evaluation.export_reading import read_export
from robustbench_msa.evaluation.imported import chance_results, imported_results, imported_subject
from robustbench_msa.evaluation.prediction_files import read_predictions
from robustbench_msa.evaluation.progress import progress_of
from robustbench_msa.evaluation.records import recall
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models import pretrained
from robustbench_msa.models.checkpoint import load_model, read_checkpoint
from robustbench_msa.reporting.merged_board import merged_board

Read = Callable[[Path], object]


def each(reads: Iterable[Callable[[], object]]) -> None:
    """All of these, also after one that refuses. An input that none of them takes is refused."""
    refused, taken = list[InputError](), 0
    for read in reads:
        try:
            read()
            taken += 1
        except InputError as error:
            refused.append(error)
    if not taken:
        raise refused[0]


def _inspect(path: Path) -> None:
    """As the command does, what it prints included."""
    found = inspect_path(path)
    json.dumps(asdict(found))
    display.console.file = io.StringIO()
    inspect_command._show(found)


def _used(dataset: Dataset) -> None:
    """A dataset that was read must bear being used."""
    assert len(dataset.fingerprint) == 64
    for batch in dataset.splits.values():
        assert len(batch.rows(slice(0, 1))) == 1


def _load(name: str, path: Path, text: str | None) -> None:
    _used(load_dataset(name, path, text))


def _data(name: str, names: tuple[str, ...], text: tuple[str | None, ...] = (None,)) -> Read:
    def read(folder: Path) -> None:
        path = folder / name
        with suppress(InputError):
            _inspect(path)
        each(partial(_load, n, path, t) for n in names for t in text)

    return read


def _weights(name: str) -> Read:
    def read(folder: Path) -> None:
        path = folder / name
        each([lambda: read_weights(path), lambda: load_weights(torch.nn.Linear(3, 2), path)])

    return read


def _checkpoint(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    each([lambda: checkpoint.identity, lambda: load_model(checkpoint), lambda: read_weights(folder)])


def _backbone(folder: Path) -> None:
    pretrained.MAX_PARAMETERS = 2**24  # within the memory there is here
    settings = pretrained.read_settings(folder)
    pretrained.sizes_of(pretrained.build(settings))


def _status(folder: Path) -> None:
    report = progress_of(folder)
    json.dumps(report.to_json())
    Console(file=io.StringIO()).print(report.to_rich())
    store = Store(folder)
    for cell in recall(store).cells:
        with suppress(OSError, pa.ArrowException):  # what it is documented to raise
            store.predictions(cell.key)
            store.facts(cell.key)
    store.runtime(cell.key for cell in recall(store).cells)


def _leaderboard(folder: Path) -> None:
    merged_board([folder], ties=False).to_markdown()


def _score(kind: str) -> Read:
    def read(folder: Path) -> None:
        export = read_export(folder)
        cells = [entry["name"] for entry in export.cells]
        predictions = read_predictions(folder / f"p.{kind}", cells, export.ids)
        subject = imported_subject("theirs", "", None, export, predictions)
        imported_results(export, subject, predictions)

    return read


def _export(folder: Path) -> None:
    export = read_export(folder)
    export.plan(Subject("theirs", 1, "0" * 64))
    chance_results(export)


def _text(folder: Path) -> str:
    return (folder / "t.txt").read_text("utf-8", "surrogateescape")


def _stress(folder: Path) -> None:
    stress = Stress.parse(_text(folder))
    assert Stress.parse(stress.label) == stress, "what a stress calls itself is another stress"


def _grid(folder: Path) -> None:
    text = _text(folder)
    names = ("missing", "noise", "spectrum", "missing-fixed", "missing-random")
    each(partial(Stress.parse(name).grid, text) for name in names)


def _npy(folder: Path) -> None:
    x = npy.mapped(folder / "x.npy")
    np.array(x)
    if x.dtype.kind in "biuf":
        npy.tensor_of(x)


TARGETS: dict[str, Read] = {
    "pickle": lambda folder: safe_pickle.load(folder / "data.pkl"),
    "mmsa": _data("data.pkl", ("mosi",), (None, "tokens")),
    "npz": _data("data.npz", ("mosi",), (None, "tokens")),
    "npy": _npy,
    "hdf5": _data("data.h5", ("mosi",)),
    "msa": _data("", ("mosi",)),
    "mintrec": _data("", ("mintrec",), ("features", "tokens")),
    "iemocap": _data("", ("iemocap4:fold=5",)),
    "safetensors": _weights("w.safetensors"),
    "torch": _weights("w.pth"),
    "torch-legacy": _weights("w.pth"),
    "card": lambda folder: read_card(folder / "w.pth"),
    "checkpoint": _checkpoint,
    "backbone": _backbone,
    "status": _status,
    "compacted": _status,
    "leaderboard": _leaderboard,
    "export": _export,
    "score-csv": _score("csv"),
    "score-npz": _score("npz"),
    "score-parquet": _score("parquet"),
    "protocol": lambda folder: Protocol.load(str(folder / "p.toml")),
    "stress": _stress,
    "grid": _grid,
}

WRITERS = ("status", "compacted", "leaderboard")
"""These may write into their folder: unreadable cells are set aside."""
