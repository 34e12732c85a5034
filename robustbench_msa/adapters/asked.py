"""Which of the models and checkpoints asked for come from outside, and which program goes with which weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from corruptions import InputError
from robustbench_msa.adapters.hub import Place, fetch, is_hub
from robustbench_msa.adapters.programs import is_program
from robustbench_msa.models.checkpoint import CONFIG
from robustbench_msa.models.checkpoint_config import MAX_BYTES


class Pair(NamedTuple):
    """A program, weights, or a program with weights. Without a program the weights are one themselves."""

    program: str | None
    weights: Place | None


def split_asked(models: Sequence[str], paths: Sequence[Path]) -> tuple[list[Pair], list[str], list[Path]]:
    """What comes from outside, and the models and folders of msabench that are left.

    Every file goes with the one program there is. What is named on the hub is fetched here.

    Raises:
        InputError: files with several programs, of which nobody could say what belongs to what.
    """
    programs = [name for name in models if is_program(name)]
    places = [fetch(path) if is_hub(path) else Place(path) for path in paths]
    foreign = [place for place in places if _is_foreign(place.path, bool(programs))]
    if len(programs) > 1 and foreign:
        raise InputError(
            f"{foreign[0].path} goes with which of {', '.join(programs)}? Run them one after the other, each with its "
            "own --checkpoint, into the same --out"
        )
    if programs:
        weights: list[Place | None] = [*foreign] or [None]
        pairs = [Pair(program, place) for program in programs for place in weights]
    else:
        pairs = [Pair(None, place) for place in foreign]
    return pairs, [m for m in models if m not in programs], [p.path for p in places if p not in foreign]


def _is_foreign(path: Path, with_program: bool) -> bool:
    """Is this no checkpoint of msabench? A folder that is none of ours goes with a program, where there is one."""
    if path.is_dir():
        return with_program and not _is_ours(path)
    return with_program or path.is_file()


def _is_ours(folder: Path) -> bool:
    try:
        with (folder / CONFIG).open("rb") as file:
            config = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"format", "arguments", "model"} <= set(config)
