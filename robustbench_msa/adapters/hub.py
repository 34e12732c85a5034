"""Checkpoints on the Hugging Face Hub: ``hub://owner/name``, ``hub://owner/name@revision``.

Two files are asked for, ``config.json`` and ``model.safetensors``: nothing that could be run. A folder of the same
layout is the same without a network.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from corruptions import InputError
from robustbench_msa.models.checkpoint import CONFIG, WEIGHTS
from robustbench_msa.models.checkpoint_config import one_line

_NAME = re.compile(r"hub:/{1,2}([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,95}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Place(NamedTuple):
    """A folder with weights, and the hub's name and commit of it ("" for a folder of one's own)."""

    path: Path
    name: str = ""
    commit: str = ""


def is_hub(path: str | Path) -> bool:
    """Does this name something on the hub? One slash is enough, which is what a Path makes of two."""
    return str(path).startswith("hub:/")


def fetch(text: str | Path) -> Place:
    """The folder of what is named on the hub: from its cache, else downloaded.

    Raises:
        InputError: no name of the hub; huggingface_hub is not installed; nothing there under this name.
    """
    named = _NAME.fullmatch(str(text))
    if named is None:
        raise InputError(f"{str(text)[:200]}: expected hub://OWNER/NAME or hub://OWNER/NAME@REVISION")
    name, revision = named[1], named[2]
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError:
        raise InputError(
            f'hub://{name} needs the library huggingface_hub: pip install "robustbench-msa[hub]"'
        ) from None
    wanted = {"repo_id": name, "revision": revision, "allow_patterns": [CONFIG, WEIGHTS]}
    reason = f"it has no {WEIGHTS}"
    for cached in (True, False):
        try:
            folder = Path(hub.snapshot_download(**wanted, local_files_only=cached))
        except Exception as error:  # not cached, no network, no such name, no permission: types of its own
            reason = f"{type(error).__name__}: {one_line(error)}"
            continue
        if (folder / WEIGHTS).is_file():
            return Place(folder, name, folder.name if _COMMIT.fullmatch(folder.name) else revision or "")
        reason = f"it has no {WEIGHTS}; pickles are not downloaded"
    raise InputError(f"hub://{name}{f'@{revision}' if revision else ''}: the hub gives no checkpoint ({reason})")
