from __future__ import annotations

import matplotlib
import pandas as pd
from PIL import Image

from robustbench_msa.reporting.curves_figure import curves_figure, curves_info
from robustbench_msa.reporting.figure_files import DPI, save_figure


def test_three_files_of_which_the_table_is_the_info(two_stresses, tmp_path):
    info = curves_info(two_stresses)
    figure = curves_figure(info)
    paths = save_figure(figure, info.frame(), tmp_path / "missing-0.8")
    assert [path.name for path in paths] == ["missing-0.8.png", "missing-0.8.pdf", "missing-0.8.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    with Image.open(paths[0]) as image:
        assert image.size == tuple((figure.get_size_inches() * DPI).round().astype(int))
        assert "Software" not in image.info
    drawn = info.frame()
    texts = dict.fromkeys(("stress", "params", "metric", "model", "recipe", "label", "at"), str)
    nulls = {name: [""] for name in ("train_seed", "value", "ci_low", "ci_high")}
    read = pd.read_csv(paths[2], dtype={**texts, "train_seed": "Int64"}, keep_default_na=False, na_values=nulls)
    pd.testing.assert_frame_equal(read, drawn, check_dtype=False, check_exact=True)


def test_the_same_figure_has_the_same_bytes(two_stresses, tmp_path):
    info = curves_info(two_stresses)
    first = save_figure(curves_figure(info), info.frame(), tmp_path / "first")
    second = save_figure(curves_figure(info), info.frame(), tmp_path / "second")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    pdf = first[1].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/Subtype /TrueType" in pdf or b"/CIDFontType2" in pdf  # text stays text
    assert b"/Type3" not in pdf


def test_settings_of_others_are_left_alone_and_do_not_matter(two_stresses, tmp_path):
    info = curves_info(two_stresses)
    plain = save_figure(curves_figure(info), info.frame(), tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20.0, "axes.titlepad": 30.0, "pdf.fonttype": 3}):
        changed = save_figure(curves_figure(info), info.frame(), tmp_path / "changed")
        assert matplotlib.rcParams["font.size"] == 20.0
    assert plain[1].read_bytes() == changed[1].read_bytes()
    assert plain[0].read_bytes() == changed[0].read_bytes()
