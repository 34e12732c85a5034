"""TEXT against its equations, written out with NumPy and loops over positions, heads, experts and layers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions import MODALITIES, Batch, InputError, corrupt
from corruptions.batch import Derived
from robustbench_msa.models.contract import Encoded, InputSpec, Output
from robustbench_msa.models.text_moe import EXPLANATION_OF, SUBSETS, TEXT, TEXTConfig, shares, within_capacity

Array = NDArray[np.float64]
SOURCES = {"comment": MODALITIES, "explanation_audio": ("audio",), "explanation_vision": ("vision",)}
PLAIN = InputSpec(dims=(6, 5, 4))
SPEC = replace(PLAIN, derived={"comment": 5, "explanation_audio": 3, "explanation_vision": 4})
SMALL = TEXTConfig(tokens=3, d_model=8, heads=2, d_head=3, d_ff=7, layers=2, num_experts=4, top_k=2, d_expert=5)
SMALL = replace(SMALL, kernel=2, dropout=0.0)
VARIANTS: tuple[dict[str, object], ...] = (
    {},
    {"explanations": False},
    {"comment": False},
    {"EA": "block"},
    {"EA": "Linear"},
    {"TA": "concatenation"},
    {"TA": "Mamba"},
    {"TA": "TCA"},
    {"TA_projection": "split", "expand": 1, "kernel": 3},
    {"SMoE": "Trans"},
    {"route_by": "token", "router_noise": False, "top_k": 3},
    {"gate": "sigmoid"},
    {"no_gating": True},
    {"tokens_from": "first", "encoder_layers": 0},
    *({"modalities": subset} for subset in SUBSETS[1:]),
)


def make_batch(n: int = 7, seed: int = 0) -> Batch:
    """Seven steps of text, five of audio, two of vision, ragged; explanations of one to four steps of four or five."""
    g = torch.Generator().manual_seed(seed)
    steps = dict(zip(MODALITIES, (7, 5, 2), strict=True))
    x = {m: torch.randn(n, steps[m], d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    lengths = {f"{m}_lengths": torch.randint(1, steps[m] + 1, (n,), generator=g) for m in MODALITIES}
    derived = {}
    for name, d in SPEC.derived.items():
        values = torch.randn(n, 5 if name == "comment" else 4, d, generator=g)
        ends = torch.randint(1, 5, (n,), generator=g)
        values[torch.arange(values.shape[1]) >= ends[:, None]] = 0.0
        derived[name] = Derived(values, SOURCES[name])
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, n), derived=derived)  # type: ignore[arg-type]


def make_model(spec: InputSpec = SPEC, **options: object) -> TEXT:
    torch.manual_seed(0)
    model = TEXT(spec, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    torch.nn.init.ones_(model.classifier[0].bias)  # no rectifier is silent for every sample
    model.fit_statistics(make_batch(40, seed=9))
    return model.eval()


def run(model: TEXT, batch: Batch | None = None) -> Output:
    with torch.no_grad():
        return model(batch if batch is not None else make_batch())


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu(x: Array) -> Array:
    return np.asarray(torch.nn.functional.gelu(torch.from_numpy(x)).numpy())


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


class Reference:
    """The whole model for one sample at a time, from its weights and the raw features."""

    def __init__(self, model: TEXT) -> None:
        self.w = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.c, self.used, self.explained = model.config, model.used, model.derived_inputs()

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", np.zeros(1))

    def norm(self, name: str, x: Array) -> Array:
        normal = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return normal * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def mlp(self, name: str, x: Array) -> Array:
        return self.linear(f"{name}.3", gelu(self.linear(f"{name}.0", x)))

    def attention(self, name: str, queries: Array, y: Array) -> Array:
        c, inner = self.c, self.c.heads * self.c.d_head
        q, kv = self.linear(f"{name}.q", queries), self.linear(f"{name}.kv", y)
        mixed = np.zeros((len(q), inner))
        for head in range(c.heads):
            part = slice(head * c.d_head, (head + 1) * c.d_head)
            k, v = kv[:, :inner][:, part], kv[:, inner:][:, part]
            for t in range(len(q)):
                mixed[t, part] = softmax(k @ q[t, part] / np.sqrt(c.d_head)) @ v
        return self.linear(f"{name}.out", mixed)

    def transformer(self, name: str, x: Array) -> Array:
        for i in range(self.c.encoder_layers):
            normal = self.norm(f"{name}.{i}.norm_attention", x)
            x = x + self.attention(f"{name}.{i}.attention", normal, normal)
            x = x + self.mlp(f"{name}.{i}.ff", self.norm(f"{name}.{i}.norm_ff", x))
        return x

    def tokens(self, name: str, x: Array, length: int) -> Array:
        """The learnable token, then K: each the mean of a finely sampled share of the valid steps."""
        x = (x - self.w[f"{name}.standardise.mean"]) / self.w[f"{name}.standardise.std"]
        made = [self.w[f"{name}.learnable"]]
        for k in range(self.c.tokens):
            if self.c.tokens_from == "first":
                step = x[k] if k < length else np.zeros(x.shape[1])
            else:
                times = (k + (np.arange(840) + 0.5) / 840) * length / self.c.tokens
                step = np.mean([x[int(time)] for time in times], axis=0) if length else np.zeros(x.shape[1])
            made.append(self.linear(f"{name}.project", step) + self.w[f"{name}.place"][k])
        return np.stack(made)

    def align(self, m: str, f: Array, e: Array) -> Array:
        name = f"EA.{m}"
        if self.c.EA == "Linear":
            return self.linear(f"{name}.linear", np.concatenate([f, e], axis=1))
        if self.c.EA == "block":
            z = e + self.attention(f"{name}.attention", self.norm(f"{name}.norm_e", e), self.norm(f"{name}.norm_f", f))
            return z + self.mlp(f"{name}.ff", self.norm(f"{name}.norm_ff", z))
        q, k, v = (self.linear(f"{name}.W_{letter}", x) for letter, x in (("Q", e), ("K", f), ("V", f)))
        return np.stack([softmax(k @ q[t]) @ v for t in range(len(q))])  # eq. 1

    def conv(self, name: str, x: Array) -> Array:
        w, b = self.w[f"{name}.conv.weight"][:, 0], self.w[f"{name}.conv.bias"]  # (width, kernel)
        y = np.tile(b, (len(x), 1))
        for t in range(len(x)):
            for back in range(min(w.shape[1], t + 1)):
                y[t] += w[:, w.shape[1] - 1 - back] * x[t - back]
        return y

    def align_in_time(self, a: Array, v: Array) -> tuple[Array, Array]:
        if self.c.TA == "concatenation":
            return a, v
        if self.c.TA == "TCA":
            na, nv = self.norm("TA.norm_a", a), self.norm("TA.norm_v", v)
            return a + self.attention("TA.audio", na, nv), v + self.attention("TA.vision", nv, na)
        if self.c.TA == "Mamba":
            both = self.mamba(np.concatenate([a, v]))
            return both[: len(a)], both[len(a) :]
        ln = {m: self.linear(f"TA.{m}.linear", self.norm(f"TA.{m}.norm", x)) for m, x in (("audio", a), ("vision", v))}
        width, split = self.c.expand * self.c.d_model, self.c.TA_projection == "split"
        gate = {m: y[:, width:] if split else y for m, y in ln.items()}
        conv = {m: self.conv(f"TA.{m}.conv", y[:, :width]) for m, y in ln.items()}
        left = a + self.linear("TA.audio.L", conv["audio"] * silu(gate["vision"]))  # eq. 2
        right = v + self.linear("TA.vision.L", conv["vision"] * silu(gate["audio"]))  # eq. 3
        return left, right

    def mamba(self, x: Array) -> Array:
        width = self.c.expand * self.c.d_model
        both = self.linear("TA.linear_in", self.norm("TA.norm", x))
        u, gate = silu(self.conv("TA.conv", both[:, :width])), both[:, width:]
        chosen, rank = self.linear("TA.select", u), self.w["TA.delta.weight"].shape[1]
        delta = softplus(self.linear("TA.delta", chosen[:, :rank]))
        b, c = chosen[:, rank : rank + 16], chosen[:, rank + 16 :]
        a, h, y = -np.exp(self.w["TA.log_A"]), np.zeros((width, 16)), np.zeros_like(u)
        for t in range(len(x)):
            for i in range(width):
                h[i] = np.exp(delta[t, i] * a[i]) * h[i] + delta[t, i] * u[t, i] * b[t]
                y[t, i] = h[i] @ c[t] + self.w["TA.D"][i] * u[t, i]
        return x + self.linear("TA.linear_out", y * silu(gate))

    def smoe(self, x: Array, key: Array) -> tuple[Array, list[Array]]:
        routed_by, every = key[0] if self.c.route_by == "token" else key.mean(axis=0), []
        for i in range(self.c.layers):
            name = f"SMoE.layers.{i}"
            normal = self.norm(f"{name}.norm_attention", x)
            x = x + self.attention(f"{name}.attention", normal, normal)
            normal = self.norm(f"{name}.norm_ff", x)
            if self.c.SMoE == "Trans":
                x = x + self.mlp(f"{name}.ff", normal)
                continue
            logits = self.linear(f"SMoE.routers.{i}.W_g", routed_by)
            chosen = np.argsort(-logits)[: self.c.top_k]
            gates = np.zeros(self.c.num_experts)
            gates[chosen] = softmax(logits[chosen])
            x = x + np.sum([gates[e] * self.mlp(f"{name}.ff.expert.{e}", normal) for e in chosen], axis=0)
            every.append(gates)
        return self.norm("SMoE.norm", x), every

    def fuse_gates(self, h: Array) -> tuple[Array, Array]:
        if self.c.no_gating or len(h) == 1:
            return h.mean(axis=0), np.full(len(h), 1 / len(h))
        if self.c.gate == "softmax":
            g = softmax(self.linear("GF.gate", h.reshape(-1)))
            return g @ h, g
        gates = sigmoid(self.linear("GF.gate", h))
        return (gates * h).sum(axis=0), gates.mean(axis=1)

    def predict(self, batch: Batch, i: int) -> tuple[Any, Array, list[Array]]:
        e = {}
        for m in self.used:
            x, name = batch.features(m)[i].double().numpy(), EXPLANATION_OF[m]
            e[m] = self.transformer(f"encoder.{m}", self.tokens(f"tokens.{m}", x, int(batch.lengths(m)[i])))
            if name in self.explained:
                values = batch.derived[name].values[i].double().numpy()
                tokens = self.tokens(f"explanation_tokens.{name}", values, int((values != 0).any(axis=1).sum()))
                e[m] = self.align(m, e[m], self.transformer("explanation_encoder", tokens))
        if "audio" in e and "vision" in e:
            e["audio"], e["vision"] = self.align_in_time(e["audio"], e["vision"])
        positions = np.concatenate([e[m] for m in self.used])
        x, gates = self.smoe(positions, e.get("text", positions))
        z, g = self.fuse_gates(x[:: self.c.tokens + 1])  # the learnable token of each modality
        hidden = np.maximum(self.linear("classifier.0", z), 0)
        weights = np.zeros(3)
        weights[[MODALITIES.index(m) for m in self.used]] = g
        outputs = self.linear("classifier.3", hidden)  # eq. 5
        return outputs if len(outputs) > 1 else outputs[0], weights, gates


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_whole_model_sample_by_sample(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    output, reference = run(model, batch), Reference(model)
    assert output.prediction.std() > 1e-2
    for i in range(len(batch)):
        prediction, weights, gates = reference.predict(batch, i)
        np.testing.assert_allclose(output.prediction[i], prediction, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.extras["gate"][i], weights, rtol=1e-4, atol=1e-5)
        if gates:
            np.testing.assert_allclose(output.extras["routing"][i], gates[-1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(output.extras["routing_layers"][i], np.concatenate(gates), rtol=1e-4, atol=1e-5)
        else:
            assert output.extras.keys() == {"gate"}


def test_loss_is_the_mean_squared_error() -> None:
    model, batch = make_model(), make_batch()
    labels, reference = np.linspace(-3, 3, 7), Reference(model)
    predictions = np.array([reference.predict(batch, i)[0] for i in range(7)])
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    assert losses.keys() == {"total", "L_mse"}
    np.testing.assert_allclose(losses["L_mse"], np.mean((predictions - labels) ** 2), rtol=1e-4)
    assert losses["total"] == losses["L_mse"]


def test_logits_and_cross_entropy_of_classes() -> None:
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    model, batch = make_model(replace(SPEC, num_classes=3)), make_batch().replace(labels=labels)
    logits = np.array([Reference(model).predict(batch, i)[0] for i in range(7)])
    np.testing.assert_allclose(run(model, batch).prediction, logits, rtol=1e-4, atol=1e-5)
    losses = {name: value.item() for name, value in model.loss(batch).items()}
    assert losses.keys() == {"total", "L_ce"}
    expected = np.mean([-np.log(softmax(logits[i])[y]) for i, y in enumerate(labels.tolist())])
    np.testing.assert_allclose(losses["L_ce"], expected, rtol=1e-4)
    assert losses["total"] == losses["L_ce"]


def test_shares_average_the_valid_steps() -> None:
    w = shares(torch.tensor([0, 1, 3, 6, 7]), 7, 3).double().numpy()
    np.testing.assert_array_equal(w[0], 0)
    np.testing.assert_allclose(w[1:].sum(axis=2), 1, rtol=1e-6)
    np.testing.assert_allclose(w[2, :, :3], np.eye(3), atol=1e-6)  # as many steps as tokens
    np.testing.assert_allclose(w[3, :, :6], np.repeat(np.eye(3), 2, axis=1) / 2, atol=1e-6)
    np.testing.assert_allclose(w[4].mean(axis=0), 1 / 7, rtol=1e-6)  # each step counts as much as any other
    for i, length in enumerate((0, 1, 3, 6, 7)):
        np.testing.assert_array_equal(w[i, :, length:], 0)


def stretched(batch: Batch) -> Batch:
    """The same samples with more padding, of rubbish in the features and of zeros in the explanations."""
    changes: dict[str, object] = {}
    for m in MODALITIES:
        x = torch.cat([batch.features(m), batch.features(m)], dim=1)
        steps = torch.arange(x.shape[1])
        changes[m] = torch.where((steps < batch.lengths(m)[:, None])[..., None], x, 555.0)
    derived = {n: Derived(torch.cat([d.values, d.values * 0], 1), d.sources) for n, d in batch.derived.items()}
    return batch.replace(**changes, derived=derived)


@pytest.mark.parametrize("tokens_from", ["whole", "first"])
def test_padding_never_matters(tokens_from: str) -> None:
    model = make_model(tokens_from=tokens_from)
    torch.testing.assert_close(run(model, stretched(make_batch())).prediction, run(model).prediction)


def test_by_default_neither_the_batch_nor_the_pass_matters() -> None:
    model, batch = make_model(), make_batch(9)
    whole = run(model, batch)
    torch.testing.assert_close(run(model, batch).prediction, whole.prediction, rtol=0, atol=0)
    for i in range(9):
        alone = run(model, batch.select([i]))
        torch.testing.assert_close(alone.prediction[0], whole.prediction[i], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.extras["routing"][0], whole.extras["routing"][i], rtol=1e-5, atol=1e-5)


def test_as_released_two_passes_differ_by_the_router_noise() -> None:
    model = make_model(as_released=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert (run(model).prediction - run(model).prediction).abs().max() > 1e-3
    silent = make_model(as_released=True, router_noise=False)
    torch.testing.assert_close(run(silent).prediction, run(silent).prediction, rtol=0, atol=0)


def test_as_released_late_samples_lose_experts() -> None:
    """Capacity int(k N / E) in a batch, 1 for a sample alone: it has all of its experts then."""
    model, usual = make_model(as_released=True, router_noise=False), make_model(router_noise=False)
    batch = make_batch(40)
    full, limited = run(usual, batch).extras["routing"], run(model, batch).extras["routing"]
    assert ((limited > 0).sum(dim=0) <= 2 * 40 // 4).all()
    np.testing.assert_array_equal(limited[:20], full[:20])  # no queue is longer than 20 yet
    assert ((full > 0) & (limited == 0)).any()
    for i in range(40):
        torch.testing.assert_close(run(model, batch.select([i])).extras["routing"][0], full[i])
    gates = torch.tensor([[0.6, 0.4, 0.0], [0.3, 0.0, 0.7], [0.5, 0.5, 0.0], [0.0, 0.9, 0.1]])
    expected = [[0.6, 0.4, 0.0], [0.3, 0.0, 0.7], [0.0, 0.5, 0.0], [0.0, 0.0, 0.1]]
    np.testing.assert_allclose(within_capacity(gates, 2), expected)


def test_router_noise_is_for_training_only() -> None:
    model = make_model()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        eval_gates = run(model).extras["routing"]
        train_gates = model.train()(make_batch()).extras["routing"]  # dropout is 0
    assert (train_gates - eval_gates).abs().max() > 1e-3
    quiet = make_model(router_noise=False)
    torch.testing.assert_close(quiet.train()(make_batch()).extras["routing"], run(quiet).extras["routing"])
    assert not any("W_noise" in name for name, _ in quiet.named_parameters())


def test_gates_choose_k_experts_by_the_text_alone() -> None:
    model, batch = make_model(), make_batch(30)
    gates = run(model, batch).extras["routing_layers"].view(30, 2, 4)
    np.testing.assert_array_equal((gates > 0).sum(dim=2), 2)
    np.testing.assert_allclose(gates.sum(dim=2), 1, rtol=1e-6)
    other = make_batch(30, seed=5)
    same_text = other.replace(
        text=batch.text,
        text_lengths=batch.text_lengths,
        derived={**other.derived, "comment": batch.derived["comment"]},
    )
    torch.testing.assert_close(run(model, same_text).extras["routing_layers"].view(30, 2, 4), gates)
    assert (run(model, same_text).prediction - run(model, batch).prediction).abs().max() > 1e-2


def test_an_expert_that_is_not_chosen_is_not_computed() -> None:
    model, batch = make_model(), make_batch(30)
    chosen = run(model, batch).extras["routing"] > 0
    (e,) = chosen.sum(dim=0).sub(15).abs().topk(1, largest=False).indices.tolist()  # chosen by some and not by others
    with torch.no_grad():
        model.SMoE.layers[1].ff.expert[e][0].weight.fill_(torch.nan)
    predictions = run(model, batch).prediction
    assert 0 < chosen[:, e].sum() < 30
    np.testing.assert_array_equal(torch.isnan(predictions), chosen[:, e])


# Explanations ------------------------------------------------------------------------------------------------------


def test_which_explanations_are_read() -> None:
    full = ("comment", "explanation_audio", "explanation_vision")
    assert make_model().derived_inputs() == full
    assert make_model(comment=False).derived_inputs() == full[1:]
    assert make_model(explanations=False).derived_inputs() == ()
    assert make_model(modalities="ta").derived_inputs() == full[:2]
    assert make_model(PLAIN).derived_inputs() == ()
    some = replace(PLAIN, derived={"explanation_audio": 3, "subtitles": 9})
    assert make_model(some).derived_inputs() == ("explanation_audio",)


def with_derived(batch: Batch, name: str, values: Tensor) -> Batch:
    return batch.replace(derived={**batch.derived, name: Derived(values, SOURCES[name])})


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", ["CA", "block", "Linear"])
def test_every_explanation_matters_unless_left_out(name: str, kind: str) -> None:
    batch = make_batch()
    changed = with_derived(batch, name, -2 * batch.derived[name].values)
    model, without = make_model(EA=kind), make_model(EA=kind, explanations=False)
    assert (run(model, changed).prediction - run(model, batch).prediction).abs().max() > 1e-4
    torch.testing.assert_close(run(without, changed).prediction, run(without, batch.replace(derived={})).prediction)


def test_without_explanations_is_the_model_of_data_that_has_none() -> None:
    a, b = make_model(SPEC, explanations=False), make_model(PLAIN)
    assert a.state_dict().keys() == b.state_dict().keys()
    b.load_state_dict(a.state_dict())
    torch.testing.assert_close(run(a).prediction, run(b).prediction, rtol=0, atol=0)


@pytest.mark.parametrize("name", SOURCES)
def test_a_lost_explanation_is_finite_and_one_constant(name: str) -> None:
    model, batch = make_model(), make_batch()
    lost = with_derived(batch, name, torch.zeros_like(batch.derived[name].values))
    assert torch.isfinite(run(model, lost).prediction).all()
    with torch.no_grad():
        encoded = model.encode_derived(name, lost.derived[name].values)["E"]
    torch.testing.assert_close(encoded, encoded[:1].expand_as(encoded))
    assert encoded.shape == (7, 4, 8)


def test_everything_lost_is_finite() -> None:
    model, batch = make_model(), make_batch()
    gone = run(model, batch.replace(present=torch.zeros(7, 3, dtype=torch.bool)))
    assert torch.isfinite(gone.prediction).all()
    torch.testing.assert_close(gone.prediction, gone.prediction[:1].expand(7))


def test_explanations_are_lost_with_what_they_were_made_from() -> None:
    """Told that audio is absent, nothing depends on it, nor on its explanation, nor on the comment."""
    model, batch = make_model(), make_batch(20)
    out = corrupt(batch, "missing", 0.7, seed=2)
    again = out.replace(
        audio=torch.where(out.present[:, 1, None, None], out.audio, torch.nan),
        derived={
            name: Derived(
                torch.where(
                    out.present[:, [MODALITIES.index(s) for s in d.sources]].all(1)[:, None, None], d.values, 9.0
                ),
                d.sources,
            )
            for name, d in batch.derived.items()
        },
    )
    assert 0 < (~out.present[:, 1]).sum() < 20
    torch.testing.assert_close(run(model, again).prediction, run(model, out).prediction)


def test_statistics_come_from_what_is_there() -> None:
    batch, model = make_batch(30), make_model()
    present = torch.ones(30, 3, dtype=torch.bool)
    present[:10, 1] = False
    model.fit_statistics(batch.replace(present=present))
    steps = batch.derived["explanation_audio"].values[10:]
    expected = steps[(steps != 0).any(dim=2)].double().mean(dim=0)
    np.testing.assert_allclose(model.explanation_tokens["explanation_audio"].standardise.mean, expected, atol=1e-6)
    heard = batch.audio[10:][batch.valid("audio")[10:]].double().mean(dim=0)
    np.testing.assert_allclose(model.tokens["audio"].standardise.mean, heard, atol=1e-6)


def test_explanation_borders() -> None:
    with pytest.raises(InputError, match=r"comment: expected features \(N, T, 5\), got features of shape"):
        make_model().encode_derived("comment", torch.zeros(2, 3, 4))


# Ablations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", SUBSETS)
def test_modalities_left_out_do_not_matter(subset: str) -> None:
    model, batch = make_model(modalities=subset), make_batch()
    before = run(model, batch)
    for i, m in enumerate(MODALITIES):
        used = m[0] in subset
        changed = with_derived(
            batch.replace(**{m: 3 - batch.features(m)}), EXPLANATION_OF[m], batch.derived[EXPLANATION_OF[m]].values * -2
        )
        difference = (run(model, changed).prediction - before.prediction).abs().max()
        assert (difference > 1e-4) if used else (difference == 0)
        assert bool((before.extras["gate"][:, i] > 0).all()) is used
        assert (m in model.encoder) is used
    np.testing.assert_allclose(before.extras["gate"].sum(dim=1), 1, rtol=1e-5)


def test_nothing_is_aligned_in_time_without_audio_or_vision() -> None:
    assert hasattr(make_model(modalities="av"), "TA")
    assert not any(hasattr(make_model(modalities=s), "TA") for s in ("ta", "tv", "t", "a", "v"))


@pytest.mark.parametrize(
    ("option", "crosses"), [("TA", True), ("concatenation", False), ("Mamba", True), ("TCA", True)]
)
def test_temporal_alignment_lets_vision_into_audio_and_back(option: str, crosses: bool) -> None:
    """Mamba reads [E_a; E_v] forwards: audio reaches vision, vision never reaches audio."""
    block, g = make_model(TA=option).TA, torch.Generator().manual_seed(0)
    a, v, other = torch.randn(3, 2, 4, 8, generator=g)
    with torch.no_grad():
        left, right = block(a, v)
        left_changed = (block(a, other)[0] - left).abs().max() > 1e-4
        right_changed = (block(other, v)[1] - right).abs().max() > 1e-4
    assert bool(left_changed) is (crosses and option != "Mamba")
    assert bool(right_changed) is crosses


def test_no_gating_weighs_all_alike() -> None:
    np.testing.assert_allclose(run(make_model(no_gating=True)).extras["gate"], 1 / 3, rtol=1e-6)
    assert not any(name.startswith("GF") for name, _ in make_model(no_gating=True).named_parameters())


# Sizes, training, presets ------------------------------------------------------------------------------------------


def count(spec: InputSpec, c: TEXTConfig) -> int:
    """Parameters of the paper's model, written out."""
    d, inner, width = c.d_model, c.heads * c.d_head, c.expand * c.d_model
    mlp = lambda hidden: d * hidden + hidden + hidden * d + d  # noqa: E731
    attention, norm = 3 * d * inner + inner * d + d, 2 * d
    layer = 2 * norm + attention + mlp(c.d_ff)
    tokens = lambda d_in: d_in * d + d + (c.tokens + 1) * d  # noqa: E731
    encoders = sum(tokens(d_in) + c.encoder_layers * layer for d_in in spec.dims)
    explanations = sum(tokens(d_in) + 3 * d * d for d_in in spec.derived.values())
    explanations += c.encoder_layers * layer if spec.derived else 0
    temporal = 2 * (norm + d * width + width + width * c.kernel + width + width * d + d)
    experts = 2 * norm + attention + c.num_experts * mlp(c.d_expert) + 2 * d * c.num_experts
    head = 3 * d * 3 + 3 + d * (d // 2) + d // 2 + d // 2 + 1
    return encoders + explanations + temporal + c.layers * experts + norm + head


@pytest.mark.parametrize("spec", [PLAIN, SPEC])
@pytest.mark.parametrize("preset", TEXT.presets)
def test_parameter_count(spec: InputSpec, preset: str) -> None:
    config = TEXT.presets[preset]
    assert sum(p.numel() for p in TEXT(spec, config).parameters()) == count(spec, config)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradients_reach_every_parameter(options: dict[str, object]) -> None:
    """But for experts that no sample chose: nothing here balances their load, as in the release."""
    model, batch = make_model(**options).train(), make_batch(64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        routing = run(model, batch).extras.get("routing_layers", torch.ones(1, 2 * 4))
        torch.manual_seed(0)  # the same router noise again
        model.loss(batch)["total"].backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    idle = [divmod(i, 4) for i in (routing.sum(dim=0) == 0).nonzero().flatten().tolist()]
    names = {
        f"SMoE.layers.{layer}.ff.expert.{e}.{i}.{w}" for layer, e in idle for i in (0, 3) for w in ("weight", "bias")
    }
    assert without == names
    assert not names or options


@pytest.fixture(scope="module")
def overfitted() -> tuple[TEXT, Batch]:
    batch = make_batch(32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TEXT(SPEC, replace(SMALL, d_model=16, d_head=8, layers=1))
        model.fit_statistics(batch)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(120):
            optimizer.zero_grad()
            model.loss(batch)["total"].backward()
            optimizer.step()
    return model.eval(), batch


def test_it_can_learn_32_samples_by_heart(overfitted: tuple[TEXT, Batch]) -> None:
    model, batch = overfitted
    assert batch.labels is not None
    assert (run(model, batch).prediction - batch.labels).abs().mean() < 0.1


def test_a_checkpoint_holds_all_of_it(overfitted: tuple[TEXT, Batch]) -> None:
    model, batch = overfitted
    spec, config = json.loads(json.dumps(model.arguments())).values()
    again = TEXT(InputSpec(tuple(spec["dims"]), derived=spec["derived"]), TEXTConfig(**config)).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(run(again, batch).prediction, run(model, batch).prediction, rtol=0, atol=0)


def test_parts_can_be_mixed() -> None:
    """An explanation is encoded from itself alone, and fused with whatever the modalities are."""
    model, one, two = make_model(), make_batch(), make_batch(seed=3)
    with torch.no_grad():
        a, b = model.encode(one), model.encode(two)
        derived = {**a.derived, "comment": b.derived["comment"]}
        mixed = model.fuse(Encoded(a.text, b.audio, a.vision, derived), one.present)
    both = with_derived(
        one.replace(audio=two.audio, audio_lengths=two.audio_lengths), "comment", two.derived["comment"].values
    )
    torch.testing.assert_close(mixed.prediction, run(model, both).prediction)


def test_the_papers_numbers() -> None:
    presets, released = TEXT.presets, TEXT.optimisation
    assert all((presets[name].tokens, presets[name].EA, presets[name].TA) == (50, "CA", "TA") for name in SIZES)
    assert {name: presets[name].layers for name in SIZES} == SIZES
    assert presets["synth"].EA == "CA"
    assert not any(config.as_released for config in presets.values())
    o = released["sims"]
    assert (o.optimizer, o.learning_rate, o.weight_decay, o.batch_size, o.epochs) == ("adamw", 1e-4, 1e-4, 64, 200)
    assert released["mosei"].epochs == 101
    assert all(json.loads(json.dumps(asdict(config))) == asdict(config) for config in presets.values())


SIZES = {"mosi": 3, "mosei": 2, "sims": 3, "simsv2": 1}


@pytest.mark.parametrize("spec", [(48, 24, 16), (300, 74, 35)])
def test_the_synth_preset_is_small(spec: tuple[int, int, int]) -> None:
    derived = dict.fromkeys(SOURCES, 16)
    model = TEXT(InputSpec(spec, derived=derived), TEXT.presets["synth"])
    assert sum(value.numel() for value in model.state_dict().values()) < 75_000  # 300 kB of float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 6}, "top_k must be between 2 and num_experts=5; got 6"),
        ({"top_k": 1}, "top_k must be between 2 and num_experts=5; got 1"),
        ({"tokens": 0}, "tokens must be at least 1; got 0"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"EA": "none"}, "EA must be one of CA, block, Linear; got 'none'"),
        ({"TA": "mamba"}, "TA must be one of TA, concatenation, Mamba, TCA"),
        ({"TA_projection": "x"}, "TA_projection must be one of shared, split"),
        ({"SMoE": "dense"}, "SMoE must be one of text-routed, Trans"),
        ({"tokens_from": "last"}, "tokens_from must be one of whole, first"),
        ({"route_by": "max"}, "route_by must be one of mean, token"),
        ({"gate": "none"}, "gate must be one of softmax, sigmoid"),
        ({"modalities": "at"}, "modalities must be one of tav, av, ta, tv, t, a, v; got 'at'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"text_moe: {message}"):
        TEXTConfig(**options)  # type: ignore[arg-type]
