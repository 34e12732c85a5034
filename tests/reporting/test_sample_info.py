from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from corruptions import MODALITIES, STRESSORS, Batch, Draws, InputError, Reference, Stress, corrupt
from robustbench_msa.reporting.sample_info import (
    SampleInfo,
    Setting,
    columns_of,
    representative,
    row_of,
    sample_info,
    shown_points,
)

SHARED = [name for name, stressor in STRESSORS.items() if not stressor.needs_adversary]


def samples(n: int = 40, tokens: bool = False, absent: float = 0.0, seed: int = 0) -> Batch:
    """Ragged samples with labels of both signs; padding is zero, as in data sets; steps 14, 9 and 1."""
    rng = np.random.default_rng(seed)
    lengths = {"text": rng.integers(3, 15, n), "audio": rng.integers(1, 10, n), "vision": np.ones(n, dtype=int)}
    x = {m: rng.normal(2.0, 3.0, (n, t, d)) for m, t, d in (("text", 14, 3), ("audio", 9, 2), ("vision", 1, 4))}
    for m in MODALITIES:
        x[m][np.arange(x[m].shape[1]) >= lengths[m][:, None]] = 0.0
    text = rng.integers(1000, 2000, (n, 14)) if tokens else x["text"]
    if tokens:
        text[:, 0], text[np.arange(n), lengths["text"] - 1] = 101, 102
    return Batch(
        text,
        x["audio"],
        x["vision"],
        *(lengths[m] for m in MODALITIES),
        ids=tuple(f"video{i // 4}$_${i % 4}" for i in range(n)),
        labels=torch.from_numpy(rng.integers(-3, 4, n).astype(np.float32)),
        present=torch.from_numpy(rng.random((n, 3)) >= absent),
    )


BATCH = samples()
REFERENCE = Reference.fit(BATCH)


def setting(stress: str, grid: str | None = None, batch: Batch = BATCH, seed: int = 1111, **more) -> Setting:
    parsed = Stress.parse(stress)
    return Setting(parsed, shown_points(parsed, parsed.grid(grid)), batch, Reference.fit(batch), seed, **more)


def info(stress: str, grid: str | None = None, sample: str = "video2$_$1", batch: Batch = BATCH, **more) -> SampleInfo:
    return sample_info(setting(stress, grid, batch, **more), sample, "made up, test split")


def z(x: torch.Tensor, length: int, modality: str) -> np.ndarray:
    """Standardised by BATCH, the plain way."""
    mean, sd = REFERENCE.mean[modality].numpy(), REFERENCE.sigma[modality].numpy()
    rows = [(step - mean.astype(float)) / sd if np.any(step) else np.zeros(len(mean)) for step in x.numpy()]
    return np.array([row if t < length else np.full(len(mean), np.nan) for t, row in enumerate(rows)])


@pytest.mark.parametrize("stress", [*SHARED, "noise+missing", "frame-missing:legacy=lnln", "noise:fill=mean"])
def test_what_is_shown_is_what_models_get(stress: str) -> None:
    """The values of every column are those of the whole split corrupted at once, standardised."""
    shown = info(stress)
    row = BATCH.ids.index(shown.sample)
    for column in shown.columns:
        point = column.point
        severity = point.condition or "x".join(s for s in (point.severity, point.severity_2) if s is not None)
        given = corrupt(BATCH, stress, severity, 1111, REFERENCE)
        for strip in column.strips:
            length = int(given.lengths(strip.modality)[row])
            expected = z(given.features(strip.modality)[row], length, strip.modality)
            np.testing.assert_allclose(strip.values, expected, atol=1e-6, err_msg=f"{point} {strip.modality}")
            assert strip.length == length


@pytest.mark.parametrize("stress", SHARED)
def test_the_first_column_is_untouched(stress: str) -> None:
    first = info(stress).columns[0]
    assert first.title == "untouched"
    assert first.point.is_clean
    assert first.happened == frozenset()


@pytest.mark.parametrize(
    ("stress", "grid", "expected"),
    [
        ("noise", "0:0.5:0.1", ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("noise", "0:1:0.1", ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ("frame-missing", "0:0.9:0.1", ["0", "0.2", "0.4", "0.6", "0.8", "0.9"]),
        ("noise", "0.3", ["0", "0.3"]),
        ("noise", "0", ["0"]),
        ("spectrum", "0:0.7:0.1x0:0.7:0.1", ["0, 0", "0.2, 0.2", "0.4, 0.4", "0.6, 0.6", "0.7, 0.7"]),
        ("noise+missing", "0:0.5:0.1x0,0.4,0.8", ["0, 0", "0.2, 0.4", "0.5, 0.8"]),
        ("spectrum", "0.5x0:0.7:0.1", ["0, 0", "0.5, 0.7"]),
        ("spectrum:variant=mixture", None, ["0", "1"]),
        ("missing-fixed", None, ["t+a+v", "t", "a", "v", "t+a", "t+v", "a+v"]),
        ("missing-fixed", "v,t", ["t+a+v", "v", "t"]),
    ],
)
def test_columns_spread_over_the_grid_and_begin_with_the_clean_input(stress, grid, expected) -> None:
    parsed = Stress.parse(stress)
    assert [str(point) for point in shown_points(parsed, parsed.grid(grid))] == expected


def test_titles_name_each_axis() -> None:
    assert [c.title for c in info("spectrum", "0,0.4x0,0.3").columns] == ["untouched", "λ = 0.4\nη = 0.3"]
    assert info("burst+drift", "0.4x0.3").columns[1].title == "burst s = 0.4\ndrift s = 0.3"
    assert [c.title for c in info("missing-fixed", "t,a+v").columns] == ["untouched", "only T", "only AV"]


def test_lost_steps_and_the_size_of_noise() -> None:
    shown = info("noise", "0,0.3")
    row = BATCH.ids.index(shown.sample)
    given = corrupt(BATCH, "noise", "0.3", 1111, REFERENCE)
    for strip in shown.columns[1].strips:
        x, y = (b.features(strip.modality)[row].double().numpy() for b in (BATCH, given))
        gone = ~y.any(axis=1)
        lost = [mark == "lost" for mark in strip.marks[: strip.length]]
        np.testing.assert_array_equal(lost, gone[: strip.length])
        assert sum(lost) == round(Fraction("0.3") * strip.length)
        expected = np.sqrt((((y - x) / REFERENCE.sigma[strip.modality].numpy()) ** 2).mean(1))
        expected[gone] = 0.0
        np.testing.assert_allclose(strip.noise, expected, rtol=1e-5, atol=1e-7)
        noisy = "" if strip.modality == "text" else "noise"
        assert {mark for mark, is_lost in zip(strip.marks, lost, strict=False) if not is_lost} <= {noisy}
        assert set(strip.marks[strip.length :]) <= {"padding"}


def test_a_modality_lost_and_told_is_not_one_lost_and_untold() -> None:
    told, untold = (info(f"missing-random:told={word}", "0,1").columns[1] for word in ("true", "false"))
    for strips, word in ((told.strips, "lost, told"), (untold.strips, "lost, not told")):
        for strip in strips:
            assert strip.fate == word
            assert set(strip.marks[: strip.length]) == {word}
            np.testing.assert_array_equal(strip.values[: strip.length], 0.0)


def test_what_is_told_is_what_present_says() -> None:
    shown = info("missing", "0:0.8:0.2", seed=3)
    row = BATCH.ids.index(shown.sample)
    for column in shown.columns:
        present = corrupt(BATCH, "missing", column.point.severity or "", 3).present[row].tolist()
        assert [strip.fate == "" for strip in column.strips] == present
    assert not all(strip.fate == "" for strip in shown.columns[-1].strips)


def test_natural_absence_is_neither_lost_nor_told() -> None:
    batch = samples(absent=0.4)
    sample = next(i for i, p in zip(batch.ids, batch.present.tolist(), strict=True) if p == [True, True, False])
    for column in info("missing-random", "0,1", sample, batch).columns:
        assert column.strips[2].fate == "not in the data"
        assert set(column.strips[2].marks) == {"not in the data"}
    assert [strip.fate for strip in column.strips[:2]] == ["lost, not told"] * 2


def test_a_swapped_modality_is_the_donors_with_its_length_id_and_label() -> None:
    assert BATCH.labels is not None
    shown = info("conflict", "0,1", next(i for i, y in zip(BATCH.ids, BATCH.labels.tolist(), strict=True) if y > 0))
    row, swapped = BATCH.ids.index(shown.sample), [s for s in shown.columns[1].strips if s.fate == "swapped"]
    assert 1 <= len(swapped) <= 2
    assert shown.columns[1].strips[0].fate == ""
    for strip in swapped:
        donor = BATCH.ids.index(strip.donor)
        label = float(BATCH.labels[donor])
        assert donor != row
        assert strip.donor_label == label
        assert label < 0
        assert strip.length == int(BATCH.lengths(strip.modality)[donor])
        np.testing.assert_allclose(strip.values, z(BATCH.features(strip.modality)[donor], strip.length, strip.modality))
        assert set(strip.marks[: strip.length]) == {"swapped"}


@pytest.mark.parametrize("tokens", [False, True], ids=["features", "tokens"])
def test_wrong_tokens_of_a_speech_recogniser(tokens: bool) -> None:
    batch = samples(tokens=tokens)
    first, count = int(tokens), 0
    for sample in batch.ids[:12]:
        strip = info("asr", "0,0.5", sample, batch).columns[1].strips[0]
        row = batch.ids.index(sample)
        x, y = (b.text[row].numpy() for b in (batch, corrupt(batch, "asr", "0.5")))
        wrong = [t for t, mark in enumerate(strip.marks) if mark in ("lost", "substituted", "repeated")]
        assert len(wrong) == round(Fraction("0.5") * (strip.length - 2 * first))
        for t in wrong:
            if strip.marks[t] == "repeated":
                count += 1
                np.testing.assert_array_equal(y[t], x[t - 1])
                assert t > first
            elif strip.marks[t] == "substituted":
                assert np.any(y[t] != x[t])
            else:
                np.testing.assert_array_equal(y[t], 100 if tokens else 0.0)
    assert count > 0


@pytest.mark.parametrize(("direction", "sign"), [("late", 1), ("early", -1)])
def test_a_shift_is_found_again(direction: str, sign: int) -> None:
    sample = next(i for i, n in zip(BATCH.ids, BATCH.audio_lengths.tolist(), strict=True) if n == 9)
    column = info(f"misalign:direction={direction}", "0,0.2", sample).columns[1]
    text, audio, vision = column.strips
    assert audio.shift == sign * 2  # round(0.2 * 9)
    assert set(audio.marks) == {"moved"}
    assert (text.shift, vision.shift) == (0, 0)  # one step has nowhere to go
    assert column.happened == {("audio", "moved")}


def test_steps_lost_before_a_shift_are_shifted_with_the_rest() -> None:
    sample = next(i for i, n in zip(BATCH.ids, BATCH.audio_lengths.tolist(), strict=True) if n == 9)
    audio = info("frame-missing+misalign", "0.4x0.3", sample).columns[1].strips[1]
    zero = ~np.any(audio.values, axis=1)
    assert 0 < zero.sum() < 9
    np.testing.assert_array_equal(audio.lost, zero)
    assert [mark == "lost" for mark in audio.marks] == zero.tolist()


def test_noise_after_an_untold_loss_falls_on_the_zeros() -> None:
    for strip in info("missing-random+noise-lambda", "1x0.5").columns[1].strips[1:]:
        assert strip.fate == "lost, not told"
        assert np.all(strip.noise[: strip.length] > 0)
        assert np.any(strip.values[: strip.length])


def test_no_noise_falls_on_what_was_told_lost() -> None:
    told = info("missing-random+noise-lambda:missing-random.told=true", "1x0.5").columns[1]
    for strip in told.strips:
        assert strip.fate == "lost, told"
        assert not strip.noise.any()


def test_a_swap_hides_the_noise_before_it() -> None:
    before, after = (info(stress, grid).columns[1].strips for stress, grid in SWAPS)
    place = next(i for i, strip in enumerate(before) if strip.fate == "swapped")
    assert not before[place].noise.any()
    assert after[place].fate == "swapped"
    assert np.all(after[place].noise[: after[place].length] > 0)


SWAPS = [("noise-lambda+conflict", "0.5x1"), ("conflict+noise-lambda", "1x0.5")]


class Uphill:
    """An adversary for which larger values are worse."""

    def losses(self, batch: Batch) -> torch.Tensor:
        return sum(batch.features(m).flatten(1).sum(1) for m in MODALITIES)  # type: ignore[return-value]

    def gradients(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        return {m: torch.ones_like(batch.features(m)) for m in MODALITIES}


def test_the_worst_case_moves_every_feature_by_s_sigma() -> None:
    shown = info("worst-case", "0:0.3:0.1", adversary=Uphill(), model="uphill")
    assert shown.model == "uphill"
    for column in shown.columns:
        for strip in column.strips:
            np.testing.assert_allclose(strip.noise[: strip.length], float(column.point.severity or 0), rtol=1e-4)
    with pytest.raises(InputError, match="worst-case depends on the model"):
        info("worst-case")


def test_a_stress_whose_draws_depend_on_the_place_is_applied_to_everyone() -> None:
    """legacy=lnln alone reads the whole split; of all others a sample is looked at on its own."""
    rows = [BATCH.ids.index("video2$_$1"), 3]
    for stress in ("frame-missing:legacy=lnln", "noise"):
        alone, together = columns_of(setting(stress), rows[:1])[0], columns_of(setting(stress), rows)[0]
        for a, b in zip(alone, together, strict=True):
            assert [s.marks for s in a.strips] == [s.marks for s in b.strips]
    lost = [strip.lost for strip in info("frame-missing:legacy=lnln", "0,0.5", BATCH.ids[7]).columns[1].strips]
    u = np.random.RandomState(1111).uniform(size=(40, 9))[7]
    np.testing.assert_array_equal(lost[1], (u <= 0.5) & (np.arange(9) < int(BATCH.audio_lengths[7])))


@pytest.mark.parametrize("stress", [name for name in SHARED if STRESSORS[name].random])
def test_the_representative_sample_is_long_there_and_hit(stress: str) -> None:
    batch = samples(120, absent=0.1, seed=4)
    under = setting(stress, None, batch)
    sample = representative(under)
    row = batch.ids.index(sample)
    assert bool(batch.present[row].all())
    for modality in ("text", "audio"):
        assert int(batch.lengths(modality)[row]) >= int(batch.lengths(modality).median())
    (columns,) = columns_of(under, [row])
    assert columns[len(columns) // 2].happened
    order = np.random.default_rng(0).permutation(len(batch))
    assert representative(under._replace(split=batch.select(order))) == sample


def test_a_representative_is_found_where_no_sample_has_everything() -> None:
    batch = samples(n=3).replace(present=torch.tensor([[True, True, False]] * 3), labels=None)
    assert representative(setting("noise", None, batch)) in batch.ids
    assert representative(setting("missing-fixed", None, batch)) in batch.ids


def test_an_unknown_sample_is_answered_with_near_ids() -> None:
    with pytest.raises(InputError, match=r"sample 'video2\$_\$7' is not one of the 40 of made up; near it: video2"):
        row_of("video2$_$7", BATCH, "made up")
    with pytest.raises(InputError, match=r"the first is video0\$_\$0$"):
        row_of("?", BATCH, "made up")


def test_the_table_behind_the_figure_has_every_step() -> None:
    shown = info("spectrum", "0,0.4x0,0.3")
    frame = shown.frame()
    assert len(frame) == 2 * (14 + 9 + 1)
    assert set(frame["sample"]) == {"video2$_$1"}
    assert set(frame["stress"]) == {"spectrum"}
    text = frame[(frame["severity"] == "0.4") & (frame["modality"] == "text")]
    assert text["step"].tolist() == list(range(1, 15))
    assert tuple(text["mark"]) == shown.columns[1].strips[0].marks
    assert set(text["severity_2"]) == {"0.3"}
    assert frame["condition"].isna().all()
    sets = info("missing-fixed", "t").frame()
    assert set(sets["condition"]) == {"t+a+v", "t"}
    pd.testing.assert_series_equal(sets["noise"], pd.Series(0.0, index=sets.index, name="noise"))


def test_the_colour_scale_is_shared_and_holds_nearly_all() -> None:
    shown = info("noise", "0:0.5:0.1")
    for i, limit in enumerate(shown.limits):
        values = np.concatenate([np.abs(c.strips[i].values[: c.strips[i].length]).ravel() for c in shown.columns])
        assert limit >= 1.0
        assert limit % 0.5 == 0
        assert np.mean(values <= limit) >= 0.98


def test_the_heading_says_what_was_drawn_with_which_seed() -> None:
    assert (info("noise").seed, info("misalign").seed, info("missing-fixed").seed) == (1111, None, None)
    assert info("missing-random:told=true").title == "Randomly missing (told=true)"
    assert info("noise", batch=BATCH.replace(labels=None)).label is None
    assert info("noise", batch=samples(tokens=True)).token_text


def test_draws_are_those_of_the_seed() -> None:
    one, other = (info("missing-random", "0,0.5", seed=seed).columns[1] for seed in (1111, 1112))
    row = BATCH.ids.index("video2$_$1")
    for column, seed in ((one, 1111), (other, 1112)):
        draws = [float(Draws(seed, BATCH).uniform("drop", m)[row]) for m in MODALITIES]
        assert [strip.fate != "" for strip in column.strips] == [u < 0.5 for u in draws]
