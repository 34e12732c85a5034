"""What breaks a model: added error by hand, and signs that flip at a known severity."""

from __future__ import annotations

import numpy as np
import pytest

from corruptions import InputError
from robustbench_msa.analysis.inside.breaking import breaking_info
from robustbench_msa.analysis.inside.cells import Inside

N = 60


def test_the_loss_of_each_modality(made) -> None:
    adds = {"a+v": 0.5, "t+v": 0.25, "t+a": 0.125, "t": 9.0, None: 0.0}

    def predict(cell):
        return {"y_pred": made.labels + 1 + adds[cell.condition]}

    made.add(predict, ("missing-fixed", "t,t+a,t+v,a+v,t+a+v"))
    table = breaking_info(made.root).modalities.set_index("modality")
    assert dict(table["mae_added"].round(5)) == {"text": 0.5, "audio": 0.25, "vision": 0.125}
    assert table.loc["text", "condition"] == "a+v"


def test_a_stress_restricted_to_one_modality(made) -> None:
    def predict(cell):
        return {"y_pred": made.labels + float(cell.severity or 0)}

    made.add(predict, ("noise:modalities=a", "0,0.1,0.2"), ("noise:modalities=av", "0,0.1"), ("noise", "0,0.1"))
    table = breaking_info(made.root).modalities
    assert table["modality"].tolist() == ["audio", "audio"]
    np.testing.assert_allclose(table["mae_added"], [0.1, 0.2], atol=1e-6)


def test_the_smallest_severity_at_which_a_sign_flips(made) -> None:
    clean = np.where(np.arange(N) % 2, 1.0, -1.0) * np.linspace(0.1, 3, N)

    def predict(cell):
        s, y = float(cell.severity or 0), clean.copy()
        if s >= 0.1:
            y[[4, 7]] *= -1
        if s >= 0.2:
            y[9] *= -1
            y[4] = clean[4]  # flips back: its first flip counts
        if cell.seed == 1112 and s == 0.3:
            y[11] *= -1  # in one seed of three: not yet half
        return {"y_pred": y}

    made.add(predict, ("noise", "0:0.3:0.1"), seeds=3)
    info = breaking_info(made.root)
    flips = info.flips
    assert flips["id"].tolist() == [made.ids[7], made.ids[4], made.ids[9]]  # the surest clean prediction first
    assert flips["severity"].tolist() == ["0.1", "0.1", "0.2"]
    np.testing.assert_allclose(flips["clean_prediction"], clean[[7, 4, 9]], rtol=1e-6)
    np.testing.assert_allclose(flips["prediction"], -clean[[7, 4, 9]], rtol=1e-6)
    np.testing.assert_allclose(flips["label"], made.labels[[7, 4, 9]])
    assert flips["flipped_seeds"].tolist() == flips["n_seeds"].tolist() == [3, 3, 3]
    np.testing.assert_allclose(info.shares["flipped"], [0, 2 / N, 2 / N, (2 * 3 + 1) / (3 * N)])
    assert info.shares["severity"].tolist() == ["0", "0.1", "0.2", "0.3"]


def test_a_prediction_of_zero_is_not_negative(made) -> None:
    made.add(lambda cell: {"y_pred": np.full(N, 0.0 if cell.is_clean else 0.1)}, ("noise", "0,0.1"))
    assert breaking_info(made.root).flips.empty


def test_cells_in_another_order_are_matched_by_id(made) -> None:
    order = np.random.default_rng(0).permutation(N)

    def predict(cell):
        rows = np.arange(N) if cell.is_clean else order
        given = {"ids": [made.ids[i] for i in rows], "groups": [made.videos[i] for i in rows]}
        return {"y_pred": made.labels[rows] + 1, "y_true": made.labels[rows], **given}

    made.add(predict, ("noise:modalities=t", "0,0.1"))
    info = breaking_info(made.root)
    assert info.flips.empty
    np.testing.assert_allclose(info.modalities["mae_added"], 0, atol=1e-9)


def test_other_samples_than_the_clean_ones(made) -> None:
    def predict(cell):
        ids = made.ids if cell.is_clean else ["unknown", *made.ids[1:]]
        return {"y_pred": made.labels, "ids": ids}

    made.add(predict, ("noise", "0,0.1"))
    with pytest.raises(InputError, match="samples that the clean cell lacks"):
        breaking_info(made.root)


def test_no_clean_cell(made) -> None:
    cells = made.add(lambda cell: {"y_pred": made.labels}, ("noise", "0,0.1"))
    made.store.path(cells[0].key).unlink()
    assert len(Inside(made.root).sweeps()[0].points) == 1
    with pytest.raises(InputError, match="no clean cell"):
        breaking_info(made.root)
