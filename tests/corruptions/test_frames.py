"""frame-missing: each step lost on its own; and, bit for bit, the masks that others have published with."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, Draws, GeneratorDraws, InputError, Stress
from corruptions.corruption import maskable

LEGACY = "frame-missing:legacy=lnln"
rates = st.integers(1, 100).map(lambda i: f"{i / 100:.2f}")
seeds = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(pair=st.tuples(rates, rates).map(sorted), seed=seeds, tokens=st.booleans())
def test_masks_nest_and_are_those_of_the_draws(make: ModuleType, pair: list[str], seed: int, tokens: bool) -> None:
    batch = (make.token_batch if tokens else make.feature_batch)(10, seed, absent=0.2)
    draws = Draws(seed, batch)
    small, large = (make.apply(batch, "frame-missing", r, seed).features.lost for r in pair)
    for m in MODALITIES:
        assert not (small[m] & ~large[m]).any()
        may = maskable(batch, m)
        np.testing.assert_array_equal(large[m], may & (draws.steps("frame", m) < float(pair[1])))


@pytest.mark.parametrize("r", ["0.1", "0.5", "0.9", "1"])
def test_each_step_is_lost_with_probability_r_whatever_the_others(make: ModuleType, r: str) -> None:
    lost, p = make.apply(make.wide(2000, steps=10), "frame-missing", r).features.lost, float(r)
    for m in MODALITIES:
        make.assert_rate(int(lost[m].sum()), lost[m].numel(), p)
    pairs = [
        *((lost[m][:, :-1:2], lost[m][:, 1::2]) for m in MODALITIES),  # from step to step, no step in two pairs
        *((lost[a], lost[b]) for a, b in (("text", "audio"), ("text", "vision"), ("audio", "vision"))),
    ]
    for one, other in pairs:
        make.assert_rate(int((one & other).sum()), one.numel(), p * p)


def test_features_become_zeros_and_tokens_unknown(make: ModuleType) -> None:
    for batch in (make.feature_batch(20), make.token_batch(20)):
        corruption = make.apply(batch, "frame-missing", "0.6")
        for m, lost in corruption.features.lost.items():
            out = corruption.batch.features(m)
            assert lost.any()
            np.testing.assert_array_equal(out[lost], torch.full_like(out[lost], 0 if out.is_floating_point() else 100))
            np.testing.assert_array_equal(out[~lost], batch.features(m)[~lost])


@pytest.mark.parametrize(("fill", "token"), [("auto", 100), ("unk", 100), ("mask", 103)])
@pytest.mark.parametrize("stress", ["frame-missing", "burst"])
def test_all_tokens_but_cls_and_sep_may_go(make: ModuleType, stress: str, fill: str, token: int) -> None:
    batch = make.token_batch(20)
    out = make.apply(batch, f"{stress}:fill={fill}", "1").batch
    special = (batch.text == 101) | (batch.text == 102) | (batch.text == 0)
    np.testing.assert_array_equal(out.text, torch.where(special, batch.text, token))


def published_keep(valid: NDArray[np.int64], rate: float, seed: int, text: bool) -> NDArray[np.float64]:
    """1 where a step is kept, written from the published procedure: one uniform matrix over the padded batch from
    NumPy's global generator, kept where U > rate and valid; of text, position 0 and the one before the first padding.
    """
    state = np.random.get_state()  # noqa: NPY002  # left as it was: other tests may use it
    np.random.seed(seed)  # noqa: NPY002  # the global one is what they use
    keep = (np.random.uniform(size=valid.shape) > rate) * valid.astype(float)  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002
    for row in range(len(valid) if text else 0):
        keep[row, 0] = 1.0
        keep[row, np.argmin(valid[row]) - 1] = 1.0  # a full row has its argmin at 0, and -1 is its last token too
    return keep


@settings(max_examples=40, deadline=None)
@given(rate=rates, seed=seeds, n=st.integers(1, 12), tokens=st.booleans())
def test_legacy_masks_are_the_published_ones(make: ModuleType, rate: str, seed: int, n: int, tokens: bool) -> None:
    batch: Batch = (make.token_batch if tokens else make.feature_batch)(n, seed)
    corruption = make.apply(batch, LEGACY, rate, seed)
    for m in MODALITIES:
        valid = batch.valid(m).numpy().astype(np.int64)
        keep = published_keep(valid, float(rate), seed, m == "text")
        np.testing.assert_array_equal(corruption.features.lost[m], (valid == 1) & (keep == 0), err_msg=m)
        x, out = batch.features(m).numpy(), corruption.batch.features(m).numpy()
        if m == "text" and tokens:
            np.testing.assert_array_equal(out, np.where(valid == 1, keep * x + (1 - keep) * 100, x))
        else:
            np.testing.assert_array_equal(out[valid == 1], (x * keep[:, :, None])[valid == 1])


def test_legacy_masks_of_equal_shapes_vanish_together(make: ModuleType) -> None:
    """The known consequence of one seed for all modalities: aligned data loses the same steps in all three."""
    lost = make.apply(make.wide(30, steps=12), LEGACY, "0.5").features.lost
    np.testing.assert_array_equal(lost["audio"], lost["vision"])
    np.testing.assert_array_equal(lost["audio"][:, 1:-1], lost["text"][:, 1:-1])
    assert not lost["text"][:, [0, -1]].any()
    ours = make.apply(make.wide(30, steps=12), "frame-missing", "0.5").features.lost
    assert not torch.equal(ours["audio"], ours["vision"])


def test_legacy_masks_nest_and_keep_what_is_absent(make: ModuleType) -> None:
    batch = make.feature_batch(40, absent=0.3)
    before = {m: torch.zeros_like(batch.valid(m)) for m in MODALITIES}
    for rate in ("0.1", "0.4", "0.7", "1"):
        lost = make.apply(batch, LEGACY, rate).features.lost
        for i, m in enumerate(MODALITIES):
            assert not (before[m] & ~lost[m]).any()
            assert not lost[m][~batch.present[:, i]].any()
        before = lost
    everything = batch.valid("audio") & batch.present[:, 1, None]
    np.testing.assert_array_equal(before["audio"], everything)  # at rate 1 nothing of audio and vision is left


def test_legacy_is_exempt_from_order_and_padding_by_name(make: ModuleType) -> None:
    """If these were equal the exemption could go."""
    batch = make.feature_batch(40)
    whole = make.apply(batch, LEGACY, "0.5").features.lost["audio"]
    assert not torch.equal(make.apply(batch.select(range(20, 40)), LEGACY, "0.5").features.lost["audio"], whole[20:])
    padded = make.apply(make.padded(batch, 1), LEGACY, "0.5").features.lost["audio"]
    assert not torch.equal(padded[:, : whole.shape[1]], whole)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_legacy_seeds_are_those_of_numpy(make: ModuleType, seed: int) -> None:
    with pytest.raises(InputError, match=f"NumPy's generator takes seeds below 2\\^32, got {seed}"):
        make.apply(make.feature_batch(4), LEGACY, "0.5", seed)
    make.apply(make.feature_batch(4), "frame-missing", "0.5", seed)  # keyed draws take any


def test_legacy_masks_are_not_for_training(make: ModuleType) -> None:
    batch, stress = make.feature_batch(4), Stress.parse(LEGACY)
    draws = GeneratorDraws(torch.Generator().manual_seed(0), batch)
    with pytest.raises(InputError, match="repeats one seeded mask; in training leave legacy out"):
        stress.apply(batch, stress.grid("0.5").points[0], draws)
