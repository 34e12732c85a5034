"""The batch: what it accepts, refuses and shares; and every stressor on batches at the edge of the shape."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Derived, InputError, Reference, Stress
from corruptions.corruption import FILLS, maskable

ARRAYS: dict[str, Any] = {m: np.ones((3, 4, 2), np.float32) for m in MODALITIES}


def test_defaults_and_conversions() -> None:
    batch = Batch(
        text=[[[1, 2]], [[3, 4.5]]],  # type: ignore[arg-type]
        audio=np.ones((2, 3, 1), np.float16),  # type: ignore[arg-type]
        vision=torch.ones(2, 4, 1, dtype=torch.float64),
        labels=[1, -2],  # type: ignore[arg-type]
        present=[[1, 0, 1], [1, 1, 1]],  # type: ignore[arg-type]
    )
    assert [batch.features(m).dtype for m in MODALITIES] == [torch.float32] * 3
    assert [batch.lengths(m).tolist() for m in MODALITIES] == [[1, 1], [3, 3], [4, 4]]
    assert batch.ids == batch.groups == ("0", "1")
    assert batch.present.tolist() == [[True, False, True], [True, True, True]]
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64  # classes stay whole numbers
    assert not batch.has_token_text
    assert Batch(**ARRAYS | {"text": np.ones((3, 9), np.int32)}).has_token_text


def test_valid_marks_the_first_steps() -> None:
    batch = Batch(**ARRAYS, audio_lengths=[0, 2, 4])  # type: ignore[arg-type]
    assert batch.valid("audio").int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": np.ones((3, 4))}, r"text must be \(N, T, d\) features or \(N, T\) token ids, got shape \(3, 4\)"),
        ({"audio": np.ones((3, 4))}, r"audio must be \(N, T, d\) features, got shape \(3, 4\)"),
        ({"vision": np.ones((2, 4, 2))}, "vision has 2 samples, text has 3"),
        ({"audio_lengths": [1, 2, 5]}, "audio_lengths must be 3 whole numbers between 0 and 4"),
        ({"audio_lengths": [-1, 2, 3]}, "audio_lengths must be"),
        ({"audio_lengths": [1, 2]}, "audio_lengths must be"),
        ({"audio_lengths": [1.0, 2.5, 3.0]}, "audio_lengths must be"),
        ({"ids": ("a", "b", "a")}, "expected 3 distinct ids, got 3 with 2 distinct"),
        ({"ids": ("a", "b")}, "expected 3 distinct ids, got 2"),
        ({"ids": (1, "1", 2)}, "3 with 2 distinct"),
        ({"groups": ("a",)}, "expected 3 groups, got 1"),
        ({"present": np.ones((3, 2))}, r"present must be \(3, 3\)"),
        ({"labels": [1.0, 2.0]}, r"labels must be \(3,\), got \(2,\)"),
        ({"derived": {"clues": Derived(torch.ones(2, 5), ("audio",))}}, "clues"),
        ({"derived": {"clues": Derived(torch.ones(3, 5), ("sound",))}}, "clues"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Batch(**ARRAYS | change)


def test_read_only_arrays_are_accepted() -> None:
    """Pandas and memory maps hand out read-only arrays."""
    array = np.ones((3, 4, 2), np.float32)
    array.setflags(write=False)
    np.testing.assert_array_equal(Batch(**ARRAYS | {"audio": array}).audio, array)


def test_derived_arrays_are_converted(make: ModuleType) -> None:
    batch = Batch(**ARRAYS, derived={"clues": Derived(np.ones((3, 2)), ("audio",))})  # type: ignore[arg-type]
    gone = make.apply(batch, "missing-fixed", "t").batch
    np.testing.assert_array_equal(gone.derived["clues"].values, np.zeros((3, 2)))


def test_select_takes_positions_and_masks_in_the_order_given(make: ModuleType) -> None:
    batch = make.feature_batch(6)
    assert batch.select([4, 0]).ids == ("clip4", "clip0")
    assert batch.select(np.array([True, False, False, False, True, False])).ids == ("clip0", "clip4")
    assert batch.select(torch.tensor([5])).groups == ("clip5",)
    assert len(batch.select([])) == 0
    make.assert_same_samples(batch, batch.select([3, 1, 2]))
    with pytest.raises(InputError, match="distinct"):
        batch.select([1, 1])


def test_replace_shares_what_it_does_not_replace(make: ModuleType) -> None:
    batch = make.feature_batch(4)
    other = batch.replace(audio=batch.audio + 1)
    assert other.text is batch.text
    assert other.vision_lengths is batch.vision_lengths
    assert other.ids == batch.ids
    assert other.present is batch.present


def test_batches_at_the_edge_of_the_shape(make: ModuleType, stressed: tuple[str, str]) -> None:
    full = make.feature_batch(8)
    fit = Reference.fit(full)
    empty = {f"{m}_lengths": torch.zeros(8, dtype=torch.int64) for m in MODALITIES}
    one_step = make.feature_batch(8, steps=(1, 1, 1))
    no_steps = full.replace(**{m: full.features(m)[:, :0] for m in MODALITIES}, **empty)
    nobody = full.replace(present=torch.zeros(8, 3, dtype=torch.bool))
    for batch in (full.select([]), full.select([3]), one_step, full.replace(**empty), no_steps, nobody):
        out = make.apply(batch, *stressed, reference=fit).batch
        assert out.ids == batch.ids
        for m in MODALITIES:
            assert out.features(m).shape == batch.features(m).shape
            np.testing.assert_array_equal(out.lengths(m), batch.lengths(m))
            assert out.features(m).isfinite().all()


def test_steps_of_an_empty_sequence_are_padding(make: ModuleType, stressed: tuple[str, str]) -> None:
    full = make.feature_batch(8)
    batch = full.replace(**{f"{m}_lengths": torch.zeros(8, dtype=torch.int64) for m in MODALITIES})
    out = make.apply(batch, *stressed, reference=Reference.fit(full)).batch
    if not make.swaps(stressed[0]):  # a donor brings its padding along
        for m in MODALITIES:
            np.testing.assert_array_equal(out.features(m), batch.features(m))


def test_half_precision_is_the_float32_of_its_values(make: ModuleType, stressed: tuple[str, str]) -> None:
    full = make.feature_batch(8)
    half = {m: full.features(m).half() for m in MODALITIES}
    single = {m: x.float() for m, x in half.items()}
    out, same = (make.apply(full.replace(**x), *stressed, reference=Reference.fit(full)).batch for x in (half, single))
    assert out.audio.dtype == torch.float32
    make.assert_same_samples(out, same)


def test_token_batches_at_the_edge_of_the_shape(make: ModuleType, stressed: tuple[str, str]) -> None:
    full = make.token_batch(8)
    none = {f"{m}_lengths": torch.zeros(8, dtype=torch.int64) for m in MODALITIES}
    bare = full.replace(text=torch.tensor([[101, 102]]).repeat(8, 1), text_lengths=torch.full((8,), 2))
    no_steps = full.replace(text=full.text[:, :0], audio=full.audio[:, :0], vision=full.vision[:, :0], **none)
    for batch in (full.select([]), full.select([3]), full.replace(**none), bare, no_steps):
        out = make.apply(batch, *stressed, reference=Reference.fit(full)).batch
        assert out.ids == batch.ids
        assert out.text.dtype == batch.text.dtype
        if batch is bare:  # nothing but [CLS] and [SEP]: no token may go
            np.testing.assert_array_equal(out.text, batch.text)
        for m in MODALITIES:
            assert out.features(m).shape == batch.features(m).shape
            if m == "text" or not make.swaps(stressed[0]):
                np.testing.assert_array_equal(out.lengths(m), batch.lengths(m))


def test_what_is_absent_is_left_alone(make: ModuleType, stressed: tuple[str, str]) -> None:
    for batch in (make.feature_batch(40, absent=0.4), make.token_batch(40, absent=0.4)):
        corruption = make.apply(batch, *stressed)
        for i, m in enumerate(MODALITIES):
            gone = ~batch.present[:, i]
            np.testing.assert_array_equal(corruption.batch.features(m)[gone], _wide(batch, corruption.batch, m)[gone])
            np.testing.assert_array_equal(corruption.batch.lengths(m)[gone], batch.lengths(m)[gone])
            for stage in corruption.stages:
                assert not stage.sources.lost[gone, i].any()
                assert bool((stage.sources.donor[gone, i] == -1).all())
                for mask in (stage.features.lost, stage.features.altered):
                    assert m not in mask or not mask[m][gone].any()
        assert not (corruption.present & ~batch.present).any()


def _wide(batch: Batch, out: Batch, modality: str) -> torch.Tensor:
    x = batch.features(modality)
    assert out.features(modality).shape == x.shape
    return x


FILLED = [("feature_batch", fill, fill in ("auto", "zeros", "mean")) for fill in FILLS]
FILLED += [("token_batch", fill, fill in ("auto", "mask", "unk")) for fill in FILLS]


@pytest.mark.parametrize(("maker", "fill", "fits"), FILLED)
def test_every_fill_of_every_stress(
    make: ModuleType, stressed: tuple[str, str], maker: str, fill: str, fits: bool
) -> None:
    stress, severity = stressed
    if not make.takes_fill(stress):
        with pytest.raises(InputError, match="unknown parameter 'fill'"):
            make.apply(make.feature_batch(4), make.with_option(stress, f"fill={fill}"), severity)
        return
    batch, fit = getattr(make, maker)(30, absent=0.2), Reference.fit(make.feature_batch(30, 7))
    filled = make.with_option(stress, f"fill={fill}")
    left_alone = "t" not in str(dict(Stress.parse(stress).options).get("modalities", "tav"))
    if not fits and not (left_alone and fill in ("zeros", "mean")):  # ids that nothing touches need no fill of theirs
        with pytest.raises(InputError, match=f"fill={fill} needs"):
            make.apply(batch, filled, severity, reference=fit)
        return
    plain = make.apply(batch, stress, severity, reference=fit)
    corruption = make.apply(batch, filled, severity, reference=fit)
    for a, b in zip(plain.stages, corruption.stages, strict=True):  # a fill changes values, never what is lost
        np.testing.assert_array_equal(a.sources.lost, b.sources.lost)
        for m, lost in a.features.lost.items():
            if "worst-case" not in stress:  # what is worst depends on the values
                np.testing.assert_array_equal(lost, b.features.lost[m])
    for i, m in enumerate(MODALITIES):
        stage, out = corruption.stages[-1], corruption.batch.features(m)
        lost = stage.sources.lost[:, i, None] & maskable(stage.clean, m) | _mask(stage.features.lost, m, out)
        x = out[lost]
        if not out.is_floating_point():
            auto = 100 if stress.partition(":")[0] in ("frame-missing", "burst") or stress.endswith("asr") else 103
            np.testing.assert_array_equal(x, torch.full_like(x, {"auto": auto, "mask": 103, "unk": 100}.get(fill, -1)))
        elif fill == "mean":
            np.testing.assert_array_equal(x, fit.mean[m].expand(len(x), -1))
        else:
            assert not x.any()


def _mask(masks: Mapping[str, torch.Tensor], modality: str, like: torch.Tensor) -> torch.Tensor:
    return masks.get(modality, torch.zeros(like.shape[:2], dtype=torch.bool))


def test_derived_inputs_follow_their_sources(make: ModuleType, stressed: tuple[str, str]) -> None:
    """Lost with any source, swapped with it, whatever the stress; changes inside a modality do not reach them."""
    batch = make.feature_batch(60, absent=0.2)
    corruption = make.apply(batch, *stressed)
    for name, d in batch.derived.items():
        columns = [MODALITIES.index(source) for source in d.sources]
        expected = d.values
        for stage in corruption.stages:
            donor = stage.sources.donor[:, columns].amax(1)
            swapped = (donor >= 0).view(-1, *[1] * (d.values.ndim - 1))
            expected = torch.where(swapped, d.values[donor.clamp(min=0)], expected)
            gone = stage.sources.lost[:, columns].any(1).view(-1, *[1] * (d.values.ndim - 1))
            expected = torch.where(gone, torch.zeros_like(expected), expected)
        np.testing.assert_array_equal(corruption.batch.derived[name].values, expected)
        assert corruption.batch.derived[name].sources == d.sources
