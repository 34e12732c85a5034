"""Named protocols: the shipped ones hold the papers' grids, and a wrong file is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from corruptions import STRESSORS, InputError, Protocol, Stress
from corruptions.protocols import shipped

GOOD = """
name = "mine"
version = 2
reference = "a paper"
description = '''two
lines'''

[[stress]]
name = "missing-random"
grid = "0:0.6:0.2"
told = true

[[stress]]
name = "noise:sigma_ref=modality"
grid = 0.5
"""
HEAD = 'name = "x"\nversion = 1\nreference = "r"\ndescription = "d"\n'
ENTRY = '[[stress]]\nname = "missing"\ngrid = "0:0.8:0.2"\n'


def grids(protocol: Protocol) -> dict[str, str]:
    return {stress.label: str(grid) for stress, grid in protocol.stresses}


def test_rider_has_the_grids_of_its_paper() -> None:
    protocol = Protocol.load("rider")
    assert grids(protocol) == {"noise": "0:0.5:0.1", "missing": "0:0.8:0.2", "conflict": "0:1:0.25"}
    assert [grid.axes[0] for _, grid in protocol.stresses] == [
        ("0", "0.1", "0.2", "0.3", "0.4", "0.5"),
        ("0", "0.2", "0.4", "0.6", "0.8"),
        ("0", "0.25", "0.5", "0.75", "1"),
    ]


def test_qa_moe_has_the_grids_of_its_paper() -> None:
    protocol = Protocol.load("qa_moe")
    assert grids(protocol) == {
        "missing-fixed": "t,a,v,t+a,t+v,a+v,t+a+v",
        "missing-random": "0:0.7:0.1",
        "noise-lambda": "0:0.7:0.1",
        "spectrum": "0:0.7:0.1x0:0.7:0.1",
    }
    assert [len(grid.points) for _, grid in protocol.stresses] == [7, 8, 8, 64]


@pytest.mark.parametrize(
    ("name", "score", "expected"),
    [
        ("lnln", "grid_mean", {"frame-missing:legacy=lnln": "0:0.9:0.1"}),
        ("tfr", "nauc", {"frame-missing:legacy=lnln": "0:1:0.1"}),
        ("gcnet", "grid_mean", {"missing-random:told=true,variant=keep_one": "0:0.6:0.1"}),
        ("seven-subsets", "grid_mean", {"missing-fixed": "t,a,v,t+a,t+v,a+v,t+a+v"}),
        (
            "imbalanced",
            "nauc",
            {f"imbalanced:weights={w}": "0:0.5:0.1" for w in ("1:1:1", "2:0.5:0.5", "0.5:2:0.5", "0.5:0.5:2")},
        ),
    ],
)
def test_the_field_s_protocols(name: str, score: str, expected: dict[str, str]) -> None:
    protocol = Protocol.load(name)
    assert protocol.score == score
    assert grids(protocol) == expected


def test_wild_is_everything_beyond_the_papers() -> None:
    """All stressors of no paper's protocol, but for the one whose inputs depend on the model."""
    published = {
        part
        for name in shipped()
        if name != "wild"
        for stress, _ in Protocol.load(name).stresses
        for part in stress.name.split("+")
    }
    wild = {part for stress, _ in Protocol.load("wild").stresses for part in stress.name.split("+")}
    assert published | wild == set(STRESSORS) - {"worst-case"}
    assert grids(Protocol.load("wild"))["noise+missing"] == "0:0.4:0.2x0:0.8:0.2"


@pytest.mark.parametrize("name", shipped())
def test_shipped_protocols_are_whole(name: str) -> None:
    protocol = Protocol.load(name)
    assert protocol.name == name
    assert protocol.version >= 1
    assert protocol.reference
    assert "\n" not in protocol.description
    assert protocol.text.startswith(f'name = "{name}"')
    assert {part for stress, _ in protocol.stresses for part in stress.name.split("+")} <= set(STRESSORS)
    assert all(Stress.parse(stress.label) == stress for stress, _ in protocol.stresses)
    assert not any(stress.stressor.needs_adversary for stress, _ in protocol.stresses)  # no shared inputs


def test_a_file_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD, "utf-8")
    protocol = Protocol.load(str(path))
    assert (protocol.name, protocol.version, protocol.description) == ("mine", 2, "two lines")
    assert protocol.text == GOOD
    assert grids(protocol) == {"missing-random:told=true": "0:0.6:0.2", "noise:sigma_ref=modality": "0.5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", r"protocol here: not valid TOML"),
        ("", "protocol here: key 'name' is missing; expected a name of letters, digits, - and _"),
        (HEAD, "key 'stress' is missing"),
        (HEAD + 'author = "me"\n' + ENTRY, "unknown key 'author'"),
        (HEAD.replace("1", '"one"') + ENTRY, "version must be a whole number"),
        (HEAD.replace("1", "true") + ENTRY, "version must be a whole number"),
        (HEAD.replace("1", "0") + ENTRY, "version must be a whole number from 1, got 0"),
        (HEAD.replace('"x"', '"a b"') + ENTRY, "name must be a name of letters, digits, - and _, got 'a b'"),
        (HEAD.replace('"d"', '""') + ENTRY, "description must be a paragraph that says what it does, got ''"),
        (HEAD.replace('"r"', "3") + ENTRY, "reference must be where the protocol comes from, in a line, got 3"),
        (HEAD + 'score = "mean"\n' + ENTRY, "score must be one of nauc, grid_mean, got 'mean'"),
        (HEAD + 'scor = "nauc"\n' + ENTRY, r"unknown key 'scor' \(did you mean 'score'\?\); it has name, version"),
        (HEAD + ENTRY + ENTRY, "missing 0:0.8:0.2 is listed twice"),
        (HEAD + "stress = []", "a list of"),
        (HEAD + '[stress]\nname = "missing"', "a list of"),
        (HEAD + 'stress = ["missing"]', "each .* needs a name and a grid, .*; got 'missing'"),
        (HEAD + '[[stress]]\nname = "missing"', "needs a name and a grid"),
        (HEAD + '[[stress]]\ngrid = "0.2"', "needs a name and a grid"),
        (HEAD + ENTRY.replace("0.8", "1"), r"protocol here: grid '0:1:0.2': 1 is outside"),
        (HEAD + ENTRY.replace("0:0.8:0.2", ""), "not a severity"),
        (HEAD + ENTRY.replace("missing", "mising"), r"unknown stress 'mising' \(did you mean 'missing'\?\)"),
        (HEAD + ENTRY + "told = true", "stress missing: unknown parameter 'told'"),
        (HEAD + ENTRY + 'text = "mask"', "stress missing: unknown parameter 'text'"),
        (HEAD + ENTRY + 'fill = "ones"', "missing:fill: expected one of auto, zeros, mask, unk, mean; got 'ones'"),
        (HEAD + ENTRY + "fill = [1]", "missing:fill: expected one of"),
    ],
)
def test_wrong_files_are_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Protocol.parse(text, "here")


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown protocol 'ridr' \(did you mean 'rider'\?\); known: .*qa_moe, rider"):
        Protocol.load("ridr")
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read"):
        Protocol.load(str(tmp_path / "nowhere.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        Protocol.load(str(tmp_path / "bytes.toml"))
