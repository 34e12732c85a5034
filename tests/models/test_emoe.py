"""EMOE against its equations, written out with NumPy and loops over samples, steps, heads and modalities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec, Output
from robustbench_msa.models.emoe import (
    EMOE,
    EMOEConfig,
    Router,
    distillation_loss,
    importance,
    released_importance,
    sinusoidal_positions,
)

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
SMALL = EMOEConfig(
    d_model=8,
    layers=2,
    heads=2,
    kernel_audio=3,
    kernel_vision=1,
    dropout_text=0.0,
    attention_dropout_text=0.0,
    attention_dropout_audio=0.0,
    embed_dropout=0.0,
    output_dropout=0.0,
    router_hidden=7,
    router_steps=4,
    temperature=0.5,
    alpha=0.3,
    lambda_1=0.7,
    lambda_2=1.3,
)
LENGTHS = {"text": [5, 1, 3, 4, 2], "audio": [2, 4, 3, 0, 1], "vision": [6, 1, 4, 5, 2]}
VARIANTS = [{}, {"fusion": "concat"}, {"as_released": True}, {"as_released": True, "fusion": "concat"}]


def make_batch() -> Batch:
    g = torch.Generator().manual_seed(0)
    x = {m: 1 + torch.randn(5, t, d, generator=g) for m, t, d in zip(MODALITIES, (5, 4, 6), SPEC.dims, strict=True)}
    lengths = {f"{m}_lengths": torch.tensor(values) for m, values in LENGTHS.items()}
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, 5))


def make_model(spec: InputSpec = SPEC, **options: object) -> EMOE:
    torch.manual_seed(0)
    model = EMOE(spec, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape))
    model.fit_statistics(make_batch())
    return model.eval()


def run(model: EMOE, batch: Batch | None = None) -> Output:
    with torch.no_grad():
        return model(batch if batch is not None else make_batch())


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def layer_norm(x: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


class Reference:
    """One sample's way through EMOE in double precision, step by step, from the weights."""

    def __init__(self, model: EMOE) -> None:
        self.c = model.config
        self.w = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def affine(self, prefix: str, x: Array) -> Array:
        return self.w[f"{prefix}.weight"] @ x + self.w[f"{prefix}.bias"]

    def normal(self, prefix: str, x: Array) -> Array:
        return layer_norm(x) * self.w[f"{prefix}.weight"] + self.w[f"{prefix}.bias"]

    def inputs(self, m: str, x: Array) -> Array:
        if len(x) == 0:
            return np.zeros((1, x.shape[1]))
        return (x - self.w[f"standardise.{m}.mean"]) / self.w[f"standardise.{m}.std"]

    def low_level(self, m: str, x: Array) -> list[Array]:
        """f_m, one vector a step: a convolution with zeros around, then a matrix."""
        kernel = self.w[f"conv.{m}.weight"]  # (d, d_m, k)
        k, encoder = kernel.shape[2], "shared" if self.c.as_released else m
        f = []
        for t in range(len(x)):
            convolved = np.zeros(len(kernel))
            for j in range(k):
                if 0 <= t + j - k // 2 < len(x):
                    convolved += kernel[:, :, j] @ x[t + j - k // 2]
            f.append(self.w[f"encoder.{encoder}.weight"] @ convolved)
        return f

    def high_level(self, m: str, f: list[Array]) -> Array:
        d, steps = self.c.d_model, len(f)
        h = []
        for t in range(steps):
            angles = [t / 10000 ** (2 * i / d) for i in range(d // 2)]
            h.append(np.sqrt(d) * f[t] + np.array([*np.sin(angles), *np.cos(angles)]))
        for layer in range(self.c.layers):
            block = f"transformer.{m}.blocks.{layer}"
            attended = self.attend(block, [self.normal(f"{block}.norm_attention", x) for x in h])
            h = [h[t] + self.affine(f"{block}.out", attended[t]) for t in range(steps)]
            for t in range(steps):
                wide = np.maximum(self.affine(f"{block}.widen", self.normal(f"{block}.norm_ff", h[t])), 0)
                h[t] = h[t] + self.affine(f"{block}.narrow", wide)
        pooled = h[-1] if self.c.as_released else sum(h) / steps
        return self.normal(f"transformer.{m}.norm", np.asarray(pooled))

    def attend(self, block: str, x: list[Array]) -> list[Array]:
        d, width = self.c.d_model, self.c.d_model // self.c.heads
        qkv = [self.affine(f"{block}.qkv", step) for step in x]
        mixed = [np.zeros(d) for _ in x]
        for t in range(len(x)):
            seen = range(t + 1) if self.c.as_released else range(len(x))
            for head in range(self.c.heads):
                own = slice(head * width, (head + 1) * width)
                scores = [qkv[t][:d][own] @ qkv[s][d : 2 * d][own] / np.sqrt(width) for s in seen]
                for s, weight in zip(seen, softmax(np.array(scores)), strict=True):
                    mixed[t][own] += weight * qkv[s][2 * d :][own]
        return mixed

    def route(self, x: dict[str, Array], f: dict[str, list[Array]]) -> Array:
        """Eq. 1 on the concatenation of all modalities."""
        first = np.concatenate([self.w[f"router.first.{m}.weight"] for m in MODALITIES], axis=1)
        if self.c.as_released:
            steps = self.c.router_steps
            flat = [np.concatenate([x[m], np.zeros((steps, x[m].shape[1]))])[:steps].ravel() for m in MODALITIES]
            h = first @ np.concatenate(flat) + self.w["router.norm.bias"]
            h = h / np.linalg.norm(h)
            return softmax(self.affine("router.last", np.maximum(h, 0)) / self.c.temperature)
        h = first @ np.concatenate([np.mean(f[m], axis=0) for m in MODALITIES])
        h = (h - self.w["router.norm.running_mean"]) / np.sqrt(self.w["router.norm.running_var"] + 1e-5)
        h = np.maximum(h * self.w["router.norm.weight"] + self.w["router.norm.bias"], 0)
        return softmax(self.w["router.alpha"] * self.affine("router.last", h) / self.c.temperature)

    def head(self, prefix: str, h: Array) -> tuple[Array, Any]:
        z = h + self.affine(f"{prefix}.mlp.3", np.maximum(self.affine(f"{prefix}.mlp.0", h), 0))
        return z, self.score(self.affine(f"{prefix}.score", z))

    def score(self, outputs: Array) -> Any:
        return float(outputs[0])

    def combine(self, h: list[Array], w: Array) -> Array:
        if self.c.fusion == "sum":
            return w[0] * h[0] + w[1] * h[1] + w[2] * h[2]  # eq. 2
        return np.concatenate([w[0] * h[0], w[1] * h[1], w[2] * h[2]])  # eq. 3

    def sample(self, raw: dict[str, Array]) -> tuple[Array, list[Array], Array, Array, Any]:
        """W, z_m, y_m, z and y for one sample given by its valid steps."""
        x = {m: self.inputs(m, raw[m]) for m in MODALITIES}
        f = {m: self.low_level(m, x[m]) for m in MODALITIES}
        high = [self.high_level(m, f[m]) for m in MODALITIES]
        w = np.full(3, 1 / 3) if self.c.no_MoME else self.route(x, f)
        f_c = self.combine(high, w) * (3 if self.c.as_released and self.c.fusion == "concat" else 1)
        z, y = self.head("fused_head", f_c)
        unimodal = [self.head(f"head.{m}", high[i]) for i, m in enumerate(MODALITIES)]
        return w, [z_m for z_m, _ in unimodal], np.array([y_m for _, y_m in unimodal]), z, y

    def samples(self, batch: Batch) -> list[tuple[Array, list[Array], Array, Array, Any]]:
        rows = range(len(batch))
        return [
            self.sample({m: batch.features(m)[i, : LENGTHS[m][i]].double().numpy() for m in MODALITIES}) for i in rows
        ]

    def distance(self, z: Array, z_uni: Array, y: Any, y_uni: Any) -> float:
        """D of eq. 11."""
        if self.c.distilled == "logits" and not np.ndim(y):
            return float((y - y_uni) ** 2)
        p, p_uni = (softmax(y), softmax(y_uni)) if self.c.distilled == "logits" else (softmax(z), softmax(z_uni))
        if self.c.as_released or self.c.divergence == "mse":
            return float(np.mean((p - p_uni) ** 2))
        teacher, student = (p_uni, p) if self.c.teacher == "unimodal" else (p, p_uni)
        return float(sum(teacher[k] * np.log(teacher[k] / student[k]) for k in range(len(p))))

    def similarity(self, w: Array, errors: Array) -> float:
        """Eq. 5 and 6."""
        if self.c.as_released:
            inverse = 1 / (errors + 0.1)
            return float(np.mean((w - inverse / inverse.sum()) ** 2))
        target = softmax(1 / (errors + self.c.epsilon))
        if self.c.similarity == "kl":
            return float(sum(target[m] * np.log(target[m] / w[m]) for m in range(3) if target[m] > 0))
        return float(sum((w[m] - target[m]) ** 2 for m in range(3)))

    def error(self, label: float, y: Any) -> float:
        return abs(label - float(y))

    def squared(self, label: float, y: Any) -> float:
        """c_m of eq. 5."""
        return (label - float(y)) ** 2

    def losses(self, batch: Batch) -> dict[str, float]:
        assert batch.labels is not None
        rows: dict[str, list[float]] = {name: [] for name in ("L_multi", "L_uni", "L_entropy", "L_sim", "L_ud")}
        for label, (w, z_m, y_m, z, y) in zip(batch.labels.double().numpy(), self.samples(batch), strict=True):
            rows["L_multi"].append(self.error(label, y))  # eq. 4
            rows["L_uni"].append(sum(self.error(label, y_m[m]) for m in range(3)) / 3)  # eq. 9
            rows["L_entropy"].append(3 * sum(w[m] * np.log(w[m]) for m in range(3)))  # eq. 7
            rows["L_sim"].append(self.similarity(w, np.array([self.squared(label, y_m[m]) for m in range(3)])))
            rows["L_ud"].append(self.distance(z, self.combine(z_m, w), y, w @ y_m))  # eq. 10-11
        terms = {name: float(np.mean(values)) for name, values in rows.items()}
        terms["L_balance"] = terms["L_entropy"] + self.c.alpha * terms["L_sim"]  # eq. 8
        task = terms["L_multi"] + terms["L_uni"]
        terms["total"] = task + self.c.lambda_1 * terms["L_balance"] + self.c.lambda_2 * terms["L_ud"]  # eq. 12
        return terms


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_forward_pass(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    output = run(model, batch)
    for i, (w, _, y_m, _, y) in enumerate(Reference(model).samples(batch)):
        np.testing.assert_allclose(output.extras["routing"][i], w, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.extras["unimodal"][i], y_m, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.prediction[i], y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        *VARIANTS,
        {"similarity": "kl"},
        {"divergence": "mse"},
        {"teacher": "multimodal"},
        {"distilled": "logits"},
        {"distilled": "logits", "teacher": "multimodal"},
    ],
    ids=str,
)
def test_every_loss_term(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    with torch.no_grad():
        losses = model.loss(batch)
    expected = Reference(model).losses(batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


class ClassReference(Reference):
    """Heads of logits, cross-entropies, and eq. 5 between the softmax and the one-hot label."""

    def score(self, outputs: Array) -> Any:
        return outputs

    def error(self, label: float, y: Any) -> float:
        return -float(np.log(softmax(y)[int(label)]))

    def squared(self, label: float, y: Any) -> float:
        return float(sum((p - (k == label)) ** 2 for k, p in enumerate(softmax(y))))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distilled": "logits"},
        {"distilled": "logits", "divergence": "mse", "teacher": "multimodal"},
        {"fusion": "concat", "similarity": "kl"},
        {"as_released": True},
    ],
    ids=str,
)
def test_every_loss_term_of_classes(options: dict[str, object]) -> None:
    batch = make_batch().replace(labels=torch.tensor([0, 3, 1, 2, 3]))
    model = make_model(InputSpec(dims=SPEC.dims, num_classes=4), **options)
    output, reference = run(model, batch), ClassReference(model)
    for i, (w, _, y_m, _, y) in enumerate(reference.samples(batch)):
        np.testing.assert_allclose(output.extras["routing"][i], w, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.extras["unimodal_logits"][i].view(3, 4), y_m, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.prediction[i], y, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        losses = model.loss(batch)
    expected = reference.losses(batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_variants_differ_where_the_table_says() -> None:
    paper, released = make_model(), make_model(as_released=True)
    ours, theirs = dict(paper.named_parameters()), dict(released.named_parameters())
    assert ours.keys() - theirs.keys() == {
        "router.alpha",
        "router.norm.weight",
        *(f"encoder.{m}.weight" for m in MODALITIES),
    }
    assert theirs.keys() - ours.keys() == {"encoder.shared.weight"}
    assert [ours[f"router.first.{m}.weight"].shape[1] for m in MODALITIES] == [8, 8, 8]
    assert [theirs[f"router.first.{m}.weight"].shape[1] for m in MODALITIES] == [4 * 6, 4 * 5, 4 * 4]


def test_importance_saturates_as_written_and_not_as_released() -> None:
    errors = torch.tensor([[1e-4, 2.0, 3.0], [2.0, 2.0, 2.0], [0.0, 0.0, 4.0]])
    written, released = importance(errors, 1e-8), released_importance(errors)
    np.testing.assert_allclose(written, [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(released.sum(dim=1), 1, rtol=1e-6)
    assert (released > 0.01).all()


def test_positions() -> None:
    angles = np.arange(7)[:, None] / 10000.0 ** (np.arange(3) / 3)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(sinusoidal_positions(7, 6, torch.device("cpu")), expected, atol=1e-6)


def gradients(model: EMOE, term: str) -> dict[str, Tensor]:
    model.zero_grad()
    model.loss(make_batch())[term].backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def reached(model: EMOE, term: str) -> set[str]:
    """The first part of every parameter's name that the term moves."""
    return {name.split(".")[0] for name, g in gradients(model, term).items() if g.abs().sum() > 0}


@pytest.mark.parametrize("as_released", [False, True])
def test_importance_is_a_target_and_moves_no_head(as_released: bool) -> None:
    moved = reached(make_model(as_released=as_released), "L_sim")
    assert moved == ({"router"} if as_released else {"router", "encoder", "conv"})


@pytest.mark.parametrize("distilled", ["features", "logits"])
def test_distillation_goes_one_way(distilled: str) -> None:
    """The student's head moves, the teacher's does not."""
    to_multimodal = reached(make_model(distilled=distilled), "L_ud")
    assert "fused_head" in to_multimodal
    assert "head" not in to_multimodal
    to_unimodal = reached(make_model(distilled=distilled, teacher="multimodal"), "L_ud")
    assert "head" in to_unimodal
    assert "fused_head" not in to_unimodal


def test_weights_of_the_teacher_carry_no_gradient() -> None:
    """With the router's path through f_c cut, L_ud reaches the router through z_uni alone: not at all."""
    model = make_model()
    heads = model.predict(model.encode(make_batch()))
    cut = heads._replace(z=heads.z.detach().requires_grad_())
    distillation_loss(cut, model.config).backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("ablation", "gone"),
    [
        ("no_RE", {"L_entropy"}),
        ("no_WIS", {"L_sim"}),
        ("no_UD", {"L_ud"}),
        ("no_MoME", {"L_entropy", "L_sim", "L_balance"}),
    ],
)
def test_ablations_of_tables_4_and_5(ablation: str, gone: set[str]) -> None:
    full, ablated = make_model().loss(make_batch()), make_model(**{ablation: True}).loss(make_batch())
    for name in ("L_entropy", "L_sim", "L_balance", "L_ud"):
        assert bool(ablated[name] == 0) is (name in gone), name
    if ablation != "no_MoME":
        kept = {"L_multi", "L_uni", "L_entropy", "L_sim", "L_ud"} - gone
        for name in kept:
            np.testing.assert_array_equal(ablated[name].detach(), full[name].detach(), err_msg=name)


def test_without_the_router_all_modalities_weigh_the_same() -> None:
    model = make_model(no_MoME=True, no_UD=True)
    assert not any(name.startswith("router") for name in model.state_dict())
    assert "route" not in model.encode(make_batch()).text
    np.testing.assert_allclose(run(model).extras["routing"], 1 / 3)
    expected = [y for *_, y in Reference(model).samples(make_batch())]
    np.testing.assert_allclose(run(model).prediction, expected, rtol=1e-4, atol=1e-5)
    assert model.loss(make_batch())["total"] == sum(model.loss(make_batch())[name] for name in ("L_multi", "L_uni"))


def test_fusion_of_table_6_sets_the_width_of_the_fused_head() -> None:
    assert make_model(fusion="sum").fused_head.score.in_features == 8
    assert make_model(fusion="concat").fused_head.score.in_features == 24


def test_temperature_sharpens_without_changing_the_start() -> None:
    low, high = run(make_model(temperature=0.1)).extras["routing"], run(make_model(temperature=10.0)).extras["routing"]
    assert (low.max(dim=1).values > high.max(dim=1).values).all()
    shares = torch.randn(50, 7)
    starts = []
    for temperature in (0.01, 1.0):
        torch.manual_seed(5)
        router = Router(dict.fromkeys(MODALITIES, 8), replace(SMALL, temperature=temperature)).eval()
        starts.append(router(shares).detach())
    np.testing.assert_allclose(starts[0], starts[1], rtol=1e-4)


def test_router_trains_on_batch_statistics_and_on_a_batch_of_one() -> None:
    model, one = make_model().train(), make_batch().select([0])
    assert model.router is not None
    before = model.router.norm.running_mean.clone()
    assert torch.isfinite(model.loss(one)["total"])
    np.testing.assert_array_equal(model.router.norm.running_mean, before)
    model.loss(make_batch())
    assert (model.router.norm.running_mean - before).abs().max() > 1e-3


def test_released_router_cuts_after_router_steps_and_the_encoders_do_not() -> None:
    model, batch = make_model(as_released=True), make_batch()
    changed = batch.text.clone()
    changed[0, 4] += 5.0  # the fifth of five steps; router_steps is 4
    a, b = run(model, batch), run(model, batch.replace(text=changed))
    np.testing.assert_array_equal(a.extras["routing"], b.extras["routing"])
    assert abs(a.extras["unimodal"][0, 0] - b.extras["unimodal"][0, 0]) > 1e-3
    changed[0, 3] += 5.0
    assert (run(model, batch.replace(text=changed)).extras["routing"] - a.extras["routing"])[0].abs().max() > 1e-4


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_what_every_model_must_keep_in_every_variant(options: dict[str, object]) -> None:
    """Rows alone, padding of any amount and content, one step, no step, and told absence."""
    model, batch = make_model(**options), make_batch()
    whole = run(model, batch).prediction
    for i in range(len(batch)):
        np.testing.assert_allclose(run(model, batch.select([i])).prediction[0], whole[i], rtol=1e-4, atol=1e-5)
    longer = {}
    for m in MODALITIES:
        x = torch.cat([batch.features(m), batch.features(m)], dim=1)
        padding = torch.arange(x.shape[1]) >= batch.lengths(m)[:, None]
        longer[m] = x.masked_fill(padding[..., None], 99.0)
    np.testing.assert_allclose(run(model, batch.replace(**longer)).prediction, whole, rtol=1e-4, atol=1e-5)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[:, 1] = False
    told, zeros = batch.replace(present=present), batch.replace(audio_lengths=torch.zeros(5, dtype=torch.int64))
    np.testing.assert_allclose(run(model, told).prediction, run(model, zeros).prediction, atol=1e-6)
    assert torch.isfinite(run(model, batch.replace(present=torch.zeros(5, 3, dtype=torch.bool))).prediction).all()


@pytest.mark.parametrize("options", [*VARIANTS, {"no_MoME": True}, {"no_UD": True, "no_RE": True}], ids=str)
def test_gradients_reach_every_parameter(options: dict[str, object]) -> None:
    model = make_model(**options).train()
    without = [name for name, g in gradients(model, "total").items() if not g.abs().sum() > 0]
    assert without == []


def attention_and_feed_forward(d: int, layers: int) -> int:
    layer = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + 2 * 2 * d
    return layers * layer + 2 * d


def head_size(d: int) -> int:
    return 2 * (d * d + d) + d + 1


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("as_released", [False, True])
def test_number_of_parameters(fusion: str, as_released: bool) -> None:
    d, hidden, steps, total = 8, 7, 4, sum(SPEC.dims)
    expected = d * (5 * 6 + 3 * 5 + 1 * 4)  # convolutions of widths 5, 3, 1
    expected += (1 if as_released else 3) * d * d
    expected += 3 * attention_and_feed_forward(d, layers=2) + 3 * head_size(d)
    expected += head_size(d if fusion == "sum" else 3 * d)
    expected += steps * total * hidden + hidden if as_released else 3 * d * hidden + 2 * hidden
    expected += 3 * hidden + 3 + (0 if as_released else 3)
    model = make_model(fusion=fusion, as_released=as_released)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_released_router_has_the_size_of_the_release() -> None:
    with torch.device("meta"):
        model = EMOE(InputSpec(dims=(768, 5, 20)), replace(EMOE.presets["mosi"], as_released=True))
    assert model.router is not None
    width, hidden = 50 * (768 + 5 + 20), 50 * (768 + 5 + 20) // 8
    assert (width, hidden) == (39_650, 4_956)
    assert sum(p.numel() for p in model.router.parameters()) == (width + 1) * hidden + 3 * (hidden + 1)


def test_overfits_a_few_samples() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(32, t, d, generator=g) for m, t, d in zip(MODALITIES, (5, 4, 6), SPEC.dims, strict=True)}
    batch = Batch(**x, labels=torch.rand(32, generator=g) * 6 - 3)
    model = EMOE(SPEC, replace(SMALL, d_model=16, temperature=0.1, lambda_1=0.1, lambda_2=0.1)).train()
    model.fit_statistics(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 150)
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        optimizer.step()
    error = run(model.eval(), batch).prediction - batch.labels
    assert error.abs().mean() < 0.1


def test_the_papers_numbers() -> None:
    assert EMOE.presets["mintrec"] == replace(
        EMOE.presets["mosi"], distilled="logits"
    )  # eq. 10-11: classes have logits
    assert EMOE.optimisation["mintrec"] == EMOE.optimisation["mosi"]
    for name in ("mosi", "mosei"):
        paper, recipe = EMOE.presets[name], EMOE.optimisation[name]
        assert (paper.alpha, paper.lambda_1, paper.lambda_2, paper.temperature, paper.fusion) == (
            0.1,
            0.1,
            0.1,
            0.1,
            "sum",
        )
        assert (recipe.batch_size, recipe.epochs) == (16, 50)
        assert not paper.as_released
    assert [getattr(EMOE.presets["mosi"], f"kernel_{m}") for m in MODALITIES] == [5, 5, 5]
    assert [getattr(EMOE.presets["mosei"], f"kernel_{m}") for m in MODALITIES] == [5, 1, 3]


def test_bad_options() -> None:
    with pytest.raises(InputError, match="fusion must be one of sum, concat; got 'mean'"):
        EMOEConfig(fusion="mean")
    with pytest.raises(InputError, match="as_released has its own similarity; leave it at its default, 'squared'"):
        EMOEConfig(as_released=True, similarity="kl")
    with pytest.raises(InputError, match="distilled='logits' needs fusion='sum'"):
        EMOEConfig(distilled="logits", fusion="concat")
    with pytest.raises(InputError, match="multiple of heads=3; got 8"):
        EMOEConfig(d_model=8, heads=3)
    with pytest.raises(InputError, match="kernel_audio must be odd, so that it has a middle; got 4"):
        EMOEConfig(kernel_audio=4)
    with pytest.raises(InputError, match="temperature and epsilon must be above 0; got 0"):
        EMOEConfig(temperature=0.0)
    with pytest.raises(InputError, match="attention_dropout_audio must be at least 0 and below 1; got 1"):
        EMOEConfig(attention_dropout_audio=1.0)
    with pytest.raises(InputError, match="layers and router_steps must be at least 1"):
        EMOEConfig(layers=0)
