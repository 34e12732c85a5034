from __future__ import annotations

import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from corruptions import STRESSORS, Batch, Reference, Stress
from robustbench_msa.reporting import sample_figure as drawing
from robustbench_msa.reporting import style
from robustbench_msa.reporting.figure_files import save_figure
from robustbench_msa.reporting.sample_figure import sample_figure
from robustbench_msa.reporting.sample_info import SampleInfo, Setting, sample_info, shown_points

SHARED = [name for name, stressor in STRESSORS.items() if not stressor.needs_adversary]


def samples(steps=(12, 20, 8), dims=(3, 2, 4), tokens=False, n=8, name="clip") -> Batch:
    """Samples that fill three quarters of their steps; of the last one vision is not there."""
    rng = np.random.default_rng(1)
    text, audio, vision = (rng.normal(size=(n, t, d)) for t, d in zip(steps, dims, strict=True))
    return Batch(
        rng.integers(1000, 2000, (n, steps[0])) if tokens else text,
        audio,
        vision,
        *(np.full(n, -(-3 * t // 4)) for t in steps),
        ids=tuple(f"{name}{i}$_${i}" for i in range(n)),
        labels=torch.linspace(-3, 3, n),
        present=torch.ones(n, 3, dtype=torch.bool).index_put_(
            (torch.tensor(n - 1), torch.tensor(2)), torch.tensor(False)
        ),
    )


def info(stress: str, grid: str | None = None, row: int = 1, batch: Batch | None = None) -> SampleInfo:
    batch = samples() if batch is None else batch
    parsed = Stress.parse(stress)
    points = shown_points(parsed, parsed.grid(grid))
    return sample_info(Setting(parsed, points, batch, Reference.fit(batch)), batch.ids[row], "made up, test split")


def strips_of(figure: Figure) -> list[list[matplotlib.axes.Axes]]:
    """The axes of strips, one list a row; colour bars are the narrow ones."""
    axes = [ax for ax in figure.axes if ax.images]
    rows = [list(group) for _, group in itertools.groupby(axes, key=lambda ax: round(ax.get_position().y0, 6))]
    assert len(rows) == 3
    return rows


def hatched(ax: matplotlib.axes.Axes) -> dict[str, list[tuple[float, float]]]:
    """Stretches in time by their hatching."""
    found: dict[str, list[tuple[float, float]]] = {}
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_hatch():
            found.setdefault(patch.get_hatch(), []).append((patch.get_x(), patch.get_x() + patch.get_width()))
    return found


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def over(ax: matplotlib.axes.Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_a_row_per_modality_and_a_column_per_severity() -> None:
    before = plt.get_fignums()
    figure = sample_figure(info("noise", "0:0.4:0.2"))
    assert plt.get_fignums() == before
    rows = strips_of(figure)
    assert [len(row) for row in rows] == [3, 3, 3]
    assert [ax.get_title() for ax in rows[0]] == ["untouched", "ρ = 0.2", "ρ = 0.4"]
    assert [over(row[0])[0] for row in rows] == ["text\n3 features", "audio\n2 features", "vision\n4 features"]
    assert [over(row[0])[1:] for row in rows] == [["step 1", "11"], ["step 1", "18"], ["step 1", "8"]]
    (heading,) = [text.get_text() for text in figure.texts]
    assert heading == "Noise: sample clip1$_$1 of made up, test split, label −2.14, seed 1111"


def test_lost_steps_and_padding_are_hatched_where_they_are() -> None:
    shown = info("burst", "0,0.5")
    clean, hit = strips_of(sample_figure(shown))[1]
    strip = shown.columns[1].strips[1]
    (lost,) = hatched(hit)[drawing.HATCHES["lost"]]
    at = np.flatnonzero(strip.lost)
    assert lost == (at[0], at[-1] + 1)
    assert lost[1] - lost[0] == 8  # of 15, half to even
    assert hatched(hit)[drawing.HATCHES["padding"]] == [(15, 18)]
    assert list(hatched(clean)) == [drawing.HATCHES["padding"]]


def test_bars_show_how_much_was_added() -> None:
    shown = info("drift", "0,0.5")
    for row, strip in list(zip(strips_of(sample_figure(shown)), shown.columns[1].strips, strict=True))[1:]:
        (bars,) = [p for p in row[1].patches if not isinstance(p, Rectangle)]
        heights = bars.get_data().values - 1.03
        expected = strip.noise[: len(heights)]
        np.testing.assert_allclose(heights / heights.max(), expected / expected.max(), atol=1e-6)
        assert heights.max() <= drawing.TOP
    assert legend(sample_figure(shown))[-1].startswith("added to the values (rms of a step; full height ")
    assert not any("added" in text for text in legend(sample_figure(info("missing"))))


def test_told_untold_and_not_in_the_data_have_words_and_hatchings_of_their_own() -> None:
    seen = {}
    for word, stress, row in (
        ("lost, told", "missing-random:told=true", 1),
        ("lost, not told", "missing-random", 1),
        ("not in the data", "noise", 7),
    ):
        ax = strips_of(sample_figure(info(stress, "0,1", row)))[2][1]
        assert over(ax) == [word]
        (seen[word],) = set(hatched(ax)) - {drawing.HATCHES["padding"]}
    assert len({*seen.values(), drawing.HATCHES["padding"]}) == 4
    greys = {word: drawing.FACES[word] for word in ("lost, told", "lost, not told")}
    assert float(greys["lost, told"]) - float(greys["lost, not told"]) > 0.5  # apart without the hatching too


def test_a_swap_is_framed_and_names_the_donor_as_it_is_written() -> None:
    shown = info("conflict", "0,1")
    rows = strips_of(sample_figure(shown))
    for row, strip in zip(rows, shown.columns[1].strips, strict=True):
        frame = [p for p in row[1].patches if isinstance(p, Rectangle) and not p.get_hatch()][-1]
        swapped = strip.fate == "swapped"
        assert frame.get_linestyle() == ("--" if swapped else "-")
        if swapped:
            (text,) = [t for t in row[1].texts if t.get_text()]
            assert text.get_text() == f"{strip.donor}\nlabel {strip.donor_label:+.3g}"
            assert not text.get_parse_math()
    assert "taken from the sample named above" in legend(sample_figure(shown))


def test_wrong_tokens_have_markers_of_two_shapes() -> None:
    shown = info("asr", "0,1", batch=samples((48, 4, 4)))
    ax = strips_of(sample_figure(shown))[0][1]
    marks = shown.columns[1].strips[0].marks
    drawn = {line.get_marker(): line.get_xdata().tolist() for line in ax.lines}
    assert drawn == {
        "v": [t + 0.5 for t, mark in enumerate(marks) if mark == "substituted"],
        "<": [t + 0.5 for t, mark in enumerate(marks) if mark == "repeated"],
    }
    assert all(drawn.values())


@pytest.mark.parametrize(
    ("stress", "grid", "words", "place"),
    [
        ("misalign", "0,0.2", "3 steps later", 3),
        ("misalign:direction=early", "0,0.1", "2 steps earlier", 13),  # 1.5 is 2, half to even
        ("misalign", "0,0.5", "half a turn", 8),
    ],
)
def test_a_shift_is_said_and_its_place_marked(stress: str, grid: str, words: str, place: int) -> None:
    ax = strips_of(sample_figure(info(stress, grid)))[1][1]
    assert over(ax) == [words]
    (line,) = [c for c in ax.collections if len(c.get_segments()) == 1]
    assert line.get_segments()[0][0, 0] == place


def test_noise_on_lost_steps_stays_visible() -> None:
    ax = strips_of(sample_figure(info("missing-random+noise-lambda", "1x0.5")))[1][1]
    (box,) = [p for p in ax.patches if p.get_hatch() == drawing.HATCHES["lost"]]
    assert box.get_facecolor() == (0, 0, 0, 0)
    ax = strips_of(sample_figure(info("missing-random", "0,1")))[1][1]
    (box,) = [p for p in ax.patches if p.get_hatch() == drawing.HATCHES["lost"]]
    assert box.get_facecolor()[3] == 1


def test_the_legend_names_what_is_there_and_nothing_else() -> None:
    assert legend(sample_figure(info("missing", "0"))) == ["padding"]
    assert legend(sample_figure(info("missing-fixed", "t"))) == ["modality lost, model told", "padding"]
    assert legend(sample_figure(info("frame-missing", "0,0.5"))) == ["lost step", "padding"]
    full = samples().replace(text_lengths=None, audio_lengths=None, vision_lengths=None)
    assert legend(sample_figure(info("missing", "0", batch=full))) == []


def test_every_mark_looks_different_without_colour() -> None:
    """Hatching, shape or dashes differ; what models see alike (lost steps, an untold loss) is drawn alike."""
    looks = [(drawing.HATCHES[m], drawing.FACES[m]) for m in drawing.HATCHES if m != "lost, not told"]
    assert len(set(looks)) == len(drawing.HATCHES) - 1
    assert len({shape for shape, _ in drawing.MARKERS.values()}) == len(drawing.MARKERS)
    for values in (drawing.FACES, drawing.EDGES):
        assert all(value == "white" or 0 <= float(value) <= 1 for value in values.values())  # greys
    assert set(drawing.MEANINGS) == {*drawing.HATCHES, *drawing.MARKERS, "swapped", "moved"}


def texts_of(figure: Figure) -> list[Text]:
    """All words that are seen: those of the strips' own axes are switched off."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for ax in figure.axes:
        found += [*ax.texts, ax.title, *(ax.get_yticklabels() if ax.axison else [])]
    return [text for text in found if text.get_text()]


SHAPES = {
    "synth": samples((24, 40, 32), (48, 24, 16)),
    "single steps": samples((24, 1, 1), (300, 74, 35), name="a_very_long_name_of_a_video_"),
    "long": samples((50, 500, 375), (768, 5, 20)),
    "tokens": samples((20, 4, 6), tokens=True),
}


PAGES = [(stress, shape) for stress in ("noise", "conflict+noise", "missing-fixed", "asr+misalign") for shape in SHAPES]
PAGES = [(stress, shape) for stress, shape in PAGES if shape != "long" or stress == "conflict+noise"]  # slow to draw


@pytest.mark.parametrize(("stress", "shape"), PAGES)
def test_everything_stays_inside_the_page_and_no_words_overlap(stress: str, shape: str) -> None:
    figure = sample_figure(info(stress, batch=SHAPES[shape]))
    with style.styled():
        figure.canvas.draw()
    width, height = figure.get_size_inches()
    assert width <= style.PAGE + 1e-9
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts_of(figure)]
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width * figure.dpi, text
        assert box.y1 <= height * figure.dpi, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{one!r} and {other!r}"
    assert min(t.get_fontsize() for t in texts_of(figure)) >= 6


@pytest.mark.parametrize("stress", SHARED)
def test_every_stress_can_be_drawn(stress: str) -> None:
    shown = info(stress)
    rows = strips_of(sample_figure(shown))
    assert [len(row) for row in rows] == [len(shown.columns)] * 3


def test_many_features_are_thinned_and_said_so() -> None:
    batch = samples(dims=(768, 2, 1))
    text, _, vision = strips_of(sample_figure(info("noise", "0", batch=batch)))
    assert over(text[0])[0] == "text\n100 of 768\nfeatures"
    assert text[0].images[0].get_array().shape[0] == 100
    assert over(vision[0])[0] == "vision\n1 feature"


def test_token_ids_have_no_colours() -> None:
    figure = sample_figure(info("asr", "0,0.5", batch=SHAPES["tokens"]))
    assert over(strips_of(figure)[0][0])[0] == "text\ntoken ids"
    assert len([ax for ax in figure.axes if not ax.images]) == 2  # colour bars of audio and vision
    assert len([t for t in figure.findobj(Text) if t.get_text() == "value (sd)"]) == 1


def test_the_same_figure_has_the_same_bytes_whatever_the_users_settings(tmp_path) -> None:
    shown = info("spectrum", "0,0.4x0,0.5")
    plain = save_figure(sample_figure(shown), shown.frame(), tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20.0, "hatch.linewidth": 3.0, "pdf.fonttype": 3}):
        changed = save_figure(sample_figure(shown), shown.frame(), tmp_path / "changed")
    for a, b in zip(plain, changed, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert b"/Type3" not in plain[1].read_bytes()
    with Image.open(plain[0]) as image:
        assert image.width <= style.PAGE * 200 + 1
