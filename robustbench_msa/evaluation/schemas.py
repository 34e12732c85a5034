"""The tables on disk, column by column. Every writer and reader uses these: nothing is inferred from a first file."""

from __future__ import annotations

import pyarrow as pa

_WHO = [
    ("model", pa.string()),
    ("recipe", pa.string()),
    ("train_seed", pa.int64()),
    ("checkpoint", pa.string()),
    ("dataset", pa.string()),
    ("split", pa.string()),
]
_WHERE = [
    ("stress", pa.string()),
    ("params", pa.string()),
    ("severity", pa.string()),
    ("severity_2", pa.string()),
    ("condition", pa.string()),
    ("seed", pa.int64()),
]
_INTERVAL = [("ci_low", pa.float64()), ("ci_high", pa.float64())]

PREDICTIONS = pa.schema(
    [
        ("key", pa.string()),
        *_WHO,
        *_WHERE,
        ("sample_id", pa.string()),
        ("group", pa.string()),
        ("y_true", pa.float32()),
        ("y_pred", pa.float32()),
        ("present_t", pa.bool_()),
        ("present_a", pa.bool_()),
        ("present_v", pa.bool_()),
        ("extras", pa.map_(pa.string(), pa.list_(pa.float32()))),
    ]
)
"""One row a sample in a cell; one file a cell."""

CURVES = pa.schema(
    [
        *_WHO,
        ("profile", pa.string()),
        *_WHERE,
        ("metric", pa.string()),
        ("value", pa.float64()),
        *_INTERVAL,
        ("n", pa.int64()),
        ("n_groups", pa.int64()),
        ("n_seeds", pa.int64()),
        ("n_train_seeds", pa.int64()),
    ]
)
"""One row a metric in a cell. A null seed is the mean over corruption seeds, a null train_seed over training seeds."""

NAUC = pa.schema(
    [
        *_WHO,
        ("profile", pa.string()),
        ("stress", pa.string()),
        ("params", pa.string()),
        ("grid", pa.string()),
        ("metric", pa.string()),
        ("nauc", pa.float64()),
        *_INTERVAL,
        ("grid_mean", pa.float64()),
        ("worst", pa.float64()),
        ("retention", pa.float64()),
        ("clean", pa.float64()),
        ("floor", pa.float64()),
        ("n", pa.int64()),
        ("n_seeds", pa.int64()),
        ("n_groups", pa.int64()),
        ("n_train_seeds", pa.int64()),
        ("nulls", pa.int64()),
        ("note", pa.string()),
    ]
)
"""One row a metric over a grid. ``nulls`` counts undefined cells; ``note`` says why a score is null."""

CELLS = pa.schema(
    [
        ("key", pa.string()),
        *_WHO,
        *_WHERE,
        ("input_digest", pa.string()),
        ("realised", pa.map_(pa.string(), pa.float64())),
        ("nonfinite", pa.int64()),
        ("flags", pa.list_(pa.string())),
    ]
)
"""One row a cell: the digest of its input, the rates that were really applied, predictions that are not finite."""

RUNTIME = pa.schema(
    [
        ("key", pa.string()),
        ("device", pa.string()),
        ("batch_size", pa.int64()),
        ("threads", pa.int64()),
        ("seconds", pa.float64()),
        ("finished", pa.string()),
        ("host", pa.string()),
        ("python", pa.string()),
        ("torch", pa.string()),
        ("msabench", pa.string()),
    ]
)
"""One row a cell: what it ran on. None of this is part of a key or of any value."""
