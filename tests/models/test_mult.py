"""MulT against its equations, written out with NumPy: one sample at a time, its valid steps only, loops over heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.models.contract import InputSpec, Output
from robustbench_msa.models.mult import MulT, MulTConfig, positions

Array = NDArray[np.float64]
SPEC = InputSpec(dims=(6, 5, 4))
STEPS = {"text": 5, "audio": 7, "vision": 6}
SMALL = MulTConfig(d_model=6, heads=3, D=2, self_layers=1)


def make_batch(n: int = 6) -> Batch:
    """Unaligned, lengths from nothing to full."""
    g = torch.Generator().manual_seed(0)
    x = {m: torch.randn(n, STEPS[m], d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    lengths = {f"{m}_lengths": torch.arange(n).clamp(max=STEPS[m]).roll(i) for i, m in enumerate(MODALITIES)}
    return Batch(**x, **lengths, labels=torch.linspace(-3, 3, n))


def make_model(**options: object) -> MulT:
    torch.manual_seed(0)
    model = MulT(SPEC, replace(SMALL, **options))  # type: ignore[arg-type]
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return model.eval()


def run(model: MulT, batch: Batch | None = None) -> Output:
    with torch.no_grad():
        return model(batch if batch is not None else make_batch())


class Reference:
    """Eq. 1 to 4 for one sample. x: the valid steps of each modality, ``(T_m, d_m)``."""

    def __init__(self, model: MulT, x: dict[str, Array]) -> None:
        self.w = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.c = model.config
        self.x = x

    def affine(self, prefix: str, x: Array) -> Array:
        return x @ self.w[f"{prefix}.weight"].T + self.w[f"{prefix}.bias"]

    def norm(self, prefix: str, x: Array) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return unit * self.w[f"{prefix}.weight"] + self.w[f"{prefix}.bias"]

    def embedded(self, m: str) -> Array:
        kernel = self.w[f"conv.{m}.weight"]  # (d, d_m, k)
        d, _, k = kernel.shape
        steps, reach = len(self.x[m]), k // 2
        padded = np.pad(self.x[m], ((reach, reach), (0, 0)))
        z = np.zeros((steps, d))
        for t in range(steps):
            z[t] = np.einsum("kc,dck->d", padded[t : t + k], kernel)  # eq. 2
            for j in range(d):
                angle = (t + 1) / 10000 ** (2 * (j // 2) / d)
                z[t, j] += np.sin(angle) if j % 2 == 0 else np.cos(angle)  # eq. 3
        return z

    def attention(self, prefix: str, target: Array, source: Array) -> Array:
        d = target.shape[1]
        q, kv = self.affine(f"{prefix}.q", target), self.affine(f"{prefix}.kv", source)
        k, v, width = kv[:, :d], kv[:, d:], d // self.c.heads
        y = np.zeros_like(target)
        for h in range(self.c.heads):
            at = slice(h * width, (h + 1) * width)
            weights = np.exp(q[:, at] @ k[:, at].T / np.sqrt(width))
            y[:, at] = weights / weights.sum(axis=1, keepdims=True) @ v[:, at]  # eq. 1
        return self.affine(f"{prefix}.out", y)

    def block(self, prefix: str, z: Array, source: Array) -> Array:
        as_written = self.c.residual == "as_written"
        normal = self.norm(f"{prefix}.norm_attention", z)
        z_hat = self.attention(prefix, normal, self.norm(f"{prefix}.norm_attention", source))
        z_hat = z_hat + (normal if as_written else z)  # eq. 4
        normal = self.norm(f"{prefix}.norm_ff", z_hat)
        fed = self.affine(f"{prefix}.narrow", np.maximum(self.affine(f"{prefix}.widen", normal), 0))
        return fed + (normal if as_written else z_hat)  # eq. 4

    def finish(self, prefix: str, z: Array) -> Array:
        return z if self.c.residual == "as_written" else self.norm(f"{prefix}.norm", z)

    def pooled(self, stream: str, z: Array) -> Array:
        for i in range(self.c.self_layers):
            z = self.block(f"self_attention.{stream}.blocks.{i}", z, z)
        z = self.finish(f"self_attention.{stream}", z)
        return z[-1] if self.c.pooling == "last" else z.mean(axis=0)

    def joined(self) -> Array:
        z = {m: self.embedded(m) for m in MODALITIES}
        targets = MODALITIES if self.c.targets == "all" else (self.c.targets,)
        if self.c.variant == "early_fusion":
            return self.pooled("joint", np.concatenate([z[m] for m in MODALITIES]))
        if self.c.variant == "late_fusion":
            return np.concatenate([self.pooled(m, z[m]) for m in targets])
        pairs = [(b, a) for a in targets for b in MODALITIES if b != a]
        levels = [{(b, a): z[a] for b, a in pairs}]
        for i in range(self.c.D):
            level = {}
            for b, a in pairs:
                source = z[b] if self.c.variant == "crossmodal" else levels[i][a, b]
                level[b, a] = self.block(f"crossmodal.{b}_to_{a}.blocks.{i}", levels[i][b, a], source)
            levels.append(level)
        streams = {(b, a): self.finish(f"crossmodal.{b}_to_{a}", levels[-1][b, a]) for b, a in pairs}
        return np.concatenate(
            [self.pooled(a, np.hstack([streams[pair] for pair in pairs if pair[1] == a])) for a in targets]
        )

    def prediction(self) -> float:
        h = self.joined()
        block = self.affine("output.narrow", np.maximum(self.affine("output.widen", h), 0))
        return float(self.affine("output.score", h + block)[0])


def sample(batch: Batch, i: int) -> dict[str, Array]:
    """Its valid steps; one step of zeros where it has none."""
    steps = {m: batch.features(m)[i, : int(batch.lengths(m)[i])].double().numpy() for m in MODALITIES}
    return {m: x if len(x) else np.zeros((1, x.shape[1])) for m, x in steps.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": "pre_norm"},
        {"pooling": "mean"},
        {"D": 1, "self_layers": 3, "kernel_t": 5},
        {"variant": "intermediate"},
        {"variant": "late_fusion"},
        {"variant": "early_fusion"},
        {"targets": "audio"},
        {"variant": "late_fusion", "targets": "vision", "residual": "pre_norm"},
    ],
    ids=str,
)
def test_equations_1_to_4(options: dict[str, object]) -> None:
    model, batch = make_model(**options), make_batch()
    prediction = run(model, batch).prediction
    expected = [Reference(model, sample(batch, i)).prediction() for i in range(len(batch))]
    np.testing.assert_allclose(prediction, expected, rtol=1e-4, atol=1e-5)
    assert np.std(expected) > 0.1


def test_loss_is_the_mean_absolute_error() -> None:
    model, batch = make_model(), make_batch()
    assert batch.labels is not None
    expected = np.abs(run(model, batch).prediction.numpy() - batch.labels.numpy()).mean()
    losses = model.loss(batch)
    assert losses.keys() == {"total", "L_task"}
    np.testing.assert_allclose(losses["total"].item(), expected, rtol=1e-5)
    np.testing.assert_allclose(losses["L_task"].item(), expected, rtol=1e-5)


def test_positions_of_an_odd_width() -> None:
    pe = positions(9, 5)
    assert pe.shape == (9, 5)
    np.testing.assert_allclose(pe[:, 3], np.cos(np.arange(1, 10) / 10000**0.4), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pe[:, 4], np.sin(np.arange(1, 10) / 10000**0.8), rtol=1e-4)


def test_padding_is_not_attended_to_however_much_there_is() -> None:
    batch = make_batch()
    longer = {}
    for m in MODALITIES:
        x = torch.cat([batch.features(m), torch.zeros(6, 40, batch.features(m).shape[2])], dim=1)
        longer[m] = torch.where((torch.arange(x.shape[1]) < batch.lengths(m)[:, None])[..., None], x, 1e4)
    for pooling in ("last", "mean"):
        model = make_model(pooling=pooling)
        before, after = run(model, batch), run(model, batch.replace(**longer))
        np.testing.assert_allclose(before.prediction, after.prediction, rtol=1e-5, atol=1e-5)


def test_no_step_is_one_step_of_zeros_is_told_absent() -> None:
    model, batch = make_model(), make_batch()
    none, one = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    present = torch.ones(6, 3, dtype=torch.bool)
    present[:, 1] = False
    empty = run(model, batch.replace(audio_lengths=none)).prediction
    zeros = run(model, batch.replace(audio=torch.zeros(6, 1, 5), audio_lengths=one)).prediction
    absent = run(model, batch.replace(present=present)).prediction
    assert torch.isfinite(empty).all()
    np.testing.assert_allclose(zeros, empty, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(absent, empty, rtol=1e-5, atol=1e-5)


def test_a_single_padded_step_and_no_valid_one() -> None:
    one = {m: make_batch().features(m)[:, :1] for m in MODALITIES}
    assert torch.isfinite(run(make_model(), Batch(**one)).prediction).all()
    none = {f"{m}_lengths": torch.zeros(6, dtype=torch.int64) for m in MODALITIES}
    model = make_model()
    batch = Batch(**one, **none, labels=torch.zeros(6))
    prediction = run(model, batch).prediction
    np.testing.assert_allclose(prediction, prediction[:1].expand(6), rtol=1e-6)
    model.loss(batch)["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_gradients_reach_every_parameter() -> None:
    model = make_model().train()
    model.loss(make_batch(16))["total"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


@pytest.mark.parametrize("residual", ["as_written", "pre_norm"])
def test_number_of_parameters(residual: str) -> None:
    def block(w: int) -> int:
        return 4 * (w * w + w) + (w * 4 * w + 4 * w) + (4 * w * w + w) + 2 * 2 * w

    d, (d_t, d_a, d_v) = 6, SPEC.dims
    crossmodal = 6 * (2 * block(d) + (2 * d if residual == "pre_norm" else 0))
    own = 3 * (block(2 * d) + (4 * d if residual == "pre_norm" else 0))
    output = 2 * ((6 * d) ** 2 + 6 * d) + 6 * d + 1
    expected = d * (d_t + 3 * d_a + 3 * d_v) + crossmodal + own + output
    assert sum(p.numel() for p in make_model(residual=residual).parameters()) == expected


def test_overfits_a_few_samples() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(32, 4, d, generator=g) for m, d in zip(MODALITIES, SPEC.dims, strict=True)}
    batch = Batch(**x, labels=torch.rand(32, generator=g) * 6 - 3)
    model = MulT(SPEC, replace(SMALL, d_model=12, D=1, text_dropout=0.0, output_dropout=0.0).with_block_dropout(0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(batch)["total"].backward()
        optimizer.step()
    assert model.eval().loss(batch)["L_task"].item() < 0.1


def test_branches_of_one_target() -> None:
    """[V, A -> L]: the two transformers into text and text's own self-attention, nothing else."""
    model = make_model(targets="text")
    assert set(model.crossmodal) == {"audio_to_text", "vision_to_text"}
    assert set(model.self_attention) == {"text"}
    assert set(make_model().crossmodal) == {f"{b}_to_{a}" for a in MODALITIES for b in MODALITIES if a != b}


def test_unimodal_transformer_reads_one_modality() -> None:
    model, batch = make_model(variant="late_fusion", targets="text"), make_batch()
    others = batch.replace(audio=batch.audio + 1, vision=-batch.vision)
    np.testing.assert_array_equal(run(model, batch).prediction, run(model, others).prediction)
    assert (run(model, batch).prediction - run(model, batch.replace(text=-batch.text)).prediction).abs().max() > 1e-3


def test_intermediate_sources_start_as_the_low_level_ones() -> None:
    """With one block there is no intermediate level yet; with two there is."""
    for D, same in ((1, True), (2, False)):
        low, intermediate = (run(make_model(variant=v, D=D)).prediction for v in ("crossmodal", "intermediate"))
        assert bool((low - intermediate).abs().max() < 1e-6) is same


def test_each_source_has_its_own_attention_dropout() -> None:
    model = make_model(attn_dropout=0.3, attn_dropout_a=0.2, attn_dropout_v=0.1)
    rates = {name: t.blocks[0].attn_dropout for name, t in model.crossmodal.items()}
    assert rates["text_to_audio"] == rates["text_to_vision"] == 0.3
    assert rates["audio_to_text"] == rates["audio_to_vision"] == 0.2
    assert rates["vision_to_text"] == rates["vision_to_audio"] == 0.1
    assert all(t.blocks[0].attn_dropout == 0.3 for t in model.self_attention.values())


def test_text_dropout_is_text_s_alone_and_embed_dropout_everyone_s() -> None:
    batch = make_batch().replace(text_lengths=torch.full((6,), 5))
    model = make_model(text_dropout=1.0).train()
    with torch.no_grad():
        encoded, clean = model.encode(batch), model.eval().encode(batch)
        everyone = make_model(embed_dropout=1.0).train().encode(batch)
    np.testing.assert_allclose(encoded.text["z"], positions(5, 6).expand(6, 5, 6), atol=1e-6)
    np.testing.assert_array_equal(encoded.audio["z"], clean.audio["z"])
    assert all((everyone.part(m)["z"] == 0).all() for m in MODALITIES)


def test_the_papers_numbers() -> None:
    mosi, mosei, sims = (MulT.presets[name] for name in ("mosi", "mosei", "sims"))
    assert (mosi.d_model, mosi.D, mosi.heads, mosei.d_model, mosei.D, mosei.heads) == (40, 4, 10, 40, 4, 8)
    assert all((c.kernel_a, c.kernel_v) == (3, 3) and c.kernel_t in (1, 3) for c in (mosi, mosei))
    assert (mosi.text_dropout, mosi.output_dropout, mosei.text_dropout, mosei.output_dropout) == (0.2, 0.1, 0.3, 0.1)
    block = ("attn_dropout", "attn_dropout_a", "attn_dropout_v", "relu_dropout", "res_dropout")
    assert {getattr(mosi, name) for name in block} == {0.2}
    assert {getattr(mosei, name) for name in block} == {0.1}
    assert all(
        (c.residual, c.pooling, c.variant, c.targets) == ("as_written", "last", "crossmodal", "all")
        for c in (mosi, mosei)
    )
    a, b = MulT.optimisation["mosi"], MulT.optimisation["mosei"]
    assert (a.optimizer, a.learning_rate, a.batch_size, a.epochs, a.grad_clip) == ("adam", 1e-3, 128, 100, 0.8)
    assert (b.optimizer, b.learning_rate, b.batch_size, b.epochs, b.grad_clip) == ("adam", 1e-3, 16, 20, 1.0)
    assert (sims.d_model, sims.heads, sims.D, sims.kernel_t, sims.kernel_a, sims.kernel_v) == (50, 10, 2, 5, 1, 1)


@pytest.mark.parametrize("preset", ["mosi", "mosei", "sims"])
def test_presets_run_at_full_size(preset: str) -> None:
    spec = InputSpec(dims=(12, 5, 4))
    x = {m: torch.randn(2, 3, d) for m, d in zip(MODALITIES, spec.dims, strict=True)}
    model = MulT(spec, MulT.presets[preset]).eval()
    assert torch.isfinite(run(model, Batch(**x)).prediction).all()


def test_bad_options() -> None:
    with pytest.raises(InputError, match="heads=3 must divide d_model=40"):
        MulTConfig(heads=3)
    with pytest.raises(InputError, match=r"kernel_a must be odd.*got 2"):
        MulTConfig(kernel_a=2)
    with pytest.raises(InputError, match="residual must be one of as_written, pre_norm"):
        MulTConfig(residual="post_norm")
    with pytest.raises(InputError, match="pooling must be one of last, mean"):
        MulTConfig(pooling="max")
    with pytest.raises(InputError, match="targets must be one of all, text"):
        MulTConfig(targets="L")
    with pytest.raises(InputError, match="variant=early_fusion needs all modalities"):
        MulTConfig(variant="early_fusion", targets="text")
