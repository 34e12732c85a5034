"""The synthetic dataset: CMU-MOSI's shape, with an information structure that is known exactly.

Per sample, all independent: a redundant factor r and unique factors u_T, u_A, u_V ~ N(0, 1), signs b_T, b_A, b_V
uniform on {-1, +1}, eps ~ N(0, s_y^2). Clips of one video share a part of r = sqrt(q) r_video + sqrt(1 - q) r_own.

    y*      = a_r r + a_T u_T + a_A u_A + a_V u_V + a_s b_T b_A b_V + eps
    label   = clip(c y*, -3, 3) rounded to steps of 0.2, as averages of annotators are
    x_{m,t} = w_m(t / L_m) G_m (r, u_m, b_m)' + eta,  G_m = Q_m diag(g_m),  eta ~ N(0, s_m^2 I),  t = 1 .. L_m

The product of signs is pure three-way synergy: any two of them say nothing about it. w_m is smooth, positive and has
mean square 1; L_m is uniform on [L_max / 4, L_max]; zeros pad. `oracle` derives the best prediction from the same
constants.

The constants, in the order text, audio, vision: steps x features 24 x 48, 40 x 24, 32 x 16; a_r .555, a_m (.526, .248,
.233), a_s .35, s_y .44, c 1.5, q .3; s_m 2.2; g_m (1.38, 1.20, 5), (.40, .95, 5), (.40, 1.10, 5). The signs are strong
because weak ones were learned by no network from 1,284 samples.

What that gives, Corr / Acc-2 (no zeros) on test splits of 20,000 after training on 1,284 samples, seeds 1111, 1 and 2:

- exact posterior mean .830 to .831 / .832 to .835; from text alone .684 / .755, audio .426 / .649, vision .398 / .635,
  audio and vision .519 / .683, text and audio .722 / .772, text and vision .718 / .771;
- ridge on features averaged over valid steps .724 to .730 / .774; text .666, audio .353 to .378, vision .350 to .361;
- regularised MLPs of one or two layers on the same averages .764 to .783 / .802: .037 to .054 above ridge, and their
  predictions correlate .18 to .36 with the product of signs, ridge's not at all (an MLP that overfits falls below
  ridge, to .68, and misses it too); from audio or vision alone .31 to .35.

`synth-explained` is the same data with three derived inputs, as a language model's remarks about a clip would be:
explanation_audio and explanation_vision, noisy views of the factors audio and vision show, and comment, one of all
seven. They help and give nothing away: with all of them the exact posterior mean has Corr .852 to .854 instead of .830
to .831 (without the comment .842), from audio and its explanation .520 instead of .426; a comment alone .70.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import MODALITIES, Batch, InputError
from corruptions.batch import Derived
from corruptions.keyed_random import keyed_normals, keyed_uniforms
from robustbench_msa.data.dataset import SPLITS, Dataset

Array = NDArray[np.float64]

VERSION = 1  # raise it when the same seed gives other data
SIZES = (1284, 229, 686)  # CMU-MOSI's utterances in train, valid, test ...
VIDEOS = (52, 10, 31)  # ... and the videos they come from
LABEL_LIMIT = 3.0
LABELS_PER_UNIT = 5  # labels are whole multiples of 1/5
EXPLANATIONS: Mapping[str, tuple[str, ...]] = {
    "explanation_audio": ("audio",),
    "explanation_vision": ("vision",),
    "comment": MODALITIES,
}
"""The derived inputs of ``synth-explained``, each with the modalities it was made from."""
SHARED_IN_VIDEO = 0.3  # q, the share of r's variance that a video's clips have in common
FEATURE_STEP = 2.0**-12
"""Features are multiples of this step. It is far below the noise, and it hides the last-bit differences of maths
libraries, so that a seed has one fingerprint everywhere. A valid step of all zeros has a probability below 1e-50."""

_SAMPLES_AT_ONCE = 128  # bounds the float64 working memory, whatever the size of the split


@dataclass(frozen=True, eq=False)
class SynthModality:
    """How one modality, or an explanation, shows its factors.

    Args:
        steps: L_max, the longest sequence.
        loadings: G_m, ``(d, factors)``: a modality's three columns are for r, u_m and b_m.
        noise: s_m > 0, the standard deviation of the noise of every feature and step.
        depth, cycles, phase: the gain is w(tau) = (1 + depth cos(2 pi cycles tau + phase)) / sqrt(1 + depth^2 / 2).
    """

    steps: int
    loadings: Array
    noise: float
    depth: float = 0.0
    cycles: int = 1
    phase: float = 0.0

    def gain(self, tau: Array) -> Array:
        """w(tau) for the relative time tau in [0, 1]; its mean square over [0, 1] is 1."""
        wave = 1 + self.depth * np.cos(2 * np.pi * self.cycles * tau + self.phase)
        return np.asarray(wave / np.sqrt(1 + self.depth**2 / 2))

    def weights(self, lengths: NDArray[np.int64], steps: int) -> Array:
        """w(t / L) for t = 1 .. L and 0 on padding, ``(N, steps)``."""
        t = np.arange(1, steps + 1)
        return np.where(t <= lengths[:, None], self.gain(t / np.maximum(lengths, 1)[:, None]), 0.0)


@dataclass(frozen=True, eq=False)
class SynthModel:
    """All constants of the generative model: a_redundant, a_unique (T, A, V) and a_synergy weigh the factors in y*,
    noise is s_y, scale is c.
    """

    text: SynthModality
    audio: SynthModality
    vision: SynthModality
    a_redundant: float = 0.555
    a_unique: tuple[float, float, float] = (0.526, 0.248, 0.233)
    a_synergy: float = 0.35
    noise: float = 0.44
    scale: float = 1.5

    @staticmethod
    def default() -> SynthModel:
        """The model of the dataset `synth`: one structure for all seeds and sizes."""
        return _default()

    def part(self, modality: str) -> SynthModality:
        part: SynthModality = getattr(self, modality)
        return part


@cache
def _default() -> SynthModel:
    return SynthModel(
        # salient at both ends; three stretches, dull at the ends; salient in the first half
        text=SynthModality(24, _loadings("text", 48, (1.38, 1.20, 5.0)), 2.2, depth=0.5),
        audio=SynthModality(40, _loadings("audio", 24, (0.40, 0.95, 5.0)), 2.2, depth=0.8, cycles=2, phase=np.pi),
        vision=SynthModality(32, _loadings("vision", 16, (0.40, 1.10, 5.0)), 2.2, depth=0.7, phase=-np.pi / 2),
    )


def _loadings(modality: str, features: int, gains: tuple[float, ...]) -> Array:
    """Q diag(g), ``(features, factors)``: Q from a fixed draw, its signs those of a positive diagonal of R."""
    q, r = np.linalg.qr(keyed_normals(f"synth {VERSION} structure {modality}", (features, len(gains))))
    return np.asarray(q * np.sign(np.diag(r)) * np.array(gains))


@cache
def explanation_view(name: str) -> SynthModality:
    """How an explanation shows ``shown_factors`` of its sources: 2 to 8 steps of equal gain, 16 features each."""
    gains = (1.4, 1.2, 1.0, 1.0, 2.0, 2.0, 2.0) if name == "comment" else (1.4, 1.4, 2.5)
    return SynthModality(8, _loadings(name, 16, gains), 2.2)


def shown_factors(sources: Sequence[str]) -> tuple[str, ...]:
    """Names of the factors that these modalities show: r, the u_m, the b_m.

    >>> shown_factors(["audio"]), shown_factors(["text", "vision"])
    (('r', 'u_A', 'b_A'), ('r', 'u_T', 'u_V', 'b_T', 'b_V'))
    """
    letters = [modality[0].upper() for modality in sources]
    return ("r", *(f"u_{m}" for m in letters), *(f"b_{m}" for m in letters))


def make_synth(seed: int = 1111, sizes: Sequence[int] = SIZES, explanations: bool = False) -> Dataset:
    """The synthetic dataset of a seed, with `sizes` samples in train, valid and test.

    Text is one vector per token without context, so masking a vector hides its token: ``text_at`` is "tokens".

    explanations: with the derived inputs of EXPLANATIONS, under the name "synth-explained"; all else is the same. The
    oracle does not see them, so it is no bound there.

    Raises:
        InputError: sizes that are not three whole numbers of at least 1.

    >>> data = make_synth(seed=1, sizes=(4, 2, 3))
    >>> data.dims, data.splits["test"].ids
    ((48, 24, 16), ('test000$_$1', 'test001$_$1', 'test001$_$2'))
    """
    sizes = _checked(sizes)
    splits = {split: _split(seed, split, n, explanations) for split, n in zip(SPLITS, sizes, strict=True)}
    name = "synth-explained" if explanations else "synth"
    parameters = {"generator": name, "seed": seed, "sizes": list(sizes), "version": VERSION}
    parameters |= {"explanations": True} if explanations else {}
    return Dataset(name, splits, profile="mosi", text_at="tokens", parameters=parameters)


def true_factors(seed: int = 1111, split: str = "test", sizes: Sequence[int] = SIZES) -> dict[str, Array]:
    """What made a split of ``make_synth(seed, sizes)``: r, u_T, u_A, u_V, b_T, b_A, b_V and y_star, each ``(N,)``.

    Raises:
        InputError: an unknown split, or sizes that are not three whole numbers of at least 1.
    """
    if split not in SPLITS:
        raise InputError(f"synth: split must be one of {', '.join(SPLITS)}; got {split!r}")
    return _factors(seed, split, _checked(sizes)[SPLITS.index(split)])


def _checked(sizes: Sequence[int]) -> tuple[int, ...]:
    if len(sizes) != len(SPLITS) or not all(isinstance(n, int | np.integer) and n >= 1 for n in sizes):
        wanted = f"three whole numbers of at least 1 ({', '.join(SPLITS)})"
        raise InputError(f"synth: sizes must be {wanted}; got {tuple(sizes)}")
    return tuple(int(n) for n in sizes)


def _factors(seed: int, split: str, n: int) -> dict[str, Array]:
    model, key = SynthModel.default(), _key(seed, split)
    video = _videos(seed, split, n)
    shared = keyed_normals(f"{key} r of videos", (int(video[-1]) + 1,))[video]
    factors = {"r": np.sqrt(SHARED_IN_VIDEO) * shared + np.sqrt(1 - SHARED_IN_VIDEO) * keyed_normals(f"{key} r", (n,))}
    factors |= {f"u_{m}": keyed_normals(f"{key} u_{m}", (n,)) for m in "TAV"}
    factors |= {f"b_{m}": np.where(keyed_uniforms(f"{key} b_{m}", (n,)) < 0.5, -1.0, 1.0) for m in "TAV"}
    unique = sum(a * factors[f"u_{m}"] for a, m in zip(model.a_unique, "TAV", strict=True))
    synergy = factors["b_T"] * factors["b_A"] * factors["b_V"]
    eps = model.noise * keyed_normals(f"{key} eps", (n,))
    factors["y_star"] = model.a_redundant * factors["r"] + unique + model.a_synergy * synergy + eps
    return factors


def _split(seed: int, split: str, n: int, explanations: bool) -> Batch:
    model, factors, video = SynthModel.default(), _factors(seed, split, n), _videos(seed, split, n)
    arrays: dict[str, Any] = {}
    for modality in MODALITIES:
        key = f"{_key(seed, split)} {modality}"
        x, length = _sequences(key, model.part(modality), _shown(factors, [modality]))
        arrays |= {modality: x, f"{modality}_lengths": length}
    derived = {}
    for name, sources in EXPLANATIONS.items() if explanations else ():
        x, _ = _sequences(f"{_key(seed, split)} {name}", explanation_view(name), _shown(factors, sources))
        derived[name] = Derived(torch.from_numpy(x), sources)
    clip = np.arange(n) - np.searchsorted(video, video) + 1
    return Batch(
        **arrays,
        ids=tuple(f"{split}{v:03d}$_${c}" for v, c in zip(video, clip, strict=True)),
        groups=tuple(f"{split}{v:03d}" for v in video),
        labels=torch.from_numpy(labels_of(model.scale * factors["y_star"])),
        derived=derived,
    )


def _shown(factors: dict[str, Array], sources: Sequence[str]) -> Array:
    return np.stack([factors[name] for name in shown_factors(sources)], axis=1)  # (N, factors)


def _sequences(key: str, part: SynthModality, shown: Array) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """x_{m,t} for shown factors ``(N, factors)``: ``(N, steps, d)``, zero on padding, and lengths L_m ``(N,)``."""
    shortest = part.steps // 4
    spread = keyed_uniforms(f"{key} lengths", (len(shown),)) * (part.steps - shortest + 1)
    lengths = shortest + spread.astype(np.int64)
    signal, weights = shown @ part.loadings.T, part.weights(lengths, part.steps)  # (N, d), (N, steps)
    x = np.zeros((*weights.shape, signal.shape[1]), dtype=np.float32)
    for start in range(0, len(x), _SAMPLES_AT_ONCE):
        rows = slice(start, start + _SAMPLES_AT_ONCE)
        values = part.noise * keyed_normals(f"{key} noise {start}", x[rows].shape)
        values += weights[rows, :, None] * signal[rows, None, :]
        values[np.arange(part.steps) >= lengths[rows, None]] = 0.0
        x[rows] = np.rint(values / FEATURE_STEP) * FEATURE_STEP
    return x, lengths


def labels_of(score: Array) -> NDArray[np.float32]:
    """Labels of scaled scores c y*: clipped to [-3, 3], then rounded to whole multiples of 1/5.

    >>> labels_of(np.array([-9.0, -0.05, 0.11, 1.49])).tolist() == np.float32([-3.0, 0.0, 0.2, 1.4]).tolist()
    True
    """
    fifths = np.rint(np.clip(score, -LABEL_LIMIT, LABEL_LIMIT) * LABELS_PER_UNIT)
    return ((fifths + 0.0) / LABELS_PER_UNIT).astype(np.float32)  # + 0.0: no label is -0.0


def _videos(seed: int, split: str, n: int) -> NDArray[np.int64]:
    """The video of each sample, ``(N,)``, rising from 0; a long video has up to four times the clips of a short one."""
    i = SPLITS.index(split)
    count = min(n, max(2, round(n * VIDEOS[i] / SIZES[i])))
    share = np.cumsum(0.4 + 1.2 * keyed_uniforms(f"{_key(seed, split)} videos", (count,)))
    ends = np.rint(n * share / share[-1])
    video = np.searchsorted(ends, np.arange(n), side="right")
    return np.unique(video, return_inverse=True)[1]  # in tiny splits a video may get no clip


def _key(seed: int, split: str) -> str:
    return f"synth {VERSION} {seed} {split}"
