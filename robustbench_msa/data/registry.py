"""Datasets by name, as people type them: ``synth``, ``synth:seed=2,test=20000``, ``mosi`` with a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from corruptions import InputError
from corruptions.registry import did_you_mean
from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.kinds import KINDS, kind_of

DATASETS: dict[str, str] = {
    "synth": "synthetic, shaped like CMU-MOSI, made in memory; the best possible prediction is known",
    "synth-explained": "synth with explanations of audio and vision and a comment, as derived inputs; no oracle",
    "synth-classes": "synth with its score cut into three classes; the best possible prediction is known",
    "mosi": "CMU-MOSI, an MMSA pickle of your own (--data PATH); labels in [-3, 3]",
    "mosei": "CMU-MOSEI, an MMSA pickle of your own (--data PATH); labels in [-3, 3]",
    "sims": "CH-SIMS, an MMSA pickle of your own (--data PATH); labels in [-1, 1]",
    "simsv2": "CH-SIMS v2, an MMSA pickle of your own (--data PATH); labels in [-1, 1]",
    "mintrec": "MIntRec, its folder (--data PATH); 20 intents",
    "mintrec-binary": "MIntRec, its folder (--data PATH); emotion or goal",
    "iemocap4": "IEMOCAP in GCNet's layout (--data PATH); 4 emotions; iemocap4:fold=5, the session that is tested",
    "iemocap6": "IEMOCAP in GCNet's layout (--data PATH); 6 emotions; iemocap6:fold=5",
}
"""Name to one line for listings. Any other name is welcome with a path."""

GENERATED = ("synth", "synth-explained", "synth-classes")
"""Made in memory: they take parameters and read no file."""

IEMOCAP = ("iemocap4", "iemocap6")

PLUGINS = "msabench.datasets"
"""Entry points of this group are further datasets: ``load(data=Path | None, text=str | None) -> Dataset``."""

MAX_SAMPLES = 1_000_000
"""The most samples of a synthetic split, about ten gigabytes; more is a slip of the finger."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PARAMETERS = {
    **dict.fromkeys(GENERATED, ("seed", *SPLITS)),
    **dict.fromkeys(IEMOCAP, ("fold", "text", "audio", "vision")),
}


def load_dataset(name: str, data: Path | None = None, text: str | None = None) -> Dataset:
    """The dataset of this name.

    Args:
        name: a name in DATASETS or of a plug-in, or any name of letters, digits, - and _ for data of your own.
            Parameters follow a colon: seed, train, valid and test of ``synth`` and ``synth-explained``; fold, and the
            names of the feature folders (text, audio, vision), of ``iemocap4`` and ``iemocap6``. A name that starts
            with "sims" is scored as CH-SIMS.
        data: where it is, a file or folder of one of the kinds in ``kinds.KINDS``; all but the generated ones need it.
        text: what the text is read as, "features" or "tokens" (ids, for models with a text backbone); None: features
            where the file has them.

    Raises:
        InputError: an unknown name without a path, a missing path, parameters that do not fit, an unreadable file.

    >>> load_dataset("synth:seed=2,train=8,valid=4,test=6").parameters["sizes"]
    [8, 4, 6]
    """
    base, colon, after = name.partition(":")
    if not _NAME.fullmatch(base) or (colon and base not in _PARAMETERS):
        only = f"only {', '.join(_PARAMETERS)} have parameters"
        raise InputError(f"dataset {name[:80]!r}: expected a name of letters, digits, - and _ ({only})")
    parameters = _parameters(base, after)
    if base in GENERATED:
        if text not in (None, "features"):
            raise InputError(f"{base}: its text is features, got text {text[:80]!r}; ids come from a file's text_bert")
        return _synth(base, parameters, data)
    plugins = {} if base in DATASETS else _plugins()
    if base in plugins:
        return _of_plugin(base, plugins[base], data, text)
    if data is None:
        raise InputError(_what_is_missing(base, plugins))
    kind = kind_of(Path(data))
    _check_name(base, kind, Path(data))
    return _READERS[kind](Path(data), base, text, parameters)


def known_datasets() -> dict[str, str]:
    """DATASETS and what plug-ins add, each with its line for listings."""
    return DATASETS | {name: f"a plug-in ({point.value})" for name, point in _plugins().items() if name not in DATASETS}


def _what_is_missing(name: str, plugins: Mapping[str, Any]) -> str:
    known = {**DATASETS, **plugins}
    if name not in known:
        listed = f"known: {', '.join(known)}; for a file of your own add --data PATH"
        return f"unknown dataset {name!r}{did_you_mean(name, known)}; {listed}"
    if name.startswith(("mintrec", "iemocap")):
        what = KINDS["mintrec" if name.startswith("mintrec") else "iemocap"]
        return f"{name}: expected the path of {what}, got none; type --dataset {name} --data PATH/TO/FOLDER"
    return f"{name}: expected the path of an MMSA pickle, got none; type --dataset {name} --data PATH/TO/FILE.pkl"


def _check_name(name: str, kind: str, path: Path) -> None:
    """A name that says one thing over a path that is another: better asked than guessed."""
    family = next((f for f in ("mintrec", "iemocap") if name.startswith(f)), None)
    if kind in ("mintrec", "iemocap") and family != kind:
        names = "mintrec or mintrec-binary" if kind == "mintrec" else " or ".join(IEMOCAP)
        raise InputError(f"{path}: this is {KINDS[kind]}; type --dataset {names}, got {name}")
    if kind == "pickle" and family == "mintrec":
        raise InputError(f"{path}: {name} is read from {KINDS[family]}, this is {KINDS[kind]}")


def _read_pickle(path: Path, name: str, text: str | None, parameters: Mapping[str, str]) -> Dataset:
    if name in IEMOCAP:
        return _read_iemocap(path, name, text, parameters)
    loaded: Dataset = import_module("robustbench_msa.data.mmsa").read_mmsa(path, name, text)
    return loaded


def _read_iemocap(path: Path, name: str, text: str | None, parameters: Mapping[str, str]) -> Dataset:
    module = import_module("robustbench_msa.data.iemocap")
    if text not in (None, "features"):
        raise InputError(f"{name}: its text is one vector an utterance, got text {text[:80]!r}; it has no token ids")
    fold = parameters.get("fold", str(module.FOLDS))
    if not re.fullmatch(r"[1-5]", fold):
        raise InputError(f"{name}: fold must be 1 to {module.FOLDS}, the session that is tested; got {fold[:80]!r}")
    given = {m: folder for m, folder in parameters.items() if m != "fold"}
    wrong = next(
        (folder for folder in given.values() if not re.fullmatch(r"[\w.-]{1,99}", folder) or folder[0] == "."), None
    )
    if wrong is not None:
        raise InputError(f"{name}: expected the name of a folder below features/, got {wrong[:80]!r}")
    loaded: Dataset = module.read_iemocap(path, name, int(fold), {**module.FEATURES, **given})
    return loaded


def _read_mintrec(path: Path, name: str, text: str | None, parameters: Mapping[str, str]) -> Dataset:
    loaded: Dataset = import_module("robustbench_msa.data.mintrec").read_mintrec(path, name, text)
    return loaded


def _read_arrays(path: Path, name: str, text: str | None, parameters: Mapping[str, str]) -> Dataset:
    loaded: Dataset = import_module("robustbench_msa.data.arrays").read_arrays(path, name, text)
    return _scored_as_named(path, loaded, name)


def _read_stored(path: Path, name: str, text: str | None, parameters: Mapping[str, str]) -> Dataset:
    module = import_module("robustbench_msa.data.stored")
    if name in IEMOCAP:  # one fold was converted: it keeps its name, whatever the default fold is
        holds = str(module.read_header(path)["name"])
        asked = f"{name}-fold{parameters.get('fold', holds[-1:])}"
        if holds != asked:
            raise InputError(f"{path}: holds {holds[:60]}, {asked} was asked for; convert that fold too")
        name = holds
    loaded: Dataset = module.read_stored(path, name, text)
    return _scored_as_named(path, loaded, name)


_READERS: dict[str, Callable[[Path, str, str | None, Mapping[str, str]], Dataset]] = {
    "pickle": _read_pickle,
    "npz": _read_arrays,
    "hdf5": _read_arrays,
    "mintrec": _read_mintrec,
    "iemocap": _read_iemocap,
    "stored": _read_stored,
}


def _scored_as_named(path: Path, loaded: Dataset, name: str) -> Dataset:
    """Refuses, say, converted CH-SIMS under the name of MOSI: its labels would be scored on another scale."""
    expected = {"mosi": "mosi", "mosei": "mosi", "sims": "sims", "simsv2": "sims"}.get(name)
    expected = "classification" if name.startswith(("mintrec", "iemocap")) else expected
    if expected not in (None, loaded.profile):
        raise InputError(
            f"{path}: is scored by the profile {loaded.profile}, {name} by {expected}; choose another name"
        )
    return loaded


def _plugins() -> Mapping[str, Any]:
    found: Mapping[str, Any] = import_module("robustbench_msa.plugins").entry_points(PLUGINS)
    return found


def _of_plugin(name: str, point: Any, data: Path | None, text: str | None) -> Dataset:
    load = import_module("robustbench_msa.plugins").load(point)
    try:
        made = load(data=data, text=text)
    except InputError:
        raise
    except Exception as error:  # somebody else's program
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"dataset {name}: the plug-in {point.value} failed ({reason})") from error
    if not isinstance(made, Dataset):
        raise InputError(f"dataset {name}: expected a Dataset of the plug-in {point.value}, got {type(made).__name__}")
    return made if made.name == name else replace(made, name=name)


def _synth(name: str, parameters: Mapping[str, str], data: Path | None) -> Dataset:
    if data is not None:
        raise InputError(f"{name} is made in memory and reads no file; leave out --data {data}, or name the dataset")
    given = _whole_numbers(name, parameters)
    synth = import_module("robustbench_msa.data.synth")  # only when asked for
    sizes = [given.get(split, size) for split, size in zip(SPLITS, synth.SIZES, strict=True)]
    if name == "synth-classes":
        in_classes: Dataset = import_module("robustbench_msa.data.synth_classes").make_synth_classes(
            given.get("seed", 1111), sizes
        )
        return in_classes
    made: Dataset = synth.make_synth(given.get("seed", 1111), sizes, explanations=name == "synth-explained")
    return made


def _parameters(name: str, text: str) -> dict[str, str]:
    """``seed=2,test=20000`` as a dict."""
    known, values = _PARAMETERS.get(name, ()), dict[str, str]()
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in known:
            hint = did_you_mean(key, known)
            raise InputError(f"{name}: unknown parameter {key[:80]!r}{hint}; it has {', '.join(known)}")
        if key in values:
            raise InputError(f"{name}: parameter {key} is given twice")
        values[key] = value
    return values


def _whole_numbers(name: str, parameters: Mapping[str, str]) -> dict[str, int]:
    for key, text in parameters.items():
        if not re.fullmatch(r"[0-9]{1,9}", text) or (key in SPLITS and not 1 <= int(text) <= MAX_SAMPLES):
            expected = f"1 to {MAX_SAMPLES}" if key in SPLITS else "at most nine digits"
            raise InputError(f"{name}: {key} must be a whole number ({expected}), as in {key}=2000; got {text[:80]!r}")
    return {key: int(text) for key, text in parameters.items()}
