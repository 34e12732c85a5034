from __future__ import annotations

import pytest

from corruptions import InputError
from robustbench_msa.reporting import entries


def labels(frame, stresses=("missing",)):
    return [entry.label for entry in entries.find_entries(frame, stresses)]


def test_the_mean_over_training_seeds_goes_before_single_seeds(curves):
    rows = [{"train_seed": 1111, "value": 1.0}, {"train_seed": 1112, "value": 3.0}, {"train_seed": None, "value": 2.0}]
    shown = entries.shown(curves(*rows, {"model": "late_fusion", "train_seed": 1111, "value": 5.0}))
    assert shown["value"].tolist() == [2.0, 5.0]


def test_single_seeds_are_all_shown_where_there_is_no_mean_of_that_stress(curves):
    frame = curves(
        {"train_seed": 1111, "stress": "noise"}, {"train_seed": 1112, "stress": "noise"}, {"train_seed": None}
    )
    assert entries.shown(frame)["stress"].tolist() == ["noise", "noise", "missing"]


def test_only_means_over_corruption_seeds_under_a_stress_are_shown(curves):
    frame = curves({"seed": 1111, "value": 1.0}, {"value": 2.0}, {"stress": "clean", "value": 3.0})
    assert entries.stressed(frame)["value"].tolist() == [2.0]


@pytest.mark.parametrize("column", ["dataset", "split", "profile"])
def test_two_evaluations_never_share_a_table(curves, column):
    with pytest.raises(InputError, match=f"expected one {column}, got mosi, other|expected one {column}, got other"):
        entries.shown(curves({}, {column: "other"}))


def test_an_empty_table_is_said(curves):
    with pytest.raises(InputError, match="no rows"):
        entries.shown(curves({})[:0])


def test_recipes_are_left_out_of_labels_when_all_models_are_clean(curves):
    frame = curves({"model": "rider_moe"}, {"model": "qa_moe"}, {"model": "chance", "recipe": ""})
    assert labels(frame) == ["QA-MoE", "RIDER-MoE", "chance"]


def test_recipes_are_all_named_when_one_is_not_clean(curves):
    frame = curves({"recipe": "spectrum"}, {}, {"model": "rider_moe"}, {"model": "oracle", "recipe": ""})
    assert labels(frame) == ["QA-MoE, clean", "QA-MoE, spectrum", "RIDER-MoE, clean", "oracle (bound)"]


def test_one_recipe_that_is_not_clean_is_named_too(curves):
    assert labels(curves({"recipe": "spectrum"})) == ["QA-MoE, spectrum"]


def test_seeds_and_checkpoints_are_named_only_where_they_tell_rows_apart(curves):
    one = {"checkpoint": "a" * 64, "train_seed": 1111}
    assert labels(curves(one)) == ["QA-MoE"]
    assert labels(curves(one, {**one, "train_seed": 1112})) == ["QA-MoE, seed 1111", "QA-MoE, seed 1112"]
    assert labels(curves(one, {**one, "checkpoint": "b" * 64})) == ["QA-MoE, aaaaaaaa", "QA-MoE, bbbbbbbb"]


def test_references_come_last_and_the_oracle_says_what_it_is(curves):
    frame = curves({"model": "chance", "recipe": ""}, {"model": "oracle", "recipe": ""}, {"model": "zzz"})
    assert labels(frame, ["conflict"]) == ["zzz", "oracle (strong reference)", "chance"]
    assert labels(frame, ["conflict", "noise"])[1] == "oracle (bound; under conflict: strong reference)"


def test_order_and_with_it_style_does_not_depend_on_the_order_of_rows(two_stresses):
    shuffled = two_stresses.sample(frac=1, random_state=0)
    assert entries.find_entries(shuffled, []) == entries.find_entries(two_stresses, [])


def test_facts_count_models_and_not_references(curves):
    frame = curves({"n_seeds": 3}, {"n_seeds": 5, "n": 600}, {"model": "chance", "recipe": "", "n_seeds": 1, "n": 1})
    facts = entries.find_facts(frame)
    assert (facts.n, facts.n_seeds, facts.recipes) == ((600, 686), (3, 5), ("clean",))
    assert facts.data() == "CMU-MOSI, test split (600–686 samples, 62 groups)"
    assert facts.seeds() == "3–5 corruption seeds and 1 training seed"
    assert facts.intervals("band") == "band; one training seed: claims about checkpoints, not methods"


def test_facts_without_counts(curves):
    facts = entries.find_facts(curves({}).drop(columns=["n", "n_groups", "n_seeds", "n_train_seeds"]))
    assert (facts.data(), facts.seeds()) == ("CMU-MOSI, test split", "")
    assert facts.intervals("band") == "band"


@pytest.mark.parametrize(
    ("seeds", "claim"),
    [
        ((1, 1), "one training seed: claims about checkpoints, not methods"),
        ((3, 5), "claims about methods: training seeds vary too"),
        ((1, 3), "claims about methods where there are several training seeds, else about checkpoints"),
    ],
)
def test_facts_say_what_intervals_speak_of(curves, seeds, claim):
    facts = entries.find_facts(curves(*({"n_train_seeds": n} for n in seeds)))
    assert facts.intervals("band") == f"band; {claim}"


def test_facts_warn_where_groups_are_few(curves):
    facts = entries.find_facts(curves({"n_groups": 7}, {"n_groups": 31}))
    assert facts.intervals("band").endswith("; only 7 groups: intervals and tests are rough below 20")


def test_metrics_come_in_the_order_asked_for_and_default_to_the_usual_ones(curves):
    frame = curves({"metric": "acc7"}, {"metric": "corr"}, {"metric": "acc2_non0"})
    assert [m.name for m in entries.choose_metrics(frame, None)] == ["acc2_non0", "corr"]
    assert [m.name for m in entries.choose_metrics(frame, ["acc7", "corr"])] == ["acc7", "corr"]
    with pytest.raises(InputError, match="no rows of metric mae; there is acc2_non0, acc7, corr"):
        entries.choose_metrics(frame, ["mae"])
    with pytest.raises(InputError, match="profile mosi has no metric 'acc8'"):
        entries.choose_metrics(frame, ["acc8"])
