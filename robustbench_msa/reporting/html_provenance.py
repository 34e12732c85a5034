"""Where the numbers of the HTML report come from, and how to cite them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from corruptions import STRESSORS
from robustbench_msa.evaluation.cells import Request
from robustbench_msa.evaluation.preflight_check import WORDS
from robustbench_msa.evaluation.records import numerics_of
from robustbench_msa.reporting import names
from robustbench_msa.reporting.html_cite import Text, cite, one_of, protocols_of, sha256, span_of
from robustbench_msa.reporting.html_data import Run

Facts = tuple[tuple[str, str], ...]
RATES = {
    "steps": "steps lost or masked",
    "lost": "modality lost",
    "swapped": "swapped",
    "absent": "absent in the data",
    "noise_db": "noise to signal, dB",
}


class Checkpoint(NamedTuple):
    """identity: sha256 over weights, model version and arguments."""

    model: str
    recipe: str
    train_seed: str
    identity: str
    weights: str
    parameters: str
    selection: str
    path: str


class Inputs(NamedTuple):
    """What the models were given. unequal: inputs that differ between models though they should not."""

    n: int
    digest: str
    unequal: tuple[str, ...]
    apart: int


class Provenance(NamedTuple):
    facts: Facts
    commands: tuple[str, ...]
    versions: Facts
    requests: Facts
    protocols: tuple[Text, ...]
    checkpoints: tuple[Checkpoint, ...]
    inputs: Inputs
    rate_names: tuple[str, ...]
    rates: tuple[tuple[str, tuple[str, ...]], ...]
    flags: Facts
    dirty: bool
    citation: str
    bibtex: str


def provenance(runs: Sequence[Run]) -> Provenance:
    manifests = [run.planned.manifest for run in runs]
    dataset, versions = manifests[0]["dataset"], manifests[0].get("versions") or {}
    requests = tuple(dict.fromkeys(request for run in runs for request in run.planned.requests))
    protocols = protocols_of(manifests, requests)
    cells = pd.concat([run.cells for run in runs], ignore_index=True).drop_duplicates("key")
    runtime = pd.concat([run.runtime for run in runs], ignore_index=True)
    rate_names, rates = _rates(cells)
    citation, bibtex = cite(protocols, manifests, requests, runtime)
    return Provenance(
        facts=_facts(runs, dataset, runtime),
        commands=tuple(dict.fromkeys(str(c) for m in manifests for c in m["commands"])),
        versions=tuple((str(name), one_of(m.get("versions", {}).get(name) for m in manifests)) for name in versions),
        requests=tuple((_what(request), f"{request.grid}; {_seeds(request)}") for request in requests),
        protocols=protocols,
        checkpoints=tuple(_checkpoints(manifests)),
        inputs=_inputs(cells),
        rate_names=rate_names,
        rates=rates,
        flags=_flags(cells, manifests),
        dirty=any(str(m.get("commit")).endswith("-dirty") for m in manifests),
        citation=citation,
        bibtex=bibtex,
    )


def _facts(runs: Sequence[Run], dataset: dict[str, Any], runtime: pd.DataFrame) -> Facts:
    parameters = dataset.get("parameters") or {}
    facts = {
        "Folders": ", ".join(str(run.folder) for run in runs),
        "Dataset": f"{dataset['name']}, {dataset['split']} split",
        "Dataset fingerprint": str(dataset["data"]),
        "Text was corrupted as": str(dataset.get("text_at") or "unknown"),
        "Dataset parameters": json.dumps(parameters) if parameters else "",
        "Notes on the dataset": "; ".join(map(str, dataset.get("notes") or [])),
        "Metric profile": runs[0].planned.profile,
        "Numerics": one_of(numerics_of(run.planned.manifest) for run in runs),
        "Commit of msabench": one_of(run.planned.manifest.get("commit") for run in runs),
        "Cells": f"{sum(r.state.done.total() for r in runs)} of {sum(r.state.planned.total() for r in runs)} done",
        "Devices": ", ".join(sorted(set(runtime["device"].dropna()))),
        "Computed": span_of(runtime["finished"]),
        "Computing time": f"{runtime['seconds'].sum():.0f} s" if len(runtime) else "",
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _what(request: Request) -> str:
    return names.stress_title(request.stress.name, request.stress.params)


def _seeds(request: Request) -> str:
    drawn = [str(seed) for seed in request.drawn if seed is not None]
    return f"corruption seeds {', '.join(drawn)}" if drawn else "nothing is drawn"


def _checkpoints(manifests: Sequence[dict[str, Any]]) -> list[Checkpoint]:
    found = {identity: about for manifest in manifests for identity, about in manifest["checkpoints"].items()}
    made = [_checkpoint(str(identity), about if isinstance(about, dict) else {}) for identity, about in found.items()]
    return sorted(made, key=lambda c: (c.model in names.REFERENCES, c.model, c.recipe, c.train_seed, c.identity))


def _selected(chosen: dict[str, Any]) -> str:
    """By what, on which split, and the value, as far as these are known.

    >>> _selected({"by": "mae", "split": "valid", "value": 0.75}), _selected({"split": "test"})
    ('mae of valid: 0.7500', 'on test')
    """
    by, split, value = (chosen.get(name) for name in ("by", "split", "value"))
    text = f"{by} of {split}" if by and split else f"on {split}" if split else str(by or "")
    shown = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if value is None else f"{text}: {shown}"


def _checkpoint(identity: str, about: dict[str, Any]) -> Checkpoint:
    known = {name: "" if about.get(name) is None else str(about[name]) for name in ("model", "recipe", "train_seed")}
    chosen = about.get("selection")
    selection = _selected(chosen) if isinstance(chosen, dict) else str(chosen or "")
    parameters = about.get("parameters")
    return Checkpoint(
        **known,
        identity=identity,
        weights=str(about.get("weights_sha256") or ""),
        parameters=f"{parameters:,}" if isinstance(parameters, int) else "",
        selection=selection,
        path=str(about.get("path") or ""),
    )


def _inputs(cells: pd.DataFrame) -> Inputs:
    """Digests by input. Inputs that depend on the model (worst-case) are shared by nobody and counted apart."""
    digests: dict[str, set[str]] = defaultdict(set)
    apart = 0
    columns = ("stress", "params", "severity", "severity_2", "condition", "seed", "input_digest")
    for *where, digest in zip(*(cells[c] for c in columns), strict=True):
        parts = str(where[0]).split("+")
        if any(part in STRESSORS and STRESSORS[part].needs_adversary for part in parts):
            apart += 1
        else:
            digests[" ".join("-" if pd.isna(part) or part == "" else str(part) for part in where)].add(str(digest))
    lines = "".join(f"{where} {','.join(sorted(found))}\n" for where, found in sorted(digests.items()))
    unequal = tuple(where for where, found in sorted(digests.items()) if len(found) > 1)
    return Inputs(len(digests), sha256(lines), unequal, apart)


def _rates(cells: pd.DataFrame) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """What was really done: mean realised rates of every stress at its last point, T / A / V."""
    rows = []
    for (stress, params), here in cells[cells["stress"] != "clean"].groupby(["stress", "params"], sort=False):
        numeric = here[here["severity"].notna()]
        if not numeric.empty:
            keys = [(float(a), float(b) if isinstance(b, str) else 0.0) for a, b in zip(*_axes(numeric), strict=True)]
            last = [key == max(keys) for key in keys]
            at = " × ".join(f"{v:g}" for v in max(keys)[: 2 if numeric["severity_2"].notna().any() else 1])
            rates = pd.DataFrame([dict(entries) for entries in numeric[last]["realised"]]).mean()
            title = f"{names.stress_title(str(stress), str(params))} at {at}"
            rows.append((title, tuple(_rate(rates, name) for name in RATES)))
    shown = [i for i, _ in enumerate(RATES) if any(row[i] for _, row in rows)]
    heads = [label for i, label in enumerate(RATES.values()) if i in shown]
    return tuple(heads), tuple((title, tuple(row[i] for i in shown)) for title, row in rows)


def _axes(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return frame["severity"], frame["severity_2"]


def _rate(rates: pd.Series, name: str) -> str:
    """Empty where it is zero or unknown for all three."""
    values = [rates.get(f"{name}_{letter}") for letter in "tav"]
    known = [None if value is None or pd.isna(value) else float(value) for value in values]
    if not any(known):
        return ""
    return " / ".join(names.NULL if value is None else f"{value:.2f}".replace("-", "−") for value in known)


def _flags(cells: pd.DataFrame, manifests: Sequence[dict[str, Any]]) -> Facts:
    """What preflight found, flags of cells, and predictions that are not finite, by model."""
    checked = tuple(dict.fromkeys(flag for manifest in manifests for flag in _preflight(manifest["checkpoints"])))
    found: dict[tuple[str, str], int] = defaultdict(int)
    for model, flags, nonfinite in zip(cells["model"], cells["flags"], cells["nonfinite"], strict=True):
        infinite = ["predictions that are not finite"] if nonfinite else []
        for flag in [*(flags if flags is not None else []), *infinite]:
            found[(names.MODELS.get(str(model), str(model)), str(flag))] += 1
    cellwise = ((model, f"{flag} ({n} cell{'s' if n > 1 else ''})") for (model, flag), n in sorted(found.items()))
    return (*checked, *cellwise)


def _preflight(checkpoints: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for identity, about in checkpoints.items():
        known = about if isinstance(about, dict) else {}
        for check in known.get("preflight") or []:
            if isinstance(check, dict) and check.get("status") in ("flag", "fail"):
                model = str(known.get("model") or identity[:8])
                words = WORDS.get(str(check.get("check")), str(check.get("check")))
                yield names.MODELS.get(model, model), f"{words} ({check['note']})" if check.get("note") else words
