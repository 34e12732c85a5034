"""The bridge for code that cannot be called from here: inputs go out as files, predictions come back as a model.

``export`` writes the corrupted inputs of every cell; ``score_predictions`` takes what that code made of them into a
run's folder, where it stands beside the models that were run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corruptions import InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.execute import Tally
from robustbench_msa.evaluation.export import Started, Told, Written, start_export, write_export
from robustbench_msa.evaluation.export_manifest import Export
from robustbench_msa.evaluation.export_reading import read_export
from robustbench_msa.evaluation.imported import (
    IMPORTED,
    chance_results,
    drop_superseded,
    imported_results,
    imported_subject,
    write_results,
)
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.prediction_files import read_predictions
from robustbench_msa.evaluation.preflight import flags_of
from robustbench_msa.evaluation.preflight_imported import preflight_imported
from robustbench_msa.evaluation.records import remember
from robustbench_msa.evaluation.store import Store
from robustbench_msa.run import (
    Benchmark,
    Names,
    check_out,
    default_out,
    derive_tables,
    names_of,
    open_dataset,
    parse_requests,
    resolve_device,
    try_out,
)
from robustbench_msa.version import commit, versions


@dataclass(frozen=True, eq=False)
class Exported:
    """An export's folder and what became of its files."""

    out: Path
    export: Export
    files: Written


@dataclass(frozen=True, eq=False)
class Scored:
    """The run that the predictions went to; missing: names of the cells that have none; nonfinite: NaN or infinite."""

    result: Benchmark
    missing: tuple[str, ...]
    nonfinite: int


def export(
    out: str | Path,
    stress: Names = (),
    grid: str | None = None,
    *,
    protocol: str | None = None,
    modalities: str | None = None,
    dataset: str | Dataset = "synth",
    data: str | Path | None = None,
    text: str | None = None,
    split: str = "test",
    seeds: int = 3,
    layout: str = "npz",
    command: str = "robustbench_msa.bridge.export(...)",
    started: Started | None = None,
    progress: Told | None = None,
) -> Exported:
    """Write the corrupted inputs of every cell, the clean one included, and a manifest. The same call continues.

    Args:
        out: a new or empty folder, or that of the same export.
        stress, grid, protocol, modalities, dataset, data, text, split, seeds: as of ``benchmark``.
        layout: npz (``numpy.load(path, allow_pickle=False)``) or mmsa (a pickle in the layout of MMSA).
        command: what was typed, for the manifest.
        started: called once with what it takes on the disk; progress: called after each file with its cell's name.

    Raises:
        InputError: anything that cannot be used, too little room on the disk. Nothing is written then.
    """
    folder = Path(out)
    check_out(folder)
    device = resolve_device("cpu")  # inputs are the same everywhere; files are made where they are written
    requests, protocols = parse_requests(names_of(stress), grid, protocol, seeds, modalities)
    loaded = open_dataset(dataset, data, text, split)
    inputs = Inputs(loaded, split, device)
    about = {
        "run": default_out(loaded.name, split, requests, protocol).name,
        "protocols": protocols,
        "command": command,
        "commit": commit(),
        "versions": versions(),
    }
    begun = start_export(folder, layout, inputs, requests, about)
    for request in requests:
        try_out(request, inputs)
    return Exported(folder, begun, write_export(begun, inputs, started, progress))


def score_predictions(
    inputs: str | Path,
    predictions: str | Path,
    model: str,
    *,
    recipe: str = "",
    train_seed: int | None = None,
    out: str | Path | None = None,
    references: bool = True,
    command: str = "robustbench_msa.bridge.score_predictions(...)",
) -> Scored:
    """Score what other code predicted on exported inputs, beside everything else in a run's folder.

    Args:
        inputs: the folder of the export; only its manifest is read.
        predictions: a .csv, .npz or .parquet file with cell, id and prediction, one row for each id of each cell.
        model: what the model is called in tables.
        recipe, train_seed: how it was trained, where that is known.
        out: the run's folder (default: the one that ``benchmark`` would use).
        references: also add chance.
        command: what was typed, for the manifest.

    Raises:
        InputError: anything that cannot be used. Nothing is written then.
    """
    exported = read_export(Path(inputs))
    if left := exported.unfinished:
        begun = f"{len(left)} of {len(exported.cells)} cells are not exported yet"
        raise InputError(f"{exported.folder}: {begun}; to continue: {exported.manifest['command']}")
    given = read_predictions(Path(predictions), [entry["name"] for entry in exported.cells], exported.ids)
    subject = imported_subject(model, recipe, train_seed, exported, given)
    folder = Path(out) if out is not None else Path("reports") / exported.manifest["run"]
    check_out(folder)

    results = imported_results(exported, subject, given)
    checks = preflight_imported(results)
    if flags := flags_of(checks):
        results = [(cell, replace(result, facts={**result.facts, "flags": flags})) for cell, result in results]
    cells = exported.plan(subject)
    about: dict[str, dict[str, Any]] = {
        subject.checkpoint: {"model": model, IMPORTED: True, "recipe": recipe, "train_seed": train_seed}
    }
    about[subject.checkpoint]["preflight"] = checks
    if references:
        chance, theirs = chance_results(exported)
        results += theirs
        about[chance.checkpoint] = {"model": "chance"}
        cells += exported.plan(chance)
    store = Store(folder)
    ours = store, cells, exported.requests, exported.setting, _about(exported, about, command)
    drop_superseded(store, remember(*ours), exported.plan(subject))
    computed = write_results(store, results)
    if derive_tables(*ours):  # a file that was damaged since: its cell is written again
        computed += write_results(store, results)
        derive_tables(*ours)
    tally = Tally(len(cells), len(results) - computed, computed, 0)
    names = zip(exported.cells, given.given, strict=True)
    missing = tuple(entry["name"] for entry, there in names if not there)
    return Scored(Benchmark(folder, tally), missing, sum(r.facts["nonfinite"] for _, r in results))


def _about(exported: Export, checkpoints: dict[str, Any], command: str) -> dict[str, Any]:
    data = exported.manifest["dataset"]
    return {
        "command": command,
        "checkpoints": checkpoints,
        "dataset": {name: data[name] for name in ("notes", "parameters", "text_at")},
        "profile": exported.manifest["profile"],
        "protocols": exported.manifest["protocols"],
        "commit": commit(),
        "versions": versions(),
    }


__all__ = ["Exported", "Scored", "export", "score_predictions"]
