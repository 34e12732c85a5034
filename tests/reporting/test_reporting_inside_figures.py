"""Figures of the inside of models: what is drawn where, on runs made by hand, and files that hold the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from corruptions import InputError, Stress
from robustbench_msa.analysis.inside.breaking import breaking_info
from robustbench_msa.analysis.inside.calibration import calibration_info
from robustbench_msa.analysis.inside.reliability import reliability_info
from robustbench_msa.analysis.inside.risk import risk_info
from robustbench_msa.analysis.inside.routing import routing_table
from robustbench_msa.data.synth import make_synth
from robustbench_msa.evaluation.cells import Cell, Request, Setting, Subject, plan
from robustbench_msa.evaluation.records import remember
from robustbench_msa.evaluation.store import Result, Runtime, Store
from robustbench_msa.reporting import inside_figures
from robustbench_msa.reporting.breaking_figure import flips_figure, modalities_figure
from robustbench_msa.reporting.calibration_figure import calibration_figure, risk_figure
from robustbench_msa.reporting.experts_figure import experts_figure, features_figure
from robustbench_msa.reporting.inside_panels import signed, slices_of
from robustbench_msa.reporting.reliability_figure import reliability_figure
from robustbench_msa.reporting.routing_figure import routing_figure

SIZES = (8, 4, 40)
TEST = make_synth(seed=5, sizes=SIZES).splits["test"]
N = len(TEST)
LABELS = TEST.labels.numpy()
SETTING = Setting("synth", "d" * 64, "test", "p" * 64, "r" * 64)
RUNTIME = Runtime("cpu", 256, 1, 0.1, "2026-01-01", "host", "3.11", "2.13", "0")
QA, RIDER = Subject("qa_moe", 1, "a" * 64, "clean", 1111), Subject("rider_moe", 1, "b" * 64, "clean", 1111)


def predict(cell: Cell) -> tuple[Any, dict[str, Any]]:
    s = sum(float(v) for v in (cell.severity, cell.severity_2) if v) + (0.3 if cell.condition else 0)
    rng = np.random.default_rng([int(100 * s), cell.seed or 0])
    y = LABELS * (1 - s) + rng.normal(size=N)
    if cell.model == "qa_moe":
        gates = np.concatenate([rng.dirichlet(np.ones(4), N) for _ in range(3)], axis=1)
        return y, {"r": rng.uniform(0.3, 0.7, (N, 3)), "gates": gates, "log_variance": rng.normal(size=N)}
    pi, r = rng.dirichlet(np.ones(5), N), rng.dirichlet(np.ones(3), N)
    extras = {"routing": pi, "experts": rng.normal(size=(N, 5)), "r": r, "entropy": rng.uniform(size=(N, 3))}
    return y, extras | {"consensus": rng.uniform(size=N)}


def run(root: Path, *stresses: tuple[str, str | None], subjects: tuple[Subject, ...] = (QA, RIDER)) -> Path:
    store, requests = Store(root), []
    for text, grid in stresses:
        stress = Stress.parse(text)
        requests.append(Request(stress, stress.grid(grid), (1111,)))
    cells = plan(subjects, SETTING, requests)
    parameters = {"generator": "synth", "seed": 5, "sizes": list(SIZES)}
    about: dict[str, Any] = {"command": "x", "checkpoints": {}, "profile": "mosi", "protocols": {}, "commit": None}
    remember(store, cells, requests, SETTING, {**about, "versions": {}, "dataset": {"parameters": parameters}})
    for cell in cells:
        y, extras = predict(cell)
        present = np.ones((N, 3), dtype=bool)
        facts = {"input_digest": "ab", "realised": {}, "nonfinite": 0}
        result = Result(TEST.ids, TEST.groups, LABELS, y.astype(np.float32), present, extras, facts)
        store.write(cell, result, RUNTIME)
    return root


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, its restriction to text, and two available sets."""
    stresses = ("noise", "0:0.4:0.2"), ("noise:modalities=t", "0,0.2"), ("missing-fixed", "t,a+v,t+a+v")
    return run(tmp_path_factory.mktemp("run") / "r", *stresses)


STEMS = {
    "routing": {"routing-qa_moe-clean-1111-gates", "routing-rider_moe-clean-1111-routing"},
    "reliability": {"reliability-qa_moe-clean-1111", "reliability-rider_moe-clean-1111"},
    "calibration": {"calibration-qa_moe-clean-1111"},
    "risk": {"risk-qa_moe-clean-1111", "risk-rider_moe-clean-1111"},
    "experts": {"experts-rider_moe-clean-1111"},
    "breaking": {"breaking-modalities", "breaking-flips"},
}


@pytest.fixture(scope="module")
def drawn(one: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The stems of all figures of it."""
    out = tmp_path_factory.mktemp("figures") / "made"
    return {what: getattr(inside_figures, f"draw_{what}")(one, out) for what in STEMS}


@pytest.mark.parametrize("what", STEMS)
def test_every_figure_has_its_files(what: str, drawn: dict[str, list[Path]]) -> None:
    assert {stem.name for stem in drawn[what]} == STEMS[what]
    for stem in drawn[what]:
        assert stem.with_name(f"{stem.name}.png").read_bytes().startswith(b"\x89PNG")
        assert stem.with_name(f"{stem.name}.pdf").read_bytes().startswith(b"%PDF")
        assert len(pd.read_csv(stem.with_name(f"{stem.name}.csv"))) > 0


def test_the_csv_is_the_table(one: Path, drawn: dict[str, list[Path]]) -> None:
    table = routing_table(one)
    expected = table[table["model"] == "rider_moe"].reset_index(drop=True)
    found = pd.read_csv(drawn["routing"][0].with_name("routing-rider_moe-clean-1111-routing.csv"))
    np.testing.assert_allclose(found["mean"], expected["mean"])
    assert found["expert"].tolist() == expected["expert"].tolist()


def test_more_tables_beside_the_figure(drawn: dict[str, list[Path]]) -> None:
    folder = drawn["routing"][0].parent
    names = {path.name for path in folder.glob("*.csv")}
    for name in (
        "reliability-qa_moe-clean-1111-bins.csv",
        "reliability-rider_moe-clean-1111-correlations.csv",
        "calibration-qa_moe-clean-1111-coverage.csv",
        "calibration-qa_moe-clean-1111-sparsification.csv",
        "risk-rider_moe-clean-1111-areas.csv",
        "breaking-flips-first.csv",
    ):
        assert name in names
    assert set(pd.read_csv(folder / "risk-rider_moe-clean-1111-areas.csv")["model"]) == {"rider_moe"}


def test_slices_in_the_usual_order(one: Path) -> None:
    slices = slices_of(routing_table(one))
    assert [(s.stress, s.params, s.categorical) for s in slices] == [
        ("noise", "", False),
        ("noise", "modalities=t", False),
        ("missing-fixed", "", True),
    ]
    assert slices[0].labels == ("0\nclean", "0.2", "0.4")
    assert slices[0].x_label == "noise level ρ"
    assert slices[2].labels == ("T", "AV", "TAV")
    assert slices[2].x == (0.0, 1.0, 2.0)


def test_two_axes_are_two_slices(tmp_path: Path) -> None:
    table = routing_table(run(tmp_path / "r", ("spectrum", "0,0.3x0,0.2,0.4"), subjects=(RIDER,)))
    first, second = slices_of(table)
    assert (first.x_label, second.x_label) == ("noise level λ", "missing rate η")
    assert (first.title, second.title) == ("Spectrum\nη = 0", "Spectrum\nλ = 0")
    assert (first.x, second.x) == ((0.0, 0.3), (0.0, 0.2, 0.4))
    rows = second.rows(table)
    assert set(rows["severity"]) == {"0"}
    assert rows["x"].is_monotonic_increasing


def test_lines_and_bands_are_the_tables(one: Path) -> None:
    table = routing_table(one)
    mine = table[table["model"] == "rider_moe"]
    figure = routing_figure("RIDER-MoE", mine)
    ax = figure.axes[0]
    drawn = {line.get_label(): line for line in ax.get_lines()}
    rows = mine[(mine["expert"] == "S") & (mine["stress"] == "noise") & (mine["params"] == "")]
    np.testing.assert_allclose(drawn["S"].get_xdata(), [0, 0.2, 0.4])
    np.testing.assert_allclose(drawn["S"].get_ydata(), rows["mean"])
    assert ax.get_ylabel() == "mean weight"
    assert figure.axes[3].get_ylabel() == "SD of weight\nbetween samples"
    assert [a.get_xlabel() for a in figure.axes[3:]] == ["noise level ρ", "noise level ρ", "available modalities"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["U_T", "U_A", "U_V", "R", "S", "U"]


def test_lines_are_told_apart(tmp_path: Path) -> None:
    subjects = (QA, Subject("qa_moe", 1, "c" * 64, "clean", 1112), Subject("qa_moe", 1, "e" * 64, "spectrum", 1111))
    root = run(tmp_path / "r", ("noise", "0,0.2"), subjects=subjects)
    stems = inside_figures.draw_calibration(root, tmp_path)
    names = {"calibration-qa_moe-clean-1111", "calibration-qa_moe-clean-1112", "calibration-qa_moe-spectrum-1111"}
    assert {stem.name for stem in stems} == names
    for stem in stems:
        assert len(pd.read_csv(stem.with_name(f"{stem.name}.csv"))["checkpoint"].unique()) == 1


@pytest.mark.parametrize(
    ("profile", "error", "flips"), [("mosi", "MAE", "sign"), ("classification", "error rate", "class")]
)
def test_errors_and_flips_have_the_words_of_their_profile(profile: str, error: str, flips: str, one: Path) -> None:
    risk = risk_info(one, models=["qa_moe"])
    assert [ax.get_ylabel() for ax in risk_figure("x", risk, profile=profile).axes][::3] == [
        f"{error}, easiest point ↓",
        f"{error}, hardest point ↓",
    ]
    calibration = calibration_figure("x", calibration_info(one), profile=profile)
    assert f"{error} of the rest ↓" in {ax.get_ylabel() for ax in calibration.axes}
    levels = reliability_info(one, ["qa_moe"])
    reliability = reliability_figure("x", levels, profile=profile)
    assert f"{error} of a fifth\nof samples ↓" in {ax.get_ylabel() for ax in reliability.axes}
    breaking = breaking_info(one)
    drawn = flips_figure(breaking.shares.assign(who="x"), profile=profile)
    assert f"samples whose predicted\n{flips} flips ↓" in {ax.get_ylabel() for ax in drawn.axes}
    bars = modalities_figure(breaking.modalities.assign(who="x"), profile=profile)
    assert {ax.get_xlabel() for ax in bars.axes} == {f"{error} added ↓"}


def test_nothing_to_draw(tmp_path: Path) -> None:
    root = run(tmp_path / "r", ("spectrum", "0,0.3x0,0.4"))
    with pytest.raises(InputError, match="nothing that breaks one modality or has one severity axis"):
        inside_figures.draw_breaking(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_experts_of_the_untouched_input() -> None:
    rows = [
        {
            "stress": "noise",
            "params": "",
            "severity": s,
            "severity_2": None,
            "condition": None,
            "output": o,
            "factor": f,
        }
        | {"correlation": 0.5 if s == "0" else 0.1, "correlation_low": 0.4, "correlation_high": np.nan}
        for s in ("0.2", "0")
        for o in ("R", "prediction")
        for f in ("r", "u_T", "u_A", "u_V", "b_T b_A b_V")
    ]
    figure = experts_figure("RIDER-MoE", pd.DataFrame(rows))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count(".50") == 10
    assert texts.count("[.40, —]") == 10
    assert figure.axes[0].get_title() == "RIDER-MoE, untouched input"
    without = experts_figure("RIDER-MoE", pd.DataFrame(rows[:10]))
    assert without.axes[0].get_title() == "RIDER-MoE"


def test_features_are_coloured_by_label() -> None:
    points, labels = np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([-1.0, 3.0])
    (dots,) = features_figure("EMOE", points, labels).axes[0].collections
    np.testing.assert_array_equal(np.asarray(dots.get_offsets()), points)
    np.testing.assert_array_equal(np.asarray(dots.get_array()), labels)
    assert dots.get_clim() == (-3.0, 3.0)


def test_correlations_in_print() -> None:
    assert [signed(v) for v in (0.0, -0.004, 0.996, -1.0)] == [".00", ".00", "1.00", "−1.00"]
