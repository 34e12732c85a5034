"""The main job as one function: models x stresses x severities x seeds, to curves and nAUC tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from corruptions import MODALITIES, Batch, InputError, Protocol, Stress
from robustbench_msa.analysis import tables
from robustbench_msa.analysis.tables import derive
from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.engines import Engine, Rebuild, Shard, compute
from robustbench_msa.evaluation import schemas, subjects
from robustbench_msa.evaluation.cells import FIRST_SEED, NUMERICS, Cell, Request, Setting, plan
from robustbench_msa.evaluation.chunks import batch_size_of
from robustbench_msa.evaluation.current import derive_if_needed
from robustbench_msa.evaluation.execute import Progress, Tally
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.numerics import check_numerics
from robustbench_msa.evaluation.preflight import flags_of, preflight_all, stamp
from robustbench_msa.evaluation.records import deriving, manifest_for, recall, remember, remembered
from robustbench_msa.evaluation.schemas import CELLS, CURVES, NAUC, frame_of
from robustbench_msa.evaluation.store import Store
from robustbench_msa.models.checkpoint import check_fits, find_checkpoints, read_checkpoint
from robustbench_msa.models.registry import REFERENCES, TOKENS, model_class
from robustbench_msa.version import commit, versions

Names = str | Sequence[str]
_CODE_OF_TABLES = Path(tables.__file__).parent, Path(schemas.__file__)


@dataclass(frozen=True)
class Benchmark:
    """A run's folder and what became of its cells. The tables are read when asked for."""

    out: Path
    tally: Tally

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per metric in a cell; a null seed is the mean over corruption seeds."""
        return frame_of(Store(self.out).read_table("curves", CURVES))

    @cached_property
    def nauc(self) -> pd.DataFrame:
        """One row per metric over a grid."""
        return frame_of(Store(self.out).read_table("nauc", NAUC))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell: input digest, realised rates."""
        return frame_of(Store(self.out).read_table("cells", CELLS))


def benchmark(
    model: Names = (),
    stress: Names = (),
    grid: str | None = None,
    *,
    protocol: str | None = None,
    modalities: str | None = None,
    checkpoint: str | Path | Sequence[str | Path] = (),
    recipe: str = "clean",
    train_seed: int | str = FIRST_SEED,
    dataset: str | Dataset = "synth",
    data: str | Path | None = None,
    text: str | None = None,
    split: str = "test",
    seeds: int = 3,
    device: str = "auto",
    batch_size: int | str = "auto",
    numerics: str = NUMERICS,
    out: str | Path | None = None,
    references: bool = True,
    name: str | None = None,
    trust_checkpoint: bool = False,
    preflight: bool = True,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    shard: str | None = None,
    command: str = "robustbench_msa.benchmark(...)",
    checked: Callable[[str, int], None] | None = None,
    started: Callable[[int, int], None] | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Run models over severity grids and keep everything in one folder. The same call continues where it stopped.

    Args:
        model: names of registered models; each means the checkpoint of this dataset, recipe and train_seed. Or programs
            that build one, ``file.py:function`` and ``module:function`` (docs/your-own-model.md).
        stress: stresses, with parameters after a colon; grid: for exactly one stress (default: its paper's grid).
        protocol: a named protocol, or a path ending in .toml, instead of stress and grid.
        modalities: restrict every stress to these (text, audio, vision or their letters).
        checkpoint: folders with config.json and model.safetensors; for a program, files of weights or hub://owner/name.
        recipe, train_seed: which checkpoint of a model ("all": every training seed there is).
        dataset, data: a registered name with its file, or a Dataset. text: what its text is read as, features or tokens
            (default: features where the file has them); with tokens, ``qa_moe`` means ``qa_moe-tokens``.
        split: train, valid or test.
        seeds: N corruption seeds, 1111 to 1110 + N.
        device: auto, cpu or cuda. batch_size: samples per forward pass; auto: 256 on a CPU, what fits on a GPU.
        numerics: how models are computed, float32, bf16, compile or bf16+compile (``numerics.POLICIES``).
        out: the run's folder (default: reports/<dataset>-<stress or protocol>).
        references: also run chance, and the oracle where there is one.
        name: what tables call a model from outside. trust_checkpoint: run checkpoints that are programs (pickles).
        preflight: stop where a model fails a check (docs/preflight.md); False: go on, and flag it in every table.
        engine, workers, address: where cells are computed. "local": in this process, or in workers (default: one for
            each GPU where there are several); "ray": as tasks of the cluster at this address, or of one begun here.
        shard: "I/N", the I-th of N shares of the cells, for runs that are started apart (docs/clusters.md). The tally
            is of the share; the tables are of all cells that are there.
        command: what was typed, for the manifest.
        checked: called after each model's checks with its name and the number of models.
        started: called once with the numbers of cells to compute and of samples in each, before the first; progress:
            after each cell.

    Raises:
        InputError: anything that cannot be used. Nothing is written then.
    """
    requests, protocols = parse_requests(names_of(stress), grid, protocol, seeds, modalities)
    where, share = Engine(engine, workers, address), None if shard is None else Shard.parse(shard)
    asked: dict[str, Any] = {
        "model": model,
        "checkpoint": checkpoint,
        "recipe": recipe,
        "train_seed": train_seed,
        "dataset": dataset,
        "data": data,
        "text": text,
        "split": split,
        "device": device,
        "references": references,
        "name": name,
        "trust_checkpoint": trust_checkpoint,
    }
    candidates, inputs = resolve(**asked)
    check_numerics(numerics, inputs.device)
    at_once = batch_size_of(batch_size, inputs.sample_bytes, inputs.device)
    loaded = inputs.dataset
    folder = Path(out) if out is not None else default_out(loaded.name, split, requests, protocol)
    check_out(folder)
    store = Store(folder)
    cells = [
        cell
        for c in candidates
        for cell in plan([c.subject], inputs.setting, [r for r in requests if c.covers(r.stress)], numerics)
    ]
    for request in requests:  # parameters that do not fit the data show here, before anything is written
        try_out(request, inputs)
    known = (manifest_for(store, inputs.setting) or {}).get("checkpoints")
    told = None if checked is None else (lambda name: checked(name, len(candidates)))
    checks = preflight_all(candidates, inputs, known, stop=preflight, checked=told)
    flags = {identity: flags_of(found) for identity, found in checks.items()}
    about = _about(loaded, candidates, protocols, command)
    for identity, found in checks.items():
        about["checkpoints"][identity] |= {"preflight": found, "preflight_by": stamp(inputs)}
        if numerics != NUMERICS:  # so that every table says it
            about["checkpoints"][identity]["numerics"] = numerics
    ours = store, cells, requests, inputs.setting, about
    remember(*ours)
    mine = cells if share is None else share.of(cells)
    if started is not None:
        started(len(mine) - len(store.done(cell.key for cell in mine)), len(inputs.batch))
    models = {c.subject.checkpoint: c.load for c in candidates}
    rebuild = Rebuild.of(resolve, **asked)

    def computed() -> Tally:
        given: dict[str, Any] = {"rebuild": rebuild, "batch_size": at_once, "progress": progress, "flags": flags}
        return compute(where, mine, store, models, inputs, **given)

    tally = computed()
    if derive_tables(*ours):  # a file that was damaged since: its cell is computed again
        again = computed()
        tally = Tally(again.planned, again.reused - tally.computed, tally.computed + again.computed, again.failed)
        derive_tables(*ours)
    return Benchmark(folder, tally)


def derive_tables(
    store: Store, cells: Iterable[Cell], requests: Iterable[Request], setting: Setting, about: dict[str, Any]
) -> int:
    """Make a folder's tables from the plan and the cells of all runs into it that there are by now.

    The arguments are those that the run was remembered with. Returns the number of files that turned out to be damaged.
    """
    with deriving(store):
        planned = remembered(store, cells, requests, setting, about)
        return derive_if_needed(store, planned, derive, _CODE_OF_TABLES)


class Resolved(NamedTuple):
    """What is to be run, and on what."""

    candidates: list[subjects.Candidate]
    inputs: Inputs


def resolve(
    model: Names = (),
    checkpoint: str | Path | Sequence[str | Path] = (),
    *,
    recipe: str = "clean",
    train_seed: int | str = FIRST_SEED,
    dataset: str | Dataset = "synth",
    data: str | Path | None = None,
    text: str | None = None,
    split: str = "test",
    device: str = "auto",
    references: bool = True,
    name: str | None = None,
    trust_checkpoint: bool = False,
) -> Resolved:
    """The models that are meant, not loaded yet, and the data. Arguments and errors as of ``benchmark``."""
    where = resolve_device(device)
    loaded = open_dataset(dataset, data, text, split)
    models, paths = names_of(model), _paths(checkpoint)
    if not models and not paths:
        raise InputError("no model: give --model NAME (msabench list models) or --checkpoint FOLDER")
    labels: dict[str, Any] = {"recipe": recipe, "train_seed": train_seed, "name": name, "trust": trust_checkpoint}
    outside, models, paths = subjects.from_outside(models, paths, loaded, str(where), **labels)
    candidates = [*outside, *_candidates(models, paths, recipe, train_seed, loaded, str(where), references)]
    return Resolved(candidates, Inputs(loaded, split, where))


def open_run(folder: str | Path) -> Benchmark:
    """A run that is already there, as far as it has come."""
    store = Store(Path(folder))
    planned = recall(store)
    done, failed = store.done(c.key for c in planned.cells), store.failures()
    return Benchmark(store.root, Tally(len(planned.cells), len(done), 0, len(failed)))


def resolve_device(name: str) -> torch.device:
    """auto, cpu or cuda. TF32 is switched off: the numerics policy is exact float32."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device: expected auto, cpu or cuda; got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but this torch sees no CUDA device (use --device cpu or auto)")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def default_out(dataset: str, split: str, requests: Iterable[Request], protocol: str | None) -> Path:
    """``reports/<dataset>-<stress or protocol>``, with the split when it is not the test split; no time in it."""
    what = Path(protocol).stem if protocol else "+".join(request.stress.label for request in requests)
    name = "-".join([dataset, what, *([] if split == "test" else [split])])
    return Path("reports") / re.sub(r"[^\w.+-]+", "-", name)


def open_dataset(dataset: str | Dataset, data: str | Path | None, text: str | None, split: str) -> Dataset:
    """The dataset as it stands, or read by its name; split is one of its splits."""
    loaded = dataset
    if not isinstance(loaded, Dataset):
        loaded = load_dataset(loaded, None if data is None else Path(data), text)
    if split not in SPLITS:
        raise InputError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}")
    return loaded


def check_out(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"--out {folder}: a file is in the way ({there}); expected a folder")


def try_out(request: Request, inputs: Inputs) -> None:
    """The last point of a request on a few samples. Raises InputError when its parameters do not fit the data."""
    probe, draws, adversary = inputs.probe, inputs.probe_draws(FIRST_SEED), _Harmless()
    reference, point = inputs.reference.to("cpu"), request.grid.points[-1]
    _ = request.stress.apply(probe, point, draws, reference, probe, adversary).batch


class _Harmless:
    """An adversary that no input moves, for trying out a stress that asks for one."""

    def losses(self, batch: Batch) -> torch.Tensor:
        return torch.zeros(len(batch), device=batch.device)

    def gradients(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {m: torch.zeros_like(x) for m in MODALITIES if (x := batch.features(m)).is_floating_point()}


def parse_requests(
    stresses: list[str], grid: str | None, protocol: str | None, seeds: int, modalities: str | None = None
) -> tuple[list[Request], dict[str, str]]:
    if seeds < 1:
        raise InputError(f"seeds: expected 1 or more, got {seeds}")
    drawn = tuple(range(FIRST_SEED, FIRST_SEED + seeds))
    if protocol is not None:
        if stresses or grid:
            raise InputError("a protocol brings its own stresses and grids: give --protocol, or --stress with --grid")
        if modalities:
            raise InputError(
                "a protocol says itself what it touches: leave out --modalities, or write a TOML of your own"
            )
        named = Protocol.load(protocol)
        return [Request(s, g, drawn) for s, g in named.stresses], {named.name: named.text}
    if not stresses:
        raise InputError(
            "nothing to run: give --stress (msabench list stresses) or --protocol (msabench list protocols)"
        )
    if grid is not None and len(stresses) != 1:
        raise InputError(
            f"--grid needs exactly one --stress, got {len(stresses)}; leave it out to use each paper's grid"
        )
    only = {} if modalities is None else {"modalities": modalities}
    parsed = [Stress.parse(text, **only) for text in stresses]
    return [Request(stress, stress.grid(grid), drawn) for stress in parsed], {}


def _candidates(
    models: list[str],
    paths: list[Path],
    recipe: str,
    train_seed: int | str,
    dataset: Dataset,
    device: str,
    references: bool,
) -> list[subjects.Candidate]:
    if not dataset.dims[0]:  # text is token ids
        models = [name if name in REFERENCES else name.removesuffix(TOKENS) + TOKENS for name in models]
    given = [read_checkpoint(path) for path in paths]
    for checkpoint in given:
        if models and checkpoint.model not in models:
            raise InputError(f"{checkpoint.path} holds a {checkpoint.model}, but --model says {', '.join(models)}")
    for name in models:
        if name not in REFERENCES:
            model_class(name)  # an unknown name is said before a missing checkpoint
    found = list(given)
    for name in models:
        if name not in REFERENCES and name not in {checkpoint.model for checkpoint in given}:
            found += find_checkpoints(name, dataset.name, recipe, train_seed)
    for checkpoint in found:
        check_fits(checkpoint, dataset)
    candidates = [subjects.from_checkpoint(checkpoint, device) for checkpoint in found]
    if references or "chance" in models:
        candidates.append(subjects.chance(dataset))
    if "oracle" in models or (references and subjects.has_oracle(dataset)):
        candidates.append(subjects.oracle(dataset))
    return candidates


def _about(
    dataset: Dataset, candidates: list[subjects.Candidate], protocols: dict[str, str], command: str
) -> dict[str, Any]:
    return {
        "command": command,
        "checkpoints": {c.subject.checkpoint: dict(c.about) for c in candidates},
        "dataset": {"notes": list(dataset.notes), "parameters": dict(dataset.parameters), "text_at": dataset.text_at},
        "profile": dataset.profile,
        "protocols": protocols,
        "commit": commit(),
        "versions": versions(),
    }


def names_of(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def _paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


__all__ = ["Benchmark", "Resolved", "benchmark", "default_out", "open_run", "resolve", "resolve_device"]
