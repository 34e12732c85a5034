"""MISA against its equations, written out with NumPy: one sample at a time, gates and heads in loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import Encoded, InputSpec, Output
from robustbench_msa.models.misa import MISA, FusionLayer, MISAConfig, central_moment_discrepancy, overlap

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
STEPS = {"text": 5, "audio": 7, "vision": 6}
SMALL = MISAConfig(d_model=6, d_ff=10, lstm_hidden=3, fusion_dropout=0.0, dropout=0.0)


def make_batch(n: int = 7) -> Batch:
    """Lengths from nothing to full."""
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(n, STEPS[m], d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    lengths = {f"{m}_lengths": torch.arange(n).clamp(max=STEPS[m]).roll(i) for i, m in enumerate(MODALITIES)}
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, n))


def make_model(**options: object) -> MISA:
    torch.manual_seed(0)
    model = MISA(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        nn.init.normal_(p, std=0.8)
    return model.eval()


def run(model: MISA, batch: Batch | None = None) -> Output:
    with torch.no_grad():
        return model(batch if batch is not None else make_batch())


def encode(model: MISA, batch: Batch | None = None) -> Encoded:
    with torch.no_grad():
        return model.encode(batch if batch is not None else make_batch())


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Reference:
    """Eq. 1 to 4 for one sample. x: the valid steps of a modality, ``(T_m, d_m)``."""

    def __init__(self, model: MISA) -> None:
        self.w = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.c = model.config

    def affine(self, prefix: str, x: Array) -> Array:
        return x @ self.w[f"{prefix}.weight"].T + self.w[f"{prefix}.bias"]

    def norm(self, prefix: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return unit * self.w[f"{prefix}.weight"] + self.w[f"{prefix}.bias"]

    def lstm(self, prefix: str, x: Array, suffix: str) -> Array:
        """All states ``(T, hidden)`` of one direction."""
        w_ih, w_hh = self.w[f"{prefix}.weight_ih_l0{suffix}"], self.w[f"{prefix}.weight_hh_l0{suffix}"]
        bias = self.w[f"{prefix}.bias_ih_l0{suffix}"] + self.w[f"{prefix}.bias_hh_l0{suffix}"]
        h = c = np.zeros(w_hh.shape[1])
        states = []
        for step in x:
            i, f, g, o = np.split(w_ih @ step + w_hh @ h + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            states.append(h)
        return np.array(states)

    def bidirectional(self, prefix: str, x: Array) -> tuple[Array, Array]:
        """States ``(T, 2 hidden)`` and the two final ones ``(2 hidden,)``."""
        forward, backward = self.lstm(prefix, x, ""), self.lstm(prefix, x[::-1], "_reverse")
        return np.hstack([forward, backward[::-1]]), np.concatenate([forward[-1], backward[-1]])

    def u(self, m: str, x: Array) -> Array:
        if m == "text" and self.c.text == "mean":
            utterance = x.mean(axis=0)
        else:
            states, h1 = self.bidirectional(f"lstm.{m}.first", x)
            _, h2 = self.bidirectional(f"lstm.{m}.second", self.norm(f"lstm.{m}.norm", states))
            utterance = np.concatenate([h1, h2])  # eq. 1
        return self.norm(f"project.{m}.2", np.maximum(self.affine(f"project.{m}.0", utterance), 0))

    def fused(self, M: Array) -> float:
        """From the vectors, ``(6, d_h)``, to the prediction."""
        d, heads = self.c.d_model, self.c.heads
        q, k, v = np.split(self.affine("fusion.qkv", M), 3, axis=1)
        attended = np.zeros_like(M)
        for h in range(heads):
            at = slice(h * d // heads, (h + 1) * d // heads)
            weights = np.exp(q[:, at] @ k[:, at].T / np.sqrt(d // heads))
            attended[:, at] = weights / weights.sum(axis=1, keepdims=True) @ v[:, at]  # eq. 3
        y = self.norm("fusion.norm_attention", M + self.affine("fusion.out", attended))  # eq. 4
        fed = self.affine("fusion.narrow", np.maximum(self.affine("fusion.widen", y), 0))
        h_out = self.norm("fusion.norm_ff", y + fed).reshape(-1)
        return float(self.affine("G.3", np.maximum(self.affine("G.0", h_out), 0))[0])


def sample(batch: Batch, i: int) -> dict[str, Array]:
    """Its valid steps; one step of zeros where it has none."""
    steps = {m: batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy() for m in MODALITIES}
    return {m: x if len(x) else np.zeros((1, x.shape[1])) for m, x in steps.items()}


FUSED = {"misa": ("c", "p"), "base": ("u",), "inv": ("c",), "sFusion": ("p",), "iFusion": ("c",)}


@pytest.mark.parametrize("text", ["mean", "sLSTM"])
@pytest.mark.parametrize("variant", FUSED)
def test_equations_1_to_4(text: str, variant: str) -> None:
    model, batch = make_model(text=text, variant=variant), make_batch()
    prediction, encoded, reference = run(model, batch).prediction, encode(model, batch), Reference(model)
    for i in range(len(batch)):
        vectors: dict[str, list[Array]] = {"u": [], "c": [], "p": []}
        for m, x in sample(batch, i).items():
            u = reference.u(m, x)
            vectors["u"].append(u)
            if variant != "base":
                vectors["c"].append(sigmoid(reference.affine("E_c.0", u)))  # eq. 2
            if variant not in ("base", "inv"):
                vectors["p"].append(sigmoid(reference.affine(f"E_p.{m}.0", u)))  # eq. 2
            for kind, value in encoded.part(m).items():
                np.testing.assert_allclose(value[i], vectors[kind][-1], rtol=1e-4, atol=1e-5, err_msg=f"{m} {kind}")
        M = np.array([h for kind in FUSED[variant] for h in vectors[kind]])
        np.testing.assert_allclose(prediction[i], reference.fused(M), rtol=1e-4, atol=1e-5)
    assert prediction.std() > 0.02


def test_fusion_against_torchs_transformer_layer() -> None:
    torch.manual_seed(0)
    ours, theirs = FusionLayer(8, 2, 12, 0.3).eval(), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    with torch.no_grad():
        for target, source in [
            (theirs.self_attn.out_proj, ours.out),
            (theirs.linear1, ours.widen),
            (theirs.linear2, ours.narrow),
            (theirs.norm1, ours.norm_attention),
            (theirs.norm2, ours.norm_ff),
        ]:
            target.load_state_dict(source.state_dict())
        theirs.self_attn.in_proj_weight.copy_(ours.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.qkv.bias)
        h = torch.randn(5, 6, 8)
        torch.testing.assert_close(ours(h), theirs(h), rtol=1e-4, atol=1e-5)


def numpy_cmd(x: Array, y: Array, K: int) -> float:
    total = np.sqrt(((x.mean(0) - y.mean(0)) ** 2).sum())
    for k in range(2, K + 1):
        gap = np.array(
            [
                np.mean((x[:, j] - x[:, j].mean()) ** k) - np.mean((y[:, j] - y[:, j].mean()) ** k)
                for j in range(x.shape[1])
            ]
        )
        total += np.sqrt((gap**2).sum())  # |b - a| = 1  eq. 6
    return float(total)


def numpy_overlap(x: Array, y: Array) -> float:
    def rows(h: Array) -> Array:
        centred = h - h.mean(axis=0)
        return np.array([row / np.sqrt((row**2).sum()) for row in centred])

    return float((np.abs(rows(x).T @ rows(y)) ** 2).sum())  # eq. 8


@pytest.mark.parametrize(
    "options", [{}, {"diff": "frobenius"}, {"K": 2, "alpha": 0.7, "beta": 0.1, "gamma": 2.0}], ids=str
)
def test_each_term_of_the_loss(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    encoded, losses, c = encode(model, batch), model.loss(batch), model.config
    u, common, private = ([encoded.part(m)[k].double().numpy() for m in MODALITIES] for k in ("u", "c", "p"))
    w = Reference(model)
    scale = 1 if c.diff == "frobenius" else c.d_model**2
    pairs = [*zip(common, private, strict=True), *combinations(private, 2)]
    assert len(pairs) == 6
    decoded = [w.affine(f"D.{m}", common[i] + private[i]) for i, m in enumerate(MODALITIES)]
    assert batch.labels is not None
    expected = {
        "L_task": np.mean((run(model, batch).prediction.numpy() - batch.labels.numpy()) ** 2),  # eq. 12
        "L_sim": sum(numpy_cmd(x, y, c.K) for x, y in combinations(common, 2)) / 3,  # eq. 7
        "L_diff": sum(numpy_overlap(x, y) for x, y in pairs) / scale,  # eq. 9
        "L_recon": np.mean([((u[m] - decoded[m]) ** 2).sum(axis=1).mean() / c.d_model for m in range(3)]),  # eq. 10
    }
    weights = {"L_task": 1, "L_sim": c.alpha, "L_diff": c.beta, "L_recon": c.gamma}
    expected["total"] = sum(weights[name] * value for name, value in expected.items())  # eq. 5
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name].item(), value, rtol=1e-4, err_msg=name)


def test_cmd_properties() -> None:
    g = torch.Generator().manual_seed(3)
    x, y = torch.rand(40, 5, generator=g), torch.rand(30, 5, generator=g)
    np.testing.assert_allclose(central_moment_discrepancy(x, x.flip(0), 5).item(), 0, atol=1e-6)
    np.testing.assert_allclose(
        central_moment_discrepancy(x, y, 5).item(), central_moment_discrepancy(y, x, 5).item(), rtol=1e-5
    )
    shifted = central_moment_discrepancy(x, x + 0.1, 5).item()  # central moments do not see a shift
    np.testing.assert_allclose(shifted, 0.1 * np.sqrt(5), rtol=1e-4)


def test_overlap_is_zero_for_uncorrelated_spaces() -> None:
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    np.testing.assert_allclose(overlap(signs[:, :1], signs[:, 1:], "mean").item(), 0, atol=1e-7)
    np.testing.assert_allclose(overlap(signs[:, :1] + 9, 3 * signs[:, :1], "frobenius").item(), 16, rtol=1e-5)


def test_gradients_are_finite_where_batches_do_not_differ() -> None:
    """One sample, or many alike: norms of zero everywhere in eq. 6 and 8."""
    for rows in ([0], [3, 3, 3]):
        model = make_model()
        batch = make_batch()
        x = {m: batch.features(m)[rows] for m in MODALITIES}
        model.loss(Batch(**x, labels=torch.zeros(len(rows))))["total"].backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_batch_statistics_are_in_the_loss_alone() -> None:
    model, batch = make_model(), make_batch()
    alone = torch.cat([run(model, batch.select([i])).prediction for i in range(7)])
    np.testing.assert_allclose(alone, run(model, batch).prediction, rtol=1e-5, atol=1e-6)
    a, b = (model.loss(batch.select(rows))["L_diff"].item() for rows in ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]))
    assert abs(a - b) > 1e-3


def test_no_step_is_one_step_of_zeros_is_told_absent() -> None:
    model, batch = make_model(text="sLSTM"), make_batch()
    none, one = torch.zeros(7, dtype=torch.int64), torch.ones(7, dtype=torch.int64)
    present = torch.ones(7, 3, dtype=torch.bool)
    present[:, 0] = False
    empty = run(model, batch.replace(text_lengths=none)).prediction
    zeros = run(model, batch.replace(text=torch.zeros(7, 1, 6), text_lengths=one)).prediction
    absent = run(model, batch.replace(present=present)).prediction
    assert torch.isfinite(empty).all()
    np.testing.assert_allclose(zeros, empty, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(absent, empty, rtol=1e-5, atol=1e-6)


def test_the_invariant_encoder_is_shared_the_specific_ones_are_not() -> None:
    names = {name for name, _ in make_model().named_parameters()}
    assert {n for n in names if n.startswith("E_c")} == {"E_c.0.weight", "E_c.0.bias"}
    assert {n for n in names if n.startswith("E_p")} == {
        f"E_p.{m}.0.{k}" for m in MODALITIES for k in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"no_L_sim": True}, {"L_diff", "L_recon"}),
        ({"no_L_diff": True}, {"L_sim", "L_recon"}),
        ({"no_L_recon": True}, {"L_sim", "L_diff"}),
        ({"variant": "base"}, set()),
        ({"variant": "inv"}, {"L_sim"}),
        ({"variant": "inv", "no_L_sim": True}, set()),
        ({"variant": "sFusion"}, {"L_sim", "L_diff", "L_recon"}),
        ({"variant": "iFusion"}, {"L_sim", "L_diff", "L_recon"}),
    ],
    ids=str,
)
def test_ablations_take_terms_out(options: dict[str, object], terms: set[str]) -> None:
    model = make_model(**options)
    losses = model.loss(make_batch())
    assert losses.keys() == {"total", "L_task", *terms}
    weights = {"L_task": 1.0, "L_sim": 1.0, "L_diff": 0.3, "L_recon": 1.0}
    expected = sum(weights[name] * losses[name].item() for name in ("L_task", *terms))
    np.testing.assert_allclose(losses["total"].item(), expected, rtol=1e-5)
    assert bool(model.D) is ("L_recon" in terms)


def test_what_each_variant_fuses() -> None:
    """Changing the vectors that a variant does not fuse changes nothing."""
    for variant, silent in (("sFusion", "c"), ("iFusion", "p")):
        model = make_model(variant=variant)
        encoded = encode(model)
        other = Encoded(**{m: {**encoded.part(m), silent: 1 - encoded.part(m)[silent]} for m in MODALITIES})
        present = torch.ones(7, 3, dtype=torch.bool)
        with torch.no_grad():
            before, after = model.fuse(encoded, present).prediction, model.fuse(other, present).prediction
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("text", ["mean", "sLSTM"])
def test_gradients_reach_every_parameter(text: str) -> None:
    model = make_model(text=text).train()
    model.loss(make_batch(16))["total"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


@pytest.mark.parametrize("hidden", [3, 0])
def test_number_of_parameters(hidden: int) -> None:
    def lstms(d_in: int) -> int:
        h = hidden or d_in
        return 2 * (4 * h * (d_in + h) + 8 * h) + 4 * h + 2 * (4 * h * (2 * h + h) + 8 * h)

    d, d_ff, (d_t, d_a, d_v) = 6, 10, SPEC.dims
    projections = sum(d * width + d + 2 * d for width in (d_t, 4 * (hidden or d_a), 4 * (hidden or d_v)))
    spaces = (1 + 3 + 3) * (d * d + d)  # E_c, E_p, D
    fusion = 4 * (d * d + d) + 2 * d * d_ff + d_ff + d + 4 * d
    g = 6 * d * 3 * d + 3 * d + 3 * d + 1
    expected = lstms(d_a) + lstms(d_v) + projections + spaces + fusion + g
    assert sum(p.numel() for p in make_model(lstm_hidden=hidden).parameters()) == expected


def test_forget_gates_start_open_and_recurrent_weights_orthogonal() -> None:
    torch.manual_seed(0)
    lstm = MISA(SPEC, SMALL).lstm["audio"].first
    total = (lstm.bias_ih_l0_reverse + lstm.bias_hh_l0_reverse).detach()
    np.testing.assert_array_equal(total[3:6], 2)
    w = lstm.weight_hh_l0.detach()  # (12, 3)
    np.testing.assert_allclose(w.T @ w, np.eye(3), atol=1e-5)


def test_input_dropout_acts_on_all_inputs_in_training_alone() -> None:
    model, batch = make_model(input_dropout=1.0), make_batch()
    full = {f"{m}_lengths": torch.full((7,), STEPS[m]) for m in MODALITIES}
    assert run(model, batch.replace(**full)).prediction.std() > 0.02
    np.testing.assert_allclose(run(model.train(), batch.replace(**full)).prediction.std(), 0, atol=1e-5)


def test_overfits_a_few_samples() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(32, 3, d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    batch = Batch(**x, labels=torch.rand(32, generator=g) * 6 - 3)
    assert batch.labels is not None
    model = MISA(SPEC, replace(SMALL, d_model=16, d_ff=32, lstm_hidden=8))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        optimizer.step()
    assert (run(model.eval(), batch).prediction - batch.labels).abs().mean() < 0.1


def test_the_published_numbers() -> None:
    for name in ("mosi", "mosei"):
        c = MISA.presets[name]
        assert (c.alpha, c.beta, c.gamma, c.K) == (1.0, 0.3, 1.0, 5)
        assert (c.d_model, c.dropout, c.heads, c.d_ff, c.fusion_dropout, c.text) == (128, 0.5, 2, 2048, 0.1, "mean")
        o = MISA.optimisation[name]
        assert (o.optimizer, o.learning_rate, o.grad_clip) == ("adam", 1e-4, 1.0)
    assert (MISA.optimisation["mosi"].batch_size, MISA.optimisation["mosei"].batch_size) == (64, 16)
    sims = MISA.presets["sims"]
    assert (sims.alpha, sims.beta, sims.gamma, sims.d_model, sims.dropout) == (1.0, 0.3, 0.8, 128, 0.0)


def test_bad_options() -> None:
    with pytest.raises(InputError, match="heads=5 must divide d_model=128"):
        MISAConfig(heads=5)
    with pytest.raises(InputError, match=r"K must be at least 1.*got 0"):
        MISAConfig(K=0)
    with pytest.raises(InputError, match="variant must be one of misa, base, inv, sFusion, iFusion"):
        MISAConfig(variant="full")
    with pytest.raises(InputError, match="diff must be one of mean, frobenius"):
        MISAConfig(diff="sum")
    with pytest.raises(InputError, match="text must be one of mean, sLSTM"):
        MISAConfig(text="bert")
