"""Preflight: our models pass it, and a model that does one thing wrong is caught at that."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from corruptions import MODALITIES, Batch, InputError
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.evaluation import subjects
from robustbench_msa.evaluation.cells import Cell
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.preflight import CHECKS, Check, preflight
from robustbench_msa.evaluation.preflight_check import WORDS
from robustbench_msa.evaluation.preflight_probe import PROBE, probe, tensors_of
from robustbench_msa.models.checkpoint import find_checkpoints, load_model
from robustbench_msa.models.contract import Encoded, InputSpec, MSAModel, Output, Part
from robustbench_msa.models.registry import MODELS
from robustbench_msa.models.text_moe import TEXT

DIMS = (48, 24, 16)


class Honest(MSAModel):
    """A fixed projection of each modality's mean over its valid steps; the score is a squashed sum."""

    name = "honest"

    def __init__(self) -> None:
        super().__init__(InputSpec(DIMS), None)
        g = torch.Generator().manual_seed(5)
        for m, d in zip(MODALITIES, DIMS, strict=True):
            self.register_buffer(m, torch.randn(d, generator=g) / d**0.5)
        self.eval()

    def steps(self, x: Tensor, lengths: Tensor) -> Tensor:
        return (torch.arange(x.shape[1]) < lengths[:, None])[..., None]

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        seen = torch.where(self.steps(x, lengths), x, 0.0)
        mean = seen.sum(dim=1) / lengths.clamp(min=1)[:, None]
        return {"h": (mean * self.get_buffer(modality)).sum(dim=1)}

    def score(self, encoded: Encoded) -> Tensor:
        return torch.tanh(sum(encoded.part(m)["h"] for m in MODALITIES)) * 2

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return Output(self.score(encoded), {"seen": present.float()})


class Whole:
    """The honest one as a whole model."""

    def __init__(self) -> None:
        self.inner = Honest()

    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output:
        return self.inner(batch)


class Fused(Honest):
    """The honest one, its output changed at the end by a function of (self, score, present)."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        changed = self.change(self, self.score(encoded), present)
        return changed if isinstance(changed, Output) or not isinstance(changed, Tensor) else Output(changed)


class OverflowsWhenLoud(Honest):
    """Finite up to values that clean audio does not reach."""

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        part = super().encode_modality(modality, x, lengths)
        most = x.abs().amax(dim=(1, 2))
        return {"h": part["h"] + 0 * (most - 14).exp().square().exp()} if modality == "audio" else part


class SortsByLength(Honest):
    """As for packed sequences, and forgets to sort back."""

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        part = super().encode_modality(modality, x, lengths)
        if modality == "text":
            self.by_length = lengths.argsort(descending=True, stable=True)
        return part

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return Output(self.score(encoded)[self.by_length])


class OwnGenerator(Honest):
    """Noise that no seed of others reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return Output(self.score(encoded) + 0.1 * torch.randn(len(present), generator=self.generator))


class KeepsStatistics(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running", torch.zeros(1))

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        score = self.score(encoded)
        self.get_buffer("running").lerp_(score.mean()[None], 0.1)
        return Output(score)


class LeftInTraining(Honest):
    def __init__(self, hidden: bool = False) -> None:
        super().__init__()
        dropout = nn.Dropout(0.0).train()
        self.held: Any = (dropout,) if hidden else dropout


class OtherInTraining(Honest):
    """A module of its own that behaves otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Shift().train()

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        return Output(self.head(self.score(encoded)))


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if self.training else x


class ReadsPadding(Honest):
    """Sums over all steps: what is in the padding matters, not how many zeros there are."""

    def steps(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones(len(x), x.shape[1], 1, dtype=torch.bool)


class AveragesPadding(Honest):
    """Divides by the number of steps, padding included."""

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        return super().encode_modality(modality, x, lengths) | {"T": torch.full((len(x),), float(x.shape[1]))}

    def score(self, encoded: Encoded) -> Tensor:
        return sum((encoded.part(m)["h"] * 10 / encoded.part(m)["T"] for m in MODALITIES), torch.zeros(()))


class FixedSteps(Honest):
    """Takes the number of steps it was made for, and no other."""

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        if x.shape[1] != {"text": 24, "audio": 40, "vision": 32}[modality]:
            raise RuntimeError(f"size mismatch: {x.shape[1]} steps")
        return super().encode_modality(modality, x, lengths)


class NeedsSteps(Honest):
    """As packed sequences do."""

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        if bool((lengths == 0).any()):
            raise RuntimeError("Length of all samples has to be greater than 0")
        return super().encode_modality(modality, x, lengths)


class NeedsABatch(Honest):
    """As a squeeze() too many does."""

    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        if len(present) == 1:
            raise IndexError("Dimension out of range\n(second line)")
        return super().fuse(encoded, present)


class RemembersText(Honest):
    """Its encoding of audio is that of audio given the text that was encoded before."""

    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        part = super().encode_modality(modality, x, lengths)
        if modality == "text":
            self.before = part["h"]
        return {"h": part["h"] + 0.5 * self.before} if modality == "audio" else part


class OwnForward(Honest):
    def forward(self, batch: Batch) -> Output:
        return Output(super().forward(batch).prediction + 0.5)


class PeeksInForward(Honest):
    """Its forward pass, of which runs make no use, reads labels."""

    def forward(self, batch: Batch) -> Output:
        assert batch.labels is not None
        return Output(super().forward(batch).prediction + batch.labels)


class IgnoresAbsence(Whole):
    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output:
        return self.inner(batch.replace(present=torch.ones_like(batch.present)))


class UsesLabels(Whole):
    def predict(self, batch: Batch, cell: Cell, inputs: Inputs) -> Output:
        assert batch.labels is not None
        return Output(self.inner(batch).prediction + 0.1 * batch.labels)


class ScalesInPlace(Honest):
    def encode_modality(self, modality: str, x: Tensor, lengths: Tensor) -> Part:
        return super().encode_modality(modality, x.mul_(0.5) if modality == "vision" else x, lengths)


class FusesInPlace(Honest):
    def fuse(self, encoded: Encoded, present: Tensor) -> Output:
        score = self.score(encoded)
        encoded.audio["h"].mul_(2)
        return Output(score)


@pytest.fixture(scope="module")
def inputs(dataset: Dataset) -> Inputs:
    return Inputs(dataset, "test")


def found(model: Any, inputs: Inputs) -> dict[str, str]:
    """The checks that are not passed."""
    return {c.check: c.status for c in preflight(model, inputs) if c.status != "pass"}


def note_of(model: Any, inputs: Inputs, check: str) -> str:
    (note,) = (c.note for c in preflight(model, inputs) if c.check == check)
    return note


HALVES = {"separable": "skip", "encode_fuse": "skip"}
NOISE = {"deterministic": "flag", "order": "skip", "batch_size": "skip"}
UNTOLD = NOISE | dict.fromkeys(("lengths", "encode_fuse", "absence", "label_free"), "skip")
SHARED_NOISE = {"deterministic": "flag", "batch_size": "skip"}
CASES: list[tuple[str, Callable[[], Any], dict[str, str], str]] = [
    ("(N, 1)", lambda: Fused(lambda m, s, p: s[:, None]), {"shape": "fail"}, r"predictions \(40,\).*got \(40, 1\)"),
    ("a row short", lambda: Fused(lambda m, s, p: s[1:]), {"shape": "fail"}, r"expected .*\(40,\).*got \(39,\)"),
    ("whole numbers", lambda: Fused(lambda m, s, p: s.long()), {"shape": "fail"}, "of floats, got .* int64"),
    ("a tuple", lambda: Fused(lambda m, s, p: (s, s)), {"shape": "fail"}, "expected an Output, got a tuple"),
    ("extras", lambda: Fused(lambda m, s, p: Output(s, {"w": p[:3]})), {"shape": "fail"}, r"extras .* w \(3, 3\)"),
    ("NaN", lambda: Fused(lambda m, s, p: s.clamp(min=0).sqrt().where(s > 0, torch.nan)), {"finite": "fail"}, "clean"),
    ("0/0", lambda: Fused(lambda m, s, p: s * p.any(1) / p.any(1)), {"finite": "flag"}, "40 of 40 .*told=true 1$"),
    ("overflow", OverflowsWhenLoud, {"finite": "flag"}, "of 40 predictions under noise"),
    ("extra NaN", lambda: Fused(lambda m, s, p: Output(s, {"r": s / 0})), {"finite": "flag"}, "extra r on clean"),
    ("sorted", SortsByLength, {"ids": "fail", "order": "flag", "batch_size": "flag"}, "another sample"),
    (
        "position",
        lambda: Fused(lambda m, s, p: s + torch.arange(len(s)) / 9),
        dict.fromkeys(("order", "batch_size"), "flag"),
        "two orders .* differ by up to",
    ),
    (
        "centred",
        lambda: Fused(lambda m, s, p: s - s.mean()),
        {"batch_size": "flag"},
        "batches of 1 and of 40 differ by",
    ),
    ("batch of 1", NeedsABatch, {"ids": "skip", "batch_size": "fail"}, "^raised IndexError: Dimension out of range$"),
    (
        "noise",
        lambda: Fused(lambda m, s, p: s + 0.1 * torch.randn(len(s))),
        NOISE,
        r"two passes differ by .*std of pred",
    ),
    ("NumPy's", lambda: Fused(lambda m, s, p: s + np.random.normal()), SHARED_NOISE, "two passes differ"),  # noqa: NPY002
    ("Python's", lambda: Fused(lambda m, s, p: s + random.random()), SHARED_NOISE, "two passes differ"),
    (
        "generator",
        OwnGenerator,
        NOISE | dict.fromkeys(("lengths", "encode_fuse", "absence", "label_free"), "skip"),
        "two passes differ by up to",
    ),
    (
        "seeds",
        lambda: Fused(lambda m, s, p: s + 0 * torch.manual_seed(3).seed()),
        {"deterministic": "flag"},
        "generator of torch",
    ),
    ("statistics", KeepsStatistics, {"deterministic": "flag"}, "change the model's own running"),
    ("dropout", LeftInTraining, {"eval_mode": "flag"}, r"1 of 2 modules .* held \(Dropout\)"),
    ("hidden", lambda: LeftInTraining(hidden=True), {"eval_mode": "flag"}, r"held\.0 \(Dropout\)"),
    ("own mode", OtherInTraining, {"eval_mode": "flag"}, "1 of 2 .* differ by up to 1 "),
    ("padding", ReadsPadding, {"lengths": "flag"}, "two contents of the padding differ"),
    ("more padding", AveragesPadding, {"lengths": "flag"}, "with 3 more steps of padding differ"),
    (
        "length 0",
        NeedsSteps,
        {"lengths": "flag"},
        "length 0, which the data do not have, .*RuntimeError: Length of all",
    ),
    ("stash", RemembersText, {"separable": "fail"}, "encoding of audio changes .* h by up to"),
    ("forward", OwnForward, {"encode_fuse": "fail"}, "forward and encode . fuse differ by up to 0.5 "),
    ("told", IgnoresAbsence, HALVES | {"absence": "flag"}, "two contents of (text|audio|vision), told absent, differ"),
    ("in place", ScalesInPlace, {"inputs_untouched": "fail"}, r"changed in place: vision \(by up to"),
    ("fused in place", FusesInPlace, {"inputs_untouched": "fail"}, "changed in place: encoded audio h"),
    ("labels", UsesLabels, HALVES | {"label_free": "fail"}, "right and wrong labels differ"),
    ("forward's labels", PeeksInForward, {"encode_fuse": "fail", "label_free": "fail"}, "forward with right and with"),
]


@pytest.mark.parametrize(("make", "expected", "note"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_wrong_is_found_and_nothing_else(
    make: Callable[[], Any], expected: dict[str, str], note: str, inputs: Inputs
) -> None:
    checks = {c.check: c for c in preflight(make(), inputs)}
    got = {name: c.status for name, c in checks.items() if c.status != "pass"}
    if expected == {"shape": "fail"}:  # nothing to look at
        expected = expected | {name: "skip" for name in WORDS if name not in ("shape", "eval_mode", "data")}
    assert got == expected
    told = [c for c in checks.values() if c.flagged]
    assert any(re.search(note, c.note) for c in told), told


def test_the_honest_ones_pass(inputs: Inputs) -> None:
    assert found(Honest(), inputs) == {}
    assert found(FixedSteps(), inputs) == {}
    assert "no other number of steps is taken (RuntimeError: size mismatch: 27 steps)" in note_of(
        FixedSteps(), inputs, "lengths"
    )
    assert found(Whole(), inputs) == HALVES


@pytest.fixture(scope="module")
def synth() -> Inputs:
    return Inputs(load_dataset("synth"), "test")


@pytest.mark.parametrize("name", MODELS)
def test_our_models_pass(name: str, synth: Inputs) -> None:
    (checkpoint,) = find_checkpoints(name, "synth")
    assert found(load_model(checkpoint), synth) == {}


def test_the_references_pass(synth: Inputs) -> None:
    for candidate in (subjects.chance(synth.dataset), subjects.oracle(synth.dataset)):
        checks = preflight(candidate.load(), synth, subject=candidate.subject, covers=candidate.covers)
        assert {c.status for c in checks} <= {"pass", "skip"}
    assert {c.check for c in checks if c.status == "skip"} == {*HALVES, "eval_mode"}


def test_TEXT_as_released(synth: Inputs) -> None:
    """Its router noise stays on, and an expert's capacity depends on the batch."""
    (checkpoint,) = find_checkpoints("text_moe", "synth")
    usual = load_model(checkpoint)
    released = TEXT(usual.spec, replace(usual.config, as_released=True))
    released.load_state_dict(usual.state_dict())
    checks = {c.check: c for c in preflight(released.eval(), synth)}
    assert {n for n, c in checks.items() if c.flagged} == {"deterministic", "batch_size"}
    assert re.fullmatch(r"two passes differ by up to [\d.]+ \(std of predictions 1\.4\)", checks["deterministic"].note)
    assert re.search(r"mean of 8 pairs of passes", checks["batch_size"].note)
    silent = TEXT(usual.spec, replace(usual.config, as_released=True, router_noise=False))
    silent.load_state_dict({k: x for k, x in usual.state_dict().items() if "W_noise" not in k})
    assert found(silent.eval(), synth) == {"order": "flag", "batch_size": "flag"}


def test_every_check_has_its_word_and_its_place(inputs: Inputs) -> None:
    names = [check.check for check in preflight(Honest(), inputs)]
    assert names == [check.__name__ for check in CHECKS] == list(WORDS)
    assert all(check.note and "\n" not in check.note for check in preflight(Honest(), inputs))


def test_a_model_that_cannot_run_at_all(inputs: Inputs) -> None:
    def broken(model: Any, score: Tensor, present: Tensor) -> Tensor:
        raise ZeroDivisionError("nothing left\nover")

    checks = {c.check: c for c in preflight(Fused(broken), inputs)}
    assert checks["shape"] == Check("shape", "fail", "raised ZeroDivisionError: nothing left")
    assert {c.status for n, c in checks.items() if n not in ("shape", "eval_mode", "data")} == {"skip"}
    assert checks["eval_mode"].status == checks["data"].status == "pass"


def test_a_length_of_zero_that_the_data_have_must_be_taken(dataset: Dataset) -> None:
    test = dataset.splits["test"]
    lengths = test.vision_lengths.clone()
    lengths[3] = 0
    vision = test.vision.clone()
    vision[3] = 0
    empty = Inputs(with_test(dataset, test.replace(vision=vision, vision_lengths=lengths)), "test")
    checks = {c.check: c for c in preflight(NeedsSteps(), empty)}
    assert checks["shape"].status == "fail"
    assert checks["data"] == Check("data", "flag", "vision is there with length 0 in 1 of 40")


def with_test(dataset: Dataset, test: Batch) -> Dataset:
    return Dataset("synth", {**dataset.splits, "test": test}, text_at="tokens")


def test_padding_of_the_data(dataset: Dataset) -> None:
    test = dataset.splits["test"]
    filled = test.audio.clone()
    filled[:5][~test.valid("audio")[:5]] = 2.0
    checks = {c.check: c for c in preflight(Honest(), Inputs(with_test(dataset, test.replace(audio=filled)), "test"))}
    short = int((test.audio_lengths[:5] < test.audio.shape[1]).sum())
    assert checks["data"] == Check("data", "flag", f"audio has values after its length in {short} of 40 samples")
    assert checks["lengths"].status == "pass"

    longer = torch.cat([test.vision, torch.zeros(40, 2, 16)], dim=1)
    unknown = test.replace(vision=longer, vision_lengths=torch.full((40,), longer.shape[1]))
    checks = {c.check: c for c in preflight(Honest(), Inputs(with_test(dataset, unknown), "test"))}
    assert checks["data"].note == "vision ends in zeros in 40 of 40 samples, but its lengths are all 34"


def test_natural_absence_and_one_sample(gappy: Dataset) -> None:
    inputs = Inputs(gappy, "test")
    assert found(Honest(), inputs) == {}
    one = gappy.splits["test"].select([0])
    checks = {c.check: c for c in preflight(Honest(), Inputs(with_test(gappy, one), "test"))}
    assert [n for n, c in checks.items() if c.status == "skip"] == ["order", "batch_size"]
    assert not any(c.flagged for c in checks.values())


def test_the_probe_has_the_extremes(synth: Inputs) -> None:
    batch = synth.batch
    present = batch.present.clone()
    present[[17, 501], 1] = False
    lengths = batch.text_lengths.clone()
    lengths[300], lengths[301] = 0, 24
    lengths[lengths == 24] = 23
    lengths[301] = 24
    changed = batch.replace(present=present, text_lengths=lengths)
    chosen = probe(Inputs(with_test(synth.dataset, changed), "test"))
    assert len(chosen) == PROBE
    assert {changed.ids[300], changed.ids[301]} <= set(chosen.ids)
    assert not chosen.present[:, 1].all()
    place = {sample: row for row, sample in enumerate(changed.ids)}
    rows = [place[sample] for sample in chosen.ids]
    assert rows == sorted(rows)


def test_nothing_is_left_behind(inputs: Inputs) -> None:
    """The model's statistics, the data and the random state are those of before; the same is found again."""
    model = KeepsStatistics()
    before = {name: x.clone() for name, x in tensors_of(inputs.batch).items()}
    torch.manual_seed(4), random.seed(4), np.random.seed(4)  # noqa: NPY002
    expected = (torch.rand(2).tolist(), random.random(), np.random.random())  # noqa: NPY002
    torch.manual_seed(4), random.seed(4), np.random.seed(4)  # noqa: NPY002
    first = preflight(model, inputs)
    assert (torch.rand(2).tolist(), random.random(), np.random.random()) == expected  # noqa: NPY002
    assert preflight(model, inputs) == first
    assert model.get_buffer("running").item() == 0
    preflight(ScalesInPlace(), inputs)
    assert all(torch.equal(x, before[name]) for name, x in tensors_of(inputs.batch).items())


def test_the_tolerance_grows_with_the_predictions(inputs: Inputs) -> None:
    def jittery(size: float, scale: float) -> Any:
        return Fused(lambda m, s, p: (s - size * s.mean()) * scale)

    assert found(jittery(1e-3, 1), inputs) == {"batch_size": "flag"}
    assert found(jittery(2e-6, 1), inputs) == {}
    assert found(jittery(2e-6, 1e6), inputs) == {}
    checks = preflight(jittery(1e-3, 1), inputs, tolerance=1e-2)
    assert {c.status for c in checks} == {"pass"}


def test_a_check_as_json() -> None:
    check = Check("finite", "flag", "1 of 64 predictions under noise 1")
    assert Check.from_json(json.loads(json.dumps(check.to_json()))) == check
    for entry in (
        {"check": "finite", "status": "maybe", "note": ""},
        {"check": "finite"},
        [],
        {"check": 1, "status": "pass", "note": ""},
    ):
        with pytest.raises(InputError, match=r"^preflight: expected"):
            Check.from_json(entry)  # type: ignore[arg-type]
