"""Modules of every kind behind the contract: what they are handed, what is taken of what they give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from corruptions import Batch, Derived, InputError, Stress
from robustbench_msa.adapters import AdaptedModel, adapt
from robustbench_msa.adapters.inputs import ARGUMENTS, WORDS, inputs_of
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.cells import Subject, cell_at
from robustbench_msa.evaluation.inputs import Inputs
from robustbench_msa.evaluation.runner import Runner
from robustbench_msa.models.contract import InputSpec, MSAModel, Output

DIMS = (3, 2, 4)
N = 5


def some_batch(tokens: bool = False) -> Batch:
    rng = np.random.default_rng(3)
    x = {
        m: rng.normal(size=(N, 6, d)).astype(np.float32) for m, d in zip(("text", "audio", "vision"), DIMS, strict=True)
    }
    if tokens:
        x["text"] = rng.integers(5, 90, (N, 6))
    lengths = {f"{m}_lengths": rng.integers(1, 7, N) for m in ("text", "audio", "vision")}
    comment = {"comment": Derived(torch.ones(N, 2, 3), ("text",))}
    present = torch.ones(N, 3, dtype=torch.bool)
    present[1, 1] = present[2, 0] = False
    return Batch(**x, **lengths, present=present, derived=comment, labels=np.zeros(N, dtype=np.float32))


class Recorder(nn.Module):
    """Keeps what it was called with; predicts the number of the sample."""

    def __init__(self, returned: Any = None) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, *arguments: Any, **named: Any) -> Any:
        self.arguments, self.named = arguments, named
        return torch.arange(float(N)) if self.returned is None else self.returned


def called(batch: Batch, inputs: Any, **options: Any) -> tuple[Recorder, Output]:
    module = Recorder()
    model = adapt(module, inputs=inputs, **options)
    assert isinstance(model, AdaptedModel)
    model.bind(InputSpec((0 if batch.has_token_text else DIMS[0], *DIMS[1:]), derived={"comment": 3}))
    return module, model(batch)


# --- what a module is handed


def test_features_are_those_of_the_batch_with_zeros_for_padding_and_for_what_is_told_absent() -> None:
    batch = some_batch()
    module, output = called(batch, ("text", "audio", "vision"))
    np.testing.assert_array_equal(output.prediction, np.arange(N))
    for i, modality in enumerate(("text", "audio", "vision")):
        given = module.arguments[i]
        for n in range(N):
            length = int(batch.lengths(modality)[n]) if batch.present[n, i] else 0
            np.testing.assert_array_equal(given[n, :length], batch.features(modality)[n, :length])
            assert not given[n, length:].any()


def test_lengths_masks_and_presence() -> None:
    batch = some_batch()
    words = ("audio_lengths", "audio_mask", "audio_padding_mask", "present")
    module, _ = called(batch, words)
    lengths, mask, padding, present = module.arguments
    expected = batch.audio_lengths.clone()
    expected[1] = 1  # told absent: one step of zeros
    np.testing.assert_array_equal(lengths, expected)
    np.testing.assert_array_equal(mask.sum(1), expected)
    assert all(mask[n, : expected[n]].all() for n in range(N))
    np.testing.assert_array_equal(padding, ~mask)
    np.testing.assert_array_equal(present, batch.present)


def test_a_sample_without_steps_has_one_of_zeros() -> None:
    """Packed sequences and attention over steps take no empty one."""
    batch = some_batch().replace(vision_lengths=torch.tensor([0, 2, 3, 4, 0]))
    module, _ = called(batch, {"x": "vision", "n": "vision_lengths"})
    assert module.named["n"].tolist() == [1, 2, 3, 4, 1]
    assert not module.named["x"][0].any()


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        (("text", ("audio", "audio_lengths")), "(x, (x, x))"),
        ({"l": "text", "rest": {"a": "audio"}}, "l=x rest={'a': x}"),
        ("text", "(x,)"),
        (("comment", "text"), "(x, x)"),
    ],
)
def test_the_call_is_as_the_inputs_are_written(inputs: Any, shape: str) -> None:
    module, _ = called(some_batch(), inputs)

    def drawn(value: Any) -> str:
        if isinstance(value, Tensor):
            return "x"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {drawn(v)}" for k, v in value.items()) + "}"
        return "(" + ", ".join(map(drawn, value)) + ("," if len(value) == 1 else "") + ")"

    named = " ".join(f"{name}={drawn(value)}" for name, value in module.named.items())
    assert (named or drawn(module.arguments)) == shape


def test_derived_inputs_go_with_their_sources() -> None:
    module, _ = called(some_batch(), ("comment",))
    assert module.arguments[0].sum(dim=(1, 2)).tolist() == [6, 6, 0, 6, 6]


def test_token_text_and_its_mask_as_mmsa_stacks_them() -> None:
    batch = some_batch(tokens=True)
    module, _ = called(batch, ("text", "text_bert", "text_mask"))
    ids, stacked, mask = module.arguments
    assert ids.dtype == torch.int64
    assert stacked.shape == (N, 3, 6)
    assert stacked.dtype == torch.float32
    np.testing.assert_array_equal(stacked[:, 0], ids.float())
    np.testing.assert_array_equal(stacked[:, 1].bool(), mask)
    assert not stacked[:, 2].any()
    assert not ids[~mask].any()
    with pytest.raises(InputError, match="this text is features; add --text tokens"):
        called(some_batch(), ("text_bert",))


def test_a_module_that_writes_into_its_input_harms_nobody() -> None:
    class Vandal(nn.Module):
        def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
            first = text.mean((1, 2))
            text.fill_(7.0), audio.zero_(), vision.sub_(1.0)
            return first

    batch = some_batch()
    before = batch.text.clone()
    model = adapt(Vandal())
    one, two = model(batch).prediction, model(batch).prediction
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(batch.text, before)


# --- found by the names of arguments


def test_arguments_by_their_names() -> None:
    class MulT(nn.Module):
        def forward(self, x_l: Tensor, x_a: Tensor, x_v: Tensor) -> Tensor:
            return x_l.sum((1, 2)) + 10 * x_a.sum((1, 2)) + 100 * x_v.sum((1, 2))

    batch = some_batch().replace(present=torch.ones(N, 3, dtype=torch.bool))
    batch = batch.replace(**{f"{m}_lengths": torch.full((N,), 6) for m in ("text", "audio", "vision")})
    expected = batch.text.sum((1, 2)) + 10 * batch.audio.sum((1, 2)) + 100 * batch.vision.sum((1, 2))
    np.testing.assert_allclose(adapt(MulT())(batch).prediction, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda text, audio, vision: 0, ("text", "audio", "vision")),
        (lambda t, v, a: 0, ("text", "vision", "audio")),
        (lambda text, alpha=1.0, audio_len=None: 0, {"text": "text", "audio_len": "audio_lengths"}),
        (
            lambda language, acoustic, visual, language_mask=None, dropout=0.1: 0,
            ("text", "audio", "vision", "text_mask"),
        ),
        (lambda text, *rest, present=None, **more: 0, {"text": "text", "present": "present"}),
    ],
)
def test_what_arguments_ask_for(forward: Any, expected: Any) -> None:
    assert inputs_of(forward, "forward") == expected


@pytest.mark.parametrize("forward", [lambda x, y: 0, lambda text, audio, vision, labels: 0, lambda *x: 0])
def test_names_that_say_nothing_are_not_guessed(forward: Any) -> None:
    with pytest.raises(InputError, match=r"Say what it is handed, in its order, as in adapt\(model, inputs="):
        inputs_of(forward, "forward")


def test_every_argument_stands_for_a_word() -> None:
    assert set(ARGUMENTS.values()) <= set(WORDS)


@pytest.mark.parametrize("inputs", [(), ("text", 3), ["text", {}], ("text", ("audio", None))])
def test_inputs_that_are_no_words(inputs: Any) -> None:
    with pytest.raises(InputError, match="Recorder: inputs are"):
        adapt(Recorder(), inputs=inputs)


def test_words_that_are_not_there() -> None:
    with pytest.raises(InputError, match="there is no input 'aduio'; expected words among text, audio"):
        called(some_batch(), ("text", "aduio"))


# --- what a module gives


ONES = torch.ones(N)


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (ONES, None),
        (ONES[:, None], None),
        (ONES.double(), None),
        ({"M": ONES, "Feature_t": torch.zeros(N, 8)}, None),
        ({"logits_c": ONES[:, None], "logits_l": torch.zeros(N, 1)}, None),
        ({"sentiment": ONES}, None),
        ({"a": torch.zeros(N), "b": ONES}, "b"),
        ((ONES, torch.zeros(N)), None),
        ([torch.zeros(()), ONES[:, None]], 1),
    ],
)
def test_where_the_prediction_is(returned: Any, output: Any) -> None:
    found = adapt(Recorder(returned), inputs=("text",), output=output)(some_batch()).prediction
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found, np.ones(N))


@pytest.mark.parametrize(
    ("returned", "output", "message"),
    [
        (torch.ones(N, 7), None, r"gives \(5, 7\); expected \(5,\) or \(5, 1\) scores"),
        (torch.ones(N - 1), None, r"gives \(4,\)"),
        (torch.ones(()), None, r"gives \(\); expected"),
        (ONES > 0, None, r"gives \(5,\)"),
        ({"a": ONES, "b": ONES}, None, r"gives a dict with a, b; say which is the prediction"),
        ({"a": ONES}, "M", r"has nothing at 'M'; it gives a dict with a"),
        ((ONES,), 3, r"has nothing at 3; it gives a tuple of 1"),
        (3.0, None, "gives float; expected a tensor"),
        ({"M": [1.0]}, None, "gives a list of 1 at 'M'"),
    ],
)
def test_what_is_no_prediction(returned: Any, output: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        adapt(Recorder(returned), inputs=("text",), output=output)(some_batch())


def test_one_sample_squeezed_away() -> None:
    class Squeezes(nn.Module):
        def forward(self, text: Tensor) -> Tensor:
            return text.mean((1, 2)).squeeze()

    batch = some_batch()
    model = adapt(Squeezes())
    np.testing.assert_allclose(model(batch.rows(slice(0, 1))).prediction, model(batch).prediction[:1], rtol=1e-6)


def test_logits_of_classes() -> None:
    model = adapt(Recorder(torch.ones(N, 4)), inputs=("text",))
    assert isinstance(model, AdaptedModel)
    model.bind(InputSpec(DIMS, num_classes=4))
    assert model(some_batch()).prediction.shape == (N, 4)
    model.bind(InputSpec(DIMS, num_classes=3))
    with pytest.raises(InputError, match=r"gives \(5, 4\); expected \(5, 3\) logits"):
        model(some_batch())


def test_extras() -> None:
    returned = {"M": ONES, "gates": torch.rand(N, 3, 1), "r": torch.rand(N), "states": torch.rand(N, 6, 8)}
    keep = {"routing": "gates", "r": "r"}
    extras = adapt(Recorder(returned), inputs=("text",), extras=keep)(some_batch()).extras
    assert {name: tuple(x.shape) for name, x in extras.items()} == {"routing": (N, 3), "r": (N,)}
    np.testing.assert_array_equal(extras["routing"], returned["gates"].squeeze(2))
    with pytest.raises(InputError, match=r"gives \(5, 6, 8\) at 'states'; expected \(5,\) or \(5, k\) for an extra"):
        adapt(Recorder(returned), inputs=("text",), extras={"h": "states"})(some_batch())
    with pytest.raises(InputError, match="has nothing at 'weights'"):
        adapt(Recorder(returned), inputs=("text",), extras={"h": "weights"})(some_batch())


# --- modules of two halves


class Halves(nn.Module):
    """The same function twice: by encode and fuse, and whole."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.w = nn.ParameterDict(
            {
                m: torch.randn(d, generator=generator)
                for m, d in zip(("text", "audio", "vision"), (48, 24, 16), strict=True)
            }
        )
        self.dropout = nn.Dropout(0.5)
        if whole:
            self.encode = self.encoded  # an attribute of another kind

    def encoded(self, x: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
        return torch.tanh(self.dropout((x.sum(1) / lengths[:, None]) @ weight))

    def encode(self, modality: str, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return {"h": self.encoded(x, lengths, self.w[modality]), "n": lengths}

    def fuse(self, parts: dict[str, Any], present: Tensor) -> dict[str, Tensor]:
        h = torch.stack([parts[m]["h"] for m in ("text", "audio", "vision")], 1)
        n = torch.stack([parts[m]["n"] for m in ("text", "audio", "vision")], 1)
        return {"prediction": (h * (1 + present)).sum(1) + n.log().sum(1), "h": h}

    def forward(
        self, text: Tensor, audio: Tensor, vision: Tensor, text_len: Tensor, audio_len: Tensor, vision_len: Tensor,
        present: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        lengths = {"text": text_len, "audio": audio_len, "vision": vision_len}
        x = {"text": text, "audio": audio, "vision": vision}
        return self.fuse({m: {"h": self.encoded(x[m], lengths[m], self.w[m]), "n": lengths[m]} for m in x}, present)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_synth(sizes=(40, 8, 30))


STRESSES = [
    ("missing", "0.6"),
    ("noise", "0.3"),
    ("conflict", "1"),
    ("missing-random", "0.5"),
    ("spectrum", "0.3x0.5"),
    ("frame-missing", "0.4"),
    ("noise+missing", "0.3x0.6"),
    ("worst-case", "0.1"),
]


@pytest.mark.parametrize(("text", "severity"), STRESSES)
def test_two_halves_and_the_whole_give_the_same_numbers_under_stress(
    dataset: Dataset, text: str, severity: str
) -> None:
    inputs = Inputs(dataset, "test")
    stress = Stress.parse(text)
    (point,) = stress.grid(severity).points
    cell = cell_at(Subject("m", 1, "c" * 64), inputs.setting, stress, point, 1111)
    halves, whole = adapt(Halves(), extras={"h": "h"}), adapt(Halves(whole=True), extras={"h": "h"})
    assert isinstance(halves, AdaptedModel)
    assert isinstance(whole, AdaptedModel)
    assert halves.inputs is None
    assert whole.inputs is not None
    for model in (halves, whole):
        model.bind(InputSpec(dataset.dims))
    one, two = Runner(halves, inputs, 7).run(cell), Runner(whole, inputs, 7).run(cell)
    np.testing.assert_allclose(one.y_pred, two.y_pred, atol=1e-5)
    np.testing.assert_allclose(one.extras["h"], two.extras["h"], atol=1e-5)
    if text != "worst-case":  # and the whole one is what the module gives on the corrupted input itself
        with torch.inference_mode():
            expected = whole(inputs.corruption(cell).batch).prediction
        np.testing.assert_allclose(two.y_pred, expected, atol=1e-5)


def test_a_worst_case_is_worse(dataset: Dataset) -> None:
    """Gradients go through to the features of a module from outside."""
    inputs = Inputs(dataset, "test")
    stress = Stress.parse("worst-case")
    model = adapt(Halves(whole=True))
    runner = Runner(model, inputs, 30)
    errors = []
    for severity in ("0", "0.2"):
        (point,) = stress.grid(severity).points
        result = runner.run(cell_at(Subject("m", 1, "c" * 64), inputs.setting, stress, point, 1111))
        errors.append(np.abs(result.y_pred - result.y_true).mean())
    assert errors[1] > errors[0] + 0.01


def test_an_encode_of_another_kind_is_no_half() -> None:
    class AutoEncoder(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            return x

        def fuse(self, x: Tensor) -> Tensor:
            return x

        def forward(self, text: Tensor) -> Tensor:
            return text.mean((1, 2))

    model = adapt(AutoEncoder())
    assert isinstance(model, AdaptedModel)
    assert model.inputs == ("text",)


def test_rows_that_encode_does_not_give() -> None:
    class Pools(Halves):
        def encode(self, modality: str, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
            return x.mean()

    with pytest.raises(InputError, match=r"Pools.encode gives \(\); expected 5 rows"):
        adapt(Pools())(some_batch())


# --- quiet


def test_eval_mode_and_no_gradients() -> None:
    module = nn.Sequential(nn.Linear(3, 1), nn.Dropout(), nn.BatchNorm1d(2)).train()
    model = adapt(module, inputs=("text",))
    assert not any(part.training for part in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


def test_a_model_of_the_contract_stays_what_it_is() -> None:
    class Ours(MSAModel):
        name = "ours"

    model = Ours(InputSpec(DIMS), None)
    assert adapt(model) is model
    with pytest.raises(InputError, match="says itself what it reads"):
        adapt(model, inputs=("text",))


@pytest.mark.parametrize(
    ("thing", "what"), [(nn.Linear, "the class Linear, not an instance"), (3, "int"), (lambda x: x, "function")]
)
def test_what_is_no_module(thing: Any, what: str) -> None:
    with pytest.raises(InputError, match=f"expected a torch.nn.Module, got {what}"):
        adapt(thing)
