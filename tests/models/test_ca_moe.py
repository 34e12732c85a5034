"""CA-MoE against its equations, written out with NumPy and loops over modalities, experts, classes and pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.ca_moe import (
    CAMoE,
    CAMoEConfig,
    TransformerEncoder,
    add_angle,
    attraction_loss,
    balance_loss,
    class_position,
    kl,
    repulsion_loss,
)
from robustbench_msa.models.contract import InputSpec, Output

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = CAMoEConfig(
    d_s=8, num_experts=5, top_k=2, expert_width=7, encoder_layers=1, encoder_heads=2, s=4.0, gamma_2=2.0
)
N = 6

INFERENCE: list[dict[str, object]] = [
    {},
    {"hypersphere": "layer_norm"},
    {"expert_network": "none"},
    {"prototype_norm": "layer_norm"},
    {"renormalise": True},
    {"top_k": 1},
    {"top_k": 5},
    {"no_RAES": True},
    {"inference_confidence": "first_pass"},
    {"inference_confidence": "first_pass", "soft_label": "normalised", "sigma": 0.5},
    {"inference_confidence": "first_pass", "soft_label_at": "score", "C": 5},
    {"inference_confidence": "first_pass", "no_RAES": True},
]
TRAINING: list[dict[str, object]] = [
    *INFERENCE,
    {"margin": "true_class"},
    {"training_label": "confidence"},
    {"training_label": "loss_only", "margin": "true_class"},
    {"training_label": "loss_only", "inference_confidence": "first_pass", "soft_label_at": "score"},
    {"con_target": "prediction", "soft_label_at": "score"},
    {"task_loss": "l1", "beta": 0.1},
    {"pairs": "unordered"},
    {"balance_over": "each_modality"},
    {"detach_geometric": True, "C": 6, "sigma": 2.0},
]


def make_batch(n: int = N) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(n, 4, d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    return Batch(**x, labels=torch.linspace(-3, 3, n))


def make_model(spec: InputSpec = SPEC, **options: object) -> CAMoE:
    torch.manual_seed(0)
    model = CAMoE(spec, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model.eval()


def run(model: CAMoE, batch: Batch | None = None) -> Output:
    with torch.no_grad():
        return model(batch if batch is not None else make_batch())


def h_of(model: CAMoE, batch: Batch) -> Array:
    with torch.no_grad():
        encoded = model.encode(batch)
    return np.stack([encoded.part(m)["h"].double().numpy() for m in MODALITIES], axis=1)


def terms_of(model: CAMoE, batch: Batch | None = None) -> dict[str, float]:
    losses = model.loss(batch if batch is not None else make_batch())
    return {name: value.item() for name, value in losses.items()}


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def length(x: Array) -> float:
    return math.sqrt(sum(float(v) ** 2 for v in x))


def cosine(a: Array, b: Array) -> float:
    return float(a @ b) / (length(a) * length(b))


def divergence(p: Array, q: Array) -> float:
    return float(sum(p[k] * math.log(p[k] / q[k]) for k in range(len(p))))


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias


class Passed(NamedTuple):
    """One sample's pass, label given or not."""

    q: Array  # (3, E)
    R: Array  # (3, E)
    p: Array  # (E, C), with the margin where there is a label
    K: Array  # (E,) as used in eq. 12
    H: Array  # (E,)
    pi: Array  # (E,)
    prediction: Any  # a score, or logits (C,)


class Reference:
    """Eq. 6 to 13 for one sample, from its h ``(3, d)``, in float64."""

    def __init__(self, model: CAMoE) -> None:
        self.c, self.spec = model.config, model.spec
        self.w = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def allocate(self, h: Array) -> tuple[Array, Array, list[Array]]:
        c, w = self.c, self.w
        q = np.stack([softmax(w[f"router.{m}.weight"] @ h[i]) for i, m in enumerate(MODALITIES)])  # eq. 6
        R = np.zeros_like(q)
        for m in range(3):
            for e in np.argsort(q[m])[c.num_experts - c.top_k :]:
                R[m, e] = q[m, e]
            if c.renormalise:
                R[m] /= R[m].sum()
        h_e = []
        for e in range(c.num_experts):
            x = sum(R[m, e] * h[m] for m in range(3))  # eq. 9
            if c.expert_network == "mlp":  # algorithm 1, line 8
                hidden = np.maximum(x @ w["experts.weight_1"][e] + w["experts.bias_1"][e, 0], 0)
                x = hidden @ w["experts.weight_2"][e] + w["experts.bias_2"][e, 0]
            h_e.append(x)
        return q, R, h_e

    def proximity(self, h_e: list[Array], label: int | None) -> Array:
        c, w = self.c, self.w
        z = np.zeros((c.num_experts, c.C))
        for e, x in enumerate(h_e):
            if c.prototype_norm == "layer_norm":
                x = layer_norm(x, w["prototype_norm.weight"], w["prototype_norm.bias"])
            for k in range(c.C):
                theta = math.acos(cosine(x, w["prototypes"][k])) if length(x) else math.pi / 2
                shifted = label is not None and (c.margin == "every_class" or k == label)
                z[e, k] = c.s * math.cos(theta + (c.nu if shifted else 0))  # eq. 10; algorithm 2, line 8
        return np.stack([softmax(row) for row in z])

    def level(self, y: float) -> float:
        low, high = self.spec.label_range
        return (min(max(y, low), high) - low) / (high - low) * (self.c.C - 1)

    def label(self, y: float) -> int:
        """The class nearest to y; labels that lie between two are not used here."""
        return int(np.argmin([abs(self.level(y) - k) for k in range(self.c.C)]))

    def soft_label(self, y: Any) -> Array:
        c = self.c
        centre = self.label(y) if c.soft_label_at == "class" else self.level(y)
        gaussian = np.array([math.exp(-((k - centre) ** 2) / (2 * c.sigma**2)) for k in range(c.C)])
        return softmax(gaussian) if c.soft_label == "softmax" else gaussian / gaussian.sum()

    def reliability(self, H: Array, K: Array, p: Array, soft: Array | None) -> Array:
        c = self.c
        ability = softmax(c.gamma_1 * H - c.gamma_2 * K)
        if soft is None:
            return ability
        confidence = np.array([sum(p[e, k] * soft[k] for k in range(c.C)) for e in range(c.num_experts)])  # eq. 11
        return c.alpha * ability + (1 - c.alpha) * confidence  # eq. 12

    def outputs(self, h_e: list[Array], pi: Array) -> Array:
        w, weights = self.w, softmax(pi)
        h_hat = sum(weights[e] * h_e[e] for e in range(self.c.num_experts))  # eq. 12
        hidden = np.maximum(w["output.0.weight"] @ h_hat + w["output.0.bias"], 0)
        return np.asarray(w["output.3.weight"] @ hidden + w["output.3.bias"])  # eq. 13

    def predict(self, h_e: list[Array], pi: Array) -> Any:
        return float(self.outputs(h_e, pi)[0])

    def __call__(self, h: Array, y: float | None = None) -> Passed:
        c = self.c
        q, R, h_e = self.allocate(h)
        H = np.array([length(x) for x in h_e])
        if c.no_RAES:
            nothing = np.zeros(c.num_experts)
            return Passed(q, R, nothing[:, None], nothing, H, nothing, self.predict(h_e, nothing))
        p = self.proximity(h_e, None if y is None else self.label(y))
        seen = p if y is not None and c.training_label == "margin_and_confidence" else self.proximity(h_e, None)
        K = np.array([-sum(v * math.log(v) for v in row) for row in seen])
        soft = None if y is None or c.training_label == "loss_only" else self.soft_label(y)
        pi = self.reliability(H, K, seen, soft)
        if soft is None and c.inference_confidence == "first_pass":
            pi = self.reliability(H, K, seen, self.soft_label(self.predict(h_e, pi)))
        return Passed(q, R, p, K, H, pi, self.predict(h_e, pi))

    def task(self, h: Array, y: float) -> float:
        error = self(h, y).prediction - y
        return abs(error) if self.c.task_loss == "l1" else error**2

    def gradient(self, h: Array, y: float) -> Array:
        """d L_task / d h by central differences, ``(3, d)``."""
        g = np.zeros_like(h)
        for index in np.ndindex(*h.shape):
            step = np.zeros_like(h)
            step[index] = 1e-6
            g[index] = (self.task(h + step, y) - self.task(h - step, y)) / 2e-6
        return g

    def losses(self, h: Array, labels: Array) -> dict[str, float]:
        """The five terms of eq. 14 over a batch h ``(N, 3, d)``."""
        c, n = self.c, len(h)
        passed = [self(h[i], labels[i]) for i in range(n)]
        att = rep = con = 0.0
        for i, one in enumerate(passed):
            g = self.gradient(h[i], labels[i])
            for a, b in permutations(range(3), 2) if c.pairs == "ordered" else ((0, 1), (0, 2), (1, 2)):
                geometric = (1 + cosine(h[i, a], h[i, b])) / 2  # eq. 3
                aligned = (1 + cosine(g[a], g[b])) / 2  # eq. 4
                affinity = c.beta * geometric + (1 - c.beta) * aligned  # eq. 5
                q, r = one.q[a], one.q[b]
                att += affinity * (divergence(q, r) + divergence(r, q)) / n  # eq. 7
                middle = (q + r) / 2
                rep -= (1 - affinity) * (divergence(q, middle) + divergence(r, middle)) / 2 / n  # eq. 8
            if not c.no_RAES:
                target = self.soft_label(one.prediction if c.con_target == "prediction" else labels[i])
                con += sum(divergence(p, target) for p in one.p) / c.num_experts / n
        return {
            "L_task": float(np.mean([self.task(h[i], labels[i]) for i in range(n)])),
            "L_att": att,
            "L_rep": rep,
            "L_con": con,
            "L_bal": self.balance(passed),
        }

    def balance(self, passed: list[Passed]) -> float:
        """|E| sum_e f_e P_e (Fedus et al. 2022)."""
        c = self.c
        groups = [(0, 1, 2)] if c.balance_over == "all" else [(0,), (1,), (2,)]
        values = []
        for group in groups:
            inputs = [(one, m) for one in passed for m in group]
            f = [sum(one.R[m, e] > 0 for one, m in inputs) / (len(inputs) * c.top_k) for e in range(c.num_experts)]
            P = [sum(one.q[m, e] for one, m in inputs) / len(inputs) for e in range(c.num_experts)]
            values.append(c.num_experts * sum(f[e] * P[e] for e in range(c.num_experts)))
        return float(np.mean(values))


@pytest.mark.parametrize("options", INFERENCE, ids=str)
def test_inference_is_equations_6_to_13_without_a_label(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    output, h, reference = run(model, batch), h_of(model, batch), Reference(model)
    for i in range(N):
        expected = reference(h[i])
        np.testing.assert_allclose(output.prediction[i], expected.prediction, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.extras["routing"][i], softmax(expected.pi), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.extras["gates"][i].view(3, 5), expected.R, rtol=1e-5, atol=1e-6)
        if not model.config.no_RAES:
            np.testing.assert_allclose(output.extras["pi"][i], expected.pi, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(output.extras["entropy"][i], expected.K, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(output.extras["magnitude"][i], expected.H, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", TRAINING, ids=str)
def test_losses_are_equations_3_to_14(options: dict[str, object]) -> None:
    """The gradient of eq. 4 by central differences of the NumPy pass, the rest from that pass."""
    model, batch = make_model(**options), make_batch()
    assert batch.labels is not None
    expected = Reference(model).losses(h_of(model, batch), batch.labels.double().numpy())
    got = terms_of(model)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
    lambdas = {"L_task": 1.0, "L_att": 1.0, "L_rep": 1.0, "L_con": 0.1, "L_bal": 0.01}
    np.testing.assert_allclose(got["total"], sum(lambdas[k] * expected[k] for k in lambdas), rtol=2e-5, atol=2e-5)


class ClassReference(Reference):
    """Of classes: C is the data's, logits, the cross-entropy, and a soft label that knows no distances."""

    def __init__(self, model: CAMoE) -> None:
        super().__init__(model)
        self.c = replace(self.c, C=model.spec.num_classes)

    def label(self, y: float) -> int:
        return int(y)

    def soft_label(self, y: Any) -> Array:
        if np.ndim(y):  # the model's own prediction
            return softmax(y)
        weights = np.array([math.exp(-float(k != y) / (2 * self.c.sigma**2)) for k in range(self.c.C)])
        return softmax(weights) if self.c.soft_label == "softmax" else weights / weights.sum()

    def predict(self, h_e: list[Array], pi: Array) -> Any:
        return self.outputs(h_e, pi)

    def task(self, h: Array, y: float) -> float:
        return -math.log(softmax(self(h, y).prediction)[int(y)])


CLASSES = InputSpec(dims=SPEC.dims, num_classes=4)
CLASS_OPTIONS: list[dict[str, object]] = [
    {},
    {"inference_confidence": "first_pass", "con_target": "prediction"},
    {"inference_confidence": "first_pass", "training_label": "loss_only", "soft_label": "normalised", "sigma": 0.5},
    {"margin": "true_class", "training_label": "confidence"},
    {"no_RAES": True},
]


@pytest.mark.parametrize("options", CLASS_OPTIONS, ids=str)
def test_equations_3_to_14_of_classes(options: dict[str, object]) -> None:
    model, labels = make_model(CLASSES, **options), torch.arange(N) % 4
    batch = make_batch().replace(labels=labels)
    output, h, reference = run(model, batch), h_of(model, batch), ClassReference(model)
    assert output.prediction.shape == (N, 4)
    for i in range(N):
        expected = reference(h[i])
        np.testing.assert_allclose(output.prediction[i], expected.prediction, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.extras["routing"][i], softmax(expected.pi), rtol=1e-5, atol=1e-5)
    expected_terms, got = reference.losses(h, labels.double().numpy()), terms_of(model, batch)
    for name, value in expected_terms.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
    if not model.config.no_RAES:
        assert model.prototypes.shape == (4, model.config.d_s)  # whatever C says


def test_total_weighs_the_terms_by_lambda_1_to_4() -> None:
    terms = terms_of(make_model(lambda_1=0.3, lambda_2=0.5, lambda_3=0.7, lambda_4=1.1))
    expected = terms["L_task"] + 0.3 * terms["L_att"] + 0.5 * terms["L_rep"] + 0.7 * terms["L_con"]
    np.testing.assert_allclose(terms["total"], expected + 1.1 * terms["L_bal"], rtol=1e-5)


def test_equation_2_and_algorithm_1_line_4() -> None:
    batch = make_batch()
    for option in ("l2", "layer_norm"):
        model = make_model(hypersphere=option)
        h = h_of(model, batch)
        for i, m in enumerate(MODALITIES):
            with torch.no_grad():
                f = model.encoder[m](batch.features(m), batch.lengths(m)).double().numpy()
            for n in range(N):
                expected = f[n] / length(f[n])
                if option == "layer_norm":
                    norm = model.norm[m]
                    expected = layer_norm(f[n], norm.weight.detach().numpy(), norm.bias.detach().numpy())
                np.testing.assert_allclose(h[n, i], expected, rtol=1e-4, atol=1e-6)


def test_wrong_labels_at_inference_change_nothing() -> None:
    batch = make_batch()
    for confidence in ("omit", "first_pass"):
        for training in (False, True):
            model = make_model(inference_confidence=confidence, dropout=0.0).train(training)
            right = run(model, batch)
            for labels in (torch.full((N,), 3.0), torch.linspace(3, -3, N), None):
                wrong = run(model, batch.replace(labels=labels))
                np.testing.assert_array_equal(right.prediction, wrong.prediction)
                for name, value in right.extras.items():
                    np.testing.assert_array_equal(value, wrong.extras[name], err_msg=name)


@pytest.mark.parametrize(
    ("label", "margin", "entropy_moves", "weights_move"),
    [
        ("margin_and_confidence", "true_class", True, True),
        ("margin_and_confidence", "every_class", False, True),
        ("confidence", "true_class", True, True),
        ("loss_only", "true_class", True, False),
    ],
)
def test_where_the_label_reaches_in_training(label: str, margin: str, entropy_moves: bool, weights_move: bool) -> None:
    """At alpha = 1 the confidence is silent: what still moves the weights came by the margin."""
    classes = torch.zeros(N, dtype=torch.int64), torch.full((N,), 6)
    scores = torch.full((N,), -3.0), torch.full((N,), 3.0)
    for alpha in (0.7, 1.0):
        model = make_model(training_label=label, margin=margin, alpha=alpha)
        with torch.no_grad():
            h_e = model.allocate(torch.from_numpy(h_of(model, make_batch())).float()).h_e
            log_p = [model.proximity(h_e, c) for c in classes]
            pi = [
                model.training_reliability(h_e, p, model.log_soft_label(y)) for p, y in zip(log_p, scores, strict=True)
            ]
        by_margin = label == "margin_and_confidence" and margin == "true_class"
        assert bool((log_p[0] - log_p[1]).abs().max() > 1e-3) is entropy_moves
        assert bool((pi[0] - pi[1]).abs().max() > 1e-4) is (weights_move if alpha < 1 else by_margin)


def test_omit_is_alpha_of_one() -> None:
    everywhere = run(make_model(alpha=1.0, inference_confidence="first_pass"))
    omitted, first_pass = run(make_model()), run(make_model(inference_confidence="first_pass"))
    np.testing.assert_allclose(omitted.prediction, everywhere.prediction, rtol=1e-6)
    assert (omitted.prediction - first_pass.prediction).abs().max() > 1e-4


@pytest.mark.parametrize("confidence", ["omit", "first_pass"])
def test_inference_mode_single_samples_and_repeats_agree(confidence: str) -> None:
    model = make_model(inference_confidence=confidence, s=30.0, gamma_2=30.0)
    batch = make_batch(16)
    with torch.inference_mode():
        whole, again = model(batch), model(batch)
        rows = [model(batch.select([i])) for i in range(16)]
    np.testing.assert_array_equal(whole.prediction, again.prediction)
    np.testing.assert_array_equal(whole.prediction, run(model, batch).prediction)
    np.testing.assert_allclose(torch.cat([row.prediction for row in rows]), whole.prediction, rtol=0, atol=1e-5)
    for name, value in whole.extras.items():
        single = torch.cat([row.extras[name] for row in rows])
        np.testing.assert_allclose(single, value, rtol=0, atol=1e-4, err_msg=name)


def gradient(model: CAMoE, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def test_gradient_affinity_comes_from_the_same_pass_and_is_a_constant() -> None:
    """One pass through each encoder and the experts; L_att moves the head by no second derivative."""
    model, calls = make_model(beta=0.0), []
    for module in (*model.encoder.values(), model.experts, model.output):
        module.register_forward_hook(lambda module, x, y: calls.append(module))
    losses = model.loss(make_batch())
    assert len(calls) == 5
    moved = gradient(model, losses["L_att"])
    assert all(moved[f"router.{m}.weight"].abs().sum() > 0 for m in MODALITIES)
    for name, g in moved.items():
        if name.startswith(("output", "experts", "prototypes")):
            np.testing.assert_array_equal(g, 0, err_msg=name)


@pytest.mark.parametrize("detached", [False, True])
def test_geometric_affinity_carries_gradients_unless_detached(detached: bool) -> None:
    model, batch = make_model(beta=1.0, detach_geometric=detached, pairs="unordered"), make_batch()
    got = gradient(model, model.loss(batch)["L_att"])
    encoded = model.encode(batch)
    h = torch.stack([encoded.part(m)["h"] for m in MODALITIES], dim=1)
    cos = torch.stack([torch.cosine_similarity(h[:, m], h[:, n]) for m, n in ((0, 1), (0, 2), (1, 2))], dim=1)
    affinity = (1 + cos) / 2
    expected = gradient(model, attraction_loss(affinity.detach() if detached else affinity, model.allocate(h).log_q))
    for name in ("encoder.text.project.weight", "encoder.vision.norm.weight", "router.audio.weight"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_detaching_changes_the_encoders_gradient_alone() -> None:
    batch, moved = make_batch(), []
    for detached in (False, True):
        model = make_model(detach_geometric=detached)
        moved.append(gradient(model, model.loss(batch)["L_att"]))
    np.testing.assert_allclose(moved[0]["router.audio.weight"], moved[1]["router.audio.weight"], rtol=1e-5)
    assert (moved[0]["encoder.audio.project.weight"] - moved[1]["encoder.audio.project.weight"]).abs().max() > 1e-4


def test_loss_works_with_frozen_encoders_and_without_grad_mode() -> None:
    model = make_model()
    expected = terms_of(model)
    model.encoder.requires_grad_(False)
    np.testing.assert_allclose(list(terms_of(model).values()), list(expected.values()), rtol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(list(terms_of(model).values()), list(expected.values()), rtol=1e-6)


def spread(logits: Tensor) -> float:
    """Mean KL of text's routing from audio's."""
    log_q = logits.log_softmax(dim=2)
    return kl(log_q[:, 0], log_q[:, 1]).mean().item()


def test_attraction_and_repulsion_pull_and_push() -> None:
    """A of 1: gradient steps make the three routings alike. A of 0: they part."""
    for guide, closer in ((1.0, True), (0.0, False)):
        logits = torch.randn(N, 3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        before = spread(logits)
        for _ in range(20):
            log_q = logits.log_softmax(dim=2)
            affinity = torch.full((N, 3), guide)
            value = attraction_loss(affinity, log_q) + repulsion_loss(affinity, log_q)
            (g,) = torch.autograd.grad(value, logits)
            logits = (logits - g).detach().requires_grad_()
        assert (spread(logits) < before) is closer


def test_balance_is_one_when_even_and_grows_when_not() -> None:
    even = torch.full((4, 3, 4), 0.25)
    R = torch.zeros(4, 3, 4)
    for n in range(4):
        R[n, :, n] = 0.25
    for over in ("all", "each_modality"):
        np.testing.assert_allclose(balance_loss(even.log(), R, 1, over), 1.0, rtol=1e-6)
    q = torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(4, 3, 4)
    first = torch.zeros(4, 3, 4)
    first[:, :, 0] = 0.7
    np.testing.assert_allclose(balance_loss(q.log(), first, 1, "all"), 4 * 0.7, rtol=1e-6)
    apart = torch.zeros(4, 3, 4)  # each modality has an expert of its own: even only over all of them
    for m in range(3):
        apart[:, m, m] = 1.0
    q = 0.9 * apart + 0.025
    per_modality = balance_loss(q.log(), apart, 1, "each_modality")
    assert balance_loss(q.log(), apart, 1, "all") < 0.5 * per_modality


def test_add_angle_against_arccos() -> None:
    cos = np.linspace(-0.99, 0.99, 41)
    np.testing.assert_allclose(add_angle(torch.from_numpy(cos), 0.3), np.cos(np.arccos(cos) + 0.3), rtol=1e-6)
    ends = torch.tensor([1.0, -1.0]).requires_grad_()
    add_angle(ends, 0.3).sum().backward()  # type: ignore[no-untyped-call]
    assert ends.grad is not None
    assert torch.isfinite(ends.grad).all()


def test_the_position_is_linear_from_the_first_class_to_the_last() -> None:
    y = torch.linspace(-4, 4, 81)
    for C in (2, 5, 6):
        expected = np.interp(y.numpy(), (-1.0, 1.0), (0, C - 1))
        np.testing.assert_allclose(class_position(y, (-1.0, 1.0), C), expected, atol=1e-5)


def test_soft_label_is_flat_as_written_and_peaked_when_normalised() -> None:
    y = torch.tensor([-3.0, 0.4, 9.0])
    for option, peak in (("softmax", 0.26), ("normalised", 0.39)):
        with torch.no_grad():
            soft = make_model(soft_label=option).log_soft_label(y).exp()
        np.testing.assert_allclose(soft.sum(dim=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(soft.argmax(dim=1), [0, 3, 6])
        np.testing.assert_allclose(soft[1, 3], peak, atol=0.01)


def test_no_term_ablations_of_table_3() -> None:
    full = terms_of(make_model())
    for name in ("L_att", "L_rep", "L_con"):
        ablated = terms_of(make_model(**{f"no_{name}": True}))
        for term in ("L_task", "L_att", "L_rep", "L_con", "L_bal"):
            np.testing.assert_allclose(ablated[term], 0.0 if term == name else full[term], rtol=1e-6, err_msg=term)
    neither = terms_of(make_model(no_L_att=True, no_L_rep=True))
    np.testing.assert_allclose(neither["total"], full["L_task"] + 0.1 * full["L_con"] + 0.01 * full["L_bal"], rtol=1e-5)


def test_no_RAES_is_the_mean_over_experts() -> None:
    model, batch = make_model(no_RAES=True), make_batch()
    output = run(model, batch)
    with torch.no_grad():
        h_e = model.allocate(torch.from_numpy(h_of(model, batch)).float()).h_e
        expected = model.output(h_e.mean(dim=1)).squeeze(1)
    np.testing.assert_allclose(output.prediction, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.extras["routing"], 0.2, rtol=1e-6)
    assert output.extras.keys() == {"routing", "gates"}
    assert "prototypes" not in dict(model.named_parameters())
    assert terms_of(model)["L_con"] == 0.0


def test_sweeps_of_table_4_and_figure_6() -> None:
    for E in (4, 6, 16):
        output = run(make_model(num_experts=E, top_k=3))
        assert output.extras["routing"].shape == (N, E)
        np.testing.assert_array_equal((output.extras["gates"].view(N, 3, E) > 0).sum(dim=2), 3)
    for k in range(1, 7):
        gates = run(make_model(num_experts=6, top_k=k)).extras["gates"].view(N, 3, 6)
        np.testing.assert_array_equal((gates > 0).sum(dim=2), k)
    np.testing.assert_allclose(gates.sum(dim=2), 1, rtol=1e-5)  # k = |E|: the whole softmax
    tasks = [terms_of(make_model(alpha=alpha))["L_task"] for alpha in (0.3, 1.0)]
    attracted = [terms_of(make_model(beta=beta))["L_att"] for beta in (0.0, 1.0)]
    assert abs(tasks[0] - tasks[1]) > 1e-4
    assert abs(attracted[0] - attracted[1]) > 1e-4


def test_transformer_encoder_against_torchs() -> None:
    """Samples cut to their lengths, through torch's own pre-norm layer with the same weights."""
    torch.manual_seed(0)
    encoder = TransformerEncoder(5, 8, layers=2, heads=2, dropout=0.3).eval()
    x, lengths = torch.randn(4, 7, 5), torch.tensor([7, 3, 1, 5])
    with torch.no_grad():
        got = encoder(x, lengths)
        for i, n in enumerate(lengths.tolist()):
            angle = math.pi * ((torch.arange(n) + 0.5) / n)[:, None] * torch.arange(1, 5)
            h = encoder.project(torch.cat([x[i, :n], angle.cos(), angle.sin()], dim=1))[None]
            for ours in encoder.layers:
                theirs = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
                weights = {
                    "self_attn.in_proj_weight": ours.qkv.weight,
                    "self_attn.in_proj_bias": ours.qkv.bias,
                    "self_attn.out_proj.weight": ours.out.weight,
                    "self_attn.out_proj.bias": ours.out.bias,
                    "linear1.weight": ours.ff[0].weight,
                    "linear1.bias": ours.ff[0].bias,
                    "linear2.weight": ours.ff[3].weight,
                    "linear2.bias": ours.ff[3].bias,
                }
                for ours_norm, name in ((ours.norm_attention, "norm1"), (ours.norm_ff, "norm2")):
                    weights |= {f"{name}.weight": ours_norm.weight, f"{name}.bias": ours_norm.bias}
                theirs.load_state_dict(weights)
                h = theirs.eval()(h)
            np.testing.assert_allclose(got[i], encoder.norm(h[0]).mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [0, 2])
def test_encoders_ignore_padding_and_take_any_length(layers: int) -> None:
    model = make_model(encoder_layers=layers)
    g = torch.Generator().manual_seed(3)
    x, lengths = torch.randn(3, 4, 5, generator=g), torch.tensor([4, 2, 0])
    longer = torch.cat([x, torch.full((3, 2, 5), torch.nan)], dim=1)
    longer[1, 2:], longer[2] = 777.0, torch.nan
    with torch.no_grad():
        h = model.encode_modality("audio", x, lengths)["h"]
        np.testing.assert_allclose(model.encode_modality("audio", longer, lengths)["h"], h, atol=1e-6)
        assert torch.isfinite(h).all()
        np.testing.assert_allclose(torch.linalg.vector_norm(h[:2], dim=1), 1, rtol=1e-5)
        alone = model.encode_modality("audio", x[:1, :1], torch.tensor([1]))["h"]
        assert torch.isfinite(alone).all()


def test_empty_experts_and_samples_have_finite_gradients() -> None:
    """One choice a modality leaves at least two experts without input; the last sample has no step at all."""
    lengths = torch.full((N,), 4)
    lengths[-1] = 0
    batch = make_batch().replace(**{f"{m}_lengths": lengths for m in MODALITIES})
    for network in ("mlp", "none"):
        model = make_model(top_k=1, expert_network=network)
        for name, g in gradient(model, model.loss(batch)["total"]).items():
            assert torch.isfinite(g).all(), name
            assert g.abs().max() < 1e4, name


@pytest.mark.parametrize("preset", ["mosi", "synth"])
def test_gradients_reach_every_parameter_over_an_epoch(preset: str) -> None:
    """In every expert too. No exception."""
    torch.manual_seed(0)
    model = CAMoE(SPEC, CAMoE.presets[preset]).train()
    batch = make_batch(96)
    model.fit_statistics(batch)
    reached = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for rows in torch.arange(96).split(32):
        model.zero_grad()
        model.loss(batch.select(rows))["total"].backward()  # type: ignore[no-untyped-call]
        for name, p in model.named_parameters():
            reached[name] += p.grad.abs() if p.grad is not None else 0
    for name, g in reached.items():
        assert g.sum() > 0, name
        if name.startswith("experts."):
            assert (g.flatten(1).sum(dim=1) > 0).all(), name


def test_parameter_count() -> None:
    spec = InputSpec(dims=(300, 74, 35))
    d, w, E, C, places = 128, 128, 6, 7, 8
    text = 300 * d + d + (d + places)  # project, attention's score
    layer = 2 * (2 * d) + (3 * d * d + 3 * d) + (d * d + d) + (2 * d * d + 2 * d) + (2 * d * d + d)
    trans = sum((n + places) * d + d + 2 * layer + 2 * d for n in (74, 35))
    experts = E * (d * w + w + w * d + d)
    expected = text + trans + 3 * d * E + experts + C * d + (d * d + d) + (d + 1)
    assert sum(p.numel() for p in CAMoE(spec, CAMoE.presets["mosi"]).parameters()) == expected


@pytest.mark.parametrize("label", ["margin_and_confidence", "loss_only"])
def test_overfits_32_samples(label: str) -> None:
    """By what training sees in both; by what inference sees where both see the same."""
    torch.manual_seed(0)
    config = replace(CAMoE.presets["synth"], dropout=0.0, training_label=label, task_loss="l1")
    model, batch = CAMoE(SPEC, config), make_batch(32)
    assert batch.labels is not None
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 250)
    for _ in range(250):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    in_training = terms_of(model.eval(), batch)["L_task"]
    at_inference = (run(model, batch).prediction - batch.labels).abs().mean().item()
    assert in_training < 0.1
    if label == "loss_only":
        np.testing.assert_allclose(at_inference, in_training, rtol=1e-4)


def test_the_papers_numbers() -> None:
    for name, experts, batch_size in (("mosi", 6, 64), ("mosei", 8, 16), ("sims", 6, 32)):
        c, o = CAMoE.presets[name], CAMoE.optimisation[name]
        assert (c.num_experts, c.top_k, c.beta, c.s, c.nu) == (experts, 3, 0.6, 30.0, 0.3)
        assert (c.alpha, c.gamma_1, c.gamma_2) == (0.7, 0.8, 30.0)
        assert (c.lambda_1, c.lambda_2, c.lambda_3, c.lambda_4) == (1.0, 1.0, 0.1, 0.01)
        assert (o.optimizer, o.learning_rate, o.batch_size, o.epochs) == ("adam", 1e-4, batch_size, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 7}, "top_k must be between 1 and num_experts=6; got 7"),
        ({"alpha": 1.2}, "alpha must be between 0 and 1; got 1.2"),
        ({"beta": -0.1}, "beta must be between 0 and 1; got -0.1"),
        ({"C": 1}, "expected C of at least 2 and sigma above 0; got C=1"),
        ({"sigma": 0.0}, "sigma above 0; got C=7, sigma=0.0"),
        ({"d_s": 30}, "encoder_heads=4 must divide d_s=30"),
        ({"encoder_heads": 0}, "encoder_heads=0 must divide d_s=128"),
        ({"margin": "all"}, "ca_moe: margin must be one of every_class, true_class; got 'all'"),
        ({"inference_confidence": "label"}, "inference_confidence must be one of omit, first_pass"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CAMoEConfig(**options)  # type: ignore[arg-type]
