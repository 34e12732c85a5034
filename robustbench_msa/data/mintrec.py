"""MIntRec (Zhang et al., ACM MM 2022): intents in a TV series, as its authors pass it around.

A folder with ``train.tsv dev.tsv test.tsv`` (season, episode, clip, text, label under a line of titles),
``video_data/video_feats.pkl`` and ``audio_data/audio_feats.pkl``: dicts from ``S_E_C`` to the frames of a clip. Text
comes as sentences. Models need more, so one of two things stands beside them: ``text_data/text_feats.pkl`` (such a dict
of features of the sentences), or ``vocab.txt`` of bert-base-uncased (for token ids).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions import MODALITIES, Batch, InputError
from corruptions.registry import did_you_mean
from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.npy import Array
from robustbench_msa.data.safe_pickle import load
from robustbench_msa.data.wordpiece import WordPiece

EMOTION = ("Complain", "Praise", "Apologise", "Thank", "Criticize", "Agree", "Taunt", "Flaunt", "Joke", "Oppose")
GOAL = ("Comfort", "Care", "Inform", "Advise", "Arrange", "Introduce", "Leave", "Prevent", "Greet", "Ask for help")
CLASSES = EMOTION + GOAL
BINARY = ("Emotion", "Goal")
_EXPRESSES_EMOTION = {*EMOTION, "Care"}  # between the goals in the list, an emotion in the binary task

STEPS = {"text": 30, "audio": 480, "vision": 230}
"""The published longest sequences. Longer clips are cut there; the authors' loader keeps a single row of them."""

FILES = {
    "text": "text_data/text_feats.pkl",
    "audio": "audio_data/audio_feats.pkl",
    "vision": "video_data/video_feats.pkl",
}
VOCABULARY = "vocab.txt"
TABLES = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Clip:
    """A line of a .tsv file. group: the episode."""

    id: str
    group: str
    sentence: str
    label: str


def read_mintrec(folder: Path, name: str = "mintrec", text: str | None = None) -> Dataset:
    """The three splits of a MIntRec folder, classes as whole numbers.

    A clip without features lacks the modality (``present`` False). Groups are episodes. NaN and infinite values become
    0.

    Args:
        folder: as above; nothing in it is run.
        name: 20 classes, or with ``-binary`` at its end 2 (Emotion, Goal).
        text: "features" (FILES["text"]), "tokens" (VOCABULARY), or None: features where there are any.

    Raises:
        InputError: missing files, unknown labels, features of differing dimensions.
    """
    clips = {split: read_table(folder / table) for split, table in TABLES.items()}
    tokens = _reads_tokens(folder, text)
    frames = {m: _frames(folder / FILES[m]) for m in MODALITIES if m != "text" or not tokens}
    words = WordPiece(folder / VOCABULARY) if tokens else None
    notes, batches = list[str](), {}
    dims = {m: _dimension(folder / FILES[m], frames[m]) for m in frames}
    for split in SPLITS:
        batch = _batch(clips[split], frames, dims, words, name.endswith("-binary"), notes)
        notes.insert(0, f"{split}: {len(batch)} samples in {len(set(batch.groups))} groups (episodes)")
        batches[split] = batch
    classes = BINARY if name.endswith("-binary") else CLASSES
    text_at = "tokens" if tokens else "embeddings"
    return Dataset(name, batches, profile="classification", text_at=text_at, notes=tuple(notes), classes=classes)


def read_table(path: Path) -> list[Clip]:
    """The clips of a .tsv file.

    Raises:
        InputError: unreadable, fewer than five columns, a label that is not in CLASSES, a clip that comes twice.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        lines = content[:_MOST_BYTES].decode("utf-8-sig").split("\n")[1:]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a table of clips, tab-separated ({type(error).__name__})") from None
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: expected a table of at most {_MOST_BYTES:,} bytes, got more")
    clips, seen = list[Clip](), set[str]()
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        cells = [_unquoted(cell.strip()) for cell in line.split("\t")]
        if len(cells) < 5:
            titles = "season, episode, clip, text, label"
            raise InputError(f"{path}:{number}: expected 5 columns ({titles}), got {len(cells)}")
        clip = Clip("_".join(cells[:3]), "_".join(cells[:2]), cells[3], cells[4])
        if clip.label not in CLASSES:
            hint = did_you_mean(clip.label, CLASSES)
            raise InputError(f"{path}:{number}: expected one of MIntRec's 20 intents, got {clip.label[:40]!r}{hint}")
        if clip.id in seen:
            raise InputError(f"{path}:{number}: clip {clip.id[:60]!r} comes twice")
        seen.add(clip.id)
        clips.append(clip)
    if not clips:
        raise InputError(f"{path}: expected clips under a line of titles, it has none")
    return clips


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _reads_tokens(folder: Path, text: str | None) -> bool:
    if text not in (None, "features", "tokens"):
        raise InputError(f"text: expected features or tokens, got {text!r}")
    features, vocabulary = (folder / FILES["text"]).is_file(), (folder / VOCABULARY).is_file()
    if (text == "features" and not features) or (text != "features" and not vocabulary and not features):
        has = f"features ({FILES['text']}) or BERT's vocabulary ({VOCABULARY}, then --text tokens)"
        raise InputError(f"{folder}: its text is sentences; put {has} beside train.tsv (docs/data.md)")
    return text == "tokens" or not features


def _frames(path: Path) -> Mapping[str, Any]:
    found = load(path)
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path}: expected a dict from clips (S_E_C) to their features, got {type(found).__name__}")
    return found


def _dimension(path: Path, frames: Mapping[str, Any]) -> int:
    for clip, value in frames.items():
        if (x := _sequence(value)) is None:
            raise InputError(f"{path}: {str(clip)[:60]!r}: expected frames (T, d) or a list of (1, d)")
        if len(x):
            return int(x.shape[1])
    raise InputError(f"{path}: expected features, all clips are empty")


def _sequence(value: Any) -> Array | None:
    """``(T, d)`` float32 of an array, or of a list of ``(1, d)`` or ``(d,)``; None for anything else."""
    if isinstance(value, list):
        rows = [row.reshape(-1) for row in value if isinstance(row, np.ndarray) and row.dtype.kind in "fiu"]
        if len(rows) != len(value) or len({len(row) for row in rows}) > 1:
            return None
        value = np.stack(rows) if rows else np.zeros((0, 1), np.float32)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        return None
    if value.ndim == 3 and value.shape[1] == 1:  # (T, 1, d)
        value = value[:, 0]
    with np.errstate(over="ignore"):
        return value.astype(np.float32) if value.ndim == 2 else None


def _batch(
    clips: Sequence[Clip],
    frames: Mapping[str, Mapping[str, Any]],
    dims: Mapping[str, int],
    words: WordPiece | None,
    binary: bool,
    notes: list[str],
) -> Batch:
    x, lengths, present = dict[str, Array](), dict[str, Array](), np.ones((len(clips), 3), bool)
    for i, modality in enumerate(MODALITIES):
        if modality == "text" and words is not None:
            x[modality], lengths[modality] = words.encode([clip.sentence for clip in clips], STEPS["text"])
            continue
        x[modality], lengths[modality] = _padded(clips, modality, frames[modality], dims[modality], notes)
        present[:, i] = lengths[modality] > 0
        lost = int((~present[:, i]).sum())
        if lost:
            notes.append(f"{modality}: {lost} of {len(clips)} clips have no features and count as absent")
    names = [("Emotion" if clip.label in _EXPRESSES_EMOTION else "Goal") if binary else clip.label for clip in clips]
    classes = BINARY if binary else CLASSES
    tensors: dict[str, Any] = {m: torch.from_numpy(x[m]) for m in MODALITIES}
    tensors |= {f"{m}_lengths": torch.from_numpy(lengths[m]) for m in MODALITIES}
    return Batch(
        **tensors,
        ids=tuple(clip.id for clip in clips),
        groups=tuple(clip.group for clip in clips),
        labels=torch.tensor([classes.index(name) for name in names]),
        present=torch.from_numpy(present),
    )


def _padded(
    clips: Sequence[Clip], modality: str, frames: Mapping[str, Any], d: int, notes: list[str]
) -> tuple[Array, Array]:
    """``(N, T, d)`` with zeros at the end, T the longest clip, and lengths ``(N,)``."""
    lengths, cut, steps = np.zeros(len(clips), np.int64), 0, STEPS[modality]
    sequences = list[Array]()
    for i, clip in enumerate(clips):
        x = _sequence(frames.get(clip.id, []))
        if x is None or (len(x) and x.shape[1] != d):
            got = "something else" if x is None else f"{x.shape[1]}"
            raise InputError(f"{FILES[modality]}: {clip.id[:60]!r}: expected frames of {d} features, got {got}")
        cut += len(x) > steps
        sequences.append(x[:steps])
        lengths[i] = len(sequences[-1])
    out = np.zeros((len(clips), max(1, int(lengths.max())), d), np.float32)
    for row, x in zip(out, sequences, strict=True):
        row[: len(x)] = x
    wrong = ~np.isfinite(out)
    if wrong.any():
        out[wrong] = 0
        notes.append(f"{modality}: {int(wrong.sum())} values were NaN or infinite and became 0")
    if cut:
        notes.append(f"{modality}: {cut} clips are longer than {steps} steps and were cut there")
    return out, lengths
