"""Converted datasets: the same dataset comes back, mapped; nothing writes to it; broken ones are refused in a line."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, STRESSORS, Draws, InputError, Reference, Stress
from robustbench_msa.data import stored
from robustbench_msa.data.dataset import SPLITS, Dataset
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.data.stored import HEADER, read_stored, write_stored
from robustbench_msa.data.synth import make_synth


@pytest.fixture
def folder(dataset: Dataset, tmp_path: Path) -> Path:
    write_stored(dataset, tmp_path / "small.msa")
    return tmp_path / "small.msa"


def content(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_it_comes_back(dataset: Dataset, folder: Path) -> None:
    found = read_stored(folder)
    assert found.fingerprint == dataset.fingerprint
    for name in ("name", "profile", "text_at", "notes", "classes", "parameters"):
        assert getattr(found, name) == getattr(dataset, name)
    assert read_stored(folder, "other").name == "other"
    assert list(folder.parent.iterdir()) == [folder]  # no temporary folder is left


def test_derived_inputs_parameters_and_notes_come_back(tmp_path: Path) -> None:
    made = make_synth(3, (6, 4, 5), explanations=True)
    write_stored(made, tmp_path / "x.msa")
    found = read_stored(tmp_path / "x.msa")
    assert (found.fingerprint, found.parameters) == (made.fingerprint, made.parameters)
    for name, derived in found.splits["test"].derived.items():
        assert derived.sources == made.splits["test"].derived[name].sources


def test_tokens_classes_and_unimodal_labels_come_back(dataset: Dataset, tmp_path: Path) -> None:
    batches = {
        s: b.replace(text=torch.arange(len(b) * 5).view(-1, 5), labels=torch.arange(len(b)) % 2)
        for s, b in dataset.splits.items()
    }
    own = {"test": {"audio": torch.linspace(-1, 1, 4)}}
    made = Dataset("x", batches, "classification", "tokens", ("a note",), classes=("no", "yes"), unimodal_labels=own)
    write_stored(made, tmp_path / "x.msa")
    found = read_stored(tmp_path / "x.msa", text="tokens")
    assert (found.fingerprint, found.classes, found.notes) == (made.fingerprint, ("no", "yes"), ("a note",))
    assert found.splits["test"].labels.dtype == torch.int64  # type: ignore[union-attr]
    torch.testing.assert_close(found.unimodal_labels["test"]["audio"], own["test"]["audio"])
    with pytest.raises(InputError, match="its text is tokens, got text 'features'; convert the source again"):
        read_stored(tmp_path / "x.msa", text="features")


def test_values_are_mapped_not_read(folder: Path) -> None:
    found = read_stored(folder)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    assert {line.split()[1] for line in maps} == {"r--s"}
    for split in SPLITS:
        for modality in MODALITIES:
            at = found.splits[split].features(modality).data_ptr()
            file = next(line for line in maps if line.endswith(f"{split}/{modality}.npy"))
            start, end = (int(edge, 16) for edge in file.split()[0].split("-"))
            assert start <= at < end


def test_no_stress_writes_to_the_files(folder: Path) -> None:
    before, found = content(folder), read_stored(folder)
    test = found.splits["test"]
    reference = Reference.fit(found.splits["train"])
    for name in sorted(STRESSORS):
        stress = Stress.parse(name)
        if stress.stressor.needs_adversary:
            continue
        for point in stress.grid(None).points[-2:]:
            _ = stress.apply(test, point, Draws(1, test), reference, test).batch
    assert content(folder) == before


def test_writing_to_mapped_values_ends_the_process_not_the_data(folder: Path) -> None:
    code = f"""
from pathlib import Path
from robustbench_msa.data.stored import read_stored
read_stored(Path({str(folder)!r})).splits["test"].audio.zero_()
"""
    before = content(folder)
    ran = subprocess.run([sys.executable, "-c", code], check=False, timeout=120, env={**os.environ, "PYTHONPATH": "."})
    assert ran.returncode == -signal.SIGSEGV
    assert content(folder) == before


def test_the_registry_reads_it_under_the_name_given(folder: Path) -> None:
    assert load_dataset("mosi", folder).name == "mosi"
    with pytest.raises(InputError, match="is scored by the profile mosi, sims by sims"):
        load_dataset("sims", folder)
    with pytest.raises(InputError, match="is scored by the profile mosi, mintrec by classification"):
        load_dataset("mintrec", folder)


def test_what_is_there_is_not_replaced(dataset: Dataset, folder: Path) -> None:
    before = content(folder)
    with pytest.raises(InputError, match="is already there; remove it, or choose another --out"):
        write_stored(dataset, folder)
    assert content(folder) == before


def test_a_full_disk_is_foreseen(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs 0\.0 GB, the disk has 0\.0 GB left"):
        write_stored(dataset, tmp_path / "x.msa")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored.os, "rename", fails)
    with pytest.raises(OSError, match="No space left"):
        write_stored(dataset, tmp_path / "x.msa")
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_differently_is_not_kept(dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(stored, "read_stored", lambda folder: make_synth(1, (2, 2, 2)))
    with pytest.raises(OSError, match="what was read back is not what was written"):
        write_stored(dataset, tmp_path / "x.msa")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_conversion_is_started_again(dataset: Dataset, tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
from robustbench_msa.data import stored
from robustbench_msa.data.synth import make_synth
stored.os.rename = lambda *a: (print("written", flush=True), time.sleep(100))
stored.write_stored(make_synth(1, (4, 4, 4)), Path({str(tmp_path / "x.msa")!r}))
"""
    env = {**os.environ, "PYTHONPATH": "."}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        (left,) = tmp_path.iterdir()
        assert left.name == f".x.msa.tmp-{process.pid}"
        write_stored(dataset, tmp_path / "y.msa")  # another dataset is none of its business
        assert left.exists()
        process.kill()
    deadline = time.monotonic() + 30
    while stored._alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    write_stored(dataset, tmp_path / "x.msa")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.msa", "y.msa"]


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        header = json.loads((folder / HEADER).read_text())
        change(header)
        (folder / HEADER).write_text(json.dumps(header))

    return apply


def link(name: str, target: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(target or folder.parent / "elsewhere")

    return apply


def replace_array(name: str, x: Any) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / f"{name}.npy", x)


def grow_claim(folder: Path) -> None:
    path = folder / "test/audio.npy"
    path.write_bytes(path.read_bytes().replace(b"(4, 7, 3), }" + b" " * 10, b"(9999999999, 7, 3), }" + b" "))


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no header": (lambda f: (f / HEADER).unlink(), "dataset.json: expected a file"),
    "header is no JSON": (text(HEADER, "{"), "dataset.json: expected JSON, this is broken"),
    "nested without end": (text(HEADER, "[" * 100_000), "dataset.json: expected JSON, this is broken"),
    "header of something else": (text(HEADER, "{}"), "expected the header of a converted dataset"),
    "long header": (text(HEADER, " " * 5_000_000), "dataset.json: expected at most 4,194,304 bytes"),
    "newer": (edit(lambda h: h.update(version=2)), "expected version 1 of the format, got 2"),
    "no name": (edit(lambda h: h.pop("name")), "fields are missing or of the wrong kind"),
    "notes of numbers": (edit(lambda h: h.update(notes=[1])), "fields are missing or of the wrong kind"),
    "no test": (edit(lambda h: h["splits"].pop("test")), "split 'test' is missing or not described"),
    "no samples": (edit(lambda h: h["splits"]["test"].update(samples=0)), "split 'test' is missing or not described"),
    "a path as name": (
        edit(lambda h: h["splits"]["test"]["arrays"].update({"../../x": {"dtype": "<f4", "shape": [4]}})),
        "split 'test' is missing or not described",
    ),
    "other shape": (
        edit(lambda h: h["splits"]["test"]["arrays"]["audio"].update(shape=[4, 3, 7])),
        r"test/audio.npy: the header says <f4 \(4, 3, 7\) for 4 samples, the file holds <f4 \(4, 7, 3\)",
    ),
    "other dtype": (
        edit(lambda h: h["splits"]["test"]["arrays"]["audio"].update(dtype="<f8")),
        "test/audio.npy: the header says <f8",
    ),
    "other samples": (edit(lambda h: h["splits"]["test"].update(samples=5)), "for 5 samples, the file holds"),
    "unknown profile": (edit(lambda h: h.update(profile="x")), "profile must be one of"),
    "no audio": (edit(lambda h: h["splits"]["test"]["arrays"].pop("audio")), "audio is missing; convert the source"),
    "fewer ids": (text("test/samples.json", '{"ids": ["a"], "groups": ["a"]}'), "test: expected 4 distinct ids"),
    "ids of numbers": (text("test/samples.json", '{"ids": [1], "groups": []}'), "expected ids and groups"),
    "40 GB": (grow_claim, "announces 839,999,999,916 bytes of values, the file has 336"),
    "cut": (lambda f: os.truncate(f / "test/audio.npy", 200), "announces 336 bytes of values, the file has 72"),
    "empty": (lambda f: os.truncate(f / "test/audio.npy", 0), "expected a .npy array .*it is empty"),
    "objects": (lambda f: np.save(f / "test/labels.npy", np.array([{}], object)), "Python objects, which are pickles"),
    "linked array": (link("test/audio.npy", ""), "test/audio.npy: .*a symbolic link, which is not followed"),
    "linked header": (link(HEADER, ""), "dataset.json: expected a file, symbolic links are not followed"),
    "linked split": (link("test", ""), "test: expected a folder, symbolic links are not followed"),
    "linked ids": (link("test/samples.json", "/etc/hostname"), "samples.json: expected a file, symbolic links"),
    "NaN": (replace_array("test/audio", np.full((4, 7, 3), np.nan, "f4")), "hold NaN or infinite values"),
    "bad presence": (
        lambda f: (
            edit(lambda h: h["splits"]["test"]["arrays"]["present"].update(shape=[4, 2]))(f),
            replace_array("test/present", np.ones((4, 2), bool))(f),
        ),
        r"lengths and present must be \(N, 3\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_broken_folders_are_refused_in_one_line(name: str, folder: Path) -> None:
    WRONG[name][0](folder)
    with pytest.raises(InputError, match=WRONG[name][1]) as error:
        read_stored(folder)
    assert "\n" not in str(error.value)


def test_labels_outside_the_classes_are_refused(dataset: Dataset) -> None:
    batches = {s: b.replace(labels=torch.arange(len(b))) for s, b in dataset.splits.items()}
    with pytest.raises(
        InputError, match=r"x/train: expected classes 0 to 1 \(no, yes, \.\.\.\), got labels from 0 to 5"
    ):
        Dataset("x", batches, "classification", classes=("no", "yes"))
    with pytest.raises(InputError, match="x/train: expected labels as whole numbers"):
        Dataset("x", dataset.splits, "classification", classes=("no", "yes"))
    with pytest.raises(
        InputError, match="x/test: expected 4 finite labels for one of text, audio, vision, got 'audio'"
    ):
        Dataset("x", dataset.splits, unimodal_labels={"test": {"audio": torch.zeros(3)}})
