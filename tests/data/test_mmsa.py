"""Reading the MMSA layout: small files made here, one property each, and the real files when they are found."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corruptions import MODALITIES, InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.mmsa import read_mmsa

Fields = dict[str, Any]
SIZES = {"train": 5, "valid": 3, "test": 4}
STEPS = {"text": 6, "audio": 9, "vision": 12}
LABELS = np.array([2.4, -0.8, 0.0, -3.0, 3.0], np.float32)


def split_of(split: str, steps: dict[str, int]) -> Fields:
    """One split of ones behind which comes zero padding, with lengths 2, 3, ..."""
    n = SIZES[split]
    fields: Fields = {
        "id": [f"{split}{i // 2}$_${i}" for i in range(n)],
        "raw_text": [f"sentence {i}" for i in range(n)],
        "regression_labels": LABELS[:n],
        "classification_labels": np.zeros(n, np.int64),
        "annotations": ["Neutral"] * n,
    }
    for modality, t in steps.items():
        lengths = 2 + np.arange(n) % (t - 1)
        valid = np.arange(t) < lengths[:, None]
        fields[modality] = (
            np.where(valid[:, :, None], 1 + np.arange(t)[:, None], 0).repeat(2, axis=2).astype(np.float32)
        )
        fields[f"{modality}_lengths"] = lengths.tolist()
    return fields


def unaligned() -> dict[str, Fields]:
    return {split: split_of(split, STEPS) for split in SIZES}


def aligned() -> dict[str, Fields]:
    data = {split: split_of(split, dict.fromkeys(MODALITIES, 6)) for split in SIZES}
    for fields in data.values():
        mask = np.arange(6) < np.array(fields.pop("text_lengths"))[:, None]
        fields["text_bert"] = np.stack([mask * 101, mask, mask * 0], axis=1).astype(np.float32)
        del fields["audio_lengths"], fields["vision_lengths"]
    return data


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    def write_and_read(data: Any, name: str = "mosi", text: str | None = None) -> Dataset:
        path = tmp_path / "data.pkl"
        path.write_bytes(pickle.dumps(data))
        return read_mmsa(path, name, text)

    return write_and_read


Read = Callable[..., Dataset]


def noted(dataset: Dataset, *words: str) -> bool:
    return any(all(word in note for word in words) for note in dataset.notes)


def test_unaligned(read: Read) -> None:
    data = unaligned()
    dataset = read(data)
    assert dataset.dims == (2, 2, 2)
    assert (dataset.name, dataset.profile, dataset.text_at) == ("mosi", "mosi", "embeddings")
    for split, batch in dataset.splits.items():
        for modality in MODALITIES:
            np.testing.assert_array_equal(batch.features(modality).numpy(), data[split][modality])
            np.testing.assert_array_equal(batch.lengths(modality).numpy(), data[split][f"{modality}_lengths"])
        np.testing.assert_array_equal(batch.labels, data[split]["regression_labels"])
        assert list(batch.ids) == data[split]["id"]
        assert batch.present.all()
    assert dataset.splits["train"].groups == ("train0", "train0", "train1", "train1", "train2")
    assert dataset.notes == (
        "train: 5 samples in 3 groups (videos)",
        "valid: 3 samples in 2 groups (videos)",
        "test: 4 samples in 2 groups (videos)",
    )


def test_aligned_lengths_come_from_the_attention_mask(read: Read) -> None:
    dataset = read(aligned())
    for batch in dataset.splits.values():
        for modality in MODALITIES:
            np.testing.assert_array_equal(batch.lengths(modality), 2 + np.arange(len(batch)) % 5)
    assert noted(dataset, "text_bert", "the features are used")


def test_given_lengths_come_before_the_mask(read: Read) -> None:
    data = aligned()
    data["test"]["text_lengths"] = np.array([[1], [2], [3], [0]], np.float64)
    np.testing.assert_array_equal(read(data).splits["test"].text_lengths, [1, 2, 3, 0])
    np.testing.assert_array_equal(read(data).splits["test"].audio_lengths, [1, 2, 3, 0])


def test_without_any_lengths_all_steps_are_valid(read: Read) -> None:
    data = aligned()
    for fields in data.values():
        fields["text_bert"] = fields["text_bert"][:, :, :5]  # counts other steps than text has
        fields["audio"] = fields["audio"][:, :1]
    dataset = read(data)
    assert dataset.splits["train"].text_lengths.tolist() == [6] * 5
    assert dataset.splits["train"].audio_lengths.tolist() == [1] * 5
    assert dataset.splits["train"].vision_lengths.tolist() == [6] * 5
    assert noted(dataset, "train/text: no lengths in the file, all 6 steps")
    assert not noted(dataset, "audio: no lengths")


@pytest.mark.parametrize("name", ["sims", "SIMSv2", "ch-sims"])
def test_sims_profile(name: str, read: Read) -> None:
    data = unaligned()
    for fields in data.values():
        fields["regression_labels"] = (fields["regression_labels"] / 3)[:, None]
        fields |= {f"regression_labels_{m}": fields["regression_labels"] for m in "TAV"}
    dataset = read(data, name)
    assert dataset.profile == "sims"
    np.testing.assert_array_equal(dataset.splits["test"].labels, LABELS[:4] / np.float32(3))
    assert not noted(dataset, "labels")
    assert noted(read(data, "mosi"), "all labels are within [-1, 1]", "sims")


def test_labels_of_single_modalities_are_kept(read: Read) -> None:
    data = unaligned()
    for fields in data.values():
        n = len(fields["id"])
        fields |= {f"regression_labels_{m}": np.linspace(-1, 1, n) + k for k, m in enumerate("TAV")}
    data["test"]["regression_labels_V"][0] = np.nan
    dataset = read(data, "simsv2")
    assert {s: set(x) for s, x in dataset.unimodal_labels.items()} == {
        "train": set(MODALITIES),
        "valid": set(MODALITIES),
        "test": {"text", "audio"},
    }
    audio = dataset.unimodal_labels["train"]["audio"]
    np.testing.assert_array_equal(audio, np.linspace(0, 2, 5).astype(np.float32))
    assert noted(dataset, "test/regression_labels_V: NaN or infinite values among them, left out")
    assert read(unaligned(), "simsv2").fingerprint == dataset.fingerprint  # they change no cell
    data["test"]["regression_labels_A"] = [1, 2]
    with pytest.raises(InputError, match="test/regression_labels_A: expected one number for each of 4 ids"):
        read(data, "simsv2")


def test_labels_outside_their_range_are_noted(read: Read) -> None:
    # LABELS in units of [-3, 3]: outside [-1, 1] are 2.4, -3, 3 in train, 2.4 in valid and 2.4, -3 in test
    assert noted(read(unaligned(), "sims"), "6 labels are outside [-1, 1]")
    data = unaligned()
    data["valid"]["regression_labels"] = np.array([3.5, 0, -4])
    assert noted(read(data), "2 labels are outside [-3, 3]")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", np.int32])
def test_features_become_float32(dtype: Any, read: Read) -> None:
    data = unaligned()
    for fields in data.values():
        fields["audio"] = fields["audio"].astype(dtype)
    audio = read(data).splits["train"].audio.numpy()
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio, unaligned()["train"]["audio"])


def test_values_that_are_not_finite_become_zero(read: Read) -> None:
    data = unaligned()
    data["train"]["audio"][0, 0, 0] = -np.inf
    data["train"]["audio"][1, 1, 1] = np.nan
    data["test"]["vision"] = data["test"]["vision"].astype(np.float64)
    data["test"]["vision"][2, 0, 1] = 1e300  # beyond float32
    dataset = read(data)
    expected = unaligned()["train"]["audio"]
    expected[[0, 1], [0, 1], [0, 1]] = 0
    np.testing.assert_array_equal(dataset.splits["train"].audio, expected)
    assert dataset.splits["test"].vision[2, 0].tolist() == [1, 0]
    assert noted(dataset, "train/audio: 2 values were NaN or infinite and became 0")
    assert noted(dataset, "test/vision: 1 values")
    assert len(dataset.notes) == 5


def test_presence(read: Read) -> None:
    data = unaligned()
    data["train"]["vision_present"] = np.array([True, False, False, True, False])
    data["test"]["audio_present"] = [1, 0, 1, 1]
    dataset = read(data)
    np.testing.assert_array_equal(dataset.splits["train"].present[:, 2], [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(dataset.splits["test"].present[:, 1], [1, 0, 1, 1])
    assert dataset.splits["train"].present[:, :2].all()
    assert noted(dataset, "train: vision is present in 40.0% of the samples")
    assert noted(dataset, "test: audio is present in 75.0% of the samples")


def test_lengths_beyond_the_steps_are_cut(read: Read) -> None:
    data = unaligned()
    data["valid"]["audio_lengths"] = [4, 20, 9]
    dataset = read(data)
    assert dataset.splits["valid"].audio_lengths.tolist() == [4, 9, 9]
    assert noted(dataset, "valid/audio_lengths: 1 exceed the 9 steps there are and became 9")


def test_swapped_lengths_are_refused(read: Read) -> None:
    data = unaligned()
    data["train"]["audio_lengths"], data["train"]["vision_lengths"] = [12, 5, 3, 2, 1], [9, 5, 3, 2, 1]
    with pytest.raises(InputError, match=r"train/audio_lengths: .*look swapped: up to 12 and 9 .*exchange"):
        read(data)


def test_padding_at_the_front_is_moved_to_the_end(read: Read) -> None:
    data = unaligned()
    for fields in data.values():
        for i, length in enumerate(fields["vision_lengths"]):
            fields["vision"][i] = np.roll(fields["vision"][i], STEPS["vision"] - length, axis=0)
    dataset = read(data)
    for split, batch in dataset.splits.items():
        for modality in MODALITIES:
            np.testing.assert_array_equal(batch.features(modality), unaligned()[split][modality])
        assert noted(dataset, f"{split}/vision: padding stood at the front", f"{SIZES[split]} samples")
    assert not noted(dataset, "audio")


def test_leading_zeros_in_few_samples_are_data(read: Read) -> None:
    data = unaligned()
    data["train"]["vision"][0] = np.roll(data["train"]["vision"][0], 10, axis=0)  # 1 of 5: not how the file is padded
    data["train"]["vision"][1, :2] = 0  # a face lost in the first frames
    dataset = read(data)
    np.testing.assert_array_equal(dataset.splits["train"].vision, data["train"]["vision"])
    assert len(dataset.notes) == 3


def test_ids_may_be_arrays_or_bytes(read: Read) -> None:
    data = unaligned()
    data["train"]["id"] = np.array(data["train"]["id"])
    data["valid"]["id"] = np.array(data["valid"]["id"], dtype=object)[:, None]
    data["test"]["id"] = [i.encode() for i in data["test"]["id"]]
    for split, batch in read(data).splits.items():
        assert list(batch.ids) == unaligned()[split]["id"]
        assert all(type(i) is str for i in batch.ids)


@pytest.mark.parametrize("other", ["dev", "val"])
def test_other_names_of_valid(other: str, read: Read) -> None:
    data = unaligned()
    data[other] = data.pop("valid")
    assert len(read(data).splits["valid"]) == 3


def test_shared_videos_are_noted(read: Read) -> None:
    data = unaligned()
    data["test"]["id"][0] = "train0$_$99"
    assert noted(read(data), "test: 1 groups (videos) are also in train")


def test_one_split_used_twice(read: Read) -> None:
    data = unaligned()
    data["valid"]["audio"][0, 0] = np.nan
    dataset = read({"train": data["train"], "valid": data["valid"], "test": data["valid"]})
    np.testing.assert_array_equal(dataset.splits["valid"].audio, dataset.splits["test"].audio)
    assert noted(dataset, "test/audio: 2 values")


def nan_label(data: dict[str, Fields]) -> None:
    data["test"]["regression_labels"] = np.array([1, np.nan, 2, 3])


def change(split: str, key: str, value: Any) -> Callable[[dict[str, Fields]], None]:
    return lambda data: data[split].__setitem__(key, value)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no valid": (lambda d: d.pop("valid"), r"expected a dict under 'valid', the file has 'train', 'test'"),
    "split is a list": (lambda d: d.update(test=[1]), r"expected a dict under 'test'"),
    "no audio": (lambda d: d["test"].pop("audio"), r"test/audio: expected this key, the split has 'id', .*'vision'"),
    "no ids": (lambda d: d["valid"].pop("id"), r"valid/id: expected this key"),
    "no labels": (lambda d: d["train"].pop("regression_labels"), r"train/regression_labels: expected this key"),
    "no samples": (change("test", "id", []), r"test/id: .*at least one"),
    "ids repeat": (change("valid", "id", ["a", "b", "a"]), r"valid/id: .*distinct ids, 'a' comes more than once"),
    "ids are numbers": (change("valid", "id", np.arange(3)), r"valid/id: expected strings, got int"),
    "ids are a string": (change("valid", "id", "abc"), r"valid/id: expected one string for each sample"),
    "ids are not UTF-8": (change("valid", "id", [b"\xff", b"a", b"b"]), r"valid/id: expected readable strings"),
    "ids are surrogates": (change("valid", "id", ["\ud800", "a", "b"]), r"valid/id: expected readable strings"),
    "fewer rows": (
        change("train", "text", np.ones((4, 6, 2))),
        r"train/text: expected shape \(5, T, d\) as there are 5 ids, got \(4, 6, 2\)",
    ),
    "pooled features": (change("train", "audio", np.ones((5, 2))), r"train/audio: expected shape \(5, T, d\)"),
    "no steps": (change("train", "audio", np.ones((5, 0, 2))), r"train/audio: expected shape .*got \(5, 0, 2\)"),
    "features are text": (change("train", "audio", np.full((5, 9, 2), "1")), r"train/audio: expected an array of num"),
    "nested lists": (change("train", "audio", np.ones((5, 9, 2)).tolist()), r"train/audio: .*numbers, got list"),
    "fewer labels": (change("test", "regression_labels", np.ones(3)), r"test/regression_labels: .*shape \(3,\)"),
    "one label": (change("test", "regression_labels", np.array(1.0)), r"test/regression_labels: .*shape \(\)"),
    "words as labels": (change("test", "regression_labels", ["1"] * 4), r"test/regression_labels: .*numbers, got list"),
    "fewer lengths": (change("test", "audio_lengths", [1, 2]), r"test/audio_lengths: expected one number for each"),
    "negative lengths": (change("test", "audio_lengths", [1, 2, -1, 1]), r"test/audio_lengths: expected whole numbers"),
    "half lengths": (change("test", "text_lengths", [1, 2.5, 1, 1]), r"test/text_lengths: expected whole numbers"),
    "NaN lengths": (change("test", "text_lengths", [1, np.nan, 1, 1]), r"test/text_lengths: expected whole numbers"),
    "presence of 2": (change("test", "text_present", [1, 2, 1, 1]), r"test/text_present: expected True or False"),
    "NaN label": (nan_label, r"mosi/test: 1 labels are NaN or infinite \(first: test0\$_\$1\)"),
    "other dimensions": (change("test", "audio", np.ones((4, 9, 7))), r"feature dimensions .*differ between splits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_in_one_line(name: str, read: Read) -> None:
    data = unaligned()
    WRONG[name][0](data)
    with pytest.raises(InputError, match=WRONG[name][1]) as error:
        read(data)
    assert "\n" not in str(error.value)


def test_wrong_text_bert(read: Read) -> None:
    data = aligned()
    data["train"]["text_bert"][0, 1, 0] = 7
    with pytest.raises(InputError, match=r"train/text_bert: expected an attention mask of 0 and 1"):
        read(data)
    data["train"]["text_bert"] = data["train"]["text_bert"][:2]
    with pytest.raises(InputError, match=r"train/text_bert: expected shape \(5, 3, T\)"):
        read(data)


def with_tokens() -> dict[str, Fields]:
    """Token ids 100 n + t of sample n at step t under a mask of 1, 2, ... steps."""
    data = unaligned()
    for fields in data.values():
        n = len(fields["id"])
        mask = np.arange(7) <= np.arange(n)[:, None]
        ids = (100 * np.arange(1, n + 1)[:, None] + np.arange(7)) * mask
        fields["text_bert"] = np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32)
    return data


def test_text_as_tokens(read: Read) -> None:
    data = with_tokens()
    dataset = read(data, "mosi", "tokens")
    assert (dataset.dims, dataset.text_at) == ((0, 2, 2), "tokens")
    for split, batch in dataset.splits.items():
        assert batch.has_token_text
        np.testing.assert_array_equal(batch.text, data[split]["text_bert"][:, 0].astype(np.int64))
        np.testing.assert_array_equal(batch.text_lengths, 1 + np.arange(len(batch)))  # not text_lengths: of features
        np.testing.assert_array_equal(batch.audio_lengths, data[split]["audio_lengths"])
    assert not noted(dataset, "text_bert")
    assert read(data).dims == read(data, "mosi", "features").dims == (2, 2, 2)
    assert read(data).fingerprint != dataset.fingerprint


def test_tokens_are_read_where_there_are_no_features(read: Read) -> None:
    data = with_tokens()
    for fields in data.values():
        del fields["text"]
    assert read(data).fingerprint == read(with_tokens(), "mosi", "tokens").fingerprint
    with pytest.raises(InputError, match="train/text: expected this key"):
        read(data, "mosi", "features")


def test_audio_of_as_many_steps_as_tokens_has_their_lengths(read: Read) -> None:
    data = with_tokens()
    for fields in data.values():
        fields["audio"] = np.ones((len(fields["id"]), 7, 2))
        del fields["audio_lengths"]
    np.testing.assert_array_equal(read(data, "mosi", "tokens").splits["train"].audio_lengths, [1, 2, 3, 4, 5])


def test_tokens_under_the_mask_come_first(read: Read) -> None:
    data = with_tokens()
    expected = read(data, "mosi", "tokens")
    for fields in data.values():
        for i, rows in enumerate(fields["text_bert"]):
            fields["text_bert"][i] = np.roll(rows, 6 - i, axis=1)  # padding at the front
    dataset = read(data, "mosi", "tokens")
    assert dataset.fingerprint == expected.fingerprint
    assert noted(dataset, "valid/text_bert: tokens did not stand first", "3 samples")


def test_what_is_not_under_the_mask_and_segments_are_not_read(read: Read) -> None:
    data = with_tokens()
    expected = read(data, "mosi", "tokens")
    ids, mask = data["test"]["text_bert"][:, 0], data["test"]["text_bert"][:, 1]
    data["test"]["text_bert"][:, 0] = np.where(mask == 1, ids, -7.5)
    data["test"]["text_bert"][1, 2, 3] = 1
    dataset = read(data, "mosi", "tokens")
    assert dataset.fingerprint == expected.fingerprint
    assert noted(dataset, "test/text_bert: its segments", "not read")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((4, 3)), r"test/text_bert: expected shape \(4, 3, T\) as there are 4 ids, got \(4, 3\)"),
        (np.ones((4, 2, 5)), r"test/text_bert: expected shape \(4, 3, T\)"),
        (np.ones((4, 3, 0)), r"test/text_bert: expected shape \(4, 3, T\)"),
        (np.full((4, 3, 5), 2), r"test/text_bert: expected an attention mask of 0 and 1"),
        (np.ones((4, 3, 5)) * [[[1.5], [1], [0]]], r"test/text_bert: expected token ids, whole numbers from 0"),
        (np.ones((4, 3, 5)) * [[[-1], [1], [0]]], r"test/text_bert: expected token ids, whole numbers from 0"),
        (np.ones((4, 3, 5)) * [[[np.nan], [1], [0]]], r"test/text_bert: expected token ids, whole numbers from 0"),
    ],
)
def test_tokens_that_are_none(value: Any, message: str, read: Read) -> None:
    data = with_tokens()
    data["test"]["text_bert"] = value
    with pytest.raises(InputError, match=message):
        read(data, "mosi", "tokens")


def test_text_is_features_or_tokens(read: Read) -> None:
    with pytest.raises(InputError, match="text: expected features or tokens, got 'words'"):
        read(with_tokens(), "mosi", "words")
    with pytest.raises(InputError, match="train/text_bert: expected this key"):
        read(unaligned(), "mosi", "tokens")


def test_not_a_dict(read: Read) -> None:
    with pytest.raises(InputError, match=r"data\.pkl: expected a dict of train, valid and test, got list"):
        read([1, 2])


def test_lists_nested_without_end_are_not_followed(read: Read) -> None:
    bomb: list[Any] = [1.0]
    for _ in range(40):
        bomb = [bomb, bomb]
    data = unaligned()
    data["test"]["regression_labels"] = bomb
    with pytest.raises(InputError, match="test/regression_labels: expected an array of numbers, got list"):
        read(data)


def real(name: str) -> Path:
    folder = Path(os.environ.get("MSABENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not here (set MSABENCH_DATA to its folder)")
    return folder / name


@pytest.mark.parametrize(
    ("file", "sizes", "groups", "vision"),
    [
        ("mosi_public.pkl", [1284, 229, 686], [52, 10, 31], [0.46, 0.15, 0.19]),
        ("mosi_tri_public.pkl", [511, 113, 128], [19, 5, 7], [1, 1, 1]),
    ],
)
def test_real_files(file: str, sizes: list[int], groups: list[int], vision: list[float]) -> None:
    dataset = read_mmsa(real(file))
    batches = [dataset.splits[split] for split in ("train", "valid", "test")]
    assert [len(b) for b in batches] == sizes
    assert [len(set(b.groups)) for b in batches] == groups
    assert dataset.dims == (384, 73, 100)
    assert all(b.text.shape[1:] == (32, 384) and b.audio.shape[1] == b.vision.shape[1] == 1 for b in batches)
    np.testing.assert_allclose([b.present[:, 2].float().mean() for b in batches], vision, atol=0.005)
    assert all(b.present[:, :2].all() for b in batches)
    assert noted(dataset, "text_bert")
    assert not noted(dataset, "became 0")
    assert not noted(dataset, "also in train")
    with real(file).open("rb") as stream:
        raw = pickle.load(stream)["test"]
    np.testing.assert_array_equal(batches[2].text, raw["text"].astype(np.float32))
    np.testing.assert_array_equal(batches[2].text_lengths, raw["text_lengths"])
    np.testing.assert_array_equal(raw["text_bert"][:, 1].sum(axis=1), raw["text_lengths"])


def test_real_token_ids() -> None:
    dataset = read_mmsa(real("mosi_public.pkl"), "mosi", "tokens")
    features = read_mmsa(real("mosi_public.pkl"), "mosi")
    assert dataset.dims == (0, 73, 100)
    for split, batch in dataset.splits.items():
        np.testing.assert_array_equal(batch.text_lengths, features.splits[split].text_lengths)
        np.testing.assert_array_equal(batch.text[:, 0], np.full(len(batch), 101))  # [CLS]
        assert int(batch.text.max()) < 30522
    assert not noted(dataset, "text_bert")
