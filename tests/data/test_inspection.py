"""What inspection finds in small files made here, one oddity each, and in the real ones."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corruptions import MODALITIES, InputError
from robustbench_msa.data.array_facts import padding_side, token_facts
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.inspection import Inspection, inspect_path
from robustbench_msa.data.published import PUBLISHED
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.data.stored import write_stored

Data = dict[str, dict[str, Any]]
STEPS = {"text": 6, "audio": 9, "vision": 12}


def split(name: str, n: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": [f"{name}{i // 2}$_${i}" for i in range(n)],
        "regression_labels": np.linspace(-3, 3, n, dtype=np.float32),
    }
    for modality, steps in STEPS.items():
        lengths = 2 + np.arange(n) % (steps - 1)
        fields[modality] = np.ones((n, steps, 2), np.float32) * (np.arange(steps) < lengths[:, None])[:, :, None]
        fields[f"{modality}_lengths"] = lengths.tolist()
    mask = np.arange(6) < np.array(fields["text_lengths"])[:, None]
    ids = np.where(np.arange(6) == 0, 101, np.where(np.arange(6) == mask.sum(1)[:, None] - 1, 102, 2000)) * mask
    return fields | {"text_bert": np.stack([ids, mask, 0 * ids], axis=1).astype(np.float32)}


@pytest.fixture
def data() -> Data:
    return {name: split(name, n) for name, n in (("train", 7), ("valid", 5), ("test", 6))}


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[[Any], Inspection]:
    def write(content: Any) -> Inspection:
        (tmp_path / "own data.pkl").write_bytes(pickle.dumps(content))
        found = inspect_path(tmp_path / "own data.pkl")
        json.dumps(asdict(found), allow_nan=False)
        return found

    return write


Inspect = Callable[[Any], Inspection]


def odd(found: Inspection, *words: str) -> bool:
    return any(all(word in line for word in words) for line in found.findings)


def test_a_sound_file(data: Data, inspect: Inspect, tmp_path: Path) -> None:
    found = inspect(data)
    assert (found.kind, found.findings, found.refusal, found.likely) == ("a pickle, MMSA layout", (), None, None)
    first = found.splits[0]
    assert (first.name, first.samples, first.groups, first.repeated) == ("train", 7, 4, 0)
    audio = next(f for f in found.splits[0].fields if f.name == "audio")
    assert (audio.shape, audio.dtype, audio.padding) == ((7, 9, 2), "float32", "end")
    assert audio.lengths is not None
    assert (audio.lengths.shortest, audio.lengths.median, audio.lengths.longest) == (2, 5, 8)
    (label,) = found.splits[0].labels
    np.testing.assert_allclose((label.low, label.high, label.mean, label.deviation), (-3, 3, 0, 2))
    assert (label.zeros, label.positive) == (1, 3)
    assert found.splits[0].tokens is not None
    assert found.splits[0].tokens.sound
    assert any("--dataset own-data --data " in line and line.startswith("msabench run") for line in found.next)
    assert f"'{tmp_path / 'own data.pkl'}'" in found.next[0]  # quoted: it has a space


def test_the_commands_name_what_can_be_loaded(data: Data, inspect: Inspect, tmp_path: Path) -> None:
    inspect(data)
    assert load_dataset("own-data", tmp_path / "own data.pkl").name == "own-data"


@pytest.mark.parametrize("known", PUBLISHED[:4], ids=lambda p: p.name)
def test_published_sizes(known: Any, inspect: Inspect) -> None:
    def tiny(name: str, n: int) -> dict[str, Any]:
        x = {m: np.ones((n, 1, 1), np.float32) for m in MODALITIES}
        labels = np.linspace(-known.label_limit, known.label_limit, n)
        return {"id": [f"{name}{i}" for i in range(n)], "regression_labels": labels, **x}

    found = inspect({name: tiny(name, n) for name, n in zip(("train", "valid", "test"), known.sizes, strict=True)})
    assert found.likely is not None
    assert (found.likely.name, found.likely.match) == (known.name, "exact")
    assert any(f"--dataset {known.name} " in line for line in found.next)
    sizes = (known.sizes[0] - 1, *known.sizes[1:])
    found = inspect({name: tiny(name, n) for name, n in zip(("train", "valid", "test"), sizes, strict=True)})
    assert found.likely is not None
    assert (found.likely.name, found.likely.match) == (known.name, "nearly")
    assert odd(found, f"{known.title} has {known.sizes[0]}/", f"this has {sizes[0]}/")


def test_dimensions_and_unimodal_labels_point_to_a_dataset(data: Data, inspect: Inspect) -> None:
    for fields in data.values():
        n = len(fields["id"])
        fields |= {"audio": np.ones((n, 9, 74)), "vision": np.ones((n, 12, 35))}
    found = inspect(data)
    assert found.likely is not None
    assert (found.likely.name, found.likely.match) == ("mosei", "no")
    for fields in data.values():
        fields |= {"audio": fields["vision"][:, :9], "vision": np.ones((len(fields["id"]), 12, 74))}
    assert odd(inspect(data), "dimensions of CMU-MOSEI's vision and audio: are the two exchanged?")
    for fields in data.values():
        fields |= {"audio": np.ones((len(fields["id"]), 9, 3)), "regression_labels_T": fields["regression_labels"]}
    found = inspect(data)
    assert found.likely is not None
    assert found.likely.name == "sims"


def test_small_labels_are_scored_as_sims(data: Data, inspect: Inspect) -> None:
    for fields in data.values():
        fields["regression_labels"] = fields["regression_labels"] / 3
    assert any("--dataset sims " in line for line in inspect(data).next)


def test_values_that_are_not_finite(data: Data, inspect: Inspect) -> None:
    data["train"]["audio"][0, 0] = -np.inf
    data["train"]["audio"][1, 0, 0] = np.nan
    found = inspect(data)
    assert odd(found, "train: audio holds 1 NaN and 2 -inf (read as 0)")
    assert found.refusal is None


def test_swapped_lengths_that_do_not_fit(data: Data, inspect: Inspect) -> None:
    for fields in data.values():
        fields["audio_lengths"] = [12, *fields["audio_lengths"][1:]]
        fields["vision_lengths"] = [min(9, i) for i in fields["vision_lengths"]]
    found = inspect(data)
    assert odd(
        found, "train: audio_lengths and vision_lengths look swapped: up to 12 and 8, but there are 9 and 12 steps"
    )
    assert found.refusal is not None
    assert "look swapped" in found.refusal
    assert found.next == ()


def test_swapped_lengths_that_would_fit(data: Data, inspect: Inspect) -> None:
    """The reader cannot see it from the numbers alone; the values tell."""
    for fields in data.values():
        n = len(fields["id"])
        own = {"audio": 1 + np.arange(n) % 4, "vision": 5 + np.arange(n) % 4}
        for m, lengths in own.items():
            steps = np.arange(STEPS[m])
            fields[m] = np.ones((n, STEPS[m], 2)) * (steps < lengths[:, None])[:, :, None]
        fields |= {"audio_lengths": own["vision"], "vision_lengths": own["audio"]}
    found = inspect(data)
    assert odd(found, "look swapped: the values end where the other's length says in 100% of the samples")
    assert odd(found, "train: vision: 7 samples have values beyond their length")


def test_padding_at_the_front(data: Data, inspect: Inspect) -> None:
    for fields in data.values():
        for i, length in enumerate(fields["vision_lengths"]):
            fields["vision"][i] = np.roll(fields["vision"][i], 12 - length, axis=0)
    assert odd(inspect(data), "test: vision is padded at the front (moved to the end when read)")


@pytest.mark.parametrize(
    ("rows", "lengths", "side"),
    [
        ([[1, 1, 0], [1, 0, 0]], None, "end"),
        ([[0, 1, 1], [0, 0, 1]], None, "front"),
        ([[0, 1, 1], [1, 0, 0]], None, "both"),
        ([[1, 1, 1], [0, 0, 0]], None, "none"),
        ([[0, 1, 0], [1, 1, 0]], [2, 2], "end"),  # a first step of zeros inside the length
        ([[0, 0, 1], [0, 1, 1]], [1, 2], "front"),
        ([[1, 0, 1], [1, 1, 1]], [1, 2], "none"),
    ],
)
def test_padding_side(rows: list[list[int]], lengths: list[int] | None, side: str) -> None:
    assert padding_side(np.array(rows) == 1, None if lengths is None else np.array(lengths)) == side


def test_token_rows() -> None:
    ids = [[101, 7, 102, 0], [5, 101, 102, 0], [101, 7, 7, 0]]
    mask = [[1, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0]]
    found = token_facts(np.stack([ids, mask, np.zeros((3, 4))], axis=1))
    assert found is not None
    assert (found.samples, found.prefix, found.begin, found.end, found.largest) == (3, 2, 2, 1, 102)
    assert not found.sound


def test_odd_tokens_are_said(data: Data, inspect: Inspect) -> None:
    data["test"]["text_bert"][0, 0, 0] = 7
    assert odd(inspect(data), "test: text_bert: of 6 samples 6 have a mask of ones then zeros, 5 begin with [CLS]")


def test_presence_and_empty_samples(data: Data, inspect: Inspect) -> None:
    data["train"]["vision"][:2] = 0
    assert odd(inspect(data), "train: vision: 2 samples are all zero")
    data["train"]["vision_present"] = np.arange(7) > 1
    found = inspect(data)
    assert not odd(found, "all zero")
    vision = next(f for f in found.splits[0].fields if f.name == "vision")
    assert vision.present is not None
    np.testing.assert_allclose((vision.present, vision.empty), (5 / 7, 2))


def test_what_would_be_refused_is_shown_all_the_same(data: Data, inspect: Inspect) -> None:
    data["train"]["id"][1] = data["train"]["id"][0]
    del data["valid"]
    found = inspect(data)
    assert found.refusal is not None
    assert "expected a dict under 'valid'" in found.refusal
    assert [s.name for s in found.splits] == ["train", "test"]
    assert odd(found, "train: 1 ids come more than once")
    assert odd(found, "valid is missing")


def test_videos_in_two_splits(data: Data, inspect: Inspect) -> None:
    data["test"]["id"][0] = "train0$_$99"
    assert odd(inspect(data), "test: 1 groups (videos) are also in train")


def test_other_layouts_are_named(data: Data, inspect: Inspect) -> None:
    for fields in data.values():
        fields["labels"] = fields.pop("regression_labels")[:, None, None]
    found = inspect(data)
    assert found.kind == "a pickle, MultiBench layout"
    assert found.refusal is not None
    assert odd(found, "labels stand under 'labels'")
    assert inspect([1, 2]).kind == "a pickle of a list"
    assert "GCNet's labels of CMU-MOSI" in inspect(tuple(range(7))).kind
    assert inspect({"a": 1}).kind == "a pickle, no layout known here"


JUNK: list[Any] = [
    None,
    "x",
    {},
    [],
    [[1, 2], [3]],
    np.array(["a"]),
    np.array([{}], object),
    np.zeros((0, 3, 2)),
    5,
    np.ones(3),
]


@pytest.mark.parametrize("junk", JUNK, ids=str)
@pytest.mark.parametrize(
    "key", ["id", "text", "audio", "audio_lengths", "regression_labels", "text_bert", "vision_present"]
)
def test_anything_in_the_place_of_a_field_is_survived(key: str, junk: Any, data: Data, inspect: Inspect) -> None:
    data["test"][key] = junk
    found = inspect(data)
    assert len(found.splits) == 3
    if key != "text_bert":
        assert found.refusal is not None


def test_arrays_by_name(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    found = inspect_path(tmp_path / "x.npz")
    assert (found.kind, found.refusal) == ("a .npz file", None)
    assert [(s.samples, s.groups) for s in found.splits] == [(6, 3), (3, 2), (4, 2)]
    np.savez(tmp_path / "y.npz", **{k: v for k, v in arrays.items() if k != "test/audio"})
    found = inspect_path(tmp_path / "y.npz")
    assert found.refusal is not None
    assert "test/audio: expected this array" in found.refusal


def test_converted_datasets(dataset: Dataset, tmp_path: Path) -> None:
    write_stored(dataset, tmp_path / "x.msa")
    found = inspect_path(tmp_path / "x.msa")
    assert (found.kind, found.findings, found.refusal) == ("a converted dataset (.msa), small", (), None)
    assert not any(line.startswith("msabench convert") for line in found.next)
    x = np.load(tmp_path / "x.msa/test/audio.npy")
    np.save(tmp_path / "x.msa/test/audio.npy", x + 1)
    assert odd(inspect_path(tmp_path / "x.msa"), "its content is not what was converted (other fingerprint)")
    (tmp_path / "x.msa/test/audio.npy").unlink()
    found = inspect_path(tmp_path / "x.msa")
    assert found.refusal is not None
    assert "test/audio.npy: cannot be read" in found.refusal


def test_mintrec_tables_are_counted_without_features(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("titles\nS01\tE01\t1\tHello\tGreet\n")
    found = inspect_path(tmp_path)
    assert [(s.name, s.key, s.samples) for s in found.splits][1] == ("valid", "dev.tsv", 1)
    assert found.refusal is not None
    assert "its text is sentences" in found.refusal


class Program:
    def __reduce__(self) -> Any:
        return os.system, ("echo ran > /dev/null",)


def test_nothing_is_run(inspect: Inspect) -> None:
    with pytest.raises(InputError, match=r"refused posix.system|refused nt.system"):
        inspect({"train": Program()})


def test_the_real_file() -> None:
    folder = Path(os.environ.get("MSABENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / "mosi_public.pkl").is_file():
        pytest.skip("mosi_public.pkl is not here (set MSABENCH_DATA to its folder)")
    found = inspect_path(folder / "mosi_public.pkl")
    assert found.likely is not None
    assert (found.likely.title, found.likely.match, found.refusal, found.findings) == ("CMU-MOSI", "exact", None, ())
    assert [(s.samples, s.groups) for s in found.splits] == [(1284, 52), (229, 10), (686, 31)]
    assert [s.tokens.sound for s in found.splits if s.tokens is not None] == [True] * 3
    assert [s.labels[0].zeros for s in found.splits] == [53, 13, 30]
    vision = [next(f for f in s.fields if f.name == "vision") for s in found.splits]
    np.testing.assert_allclose([f.present for f in vision], [0.46, 0.15, 0.19], atol=0.005)
    assert [round((1 - (f.present or 0)) * f.shape[0]) for f in vision] == [f.empty for f in vision]
