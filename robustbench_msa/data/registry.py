"""Datasets by name, as people type them: ``synth``, ``synth:seed=2,test=20000``, ``mosi`` with a path."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.data.dataset import SPLITS, Dataset

DATASETS: dict[str, str] = {
    "synth": "synthetic, shaped like CMU-MOSI, made in memory; the best possible prediction is known",
    "synth-explained": "synth with explanations of audio and vision and a comment, as derived inputs; no oracle",
    "mosi": "CMU-MOSI, an MMSA pickle of your own (--data PATH); labels in [-3, 3]",
    "mosei": "CMU-MOSEI, an MMSA pickle of your own (--data PATH); labels in [-3, 3]",
    "sims": "CH-SIMS, an MMSA pickle of your own (--data PATH); labels in [-1, 1]",
    "simsv2": "CH-SIMS v2, an MMSA pickle of your own (--data PATH); labels in [-1, 1]",
}
"""Name to one line for listings. Any other name is welcome with a path."""

GENERATED = ("synth", "synth-explained")
"""Made in memory: they take parameters and read no file."""

MAX_SAMPLES = 1_000_000
"""The most samples of a synthetic split, about ten gigabytes; more is a slip of the finger."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def load_dataset(name: str, data: Path | None = None, text: str | None = None) -> Dataset:
    """The dataset of this name.

    Args:
        name: "synth" or "synth-explained", with parameters after a colon (seed, and samples in train, valid and test,
            as in ``synth:seed=2,test=20000``); a name in DATASETS; or any name of letters, digits, - and _ for an MMSA
            file of your own. A name that starts with "sims" is scored as CH-SIMS.
        data: the MMSA pickle; every dataset but these two needs it.
        text: what the text is read as, "features" or "tokens" (ids, for models with a text backbone); None: features
            where the file has them.

    Raises:
        InputError: an unknown name without a path, a missing path, parameters that do not fit, an unreadable file.

    >>> load_dataset("synth:seed=2,train=8,valid=4,test=6").parameters["sizes"]
    [8, 4, 6]
    """
    base, _, parameters = name.partition(":")
    if base in GENERATED:
        if text not in (None, "features"):
            raise InputError(f"{base}: its text is features, got text {text[:80]!r}; ids come from a file's text_bert")
        return _synth(base, parameters, data)
    if not _NAME.fullmatch(base) or parameters:
        only = f"only {' and '.join(GENERATED)} have parameters"
        raise InputError(f"dataset {name[:80]!r}: expected a name of letters, digits, - and _ ({only})")
    if data is None and base not in DATASETS:
        hint = did_you_mean(base, DATASETS)
        raise InputError(
            f"unknown dataset {base!r}{hint}; known: {', '.join(DATASETS)}; for a file of your own add --data PATH"
        )
    if data is None:
        raise InputError(
            f"{base}: expected the path of an MMSA pickle, got none; type --dataset {base} --data PATH/TO/FILE.pkl"
        )
    loaded: Dataset = import_module("robustbench_msa.data.mmsa").read_mmsa(Path(data), base, text)
    return loaded


def _synth(name: str, parameters: str, data: Path | None) -> Dataset:
    if data is not None:
        raise InputError(f"{name} is made in memory and reads no file; leave out --data {data}, or name the dataset")
    synth = import_module("robustbench_msa.data.synth")  # only when asked for
    given = _whole_numbers(name, parameters)
    sizes = [given.get(split, size) for split, size in zip(SPLITS, synth.SIZES, strict=True)]
    made: Dataset = synth.make_synth(given.get("seed", 1111), sizes, explanations=name == "synth-explained")
    return made


def _whole_numbers(name: str, parameters: str) -> dict[str, int]:
    """``seed=2,test=20000`` as a dict."""
    known, values = ("seed", *SPLITS), dict[str, int]()
    for item in filter(None, (part.strip() for part in parameters.split(","))):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in known:
            hint = did_you_mean(key, known)
            raise InputError(f"{name}: unknown parameter {key[:80]!r}{hint}; it has {', '.join(known)}")
        if key in values:
            raise InputError(f"{name}: parameter {key} is given twice")
        if not re.fullmatch(r"[0-9]{1,9}", text) or (key in SPLITS and not 1 <= int(text) <= MAX_SAMPLES):
            expected = f"1 to {MAX_SAMPLES}" if key in SPLITS else "at most nine digits"
            raise InputError(f"{name}: {key} must be a whole number ({expected}), as in {key}=2000; got {text[:80]!r}")
        values[key] = int(text)
    return values
