"""Shared layers against NumPy references, and the properties every encoder must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from corruptions import Batch, InputError
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.layers import (
    SequenceEncoder,
    Standardise,
    discretise,
    fit_standardisers,
    labels_of,
    masked_mean,
    relative_position,
    require_choice,
    require_features,
    require_text_features,
    sample_losses,
    targets_of,
    valid_steps,
    wide_linear,
)

LENGTHS = torch.tensor([5, 1, 7, 3])


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1


@pytest.fixture
def encoder(x: Tensor) -> SequenceEncoder:
    """Fitted, in eval mode, its attention no longer the uniform start."""
    torch.manual_seed(1)
    encoder = SequenceEncoder(6, 8, dropout=0.5, conv_layers=2)
    encoder.standardise.fit(x, valid_steps(x, LENGTHS))
    torch.nn.init.normal_(encoder.score.weight)
    return encoder.eval()


def test_standardise_uses_valid_steps_only(x: Tensor) -> None:
    standardise = Standardise(6)
    standardise.fit(x, valid_steps(x, LENGTHS))
    steps = np.concatenate([x[i, :n].double().numpy() for i, n in enumerate(LENGTHS)])
    np.testing.assert_allclose(standardise.mean, steps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(standardise.std, steps.std(0), rtol=1e-5)
    np.testing.assert_allclose(
        standardise(x)[0, 0], (x[0, 0].numpy() - steps.mean(0)) / steps.std(0), rtol=1e-4, atol=1e-6
    )


def test_standardise_maps_a_lost_step_to_zero_and_leaves_it_out_of_the_statistics(x: Tensor) -> None:
    everything, lost = Standardise(6), Standardise(6)
    everything.fit(x[1:], torch.ones(3, 7, dtype=torch.bool))
    with_lost = x.clone()
    with_lost[0] = 0
    lost.fit(with_lost, torch.ones(4, 7, dtype=torch.bool))
    torch.testing.assert_close(everything.mean, lost.mean)
    torch.testing.assert_close(everything.std, lost.std)
    np.testing.assert_array_equal(lost(with_lost)[0], 0)


def test_standardise_constant_features_outliers_and_unseen_modalities() -> None:
    standardise = Standardise(2, limit=10.0)
    x = torch.tensor([[[0.1, 7.0], [0.3, 7.0]]])
    standardise.fit(x, torch.zeros(1, 2, dtype=torch.bool))  # no valid step at all
    np.testing.assert_array_equal(standardise(x), x)
    standardise.fit(x, torch.ones(1, 2, dtype=torch.bool))
    assert standardise.std[1] == 1
    np.testing.assert_allclose(standardise(torch.tensor([[[100.0, 8.5]]])), [[[10.0, 1.5]]], rtol=1e-6)


def test_fit_standardisers_leaves_absent_samples_out() -> None:
    x = torch.tensor([[[1.0]], [[3.0]], [[100.0]]])
    present = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    batch = Batch(text=x, audio=x, vision=x, present=present)
    standardisers = [Standardise(1) for _ in range(3)]
    fit_standardisers(standardisers, batch)
    np.testing.assert_allclose([s.mean.item() for s in standardisers], [2.0, 104 / 3, 51.5], rtol=1e-6)


def test_masked_mean_against_a_loop(x: Tensor) -> None:
    lengths = torch.tensor([5, 0, 7, 3])
    expected = [x[i, :n].numpy().mean(0) if n else np.zeros(6) for i, n in enumerate(lengths)]
    np.testing.assert_allclose(masked_mean(x, valid_steps(x, lengths)), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_relative_position_is_the_place_in_the_utterance_not_in_the_padding() -> None:
    place = relative_position(torch.tensor([2, 4]), 4, 3)
    assert place.shape == (2, 4, 6)
    for k in range(3):
        np.testing.assert_allclose(place[0, 1, k], math.cos(math.pi * (k + 1) * 0.75), atol=1e-6)
        np.testing.assert_allclose(place[1, 2, 3 + k], math.sin(math.pi * (k + 1) * 0.625), atol=1e-6)
    longer = relative_position(torch.tensor([2, 4]), 9, 3)
    np.testing.assert_array_equal(longer[:, :4], place)


def reference_encoding(encoder: SequenceEncoder, steps: Tensor) -> Tensor:
    """One sample ``(L, d_in)`` without padding, step by step."""
    h = [encoder.project(s) for s in encoder.standardise(steps[None])[0]]
    zero = torch.zeros(8)
    for conv in encoder.convs:
        around = [zero, *h, zero]
        taps = [sum(conv.weight[:, :, j] @ around[t + j] for j in range(3)) + conv.bias for t in range(len(h))]
        h = [a + torch.nn.functional.gelu(b) for a, b in zip(h, taps, strict=True)]
    scores = []
    for t, step in enumerate(h):
        tau = (t + 0.5) / len(h)
        place = [math.cos(math.pi * k * tau) for k in (1, 2, 3, 4)] + [
            math.sin(math.pi * k * tau) for k in (1, 2, 3, 4)
        ]
        scores.append(encoder.score(torch.cat([step, torch.tensor(place)])).exp())
    pooled = sum(w * s for w, s in zip(scores, h, strict=True)) / sum(scores)
    return (pooled - pooled.mean()) / (pooled.var(correction=0) + 1e-5).sqrt()


def test_encoder_against_a_step_by_step_reference(encoder: SequenceEncoder, x: Tensor) -> None:
    expected = torch.stack([reference_encoding(encoder, x[i, :n]) for i, n in enumerate(LENGTHS)])
    torch.testing.assert_close(encoder(x, LENGTHS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("garbage", [1e6, math.nan, math.inf])
def test_padding_never_matters(encoder: SequenceEncoder, x: Tensor, garbage: float) -> None:
    expected = encoder(x, LENGTHS)
    dirty = torch.cat([x, x[:, :2]], dim=1).masked_fill(~valid_steps(torch.zeros(4, 9, 1), LENGTHS)[..., None], garbage)
    torch.testing.assert_close(encoder(dirty, LENGTHS), expected, rtol=0, atol=1e-6)
    encoder(dirty, LENGTHS).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_no_valid_step_gives_a_finite_constant(encoder: SequenceEncoder, x: Tensor) -> None:
    none = torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        h, other = encoder(x, none), encoder(x[:, :2] * 9, none)
    assert torch.isfinite(h).all()
    np.testing.assert_allclose(h, other, atol=1e-6)
    np.testing.assert_allclose(h, h[:1].expand(4, -1), atol=1e-6)


def test_samples_are_encoded_on_their_own(encoder: SequenceEncoder, x: Tensor) -> None:
    alone = torch.cat([encoder(x[i : i + 1], LENGTHS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(encoder(x, LENGTHS), alone, rtol=0, atol=1e-5)


def test_attention_can_prefer_a_place(x: Tensor) -> None:
    """A score that grows with cos(pi tau) reads the start of the utterance, however long that is."""
    encoder = SequenceEncoder(6, 6, conv_layers=0, normalise=False).eval()
    with torch.no_grad():
        encoder.project.weight.copy_(torch.eye(6))
        encoder.project.bias.zero_()
        encoder.score.weight[0, 6] = 200.0
    torch.testing.assert_close(encoder(x, LENGTHS), x[:, 0], rtol=0, atol=0.1)


def test_wide_linear_starts_with_the_stated_spread() -> None:
    torch.manual_seed(0)
    layer = wide_linear(400, 300, gain=2.0)
    np.testing.assert_allclose(layer.weight.detach().numpy().std(), 2.0 / 20, rtol=0.01)
    np.testing.assert_array_equal(layer.bias.detach(), 0)


def test_discretise() -> None:
    y = torch.linspace(-4, 4, 81)
    np.testing.assert_array_equal(discretise(y, (-3.0, 3.0), 7), np.round(np.clip(y.numpy(), -3, 3)) + 3)
    np.testing.assert_array_equal(
        discretise(torch.tensor([-1.0, -0.4, 0.0, 1.0, 2.0]), (-1.0, 1.0), 7), [0, 2, 3, 6, 6]
    )
    for k in (2, 5, 6):  # the nearest level, for even and odd K
        levels = np.linspace(-3, 3, k)
        off_grid = torch.linspace(-3, 3, 98)[1:-1] + 1e-3
        nearest = np.abs(off_grid.numpy()[:, None] - levels).argmin(axis=1)
        np.testing.assert_array_equal(discretise(off_grid, (-3.0, 3.0), k), nearest)


def labelled(labels: list[float]) -> Batch:
    x = {m: torch.ones(len(labels), 1, 1) for m in ("text", "audio", "vision")}
    return Batch(**x, labels=torch.tensor(labels))


def test_targets_are_scores_or_classes() -> None:
    scores, classes = InputSpec(dims=(1, 1, 1)), InputSpec(dims=(1, 1, 1), num_classes=3)
    np.testing.assert_array_equal(targets_of(labelled([0.5, -1.0]), scores), [0.5, -1.0])
    for given in ([2, 0], [2.0, 0.0]):
        found = targets_of(labelled(given), classes)
        np.testing.assert_array_equal(found, [2, 0])
        assert found.dtype == torch.int64
    for wrong in (3, -1, 0.5):
        with pytest.raises(InputError, match=f"expected classes 0 to 2, got a label of {wrong:g}"):
            targets_of(labelled([0.0, wrong]), classes)


def test_sample_losses_are_errors_or_cross_entropies() -> None:
    g = torch.Generator().manual_seed(0)
    p, y = torch.randn(6, generator=g), torch.randn(6, generator=g)
    np.testing.assert_allclose(sample_losses(p, y, "l1"), np.abs(p.numpy() - y.numpy()))
    np.testing.assert_allclose(sample_losses(p, y, "mse"), (p.numpy() - y.numpy()) ** 2)
    logits, classes = torch.randn(6, 4, generator=g), torch.tensor([0, 3, 1, 2, 0, 3])
    e = np.exp(logits.double().numpy())
    expected = -np.log(e[np.arange(6), classes] / e.sum(axis=1))
    for kind in ("l1", "mse"):
        np.testing.assert_allclose(sample_losses(logits, classes, kind), expected, rtol=1e-5)


def test_borders_refuse_what_the_models_cannot_read() -> None:
    with pytest.raises(InputError, match="qa_moe: text is token ids, expected features"):
        require_text_features("qa_moe", InputSpec(dims=(0, 3, 3)))
    for count in (1, -2):
        with pytest.raises(InputError, match=f"qa_moe: expected 0 .* or at least 2 classes, got num_classes={count}"):
            require_text_features("qa_moe", InputSpec(dims=(3, 3, 3), num_classes=count))
    with pytest.raises(InputError, match=r"text: expected features \(N, T, 3\), got token ids of shape \(2, 4\)"):
        require_features("text", torch.zeros(2, 4, dtype=torch.int64), 3)
    with pytest.raises(InputError, match=r"audio: expected features \(N, T, 74\), got features of shape \(2, 4, 5\)"):
        require_features("audio", torch.zeros(2, 4, 5), 74)
    with pytest.raises(InputError, match="loss must be one of l1, mse; got 'huber'"):
        require_choice("loss", "huber", ("l1", "mse"))
    with pytest.raises(InputError, match="no labels"):
        labels_of(Batch(text=torch.ones(1, 1, 1), audio=torch.ones(1, 1, 1), vision=torch.ones(1, 1, 1)))
