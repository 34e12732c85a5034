"""``msabench plot`` of what happens inside models: figures where the run has the extras, one clear line where not."""

from __future__ import annotations

import re

import pytest

from robustbench_msa.data.synth import make_synth
from robustbench_msa.run import benchmark

INSIDE = ("routing", "reliability", "calibration", "risk", "experts", "breaking")


@pytest.fixture
def done(checkpoint, tmp_path):
    """A finished run of a model without extras."""
    out = tmp_path / "r"
    tiny = make_synth(sizes=(60, 20, 40))
    benchmark("late_fusion", "noise", "0,0.3", checkpoint=checkpoint.path, dataset=tiny, seeds=1, out=out)
    return out


def test_breaking_needs_no_extras(done, msabench) -> None:
    ran = msabench("plot", "breaking", done)
    assert (ran.code, ran.err) == (0, "")
    assert "breaking-flips.png (.pdf, .csv)" in ran.out
    for name in ("breaking-flips.png", "breaking-flips.pdf", "breaking-flips.csv", "breaking-flips-first.csv"):
        assert (done / "figures" / name).stat().st_size > 0
    assert msabench("plot", "breaking", done, "--out", "elsewhere").code == 0


@pytest.mark.parametrize("what", [name for name in INSIDE if name != "breaking"])
def test_missing_extras_are_one_line(what: str, done, msabench) -> None:
    ran = msabench("plot", what, done)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert re.search(r"late_fusion stores no [\w ]+ \(extra .*\); .*(qa_moe|rider_moe)", ran.err), ran.err


@pytest.mark.parametrize("what", INSIDE)
def test_no_run(what: str, msabench) -> None:
    ran = msabench("plot", what, "nowhere")
    assert ran.code == 2
    assert "no manifest.json there" in ran.err


@pytest.mark.parametrize("what", INSIDE)
def test_help_shows_an_example(what: str, msabench) -> None:
    ran = msabench("plot", what, "--help")
    assert ran.code == 0
    assert f"msabench plot {what} reports/" in ran.out
