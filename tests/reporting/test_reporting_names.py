from __future__ import annotations

import pytest

from corruptions import STRESSORS
from robustbench_msa.analysis.metrics import PROFILES, get_profile
from robustbench_msa.reporting import names

MOSI = get_profile("mosi")


def test_every_stressor_has_a_title_and_words_for_its_axes():
    for name, stressor in STRESSORS.items():
        assert name in names.STRESSES
        for symbol, words in zip(stressor.axes, names.axis_labels(name, len(stressor.axes)), strict=True):
            assert words == names.AXES[symbol.symbol]


def test_every_profile_has_usual_metrics_that_it_knows():
    assert set(names.DEFAULT_METRICS) == set(PROFILES)
    for profile, metrics in names.DEFAULT_METRICS.items():
        assert set(metrics) <= set(get_profile(profile).names)


def test_arrows_point_to_the_better_side():
    assert names.metric_label(MOSI.metric("acc2_non0")) == "Acc-2 (non-zero) ↑"
    assert names.metric_label(MOSI.metric("mae")) == "MAE ↓"


@pytest.mark.parametrize(
    ("metric", "value", "printed"),
    [
        ("acc2_non0", 0.81249, "81.2"),
        ("acc2_non0", 1.0, "100.0"),
        ("f1_non0", 0.0, "0.0"),
        ("mae", 0.81249, "0.812"),
        ("corr", -0.25, "-0.250"),
        ("corr", -0.0001, "0.000"),
        ("corr", None, "—"),
    ],
)
def test_fractions_print_as_percent_and_the_rest_with_three_decimals(metric, value, printed):
    assert names.format_value(MOSI.metric(metric), value) == printed


def test_intervals():
    assert names.format_interval(MOSI.metric("acc7"), 0.4, 0.456) == "[40.0, 45.6]"
    assert names.format_interval(MOSI.metric("mae"), None, 0.5) == ""
