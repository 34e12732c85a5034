"""QA-MoE against its equations, written out with NumPy and loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec, Output
from robustbench_msa.models.qa_moe import QAMoE, QAMoEConfig, gaussian_nll

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = QAMoEConfig(d_model=6, num_experts=5, top_k=2, conv_layers=0)


def make_batch(n: int = 7) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(n, 4, d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    return Batch(**x, labels=torch.linspace(-3, 3, n))


def make_model(**options: object) -> QAMoE:
    torch.manual_seed(0)
    model = QAMoE(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.7)
    return model.eval()


def run(model: QAMoE, batch: Batch | None = None) -> Output:
    with torch.no_grad():
        return model(batch if batch is not None else make_batch())


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reference(model: QAMoE, u: dict[str, Array]) -> tuple[float, float, list[float], list[Array]]:
    """Eq. 4 to 9 for one sample from its u_m: value, log-variance, r, gates."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    c = model.config

    def affine(prefix: str, x: Array) -> Array:
        return w[f"{prefix}.weight"] @ x + w[f"{prefix}.bias"]

    y, scores, gates = [], [], []
    for m in MODALITIES:
        mu = affine(f"mu.{m}", u[m])  # eq. 4
        if c.quality_predictor == "affine":
            pre = affine(f"quality.{m}", u[m])
        else:
            pre = affine(f"quality.{m}.2", np.maximum(affine(f"quality.{m}.0", u[m]), 0))
        variance = np.log1p(np.exp(pre))  # eq. 5
        r = 1 / (1 + sum(variance) / len(variance))  # eq. 6
        g = np.exp(w["w_g.weight"] @ mu)
        g = g / g.sum()
        for i in np.argsort(g)[: c.num_experts - c.top_k]:
            g[i] = 0
        if c.renormalise:
            g = g / g.sum()
        mixture = np.zeros(c.d_model)
        for i in range(c.num_experts):
            both = mu @ w["experts.weight"][i] + w["experts.bias"][i, 0]
            mixture += g[i] * both[: c.d_model] * sigmoid(both[c.d_model :])  # a GLU
        y.append(r * mixture + (1 - r) * w["y_prior"])  # eq. 7
        scores.append(float(r))
        gates.append(g)
    joined = np.concatenate(y) if c.fusion == "mlp" else np.mean(y, axis=0)
    joined = (joined - joined.mean()) / np.sqrt(joined.var() + 1e-5) * w["fusion.0.weight"] + w["fusion.0.bias"]
    h = torch.nn.functional.gelu(torch.from_numpy(affine("fusion.1", joined))).numpy()
    return affine("value", h)[0], affine("log_variance", h)[0], scores, gates  # eq. 8, 9


@pytest.mark.parametrize(
    "options",
    [{}, {"quality_predictor": "affine"}, {"renormalise": False}, {"fusion": "mean"}, {"top_k": 5}, {"top_k": 1}],
    ids=str,
)
def test_equations_3_to_9(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    output = run(model, batch)
    with torch.no_grad():
        encoded = model.encode(batch)
    for i in range(len(batch)):
        u = {m: encoded.part(m)["u"][i].double().numpy() for m in MODALITIES}
        value, log_variance, r, gates = reference(model, u)
        np.testing.assert_allclose(output.prediction[i], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.extras["log_variance"][i], log_variance, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.extras["r"][i], r, rtol=1e-4)
        np.testing.assert_allclose(output.extras["gates"][i], np.concatenate(gates), rtol=1e-4, atol=1e-6)


def test_equation_10_against_torch_distributions() -> None:
    g = torch.Generator().manual_seed(1)
    value, log_variance, y = torch.randn(3, 50, generator=g)
    normal = torch.distributions.Normal(value, torch.exp(0.5 * log_variance))
    expected = -normal.log_prob(y).mean() - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(gaussian_nll(value, log_variance, y), expected)


def test_loss_is_the_nll_of_both_heads() -> None:
    model, batch = make_model(), make_batch()
    output, labels = run(model, batch), batch.labels
    assert labels is not None
    expected = gaussian_nll(output.prediction, output.extras["log_variance"], labels)
    np.testing.assert_allclose(model.loss(batch)["total"].item(), expected, rtol=1e-5)


def test_r_is_in_the_unit_interval_and_gates_keep_k_experts() -> None:
    model = make_model()
    extras = run(model, make_batch(50)).extras
    assert extras["r"].shape == (50, 3)
    assert ((extras["r"] > 0) & (extras["r"] <= 1)).all()
    gates = extras["gates"].view(50, 3, 5)
    np.testing.assert_array_equal((gates > 0).sum(dim=2), 2)
    np.testing.assert_allclose(gates.sum(dim=2), 1, rtol=1e-6)
    kept = run(make_model(renormalise=False), make_batch(50)).extras["gates"].view(50, 3, 5)
    assert (kept.sum(dim=2) < 1).all()
    torch.testing.assert_close(kept / kept.sum(dim=2, keepdim=True), gates)


def set_variance(model: QAMoE, pre_activation: float) -> QAMoE:
    """sigma_m^2 = softplus(pre_activation) for every input."""
    with torch.no_grad():
        for predictor in model.quality.values():
            predictor[2].weight.zero_()
            predictor[2].bias.fill_(pre_activation)
    return model


def test_exploding_variance_falls_back_to_the_prior() -> None:
    """r -> 0: every sample gets y_prior, whatever it holds; without the prior, nothing at all."""
    model = set_variance(make_model(), 1e9)
    output = run(model)
    np.testing.assert_allclose(output.extras["r"], 0, atol=1e-6)
    np.testing.assert_allclose(output.prediction, output.prediction[0].expand(7), atol=1e-5)
    with torch.no_grad():
        model.y_prior.mul_(-1)
        assert (run(model).prediction - output.prediction).abs().min() > 1e-3
        mu = torch.randn(4, 6)
        nothing = make_model(no_prior=True).refine(mu, torch.zeros(4), torch.full((4, 5), 0.2))
    np.testing.assert_array_equal(nothing, 0)


def test_no_prior_ablation_is_eq_7_without_its_second_term() -> None:
    full, ablated = make_model(), make_model(no_prior=True)
    assert (run(full).prediction - run(ablated).prediction).abs().max() > 1e-3
    with torch.no_grad():
        full.y_prior.zero_()
    torch.testing.assert_close(run(full).prediction, run(ablated).prediction)


def test_no_quality_gating_ablation_is_r_equal_to_one() -> None:
    full, ablated = make_model(), make_model(no_quality_gating=True)
    assert (run(full).prediction - run(ablated).prediction).abs().max() > 1e-3
    np.testing.assert_array_equal(run(ablated).extras["r"], 1)
    torch.testing.assert_close(run(set_variance(full, -100.0)).prediction, run(ablated).prediction)  # sigma^2 = 0


def test_no_variance_ablation_reads_quality_off_the_mean() -> None:
    model, batch = make_model(no_variance=True, quality_predictor="affine"), make_batch()
    with torch.no_grad():
        mu = model.mu["audio"](model.encode(batch).audio["u"])
        expected = torch.sigmoid(model.quality["audio"](mu))[:, 0]
    torch.testing.assert_close(run(model, batch).extras["r"][:, 1], expected)


def test_experts_and_router_are_shared_projections_are_not() -> None:
    names = dict(make_model().named_parameters())
    assert names["experts.weight"].shape == (5, 6, 12)
    assert names["w_g.weight"].shape == (5, 6)
    assert names["y_prior"].shape == (6,)
    assert all(f"mu.{m}.weight" in names and f"quality.{m}.2.weight" in names for m in MODALITIES)


def test_large_errors_raise_the_variance_that_lowers_r() -> None:
    """Sec. 3.5: the gradient of eq. 10 reaches sigma_m^2 through r_m alone; it is not zero."""
    model = make_model()
    model.loss(make_batch())["total"].backward()
    for m in MODALITIES:
        assert model.quality[m][2].weight.grad.abs().sum() > 0


def test_the_papers_numbers() -> None:
    paper, recipe = QAMoE.presets["mosi"], QAMoE.optimisation["mosi"]
    assert (paper.num_experts, paper.top_k, paper.d_model, paper.dropout) == (8, 3, 128, 0.1)
    assert (recipe.optimizer, recipe.weight_decay, recipe.batch_size, recipe.epochs) == ("adam", 1e-5, 16, 30)
    assert (recipe.grad_clip, recipe.schedule) == (1.0, "cosine")
    assert all(o.learning_rate in (1e-3, 5e-4, 1e-4) for o in QAMoE.optimisation.values())


def test_bad_options() -> None:
    with pytest.raises(InputError, match="top_k must be between 1 and num_experts=8; got 9"):
        QAMoEConfig(top_k=9)
    with pytest.raises(InputError, match="quality_predictor must be one of mlp, affine"):
        QAMoEConfig(quality_predictor="linear")
