"""The batch: what it accepts, refuses and shares; and every stressor on batches at the edge of the shape."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from corruptions import MODALITIES, Batch, Derived, InputError, Reference

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
    for batch in (full.select([]), full.select([3]), one_step, full.replace(**empty), no_steps):
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
    if stressed[0] != "conflict":  # a donor brings its padding along
        for m in MODALITIES:
            np.testing.assert_array_equal(out.features(m), batch.features(m))


def test_half_precision_is_the_float32_of_its_values(make: ModuleType, stressed: tuple[str, str]) -> None:
    full = make.feature_batch(8)
    half = {m: full.features(m).half() for m in MODALITIES}
    single = {m: x.float() for m, x in half.items()}
    out, same = (make.apply(full.replace(**x), *stressed, reference=Reference.fit(full)).batch for x in (half, single))
    assert out.audio.dtype == torch.float32
    make.assert_same_samples(out, same)
