"""Stressors of other packages: registered by hand or found among entry points, never silently another one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from corruptions import STRESSORS, Batch, InputError, Stress, Stressor, corrupt, registry
from corruptions.corruption import Features
from corruptions.grid import Axis
from corruptions.registry import find, register

SOURCE = """
from corruptions.corruption import Features
from corruptions.grid import Axis
from corruptions import Stressor

class Hum(Stressor):
    name = "hum"
    version = 2
    axes = STRESSORS_AXES
    default_grid = "0:1:0.5"
    summary = "a constant on audio"
    formula = "x + s"
    source = "none"
    option_table = {}
    touches_features = True
    acts_on = "a"
    random = False

    def features(self, batch, point, draws, reference, pool, options):
        return Features(batch.replace(audio=batch.audio + float(point.values[0])))
"""


class Hum(Stressor):
    name = "hum"
    axes = STRESSORS["missing"].axes
    default_grid = "0:1:0.5"
    summary, formula, source = "a constant on audio", "x + s", "none"
    option_table = {}
    touches_features = True
    acts_on = "a"
    random = False

    def features(self, batch, point, draws, reference, pool, options):  # type: ignore[no-untyped-def]
        return Features(batch.replace(audio=batch.audio + float(point.values[0])))


@pytest.fixture(autouse=True)
def as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(STRESSORS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    STRESSORS.clear()
    STRESSORS.update(before)
    find.cache_clear()
    sys.modules.pop("humming", None)


def some_batch() -> Batch:
    x = np.ones((3, 4, 2))
    return Batch(x, x, x)


def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, value: str = "humming:Hum") -> None:
    text = source.replace("STRESSORS_AXES", "__import__('corruptions').STRESSORS['missing'].axes")
    (tmp_path / "humming.py").write_text(text, "utf-8")
    sys.modules.pop("humming", None)
    find.cache_clear()
    STRESSORS.pop("hum", None)
    entry = EntryPoint("hum", value, registry.PLUGINS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])


def test_a_stressor_of_ones_own() -> None:
    assert isinstance(Hum.axes[0], Axis)
    register(Hum())
    np.testing.assert_array_equal(corrupt(some_batch(), "hum", 0.5).audio, np.full((3, 4, 2), 1.5))
    register(Hum())  # again is welcome
    Stress.parse("hum+missing").grid("0.5x0.4")


@pytest.mark.parametrize(
    ("stressor", "message"),
    [
        (Hum, "must be an instance of corruptions.Stressor, got ABCMeta|must be an instance of corruptions.Stressor"),
        (type("Taken", (Hum,), {"name": "missing"})(), "there is another one of this name"),
        (type("Odd", (Hum,), {"name": "a+b"})(), "expected a name of small letters"),
    ],
)
def test_what_cannot_be_registered(stressor: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register(stressor)  # type: ignore[arg-type]


def test_one_that_a_package_brings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, tmp_path, SOURCE)
    for _ in range(2):
        np.testing.assert_array_equal(corrupt(some_batch(), "hum", 0.5).audio, np.full((3, 4, 2), 1.5))
    said = "msabench: runs the stressor hum = humming:Hum: a program from outside, with your rights\n"
    assert capsys.readouterr().err == said
    first = find("hum").version
    assert first % 1000 == 2
    installed(monkeypatch, tmp_path, SOURCE + "\n# changed\n")
    assert find("hum").version % 1000 == 2
    assert find("hum").version != first  # a changed file is another stressor
    installed(monkeypatch, tmp_path, SOURCE)
    assert find("hum").version == first


def test_a_name_that_nobody_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, tmp_path, SOURCE)
    with pytest.raises(InputError, match=r"unknown stress 'humm' \(did you mean 'hum'\?\); known: .*worst-case, hum$"):
        find("humm")


@pytest.mark.parametrize(
    ("source", "value", "message"),
    [
        (
            "import nowhere_at_all",
            "humming:Hum",
            "cannot be used: ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        (SOURCE, "humming:Hmu", "cannot be used: AttributeError"),
        (SOURCE.replace('name = "hum"', 'name = "noise"'), "humming:Hum", "the stressor calls itself noise"),
        ("Hum = 3", "humming:Hum", "plug-in hum = humming:Hum"),
    ],
)
def test_one_that_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, value: str, message: str
) -> None:
    installed(monkeypatch, tmp_path, source, value)
    with pytest.raises(InputError, match=message) as caught:
        Stress.parse("hum")
    assert "\n" not in str(caught.value)
    assert "hum" not in STRESSORS
