"""QA-MoE against its equations, written out with NumPy and loops."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec, Output
from robustbench_msa.models.qa_moe import QAMoE, QAMoEConfig, gaussian_nll
from robustbench_msa.training.settings import override

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


def reference(model: QAMoE, u: dict[str, Array]) -> tuple[Any, float, list[float], list[Array]]:
    """Eq. 4 to 9 for one sample from its u_m: value (logits of classes), log-variance, r, gates."""
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
    value, s = affine("value", h), affine("log_variance", h)[0]  # eq. 8, 9
    return value if model.spec.num_classes else value[0], s, scores, gates


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
        np.testing.assert_allclose(output.prediction[i], value, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.extras["log_variance"][i], log_variance, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.extras["r"][i], r, rtol=1e-5)
        np.testing.assert_allclose(output.extras["gates"][i], np.concatenate(gates), rtol=1e-5, atol=1e-5)


def test_classes_are_a_softmax_at_the_temperature_of_eq_9() -> None:
    """f exp(-s), and L_nll is the negative log-likelihood of softmax(f / sigma^2)."""
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    torch.manual_seed(0)
    model = QAMoE(InputSpec(dims=SPEC.dims, num_classes=3), SMALL).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.7)
    batch, nll = make_batch().replace(labels=labels), 0.0
    output = run(model, batch)
    with torch.no_grad():
        encoded = model.encode(batch)
    for i, y in enumerate(labels.tolist()):
        f, s, r, _ = reference(model, {m: encoded.part(m)["u"][i].double().numpy() for m in MODALITIES})
        np.testing.assert_allclose(output.prediction[i], f / np.exp(s), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.extras["log_variance"][i], s, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.extras["r"][i], r, rtol=1e-5)
        nll += np.log(np.exp(f / np.exp(s)).sum()) - f[y] / np.exp(s)
    losses = model.loss(batch)
    np.testing.assert_allclose(losses["L_nll"].item(), nll / 7, rtol=1e-4)
    assert losses["total"] is losses["L_nll"]


def test_a_wrong_class_raises_the_log_variance_and_a_right_one_lowers_it() -> None:
    """What eq. 10 does with large and small errors (3.5)."""
    f = torch.tensor([[2.0, -1.0, 0.0]])
    for label, sign in ((1, -1), (0, 1)):
        s = torch.zeros(1, requires_grad=True)
        torch.nn.functional.cross_entropy(f * torch.exp(-s)[:, None], torch.tensor([label])).backward()
        assert s.grad is not None
        assert np.sign(s.grad.item()) == sign  # a step goes against the gradient


def encoded_by_hand(model: QAMoE, modality: str, steps: Array) -> Array:
    """u_m ``(d,)`` of one sample from its valid raw steps ``(L, d_m)``: standardise, project, pool, normalise."""
    prefix = f"encoder.{modality}."
    w = {n.removeprefix(prefix): v.double().numpy() for n, v in model.state_dict().items() if n.startswith(prefix)}
    x = (steps - w["standardise.mean"]) / w["standardise.std"]
    h = x @ w["project.weight"].T + w["project.bias"]  # (L, d)
    scores = []
    for t, row in enumerate(h):
        angle = [math.pi * k * (t + 0.5) / len(h) for k in (1, 2, 3, 4)]
        scores.append(w["score.weight"][0] @ np.array([*row, *np.cos(angle), *np.sin(angle)]))
    attention = np.exp(np.array(scores) - max(scores))
    pooled = (attention / attention.sum()) @ h
    return (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5) * w["norm.weight"] + w["norm.bias"]


def test_from_raw_features_to_the_loss() -> None:
    """The whole model by hand, sequences of different lengths, and eq. 10 with it."""
    batch = make_batch().replace(text_lengths=torch.tensor([4, 1, 3, 2, 4, 4, 1]))
    model = make_model()
    model.fit_statistics(batch)
    assert batch.labels is not None
    nll = 0.0
    for i, y in enumerate(batch.labels.tolist()):
        valid = {m: batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy() for m in MODALITIES}
        value, s, _, _ = reference(model, {m: encoded_by_hand(model, m, valid[m]) for m in MODALITIES})
        np.testing.assert_allclose(run(model, batch).prediction[i], value, rtol=1e-5, atol=1e-5)
        nll += (0.5 * math.exp(-s) * (y - value) ** 2 + 0.5 * s) / len(batch)  # eq. 10
    losses = model.loss(batch)
    np.testing.assert_allclose(losses["L_nll"].item(), nll, rtol=1e-5)
    np.testing.assert_allclose(losses["total"].item(), nll, rtol=1e-5)


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


@pytest.mark.parametrize("k", [1, 2, 3, 4, 8])
def test_figure_4_sweeps_the_number_of_active_experts(k: int) -> None:
    model = make_model(num_experts=8, top_k=k)
    gates = run(model, make_batch(20)).extras["gates"].view(20, 3, 8)
    np.testing.assert_array_equal((gates > 0).sum(dim=2), k)
    np.testing.assert_allclose(gates.sum(dim=2), 1, rtol=1e-6)


def test_r_tells_the_mean_variance() -> None:
    """What the docstring says of the extras: eq. 6 solved for the mean of sigma_m^2."""
    model, batch = make_model(), make_batch()
    with torch.no_grad():
        variance = torch.nn.functional.softplus(model.quality["vision"](model.encode(batch).vision["u"]))
    np.testing.assert_allclose(1 / run(model, batch).extras["r"][:, 2] - 1, variance.mean(dim=1), rtol=1e-5)


def test_the_docstring_maps_every_row_to_a_switch_that_exists() -> None:
    """Each NAME=VALUE of its table goes the way of ``msabench train --set NAME=VALUE``."""
    table = [line for line in str(QAMoEConfig.__doc__).splitlines() if line.strip().startswith("|")]
    switches = [dict(re.findall(r"(\w+)=([\w.]+)", line.split("|")[2])) for line in table[2:]]
    rows = [line.split("|")[1].strip() for line in table[2:]]
    assert [row.split(",")[0] for row in rows] == ["table 7"] * 4 + ["figure 4"]
    changed = {name for given in switches for name in given}
    assert changed == {"top_k", "no_quality_gating", "no_variance", "no_prior"}
    for given in switches:
        config, _ = override(QAMoE, "mosi", dict(given), None)
        assert {name: str(asdict(config)[name]).lower() for name in given} == given


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


UNUSED = {
    "none": set[str](),
    "no_quality_gating": {"y_prior", *(f"quality.{m}.{layer}" for m in MODALITIES for layer in (0, 2))},
    "no_variance": set[str](),
    "no_prior": {"y_prior"},
}


@pytest.mark.parametrize("ablation", UNUSED)
def test_gradients_reach_every_parameter_over_an_epoch(ablation: str) -> None:
    """But for those that an ablation takes out of the equations, by name."""
    model = make_model(**({} if ablation == "none" else {ablation: True})).train()
    for start in range(0, 48, 16):
        model.loss(make_batch(48).select(range(start, start + 16)))["total"].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert {name.removesuffix(".weight").removesuffix(".bias") for name in without} == UNUSED[ablation]


def written_out(dims: tuple[int, int, int], c: QAMoEConfig) -> int:
    """The number of parameters, layer by layer."""
    d, n = c.d_model, c.num_experts
    conv = c.conv_layers * (3 * d * d + d)
    encoder = sum(d_in * d + d + conv + (d + 8) + (2 * d if c.normalise else 0) for d_in in dims)
    out = 1 if c.no_variance else d
    quality = d * out + out + (d * d + d if c.quality_predictor == "mlp" else 0)
    experts = n * (2 * d * d + 2 * d)  # a GLU: two affine maps
    width = 3 * d if c.fusion == "mlp" else d
    fusion = 2 * width + width * d + d
    heads = 2 * (d + 1)
    return encoder + 3 * (d * d + d) + 3 * quality + n * d + experts + d + fusion + heads


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality_predictor": "affine"},
        {"no_variance": True},
        {"fusion": "mean"},
        {"conv_layers": 2},
        {"normalise": False},
        {"num_experts": 4},
        {"no_prior": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(("preset", "dims"), [("mosi", (768, 74, 35)), ("synth", (48, 24, 16))])
def test_parameter_count(preset: str, dims: tuple[int, int, int], options: dict[str, object]) -> None:
    config = replace(QAMoE.presets[preset], **options)  # type: ignore[arg-type]
    model = QAMoE(InputSpec(dims), config)
    assert sum(p.numel() for p in model.parameters()) == written_out(dims, config)


def test_it_can_learn_32_samples_by_heart() -> None:
    """With the clipping and the schedule of A.3: the more certain the log-variance, the steeper the gradients."""
    torch.manual_seed(0)
    batch = make_batch(32)
    model = QAMoE(SPEC, QAMoEConfig(d_model=16, num_experts=4, top_k=2, dropout=0.0))
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert batch.labels is not None
    assert (run(model.eval(), batch).prediction - batch.labels).abs().mean() < 0.1


def test_the_papers_numbers() -> None:
    paper, recipe = QAMoE.presets["mosi"], QAMoE.optimisation["mosi"]
    assert (paper.num_experts, paper.top_k, paper.d_model, paper.dropout) == (8, 3, 128, 0.1)
    assert (recipe.optimizer, recipe.weight_decay, recipe.batch_size, recipe.epochs) == ("adam", 1e-5, 16, 30)
    assert (recipe.grad_clip, recipe.schedule) == (1.0, "cosine")
    assert all(o.learning_rate in (1e-3, 5e-4, 1e-4) for o in QAMoE.optimisation.values())
    for name in ("mosei", "sims", "mintrec", "iemocap6"):
        assert (QAMoE.presets[name], QAMoE.optimisation[name]) == (paper, recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8; got 9"),
        ({"top_k": 0}, "top_k must be between 1 and num_experts=8; got 0"),
        ({"quality_predictor": "linear"}, "quality_predictor must be one of mlp, affine"),
        ({"fusion": "sum"}, "fusion must be one of mlp, mean"),
        ({"d_model": 0}, "d_model must be at least 1; got 0"),
        ({"num_experts": 0}, "num_experts must be at least 1; got 0"),
        ({"conv_layers": -1}, "conv_layers must be at least 0; got -1"),
        ({"dropout": 1.5}, "dropout must be at least 0 and below 1; got 1.5"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"qa_moe: {message}"):
        QAMoEConfig(**options)  # type: ignore[arg-type]


def test_active_parameters_leave_out_the_experts_that_are_not_chosen() -> None:
    def active(**config: int) -> int:
        return QAMoE(InputSpec(dims=(6, 5, 4)), QAMoEConfig(d_model=8, **config)).active_parameters()

    one_expert = 8 * 16 + 16  # a gated linear unit of width 8
    assert active(num_experts=8, top_k=8) - active(num_experts=8, top_k=3) == 5 * one_expert
    router = 4 * 8  # four experts more are four more columns of the one router
    assert active(num_experts=8, top_k=3) - active(num_experts=4, top_k=3) == router
