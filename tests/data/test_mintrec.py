"""MIntRec folders: small ones made here as its authors' tools write them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.data.mintrec import BINARY, CLASSES, STEPS, read_mintrec
from robustbench_msa.data.registry import load_dataset

CLIPS = {
    "train": [("S01", "E01", "1", "Hello world", "Greet"), ("S01", "E01", "2", "Thanks, hello", "Thank")],
    "dev": [("S01", "E02", "1", 'he said "hello"', "Care")],
    "test": [("S02", "E01", "7", "world", "Ask for help"), ("S02", "E03", "8", "hello", "Comfort")],
}
WORDS = ["hello", "world", "thanks", ",", "he", "said", '"']


def frames(n: int, d: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, clips in CLIPS.items():
        lines = ["season\tepisode\tclip\ttext\tlabel", *("\t".join(clip) for clip in clips)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    ids = ["_".join(clip[:3]) for clips in CLIPS.values() for clip in clips]
    # vision: a list of (1, d) as the detector gave them; audio: tensors, as the speech model returned them
    vision = {i: [row[None] for row in frames(3 + k, 4, k)] for k, i in enumerate(ids)}
    audio = {i: torch.from_numpy(frames(6 - k, 5, 10 + k)) for k, i in enumerate(ids)}
    write(tmp_path / "video_data/video_feats.pkl", vision)
    write(tmp_path / "audio_data/audio_feats.pkl", audio)
    vocabulary = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    return tmp_path


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(data, protocol=4))


def test_splits_classes_and_groups(folder: Path) -> None:
    dataset = read_mintrec(folder)
    assert (dataset.profile, dataset.classes, dataset.text_at) == ("classification", CLASSES, "tokens")
    assert [len(dataset.splits[s]) for s in ("train", "valid", "test")] == [2, 1, 2]
    test = dataset.splits["test"]
    assert test.ids == ("S02_E01_7", "S02_E03_8")
    assert test.groups == ("S02_E01", "S02_E03")
    assert test.labels is not None
    assert [CLASSES[i] for i in test.labels.tolist()] == ["Ask for help", "Comfort"]
    assert test.labels.dtype == torch.int64
    assert len(CLASSES) == len(set(CLASSES)) == 20


def test_binary_classes(folder: Path) -> None:
    dataset = load_dataset("mintrec-binary", folder)
    assert dataset.classes == BINARY
    names = {s: [BINARY[i] for i in dataset.splits[s].labels.tolist()] for s in dataset.splits}  # type: ignore[union-attr]
    assert names == {"train": ["Goal", "Emotion"], "valid": ["Emotion"], "test": ["Goal", "Goal"]}


def test_features_are_padded_at_the_end(folder: Path) -> None:
    test = read_mintrec(folder).splits["test"]
    assert test.vision_lengths.tolist() == [6, 7]
    assert test.audio_lengths.tolist() == [3, 2]
    np.testing.assert_array_equal(test.vision[0], np.concatenate([frames(6, 4, 3), np.zeros((1, 4))]))
    np.testing.assert_array_equal(test.audio[1], np.concatenate([frames(2, 5, 14), np.zeros((1, 5))]))
    assert test.present.all()


def test_sentences_become_tokens(folder: Path) -> None:
    dataset = read_mintrec(folder)
    hello, world, thanks, comma, he, said, quote = range(104, 111)
    train = [[101, hello, world, 102, 0], [101, thanks, comma, hello, 102]]
    np.testing.assert_array_equal(dataset.splits["train"].text, train)
    np.testing.assert_array_equal(dataset.splits["valid"].text, [[101, he, said, quote, hello, quote, 102]])


def test_text_features_come_first(folder: Path) -> None:
    ids = ["_".join(clip[:3]) for clips in CLIPS.values() for clip in clips]
    write(folder / "text_data/text_feats.pkl", {i: frames(k + 1, 6, k) for k, i in enumerate(ids)})
    dataset = read_mintrec(folder)
    assert (dataset.dims, dataset.text_at) == ((6, 5, 4), "embeddings")
    assert dataset.splits["test"].text_lengths.tolist() == [4, 5]
    assert read_mintrec(folder, text="tokens").dims == (0, 5, 4)


def test_long_clips_are_cut_not_reduced_to_a_row(folder: Path) -> None:
    long = frames(STEPS["audio"] + 9, 5, 1)
    audio = {"_".join(c[:3]): long if c[2] == "7" else frames(2, 5, 2) for clips in CLIPS.values() for c in clips}
    write(folder / "audio_data/audio_feats.pkl", audio)
    dataset = read_mintrec(folder)
    assert dataset.splits["test"].audio_lengths.tolist() == [480, 2]
    np.testing.assert_array_equal(dataset.splits["test"].audio[0], long[:480])
    assert "audio: 1 clips are longer than 480 steps and were cut there" in dataset.notes


def test_clips_without_frames_lack_the_modality(folder: Path) -> None:
    path = folder / "video_data/video_feats.pkl"
    vision = pickle.loads(path.read_bytes())
    del vision["S02_E01_7"]
    vision["S01_E01_1"][0][0, 0] = -np.inf
    write(path, vision)
    dataset = read_mintrec(folder)
    assert dataset.splits["test"].present.tolist() == [[True, True, False], [True, True, True]]
    assert dataset.splits["train"].vision[0, 0, 0] == 0
    assert "vision: 1 of 2 clips have no features and count as absent" in dataset.notes
    assert "vision: 1 values were NaN or infinite and became 0" in dataset.notes


def table(split: str, line: str) -> Callable[[Path], object]:
    return lambda f: (f / f"{split}.tsv").write_text(f"season\tepisode\tclip\ttext\tlabel\n{line}\n")


def features(data: Any) -> Callable[[Path], object]:
    return lambda f: write(f / "video_data/video_feats.pkl", data)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no dev": (lambda f: (f / "dev.tsv").unlink(), r"dev.tsv: expected a table of clips, tab-separated \(FileNotFound"),
    "no clips": (lambda f: (f / "dev.tsv").write_text("title\n"), "dev.tsv: expected clips under a line of titles"),
    "few columns": (table("dev", "S01\tE01\t1\tHello"), r"dev.tsv:2: expected 5 columns .*got 4"),
    "unknown intent": (table("dev", "S\tE\t1\tHi\tThanks"), r"dev.tsv:2: .*got 'Thanks' \(did you mean 'Thank'\?\)"),
    "twice": (table("dev", "S\tE\t1\tHi\tThank\nS\tE\t1\tHi\tThank"), "dev.tsv:3: clip 'S_E_1' comes twice"),
    "not UTF-8": (lambda f: (f / "dev.tsv").write_bytes(b"\xff\xfe"), "dev.tsv: expected a table of clips"),
    "a list": (features([1]), "video_feats.pkl: expected a dict from clips .*got list"),
    "strings": (features({"S02_E01_7": "x"}), r"'S02_E01_7': expected frames \(T, d\) or a list"),
    "two dimensions": (
        features({"S02_E01_7": np.ones((2, 4)), "S02_E03_8": np.ones((2, 3))}),
        "'S02_E03_8': expected frames of 4 features, got 3",
    ),
    "all empty": (features({"S02_E01_7": []}), "expected features, all clips are empty"),
    "a program": (features(Path("x")), "refused pathlib"),
    "no words": (lambda f: (f / "vocab.txt").unlink(), "its text is sentences; put features .* or BERT's vocabulary"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_folders_are_refused_in_one_line(name: str, folder: Path) -> None:
    WRONG[name][0](folder)
    with pytest.raises(InputError, match=WRONG[name][1]) as error:
        read_mintrec(folder)
    assert "\n" not in str(error.value)


def test_text_that_is_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match="its text is sentences"):
        read_mintrec(folder, text="features")
    with pytest.raises(InputError, match="text: expected features or tokens, got 'words'"):
        read_mintrec(folder, text="words")


def test_the_name_must_fit(folder: Path) -> None:
    with pytest.raises(
        InputError, match="this is a MIntRec folder; type --dataset mintrec or mintrec-binary, got mosi"
    ):
        load_dataset("mosi", folder)
    with pytest.raises(InputError, match="mintrec is read from a MIntRec folder, this is a pickle"):
        load_dataset("mintrec", folder / "video_data/video_feats.pkl")
