"""The numbers that five papers print in their results tables, one tidy row each, with remarks.

To stand beside a run of one's own, in grey: they were obtained elsewhere, on other features and by other protocols.
README.md beside this file says what is in which table.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
import pandas as pd

from corruptions import InputError
from corruptions.registry import did_you_mean

PAPERS = MappingProxyType(
    {
        "qa_moe": "QA-MoE: Towards a Continuous Reliability Spectrum with Quality-Aware Mixture of Experts for Robust "
        "Multimodal Sentiment Analysis",
        "rider_moe": "RIDER-MoE: Reliability-Aware Expert Routing for Robust Multimodal Sentiment Analysis",
        "ca_moe": "Customized-Allocation MoE: Reliable Dynamic Combination via the Attraction-Repulsion for Multimodal "
        "Sentiment Analysis",
        "emoe": "EMOE: Modality-Specific Enhanced Dynamic Emotion Experts",
        "text": "A Text-Routed Sparse Mixture-of-Experts Model with Explanation and Temporal Alignment for Multi-Modal "
        "Sentiment Analysis",
    }
)
"""Full titles by the name of a paper here."""


def published(
    paper: str | None = None, table: str | None = None, dataset: str | None = None, setting: str | None = None
) -> pd.DataFrame:
    """Printed numbers, in the order of the papers' tables.

    Args:
        paper: of PAPERS. table: the paper's own number, as text. dataset: mosi, mosei, sims, mintrec or iemocap.
        setting: clean, aligned, missing-fixed, ...; each None: all.

    Returns:
        paper, table, dataset, setting, model, variant, condition, metric, value (as printed, text), unit, remark (what
        to know of it, often empty) and number (value as float64, in its unit).

    Raises:
        InputError: a paper, table, dataset or setting that is not there.

    >>> rows = published("qa_moe", table="9")
    >>> len(rows), rows["value"].iloc[0], float(rows["number"].max())
    (64, '54.50', 54.5)
    """
    rows = _read().copy()
    for column, wanted in (("paper", paper), ("table", table), ("dataset", dataset), ("setting", setting)):
        if wanted is None:
            continue
        known = list(dict.fromkeys(filter(None, rows[column])))
        rows = rows[rows[column] == str(wanted)]
        if rows.empty:
            near = did_you_mean(str(wanted), known)
            raise InputError(f"published: no {column} {wanted!r}{near}; there is {', '.join(known)}")
    return rows.reset_index(drop=True)


def tables() -> pd.DataFrame:
    """One row a table of a paper and setting: paper, table, setting, datasets, metrics, rows."""
    found = published().groupby(["paper", "table", "setting"], sort=False)
    listed = found.agg(datasets=("dataset", _listed), metrics=("metric", _listed), rows=("value", "size"))
    return listed.reset_index()


@cache
def _read() -> pd.DataFrame:
    with (files(__name__) / "published.csv").open("r", encoding="utf-8") as file:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    return rows.assign(number=rows["value"].astype(np.float64))


def _listed(values: pd.Series[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))
