"""The tables on disk, column by column. Every writer and reader uses these: nothing is inferred from a first file."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from robustbench_msa.printable import printable

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


def _bounded(score: str) -> list[tuple[str, pa.DataType]]:
    """A score and its interval."""
    return [(name, pa.float64()) for name in (score, f"{score}_low", f"{score}_high")]


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
        ("grid_mean_low", pa.float64()),
        ("grid_mean_high", pa.float64()),
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
        ("claim", pa.string()),
        ("sd_train", pa.float64()),
        ("sd_corruption", pa.float64()),
        ("sd_sampling", pa.float64()),
        *_bounded("auc_raw"),
        ("retention_low", pa.float64()),
        ("retention_high", pa.float64()),
        *_bounded("half_life"),
        ("cliff", pa.float64()),
        ("cliff_at", pa.float64()),
        ("area_within_5", pa.float64()),
        ("area_within_10", pa.float64()),
        *_bounded("ce"),
        *_bounded("relative_ce"),
        ("baseline", pa.string()),
        *_bounded("regret"),
        ("oracle", pa.string()),
        ("reasons", pa.map_(pa.string(), pa.string())),
    ]
)
"""One row a metric over a grid. ``nulls`` counts undefined cells; ``note`` says why nauc is null. ``claim``: the
interval is about a checkpoint (groups drawn anew) or a method (training seeds too). The three deviations split the
variance of nauc, or of grid_mean where there is no nauc: between training seeds, between corruption seeds, and over
samples of groups (the standard error). ``baseline``: the line whose errors ce and relative_ce divide by; ``oracle``:
the line that regret is to. ``reasons``: of each score that is null, why. A ``half_life_low`` without a
``half_life_high`` is an interval that is open above."""

_COMPARED = [
    ("dataset", pa.string()),
    ("split", pa.string()),
    ("profile", pa.string()),
    ("stress", pa.string()),
    ("params", pa.string()),
    ("grid", pa.string()),
    ("severity", pa.string()),
    ("severity_2", pa.string()),
    ("condition", pa.string()),
    ("score", pa.string()),
    ("metric", pa.string()),
]
"""``score`` is nauc, grid_mean (of a grid without area) or value (at a point, of no grid)."""


def _line(suffix: str = "") -> list[tuple[str, pa.DataType]]:
    columns = {"model": pa.string(), "recipe": pa.string(), "train_seed": pa.int64(), "checkpoint": pa.string()}
    return [(f"{name}{suffix}", kind) for name, kind in {**columns, "n_train_seeds": pa.int64()}.items()]


COMPARISONS = pa.schema(
    [
        *_line("_a"),
        *_line("_b"),
        *_COMPARED,
        ("value_a", pa.float64()),
        ("value_b", pa.float64()),
        ("difference", pa.float64()),
        *_INTERVAL,
        ("p_bootstrap", pa.float64()),
        ("p_holm", pa.float64()),
        ("p_permutation", pa.float64()),
        ("p_permutation_holm", pa.float64()),
        ("n_tests", pa.int64()),
        ("mdd", pa.float64()),
        ("claim", pa.string()),
        ("n", pa.int64()),
        ("n_groups", pa.int64()),
        ("n_seeds", pa.int64()),
        ("note", pa.string()),
    ]
)
"""One row a pair of lines on a score by a metric. ``difference`` is a - b; ``p_holm`` is p_bootstrap adjusted over the
``n_tests`` pairs of that score; ``mdd`` is the true difference that would be found with power .8."""

RANKS = pa.schema(
    [
        *_line(),
        *_COMPARED,
        ("value", pa.float64()),
        ("rank", pa.int64()),
        ("rank_low", pa.int64()),
        ("rank_high", pa.int64()),
        ("n_lines", pa.int64()),
        ("tie_group", pa.int64()),
        ("tied_with_best", pa.bool_()),
        ("claim", pa.string()),
        ("n", pa.int64()),
        ("n_groups", pa.int64()),
        ("n_seeds", pa.int64()),
        ("note", pa.string()),
    ]
)
"""One row a line on a score by a metric. Lines of ``tie_group`` 1 are not significantly worse than the best (Holm)."""

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


def shown(table: pa.Table) -> pa.Table:
    """The table with its texts as one line each, in which nothing is left that a terminal would obey."""
    for i, field in enumerate(table.schema):
        if not pa.types.is_string(field.type):
            continue
        texts = table.column(i).unique().to_pylist()
        if any(text is not None and text != printable(text) for text in texts):
            plain = [None if text is None else printable(text) for text in table.column(i).to_pylist()]
            table = table.set_column(i, field, pa.array(plain, field.type))
    return table


def frame_of(table: pa.Table) -> pd.DataFrame:
    """pandas with nullable integers, so that a null seed is not a NaN float, and with dicts for maps."""
    frame: pd.DataFrame = table.to_pandas(maps_as_pydicts="strict")
    return frame.astype({f.name: "Int64" for f in table.schema if pa.types.is_integer(f.type)})
