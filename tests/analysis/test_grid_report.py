"""All scores of one curve: reasons, order, and what each must not depend on."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from corruptions import InputError
from robustbench_msa.analysis import grid_report as reporting
from robustbench_msa.analysis.constants import floor
from robustbench_msa.analysis.grid_curve import Curve, GridCurve
from robustbench_msa.analysis.grid_report import SCORES, grid_replicates, grid_report, grid_reports, standing
from robustbench_msa.analysis.grid_scores import error_form, null_as_floor
from robustbench_msa.analysis.metrics import get_profile, score

DOCS = Path(__file__).parents[2] / "docs" / "scores.md"
LINE, PLANE, CONDITIONS = [[0, 0.1, 0.4]], [[0, 0.1, 0.4], [0, 0.5]], []
OF_MARGIN = {"retention", "half_life", "cliff", "cliff_at", "area_within_5", "area_within_10", "relative_ce"}


def error(values):
    return 1 - values


def shape_of(axes):
    return tuple(len(axis) for axis in axes) or (4,)


def full_report(axes, values, clean, limit, higher=True, baseline=None, oracle=None):
    """With a baseline and an oracle that support every comparison, unless others are given."""
    easy = np.linspace(0.8, 0.4 if higher else 1.2, int(np.prod(shape_of(axes)))).reshape(shape_of(axes))
    baseline = baseline or Curve("base", easy, 0.8)
    as_error = error if higher else np.asarray
    return grid_report(axes, values, clean, limit, higher, baseline, oracle or Curve("oracle", easy, 0.8), as_error)


def reasons(report):
    return {name: reason for name, (_, reason) in report.items() if reason is not None}


def place(report, name, higher):
    return standing(name, *report[name], higher)


def test_the_docs_example_is_right():
    result = doctest.testfile(str(DOCS), module_relative=False)
    assert result.attempted >= 4
    assert result.failed == 0


def test_the_docs_table_names_every_score():
    rows = [line.split("|") for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| `")]
    named = {name: row[4] for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert set(named) == {*SCORES, "mce"}
    for name, scored in SCORES.items():
        assert {"metric": "as the metric", "": "a place"}.get(scored.better, scored.better) in named[name]
    ranking = DOCS.read_text("utf-8").split("## What to rank by")[1].split("keep the order")[0]
    assert set(re.findall(r"`(\w+)`", ranking)) == {name for name, scored in SCORES.items() if scored.ranks}


values_in = st.floats(-0.2, 1.2) | st.sampled_from([np.nan, np.inf, 0.0, 0.5])
grids = st.sampled_from([LINE, PLANE, CONDITIONS, [[0.5]], [[0, 1], [0.5]], [[0.2, 0.3]], [[0]]])


def curve_on(axes):
    return arrays.arrays(np.float64, shape_of(axes), elements=values_in)


@settings(max_examples=300, deadline=None)
@given(st.data(), grids, values_in, values_in, st.booleans(), st.booleans())
def test_a_score_is_a_finite_number_or_null_for_a_reason(data, axes, clean, limit, higher, compared):
    other = [Curve(name, data.draw(curve_on(axes)), data.draw(values_in)) for name in ("base", "oracle")]
    others = (*other, error) if compared else ()
    report = grid_report(axes, data.draw(curve_on(axes)), clean, limit, higher, *others)
    assert list(report) == list(SCORES)
    for value, reason in report.values():
        assert (value is None) == (reason is not None)
        assert value is None or np.isfinite(value)
        assert reason is None or reason.strip()


def test_reasons_of_a_line_a_plane_conditions_and_a_single_severity():
    assert reasons(full_report(LINE, [0.9, 0.8, 0.6], 0.9, 0.5)) == {}
    plane = full_report(PLANE, [[0.9, 0.8], [0.8, 0.7], [0.6, 0.5]], 0.9, 0.5)
    assert reasons(plane) == dict.fromkeys(["auc_raw", "half_life", "cliff", "cliff_at"], reporting.TWO_AXES)
    conditions = full_report(CONDITIONS, [0.5, 0.6, 0.7, 0.9], 0.9, 0.5)
    without_axis = [n for n in SCORES if n not in ("grid_mean", "worst", "ce", "relative_ce")]
    assert reasons(conditions) == dict.fromkeys(without_axis, reporting.NO_AXIS)
    single = full_report([[0.5]], [0.7], 0.9, 0.5, baseline=Curve("base", [0.6], 0.8))
    assert reasons(single) == dict.fromkeys(without_axis, reporting.NO_RANGE)


def test_reasons_of_values():
    never = reasons(full_report(LINE, [0.9, 0.89, 0.88], 0.9, 0.5))
    assert never == {"half_life": reporting.NEVER_HALVED}
    better = reasons(full_report(LINE, [0.8, 0.8, 0.9], 0.8, 0.5))
    assert better == {"half_life": reporting.NEVER_HALVED, "cliff_at": reporting.NO_DROP}
    part = reasons(full_report(LINE, [0.9, np.nan, 0.6], 0.9, 0.5))
    assert part == dict.fromkeys(SCORES, "1 of 3 cells have no value")
    for clean, limit, why in [(0.4, 0.5, "NO_MARGIN"), (None, 0.5, "NO_CLEAN"), (0.9, None, "NO_FLOOR")]:
        found = reasons(full_report(LINE, [0.4, 0.3, 0.2], clean, limit))
        assert found == dict.fromkeys(OF_MARGIN, getattr(reporting, why))
    perfect = reasons(full_report(LINE, [0.0, 0.1, 0.2], 0.0, 0.1, higher=False))
    assert perfect == dict.fromkeys(["area_within_5", "area_within_10"], reporting.NOT_POSITIVE)


def test_reasons_of_comparisons():
    curve = (LINE, [0.9, 0.8, 0.6], 0.9, 0.5)
    alone = reasons(grid_report(*curve, True))
    assert alone == {
        **dict.fromkeys(["ce", "relative_ce"], reporting.NO_ERROR_FORM),
        "regret": reporting.NO_ORACLE,
    }
    assert reasons(grid_report(*curve, True, as_error=error))["ce"] == reporting.NO_BASELINE

    def against(values, clean):
        return reasons(full_report(*curve, baseline=Curve("base", values, clean), oracle=Curve("o", values, clean)))

    flat = "base does not get worse over this grid"
    assert against([0.8, 0.8, 0.8], 0.8) == {"relative_ce": flat}
    assert against([1, 1, 1], 1) == {"ce": "base makes no error on this grid", "relative_ce": flat}
    assert against([0.9, 0.8, 0.7], np.nan) == {"relative_ce": f"base: {reporting.NO_CLEAN}"}
    holes = "2 of 3 cells have no value"
    assert against([0.9, np.nan, np.nan], 0.9) == {
        **dict.fromkeys(["ce", "relative_ce"], f"base: {holes}"),
        "regret": f"o: {holes}",
    }
    only = grid_report([[0]], [0.9], 0.9, 0.5, True, Curve("base", [0.8], 0.8), None, error)
    assert only["ce"] == (None, reporting.NOTHING_STRESSED)


def test_ce_leaves_out_the_untouched_cell():
    baseline = Curve("base", [0.8, 0.7, 0.5], 0.8)
    for clean_cell in (0.9, 0.1):  # whatever it says
        report = grid_report(LINE, [clean_cell, 0.8, 0.6], 0.9, 0.5, True, baseline, None, error)
        np.testing.assert_allclose(report["ce"][0], 0.6 / 0.8)
    plane = np.array([[0.9, 0.8], [0.8, 0.8], [0.8, 0.8]])
    report = grid_report(PLANE, plane, 0.9, 0.5, True, Curve("base", plane - 0.1, 0.8), None, error)
    np.testing.assert_allclose(report["ce"][0], (5 * 0.2) / (5 * 0.3))
    sets = {"values": [0.5, 0.9], "clean": 0.9, "floor": 0.4, "higher_is_better": True, "as_error": error}
    sets["baseline"] = Curve("base", [0.4, 0.8], 0.8)
    np.testing.assert_allclose(grid_report([], **sets)["ce"][0], 0.6 / 0.8)
    np.testing.assert_allclose(grid_report([], **sets, untouched=[False, True])["ce"][0], 0.5 / 0.6)


def test_mae_is_its_own_error_and_lower_is_better():
    mae = error_form(get_profile("mosi").metric("mae"))
    baseline, oracle = Curve("base", [1.0, 1.2, 1.4], 1.0), Curve("oracle", [0.7, 0.8, 0.9], 0.7)
    report = grid_report([[0, 0.5, 1]], [0.8, 0.9, 1.2], 0.8, 1.4, False, baseline, oracle, mae)
    expected = {
        "nauc": 0.95,
        "worst": 1.2,
        "retention": 0.75,
        "half_life": 0.5 + 0.5 * 0.2 / 0.3,
        "cliff": 0.6,
        "cliff_at": 0.5,
        "area_within_5": 0.2,
        "ce": 2.1 / 2.6,
        "relative_ce": 0.5 / 0.6,
        "regret": 0.15,
    }
    np.testing.assert_allclose([report[name][0] for name in expected], list(expected.values()))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([LINE, PLANE, CONDITIONS, [[0.2, 0.3]]]), st.booleans())
def test_a_curve_that_is_better_everywhere_never_ranks_below(data, axes, higher):
    unit = arrays.arrays(np.float64, shape_of(axes), elements=st.floats(0, 1))
    low, gap = data.draw(unit), data.draw(unit)
    sign = 1 if higher else -1
    clean, lead = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))
    worse = full_report(axes, low, clean, data.draw(st.floats(0, 1)), higher)
    better = full_report(axes, low + sign * gap, clean + sign * lead, 0.5, higher)
    for name in SCORES:
        if SCORES[name].ranks:
            assert place(better, name, higher) >= place(worse, name, higher) - 1e-9


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([LINE, PLANE, CONDITIONS]), st.booleans())
def test_a_constant_never_ranks_above_a_model_that_beats_it_everywhere(data, axes, higher):
    sign = 1 if higher else -1
    as_error = error if higher else np.asarray
    limit = data.draw(st.floats(0.2, 0.8))  # the best constant
    level = limit - sign * data.draw(st.floats(0, 0.2))  # this one
    leads = arrays.arrays(np.float64, shape_of(axes), elements=st.floats(1e-3, 0.2))
    model, clean = level + sign * data.draw(leads), level + sign * data.draw(st.floats(1e-3, 0.2))
    baseline = Curve("base", 0.5 - sign * np.linspace(0, 0.2, model.size).reshape(model.shape), 0.5)
    rest = (limit, higher, baseline, baseline, as_error)
    constant, of_model = (
        grid_report(axes, np.full_like(model, level), level, *rest),
        grid_report(axes, model, clean, *rest),
    )
    for name in SCORES:
        if SCORES[name].better:
            assert place(of_model, name, higher) >= place(constant, name, higher)


@pytest.mark.parametrize("metric", ["acc2_non0", "f1_has0", "acc7", "mae", "corr"])
def test_real_constants_have_no_margin_whatever_the_metric(metric):
    labels = np.random.default_rng(0).normal(0.3, 1.5, 200).clip(-3, 3)
    higher = get_profile("mosi").metric(metric).higher_is_better
    limit = floor(labels)[metric]
    for constant in (-3.0, -0.4, 0.0, 0.5, 3.0, np.median(labels)):
        value = score(labels, np.full(200, constant))[metric]
        value = float(null_as_floor(np.nan if value is None else value, metric))
        found = reasons(grid_report(LINE, [value] * 3, value, limit, higher))
        assert found["retention"] == found["half_life"] == found["cliff"] == reporting.NO_MARGIN


WEAK, STRONG = [0.55, 0.55, 0.55], [0.9, 0.85, 0.6]


@pytest.mark.parametrize("name", sorted(n for n, s in SCORES.items() if s.better and not s.ranks))
def test_what_is_not_to_rank_by_puts_a_weak_model_above_a_strong_one(name):
    weak, strong = (full_report(LINE, curve, curve[0], 0.5) for curve in (WEAK, STRONG))
    assert min(STRONG) > max(WEAK)
    assert place(weak, name, True) > place(strong, name, True)


@settings(max_examples=80, deadline=None)
@given(curve_on(LINE).filter(lambda c: np.isfinite(c).all()), st.sampled_from([0.1, 2.0, 30.0]))
def test_what_the_unit_of_severity_changes(values, unit):
    values = values.round(6)
    assume(abs(values[0] - 0.5) > 1e-3)
    report = full_report(LINE, values, values[0], 0.5)
    scaled = full_report(np.multiply(LINE, unit), values, values[0], 0.5)
    factor = {"auc_raw": unit, "half_life": unit, "cliff_at": unit, "cliff": 1 / unit}
    for name, (value, reason) in report.items():
        assert scaled[name][1] == reason
        if value is not None:
            np.testing.assert_allclose(scaled[name][0], value * factor.get(name, 1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("axes", [LINE, PLANE, CONDITIONS])
def test_replicates_are_the_reports_of_each(axes):
    rng = np.random.default_rng(3)
    shape = shape_of(axes)
    values, other, ideal = (rng.uniform(low, low + 0.4, (*shape, 20)) for low in (0.4, 0.3, 0.6))
    clean, other_clean = rng.uniform(0.45, 0.9, 20), rng.uniform(0.6, 0.8, 20)
    drawn = grid_replicates(
        GridCurve(
            axes, values, clean, 0.5, True, Curve("base", other, other_clean), Curve("oracle", ideal, clean), error
        )
    )
    assert list(drawn) == list(SCORES)
    for i in range(20):
        base, oracle = Curve("base", other[..., i], other_clean[i]), Curve("oracle", ideal[..., i], clean[i])
        report = grid_report(axes, values[..., i], clean[i], 0.5, True, base, oracle, error)
        for name, (value, reason) in report.items():
            value = 0.4 if reason == reporting.NEVER_HALVED else np.nan if value is None else value
            np.testing.assert_allclose(drawn[name][i], value, rtol=1e-12, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(st.data(), grids, st.booleans(), st.booleans())
def test_many_reports_at_once_are_the_reports_of_each(data, axes, higher, compared):
    shape = (*shape_of(axes), 3)
    curves = arrays.arrays(np.float64, shape, elements=values_in)
    own, base, ideal = data.draw(curves), data.draw(curves), data.draw(curves)
    clean, limit = (data.draw(arrays.arrays(np.float64, 3, elements=values_in)) for _ in range(2))
    others = (Curve("base", base, clean), Curve("oracle", ideal, clean), error) if compared else (None, None, None)
    together = grid_reports(GridCurve(axes, own, clean, limit, higher, *others))
    assert len(together) == 3
    for i, report in enumerate(together):
        of_one = (Curve("base", base[..., i], clean[i]), Curve("oracle", ideal[..., i], clean[i]), error)
        alone = grid_report(axes, own[..., i], clean[i], limit[i], higher, *(of_one if compared else others))
        assert reasons(report) == reasons(alone)
        for name, (value, _) in alone.items():
            assert value is None or np.isclose(report[name][0], value, rtol=1e-12)


def test_an_interval_of_half_lives_ends_where_the_grid_does():
    ends = np.linspace(0.5, 0.8, 101)
    curve = GridCurve([[0, 1]], np.stack([np.full(101, 0.9), ends]), np.full(101, 0.9), 0.5, True)
    low, high = np.quantile(grid_replicates(curve)["half_life"], [0.025, 0.975])
    assert 0.5 <= low < 0.6
    assert high == 1


def test_sorting():
    assert standing("nauc", 0.5, None, True) > standing("nauc", 0.4, None, True) > standing("nauc", None, "x", True)
    assert standing("regret", 0.1, None, True) > standing("regret", 0.2, None, True)
    assert standing("retention", 0.2, None, False) > standing("retention", 0.1, None, False)
    for name, message in [("cliff_at", "cannot sort by 'cliff_at'"), ("nacu", "cannot sort by 'nacu'.*nauc")]:
        with pytest.raises(InputError, match=message):
            standing(name, 0.1, None, True)


@pytest.mark.parametrize(
    ("axes", "values", "others", "message"),
    [
        ([[0, 1]] * 3, np.ones((2, 2, 2)), {}, "expected one or two"),
        ([], 0.5, {}, "one for each cell"),
        ([], [], {}, "one for each cell"),
        ([[0, 1]], [0.5, 0.4, 0.3], {}, r"expected the grid \(2,\)"),
        ([[1, 0]], [0.5, 0.4], {}, "strictly increase"),
        ([[0, 1]], np.ones((2, 5)), {}, r"expected values of shape \(2,\), got \(2, 5\)"),
        ([[0, 1]], [0.5, 0.4], {"baseline": Curve("late_fusion", [0.5], 0.5)}, r"late_fusion: expected \(2,\)"),
        ([[0, 1]], [0.5, 0.4], {"oracle": Curve("oracle", [[0.5], [0.4]], 0.5)}, r"oracle: expected \(2,\)"),
        ([[0, 1]], [0.5, 0.4], {"untouched": [True]}, r"untouched: expected the shape of the grid, \(2,\)"),
    ],
)
def test_what_is_not_on_the_grid_is_refused(axes, values, others, message):
    with pytest.raises(InputError, match=message):
        grid_report(axes, values, 0.9, 0.5, True, **others)
