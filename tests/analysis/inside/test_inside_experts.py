"""RIDER-MoE's semantic checks by loops, and correlations with factors that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corruptions import InputError
from robustbench_msa.analysis.inside.experts import FACTORS, dir_checks, factor_table, semantic_checks
from robustbench_msa.data.synth import make_synth, true_factors
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.late_fusion import LateFusion
from robustbench_msa.models.rider_moe import RIDERMoE, RIDERMoEConfig

SIZES = (8, 4, 60)
DATA = make_synth(seed=5, sizes=SIZES)
TEST = DATA.splits["test"]
CONFIG = {"d_model": 8, "expert_layers": 1, "expert_heads": 2, "d_ff": 8}


def tiny(**changes) -> RIDERMoE:
    torch.manual_seed(0)
    return RIDERMoE(InputSpec(DATA.dims), RIDERMoEConfig(**CONFIG, **changes)).eval()


def by_loops(y_e, pi, y) -> dict[str, float]:
    """Eq. 55 to 58, sample by sample. Views 0, -T, -A, -V; experts U_T, U_A, U_V, R, S."""
    n = len(y)
    found = {}
    for m, keeping in enumerate(((2, 3), (1, 3), (1, 2))):
        found["delta_U_" + "TAV"[m]] = np.mean([[abs(y_e[i, 0, m] - y_e[i, p, m]) for p in keeping] for i in range(n)])
    found["delta_U_avg"] = np.mean([found[f"delta_U_{m}"] for m in "TAV"])
    found["Var_R"] = np.mean([np.var([y_e[i, p, 3] for p in range(4)], ddof=1) for i in range(n)])
    found["Off_S"] = np.mean([[abs(y_e[i, p, 4]) for p in (1, 2, 3)] for i in range(n)])
    synergy = [pi[i, 4] * y_e[i, 0, 4] for i in range(n)]
    delta = [y[i] - sum(pi[i, e] * y_e[i, 0, e] for e in range(4)) for i in range(n)]
    found["residual_correlation"] = np.corrcoef(synergy, delta)[0, 1]
    return found


def test_checks_against_loops() -> None:
    rng = np.random.default_rng(0)
    y_e, pi, y = rng.normal(size=(40, 4, 5)), rng.dirichlet(np.ones(5), 40), rng.normal(size=40)
    table = semantic_checks(y_e, pi, y, np.repeat(np.arange(8), 5)).set_index("check")
    for name, value in by_loops(y_e, pi, y).items():
        assert table.loc[name, "value"] == pytest.approx(value), name
        assert table.loc[name, "low"] < value < table.loc[name, "high"]
    assert table.loc["residual_correlation", "better"] == "higher"


def test_perfect_experts() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=30)
    y_e = np.repeat(rng.normal(size=(30, 1, 5)), 4, axis=1)
    y_e[:, 1:, 4] = 0
    pi = np.full((30, 5), 0.2)
    y_e[:, 0, 4] = (y - 0.2 * y_e[:, 0, :4].sum(axis=1)) / 0.2
    table = semantic_checks(y_e, pi, y, np.arange(30)).set_index("check")["value"]
    np.testing.assert_allclose(table.drop("residual_correlation"), 0, atol=1e-12)
    assert table["residual_correlation"] == pytest.approx(1)


def test_a_model_is_checked_on_its_own_views() -> None:
    model = tiny()
    with torch.no_grad():
        encoded = model.encode(TEST)
        y_e = model.masked_views(encoded, TEST.present).double().numpy()
        pi = model(TEST).extras["routing"].double().numpy()
    table = dir_checks(model, TEST).set_index("check")["value"]
    for name, value in by_loops(y_e, pi, TEST.labels.double().numpy()).items():
        assert table[name] == pytest.approx(value, rel=1e-4), name


def test_what_cannot_be_checked() -> None:
    with pytest.raises(InputError, match="expected a RIDER-MoE with its five experts"):
        dir_checks(tiny(single_expert=True), TEST)
    other = LateFusion(InputSpec(DATA.dims), LateFusion.presets["synth"]).eval()
    with pytest.raises(InputError, match="expected a RIDER-MoE"):
        dir_checks(other, TEST)
    with pytest.raises(InputError, match="eval mode"):
        dir_checks(tiny().train(), TEST)
    with pytest.raises(InputError, match="labels"):
        dir_checks(tiny(), TEST.replace(labels=None))


def synth_run(made, outputs, extra="experts", model="rider_moe", seed=5, labels=None):
    given = {"ids": list(TEST.ids), "groups": list(TEST.groups)}
    y = TEST.labels.numpy() if labels is None else labels
    parameters = {"generator": "synth", "seed": seed, "sizes": list(SIZES)}
    made.add(
        lambda cell: {"y_pred": y, "y_true": y, extra: outputs, **given},
        ("noise", "0,0.1"),
        models=(model,),
        seeds=2,
        parameters=parameters,
    )


def factors():
    true = true_factors(5, "test", SIZES)
    return np.stack([true["u_T"], true["u_A"], true["u_V"], true["r"], true["b_T"] * true["b_A"] * true["b_V"]], axis=1)


def test_experts_that_are_the_factors(made) -> None:
    synth_run(made, 2 * factors())
    table = factor_table(made.root)
    own = {"U_T": "u_T", "U_A": "u_A", "U_V": "u_V", "R": "r", "S": "b_T b_A b_V"}
    for severity in ("0", "0.1"):
        at = table[table["severity"] == severity].set_index(["output", "factor"])["correlation"]
        for output, factor in own.items():
            assert at[output, factor] == pytest.approx(1)
            assert all(abs(at[output, other]) < 0.6 for other in FACTORS if other != factor)
    assert list(table["output"].unique()) == [*own, "prediction"]
    assert dict(zip(table["factor"], table["part"], strict=True)) == dict(FACTORS)


def test_other_experts_are_numbered_and_modalities_are_named(made) -> None:
    synth_run(made, factors()[:, :3], extra="unimodal", model="emoe")
    found = list(factor_table(made.root)["output"].unique())
    assert found == ["text alone", "audio alone", "vision alone", "prediction"]


def test_another_synth_is_noticed(made) -> None:
    synth_run(made, factors(), seed=6)
    with pytest.raises(InputError, match="labels are not those of its synth seed"):
        factor_table(made.root)


def test_real_data_has_no_known_factors(made) -> None:
    made.add(
        lambda cell: {"y_pred": np.zeros(60), "experts": np.ones((60, 5))}, ("noise", "0,0.1"), models=("rider_moe",)
    )
    with pytest.raises(InputError, match="true factors are known on synth only"):
        factor_table(made.root)


def test_a_run_without_experts(made) -> None:
    made.add(lambda cell: {"y_pred": np.zeros(60)}, ("noise", "0,0.1"))
    with pytest.raises(InputError, match=r"qa_moe stores no outputs of single experts .*rider_moe \(experts\)"):
        factor_table(made.root)
