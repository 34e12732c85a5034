"""The installed package MMSA: imported without a trace, and told from other states of the same version."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corruptions import InputError
from robustbench_msa.adapters.programs import shown

RELEASE = "2.2.1"
RELEASE_SHA256 = "1fe3429430ce4c9518b521a8b9e0e797b8b0831ea8bbb344124785490b693cd9"
"""Of the files that make a model in MMSA 2.2.1 as PyPI has it. The repository went on under this same number."""

ENVIRONMENT = ("CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG")
"""What importing MMSA writes into the environment of the process."""


@dataclass(frozen=True)
class Package:
    """MMSA as it is installed. digest: sha256 over the files that make a model. file: its ``__init__``."""

    version: str
    digest: str
    file: str

    @property
    def is_release(self) -> bool:
        return (self.version, self.digest) == (RELEASE, RELEASE_SHA256)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(name for name, value in self._common().items() if isinstance(value, dict))

    def dataset_of(self, dims: tuple[int, int, int]) -> str:
        """The dataset whose audio and vision have these dimensions in MMSA's settings; empty where none has."""
        for name in self.datasets:
            for layout in self._common()[name].values():
                if tuple(layout["feature_dims"][1:]) == dims[1:]:
                    return name
        return ""

    def settings(self, model: str, dataset: str) -> Any:
        """MMSA's own settings of a model for a dataset, to be changed at will."""
        if dataset not in self.datasets:
            raise InputError(f"MMSA has no dataset {dataset[:80]!r}; expected one of {', '.join(self.datasets)}")
        try:
            return importlib.import_module("MMSA.config").get_config_regression(model, dataset)
        except KeyError:
            raise InputError(f"MMSA has no settings of {model} for {dataset}") from None

    def build(self, settings: Any) -> Any:
        """MMSA's module for these settings, with initial weights from torch's global random state."""
        with warnings.catch_warnings(), _no_progress_bars():
            # misa's fusion transformer has the batch second; torch says that it then cannot use nested tensors
            warnings.filterwarnings("ignore", "enable_nested_tensor is True", UserWarning)
            return importlib.import_module("MMSA.models.AMIO").AMIO(settings)

    def _common(self) -> dict[str, Any]:
        path = Path(self.file).parent / "config" / "config_regression.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))["datasetCommonParams"]
        return found


def package(text: str) -> Package:
    """MMSA, imported. text: the model that was asked for, for messages.

    Raises:
        InputError: it is not installed, or cannot be imported; with the class and the message of the error.
    """
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        for module in ("MMSA", "MMSA.config", "MMSA.models.AMIO"):
            importlib.import_module(module)
        version = importlib.metadata.version("MMSA")
    except Exception as error:  # whatever it and its dependencies raise
        raise InputError(
            f'--model {text}: MMSA cannot be imported ({shown(error)}); pip install "robustbench-msa[mmsa]"'
        ) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    file = importlib.import_module("MMSA").__file__ or ""
    return Package(version, digest_of(Path(file).parent), file)


def digest_of(folder: Path) -> str:
    """sha256 (hex) over the names and contents of the files that make a model: classes and settings."""
    files = [*(folder / "models").rglob("*.py"), folder / "config.py", folder / "config" / "config_regression.json"]
    sha256 = hashlib.sha256()
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sha256.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return sha256.hexdigest()


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Within, transformers draws none for an encoder of which the weights are about to be replaced."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown_before, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown_before:
            logging.enable_progress_bar()
