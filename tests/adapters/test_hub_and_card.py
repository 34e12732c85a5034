"""Checkpoints on the hub, without a network; cards; and which weights go with which program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch

from corruptions import InputError
from robustbench_msa.adapters.asked import split_asked
from robustbench_msa.adapters.card import read_card
from robustbench_msa.adapters.hub import fetch, is_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def layout(folder: str, config: Any = None) -> Path:
    Path(folder).mkdir(parents=True)
    safetensors.torch.save_file({"w": torch.zeros(2)}, f"{folder}/model.safetensors")
    Path(folder, "config.json").write_text(json.dumps(config or {"hidden": 3}), "utf-8")
    return Path(folder)


class Hub:
    """Stands for the hub: answers from a folder, and keeps what it was asked for."""

    def __init__(self, folder: Path | None, cached: bool = True) -> None:
        self.folder, self.cached, self.asked = folder, cached, list[dict[str, Any]]()

    def __call__(self, **asked: Any) -> str:
        self.asked.append(asked)
        if self.folder is None or (asked["local_files_only"] and not self.cached):
            raise FileNotFoundError("it is not in the cache\nsecond line")
        return str(self.folder)


# --- the hub


@pytest.mark.parametrize("text", ["hub://owner/name@main", "hub:/owner/name@main", Path("hub://owner/name@main")])
def test_two_files_are_asked_for_and_no_others(monkeypatch: pytest.MonkeyPatch, text: Any) -> None:
    hub = Hub(layout(f"snapshots/{COMMIT}"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert is_hub(text)
    assert fetch(text) == (hub.folder, "owner/name", COMMIT)
    assert len(hub.asked) == 1  # what is in the cache is not downloaded
    assert hub.asked[0] == {
        "repo_id": "owner/name",
        "revision": "main",
        "allow_patterns": ["config.json", "model.safetensors"],
        "local_files_only": True,
    }


def test_it_is_downloaded_when_the_cache_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(layout("elsewhere"), cached=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert fetch("hub://owner/name").commit == ""
    assert [asked["local_files_only"] for asked in hub.asked] == [True, False]
    assert fetch("hub://owner/name@v1.0").commit == "v1.0"


def test_what_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(None))
    with pytest.raises(
        InputError, match=r"the hub gives no checkpoint \(FileNotFoundError: it is not in the cache second"
    ):
        fetch("hub://owner/name")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"\x80")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(tmp_path / "pickles"))
    with pytest.raises(InputError, match=r"it has no model.safetensors; pickles are not downloaded"):
        fetch("hub://owner/name")


@pytest.mark.parametrize("text", ["hub://name", "hub://a/b/c", "hub://../x", "hub://a/b@", "hub://a/b@x y"])
def test_names_that_the_hub_cannot_have(text: str) -> None:
    with pytest.raises(InputError, match="expected hub://OWNER/NAME"):
        fetch(text)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install .robustbench-msa\[hub\]"):
        fetch("hub://owner/name")


# --- cards

CARD = {
    "recipe": "missing-random:0.3",
    "train_seed": 7,
    "trained_on": "mosi",
    "selection": {"split": "test", "by": "Acc-2", "value": 0.86},
    "paper": "A. Author et al., 2025",
    "notes": "",
}


def test_a_card_belongs_to_its_weights_or_to_all_in_the_folder() -> None:
    assert read_card(Path("best.pth")) == {"selection": {"split": "unknown"}}
    Path("card.json").write_text('{"selection": "valid"}', "utf-8")
    Path("best.card.json").write_text(json.dumps(CARD), "utf-8")
    assert read_card(Path("best.pth")) == CARD
    assert read_card(Path("last.pth")) == {"selection": {"split": "valid"}}


def test_a_card_in_the_configuration_of_the_hubs_layout() -> None:
    folder = layout("one", {"hidden": 3, "card": {"selection": "test"}})
    assert read_card(folder / "model.safetensors")["selection"] == {"split": "test"}
    assert read_card(layout("two") / "model.safetensors")["selection"] == {"split": "unknown"}
    (folder / "card.json").write_text('{"selection": "none"}', "utf-8")
    assert read_card(folder / "model.safetensors")["selection"] == {"split": "none"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"selction": "test"}', r"unknown key 'selction' \(did you mean 'selection'\?\)"),
        ('{"selection": "dev"}', "selection must say on which split: one of train, valid, test"),
        ('{"selection": {"by": "MAE"}}', "selection must say on which split"),
        ('{"selection": {"split": "valid", "value": "low"}}', "selection has split, and may have by"),
        ('{"selection": {"split": "valid", "value": 1e999}}', "selection has split, and may have by"),
        ('{"selection": {"split": ["valid"]}}', "selection must say on which split"),
        ('{"recipe": "../.."}', "recipe must be a recipe"),
        ('{"recipe": 3}', "recipe must be a recipe"),
        ('{"train_seed": -1}', "train_seed must be a whole number"),
        ('{"train_seed": true}', "train_seed must be a whole number"),
        ('{"paper": "two\\nlines"}', "paper must be one line"),
        ('{"notes": "\\u001b[31m"}', "notes must be one line"),
        ("[" * 100_000, "cannot be read as JSON"),
        (" " * 2_000_000, "larger than"),
    ],
)
def test_cards_that_cannot_be_used(text: str, message: str) -> None:
    Path("card.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_card(Path("best.pth"))
    assert "\n" not in str(caught.value)


# --- what goes with what

OURS = {"format": 1, "model": "qa_moe", "arguments": {}}


def asked(models: list[str], *paths: str) -> tuple[list[tuple[str | None, str | None]], list[str], list[str]]:
    pairs, names, folders = split_asked(models, [Path(path) for path in paths])
    return [(p.program, p.weights and str(p.weights.path)) for p in pairs], names, list(map(str, folders))


def test_which_weights_go_with_which_program() -> None:
    layout("ours", OURS), layout("theirs")
    for name in ("a.pth", "b.pth"):
        Path(name).write_bytes(b"x")
    assert asked(["qa_moe"]) == ([], ["qa_moe"], [])
    assert asked(["qa_moe", "m.py:f"]) == ([("m.py:f", None)], ["qa_moe"], [])
    assert asked(["m.py:f", "p:g"]) == ([("m.py:f", None), ("p:g", None)], [], [])
    assert asked(["m.py:f"], "a.pth", "b.pth") == ([("m.py:f", "a.pth"), ("m.py:f", "b.pth")], [], [])
    assert asked(["m.py:f", "qa_moe"], "ours", "theirs") == ([("m.py:f", "theirs")], ["qa_moe"], ["ours"])
    assert asked([], "a.pth") == ([(None, "a.pth")], [], [])
    assert asked([], "theirs", "nowhere") == (
        [],
        [],
        ["theirs", "nowhere"],
    )  # what is wrong is said where they are read
    assert asked(["m.py:f"], "nowhere.pth") == ([("m.py:f", "nowhere.pth")], [], [])
    with pytest.raises(InputError, match=r"a.pth goes with which of m.py:f, p:g\? Run them one after the other"):
        asked(["m.py:f", "p:g"], "a.pth")


def test_a_checkpoint_of_msabench_on_the_hub_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = layout("ours", OURS), layout("theirs")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(ours))
    assert split_asked(["m.py:f"], [Path("hub://o/n")])[2] == [ours]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(theirs))
    (pair,), _, _ = split_asked(["m.py:f"], [Path("hub://o/n@abc")])
    assert pair.weights == (theirs, "o/n", "abc")
