"""What is refused in one table, and that the refusal says what differs and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stored_runs import CHANCE, MODEL, Run, request_of

from corruptions import InputError
from robustbench_msa.analysis.merged import together
from robustbench_msa.analysis.mixing import check_mixable
from robustbench_msa.evaluation.records import Planned

MISSING = request_of("missing", "0:0.6:0.2")


@pytest.fixture
def plan(run: Run) -> Planned:
    run.add([MODEL, CHANCE], [MISSING])
    return run.planned


def changed(plan: Planned, **dataset: Any) -> Planned:
    return replace(plan, manifest={**plan.manifest, "dataset": {**plan.manifest["dataset"], **dataset}})


def with_protocols(plan: Planned, **protocols: str) -> Planned:
    return replace(plan, manifest={**plan.manifest, "protocols": protocols})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"name": "mosi"}, "dataset: synth in reports/a, mosi in reports/b"),
        ({"text_at": "tokens"}, "text level: None in reports/a, tokens in reports/b"),
        ({"split": "valid"}, "split: test in reports/a, valid in reports/b"),
        ({"data": "e" * 64}, "the data of synth: fingerprint dddddddd in reports/a, eeeeeeee in reports/b"),
    ],
)
def test_other_data(plan: Planned, what: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as error:
        check_mixable({"reports/a": plan, "reports/b": changed(plan, **what)})
    assert str(error.value).startswith("reports/a and reports/b do not belong in one table; they differ in ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_other_profiles_and_everything_at_once(plan: Planned) -> None:
    other = replace(changed(plan, split="valid"), profile="sims")
    with pytest.raises(InputError, match=r"split: test in a, valid in b; in metric profile: mosi in a, sims in b"):
        check_mixable({"a": plan, "b": other})


def test_the_two_that_differ_are_named_among_three(plan: Planned) -> None:
    with pytest.raises(InputError, match=r"^a and c do not belong"):
        check_mixable({"a": plan, "b": plan, "c": changed(plan, split="valid")})


@pytest.mark.parametrize(
    ("theirs", "refused"),
    [
        (["missing 0:0.4:0.2"], True),
        (["missing 0:0.6:0.2"], False),
        (["missing 0:0.6:0.2", "missing 0:0.4:0.2"], False),  # it went on; the grid that both have is the table's
        (["missing:fill=mean 0:0.4:0.2"], False),  # another parameter is another column
        (["noise 0:0.5:0.1"], False),
        (["noise 0:0.5:0.1", "missing 0:0.4:0.2"], True),
    ],
)
def test_other_grids_of_the_same_stress(plan: Planned, theirs: list[str], refused: bool) -> None:
    other = replace(plan, requests=tuple(request_of(*text.split(" ")) for text in theirs))
    if refused:
        with pytest.raises(InputError, match=r"the grid of missing: 0:0.6:0.2 in a, 0:0.4:0.2 in b"):
            check_mixable({"a": plan, "b": other})
    else:
        check_mixable({"a": plan, "b": other})


def test_protocols(plan: Planned) -> None:
    rider, mine = with_protocols(plan, rider="x"), with_protocols(plan, mine="z")
    check_mixable({"a": rider, "b": plan, "c": with_protocols(plan, rider="x", mine="z")})
    with pytest.raises(InputError, match=r"in protocol: rider in a, mine in b \(give"):
        check_mixable({"a": rider, "b": mine})
    with pytest.raises(InputError, match=r"the text of protocol rider: sha256 2d711642 in a, sha256 a1fce436 in b"):
        check_mixable({"a": rider, "b": with_protocols(plan, rider="y")})


def test_merged_plans_know_all_checkpoints_protocols_and_commands(plan: Planned) -> None:
    first = with_protocols(plan, rider="x")
    first.manifest.update(checkpoints={"1": {"model": "a", "recipe": "clean"}}, commands=["run a"])
    second = replace(plan, requests=(request_of("noise"),))
    second = replace(second, manifest={**plan.manifest, "protocols": {"mine": "z"}, "commands": ["run a", "run b"]})
    second.manifest["checkpoints"] = {"2": {"model": "b"}, "1": {"model": "a", "preflight": []}}
    merged = together([first, second]).manifest
    assert merged["checkpoints"] == {"1": {"model": "a", "recipe": "clean", "preflight": []}, "2": {"model": "b"}}
    assert merged["protocols"] == {"rider": "x", "mine": "z"}
    assert merged["commands"] == ["run a", "run b"]
    assert [request["stress"] for request in merged["requests"]] == ["missing", "noise"]


def test_one_folder_alone_is_fine(plan: Planned, tmp_path: Path) -> None:
    check_mixable({str(tmp_path): plan})
