"""Models of MMSA from the state dicts it saves: the same predictions as MMSA's own, through to the tables."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from corruptions import Batch, InputError
from robustbench_msa import benchmark
from robustbench_msa.adapters import mmsa
from robustbench_msa.adapters.mmsa_facts import typed_facts
from robustbench_msa.adapters.mmsa_package import ENVIRONMENT, digest_of
from robustbench_msa.adapters.mmsa_zoo import time_mean
from robustbench_msa.adapters.programs import find_program
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.evaluation.preflight import flags_of
from robustbench_msa.evaluation.subjects import Candidate, from_adapter
from robustbench_msa.run import Benchmark

pytest.importorskip("MMSA", reason='needs the extra "mmsa" (MMSA and what it imports)')
pytest.importorskip("transformers", reason='needs the extra "bert" (transformers)')

ALL = ("tfn", "lmf", "mfn", "ef_lstm", "lf_dnn", "mult", "graph_mfn", "misa", "self_mm", "mmim", "mfm")
ENCODERS = ("misa", "self_mm", "mmim")
SEED = 1115
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mmsa.md").read_text("utf-8")
NEGLIGIBLE = 1e-12  # weights are scaled so that predictions of different samples differ by far more


# --- data and weights, made on the spot


def some_batch(n: int, name: str, tokens: bool, steps: tuple[int, int, int]) -> Batch:
    """MOSI-shaped: 768, 5 and 20 dims; aligned where all three have the same number of steps."""
    rng = np.random.default_rng(len(name))
    lengths = {m: rng.integers(2, top + 1, n) for m, top in zip(("text", "audio", "vision"), steps, strict=True)}
    if len(set(steps)) == 1:
        lengths["audio"] = lengths["vision"] = lengths["text"]
    valid = {m: np.arange(top) < lengths[m][:, None] for m, top in zip(lengths, steps, strict=True)}
    x = {m: rng.normal(size=(n, valid[m].shape[1], d)) * valid[m][..., None] for m, d in (("audio", 5), ("vision", 20))}
    text = rng.integers(104, 300, (n, steps[0])) * valid["text"] if tokens else rng.normal(size=(n, steps[0], 768))
    return Batch(
        text=text if tokens else (text * valid["text"][..., None]).astype(np.float32),
        **{m: values.astype(np.float32) for m, values in x.items()},
        **{f"{m}_lengths": value for m, value in lengths.items()},
        ids=[f"{name}{i // 2}$_${i}" for i in range(n)],
        groups=[f"{name}{i // 2}" for i in range(n)],
        labels=rng.uniform(-3, 3, n).astype(np.float32),
    )


def some_data(tokens: bool = False, steps: tuple[int, int, int] = (50, 50, 50), n: int = 10) -> Dataset:
    splits = {split: some_batch(k, split, tokens, steps) for split, k in (("train", 8), ("valid", 4), ("test", n))}
    return Dataset("mosi-shaped", splits, "mosi", "tokens" if tokens else "embeddings")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of BERT's width with two layers and random weights, and its vocabulary."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"w{i}" for i in range(200))]) + "\n", "utf-8")
    config = transformers.BertConfig(
        vocab_size=304, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, max_position_embeddings=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def built_by_mmsa(name: str, steps: tuple[int, int, int], bert: Path, dataset: str = "mosi") -> tuple[nn.Module, Any]:
    """The module as MMSA_run builds it, with weights large enough to be seen in the prediction; its arguments."""
    from MMSA.config import get_config_regression
    from MMSA.models.AMIO import AMIO

    arguments = get_config_regression(name, dataset)
    arguments |= {"train_mode": "regression", "device": torch.device("cpu"), "pretrained": str(bert)}
    arguments |= {"feature_dims": [768, 5, 20], "seq_lens": list(steps)}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "enable_nested_tensor", UserWarning)  # misa
        torch.manual_seed(SEED)
        model = AMIO(type(get_config_regression(name, dataset))(arguments)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if name in ("tfn", "lf_dnn", "lmf", "ef_lstm", "mfn", "graph_mfn", "mfm") else 1)
    return model, arguments


def their_answer(model: Any, arguments: Any, name: str, batch: Batch) -> Tensor:
    """What the test loop of MMSA's trainer of this model computes."""
    text, audio, vision = batch.text, batch.audio, batch.vision
    if arguments.get("use_bert"):
        text = torch.stack([text, batch.valid("text"), torch.zeros_like(text)], dim=1).float()
    if arguments.get("need_normalized"):
        audio, vision = audio.mean(1, keepdim=True), vision.mean(1, keepdim=True)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if name in ("self_mm", "mmim"):
            returned = model(text, (audio, batch.audio_lengths), (vision, batch.vision_lengths))
        else:
            returned = model(text, audio, vision)
    prediction: Tensor = returned[0] if name == "mfm" else returned["M"]
    return prediction.reshape(-1)


def spoken(name: str, bert: Path, more: str = "") -> str:
    facts = [f"seed={SEED}", *([f"pretrained={bert}"] if name in ENCODERS else []), *([more] if more else [])]
    return f"mmsa:{name}:{','.join(facts)}"


def candidate(name: str, data: Dataset, bert: Path, path: Path, more: str = "") -> Candidate:
    return from_adapter(spoken(name, bert, more), path, data, "cpu")


def ours(made: Candidate, batch: Batch) -> Tensor:
    model: Any = made.load()
    with torch.inference_mode():
        prediction: Tensor = model(batch).prediction
    return prediction


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> dict[str, Path]:
    """What MMSA would have saved of each model, on data of 12 steps."""
    folder = tmp_path_factory.mktemp("saved_models")
    paths = {name: folder / f"{name}-mosi.pth" for name in ALL}
    for name, path in paths.items():
        torch.save(built_by_mmsa(name, (12, 12, 12), bert)[0].state_dict(), path)
    return paths


@pytest.fixture(scope="module")
def short() -> dict[bool, Dataset]:
    return {tokens: some_data(tokens, (12, 12, 12)) for tokens in (False, True)}


@pytest.fixture(autouse=True)
def nothing_global_moves() -> Iterator[None]:
    state, environment = torch.get_rng_state(), dict(os.environ)
    yield
    assert torch.equal(torch.get_rng_state(), state)
    assert not {name for name in ENVIRONMENT if os.environ.get(name) != environment.get(name)}


# --- the same numbers


@pytest.mark.parametrize("steps", [(50, 50, 50), (20, 60, 45)], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("name", ALL)
def test_predictions_are_those_of_mmsas_own_class(
    name: str, steps: tuple[int, int, int], bert: Path, tmp_path: Path
) -> None:
    data = some_data(name in ENCODERS, steps)
    theirs, arguments = built_by_mmsa(name, steps, bert)
    torch.save(theirs.state_dict(), tmp_path / "best.pth")
    expected = their_answer(theirs, arguments, name, data.splits["test"])
    assert float(expected.std()) > NEGLIGIBLE
    np.testing.assert_array_equal(
        ours(candidate(name, data, bert, tmp_path / "best.pth"), data.splits["test"]), expected
    )


FLAGS = {name: [] if name in ("ef_lstm", *ENCODERS) else ["lengths"] for name in ALL}
"""They read padding, but for those that pack by lengths, and ef_lstm, which takes one number of steps alone."""


SHORT = """
name = "short"
version = 1
reference = "none"
description = "Missing modalities and noise, one severity of each."
[[stress]]
name = "missing"
grid = "0,0.4"
[[stress]]
name = "noise"
grid = "0,0.3"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> dict[bool, Benchmark]:
    """All models over missing and noise, in two folders: text as features, and as tokens."""
    folder, results = tmp_path_factory.mktemp("reports"), {}
    data = {tokens: some_data(tokens, n=6) for tokens in (False, True)}
    (folder / "short.toml").write_text(SHORT, "utf-8")
    for name in ALL:
        path, tokens = folder / f"{name}-mosi.pth", name in ENCODERS
        torch.save(built_by_mmsa(name, (50, 50, 50), bert)[0].state_dict(), path)
        results[tokens] = benchmark(
            spoken(name, bert),
            protocol=str(folder / "short.toml"),
            checkpoint=path,
            dataset=data[tokens],
            seeds=1,
            references=False,
            out=folder / str(tokens),
        )
    return results


@pytest.mark.slow
def test_all_of_them_run_over_missing_and_noise_into_one_table(run: dict[bool, Benchmark]) -> None:
    for tokens, result in run.items():
        named = {f"mmsa_{name}" for name in ALL if (name in ENCODERS) == tokens}
        assert set(result.nauc["model"]) == named
        assert (result.cells.groupby("model").size() == 1 + 1 + 1).all()  # clean, missing, noise
        mae = result.curves.query("metric == 'mae'")
        assert np.isfinite(mae["value"]).all()
        assert (mae.groupby("model")["value"].nunique() == 3).all()


@pytest.mark.slow
def test_preflight_says_what_docs_say(run: dict[bool, Benchmark]) -> None:
    found = {}
    for result in run.values():
        for about in json.loads((result.out / "manifest.json").read_text("utf-8"))["checkpoints"].values():
            assert about["adapter"] == "MMSA 2.2.1"
            found[about["mmsa"]["model"]] = about["preflight"]
    assert {name: flags_of(checks) for name, checks in found.items()} == FLAGS
    (lengths,) = (check for check in found["ef_lstm"] if check["check"] == "lengths")
    assert "no other number of steps is taken" in lengths["note"]


# --- what MMSA's loader and trainer do on the way


def test_time_means_are_over_padding_too_and_nan_becomes_zero() -> None:
    x = torch.tensor([[[1.0, 4.0], [2.0, torch.nan], [0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(time_mean(x), [[[0.75, 0.0]]])


def test_minus_infinity_in_audio_is_zero(bert: Path, saved: dict[str, Path], short: dict[bool, Dataset]) -> None:
    made, batch = candidate("mult", short[False], bert, saved["mult"]), short[False].splits["test"]
    broken, mended = batch.audio.clone(), batch.audio.clone()
    broken[:, 0, 1], mended[:, 0, 1] = -torch.inf, 0
    np.testing.assert_array_equal(ours(made, batch.replace(audio=broken)), ours(made, batch.replace(audio=mended)))


def test_self_mms_single_modalities_are_kept(bert: Path, saved: dict[str, Path], short: dict[bool, Dataset]) -> None:
    batch = short[True].splits["test"]
    model: Any = candidate("self_mm", short[True], bert, saved["self_mm"]).load()
    with torch.inference_mode():
        clean = model(batch).extras["unimodal"]
        other = model(batch.replace(audio=batch.audio * 2)).extras["unimodal"]
    assert clean.shape == (len(batch), 3)
    assert ((clean != other).any(dim=0) == torch.tensor([False, True, False])).all()


def test_weights_that_graph_mfn_does_not_save_come_from_the_seed(
    bert: Path, saved: dict[str, Path], short: dict[bool, Dataset], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """MMSA draws them before it trains; four networks are in a plain dict and in no state dict."""
    path, data = saved["graph_mfn"], short[False]
    assert not any("networks" in name for name in torch.load(path, weights_only=True))
    right = candidate("graph_mfn", data, bert, path)
    other = from_adapter("mmsa:graph_mfn:seed=1111", path, data, "cpu")
    assert right.subject.checkpoint != other.subject.checkpoint
    assert float((ours(right, data.splits["test"]) - ours(other, data.splits["test"])).abs().max()) > 0
    model: Any = right.load()
    networks = model.module.amio.Model.graph_mfn.networks.values()
    assert {id(m) for m in networks} <= {id(m) for m in model.modules()}  # to(device) reaches them
    assert right.about["mmsa"]["seed_of_unsaved_weights"] == SEED
    mmsa._say.cache_clear()
    from_adapter("mmsa:graph_mfn", path, data, "cpu")
    assert (
        "saves no weights of graph_mfn's inner networks; they are drawn again as with training seed 1111"
        in capsys.readouterr().err
    )
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({"train_seed": SEED}), "utf-8")
    by_card = from_adapter("mmsa:graph_mfn", copy, data, "cpu")
    np.testing.assert_array_equal(ours(by_card, data.splits["test"]), ours(right, data.splits["test"]))


def test_weights_with_and_without_prefix_and_with_old_position_ids(
    bert: Path, saved: dict[str, Path], short: dict[bool, Dataset], tmp_path: Path
) -> None:
    data, state = short[True], torch.load(saved["self_mm"], weights_only=True)
    expected = ours(candidate("self_mm", data, bert, saved["self_mm"]), data.splits["test"])
    bare = {name.removeprefix("Model."): x for name, x in state.items()}
    old = {
        "state_dict": {**state, "Model.text_model.model.embeddings.position_ids": torch.arange(64)[None]},
        "epoch": 3,
    }
    for changed, note in ((bare, "put 'Model.' before the names"), (old, "left out the encoder's position_ids")):
        torch.save(changed, tmp_path / "best.pth")
        made = candidate("self_mm", data, bert, tmp_path / "best.pth")
        np.testing.assert_array_equal(ours(made, data.splits["test"]), expected)
        assert any(note in line for line in made.about["loaded"])


# --- the facts that a checkpoint does not hold


def test_facts_beside_the_weights(
    bert: Path, saved: dict[str, Path], short: dict[bool, Dataset], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = short[True]
    (tmp_path / "best.pth").write_bytes(saved["mmim"].read_bytes())
    facts = {"model": "MMIM", "dataset": "mosi", "version": "2.0.8", "pretrained": str(bert), "config": {"n_layer": 1}}
    (tmp_path / "best.mmsa.json").write_text(json.dumps(facts), "utf-8")
    made = from_adapter("mmsa:mmim", tmp_path / "best.pth", data, "cpu")
    assert made.about["mmsa"]["settings"]["dataset_name"] == "mosi"
    assert "was trained with MMSA 2.0.8, and 2.2.1 is installed" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"the weights are of MMIM, and mmsa:self_mm was asked for"):
        from_adapter("mmsa:self_mm", tmp_path / "best.pth", data, "cpu")


def test_settings_are_a_part_of_the_identity(
    bert: Path, saved: dict[str, Path], short: dict[bool, Dataset], tmp_path: Path
) -> None:
    """The number of heads is in no weight, and changes every output."""
    (tmp_path / "mine.json").write_text(json.dumps({"dst_feature_dim_nheads": [50, 5]}), "utf-8")
    one = candidate("mult", short[False], bert, saved["mult"])
    other = candidate("mult", short[False], bert, saved["mult"], f"config={tmp_path / 'mine.json'}")
    assert one.subject.checkpoint == candidate("mult", short[False], bert, saved["mult"]).subject.checkpoint
    assert one.subject.checkpoint != other.subject.checkpoint
    assert not np.allclose(*(ours(made, short[False].splits["test"]) for made in (one, other)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modle": "mult"}, r"unknown key 'modle'; did you mean 'model'\?|unknown key 'modle'"),
        ({"seed": "1111"}, "seed must be a whole number from 0, got '1111'"),
        ({"config": {"nlevel": 4}}, "MMSA's mult has no setting 'nlevel'"),
        ({"dataset": "iemocap"}, "MMSA has no dataset 'iemocap'; expected one of mosi, mosei, sims"),
        ([1], "expected a JSON object, got a list"),
    ],
)
def test_facts_that_cannot_be(
    given: Any, message: str, saved: dict[str, Path], short: dict[bool, Dataset], tmp_path: Path
) -> None:
    (tmp_path / "best.pth").write_bytes(saved["mult"].read_bytes())
    (tmp_path / "best.mmsa.json").write_text(json.dumps(given), "utf-8")
    with pytest.raises(InputError, match=message):
        from_adapter("mmsa:mult", tmp_path / "best.pth", short[False], "cpu")


def test_typed_facts() -> None:
    assert typed_facts("", "dataset=mosei,seed=7").seed == 7
    for rest in ("dataset", "dataset=", "colour=red", "model=mult"):
        with pytest.raises(InputError, match="expected KEY=VALUE with one of dataset, version, seed"):
            typed_facts("mmsa:mult", rest)
    with pytest.raises(InputError, match="seed must be a whole number from 0, got 'x'"):
        typed_facts("mmsa:mult", "seed=x")


# --- what cannot be


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mmsa:bert_mag", "MMSA's bert_mag cannot be run from here: it fetches bert-base-uncased"),
        ("mmsa:mctn", "runs on CUDA alone"),
        ("mmsa:malt", "no model 'malt' of MMSA; did you mean mult|no model 'malt' of MMSA"),
        ("mmsa:", "no model '' of MMSA"),
        ("mmsa:mult:layers=3", "got 'layers=3'"),
    ],
)
def test_models_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_program(text)


def test_what_is_missing_is_asked_for(saved: dict[str, Path], short: dict[bool, Dataset], tmp_path: Path) -> None:
    for text, data, message in (
        ("mmsa:mult", short[True], "MMSA's mult reads text as features; leave --text tokens away"),
        ("mmsa:misa", short[True], r"say the folder it starts from .* mmsa:misa:pretrained=DIR"),
        (f"mmsa:misa:pretrained={tmp_path}/no", short[True], "no such folder with a config.json"),
    ):
        with pytest.raises(InputError, match=message):
            from_adapter(text, saved[text.split(":")[1]], data, "cpu")
    with pytest.raises(InputError, match=r"mmsa:mult: it needs weights: --checkpoint mult-mosi\.pth"):
        from_adapter("mmsa:mult", None, short[False], "cpu")
    odd = Dataset(
        "odd",
        {k: b.replace(audio=torch.ones(len(b), 12, 7)) for k, b in short[False].splits.items()},
        "mosi",
        "embeddings",
    )
    with pytest.raises(InputError, match="no settings for audio of 7 and vision of 20 dims; say whose"):
        from_adapter("mmsa:mult", saved["mult"], odd, "cpu")


def test_tokens_are_asked_for(bert: Path, saved: dict[str, Path], short: dict[bool, Dataset]) -> None:
    with pytest.raises(InputError, match="text_bert is token ids, this text is features; add --text tokens"):
        candidate("misa", short[False], bert, saved["misa"])


def test_weights_that_do_not_fit(saved: dict[str, Path], short: dict[bool, Dataset]) -> None:
    with pytest.raises(InputError) as found:
        from_adapter("mmsa:tfn:dataset=sims", saved["tfn"], short[False], "cpu")
    message = str(found.value)
    assert "the weights do not fit mmsa:tfn as MMSA 2.2.1 sets it up for sims" in message
    assert "of another shape: Model.text_subnet.linear_1.weight is (32, 128) instead of (256, 128)" in message
    assert "dataset=NAME or config=FILE.json" in message
    assert "\n" not in message
    with pytest.raises(InputError, match=r"missing: .*; .* unexpected: "):
        from_adapter("mmsa:lmf", saved["mult"], short[False], "cpu")


def test_another_number_of_steps(saved: dict[str, Path], bert: Path) -> None:
    data = some_data(steps=(14, 14, 14))
    with pytest.raises(InputError, match="it normalises over 12 steps of text and gets 14"):
        candidate("ef_lstm", data, bert, saved["ef_lstm"]).load()


def test_other_files_under_the_same_version_are_told(
    monkeypatch: pytest.MonkeyPatch,
    saved: dict[str, Path],
    short: dict[bool, Dataset],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "config").mkdir()
    for name in ("models/a.py", "config.py", "config/config_regression.json"):
        (tmp_path / name).write_text("", "utf-8")
    before = digest_of(tmp_path)
    (tmp_path / "models" / "a.py").write_text("x = 1\n", "utf-8")
    assert digest_of(tmp_path) != before
    released = from_adapter("mmsa:mult", saved["mult"], short[False], "cpu")
    monkeypatch.setattr("robustbench_msa.adapters.mmsa_package.digest_of", lambda folder: before)
    changed = from_adapter("mmsa:mult", saved["mult"], short[False], "cpu")
    assert "the installed MMSA 2.2.1 is not the release 2.2.1 (its model files differ)" in capsys.readouterr().err
    assert changed.about["adapter"] == "MMSA 2.2.1, not the files of the release"
    assert changed.subject.checkpoint != released.subject.checkpoint


def test_without_mmsa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MMSA.models.AMIO", None)
    with pytest.raises(InputError, match=r"MMSA cannot be imported \(ModuleNotFoundError: .*robustbench-msa\[mmsa\]"):
        find_program("mmsa:mult")


# --- docs/mmsa.md


@pytest.mark.slow
def test_the_page_as_typed(saved: dict[str, Path], tmp_path: Path) -> None:
    """Its first command leads from MMSA's two files to a run."""
    (typed,) = re.findall(r"^(msabench run --model mmsa:mult .*)$", PAGE, re.M)
    (tmp_path / "mult-mosi.pth").write_bytes(saved["mult"].read_bytes())
    batches = {
        split: some_batch(n, split, False, (12, 12, 12)) for split, n in (("train", 8), ("valid", 4), ("test", 6))
    }
    (tmp_path / "aligned_50.pkl").write_bytes(pickle.dumps({split: as_mmsa(b) for split, b in batches.items()}))
    command = [sys.executable, "-m", "robustbench_msa.cli.main", *typed.split()[1:], "--grid", "0,0.4", "--no-plots"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "mmsa_mult" in done.stdout
    assert "msabench: runs the model mmsa:mult: a program from outside, with your rights" in done.stderr
    assert (tmp_path / "reports" / "mosi-missing" / "manifest.json").is_file()


def as_mmsa(batch: Batch) -> dict[str, Any]:
    mask = batch.valid("text").long().numpy()
    arrays = {m: batch.features(m).numpy() for m in ("text", "audio", "vision")}
    bert = np.stack([mask * 7, mask, 0 * mask], axis=1).astype(np.float32)
    return {"id": list(batch.ids), **arrays, "text_bert": bert, "regression_labels": batch.labels.numpy()}


def test_the_pages_python_compiles_and_its_adapters_have_the_convention() -> None:
    blocks = re.findall(r"^```python\n(.*?)\n```", PAGE, re.S | re.M)
    trees = [ast.parse(block) for block in blocks]
    built = [
        [argument.arg for argument in node.args.args]
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "build"
    ]
    assert built == [["checkpoint", "spec"]] * 3
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 120
    assert max(len(block.splitlines()) for block in blocks) < 50


def test_the_page_lists_every_model() -> None:
    rows = "".join(line.partition(" | ")[0] for line in PAGE.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", rows)) >= {*mmsa.MODELS, *mmsa.SIMS_MODELS}
    assert all(f"`{name}`" in PAGE for name in mmsa.OTHERS)
