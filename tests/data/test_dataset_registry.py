"""Datasets by name."""

import pickle
import re
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa import plugins
from robustbench_msa.data.registry import DATASETS, known_datasets, load_dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.subjects import has_oracle, oracle


def mmsa_file(path, labels):
    def split(n):
        x = {m: np.ones((n, 3, d), np.float32) for m, d in (("text", 4), ("audio", 3), ("vision", 2))}
        return {"id": [f"{path.stem}{n}$_${i}" for i in range(n)], "regression_labels": np.resize(labels, n), **x}

    path.write_bytes(pickle.dumps({"train": split(6), "valid": split(4), "test": split(5)}))
    return path


def test_synth_takes_its_parameters():
    data = load_dataset("synth:seed=2, test=9,train=8,valid=7")
    assert data.name == "synth"
    assert data.fingerprint == make_synth(2, (8, 7, 9)).fingerprint
    assert load_dataset("synth:train=5,valid=4").parameters == make_synth(1111, (5, 4, 686)).parameters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synth:sede=2", r"unknown parameter 'sede' \(did you mean 'seed'\?\); it has seed, train, valid, test"),
        ("synth:seed", "seed must be a whole number"),
        ("synth:seed=-1", "seed must be a whole number"),
        ("synth:test=0", r"test must be a whole number \(1 to 1000000\)"),
        ("synth:test=2e4", "got '2e4'"),
        ("synth:test=999999999", "test must be a whole number"),
        ("synth:seed=1,seed=2", "seed is given twice"),
        ("synht", r"unknown dataset 'synht' \(did you mean 'synth'\?\); known: synth, .*mosi.*--data PATH"),
        ("synth-explained:sede=2", r"synth-explained: unknown parameter 'sede' \(did you mean 'seed'\?\)"),
        ("synth-explaned", r"unknown dataset 'synth-explaned' \(did you mean 'synth-explained'\?\)"),
        ("mosi:seed=2", "only synth, synth-explained, synth-classes, iemocap4, iemocap6 have parameters"),
        ("../mosi", "expected a name of letters"),
        ("", "expected a name of letters"),
        ("mosi", "mosi: expected the path of an MMSA pickle, got none; type --dataset mosi --data PATH/TO/FILE.pkl"),
    ],
)
def test_what_cannot_be_loaded_is_said_with_what_to_type(text, message):
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "profile"),
    [("mosi", "mosi"), ("mosei", "mosi"), ("sims", "sims"), ("simsv2", "sims"), ("my-data_2", "mosi")],
)
def test_files_are_read_under_the_name_given(tmp_path, name, profile):
    data = load_dataset(name, mmsa_file(tmp_path / "file.pkl", np.float32([-1, 0, 0.4])))
    assert (data.name, data.profile, data.dims) == (name, profile, (4, 3, 2))


@pytest.mark.parametrize("name", ["synth", "synth-explained"])
def test_generated_data_reads_no_file(tmp_path, name):
    with pytest.raises(InputError, match=re.escape(f"{name} is made in memory and reads no file")):
        load_dataset(name, tmp_path / "file.pkl")


def test_text_may_be_read_as_tokens(token_file, tmp_path):
    data = load_dataset("mosi", token_file, "tokens")
    assert (data.name, data.text_at, data.dims) == ("mosi", "tokens", (0, 3, 2))
    with pytest.raises(InputError, match="text_bert: expected this key"):
        load_dataset("mosi", mmsa_file(tmp_path / "file.pkl", np.float32([-1, 0, 0.4])), "tokens")
    with pytest.raises(InputError, match="synth: its text is features, got text 'tokens'; ids come from a file's"):
        load_dataset("synth", text="tokens")


def test_synth_explained_takes_the_parameters_of_synth():
    data = load_dataset("synth-explained:seed=2, test=9,train=8,valid=7")
    assert data.name == data.parameters["generator"] == "synth-explained"
    assert data.fingerprint == make_synth(2, (8, 7, 9), explanations=True).fingerprint
    assert data.derived_dims == {"comment": 16, "explanation_audio": 16, "explanation_vision": 16}


def test_the_oracle_is_offered_for_what_it_sees_only():
    """It does not read explanations: where there are any it is no bound."""
    assert has_oracle(load_dataset("synth:train=4,valid=4,test=4"))
    explained = load_dataset("synth-explained:train=4,valid=4,test=4")
    assert not has_oracle(explained)
    with pytest.raises(InputError, match="not on synth-explained"):
        oracle(explained)


def test_every_known_name_has_a_line_for_listings():
    classified = {"synth-classes", "mintrec", "mintrec-binary", "iemocap4", "iemocap6"}
    assert set(DATASETS) == {"synth", "synth-explained", "mosi", "mosei", "sims", "simsv2"} | classified
    assert all(line and "\n" not in line for line in DATASETS.values())


def test_plugins_are_datasets_by_name(monkeypatch, capsys, tmp_path):
    made = make_synth(1, (3, 3, 3))
    seen = []

    def load(data, text):
        seen.append((data, text))
        if text == "tokens":
            raise KeyError("ids")
        return made if text is None else text

    offered = EntryPoint("stage-plays", "plays:load", "msabench.datasets")
    monkeypatch.setattr(plugins, "entry_points", lambda group: {"stage-plays": offered, "mosi": offered})
    monkeypatch.setattr(EntryPoint, "load", lambda self: load)
    found = load_dataset("stage-plays", tmp_path)
    assert (found.name, found.fingerprint) == ("stage-plays", made.fingerprint)
    assert load_dataset("stage-plays").name == "stage-plays"
    assert seen == [(tmp_path, None), (None, None)]
    assert capsys.readouterr().err.count("\n") == 1  # that it is a program is said once
    assert known_datasets()["stage-plays"] == "a plug-in (plays:load)"
    assert known_datasets()["mosi"] == DATASETS["mosi"]  # what is built in cannot be replaced
    with pytest.raises(InputError, match=r"the plug-in plays:load failed \(KeyError: 'ids'\)"):
        load_dataset("stage-plays", text="tokens")
    with pytest.raises(InputError, match="expected a Dataset of the plug-in plays:load, got str"):
        load_dataset("stage-plays", text="features")
    with pytest.raises(InputError, match=r"unknown dataset 'stage-play' \(did you mean 'stage-plays'\?\)"):
        load_dataset("stage-play")


@pytest.mark.parametrize("name", ["mintrec", "iemocap6:fold=2"])
def test_folders_are_asked_for(name):
    with pytest.raises(InputError, match=r"type --dataset (mintrec|iemocap6) --data PATH/TO/FOLDER"):
        load_dataset(name)
