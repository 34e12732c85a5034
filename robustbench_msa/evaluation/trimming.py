"""Padding is not computed: samples of like length go through an encoder together, cut to the longest of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustbench_msa.evaluation.rows import joined
from robustbench_msa.models.contract import Part

BUCKETS, AT_LEAST = 8, 32
"""Buckets of a batch at most, and samples in each at least."""
WORTH = 0.9
"""A batch is sorted into buckets when they leave no more than this share of its steps."""


def by_length(encode: Callable[[Tensor, Tensor], Part], x: Tensor, lengths: Tensor) -> Part:
    """What an encoder that pools its steps gives for a batch, in the order of the batch.

    Which samples go together depends on the batch's lengths alone. Of a model on whose encodings padding has no
    influence the result is the same but for the order of sums.

    Args:
        encode: of features ``(n, t, ...)`` and lengths ``(n,)``, for any n and t from 1.
        x: ``(N, T, ...)``. lengths: ``(N,)``.
    """
    n, longest = len(x), _longest(lengths)
    order = lengths.argsort(stable=True)
    buckets = order.chunk(max(1, min(BUCKETS, n // AT_LEAST)))
    if sum(len(rows) * _longest(lengths[rows]) for rows in buckets) > WORTH * n * longest:
        return encode(x[:, :longest], lengths)
    parts = [encode(x[:, : _longest(lengths[rows])].index_select(0, rows), lengths[rows]) for rows in buckets]
    back = order.argsort()
    return {name: values.index_select(0, back) for name, values in joined(parts).items()}


def _longest(lengths: Tensor) -> int:
    return max(1, int(lengths.max()))
