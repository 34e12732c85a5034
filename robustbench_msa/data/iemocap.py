"""IEMOCAP (Busso et al., 2008) in the layout of GCNet (Lian et al., TPAMI 2023) and MoMKE (Xu et al., ACM MM 2024).

A pickle of labels, ``IEMOCAP_features_raw_4way.pkl`` or ``..._6way.pkl``: a tuple of (utterance ids, labels, speakers,
sentences) by dialogue and the sets of training and test dialogues; and beside it ``features/<name>/`` for each modality
with one ``<utterance>.npy`` for each utterance, averaged over time, or a folder of that name with a file for each face
(F, M).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.npy import NUMBERS, Array, mapped
from robustbench_msa.data.safe_pickle import load

CLASSES = {
    "iemocap4": ("happy", "sad", "neutral", "angry"),
    "iemocap6": ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
}
FILES = {"iemocap4": "IEMOCAP_features_raw_4way.pkl", "iemocap6": "IEMOCAP_features_raw_6way.pkl"}
FEATURES = {"text": "deberta-large-4-UTT", "audio": "wav2vec-large-c-UTT", "vision": "manet_UTT"}
"""The folders that GCNet and MoMKE read; others by the parameters text=, audio=, vision=."""

FOLDS = 5
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Utterance:
    id: str
    dialogue: str
    speaker: str
    label: int


def read_iemocap(path: Path, name: str, fold: int = FOLDS, features: Mapping[str, str] | None = None) -> Dataset:
    """One fold: its test split is session ``fold``, which the rest has no speaker in common with.

    GCNet and MoMKE select on the test session. Here a tenth of the training dialogues (``validation_dialogues``) is the
    validation split. Groups are dialogues; every modality has one step. An utterance without a face (no file, or zeros)
    lacks vision.

    Args:
        path: the pickle of labels, or the folder it lies in; trusted in no way.
        name: "iemocap4" or "iemocap6".
        fold: 1 to 5.
        features: modality to the name of its folder under ``features/``, where it is not that of FEATURES.

    Returns:
        a Dataset called ``<name>-fold<fold>``, so that checkpoints and runs of folds stay apart.

    Raises:
        InputError: another structure, labels beyond the classes, features that are missing or of differing size.
    """
    if name not in CLASSES:
        raise InputError(f"IEMOCAP is called {' or '.join(CLASSES)} here, got {name[:40]!r}")
    if not 1 <= fold <= FOLDS:
        raise InputError(f"{name}: fold must be 1 to {FOLDS}, the session that is the test split; got {fold}")
    labels = path / FILES[name] if path.is_dir() else path
    utterances = read_labels(labels, len(CLASSES[name]))
    by_split = _split(utterances, fold, labels)
    notes, folders = list[str](), {m: labels.parent / "features" / (features or FEATURES)[m] for m in MODALITIES}
    reader = {m: _Features(folder, m) for m, folder in folders.items()}
    batches = {split: _batch(by_split[split], reader, split, notes) for split in SPLITS}
    counts = [f"{s}: {len(b)} samples in {len(set(b.groups))} groups (dialogues)" for s, b in batches.items()]
    notes.append(f"test is session {fold}; validation is a tenth of the other sessions' dialogues, not the test split")
    title = f"{name}-fold{fold}"
    return Dataset(title, batches, profile="classification", notes=(*counts, *notes), classes=CLASSES[name])


def read_labels(path: Path, classes: int) -> list[Utterance]:
    """All utterances of the pickle, dialogues in the order of their names.

    Raises:
        InputError: not the tuple of six, utterances without label or speaker, labels outside 0..classes-1.
    """
    found = load(path)
    if type(found) is not tuple or len(found) != 6:
        kind = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise InputError(f"{path}: expected GCNet's labels of IEMOCAP, a tuple of 6; got {kind}")
    ids, labels, speakers = found[:3]
    if not all(isinstance(part, dict) for part in found[:3]) or not ids:
        raise InputError(f"{path}: expected dicts from dialogues to utterance ids, labels and speakers")
    utterances = list[Utterance]()
    for dialogue in sorted(_dialogues(path, found[4], found[5])):
        parts = [_listed(part.get(dialogue)) for part in (ids, labels, speakers)]
        if len({len(part) for part in parts}) > 1:
            raise InputError(f"{path}: {dialogue[:40]!r} has {len(parts[0])} ids, {len(parts[1])} labels, "
                             f"{len(parts[2])} speakers; expected one of each for every utterance")  # fmt: skip
        for utterance, label, speaker in zip(*parts, strict=True):
            utterances.append(_utterance(path, dialogue, utterance, label, speaker, classes))
    repeated = len(utterances) - len({u.id for u in utterances})
    if repeated:
        raise InputError(f"{path}: {repeated} utterance ids come more than once")
    return utterances


def _dialogues(path: Path, *parts: Any) -> set[str]:
    """The dialogues of the published training and test sets together; folds are cut anew."""
    if not all(isinstance(part, (set, frozenset, list)) for part in parts):
        raise InputError(f"{path}: expected sets of training and test dialogues as the last two of six")
    return {str(dialogue) for part in parts for dialogue in part}


def _listed(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return list(value.ravel().tolist())
    return value if isinstance(value, list) else []


def _utterance(path: Path, dialogue: str, name: Any, label: Any, speaker: Any, classes: int) -> Utterance:
    whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if not whole or not 0 <= label < classes:
        hint = "; is this the pickle of the other task (4way, 6way)?" if whole else ""
        raise InputError(
            f"{path}: {str(name)[:40]!r}: expected a label from 0 to {classes - 1}, got {str(label)[:20]}{hint}"
        )
    session = dialogue[4:5]  # Ses05F_impro01
    plain = isinstance(name, str) and name.isascii() and name.replace("_", "").isalnum()
    if not plain or session not in "12345" or not session or speaker not in ("F", "M"):
        raise InputError(f"{path}: {str(name)[:40]!r}: expected an utterance of sessions 1 to 5 by speaker F or M")
    return Utterance(name, dialogue, speaker, int(label))


def validation_dialogues(dialogues: Sequence[str]) -> set[str]:
    """A tenth of the dialogues, rounded up: those whose names have the smallest sha256. The same for everybody.

    >>> sorted(validation_dialogues([f"Ses0{s}F_impro0{i}" for s in (1, 2) for i in range(1, 6)]))
    ['Ses01F_impro01']
    """
    ordered = sorted(set(dialogues), key=lambda d: hashlib.sha256(d.encode()).hexdigest())
    return set(ordered[: math.ceil(VALIDATION_SHARE * len(ordered))])


def _split(utterances: Sequence[Utterance], fold: int, path: Path) -> dict[str, list[Utterance]]:
    sessions = {u.dialogue[4] for u in utterances}
    if str(fold) not in sessions or len(sessions) < 2:
        raise InputError(f"{path}: expected sessions 1 to {FOLDS}, got {', '.join(sorted(sessions))}; no fold {fold}")
    rest = [u for u in utterances if u.dialogue[4] != str(fold)]
    held_out = validation_dialogues([u.dialogue for u in rest])
    return {
        "train": [u for u in rest if u.dialogue not in held_out],
        "valid": [u for u in rest if u.dialogue in held_out],
        "test": [u for u in utterances if u.dialogue[4] == str(fold)],
    }


class _Features:
    """The vectors of one modality, by utterance."""

    def __init__(self, folder: Path, modality: str) -> None:
        if not folder.is_dir():
            there = (
                [p.name for p in sorted(folder.parent.iterdir())[:12] if p.is_dir()] if folder.parent.is_dir() else []
            )
            has = f"there are {', '.join(there)} ({modality}=NAME)" if there else "there is no folder of features"
            raise InputError(f"{folder}: expected a folder of .npy files, one for each utterance; {has}")
        self.folder, self.modality, self.dim = folder, modality, 0

    def vector(self, utterance: Utterance) -> Array | None:
        """``(d,)`` float32, averaged over time; None where the utterance has none."""
        whole, faces = self.folder / f"{utterance.id}.npy", self.folder / utterance.id
        files = [whole] if whole.is_file() else []
        if not files and faces.is_dir():  # the same rule as GCNet's: a name with an F is a woman's face
            files = [p for p in sorted(faces.glob("*.npy")) if ("F" in p.name) == (utterance.speaker == "F")]
        if not files:
            return None
        rows = np.concatenate([self._rows(path) for path in files])
        x: Array = rows.mean(axis=0).astype(np.float32)
        self.dim = self.dim or len(x)
        if len(x) != self.dim:
            raise InputError(f"{files[0]}: expected {self.dim} features as in the others, got {len(x)}")
        return x if x.any() else None

    def _rows(self, path: Path) -> Array:
        x = mapped(path)
        if x.dtype.kind not in NUMBERS or x.size == 0 or np.squeeze(x).ndim > 2:
            raise InputError(f"{path}: expected features (d,) or (T, d), got {x.shape} {x.dtype}")
        return np.asarray(x, np.float64).reshape(-1, x.shape[-1])


def _batch(utterances: Sequence[Utterance], reader: Mapping[str, _Features], split: str, notes: list[str]) -> Batch:
    x, present = dict[str, Any](), np.ones((len(utterances), 3), bool)
    for i, modality in enumerate(MODALITIES):
        vectors = [reader[modality].vector(u) for u in utterances]
        present[:, i] = [v is not None for v in vectors]
        if not present[:, i].any():
            raise InputError(f"{reader[modality].folder}: expected features, no utterance of {split} has any")
        zeros = np.zeros(reader[modality].dim, np.float32)
        rows = np.stack([zeros if v is None else v for v in vectors])
        wrong = ~np.isfinite(rows)
        rows[wrong] = 0
        x[modality] = torch.from_numpy(rows[:, None])  # (N, 1, d)
        if wrong.any():
            notes.append(f"{split}/{modality}: {int(wrong.sum())} values were NaN or infinite and became 0")
        if not present[:, i].all():
            share = present[:, i].mean()
            notes.append(f"{split}: {modality} is present in {share:.1%} of the samples")
    return Batch(
        **x,
        ids=tuple(u.id for u in utterances),
        groups=tuple(u.dialogue for u in utterances),
        labels=torch.tensor([u.label for u in utterances]),
        present=torch.from_numpy(present),
    )
