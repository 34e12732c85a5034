"""The papers' printed numbers: every row is there, as it was printed, and says what is doubtful."""

from __future__ import annotations

from importlib.resources import files

import pytest

from corruptions import InputError
from robustbench_msa.published import PAPERS, published, tables

ROWS = {
    "qa_moe": {1: 83, 2: 256, 3: 192, 4: 128, 5: 24, 6: 5, 7: 16, 8: 65, 9: 64, 10: 25},
    "rider_moe": {1: 110, 2: 72, 3: 220, 4: 176, 5: 330, 6: 8},
    "ca_moe": {1: 215, 2: 72, 3: 35, 4: 84, 7: 6},
    "emoe": {1: 104, 2: 104, 3: 16, 4: 16, 5: 9, 6: 12},
    "text": {1: 110, 2: 160, 3: 48},
}


def one(**where: str) -> dict[str, object]:
    rows = published(where.pop("paper"), where.pop("table"))
    for column, value in where.items():
        rows = rows[rows[column] == value]
    (found,) = rows.to_dict("records")
    return found


def test_rows_of_every_table() -> None:
    counted = {paper: {} for paper in PAPERS}
    for (paper, table), size in published().groupby(["paper", "table"], sort=False).size().items():
        counted[paper][int(table)] = size
    assert counted == ROWS
    assert len(published()) == 2765


def test_the_list_of_tables_counts_the_same() -> None:
    assert tables().groupby("paper")["rows"].sum().to_dict() == {p: sum(rows.values()) for p, rows in ROWS.items()}


@pytest.mark.parametrize(
    ("where", "printed"),
    [
        ({"paper": "rider_moe", "table": "1", "dataset": "mosi", "model": "TFN", "metric": "acc2"}, "80.8"),
        ({"paper": "rider_moe", "table": "1", "dataset": "mosei", "model": "LMF", "metric": "mae"}, "0.623"),
        (
            {"paper": "rider_moe", "table": "2", "dataset": "mosi", "model": "RIDER-MoE", "metric": "nauc_corr"}
            | {"setting": "conflict"},
            "0.734",
        ),
        ({"paper": "qa_moe", "table": "9", "condition": "lambda=0.4;eta=0.2"}, "40.67"),
        ({"paper": "qa_moe", "table": "1", "dataset": "mosi", "model": "QA-MoE", "metric": "acc7"}, "53.6"),
        ({"paper": "ca_moe", "table": "1", "dataset": "mosi", "model": "CA-MoE", "metric": "mae"}, "0.679"),
        (
            {"paper": "emoe", "table": "1", "setting": "unaligned", "model": "EMOE", "metric": "acc7"},
            "47.8",
        ),
        (
            {"paper": "text", "table": "2", "setting": "with-explanations", "model": "TEXT", "variant": ""}
            | {"metric": "acc2_has0"},
            "85.02",
        ),
    ],
)
def test_spot_values(where: dict[str, str], printed: str) -> None:
    assert one(**where)["value"] == printed


def test_trailing_zeros_are_kept_and_numbers_are_numbers() -> None:
    rows = published()
    assert "54.50" in set(rows["value"])
    assert rows["number"].dtype == float
    assert not rows["number"].isna().any()
    assert set(rows["unit"]) >= {"percent", "raw"}


@pytest.mark.parametrize(
    ("where", "remark"),
    [
        ({"paper": "qa_moe", "table": "3", "condition": "eta=0.3", "model": "QA-MoE"}, "trained anew at each rate"),
        ({"paper": "qa_moe", "table": "2", "condition": "Avg", "dataset": "mosi", "metric": "acc2"}, "six sets"),
        ({"paper": "qa_moe", "table": "5", "variant": "Clean Train", "model": "MMA"}, "equal to table 1's clean test"),
        ({"paper": "rider_moe", "table": "2", "setting": "missing"}, "a real rate of 0.59"),
        (
            {"paper": "text", "table": "2", "setting": "without-explanations", "condition": "a", "metric": "acc7"},
            "chance",
        ),
        ({"paper": "qa_moe", "table": "1", "model": "TFN"}, "copied from EMOE"),
    ],
)
def test_remarks(where: dict[str, str], remark: str) -> None:
    rows = published(where.pop("paper"), where.pop("table"))
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert rows["remark"].str.contains(remark, regex=False).any()


def test_who_does_not_say_what_happens_to_zeros_is_remarked() -> None:
    rows = published()
    silent = rows["metric"].isin(["acc2", "f1", "nauc_acc2"]) & rows["dataset"].isin(["mosi", "mosei"])
    assert rows.loc[silent, "remark"].str.contains("labels of 0 in or out: not stated").all()
    assert not rows.loc[rows["metric"].str.endswith(("_has0", "_non0")), "remark"].str.contains("labels of 0").any()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"paper": "qamoe"}, r"published: no paper 'qamoe'.*there is qa_moe, rider_moe, ca_moe, emoe, text"),
        ({"paper": "emoe", "table": "9"}, r"no table '9'.*there is 1, 2, 3, 4, 5, 6"),
        ({"dataset": "synth"}, r"no dataset 'synth'.*mosi"),
        ({"setting": "spectre"}, r"no setting 'spectre'.*spectrum"),
    ],
)
def test_what_is_not_there_is_said(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        published(**wrong)


def test_what_is_returned_is_the_callers_own() -> None:
    mine = published()
    mine["model"] = "x"
    assert "x" not in set(published()["model"])


def test_it_ships_small() -> None:
    data = (files("robustbench_msa.published") / "published.csv").read_bytes()
    assert len(data) < 300_000
    assert data.count(b"\n") == 2766
    assert (files("robustbench_msa.published") / "README.md").is_file()
