"""What a folder of exported inputs says of itself: manifest.json.

It is all that scoring needs (ids, labels, who is told what, digests), so the inputs themselves may be gone by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustbench_msa.atomic import write_json
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.layouts import LAYOUTS

FILE = "manifest.json"
KIND, FORMAT = "msabench export", 1
MADE = ("sha256", "content", "input_digest", "present", "realised")
"""What is known of a cell once its file is there; null before."""


@dataclass(frozen=True, eq=False)
class Export:
    """An export: its folder, its manifest, and the cells that follow from it, in the order of ``plan``."""

    folder: Path
    manifest: dict[str, Any]

    @cached_property
    def setting(self) -> Setting:
        known, data = self.manifest, self.manifest["dataset"]
        return Setting(data["name"], data["data"], data["split"], known["pool"], known["reference"])

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        return tuple(Request.from_json(entry) for entry in self.manifest["requests"])

    def plan(self, subject: Subject) -> list[Cell]:
        """The cells of a model, one for each of the export's."""
        return plan([subject], self.setting, self.requests)

    @property
    def cells(self) -> list[dict[str, Any]]:
        """What the manifest holds of each cell."""
        cells: list[dict[str, Any]] = self.manifest["cells"]
        return cells

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.manifest["samples"]["ids"])

    @cached_property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.manifest["samples"]["groups"])

    @cached_property
    def labels(self) -> NDArray[np.float32]:
        return np.array(self.manifest["samples"]["labels"], dtype=np.float32)

    @property
    def num_classes(self) -> int:
        """How many classes the labels are of; 0 for scores."""
        return int(self.manifest.get("num_classes", 0))

    @property
    def unfinished(self) -> list[str]:
        return [entry["name"] for entry in self.cells if entry["sha256"] is None]

    def write(self) -> None:
        write_json(self.folder / FILE, self.manifest)


def describe_cells(cells: Sequence[Cell], layout: str) -> list[dict[str, Any]]:
    """The manifest's entries of cells whose files are not there yet."""
    named = zip(cells, cell_names(cells), strict=True)
    return [
        {
            "name": name,
            "file": name + LAYOUTS[layout][0],
            "stress": cell.stress,
            "stress_version": cell.stress_version,
            "params": cell.params,
            "severity": "0" if cell.is_clean else cell.severity,
            "severity_2": cell.severity_2,
            "condition": cell.condition,
            "seed": cell.seed,
            **dict.fromkeys(MADE),
        }
        for cell, name in named
    ]


def described(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without what is known of its file."""
    return {name: value for name, value in entry.items() if name not in MADE}


def cell_names(cells: Iterable[Cell]) -> list[str]:
    """Names people can read, all different, also where upper and lower case are one: ``noise-0.2-1111``, ``clean``.

    >>> cell_names([Cell(), Cell(stress="spectrum", params="told=true", severity="0.1", severity_2="0.3", seed=1111)])
    ['clean', 'spectrum-told-true-0.1x0.3-1111']
    """
    names: list[str] = []
    seen: set[str] = set()
    for cell in cells:
        at = cell.condition or "x".join(s for s in (cell.severity, cell.severity_2) if s is not None)
        parts = (cell.stress, cell.params, at, "" if cell.seed is None else str(cell.seed))
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", "-".join(filter(None, parts)))
        if len(name) > 120 or name.lower() in seen:
            name = f"{name[:100]}-{cell.key[:12]}"
        seen.add(name.lower())
        names.append(name)
    return names


def encode_present(present: NDArray[np.bool_]) -> str:
    """Who is told what, ``(N, 3)``, as one digit a sample: 4 text + 2 audio + 1 vision.

    >>> encode_present(np.array([[True, True, True], [False, True, False]]))
    '72'
    """
    return "".join(map(str, (present @ np.array([4, 2, 1])).tolist()))


def decode_present(digits: str) -> NDArray[np.bool_]:
    """
    >>> decode_present("72").tolist()
    [[True, True, True], [False, True, False]]
    """
    values = np.frombuffer(digits.encode(), np.uint8) - ord("0")
    return (values[:, None] & np.array([4, 2, 1], np.uint8)) > 0


def difference(known: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """What makes another export of a manifest, in words; None where it is the same."""
    for tell in (_layout_of, _data_of, _requests_of):
        if tell(known) != tell(ours):
            return f"{tell(known)}, this is {tell(ours)}"
    same = [described(entry) for entry in known["cells"]] == [described(entry) for entry in ours["cells"]]
    same = same and all(known[name] == ours[name] for name in ("pool", "reference", "samples"))
    return None if same else "one made by another version of msabench"


def _layout_of(manifest: dict[str, Any]) -> str:
    return f"one of format {manifest['layout']}"


def _data_of(manifest: dict[str, Any]) -> str:
    data = manifest["dataset"]
    return f"one of {data['name']}, {data['split']} split (data {data['data'][:12]})"


def _requests_of(manifest: dict[str, Any]) -> str:
    """``one of missing over 0:0.8:0.2 with seeds 1111-1113``."""
    asked = [f"{r['stress']} over {r['grid']} with seeds {_seeds(r['seeds'])}" for r in manifest["requests"]]
    return f"one of {', '.join(asked)}"


def _seeds(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]} ({len(seeds)})"
