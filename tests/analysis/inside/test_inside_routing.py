"""Routing weights: means, deviations, RIDER-MoE's U, one part a modality, and what each model calls its experts."""

from __future__ import annotations

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.analysis.inside.routing import importance_table, routing_table, weights_of

N = 60


def test_rider_moe_has_named_experts_and_their_sum(made) -> None:
    pi = np.tile([0.1, 0.2, 0.05, 0.15, 0.5], (N, 1))
    pi[::2] = [0.3, 0.0, 0.05, 0.15, 0.5]
    made.add(lambda cell: {"y_pred": np.zeros(N), "routing": pi}, ("noise", "0,0.1"), models=("rider_moe",))
    table = routing_table(made.root)
    assert list(table["expert"].unique()) == ["U_T", "U_A", "U_V", "R", "S", "U"]
    found = table[table["severity"] == "0.1"].set_index("expert")
    np.testing.assert_allclose(found["mean"], [0.2, 0.1, 0.05, 0.15, 0.5, 0.35], atol=1e-6)
    np.testing.assert_allclose(found["sd"], [0.1, 0.1, 0, 0, 0, 0], atol=1e-6)


def test_intervals_hold_the_mean(made) -> None:
    w = np.random.default_rng(1).dirichlet([2, 1, 1], N)
    made.add(lambda cell: {"y_pred": np.zeros(N), "routing": w}, ("noise", "0,0.1"), models=("emoe",), seeds=2)
    table = routing_table(made.root)
    assert list(table["expert"].unique()) == ["text", "audio", "vision"]
    assert (table["mean_low"] < table["mean"]).all()
    assert (table["mean"] < table["mean_high"]).all()
    np.testing.assert_allclose(table["mean"], np.tile(w.mean(axis=0), 2), rtol=1e-5)
    np.testing.assert_allclose(table["sd"], np.tile(w.std(axis=0), 2), rtol=1e-5)
    assert table["n_seeds"].tolist() == [1, 1, 1, 2, 2, 2]


def test_gates_have_a_part_for_each_modality() -> None:
    gates = np.arange(12.0).reshape(2, 6)
    found = weights_of("qa_moe", {"gates": gates, "r": np.ones((2, 3))})
    assert [(w.part, w.names) for w in found] == [(m, ("expert 1", "expert 2")) for m in ("text", "audio", "vision")]
    np.testing.assert_array_equal(found[1].values, gates[:, 2:4])


def test_names_of_others() -> None:
    found = weights_of("text_moe", {"gate": np.ones((2, 3)), "routing": np.ones((2, 4))})
    assert [(w.extra, w.names) for w in found] == [
        ("routing", ("expert 1", "expert 2", "expert 3", "expert 4")),
        ("gate", ("text", "audio", "vision")),
    ]
    assert weights_of("rider_moe", {"routing": np.ones((2, 1))})[0].names == ("expert 1",)  # a single expert


def test_a_run_without_weights(made) -> None:
    made.add(lambda cell: {"y_pred": np.zeros(N)}, ("noise", "0,0.1"), models=("tfn",))
    with pytest.raises(InputError, match=r"tfn stores no routing weights .*; rider_moe, qa_moe, emoe"):
        routing_table(made.root)


def test_importance_of_a_router_that_knows(made) -> None:
    errors = np.random.default_rng(2).uniform(0.1, 1, (N, 3))
    weights = 1 / errors
    weights /= weights.sum(axis=1, keepdims=True)
    alone = made.labels[:, None] + errors
    extras = {"routing": weights, "unimodal": alone}
    made.add(lambda cell: {"y_pred": np.zeros(N), **extras}, ("noise", "0,0.1"), models=("emoe",))
    table = importance_table(made.root)
    assert (table["agreement"] == 1).all()
    assert (table["rank_correlation"] > 0.4).all()


def test_importance_of_a_router_that_does_not(made) -> None:
    errors = np.tile([0.1, 0.5, 1.0], (N, 1)) + 0.01 * np.random.default_rng(3).uniform(size=(N, 3))
    extras = {"routing": np.tile([0.0, 0.0, 1.0], (N, 1)), "unimodal": made.labels[:, None] - errors}
    made.add(lambda cell: {"y_pred": np.zeros(N), **extras}, ("noise", "0,0.1"), models=("emoe",))
    table = importance_table(made.root)
    assert (table["agreement"] == 0).all()
    assert table["rank_correlation"].isna().all()  # a constant weight ranks nothing
