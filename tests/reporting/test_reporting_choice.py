from __future__ import annotations

import pytest

from corruptions import InputError
from robustbench_msa.reporting.choice import MAX_COLOURED, alone, coloured, line_name, named
from robustbench_msa.reporting.entries import Entry


def line(model: str, order: int, recipe: str = "clean", seed: int | None = None) -> Entry:
    return Entry(model, recipe, seed, None, model, model, order)


WHO = [
    *(line(model, i) for i, model in enumerate(("audio_only", "emoe", "lmf", "mine", "misa", "mult", "qa_moe"))),
    line("qa_moe", 7, "spectrum"),
    line("text_moe", 8),
    Entry("chance", "", None, None, "chance", "chance", 9),
]


def test_few_lines_are_all_coloured_in_their_order() -> None:
    assert coloured(WHO[:3]) == tuple(WHO[:3])


def test_of_many_the_readers_own_come_first_then_the_systems_trained_clean() -> None:
    found = [line_name(entry) for entry in coloured(WHO)]
    assert len(found) == MAX_COLOURED
    assert found == ["emoe/clean", "lmf/clean", "mine/clean", "mult/clean", "qa_moe/clean", "text_moe/clean"]


def test_lines_are_chosen_by_model_recipe_and_training_seed() -> None:
    assert [line_name(e) for e in coloured(WHO, ["qa_moe"])] == ["qa_moe/clean", "qa_moe/spectrum"]
    assert [line_name(e) for e in coloured(WHO, ["qa_moe/spectrum", "lmf"])] == ["lmf/clean", "qa_moe/spectrum"]
    assert [e.model for e in named(WHO, ["chance"])] == ["chance"]  # where panels are chosen, references are lines


def test_what_cannot_be_chosen_is_said() -> None:
    with pytest.raises(InputError, match="--model rider: no such line in these results; there is audio_only/clean,"):
        coloured(WHO, ["rider"])
    with pytest.raises(InputError, match=r"8 lines were asked for .* at most 6"):
        coloured(WHO, [entry.model for entry in WHO[:7]])


def test_alone_labels_do_not_tell_lines_from_others() -> None:
    ours = Entry("qa_moe", "clean", 1111, "a" * 64, "QA-MoE, seed 1111", "QA-MoE, clean, seed 1111", 5)
    (found,) = alone([ours])
    assert (found[:4], found.label) == (ours[:4], "QA-MoE")
