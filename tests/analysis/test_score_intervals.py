"""How often intervals of retention, half-life, CE and regret hold the truth. ``coverage.py`` has the larger runs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from coverage import METRICS, Tally, simulate

from robustbench_msa.analysis.score_intervals import WITH_INTERVAL, Errors


@cache
def simulated() -> dict[tuple[str, str, str], Tally]:
    return simulate(31, 40, rivals=True)


def mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


@pytest.mark.parametrize("name", WITH_INTERVAL)
def test_95_percent_intervals_hold_the_truth_in_95_percent(name):
    """Forty test sets by nine metrics that go together: within two standard errors of about two points."""
    for model in ("strong", "weak"):
        assert 0.90 < mean(simulated()[model, name, "ours"].held) <= 0.995, model


def test_they_cover_better_than_percentiles():
    ours, simple = (
        np.mean([mean(simulated()["strong", name, kind].held) for name in WITH_INTERVAL])
        for kind in ("ours", "percentile")
    )
    assert ours > simple


def test_without_a_margin_to_speak_of_retention_has_no_interval():
    assert mean(simulated()["strong", "retention", "ours"].given) > 0.98
    assert mean(simulated()["weak", "retention", "ours"].given) < 0.85


def test_a_half_life_that_may_lie_beyond_the_grid_is_open_above():
    tally = simulated()["strong", "half_life", "ours"]
    assert mean(tally.given) == 1
    assert 0.5 < mean(tally.closed) < 0.95


def test_error_forms_are_linear():
    errors = Errors.of(METRICS)
    for i, metric in enumerate(METRICS):
        expected = {"mae": 0.3, "corr": np.nan}.get(metric.name, np.nan if metric.name.startswith("f1") else 0.7)
        np.testing.assert_allclose(errors.offset[i] + errors.slope[i] * 0.3, expected)
