"""IEMOCAP in GCNet's layout: a small one made here, five sessions of two dialogues."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.data.iemocap import CLASSES, FEATURES, read_iemocap, validation_dialogues
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.data.stored import write_stored

DIALOGUES = [f"Ses0{s}F_impro0{i}" for s in range(1, 6) for i in (1, 2)]
DIMS = {"text": 6, "audio": 4, "vision": 3}


def labels() -> tuple[Any, ...]:
    ids = {d: [f"{d}_F000", f"{d}_M000", f"{d}_F001"] for d in DIALOGUES}
    classes = {d: [k % 4, (k + 1) % 4, 0] for k, d in enumerate(DIALOGUES)}
    speakers = {d: ["F", "M", "F"] for d in DIALOGUES}
    sentences = {d: ["a", "b", "c"] for d in DIALOGUES}
    return ids, classes, speakers, sentences, set(DIALOGUES[:8]), set(DIALOGUES[8:])


def vector(utterance: str, d: int) -> Any:
    return np.random.default_rng(sum(map(ord, utterance)) + d).normal(size=d).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = labels()
    (tmp_path / "IEMOCAP_features_raw_4way.pkl").write_bytes(pickle.dumps(data, protocol=2))
    for modality, name in FEATURES.items():
        (tmp_path / "features" / name).mkdir(parents=True)
        for utterance in (u for ids in data[0].values() for u in ids):
            path = tmp_path / "features" / name / utterance
            if modality == "vision":  # a file for each of the two faces
                path.mkdir()
                for face in "FM":
                    np.save(path / f"{face}.npy", vector(utterance + face, DIMS[modality]))
            else:
                np.save(f"{path}.npy", vector(utterance, DIMS[modality]))
    return tmp_path


def test_folds_are_sessions(folder: Path) -> None:
    for fold in range(1, 6):
        dataset = load_dataset(f"iemocap4:fold={fold}", folder)
        assert (dataset.name, dataset.profile) == (f"iemocap4-fold{fold}", "classification")
        sessions = {s: {g[4] for g in b.groups} for s, b in dataset.splits.items()}
        assert sessions["test"] == {str(fold)}
        assert str(fold) not in sessions["train"] | sessions["valid"]
        assert [len(dataset.splits[s]) for s in ("train", "valid", "test")] == [21, 3, 6]
        train, valid = (set(dataset.splits[s].groups) for s in ("train", "valid"))
        assert not train & valid
        assert valid == validation_dialogues([d for d in DIALOGUES if d[4] != str(fold)])


def test_values_labels_and_faces_of_the_speaker(folder: Path) -> None:
    dataset = read_iemocap(folder / "IEMOCAP_features_raw_4way.pkl", "iemocap4", 1)
    test = dataset.splits["test"]
    assert test.ids[:3] == ("Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses01F_impro01_F001")
    assert test.groups[:3] == ("Ses01F_impro01",) * 3
    assert test.labels is not None
    assert test.labels.tolist() == [0, 1, 0, 1, 2, 0]
    assert dataset.classes == CLASSES["iemocap4"]
    assert dataset.dims == (6, 4, 3)
    for i, utterance in enumerate(test.ids):
        np.testing.assert_array_equal(test.text[i, 0], vector(utterance, 6))
        np.testing.assert_array_equal(test.vision[i, 0], vector(utterance + utterance[-4], 3))


def test_sequences_are_averaged_over_time(folder: Path) -> None:
    path = folder / "features" / FEATURES["audio"] / "Ses01F_impro01_F000.npy"
    rows = np.arange(12.0).reshape(3, 4)
    np.save(path, rows)
    np.testing.assert_array_equal(read_iemocap(folder, "iemocap4", 1).splits["test"].audio[0, 0], rows.mean(axis=0))


def test_utterances_without_a_face_lack_vision(folder: Path) -> None:
    faces = folder / "features" / FEATURES["vision"]
    np.save(faces / "Ses01F_impro01_F000" / "F.npy", np.zeros(3))
    (faces / "Ses01F_impro01_M000" / "M.npy").unlink()
    dataset = read_iemocap(folder, "iemocap4", 1)
    assert dataset.splits["test"].present[:, 2].tolist() == [False, False, True, True, True, True]
    assert "test: vision is present in 66.7% of the samples" in dataset.notes


def test_other_folders_of_features(folder: Path) -> None:
    own = folder / "features" / "mine"
    own.mkdir()
    for utterance in (u for ids in labels()[0].values() for u in ids):
        np.save(own / f"{utterance}.npy", np.full(9, 2.0))
    assert load_dataset("iemocap4:fold=2,text=mine", folder).dims == (9, 4, 3)
    with pytest.raises(InputError, match=r"yours: expected a folder of .npy files.*there are .*mine.*\(text=NAME\)"):
        load_dataset("iemocap4:text=yours", folder)
    for bad in ("../mine", "..", "/etc", ".hidden"):
        with pytest.raises(InputError, match="expected the name of a folder below features/"):
            load_dataset(f"iemocap4:text={bad}", folder)


def test_the_last_session_is_the_default(folder: Path) -> None:
    assert load_dataset("iemocap4", folder).fingerprint == load_dataset("iemocap4:fold=5", folder).fingerprint
    assert len({load_dataset(f"iemocap4:fold={f}", folder).fingerprint for f in range(1, 6)}) == 5


def test_a_converted_fold_stays_that_fold(folder: Path, tmp_path: Path) -> None:
    made = load_dataset("iemocap4:fold=2", folder)
    write_stored(made, tmp_path / "two.msa")
    for name in ("iemocap4:fold=2", "iemocap4", "iemocap4-fold2"):
        found = load_dataset(name, tmp_path / "two.msa")
        assert (found.name, found.fingerprint) == (made.name, made.fingerprint)
    with pytest.raises(InputError, match="holds iemocap4-fold2, iemocap4-fold5 was asked for; convert that fold too"):
        load_dataset("iemocap4:fold=5", tmp_path / "two.msa")
    with pytest.raises(InputError, match="holds iemocap4-fold2, iemocap6-fold2 was asked for"):
        load_dataset("iemocap6", tmp_path / "two.msa")


@pytest.mark.parametrize("fold", ["0", "6", "x", ""])
def test_folds_that_are_none(fold: str, folder: Path) -> None:
    with pytest.raises(InputError, match="fold must be 1 to 5, the session that is tested"):
        load_dataset(f"iemocap4:fold={fold}", folder)


def change(index: int, value: Any) -> Callable[[list[Any]], object]:
    return lambda data: data.__setitem__(index, value)


WRONG: dict[str, tuple[Callable[[list[Any]], object], str]] = {
    "five": (lambda d: d.pop(), "a tuple of 6; got a tuple of 5"),
    "lists": (change(0, [1]), "expected dicts from dialogues to utterance ids, labels and speakers"),
    "no sets": (change(4, {}), "expected sets of training and test dialogues"),
    "six classes": (lambda d: d[1].update({DIALOGUES[0]: [5, 0, 0]}), "a label from 0 to 3, got 5; is this the pickle"),
    "float labels": (lambda d: d[1].update({DIALOGUES[0]: [0.5, 0, 0]}), "a label from 0 to 3, got 0.5"),
    "few labels": (lambda d: d[1].update({DIALOGUES[0]: [0]}), "has 3 ids, 1 labels, 3 speakers"),
    "a path as id": (
        lambda d: d[0].update({DIALOGUES[0]: ["../x", "b", "c"]}),
        "'../x': expected an utterance of sess",
    ),
    "other speakers": (lambda d: d[2].update({DIALOGUES[0]: ["X", "M", "F"]}), "by speaker F or M"),
    "twice": (lambda d: d[0].update({DIALOGUES[1]: d[0][DIALOGUES[0]]}), "3 utterance ids come more than once"),
    "one session": (
        lambda d: (d[4].clear(), d[5].clear(), d[4].update(DIALOGUES[:2])),
        "expected sessions 1 to 5, got 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels_are_refused_in_one_line(name: str, folder: Path) -> None:
    data = list(labels())
    WRONG[name][0](data)
    (folder / "IEMOCAP_features_raw_4way.pkl").write_bytes(pickle.dumps(tuple(data)))
    with pytest.raises(InputError, match=WRONG[name][1]) as error:
        read_iemocap(folder, "iemocap4", 5)
    assert "\n" not in str(error.value)


def test_wrong_features_are_refused(folder: Path) -> None:
    path = folder / "features" / FEATURES["text"] / "Ses01F_impro01_F000.npy"
    np.save(path, np.ones(7))
    with pytest.raises(InputError, match="expected 6 features as in the others, got 7"):
        read_iemocap(folder, "iemocap4", 1)
    np.save(path, np.array([{}], object))
    with pytest.raises(InputError, match="Python objects, which are pickles"):
        read_iemocap(folder, "iemocap4", 1)
    for file in (folder / "features" / FEATURES["text"]).glob("Ses01*"):
        file.unlink()
    with pytest.raises(InputError, match="no utterance of test has any"):
        read_iemocap(folder, "iemocap4", 1)


def test_the_name_must_fit(folder: Path) -> None:
    with pytest.raises(InputError, match="this is an IEMOCAP folder in GCNet's layout; type --dataset iemocap4 or iem"):
        load_dataset("mosi", folder)
    with pytest.raises(InputError, match=r"got tuple .*--dataset iemocap4 or iemocap6"):
        load_dataset("mosi", folder / "IEMOCAP_features_raw_4way.pkl")
    with pytest.raises(InputError, match=r"IEMOCAP_features_raw_6way.pkl.* no such file"):
        load_dataset("iemocap6", folder)
    with pytest.raises(InputError, match="its text is one vector an utterance, got text 'tokens'"):
        load_dataset("iemocap4", folder, "tokens")
    with pytest.raises(InputError, match="IEMOCAP is called iemocap4 or iemocap6 here, got 'iemocap5'"):
        load_dataset("iemocap5", folder)
