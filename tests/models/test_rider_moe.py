"""RIDER-MoE against its equations, written out with NumPy and loops over modalities, experts and views."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.rider_moe import (
    EXPERTS,
    VIEWS,
    RIDERMoE,
    RIDERMoEConfig,
    Routing,
    TransformerExperts,
    consensus,
    dir_losses,
    entropy,
    probe_loss,
    reliability,
)
from robustbench_msa.training.settings import override

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = RIDERMoEConfig(d_model=8, expert_layers=2, expert_heads=2, d_ff=12, conv_layers=0)
ABLATIONS = ("no_L_PID", "no_L_syn", "no_L_syn_off", "no_L_syn_res", "no_masked_views")


def make_batch(n: int = 7) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(n, 4, d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    return Batch(**x, labels=torch.linspace(-3, 3, n))


def make_model(**options: object) -> RIDERMoE:
    torch.manual_seed(0)
    model = RIDERMoE(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return model.eval()


def random_probes(n: int = 6) -> Tensor:
    return (2 * torch.randn(n, 3, 7, generator=torch.Generator().manual_seed(2))).softmax(dim=2)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def kl(p: Array, q: Array) -> float:
    return float(sum(p[k] * np.log(p[k] / q[k]) for k in range(len(p))))


def test_entropy_reliability_and_consensus() -> None:
    p, importance = random_probes(), random_probes()[:, :, :3].mean(dim=1).softmax(dim=1)
    h = entropy(p, 1e-8)
    r, score = reliability(h, importance, alpha=0.7), consensus(p, gamma=1.5, epsilon=1e-8)
    for i, (pt, pa, pv) in enumerate(p.double().numpy()):
        entropies = np.array(
            [torch.distributions.Categorical(torch.from_numpy(q)).entropy().item() for q in (pt, pa, pv)]
        )
        np.testing.assert_allclose(h[i], entropies, rtol=1e-5)  # eq. 24
        blend = 0.7 * softmax(-entropies) + 0.3 * importance[i].double().numpy()  # eq. 25, 28
        np.testing.assert_allclose(r[i], blend / blend.sum(), rtol=1e-5)  # eq. 29
        mean = (pt + pa + pv) / 3
        disagree = (kl(pt, mean) + kl(pa, mean) + kl(pv, mean)) / 3  # eq. 30-32
        np.testing.assert_allclose(score[i], np.exp(-1.5 * disagree), rtol=1e-5)  # eq. 33


def test_consensus_is_one_where_probes_agree() -> None:
    agree = random_probes()[:, :1].expand(-1, 3, -1)
    np.testing.assert_allclose(consensus(agree, 1.0, 1e-8), 1, rtol=1e-6)
    certain = torch.eye(7)[[0, 3, 6]][None]  # three certain probes, three answers
    np.testing.assert_allclose(consensus(certain, 1.0, 1e-8), 1 / 3, rtol=1e-5)  # exp(-log 3)


def test_routing_from_the_weights() -> None:
    """Eq. 21 to 39 and eq. 1 for each sample, with the full view's tokens given."""
    model, batch = make_model(lambda_p=1.3, alpha=0.6, gamma=2.0), make_batch()
    with torch.no_grad():
        output = model(batch)
        h = model.replace_absent(model.encode(batch), batch.present)
        z = model.f_fuse(h).flatten(1).double().numpy()
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def affine(prefix: str, x: Array) -> Array:
        return w[f"{prefix}.weight"] @ x + w[f"{prefix}.bias"]

    for i in range(len(batch)):
        p = [softmax(affine(f"probe.{m}", h[i, j].double().numpy())) for j, m in enumerate(MODALITIES)]  # eq. 21-22
        entropies = np.array([-(q * np.log(q)).sum() for q in p])
        blend = 0.6 * softmax(-entropies) + 0.4 * softmax(affine("importance", z[i]))  # eq. 25-28
        r = blend / blend.sum()
        score = np.exp(-2.0 * np.mean([kl(q, np.mean(p, axis=0)) for q in p]))
        prior = softmax(affine("prior", np.array([*r, score])))  # eq. 34-36
        hidden = torch.nn.functional.gelu(torch.from_numpy(affine("router.0", z[i]))).numpy()
        pi = softmax(affine("router.3", hidden) + 1.3 * np.log(prior))  # eq. 37-39
        for name, expected in {"entropy": entropies, "r": r, "consensus": score, "routing": pi}.items():
            np.testing.assert_allclose(output.extras[name][i], expected, rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(output.prediction[i], pi @ output.extras["experts"][i].numpy(), rtol=1e-4, atol=1e-5)


def test_experts_against_torchs_transformer() -> None:
    """One torch encoder per expert, given that expert's slice of the stacked weights."""
    torch.manual_seed(0)
    experts = TransformerExperts(experts=5, layers=2, heads=2, d=8, d_ff=12, dropout=0.3).eval()
    for p in experts.parameters():
        nn.init.normal_(p, std=0.4)
    z = torch.randn(6, 4, 8)
    y = experts(z).squeeze(2)
    assert y.shape == (6, 5)
    for e in range(5):
        x = z
        for block in experts.blocks:
            layer = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True, norm_first=True)
            pairs = [(layer.self_attn.out_proj, block.out), (layer.linear1, block.widen), (layer.linear2, block.narrow)]
            with torch.no_grad():
                layer.self_attn.in_proj_weight.copy_(block.qkv.weight[e].T)
                layer.self_attn.in_proj_bias.copy_(block.qkv.bias[e, 0])
                for theirs, ours in pairs:
                    theirs.weight.copy_(ours.weight[e].T)
                    theirs.bias.copy_(ours.bias[e, 0])
                for norm, our_norm in ((layer.norm1, block.norm_attention), (layer.norm2, block.norm_ff)):
                    norm.weight.copy_(our_norm.weight[e, 0])
                    norm.bias.copy_(our_norm.bias[e, 0])
            layer.eval()
            x = layer(x)
        last = torch.nn.functional.layer_norm(x[:, -1], (8,)) * experts.norm.weight[e] + experts.norm.bias[e]
        expected = last @ experts.scalar.weight[e, :, 0] + experts.scalar.bias[e, 0]
        torch.testing.assert_close(y[:, e], expected, rtol=1e-4, atol=1e-5)


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def normal(x: Array) -> Array:
    return np.asarray((x - x.mean()) / np.sqrt(x.var() + 1e-5))


class ByHand:
    """RIDER-MoE for one sample, from its valid raw steps to every quantity of the paper, in NumPy and loops."""

    def __init__(self, model: RIDERMoE) -> None:
        self.c = model.config
        self.w = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def affine(self, prefix: str, x: Array) -> Array:
        return np.asarray(self.w[f"{prefix}.weight"] @ x + self.w[f"{prefix}.bias"])

    def expert_affine(self, prefix: str, e: int, x: Array) -> Array:
        return np.asarray(x @ self.w[f"{prefix}.weight"][e] + self.w[f"{prefix}.bias"][e, 0])

    def expert_norm(self, prefix: str, e: int, x: Array) -> Array:
        return np.asarray(normal(x) * self.w[f"{prefix}.weight"][e, 0] + self.w[f"{prefix}.bias"][e, 0])

    def encode(self, m: str, steps: Array) -> Array:
        """h_m: standardise, project, pool by attention over steps, normalise."""
        w = {n.removeprefix(f"encoder.{m}."): v for n, v in self.w.items() if n.startswith(f"encoder.{m}.")}
        h = (steps - w["standardise.mean"]) / w["standardise.std"] @ w["project.weight"].T + w["project.bias"]
        scores = []
        for t, row in enumerate(h):
            angle = [math.pi * k * (t + 0.5) / len(h) for k in (1, 2, 3, 4)]
            scores.append(w["score.weight"][0] @ np.array([*row, *np.cos(angle), *np.sin(angle)]))
        return np.asarray(normal(softmax(np.array(scores)) @ h) * w["norm.weight"] + w["norm.bias"])

    def fuse(self, h: list[Array]) -> list[Array]:
        tokens = [self.affine(f"f_fuse.token.{i}", h[i]) for i in range(3)]
        mixed = self.affine("f_fuse.mix.3", gelu(self.affine("f_fuse.mix.0", np.concatenate(h))))
        return [*tokens, self.w["f_fuse.readout"] + mixed]

    def expert(self, e: int, tokens: list[Array]) -> Any:
        """A scalar from the last token."""
        return float(self.outputs(e, tokens)[0])

    def outputs(self, e: int, tokens: list[Array]) -> Array:
        """f_e: pre-norm Transformer layers; what is read off the last token."""
        width = self.c.d_model // self.c.expert_heads
        for layer in range(self.c.expert_layers):
            b = f"experts.blocks.{layer}"
            q, k, v = np.split(
                np.array(
                    [self.expert_affine(f"{b}.qkv", e, self.expert_norm(f"{b}.norm_attention", e, x)) for x in tokens]
                ),
                3,
                axis=1,
            )
            attended = []
            for t, x in enumerate(tokens):
                heads = []
                for s in range(0, self.c.d_model, width):
                    weights = softmax(k[:, s : s + width] @ q[t, s : s + width] / math.sqrt(width))
                    heads.append(weights @ v[:, s : s + width])
                attended.append(x + self.expert_affine(f"{b}.out", e, np.concatenate(heads)))
            tokens = []
            for x in attended:
                wide = gelu(self.expert_affine(f"{b}.widen", e, self.expert_norm(f"{b}.norm_ff", e, x)))
                tokens.append(x + self.expert_affine(f"{b}.narrow", e, wide))
        return self.expert_affine("experts.scalar", e, self.expert_norm("experts.norm", e, tokens[-1]))

    def views(self, h: list[Array]) -> Array:
        """y_e^(p): 4 views by 5 experts (eq. 40-41)."""
        shown = [[self.w["mask"][i] if i == gone else h[i] for i in range(3)] for gone in (None, 0, 1, 2)]
        return np.array([[self.expert(e, self.fuse(view)) for e in range(5)] for view in shown])

    def route(self, h: list[Array]) -> tuple[Array, Array, float, Array]:
        """pi, r, r_bar and the probes' p (eq. 21-39)."""
        c, z = self.c, np.concatenate(self.fuse(h))
        p = np.array([softmax(self.affine(f"probe.{m}", h[i])) for i, m in enumerate(MODALITIES)])  # eq. 21-22
        entropies = -(p * np.log(p + c.epsilon)).sum(axis=1)  # eq. 24
        blend = c.alpha * softmax(-entropies) + (1 - c.alpha) * softmax(self.affine("importance", z))  # eq. 25-28
        r = blend / blend.sum()  # eq. 29
        r_bar = r.mean() if c.r_bar == "as_written" else float(np.mean(1 - entropies / math.log(c.K)))
        score = math.exp(-c.gamma * float(np.mean([kl(q, p.mean(axis=0)) for q in p])))  # eq. 30-33
        prior = softmax(self.affine("prior", np.array([*r, score])))  # eq. 34-36
        base = self.affine("router.3", gelu(self.affine("router.0", z)))  # eq. 37
        return softmax(base + c.lambda_p * np.log(prior + c.epsilon)), r, float(r_bar), p  # eq. 38-39


@pytest.mark.parametrize(
    "options",
    [{}, {"mask": "random", "r_bar": "unnormalised", "lambda_p": 0.5, "gamma": 2.0, "alpha": 0.3}],
    ids=["as_written", "options"],
)
def test_from_raw_features_to_every_loss_term(options: dict[str, object]) -> None:
    """The whole model by hand for sequences of different lengths: prediction, masked views, eq. 2, 3, 23 and 42-52."""
    batch = make_batch().replace(text_lengths=torch.tensor([4, 1, 3, 2, 4, 4, 1]))
    model = make_model(lambda_cls=0.3, lambda_PID=0.7, lambda_syn=1.1, **options)
    model.fit_statistics(batch)
    with torch.no_grad():
        output, views = model(batch), model.masked_views(model.encode(batch), batch.present)
    hand, terms = ByHand(model), []
    assert batch.labels is not None
    for i, y in enumerate(batch.labels.tolist()):
        valid = {m: batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy() for m in MODALITIES}
        h = [hand.encode(m, valid[m]) for m in MODALITIES]
        y_e, (pi, r, r_bar, p) = hand.views(h), hand.route(h)
        np.testing.assert_allclose(views[i], y_e, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.extras["routing"][i], pi, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.prediction[i], pi @ y_e[0], rtol=1e-5, atol=1e-5)  # eq. 1
        level = int(np.round(y)) + 3
        terms.append(
            {"L_task": abs(pi @ y_e[0] - y), "L_cls": sum(-math.log(q[level]) for q in p)}  # eq. 2, 23
            | reference_dir(y_e, pi, r, r_bar, y)
        )
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    expected = {name: float(np.mean([term[name] for term in terms])) for name in terms[0]}
    expected["total"] = expected["L_task"] + sum(
        weight * expected[name] for name, weight in (("L_cls", 0.3), ("L_PID", 0.7), ("L_syn", 1.1))
    )  # eq. 3
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-5, err_msg=name)


def reference_dir(y: Array, pi: Array, r: Array, r_bar: float, label: float) -> dict[str, float]:
    """B.3 for one sample, by explicit loops. y[view][expert] with the views 0, -T, -A, -V."""
    views, of = dict(zip(VIEWS, y, strict=True)), {name: i for i, name in enumerate(EXPERTS)}
    kept = {"T": ["-A", "-V"], "A": ["-T", "-V"], "V": ["-T", "-A"]}  # eq. 42
    uni = 0.0
    for j, m in enumerate("TAV"):
        u = of[f"U_{m}"]
        uni += r[j] * sum((views["0"][u] - views[p][u]) ** 2 for p in kept[m]) / 2  # eq. 43-44
    mean = sum(views[p][of["R"]] for p in VIEWS) / 4
    red = r_bar * sum((views[p][of["R"]] - mean) ** 2 for p in VIEWS) / 4  # eq. 45-46
    off = r_bar**3 * sum(views[p][of["S"]] ** 2 for p in VIEWS[1:]) / 3  # eq. 48
    without = sum(pi[e] * views["0"][e] for e in range(4))  # eq. 49
    res = r_bar**3 * (pi[4] * views["0"][4] - (label - without)) ** 2  # eq. 50-51
    terms = {"L_uni": uni, "L_red": red, "L_PID": uni + red, "L_syn_off": off, "L_syn_res": res, "L_syn": off + res}
    return {name: float(value) for name, value in terms.items()}


class ByHandOfClasses(ByHand):
    """Experts that give logits, probes of as many classes."""

    def __init__(self, model: RIDERMoE) -> None:
        super().__init__(model)
        self.c = replace(self.c, K=model.spec.num_classes)

    def expert(self, e: int, tokens: list[Array]) -> Any:
        return self.outputs(e, tokens)


def cross_entropy(logits: Array, label: int) -> float:
    return -math.log(softmax(logits)[label])


def reference_dir_of_classes(y: Array, pi: Array, r: Array, r_bar: float, label: int) -> dict[str, float]:
    """B.3 for one sample whose experts give logits, y ``(4, 5, C)``: by class, and the cross-entropy of eq. 51."""
    by_class = [reference_dir(y[..., k], pi, r, r_bar, 0.0) for k in range(y.shape[2])]
    terms = {name: float(np.mean([one[name] for one in by_class])) for name in ("L_uni", "L_red", "L_PID", "L_syn_off")}
    whole = sum(pi[e] * y[0, e] for e in range(5))  # what S adds to the rest
    res = r_bar**3 * cross_entropy(whole, label)
    return {**terms, "L_syn_res": res, "L_syn": terms["L_syn_off"] + res}


@pytest.mark.parametrize("options", [{}, {"r_bar": "unnormalised", "mask": "random"}], ids=str)
def test_every_loss_term_of_classes(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, lambda_cls=0.3, lambda_PID=0.7, lambda_syn=1.1, **options)  # type: ignore[arg-type]
    model, labels = RIDERMoE(InputSpec(dims=(6, 5, 4), num_classes=3), config).eval(), torch.arange(7) % 3
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    batch = make_batch().replace(labels=labels)
    with torch.no_grad():
        output, views = model(batch), model.masked_views(model.encode(batch), batch.present)
    hand, terms = ByHandOfClasses(model), []
    for i, y in enumerate(labels.tolist()):
        h = [hand.encode(m, batch.features(m)[i].double().numpy()) for m in MODALITIES]
        y_e, (pi, r, r_bar, p) = hand.views(h), hand.route(h)  # (4, 5, 3)
        np.testing.assert_allclose(views[i], y_e, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.prediction[i], pi @ y_e[0], rtol=1e-5, atol=1e-5)  # eq. 1
        terms.append(
            {"L_task": cross_entropy(pi @ y_e[0], y), "L_cls": sum(-math.log(q[y]) for q in p)}
            | reference_dir_of_classes(y_e, pi, r, r_bar, y)
        )
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    expected = {name: float(np.mean([term[name] for term in terms])) for name in terms[0]}
    weights = {"L_task": 1.0, "L_cls": 0.3, "L_PID": 0.7, "L_syn": 1.1}
    expected["total"] = sum(weight * expected[name] for name, weight in weights.items())  # eq. 3
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-5, err_msg=name)
    assert "experts" not in output.extras
    assert all(model.probe[m].out_features == 3 for m in MODALITIES)


def test_residual_fit_of_classes_updates_the_synergy_expert_and_the_routing_only() -> None:
    torch.manual_seed(0)
    model = RIDERMoE(InputSpec(dims=(6, 5, 4), num_classes=3), SMALL).eval()
    model.loss(make_batch().replace(labels=torch.arange(7) % 3))["L_syn_res"].backward()
    for name, p in model.experts.named_parameters():
        assert p.grad is not None
        np.testing.assert_array_equal(p.grad[:4], 0, err_msg=name)  # U_T, U_A, U_V, R
        assert p.grad[4].abs().sum() > 0, name
    assert model.router[3].weight.grad.abs().sum() > 0


def random_dir_inputs(n: int = 6) -> tuple[Tensor, Routing, Tensor]:
    g = torch.Generator().manual_seed(4)
    y_e, pi = torch.randn(4, n, 5, generator=g), torch.randn(n, 5, generator=g).softmax(dim=1)
    r = torch.randn(n, 3, generator=g).softmax(dim=1)
    return y_e, Routing(pi, r, torch.rand(n, generator=g), torch.rand(n, generator=g)), torch.randn(n, generator=g)


def test_dir_losses_against_loops_over_views() -> None:
    y_e, routing, y = random_dir_inputs()
    losses = dir_losses(y_e, routing, y, SMALL)
    samples = [
        reference_dir(
            y_e[:, i].double().numpy(),
            routing.pi[i].double().numpy(),
            routing.r[i].double().numpy(),
            routing.r_bar[i].item(),
            y[i].item(),
        )
        for i in range(len(y))
    ]
    for name, value in losses.items():
        np.testing.assert_allclose(value, np.mean([s[name] for s in samples]), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_dir_ablations_remove_their_terms_only(ablation: str) -> None:
    y_e, routing, y = random_dir_inputs()
    full = dir_losses(y_e, routing, y, SMALL)
    views = y_e[:1] if ablation == "no_masked_views" else y_e
    ablated = dir_losses(views, routing, y, replace(SMALL, **{ablation: True}))
    gone = {
        "no_L_PID": {"L_uni", "L_red", "L_PID"},
        "no_L_syn": {"L_syn_off", "L_syn_res", "L_syn"},
        "no_L_syn_off": {"L_syn_off"},
        "no_L_syn_res": {"L_syn_res"},
        "no_masked_views": {"L_uni", "L_red", "L_PID", "L_syn_off"},
    }[ablation]
    for name in ("L_uni", "L_red", "L_PID", "L_syn_off", "L_syn_res"):
        np.testing.assert_array_equal(ablated[name], 0.0 if name in gone else full[name], err_msg=name)
    np.testing.assert_allclose(ablated["L_syn"], ablated["L_syn_off"] + ablated["L_syn_res"])


def test_probe_loss_counts_a_modality_only_where_it_is() -> None:
    g = torch.Generator().manual_seed(3)
    logits, classes = torch.randn(5, 3, 7, generator=g), torch.tensor([0, 6, 3, 3, 1])
    told = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    log_p = logits.log_softmax(dim=2)
    text = np.mean([-log_p[i, 0, classes[i]].item() for i in range(5)])
    audio = np.mean([-log_p[i, 1, classes[i]].item() for i in (0, 2, 3, 4)])
    np.testing.assert_allclose(probe_loss(logits, classes, told), text + audio, rtol=1e-5)  # vision: nowhere, so 0


def test_total_is_equation_3() -> None:
    model, batch = make_model(lambda_cls=0.3, lambda_PID=0.7, lambda_syn=1.1), make_batch()
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    expected = losses["L_task"] + 0.3 * losses["L_cls"] + 0.7 * losses["L_PID"] + 1.1 * losses["L_syn"]
    np.testing.assert_allclose(losses["total"], expected, rtol=1e-5)
    with torch.no_grad():
        error = model(batch).prediction - batch.labels
    np.testing.assert_allclose(losses["L_task"], error.abs().mean(), rtol=1e-5)  # eq. 2


def test_loss_uses_the_masked_views_and_the_full_views_routing() -> None:
    """Each view encoded and fused on its own, with fuse's presence flag doing what the view's mask does."""
    model, batch = make_model(mask="random", r_bar="unnormalised"), make_batch()
    assert batch.labels is not None
    with torch.no_grad():
        encoded, full = model.encode(batch), model(batch)
        absent = torch.cat([torch.ones(1, 3), 1 - torch.eye(3)]).bool()  # 0, -T, -A, -V
        y_e = torch.stack([model.fuse(encoded, row.expand(7, 3)).extras["experts"] for row in absent])
        r_bar = 1 - full.extras["entropy"].mean(dim=1) / math.log(7)
        routing = Routing(full.extras["routing"], full.extras["r"], r_bar, full.extras["consensus"])
        expected, got = dir_losses(y_e, routing, batch.labels, model.config), model.loss(batch)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-7, err_msg=name)


def gradient(model: RIDERMoE, term: str) -> dict[str, Tensor]:
    model.zero_grad()
    model.loss(make_batch())[term].backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def test_residual_fit_updates_the_synergy_expert_and_the_routing_only() -> None:
    gradients = gradient(make_model(), "L_syn_res")
    for name, g in gradients.items():
        if name.startswith("experts."):
            np.testing.assert_array_equal(g[:4], 0, err_msg=name)  # U_T, U_A, U_V, R
            assert g[4].abs().sum() > 0, name
    assert gradients["router.3.weight"].abs().sum() > 0
    assert gradients["prior.weight"].abs().sum() > 0


def test_off_under_masking_updates_the_synergy_expert_only() -> None:
    for name, g in gradient(make_model(), "L_syn_off").items():
        if name.startswith("experts."):
            np.testing.assert_array_equal(g[:4], 0, err_msg=name)
        if name.startswith("router."):
            np.testing.assert_array_equal(g, 0, err_msg=name)


@pytest.mark.parametrize("detach_r", [False, True])
def test_weights_r_carry_gradients_unless_detached(detach_r: bool) -> None:
    reaches_importance = gradient(make_model(detach_r=detach_r), "L_uni")["importance.weight"].abs().sum() > 0
    assert bool(reaches_importance) is not detach_r


def test_r_bar_as_written_is_a_third_and_unnormalised_is_not() -> None:
    batch = make_batch()

    def r_bar(option: str) -> Tensor:
        model = make_model(r_bar=option)
        with torch.no_grad():
            h = model.replace_absent(model.encode(batch), batch.present)
            return model.route(model.f_fuse(h), model.probe_modalities(h)).r_bar

    np.testing.assert_allclose(r_bar("as_written"), 1 / 3, rtol=1e-6)
    with torch.no_grad():
        entropies = make_model()(batch).extras["entropy"]
    np.testing.assert_allclose(r_bar("unnormalised"), (1 - entropies / np.log(7)).mean(dim=1), rtol=1e-4)


def test_masked_views_replace_one_modality_each() -> None:
    model = make_model(mask="random")
    h = torch.randn(6, 3, 8)
    views = model.views(h)
    assert views.shape == (4, 6, 3, 8)
    for p in range(4):
        for m in range(3):
            expected = model.mask[m].expand(6, 8) if p == m + 1 else h[:, m]
            np.testing.assert_array_equal(views[p, :, m], expected)


@pytest.mark.parametrize("ablation", ["none", "no_masked_views", "single_expert", "mask"])
def test_masked_views_are_what_the_experts_say_without_a_modality(ablation: str) -> None:
    """C.4: the views of VIEWS by the experts of EXPERTS, also for ablations that train without masked views."""
    options: dict[str, object] = {"mask": "random"}
    model = make_model(**({} if ablation == "none" else options if ablation == "mask" else {ablation: True}))
    batch = make_batch()
    with torch.no_grad():
        encoded = model.encode(batch)
        views = model.masked_views(encoded, batch.present)
        assert views.shape == (7, len(VIEWS), 1 if ablation == "single_expert" else len(EXPERTS))
        for p in range(len(VIEWS)):
            present = torch.ones(7, 3, dtype=torch.bool)
            if p:
                present[:, p - 1] = False
            expected = model.fuse(encoded, present).extras["experts"]
            np.testing.assert_allclose(views[:, p], expected, rtol=1e-5, atol=1e-6)
        no_audio = torch.tensor([True, False, True]).expand(7, 3)
        told = model.masked_views(encoded, no_audio)
    torch.testing.assert_close(told[:, 0], views[:, 2])
    torch.testing.assert_close(told[:, 2], told[:, 0])


def test_mask_options() -> None:
    fixed, drawn, learned = (make_model(mask=option) for option in ("fixed", "random", "learned"))
    np.testing.assert_array_equal(fixed.mask, 0)
    assert drawn.mask.abs().min() > 0
    assert "mask" in dict(drawn.named_buffers())
    assert "mask" in dict(learned.named_parameters())
    assert all("mask" in m.state_dict() for m in (fixed, drawn, learned))
    assert gradient(learned, "L_uni")["mask"].abs().sum() > 0


def test_told_absent_is_mask_for_fusion_and_probe() -> None:
    """Every sample without audio has the same entropy there, the one its probe gives MASK_A."""
    model = make_model(mask="random")
    present = torch.ones(7, 3, dtype=torch.bool)
    present[:, 1] = False
    with torch.no_grad():
        extras = model(make_batch().replace(present=present)).extras
        p = model.probe["audio"](model.mask[1]).softmax(dim=0)
    np.testing.assert_allclose(extras["entropy"][:, 1], -(p * p.log()).sum().expand(7), rtol=1e-4)


def test_probes_are_not_trained_on_mask_unless_asked() -> None:
    present = torch.ones(7, 3, dtype=torch.bool)
    present[:, 2] = False
    batch = make_batch().replace(present=present)
    for asked in (False, True):
        model = make_model(probe_absent=asked)
        model.loss(batch)["L_cls"].backward()
        assert bool(model.probe["vision"].bias.grad.abs().sum() > 0) is asked


def test_lambda_p_zero_makes_the_prior_irrelevant() -> None:
    for lambda_p, matters in ((0.0, False), (1.0, True)):
        model = make_model(lambda_p=lambda_p)
        with torch.no_grad():
            before = model(make_batch()).extras["routing"]
            model.prior.weight.mul_(-3)
            change = (model(make_batch()).extras["routing"] - before).abs().max()
        assert bool(change > 1e-4) is matters


def test_no_consensus_takes_the_score_out_of_the_prior() -> None:
    assert make_model().prior.weight.shape == (5, 4)
    model = make_model(no_consensus=True)
    assert model.prior.weight.shape == (5, 3)
    assert torch.isfinite(model.loss(make_batch())["total"])


def test_single_expert_matches_the_capacity_of_five() -> None:
    spec = InputSpec(dims=(300, 74, 35))

    def size(single: bool) -> int:
        model = RIDERMoE(spec, replace(RIDERMoE.presets["mosi"], single_expert=single))
        return sum(p.numel() for p in model.experts.parameters())

    np.testing.assert_allclose(size(single=True), size(single=False), rtol=0.01)
    model = make_model(single_expert=True)
    with torch.no_grad():
        output = model(make_batch())
    np.testing.assert_array_equal(output.prediction, output.extras["experts"][:, 0])
    assert model.loss(make_batch()).keys() == {"total", "L_task", "L_cls"}


SINGLE = {"importance", "prior", "router.0", "router.3"}
UNUSED: dict[str, tuple[dict[str, object], set[str]]] = {
    "full": ({}, set()),
    "w/o prior injection": ({"lambda_p": 0.0}, {"prior"}),
    "w/o consensus": ({"no_consensus": True}, set()),
    "w/o DIR": ({"lambda_PID": 0.0, "lambda_syn": 0.0}, set()),
    **{name: ({name: True}, set()) for name in ABLATIONS},
    "single expert": ({"single_expert": True}, SINGLE),
    "learned mask": ({"mask": "learned"}, set()),
    "learned mask, never seen": ({"mask": "learned", "no_masked_views": True}, {"mask"}),
}


@pytest.mark.parametrize("case", UNUSED)
def test_gradients_reach_every_parameter_over_an_epoch(case: str) -> None:
    """But for those that an ablation takes out of the equations, by name."""
    options, unused = UNUSED[case]
    model = make_model(**options).train()
    for start in range(0, 48, 16):
        model.loss(make_batch(48).select(range(start, start + 16)))["total"].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert {name.removesuffix(".weight").removesuffix(".bias") for name in without} == unused


@pytest.mark.parametrize("lambda_p", [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
def test_table_4_sweeps_the_priors_strength(lambda_p: float) -> None:
    """The log odds of the routing move by lambda_p times those of the prior (eq. 38-39)."""
    batch, without, model = make_batch(), make_model(lambda_p=0.0), make_model(lambda_p=lambda_p)
    with torch.no_grad():
        base, extras = without(batch).extras["routing"].log(), model(batch).extras
        prior = model.prior(torch.cat([extras["r"], extras["consensus"][:, None]], dim=1)).softmax(dim=1)
        expected = (base + lambda_p * torch.log(prior + 1e-8)).softmax(dim=1)
    np.testing.assert_allclose(extras["routing"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("lambda_PID", "lambda_syn"),
    [*((v, v) for v in (0.0, 0.01, 0.03, 0.05, 0.08, 0.1)), (0.02, 0.05), (0.05, 0.02), (0.02, 0.08), (0.08, 0.02)],
)
def test_table_5_sweeps_the_weights_of_dir(lambda_PID: float, lambda_syn: float) -> None:
    losses = make_model(lambda_PID=lambda_PID, lambda_syn=lambda_syn).loss(make_batch())
    rest = losses["L_task"] + 0.05 * losses["L_cls"]
    expected = rest + lambda_PID * losses["L_PID"] + lambda_syn * losses["L_syn"]
    torch.testing.assert_close(losses["total"], expected)


def test_the_docstring_maps_every_row_to_a_switch_that_exists() -> None:
    """Each NAME=VALUE of its table goes the way of ``msabench train --set NAME=VALUE``."""
    table = [line for line in str(RIDERMoEConfig.__doc__).splitlines() if line.strip().startswith("|")][2:]
    switches = [dict(re.findall(r"(\w+)=([\w.]+)", line.split("|")[2])) for line in table]
    rows = [line.split("|")[1].strip() for line in table]
    assert [row.split(",")[0] for row in rows] == ["table 3"] * 10 + ["table 4"] + ["table 5"] * 2
    off = {*ABLATIONS, "no_consensus", "single_expert"}
    assert {name for given in switches for name in given} == off | {"lambda_p", "lambda_PID", "lambda_syn"}
    for preset in ("mosi", "mosei"):
        for given in switches:
            assert given
            config, _ = override(RIDERMoE, preset, dict(given), None)
            for name, value in given.items():
                got = asdict(config)[name]
                assert got is True if name in off else got == float(value)


def written_out(dims: tuple[int, int, int], c: RIDERMoEConfig) -> int:
    """The number of parameters, layer by layer."""
    d, (e, d_ff) = c.d_model, (1, 5 * c.d_ff + 8 * c.d_model) if c.single_expert else (5, c.d_ff)
    conv = c.conv_layers * (3 * d * d + d)
    encoder = sum(d_in * d + d + conv + (d + 8) + (2 * d if c.normalise else 0) for d_in in dims)
    probes = 3 * (d * c.K + c.K)
    mix = (3 * d * 2 * d + 2 * d) + (2 * d * d + d) if c.fused_token == "mlp" else 0
    f_fuse = 3 * (d * d + d) + d + mix
    layer = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * d_ff + d_ff) + (d_ff * d + d)
    experts = e * (c.expert_layers * layer + 2 * d + d + 1)
    prior = (3 if c.no_consensus else 4) * 5 + 5
    router = (4 * d * d + d) + (5 * d + 5)
    return (
        encoder + probes + f_fuse + experts + (4 * d * 3 + 3) + prior + router + (3 * d if c.mask == "learned" else 0)
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"no_consensus": True},
        {"single_expert": True},
        {"mask": "learned"},
        {"fused_token": "learned"},
        {"conv_layers": 1, "normalise": False},
        {"K": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("preset", "dims"), [("mosi", (768, 74, 35)), ("mosei", (300, 74, 35)), ("synth", (48, 24, 16))]
)
def test_parameter_count(preset: str, dims: tuple[int, int, int], options: dict[str, object]) -> None:
    config = replace(RIDERMoE.presets[preset], **options)  # type: ignore[arg-type]
    with torch.device("meta"):
        model = RIDERMoE(InputSpec(dims), config)
    assert sum(p.numel() for p in model.parameters()) == written_out(dims, config)


def test_it_can_learn_32_samples_by_heart() -> None:
    torch.manual_seed(0)
    batch = make_batch(32)
    model = RIDERMoE(SPEC, replace(SMALL, d_model=16, d_ff=32, dropout=0.0))
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        optimizer.step()
    assert batch.labels is not None
    with torch.no_grad():
        assert (model.eval()(batch).prediction - batch.labels).abs().mean() < 0.1


def test_fused_token_options() -> None:
    h = torch.randn(6, 3, 8)
    for option, constant in (("learned", True), ("mlp", False)):
        model = make_model(fused_token=option)
        with torch.no_grad():
            z = model.f_fuse(h)
        assert z.shape == (6, 4, 8)
        assert bool((z[:, 3] == z[0, 3]).all()) is constant


def test_the_papers_numbers() -> None:
    mosi, mosei = RIDERMoE.presets["mosi"], RIDERMoE.presets["mosei"]
    assert (mosi.d_model, mosi.expert_layers, mosi.expert_heads, mosi.d_ff, mosi.dropout) == (128, 4, 4, 256, 0.3)
    assert (mosei.d_model, mosei.expert_layers, mosei.expert_heads, mosei.d_ff, mosei.dropout) == (512, 8, 8, 1024, 0.3)
    assert (mosi.K, mosi.alpha, mosi.gamma, mosi.lambda_p) == (mosei.K, mosei.alpha, mosei.gamma, mosei.lambda_p)
    assert (mosi.K, mosi.alpha, mosi.gamma, mosi.lambda_p) == (7, 0.7, 1.0, 1.0)
    assert (mosi.lambda_cls, mosi.lambda_PID, mosi.lambda_syn, mosei.lambda_cls) == (0.05, 0.05, 0.05, 0.1)
    a, b = RIDERMoE.optimisation["mosi"], RIDERMoE.optimisation["mosei"]
    assert (a.optimizer, a.learning_rate, a.weight_decay, a.batch_size, a.epochs) == ("adamw", 3e-4, 5e-4, 32, 60)
    assert (b.optimizer, b.learning_rate, b.weight_decay, b.batch_size, b.epochs) == ("adamw", 5e-4, 1e-4, 32, 60)
    assert (RIDERMoE.presets["sims"], RIDERMoE.optimisation["sims"]) == (mosi, a)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 8, "expert_heads": 3}, "expert_heads=3 must divide d_model=8"),
        ({"alpha": 1.5}, r"alpha must be between 0 and 1 \(eq. 28\); got 1.5"),
        ({"mask": "zeros"}, "mask must be one of fixed, random, learned; got 'zeros'"),
        ({"r_bar": "mean"}, "r_bar must be one of as_written, unnormalised"),
        ({"fused_token": "none"}, "fused_token must be one of mlp, learned"),
        *(({name: 0}, f"{name} must be at least 1; got 0") for name in ("d_model", "expert_layers", "expert_heads")),
        ({"d_ff": 0}, "d_ff must be at least 1; got 0"),
        ({"K": 1}, "K must be at least 2; got 1"),
        ({"conv_layers": -1}, "conv_layers must be at least 0; got -1"),
        *(({name: -0.1}, f"{name} must be at least 0; got -0.1") for name in ("lambda_p", "lambda_cls", "lambda_PID")),
        ({"lambda_syn": -1.0}, "lambda_syn must be at least 0; got -1.0"),
        ({"gamma": 0.0}, "gamma must be greater than 0; got 0.0"),
        ({"epsilon": 0.0}, "epsilon must be greater than 0; got 0.0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"rider_moe: {message}"):
        RIDERMoEConfig(**options)  # type: ignore[arg-type]
