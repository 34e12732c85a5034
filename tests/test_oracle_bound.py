"""The oracle's bound: on 20,000 synthetic samples, no shipped model is better than the best possible prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from robustbench_msa.analysis.bootstrap import group_weights, replicate_metrics
from robustbench_msa.analysis.metrics import get_profile, sufficient
from robustbench_msa.data.registry import load_dataset
from robustbench_msa.run import benchmark

BOUNDED = ("acc2_has0", "acc2_non0", "acc3", "acc5", "acc7", "mae", "corr")  # F1 shares Acc-2's decision: no bound
MODELS = ["late_fusion", "qa_moe", "rider_moe"]
STRESSES = {"noise": "0.3", "missing": "0.4", "spectrum": "0.3x0.2"}


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Every model and the oracle on the clean input and at one point of each stress."""
    out, large = tmp_path_factory.mktemp("large"), load_dataset("synth:test=20000")
    for stress, grid in STRESSES.items():
        assert benchmark(MODELS, stress, grid, dataset=large, seeds=1, out=out, batch_size=1024).tally.complete
    columns = ["model", "stress", "group", "y_true", "y_pred"]
    rows = pd.read_parquet(out / "predictions", columns=columns)
    oracle = pd.read_parquet(out / "predictions", columns=[*columns, "extras"], filters=[("model", "==", "oracle")])
    return pd.concat([rows[rows["model"] != "oracle"], oracle])


@pytest.mark.slow
@pytest.mark.parametrize("stress", ["clean", *STRESSES])
def test_no_model_beats_the_oracle(predictions: pd.DataFrame, stress: str) -> None:
    cell = predictions[predictions["stress"] == stress]
    better = []
    stats = {model: _stats(some) for model, some in cell.groupby("model")}
    assert set(stats) >= {*MODELS, "oracle"}
    weights = group_weights(len(stats["oracle"]), 500, seed=1)
    drawn = {model: replicate_metrics(s, weights, "mosi") for model, s in stats.items()}
    for model in MODELS:
        for metric in BOUNDED:
            sign = 1.0 if get_profile("mosi").metric(metric).higher_is_better else -1.0
            gain = sign * (drawn[model][metric] - drawn["oracle"][metric])  # paired: the same resamples
            if np.quantile(gain, 0.025) > 0:
                better.append((model, metric, float(np.quantile(gain, 0.025))))
    assert better == []


def _stats(rows: pd.DataFrame) -> np.ndarray:
    """Sufficient statistics per video, with the oracle's own decision for each metric."""
    _, index = np.unique(rows["group"], return_inverse=True)
    own = {}
    if rows["model"].iloc[0] == "oracle":
        extras = [dict(sample) for sample in rows["extras"]]
        own = {m: np.array([sample[f"for_{m}"][0] for sample in extras]) for m in get_profile("mosi").names}
    return sufficient(rows["y_true"], rows["y_pred"], index, index.max() + 1, "mosi", own)
