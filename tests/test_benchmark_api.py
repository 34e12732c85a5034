"""The Python way in: ``from robustbench_msa import benchmark``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import robustbench_msa
from corruptions import InputError, Stress, corrupt
from robustbench_msa.analysis.metrics import score
from robustbench_msa.data.dataset import Dataset
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.cells import Request
from robustbench_msa.models.checkpoint import load_model, read_checkpoint, write_checkpoint
from robustbench_msa.models.contract import InputSpec
from robustbench_msa.models.registry import model_class
from robustbench_msa.run import Benchmark, benchmark, default_out, open_run, resolve_device
from robustbench_msa.training.train import train


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    return make_synth(sizes=(60, 20, 40))


@pytest.fixture(scope="module")
def shelf(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training seeds of one model."""
    shelf = tmp_path_factory.mktemp("shelf")
    for seed in (1111, 1112):
        train("late_fusion", tiny, seed=seed, out=shelf / "synth" / "late_fusion" / "clean" / str(seed), epochs=1)
    return shelf


@pytest.fixture(autouse=True)
def here(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MSABENCH_CHECKPOINTS", str(shelf))


def test_the_readme_call(tiny: Dataset) -> None:
    result = benchmark("late_fusion", stress="missing", grid="0:0.8:0.4", dataset=tiny, seeds=2)
    assert isinstance(result, Benchmark)
    assert result.out == Path("reports/synth-missing")
    assert result.tally.complete
    assert result.tally.computed == 3 * (1 + 2 * 2)
    for frame in (result.curves, result.nauc, result.cells):
        assert isinstance(frame, pd.DataFrame)
        assert not frame.empty
    assert set(result.nauc["model"]) == {"late_fusion", "chance", "oracle"}
    assert set(result.nauc["metric"]) == set(score([1.0, -1.0], [0.5, 1.0]))


def test_null_seeds_are_nulls_and_not_floats(tiny: Dataset) -> None:
    curves = benchmark("late_fusion", "missing", "0,0.4", dataset=tiny, seeds=2).curves
    for name in ("seed", "train_seed", "n", "n_groups", "n_seeds", "n_train_seeds"):
        assert str(curves[name].dtype) == "Int64", name
    assert set(curves["seed"].dropna()) == {1111, 1112}
    assert curves["seed"].isna().any()


def test_scores_against_the_model_called_by_hand(tiny: Dataset, shelf: Path) -> None:
    result = benchmark("late_fusion", "missing-random", "0.5", dataset=tiny, seeds=1, references=False)
    model = load_model(read_checkpoint(shelf / "synth" / "late_fusion" / "clean" / "1111"))
    batch = corrupt(tiny.splits["test"], "missing-random", "0.5", seed=1111)
    with torch.inference_mode():
        expected = score(batch.labels.numpy(), model(batch).prediction.numpy())
    row = result.curves.query("stress == 'missing-random' and seed == 1111").set_index("metric")["value"]
    for metric, value in expected.items():
        assert row[metric] == pytest.approx(value, abs=1e-5), metric


def test_every_training_seed_and_their_mean(tiny: Dataset) -> None:
    nauc = benchmark("late_fusion", "missing", "0,0.4", dataset=tiny, train_seed="all", seeds=1).nauc
    ours = nauc.query("model == 'late_fusion' and metric == 'mae'")
    assert ours["train_seed"].dropna().tolist() == [1111, 1112]
    mean = ours[ours["train_seed"].isna()]["nauc"].item()
    assert mean == pytest.approx(ours[ours["train_seed"].notna()]["nauc"].mean())


def test_chance_is_the_constant_of_the_training_labels(tiny: Dataset) -> None:
    curves = benchmark("chance", "noise", "0,0.5", dataset=tiny, seeds=1, references=False).curves
    assert set(curves["model"]) == {"chance"}
    train_labels, y = (tiny.splits[s].labels.numpy().astype(float) for s in ("train", "test"))
    row = curves.query("stress == 'clean'").set_index("metric")["value"]
    assert row["mae"] == pytest.approx(np.abs(y - np.median(train_labels)).mean(), abs=1e-6)
    assert row["acc2_has0"] == pytest.approx(((y >= 0) == (train_labels.mean() >= 0)).mean())


def test_the_oracle_is_better_than_chance_and_the_model(tiny: Dataset) -> None:
    mae = (
        benchmark("late_fusion", "missing", dataset=tiny, seeds=1)
        .nauc.query("metric == 'mae'")
        .set_index("model")["nauc"]
    )
    assert mae["oracle"] < mae["chance"]
    assert mae["oracle"] < mae["late_fusion"]


def test_no_oracle_where_the_truth_is_not_known(tiny: Dataset, shelf: Path) -> None:
    other = Dataset("other", tiny.splits, text_at="tokens")
    folder = shelf / "synth" / "late_fusion" / "clean" / "1111"
    result = benchmark(stress="missing", grid="0,0.4", checkpoint=folder, dataset=other, seeds=1)
    assert set(result.nauc["model"]) == {"late_fusion", "chance"}
    with pytest.raises(InputError, match="synthetic dataset only"):
        benchmark("oracle", "missing", dataset=other)


def test_progress_is_told(tiny: Dataset) -> None:
    totals: list[tuple[int, int]] = []
    seen: list[tuple[str, bool]] = []

    def call(seeds: int) -> None:
        benchmark(
            "late_fusion",
            "missing",
            "0,0.4",
            dataset=tiny,
            seeds=seeds,
            out="r",
            started=lambda cells, samples: totals.append((cells, samples)),
            progress=lambda cell, ok: seen.append((cell.key, ok)),
        )

    call(1)
    call(2)
    assert totals == [(6, 40), (3, 40)]
    assert len(dict(seen)) == 9
    assert all(ok for _, ok in seen)


def test_open_run_is_the_same_run(tiny: Dataset) -> None:
    result = benchmark("late_fusion", "missing", "0,0.4", dataset=tiny, seeds=1, out="r")
    opened = open_run("r")
    assert opened.tally.complete
    pd.testing.assert_frame_equal(opened.nauc, result.nauc)
    pd.testing.assert_frame_equal(opened.curves, result.curves)
    next(Path("r/predictions").glob("*.parquet")).unlink()
    assert not open_run("r").tally.complete
    with pytest.raises(InputError, match="expected the folder of an msabench run"):
        open_run("elsewhere")


def test_a_protocol_runs_all_its_stresses(tiny: Dataset) -> None:
    Path("mine.toml").write_text(
        'name = "mine"\nversion = 1\nreference = "none"\ndescription = "two"\n'
        '[[stress]]\nname = "missing"\ngrid = "0,0.4"\n'
        '[[stress]]\nname = "missing-random"\ntold = true\ngrid = "0,0.3,0.6"\n',
        "utf-8",
    )
    result = benchmark("late_fusion", protocol="mine.toml", dataset=tiny, seeds=1, references=False)
    assert result.out == Path("reports/synth-mine")
    found = result.nauc[["stress", "params", "grid"]].drop_duplicates()
    assert sorted(map(tuple, found.to_numpy())) == [
        ("missing", "", "0,0.4"),
        ("missing-random", "told=true", "0:0.6:0.3"),
    ]


def test_several_stresses_share_the_clean_cell(tiny: Dataset) -> None:
    result = benchmark("late_fusion", ["missing", "missing-fixed", "missing"], dataset=tiny, seeds=1, references=False)
    assert result.tally.planned == 1 + 4 + 6


def test_natural_absence_is_counted_apart(tiny: Dataset) -> None:
    present = torch.ones(40, 3, dtype=torch.bool)
    present[:10, 1] = False
    splits = {**tiny.splits, "test": tiny.splits["test"].replace(present=present)}
    gappy = Dataset("synth", splits, text_at="tokens")
    cells = benchmark("late_fusion", "missing", "0,0.4", dataset=gappy, seeds=1, references=False).cells
    for realised in cells["realised"].map(dict):
        assert realised["absent_a"] == 0.25
        assert realised["absent_t"] == 0
    clean, missing = (dict(cells.query(f"stress == '{s}'")["realised"].item()) for s in ("clean", "missing"))
    assert clean["lost_a"] == 0
    assert 0 < missing["lost_a"] < 1


def test_every_model_gets_the_same_input(tiny: Dataset) -> None:
    cells = benchmark("late_fusion", "conflict", dataset=tiny, seeds=2, train_seed="all").cells
    digests = cells.groupby(["stress", "severity", cells["seed"].fillna(0)])["input_digest"]
    assert (digests.size() == 4).all()  # two checkpoints, chance, oracle
    assert (digests.nunique() == 1).all()


def test_a_model_that_overflows_is_shown_and_not_hidden(tiny: Dataset, shelf: Path, tmp_path: Path) -> None:
    """Predictions that are not finite: null MAE, counted, and the run is complete."""
    torch.manual_seed(0)
    cls = model_class("late_fusion")
    model = cls(InputSpec(tiny.dims), cls.presets["synth"])
    with torch.no_grad():
        model.head.bias.fill_(float("inf"))
    source = read_checkpoint(shelf / "synth" / "late_fusion" / "clean" / "1111")
    write_checkpoint(tmp_path / "bad", model, source.config)
    given = {"checkpoint": tmp_path / "bad", "dataset": tiny, "seeds": 1, "references": False}
    with pytest.raises(InputError, match="preflight check finite failed: 40 of 40 predictions are NaN or infinite"):
        benchmark(stress="missing", grid="0,0.4", **given)
    result = benchmark(stress="missing", grid="0,0.4", preflight=False, **given)
    assert result.tally.complete
    assert result.cells["flags"].map(list).tolist() == [["finite"]] * 2
    assert (result.cells["nonfinite"] == 40).all()
    mae = result.nauc.query("metric == 'mae'")
    assert mae["nauc"].isna().all()
    assert mae["nulls"].item() == 2
    acc = result.curves.query("metric == 'acc2_has0'")["value"]
    assert (acc == 0).all(), "never right, and never negative"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stress": "missing", "protocol": "rider"}, "a protocol brings its own"),
        ({}, "nothing to run"),
        ({"stress": "missing", "seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"stress": "missing", "batch_size": 0}, "batch size"),
        ({"stress": "missing", "split": "dev"}, "split: expected one of train, valid, test; got 'dev'"),
        ({"stress": "missing", "device": "tpu"}, "device"),
        ({"stress": "missing", "train_seed": "some"}, "train seed"),
        ({"stress": "missing", "grid": "0:1:0.5"}, "outside the stressor's range"),
        ({"stress": ["missing", "noise"], "grid": "0,0.5"}, "exactly one --stress, got 2"),
    ],
)
def test_bad_arguments_write_nothing(arguments, message, tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        benchmark("late_fusion", dataset=tiny, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_default_folders() -> None:
    def request(text: str) -> Request:
        stress = Stress.parse(text)
        return Request(stress, stress.grid(None), (1111,))

    assert default_out("synth", "test", [request("missing")], None) == Path("reports/synth-missing")
    assert default_out("mosi", "valid", [], "rider") == Path("reports/mosi-rider-valid")
    two = [request("missing"), request("missing-random:told=true")]
    assert default_out("synth", "test", two, None) == Path("reports/synth-missing+missing-random-told-true")
    assert default_out("synth", "test", [], "../some/where.toml") == Path("reports/synth-where")


def test_numerics_are_exact_float32() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        resolve_device("cpu")
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_package_says_what_it_offers() -> None:
    assert set(robustbench_msa.__all__) == {"Benchmark", "benchmark", "open_run", "score"}
    for name in robustbench_msa.__all__:
        assert callable(getattr(robustbench_msa, name)), f"{name} is a {type(getattr(robustbench_msa, name))}"
    with pytest.raises(AttributeError, match="no attribute 'benchmrk'"):
        robustbench_msa.benchmrk  # noqa: B018


def test_the_first_import_gives_the_function() -> None:
    """``from robustbench_msa import benchmark`` in a fresh interpreter: the function, not the module of that name."""
    code = "from robustbench_msa import benchmark, score; print(callable(benchmark), callable(score))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60, check=True)
    assert ran.stdout.split() == ["True", "True"]
